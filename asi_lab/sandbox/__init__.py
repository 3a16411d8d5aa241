"""Confinement of trials: a ladder of three levels, probed by use.

    bubblewrap   namespaces: what is not bound does not exist, no network, no other processes;
                 a system call filter
    landlock     the kernel's file rules, and a system call filter without sockets
    limits       resource limits and a scrubbed environment; the trial keeps the user's rights

Every level limits memory, processes, file sizes, CPU time and open files, runs the trial in a session of its
own that dies as a whole, and passes none of the user's environment. Which level holds is found out by running
it (`probe`), with canaries that must fail; it is not changed while an engine runs.
"""

from asi_lab.sandbox.command import Sandbox
from asi_lab.sandbox.ladder import ProbedLevel, choose, probe, uncovered
from asi_lab.sandbox.policy import Level, Policy

__all__ = ["Level", "Policy", "ProbedLevel", "Sandbox", "choose", "probe", "uncovered"]
