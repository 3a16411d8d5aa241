"""The cognition base in the loop: weakness, entry, proposal, commit trailer, counts."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from asi_lab.cli import cli
from asi_lab.engine import Engine
from asi_lab.knowledge.base import load
from asi_lab.lab import Lab, Store
from asi_lab.llm.scripted import Scripted
from asi_lab.records import Cognition
from asi_lab.researcher.grammar.genome import Genome, canonical, is_valid, seed_genome
from asi_lab.researcher.grammar.mutate import lean
from tests import night, simulated_engine

SETTINGS = "[baselines]\nseeds = 2\nmax_seeds = 2\n"
MODELS = '[agents]\nmodels = ["openai:night"]\ncontrol = {control}\nahead = 0\n'
BASE = load()


def search(lab: Lab, experiments: int, model: object = None) -> None:
    executor = simulated_engine.SimulatedExecutor(0.001)
    Engine(lab, simulated_engine.Silent(), executor, lambda name: Scripted(model, name)).search(
        experiments, None
    )


def run(lab: Lab, *words: object):
    return CliRunner().invoke(cli, ["--lab", str(lab.path), *map(str, words)])


def trailers(lab: Lab, sha: str) -> list[str]:
    shown = subprocess.run(
        ["git", "-C", str(lab.lineage), "show", "-s", "--format=%(trailers:key=Cognition,valueonly)", sha],
        capture_output=True,
        text=True,
        check=True,
    )
    return shown.stdout.split()


@pytest.fixture
def told(monkeypatch) -> list[str]:
    """Every parent has the same weakness."""
    weak = ["asi_recall: recall of many key-value pairs collapses as the state is crowded"]
    monkeypatch.setattr("asi_lab.scoring.results.shortfalls", lambda candidate, baselines: weak)
    monkeypatch.setattr("asi_lab.analyst.ablation._tasks", lambda candidate, baselines: (weak, []))
    return weak


def test_a_planner_reads_what_was_retrieved_and_the_commit_cites_it(tmp_path, told):
    lab = simulated_engine.make_lab(tmp_path, SETTINGS + MODELS.format(control=0.0), seed=1)
    nights, asked = night.Night(), []

    def model(messages, call):
        if len(messages) == 2:
            asked.append((night.ROLES.get(messages[0].content), messages[1].content))
        return nights(messages)

    search(lab, 3, model)
    with Store.open_readonly(lab.store) as store:
        first = store.get(1)
    cognitions = first.proposal.cognitions
    assert len(cognitions) == 3
    assert {cognition.weakness for cognition in cognitions} == set(told)
    plans = [text for role, text in asked if role == "planner"]
    analyses = [text for role, text in asked if role == "analyst"]
    for cognition in cognitions:
        entry = BASE.get(cognition.key)
        insight = next(one for one in entry.insights if one.title == cognition.insight)
        assert insight.formulation in plans[0]
        assert insight.design in analyses[0]
    assert trailers(lab, first.commit) == [cognition.key for cognition in cognitions]
    shown = run(lab, "show", 1).stdout
    assert cognitions[0].key in shown
    assert "recall of many key-value" in shown
    counted = run(lab, "cognition", "stats").stdout
    assert cognitions[0].key in counted
    assert run(lab, "fsck").exit_code == 0
    assert run(lab, "replay", 1).exit_code == 0


def test_the_grammar_leans_to_what_was_retrieved(tmp_path, told):
    lab = simulated_engine.make_lab(tmp_path, SETTINGS, seed=1)
    search(lab, 12)
    with Store.open_readonly(lab.store) as store:
        candidates = [store.get(number) for number in range(1, 13)]
    led = [candidate for candidate in candidates if candidate.proposal.cognitions]
    assert 2 <= len(led) <= 10
    for candidate in led:
        (cognition,) = candidate.proposal.cognitions
        entry = BASE.get(cognition.key)
        insight = next(one for one in entry.insights if one.title == cognition.insight)
        genome = candidate.proposal.genome
        assert any(genome[gene] in values for gene, values in insight.genome.items())
        assert f"It leans to {cognition.key}" in candidate.proposal.motivation
        assert trailers(lab, candidate.commit) == [cognition.key]
    others = [candidate for candidate in candidates if not candidate.proposal.cognitions]
    assert all(trailers(lab, candidate.commit) == [] for candidate in others)


def test_without_its_embedding_model_a_search_goes_on_by_words_and_says_so(tmp_path, told):
    settings = SETTINGS + '[agents]\nembedder = "ollama:none"\nollama_host = "http://127.0.0.1:9"\n'
    lab = simulated_engine.make_lab(tmp_path, settings, seed=1)
    search(lab, 2)
    with Store.open_readonly(lab.store) as store:
        warnings = [event.message for event in store.events(0, 10_000) if event.kind == "warning"]
    assert any("the cognition base is searched by words alone" in words for words in warnings)


def test_a_step_towards_a_hint_is_sound_and_new():
    start, rng = seed_genome(), random.Random(0)
    hints = [{"decay": ("data", "head")}, {"gate": ("silu",), "gate_scope": ("channel",)}]
    seen = set()
    for _ in range(30):
        number, child = lean(start, hints, rng)
        assert is_valid(child) is None
        assert child == canonical(child) != start
        assert any(getattr(child, gene) in values for gene, values in hints[number].items())
        seen.add(number)
    assert seen == {0, 1}
    expressed = canonical(Genome(decay="data"))
    assert lean(expressed, hints[:1], rng) is None
    assert lean(start, [{"rule": ("magic",)}, {"colour": ("red",)}], rng) is None
    assert lean(start, [], rng) is None


def test_old_records_have_no_cognitions(make_candidate):
    assert make_candidate(1).proposal.cognitions == ()
    assert Cognition("k", "i", 1.0, "w").key == "k"


def test_a_folder_of_entries_in_the_lab_is_used(tmp_path):
    lab = simulated_engine.make_lab(tmp_path, SETTINGS, seed=1)
    folder = lab.path / "cognition"
    folder.mkdir()
    (folder / "broken.md").write_text("nothing")
    done = run(lab, "cognition", "lint")
    assert done.exit_code == 1
    assert Path("broken.md").name in done.output
