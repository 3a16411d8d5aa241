"""Reading what a model wrote: weak models answer in many shapes, and most of them can be understood.

Everything here takes text and gives text or plain values; nothing of it is executed.
"""

from __future__ import annotations

import re
from typing import Any, TypeVar

import json_repair
import msgspec

from asi_lab.common.syntax import parsed
from asi_lab.llm.model import ToolCall

T = TypeVar("T")

_REASONING = r"think|thinking|thought|reasoning|reflection"
_CLOSED = re.compile(rf"<({_REASONING})>.*?</\1>", re.DOTALL | re.IGNORECASE)
_TAIL = re.compile(rf"^.*?</(?:{_REASONING})>", re.DOTALL | re.IGNORECASE)
_OPEN = re.compile(rf"<(?:{_REASONING})>.*\Z", re.DOTALL | re.IGNORECASE)
_FENCE = re.compile(
    r"^[ \t]*(`{3,}|~{3,})[ \t]*([\w+-]*)[^\n]*\n(.*?)(?:^[ \t]*\1[ \t]*$|\Z)", re.DOTALL | re.MULTILINE
)
_CALL_TAG = re.compile(r"<tool_call>(.*?)(?:</tool_call>|\Z)", re.DOTALL)
_EDIT = re.compile(r"^<{5,} ?SEARCH[^\n]*\n(.*?)^={5,}[ \t]*\n(.*?)^>{5,} ?REPLACE", re.DOTALL | re.MULTILINE)


class Unreadable(Exception):
    """The text holds no answer of the wanted kind; the message tells the model what was wrong."""


def without_reasoning(text: str) -> str:
    """Leave out what a reasoning model thought aloud, also where one of the two tags is missing."""
    text = _CLOSED.sub("", text)
    return _OPEN.sub("", _TAIL.sub("", text)).strip()


class CodeBlock:
    """A fenced block: its language as given, its text, and whether its end was there."""

    def __init__(self, language: str, text: str, closed: bool) -> None:
        self.language, self.text, self.closed = language.lower(), text, closed


def blocks(text: str) -> list[CodeBlock]:
    """All fenced blocks, in order; the last may be open."""
    found = []
    for match in _FENCE.finditer(text):
        closed = match.group(0).rstrip().endswith(match.group(1)) and match.group(0).count("\n") > 0
        found.append(CodeBlock(match.group(2), match.group(3), closed))
    return found


def code_of(text: str) -> str | None:
    """The Python file that a text holds: its longest block of code, or the text itself if it is code.

    None where there is none. Raises `Unreadable` where the file is there and cut off.
    """
    candidates = [
        b for b in blocks(text) if b.language in ("", "py", "python", "python3") and "class " in b.text
    ]
    if candidates:
        best = max(candidates, key=lambda block: len(block.text))
        if not best.closed and not _parses(best.text):
            raise Unreadable("the file ends in the middle: its block of code was not closed")
        return best.text
    return text if "class " in text and _parses(text) else None


def _parses(code: str) -> bool:
    try:
        parsed(code)
    except (SyntaxError, ValueError, RecursionError):
        return False
    return True


def edits_of(text: str) -> list[tuple[str, str]]:
    """Pairs of old and new text from SEARCH/REPLACE blocks, in order."""
    return [(match.group(1), match.group(2)) for match in _EDIT.finditer(text)]


def calls_of(text: str, tools: frozenset[str]) -> tuple[ToolCall, ...]:
    """Tool calls that a model wrote as text, in tags or as a JSON object with name and arguments."""
    sources = [match.group(1) for match in _CALL_TAG.finditer(text)]
    sources += [block.text for block in blocks(text) if block.language in ("json", "tool_call")]
    if not sources and text.lstrip().startswith("{"):
        sources = [text]
    found = []
    for source in sources:
        value = _load(source)
        name = value.get("name") if isinstance(value, dict) else None
        given = (value.get("arguments") or value.get("parameters")) if isinstance(value, dict) else None
        if isinstance(name, str) and name in tools and isinstance(given, dict):
            found.append(ToolCall(name, given))
    return tuple(found)


def record_of(text: str, kind: type[T]) -> T:
    """The JSON object that a text holds, as a record.

    Raises:
        Unreadable: no object in the text has the fields of `kind`; the message names the first that is wrong.
    """
    complaints = []
    for source in _objects(text):
        value = _load(source)
        if not isinstance(value, dict):
            continue
        try:
            return msgspec.convert(_plain(value), kind, strict=False)
        except msgspec.ValidationError as error:
            complaints.append(str(error))
    if complaints:
        raise Unreadable(f"the JSON object does not fit: {complaints[0]}")
    raise Unreadable("no JSON object was found")


def _objects(text: str) -> list[str]:
    """Pieces of text that may be the object, most likely first: blocks from the last on, then braces."""
    fenced = [b.text for b in reversed(blocks(text)) if b.language in ("json", "json5", "") and "{" in b.text]
    bare = _FENCE.sub("", text)
    starts = [match.start() for match in re.finditer(r"\{", bare)]
    spans = [bare[start : bare.rfind("}") + 1] or bare[start:] for start in starts[:8]]
    return [*fenced, *spans]


def _load(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError):
        return json_repair.loads(text)


def _plain(value: dict[str, Any]) -> dict[str, Any]:
    """Keys as the schema writes them: lower case, underscores."""
    return {re.sub(r"[\s-]+", "_", str(key).strip()).lower(): item for key, item in value.items()}
