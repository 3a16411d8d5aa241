"""Whether trials could read what is held out from them, at the place where it comes from or lies."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from asi_lab.data.corpus import files_of
from asi_lab.errors import DataError
from asi_lab.events import NewEvent
from asi_lab.sandbox.policy import Level, system_paths
from asi_lab.settings import Data


def readable_by_trials(source: str, shown: Iterable[str]) -> tuple[str, ...]:
    """The files of a source below the paths that are `shown` to trials, links followed on both sides.

    The built-in corpus and names on the hub have no files of their own: of the one the sandbox hides what is
    held out, the other nobody keeps here.
    """
    roots = _resolved(shown)
    return tuple(str(file) for file in files_of(source) if _place(file, roots))


def check_out_of_reach(data: Data, directory: Path, level: Level) -> tuple[NewEvent, ...]:
    """See to it that trials at this level can read neither the files of the text nor the lab's data
    `directory`; returns what is to be told where the level hides nothing.

    Raises:
        DataError: some lie among what the sandbox shows to every trial.
    """
    if level is Level.LIMITS:
        message = f"the text held out in {directory} is open to candidates: this sandbox hides no files"
        return (("warning", message, {}),)
    shown = _resolved(system_paths())
    if place := _place(directory, shown):
        raise DataError(
            f"{directory}: expected a lab outside of what trials can read; found it in {place}, which the "
            "sandbox shows to every trial. Make the lab in another folder with --lab."
        )
    if found := readable_by_trials(data.source, map(str, shown)):
        raise DataError(
            f"data.source {data.source!r}: expected text that trials cannot read; found {found[0]} "
            f"(1 of {len(found)} files) in {_place(Path(found[0]), shown)}, which the sandbox shows to every "
            "trial, so that a candidate could answer from it. Move the text out of there and start a new lab."
        )
    return ()


def _place(path: Path, roots: Iterable[Path]) -> Path | None:
    """The one of `roots` that `path` lies in, if any."""
    resolved = path.resolve()
    return next((root for root in roots if resolved.is_relative_to(root)), None)


def _resolved(paths: Iterable[str]) -> list[Path]:
    return [Path(path).resolve() for path in paths]
