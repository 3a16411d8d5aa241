"""Several trials at the same time: the same results whoever ends first, whatever cuts them off."""

from __future__ import annotations

import contextlib
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from asi_lab.engine import Engine
from asi_lab.errors import StoreError, TrialError
from asi_lab.lab import Lab, Store, commands, fsck, repeats, steering
from asi_lab.protocol import Progress, ScoreJob, TrialJob
from asi_lab.records import CandidateState
from asi_lab.scoring import races, references
from asi_lab.view import status
from tests import simulated_engine

ENGINE = Path(__file__).with_name("simulated_engine.py")
SETTINGS = """[search]
slots = {slots}
max_starts = 1000
patience = 2
[train]
threads = 1
[baselines]
seeds = 2
max_seeds = 3
grow_every = 4
[supervise]
false_kills = 1.0
spared = 0.0
"""
EXPERIMENTS = 9


class Trio(simulated_engine.SimulatedTrio):
    """Takes as long as its executor says."""

    def __init__(self, executor: Executor) -> None:
        super().__init__(0.0)
        self.executor, self.label = executor, ""

    def start(self, trial: TrialJob, score: ScoreJob | None, files: Mapping[str, Path]) -> None:
        super().start(trial, score, files)
        self.label = files["architecture.py"].parent.name
        self.delay = self.executor.delay_of(self.label)
        with self.executor.lock:
            self.executor.running.add(self.label)
            self.executor.together.append(frozenset(self.executor.running))
        deadline = time.monotonic() + 60
        while (awaited := self.executor.after.get(self.label)) and time.monotonic() < deadline:
            if awaited in self.executor.ended:
                break
            time.sleep(0.01)

    def finish(self, directory: Path) -> None:
        with self.executor.lock:
            self.executor.running.discard(self.label)
            self.executor.ended.append(self.label)


class Executor(simulated_engine.SimulatedExecutor):
    """Notes which trials ran at the same time, and which ended when. A trial named in `after` stays at work
    until the other one has ended."""

    def __init__(self, delay_of: Callable[[str], float], after: Mapping[str, str] | None = None) -> None:
        super().__init__(0.0)
        self.delay_of, self.lock, self.after = delay_of, threading.Lock(), after or {}
        self.running: set[str] = set()
        self.together: list[frozenset[str]] = []
        self.ended: list[str] = []

    def take(self) -> Trio:
        return Trio(self)


class View(simulated_engine.Silent):
    """Calls `look` at every tick, and notes what is said to be at work."""

    def __init__(self, look: Callable[[Store], object] = lambda store: None) -> None:
        self.look, self.stages = look, []

    def refresh(self, store: Store) -> None:
        self.look(store)

    def working(self, label: str, stage: str, progress: Progress | None) -> None:
        self.stages.append((label, stage))


def make(folder: Path, slots: int = 2, more: str = "") -> Lab:
    return simulated_engine.make_lab(folder, SETTINGS.format(slots=slots) + more, seed=3)


def search(
    lab: Lab, delay_of: Callable[[str], float], experiments: int = EXPERIMENTS, view=None, after=None
) -> Executor:
    executor = Executor(delay_of, after)
    Engine(lab, view or View(), executor).search(experiments, None)
    return executor


def results(lab: Lab) -> list[tuple]:
    """All that a search found, apart from times."""
    with Store.open(lab.store) as store:
        assert fsck.check(store, lab.lineage, store.get_meta("config"), [references.upper()]) == []
        return [
            (c.id, c.state, c.draw, c.proposal, c.loss, c.score, c.analysis, c.evidence and c.evidence.error)
            for c in store.candidates()
        ]


def even_are_slow(label: str) -> float:
    return 0.05 if label[-1] in "02468" else 0.001


def odd_are_slow(label: str) -> float:
    return 0.05 if label[-1] in "13579" else 0.001


@pytest.fixture(scope="module")
def searched(tmp_path_factory) -> tuple[Lab, Executor]:
    lab = make(tmp_path_factory.mktemp("searched"))
    return lab, search(lab, even_are_slow, after={"0002": "0003"})


def test_trials_overlap_but_never_more_than_there_are_slots(searched):
    _, executor = searched
    sizes = [len(labels) for labels in executor.together]
    assert max(sizes) == 2
    assert frozenset({"delta_net-seed0", "gated_delta_net-seed0"}) in executor.together
    assert frozenset({"0001", "0002"}) in executor.together
    assert frozenset({"delta_net-seed2", "gated_delta_net-seed2"}) in executor.together
    assert executor.ended.index("0003") < executor.ended.index("0002")


def test_further_seeds_are_measured_alone(searched):
    _, executor = searched
    for labels in executor.together:
        kinds = {label.isdigit() for label in labels}
        assert len(kinds) == 1, labels


def test_the_outcome_does_not_depend_on_who_ends_first(searched, tmp_path):
    lab, first = searched
    second = search(other := make(tmp_path / "odd"), odd_are_slow)
    rng = random.Random(0)
    third = search(another := make(tmp_path / "random"), lambda label: rng.choice([0.001, 0.02, 0.04]))
    assert first.ended != second.ended
    assert first.ended != third.ended
    assert results(other) == results(lab)
    assert results(another) == results(lab)
    states = [row[1] for row in results(lab)]
    assert len(states) == EXPERIMENTS + 1
    assert CandidateState.DONE in states[1:]


def test_draws_count_on_no_candidate_that_may_be_under_way(searched):
    with Store.open_readonly(searched[0].store) as store:
        for candidate in store.candidates(1):
            drawn = (candidate.draw.parent, *candidate.draw.references)
            assert all(number == 0 or number < candidate.id - 2 for number in drawn), candidate.id


def test_more_slots_than_candidates(tmp_path):
    lab = make(tmp_path, slots=8)
    executor = search(lab, odd_are_slow, 3)
    assert len(results(lab)) == 4
    assert frozenset({"0001", "0002", "0003"}) in executor.together


def test_what_a_trial_raises_ends_the_others_and_the_search(tmp_path):
    lab = make(tmp_path)

    def breaks(label: str) -> float:
        if label == "0002":
            raise TrialError("the machinery broke")
        return 0.3 if label == "0001" else 0.001

    executor = Executor(breaks)
    with pytest.raises(TrialError, match="the machinery broke"):
        Engine(lab, View(), executor).search(4, None)
    assert executor.running == set()
    with Store.open_readonly(lab.store) as store:
        assert store.get_meta("engine")["state"] == "stopped"
        first = store.get(1)
        assert not first.state.is_terminal
        assert first.starts == 0  # it was not to blame
    assert search(lab, odd_are_slow, 4).ended[:2] != []
    assert all(row[1].is_terminal for row in results(lab))


def test_a_stop_at_once_cuts_off_both_and_counts_for_neither(tmp_path, monkeypatch):
    lab, said, put_meta = make(tmp_path), [], Store.put_meta

    def beat(self: Store, key: str, value, *events) -> None:
        said.extend([(value["state"], value["ordered"])] if key == "engine" else [])
        put_meta(self, key, value, *events)

    monkeypatch.setattr(Store, "put_meta", beat)

    def stop(store: Store) -> None:
        training = [s.id for s in store.summaries() if s.state is CandidateState.TRAINING]
        if len(training) == 2:
            commands.send(lab.commands, "stop_now")

    executor = search(lab, lambda label: 0.2 if label.isdigit() else 0.001, view=View(stop))
    assert sorted(label for label in executor.ended if label.isdigit()) == ["0001", "0002"]
    with Store.open_readonly(lab.store) as store:
        found = [store.get(1), store.get(2)]
        assert [c.state for c in found] == [CandidateState.TRAINING] * 2
        assert [c.starts for c in found] == [0, 0]
        assert store.last_events(1)[0].kind == "engine_stopped"
    assert said[-2:] == [("running", "stop_now"), ("stopped", "stop_now")]  # told while it cuts off


def test_a_stop_lets_both_finish(tmp_path):
    lab = make(tmp_path)

    def stop(store: Store) -> None:
        if len([s for s in store.summaries() if s.state is CandidateState.TRAINING]) == 2:
            commands.send(lab.commands, "stop")

    search(lab, lambda label: 0.1 if label.isdigit() else 0.001, view=View(stop))
    assert [row[0] for row in results(lab)] == [0, 1, 2]
    assert all(row[1].is_terminal for row in results(lab))


def test_a_pause_lets_what_runs_finish_and_begins_nothing(tmp_path):
    lab, told, said = make(tmp_path), [], []

    def pause(store: Store) -> None:
        training = [s.id for s in store.summaries() if s.state is CandidateState.TRAINING]
        if len(training) == 2 and not told:
            told.append(commands.send(lab.commands, "pause"))
        ended = [s.id for s in store.summaries() if s.commit and s.id]
        said.append(
            (store.get_meta("engine")["state"], store.get_meta("engine").get("ordered", ""), len(ended))
        )
        if told and len(ended) == 2 and len(told) == 1:
            paused = store.get_meta("engine")["state"] == "paused"
            told.append(commands.send(lab.commands, "stop")) if paused else None

    search(lab, lambda label: 0.1 if label.isdigit() else 0.001, view=View(pause))
    assert [row[0] for row in results(lab)] == [0, 1, 2]
    assert ("running", "pause", 0) in said  # it is told, and what runs is not called paused
    assert {ended for state, _, ended in said if state == "paused"} == {2}


def test_both_are_shown_and_what_is_over_is_not(tmp_path):
    lab, seen = make(tmp_path), []
    awaited = {"0001": ["0001", "0002"], "0002": ["0002", "0003"], "0003": ["0002", "0003"]}

    def look(store: Store) -> None:
        found = status.read(lab, lab.settings(), store)
        seen.append([doing.label for doing in found.at_work])
        assert not {f"{one.id:04d}" for one in found.queue} & set(seen[-1])

    def until_seen(label: str) -> float:
        deadline = time.monotonic() + 60
        while label in awaited and awaited[label] not in seen and time.monotonic() < deadline:
            time.sleep(0.01)
        return 0.001

    view = View(look)
    search(lab, until_seen, 3, view)
    assert ["0001", "0002"] in seen
    assert ["0002", "0003"] in seen
    assert all(len(labels) <= 2 for labels in seen)
    assert ("0001", "") in view.stages
    with Store.open_readonly(lab.store) as store:
        assert status.read(lab, lab.settings(), store).at_work == ()


def test_runs_that_are_asked_for_take_slots(tmp_path):
    lab = make(tmp_path)
    search(lab, odd_are_slow, 5)
    best = [row[0] for row in results(lab) if row[0] and row[1] is CandidateState.DONE][:2]
    with Store.open(lab.store) as store:
        for number in (*best, best[0]):
            assert not steering.obey(store, commands.new("rerun", number))
    executor = search(lab, lambda label: 0.05, 6)
    assert frozenset(f"{number:04d}-seed1" for number in best) in executor.together
    with Store.open_readonly(lab.store) as store:
        assert [len(repeats.of(store, number)) for number in best] == [2, 1]
        assert steering.read(store).reruns == ()


def test_a_race_uses_the_slots(tmp_path):
    lab, executor = make(tmp_path), Executor(lambda label: 0.02)
    Engine(lab, View(), executor).race(races.plan(["delta_net", "mamba2"], 2))
    assert max(len(labels) for labels in executor.together) == 2
    with Store.open_readonly(lab.store) as store:
        assert len(store.baselines()) == 4


def under_way(lab: Lab) -> int:
    # there is no store yet, or it is just being created
    with contextlib.suppress(StoreError), Store.open_readonly(lab.store) as store:
        return len(store.unfinished())
    return 0


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_with_two_trials_at_work_it_ends_the_same(searched, tmp_path, seed):
    lab = make(tmp_path)
    rng = random.Random(seed)
    cut_off_together = 0
    for kill in range(8):
        command = [sys.executable, str(ENGINE), str(lab.path), str(EXPERIMENTS), "0.05"]
        engine = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        if kill % 2:
            while engine.poll() is None and under_way(lab) < 2:
                time.sleep(0.01)
            time.sleep(rng.uniform(0.0, 0.4))
        else:
            time.sleep(rng.uniform(1.0, 2.0))
        engine.kill()
        _, err = engine.communicate(timeout=60)
        assert engine.returncode in (0, -signal.SIGKILL), err
        cut_off_together += under_way(lab) == 2
    search(lab, odd_are_slow)
    assert cut_off_together > 0
    assert results(lab) == results(searched[0])
