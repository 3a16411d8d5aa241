"""Architectures that a lab begins with: the best of another lab, tried here before anything else.

They lie in `imports.jsonl` in the lab, a proposal a line. Their code is candidates' code like any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from asi_lab.common import disk
from asi_lab.errors import ConfigError
from asi_lab.lab.store import Store
from asi_lab.records import SEED_ID, Candidate, CandidateState, Proposal

FILE_NAME = "imports.jsonl"
RESEARCHER = "import"
MOST_BYTES = 1 << 26


def best_of(store: Store, count: int, origin: str) -> list[Proposal]:
    """The architectures of highest merit in a lab, best first; `origin` names the lab in words."""
    done = [s for s in store.summaries() if s.state is CandidateState.DONE and s.id != SEED_ID]
    ranked = sorted((s for s in done if s.merit is not None), key=lambda s: (-(s.merit or 0.0), s.id))
    found = (store.get(summary.id) for summary in ranked[:count])
    return [_imported(candidate, origin) for candidate in found if candidate and candidate.proposal]


def _imported(candidate: Candidate, origin: str) -> Proposal:
    proposal = candidate.proposal
    assert proposal is not None
    return Proposal(
        name=proposal.name,
        motivation=proposal.motivation,
        change=f"candidate {candidate.id} of {origin}",
        code=proposal.code,
        researcher=RESEARCHER,
        model=proposal.model,
        genome=proposal.genome,
    )


def write(lab: Path, proposals: Sequence[Proposal]) -> None:
    """Have a new lab begin with these. Raises OSError."""
    disk.write(lab / FILE_NAME, msgspec.json.Encoder().encode_lines(proposals))


def read(lab: Path) -> dict[int, Proposal]:
    """What a lab begins with, by the ids that its candidates get; empty for most labs.

    Raises:
        ConfigError: the file does not hold proposals.
    """
    path = lab / FILE_NAME
    if not path.exists():
        return {}
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ConfigError(
                f"{path}: expected at most {MOST_BYTES:,} bytes; found more. Remove some lines."
            )
        lines = path.read_bytes().splitlines()
        return {
            number: msgspec.json.decode(line, type=Proposal) for number, line in enumerate(lines, start=1)
        }
    except (OSError, msgspec.MsgspecError) as error:
        raise ConfigError(
            f"{path}: expected a proposal in each line; {error}. Put it right, or remove the file."
        ) from None
