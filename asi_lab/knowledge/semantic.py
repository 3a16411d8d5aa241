"""Entries for a weakness by the meaning of both, as an embedding model sees them.

Every insight is embedded once: the vectors lie in a file that is named for the texts and the embedder, so
another text or another model makes another file. Search is exact: a few hundred vectors are nothing.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asi_lab.common import disk
from asi_lab.errors import ConfigError, DiskError
from asi_lab.knowledge.base import Base
from asi_lab.knowledge.search import OF_A_FAMILY, Found, diverse

Embed = Callable[[Sequence[str]], Sequence[Sequence[float]]]
"""Vectors of texts, all of one length; raises `LabError` where the model cannot be had."""
BATCH = 32
TRIGGERS = ("symptoms", "signatures", "design")
"""What of an insight is embedded: the patterns that call for it, and what it says."""


class Semantic:
    """The index over a base by an embedding model of the name `embedder`."""

    def __init__(self, base: Base, embed: Embed, embedder: str, cache: Path) -> None:
        """`cache` is the folder for the vectors.

        Raises:
            LabError: the vectors are not there yet and cannot be made or written.
        """
        self.base, self._embed = base, embed
        self._documents = list(base.insights())
        texts = [
            f"{i.title}. {' '.join(getattr(i, field) for field in TRIGGERS)}" for _, i in self._documents
        ]
        self._matrix = _unit(_kept(texts, embed, embedder, cache))

    def search(self, query: str, count: int = 3, most_of_a_family: int = OF_A_FAMILY) -> list[Found]:
        """The entries that fit best, best first.

        Raises:
            LabError: the embedding model cannot be had.
        """
        if not self._documents or not query.strip():
            return []
        vector = _unit(np.asarray(self._embed([query]), np.float32))[0]
        if len(vector) != self._matrix.shape[1]:
            raise ConfigError(
                f"the embedding model gave {len(vector)} numbers for a query and {self._matrix.shape[1]} "
                "for entries: it was changed under its name. Remove the lab's folder index/ and try again."
            )
        likeness = self._matrix @ vector
        best: dict[str, Found] = {}
        for (entry, insight), score in zip(self._documents, map(float, likeness), strict=True):
            if entry.key not in best or score > best[entry.key].score:
                best[entry.key] = Found(entry.key, insight.title, score)
        ranked = sorted(best.values(), key=lambda found: (-found.score, found.key))
        return diverse(ranked, self.base, count, most_of_a_family)


def _kept(texts: Sequence[str], embed: Embed, embedder: str, cache: Path) -> NDArray[np.float32]:
    """The vectors `[N, D]` of the texts, from their file or made anew."""
    name = hashlib.sha256("\0".join([embedder, *texts]).encode()).hexdigest()[:24]
    file = cache / f"cognition-{name}.npy"
    try:
        kept = np.load(file, allow_pickle=False)
        if (
            kept.dtype == np.float32
            and kept.ndim == 2
            and len(kept) == len(texts)
            and np.isfinite(kept).all()
        ):
            return np.asarray(kept)
    except (OSError, ValueError, EOFError):
        pass  # none yet, or one that the disk did not keep: made anew
    vectors: list[Sequence[float]] = []
    for start in range(0, len(texts), BATCH):
        vectors += embed(texts[start : start + BATCH])
    made = np.asarray(vectors, np.float32)
    content = io.BytesIO()
    np.save(content, made)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        disk.write(file, content.getvalue())
    except OSError as error:
        raise DiskError(
            f"The vectors of the cognition base were not kept. {disk.explain(error, file)}"
        ) from None
    return made


def _unit(matrix: NDArray[np.float32]) -> NDArray[np.float32]:
    length = np.linalg.norm(matrix, axis=-1, keepdims=True)
    return np.asarray(matrix / np.where(length > 0, length, 1), np.float32)
