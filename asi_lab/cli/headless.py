"""The search without the terminal UI: what it prints while it runs, and what it leaves on stdout.

Narration goes to stderr: on a terminal a progress display with the events above it, elsewhere plain
lines with a time stamp.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Column
from rich.text import Text

from asi_lab.common import streams
from asi_lab.common.text import plain
from asi_lab.engine import Engine
from asi_lab.events import Event
from asi_lab.lab import Lab, Lineage, Store, fresh
from asi_lab.protocol import Progress as TrainingProgress
from asi_lab.records import Candidate, CandidateState
from asi_lab.scoring import races
from asi_lab.scoring.baselines import Baselines, due, missing
from asi_lab.scoring.verification import Verdict
from asi_lab.settings import Settings
from asi_lab.view import leaderboard, remote, status, tables
from asi_lab.view import races as racing
from asi_lab.view import verdicts as judging

DIFF_LINES = 60
_DRAW_SECONDS = 0.2
_LINE_SECONDS = 10.0
_SILENT = ("index", "candidate_state", "commit")


@contextmanager
def for_whoever_is_there(console: Console, tell: Callable[[str], None] = lambda why: None) -> Iterator[None]:
    """Print where nobody may read, or nothing more fits: then nothing is printed any more, which is no error,
    and `tell` is told why."""
    try:
        yield
    except OSError as error:
        if not streams.is_of_output(error):
            raise
        streams.mute(console.file)
        tell(str(error.strerror))


class ConsoleView:
    """Shows a running search; use it with `with`. `experiments` is how many candidates it is to hold; `plan`
    is that of a race.

    Everything is drawn by the caller's thread, and nothing is printed while something else is: `say`
    may be called from a signal handler.
    """

    def __init__(
        self,
        console: Console,
        settings: Settings,
        experiments: int | None,
        plan: races.Plan | None = None,
    ) -> None:
        self.console, self.settings, self.experiments, self.plan = console, settings, experiments, plan
        self._live = console.is_terminal and not console.is_dumb_terminal
        self._bars = Progress(
            TextColumn("{task.description}", table_column=Column(no_wrap=True)),
            BarColumn(bar_width=12),
            TextColumn("{task.fields[detail]}", table_column=Column(no_wrap=True)),
            console=console,
            auto_refresh=False,
            transient=True,
        )
        self._whole = self._bars.add_task("data", total=None, detail="")
        self._trials: dict[str, TaskID] = {}
        self._waiting: deque[tuple[float, Text]] = deque()
        self._printing = False
        self._lost: list[str] = []
        self._seen: int | None = None
        self._drawn = 0.0
        self._lined: dict[str, float] = {}
        self._so_far = ""

    def __enter__(self) -> Self:
        if self._live:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            with for_whoever_is_there(self.console):
                self._bars.stop()

    def say(self, text: str) -> None:
        """One line of narration."""
        self._print(time.time(), Text(plain(text)))

    def refresh(self, store: Store) -> None:
        """Print what happened since the last call, from the engine's start on."""
        if self._seen is None:
            begun = [e.seq for e in store.last_events(1000) if e.kind == "engine_started"]
            self._seen = begun[-1] - 1 if begun else 0
        news = store.events(self._seen)
        for event in news:
            self._seen = event.seq
            for line in self._lines(event, store):
                self._print(event.time, line)
        if news:
            self._count(store)
        self._show()
        while self._lost:
            why = self._lost.pop()
            store.append_events(("warning", f"nothing is printed any more: {why}; the search goes on", {}))

    def working(self, label: str, stage: str, progress: TrainingProgress | None) -> None:
        """Show a trial at work, until it has no stage any more."""
        if not stage:
            self._lined.pop(label, None)
            if (bar := self._trials.pop(label, None)) is not None:
                self._bars.remove_task(bar)
            return
        detail, step, steps = "", 0, None
        if progress is not None:
            step, steps = progress.step, progress.steps
            detail = f"{step}/{steps}, loss {progress.loss:.3f}, {progress.tokens_per_second:,.0f} tok/s"
        if label not in self._trials:
            self._trials[label] = self._bars.add_task("", detail="")
        description = plain(f"{label} {stage}")
        self._bars.update(
            self._trials[label], description=description, completed=step, total=steps, detail=detail
        )
        lined = self._lined.get(label, -_LINE_SECONDS)
        if progress is not None and not self._live and time.monotonic() - lined >= _LINE_SECONDS:
            self._lined[label] = time.monotonic()
            self._print(time.time(), Text(f"{label} {stage}: step {detail}{self._so_far}"))
        self._show()

    def _lines(self, event: Event, store: Store) -> list[Text]:
        """What is printed of an event: nothing of the steps between proposal and result."""
        candidate = store.get(event.candidate) if event.candidate else None
        if candidate is not None and event.kind == "candidate_proposed":
            duplicate = candidate.state is CandidateState.DUPLICATE
            return [_proposed(candidate), *([_failed(candidate, candidate.state)] if duplicate else [])]
        if candidate is not None and event.kind == "candidate_state":
            state = CandidateState(event.data["state"])
            if state.is_failure and candidate.state is not state:  # it has gone on since
                return [Text(f"{candidate.id:04d} {plain(event.message, limit=tables.LINE)}", style="red")]
            return [_failed(candidate, state)] if state.is_failure else []
        if candidate is not None and event.kind == "commit" and candidate.score is not None:
            return self._scored(candidate, store)
        if event.kind in _SILENT:
            return []
        style = {"best": "bold green", "warning": "yellow", "error": "red"}.get(event.kind, "")
        label = "" if event.candidate is None else f"{event.candidate:04d} "
        return [Text(f"{label}{plain(event.message, limit=tables.LINE)}", style=style)]

    def _scored(self, candidate: Candidate, store: Store) -> list[Text]:
        baselines = Baselines.measured(self.settings, store.baselines())
        assert baselines is not None
        first, second = tables.result_lines(candidate, baselines)
        return [
            Text(f"{candidate.id:04d} {first}"),
            Text(f"{candidate.id:04d} {second}, commit {candidate.sha[:10]}"),
        ]

    def _count(self, store: Store) -> None:
        """How far the search is, for the bar and the lines."""
        summaries = store.summaries()
        if self.plan is not None or not summaries:
            if self.plan is not None:
                ended = store.reference_runs()
                total, left_over = len(self.plan(ended)), len(races.due(self.plan, ended))
            else:
                wanted = due(self.settings.baselines, 0, ())
                total, left_over = len(wanted), len(missing(wanted, store.baselines()))
            runs = total - left_over
            self._bars.update(
                self._whole, description="baselines", completed=runs, total=total, detail=f"{runs}/{total}"
            )
            self._so_far = f" ({runs} of {total} baseline runs done)"
            return
        done, of = status.finished(summaries), f"/{self.experiments}" if self.experiments else ""
        pace = status.pace(summaries, self.settings, status.slots_of(store))
        left = ""
        if pace is not None and self.experiments is not None:
            seconds = status.time_left(summaries, self.experiments, pace, time.time())
            left = f", about {tables.duration(seconds or 0)} left ({pace.basis})"
        self._bars.update(
            self._whole,
            description="experiments",
            completed=done,
            total=self.experiments,
            detail=f"{done}{of}{left}",
        )
        self._so_far = f" ({done}{of} experiments{left})"

    def _print(self, when: float, line: Text) -> None:
        self._waiting.append((when, line))
        self._show()

    def _show(self) -> None:
        """Draw and print. Called from within itself, as by a signal, it leaves that to the outer call."""
        if self._printing:
            return
        self._printing = True
        try:
            with for_whoever_is_there(self.console, self._lost.append):
                self._draw()
        finally:
            self._printing = False

    def _draw(self) -> None:
        if self._live and time.monotonic() - self._drawn >= _DRAW_SECONDS:
            self._drawn = time.monotonic()
            self._bars.refresh()
        while self._waiting:
            when, line = self._waiting.popleft()
            layout = "%H:%M:%S" if self._live else "%Y-%m-%d %H:%M:%S"
            stamp = Text(time.strftime(layout, time.localtime(when)), style="dim")
            self.console.print(stamp.append(" ").append_text(line), soft_wrap=not self._live)


def _proposed(candidate: Candidate) -> Text:
    name, change = (
        plain(candidate.name, limit=tables.NAME),
        plain(candidate.proposed.change, limit=tables.LINE),
    )
    return Text(f"{candidate.id:04d} {name}: from {candidate.parent:04d}, {change}", style="bold")


def _failed(candidate: Candidate, state: CandidateState) -> Text:
    lines = (candidate.evidence.error if candidate.evidence else "").strip().splitlines() or ["no message"]
    return Text(f"{candidate.id:04d} {state.value}: {plain(lines[-1], limit=tables.LINE)}", style="yellow")


def search(lab: Lab, experiments: int | None, hours: float | None) -> int:
    """Search a lab and print to stdout what came out; returns the exit status.

    Raises `LabError` as `Engine.search` does.
    """
    settings, narration = lab.settings(), tables.console(stderr=True)
    if experiments is not None and _holds(lab, experiments):
        more = tables.command(lab, f"--no-tui --experiments {experiments + 8}")
        narration.print(f"The lab holds {experiments} candidates already. To go on: {more}", soft_wrap=True)
        outcome = 0
    else:
        with ConsoleView(narration, settings, experiments) as view:
            outcome = Engine(lab, view).search(experiments, hours)
    results = tables.console()
    with for_whoever_is_there(results):
        conclude(lab, settings, results)
    return outcome


def race(lab: Lab, architectures: Sequence[str], seeds: int, tuning_seeds: int, as_json: bool) -> int:
    """Measure reference architectures with `seeds` seeds each, with `tuning_seeds` also at their own best
    learning rates, and print how they compare; returns the exit status, 1 where a run failed that counts.

    Raises `LabError` as `Engine.race` does.
    """
    settings, narration = lab.settings(), tables.console(stderr=True)
    plan = races.plan(architectures, seeds, tuning_seeds)
    with ConsoleView(narration, settings, None, plan) as view:
        outcome = Engine(lab, view).race(plan)
    if not lab.has_results():  # cut off before the first run
        return outcome
    with Store.open_readonly(lab.store) as store:
        found = races.read(store, settings, architectures, seeds, tuning_seeds)
    results = tables.console()
    with for_whoever_is_there(results):
        if as_json:
            print(tables.to_json(found), file=results.file)
        else:
            results.print(racing.race(found, results.width))
    return outcome or (0 if found.is_whole else 1)


class VerificationView(ConsoleView):
    """Counts fresh runs."""

    def _count(self, store: Store) -> None:
        found, done = judging.everywhere(self.settings, store), len(store.metas(fresh.RUNS))
        count = sum(one.count[Verdict.OPEN] for one in found.values())
        self._bars.update(
            self._whole, description="fresh runs", completed=done, detail=f"{done}, {count} open"
        )
        self._so_far = f" ({done} fresh runs, {count} claims open)"


def verify(lab: Lab, candidates: Sequence[int], scale: str | None, hours: float | None, as_json: bool) -> int:
    """Promote candidates, make the fresh runs of claims and print what they show; returns the exit status.

    Raises `LabError` as `Engine.verify` does.
    """
    with VerificationView(tables.console(stderr=True), lab.settings(), None) as view:
        outcome = Engine(lab, view).verify(candidates, hours, scale)
    show_verdicts(lab, as_json)
    return outcome


def show_verdicts(lab: Lab, as_json: bool) -> bool:
    """Print what is claimed; returns whether the lab has anything to claim by."""
    results, settings = tables.console(), lab.settings()
    with remote.results(lab) as store:
        found = judging.everywhere(settings, store) if store else {}
        names = {summary.id: summary.name for summary in store.summaries()} if store else {}
    if not found:
        return False
    with for_whoever_is_there(results):
        if as_json:
            print(tables.to_json(judging.figures(found)), file=results.file)
        else:
            results.print(judging.verdicts(found, names))
    return True


def _holds(lab: Lab, experiments: int) -> bool:
    """Whether the lab already holds at least `experiments` candidates, all of them finished."""
    if not lab.has_results():
        return False
    with Store.open_readonly(lab.store) as store:
        summaries = store.summaries()
    return all(s.commit for s in summaries) and bool(summaries) and summaries[-1].id >= experiments


def conclude(lab: Lab, settings: Settings, console: Console) -> None:
    """Print the leaderboard, the best candidate's diff against its parent, and how to look further."""
    if not lab.has_results():
        return
    with Store.open_readonly(lab.store) as store:
        board = leaderboard.read(store, settings)
        best = store.get(board.candidates[0].id or 0) if board and board.candidates else None
        parent = store.get(best.parent) if best is not None and best.parent is not None else None
    look = ["status"]
    if board is not None:
        console.print(tables.leaderboard(board, 10, console.width))
        look += ["top", "log"]
    if best is not None and parent is not None:
        _print_diff(lab, parent, best, console)
        look += [f"show {best.id}", f"diff {best.id}"]
    console.print("\nLook further:", style="bold")
    for words in look:
        console.print(f"  {tables.command(lab, words)}", soft_wrap=True)
    console.print(f"  git -C {tables.shown(lab.lineage)} log --graph --branches --oneline", soft_wrap=True)


def _print_diff(lab: Lab, parent: Candidate, best: Candidate, console: Console) -> None:
    """The first lines of the code's change, and where to see the rest."""
    name, old = (plain(candidate.name, limit=tables.NAME) for candidate in (best, parent))
    title = f"\n{best.id:04d} {name}\nagainst its parent {parent.id:04d} {old}\n"
    console.print(Text(title, style="bold"))
    coloured = console.is_terminal and not console.no_color
    lines = Lineage.open(lab.lineage).diff(parent.sha, best.sha, coloured).splitlines()
    print(*lines[:DIFF_LINES], sep="\n", file=console.file)
    if len(lines) > DIFF_LINES:
        rest = tables.command(lab, f"diff {parent.id} {best.id}")
        console.print(f"... {len(lines) - DIFF_LINES} more lines: {rest}", soft_wrap=True)
