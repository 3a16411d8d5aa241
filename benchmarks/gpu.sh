#!/usr/bin/env bash
# Kernels and training steps on this machine's GPU, as markdown tables; under 10 minutes on an H100.
#
#     benchmarks/gpu.sh [-o FILE] [--minutes 9.5] [--only TEXT] [--device cpu --tiny]
#
# Exit status: 0; 1 if a figure could not be measured or is wrong; 2 if the machine lacks something.
set -euo pipefail

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
python=$root/.venv/bin/python
[[ -x $python ]] || python=python3
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
unset TRITON_INTERPRET

missing() {
    printf 'gpu.sh: %s\n' "$@" >&2
    exit 2
}

command -v "$python" >/dev/null || missing "there is neither .venv/bin/python nor python3; run make first"
if [[ " $* " != *" --device cpu "* && " $* " != *" --device=cpu "* && " $* " != *" -h"* && " $* " != *" --help"* ]]; then
    command -v nvidia-smi >/dev/null || missing "no nvidia-smi: the NVIDIA driver is not installed here"
    nvidia-smi -L | grep -q GPU || missing "nvidia-smi finds no GPU"
    "$python" - <<'PYTHON' || exit 2
import importlib.util
import sys

lacking = [name for name in ("torch", "triton", "fla", "msgspec") if importlib.util.find_spec(name) is None]
if lacking:
    sys.exit(f"gpu.sh: {sys.executable} lacks {', '.join(lacking)}; run make in the root of the repository")
import torch

if not torch.cuda.is_available():
    sys.exit(
        f"gpu.sh: torch {torch.__version__} (CUDA {torch.version.cuda}) cannot use the GPU; "
        "it needs a build with CUDA that the driver can run"
    )
PYTHON
fi
exec "$python" "$root/benchmarks/gpu.py" "$@"
