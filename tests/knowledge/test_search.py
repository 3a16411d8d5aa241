"""Entries for a weakness: by words, by meaning, with families side by side; and what becomes of them."""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from asi_lab.common.embedding import embed
from asi_lab.data.probes import PROBES
from asi_lab.errors import ConfigError, DiskError
from asi_lab.knowledge import rank
from asi_lab.knowledge.advice import COUNT, Adviser
from asi_lab.knowledge.base import Base, load
from asi_lab.knowledge.search import Lexical, _stem, terms
from asi_lab.knowledge.semantic import Semantic
from asi_lab.knowledge.standing import standings
from asi_lab.llm.model import ModelError
from asi_lab.records import CandidateState, Cognition
from asi_lab.settings import AgentSettings

BASE = load()
QUERIES = [
    json.loads(line)
    for line in (Path(__file__).parents[2] / "benchmarks" / "cognition_queries.jsonl")
    .read_text()
    .splitlines()
]


def hashed(texts):
    return [embed(text).tolist() for text in texts]


def test_the_queries_are_sound():
    assert len(QUERIES) == 60
    assert len({query["query"] for query in QUERIES}) == 60
    assert all(query["accept"] and set(query["accept"]) <= BASE.entries.keys() for query in QUERIES)


def test_threads_that_search_at_once_find_the_same_stems():
    words = sorted({word for query in QUERIES for word in query["query"].lower().split()})
    expected = {word: terms(word) for word in words}
    _stem.cache_clear()
    terms.cache_clear()
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda turn: {w: terms(w) for w in words[turn:] + words[:turn]}, range(4)))
    finally:
        sys.setswitchinterval(before)
    assert found == [expected] * 4


def test_words_find_an_acceptable_entry_for_four_of_five_queries():
    search = Lexical(BASE)
    for half in (QUERIES[0::2], QUERIES[1::2]):  # tuned on, held out
        hits = [
            any(found.key in query["accept"] for found in search.search(query["query"])) for query in half
        ]
        assert sum(hits) / len(hits) >= 0.8


class TestSearch:
    """What every search does."""

    @pytest.fixture(params=["lexical", "semantic"])
    def search(self, request, tmp_path):
        if request.param == "lexical":
            return Lexical(BASE).search
        return Semantic(BASE, hashed, "hashed", tmp_path).search

    def test_the_best_come_first_and_are_the_same_again(self, search):
        found = search("recall collapses once the state is crowded with key-value pairs", 5)
        assert len({one.key for one in found}) == 5
        assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
        assert search("recall collapses once the state is crowded with key-value pairs", 5) == found
        titles = {insight.title for insight in BASE.get(found[0].key).insights}
        assert found[0].insight in titles

    def test_no_family_takes_all_places(self, search):
        for query in QUERIES[:20]:
            families = [BASE.get(found.key).front.family for found in search(query["query"], COUNT)]
            assert max(map(families.count, families)) <= 2

    def test_nothing_is_found_for_nothing(self, search):
        assert search("", 3) == []
        assert Lexical(Base({})).search("recall", 3) == []


def test_what_a_concept_is_called_otherwise_finds_it():
    assert "=recall" in terms("it cannot look up what it was told")
    assert "=recall" in terms("associative memory")
    assert terms("of the and") == ()


def test_vectors_are_made_once_and_made_again_where_they_are_damaged(tmp_path):
    asked = []

    def counting(texts):
        asked.append(len(texts))
        return hashed(texts)

    total = sum(len(entry.insights) for entry in BASE)
    Semantic(BASE, counting, "a", tmp_path)
    assert sum(asked) == total
    Semantic(BASE, counting, "a", tmp_path)
    assert sum(asked) == total
    Semantic(BASE, counting, "b", tmp_path)  # another model makes another file
    assert sum(asked) == 2 * total
    for file in tmp_path.glob("*.npy"):
        file.write_bytes(file.read_bytes()[:100])
    Semantic(BASE, counting, "a", tmp_path)
    assert sum(asked) == 3 * total


def test_a_model_that_changed_under_its_name_is_told(tmp_path):
    search = Semantic(BASE, hashed, "a", tmp_path)
    search._embed = lambda texts: [[1.0, 2.0]]
    with pytest.raises(ConfigError, match="it was changed under its name"):
        search.search("recall")


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskError, match="were not kept"):
        Semantic(BASE, hashed, "a", tmp_path / "file")


@pytest.mark.parametrize("name", ["", "magic", "ollama:", "openai"])
def test_an_embedder_that_is_none_is_told(name, tmp_path):
    with pytest.raises(ConfigError, match="an embedder should be written lexical"):
        rank.adviser(AgentSettings(embedder=name or "none"), tmp_path)


def advised(weaknesses) -> tuple[Cognition, ...]:
    search = Lexical(BASE).search
    return Adviser(BASE, search, search).advise(weaknesses)


def test_advice_says_which_weakness_called_for_it():
    weak = ["asi_recall: -8.0% against the baseline (-4.0 noise floors)", "training diverges after a spike"]
    found = advised(weak)
    assert len(found) == COUNT
    assert {cognition.weakness for cognition in found} <= set(weak)
    assert list(found) == sorted(found, key=lambda one: -one.score)
    assert advised([]) == ()


@pytest.mark.parametrize(
    ("probe", "accepted"),
    [
        ("probe_reassigned", {"deltanet", "gated-deltanet", "gated-deltanet-2", "rwkv-7", "longhorn"}),
        ("probe_parity", {"negative-eigenvalues", "deltaproduct", "illusion-of-state", "mamba-3"}),
        ("probe_mqar", {"zoology", "based", "deltanet", "mad"}),
    ],
)
def test_a_probe_finds_what_the_field_does_about_it(probe, accepted):
    weakness = f"{PROBES[probe].title} ({probe}) at 0.31 of Gated DeltaNet's (-6.0 noise floors)"
    assert accepted & {cognition.key for cognition in advised([weakness])}


def test_what_is_told_is_what_the_entry_says():
    search = Lexical(BASE).search
    adviser = Adviser(BASE, search, search)
    found = adviser.advise(["recall of many key-value pairs collapses"])
    told = adviser.told(found)
    for cognition in found:
        entry = BASE.get(cognition.key)
        insight = next(one for one in entry.insights if one.title == cognition.insight)
        assert insight.formulation in told
        assert entry.front.title in told
        assert insight.design in adviser.cited(found)
    gone = (Cognition("no-such-entry", "x", 1.0, "w"),)
    assert adviser.told(gone) == adviser.cited(gone) == ""
    assert adviser.hints(gone) == {}
    assert adviser.hints((Cognition("deltanet", BASE.get("deltanet").insights[0].title, 1.0, "w"),)) == {
        "deltanet": BASE.get("deltanet").insights[0].genome
    }


def test_without_its_model_the_words_are_searched(tmp_path):
    def gone(query, count):
        raise ModelError("the server is gone")

    adviser = Adviser(BASE, gone, Lexical(BASE).search)
    with pytest.raises(ModelError):
        adviser.advise(["recall"])
    assert len(adviser.advise(["recall of pairs"], without_model=True)) == COUNT


def test_standings_count_what_came_of_entries(make_candidate):
    def citing(number: int, parent: int, fitness: float, *keys: str, state=CandidateState.DONE):
        made = make_candidate(number, parent, fitness=fitness, state=state)
        cited = tuple(Cognition(key, "t", 1.0, "w") for key in keys)
        proposal = msgspec.structs.replace(made.proposal, cognitions=cited)
        return msgspec.structs.replace(made, proposal=proposal)

    found = standings(
        [
            citing(1, 0, 0.5),
            citing(2, 1, 0.8, "gla", "mamba"),
            citing(3, 1, 0.505, "gla"),
            citing(4, 1, 0.9, "mamba", state=CandidateState.LEAKING),
        ]
    )
    by_key = {one.key: one for one in found}
    assert (by_key["gla"].candidates, by_key["gla"].scored, by_key["gla"].better) == (2, 2, 1)
    assert by_key["gla"].gain == pytest.approx(0.1525)
    assert (by_key["mamba"].candidates, by_key["mamba"].scored, by_key["mamba"].better) == (2, 1, 1)
    assert standings([citing(1, 0, 0.5)]) == []
