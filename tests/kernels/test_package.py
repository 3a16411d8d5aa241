"""What the package is to the outside."""

import os
import subprocess
import sys

import pytest
import torch

from asi_lab import kernels
from asi_lab.kernels.common import unit_lower_inverse


def run_python(code: str, cwd: object) -> str:
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONSTARTUP")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=str(cwd),
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout.strip()


def test_the_bare_name_kernels_is_not_ours(tmp_path):
    code = """
import importlib.util
spec = importlib.util.find_spec("kernels")
places = [] if spec is None else [spec.origin or "", *(spec.submodule_search_locations or ())]
import asi_lab, pathlib
root = pathlib.Path(asi_lab.__file__).resolve().parent.parent
print(any(root == p or root in p.parents for p in (pathlib.Path(x).resolve() for x in places if x)
          if "site-packages" not in p.parts))
"""
    assert run_python(code, tmp_path) == "False"


def test_import_brings_torch_and_nothing_else_of_ours(tmp_path):
    code = """
import sys, asi_lab.kernels
print(sorted(m for m in sys.modules if m.split(".")[0] in ("fla", "triton", "einops") or (
    m.startswith("asi_lab.") and not m.startswith("asi_lab.kernels"))))
"""
    assert run_python(code, tmp_path) == "[]"


def test_all_names_are_there():
    assert all(callable(getattr(kernels, name)) for name in kernels.__all__)


@pytest.mark.parametrize("size", [1, 4, 8, 32, 64])
def test_unit_lower_inverse(size):
    a = torch.randn(5, size, size).double().tril(-1) / size**0.5
    eye = torch.eye(size).double()
    torch.testing.assert_close(unit_lower_inverse(a) @ (eye + a), eye.expand(5, -1, -1))
