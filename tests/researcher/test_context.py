"""What the planner is told."""

import msgspec
import pytest

from asi_lab.lab import Store
from asi_lab.lab.config import from_preset
from asi_lab.llm import prompting
from asi_lab.records import Analysis, CandidateState, Draw, Evidence
from asi_lab.researcher import context
from asi_lab.scoring.archive import Archive
from asi_lab.scoring.results import NOTHING
from tests.analyst import test_ablation

DONE = CandidateState.DONE


@pytest.fixture
def archive(tmp_path):
    with Store.open(tmp_path / "store") as store:
        for number, loss, parent in ((0, 4.0, None), (1, 3.98, 0), (2, 3.90, 1), (3, 4.05, 1)):
            found = msgspec.structs.replace(test_ablation.candidate(number, loss, 0.5, parent), state=DONE)
            code = f"class DeltaNet:\n    number = {number}\n"
            proposal = msgspec.structs.replace(found.proposal, code=code, change=f"change {number}")
            analysis = Analysis("text", f"summary {number}", (), (f"weakness {number}",), "table")
            store.put(
                msgspec.structs.replace(found, proposal=proposal, analysis=analysis if number else None)
            )
        yield Archive(from_preset("20m"), store, test_ablation.known())


def told(archive, draw=Draw(0, 1, 1, (3, 0)), experience="") -> dict[str, str]:  # noqa: B008  immutable
    return context.values(archive.settings, 7, draw, archive, experience)


def test_all_variables_of_both_prompts_are_given(archive):
    values = told(archive)
    assert set(values) == set(prompting.load("planner").variables)
    assert {*values, "repeated"} == set(prompting.load("planner_after_duplicate").variables)


def test_the_parent_stands_beside_the_baselines_and_the_best(archive):
    values = told(archive)
    assert values["parent_name"] == "net_1"
    assert values["parent_code"] == "class DeltaNet:\n    number = 1\n"
    results = values["parent_results"]
    head = "|  | net_1 | DeltaNet | Gated DeltaNet | best so far: net_2 | sd of one run |"
    assert results.startswith(head)
    known = archive.baselines
    noise = f"{known.noise().loss:.4f}"
    assert f"| held-out loss, end | 3.9800 | 4.0000 | 3.9000 | 3.9000 | {noise} |" in results
    margins = [f"{known.margin(name):.4f}" for name in ("gated_delta_net", "delta_net")]
    assert "to be called better, is Gated DeltaNet." in results
    assert f"under its mean: Gated DeltaNet {margins[0]}, DeltaNet {margins[1]}." in results
    assert "summary 1\n- weakness: weakness 1" in results


def test_the_seed_has_no_column_of_its_own_and_no_analysis(archive):
    results = told(archive, Draw(0, 0, 1))["parent_results"]
    assert results.startswith("|  | DeltaNet | Gated DeltaNet | best so far: net_2 | sd of one run |")
    assert "weakness" not in results


def test_references_come_with_ideas_and_the_best_with_its_code(archive):
    references = told(archive)["references"]
    first, second = references.split("### net_3")
    assert first.startswith("### net_2 (candidate 2, from 1)")
    verdict = "not told apart from Gated DeltaNet, the bar, and better than DeltaNet beyond noise"
    assert f"Result: loss 3.9000, {verdict}; 1,000 parameters\n" in first
    assert "-    number = 1\n+    number = 2" in first
    assert "Change: change 3\nIdea: because\n" in second
    assert "Weaknesses: weakness 3" in second
    assert "worse than Gated DeltaNet, the bar, and better than no reference beyond noise" in second
    assert "net_0" not in references  # the seed is a column of the table


def test_standings_tell_changes_and_results(archive):
    lines = told(archive)["standings"].splitlines()
    assert lines[0].startswith("- candidate 2 net_2, from 1 (change 2): loss 3.9000, not told apart from ")
    assert len(lines) == 3
    under_way = test_ablation.candidate(4, 4.0, 0.5, 1)
    archive.store.put(msgspec.structs.replace(under_way, evidence=None, score=None))
    assert (
        told(archive)["standings"].splitlines()[-1] == "- candidate 4 net_4, from 1 (+gate): being tried now"
    )


def test_what_an_analyst_learnt_stands_in_the_place_of_the_idea(archive):
    found = archive.get(3)
    text = "# Analysis\n\n## Insights\n\nA gate needs decay.\n\n---\n\nthe table"
    archive.store.put(
        msgspec.structs.replace(found, analysis=msgspec.structs.replace(found.analysis, text=text))
    )
    references = told(archive)["references"].partition("### net_3")[2]
    assert "Change: change 3\nLesson: A gate needs decay.\nResult:" in references
    assert "because" not in references


def test_an_empty_lab_has_nothing_to_tell(tmp_path):
    with Store.open(tmp_path / "store") as store:
        store.put(msgspec.structs.replace(test_ablation.candidate(0, 4.0, 0.5, None), state=DONE))
        values = told(Archive(from_preset("20m"), store, test_ablation.known()), Draw(0, 0, 1))
    for name in ("references", "standings", "insights", "lessons", "experience"):
        assert values[name] == NOTHING


def test_failures_are_lessons_once_each(archive):
    for number, error in ((4, "line 3: no mask"), (5, "x\nline 7: no mask"), (6, "loss is nan")):
        failed = msgspec.structs.replace(
            test_ablation.candidate(number, 4.0, 0.5, 1),
            state=CandidateState.LEAKING,
            evidence=Evidence(failure=CandidateState.LEAKING, error=error),
        )
        archive.store.put(failed)
    assert told(archive)["lessons"].splitlines() == [
        "- leaking: loss is nan",
        "- leaking: line 7: no mask (2 times)",
    ]


@pytest.mark.parametrize("step", [0, 1])
def test_usually_the_evidence_leads(archive, step):
    direction = told(archive, Draw(0, 1, 1, step=step))["direction"]
    assert direction.startswith("Follow the evidence.")
    assert direction.endswith(f"look first at {context.PLACES[7 % len(context.PLACES)]}.")


def test_those_who_plan_at_the_same_time_look_elsewhere_first(archive):
    draw = Draw(0, 1, 1)
    told = {context.direction(number, draw, archive) for number in range(10, 16)}
    assert len(told) == 6


def test_a_search_that_stands_still_asks_for_another_paradigm(archive):
    direction = told(archive, Draw(0, 1, 1, step=2))["direction"]
    assert "The search stands still" in direction
    assert "(change 2; change 1; change 3)" in direction


def test_the_budget_tells_the_block_the_training_and_the_spare_parameters(archive):
    budget = told(archive)["budget"]
    assert "x = x + layer(norm(x)); x = x + mlp(norm(x)), swiglu x 2.67." in budget
    assert "the whole model has 1,000 parameters, at most 1,500 are allowed" in budget
    layers = archive.settings.model.layers
    assert f"each layer may have up to {500 // layers:,} more than DeltaNet's" in budget
