"""What a user prefers, by a file that they write, and what is remembered from one look to the next.

$XDG_CONFIG_HOME/asi-lab/tui.toml    theme, ascii, keys: written by the user
$XDG_STATE_HOME/asi-lab/tui.json     the layout, and when each lab was seen: written here
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import platformdirs
from textual.binding import Binding

from asi_lab.common import disk
from asi_lab.errors import ConfigError

APP = "asi-lab"


class Preferences(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `tui.toml` may say. `theme` is the name of a theme, empty for the last one; `ascii` draws without
    any sign beyond ASCII; `keys` are keys by command, such as `pause = "p,space"`."""

    theme: str = ""
    ascii: bool = False
    keys: dict[str, str] = {}


class Memory(msgspec.Struct, frozen=True):
    """The theme and the pane in view, each pane's layout, and when each lab was last seen (epoch seconds)."""

    theme: str = ""
    pane: str = ""
    layout: dict[str, dict[str, Any]] = {}
    seen: dict[str, float] = {}


def config_file() -> Path:
    """Where preferences are written."""
    return platformdirs.user_config_path(APP) / "tui.toml"


def state_folder() -> Path:
    """Where things are remembered and copies are put."""
    return platformdirs.user_state_path(APP)


def load() -> Preferences:
    """The user's preferences; the defaults where there is no such file.

    Raises:
        ConfigError: it is no TOML, or says what it cannot say.
    """
    file = config_file()
    try:
        return msgspec.toml.decode(file.read_text(encoding="utf-8-sig"), type=Preferences)
    except FileNotFoundError:
        return Preferences()
    except OSError as error:
        raise ConfigError(disk.explain(error, file)) from None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ConfigError(
            f'{file}: expected theme = "...", ascii = true or a table [keys] such as pause = "p"; '
            f"found: {error}. Put it right, or move it away."
        ) from None


def recall() -> Memory:
    """What is remembered; nothing where that cannot be read."""
    try:
        return msgspec.json.decode((state_folder() / "tui.json").read_bytes(), type=Memory)
    except (OSError, msgspec.MsgspecError):
        return Memory()


def remember(memory: Memory) -> None:
    """Keep it for the next look. Where that cannot be written, it is not remembered."""
    try:
        state_folder().mkdir(parents=True, exist_ok=True)
        disk.write(state_folder() / "tui.json", msgspec.json.encode(memory))
    except OSError:
        return


def copied(text: str) -> Path:
    """Put a copied text into a file that only the user can read; returns the file. Raises OSError."""
    folder = state_folder()
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "copied.txt"
    with os.fdopen(
        os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "wb"
    ) as opened:
        opened.write(text.encode("utf-8", "replace"))
    return file


def keymap(wanted: dict[str, str], scopes: Mapping[str, Iterable[Binding]]) -> dict[str, str]:
    """The keys that a user wants, after a look that each command is known and no key is taken twice.

    `scopes` are the bindings by where they are live; those of the scope "" are so everywhere.

    Raises:
        ConfigError: a command is unknown, or two that are live together want one key.
    """
    commands = {binding.id: scope for scope, found in scopes.items() for binding in found if binding.id}
    if unknown := sorted(set(wanted) - commands.keys()):
        raise ConfigError(
            f"{config_file()}: keys: no command is called {', '.join(unknown)}. There are: "
            f"{', '.join(sorted(commands))}."
        )
    if empty := sorted(name for name, keys in wanted.items() if not keys.strip()):
        raise ConfigError(f"{config_file()}: keys: {', '.join(empty)}: expected a key; found none.")
    for scope, own in scopes.items():
        taken: dict[str, str] = {}
        live = [*own, *(scopes[""] if scope else ())]
        for binding in live:
            name = binding.id or binding.action
            for key in wanted.get(name, binding.key).split(","):
                if (other := taken.setdefault(key.strip(), name)) != name and (
                    name in wanted or other in wanted
                ):
                    raise ConfigError(
                        f"{config_file()}: keys: {key.strip()} is wanted by {other} and by {name}, which are "
                        "live together. Give one of them another key."
                    )
    return wanted
