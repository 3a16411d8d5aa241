"""How store and lineage hold up with thousands of candidates; prints a markdown table.

    python benchmarks/store.py [N]

Candidates have the size of real ones: 8 kB of code, a 384-dimensional embedding, 200 points of loss
curve, an analysis and five state changes. The lab is made in a temporary directory on the disk of
the current one, so that durability costs what it costs there.
"""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from msgspec.structs import replace

from asi_lab.lab import Lineage, Store, fsck
from asi_lab.records import (
    Analysis,
    BaselineRun,
    Candidate,
    CandidateState,
    Check,
    Draw,
    Evaluation,
    Evidence,
    Judgement,
    Noise,
    Proposal,
    Score,
    TaskResult,
    Training,
)
from asi_lab.scoring.baselines import ARCHITECTURES

CONFIG = 'preset = "micro"\n' * 40
UPDATE_EVERY, PARENT_RANKS = 50, 10
"""Parents are drawn as the paper's pool draws them, which is what gives the tree its shape."""
STEPS = (CandidateState.CHECKED, CandidateState.TRAINED, CandidateState.EVALUATED, CandidateState.ANALYSED)


def sample(number: int, rng: random.Random, parent: int = 0) -> Candidate:
    words = [f"word{rng.randrange(500)}" for _ in range(400)]
    code = "".join(f"    self.{word} = {rng.random()}\n" for word in words)
    fitness = rng.uniform(0.3, 0.7)
    task = TaskResult("recall", 0.3, "choice_probability", True, 0.25, 500, {"acc": 0.31})
    noise = Noise(0.012, 0.02, 0.008, 4, 3, 0.007, 0.034)
    return Candidate(
        id=number,
        state=CandidateState.PROPOSED,
        created=1_700_000_000.0 + 60 * number,
        updated=1_700_000_000.0 + 60 * number,
        draw=Draw(number // 50, parent, 1, (0,)) if number else None,
        proposal=Proposal(
            name=f"delta_net_{words[0]}_{words[1]}",
            motivation=" ".join(words[:200]),
            change="a decay per head",
            code=code,
            researcher="grammar",
            code_hash=f"{rng.getrandbits(128):032x}",
        ),
        evidence=Evidence(
            (Check("causality", True, 1e-9, 1e-4),) * 12,
            Training(162_000, 90_000, 200, 100_000, 4.0, 20.0, 5000.0, 300.0),
            Evaluation(4.0 - fitness, 65_536, (task,) * 6, 1e-6, 16, 3.0),
        ),
        score=Score(fitness, 0.5, 0.5, 0.5, 0.01, 0.01, Judgement(6.0, (), "rubric"), noise),
        analysis=Analysis(" ".join(words), "It helps.", (), (), "table"),
    )


class Timer:
    """Collects the seconds spent in its `with` blocks."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(self, *error: object) -> None:
        self.seconds.append(time.perf_counter() - self._start)


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def run(lab: Path, count: int) -> list[tuple[str, str]]:
    rng = random.Random(0)
    store = Store.open(lab / "store")
    seed = replace(sample(0, rng), state=CandidateState.DONE)
    lineage = Lineage.create(lab / "lineage_repo", seed, CONFIG)
    shas = [lineage.sha_of(0) or ""]
    store.put(replace(seed, commit=shas[0]))
    curve = np.arange(1400, dtype=np.float32).reshape(200, 7)
    puts, commits = Timer(), Timer()
    scores, parents = {0: 0.0}, [0]
    for number in range(1, count + 1):
        if number % UPDATE_EVERY == 0:
            parents = sorted(scores, key=lambda one: -scores[one])[:PARENT_RANKS]
        candidate = sample(number, rng, rng.choice(parents))
        assert candidate.score is not None
        scores[number] = candidate.score.fitness
        vector = np.random.default_rng(number).normal(size=384).astype(np.float32)
        with puts:
            store.put(candidate, ("candidate_proposed", "new", {}), vector=vector)
        store.append_series(f"candidate/{number}", curve)
        for state in STEPS:
            candidate = replace(candidate, state=state)
            with puts:
                store.put(candidate, ("candidate_state", state.value, {}))
        with commits:
            shas.append(lineage.commit(candidate, CONFIG, shas[candidate.parent or 0]))
        candidate = replace(candidate, state=CandidateState.DONE, commit=shas[-1])
        with puts:
            store.put(candidate, ("commit", shas[-1], {}))
    for index in range(3):
        for architecture in ARCHITECTURES:
            evidence = sample(index + 1, rng).evidence
            assert evidence is not None
            store.put_baseline(BaselineRun(architecture, index, evidence))
    store.close()
    (lab / "lab.toml").write_text('preset = "micro"\n')
    program = [sys.executable, "-m", "asi_lab", "--lab", str(lab)]
    status, top = (
        seconds(lambda words=words: subprocess.run([*program, *words], check=True, stdout=subprocess.DEVNULL))
        for words in (["status", "--once"], ["top"])
    )

    log = ["git", "-C", str(lab / "lineage_repo"), "log", "--graph", "--branches", "--oneline"]
    log_seconds = seconds(lambda: subprocess.run(log, check=True, stdout=subprocess.DEVNULL))
    opening = seconds(lambda: Store.open_readonly(lab / "store").close())
    with Store.open_readonly(lab / "store") as viewer:
        listing = seconds(viewer.summaries)
        reading = seconds(lambda: [viewer.get(rng.randrange(count)) for _ in range(100)]) / 100
        vectors = seconds(viewer.vectors)
        events = seconds(lambda: viewer.last_events(20))
    with Store.open(lab / "store") as store:
        lineage.update_best(store.get(store.best_id() or 0) or seed)
        quick = seconds(lambda: fsck.check(store, lab / "lineage_repo", CONFIG, thorough=False))
        (lab / "lineage_repo").rename(lab / "away")
        rebuild = seconds(lambda: fsck.repair(store, lab / "lineage_repo", CONFIG))
        assert not fsck.check(store, lab / "lineage_repo", CONFIG), "the remade lineage differs"
    size = (lab / "store" / "data.mdb").stat().st_size
    git = sum(f.stat().st_blocks * 512 for f in (lab / "away" / ".git").rglob("*") if f.is_file())
    return [
        ("store.put with event, median", f"{1e3 * float(np.median(puts.seconds)):.2f} ms"),
        ("store.put with event, 99th percentile", f"{1e3 * float(np.percentile(puts.seconds, 99)):.2f} ms"),
        ("commit, median", f"{1e3 * float(np.median(commits.seconds)):.1f} ms"),
        ("commit, mean (packing included)", f"{1e3 * float(np.mean(commits.seconds)):.1f} ms"),
        ("commit, longest (packs)", f"{1e3 * max(commits.seconds):.0f} ms"),
        ("git log --graph --branches --oneline", f"{log_seconds:.2f} s"),
        ("asi-lab status --once", f"{status:.2f} s"),
        ("asi-lab top", f"{top:.2f} s"),
        ("open for viewing", f"{1e3 * opening:.1f} ms"),
        ("summaries of all (status, top)", f"{1e3 * listing:.1f} ms"),
        ("last 20 events", f"{1e3 * events:.2f} ms"),
        ("one whole candidate", f"{1e3 * reading:.3f} ms"),
        ("all embeddings", f"{1e3 * vectors:.1f} ms"),
        ("quick fsck (at every start)", f"{quick:.2f} s"),
        ("lineage made again from the store, verified", f"{rebuild:.1f} s"),
        ("store on disk", f"{size / 1e6:.0f} MB"),
        ("lineage on disk", f"{git / 1e6:.0f} MB"),
    ]


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-") as folder:
        rows = run(Path(folder), count)
    print(f"| {count:,} candidates | |\n|---|---|")
    for name, value in rows:
        print(f"| {name} | {value} |")


if __name__ == "__main__":
    main()
