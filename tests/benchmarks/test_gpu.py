"""benchmarks/gpu.py: its whole logic on a CPU, and what it shows when a measurement goes wrong."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import gpu

MODEL = {
    "parameters": 405.0,
    "tokens": 16384,
    "milliseconds": 90.0,
    "rate": 182044.0,
    "teraflops": 442.0,
    "share": 0.55,
    "megabytes": 20000.0,
}
SCRIPT = Path(gpu.__file__).with_suffix(".sh")


@pytest.mark.slow
def test_tiny_on_a_cpu_fills_all_tables(tmp_path):
    output = tmp_path / "gpu.md"
    done = subprocess.run(
        [SCRIPT, "--device", "cpu", "--tiny", "-o", output], capture_output=True, text=True, timeout=200
    )
    text = output.read_text()
    assert done.returncode == 0, text + done.stderr
    assert done.stdout == text
    assert "torch 2" in text
    assert "--tiny" in text
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    for name, operation in gpu.OPERATIONS.items():
        assert sum(f"| {name} |" in row for row in rows) == 2 + operation.timed, name  # of errors, of times
    assert any(row.startswith("| micro | ours |") for row in rows)
    assert not any(mark in text for mark in ("error |", "? |", "nan", "**"))


@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="there is a driver")
def test_without_a_gpu_it_says_what_is_missing():
    done = subprocess.run([SCRIPT], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert "nvidia-smi" in done.stderr


@pytest.fixture
def measure(tmp_path, monkeypatch):
    """Results of three jobs by a process that is a few lines of Python, which deal with one `job`."""

    def measured(code: str, seconds: float = 30) -> list[dict[str, object]]:
        script = tmp_path / "worker.py"
        body = "".join(f"    {line}\n" for line in code.splitlines())
        script.write_text(
            "import os, sys, time\n"
            f"def done(job): print({gpu.MARK!r} + '{{\"job\": %d}}' % job, flush=True)\n"
            f"for line in sys.stdin:\n    job = int(line)\n{body}"
        )
        monkeypatch.setattr(gpu, "__file__", str(script))
        monkeypatch.setattr(sys, "argv", ["gpu.py"])
        jobs = [gpu.Job("models", (str(i),), "") for i in range(3)]
        results: dict[gpu.Job, dict[str, object]] = {}
        gpu.measure(jobs, results, time.monotonic() + seconds)
        return [results.get(job, {}) for job in jobs]

    return measured


def test_a_process_that_dies_costs_one_figure(measure):
    code = "if job == 1: os.kill(os.getpid(), 9)\ndone(job)"
    assert measure(code) == [{"job": 0}, {"error": "the process ended with status -9"}, {"job": 2}]


def test_a_process_whose_gpu_is_broken_is_replaced(measure):
    code = f"done(job)\nsys.exit({gpu.BROKEN_GPU})"
    assert measure(code) == [{"job": 0}, {"job": 1}, {"job": 2}]


def test_a_process_that_hangs_costs_one_figure(measure, monkeypatch):
    monkeypatch.setitem(gpu.JOB_SECONDS, "measure", 1.0)
    code = "if job == 1: time.sleep(60)\ndone(job)"
    assert measure(code) == [{"job": 0}, {"error": "no result within 1 s"}, {"job": 2}]


def test_a_process_that_does_nothing_is_not_asked_for_ever(measure):
    assert measure("sys.exit(0)") == [{"error": "the process ended with status 0"}] * 3


def test_what_no_time_is_left_for_stays_open(measure):
    assert measure("done(job)\nif job == 0: time.sleep(60)", seconds=1.5) == [{"job": 0}, {}, {}]


def test_tables_tell_failed_from_missing_and_mark_what_is_wrong():
    results = {
        gpu.Job("errors", ("kda", "bf16", "fla"), ""): {"outputs": 0.5, "gradients": 1e-3, "beyond": True},
        gpu.Job("times", ("kda", "20M", "8192"), "ours"): {"milliseconds": 2.0, "megabytes": 5.0},
        gpu.Job("times", ("kda", "20M", "8192"), "fla"): {"milliseconds": 3.0, "megabytes": 6.0},
        gpu.Job("times", ("kda", "20M", "8192"), "PyTorch form"): {"error": "OutOfMemoryError: full"},
        gpu.Job("models", ("20m", "ours"), ""): {"missing": True},
        gpu.Job("models", ("340m", "ours"), ""): MODEL | {"kernels": [("gemm", 48, 20.5), ("norm", 9, 1.25)]},
    }
    text = "\n".join(gpu.render(results))
    assert "| kda | bf16 | fla | **5.0e-01** | **1.0e-03** |" in text
    assert "| kda | 20M | 8192 | 2.000 (5) | error | 3.000 (6) | – | 1.50 |" in text
    assert "| 20m | ours | ? |" in text
    assert "Kernels of a step of 340m, ours, 21.8 ms in all" in text
    assert "| `gemm` | 48 | 20.50 |" in text
    assert "- kda, 20M, 8192, PyTorch form: OutOfMemoryError: full" in text
    assert "No time was left for 1 of 6 figures" in text
