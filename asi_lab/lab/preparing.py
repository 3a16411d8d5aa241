"""What trials at one scale need before the first of them: data, tasks, and that they are those of before."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from asi_lab.common.process import run_module
from asi_lab.data.manifest import load_manifest
from asi_lab.errors import DataError
from asi_lab.events import NewEvent
from asi_lab.lab import Store, choice, config, meta
from asi_lab.lab.directory import FIXED, check_unchanged
from asi_lab.lab.meta import Key
from asi_lab.lab.rungs import SUFFIX, Rung
from asi_lab.protocol import HeldOutText
from asi_lab.settings import Train


def ready(rung: Rung, store: Store, lab: Path, tick: Callable[[], None], say: Callable[[str], None]) -> Rung:
    """Prepare all that the fresh runs of a scale take; returns the scale with the tasks that are measured.

    Raises:
        ConfigError, DataError: they cannot be had, or are others than before.
    """
    if rung.name:
        store.append_events(*data(rung, tick, say))
        same_data(rung, meta.data_of(rung.name), store)
        chosen = choice.settled(rung.settings, store, "search", lab, tick, rung.name)
        rung = rung._replace(settings=chosen)
    chosen = choice.settled(rung.settings, store, "claims", lab, tick, rung.name)
    store.append_events(*tasks(rung, "claims", tick))
    return rung._replace(settings=chosen)


def data(rung: Rung, tick: Callable[[], None], say: Callable[[str], None]) -> list[NewEvent]:
    """Build tokenizer, shards and task files once, in processes of their own, calling `tick` while they work;
    returns what is wrong with the text, and what was put right.

    Raises:
        DataError: they cannot be built, or are damaged.
    """
    wanted = rung.settings.data
    if not (rung.data / "manifest.json").exists():
        at = f" for {rung.title}" if rung.name else ""
        say(f"Preparing data{at}: {wanted.source}, {wanted.tokenizer}")
    told = [str(rung.data), msgspec.json.encode(wanted).decode()]
    warned = run_module("asi_lab.data.prepare", told, tick)
    return [*[("warning", line, {}) for line in warned], *tasks(rung, "search", tick)]


def tasks(rung: Rung, text: HeldOutText, tick: Callable[[], None]) -> list[NewEvent]:
    """Build the offline tasks from a held-out text; returns what was put right."""
    numbers = str(rung.settings.seed), str(rung.settings.evaluate.limit)
    told = [str(rung.data), *numbers, text]
    lines = run_module("asi_lab.scorer.tasks.build", told, tick)
    return [("repair", line, {}) for line in lines]


def same_data(rung: Rung, key: Key[str], store: Store) -> None:
    """Look that the data of a scale are those that it began with, and remember them at the start.

    Raises:
        DataError: they are others.
    """
    manifest = load_manifest(rung.data)
    made, first = manifest.fingerprint, key.read(store)
    if first is None:
        key.write(store, made, *_repetition(rung.settings.train, manifest.train.tokens))
    elif first != made:
        raise DataError(
            f"{rung.data}: expected the data that this lab began with, fingerprint {first[:12]}; found "
            f"{made[:12]}, so new results would not compare with the old ones. Put the old folder or the old "
            "text back, or make another lab with --lab."
        )


def _repetition(train: Train, tokens: int) -> list[NewEvent]:
    """What is to be told where training reads its text more than once."""
    wanted = train.steps * train.batch * train.context
    if wanted <= tokens:
        return []
    words = f"training reads its text {wanted / tokens:.1f} times: {tokens:,} tokens for {wanted:,}"
    return [("warning", f"{words}. Results tell less than on fresh text; give more of it", {})]


def frozen(rung: Rung, store: Store) -> Rung:
    """A scale beyond the lab's own with the settings that its first claims were made under, which are from
    now on those. What a preset says may change with the program; a file of the lab may not.

    Raises:
        ConfigError: the file has other ones, under which new results would not compare with the old.
    """
    key, now = meta.config_of(rung.name), rung.settings
    text = key.read(store)
    if text is None:
        key.write(store, config.render(now))
        return rung
    if (file := f"{rung.name}{SUFFIX}") in now.verify.rungs:
        check_unchanged(now, text, file)
    then = config.parse(text, f"the first settings of {rung.name}")
    kept = {name: getattr(then, name) for name in (*FIXED, "baselines")}
    return rung._replace(settings=msgspec.structs.replace(now, **kept))
