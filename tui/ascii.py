"""Draws with ASCII alone, for terminals and fonts that have nothing else."""

from __future__ import annotations

import sys
import unicodedata
from functools import lru_cache

from rich.cells import cell_len
from rich.segment import Segment
from textual.color import Color
from textual.filter import LineFilter

_SIGNS = {
    **dict.fromkeys("─━═╌╍┄┅┈┉▔▁▂▃▂╸╺╴╶‾–—", "-"),
    **dict.fromkeys("│┃║╎╏┆┇┊┋▎▏▌▊▐▕", "|"),
    **dict.fromkeys("█▉▇▆▅▄▓▀▙▛▜▟▋", "#"),
    **dict.fromkeys("▒▖▗▘▝▚▞▍", ":"),
    **dict.fromkeys("░·∙•", "."),
    "●": "*",
    "★": "*",
    "✗": "x",
    "×": "x",
    "◌": "o",
    "▶": ">",
    "→": ">",
    "⏸": "=",
    "■": "#",
    "◆": "+",
    "←": "<",
    "↑": "^",
    "↓": "v",
    "…": "~",
    "±": "~",
    "▼": "v",
    "▲": "^",
    "“": '"',
    "”": '"',
    "’": "'",
}
_BRAILLE = range(0x2800, 0x2900)


class Ascii(LineFilter):
    """Replaces every sign beyond ASCII by one that is as wide."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        """The same line in ASCII."""
        return [
            segment
            if segment.text.isascii()
            else Segment(drawn(segment.text), segment.style, segment.control)
            for segment in segments
        ]


def is_needed() -> bool:
    """Whether the terminal's encoding has no more than ASCII."""
    try:
        "─●⠿".encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return True
    return False


def drawn(text: str) -> str:
    """The text in ASCII, as wide as before."""
    return "".join(map(_sign, text))


@lru_cache(maxsize=4096)
def _sign(sign: str) -> str:
    if sign.isascii():
        return sign
    if sign in _SIGNS:
        return _SIGNS[sign]
    if ord(sign) in _BRAILLE:  # the more dots, the darker
        return " .::*####"[(ord(sign) - _BRAILLE.start).bit_count()]
    if "BOX DRAWINGS" in unicodedata.name(sign, ""):
        return "+"
    plain = "".join(part for part in unicodedata.normalize("NFKD", sign) if part.isascii())
    width = cell_len(sign)
    return plain if len(plain) == width else "?" * width
