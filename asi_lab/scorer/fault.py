"""What a candidate did wrong while it was scored."""

from __future__ import annotations

from asi_lab.records import CandidateState


class CandidateFault(Exception):
    """The candidate cannot be scored and ends in `state`; the message is the evidence.

    Not a `LabError`: a candidate that fails is a result of the search.
    """

    def __init__(self, state: CandidateState, evidence: str) -> None:
        super().__init__(evidence)
        self.state = state
