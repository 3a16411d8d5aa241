"""Prompt templates: one markdown file per role, with front matter that says what goes in and what comes out.

    ---
    variables: [motivation, code]      # every {{name}} in the body, and no other
    temperature: 0.3
    schema: {type: object, ...}        # optional: JSON schema of the answer
    tools: [write_code_file]           # optional: names of the tools the role may call
    gives_way: [code]                  # optional: variables that are cut, in this order, where room is short
    ---
    # System
    ...
    # User
    ... {{code}} ...

A line {{> contract}} stands for the text of `_contract.md`, which several prompts share. A lab may hold a
folder of overrides: a file of the same name there takes the place of the packaged one.
Templates are read strictly, since a placeholder that stays empty is an error no model would report.
"""

from __future__ import annotations

import hashlib
import os
import re
from bisect import bisect
from collections.abc import Callable, Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import msgspec
import yaml
from msgspec import Meta

from asi_lab.common import disk
from asi_lab.common.text import CUT
from asi_lab.errors import ConfigError

_SHARED = re.compile(r"^\{\{> ([a-z_]+)\}\}$", re.MULTILINE)
_PLACEHOLDER = re.compile(r"\{\{([^{}]*)\}\}")
_PARTS = ("System", "User")
_PART = re.compile(rf"^# ({'|'.join(_PARTS)})[ \t]*$", re.MULTILINE)


class Prompt(msgspec.Struct, frozen=True):
    """One role's template.

    `schema` is the JSON schema of the answer, None for free text. `digest` is the start of the SHA-256 of
    the whole text, so that a record can say which wording gave an answer.
    """

    name: str
    variables: tuple[str, ...]
    temperature: float
    schema: dict[str, Any] | None
    tools: tuple[str, ...]
    gives_way: tuple[str, ...]
    system: str
    user: str
    digest: str

    def render(self, **values: str) -> tuple[str, str]:
        """The system and the user message with every placeholder replaced by its value.

        Values are inserted as they are: what looks like a placeholder inside of one stays.

        Raises:
            ConfigError: a variable is missing, or a value is given that the template does not declare.
        """
        if set(values) != set(self.variables):
            missing, extra = set(self.variables) - set(values), set(values) - set(self.variables)
            found = [f"{_listed(missing)} missing"] if missing else []
            found += [f"{_listed(extra)} besides"] if extra else []
            raise ConfigError(
                f"{self.name}.md: expected values for {_listed(self.variables)}; found {', '.join(found)}."
            )
        system, user = (
            _PLACEHOLDER.sub(lambda match: values[match[1]], part) for part in (self.system, self.user)
        )
        return system, user

    def fitted(self, values: Mapping[str, str], room: int, tokens: Callable[[str], int]) -> tuple[str, str]:
        """Render, with values that may give way cut at their ends, until both messages have at most `room`
        tokens, as `tokens` counts them, or nothing more may be cut.

        Raises:
            ConfigError: as `render`.
        """
        kept = dict(values)
        rendered = self.render(**kept)
        for name in self.gives_way:
            excess = sum(map(tokens, rendered)) - room
            if excess <= 0:
                break
            kept[name] = _shortened(kept[name], tokens(kept[name]) - excess, tokens)
            rendered = self.render(**kept)
        return rendered


def _shortened(text: str, room: int, tokens: Callable[[str], int]) -> str:
    """As many first lines of a text as have at most `room` tokens, with the word that more was cut."""
    lines = text.split("\n")

    def first(count: int) -> str:
        return "\n".join([*lines[:count], CUT])

    fitting = bisect(range(len(lines)), room, key=lambda count: tokens(first(count)))
    return first(max(0, fitting - 1))


class _FrontMatter(msgspec.Struct, forbid_unknown_fields=True):
    variables: tuple[Annotated[str, Meta(pattern=r"^[a-z_][a-z0-9_]*\Z")], ...]
    temperature: Annotated[float, Meta(ge=0.0, le=2.0)]
    schema: dict[str, Any] | None = None
    tools: tuple[str, ...] = ()
    gives_way: tuple[str, ...] = ()


def names() -> list[str]:
    """Names of the packaged prompts, sorted."""
    folder = resources.files("asi_lab.prompts")
    files = [item.name for item in folder.iterdir() if item.name.endswith(".md")]
    return sorted(name.removesuffix(".md") for name in files if not name.startswith("_"))


def load(name: str, override: Path | None = None) -> Prompt:
    """The prompt of a role: from the folder `override` where that has the file, else the packaged one.

    Raises:
        ConfigError: there is no prompt of that name, or its file breaks one of the rules above; an override
            must also declare the variables of the packaged file, since those are what it will be given.
    """
    if name not in names():
        raise ConfigError(f"prompt: expected one of {', '.join(names())}; found {name!r}.")
    packaged = _packaged(name)
    if override is None or not override.exists():
        return packaged
    file = f"{name}.md"
    text, path = _read(file, override)
    prompt = _parse(name, text, path, override)
    if set(prompt.variables) != set(packaged.variables):
        raise ConfigError(
            f"{path}: variables: expected those of the packaged {file}, {_listed(packaged.variables)}; "
            f"found {_listed(prompt.variables)}."
        )
    return prompt


def load_all(override: Path | None = None) -> dict[str, Prompt]:
    """Every prompt by name. A folder `override` that is not there overrides nothing.

    Raises:
        ConfigError: as `load`; or `override` is no folder, or holds what is not named like a prompt, which
            is most likely a misspelt override. Hidden files do not count.
    """
    if override is not None and override.is_symlink():
        raise ConfigError(f"{override}: expected a folder of prompts; found a link. Copy the folder there.")
    if override is not None and override.exists():
        folder = resources.files("asi_lab.prompts")
        known = {item.name for item in folder.iterdir() if item.name.endswith(".md")}
        try:
            found = sorted(item.name for item in override.iterdir())
        except OSError as error:
            raise ConfigError(f"{override}: expected a folder of prompts; found {error}.") from None
        for file in found:
            if file not in known and not file.startswith("."):
                raise ConfigError(
                    f"{override / file}: expected only files named {_listed(sorted(known))}; found {file}."
                )
    return {name: load(name, override) for name in names()}


@cache
def _packaged(name: str) -> Prompt:
    return _parse(name, *_read(f"{name}.md", None), None)


def _read(file: str, override: Path | None) -> tuple[str, str]:
    """The text of a file and where it stands: in `override` where that has it, else in the package."""
    path = override / file if override else None
    if path is None or not os.path.lexists(path):
        return (resources.files("asi_lab.prompts") / file).read_text(encoding="utf-8"), file
    try:
        return disk.read_plain(path), str(path)
    except OSError as error:
        raise ConfigError(f"{path}: expected a readable file; found {error}.") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: expected UTF-8 text; found {error}.") from None


def _shared(text: str, where: str, override: Path | None) -> str:
    """The text with what it shares with others put in its place."""

    def part(match: re.Match[str]) -> str:
        file = f"_{match[1]}.md"
        if not (resources.files("asi_lab.prompts") / file).is_file():
            raise ConfigError(f"{where}: expected the name of a shared text; found {match[1]!r}.")
        return _read(file, override)[0].strip()

    return _SHARED.sub(part, text)


def _parse(name: str, text: str, where: str, override: Path | None) -> Prompt:
    text = _shared(text, where, override)
    opening, *rest = re.split(r"^---[ \t]*\n", text, maxsplit=2, flags=re.MULTILINE)
    if opening or len(rest) != 2:
        first = text.partition("\n")[0]
        raise ConfigError(
            f"{where}: expected front matter between two lines of ---; found {first!r} first"
            f"{'' if opening else ', and no second ---'}."
        )
    head = _front_matter(rest[0], where)
    system, user = _parts(rest[1], where)
    _check_placeholders(system + "\n" + user, head.variables, where)
    return Prompt(
        name=name,
        variables=head.variables,
        temperature=head.temperature,
        schema=head.schema,
        tools=head.tools,
        gives_way=head.gives_way,
        system=system,
        user=user,
        digest=hashlib.sha256(text.encode()).hexdigest()[:16],
    )


def _front_matter(text: str, where: str) -> _FrontMatter:
    wanted = ", ".join(_FrontMatter.__struct_fields__)
    try:
        table = yaml.safe_load(text)
        head = msgspec.convert(table, _FrontMatter)
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{where}: expected YAML in the front matter; found {error}.") from None
    except (msgspec.ValidationError, ValueError) as error:
        raise ConfigError(f"{where}: front matter: expected the keys {wanted}; found: {error}.") from None
    twice = {variable for variable in head.variables if head.variables.count(variable) > 1}
    if twice:
        raise ConfigError(f"{where}: variables: expected each name once; found {_listed(twice)} repeated.")
    if strangers := set(head.gives_way) - set(head.variables):
        raise ConfigError(
            f"{where}: gives_way: expected names of variables, {_listed(head.variables)}; "
            f"found {_listed(strangers)}."
        )
    return head


def _parts(body: str, where: str) -> tuple[str, str]:
    before, *pieces = _PART.split(body)
    found = tuple(pieces[::2])
    if found != _PARTS:
        raise ConfigError(
            f"{where}: expected the parts # System and # User, in this order; found "
            f"{', '.join(f'# {part}' for part in found) or 'neither'}."
        )
    system, user = (piece.strip() for piece in pieces[1::2])
    if before.strip():
        line = before.strip().partition("\n")[0]
        raise ConfigError(f"{where}: expected # System after the front matter; found {line!r}.")
    if not system or not user:
        empty = _PARTS[0 if not system else 1]
        raise ConfigError(f"{where}: expected text under # System and # User; found none under # {empty}.")
    return system, user


def _check_placeholders(text: str, variables: tuple[str, ...], where: str) -> None:
    used = set(_PLACEHOLDER.findall(text))
    if unknown := used - set(variables):
        raise ConfigError(
            f"{where}: expected placeholders of declared variables, {_listed(variables)}; found "
            f"{', '.join('{{' + item + '}}' for item in sorted(unknown))}."
        )
    if unused := set(variables) - used:
        raise ConfigError(
            f"{where}: expected every declared variable in the text; "
            f"found no placeholder for {_listed(unused)}."
        )


def _listed(items: set[str] | tuple[str, ...] | list[str]) -> str:
    return ", ".join(sorted(items)) or "none"
