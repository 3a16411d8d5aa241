"""What became of the candidates that insights led to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

import msgspec

from asi_lab.records import Candidate, CandidateState


class EntryStanding(msgspec.Struct, frozen=True):
    """One entry's candidates: how many, how many were scored, and how many of these have a merit over their
    parent's beyond the noise of two runs; `gain` is the mean difference in merit of the scored ones."""

    key: str
    candidates: int
    scored: int
    better: int
    gain: float | None


def standings(candidates: Iterable[Candidate]) -> list[EntryStanding]:
    """All entries that led to candidates, the most fruitful first."""
    known = {candidate.id: candidate for candidate in candidates}
    by_key: dict[str, list[Candidate]] = defaultdict(list)
    for candidate in known.values():
        for cognition in candidate.proposal.cognitions if candidate.proposal else ():
            by_key[cognition.key].append(candidate)
    found = [_standing(key, own, known) for key, own in by_key.items()]
    return sorted(found, key=lambda one: (-one.better, -(one.gain or 0.0), one.key))


def _standing(key: str, own: list[Candidate], known: Mapping[int, Candidate]) -> EntryStanding:
    gains = []
    for candidate in own:
        parent = known.get(candidate.parent) if candidate.parent is not None else None
        if candidate.state is CandidateState.DONE and candidate.score and parent and parent.score:
            noise = candidate.score.noise.fitness * 2**0.5
            gains.append((candidate.score.merit - parent.score.merit, noise))
    return EntryStanding(
        key,
        candidates=len(own),
        scored=len(gains),
        better=sum(gain > noise for gain, noise in gains),
        gain=sum(gain for gain, _ in gains) / len(gains) if gains else None,
    )
