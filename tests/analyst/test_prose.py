"""The analyst, the summariser and the taggers: what they are told, and what is kept of their answers."""

import msgspec
import pytest

from asi_lab.analyst import ablation, prose, tags
from asi_lab.analyst.prose import Prose
from asi_lab.analyst.tags import Listed
from asi_lab.lab import Store
from asi_lab.llm.ask import RoleFailed
from asi_lab.records import CandidateState, Component, Origin
from asi_lab.researcher import experience
from asi_lab.researcher.experience import Experience
from asi_lab.scoring.archive import Archive
from tests.analyst import test_ablation
from tests.asking import Prepared

SAID = "The gate closes where the memory is stale (4.00 to 3.95)."
ANALYSIS = Prose(
    SAID, "# Results\n\n---\n" + SAID, SAID, "It forgets: " + SAID, "Keep it. " + SAID, ("slow ",)
)


def finished(candidate):
    analysis = ablation.explain(candidate, candidate, [], test_ablation.known())
    return msgspec.structs.replace(candidate, state=CandidateState.DONE, analysis=analysis)


@pytest.fixture
def archive(tmp_path):
    """DeltaNet, a parent and one of its children, all finished."""
    with Store.open(tmp_path / "store") as store:
        for number, loss, parent in ((0, 4.0, None), (1, 3.98, 0), (2, 4.02, 1)):
            found = test_ablation.candidate(number, loss, 0.5, parent)
            store.put(finished(found))
        known = test_ablation.known()
        yield Archive(known_settings(), store, known)


def known_settings():
    from asi_lab.lab.config import from_preset

    return from_preset("20m")


def explained(archive, candidate):
    parent = archive.get(candidate.parent)
    siblings = archive.siblings(candidate)
    return ablation.explain(candidate, parent, siblings, archive.baselines, archive.near(candidate))


def child(number: int = 3, loss: float = 3.95):
    return test_ablation.candidate(number, loss, 0.5, parent=1)


def test_the_analyst_gets_figures_beside_parent_and_baselines_and_what_relatives_changed(archive):
    ask = Prepared(analyst=[ANALYSIS])
    found = child()
    code = found.proposal.code + "\nmore"
    found = msgspec.structs.replace(found, proposal=msgspec.structs.replace(found.proposal, code=code))
    prose.explain(ask, found, archive.siblings(found), archive, explained(archive, found))
    (values,) = ask.asked["analyst"]
    head = "|  | the candidate | parent: net_1 | sibling: net_2 | DeltaNet | Gated DeltaNet | sd of one run |"
    assert head in values["results"]
    noise = f"{archive.baselines.noise().loss:.4f}"
    assert (
        f"| held-out loss, end | 3.9500 | 3.9800 | 4.0200 | 4.0000 | 3.9000 | {noise} |" in values["results"]
    )
    assert "and better than DeltaNet beyond noise." in values["results"]
    assert "| gated_delta_net (mean of 3) | baseline | +0.0500 (" in values["ablation"]
    assert "| 0002 net_2 | sibling | -0.0700 (-5." in values["ablation"]
    assert "| 0001 net_1 | parent | -0.0300 (-2." in values["ablation"]
    assert "- parent 0001 net_1, from 0: +gate" in values["ablation"]
    assert "+more" in values["code_diff"]
    assert "Judge" not in str(values)  # another model's opinion is no evidence


def test_prose_stands_before_the_measured_table_and_cannot_break_it(archive):
    found = child()
    analysis = prose.explain(
        Prepared(analyst=[ANALYSIS]), found, archive.siblings(found), archive, explained(archive, found)
    )
    headings = [line for line in analysis.text.splitlines() if line.startswith("#")]
    assert headings[:6] == [
        "# Analysis of candidate 3",
        *(f"## {title}" for title in prose.SECTIONS.values()),
    ]
    assert headings.count("# Analysis of candidate 3") == 1
    assert "# Results" not in headings
    assert analysis.text.splitlines().count("---") == 1
    assert analysis.weaknesses == ("slow",)
    assert analysis.analyst == "openai:prepared"
    assert analysis.ablation == explained(archive, found).ablation


def test_an_empty_section_is_asked_for():
    with pytest.raises(RoleFailed, match="`expectation_vs_reality` must hold at least one sentence"):
        Prepared(analyst=[msgspec.structs.replace(ANALYSIS, expectation_vs_reality="-")])(
            "analyst", Prose, {}, None, prose.missing
        )


def test_the_summariser_gets_results_lessons_and_standings(archive):
    for number in (1, 2):
        found = archive.get(number)
        analysis = prose.explain(
            Prepared(analyst=[ANALYSIS]), found, archive.siblings(found), archive, explained(archive, found)
        )
        archive.store.put(msgspec.structs.replace(found, analysis=analysis))
    ask = Prepared(summariser=[Experience(" Best so far: net_1. ")])
    parent = archive.get(1)
    assert experience.summarise(ask, parent, archive.children(1), archive) == "Best so far: net_1."
    (values,) = ask.asked["summariser"]
    told = values["results"]
    assert "### Candidate 1 net_1, from 0\n\nChange: +gate\nResult: loss 3.9800, worse than Gated" in told
    assert "Weakness: slow" in told
    assert told.count("It forgets: ") == told.count("Keep it. ") == 2
    assert told.count(SAID) == 4  # of the five sections the two that hold lessons
    assert told.startswith("|  | parent: net_1 | DeltaNet | Gated DeltaNet | sd of one run |")
    assert "- candidate 2 net_2, from 1 (+gate): loss 4.0200" in told.partition("All that stand out")[2]


def test_without_analyses_nobody_is_asked(archive):
    parent, *children = (
        msgspec.structs.replace(candidate, state=CandidateState.JUDGED, analysis=None)
        for candidate in (archive.get(1), *archive.children(1))
    )
    assert experience.summarise(Prepared(), parent, children, archive) == ""


def test_relatives_are_few_and_the_best_and_latest_of_them(tmp_path):
    with Store.open(tmp_path / "store") as store:
        for number in range(40):
            found = test_ablation.candidate(number, 4.0 + (number - 5) ** 2 / 1000, 0.5, number and 0)
            store.put(finished(found))
        archive = Archive(known_settings(), store, test_ablation.known())
        last = test_ablation.candidate(40, 4.0, 0.5)
        assert [c.id for c in archive.siblings(last)] == [3, 4, 5, 6, 7, *range(30, 40)]
        assert [c.id for c in archive.best(3)] == [5, 4, 6]


def test_components_are_bounded_and_on_one_line():
    many = [Component("gating", f"gate\n{n} " + "x" * 100) for n in range(50)]
    ask = Prepared(components=[Listed(tuple(many))])
    found = tags.components(ask, child())
    assert len(found) == tags.MOST_COMPONENTS
    assert found[3].label == ("gate 3 " + "x" * 100)[: tags.LONGEST_LABEL]


def test_unknown_families_and_empty_lists_are_asked_for_again():
    with pytest.raises(RoleFailed, match=r"`family` must be one of state_update, .*; found magic"):
        tags.components(Prepared(components=[Listed((Component("magic", "m"),))]), child())
    with pytest.raises(RoleFailed, match="at least one"):
        tags.components(Prepared(components=[Listed(())]), child())


def test_the_origin_is_told_from_what_the_designer_had_read(archive):
    ask = Prepared(provenance=[Origin("analysis", "it says so\nthere")])
    found = tags.origin(ask, child(), archive.get(1), "", "One decay is too coarse.")
    assert found == Origin("analysis", "it says so there")
    (values,) = ask.asked["provenance"]
    assert values["experience"] == "One decay is too coarse."
    assert values["insights"] == "none"
    alone = tags.origin(Prepared(), child(), archive.get(1), "", "")
    assert alone.origin == "originality"
    with pytest.raises(RoleFailed, match="`origin` must be one of cognition, analysis, originality"):
        tags.origin(Prepared(provenance=[Origin("experience")]), child(), archive.get(1), "", "read")
