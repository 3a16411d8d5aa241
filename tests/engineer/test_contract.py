"""Static checks of candidate source."""

import pytest

from asi_lab.engineer.contract import check_source
from asi_lab.scoring.references import source

GOOD = source("delta_net")


def verdict(code: str) -> tuple[str, str]:
    failed = [check for check in check_source(code) if not check.passed]
    return (failed[0].name, failed[0].detail) if failed else ("", "")


@pytest.mark.parametrize("name", ["delta_net", "gated_delta_net"])
def test_references_pass(name):
    checks = check_source(source(name))
    names = ["syntax", "imports", "names", "patching", "class", "__init__", "forward"]
    assert [check.name for check in checks] == names
    assert all(check.passed for check in checks)


FAULTS = [
    ("def broken(:\n", "syntax", "line 1"),
    ("x = '\x00'", "syntax", "NUL"),
    ("import os\n" + GOOD, "imports", "line 1: import of os"),
    ("from torchvision import x\n" + GOOD, "imports", "torchvision"),
    ("from . import trainer\n" + GOOD, "imports", "import of ."),
    ("def f():\n    import subprocess\n" + GOOD, "imports", "line 2"),
    ("import asi_lab\n" + GOOD, "imports", "import of asi_lab;"),
    ("from torch import *\n" + GOOD, "imports", "name what is used"),
    ("from torch import os\n" + GOOD, "imports", "import of torch.os is out of bounds: it reaches the int"),
    ("import torch.multiprocessing as mp\n" + GOOD, "imports", "reaches processes and networks"),
    (GOOD + "text = open('x').read()\n", "names", "open is out of bounds"),
    (GOOD + "torch.os.system('x')\n", "names", "torch.os.system is out of bounds: it reaches the interp"),
    (GOOD + "w = torch.load('x')\n", "names", "torch.load is out of bounds: it reaches files"),
    (GOOD + "torch.manual_seed(0)\n", "names", "settings of the whole process"),
    (GOOD + "().__class__.__subclasses__()\n", "names", "__subclasses__ is out of bounds"),
    (GOOD + "getattr(nn, '__dict__')\n", "names", "getattr of __dict__"),
    (GOOD + "import asi_lab.kernels\nasi_lab.trial.train.trainer\n", "names", "the lab's own code"),
    (GOOD + "nn.functional.cross_entropy = None\n", "patching", "assignment to torch.nn.functional"),
    (GOOD + "nn.Linear.forward = None\n", "patching", "assignment to torch.nn.Linear"),
    (GOOD + "setattr(nn.Linear, 'forward', None)\n", "patching", "setattr on torch.nn.Linear"),
    (GOOD + "del torch.nn\n", "patching", "assignment to torch.nn"),
    (
        GOOD.replace("class DeltaNet", "class Mine"),
        "class",
        "class DeltaNet; found Mine",
    ),
    (GOOD.replace("def forward", "def forwards"), "forward", "does not define forward"),
    (GOOD.replace("layer_idx", "layer_index"), "__init__", "missing argument layer_idx"),
    ("#" * 300_000, "size", "at most"),
    ("(" * 5000, "syntax", "5,000 characters"),
    ("x = (\n" + "-\n" * 50_000 + "1)", "syntax", "nested deeper than 100 levels"),
    ("if x:\n    pass\n" + "elif x:\n    pass\n" * 9_000, "syntax", "nested deeper"),
]


@pytest.mark.parametrize(
    ("code", "name", "detail"), FAULTS, ids=[f"{name}: {detail}" for _, name, detail in FAULTS]
)
def test_faults_are_named_with_their_line(code, name, detail):
    found, said = verdict(code)
    assert found == name
    assert detail in said


def test_a_name_of_its_own_is_no_builtin():
    own = GOOD + "\n\ndef reads(open, vars):\n    return open, vars\n"
    assert verdict(own) == ("", "")


@pytest.mark.parametrize("code", ["def f(:\n", "import os\n" + GOOD, GOOD + "x = open('x')\n"])
def test_the_line_is_given_as_a_number_too(code):
    (failed,) = [check for check in check_source(code) if not check.passed]
    assert failed.line is not None
    assert f"line {failed.line}:" in failed.detail
