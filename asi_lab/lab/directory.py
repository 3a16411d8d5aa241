"""A lab directory: where everything of one search lies, and the lock that allows one engine.

lab.toml  commands/  lineage_repo/  store/  trials/0042/  data/  engine.lock
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shlex
import time
from collections.abc import Iterator
from pathlib import Path

from asi_lab.common import disk
from asi_lab.errors import ConfigError, DiskError, LabLocked, UsageError
from asi_lab.lab import config
from asi_lab.records import RULES
from asi_lab.settings import Settings

LOCK_TRIES = 5
_LOCK_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW  # what a link names is not written over


def trial_label(candidate_id: int) -> str:
    """The name of a candidate's trial: of its folder, its curve and its place in a slot."""
    return f"{candidate_id:04d}"


class Lab:
    """Paths of a lab; nothing is opened or made by constructing it."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.config = self.path / config.FILE_NAME
        self.commands = self.path / "commands"
        self.lineage = self.path / "lineage_repo"
        self.store = self.path / "store"
        self.trials = self.path / "trials"
        self.data = self.path / "data"
        self._lock_file = self.path / "engine.lock"

    @property
    def exists(self) -> bool:
        """Whether the directory holds a lab."""
        return self.config.is_file()

    def create(self, settings: Settings) -> None:
        """Make the directory and write `lab.toml`, whole or not at all.

        Raises:
            UsageError: there is a lab already.
            DiskError: the place cannot be written.
        """
        if self.exists:
            raise UsageError(f"{self.path}: expected no lab here; found {config.FILE_NAME}. Use it as it is.")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            disk.write(self.config, config.render(settings).encode())
        except OSError as error:
            raise DiskError(f"No lab can be made here. {disk.explain(error, self.path)}") from None

    def settings(self) -> Settings:
        """The settings in `lab.toml`."""
        return config.load(self.config)

    def has_results(self) -> bool:
        """Whether an engine has ever worked here."""
        return (self.store / "data.mdb").exists()

    def trial(self, label: str) -> Path:
        """Directory of one trial, such as `trials/0042`."""
        return self.trials / label

    def engine_pid(self) -> int | None:
        """Process id of the engine that runs on this lab now, None if none does.

        Raises:
            DiskError: that cannot be seen here.
        """
        try:
            with self._lock_file.open("r") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return None
        except BlockingIOError:
            return self._written_pid()
        except OSError as error:
            raise DiskError(disk.explain(error, self._lock_file)) from None
        return None

    def _written_pid(self) -> int:
        try:
            return int(self._lock_file.read_text())
        except (OSError, ValueError):
            return 0

    @contextlib.contextmanager
    def locked(self) -> Iterator[int]:
        """Hold the lab for one engine; yields the lock's descriptor.

        The lock goes with the last process that holds the descriptor. Git children may inherit it, so
        that no second engine starts while one of a killed engine still writes; candidates never do.

        Raises:
            LabLocked: another engine holds it; the message names its process id.
            DiskError: the lab cannot be written.
        """
        try:
            descriptor = os.open(self._lock_file, _LOCK_FLAGS, 0o644)
        except OSError as error:
            raise DiskError(disk.explain(error, self.path)) from None
        try:
            self._lock(descriptor)
            yield descriptor
        finally:
            os.close(descriptor)

    def _lock(self, descriptor: int) -> None:
        for _ in range(LOCK_TRIES):  # a viewer that just looks holds it for an instant
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.05)
        else:
            raise LabLocked(
                f"{self.path}: expected a free lab; an engine runs on it, process {self._written_pid()}. "
                "Watch it with: asi-lab status. End it with: asi-lab stop."
            )
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        except OSError as error:
            raise DiskError(disk.explain(error, self._lock_file)) from None


FIXED = ("seed", "data", "model", "train", "evaluate", "fitness", "judge")
"""Settings that results of one lab must share."""


def check_rules(lab: Lab, found: int) -> None:
    """Refuse to search on in a lab of other rules.

    Raises:
        UsageError: it was made under others; the message tells how to go on from its best.
    """
    if found > RULES:
        raise UsageError(
            f"{lab.path}: made by a newer asi-lab, under rules {found}; this one searches under rules "
            f"{RULES}. Use the newer one."
        )
    if found < RULES:
        raise UsageError(
            f"{lab.path}: made under rules {found}; this asi-lab searches under rules {RULES}, whose results "
            "do not compare with those. Look at it as before (status, top, show, diff, log, fsck). To go on "
            f"in a new lab from its best: asi-lab --lab NEW init --from {shlex.quote(str(lab.path))}"
        )


def check_unchanged(now: Settings, then_text: str, where: str = config.FILE_NAME) -> None:
    """Refuse settings under which new results would not compare with the old ones.

    Raises:
        ConfigError: one of `FIXED` differs from the text that the lab began with, or what its
            baselines are.
    """
    then = config.parse(then_text, f"the first {where}")
    changed = [name for name in FIXED if getattr(now, name) != getattr(then, name)]
    for name in ("references", "bar", "noise_freedom", "seeds"):
        if getattr(now.baselines, name) != getattr(then.baselines, name):
            changed.append(f"baselines.{name}")
    if changed:
        raise ConfigError(
            f"{where}: {', '.join(changed)} changed since this lab began, so new results would not compare "
            "with the old ones. Undo the change (asi-lab config show --first prints the lab's old text), or "
            "make another lab with --lab."
        )


def run_label(what: str, seed_index: int, rate: float = 1.0, kind: str = "seed") -> str:
    """The name of a run with that seed, at that learning rate over the preset's: of its folder and of its
    series. `what` is an architecture, or the four digits of a candidate that is run again."""
    return f"{what}-{kind}{seed_index}" + ("" if rate == 1.0 else f"-rate{rate:g}")
