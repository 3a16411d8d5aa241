"""Does a weakness find its cure? python benchmarks/cognition.py [EMBEDDER ...]

60 queries, symptoms in a researcher's words with the papers that would be acceptable answers, written from
titles and one-line mechanisms before any search was tuned. Every second one was tuned on, the others are held
out. recall@3 is the share of queries with an acceptable paper among the first three, MRR the mean of 1 / rank
of the first one among the first ten. By default the search by words, and as a floor a random order; embedding
models are named as in lab.toml.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from asi_lab.knowledge import rank
from asi_lab.knowledge.base import Base, load
from asi_lab.settings import AgentSettings

QUERIES = Path(__file__).with_name("cognition_queries.jsonl")
FIRST, DEEPEST, RANDOM_ORDERS = 3, 10, 200

Order = Callable[[str], Sequence[str]]


def figures(order: Order, queries: Sequence[dict[str, object]]) -> str:
    recall = ranks = 0.0
    for query in queries:
        accept, found = query["accept"], order(str(query["query"]))
        assert isinstance(accept, list)
        recall += any(key in accept for key in found[:FIRST])
        ranks += next((1 / place for place, key in enumerate(found, start=1) if key in accept), 0.0)
    return f"{recall / len(queries):.3f} | {ranks / len(queries):.3f}"


def by_chance(base: Base) -> Order:
    rng, keys = random.Random(0), list(base.entries)
    return lambda query: rng.sample(keys, DEEPEST)


def main() -> None:
    base = load()
    queries = [json.loads(line) for line in QUERIES.read_text().splitlines()]
    tuned, held = queries[0::2], queries[1::2]
    print("| search | tuned on: recall@3 | MRR | held out: recall@3 | MRR | ms a query |")
    print("|---|---:|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        for name in sys.argv[1:] or (rank.LEXICAL,):
            search = rank.search(base, AgentSettings(), Path(folder), name)

            def order(query: str, search: rank.Search = search) -> list[str]:
                return [found.key for found in search(query, DEEPEST)]

            order("warm up")
            began = time.perf_counter()
            cells = f"{figures(order, tuned)} | {figures(order, held)}"
            each = (time.perf_counter() - began) / len(queries)
            print(f"| {name} | {cells} | {1000 * each:.1f} |", flush=True)
    print(f"| random order (mean of {RANDOM_ORDERS}) | {_mean(by_chance(base), tuned, held)} | |")


def _mean(order: Order, *halves: Sequence[dict[str, object]]) -> str:
    cells = []
    for half in halves:
        many = [list(map(float, figures(order, half).split(" | "))) for _ in range(RANDOM_ORDERS)]
        cells += [f"{sum(column) / RANDOM_ORDERS:.3f}" for column in zip(*many, strict=True)]
    return " | ".join(cells)


if __name__ == "__main__":
    main()
