"""benchmarks/gpu.py: its whole logic on a CPU, and what it shows when a measurement goes wrong."""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import gpu

SCRIPT = Path(gpu.__file__).with_suffix(".sh")


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
def collect(tmp_path, monkeypatch):
    """Results of three jobs by a worker that is a few lines of Python, with `first` the job to begin at."""

    def collected(code: str, seconds: float = 30) -> list[dict[str, object]]:
        script = tmp_path / "worker.py"
        script.write_text(
            "import os, sys, time\nfirst = int(sys.argv[-1])\n"
            f"def done(job): print({gpu.MARK!r} + '{{\"job\": %d}}' % job, flush=True)\n" + code
        )
        monkeypatch.setattr(gpu, "__file__", str(script))
        monkeypatch.setattr(sys, "argv", ["gpu.py"])
        jobs = [gpu.Job("models", (str(i),), "") for i in range(3)]
        results: list[dict[str, object]] = []
        gpu.collect(jobs, results, argparse.Namespace(minutes=seconds / 60))
        return results

    return collected


def test_a_worker_that_dies_costs_one_figure(collect):
    code = "for i in range(first, 3):\n    if i == 1: os.kill(os.getpid(), 9)\n    done(i)"
    assert collect(code) == [{"job": 0}, {"error": "the worker ended with status -9"}, {"job": 2}]


def test_a_worker_whose_gpu_is_broken_is_replaced(collect):
    code = f"done(first)\nsys.exit({gpu.BROKEN_GPU})"
    assert collect(code) == [{"job": 0}, {"job": 1}, {"job": 2}]


def test_a_worker_that_hangs_costs_one_figure(collect, monkeypatch):
    monkeypatch.setattr(gpu, "JOB_SECONDS", 1.0)
    code = "for i in range(first, 3):\n    if i == 1: time.sleep(60)\n    done(i)"
    assert collect(code) == [{"job": 0}, {"error": "no result within 1 s"}, {"job": 2}]


def test_a_worker_that_does_nothing_is_not_asked_for_ever(collect):
    assert collect("") == [{"error": "the worker ended with status 0"}] * 3


def test_what_no_time_is_left_for_stays_open(collect):
    assert collect("done(first)\ntime.sleep(60)", seconds=1.5) == [{"job": 0}]


def test_tables_tell_failed_from_missing_and_mark_what_is_wrong():
    results = {
        gpu.Job("errors", ("kda", "bf16", "fla"), ""): {"outputs": 0.5, "gradients": 1e-3, "beyond": True},
        gpu.Job("times", ("kda", "20M", "8192"), "ours"): {"milliseconds": 2.0, "megabytes": 5.0},
        gpu.Job("times", ("kda", "20M", "8192"), "fla"): {"milliseconds": 3.0, "megabytes": 6.0},
        gpu.Job("times", ("kda", "20M", "8192"), "PyTorch form"): {"error": "OutOfMemoryError: full"},
        gpu.Job("models", ("20m", "ours"), ""): {"missing": True},
    }
    text = "\n".join(gpu.render(results))
    assert "| kda | bf16 | fla | **5.0e-01** | **1.0e-03** |" in text
    assert "| kda | 20M | 8192 | 2.000 (5) | error | 3.000 (6) | – | 1.50 |" in text
    assert "| 20m | ours | ? |" in text
    assert "- kda, 20M, 8192, PyTorch form: OutOfMemoryError: full" in text
    assert "No time was left for 1 of 5 figures" in text
