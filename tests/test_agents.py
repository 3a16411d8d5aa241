"""Language models in the loop: whole nights with a model that errs, and trials that are simulated."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import night
import simulated_engine

from asi_lab.config import parse
from asi_lab.control import StopNow
from asi_lab.engine import Engine
from asi_lab.errors import ConfigError
from asi_lab.lab import Lab
from asi_lab.llm.model import Model, ModelError, Reply
from asi_lab.llm.scripted import Scripted
from asi_lab.records import CandidateState
from asi_lab.store import Store

LAB = """preset = "micro"
seed = 1
[data]
source = "text:{text}"
tokenizer = "byte"
[evaluate]
tasks = ["asi_recall", "asi_copy"]
limit = 4
[baselines]
seeds = 2
max_seeds = 2
[judge]
timing = false
[agents]
models = ["openai:night"]
control = {control}
"""


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return make(tmp_path)


def make(folder: Path, control: float = 0.0) -> Lab:
    text = folder / "text.txt"
    rng, words = random.Random(0), ["matrix", "of", "fast", "weights", "keeps", "the", "past", "by", "keys"]
    text.write_text("\n\n".join(" ".join(rng.choice(words) for _ in range(400)) + "." for _ in range(60)))
    lab = Lab(folder / "lab")
    lab.path.mkdir()
    lab.config.write_text(LAB.format(text=text, control=control))
    return lab


def search(lab: Lab, model: Callable[..., Reply] | list[Reply], experiments: int) -> Scripted:
    scripted = Scripted(model, "openai:night")

    def connected(name: str) -> Model:
        assert name == "openai:night"
        return scripted

    executor = simulated_engine.SimulatedExecutor(0.001)
    Engine(lab, simulated_engine.Silent(), executor, connected).search(experiments, None)
    return scripted


def read(lab: Lab):
    with Store.open_readonly(lab.store) as store:
        return list(store.candidates()), store.events(0, 10_000), store.ledger()


def test_a_night_with_honest_mistakes(lab):
    model = night.Night()
    search(lab, model, night.CANDIDATES)
    candidates, events, ledger = read(lab)
    assert [c.id for c in candidates] == list(range(night.CANDIDATES + 1))
    assert all(c.commit for c in candidates)
    by_planner = [c for c in candidates if c.proposal.researcher == "planner"]
    assert [c.id for c in by_planner] == [1, 2, 3, 4, 5, 6, 7, 9, 10]
    assert {c.proposal.model for c in by_planner} == {"openai:night"}
    assert set(by_planner[0].proposal.prompts) == set(night.ROLES.values())
    assert candidates[4].proposal.rejected == 1  # the idea of candidate 1 came first
    assert candidates[4].proposal.motivation == night.IDEAS[4]
    assert candidates[8].proposal.researcher == "grammar"
    warnings = [e.message for e in events if e.kind == "warning"]
    assert any("candidate 8: planner failed, the grammar proposes it" in words for words in warnings)
    nine = candidates[9]
    assert [(r.role, r.failure) for r in nine.repairs][:1] == [("checker", CandidateState.REJECTED)]
    assert "import os" not in nine.proposal.code
    done = [c for c in candidates[1:] if c.score is not None]
    assert len(done) >= 5
    for candidate in done:
        assert candidate.score.judgement.judge == "openai:night"
        assert sorted(candidate.score.judgement.marks) == [5.75, 6.0, 6.25]
        assert candidate.score.judgement.mark == 6.0
        assert candidate.analysis.text.count("\n## ") >= 10  # five sections, and the table behind them
        assert "recall over long distances" in candidate.analysis.weaknesses
    assert len(ledger) == len(model_calls(ledger))
    assert {entry["candidate"] for entry in ledger.values()} == set(range(1, 11))


def model_calls(ledger):
    return [entry for entry in ledger.values() if entry["model"] == "openai:night"]


def test_a_reply_that_was_paid_for_is_not_asked_for_again(lab):
    """The night breaks off in the middle of candidate 2, and goes on with what it has."""

    class Broken(night.Night):
        def __call__(self, messages, call=None):
            if night.ROLES.get(messages[0].content) == "novelty":
                raise StopNow
            return super().__call__(messages, call)

    first = Broken()
    search(lab, first, 3)
    assert first.asked.count("planner") == 2
    second = night.Night()
    second._number = 2
    search(lab, second, 2)
    assert "planner" not in second.asked
    assert second.asked[:2] == ["greeting", "novelty"]
    candidates, _, _ = read(lab)
    assert candidates[2].proposal.motivation == night.IDEAS[2]


def test_a_model_that_cannot_be_had_ends_the_start(lab):
    def away(messages, call):
        raise ModelError("OPENAI_API_KEY is refused. Set the right one.")

    with pytest.raises(ModelError, match="is refused"):
        search(lab, away, 2)


def test_a_model_that_goes_away_costs_no_night(lab):
    def away(messages, call):
        if messages[0].role != "system":
            return Reply("ready")
        raise ModelError("the server is gone")

    search(lab, away, 2)
    candidates, events, _ = read(lab)
    assert [c.proposal.researcher for c in candidates[1:]] == ["grammar", "grammar"]
    assert all(c.commit for c in candidates)
    warnings = [e.message for e in events if e.kind == "warning"]
    assert sum("planner failed" in words and "the server is gone" in words for words in warnings) == 2
    for candidate in candidates[1:]:
        if candidate.score is not None:
            assert candidate.score.judgement.judge == "measured rubric"


def test_the_control_arm_is_the_grammar_s(tmp_path):
    lab = make(tmp_path, control=1.0)
    model = night.Night()
    search(lab, model, 3)
    candidates, _, _ = read(lab)
    assert [c.proposal.researcher for c in candidates[1:]] == ["grammar"] * 3
    assert "planner" not in model.asked
    assert "judge" in model.asked


def test_a_wrong_name_of_a_model_is_told(lab):
    lab.config.write_text(lab.config.read_text().replace("openai:night", "gpt"))
    engine = Engine(lab, simulated_engine.Silent(), simulated_engine.SimulatedExecutor(0.001))
    with pytest.raises(ConfigError, match=r"ollama:NAME or openai:NAME.*found 'gpt'"):
        engine.search(1, None)


def test_prompts_of_the_lab_are_used_and_their_hashes_kept(lab):
    from asi_lab import prompting

    packaged = prompting.load("novelty")
    lab.prompts.mkdir()
    source = (Path(prompting.__file__).parent / "prompts" / "novelty.md").read_text()
    (lab.prompts / "novelty.md").write_text(source.replace("# User", "Be brief.\n\n# User"))
    search(lab, night.Night(), 1)
    candidates, _, _ = read(lab)
    digests = candidates[1].proposal.prompts
    assert digests["planner"] == prompting.load("planner").digest
    assert digests["novelty"] != packaged.digest


def test_settings_of_agents():
    settings = parse('preset = "micro"\n[agents]\nmodels = ["ollama:a"]\njudge = ["openai:b"]\n').agents
    assert settings.models == ("ollama:a",)
    assert settings.judge == ("openai:b",)
