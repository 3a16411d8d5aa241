"""Reading and writing `lab.toml`.

A lab's file is merged over its preset and decoded strictly. Whatever is wrong is reported with
file, key, line and the accepted values.
"""

from __future__ import annotations

import re
import typing
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec
import tomlkit
from msgspec import Meta

from asi_lab.data import probes, suites
from asi_lab.errors import ConfigError
from asi_lab.settings import Section, Settings

FILE_NAME = "lab.toml"

DEFAULT_PRESET = "micro"
"""What a lab is made from where none is named."""

RETIRED = (("evaluate", "prefix_tolerance"), ("judge", "timing"))
"""Keys of older labs, by section, that say nothing any more; they are passed over."""


def preset_names() -> list[str]:
    """Names of the packaged presets, small to large."""
    folder = resources.files("asi_lab.lab.presets")
    names = [item.name.removesuffix(".toml") for item in folder.iterdir() if item.name.endswith(".toml")]
    order = {"micro": 0, "mini": 1, "20m": 2, "340m": 3, "1.3b": 4}
    return sorted(names, key=lambda name: (order.get(name, 9), name))


def preset_table(name: str) -> dict[str, Any]:
    """The raw table of a preset.

    Raises:
        ConfigError: there is no preset of that name.
    """
    if name not in preset_names():
        raise ConfigError(f"preset: expected one of {', '.join(preset_names())}; found {name!r}.")
    text = (resources.files("asi_lab.lab.presets") / f"{name}.toml").read_text(encoding="utf-8")
    return tomlkit.parse(text).unwrap()


def from_preset(name: str, **overrides: Any) -> Settings:
    """Settings of a preset; `overrides` are top-level keys such as `seed`."""
    return _decode({"preset": name, **preset_table(name), **overrides}, f"preset {name}", "")


def load(path: Path) -> Settings:
    """Settings of the lab whose `lab.toml` is at `path`, merged over its preset.

    Raises:
        ConfigError: the file is missing, is not TOML, or holds an unknown key or a bad value.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(
            f"{path}: no such file. Make a lab with: asi-lab --lab {path.parent} init"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as UTF-8 text: {error}.") from None
    return parse(text, str(path))


def parse(text: str, where: str = FILE_NAME) -> Settings:
    """Settings from the text of a `lab.toml`; `where` names it in messages."""
    try:
        table = tomlkit.parse(text).unwrap()
    except tomlkit.exceptions.ParseError as error:
        raise ConfigError(f"{where}: not valid TOML: {error}.") from None
    preset = table.get("preset")
    if not isinstance(preset, str) or preset not in preset_names():
        line = _line(text, ["preset"])
        raise ConfigError(
            f"{where}{line}: preset: expected one of {', '.join(preset_names())}; found {preset!r}."
        )
    for section, key in RETIRED:
        if isinstance(table.get(section), dict) and table[section].pop(key, None) is not None:
            table = {name: value for name, value in table.items() if name != section or value}
    return _decode(_merge(preset_table(preset), table), where, text)


def render(settings: Settings) -> str:
    """The text of a `lab.toml` with every key, its value and a comment that says what it does."""
    document = tomlkit.document()
    document.add(tomlkit.comment("Settings of this lab. A key that is removed takes the preset's value."))
    document.add(tomlkit.comment("Check with: asi-lab config validate"))
    document.add(tomlkit.nl())
    _render_into(document, settings)
    return tomlkit.dumps(document)


def _render_into(container: Any, section: Section) -> None:
    hints = typing.get_type_hints(type(section), include_extras=True)
    for name in section.__struct_fields__:
        value = getattr(section, name)
        if isinstance(value, Section):
            table = tomlkit.table()
            table.add(tomlkit.comment((type(value).__doc__ or "").strip().splitlines()[0]))
            _render_into(table, value)
            container.add(name, table)
        else:
            container.add(tomlkit.comment(_describe(hints[name])))
            container.add(name, list(value) if isinstance(value, tuple) else value)


def _describe(hint: Any) -> str:
    """Description and accepted values of an annotated field."""
    metas = [meta for meta in getattr(hint, "__metadata__", ()) if isinstance(meta, Meta)]
    text = next((meta.description for meta in metas if meta.description), "")
    accepted = _accepted(hint)
    return f"{text} [{accepted}]" if accepted else text


def _accepted(hint: Any) -> str:
    """Accepted values of an annotated field in words, empty for free text."""
    metas = [meta for meta in getattr(hint, "__metadata__", ()) if isinstance(meta, Meta)]
    kind = hint.__origin__ if metas else hint
    if typing.get_origin(kind) is typing.Literal:
        return " | ".join(repr(value) for value in typing.get_args(kind))
    if kind is bool:
        return "true | false"
    if kind in (int, float):
        words = [{int: "integer", float: "number"}[kind]]
        for meta in metas:
            words += [
                f"{sign} {bound:g}"
                for sign, bound in ((">=", meta.ge), (">", meta.gt), ("<=", meta.le), ("<", meta.lt))
                if bound is not None
            ]
        return " ".join(words)
    if typing.get_origin(kind) is tuple:
        first = typing.get_args(kind)[0]
        item = _accepted(first)
        if typing.get_origin(first) is typing.Literal:
            return f"list of {item}"
        return (
            f"list of {item}s".replace("number", "numbers", 1).removesuffix("s")
            if item
            else "list of strings"
        )
    return ""


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = _merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def _decode(table: dict[str, Any], where: str, text: str) -> Settings:
    try:
        settings = msgspec.convert(table, Settings)
    except msgspec.ValidationError as error:
        raise ConfigError(_explain(str(error), table, where, text)) from None
    settings = _without_suites(settings, where, text)
    _check_together(settings, where, text)
    return settings


def _without_suites(settings: Settings, where: str, text: str) -> Settings:
    """The same settings, with the tasks of suites in the place of their names."""
    for section, key in (("evaluate", "tasks"), ("evaluate", "probes"), ("verify", "tasks")):
        part = getattr(settings, section)
        try:
            names = suites.expanded(getattr(part, key))
        except ValueError as error:
            raise ConfigError(f"{where}{_line(text, [section, key])}: {section}.{key}: {error}.") from None
        changed = msgspec.structs.replace(part, **{key: names})
        settings = msgspec.structs.replace(settings, **{section: changed})
    return settings


def _explain(message: str, table: dict[str, Any], where: str, text: str) -> str:
    """Turn msgspec's message into file, line, key, what was found and what is accepted."""
    match = re.search(r" - at `\$\.?([^`]*)`", message)
    path = (
        [part for part in re.split(r"[.\[]", match.group(1)) if part and part[0].isalpha()] if match else []
    )
    unknown = re.search(r"unknown field `([^`]+)`", message)
    if unknown:
        known = _section_at(path).__struct_fields__
        key = unknown.group(1)
        here = f" in [{'.'.join(path)}]" if path else " at the top level"
        line = _line(text, [*path, key])
        return f"{where}{line}: unknown key {key!r}{here}. Known keys: {', '.join(known)}."
    value: Any = table
    for part in path:
        value = value.get(part, "nothing") if isinstance(value, dict) else value
    key = ".".join(path) or "the file"
    hint = _hint_at(path)
    accepted = _accepted(hint) if hint is not None else "a table"
    expected = accepted or re.sub(r" - at.*", "", message)
    return f"{where}{_line(text, path)}: {key}: expected {expected}; found {value!r}."


def _section_at(path: list[str]) -> Any:
    kind: Any = Settings
    for part in path:
        kind = typing.get_type_hints(kind)[part]
    return kind


def _hint_at(path: list[str]) -> Any:
    if not path:
        return None
    owner = _section_at(path[:-1])
    hint = typing.get_type_hints(owner, include_extras=True).get(path[-1])
    return None if isinstance(hint, type) else hint


def _line(text: str, path: list[str]) -> str:
    """`:12` for the line on which the key stands, empty where the text does not hold it."""
    section: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if header := re.match(r"\s*\[([^\[\]]+)\]", line):
            section = [part.strip().strip("\"'") for part in header.group(1).split(".")]
            if section == path:
                return f":{number}"
        elif (assigned := re.match(r"\s*([\w.\"'-]+)\s*=", line)) and [
            *section,
            *(part.strip("\"'") for part in assigned.group(1).split(".")),
        ] == path:
            return f":{number}"
    return ""


def _check_together(settings: Settings, where: str, text: str) -> None:
    """Rules over several keys."""
    model, train, search, baselines = settings.model, settings.train, settings.search, settings.baselines
    tasks, beside = settings.evaluate.tasks, settings.verify.tasks
    rules = [
        (
            model.width % model.heads == 0,
            ["model", "heads"],
            f"expected a divisor of model.width = {model.width}; found {model.heads}",
        ),
        (
            train.batch % train.micro_batch == 0,
            ["train", "micro_batch"],
            f"expected a divisor of train.batch = {train.batch}; found {train.micro_batch}",
        ),
        (
            train.warmup_steps <= train.steps,
            ["train", "warmup_steps"],
            f"expected at most train.steps = {train.steps}; found {train.warmup_steps}",
        ),
        (
            search.parent_ranks <= search.pool,
            ["search", "parent_ranks"],
            f"expected at most search.pool = {search.pool}; found {search.parent_ranks}",
        ),
        (
            len(search.controls) == len({*search.controls}),
            ["search", "controls"],
            f"expected each once; found {', '.join(search.controls)}",
        ),
        (
            not search.controls or 0 < search.control_share * len(search.controls) < 1,
            ["search", "control_share"],
            f"expected more than 0 and less than 1/{len(search.controls)}, so that each of search.controls "
            f"and the search itself get candidates; found {search.control_share:g}",
        ),
        (
            baselines.seeds <= baselines.max_seeds,
            ["baselines", "max_seeds"],
            f"expected at least baselines.seeds = {baselines.seeds}; found {baselines.max_seeds}",
        ),
        (
            baselines.references[:2] == ("delta_net", "gated_delta_net")
            and len({*baselines.references}) == len(baselines.references),
            ["baselines", "references"],
            "expected delta_net and gated_delta_net first, and each name once; found "
            f"{', '.join(baselines.references) or 'none'}",
        ),
        (
            baselines.bar in ("", *baselines.references),
            ["baselines", "bar"],
            f"expected one of baselines.references, or nothing; found {baselines.bar!r}",
        ),
        (
            re.fullmatch(r"byte|gpt2|bpe:\d+", settings.data.tokenizer) is not None,
            ["data", "tokenizer"],
            f"expected byte, bpe:N or gpt2; found {settings.data.tokenizer!r}",
        ),
        (
            re.match(r"builtin$|text:.|hf:.", settings.data.source) is not None,
            ["data", "source"],
            f"expected builtin, text:GLOB or hf:NAME[:CONFIG]; found {settings.data.source!r}",
        ),
        (
            len(settings.agents.weights) in (0, len(settings.agents.models)),
            ["agents", "weights"],
            f"expected as many as there are agents.models; found {len(settings.agents.weights)}",
        ),
        (
            len(tasks) > 0,
            ["evaluate", "tasks"],
            "expected at least one task; found an empty list",
        ),
        (
            not suites.kept_for_claims(tasks),
            ["evaluate", "tasks"],
            "expected none of generalization's tasks, which enter no fitness and go into verify.tasks; found "
            f"{', '.join(suites.kept_for_claims(tasks))}",
        ),
        (
            not {*tasks} & {*beside},
            ["verify", "tasks"],
            "expected other tasks than those that the search chooses by (evaluate.tasks); found "
            f"{', '.join(sorted({*tasks} & {*beside}))} in both",
        ),
        *(
            (
                len(names) == len({*names}) and not {*names} & {*probes.NAMES},
                [section, "tasks"],
                "expected each task once, and probes in evaluate.probes alone; found "
                f"{', '.join(sorted(n for n in {*names} if names.count(n) > 1 or n in probes.NAMES))}",
            )
            for section, names in (("evaluate", tasks), ("verify", beside))
        ),
        (
            set(settings.evaluate.probes) <= {*probes.NAMES},
            ["evaluate", "probes"],
            f"expected some of {', '.join(probes.NAMES)}; found {', '.join(settings.evaluate.probes)}",
        ),
        (
            len(settings.evaluate.probes) == len({*settings.evaluate.probes}),
            ["evaluate", "probes"],
            f"expected each once; found {', '.join(settings.evaluate.probes)}",
        ),
    ]
    for holds, path, message in rules:
        if not holds:
            raise ConfigError(f"{where}{_line(text, path)}: {'.'.join(path)}: {message}.")
