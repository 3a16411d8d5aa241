"""Gives a person's orders: to the engine as files, or, where none is at work, to a process that carries them
out."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

from asi_lab.common.text import plain
from asi_lab.errors import LabError
from asi_lab.lab import Lab, commands
from asi_lab.lab.commands import Action

Tell = Callable[[str, str], None]
"""Tell the user something: words and how grave they are (information, warning, error)."""

WITHOUT_ENGINE: dict[Action, tuple[str, ...]] = {
    "idea": ("idea", "--", "{text}"),
    "pin": ("pin", "{id}"),
    "unpin": ("pin", "--off"),
    "ban": ("ban", "{id}"),
    "unban": ("ban", "{id}", "--off"),
    "rerun": ("rerun", "{id}"),
    "tag": ("tag", "{id}", "--", "{words}"),
    "untag": ("tag", "--off", "{id}", "--", "{words}"),
    "comment": ("comment", "{id}", "--", "{text}"),
    "release": ("release", "{id}"),
}
"""Orders that mean something while no engine is at work, as command lines."""
SECONDS = 60.0


class Orders:
    """The way to one lab's engine. `forbidden` says why no order may be given, empty where they may."""

    def __init__(
        self,
        lab: Lab,
        tell: Tell,
        in_background: Callable[[Callable[[], None]], None],
        look: Callable[[], object],
        forbidden: str,
    ) -> None:
        """`in_background` runs something in a thread; `look` reads the lab, where an order waits now."""
        self.lab, self.tell, self.look, self.forbidden = lab, tell, look, forbidden
        self.in_background = in_background

    @property
    def may(self) -> bool:
        """Whether orders may be given; where not, that is told."""
        if self.forbidden:
            self.tell(self.forbidden, "warning")
        return not self.forbidden

    def give(self, action: Action, candidate: int | None = None, text: str = "") -> None:
        """Give an order; its answer comes as an event of the lab, or is told."""
        if not self.may:
            return
        if self.lab.engine_pid() is not None:
            self._send(action, candidate, text)
        elif action in WITHOUT_ENGINE:
            self.in_background(lambda: self._carry_out(action, candidate, text))
        else:
            self.tell("No engine is at work: e starts one.", "warning")

    def _send(self, action: Action, candidate: int | None, text: str) -> None:
        try:
            commands.send(self.lab.commands, action, candidate, text)
        except LabError as error:
            self.tell(str(error), "error")
        else:
            self.tell(f"told the engine: {action.replace('_', ' ')}", "information")
            self.look()

    def _carry_out(self, action: Action, candidate: int | None, text: str) -> None:
        """This process reads the store, and a second time it cannot be opened here. The answer is an event of
        the lab, and shown as such; what is told is that there was none."""
        words: list[str] = []
        for part in WITHOUT_ENGINE[action]:
            words += text.split() if part == "{words}" else [part.format(id=candidate, text=text)]
        command = [sys.executable, "-P", "-m", "asi_lab", words[0], "--lab", str(self.lab.path), *words[1:]]
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                timeout=SECONDS,
                stdin=subprocess.DEVNULL,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            self.tell(f"{action} was not carried out: {error}", "error")
            return
        if not done.stdout:
            self.tell(plain(done.stderr or f"{action}: no answer", multiline=True).strip(), "warning")
