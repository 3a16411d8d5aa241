"""Tables about a finished search: python benchmarks/search.py LAB

Fitness over candidates, wins beyond noise beside those expected by luck, how candidates ended, where
the wall time went, and how much each task's score varies between architectures and between seeds.
"""

from __future__ import annotations

import argparse
import statistics
from collections import Counter
from pathlib import Path

from asi_lab.lab import Lab, Store
from asi_lab.records import SEED_ID, Candidate, CandidateState
from asi_lab.researcher import pool
from asi_lab.scoring import fitness
from asi_lab.scoring.baselines import ARCHITECTURES, TITLES, Baselines

LEVEL = 0.05


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("lab", type=Path)
    lab = Lab(parser.parse_args().lab)
    with Store.open_readonly(lab.store) as store:
        candidates = [c for c in store.candidates() if c.id != SEED_ID]
        known = Baselines(lab.settings(), store.baselines())
        events = store.events(0, 10_000_000)
    scored = [c for c in candidates if c.state is CandidateState.DONE]
    fitness_table(candidates, known, lab)
    wins(scored, known)
    ends(candidates)
    wall_time(candidates, known, events, lab.settings().search.slots)
    tasks(scored, known)


def fitness_table(candidates: list[Candidate], known: Baselines, lab: Lab) -> None:
    search, bar = lab.settings().search, known.evaluations(known.bar)
    mean, margin = statistics.fmean(run.loss for run in bar), known.margin(known.bar)
    print("\n## Fitness over candidates\n")
    print("| id | generation | parent | loss | against the bar | benchmark | judge | fitness | best so far |")
    print("|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
    best = 0.0
    for c in candidates:
        assert c.draw is not None
        start = f"| {c.id} | {pool.generation_of(c.id, search)} | {c.draw.parent} |"
        if c.score is None or c.loss is None:
            print(f"{start} {c.state.value} | | | | | {best:.4f} |")
            continue
        best = max(best, c.score.fitness)
        win = "*" if mean - c.loss > margin else ""
        print(
            f"{start} {c.loss:.4f} | {(c.loss / mean - 1):+.2%}{win} | "
            f"{c.score.benchmark_gain:+.2%} | {c.score.judgement.mark:.1f} | "
            f"{c.score.fitness:.4f} | {best:.4f} |"
        )


def wins(scored: list[Candidate], known: Baselines) -> None:
    noise = known.noise()
    losses = [c.loss for c in scored if c.loss is not None]
    print("\n## Wins\n")
    for name in known.names:
        runs = [e.loss for e in known.evaluations(name)]
        role = ", the bar" if name == known.bar else ""
        print(f"- {TITLES[name]}{role}: mean loss {statistics.fmean(runs):.4f} over {len(runs)} seeds")
    print(
        f"- one run: sd {noise.loss:.4f} nats ({noise.freedom:.2g} degrees of freedom, 95 % interval "
        f"{noise.loss_low:.4f} to {noise.loss_high:.4f})"
    )
    for name in known.names:
        mean, margin = statistics.fmean(e.loss for e in known.evaluations(name)), known.margin(name)
        won = sum(1 for loss in losses if mean - loss > margin)
        print(
            f"- {won} of {len(losses)} scored candidates beat {TITLES[name]} by more than {margin:.4f} nats "
            f"(one-sided t-test, 5 %); by luck {LEVEL * len(losses):.1f} would"
        )


def ends(candidates: list[Candidate]) -> None:
    print("\n## How candidates ended\n")
    for state, count in Counter(c.state.value for c in candidates).most_common():
        print(f"- {state}: {count}")
    rejected = sum(c.proposal.rejected for c in candidates if c.proposal)
    print(f"- near-duplicates thrown away before any compute: {rejected}")


def wall_time(candidates: list[Candidate], known: Baselines, events: list, slots: int) -> None:
    evidences = [c.evidence for c in candidates] + [r.evidence for runs in known.runs.values() for r in runs]
    training = sum(e.training.seconds for e in evidences if e and e.training)
    scoring = sum(e.evaluation.seconds for e in evidences if e and e.evaluation)
    wall, begun = 0.0, None
    for event in events:
        if event.kind == "engine_started":
            begun = event.time
        elif event.kind == "engine_stopped" and begun is not None:
            wall, begun = wall + event.time - begun, None
    wall *= max(1, slots)
    outside = wall - training - scoring
    print("\n## Wall time of all slots\n")
    print("| what | seconds | share |")
    print("|---|---:|---:|")
    for name, seconds in (("training", training), ("evaluation", scoring), ("everything else", outside)):
        print(f"| {name} | {seconds:.0f} | {seconds / wall:.1%} |")
    print(f"| wall | {wall:.0f} | |")


def tasks(scored: list[Candidate], known: Baselines) -> None:
    spread = known.task_noise()
    print("\n## Tasks: sd of the relative gain between seeds and between architectures\n")
    print("| task | score | chance | DeltaNet | seeds | architectures | ratio |")
    print("|---|---|---:|---:|---:|---:|---:|")
    example = known.evaluations(ARCHITECTURES[0])[0]
    for task in example.tasks:
        gains = [
            fitness.task_gain(t, known.mean)
            for c in scored
            if c.evidence and c.evidence.evaluation
            for t in c.evidence.evaluation.tasks
            if t.task == task.task
        ]
        between = statistics.stdev(gains)
        print(
            f"| {task.task} | {task.score_name} | {task.chance:.3f} | {known.mean.tasks[task.task]:.3f} | "
            f"{spread[task.task]:.2%} | {between:.2%} | {between / spread[task.task]:.1f} |"
        )


if __name__ == "__main__":
    main()
