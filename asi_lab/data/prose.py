"""From a docstring to plain paragraphs: code, markup and boilerplate out, wrapped lines joined."""

from __future__ import annotations

import re
from collections.abc import Iterator
from string import ascii_letters

MAX_OTHER_SHARE = 0.2
"""Most of a line of prose that is not a letter, a space, a comma or a full stop."""

MAX_NON_ASCII_SHARE = 0.05
"""Lines with more non-ASCII characters than this are tables, drawings or other scripts."""

_PROMPT = re.compile(r"(>>>|\.\.\. |In ?\[\d+\]:|Out ?\[\d+\]:|\$ )")
_FENCE = re.compile(r"(```|~~~)")
_RULE = re.compile(r"([-=~^*+#\"'`_.])\1{2,}$|[=\- |+]{5,}$")
_DIRECTIVE = re.compile(r"\.\.\s+([\w:-]+)::\s*(.*)$")
_ADMONITIONS = {"note", "warning", "admonition", "seealso", "tip", "important", "caution", "hint"}
_TARGET = re.compile(r"\.\.\s+_[^:]*:|:\w+:\s*$|\.\.\s*$")
_CITATION = re.compile(r"\.\.\s+\[[^\]]*\]\s*")
_ITEM = re.compile(r"(?:[-*+•]|\(?\d{1,2}[.)]|\[\d+\])\s+|:\w+ [^:]{1,60}:\s")
_DEFINITION = re.compile(r"\*{0,2}[\w.]+(?:, ?\*{0,2}[\w.]+)*( ?\([^)]*\))?(\s?):(?:\s|$)")
_SECTION = re.compile(
    r"(args|arguments|parameters|other parameters|params|returns?|yields?|raises|warns|warnings|notes?|"
    r"examples?|see also|references|attributes|methods|keyword arguments|keyword args|inputs?|outputs?|"
    r"shape|explanation|usage|description|default|tip|implementation notes|class attributes):?$",
    re.IGNORECASE,
)
# (a string that must occur, a pattern, what to put in its place)
_INLINE = (
    ("]_", re.compile(r" ?\[[\w.-]+\]_"), ""),  # citations: [1]_
    (":`", re.compile(r":[\w:+.-]+:`~?[\w.]*?\.?([\w ()-]+)`"), r"\1"),  # :class:`~a.b.C` is C
    (":`", re.compile(r":[\w:+.-]+:`([^`<]*?)\s*(<[^`>]*>)?`"), r"\1"),  # :ref:`text <target>` is text
    ("`_", re.compile(r"`([^`<]+?)\s*<[^`>]*>`_{1,2}"), r"\1"),  # `text <https://...>`_ is text
    ("](", re.compile(r"\[([^\]]+)\]\([^)\s]*\)"), r"\1"),  # [text](https://...) is text
    ("`", re.compile(r"\[?`{1,2}([^`]+)`{1,2}\]?_{0,2}"), r"\1"),  # ``code``, `code`, [`code`] and `ref`_
    ("**", re.compile(r"\*\*([^*]+)\*\*"), r"\1"),
    ("://", re.compile(r"https?://\S+"), ""),
    ("", re.compile(r"[ \t]{2,}|\t"), " "),
)
_NO_PROSE_CHARACTER = str.maketrans("", "", ascii_letters + " ,.")


def paragraphs(text: str) -> list[str]:
    """The prose of a dedented docstring, one string per paragraph, list item or definition.

    Doctests, literal blocks, fenced code, tables, section underlines and directives other than
    admonitions are left out, reStructuredText and Markdown inline markup is reduced to its text.
    """
    joined: list[str] = []
    level: int | None = None  # indentation at which a line continues the last paragraph
    item: int | None = None  # indentation of the open list item; every deeper line continues it
    for line in _without_code(text.splitlines()):
        stripped = line.strip()
        if not stripped or _RULE.match(stripped) or _SECTION.match(stripped):
            level = item = None
            continue
        indent = len(line) - len(line.lstrip())
        definition = _DEFINITION.match(stripped)
        if definition or _ITEM.match(stripped):
            joined.append(stripped)
            # `name : type` is followed by its own paragraph, `name (type): text` goes on.
            level, item = None, None if definition and definition[2] else indent
        elif level == indent or (item is not None and indent > item):
            joined[-1] += " " + stripped
        else:
            joined.append(stripped)
            level, item = indent, None
    plain = (_inline(paragraph) for paragraph in joined)
    return [paragraph for paragraph in plain if is_prose(paragraph)]


def is_prose(line: str) -> bool:
    """Whether a line reads as English: four words or more, mostly letters, nearly all ASCII, no TeX."""
    if line.count(" ") < 3 or line.count("\\") > 1:
        return False
    non_ascii = 0 if line.isascii() else sum(not character.isascii() for character in line)
    if non_ascii > MAX_NON_ASCII_SHARE * len(line):
        return False
    return len(line.translate(_NO_PROSE_CHARACTER)) <= MAX_OTHER_SHARE * len(line)


def _without_code(lines: list[str]) -> Iterator[str]:
    """The lines outside doctests, fences, literal blocks and dropped directives."""
    in_fence = in_doctest = False
    block_indent: int | None = None  # inside a block to drop: everything deeper than this
    for line in lines:
        stripped = line.strip()
        indent = len(line) - len(line.lstrip())
        if _FENCE.match(stripped):
            in_fence = not in_fence
            yield ""
            continue
        if in_fence:
            continue
        if block_indent is not None:
            if not stripped or indent > block_indent:
                continue
            block_indent = None
        if in_doctest or _PROMPT.match(stripped):
            in_doctest = bool(stripped)
            if not in_doctest:
                yield ""
            continue
        if directive := _DIRECTIVE.match(stripped):
            yield ""
            if directive[1] in _ADMONITIONS:
                yield " " * indent + directive[2]
            else:
                block_indent = indent
            continue
        if _TARGET.match(stripped):
            continue
        line = " " * indent + _CITATION.sub("", stripped)
        if stripped.endswith("::"):
            block_indent = indent
            line = line[:-1]
        yield line


def _inline(line: str) -> str:
    for needle, pattern, replacement in _INLINE:
        if needle in line:
            line = pattern.sub(replacement, line)
    return line.strip()
