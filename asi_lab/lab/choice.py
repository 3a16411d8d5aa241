"""Which tasks a lab measures: chosen once, when it begins, and the same for all of its runs.

A task whose data set cannot be had is refused, or left out for good (`evaluate.missing`). So what one
candidate was measured on, every candidate and every reference of the lab was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from asi_lab.common.process import run_module
from asi_lab.data import suites
from asi_lab.errors import ConfigError, DataError
from asi_lab.events import NewEvent
from asi_lab.lab import fresh
from asi_lab.lab.meta import Key
from asi_lab.lab.store import Store
from asi_lab.protocol import HeldOutText, TaskData
from asi_lab.settings import Settings

Tick = Callable[[], None]

COMMAND = "asi-lab fetch"
"""What downloads data sets beforehand."""


class Chosen(msgspec.Struct, frozen=True):
    """The tasks that lab.toml named when it was chosen, and those of them that are left out."""

    named: tuple[str, ...]
    skipped: tuple[str, ...] = ()


def _key(text: HeldOutText, rung: str) -> Key[Chosen]:
    """What is measured everywhere at a scale, and what is measured beside claims alone."""
    name = {"search": "tasks", "claims": "claims_tasks"}[text]
    return Key(f"{name}/{rung}" if rung else name, Chosen)


def copies(settings: Settings, lab: Path) -> str:
    """The folder with copies of data sets, relative to the lab; empty for none."""
    named = settings.evaluate.datasets
    return str((lab / Path(named).expanduser()).resolve()) if named else ""


def look(names: Sequence[str], copies: str, tick: Tick, *, download: bool) -> list[TaskData]:
    """What there is of the data sets of tasks that come with lm-eval. With `download` what is missing is
    asked for from the hub.

    Raises:
        DataError: lm-eval knows no such task.
    """

    def ask(wanted: Sequence[str], environment: dict[str, str]) -> list[TaskData]:
        lines = run_module("asi_lab.scorer.fetch", [copies, *wanted], tick, environment) if wanted else []
        return [msgspec.json.decode(line, type=TaskData) for line in lines]

    there = ask(names, {"HF_HUB_OFFLINE": "1"})
    if download and (missing := [found.task for found in there if found.why]):
        now = {found.task: found for found in ask(missing, {})}
        there = [now.get(found.task, found) for found in there]
    return there


def settled(
    settings: Settings,
    store: Store,
    text: HeldOutText,
    lab: Path,
    tick: Tick = lambda: None,
    rung: str = "",
) -> Settings:
    """The settings of a scale with the tasks that are measured there, which are chosen where they were not
    yet.

    Raises:
        ConfigError: other tasks are named than when they were chosen.
        DataError: a data set cannot be had, and its task may not be left out (any more).
    """
    section = "evaluate" if text == "search" else "verify"
    named = settings.evaluate.tasks if text == "search" else settings.verify.tasks
    chosen = _key(text, rung).read(store) or (None if rung else _of_older(store, text, named))
    if chosen and chosen.named != named:
        raise ConfigError(
            f"lab.toml: {section}.tasks: expected those that this lab has begun with, "
            f"{', '.join(chosen.named) or 'none'}; found {', '.join(named) or 'none'}. Undo the change, or "
            "make another lab with --lab."
        )
    wanted = [name for name in named if chosen is None or name not in chosen.skipped]
    found = look(suites.of_lm_eval(wanted), copies(settings, lab), tick, download=True)
    lost = [one for one in found if one.why]
    left = tuple(name for name in wanted if name not in {one.task for one in lost})
    if lost and (chosen is not None or settings.evaluate.missing == "fail" or not left):
        raise DataError(_refusal(lost, began=chosen is not None))
    if chosen is None:
        told = f"left out of this lab for good: {', '.join(map(words, lost))}"
        news: list[NewEvent] = [("warning", told, {})] if lost else []
        _key(text, rung).write(store, Chosen(named, tuple(one.task for one in lost)), *news)
    part = msgspec.structs.replace(getattr(settings, section), tasks=left)
    return msgspec.structs.replace(settings, **{section: part})


def _of_older(store: Store, text: HeldOutText, named: tuple[str, ...]) -> Chosen | None:
    """What a lab of before this was recorded has chosen: all that is named, and nothing beside claims."""
    if text == "search":
        return Chosen(named) if store.reference_runs() else None
    return Chosen(()) if any(not run.is_tuning for run in fresh.runs(store)) else None


def words(found: TaskData) -> str:
    """A task whose data set is missing, with its place on the hub."""
    return f"{found.task} ({', '.join(found.datasets) or 'no data set'})"


def _refusal(lost: Sequence[TaskData], *, began: bool) -> str:
    names = ", ".join(map(words, lost))
    end = (
        "This lab has begun with them, so none can be left out"
        if began
        else 'Or leave them out of this lab for good: evaluate.missing = "skip"'
    )
    return (
        f"expected the data sets of all tasks; found none of {names}: {lost[0].why}. Get them where there is "
        f"a network: {COMMAND}. {end}; copies in a folder: evaluate.datasets."
    )
