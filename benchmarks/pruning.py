"""What pruning saves and costs in a finished search: python benchmarks/pruning.py LAB

Three figures. Cross-validated over all full runs, as `asi-lab calibrate` shows it. Replayed over the full
runs in the order in which they came, each judged by what was known before it, and only once the rule allows
it. And what was pruned in fact.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from asi_lab.lab import Lab, Store
from asi_lab.records import Candidate, CandidateState
from asi_lab.scoring import pruning
from asi_lab.scoring.pruning import Calibration, FullRun, calibrate, full_run
from asi_lab.view import leaderboard


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("lab", type=Path)
    lab = Lab(parser.parse_args().lab)
    settings = lab.settings()
    with Store.open_readonly(lab.store) as store:
        baselines = leaderboard.measured(settings, store.baselines())
        candidates = list(store.candidates(1))
    if baselines is None:
        raise SystemExit("the lab has no baselines yet")
    runs = [run for run in map(full_run, candidates) if run is not None]
    marks, steps, allowed = baselines.marks(), settings.train.steps, settings.supervise.false_kills
    print(f"{settings.preset}, seed {settings.seed}, cold start {settings.search.cold_start}: ", end="")
    print(f"{len(candidates)} candidates, {len(runs)} of them full runs that no pruning could have stopped")
    validated(calibrate(runs, marks, steps, allowed), steps)
    margins(runs, marks, steps, allowed)
    replayed(runs, marks, steps, allowed)
    in_fact(candidates, steps)


def validated(found: Calibration, steps: int) -> None:
    print("\n| steps done | limit, noise floors over DeltaNet | stopped there (cross-validated) |")
    print("|---:|---:|---:|")
    for step, limit in found.limits.items():
        print(f"| {step} ({step / steps:.0%}) | {limit:+.1f} | {found.stopped.get(step, 0)} |")
    print(
        f"\nCross-validated: of {found.runs} full runs {sum(found.stopped.values())} stopped, "
        f"{found.saved:.0%} of all training steps saved, {found.kills} of {found.good} good ones stopped: at "
        f"most {found.bound:.1%} (95 %), allowed {found.allowed:.1%}."
    )


def margins(runs: list[FullRun], marks: dict[int, tuple[float, float]], steps: int, allowed: float) -> None:
    """How the margin trades false kills for compute; the one in use is marked."""
    used = pruning.MARGIN
    print("\n| margin, noise floors | false kills | bound | steps saved |\n|---:|---:|---:|---:|")
    for margin in (0.0, 0.5, 1.0, 2.0, 3.0, 4.0):
        pruning.MARGIN = margin
        found = calibrate(runs, marks, steps, allowed)
        mark = " (used)" if margin == used else ""
        print(f"| {margin:g}{mark} | {found.kills} of {found.good} | {found.bound:.1%} | {found.saved:.0%} |")
    pruning.MARGIN = used


def replayed(runs: list[FullRun], marks: dict[int, tuple[float, float]], steps: int, allowed: float) -> None:
    """The search as it would have gone, as far as stops do not change what is proposed next."""
    ranked = sorted(runs, key=lambda run: (-run.merit, run.id))
    good = {run.id for run in ranked[: round(pruning.TOP * len(ranked))]}
    began, kills, saved, stops = None, 0, 0, 0
    for number, run in enumerate(runs):
        found = calibrate(runs[:number], marks, steps, allowed)
        if not found.in_force:
            continue
        began = began or run.id
        above = {step: (run.losses[step] - loss) / noise for step, (loss, noise) in sorted(marks.items())}
        step = pruning.stopped_at(above, found.limits)
        if step is not None:
            stops += 1
            saved += steps - step
            kills += run.id in good
    later = sum(run.id >= began for run in runs) if began else 0
    share = saved / (steps * later) if later else 0.0
    print(
        f"\nReplayed in order: in force from candidate {began} on; of the {later} after it {stops} stopped, "
        f"{share:.0%} of their training steps saved, {kills} of them in the top quarter of all."
    )


def in_fact(candidates: list[Candidate], steps: int) -> None:
    """Candidates that limits applied to, and those that they stopped."""
    prunable = [c.evidence for c in candidates if c.evidence is not None and c.evidence.prunable]
    stopped = [
        evidence.held_out[-1].step for evidence in prunable if evidence.failure is CandidateState.PRUNED
    ]
    if prunable:
        share = sum(steps - step for step in stopped) / (steps * len(prunable))
        print(
            f"In fact: {len(prunable)} candidates were trained under limits, {len(stopped)} of them stopped, "
            f"{share:.0%} of their training steps saved."
        )


if __name__ == "__main__":
    main()
