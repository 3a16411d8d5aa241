"""The form of an argument for one step of the grammar."""

from __future__ import annotations

from typing import NamedTuple


class Argument(NamedTuple):
    """Why a change may help, what it may cost, and what we expect to see, a sentence each.

    `{old}` and `{new}` stand for the two values of a gene that is a number. The expectation is a
    hypothesis, to be confirmed or refuted by the trial.
    """

    why: str
    cost: str
    expect: str


Arguments = dict[tuple[str, object], Argument]
"""Arguments by gene and value arrived at, or by gene and direction of the step for numbers."""
