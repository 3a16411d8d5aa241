"""Source code as text and as a tree, and without prose."""

from __future__ import annotations

import threading
import unicodedata

import pytest

from asi_lab.common.syntax import decoded, expression, parsed, without_prose
from asi_lab.scoring import references


def test_prose_is_left_out():
    assert without_prose('"""Great."""\ndef f():\n    """The best."""  # ever\n') == "def f():\n    pass"


def refused(code: str) -> tuple[int | None, str]:
    with pytest.raises(SyntaxError) as raised:
        parsed(code)
    return raised.value.lineno, str(raised.value.msg)


SHOWN_OTHERWISE = [
    ("\ufeffx = 1\n", 1, "begins with a byte order mark"),
    ("x = 1\ny = '\0'\n", 2, "U+0000 (NUL)"),
    ("x = 1\n\fy = 2\n", 2, "U+000C (form feed)"),
    ("x = 1  # one\ry = 2\n", 1, "U+000D (carriage return)"),
    ("x = 1\n# \u2028y = 2\n", 2, "U+2028 (LINE SEPARATOR)"),
    ("x = 1\n# \x85y = 2\n", 2, "U+0085"),
    ("x = '\x1b[2K'\n", 1, "U+001B (escape)"),
    ("x = 'a\u202eb'\n", 1, "U+202E (RIGHT-TO-LEFT OVERRIDE)"),
    ("x = 'a\u200bb'\n", 1, "U+200B (ZERO WIDTH SPACE)"),
    ("x = 'a\U000e0041'\n", 1, "U+E0041"),
    ("x = '\ud800'\n", 1, "U+D800"),
    ("\n\nx = 1" + " " * 990 + "; y = 2\n", 3, "1,002 characters"),
    ("x = 1" + " " * 120 + "; y = 2\n", 1, "100 blanks"),
    ("x = 1" + "\t" * 14 + "; y = 2\n", 1, "100 blanks"),
    ("# -*- coding: latin-1 -*-\n", 1, "names the encoding latin-1"),
    ("#!/usr/bin/python\n# vim: set fileencoding=utf-7 :\n", 2, "names the encoding utf-7"),
    ("x = 1\ntоrch = 2\n", 2, "the name tоrch has letters that can be mistaken (U+043E)"),
    ("def ｅval(): pass\n", 1, "(U+FF45)"),
    ("x.oſ\n", 1, "(U+017F)"),
    ("x = f'{y.ｏｓ:>{ｎ}}'\n", 1, "(U+FF4F)"),
    ("tοrch = 1\n", 1, "(U+03BF)"),
    ("νalue = 1\n", 1, "(U+03BD)"),
    ("x̂ = 1\n", 1, "(U+0302)"),
    ("x = " + "[" * 60 + "\n" + "[" * 60 + "]" * 120 + "\n", 2, "nested deeper than 100 levels"),
    ("x = (" + "\n+ 1" * 3_000 + ")\n", 1, "nested deeper than 100 levels"),
    ("x = (" + "\n-" * 60_000 + "1)\n", 1, "nested deeper than 100 levels"),
]


@pytest.mark.parametrize(
    ("code", "line", "words"), SHOWN_OTHERWISE, ids=[words for *_, words in SHOWN_OTHERWISE]
)
def test_text_that_is_shown_otherwise_than_it_is_read_is_refused(code, line, words):
    found, told = refused(code)
    assert found == line
    assert words in told


@pytest.mark.parametrize(
    "code",
    [
        "x = 1\r\ny = '''two\r\nlines'''\r\n",
        "# -*- coding: utf-8 -*-\n# vim: set fileencoding=UTF8 :\n",
        "x = 1\n# Positional encoding: rotary\n",
        '"""Docs.\n# coding: latin-1\n"""\n',
        "# ⚠️ 👩\u200d🔬 → x̂ ∈ ℝ, “naïve” – 尺寸, тест\nx = 'ｏｓ тест 𝐱'\n",
        "α, β_1, dβ, Δt, μ, größe = 1, 2, 3, 4, 5, 6\n",
        "x = f'größe → 尺寸 {α:·^10} {\"→\".join(y)} {{ｏｓ}}'\n",
        "x = '" + "a" * 900 + "'\n",
    ],
)
def test_text_in_every_language_passes(code):
    assert parsed(code).body or code.startswith("#")


def test_every_character_that_is_not_shown_is_refused():
    """But for tabs, ends of lines and the joiner of emojis."""
    unseen = [chr(n) for n in range(0x110000) if unicodedata.category(chr(n)) in ("Cc", "Cf", "Zl", "Zp")]
    for character in set(unseen) - set("\t\n\u200d"):
        assert f"U+{ord(character):04X}" in refused(f"x = '{character}'\n")[1]


def test_bytes_are_read_as_utf_8_alone():
    assert decoded("x = 'é'\n".encode()) == "x = 'é'\n"
    with pytest.raises(SyntaxError, match="the byte 0xE9 is no UTF-8") as raised:
        decoded(b"x = 1\ny = '\xe9'\n")
    assert raised.value.lineno == 2


def test_an_expression_is_read_alone():
    assert expression("a.b") is not None
    assert [expression(text) for text in ("b l d", "\0", "-\n" * 60_000, "(" + "-" * 60_000 + "1)")] == [
        None
    ] * 4


def test_many_threads_may_parse_at_once():
    code, faults = references.source("delta_net"), []

    def work() -> None:
        try:
            for _ in range(30):
                parsed(code)
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
