"""Motivations as vectors, and the search for similar ones.

The vectors live in the store; the index is built from them in memory and never written, so it can be
neither stale nor corrupt. Below some ten thousand vectors search is exact; above, Annoy serves the bulk
and what came since is searched exactly. Without Annoy all of it is exact.
"""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asi_lab.common.embedding import DIMENSION, Vector
from asi_lab.records import Neighbour

EXACT_BELOW = 20_000
"""Up to this many vectors exact search is faster than Annoy; see docs/benchmarks.md."""
TREES = 10
SEARCH_NODES = 20_000


def annoy_available() -> bool:
    """Whether Annoy could be installed on this machine."""
    return importlib.util.find_spec("annoy") is not None


class Index:
    """Nearest motivations by cosine similarity of unit vectors."""

    def __init__(
        self, ids: NDArray[np.int64], vectors: NDArray[np.float32], exact_below: int = EXACT_BELOW
    ) -> None:
        """`ids` [N] and unit `vectors` [N, 384] are all that the store holds, by ascending id."""
        self._ids = [int(i) for i in ids]
        self._matrix = np.array(vectors, dtype=np.float32).reshape(-1, DIMENSION)
        self._pending: list[Vector] = []
        self._annoy: Any = None
        self._indexed = 0
        self._exact_below = exact_below
        self._lock = threading.Lock()  # proposals are made in several threads
        self._build()

    def __len__(self) -> int:
        return len(self._ids)

    def add(self, candidate_id: int, vector: Vector) -> None:
        """Make one more vector findable."""
        with self._lock:
            self._ids.append(candidate_id)
            self._pending.append(vector)

    def nearest(self, vector: Vector, count: int = 5) -> list[Neighbour]:
        """The most similar candidates, best first, ties to the older one."""
        with self._lock:
            return self._nearest(vector, count)

    def likeness(self, candidate_id: int, others: Sequence[int]) -> list[float]:
        """Cosine of a candidate's motivation to each of the others'; 0 where one has no vector."""
        with self._lock:
            rows = {number: row for row, number in enumerate(self._ids)}
            matrix = np.concatenate([self._matrix, *(vector[None] for vector in self._pending)])
            if candidate_id not in rows:
                return [0.0] * len(others)
            own = matrix[rows[candidate_id]]
            return [float(matrix[rows[number]] @ own) if number in rows else 0.0 for number in others]

    def _nearest(self, vector: Vector, count: int) -> list[Neighbour]:
        if self._pending:
            self._matrix = np.concatenate([self._matrix, np.stack(self._pending)])
            self._pending = []
            self._build()
        found = [(row, float(self._matrix[row] @ vector)) for row in self._approximate(vector, count)]
        similarity = self._matrix[self._indexed :] @ vector
        if len(similarity) > count:
            least = np.partition(similarity, -count)[-count]
            rows = np.flatnonzero(similarity >= least)  # all that tie with the last one are looked at
        else:
            rows = np.arange(len(similarity))
        found += [(self._indexed + int(row), float(similarity[row])) for row in rows]
        best = sorted((-value, self._ids[row]) for row, value in found)[:count]
        return [Neighbour(id=candidate_id, similarity=-value) for value, candidate_id in best]

    def _approximate(self, vector: Vector, count: int) -> list[int]:
        """Rows of the part that Annoy holds."""
        if self._annoy is None:
            return []
        rows: list[int] = self._annoy.get_nns_by_vector(vector.tolist(), count, SEARCH_NODES)
        return rows

    def _build(self) -> None:
        """Bring the bulk into Annoy once the part that is searched exactly has grown too long."""
        if len(self._matrix) - self._indexed <= self._exact_below or not annoy_available():
            return
        from annoy import AnnoyIndex

        self._annoy = AnnoyIndex(DIMENSION, "angular")
        self._annoy.set_seed(0)
        for row, vector in enumerate(self._matrix):
            self._annoy.add_item(row, vector.tolist())
        self._annoy.build(TREES, n_jobs=1)
        self._indexed = len(self._matrix)
