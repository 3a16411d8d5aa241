"""Lends the terminal to the user's editor or pager, and texts to their clipboard."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from textual.app import App, SuspendNotSupported

from asi_lab.common.text import plain
from asi_lab.tui import preferences


def show(app: App[Any], name: str, text: str) -> str:
    """Open a text, made harmless, under a file name; what is changed there is lost. Returns what went
    wrong."""
    program = os.environ.get("VISUAL") or os.environ.get("EDITOR") or os.environ.get("PAGER") or "less"
    try:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / name
            file.write_text(plain(text, multiline=True), encoding="utf-8")
            with app.suspend():
                subprocess.run([*shlex.split(program), str(file)], check=False)
    except (OSError, ValueError, SuspendNotSupported) as error:
        return f"{program} cannot be started: {error}"
    return ""


def copy(app: App[Any], text: str) -> str:
    """Copy to the terminal's clipboard (OSC 52) and to a file; returns where to, in words."""
    app.copy_to_clipboard(text)
    try:
        where = f", and to {preferences.copied(text)}"
    except OSError as error:
        where = f"; to no file, since {error.strerror or error}"
    return f"the clipboard, if the terminal allows it{where}"
