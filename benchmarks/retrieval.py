"""Nearest motivations: exact search against Annoy, and what building the index at start costs.

    python benchmarks/retrieval.py [N ...]

Vectors are embedded texts made of words of the grammar's motivations. Both searches answer the same
queries in one run; recall is against exact search.
"""

from __future__ import annotations

import random
import statistics
import sys
import time

import numpy as np

from asi_lab.common.embedding import DIMENSION, embed
from asi_lab.researcher import grammar
from asi_lab.researcher.index import Index, annoy_available

QUERIES = 200


def motivations(count: int) -> np.ndarray:
    """Unit vectors [count, 384] around embedded motivations of random proposals."""
    rng = random.Random(0)
    texts = [grammar.render(grammar.mutate(grammar.seed_genome(), rng), f"net_{i}") for i in range(300)]
    base = np.stack([embed(text) for text in texts])
    noise = np.random.default_rng(0)
    rows = base[noise.integers(len(base), size=count)] + 0.05 * noise.standard_normal((count, DIMENSION))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def milliseconds(index: Index, queries: np.ndarray) -> float:
    times = []
    for query in queries:
        begin = time.perf_counter()
        index.nearest(query, 5)
        times.append(time.perf_counter() - begin)
    return 1000 * statistics.median(times)


def main() -> None:
    print("| vectors | exact, ms | Annoy, ms | recall@5 | building Annoy, s |")
    print("|---:|---:|---:|---:|---:|")
    for count in [int(argument) for argument in sys.argv[1:]] or [1000, 10_000, 100_000]:
        rows = motivations(count + QUERIES)
        vectors, queries = rows[:count], rows[count:]
        ids = np.arange(count)
        exact = Index(ids, vectors, exact_below=count + 1)
        exact_ms = milliseconds(exact, queries)
        if not annoy_available():
            print(f"| {count:,} | {exact_ms:.2f} | not installed | | |")
            continue
        begin = time.perf_counter()
        fast = Index(ids, vectors, exact_below=0)
        built = time.perf_counter() - begin
        fast_ms = milliseconds(fast, queries)
        hits = [
            len({n.id for n in fast.nearest(q, 5)} & {n.id for n in exact.nearest(q, 5)}) / 5 for q in queries
        ]
        print(f"| {count:,} | {exact_ms:.2f} | {fast_ms:.2f} | {statistics.fmean(hits):.3f} | {built:.2f} |")


if __name__ == "__main__":
    main()
