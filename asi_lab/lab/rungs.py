"""The scales at which a lab makes claims: its own, then larger ones with settings and data of their own.

lab.toml    data/           the lab's own scale
rungs/mini/data/            one beyond it: the preset `mini`
big.toml    rungs/big/data/ another: a file like lab.toml, in the lab
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import msgspec

from asi_lab.errors import ConfigError
from asi_lab.lab import config
from asi_lab.lab.directory import Lab
from asi_lab.settings import Settings

FOLDER = "rungs"
SUFFIX = ".toml"


class Rung(NamedTuple):
    """One scale: its `name`, empty for the lab's own, what it is shown as, its settings, and where its data
    lie."""

    name: str
    title: str
    settings: Settings
    data: Path


def own(lab: Lab, settings: Settings) -> Rung:
    """The scale that the lab searches at."""
    return Rung("", settings.preset, settings, lab.data)


def below(lab: Lab, first: Rung, rung: Rung) -> Rung | None:
    """The next smaller scale of a lab whose own is `first`; None for that."""
    found = of_lab(lab, first.settings)
    place = [one.name for one in found].index(rung.name)
    return found[place - 1] if place else None


def of_lab(lab: Lab, settings: Settings) -> list[Rung]:
    """The scales of a lab, the smallest first: its own, and those that its settings name.

    Seed, device, sandbox, slots and the terms of claims are the lab's. So is the text, where the lab has
    another than its preset.

    Raises:
        ConfigError: one is neither a preset nor such a file, or two have the same name.
    """
    found = [own(lab, settings)]
    text = settings.data.source
    is_own_text = text != config.from_preset(settings.preset).data.source
    for wanted in settings.verify.rungs:
        its = _settings(lab, wanted)
        name = wanted.removesuffix(SUFFIX)
        if name in {rung.title for rung in found}:
            raise ConfigError(f"verify.rungs: expected scales that differ in name; found {name} twice.")
        data = msgspec.structs.replace(its.data, source=text if is_own_text else its.data.source)
        search = msgspec.structs.replace(its.search, slots=settings.search.slots)
        evaluate = msgspec.structs.replace(
            its.evaluate, missing=settings.evaluate.missing, datasets=settings.evaluate.datasets
        )
        its = msgspec.structs.replace(
            its,
            seed=settings.seed,
            device=settings.device,
            sandbox=settings.sandbox,
            search=search,
            data=data,
            evaluate=evaluate,
            verify=msgspec.structs.replace(settings.verify, tasks=its.verify.tasks),
        )
        found.append(Rung(name, name, its, lab.path / FOLDER / name / "data"))
    return found


def named(lab: Lab, settings: Settings, title: str | None) -> list[Rung]:
    """The scale that is called so, or without a name all of them.

    Raises:
        ConfigError: there is none.
    """
    found = of_lab(lab, settings)
    chosen = [rung for rung in found if title in (None, rung.title)]
    if not chosen:
        known = ", ".join(rung.title for rung in found)
        raise ConfigError(
            f"--rung: expected one of {known}; found {title!r}. Others are named by verify.rungs in lab.toml."
        )
    return chosen


def _settings(lab: Lab, wanted: str) -> Settings:
    if wanted in config.preset_names():
        return config.from_preset(wanted)
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*\.toml", wanted) or wanted == config.FILE_NAME:
        presets = ", ".join(config.preset_names())
        raise ConfigError(
            f"verify.rungs: expected one of {presets}, or the name of a TOML file in the lab, such as "
            f"big.toml; found {wanted!r}."
        )
    path = lab.path / wanted
    if not path.is_file():
        raise ConfigError(f"verify.rungs: expected {path}, with settings like those of lab.toml; found none.")
    return config.load(path)
