"""A text as a vector, without a model: the same on every machine."""

from __future__ import annotations

import hashlib
import itertools
import math
import re

import numpy as np
from numpy.typing import NDArray

DIMENSION = 384
Vector = NDArray[np.float32]


def embed(text: str) -> Vector:
    """Lexical embedding [384] of unit length: hashed words, word pairs and character trigrams.

    Weighted by 1 + log(count), with signed hashing. Needs no model and is the same everywhere.
    """
    words = re.findall(r"[a-z0-9_]+", text.lower())
    counts: dict[str, int] = {}
    for feature in [
        *(f"w:{word}" for word in words),
        *(f"p:{a} {b}" for a, b in itertools.pairwise(words)),
        *(f"c:{word[i : i + 3]}" for word in words for i in range(len(word) - 2)),
    ]:
        counts[feature] = counts.get(feature, 0) + 1
    vector = np.zeros(DIMENSION, dtype=np.float64)
    for feature, count in counts.items():
        digest = int.from_bytes(hashlib.blake2b(feature.encode(), digest_size=8).digest(), "little")
        weight = (0.3 if feature[0] == "c" else 1.0) * (1.0 + math.log(count))
        vector[digest % DIMENSION] += weight if digest >> 63 else -weight
    norm = float(np.linalg.norm(vector))
    return (vector / norm if norm else vector).astype(np.float32)


def is_embedding(vector: Vector) -> bool:
    """Whether a vector is what `embed` returns: [384], finite, of unit length or zero."""
    if vector.shape != (DIMENSION,) or not np.isfinite(vector).all():
        return False
    return not vector.any() or math.isclose(float(np.linalg.norm(vector)), 1.0, rel_tol=1e-3)
