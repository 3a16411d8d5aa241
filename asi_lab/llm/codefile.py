"""The one file that tools act on: a candidate's `architecture.py`, in memory until it is proposed."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from typing import Any

import json_repair

from asi_lab.common.syntax import parsed
from asi_lab.llm.model import RAW, Tool, ToolCall
from asi_lab.llm.parse import Unreadable, code_of, edits_of

WRITE = Tool(
    "write_code_file",
    "Write architecture.py. Give either `content`, the whole file, or `edits`, SEARCH/REPLACE blocks.",
    {
        "type": "object",
        "properties": {
            "content": {"type": "string", "description": "The whole file."},
            "edits": {
                "type": "string",
                "description": "Blocks of <<<<<<< SEARCH, old lines, =======, new lines, >>>>>>> REPLACE. "
                "The old lines must stand in the file exactly once.",
            },
        },
    },
)
READ = Tool("read_code_file", "Read architecture.py as it stands now.", {"type": "object", "properties": {}})
TOOLS = {tool.name: tool for tool in (WRITE, READ)}


class CodeFile:
    """The file as a model reads and writes it. `written` says that it holds something new."""

    def __init__(self, code: str, inspect: Callable[[str], str] = lambda code: "") -> None:
        """`inspect` looks at what was written and says what is wrong with it, empty if nothing."""
        self.code, self._before, self._inspect = code, code, inspect

    @property
    def written(self) -> bool:
        """Whether it differs from what it began with."""
        return self.code.strip() != self._before.strip()

    def restore(self) -> None:
        """Begin again with what it began with."""
        self.code = self._before

    def call(self, call: ToolCall) -> str:
        """Carry out a call; returns what the model is told.

        Raises:
            Unreadable: the call cannot be carried out; the message says why.
        """
        if call.name == READ.name:
            return self.code
        if call.name != WRITE.name:
            raise Unreadable(f"there is no tool {call.name}; there are {', '.join(TOOLS)}")
        return self.write(call.arguments)

    def write(self, arguments: dict[str, Any]) -> str:
        """Replace the file, or edit it; returns what the model is told. Raises `Unreadable` as `call`."""
        arguments = _repaired(arguments)
        edits, content = arguments.get("edits"), _content(arguments)
        if isinstance(edits, str) and edits.strip():
            self.edit(edits_of(edits))
        elif content:
            self.replace(content)
        else:
            raise Unreadable("write_code_file needs `content` (the whole file) or `edits`")
        written = f"Written: {len(self.code.splitlines())} lines, valid Python."
        return f"{written} It cannot be used yet: {self.faults}" if self.faults else written

    @property
    def faults(self) -> str:
        """What is wrong with it as it stands, as far as reading it tells; empty if nothing."""
        return self._inspect(self.code)

    def replace(self, content: str) -> None:
        """Take a whole file, with or without a fence around it."""
        if edits := edits_of(content):
            self.edit(edits)
            return
        self._take(code_of(content) or content)

    def edit(self, edits: Sequence[tuple[str, str]]) -> None:
        """Replace each old text by its new one; all of them or none."""
        if not edits:
            raise Unreadable("`edits` holds no complete block of <<<<<<< SEARCH, =======, >>>>>>> REPLACE")
        code = self.code if self.code.endswith("\n") else self.code + "\n"
        for old, new in edits:
            code = _replaced(code, old, new)
        self._take(code)

    def _take(self, code: str) -> None:
        try:
            parsed(code)
        except (SyntaxError, ValueError, RecursionError) as error:
            line = error.lineno if isinstance(error, SyntaxError) else None
            text = code.splitlines()[line - 1].strip() if line and line <= len(code.splitlines()) else ""
            where = f"line {line}: {error.msg if isinstance(error, SyntaxError) else error}: {text}"
            raise Unreadable(f"the file is no valid Python and was not written: {where}") from None
        self.code = code.rstrip() + "\n"


def _repaired(arguments: dict[str, Any]) -> dict[str, Any]:
    """Arguments that came as text because they were no valid JSON, read as they are meant."""
    raw = arguments.get(RAW)
    value = json_repair.loads(raw) if isinstance(raw, str) else None
    return value if isinstance(value, dict) and value else arguments


def _content(arguments: dict[str, Any]) -> str:
    """The whole file, under whatever name a model gave it."""
    for name in ("content", "code", "code_content", "file", "text", RAW):
        value = arguments.get(name)
        if isinstance(value, str) and value.strip():
            return value
    return ""


def _replaced(code: str, old: str, new: str) -> str:
    """Replace the one place where `old` stands; blanks at line ends and indentation may differ."""
    if not old.strip():
        raise Unreadable("a SEARCH block is empty: it must hold lines of the file")
    if code.count(old) == 1:
        return code.replace(old, new)
    lines, wanted = code.splitlines(keepends=True), [line.strip() for line in old.strip("\n").splitlines()]
    stripped = [line.strip() for line in lines]
    places = [i for i in range(len(lines)) if stripped[i : i + len(wanted)] == wanted]
    if len(places) > 1:
        raise Unreadable(
            f"a SEARCH block stands in the file {len(places)} times; add lines around it:\n{old}"
        )
    if not places:
        near = difflib.get_close_matches(wanted[0], stripped, 3, 0.5)
        hint = "".join(f"\n    {line}" for line in near)
        raise Unreadable(
            f"a SEARCH block does not stand in the file:\n{old}Lines like its first:{hint or ' none'}"
        )
    first = places[0]
    shift = _indent(lines[first]) - _indent(old.strip("\n").splitlines()[0])
    moved = [_shifted(line, shift) for line in new.splitlines(keepends=True)]
    if moved and not moved[-1].endswith("\n"):
        moved[-1] += "\n"
    return "".join([*lines[:first], *moved, *lines[first + len(wanted) :]])


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


def _shifted(line: str, shift: int) -> str:
    if not line.strip():
        return line
    return " " * max(0, _indent(line) + shift) + line.lstrip(" ")
