"""Checks of a candidate's layer before it is trained; measured, not asked. Runs in the trial process.

    interface     construction, parameters, shapes, dtype, state_dict     the contract as it runs
    isolation     repeatability, state, batch                             nothing comes in from elsewhere
    causality     causality, statistics                                   nothing comes in from later
    gradients     gradients
    learning      learning
    growth        growth                                                  at most n log n
    cost          cost                                                    time and memory of a step

Leaks and dead parameters may hide behind gates that are shut at first, so those checks run at
initialisation, with all parameters randomised and after a few overfit steps, and again on the trained model.
Candidate code runs in this process and could deceive these checks; what it cannot deceive are the prefix
checks of the scorer.
"""

from asi_lab.trial.preflight.examine import Exam, Verdict, examine, recheck

__all__ = ["Exam", "Verdict", "examine", "recheck"]
