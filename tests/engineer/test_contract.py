"""Static checks of candidate source."""

import pytest

from asi_lab.engineer.contract import check_source
from asi_lab.references import source

GOOD = source("delta_net")


def verdict(code: str) -> tuple[str, str]:
    failed = [check for check in check_source(code) if not check.passed]
    return (failed[0].name, failed[0].detail) if failed else ("", "")


@pytest.mark.parametrize("name", ["delta_net", "gated_delta_net"])
def test_references_pass(name):
    checks = check_source(source(name))
    assert [check.name for check in checks] == ["syntax", "imports", "class", "__init__", "forward"]
    assert all(check.passed for check in checks)


@pytest.mark.parametrize(
    ("code", "name", "detail"),
    [
        ("def broken(:\n", "syntax", "line 1"),
        ("x = '\x00'", "syntax", "null"),
        ("import os\n" + GOOD, "imports", "line 1: import of os"),
        ("from torchvision import x\n" + GOOD, "imports", "torchvision"),
        ("from . import trainer\n" + GOOD, "imports", "import of ."),
        ("def f():\n    import subprocess\n" + GOOD, "imports", "line 2"),
        (GOOD.replace("class DeltaNet", "class Mine"), "class", "DeltaNet"),
        (GOOD.replace("def forward", "def forwards"), "forward", "does not define forward"),
        (GOOD.replace("layer_idx", "layer_index"), "__init__", "missing argument layer_idx"),
        ("#" * 300_000, "size", "at most"),
        ("(" * 5000, "syntax", ""),
    ],
)
def test_faults_are_named_with_their_line(code, name, detail):
    found, said = verdict(code)
    assert found == name
    assert detail in said
