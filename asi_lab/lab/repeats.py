"""Further runs of candidates with other seeds, which show whether a result was luck.

They are kept beside the records: a candidate's fitness, its place in the pool and its commit stay those of
its first run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from asi_lab.lab.store import Store
from asi_lab.records import Candidate, Evidence

PREFIX = "repeat/"


class Repeat(msgspec.Struct, frozen=True):
    """One further run of a candidate; `index` counts from 1, the first run has 0."""

    candidate: int
    index: int
    evidence: Evidence

    @property
    def loss(self) -> float | None:
        """Held-out loss in nats per token, None where the run failed."""
        return self.evidence.evaluation.loss if self.evidence.evaluation else None

    @property
    def words(self) -> str:
        """The run in a few words."""
        if self.loss is None:
            state = self.evidence.failure.value if self.evidence.failure else "no result"
            return f"seed {self.index}: {state}"
        return f"seed {self.index}: loss {self.loss:.4f}"


def of(store: Store, candidate_id: int) -> list[Repeat]:
    """The further runs of a candidate, in order."""
    found = store.metas(f"{PREFIX}{candidate_id}/")
    return sorted((msgspec.convert(value, Repeat) for value in found.values()), key=lambda run: run.index)


def all_ids(store: Store) -> set[int]:
    """The candidates that have further runs."""
    return {int(key.removeprefix(PREFIX).split("/")[0]) for key in store.metas(PREFIX)}


def row(run: Repeat) -> tuple[str, Any]:
    """The key and the value under which a run is kept."""
    return f"{PREFIX}{run.candidate}/{run.index}", msgspec.to_builtins(run)


def losses(first: Candidate, further: Sequence[Repeat]) -> list[float]:
    """The held-out losses of all runs of a candidate that have one, in order."""
    return [loss for loss in (first.loss, *(run.loss for run in further)) if loss is not None]
