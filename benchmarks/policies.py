"""What the search adds over simpler policies: evolution, sequential, best of n, and the grammar by itself.

    python benchmarks/policies.py [--labs N]                  simulated labs; and the real ones that are there
    python benchmarks/policies.py --real N [--experiments M]  first real labs of the seeds 0 to N - 1 as well

Simulated, every policy has a whole lab of each seed to itself, and the lab's own code draws. The surrogate in
place of trials is fitted to the recorded search (`asi-lab demo`) and to `results/runs.jsonl`:

    a child's loss is its parent's, less a step; one run measures it with noise of the sd of a run at micro
    steps are normal with the drift and the sd that the lineage's prior has of the recorded search
    before a lineage has left DeltaNet's level, a step leaves it by a leap, with the share that it was seen to
    a share of the candidates fails, as it was seen to

The other truths say what becomes of the result where this is wrong. Policies have the same random numbers, so
differences are paired by lab; their intervals are Student's, over labs. A real lab holds all three arms, a
third of its candidates each; one that is cut off goes on, and what is finished is kept in
`results/policies.jsonl`.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from statistics import fmean, median, stdev
from typing import NamedTuple

import msgspec
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from asi_lab.lab import Lab, Store
from asi_lab.lab.config import from_preset
from asi_lab.lab.steering import Steering
from asi_lab.records import SEED_ID, Arm, CandidateState, PoolEntry
from asi_lab.researcher import draw, pool
from asi_lab.scoring import lineage_prior
from asi_lab.scoring.baselines import Baselines
from asi_lab.scoring.statistics import prior_of, t_quantile
from asi_lab.settings import Settings
from asi_lab.tui import recorded

RESULTS = Path(__file__).parent / "results" / "policies.jsonl"
LABS = 10
TRIALS = (60, 200)
EXPERIMENTS = 60
SHARE = 1 / 3
"""Of a real lab's candidates, for each of its two controls."""
WALK = 6
"""The grammar by itself goes 1 to so many mutations away from the seed, none of which is trained."""
GRAMMAR = "the grammar from the seed"
PATIENT = "evolution without steps against standstill"
POLICIES: tuple[Arm | str, ...] = (Arm.EVOLUTION, PATIENT, Arm.SEQUENTIAL, Arm.BEST_OF_N, GRAMMAR)
CONTROLS = ("best_of_n", "sequential")
GENES, FORMS = 12, 4


class Surrogate(msgspec.Struct, frozen=True):
    """What stands in for trials, in nats of loss gained: `drift` and `sd` of a step; the share of steps that
    leaps away from the seed's level, `leaps`, and how far, `leap`; `noise` is the sd of one run, `told` the
    one that the lab goes by; `fails` is the share of candidates that do.

    Misspecified: with `freedom` steps are Student's t; a share `collapses` by ten sds on average; `pull`
    draws every step back by that share of what was gained since the leap; without `inherits` a child owes
    its parent nothing but the leap; with `interacts` the loss is a function of genes that act on each other.
    """

    drift: float
    sd: float
    leaps: float
    leap: float
    noise: float
    told: float
    fails: float
    freedom: float = 0.0
    collapses: float = 0.0
    pull: float = 0.0
    inherits: bool = True
    interacts: bool = False


class Made(NamedTuple):
    """An architecture: what it gains on the seed, by how much of that it has leapt, and its genes."""

    gain: float = 0.0
    leapt: float = 0.0
    genes: tuple[int, ...] = (0,) * GENES


class World:
    """The random numbers of one lab: of a candidate, of each step on its way, and of its run."""

    def __init__(self, truth: Surrogate, seed: int, trials: int) -> None:
        rng, shape = np.random.default_rng(seed), (trials + 1, WALK)
        self.truth = truth
        normal = rng.normal(size=shape)
        heavy = rng.standard_t(truth.freedom or 3.0, shape) / 3**0.5
        self.steps = heavy if truth.freedom else normal
        self.chances = rng.random((*shape, 2))
        self.fallen = 10 * truth.sd * rng.exponential(size=shape)
        self.changes = rng.integers((GENES, FORMS), size=(*shape, 2))
        self.walks = rng.integers(1, WALK + 1, size=trials + 1)
        self.errors = truth.noise * rng.normal(size=trials + 1)
        self.failed = rng.random(trials + 1) < truth.fails
        self.effects = rng.normal(size=(GENES, FORMS, FORMS))

    def child(self, parent: Made, number: int, step: int = 0) -> Made:
        """What one mutation makes of a parent."""
        truth, (leaps, collapses) = self.truth, self.chances[number, step]
        leapt = parent.leapt or (truth.leap if leaps < truth.leaps else 0.0)
        base = parent.gain - parent.leapt
        if truth.interacts:
            gene, form = self.changes[number, step]
            genes = (*parent.genes[:gene], int(form), *parent.genes[gene + 1 :])
            return Made(leapt + self._value(genes), leapt, genes)
        moved = truth.drift + truth.sd * float(self.steps[number, step])
        if collapses < truth.collapses:
            moved = -float(self.fallen[number, step])
        kept = (1 - truth.pull) * base if truth.inherits else 0.0
        return Made(leapt + kept + moved, leapt)

    def _value(self, genes: Sequence[int]) -> float:
        """Each gene acts by its form and that of its neighbour (an NK landscape, K = 1), and the seed has 0.
        Effects are such that a mutation, which changes two of them, moves by the sd of a step."""
        found = sum(self.effects[i, g, genes[i - 1]] - self.effects[i, 0, 0] for i, g in enumerate(genes))
        return float(found) * self.truth.sd / 2


class Searched(NamedTuple):
    """What a policy has come to: the mean loss of its candidates and that of the one which it ranks first,
    true ones, in nats over the seed's."""

    mean: float
    chosen: float


def searched(policy: Arm | str, truth: Surrogate, seed: int, trials: Sequence[int]) -> list[Searched]:
    """A lab that follows one policy, as it stands after so many trials."""
    world, settings = World(truth, seed, max(trials)), from_preset("micro", seed=seed)
    if policy == PATIENT:
        patient = msgspec.structs.replace(settings.search, patience=0)
        settings = msgspec.structs.replace(settings, search=patient)
    behind, seeds = 2 * (settings.search.slots - 1), settings.baselines.seeds
    arm = policy if isinstance(policy, Arm) else Arm.EVOLUTION
    entries = [PoolEntry(SEED_ID, 0.0, truth.told, None, seeds)]
    made, found = {SEED_ID: Made()}, []
    for number in range(1, max(trials) + 1):
        parent, steps = SEED_ID, 1
        if policy == GRAMMAR:
            steps = int(world.walks[number])
        else:
            parent = draw.draw(number, arm, entries, Steering(), settings, behind, _unlike).parent
        child = made[parent]
        for step in range(steps):
            child = world.child(child, number, step)
        if not world.failed[number]:
            made[number] = child
            measured = child.gain + float(world.errors[number])
            entries.append(PoolEntry(number, measured, truth.told, parent, arm=arm))
        if number in trials:
            own = [one.gain for known, one in made.items() if known != SEED_ID]
            found.append(Searched(-fmean(own), -made[pool.ranked(entries)[0].id].gain))
    return found


def _unlike(number: int, others: Sequence[int]) -> list[float]:
    return [0.0] * len(others)


def fitted() -> Surrogate:
    """The surrogate of the recorded search, and of the runs of references at micro."""
    lab = recorded.unpacked()
    with Store.open_readonly(lab.store) as store:
        summaries = store.summaries()
    ended = [s for s in summaries if s.id != SEED_ID]
    gains = {s.id: summaries[0].loss - s.loss for s in summaries if s.state is CandidateState.DONE}
    far = max(gains.values()) / 2
    below = [s for s in ended if s.id in gains and gains.get(s.parent or 0, far) < far]
    leaps = [gains[s.id] for s in below if gains[s.id] >= far]
    noise = noise_of_runs()
    entries = [PoolEntry(s.id, gains[s.id], noise, s.parent) for s in ended if gains.get(s.id, 0.0) >= far]
    mutation = lineage_prior.fitted(entries)
    fails = sum(s.state.is_failure for s in ended) / len(ended)
    return Surrogate(
        mutation.drift, mutation.variance**0.5, len(leaps) / len(below), median(leaps), noise, noise, fails
    )


def recorded_search(noise: float) -> str:
    """What the recorded search itself came to, to see which truth is like it."""
    with Store.open_readonly(recorded.unpacked().store) as store:
        done = [s for s in store.summaries() if s.state is CandidateState.DONE]
    gains = {s.id: done[0].loss - s.loss for s in done}
    entries = [PoolEntry(s.id, gains[s.id], noise, s.parent, 3 if s.id == SEED_ID else 1) for s in done]
    worth = lineage_prior.worth(entries)
    return (
        f"The recorded search, {len(done) - 1} scored: mean {fmean(gains[n] for n in gains if n):.3f} nats "
        f"under the seed, and {max(worth.values()):.3f} that which the pool ranks first, given its relatives."
    )


def noise_of_runs() -> float:
    """The sd of one run at micro, of an architecture about as good as the best references."""
    from measuring import by_architecture, finished

    runs = [run for run in finished() if run.wanted.scale == "micro" and not run.wanted.changes]
    groups = [[run.loss for run in group] for group in by_architecture(runs).values() if len(group) > 2]
    prior = prior_of(groups, from_preset("micro").baselines.noise_freedom)
    assert prior is not None
    return prior.variance_at(min(map(fmean, groups))) ** 0.5


def truths(known: Surrogate) -> dict[str, Surrogate]:
    """The fitted surrogate, and what else may be true."""
    changed = functools.partial(msgspec.structs.replace, known)
    return {
        "as fitted": known,
        "steps half as large": changed(sd=known.sd / 2),
        "steps twice as large": changed(sd=known.sd * 2),
        "noise is twice what the lab thinks": changed(noise=2 * known.noise),
        "heavy tails (Student's t, 3)": changed(freedom=3.0),
        "a quarter collapses": changed(collapses=0.25),
        "a third of the gain is lost a step": changed(pull=1 / 3),
        "genes that interact": changed(interacts=True),
        "nothing but the leap is inherited": changed(inherits=False),
    }


class Outcome(msgspec.Struct, frozen=True):
    """A candidate of a real lab; `loss` in nats per token, None where it failed."""

    id: int
    arm: str
    parent: int
    state: str
    loss: float | None


class RealLab(msgspec.Struct, frozen=True):
    """A finished real lab. `settings` is a digest of what decides it, `bar` the mean loss of its bar."""

    seed: int
    experiments: int
    settings: str
    bar: float
    candidates: tuple[Outcome, ...]

    def of(self, arm: Arm) -> list[float]:
        """The losses of an arm, over the bar's mean."""
        return [c.loss - self.bar for c in self.candidates if c.arm == arm and c.loss is not None]


def settings_of(seed: int) -> Settings:
    """The settings of a real lab."""
    settings = from_preset("micro", seed=seed)
    search = msgspec.structs.replace(settings.search, controls=CONTROLS, control_share=SHARE)
    return msgspec.structs.replace(settings, search=search)


def digest(settings: Settings) -> str:
    """What of the settings decides a lab, whatever its seed."""
    plain = msgspec.structs.replace(settings, seed=0)
    return hashlib.sha256(msgspec.json.encode(plain)).hexdigest()[:12]


def outcome(lab: Lab, experiments: int) -> RealLab:
    """What a lab has come to; it must hold so many candidates, all at their end."""
    settings = lab.settings()
    with Store.open_readonly(lab.store) as store:
        candidates = list(store.candidates(SEED_ID + 1))
        known = Baselines(settings, store.baselines())
    missing = experiments - sum(c.state.is_terminal for c in candidates)
    if missing > 0:
        raise SystemExit(f"{lab.path}: {missing} of {experiments} candidates have not ended; run it again")
    found = tuple(
        Outcome(
            c.id, str(c.arm), c.ancestor, c.state.value, c.loss if c.state is CandidateState.DONE else None
        )
        for c in candidates
    )
    return RealLab(
        settings.seed, experiments, digest(settings), known.anchor(known.bar, whole=True).loss, found
    )


def finished() -> list[RealLab]:
    """The real labs that are there, of the settings of today."""
    lines = RESULTS.read_bytes().splitlines() if RESULTS.exists() else []
    found = [msgspec.json.decode(line, type=RealLab) for line in lines]
    return [lab for lab in found if lab.settings == digest(settings_of(0))]


def search(count: int, experiments: int) -> None:
    """Run the real labs that are missing."""
    have = {(lab.seed, lab.experiments) for lab in finished()}
    for seed in (seed for seed in range(count) if (seed, experiments) not in have):
        lab = Lab(Path(tempfile.gettempdir(), "asi-lab-studies", "policies", f"seed{seed}-{experiments}"))
        if not lab.exists:
            lab.create(settings_of(seed))
        command = [sys.executable, "-m", "asi_lab", "--lab", str(lab.path), "--no-tui"]
        subprocess.run([*command, "--experiments", str(experiments)], check=True)
        with RESULTS.open("ab") as file:
            file.write(msgspec.json.encode(outcome(lab, experiments)) + b"\n")


def interval(differences: Sequence[float]) -> str:
    """The mean of paired differences and its 95 % interval; they are positive where evolution is better."""
    mean = fmean(differences)
    if len(differences) < 2:
        return f"{mean:+.3f}"
    margin = t_quantile(0.975, len(differences) - 1) * stdev(differences) / len(differences) ** 0.5
    return f"{mean:+.3f} ({mean - margin:+.3f} to {mean + margin:+.3f})"


def simulated(labs: int) -> None:
    """The table of simulated labs."""
    known = fitted()
    print(recorded_search(known.noise))
    print(
        f"As fitted, in nats: drift {known.drift:+.4f}, sd {known.sd:.4f}, leaps {known.leaps:.0%} by "
        f"{known.leap:.2f}, noise {known.noise:.4f}; {known.fails:.0%} fail.\n"
        f"{labs} simulated labs; nats by which evolution's loss is lower, with 95 % intervals\n"
    )
    heads = [f"{trials} trials: {what}" for trials in TRIALS for what in ("mean", "chosen")]
    print(f"| truth | evolution is under | {' | '.join(heads)} |\n|---|---|{'---:|' * len(heads)}")
    with ProcessPoolExecutor() as executor:
        for name, truth in truths(known).items():
            cells: dict[Arm | str, list[Future[list[Searched]]]] = {
                policy: [executor.submit(searched, policy, truth, seed, TRIALS) for seed in range(labs)]
                for policy in POLICIES
            }
            found = {policy: [cell.result() for cell in row] for policy, row in cells.items()}
            found["the seed"] = [[Searched(0.0, 0.0)] * len(TRIALS)] * labs
            for policy in ("the seed", *POLICIES[1:]):
                shown = [
                    interval([one[at][what] - own[at][what] for one, own in _paired(found, policy)])
                    for at in range(len(TRIALS))
                    for what in range(len(Searched._fields))
                ]
                print(f"| {name} | {policy} | {' | '.join(shown)} |", flush=True)


def _paired(
    found: Mapping[Arm | str, list[list[Searched]]], policy: Arm | str
) -> list[tuple[list[Searched], list[Searched]]]:
    return [*zip(found[policy], found[Arm.EVOLUTION], strict=True)]


def real(labs: Sequence[RealLab]) -> None:
    """The table of real labs: those in which all arms have a scored candidate."""
    arms = (Arm.EVOLUTION, Arm.SEQUENTIAL, Arm.BEST_OF_N)
    labs = [lab for lab in labs if all(lab.of(arm) for arm in arms)]
    print(f"\n{len(labs)} real labs, the grammar proposes; nats over the bar's mean, means over labs\n")
    if not labs:
        return
    print("| arm | candidates | failed | mean | best | evolution's mean is lower by | its best by |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    figures: tuple[Callable[[list[float]], float], ...] = (fmean, min)
    for arm in arms:
        own = [c for lab in labs for c in lab.candidates if c.arm == arm]
        failed = sum(c.loss is None for c in own) / len(own)
        shown = [f"{fmean(figure(lab.of(arm)) for lab in labs):+.4f}" for figure in figures]
        if arm is not Arm.EVOLUTION:
            shown += [
                interval([figure(lab.of(arm)) - figure(lab.of(Arm.EVOLUTION)) for lab in labs])
                for figure in figures
            ]
        print(f"| {arm} | {len(own)} | {failed:.0%} | {' | '.join(shown)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--labs", type=int, default=LABS, help="simulated labs; 0: none")
    parser.add_argument("--real", type=int, default=0, help="real labs to have")
    parser.add_argument("--experiments", type=int, default=EXPERIMENTS, help="candidates of a real lab")
    arguments = parser.parse_args()
    if arguments.labs:
        simulated(arguments.labs)
    search(arguments.real, arguments.experiments)
    real(finished())


if __name__ == "__main__":
    main()
