"""Text written by a language model or a candidate is made harmless before it is shown."""

from __future__ import annotations

import re
import unicodedata

CUT = "[cut]"
"""Stands where text was left out for want of room."""

_ESCAPES = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*[0-~])"  # CSI, OSC and kin, short
    r"|\x9b[0-?]*[ -/]*[@-~]"  # the one-byte form of CSI
)
_BREAKS = re.compile("\r\n|[\r\v\f\x85\u2028\u2029]")
_BLANKS = str.maketrans("\n\t", "  ")
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def plain(text: str, *, multiline: bool = False, limit: int | None = None) -> str:
    """Return `text` without terminal escapes, control, bidirectional and invisible characters.

    One line with single blanks unless `multiline`, which keeps line breaks and tabs. A text longer
    than `limit` characters ends in three dots.
    """
    if limit is not None:
        text = text[: 8 * limit + 1024]  # bounds the work on hostile lengths before any scan
    text = _BREAKS.sub("\n", _ESCAPES.sub("", text))
    if text.isascii() and text.isprintable():
        shown = text
    else:
        shown = "".join(c for c in text if c in "\n\t" or unicodedata.category(c) not in _HIDDEN)
    if not multiline:
        shown = " ".join(shown.split())
    if limit is not None and len(shown) > limit:
        shown = shown[: max(limit - 3, 0)].rstrip() + "..."
    return shown


def one_line(text: str) -> str:
    """Return `text` as `plain` does, on one line with its blanks as they are: an indent, columns, a path."""
    return plain(text, multiline=True).translate(_BLANKS)
