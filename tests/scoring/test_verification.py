"""From promotions and fresh runs to claims: in which order runs are made, and what they show."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import msgspec
import numpy as np
import pytest

from asi_lab.common.randomness import keyed_seed
from asi_lab.lab import trial_label
from asi_lab.records import (
    TUNING_SEED,
    CandidateState,
    Evaluation,
    Evidence,
    FreshRun,
    Promotion,
    Run,
    Terms,
)
from asi_lab.scoring import agreement, claims, verification
from asi_lab.scoring.beside import of_references
from asi_lab.scoring.verification import Verdict, Verification

BAR = "mamba2"
UNTUNED, TUNED = Terms(BAR, 24, False, 3.5), Terms(BAR, 24, True, 3.5)


def fresh(who: str, index: int, loss: float, rate: float = 1.0) -> FreshRun:
    return FreshRun(who, index, Evidence(evaluation=Evaluation(loss, 100, ())), rate)


@dataclass
class World:
    """Runs as nature gives them: the same run always the same loss. `gains` are nats under the bar."""

    gains: dict[int, float]
    terms: Terms = UNTUNED
    drawn: set[int] = field(default_factory=set)
    failing: set[Run] = field(default_factory=set)
    best_rate: float = 1.0

    @property
    def promotions(self) -> list[Promotion]:
        return [Promotion(number, who, 0.0, who in self.drawn) for number, who in enumerate(self.gains, 1)]

    def make(self, run: Run) -> FreshRun:
        if run in self.failing:
            evidence = Evidence(failure=CandidateState.DIVERGED, error="step 9: loss nan")
            return FreshRun(run.architecture, run.seed_index, evidence, run.rate)
        rng = np.random.default_rng(keyed_seed(*run))
        gain = self.gains[int(run.architecture)] if run.architecture.isdigit() else 0.0
        worse = 0.1 * abs(np.log2(run.rate / self.best_rate))
        return fresh(*run[:2], 4.0 - gain + worse + 0.015 * rng.normal(), run.rate)

    def assess(self, runs: list[FreshRun]) -> Verification:
        return verification.assess(self.terms, self.promotions, runs, trial_label)

    def all(self, at_once: int = 1, rng: random.Random | None = None) -> list[FreshRun]:
        """Make runs until none is due, any of the first few that are."""
        runs: list[FreshRun] = []
        while due := list(self.assess(runs).due):
            chosen = due[0] if rng is None else rng.choice(due[:at_once])
            runs.append(self.make(chosen))
        return runs


def test_the_bar_has_its_runs_before_any_claim_goes_beyond_its_first_look():
    world = World({7: 0.1, 8: 0.0})
    due = world.assess([]).due
    assert due[:6] == tuple(Run(who, index) for index in (0, 1) for who in (BAR, "0007", "0008"))
    assert due[6:] == tuple(Run(BAR, index) for index in range(2, 24))
    early = [world.make(Run(who, index)) for who in ("0007", "0008") for index in range(2)]
    assert {run.architecture for run in world.assess(early).due} == {BAR}
    assert [claim.verdict for claim in world.assess(early).claims] == [Verdict.OPEN, Verdict.OPEN]


def test_without_a_promotion_no_run_is_due():
    assert World({}).assess([]).due == ()


def test_claims_go_on_one_after_the_other_from_look_to_look():
    world = World({7: 0.1, 8: 0.1})
    runs = [world.make(Run(BAR, index)) for index in range(24)]
    runs += [world.make(Run(who, index)) for who in ("0007", "0008") for index in range(2)]
    assert world.assess(runs).due == (Run("0007", 2),)
    runs += [world.make(Run("0007", index)) for index in range(2, 4)]
    assert world.assess(runs).due == (Run("0007", 4), Run("0007", 5))


def test_what_is_better_holds_and_the_rest_is_dropped_early():
    world = World({7: 0.1, 8: -0.1, 9: 0.08, 10: 0.0})
    runs = world.all()
    found = world.assess(runs)
    assert found.due == ()
    assert [claim.verdict for claim in found.claims] == [
        *(Verdict.HOLDS, Verdict.NOT_SHOWN, Verdict.HOLDS, Verdict.NOT_SHOWN)
    ]
    assert found.count == {Verdict.HOLDS: 2, Verdict.OPEN: 0, Verdict.NOT_SHOWN: 2}
    first, second, third, _ = found.claims
    assert (first.runs, first.dropped, first.tagged) == (claims.CAP, False, True)
    assert (second.runs, second.dropped, second.tagged) == (claims.LOOKS[0], True, False)
    assert first.gain.gain == pytest.approx(0.1, abs=0.02)
    assert second.interval is None
    assert first.interval == first.gain.interval(claims.LEVEL * 2 / 4)
    assert first.interval[0] < 0.1 < first.interval[1]
    assert found.of(9) == third
    assert found.of(11) is None


def test_verdicts_do_not_depend_on_the_order_in_which_runs_end():
    world = World(dict(enumerate((0.06, 0.0, 0.02, -0.05, 0.08, 0.01), start=1)))
    expected = world.assess(world.all())
    for seed in range(5):
        runs = world.all(at_once=4, rng=random.Random(seed))
        random.Random(seed).shuffle(runs)
        found = world.assess(runs)
        assert found == expected
        assert len(runs) == len({run.run for run in runs})


def test_what_is_tagged_or_ended_stays_as_runs_are_added():
    world = World(dict(enumerate((0.06, 0.0, 0.02, -0.05, 0.08), start=1)))
    runs, tagged, ended = world.all(), set[int](), dict[int, float]()
    for count in range(len(runs) + 1):
        for claim in world.assess(runs[:count]).claims:
            if claim.verdict is not Verdict.OPEN:
                p = claim.gain.p
                assert ended.setdefault(claim.candidate, p) == p
            if claim.tagged:
                tagged.add(claim.candidate)
        assert tagged == {c.candidate for c in world.assess(runs[:count]).claims if c.tagged}
    assert tagged


def test_a_candidate_that_fails_is_shown_as_that():
    world = World({7: 0.1, 8: 0.1}, failing={Run("0007", 5)})
    found = world.assess(world.all())
    first, second = found.claims
    assert (first.verdict, first.failed, first.runs) == (Verdict.NOT_SHOWN, CandidateState.DIVERGED, 5)
    assert second.verdict is Verdict.HOLDS


def test_without_a_sound_bar_nothing_is_claimed():
    world = World({7: 0.1}, failing={Run(BAR, index) for index in (3, 7, 8)})
    runs = world.all()
    found = world.assess(runs)
    assert (found.bar_failed, found.due) == (CandidateState.DIVERGED, ())
    assert [claim.verdict for claim in found.claims] == [Verdict.OPEN]


def test_a_run_of_the_bar_that_fails_is_made_up_for_by_another():
    world, sound = World({7: 0.1}, failing={Run(BAR, 3), Run(BAR, 7)}), World({7: 0.1})
    found = world.assess(world.all())
    assert (found.bar_failed, found.bar_runs) == (None, 24)
    kept = [world.make(Run(BAR, index)).loss for index in range(26) if index not in (3, 7)]
    assert found.losses[BAR] == tuple(kept)
    assert found.claims[0].verdict is Verdict.HOLDS
    assert found.losses["0007"] == sound.assess(sound.all()).losses["0007"]


def test_each_has_its_own_best_learning_rate_found_by_seeds_that_do_not_count():
    world = World({7: 0.1}, terms=TUNED, best_rate=2.0)
    due = world.assess([]).due
    assert {run.seed_index for run in due} == {TUNING_SEED, TUNING_SEED + 1, TUNING_SEED + 2}
    assert {run.rate for run in due} == {0.5, 1.0, 2.0}
    runs = world.all()
    found = world.assess(runs)
    assert found.bar_rate == found.claims[0].rate == 2.0
    assert found.claims[0].verdict is Verdict.HOLDS
    assert found.claims[0].gain.gain == pytest.approx(0.1, abs=0.02)
    counted = [run for run in runs if not run.is_tuning]
    assert {run.rate for run in counted} == {2.0}
    assert {run.rate for run in runs if run.is_tuning} == {0.5, 1.0, 2.0, 4.0}


def test_a_candidate_that_fails_at_every_rate_has_ended():
    rates = [2.0**n for n in range(-4, 5)]
    failing = {Run("0007", TUNING_SEED + seed, rate) for seed in range(3) for rate in rates}
    world = World({7: 0.1}, terms=TUNED, failing=failing)
    (claim,) = world.assess(world.all()).claims
    assert (claim.verdict, claim.failed, claim.runs) == (Verdict.NOT_SHOWN, CandidateState.DIVERGED, 0)


def test_a_loss_of_tuning_enters_no_claim():
    with pytest.raises(ValueError, match="no loss that counts"):
        _ = fresh(BAR, TUNING_SEED, 4.0).loss
    with pytest.raises(ValueError, match="no loss that counts"):
        _ = FreshRun(BAR, 0, Evidence(failure=CandidateState.DIVERGED)).loss


def test_an_open_claim_says_what_its_runs_gave_so_far():
    world = World({7: 0.1, 8: -0.1})
    runs = [world.make(Run(who, index)) for who in (BAR, "0007", "0008") for index in range(2)]
    first, second = world.assess(runs).claims
    assert first.verdict is second.verdict is Verdict.OPEN
    assert first.gain.gain == pytest.approx(0.1, abs=0.05)
    assert second.gain.gain == pytest.approx(-0.1, abs=0.05)
    assert first.interval is None
    assert world.assess(runs[:3]).claims[0].gain is None


def test_who_was_drawn_by_lot_has_two_runs_at_the_preset_rate_and_no_claim():
    alone = World({7: 0.1, 8: 0.0}, terms=TUNED)
    world = World({**alone.gains, 9: 0.3}, terms=TUNED, drawn={9})
    runs = world.all()
    found = world.assess(runs)
    mine = [run.run for run in runs if run.who == "0009"]
    assert mine == [Run("0009", index, 1.0) for index in range(verification.BY_LOT)]
    assert found.drawn == (9,)
    assert found.claims == alone.assess(alone.all()).claims
    assert [round(loss, 1) for loss in found.losses["0009"]] == [3.7, 3.7]


def test_references_beside_the_claims_are_run_last_and_change_no_verdict():
    terms = msgspec.structs.replace(UNTUNED, beside=("delta_net",))
    world, alone = World({7: 0.1}, terms=terms), World({7: 0.1})
    runs = world.all()
    assert [run.who for run in runs[-3:]] == ["delta_net"] * verification.BESIDE
    found = world.assess(runs)
    assert found.claims == alone.assess(alone.all()).claims
    (line,) = of_references(found, found.claims[0])
    assert (line.name, line.better) == ("delta_net", -1)
    assert line.candidate - line.bar == pytest.approx(-0.1, abs=0.02)
    low, high = line.interval
    assert low < -0.1 < high < 0


@dataclass
class Ranked:
    """Scales with so many candidates, whose means are those of `means` plus noise of the seed's."""

    means: list[float]

    def at(self, seed: int, noise: float) -> Verification:
        rng = np.random.default_rng(seed)
        runs = [fresh(BAR, index, 4.0) for index in range(2)]
        for who, mean in enumerate(self.means, start=1):
            runs += [fresh(trial_label(who), index, mean + noise * rng.normal()) for index in range(2)]
        promotions = [Promotion(who, who, 0.0, who % 2 == 0) for who in range(1, len(self.means) + 1)]
        return verification.assess(UNTUNED, promotions, runs, trial_label)


def test_how_scales_agree_is_told_over_all_and_over_the_better_half():
    world = Ranked([3.5 + 0.1 * place for place in range(10)])
    found = agreement.agreement("micro", world.at(0, 0.0), "mini", world.at(1, 0.0))
    assert (found.count, found.everyone.count, found.better_half.count) == (11, 11, 6)
    assert found.everyone.value == pytest.approx(1.0)
    other = agreement.agreement("micro", world.at(0, 1.0), "mini", world.at(1, 1.0)).everyone
    assert other.interval[0] < other.value < other.interval[1]
    assert other.value < 0.9
    few = agreement.agreement("micro", Ranked([3.5]).at(0, 0.0), "mini", Ranked([3.5]).at(0, 0.0))
    assert (few.everyone, few.better_half) == (None, None)


def test_the_hit_rate_of_promotion_stands_beside_that_of_the_lot():
    found = agreement.hits("micro", Ranked([3.5, 3.6, 4.5, 4.6, 3.7, 4.7]).at(0, 0.0))
    assert (found.promoted, found.promoted_under) == (3, 2)
    assert (found.drawn, found.drawn_under) == (3, 1)
    assert (found.ended, found.holding) == (0, 0)
