"""The application: a header, eight panes of which one is in view, a footer; polls and orders."""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import ClassVar

from rich.text import Text
from textual import work
from textual.app import App, ComposeResult, SuspendNotSupported
from textual.binding import Binding, BindingType
from textual.reactive import reactive
from textual.widgets import ContentSwitcher, Footer, Static

from asi_lab import commands
from asi_lab.commands import Action
from asi_lab.errors import LabError
from asi_lab.lab import Lab
from asi_lab.text import plain
from asi_lab.tui import engine, since
from asi_lab.tui.dialogs import Confirm, Help, Start
from asi_lab.tui.panes.agents import Agents
from asi_lab.tui.panes.candidates import Candidates
from asi_lab.tui.panes.curves import Curves
from asi_lab.tui.panes.diff import Diff
from asi_lab.tui.panes.events import Events
from asi_lab.tui.panes.lineage import Lineage
from asi_lab.tui.panes.overview import Overview
from asi_lab.tui.panes.pane import Pane
from asi_lab.tui.panes.system import System
from asi_lab.tui.snapshot import Reader, Snapshot
from asi_lab.view.tables import duration

POLL_SECONDS = 1.0
GRACE_SECONDS = 3.0
"""How long an application that a signal ends may take to leave its terminal in order."""

WIDE, LEAST_WIDTH, LEAST_HEIGHT = 120, 60, 15
PANES = ("overview", "candidates", "lineage", "curves", "diff", "agents", "system", "events")
ALIVE = ("preparing data", "running", "paused")
SIGNS = {"running": "▶", "paused": "⏸", "stopped": "■", "lost contact": "✗"}


class LabApp(App[int]):
    """Shows a lab and steers its engine."""

    TITLE = "asi-lab"
    CSS = """
    #header { height: 1; background: $primary-muted; padding: 0 1; }
    #tabs { height: 1; padding: 0 1; color: $text-muted; }
    ContentSwitcher { height: 1fr; }
    .-wide #plots, .-wide #details { display: block; }
    #small { display: none; }
    .-thin #small, .-low #small { display: block; }
    .-thin ContentSwitcher, .-thin #tabs, .-thin #header, .-thin Footer { display: none; }
    .-low ContentSwitcher, .-low #tabs, .-low #header, .-low Footer { display: none; }
    """
    HORIZONTAL_BREAKPOINTS: list[tuple[int, str]] | None = [  # noqa: RUF012  as the base class has it
        (0, "-thin"),
        (LEAST_WIDTH, "-narrow"),
        (WIDE, "-wide"),
    ]
    VERTICAL_BREAKPOINTS: list[tuple[int, str]] | None = [(0, "-low"), (LEAST_HEIGHT, "-high")]  # noqa: RUF012
    ENABLE_COMMAND_PALETTE = True
    BINDINGS: ClassVar[list[BindingType]] = [
        *(Binding(str(n), f"pane('{name}')", name, show=False) for n, name in enumerate(PANES, start=1)),
        Binding("p", "pause", "Pause"),
        Binding("e", "start_engine", "Start"),
        Binding("x", "stop", "Stop"),
        Binding("ctrl+x", "stop_now", "Stop now", show=False),
        Binding("y", "copy", "Copy", show=False),
        Binding("o", "open_code", "Open code", show=False),
        Binding("question_mark", "help", "Help"),
        Binding("q", "detach", "Leave"),
    ]
    selected: reactive[int | None] = reactive(None)

    def __init__(self, lab: Lab, *, readonly: bool = False) -> None:
        """Raises `ConfigError` where the lab's settings are wrong."""
        super().__init__()
        self.lab, self.readonly = lab, readonly
        self.reader = Reader(lab)
        self.snapshot: Snapshot | None = None
        self._read_at, self._fault = time.monotonic(), ""

    def compose(self) -> ComposeResult:
        """Header, tabs, panes, footer."""
        yield Static(id="header")
        yield Static(id="tabs")
        with ContentSwitcher(initial="overview"):
            yield Overview(id="overview")
            yield Candidates()
            yield Lineage()
            yield Curves()
            yield Diff()
            yield Agents()
            yield System()
            yield Events()
        yield Static(Text(f"asi-lab needs {LEAST_WIDTH}x{LEAST_HEIGHT} characters."), id="small")
        yield Footer()

    def on_mount(self) -> None:
        """Begin to look; end well by a signal, with the terminal as it was."""
        for number in (signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, self._ended_by, number)
        self._tabs()
        self.poll()
        self.set_interval(POLL_SECONDS, self.poll)
        self.set_interval(POLL_SECONDS, self._head)

    def _ended_by(self, number: int) -> None:
        """Leave, in any case: where the terminal is gone, what waits for its input would wait for ever."""
        watchdog = threading.Timer(GRACE_SECONDS, os._exit, [128 + number])
        watchdog.daemon = True
        watchdog.start()
        self.exit(128 + number)

    def on_resize(self) -> None:
        """Names of panes in full where there is room."""
        self._tabs()

    @work(thread=True, exclusive=True)
    def poll(self) -> None:
        """Look into the lab, in a thread."""
        try:
            found: Snapshot | LabError = self.reader.read()
        except LabError as error:
            found = error
        self.call_from_thread(self._take, found)

    @property
    def pane(self) -> Pane:
        """The pane in view."""
        switcher = self.query_one(ContentSwitcher)
        return switcher.get_child_by_id(switcher.current or PANES[0], Pane)

    def watch_selected(self, number: int | None) -> None:
        """Tell the pane in view."""
        if self.snapshot is not None:
            self.pane.select(number)

    def action_pane(self, name: str) -> None:
        """Bring a pane into view."""
        self.query_one(ContentSwitcher).current = name
        self._tabs()
        if self.snapshot is not None:
            self.pane.show(self.snapshot)
            self.pane.select(self.selected)
        self.pane.begin()

    def action_pause(self) -> None:
        """Pause after the running candidate, or go on."""
        state = self.snapshot.status.engine.state if self.snapshot else "stopped"
        self._order("resume" if state == "paused" else "pause")

    def action_stop(self) -> None:
        """End the search after the running candidate, once confirmed."""
        self._confirmed("End the search after the running candidate?", "stop")

    def action_stop_now(self) -> None:
        """End the search at once, once confirmed."""
        self._confirmed("Cut the running trial off? It starts over with the next search.", "stop_now")

    def action_start_engine(self) -> None:
        """Ask whether a search is to be started, and start it."""
        if self._only_watches():
            return
        if (pid := self.lab.engine_pid()) is not None:
            self.notify(f"An engine is at work already, process {pid}.", markup=False)
        else:
            self.push_screen(Start(engine.facts(self.lab, self.reader.settings)), self._start)

    def _only_watches(self) -> bool:
        """Whether no order may be given, which is said then."""
        if self.readonly:
            self.notify("This view is read-only.", severity="warning", markup=False)
        return self.readonly

    def _start(self, yes: bool | None) -> None:
        if not yes:
            return
        try:
            log = engine.start(self.lab)
        except LabError as error:
            self.notify(str(error), severity="error", markup=False)
        else:
            self.notify(f"Started; it narrates to {log}. Leaving here does not end it.", markup=False)

    def action_copy(self) -> None:
        """Copy what the pane is about, to the terminal's clipboard and to a file."""
        text, what = self.pane.copied()
        if not text:
            self.notify("There is nothing to copy yet.", severity="warning", markup=False)
            return
        self.copy_to_clipboard(text)
        file = Path(tempfile.gettempdir()) / f"asi-lab-copied-{os.getuid()}.txt"
        file.write_text(text, encoding="utf-8", errors="replace")
        self.notify(f"copied {what} to the clipboard, if the terminal allows it, and to {file}", markup=False)

    def action_open_code(self) -> None:
        """Show the selected candidate's code in the user's editor or pager; what is changed there is lost."""
        found = None if self.selected is None else self.reader.candidate(self.selected)
        if found is None or found.proposal is None:
            self.notify("No candidate is selected.", severity="warning", markup=False)
            return
        program = os.environ.get("VISUAL") or os.environ.get("EDITOR") or os.environ.get("PAGER") or "less"
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / f"{found.id:04d}_architecture.py"
            file.write_text(plain(found.proposal.code, multiline=True), encoding="utf-8")
            try:
                with self.suspend():
                    subprocess.run([*shlex.split(program), str(file)], check=False)
            except (OSError, ValueError, SuspendNotSupported) as error:
                self.notify(f"{program} cannot be started: {error}", severity="error", markup=False)

    def action_help(self) -> None:
        """Show the live keys."""
        live = [active for active in self.screen.active_bindings.values() if active.binding.description]
        live.sort(key=lambda active: 0 if isinstance(active.node, Pane) else 1 if active.node is self else 2)
        keys = [
            (active.binding.key_display or self.get_key_display(active.binding), active.binding.description)
            for active in live
        ]
        self.push_screen(Help(list(dict.fromkeys(keys))))

    def action_detach(self) -> None:
        """Leave; the search goes on."""
        self.exit(0)

    def _confirmed(self, question: str, action: Action) -> None:
        def answered(yes: bool | None) -> None:
            if yes:
                self._order(action)

        self.push_screen(Confirm(question), answered)

    def _order(self, action: Action) -> None:
        """Leave an order for the engine; its answer comes as an event."""
        if self._only_watches():
            return
        if self.lab.engine_pid() is None:
            self.notify("No engine is at work: e starts one.", severity="warning", markup=False)
        else:
            try:
                commands.send(self.lab.commands, action)
            except LabError as error:
                self.notify(str(error), severity="error", markup=False)
            else:
                self.notify(f"told the engine: {action.replace('_', ' ')}", markup=False)

    def _take(self, found: Snapshot | LabError) -> None:
        if not self.screen_stack or not self.screen_stack[0].query("#header"):
            return  # the application is being closed
        self._fault = plain(str(found)) if isinstance(found, LabError) else ""
        if isinstance(found, LabError):
            self._head()
            return
        before, self.snapshot, self._read_at = self.snapshot, found, time.monotonic()
        if self.selected is None and found.summaries:
            board = found.board
            best = board.candidates[0].id if board and board.candidates else None
            self.selected = found.summaries[-1].id if best is None else best
        self._answers(before, found)
        if isinstance(self.screen, Start) and found.status.engine.state in ALIVE:
            self.screen.dismiss(False)  # somebody else has started one
        self._head()
        self.pane.show(found)
        if before is None:
            self.pane.begin()
            self._welcome(found)

    def _welcome(self, found: Snapshot) -> None:
        """Tell what happened since the last look; where nothing ever did, what can be started."""
        if (last := since.seen(self.lab)) is not None and (words := since.summary(found, last)):
            self.notify(words, timeout=15, markup=False)
        if found.status.engine.state == "never started" and not self.readonly:
            self.action_start_engine()

    def _answers(self, before: Snapshot | None, now: Snapshot) -> None:
        """Show what the engine answered to orders."""
        if before is None or not before.events:
            return
        for event in now.events:
            if event.seq > before.events[-1].seq and event.kind == "command":
                self.notify(plain(event.message), markup=False)

    def _head(self) -> None:
        for header in self.screen_stack[0].query("#header").results(Static) if self.screen_stack else ():
            header.update(self._heading())

    def _heading(self) -> Text:
        if self._fault:
            return Text(self._fault, style="bold red")
        if self.snapshot is None:
            return Text("looking into the lab")
        status, age = self.snapshot.status, time.monotonic() - self._read_at
        state = status.engine.state
        words = Text(f"{SIGNS.get(state, '◌')} {state}", style="bold")
        if state == "lost contact" and status.engine.beat_age is not None:
            words.append(f" {duration(status.engine.beat_age)}")
        wanted = f" of {status.wanted}" if status.wanted else ""
        words.append(f"   {status.finished}{wanted} candidates")
        if status.board and status.board.candidates:
            best = status.board.candidates[0]
            words.append(f"   best {best.id:04d} loss {best.loss:.4f} ({best.gain:+.2%})")
        words.append(f"   read {age:.0f} s ago" if age >= 2 else "", style="dim")
        words.append("   read-only" if self.readonly else "", style="dim")
        return words

    def _tabs(self) -> None:
        current = self.query_one(ContentSwitcher).current
        words, room = Text(no_wrap=True), self.size.width // len(PANES) - 4
        for number, name in enumerate(PANES, start=1):
            style = "bold reverse" if name == current else ""
            words.append(f"{number} {name if name == current else name[:room]}", style=style).append(" ")
        self.query_one("#tabs", Static).update(words)

    async def on_unmount(self) -> None:
        """Remember the time, and close the store."""
        since.leave(self.lab)
        self.reader.close()
