"""The engineer: checks, trains and evaluates a candidate, and judges what came out.

`contract`, `run`, `executor` and `judge` belong to the engine and import no torch; `preflight` runs
in the trial process.
"""
