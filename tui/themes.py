"""Colours beside those that come with Textual: for those who cannot tell red from green.

Panes name their colours as terminals do (green, red, yellow ...); a theme says what these look like. The
palette is that of Okabe and Ito (2008).
"""

from __future__ import annotations

from rich.terminal_theme import TerminalTheme
from textual.theme import Theme

MONOCHROME = "ansi-dark"

_BLUE, _SKY, _GREEN, _YELLOW, _ORANGE, _VERMILLION, _PURPLE = (
    *((0, 114, 178), (86, 180, 233), (0, 158, 115), (240, 228, 66)),
    *((230, 159, 0), (213, 94, 0), (204, 121, 167)),
)
_BLACK, _WHITE, _GREY = (18, 18, 18), (230, 230, 230), (140, 140, 140)


Colour = tuple[int, int, int]


def _hex(colour: Colour) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)


def _terminal(ground: Colour, ink: Colour, good: Colour) -> TerminalTheme:
    """Sixteen colours in which good and bad differ by blue and orange."""
    eight = [_BLACK, _VERMILLION, good, _ORANGE, _BLUE, _PURPLE, _GREEN, _WHITE]
    return TerminalTheme(
        ground, ink, eight, [_GREY, _VERMILLION, good, _YELLOW, _SKY, _PURPLE, _GREEN, _WHITE]
    )


OWN = (
    Theme(
        name="colour-blind",
        primary=_hex(_BLUE),
        secondary=_hex(_SKY),
        success=_hex(_SKY),
        warning=_hex(_ORANGE),
        error=_hex(_VERMILLION),
        accent=_hex(_YELLOW),
        background=_hex(_BLACK),
        dark=True,
    ),
    Theme(
        name="colour-blind-light",
        primary=_hex(_BLUE),
        secondary=_hex(_SKY),
        success=_hex(_BLUE),
        warning=_hex(_ORANGE),
        error=_hex(_VERMILLION),
        accent=_hex(_PURPLE),
        background="#fafafa",
        dark=False,
    ),
)

TERMINALS = {
    "colour-blind": _terminal(_BLACK, _WHITE, _SKY),
    "colour-blind-light": _terminal((250, 250, 250), _BLACK, _BLUE),
}
"""What the named colours look like under themes that do not leave that to Textual."""


def terminals(theme: Theme, dark: TerminalTheme, light: TerminalTheme) -> tuple[TerminalTheme, TerminalTheme]:
    """What the named colours look like under a theme, dark and light; `dark` and `light` are the usual
    ones."""
    own = TERMINALS.get(theme.name)
    return own or dark, own or light
