"""What a user has granted to labs: kept outside them, so that no lab can grant itself anything.

$XDG_STATE_HOME/asi-lab/trust.json    written by `asi-lab trust` alone

A key belongs to its provider's own host and to the one that the user names in the environment; a lab may name
any other, which then needs a grant. Task code needs one by the hash of all that is in its folder. A lab of
another user needs one by its path.
"""

from __future__ import annotations

import os
import shlex
import stat
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import msgspec
import platformdirs

from asi_lab.common import disk
from asi_lab.common.text import plain
from asi_lab.errors import ConfigError, ConsentError, DiskError

_PORTS = {"http": 80, "https": 443}


class Grants(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All that was granted. `labs` are folders of other users; `unconfined` are those of labs that may have
    candidates run without a sandbox; `hosts` are origins such as
    `https://llm.example:443` by the environment variable of the key that may go there; `tasks` are folders
    with task code by the hash of what they held."""

    labs: frozenset[str] = frozenset()
    hosts: dict[str, frozenset[str]] = {}
    tasks: dict[str, str] = {}
    unconfined: frozenset[str] = frozenset()

    def has_host(self, variable: str, origin: str) -> bool:
        """Whether the key in `variable` may go to an origin."""
        return origin in self.hosts.get(variable, ())


def file() -> Path:
    """Where grants are kept."""
    return platformdirs.user_state_path("asi-lab") / "trust.json"


def granted() -> Grants:
    """All that was granted so far.

    Raises:
        ConfigError: the file is not the user's own, or says what it cannot say.
    """
    place = file()
    try:
        with place.open("rb") as opened:
            found = os.fstat(opened.fileno())
            if found.st_uid not in {os.geteuid(), 0} or stat.S_IMODE(found.st_mode) & 0o022:
                raise ConfigError(
                    f"{place}: expected a file that you alone can write; others can. Move it away, and grant "
                    "anew what you want: asi-lab trust"
                )
            return msgspec.json.decode(opened.read(), type=Grants)
    except FileNotFoundError:
        return Grants()
    except OSError as error:
        raise ConfigError(disk.explain(error, place)) from None
    except msgspec.MsgspecError as error:
        raise ConfigError(
            f"{place}: expected what `asi-lab trust` writes; found: {error}. Move it away, and grant anew "
            "what you want."
        ) from None


def keep(grants: Grants) -> None:
    """Write down what is granted from now on.

    Raises:
        DiskError: it cannot be written.
    """
    place = file()
    try:
        place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        disk.write(place, msgspec.json.format(msgspec.json.encode(grants, order="sorted")), mode=0o600)
    except OSError as error:
        raise DiskError(disk.explain(error, place)) from None


def command(lab: Path) -> str:
    """The command that shows what a lab asks for, and grants it."""
    return f"asi-lab trust {shlex.quote(str(lab))}"


def is_own(path: Path) -> bool:
    """Whether a file is this user's, as git judges it: root also owns what belongs to the user of `sudo`. Of
    a link, so must be what it leads to."""
    own = {str(os.geteuid())}
    if os.geteuid() == 0:
        own.add(os.environ.get("SUDO_UID", "0"))
    return {str(path.lstat().st_uid), str(path.stat().st_uid)} <= own


def check_owner(path: Path, lab: Path) -> None:
    """Look whether `path`, in a folder `lab` or one of its own, is this user's or granted.

    Raises:
        ConsentError: it is neither.
    """
    if is_own(path):
        return
    folder = lab.resolve()
    if not granted().labs.isdisjoint(map(str, (folder, folder.parent))):
        return
    raise ConsentError(
        f"{path}: expected a file of yours; it belongs to user {path.stat().st_uid}. If you trust them, say "
        f"so: {command(folder.parent if path.name == '.git' else folder)}"
    )


def origin(address: str) -> str:
    """Scheme, host and port of an address, which decide who gets what is sent there.

    Raises:
        ConfigError: it is none of http or https, or its host is not plain.
    """
    try:
        parts = urlsplit(address)
        host, port = parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 0)
    except ValueError:
        host, port = "", 0
    if not host or not port or "\\" in address or any(c.isspace() or not c.isprintable() for c in address):
        raise ConfigError(
            f"expected the address of a server such as https://host/v1; found {plain(address, limit=100)!r}."
        )
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{port}"


class KeyHost(NamedTuple):
    """A server that is asked with the key in the environment variable `variable`. `own` are the addresses of
    the key's provider and those that the user named; `address` may be named by a lab."""

    variable: str
    address: str
    own: tuple[str, ...]

    @property
    def is_granted(self) -> bool:
        """Whether the key may go there. Raises `ConfigError` where the address is none."""
        wanted = origin(self.address)
        named = set(map(origin, filter(None, self.own)))
        return wanted in named or granted().has_host(self.variable, wanted)

    def check(self, command: str = "asi-lab trust LAB") -> None:
        """Look whether the key, where there is one, may go there. `command` is what grants it.

        Raises:
            ConsentError: it may not.
            ConfigError: the address is none.
        """
        if os.environ.get(self.variable, "").strip() and not self.is_granted:
            raise ConsentError(
                f"{origin(self.address)} is named by a lab's settings, not by you, so {self.variable} is not "
                f"sent there and nothing was asked. See it, and grant it: {command}. A server that needs no "
                f"key can be used at once without: env -u {self.variable} asi-lab ..."
            )
