"""Loading a candidate: the text that was checked is the code that runs, and is what Python shows of it."""

from __future__ import annotations

import inspect
import py_compile
import traceback
from pathlib import Path

import pytest

from asi_lab.engineer.contract import check_source
from asi_lab.trial.model import load_architecture

LAYER = '''from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass
class Options:
    width: int = 3
    kind: ClassVar[str] = "ä → β"


class DeltaNet:
    """The layer."""

    def forward(self) -> int:
        raise ValueError(Options())
'''


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "architecture.py"


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_sources_and_lines_are_those_of_the_file_whatever_becomes_of_it(path, end):
    path.write_bytes(LAYER.replace("\n", end).encode())
    layer = load_architecture(path)
    path.write_text("something else\n" * 40)
    shown = inspect.getsource(layer).replace("\r\n", "\n")
    assert shown == LAYER[LAYER.index("class DeltaNet") :]
    with pytest.raises(ValueError, match="width=3") as raised:
        layer().forward()
    (_, frame) = traceback.extract_tb(raised.value.__traceback__)
    assert (frame.filename, frame.lineno) == (str(path), 17)
    assert frame.line == "raise ValueError(Options())"


def test_two_architectures_do_not_get_in_each_others_way(tmp_path):
    layers = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "architecture.py").write_text(f"class DeltaNet:\n    mark = {name!r}\n")
        layers.append(load_architecture(tmp_path / name / "architecture.py"))
    assert [layer.mark for layer in layers] == ["first", "second"]
    assert "'first'" in inspect.getsource(layers[0])


def test_compiled_code_beside_the_file_is_neither_used_nor_left(path):
    path.write_text("class DeltaNet:\n    mark = 'planted'\n")
    py_compile.compile(str(path), invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    path.write_text("class DeltaNet:\n    mark = 'shown'\n")
    assert load_architecture(path).mark == "shown"
    assert len(list(path.parent.rglob("*.pyc"))) == 1


REFUSED = {
    "cookie": b"# -*- coding: raw_unicode_escape -*-\n#\\u000amark = 1\nclass DeltaNet: pass\n",
    "utf-7": b"# coding: utf-7\n+AHgAPQAx-\nclass DeltaNet: pass\n",
    "byte order mark": b"\xef\xbb\xbfclass DeltaNet: pass\n",
    "no UTF-8": b"class DeltaNet:\n    mark = '\xe9'\n",
    "surrogate": b"class DeltaNet:\n    mark = '\xed\xa0\x80'\n",
    "NUL": b"class DeltaNet: pass\n\0",
    "carriage return": b"# a comment\rmark = 1\nclass DeltaNet: pass\n",
}


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED)
def test_what_is_no_text_is_not_executed(path, data):
    path.write_bytes(data)
    with pytest.raises(SyntaxError):
        load_architecture(path)
    text = data.decode("utf-8", "surrogateescape")
    assert [check.name for check in check_source(text) if not check.passed] == ["syntax"]
