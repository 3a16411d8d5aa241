"""Compile Triton kernels for GPUs that are not there, as they would be launched."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

COMPILER = '''
"""Compiles what would be launched, for GPUs that need not be there."""
import json, pathlib, re, subprocess, tempfile
import torch, triton
from triton._C.libtriton import native_specialize_impl
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import CUDABackend
from triton.runtime.jit import JITFunction

CUOBJDUMP = pathlib.Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
compiled = []

def leaves(kind, spec, value, path):
    """Type, specialisation, value and place of an argument and all parts of it."""
    if isinstance(kind, tuple):
        for i, part in enumerate(zip(kind, spec, value)):
            yield from leaves(*part, (*path, i))
    else:
        yield kind, spec, value, path

def compile_instead(self, *args, grid, warmup, num_warps=4, **kwargs):
    signature, constants, attributes = {}, {}, {}
    for i, (name, value) in enumerate(self.signature.bind(*args, **kwargs).arguments.items()):
        if self.params[i].is_constexpr:
            signature[name], constants[i,] = "constexpr", value
            continue
        kind, spec = native_specialize_impl(CUDABackend, value, False, True, True)
        signature[name] = kind
        for kind, spec, value, path in leaves(kind, spec, value, (i,)):
            if kind == "constexpr":
                constants[path] = value
            elif spec == "D":
                attributes[path] = [["tt.divisibility", 16]]
    source = triton.compiler.ASTSource(self, signature, constants, attributes)
    for sm in (80, 90):
        kernel = triton.compile(source, target=GPUTarget("cuda", sm, 32), options={"num_warps": num_warps})
        with tempfile.NamedTemporaryFile(suffix=".cubin") as cubin:
            cubin.write(kernel.asm["cubin"])
            cubin.flush()
            usage = subprocess.run([CUOBJDUMP, "-res-usage", cubin.name], capture_output=True, text=True)
        numbers = {name.lower(): int(x) for name, x in re.findall(r"(REG|STACK):(\\d+)", usage.stdout)}
        wide = len(re.findall(r"ld\\.global\\S*\\.v4\\.b32", kernel.asm["ptx"]))
        compiled.append(
            {"kernel": self.fn.__name__, "sm": sm, "shared": kernel.metadata.shared, "wide": wide, **numbers}
        )

JITFunction.run = compile_instead
'''


def compile_for_gpus(code: str, tmp_path: Path) -> list[dict[str, Any]]:
    """Name, shared memory, registers, stack and wide loads of all kernels that `code` would launch, for
    both sm_80 and sm_90. Nothing is run, so results are garbage."""
    environment = {name: x for name, x in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", COMPILER + code + "\nprint(json.dumps(compiled))"],
        env=environment | {"TRITON_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    kernels: list[dict[str, Any]] = json.loads(done.stdout)
    return kernels
