"""What can be asked for by name: in the command line (`:`), in the palette and, by keys, in the panes."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from asi_lab.lab.commands import Action

if TYPE_CHECKING:
    from asi_lab.tui.app import LabApp


class Verb(NamedTuple):
    """One command: its name, what stands behind it, what it does, and who does it, given what stands
    there."""

    name: str
    takes: str
    help: str
    run: Callable[[LabApp, str], object]

    @property
    def needs_words(self) -> bool:
        """Whether it means nothing without words behind it."""
        return self.takes.isupper()


def _about_one(action: Action) -> Callable[[LabApp, str], object]:
    """An order about the candidate that is named, else about the selected one."""

    def run(app: LabApp, words: str) -> None:
        if (number := app.which(words)) is not None:
            app.orders.give(action, number)

    return run


def _on_selected(action: Action) -> Callable[[LabApp, str], object]:
    """An order about the selected candidate, with words."""

    def run(app: LabApp, words: str) -> None:
        if (number := app.which("")) is not None:
            app.orders.give(action, number, words)

    return run


def _plain(action: Action) -> Callable[[LabApp, str], object]:
    return lambda app, words: app.orders.give(action, None, words)


VERBS = (
    Verb("go", "ID", "select a candidate, also by its id alone, such as :42, or best", lambda a, w: a.go(w)),
    Verb("pause", "", "pause after the running candidate, or go on", lambda a, w: a.action_pause()),
    Verb("stop", "", "end the search after the running candidate", lambda a, w: a.action_stop()),
    Verb("stop-now", "", "cut the running trial off and end", lambda a, w: a.action_stop_now()),
    Verb("start", "", "start an engine", lambda a, w: a.action_start_engine()),
    Verb("idea", "TEXT", "a note that the next planner must take up", _plain("idea")),
    Verb("pin", "[id]", "have all new candidates descend from this one", _about_one("pin")),
    Verb("unpin", "", "draw parents again", _plain("unpin")),
    Verb("ban", "[id]", "draw this one neither as parent nor as reference", _about_one("ban")),
    Verb("unban", "[id]", "let it be drawn again", _about_one("unban")),
    Verb("rerun", "[id]", "train and evaluate it once more, with another seed", _about_one("rerun")),
    Verb("release", "[id]", "let a suspect candidate in after all", _about_one("release")),
    Verb("tag", "TAGS", "tag the selected candidate", _on_selected("tag")),
    Verb("untag", "TAGS", "remove tags of the selected candidate", _on_selected("untag")),
    Verb("comment", "TEXT", "write a comment on the selected candidate", _on_selected("comment")),
    Verb("mark", "[id]", "keep it in view in curves and diffs, or no longer", lambda a, w: a.mark(w)),
    Verb("filter", "[words]", "show candidates that hold these words", lambda a, w: a.filter(w)),
    Verb("sort", "[order]", "sort the candidates", lambda a, w: a.sort(w)),
    Verb("open", "[id]", "open its code in $EDITOR or $PAGER", lambda a, w: a.open_code(w)),
    Verb("engine-log", "", "open what the engine narrates", lambda a, w: a.open_log()),
    Verb("copy", "", "copy what the pane is about", lambda a, w: a.action_copy()),
    Verb("copy-path", "", "copy the path of the candidate's folder", lambda a, w: a.action_copy_path()),
    Verb("theme", "[name]", "choose colours", lambda a, w: a.choose_theme(w)),
    Verb("help", "", "list the live keys and all commands", lambda a, w: a.action_help()),
    Verb("quit", "", "leave; the search goes on", lambda a, w: a.action_detach()),
)
BY_NAME = {verb.name: verb for verb in VERBS}


def find(typed: str) -> Verb | str:
    """The verb of a name or of the beginning of one; else words that say what is wrong with it."""
    if typed in BY_NAME:
        return BY_NAME[typed]
    begun = [verb for verb in VERBS if verb.name.startswith(typed)]
    if len(begun) == 1:
        return begun[0]
    near = [verb.name for verb in begun] or difflib.get_close_matches(typed, BY_NAME, 3)
    return f"no command is called {typed!r}" + (f"; did you mean {' or '.join(near)}?" if near else "")
