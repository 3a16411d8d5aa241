"""Which candidate is of which arm, and that controls share nothing with the pool."""

from __future__ import annotations

from collections import Counter

import msgspec
import numpy as np
import pytest

from asi_lab.common.randomness import keyed_random
from asi_lab.lab import Store
from asi_lab.lab.config import from_preset
from asi_lab.lab.steering import Steering
from asi_lab.lab.summary import summarise
from asi_lab.llm.choice import arms_of
from asi_lab.records import Arm, Draw, PoolEntry
from asi_lab.researcher import arms, pool
from asi_lab.researcher import draw as drawing
from asi_lab.researcher.novelty import Known
from asi_lab.scoring.archive import Archive
from asi_lab.settings import AgentSettings, Settings

EVOLUTION, GRAMMAR, BEST, SEQUENTIAL = Arm
CONTROLS = ("best_of_n", "sequential")


def settings_of(controls=CONTROLS, share=0.25, seed=0, **agents) -> Settings:
    found = from_preset("micro", seed=seed)
    search = msgspec.structs.replace(found.search, controls=controls, control_share=share)
    return msgspec.structs.replace(found, search=search, agents=AgentSettings(**agents))


def counted(settings: Settings, count: int = 4000) -> Counter[Arm]:
    return Counter(arms.arm_of(number, settings) for number in range(1, count + 1))


def unlike(number, others):
    return [0.0] * len(others)


def drawn(number: int, arm: Arm, entries, behind=0, banned=(), pinned=None) -> Draw:
    orders = Steering(banned=banned, pinned=pinned)
    return drawing.draw(number, arm, entries, orders, settings_of(), behind, unlike)


ENTRIES = [
    PoolEntry(0, 0.50, 0.01, None, 3),
    PoolEntry(1, 0.60, 0.01, 0, arm=SEQUENTIAL),
    PoolEntry(2, 0.90, 0.01, 0, arm=EVOLUTION),
    PoolEntry(3, 0.95, 0.01, 0, arm=BEST),
    PoolEntry(4, 0.80, 0.01, 1, arm=SEQUENTIAL),
    PoolEntry(5, 0.40, 0.01, 4, arm=SEQUENTIAL),
    PoolEntry(6, 0.70, 0.01, 0, arm=GRAMMAR),
    PoolEntry(7, 0.85, 0.01, 0),  # of before there were arms
]


def test_each_control_takes_its_share_and_the_seed_says_whom():
    found = counted(settings_of())
    assert set(found) == {EVOLUTION, BEST, SEQUENTIAL}
    assert all(abs(found[arm] - 1000) < 140 for arm in (BEST, SEQUENTIAL))  # 5 sds
    first, other = ([arms.arm_of(n, settings_of(seed=s)) for n in range(1, 100)] for s in (0, 1))
    assert first == [arms.arm_of(n, settings_of()) for n in range(1, 100)]
    assert first != other


def test_without_controls_the_grammar_has_the_turns_that_it_always_had():
    settings = settings_of((), models=("ollama:a",), control=0.3)
    for number in range(1, 300):
        own = keyed_random(0, number, "control").random() < 0.3
        assert arms.arm_of(number, settings) is (GRAMMAR if own else EVOLUTION)
    assert set(counted(settings_of(()))) == {EVOLUTION}


def test_the_grammar_takes_its_share_of_what_the_controls_leave():
    found = counted(settings_of(models=("ollama:a",), control=0.5))
    assert abs(found[GRAMMAR] - 1000) < 140
    assert abs(found[EVOLUTION] - 1000) < 140


def test_where_the_grammar_proposes_all_it_is_no_control():
    assert set(counted(settings_of((), models=("ollama:a",), control=1.0))) == {EVOLUTION}


def test_best_of_n_draws_the_seed_and_sequential_its_own_best():
    assert drawn(8, BEST, ENTRIES) == Draw(0, 0, 1, (), 0, arm=BEST)
    assert drawn(8, SEQUENTIAL, ENTRIES) == Draw(0, 4, 1, (), 0, arm=SEQUENTIAL)
    assert drawn(4, SEQUENTIAL, ENTRIES).parent == 1
    assert drawn(1, SEQUENTIAL, ENTRIES).parent == 0


def test_sequential_counts_on_nobody_who_may_be_under_way():
    assert [drawn(8, SEQUENTIAL, ENTRIES, behind=behind).parent for behind in (3, 4, 6)] == [4, 1, 1]
    assert drawn(8, SEQUENTIAL, ENTRIES, behind=7).parent == 0


def test_a_ban_holds_for_controls_and_a_pin_does_not():
    assert drawn(8, SEQUENTIAL, ENTRIES, banned=(4,)).parent == 1
    assert drawn(8, SEQUENTIAL, ENTRIES, pinned=2).parent == 4
    assert drawn(8, BEST, ENTRIES, pinned=2).parent == 0
    assert drawn(8, EVOLUTION, ENTRIES, pinned=2).parent == 2
    assert drawn(8, EVOLUTION, ENTRIES, pinned=4).parent == 4  # of a control, but a person wants it


@pytest.mark.parametrize("arm", [EVOLUTION, GRAMMAR])
def test_the_pool_draws_as_if_there_were_no_controls(arm):
    pooled = [entry for entry in ENTRIES if entry.arm not in (BEST, SEQUENTIAL)]
    found = [drawn(number, arm, ENTRIES) for number in range(8, 60)]
    assert found == [drawn(number, arm, pooled) for number in range(8, 60)]
    assert {one.arm for one in found} == {arm}
    assert {one.parent for one in found} >= {2, 7}
    assert not {1, 3, 4, 5} & {number for one in found for number in (one.parent, *one.references)}


def test_a_new_pool_is_told_of_whoevers_turn_it_is():
    settings = settings_of()
    for number in range(2, 12):
        news = [kind for kind, _, _ in drawing.news(number, ENTRIES, settings, 0)]
        changed = pool.generation_of(number, settings.search) != pool.generation_of(
            number - 1, settings.search
        )
        assert ("pool_updated" in news) == changed
    (told,) = (data for kind, _, data in drawing.news(8, ENTRIES, settings, 0) if kind == "pool_updated")
    assert set(told["ids"]) == {0, 2, 6, 7}


@pytest.fixture
def store(tmp_path, make_candidate):
    """The seed, and a candidate of each arm, which are alike in code and motivation's vector but for none."""
    with Store.open(tmp_path / "store") as store:
        store.put(make_candidate(0))
        for number, arm in enumerate(Arm, start=1):
            found = make_candidate(number, model="ollama:a")
            vector = np.zeros(384, np.float32)
            vector[number] = 1.0
            store.put(msgspec.structs.replace(found, draw=Draw(0, 0, 1, arm=arm)), vector=vector)
        yield store


def test_the_arm_is_in_the_record_and_its_summary(store):
    assert [s.arm for s in store.summaries()] == [None, *Arm]
    assert [c.arm for c in store.candidates()] == [None, *Arm]
    assert summarise(store.held(3)).arm is BEST


@pytest.mark.parametrize(
    ("arm", "seen"),
    [(EVOLUTION, {1, 2}), (GRAMMAR, {1, 2}), (None, {1, 2}), (BEST, set()), (SEQUENTIAL, {4})],
)
def test_what_an_arm_is_told_of(store, arm, seen):
    known = Archive(from_preset("micro"), store, None, sees=arms.seen_from(arm))
    assert {c.id for c in known.best(9)} == seen
    assert {entry.id for entry in known.entries() if entry.id} == seen
    assert {c.id for c in known.children(0)} == seen


@pytest.mark.parametrize(("arm", "kin"), [(EVOLUTION, {1, 2}), (BEST, {3}), (SEQUENTIAL, {4})])
def test_what_was_proposed_elsewhere_is_new(store, arm, kin):
    known = Known(store, 0.985, arm)
    for number in range(1, 5):
        proposal, vector = store.held(number).proposal, store.vector(number)
        found = known.until_new(lambda attempt, repeated: proposal, 0)  # noqa: B023  called at once
        assert {one.id for one in found.proposal.nearest} == kin
        assert known.index.nearest(vector, 1)[0].similarity == (1.0 if number in kin else 0.0)
        held = known.claim(9, proposal.code_hash)
        assert held == (f"candidate {number}" if number in kin else "")


def test_the_first_candidate_of_a_code_hash_counts(store, make_candidate):
    again = make_candidate(6)
    proposal = msgspec.structs.replace(again.proposal, code_hash="hash1")
    store.put(msgspec.structs.replace(again, proposal=proposal))
    assert Known(store, 0.985, EVOLUTION).claim(9, "hash1") == "candidate 1"


def test_the_bandit_does_not_know_what_came_of_controls(store):
    (found,) = arms_of(AgentSettings(models=("ollama:a",)), store)
    assert found.pulls == 2
