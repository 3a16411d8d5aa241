"""Source code: what counts as its text, its syntax tree, its program, and what is left without prose.

One text is read by people, by the lint and by Python. So a file is UTF-8, whatever it says of itself, and
holds nothing that is shown otherwise than it is read: no control or bidirectional characters, no line ends
that only some programs know, no names in letters that look like others (PEP 672).
"""

from __future__ import annotations

import ast
import hashlib
import io
import re
import threading
import tokenize
import unicodedata
from types import CodeType
from typing import Any

_parsing = threading.Lock()
"""Python 3.11 counts the depth of all trees that are being made together: with two threads at it, it raises
SystemError at times (CPython issue 106905)."""

LONGEST_LINE, LONGEST_BLANK = 1000, 100
"""Characters in a line, and blanks in a row: beyond them code stands where nobody looks."""
DEEPEST = 100
"""Levels of a syntax tree; everything that walks one needs a few calls for each."""

_UNSEEN = re.compile(
    "\r(?!\n)|[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029]"  # control characters, other line ends
    "|[\xad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u180e\u200b\u200c\u200e\u200f\u202a-\u202e"
    "\u2060-\u206f\ufeff\ufff0-\ufffb\U000110bd\U000110cd\U00013430-\U0001345f\U0001bca0-\U0001bca3"
    "\U0001d173-\U0001d17a]"  # format characters, but for the joiner of emojis
    "|[\ufe00-\ufe0e\U000e0000-\U000e0fff]"  # variations, but for that of emojis; tags
    "|[\ud800-\udfff]"
)
_CALLED = {"\0": "NUL", "\f": "form feed", "\r": "carriage return", "\x1b": "escape"}
_COOKIE = re.compile(r"[ \t\f]*#.*?coding[:=][ \t]*([-\w.]+)")
_UTF8 = re.compile(r"utf[-_]?8([-_].*)?", re.IGNORECASE)

_NAME_LETTERS = "À-ÖØ-öø-ÿα-ξπ-ωΓΔΘΛΞΠΣΦΨΩ"
_STRANGE = re.compile(f"[^\0-\x7f{_NAME_LETTERS}]|[A-Za-z][ινρυχ]|[ινρυχ][A-Za-z]")
_LITERALS = ("COMMENT", "STRING", "FSTRING_MIDDLE")
_FORMATTED = re.compile(r"[rR]?[fF]")
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")

Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def decoded(data: bytes) -> str:
    """The text of a source file. Raises SyntaxError, with the line, where it is no UTF-8."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _fault(
            line, f"the byte 0x{data[error.start]:02X} is no UTF-8: save the file as UTF-8"
        ) from None


def parsed(code: str) -> ast.Module:
    """The syntax tree of source code, from any thread. Raises SyntaxError where it is no code, is nested too
    deeply, or is shown otherwise than it is read."""
    _check_text(code)
    tree: ast.Module = _tree(code, "exec")
    if not code.isascii():
        _check_names(code)
    return tree


def expression(code: str) -> ast.expr | None:
    """The syntax tree of one expression, from any thread; None where it is none."""
    try:
        body: ast.expr = _tree(code, "eval").body
        return body
    except (SyntaxError, ValueError):  # no text of a whole file: it may hold characters that no file does
        return None


def program(code: str, path: str) -> CodeType:
    """Source code made ready to be executed: the very text that `parsed` reads. Raises as `parsed` does."""
    parsed(code)
    code_object: CodeType = compile(code, path, "exec", dont_inherit=True)
    return code_object


def drop_docstrings(tree: ast.AST) -> None:
    """Remove the docstrings of a syntax tree in place."""
    for node in ast.walk(tree):
        if isinstance(node, Documented) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]


def without_prose(code: str) -> str:
    """The code without docstrings and comments, which may praise it. Raises as `parsed` does."""
    tree = parsed(code)
    drop_docstrings(tree)
    return ast.unparse(ast.fix_missing_locations(tree))


def _fault(line: int, words: str) -> SyntaxError:
    return SyntaxError(words, ("architecture.py", line, None, None))


def _check_text(code: str) -> None:
    """Raise SyntaxError where the text hides something from a reader or says that it is no UTF-8."""
    if code.startswith("\ufeff"):
        raise _fault(1, "the file begins with a byte order mark: save it as UTF-8 without one")
    if unseen := _UNSEEN.search(code):
        character = unseen[0]
        name = _CALLED.get(character) or unicodedata.name(character, "a character without a name")
        words = f"U+{ord(character):04X} ({name}) is not shown as it is read: remove it, or write an escape"
        raise _fault(code.count("\n", 0, unseen.start()) + 1, words)
    lines = code.split("\n")
    for number, line in enumerate(lines, start=1):
        if len(line) > LONGEST_LINE:
            words = f"the line has {len(line):,} characters; expected at most {LONGEST_LINE:,}: break it"
            raise _fault(number, words)
        if " " * LONGEST_BLANK in line.expandtabs():
            raise _fault(number, f"{LONGEST_BLANK} blanks in a row move code out of sight: remove them")
    for number, line in enumerate(lines[:2], start=1):
        cookie = _COOKIE.match(line)
        if cookie and not _UTF8.fullmatch(cookie[1]):
            words = f"the comment names the encoding {cookie[1]}; every file is UTF-8: remove or reword it"
            raise _fault(number, words)
        if line.strip() and not line.lstrip().startswith("#"):
            break


def _tree(code: str, mode: str) -> Any:
    too_deep = f"the code is nested deeper than {DEEPEST} levels: use steps with names of their own"
    try:
        with _parsing:
            tree = ast.parse(code, mode=mode)
    except (RecursionError, MemoryError):  # the parser's own stack is full
        raise _fault(1, too_deep) from None
    level: list[ast.AST] = [tree]
    for _ in range(DEEPEST):
        level = [child for node in level for child in ast.iter_child_nodes(node)]
        if not level:
            return tree
    raise _fault(next((node.lineno for node in level if isinstance(node, ast.expr | ast.stmt)), 1), too_deep)


def _check_names(code: str) -> None:
    """Raise SyntaxError where a name is spelled in letters that Python reads as others, or people do."""
    for token in tokenize.generate_tokens(io.StringIO(code).readline):
        words = [token.string]
        if tokenize.tok_name[token.type] in _LITERALS:
            words = _fields(token.string) if _FORMATTED.match(token.string) else []
        for word in words:
            if strange := _STRANGE.search(word):
                shown = " ".join(f"U+{ord(letter):04X}" for letter in strange[0] if not letter.isascii())
                told = f"the name {word.strip()[:40]} has letters that can be mistaken ({shown})"
                raise _fault(token.start[0], f"{told}: write it in ASCII, or Greek letters alone such as β")


def _fields(literal: str) -> list[str]:
    """The words in the braces of an f-string, which before Python 3.12 is one token."""
    inside = re.findall(r"\{([^{}]*)", literal.replace("{{", "").replace("}}", ""))
    return [word for field in inside for word in re.findall(r"\w+", _QUOTED.sub("", field))]


def code_hash(code: str) -> str:
    """Hash of what the code does: comments, docstrings, formatting and local names left out.

    Names that the contract or other modules fix (attributes, keyword arguments, imported names) stay.
    Code that does not parse is hashed as text.
    """
    try:
        tree = parsed(code)
    except (SyntaxError, ValueError, RecursionError):
        return hashlib.sha256(code.encode("utf-8", "replace")).hexdigest()[:24]
    drop_docstrings(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            _rename_locals(node)
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()[:24]


def _rename_locals(function: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
    """Number the names that a function assigns, in the order of their first assignment."""
    numbers: dict[str, str] = {}
    for node in ast.walk(function):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            numbers.setdefault(node.id, f"_{len(numbers)}")
    for node in ast.walk(function):
        if isinstance(node, ast.Name) and node.id in numbers:
            node.id = numbers[node.id]
