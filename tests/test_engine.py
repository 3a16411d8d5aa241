"""The engine's life: resuming after kills, stopping, pausing, locking. Only the trials are simulated."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from asi_lab.cli import cli
from asi_lab.data.manifest import load_manifest
from asi_lab.errors import StoreError
from asi_lab.lab import Lab, Lineage, Store, commands, fsck
from asi_lab.lab.preparing import _repetition
from asi_lab.records import CandidateState, Run
from asi_lab.researcher.pool import boundary, generation_of
from asi_lab.scoring import Baselines, references
from tests import simulated_engine

ENGINE = Path(__file__).with_name("simulated_engine.py")
SETTINGS = """[search]
max_starts = 1000
[baselines]
seeds = 2
max_seeds = 3
grow_every = 5
[evaluate]
probes = ["probe_mqar", "probe_s3"]
"""


def make_lab(folder: Path) -> Lab:
    """A lab with its own small text, ready for an engine."""
    return simulated_engine.make_lab(folder, SETTINGS)


def start(lab: Lab, experiments: int, delay: float = 0.001, *hours: float) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(ENGINE), *map(str, (lab.path, experiments, delay, *hours))],
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(engine: subprocess.Popen[str], seconds: float = 120) -> tuple[int, str]:
    _, err = engine.communicate(timeout=seconds)
    return engine.returncode, err


def run(lab: Lab, experiments: int) -> None:
    code, err = finish(start(lab, experiments))
    assert code == 0, err


def wait_for(condition, seconds: float = 60):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(StoreError):  # the store may be just being created
            if condition():
                return
        time.sleep(0.02)
    raise AssertionError("waited in vain")


def results(lab: Lab) -> list[tuple]:
    """Everything about a finished search that must not depend on kills."""
    with Store.open_readonly(lab.store) as store:
        return [
            (
                c.id,
                c.state,
                c.draw,
                c.proposal,
                c.loss,
                c.evidence and c.evidence.failure,
                c.score and c.score.fitness,
            )
            for c in store.candidates()
        ]


def lineage_findings(lab: Lab) -> list:
    with Store.open(lab.store) as store:
        return fsck.check(store, lab.lineage, store.get_meta("config"), [references.upper()])


def events(lab: Lab):
    with Store.open_readonly(lab.store) as store:
        return store.events(0, 100_000)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Lab:
    lab = make_lab(tmp_path_factory.mktemp("undisturbed"))
    run(lab, 16)
    return lab


def test_an_undisturbed_search_is_whole(undisturbed):
    found = results(undisturbed)
    assert [row[0] for row in found] == list(range(17))
    assert all(row[1].is_terminal for row in found)
    assert sum(row[1] is CandidateState.DONE for row in found) >= 8
    assert any(row[1].is_failure for row in found)
    assert lineage_findings(undisturbed) == []
    with Store.open_readonly(undisturbed.store) as store:
        assert len(store.baselines()) == 9  # two seeds of three each, and a third after five candidates
    numbers = [event.seq for event in events(undisturbed)]
    assert numbers == list(range(1, len(numbers) + 1))
    assert not any(event.kind in ("repair", "warning") for event in events(undisturbed))


def test_draws_keep_to_their_generation(undisturbed):
    search = undisturbed.settings().search
    for number, _, draw, *_ in results(undisturbed)[1:]:
        assert draw.generation == generation_of(number, search)
        pool = range(boundary(draw.generation, search) + 1)
        assert draw.parent in pool
        assert set(draw.references) <= set(range(number) if draw.step else pool)


def test_the_git_tree_mirrors_the_draws(undisturbed):
    lineage = Lineage.open(undisturbed.lineage)
    with Store.open_readonly(undisturbed.store) as store:
        known = {c.id: c for c in store.candidates()}
    for candidate in known.values():
        if candidate.parent is None:
            continue
        assert lineage.sha_of(candidate.id) == candidate.commit
        parents = subprocess.run(
            ["git", "-C", str(undisturbed.lineage), "rev-parse", f"{candidate.commit}^"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        assert parents == known[candidate.parent].commit


def test_the_same_seed_gives_the_same_commits_in_any_weather(undisturbed, tmp_path, monkeypatch):
    """Every time, speed and memory is another, and what is slower is slower by another factor."""
    monkeypatch.setenv("SIMULATED_WEATHER", "any")
    lab = make_lab(tmp_path)
    assert lab.config.read_text() == undisturbed.config.read_text()
    assert finish(start(lab, 16, delay=0.004)) == (0, "")
    assert results(lab) == results(undisturbed)
    assert Lineage.open(lab.lineage).refs() == Lineage.open(undisturbed.lineage).refs()
    with Store.open_readonly(lab.store) as store, Store.open_readonly(undisturbed.store) as other:
        timed = [[r.evidence.training.cpu_seconds for r in s.baselines()] for s in (store, other)]
    assert timed[0] != timed[1]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_killed_at_random_moments_it_ends_the_same(undisturbed, tmp_path, seed):
    """SIGKILL at ten random moments a run, twenty in all: same candidates, nothing lost or doubled."""
    text = shutil.copy(undisturbed.settings().data.source.removeprefix("text:"), tmp_path)
    elsewhere = f'data.source = "text:{text}"\n'  # results must not depend on where it lies
    lab = simulated_engine.make_lab(tmp_path / "killed", elsewhere + SETTINGS, prepared=False)
    rng = random.Random(seed)
    kills = 0
    while kills < 10:
        engine = start(lab, 16, delay=0.01)
        time.sleep(rng.uniform(0.4, 2.2))
        engine.kill()
        code, err = finish(engine)
        assert code in (0, -signal.SIGKILL), err
        kills += 1
    run(lab, 16)
    assert results(lab) == results(undisturbed)
    assert lineage_findings(lab) == []
    commits = [e.candidate for e in events(lab) if e.kind == "commit"]
    assert len(commits) == len(set(commits))
    numbers = [event.seq for event in events(lab)]
    assert numbers == list(range(1, len(numbers) + 1))


def test_a_lost_lineage_and_lost_refs_are_made_again_at_the_next_start(undisturbed, tmp_path):
    lab = Lab(tmp_path / "lab")
    shutil.copytree(undisturbed.path, lab.path)
    before = Lineage.open(lab.lineage).refs()
    shutil.rmtree(lab.lineage)
    run(lab, 16)
    assert Lineage.open(lab.lineage).refs() == before
    best = before["refs/heads/best"]
    for ref in ("refs/heads/best", next(ref for ref in before if ref.startswith("refs/heads/arch/"))):
        subprocess.run(["git", "-C", str(lab.lineage), "update-ref", "-d", ref], check=True)
    run(lab, 16)
    assert Lineage.open(lab.lineage).refs() == before
    assert Lineage.open(lab.lineage).best() == best
    assert sum(e.kind == "repair" for e in events(lab)) >= 3


def test_the_references_are_known_and_not_proposed_again(undisturbed):
    with Store.open_readonly(undisturbed.store) as store:
        known = {s.code_hash: s.id for s in store.summaries()}
    assert known[references.seed().code_hash] == 0
    assert references.upper().code_hash not in known


def test_only_the_best_candidates_weights_stay(undisturbed):
    with Store.open_readonly(undisturbed.store) as store:
        best = store.best_id()
    kept = {path.parent.name for path in undisturbed.trials.glob("*/checkpoint.safetensors")}
    assert {path.parent.name for path in undisturbed.trials.glob("*/probe_*.safetensors")} == kept
    assert kept == {f"{best:04d}"}


def test_a_second_run_with_the_same_budget_does_nothing(undisturbed):
    before = results(undisturbed)
    run(undisturbed, 16)
    assert results(undisturbed) == before


def test_a_second_engine_is_refused_with_the_first_ones_pid(tmp_path):
    lab = make_lab(tmp_path)
    first = start(lab, 1000, delay=0.02)
    try:
        wait_for(lambda: lab.engine_pid() == first.pid)
        code, err = finish(start(lab, 5))
        assert code == 3
        assert f"process {first.pid}" in err
    finally:
        first.kill()
        finish(first)
    assert lab.engine_pid() is None


def test_a_search_ends_when_its_hours_are_over(tmp_path):
    lab = make_lab(tmp_path)
    began = time.monotonic()
    code, _ = finish(start(lab, 100_000, 0.01, 4 / 3600))
    assert code == 0
    assert time.monotonic() - began > 4
    found = results(lab)
    assert len(found) < 100_000
    assert all(row[1].is_terminal for row in found)


def test_training_that_repeats_its_text_is_warned_of_once(tmp_path):
    lab = simulated_engine.make_lab(tmp_path, SETTINGS + "[train]\nsteps = 1000\n")
    run(lab, 1)
    run(lab, 2)
    tokens = load_manifest(lab.data).train.tokens
    words = f"training reads its text {1_024_000 / tokens:.1f} times: {tokens:,} tokens for 1,024,000. "
    assert [e.message.startswith(words) for e in events(lab) if "its text" in e.message] == [True]
    assert _repetition(lab.settings().train, 1_024_000) == []


def test_one_ctrl_c_lets_the_candidate_finish(tmp_path):
    lab = make_lab(tmp_path)
    engine = start(lab, 1000, delay=0.03)
    wait_for(lambda: lab.has_results() and any(e.kind == "candidate_proposed" for e in events(lab)))
    engine.send_signal(signal.SIGINT)
    code, err = finish(engine)
    assert code == 130
    assert "Ending after what is in trial now" in err
    assert all(row[1].is_terminal for row in results(lab))
    assert lineage_findings(lab) == []


@pytest.mark.parametrize(
    ("numbers", "code"), [((signal.SIGINT, signal.SIGINT), 130), ((signal.SIGTERM,), 143)]
)
def test_cut_off_leaves_a_candidate_that_goes_on_next_time(tmp_path, numbers, code):
    lab = make_lab(tmp_path)
    engine = start(lab, 1000, delay=0.5)
    wait_for(lambda: lab.has_results() and any(e.kind == "engine_started" for e in events(lab)))
    for number in numbers:
        engine.send_signal(number)
        time.sleep(0.3)
    returned, _ = finish(engine, 20)
    assert returned == code
    run(lab, 2)
    assert [row[0] for row in results(lab)] == [0, 1, 2]
    assert all(row[1].is_terminal for row in results(lab))


def quiet_for(lab: Lab, seconds: float) -> bool:
    before = len(events(lab))
    time.sleep(seconds)
    return len(events(lab)) == before


def test_pause_resume_and_stop_by_command(tmp_path):
    lab = make_lab(tmp_path)
    engine = start(lab, 1000, delay=0.01)

    def answered(action: str) -> bool:
        return any(e.kind == "command" and action in e.message for e in events(lab))

    wait_for(lambda: lab.has_results() and any(e.kind == "commit" for e in events(lab)))
    commands.send(lab.commands, "pause")
    wait_for(lambda: answered("pause"))
    wait_for(lambda: quiet_for(lab, 0.5))
    quiet = len(events(lab))
    assert quiet_for(lab, 0.5)
    (lab.commands / "0-junk.json").write_text("{")
    commands.send(lab.commands, "resume")
    wait_for(lambda: answered("resume") and len(events(lab)) > quiet + 3)
    assert any(e.kind == "warning" and "0-junk.json" in e.message for e in events(lab))
    commands.send(lab.commands, "stop")
    code, _ = finish(engine, 30)
    assert code == 0
    assert all(row[1].is_terminal for row in results(lab))
    assert list(lab.commands.iterdir()) == []


def test_an_engine_that_dies_counts_for_no_candidate(tmp_path):
    lab = make_lab(tmp_path)
    lab.config.write_text(lab.config.read_text().replace("max_starts = 1000", "max_starts = 1"))
    run(lab, 1)
    for _ in range(3):
        engine = start(lab, 2, delay=0.5)
        wait_for(lambda: _state(lab, 2) is CandidateState.TRAINING)
        engine.kill()
        finish(engine)
    run(lab, 2)
    with Store.open_readonly(lab.store) as store:
        second = store.get(2)
    assert second.state.is_terminal
    assert second.state is not CandidateState.INTERRUPTED
    assert (second.starts, second.cuts) == (0, 0)


def test_one_that_is_killed_in_its_probes_goes_on_with_them(tmp_path):
    lab = make_lab(tmp_path)
    run(lab, 0)
    engine = start(lab, 1, delay=0.5)
    wait_for(lambda: _state(lab, 1) is CandidateState.TRAINED)
    engine.kill()
    finish(engine)
    files = lab.trials / "0001"
    assert (files / "checkpoint.safetensors").exists()
    assert len([*files.glob("probe_s3-*.safetensors")]) == 0
    run(lab, 1)
    with Store.open_readonly(lab.store) as store:
        tasks = store.get(1).measured.tasks
    assert [task.task for task in tasks[-2:]] == ["probe_mqar", "probe_s3"]
    assert len([*files.glob("probe_s3-*.safetensors")]) == 4


def test_a_trial_that_is_cut_off_too_often_is_given_up(tmp_path, monkeypatch):
    lab = make_lab(tmp_path)
    lab.config.write_text(lab.config.read_text().replace("max_starts = 1000", "max_starts = 2"))
    monkeypatch.setenv("SIMULATED_KILLED", "0002")
    run(lab, 3)
    states = {row[0]: row[1] for row in results(lab)}
    assert states[2] is CandidateState.INTERRUPTED
    assert states[3].is_terminal
    assert states[3] is not CandidateState.INTERRUPTED
    with Store.open_readonly(lab.store) as store:
        assert (store.get(2).starts, store.get(2).cuts) == (2, 2)
        assert store.get(2).evidence.error == (
            "its trial was cut off 2 times; at last the trial was ended by signal SIGKILL"
        )


def _state(lab: Lab, number: int) -> CandidateState | None:
    with Store.open_readonly(lab.store) as store:
        candidate = store.get(number)
    return candidate.state if candidate else None


def test_settings_that_results_depend_on_cannot_change(tmp_path):
    lab = make_lab(tmp_path)
    run(lab, 1)
    lab.config.write_text(lab.config.read_text().replace("limit = 4", "limit = 5"))
    code, err = finish(start(lab, 2))
    assert code == 2
    assert "evaluate changed since this lab began" in err


def test_missing_text_is_told_before_anything_runs(tmp_path):
    lab = simulated_engine.make_lab(tmp_path, f'data.source = "text:{tmp_path}/text.txt"', prepared=False)
    code, err = finish(start(lab, 2))
    assert code == 1
    assert "text.txt" in err
    assert "Traceback" not in err


def test_a_reference_that_fails_is_told_and_left_out_of_the_bar(tmp_path, monkeypatch):
    lab = make_lab(tmp_path)
    assert lab.settings().baselines.bar == "mamba2"
    monkeypatch.setenv("SIMULATED_FAILING", "mamba2-seed1")
    run(lab, 2)
    told = [event.message for event in events(lab) if "is left out of this lab's references" in event.message]
    assert len(told) == 1
    assert told[0].startswith("Baseline mamba2 seed 1: expected a loss; found")
    monkeypatch.delenv("SIMULATED_FAILING")
    run(lab, 3)  # it is not tried again, so the bar stays
    with Store.open_readonly(lab.store) as store:
        known = Baselines(lab.settings(), store.baselines())
        against = [candidate.score.against for candidate in store.candidates(1) if candidate.score]
    assert known.names == ["delta_net", "gated_delta_net"]
    assert {found[0].reference for found in against} <= {known.bar}
    result = CliRunner().invoke(cli, ["--lab", str(lab.path), "top", "--json"])
    assert json.loads(result.stdout)["bar"] == known.bar


def test_a_baseline_that_fails_ends_the_search_and_is_tried_again(tmp_path, monkeypatch):
    lab = make_lab(tmp_path)
    monkeypatch.setenv("SIMULATED_FAILING", "gated_delta_net-seed1")
    code, err = finish(start(lab, 1))
    assert code == 1
    assert "Baseline gated_delta_net seed 1: expected a loss; found" in err
    assert "after 3 steps" in err
    with Store.open_readonly(lab.store) as store:
        assert sum(not run.failure for run in store.baselines()) == 4
        assert [run.run for run in store.reference_runs() if run.failure] == [Run("gated_delta_net", 1)]
    monkeypatch.delenv("SIMULATED_FAILING")
    run(lab, 1)
    with Store.open_readonly(lab.store) as store:
        assert len(store.baselines()) == len(store.reference_runs()) == 6
