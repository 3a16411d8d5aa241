"""The engineer: reads a candidate's source, has it trained and evaluated in a trial, judges what came out.

All of it belongs to the engine and imports no torch; what runs inside the trial is `asi_lab.trial.train`.
"""
