"""Language models in the loop: whole nights with a model that errs, and trials that are simulated."""

from __future__ import annotations

import io
import itertools
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from asi_lab.cli import cli
from asi_lab.common.background import StopNow
from asi_lab.common.text import CUT
from asi_lab.engine import Engine
from asi_lab.errors import ConfigError
from asi_lab.lab import Lab, Store, commands, steering
from asi_lab.lab.config import parse
from asi_lab.lab.spending import Spent
from asi_lab.llm import prompting
from asi_lab.llm.model import Cancelled, Model, ModelError, Reply, TokenUsage, TooLong
from asi_lab.llm.scripted import Scripted
from asi_lab.records import Arm, CandidateState
from asi_lab.researcher import arms
from asi_lab.researcher.pool import generation_of
from asi_lab.scoring import references
from asi_lab.view import status, tables
from asi_lab.view.transcript import transcript
from tests import night, simulated_engine

SETTINGS = """[baselines]
seeds = 2
max_seeds = 2
[agents]
models = ["openai:night"]
control = {control}
ahead = {ahead}
repairs = {repairs}
"""


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return make(tmp_path)


def make(folder: Path, control: float = 0.0, ahead: int = 0) -> Lab:
    settings = SETTINGS.format(control=control, ahead=ahead, repairs=0 if ahead else 3)
    return simulated_engine.make_lab(folder, settings, seed=1)


def costly(prompt: int, completion: int) -> Callable[..., Reply]:
    """A night whose every call takes so many tokens."""
    model = night.Night()
    return lambda messages, call: msgspec.structs.replace(
        model(messages), usage=TokenUsage(prompt, completion)
    )


def search(
    lab: Lab,
    model: Callable[..., Reply],
    experiments: int,
    view: simulated_engine.Silent | None = None,
) -> Scripted:
    scripted = Scripted(model, "openai:night")

    def connected(name: str) -> Model:
        assert name == "openai:night"
        return scripted

    executor = simulated_engine.SimulatedExecutor(0.001)
    Engine(lab, view or simulated_engine.Silent(), executor, connected).search(experiments, None)
    return scripted


def read(lab: Lab):
    with Store.open_readonly(lab.store) as store:
        return list(store.candidates()), store.events(0, 10_000), of_candidates(store)


def of_candidates(store: Store) -> dict[str, dict]:
    """The ledger's entries of calls that were made for candidates."""
    entries = store.ledger.entries().items()
    return {key: entry for key, entry in entries if entry["role"] not in ("trial", "greeting")}


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
        judgement = candidate.score.judgement
        assert sorted(judgement.marks) == [5.667, 6.0, 6.333]
        performance, *_, scale = judgement.parts
        assert scale.points == 0.25  # 6 between 5 and 9 is 6.25 between 5 and 10
        assert judgement.mark == pytest.approx((5 + performance.points + 3 * 6.25) / 4, abs=1e-3)
        assert [(c.family, c.label) for c in candidate.analysis.components] == [
            ("gating", "sigmoid per head")
        ]
        assert (candidate.analysis.origin is None) == (candidate.proposal.researcher == "grammar")
        assert candidate.analysis.text.count("\n## ") >= 10  # five sections, and the table behind them
        assert "recall over long distances" in candidate.analysis.weaknesses
    assert len(ledger) == len(model_calls(ledger))
    assert {entry["candidate"] for entry in ledger.values()} == set(range(11))
    scales = [e.message for e in events if e.message.startswith("judge openai:night: ")]
    assert scales == ["judge openai:night: DeltaNet gets 5.00, Gated DeltaNet 9.00"]
    assert [entry["role"] for entry in ledger.values() if entry["candidate"] == 0] == ["judge"] * 6


def test_transcripts_are_shown_and_replayed_without_a_model(lab):
    search(lab, night.Night(), night.CANDIDATES)
    candidates, _, _ = read(lab)

    def run(*arguments: object) -> Result:
        return CliRunner().invoke(cli, ["--lab", str(lab.path), *map(str, arguments)])

    for candidate in candidates[1:]:
        replayed = run("replay", candidate.id, "--json")
        assert replayed.exit_code == 0, replayed.output
        outcomes = json.loads(replayed.stdout)
        behind = ("judge", "analyst", "components", "provenance")
        told = [o["agrees"] for o in outcomes if o["role"] not in behind]
        assert told.count(True) == (candidate.id != 8)  # what the last writer left; of 8 no plan came
        if candidate.score is not None:
            assert [o["agrees"] for o in outcomes if o["role"] in ("judge", "analyst")] == [True] * 4
            tagged = [o["agrees"] for o in outcomes if o["role"] in ("components", "provenance")]
            assert tagged == [True] * (
                1 if candidate.id in (1, 8) else 2
            )  # 1 had read nothing, 8 is no model's
    shown = run("show", 6, "--transcript")
    assert "planner: openai:night" in shown.stdout
    assert "I would gate the output." in shown.stdout
    assert "architecture.py was not changed" in shown.stdout  # the reminder
    assert "calls write_code_file:" in shown.stdout
    exchanges = json.loads(run("show", 6, "--transcript", "--json").stdout)
    assert [e["role"] for e in exchanges[:4]] == ["summariser", "planner", "planner", "planner"]
    assert "judge: openai:night" in run("show", 0, "--transcript").stdout
    assert "is the seed" in run("replay", 0).stderr
    assert run("replay", 0).exit_code == 2
    assert "yes" in run("replay", 1).stdout


def test_a_replay_tells_what_differs_from_the_record(lab):
    search(lab, night.Night(), 1)
    with Store.open(lab.store) as store:
        found = store.get(1)
        other = msgspec.structs.replace(found.proposal, code=found.proposal.code + "# changed\n")
        store.put(msgspec.structs.replace(found, proposal=other))
    result = CliRunner().invoke(cli, ["--lab", str(lab.path), "replay", "1"])
    assert result.exit_code == 1
    assert "NO" in result.stdout


def at(lab: Lab) -> list[str]:
    return ["--lab", str(lab.path)]


def spent_on(lab: Lab, candidate: int) -> Spent:
    with Store.open_readonly(lab.store) as store:
        return store.ledger.spent_on(candidate)


def test_what_models_cost_is_counted_and_shown(lab):
    (lab.path / "prices.toml").write_text('["openai:night"]\nprompt = 2.0\ncompletion = 10.0\n')
    search(lab, costly(1000, 100), 1)
    _, _, ledger = read(lab)
    assert [entry["role"] for entry in ledger.values()].count("judge") == 3 + 6
    assert all(entry["dollars"] == pytest.approx(0.003) for entry in ledger.values())
    result = CliRunner().invoke(cli, ["--lab", str(lab.path), "status", "--json"])
    spent = json.loads(result.stdout)["spent"]
    assert spent["calls"] == len(ledger) + 1  # and the greeting
    assert spent["prompt_tokens"] == 1000 * (len(ledger) + 1)
    assert spent["dollars"] == pytest.approx(0.003 * (len(ledger) + 1))
    assert spent["unpriced"] == 0
    assert spent["trial_seconds"] > 0
    assert spent["gpu_seconds"] == 0
    assert f" {len(ledger) + 1} calls, " in CliRunner().invoke(cli, [*at(lab), "status"]).stdout
    cost = f"{spent_on(lab, 1).calls} calls, {1100 * spent_on(lab, 1).calls:,} tokens"
    assert cost in CliRunner().invoke(cli, [*at(lab), "show", "1"]).stdout


def test_a_spent_budget_pauses_and_the_grammar_goes_on_when_told_to(lab):
    lab.config.write_text(lab.config.read_text() + "most_tokens = 3000\n")

    class Owner(simulated_engine.Silent):
        def refresh(self, store: Store) -> None:
            if (store.get_meta("engine") or {}).get("state") == "paused" and not asked:
                asked.append(commands.send(lab.commands, "resume"))

    asked: list[commands.Command] = []
    search(lab, costly(1000, 100), 3, Owner())
    candidates, events, ledger = read(lab)
    assert [c.proposal.researcher for c in candidates[1:]] == ["planner", "grammar", "grammar"]
    assert {entry["candidate"] for entry in ledger.values()} <= {0, 1}
    paused = [e.message for e in events if "agents.most_tokens is 3000" in e.message]
    assert len(paused) == 1
    assert "asi-lab resume" in paused[0]


def test_a_plan_in_the_making_when_the_budget_ends_is_waited_for(tmp_path):
    """Not planned a second time by the grammar, whose proposal it would replace in the middle of a trial."""
    lab = make(tmp_path, ahead=3)
    lab.config.write_text(lab.config.read_text() + "most_tokens = 3000\n")
    model, asked = Thinkers(), []

    def priced(messages, call):
        model.seconds = 2.0 if model.plans >= 4 else 0.0  # the fifth plan, begun beside the second trial
        tokens = 10_000 if model.plans >= 5 and len(messages) == 2 else 0  # the judge is called meanwhile
        return msgspec.structs.replace(model(messages, call), usage=TokenUsage(tokens, 0))

    class Owner(simulated_engine.Silent):
        def refresh(self, store: Store) -> None:
            if (store.get_meta("engine") or {}).get("state") == "paused" and not asked:
                asked.append(commands.send(lab.commands, "resume"))

    search(lab, priced, 10, Owner())
    candidates, events, _ = read(lab)
    proposed = [e.candidate for e in events if e.kind == "candidate_proposed"]
    assert sorted(proposed) == list(range(1, 11))
    assert all(c.commit for c in candidates)
    assert len(asked) == 1  # the budget did end
    assert [c.proposal.researcher for c in candidates].count("planner") == model.plans


def test_a_candidate_that_eats_too_much_is_given_up_by_its_models(lab):
    lab.config.write_text(lab.config.read_text() + "candidate_tokens = 1000\n")
    search(lab, costly(900, 200), 1)
    candidates, events, _ = read(lab)
    assert candidates[1].proposal.researcher == "planner"
    assert any("agents.candidate_tokens is 1,000" in e.message for e in events)


def test_the_bandit_takes_planners_by_their_past_and_shows_its_state(lab):
    text = lab.config.read_text().replace('["openai:night"]', '["openai:night", "ollama:other"]')
    lab.config.write_text(text + 'policy = "bandit"\n')
    model = night.Night()
    executor = simulated_engine.SimulatedExecutor(0.001)
    Engine(lab, simulated_engine.Silent(), executor, lambda name: Scripted(model, name)).search(6, None)
    candidates, _, _ = read(lab)
    planned = [c.proposal.model for c in candidates[1:]]
    assert planned[:2] == ["openai:night", "ollama:other"]

    def run(*arguments: object) -> Result:
        return CliRunner().invoke(cli, ["--lab", str(lab.path), *map(str, arguments)])

    shown = json.loads(run("models", "--json").stdout)
    assert {arm["model"]: arm["pulls"] for arm in shown["arms"]} == Counter(planned)
    assert shown["next"] in ("openai:night", "ollama:other")
    table = run("models")
    assert "openai:night" in table.stdout
    assert "(bandit)" in table.stderr


def test_an_estimate_before_and_after_a_search(lab):
    def run() -> dict:
        result = CliRunner().invoke(cli, ["--lab", str(lab.path), "estimate", "-n", "10", "--json"])
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    before = run()
    assert before["seconds"] is None
    assert before["tokens"] == 10 * 31_000
    assert before["dollars"] is None  # nobody knows the price of this model
    (lab.path / "prices.toml").write_text('["openai:night"]\nprompt = 2.0\ncompletion = 10.0\n')
    assert run()["dollars"] == pytest.approx(10 * (25_000 * 2 + 6_000 * 10) / 1e6)
    search(lab, costly(1000, 100), 2)
    after = run()
    _, _, ledger = read(lab)
    calls = sum(entry["candidate"] > 0 for entry in ledger.values())
    assert after["tokens"] == 10 * round(1100 * calls / 2)
    assert after["dollars"] == pytest.approx(10 * 0.003 * calls / 2)
    assert after["seconds"] > 0


class Thinkers:
    """A model that many ask at once: every plan has its own gate, and takes `seconds`."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds, self._lock = seconds, threading.Lock()
        self.plans = self.at_once = self.most_at_once = 0

    def __call__(self, messages, call):
        role = night.ROLES.get(messages[0].content)
        if role != "planner":
            return night.Night()(messages, call)
        if len(messages) > 2:
            return Reply(json.dumps(self._plan(messages)))
        with self._lock:
            self.plans += 1
            number = self.plans
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        if call.cancelled.wait(self.seconds):
            raise Cancelled("given up")
        with self._lock:
            self.at_once -= 1
        line = f"        o = o * torch.sigmoid({number}.0 + self.gate_proj(x)).unsqueeze(-1)\n"
        return night.call_tool(content=night.gated(line))

    def _plan(self, messages):
        (number,) = re.findall(r"sigmoid\((\d+)\.0", messages[2].calls[0].arguments["content"])
        words = " ".join(f"{night.IDEAS[1 + int(number) % 3].split()[i]}{number}" for i in range(20))
        return {"name": f"delta_net_thought_{number}", "motivation": words, "change": f"gate {number}"}


def test_models_think_ahead_while_a_trial_runs(tmp_path):
    lab = make(tmp_path, ahead=3)
    model = Thinkers(seconds=0.3)
    search(lab, model, 8)
    candidates, _, _ = read(lab)
    assert [c.id for c in candidates] == list(range(9))
    assert all(c.commit for c in candidates)
    assert {c.proposal.researcher for c in candidates[1:]} == {"planner"}
    assert len({c.proposal.code_hash for c in candidates}) == 9
    assert model.most_at_once == 4  # the next one and three ahead of it
    for candidate in candidates[1:]:  # the pool that a draw was made from had ended by then
        assert candidate.draw.generation == generation_of(max(1, candidate.id - 6), lab.settings().search)


@pytest.mark.parametrize("ahead", [0, 3])
def test_models_think_beside_two_trials(tmp_path, ahead):
    lab = make(tmp_path, ahead=ahead)
    text = lab.config.read_text().replace("repairs = 3", "repairs = 0")
    lab.config.write_text(text.replace("slots = 1", "slots = 2").replace("[train]", "[train]\nthreads = 1"))
    search(lab, Thinkers(seconds=0.1), 8)
    candidates, _, ledger = read(lab)
    assert [c.id for c in candidates] == list(range(9))
    assert all(c.commit for c in candidates)
    assert {c.proposal.researcher for c in candidates[1:]} == {"planner"}
    assert {entry["role"] for entry in ledger.values()} >= {"planner", "judge", "analyst"}
    for candidate in candidates[1:]:
        behind = 2 * ahead + 2
        generation = generation_of(max(1, candidate.id - behind), lab.settings().search)
        assert candidate.draw.generation == generation


def test_repairs_are_made_beside_the_trials_and_what_was_repaired_has_its_turn_again(tmp_path):
    lab = make(tmp_path, ahead=3)
    lab.config.write_text(lab.config.read_text().replace("repairs = 0", "repairs = 3"))
    thinkers, trials, beside = Thinkers(), [], set[str]()

    class Owner(simulated_engine.Silent):
        def working(self, label: str, stage: str, progress: object) -> None:
            if stage == "checks":
                trials.append(label)

    def faulty(messages, call):
        role = night.ROLES.get(messages[0].content)
        if role in ("checker", "debugger") and "import os" not in messages[1].content:
            return Reply("I do not know.")  # what the simulated trials fail for
        if role == "checker":  # as long as it thinks, others have their trials
            if len(messages) == 2:
                deadline = time.monotonic() + 20
                while len(others := {label for label in trials if label.isdigit()}) < 2:
                    assert time.monotonic() < deadline
                    time.sleep(0.02)
                beside.update(others)
                edit = "<<<<<<< SEARCH\nimport os\n=======\n>>>>>>> REPLACE\n"
                return night.call_tool(edits=edit)
            return night.DONE
        reply = thinkers(messages, call)
        if role == "planner" and len(messages) == 2 and thinkers.plans == 1:
            code = reply.calls[0].arguments["content"]
            broken = code.replace("from typing import Any\n", "import os\nfrom typing import Any\n", 1)
            return night.call_tool(content=broken)
        return reply

    search(lab, faulty, 6, Owner())
    candidates, events, _ = read(lab)
    (mended,) = [c for c in candidates if any(r.role == "checker" for r in c.repairs)]
    assert all(c.commit for c in candidates)
    assert "import os" not in mended.proposal.code
    assert len(beside) == 2
    assert f"{mended.id:04d}" not in beside
    assert f"{mended.id:04d}" in trials
    assert [e.candidate for e in events if e.kind == "candidate_repaired"] == [mended.id]
    for candidate in candidates[1:]:  # all that a draw looked at had ended by then
        assert candidate.draw.generation == generation_of(max(1, candidate.id - 6), lab.settings().search)


def test_proposals_made_ahead_survive_and_the_search_goes_on_with_them(tmp_path):
    lab = make(tmp_path, ahead=3)
    first = Thinkers()

    class Owner(simulated_engine.Silent):
        def refresh(self, store: Store) -> None:
            if store.count() >= 5 and not stopped:
                stopped.append(commands.send(lab.commands, "stop_now"))

    stopped: list[commands.Command] = []
    search(lab, first, 50, Owner())
    before = {c.id: c.proposal.code for c in read(lab)[0]}
    assert len(before) >= 5
    search(lab, Thinkers(), len(before) - 1)
    candidates, _, _ = read(lab)
    assert [c.id for c in candidates] == list(range(len(candidates)))
    assert all(c.commit for c in candidates)
    kept = {c.id: c.proposal.code for c in candidates if not c.repairs}
    assert kept == {number: code for number, code in before.items() if number in kept}


def test_two_of_the_same_idea_that_were_planned_at_once_are_not_both_tried(tmp_path):
    lab = make(tmp_path, ahead=3)
    everyone, together = Thinkers(), threading.Barrier(3)

    final = night.final(1)

    def same(messages, call):
        role = night.ROLES.get(messages[0].content)
        if role != "planner" or len(messages) == 2:
            return everyone(messages, call)
        together.wait(timeout=20)  # nobody's plan is recorded before all have theirs
        return Reply(final)

    search(lab, same, 3)
    candidates, _, _ = read(lab)
    caught = [c for c in candidates[1:] if c.state is CandidateState.DUPLICATE or c.proposal.rejected]
    assert len(caught) == 2  # when it was recorded, or at once where the other was recorded before
    for candidate in caught:
        if candidate.state is CandidateState.DUPLICATE:
            assert "the same idea as candidate" in candidate.evidence.error
    tried = [c.proposal.motivation for c in candidates[1:] if c.state is not CandidateState.DUPLICATE]
    assert len(set(tried)) == len(tried)


def model_calls(ledger):
    return [entry for entry in ledger.values() if entry["model"] == "openai:night"]


def test_the_planner_is_told_where_everybody_stands(lab):
    model = search(lab, night.Night(), 2)
    planners = [
        r.messages[1].content for r in model.requests if night.ROLES.get(r.messages[0].content) == "planner"
    ]
    assert "| DeltaNet | Gated DeltaNet | Mamba-2 | sd of one run |" in planners[0]
    assert "to be called better, is " in planners[0]
    line = f"candidate 1 {night.NAMES[1]}, from 0 (mechanism 1 behind the output norm): loss"
    assert line not in planners[0]
    assert line in planners[-1]


def test_planners_of_controls_are_told_of_nothing_that_the_search_found(tmp_path):
    """Those of best_of_n are each as if they were the first, and take up nobody's idea."""
    controls = '[search]\ncontrols = ["best_of_n"]\ncontrol_share = 0.6\n'
    told = SETTINGS.format(control=0.0, ahead=0, repairs=3)
    lab = simulated_engine.make_lab(tmp_path, controls + told, seed=4)
    settings = lab.settings()
    assert [arms.arm_of(n, settings) for n in (1, 2)] == [Arm.EVOLUTION, Arm.BEST_OF_N]
    search(lab, night.Night(), 1)
    with Store.open(lab.store) as store:
        steering.obey(store, commands.new("idea", text="two time scales"))
    model = search(lab, night.Night(), 2)
    (asked,) = [
        r.messages[1].content
        for r in model.requests
        if night.ROLES.get(r.messages[0].content) == "planner" and len(r.messages) == 2
    ]
    assert night.NAMES[1] not in asked
    assert "two time scales" not in asked
    with Store.open_readonly(lab.store) as store:
        assert [idea.taken_by for idea in steering.read(store).ideas] == [None]
        assert store.held(2).arm is Arm.BEST_OF_N
        assert store.held(2).proposal.researcher == "planner"


class Broken(night.Night):
    """Breaks off when novelty is asked about, in the middle of a candidate."""

    def __call__(self, messages, call=None):
        if night.ROLES.get(messages[0].content) == "novelty":
            raise StopNow
        return super().__call__(messages, call)


def test_a_reply_that_was_paid_for_is_not_asked_for_again(lab):
    """The night breaks off in the middle of candidate 2, and goes on with what it has."""

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
    packaged = prompting.load("novelty")
    (lab.path / "prompts").mkdir()
    source = (resources.files("asi_lab.prompts") / "novelty.md").read_text()
    (lab.path / "prompts" / "novelty.md").write_text(source.replace("# User", "Be brief.\n\n# User"))
    search(lab, night.Night(), 1)
    candidates, _, _ = read(lab)
    digests = candidates[1].proposal.prompts
    assert digests["planner"] == prompting.load("planner").digest
    assert digests["novelty"] != packaged.digest


def test_settings_of_agents():
    settings = parse('preset = "micro"\n[agents]\nmodels = ["ollama:a"]\njudge = ["openai:b"]\n').agents
    assert settings.models == ("ollama:a",)
    assert settings.judge == ("openai:b",)


def test_a_model_that_is_new_here_counts_the_tokens_of_the_seed_s_code(lab):
    greetings = []

    def counting(messages, call):
        sent = sum(len(m.content.encode()) for m in messages)
        if night.ROLES.get(messages[0].content) is None:
            greetings.append(messages[0].content)
        return msgspec.structs.replace(model(messages), usage=TokenUsage(sent // 4, 10))

    model = night.Night()
    search(lab, counting, 1)
    assert references.source("delta_net") in greetings[0]
    search(lab, counting, 2)
    assert greetings[1] == "Answer with one word: ready"
    with Store.open_readonly(lab.store) as store:
        entries = store.ledger.entries()
    greeted = [entry for key, entry in entries.items() if key.startswith("greeting/openai:night-")]
    assert len(greeted) == 2
    assert greeted[0]["sent_bytes"] == len(greetings[0].encode())


def test_prompts_are_cut_to_the_window_and_again_where_the_server_finds_them_too_long(lab):
    lab.config.write_text(lab.config.read_text() + "context = 8192\n")
    model, lengths = night.Night(), []

    def small(messages, call):
        sent = sum(len(m.content.encode()) for m in messages)
        if night.ROLES.get(messages[0].content) == "planner":
            lengths.append(sent)
            if len(lengths) == 1:
                raise TooLong("the conversation is too long")
        return msgspec.structs.replace(model(messages), usage=TokenUsage(sent // 4, 10))

    search(lab, small, 1)
    candidates, _, _ = read(lab)
    assert candidates[1].proposal.researcher == "planner"
    assert lengths[1] < lengths[0]
    with Store.open_readonly(lab.store) as store:
        told = [e["messages"][1]["content"] for e in store.ledger.calls(1) if e["role"] == "planner"]
    assert CUT in told[0]
    assert night.SEED in told[0]  # the parent's code is never cut


def test_answers_in_the_making_are_seen_from_outside(lab):
    model, seen = night.Night(), []

    class Slow(night.Night):
        def __call__(self, messages, call=None):
            if call is not None and night.ROLES.get(messages[0].content) == "analyst":
                call.on_text("The gate [/b] closes \x1b[31mred")
                deadline = time.monotonic() + 10
                while not seen and time.monotonic() < deadline:
                    time.sleep(0.05)
            return model(messages)

    class Owner(simulated_engine.Silent):
        def refresh(self, store: Store) -> None:
            beat = store.get_meta("engine") or {}
            if beat.get("talks") and not seen and beat["talks"][0]["characters"]:
                console = Console(file=io.StringIO(), width=200, force_terminal=False)
                console.print(tables.status(status.read(lab, lab.settings(), store)))
                console.print(transcript([], status.read(lab, lab.settings(), store).talks))
                seen.extend((beat["talks"], console.file.getvalue()))

    search(lab, Slow(), 1, Owner())
    talks, shown = seen
    assert [(t["candidate"], t["role"], t["model"]) for t in talks] == [(1, "analyst", "openai:night")]
    assert "0001 analyst, openai:night: 29 characters in" in shown
    assert shown.count("The gate [/b] closes red") == 2
    assert "openai:night answers as analyst right now, 29 characters so far" in shown
    assert "\x1b" not in shown


def test_a_search_that_stands_still_escalates_and_says_so(tmp_path):
    lab = make(tmp_path)
    text = lab.config.read_text().replace("slots = 1", "slots = 1\npatience = 2")
    lab.config.write_text(text)
    asked = []

    def flat(messages, call):
        role = night.ROLES.get(messages[0].content)
        if role == "planner" and len(messages) == 2:
            asked.append(messages[1].content)
        return model(messages)

    model = night.Night()
    search(lab, flat, night.CANDIDATES)
    candidates, events, _ = read(lab)
    told = [e for e in events if e.kind == "standstill"]
    assert told
    steps = [c.draw.step for c in candidates[1:]]
    assert max(steps) >= 1
    changes = [now for before, now in itertools.pairwise([0, *steps]) if now != before]
    assert [e.data["step"] for e in told] == changes
    assert all(f"step {e.data['step']} of 3" in e.message for e in told)
    for candidate in candidates[1:]:
        assert candidate.draw.references_wanted == (8 if candidate.draw.step else 4)
    shown = CliRunner().invoke(cli, [*at(lab), "show", str(steps.index(max(steps)) + 1)]).stdout
    assert "standstill" in shown


def test_a_plan_that_was_begun_goes_on_as_it_was_told(lab):
    """Others may have ended since: what the planner was told stays, so its replies are taken up again."""

    search(lab, Broken(), 3)
    with Store.open(lab.store) as store:
        assert store.get_meta("plan/2")["told"]["parent_name"] == "delta_net"
        first = store.get(1)
        analysis = msgspec.structs.replace(first.analysis, weaknesses=("found since",))
        store.put(msgspec.structs.replace(first, analysis=analysis))  # what a plan begun now would be told
    second = night.Night()
    second._number = 2
    search(lab, second, 2)
    assert "planner" not in second.asked
    assert "summariser" not in second.asked
    with Store.open_readonly(lab.store) as store:
        assert store.get_meta("plan/2") is None
        assert store.get(2).proposal.motivation == night.IDEAS[2]


def test_a_plan_that_was_begun_with_another_prompt_is_begun_anew(lab):
    search(lab, night.Night(), 1)
    with Store.open(lab.store) as store:
        store.put_meta("plan/2", {"parent_name": "delta_net", "of_an_older_prompt": "x"})
    second = night.Night()
    second._number = 1
    search(lab, second, 2)
    assert read(lab)[0][2].proposal.motivation == night.IDEAS[2]
