"""What a search without the terminal UI prints while it runs."""

from __future__ import annotations

import io
import re
import time
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from asi_lab.cli import headless
from asi_lab.cli.headless import ConsoleView
from asi_lab.lab import Store
from asi_lab.lab.config import from_preset
from asi_lab.lab.summary import summarise
from asi_lab.protocol import Progress
from asi_lab.records import BaselineRun, CandidateState
from asi_lab.scoring.baselines import ARCHITECTURES
from asi_lab.view import status

SETTINGS = from_preset("micro")
PROGRESS = Progress(120, 300, 1200, 3.21, 1e-3, 12_345.0, 100.0)
STAMP = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d "


class Screen:
    """A view over a console whose output is kept."""

    def __init__(self, experiments: int | None = 8, terminal: bool = False) -> None:
        self.file = io.StringIO()
        self.console = Console(
            file=self.file, force_terminal=terminal, width=80, markup=False, highlight=False, emoji=False
        )
        self.view = ConsoleView(self.console, SETTINGS, experiments)

    @property
    def lines(self) -> list[str]:
        return self.file.getvalue().splitlines()


@pytest.fixture
def screen(monkeypatch) -> Screen:
    monkeypatch.setenv("TERM", "xterm")
    return Screen()


@pytest.fixture
def store(tmp_path: Path):
    with Store.open(tmp_path / "store") as store:
        store.append_events(("engine_started", "engine 1 started", {}))
        yield store


@pytest.fixture
def measured(store, make_candidate):
    """A store with baselines of losses 4.00 and 4.02 (sd 0.0141, mean 4.01) and the seed."""
    for architecture in ARCHITECTURES:
        for index in range(SETTINGS.baselines.seeds):
            evidence = make_candidate(0 + 1).evidence
            evaluation = msgspec.structs.replace(evidence.evaluation, loss=4.0 + 0.01 * index)
            run = BaselineRun(architecture, index, msgspec.structs.replace(evidence, evaluation=evaluation))
            store.put_baseline(run, ("baseline_measured", f"baseline {architecture} {index}", {}))
    store.put(make_candidate(0), ("note", "seed architecture", {}))
    return store


def finish(store, candidate, sha: str = "c0ffee" * 6 + "0000") -> None:
    """Write the records and events of a candidate as the loop does."""
    state = candidate.state
    store.put(candidate, ("candidate_proposed", "proposed", {}))
    for step in ("checked", "preflighted", "training"):
        store.put(candidate, ("candidate_state", step, {"state": step}))
    if state.is_failure:
        store.put(candidate, ("candidate_state", state.value, {"state": state.value}))
    store.put(msgspec.structs.replace(candidate, commit=sha), ("commit", "commit", {"sha": sha}))


def test_each_line_off_a_terminal_has_a_time_and_no_escape(screen, measured, make_candidate):
    finish(measured, make_candidate(1))
    with screen.view as view:
        view.say("Preparing")
        view.working("0001", "training", PROGRESS)
        view.refresh(measured)
    assert len(screen.lines) > 8
    assert all(re.match(STAMP, line) for line in screen.lines)
    assert "\x1b" not in screen.file.getvalue()


def test_a_scored_candidate_takes_three_lines(screen, measured, make_candidate):
    screen.view.refresh(measured)
    before = len(screen.lines)
    finish(measured, make_candidate(1, name="delta_net_x"))
    screen.view.refresh(measured)
    proposed, result, second = screen.lines[before:]
    assert "0001 delta_net_x: from 0000, a decay per head" in proposed
    assert re.search(r"loss 3\.9990 ±0\.00\d\d: 0\.27% below DeltaNet's, the bar \(", result)  # of 4.01
    assert "sd, no win beyond noise)" in result
    assert "judge 6.2" in second
    assert "fitness 0.5010" in second
    assert "commit c0ffeec0ff" in second


def test_a_win_beyond_noise_is_said(screen, measured, make_candidate):
    candidate = make_candidate(1)
    evaluation = msgspec.structs.replace(candidate.evidence.evaluation, loss=3.9)
    evidence = msgspec.structs.replace(candidate.evidence, evaluation=evaluation)
    finish(measured, msgspec.structs.replace(candidate, evidence=evidence))
    screen.view.refresh(measured)
    assert "a win beyond noise" in screen.file.getvalue()


def test_a_failed_candidate_takes_two_lines(screen, measured, make_candidate):
    screen.view.refresh(measured)
    before = len(screen.lines)
    finish(measured, make_candidate(1, state=CandidateState.LEAKING))
    screen.view.refresh(measured)
    assert len(screen.lines[before:]) == 2
    assert "0001 leaking: causality: position 1 sees the future" in screen.lines[-1]


def test_a_duplicate_is_shown_with_its_proposal(screen, measured, make_candidate):
    measured.put(make_candidate(1, state=CandidateState.DUPLICATE), ("candidate_proposed", "x", {}))
    screen.view.refresh(measured)
    assert "0001 duplicate: " in screen.lines[-1]


def test_only_events_since_the_start_are_shown_and_each_once(screen, store):
    store.append_events(("note", "long ago", {}), ("engine_started", "engine 2 started", {}))
    store.append_events(("note", "just now", {}))
    screen.view.refresh(store)
    screen.view.refresh(store)
    assert [line[20:] for line in screen.lines] == ["engine 2 started", "just now"]
    store.append_events(("best", "the best", {}))
    screen.view.refresh(store)
    assert screen.lines[-1].endswith("the best")
    assert len(screen.lines) == 3


@pytest.fixture
def told(screen, measured, monkeypatch):
    """The lines about trials that tell of themselves once a second."""

    def lines(seconds: int, *labels: str) -> list[str]:
        now = [1000.0]
        monkeypatch.setattr(time, "monotonic", lambda: now[0])
        screen.view.refresh(measured)
        before = len(screen.lines)
        for _ in range(seconds):
            for label in labels:
                screen.view.working(label, "training", PROGRESS)
            now[0] += 1.0
        return screen.lines[before:]

    return lines


def test_progress_lines_are_rare(told):
    shown = told(25, "0001")
    assert len(shown) == 3
    assert "0001 training: step 120/300, loss 3.210, 12,345 tok/s (0/8 experiments)" in shown[0]


def test_each_trial_has_lines_of_its_own(told):
    assert [line[20:24] for line in told(15, "0001", "0002")] == ["0001", "0002"] * 2


def test_each_trial_has_a_bar_until_it_is_over(measured, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(headless, "_DRAW_SECONDS", 0.0)
    screen = Screen(terminal=True)
    with screen.view as view:
        view.refresh(measured)
        view.working("0001", "evaluation", None)
        view.working("0002", "training", PROGRESS)
        shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.file.getvalue())
        assert re.search(r"0001 evaluation +[━╸╺]+", shown)
        assert re.search(r"0002 training +[━╸╺]+ 120/300", shown)
        before = len(screen.file.getvalue())
        view.working("0001", "", None)
        view.working("0003", "", None)  # it was over before it was shown
        view.working("0002", "training", PROGRESS)
    assert "0001 evaluation" not in screen.file.getvalue()[before:]
    assert "0002 training" in screen.file.getvalue()[before:]


def test_with_several_trials_at_once_candidates_come_faster(make_candidate):
    rows = [summarise(make_candidate(number)) for number in range(6)]
    times = {1: (0, 20), 2: (0, 10), 3: (10, 30), 4: (20, 40), 5: (30, 40)}  # two slots, both always busy
    rows[1:] = [
        msgspec.structs.replace(row, created=1.7e9 + 100 + begun, updated=1.7e9 + 100 + end)
        for row, (begun, end) in zip(rows[1:], times.values(), strict=True)
    ]
    took = [end - begun for begun, end in times.values()]
    assert status.pace(rows, SETTINGS, slots=2).seconds == pytest.approx(sum(took) / 5 / 2)


def test_progress_says_how_far_and_on_what_that_rests(screen, measured, make_candidate):
    for number in (1, 2):  # each took 30 s
        measured.put(make_candidate(number))
    measured.append_events(("note", "x", {}))
    screen.view.refresh(measured)
    screen.view.working("0003", "training", PROGRESS)
    assert "(2/8 experiments, about 3:00 left (mean of the last 2 candidates))" in screen.lines[-1]


def test_baselines_are_counted_before_the_search(screen, store, make_candidate):
    store.put_baseline(BaselineRun(ARCHITECTURES[0], 0, make_candidate(1).evidence), ("note", "x", {}))
    screen.view.refresh(store)
    screen.view.working("delta_net-seed1", "training", PROGRESS)
    assert "(1 of 9 baseline runs done)" in screen.lines[-1]


def test_hostile_text_is_printed_harmless(screen, measured, make_candidate):
    evil = "delta_\x1b[2J[/b]\x1b]0;x\x07\u202e"
    finish(measured, make_candidate(1, name=evil, change=evil))
    measured.append_events(("warning", evil, {}))
    screen.view.say(evil)
    screen.view.refresh(measured)
    shown = screen.file.getvalue()
    assert "delta_[/b]" in shown
    assert not re.search("[\x1b\x07\u202e]", shown)


def test_a_signal_may_speak_while_a_line_is_printed(screen, monkeypatch):
    """A handler runs in the middle of a write; its line comes after, and nothing is lost."""
    write = screen.file.write
    spoken = []

    def interrupted(text: str) -> int:
        if not spoken:
            spoken.append(text)
            screen.view.say("from the handler")
        return write(text)

    monkeypatch.setattr(screen.file, "write", interrupted)
    screen.view.say("first")
    assert [line[20:] for line in screen.lines] == ["first", "from the handler"]


def test_a_terminal_gets_bars_with_the_events_above(measured, make_candidate, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(headless, "_DRAW_SECONDS", 0.0)
    screen = Screen(terminal=True)
    finish(measured, make_candidate(1))
    with screen.view as view:
        view.refresh(measured)
        view.working("0002", "training", PROGRESS)
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.file.getvalue())
    assert re.search(r"experiments +[━╸╺]+ 1/8, about 3:30 left", shown)
    assert re.search(r"0002 training +[━╸╺]+ 120/300, loss 3.210, 12,345 tok/s", shown)
    assert "0001 loss 3.9990" in shown
    assert max(map(len, re.split(r"[\r\n]+", shown))) <= 80


def test_the_pace_leaves_suspended_candidates_out(make_candidate):
    rows = [summarise(make_candidate(number)) for number in (0, 1, 2, 3)]
    rows[2] = msgspec.structs.replace(rows[2], updated=rows[2].created + 86_400)
    found = status.pace(rows, SETTINGS)
    assert (found.seconds, found.of) == (30.0, 2)
    assert status.pace(rows[:1], SETTINGS) is None


def test_time_left_counts_the_running_candidate(make_candidate):
    rows = [summarise(make_candidate(number)) for number in (0, 1, 2)]
    running = summarise(make_candidate(3, state=CandidateState.TRAINING))
    pace = status.pace(rows, SETTINGS)
    assert status.time_left(rows, 4, pace, rows[-1].updated) == pytest.approx(60.0)
    assert status.time_left([*rows, running], 4, pace, running.created + 10) == pytest.approx(50.0)
    assert status.time_left([*rows, running], 4, pace, running.created + 99) == pytest.approx(30.0)
    assert status.time_left(rows, 2, pace, 0.0) == 0.0
