"""Prompt templates: one markdown file per role, with front matter that says what goes in and what comes out.

    ---
    variables: [motivation, code]      # every {{name}} in the body, and no other
    temperature: 0.3
    schema: {type: object, ...}        # optional: JSON schema of the answer
    tools: [write_code_file]           # optional: names of the tools the role may call
    ---
    # System
    ...
    # User
    ... {{code}} ...

A lab may hold a folder of overrides: a file of the same name there takes the place of the packaged one.
Templates are read strictly, since a placeholder that stays empty is an error no model would report.
"""

from __future__ import annotations

import hashlib
import re
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import msgspec
import yaml
from msgspec import Meta

from asi_lab.errors import ConfigError

_PLACEHOLDER = re.compile(r"\{\{([^{}]*)\}\}")
_PARTS = ("System", "User")
_PART = re.compile(rf"^# ({'|'.join(_PARTS)})[ \t]*$", re.MULTILINE)


class Prompt(msgspec.Struct, frozen=True):
    """One role's template.

    `schema` is the JSON schema of the answer, None for free text. `digest` is the start of the SHA-256 of
    the file, so that a record can say which wording gave an answer.
    """

    name: str
    variables: tuple[str, ...]
    temperature: float
    schema: dict[str, Any] | None
    tools: tuple[str, ...]
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


class _FrontMatter(msgspec.Struct, forbid_unknown_fields=True):
    variables: tuple[Annotated[str, Meta(pattern=r"^[a-z_][a-z0-9_]*\Z")], ...]
    temperature: Annotated[float, Meta(ge=0.0, le=2.0)]
    schema: dict[str, Any] | None = None
    tools: tuple[str, ...] = ()


def names() -> list[str]:
    """Names of the packaged prompts, sorted."""
    folder = resources.files("asi_lab.prompts")
    return sorted(item.name.removesuffix(".md") for item in folder.iterdir() if item.name.endswith(".md"))


def load(name: str, override: Path | None = None) -> Prompt:
    """The prompt of a role: from the folder `override` where that has the file, else the packaged one.

    Raises:
        ConfigError: there is no prompt of that name, or its file breaks one of the rules above; an override
            must also declare the variables of the packaged file, since those are what it will be given.
    """
    if name not in names():
        raise ConfigError(f"prompt: expected one of {', '.join(names())}; found {name!r}.")
    file = f"{name}.md"
    packaged = _parse(name, (resources.files("asi_lab.prompts") / file).read_bytes(), file)
    path = override / file if override else None
    if path is None or not path.exists():
        return packaged
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: expected a readable file; found {error}.") from None
    prompt = _parse(name, content, str(path))
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
    if override is not None and override.exists():
        known = {f"{name}.md" for name in names()}
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


def _parse(name: str, content: bytes, where: str) -> Prompt:
    try:
        text = content.decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{where}: expected UTF-8 text; found {error}.") from None
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
        system=system,
        user=user,
        digest=hashlib.sha256(content).hexdigest()[:16],
    )


def _front_matter(text: str, where: str) -> _FrontMatter:
    wanted = ", ".join(_FrontMatter.__struct_fields__)
    try:
        table = yaml.safe_load(text)
        head = msgspec.convert(table, _FrontMatter)
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: expected YAML in the front matter; found {error}.") from None
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}: front matter: expected the keys {wanted}; found: {error}.") from None
    twice = {variable for variable in head.variables if head.variables.count(variable) > 1}
    if twice:
        raise ConfigError(f"{where}: variables: expected each name once; found {_listed(twice)} repeated.")
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
