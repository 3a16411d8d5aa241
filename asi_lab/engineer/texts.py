"""The text that an expression makes, as far as its source tells."""

from __future__ import annotations

import ast
import re
from itertools import chain

from asi_lab.engineer.names import COMMON_SPECIAL, FORBIDDEN_NAMES

_SPECIFIER = re.compile(r"%[^%a-zA-Z]*[a-zA-Z]")
_FIELD = re.compile(r"\{[^{}]*\}")
_NAME_IN_FIELD = re.compile(r"[.\[]\s*(\w+)")


def fields(text: str) -> list[tuple[str, str]]:
    """The attributes and keys in the fields of a format such as "{0.name}", each with its field."""
    return [(name, field) for field in _FIELD.findall(text) for name in _NAME_IN_FIELD.findall(field)]


def constant(node: ast.expr) -> str | None:
    """The text that an expression always is; None where it may differ."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.BinOp(left=one, op=ast.Add(), right=other):
            first, second = constant(one), constant(other)
            return None if first is None or second is None else first + second
        case ast.JoinedStr(values=parts):
            texts = [constant(part) for part in parts]
            return None if None in texts else "".join(filter(None, texts))
    return None


def _pattern(node: ast.expr) -> str:
    """A regular expression for what text an expression may be."""
    match node:
        case ast.Constant(value=str(text)):
            return re.escape(text)
        case ast.JoinedStr(values=parts):
            return "".join(map(_pattern, parts))
        case ast.BinOp(left=one, op=ast.Add(), right=other):
            return _pattern(one) + _pattern(other)
        case ast.BinOp(left=ast.Constant(value=str(text)), op=ast.Mod()):
            return ".*".join(map(re.escape, _SPECIFIER.split(text)))
        case ast.Call(func=ast.Attribute(value=ast.Constant(value=str(text)), attr="format")):
            return ".*".join(map(re.escape, _FIELD.split(text)))
    return ".*"


def may_be_forbidden(key: ast.expr, is_self: bool) -> bool:
    """Whether a name that is made at run time may be one of those out of bounds. On `self` it may be anything
    that does not begin as Python's own names do."""
    pattern = re.sub(r"(\.\*)+", ".*", _pattern(key))
    if is_self:
        return pattern.startswith("__")
    names = [*COMMON_SPECIAL, *chain.from_iterable(FORBIDDEN_NAMES.values())]
    return any(re.fullmatch(pattern, name) for name in names)
