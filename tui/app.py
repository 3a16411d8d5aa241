"""The application: a header, eight panes of which one is in view, a footer; polls, keys and commands."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

from rich.text import Text
from textual import events, work
from textual.app import App, ComposeResult, SystemCommand
from textual.binding import Binding, BindingType
from textual.filter import LineFilter
from textual.reactive import reactive
from textual.screen import Screen
from textual.theme import Theme
from textual.widget import AwaitMount
from textual.widgets import ContentSwitcher, Input, Static

from asi_lab.common.text import one_line, plain
from asi_lab.errors import LabError
from asi_lab.lab import Lab, trial_label
from asi_lab.tui import engine, outside, preferences, since, themes, verbs
from asi_lab.tui.ascii import Ascii
from asi_lab.tui.commandline import CommandLine
from asi_lab.tui.dialogs import Confirm, Help, Start
from asi_lab.tui.heading import heading, tabs
from asi_lab.tui.keyline import Clickable, KeyLine
from asi_lab.tui.notices import Notice
from asi_lab.tui.orders import Orders
from asi_lab.tui.panes.agents import AgentsPane
from asi_lab.tui.panes.candidates import Candidates
from asi_lab.tui.panes.curves import Curves
from asi_lab.tui.panes.diff import Diff
from asi_lab.tui.panes.events import Events
from asi_lab.tui.panes.lineage import LineagePane
from asi_lab.tui.panes.overview import Overview
from asi_lab.tui.panes.pane import Pane
from asi_lab.tui.panes.system import System
from asi_lab.tui.preferences import Preferences
from asi_lab.tui.recording import Recording
from asi_lab.tui.snapshot import Reader, Snapshot, Source

POLL_SECONDS = 1.0
GRACE_SECONDS = 3.0
"""How long an application that a signal ends may take to leave its terminal in order."""
MOST_NOTICES = 200
MOST_MARKS = 4

WIDE, LEAST_WIDTH, LEAST_HEIGHT = 120, 60, 15
PANES: dict[str, type[Pane]] = {
    "overview": Overview,
    "candidates": Candidates,
    "lineage": LineagePane,
    "curves": Curves,
    "diff": Diff,
    "agents": AgentsPane,
    "system": System,
    "events": Events,
}
RECORDING = "This is a recording: it cannot be steered."


def _do(key: str, verb: str, label: str, *, show: bool = False) -> Binding:
    return Binding(key, f"do('{verb}')", label, show=show, id=verb)


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
    .-thin ContentSwitcher, .-thin #tabs, .-thin #header, .-thin KeyLine { display: none; }
    .-low ContentSwitcher, .-low #tabs, .-low #header, .-low KeyLine { display: none; }
    """
    HORIZONTAL_BREAKPOINTS: list[tuple[int, str]] | None = [  # noqa: RUF012  as the base class has it
        (0, "-thin"),
        (LEAST_WIDTH, "-narrow"),
        (WIDE, "-wide"),
    ]
    VERTICAL_BREAKPOINTS: list[tuple[int, str]] | None = [(0, "-low"), (LEAST_HEIGHT, "-high")]  # noqa: RUF012
    ENABLE_COMMAND_PALETTE = True
    BINDINGS: ClassVar[list[BindingType]] = [
        *(Binding(str(n), f"pane('{name}')", name, show=False, id=name) for n, name in enumerate(PANES, 1)),
        Binding("colon", "command", "Command", id="command"),
        _do("p", "pause", "Pause", show=True),
        _do("e", "start", "Start", show=True),
        _do("x", "stop", "Stop", show=True),
        _do("ctrl+x", "stop-now", "Stop now"),
        _do("i", "idea", "Idea"),
        _do("P", "pin", "Pin or unpin the parent"),
        _do("B", "ban", "Ban or let in"),
        _do("R", "rerun", "Run again"),
        _do("t", "tag", "Tag"),
        _do("c", "comment", "Comment"),
        _do("m", "mark", "Mark"),
        _do("y", "copy", "Copy"),
        _do("Y", "copy-path", "Copy path"),
        _do("o", "open", "Open code"),
        _do("L", "engine-log", "Engine's log"),
        Binding("left_parenthesis", "speed(-1)", "Slower", id="slower"),
        Binding("right_parenthesis", "speed(1)", "Faster", id="faster"),
        Binding("ctrl+left", "move(-0.05)", "Back", show=False, id="back"),
        Binding("ctrl+right", "move(0.05)", "Forward", show=False, id="forward"),
        Binding("ctrl+z", "suspend_process", "To the background", show=False, id="background"),
        Binding("question_mark", "help", "Help", id="help"),
        Binding("q,ctrl+c", "detach", "Leave", id="quit"),
    ]
    selected: reactive[int | None] = reactive(None)

    def __init__(
        self,
        lab: Lab,
        *,
        readonly: bool = False,
        recording: Recording | None = None,
        title: str = "",
        preferred: Preferences | None = None,
    ) -> None:
        """`recording` is played instead of watching the lab; `title` says what is seen.

        Raises:
            ConfigError: the lab's settings, or the user's preferences, are wrong.
        """
        self._worn: dict[str, Theme | None] = {}
        super().__init__(ansi_color=True if os.environ.get("NO_COLOR") else None)
        self.lab, self.readonly, self.recording, self.label = lab, readonly, recording, title
        self.reader: Source = recording or Reader(lab)
        self.preferred = preferred or Preferences()
        self.memory = preferences.recall()
        self.snapshot: Snapshot | None = None
        self.marks: tuple[int, ...] = ()
        self.notices: tuple[Notice, ...] = ()
        forbidden = RECORDING if recording else "This view is read-only." if readonly else ""
        self.orders = Orders(lab, self.tell, self._beside, self.poll, forbidden)
        self._read_at, self._fault = time.monotonic(), ""
        self._usual = self.ansi_theme_dark, self.ansi_theme_light
        self._panes = {name: make() for name, make in PANES.items()}
        self._current = self.memory.pane if self.memory.pane in PANES else "overview"
        self._dress()
        self.set_keymap(preferences.keymap(self.preferred.keys, scopes()))

    def _dress(self) -> None:
        """Themes, and the one to begin with."""
        for theme in themes.OWN:
            self.register_theme(theme)
        wanted = self.preferred.theme or self.memory.theme
        if self.no_color:
            self.theme = themes.MONOCHROME
        elif wanted in self.available_themes:
            self.theme = wanted
        self._colours(self.current_theme)

    def _colours(self, theme: Theme) -> None:
        """What the named colours of texts look like."""
        self.ansi_theme_dark, self.ansi_theme_light = themes.terminals(theme, *self._usual)

    def get_theme(self, theme_name: str) -> Theme | None:
        """The theme of a name, which every line that is drawn asks for."""
        if theme_name not in self._worn:
            self._worn[theme_name] = super().get_theme(theme_name)
        return self._worn[theme_name]

    def get_line_filters(self) -> list[LineFilter]:
        """ASCII alone, where it is wanted."""
        return [*super().get_line_filters(), *([Ascii()] if self.preferred.ascii else [])]

    def compose(self) -> ComposeResult:
        """Header, tabs, panes, command line, footer."""
        yield Static(id="header")
        yield Clickable(id="tabs")
        with ContentSwitcher(initial=self._current):
            yield from self._panes.values()
        yield Static(Text(f"asi-lab needs {LEAST_WIDTH}x{LEAST_HEIGHT} characters."), id="small")
        yield CommandLine(_lines(), self._given)
        yield KeyLine()

    def on_mount(self) -> None:
        """Begin to look; end well by a signal, with the terminal as it was."""
        for number in (signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, self._ended_by, number)
        self.theme_changed_signal.subscribe(self, self._colours)
        for name, pane in self._panes.items():
            pane.restore(self.memory.layout.get(name, {}))
        if self.preferred.theme and self.preferred.theme not in self.available_themes:
            known = ", ".join(sorted(self.available_themes))
            self.tell(
                f"{preferences.config_file()}: no theme {self.preferred.theme!r}; there are {known}",
                "warning",
            )
        self._tabs()
        self._head()
        self.pane.begin()
        self.poll()
        self.set_interval(POLL_SECONDS, self.poll)
        self.set_interval(POLL_SECONDS, self._head)

    def _ended_by(self, number: int) -> None:
        """Leave, in any case: where the terminal is gone, what waits for its input would wait for ever."""
        watchdog = threading.Timer(GRACE_SECONDS, os._exit, [128 + number])
        watchdog.daemon = True
        watchdog.start()
        self.exit(128 + number)

    def on_resize(self, event: events.Resize) -> None:
        """Names of panes in full where there is room."""
        self._tabs(event.size.width)

    @work(thread=True, exclusive=True, group="poll")
    def poll(self) -> None:
        """Look into the lab, in a thread."""
        try:
            found: Snapshot | LabError = self.reader.read()
        except LabError as error:
            found = error
        self.call_from_thread(self._take, found)

    def _beside(self, errand: Callable[[], None]) -> None:
        self.run_worker(errand, thread=True, group="orders")

    def tell(self, message: str, severity: str = "information", seconds: float | None = None) -> None:
        """Tell the user something, from any thread; it is kept among the events."""
        if self._thread_id != threading.get_ident():
            self.call_from_thread(self.tell, message, severity, seconds)
            return
        self.notices = (*self.notices, Notice(time.time(), message, severity))[-MOST_NOTICES:]
        grave: Any = severity
        self.notify(message, severity=grave, timeout=seconds, markup=False)
        if self.snapshot is not None and isinstance(self.pane, Events):
            self.pane.show(self.snapshot)

    # What is seen

    @property
    def pane(self) -> Pane:
        """The pane in view."""
        return self._panes[self._current]

    def watch_selected(self, number: int | None) -> None:
        """Tell the pane in view."""
        if self.snapshot is not None:
            self.pane.select(number)

    def action_pane(self, name: str) -> None:
        """Bring a pane into view."""
        self._current = self.query_one(ContentSwitcher).current = name
        self._tabs()
        if self.snapshot is not None:
            self.pane.show(self.snapshot)
            self.pane.select(self.selected)
        self.pane.begin()

    def which(self, words: str) -> int | None:
        """The candidate of an id, or the best, or the selected one where nothing is named; None, and a word
        about it, where there is none."""
        named = words.strip()
        if not named:
            number = self.selected
        elif named == "best":
            number = self.snapshot.best if self.snapshot else None
        else:
            number = int(named) if named.isascii() and named.isdecimal() and len(named) < 10 else None
        known = {summary.id for summary in self.snapshot.summaries} if self.snapshot else set()
        if number not in known:
            self.tell(
                f"There is no candidate {plain(named, limit=40)}." if named else "None is selected.",
                "warning",
            )
            return None
        return number

    def go(self, words: str) -> None:
        """Select a candidate."""
        if (number := self.which(words)) is not None:
            self.selected = number

    def mark(self, words: str = "") -> None:
        """Mark a candidate for curves and diffs, or take its mark away."""
        if (number := self.which(words)) is None:
            return
        marks = tuple(one for one in self.marks if one != number)
        self.marks = marks if number in self.marks else (*marks, number)[-MOST_MARKS:]
        if self.snapshot is not None:
            self.pane.marked(self.snapshot)

    def filter(self, words: str) -> None:
        """Show candidates that hold these words."""
        self.action_pane("candidates")
        self.query_one(Candidates).filter(words)

    def sort(self, order: str) -> None:
        """Sort the candidates."""
        self.action_pane("candidates")
        self.query_one(Candidates).sort(order.strip())

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Speed and position exist for recordings alone."""
        return self.recording is not None if action in ("speed", "move") else True

    # What is asked for

    async def on_event(self, event: events.Event) -> None:
        """Keys are done one after the other, however fast they come: what one opens, closes or selects is so
        before the next is looked at. By themselves they go to whoever had the keys when they came."""
        if isinstance(event, events.Key) and not event.is_forwarded:
            if not self.screen.is_mounted:
                await AwaitMount(self.screen, [self.screen])
            field = self.focused
            if isinstance(field, Input) and event.is_printable:
                await field._on_key(event)
                return
            for first in (True, False):
                if await self._check_bindings(event.key, priority=first):
                    return
        await super().on_event(event)

    def action_command(self) -> None:
        """Type a command."""
        self.query_one(CommandLine).open("")

    def action_do(self, name: str) -> None:
        """Do what a command does; one that needs words is typed on."""
        verb = verbs.BY_NAME[name]
        if name in ("pin", "ban"):
            self._toggle(name)
        elif verb.needs_words:
            self.query_one(CommandLine).open(f"{verb.name} ")
        else:
            verb.run(self, "")

    def _toggle(self, name: str) -> None:
        """Pin or ban the selected candidate, or take that back."""
        asked = self.snapshot.status.steering if self.snapshot else None
        held = asked and self.selected in ((asked.pinned,) if name == "pin" else asked.banned)
        verbs.BY_NAME[f"un{name}" if held else name].run(self, "")

    def _given(self, words: str) -> None:
        """Do what was typed."""
        self.pane.begin()
        name, _, rest = words.lstrip(":").strip().partition(" ")
        if not name:
            return
        if name.isdecimal():
            self.go(name)
        elif name in PANES:
            self.action_pane(name)
        elif isinstance(verb := verbs.find(name), str):
            self.tell(verb, "warning")
        elif verb.needs_words and not rest.strip():
            self.tell(f"{verb.name} {verb.takes}: {verb.help}", "warning")
        else:
            verb.run(self, rest)

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        """All panes and commands in the palette."""
        for name in PANES:
            yield SystemCommand(name, "bring this pane into view", lambda name=name: self.action_pane(name))
        for verb in verbs.VERBS:
            title = f"{verb.name} {verb.takes}".strip()
            yield SystemCommand(title, verb.help, lambda verb=verb: self.action_do(verb.name))

    def action_pause(self) -> None:
        """Pause after the running candidate, or go on; a recording is held."""
        if self.recording is not None:
            self.recording.clock.hold()
            self.poll()
            return
        holds = self.snapshot is not None and self.snapshot.status.engine.holds
        self.orders.give("resume" if holds else "pause")

    def action_stop(self) -> None:
        """End the search after the running candidate, once confirmed."""
        self._confirmed("End the search after the running candidate?", lambda: self.orders.give("stop"))

    def action_stop_now(self) -> None:
        """End the search at once, once confirmed."""
        self._confirmed(
            "Cut the running trial off? It starts over with the next search.",
            lambda: self.orders.give("stop_now"),
        )

    def _confirmed(self, question: str, order: Callable[[], None]) -> None:
        if not self.orders.may:
            return
        if self.lab.engine_pid() is None:
            order()  # which says that there is none
        else:
            self.push_screen(Confirm(question), lambda yes: order() if yes else None)

    def action_start_engine(self) -> None:
        """Ask whether a search is to be started, and start it."""
        if not self.orders.may:
            return
        if (pid := self.lab.engine_pid()) is not None:
            self.tell(f"An engine is at work already, process {pid}.")
        else:
            self.push_screen(Start(self.lab, self.reader.settings), self._start)

    def _start(self, wanted: engine.Wanted | None) -> None:
        if wanted is None:
            return
        try:
            log = engine.start(self.lab, wanted)
        except LabError as error:
            self.tell(str(error), "error")
        else:
            self.tell(f"Started; it narrates to {log}. Leaving here does not end it.")

    def action_speed(self, steps: int) -> None:
        """Play a recording faster or slower."""
        if self.recording is not None:
            self.recording.clock.faster(steps)
            self._head()

    def action_move(self, share: float) -> None:
        """Go forward in a recording, or back."""
        if self.recording is not None:
            self.recording.clock.move(share)
            self.poll()

    def action_copy(self) -> None:
        """Copy what the pane is about."""
        self._copy(*self.pane.copied())

    def action_copy_path(self) -> None:
        """Copy the path of the selected candidate's folder."""
        if (number := self.which("")) is not None:
            self._copy(str(self.lab.trial(trial_label(number))), "the path of its folder")

    def _copy(self, text: str, what: str) -> None:
        if text:
            self.tell(f"copied {what} to {outside.copy(self, text)}")
        else:
            self.tell("There is nothing to copy yet.", "warning")

    def open_code(self, words: str = "") -> None:
        """Show a candidate's code in the user's editor or pager."""
        number = self.which(words)
        found = None if number is None else self.reader.candidate(number)
        if found is not None and found.proposal is not None:
            self._show_outside(f"{found.id:04d}_architecture.py", found.proposal.code)

    def open_log(self) -> None:
        """Show what the engine narrates."""
        try:
            self._show_outside(engine.LOG, engine.narrated(self.lab))
        except LabError as error:
            self.tell(str(error), "warning")

    def _show_outside(self, name: str, text: str) -> None:
        if trouble := outside.show(self, name, text):
            self.tell(trouble, "error")

    def choose_theme(self, name: str) -> None:
        """Take other colours; without a name they are listed."""
        wanted = name.strip()
        if not wanted:
            self.search_themes()
        elif wanted in self.available_themes:
            self.theme = wanted
        else:
            self.tell(
                f"There is no theme {plain(wanted, limit=40)!r}: {', '.join(self.available_themes)}",
                "warning",
            )

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

    # What comes

    def _take(self, found: Snapshot | LabError) -> None:
        if not self.screen_stack or not self.screen_stack[0].query("#header"):
            return  # the application is being closed
        self._fault = one_line(str(found)) if isinstance(found, LabError) else ""
        if isinstance(found, LabError):
            self._head()
            return
        before, self.snapshot, self._read_at = self.snapshot, found, time.monotonic()
        if self.selected is None and found.summaries:
            self.selected = found.summaries[-1].id if found.best is None else found.best
        self._answers(before, found)
        if isinstance(self.screen, Start) and found.status.engine.is_there:
            self.screen.dismiss(None)  # somebody else has started one
        self._head()
        self.pane.show(found)
        if before is None:
            self.pane.begin()
            self._welcome(found)

    def _welcome(self, found: Snapshot) -> None:
        """Tell what happened since the last look; where nothing ever did, what can be started."""
        last = self.memory.seen.get(str(self.lab.path.resolve()))
        if self.recording is None and last is not None and (words := since.summary(found, last)):
            self.tell(words, seconds=15)
        if found.status.engine.state == "never started" and not self.orders.forbidden:
            self.action_start_engine()

    def _answers(self, before: Snapshot | None, now: Snapshot) -> None:
        """Show what the engine answered to orders."""
        if before is None or not before.events or self.recording is not None:
            return
        for event in now.events:
            if event.seq > before.events[-1].seq and event.kind == "command":
                refused = event.data.get("refused")
                self.notify(
                    plain(event.message), severity="warning" if refused else "information", markup=False
                )

    def _head(self) -> None:
        for header in self.screen_stack[0].query("#header").results(Static) if self.screen_stack else ():
            header.update(self._heading(), layout=False)

    def _heading(self) -> Text:
        if self._fault:
            return Text(self._fault, style="bold red")
        if self.snapshot is None:
            return Text("looking into the lab")
        clock = self.recording.clock if self.recording else None
        return heading(self.snapshot, time.monotonic() - self._read_at, clock, self.readonly, self.label)

    def _tabs(self, width: int | None = None) -> None:
        found = tabs(PANES, self._current, self.size.width if width is None else width)
        self.query_one("#tabs", Static).update(found, layout=False)

    async def on_unmount(self) -> None:
        """Remember the layout and the time, and close the store."""
        if self.snapshot is not None:
            seen = dict(self.memory.seen)
            if self.recording is None:
                seen = preferences.recall().seen | {str(self.lab.path.resolve()): time.time()}
            theme = self.memory.theme if self.no_color or self.preferred.theme else self.theme
            layout = {name: pane.kept for name, pane in self._panes.items()}
            preferences.remember(preferences.Memory(theme, self._current, layout, seen))
        self.reader.close()


def scopes() -> dict[str, list[Binding]]:
    """The bindings by pane, and under "" those that are live everywhere."""
    found = {"": LabApp.BINDINGS} | {name: pane.BINDINGS for name, pane in PANES.items()}
    return {scope: [one for one in own if isinstance(one, Binding)] for scope, own in found.items()}


def _lines() -> list[str]:
    """What the command line can complete."""
    return [*PANES, *(f"{verb.name} " if verb.takes else verb.name for verb in verbs.VERBS)]
