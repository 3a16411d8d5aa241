"""The ablation table and the words around it."""

import msgspec
import pytest

from asi_lab.analyst import ablation
from asi_lab.lab.config import from_preset
from asi_lab.records import (
    Analysis,
    BaselineRun,
    Candidate,
    CandidateState,
    Draw,
    Evaluation,
    Evidence,
    Judgement,
    Proposal,
    TaskResult,
    Training,
)
from asi_lab.scoring import fitness
from asi_lab.scoring.baselines import Baselines

TRAINING = Training(1000, 500, 10, 100, 4.0, 1.0, 100.0, 10.0)


def evaluation(loss: float, recall: float) -> Evaluation:
    return Evaluation(loss, 10, (TaskResult("recall", recall, "p", True, 0.25, 10),), 0.0, 1, 1.0)


def known() -> Baselines:
    runs = []
    for name, middle in (("delta_net", 4.0), ("gated_delta_net", 3.9)):
        for i, offset in enumerate((-0.01, 0.0, 0.01)):
            result = evaluation(middle + offset, 0.5 + offset / 10)
            runs.append(BaselineRun(name, i, Evidence((), TRAINING, result)))
    return Baselines(from_preset("20m"), runs)


def candidate(number: int, loss: float, recall: float, parent: int | None = 0) -> Candidate:
    result, base = evaluation(loss, recall), known()
    score = fitness.score(result, base.reference, Judgement(5.0, (), "test"), base.noise())
    draw = None if parent is None else Draw(0, parent, 1)
    proposal = Proposal(f"net_{number}", "because", "+gate", "code", "grammar")
    evidence = Evidence((), TRAINING, result)
    return Candidate(number, CandidateState.JUDGED, 0, 0, draw, proposal, evidence, score)


SEED = candidate(0, 4.0, 0.5, parent=None)


def test_baseline_row_is_in_units_of_a_single_run_against_a_mean():
    analysis = ablation.explain(candidate(3, 3.95, 0.5), SEED, [], known())
    row, upper = analysis.ablation
    assert (row.relation, upper.relation) == ("baseline", "baseline")
    assert upper.against == "gated_delta_net (mean of 3)"
    assert upper.loss == pytest.approx(0.05)
    assert upper.loss_in_noise == pytest.approx(0.05 / known().against([3.95], "gated_delta_net").sd)
    assert row.loss == pytest.approx(-0.05)
    assert row.loss_in_noise == pytest.approx(-0.05 / known().against([3.95], "delta_net").sd)
    assert "is worse than Gated DeltaNet, the bar, and better than DeltaNet beyond noise" in analysis.summary


def test_parent_and_siblings_are_compared_as_two_single_runs():
    parent, sibling = candidate(1, 3.98, 0.5), candidate(2, 4.02, 0.5, parent=1)
    analysis = ablation.explain(candidate(3, 4.0, 0.5, parent=1), parent, [sibling], known())
    relations = {row.relation: row for row in analysis.ablation}
    assert set(relations) == {"baseline", "parent", "sibling"}
    assert relations["parent"].loss == pytest.approx(0.02)
    assert relations["parent"].loss_in_noise == pytest.approx(0.02 / (known().noise().loss * 2**0.5))
    assert relations["sibling"].loss == pytest.approx(-0.02)
    assert "0002 net_2" in analysis.text
    assert "better than no reference" in analysis.summary


def test_weaknesses_name_the_task_beyond_noise_only():
    worse = ablation.explain(candidate(3, 4.2, 0.4), SEED, [], known())
    assert len(worse.weaknesses) == 1
    assert worse.weaknesses[0].startswith("recall: -20.0%")
    assert "worse than Gated DeltaNet, the bar" in worse.summary
    assert ablation.explain(candidate(3, 4.0, 0.4999), SEED, [], known()).weaknesses == ()


def probed(score: float, end: float) -> TaskResult:
    name = "probe_reassigned"
    return TaskResult(name, score, "answer_probability", True, 0.125, 10, curve=((20, -2.0), (40, end)))


def with_probe(evaluation: Evaluation, score: float, end: float = -1.0) -> Evaluation:
    return msgspec.structs.replace(evaluation, tasks=(*evaluation.tasks, probed(score, end)))


def known_with_probe() -> Baselines:
    """Gated DeltaNet finds 0.6 of the answers, DeltaNet 0.3; both with an sd of 0.02."""
    runs = []
    for name, middle in (("delta_net", 0.3), ("gated_delta_net", 0.6)):
        for i, offset in enumerate((-0.02, 0.0, 0.02)):
            result = with_probe(evaluation(4.0 + offset, 0.5 + offset / 10), middle + offset, -1 + offset)
            runs.append(BaselineRun(name, i, Evidence((), TRAINING, result)))
    return Baselines(from_preset("20m"), runs)


def test_a_probe_in_which_it_stays_behind_is_named_by_what_it_asks_for():
    base = known_with_probe()

    def analysed(score: float) -> Analysis:
        plain = candidate(3, 4.0, 0.5)
        evidence = msgspec.structs.replace(plain.found, evaluation=with_probe(plain.measured, score))
        return ablation.explain(msgspec.structs.replace(plain, evidence=evidence), plain, [], base)

    (weak,) = analysed(0.312).weaknesses
    assert weak.startswith("recall with reassigned keys (probe_reassigned) at 0.52 of Gated DeltaNet's (-")
    behind_both = analysed(0.15)
    assert [words.split(" (")[1].split(") ")[1] for words in behind_both.weaknesses] == [
        "at 0.25 of Gated DeltaNet's",
        "at 0.50 of the baseline's",
    ]
    assert all(words in behind_both.text for words in behind_both.weaknesses)
    assert analysed(0.6).weaknesses == ()
    assert "at 2.00 of the baseline's (+" in analysed(0.6).text


def test_the_curve_of_a_baseline_is_the_mean_of_its_runs():
    curve = known_with_probe().tasks("delta_net")["probe_reassigned"].curve
    assert curve == ((20, -2.0), (40, pytest.approx(-1.0)))
    assert known().tasks("delta_net")["recall"].curve == ()
