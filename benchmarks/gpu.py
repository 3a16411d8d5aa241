"""Kernels and training steps on one GPU, against flash-linear-attention and torch.compile.

    benchmarks/gpu.sh [-o FILE] [--minutes 9.5] [--tables NAME ...] [--only TEXT] [--device cpu --tiny]

Three tables: errors of each form against the float64 reference, time and memory of a forward and backward
pass, tokens a second of whole models. First all processor cores measure errors and compile what is to be
timed, which takes longest; then one process has the GPU to itself and times. What was compiled and tuned
stays in .bench-gpu/ for the next run. If a figure fails, hangs or takes the GPU down with it, a new process
goes on behind it; the table says what went wrong and the exit status is 1. What no time was left for is told
apart. `--device cpu --tiny` runs all of the logic on a machine without a GPU, leaving out what needs one.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import platform
import queue
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import gpu_models, gpu_ops
from benchmarks.gpu_ops import CONTENDERS, OPERATIONS, Make, Size
from benchmarks.gpu_tables import BOUNDS, WIDTHS, Job, Results, render

TOKENS = (32_768, 8_192, 65_536)
"""Tokens of a pass, in sequences of 2048. All is measured at the first; at the others the operations whose
kernels are ours."""

TABLES = ("errors", "models", "times")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
JOB_SECONDS = {"prepare": 240.0, "measure": 100.0}
MARK = "RESULT "
BROKEN_GPU = 3

PREPARING = 0.45
"""Share of the time in which the cores compile; what they did not come to is compiled when it is measured."""

CACHE = Path(__file__).parents[1] / ".bench-gpu"
SHARES = {"errors": 0.05, "times": 0.05, "models": 0.2}
"""Of the GPU's memory, for a process among others; what needs more is compiled when it is measured."""

Phase = Literal["prepare", "measure"]


def main() -> int:
    arguments = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    os.environ.setdefault("TRITON_CACHE_DIR", str(CACHE / "triton"))
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(CACHE / "inductor"))
    if arguments.worker is not None:
        return work(arguments)
    jobs = list(plan(arguments))
    results: Results = {}
    head = header(arguments)
    print(head, file=sys.stderr)
    started = time.monotonic()
    try:
        prepare(jobs, results, arguments, started + 60 * PREPARING * arguments.minutes)
        print(f"prepared in {time.monotonic() - started:.0f} s", file=sys.stderr)
        measure(jobs, results, started + 60 * arguments.minutes)
    except KeyboardInterrupt:
        print("interrupted; this is what there is", file=sys.stderr)
        return 130
    finally:
        text = "\n".join([head, *render({job: results.get(job, {"missing": True}) for job in jobs})])
        print(text)
        if arguments.output is not None:
            arguments.output.write_text(text + "\n", encoding="utf-8")
    return int(any("error" in result or result.get("beyond") for result in results.values()))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, help="write the tables to this file as well")
    parser.add_argument("--device", default="cuda", help="a GPU, or cpu (default cuda)")
    parser.add_argument("--tiny", action="store_true", help="the smallest sizes, to try the script")
    parser.add_argument("--minutes", type=float, default=9.5, help="time for all (default 9.5)")
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=TABLES, help="only these")
    parser.add_argument("--only", default="", help="only rows that have this text in a cell")
    parser.add_argument("--worker", choices=list(JOB_SECONDS), help=argparse.SUPPRESS)
    return parser.parse_args()


def plan(arguments: argparse.Namespace) -> Iterator[Job]:
    """All jobs, the most telling ones first."""
    device = torch.device(arguments.device)
    for job in _plan(device, arguments.tiny):
        if job.table in arguments.tables and any(arguments.only in cell for cell in job.row):
            yield job


def _plan(device: torch.device, tiny: bool) -> Iterator[Job]:
    for name, operation in OPERATIONS.items():
        for dtype in DTYPES:
            try:
                forms = operation.forms(device, DTYPES[dtype])
            except Exception as error:  # the operation itself is missing or broken: a row that says so
                forms = [f"{type(error).__name__}"]
            for form in forms:
                yield Job("errors", (name, dtype, form), "")
    presets = ("micro",) if tiny else ("20m", "340m")
    yield from (Job("models", (preset, "ours"), "") for preset in presets)
    timed = {name: operation for name, operation in OPERATIONS.items() if operation.timed}
    own = {name: operation for name, operation in timed.items() if "fla" not in operation.all_forms()}
    tokens = (64,) if tiny else TOKENS
    yield from _timings(timed, device, tiny, tokens[0], CONTENDERS)
    if device.type == "cuda":
        yield from (Job("models", (preset, "fla"), "") for preset in presets)
    for contenders in (CONTENDERS[:-1], CONTENDERS[-1:]):  # compiling takes longest
        for count in tokens[1:]:
            yield from _timings(own, device, tiny, count, contenders)


def _timings(
    operations: dict[str, gpu_ops.Operation],
    device: torch.device,
    tiny: bool,
    tokens: int,
    contenders: Sequence[str],
) -> Iterator[Job]:
    for name, operation in operations.items():
        for width in ("tiny",) if tiny else WIDTHS:
            for contender in gpu_ops.contenders(operation, device):
                if contender in contenders:
                    yield Job("times", (name, width, str(tokens)), contender)


def prepare(jobs: list[Job], results: Results, arguments: argparse.Namespace, end: float) -> None:
    """Measure all errors, and compile what will be timed, over all cores; what compiles longest first."""
    started = time.monotonic()
    numbers: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in sorted(range(len(jobs)), key=lambda number: _lightness(jobs[number])):
        numbers.put(number)

    def go() -> None:
        with contextlib.closing(Worker("prepare")) as worker, contextlib.suppress(queue.Empty):
            while time.monotonic() < end:
                number = numbers.get_nowait()
                result = worker.ask(number, end)
                if jobs[number].table == "errors" and result is not None:
                    results[jobs[number]] = result
                seconds = time.monotonic() - started
                print(f"{seconds:3.0f} s prepared {jobs[number].words}: {result}", file=sys.stderr)

    cores = 2 if arguments.device == "cpu" else max(2, (os.cpu_count() or 2) - 2)
    with ThreadPoolExecutor(cores) as threads:
        for going in [threads.submit(go) for _ in range(min(cores, len(jobs)))]:
            going.result()
    for choice in Path(os.environ["TORCHINDUCTOR_CACHE_DIR"]).rglob("*.best_config"):
        choice.unlink()  # made on a busy GPU


def _lightness(job: Job) -> int:
    """Sorts by how long a job compiles: fla tries many configurations of each kernel."""
    if "fla" in (job.column, *job.row):
        return 0
    return {"models": 1, "times": 2, "errors": 3}[job.table]


def measure(jobs: list[Job], results: Results, end: float) -> None:
    """Time one job after the other, until time is over."""
    with contextlib.closing(Worker("measure")) as worker:
        for number, job in enumerate(jobs):
            if job in results or time.monotonic() >= end:
                continue
            result = worker.ask(number, end)
            if result is not None:
                results[job] = result
            print(f"[{len(results)}/{len(jobs)}] {job.words}: {result}", file=sys.stderr)


class Worker:
    """Asks a process for one result after the other; one that died or hangs is replaced by another."""

    def __init__(self, phase: Phase) -> None:
        self.phase = phase
        self.process: subprocess.Popen[str] | None = None
        self.lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def ask(self, number: int, end: float) -> dict[str, Any] | None:
        """The result of job `number`, or what the process died of; None where time is over."""
        process = self._alive()
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(f"{number}\n")
            process.stdin.flush()
        deadline = time.monotonic() + JOB_SECONDS[self.phase]
        while True:
            try:
                line = self.lines.get(timeout=max(0.0, min(deadline, end) - time.monotonic()))
            except queue.Empty:
                self.close()
                seconds = JOB_SECONDS[self.phase]
                return {"error": f"no result within {seconds:.0f} s"} if time.monotonic() < end else None
            if line is None:
                status = process.wait()
                self.close()
                if status == BROKEN_GPU:  # of the job before
                    return self.ask(number, end)
                return {"error": f"the process ended with status {status}"}
            if line.startswith(MARK):
                return dict(json.loads(line.removeprefix(MARK)))
            print(line, end="", file=sys.stderr)

    def _alive(self) -> subprocess.Popen[str]:
        if self.process is None or self.process.poll() is not None:
            self.close()
            environment = dict(os.environ)
            if self.phase == "prepare":
                environment |= {"FLA_CACHE_RESULTS": "0", "TORCHINDUCTOR_COMPILE_THREADS": "1"}
            command = [sys.executable, __file__, *sys.argv[1:], "--worker", self.phase]
            pipe = subprocess.PIPE
            self.process = subprocess.Popen(
                command, stdin=pipe, stdout=pipe, text=True, start_new_session=True, env=environment
            )
            self.lines = queue.SimpleQueue()
            threading.Thread(target=_read, args=(self.process, self.lines), daemon=True).start()
        return self.process

    def close(self) -> None:
        """End the process."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


def _read(process: subprocess.Popen[str], lines: queue.SimpleQueue[str | None]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        lines.put(line)
    lines.put(None)


def work(arguments: argparse.Namespace) -> int:
    """Do the jobs whose numbers come on standard input, one line of standard output each."""
    device, is_preparing = torch.device(arguments.device), arguments.worker == "prepare"
    if device.type == "cpu":
        torch.set_num_threads(1)
    if device.type == "cuda":
        _tune(is_preparing)
    jobs = list(plan(arguments))
    for line in sys.stdin:
        job = jobs[int(line)]
        if is_preparing and device.type == "cuda":
            torch.cuda.set_per_process_memory_fraction(SHARES[job.table])
        try:
            result = run(job, device, arguments.tiny, is_preparing)
        except Exception as error:
            lines = str(error).strip().splitlines() or [""]
            result = {"error": f"{type(error).__name__}: {lines[0][:200]}"}
        print(MARK + json.dumps(result), flush=True)
        if device.type == "cuda":
            gc.collect()
            try:
                torch.cuda.synchronize(device)
                torch.cuda.empty_cache()
            except Exception:  # after a fault of a kernel nothing runs in this process any more
                return BROKEN_GPU
    return 0


def _tune(is_preparing: bool) -> None:
    """How Triton picks one of a kernel's configurations: by a brief measurement; not at all while preparing,
    when all are compiled and others are at work on the same GPU."""
    from triton.runtime.autotuner import Autotuner
    from triton.testing import do_bench

    def measured(kernel: Callable[[], Any], quantiles: Any = None) -> Any:
        return do_bench(kernel, warmup=5, rep=20, quantiles=quantiles)

    def compiled(kernel: Callable[[], Any], quantiles: Any = None) -> Any:
        kernel()
        return [1.0, 1.0, 1.0]

    Autotuner.do_bench = property(lambda self: compiled if is_preparing else measured)


def run(job: Job, device: torch.device, tiny: bool, only_compile: bool) -> dict[str, Any]:
    """The figures of one job; of what is to be timed nothing, where it is only to be compiled."""
    if job.table == "models":
        preset, kind = job.row
        return gpu_models.measure(preset, kind, device, tiny, only_compile)
    operation = OPERATIONS[job.row[0]]
    if job.table == "errors":
        dtype, form = job.row[1:]
        size = Size(B=2, T=20, H=2, K=8, vocabulary=97) if tiny else Size(2, 200, 8, 32, 1003)
        outputs, gradients = gpu_ops.compare(operation, form, size, Make(device, DTYPES[dtype]))
        beyond = not max(outputs, gradients) <= BOUNDS["fla" if form == "fla" else dtype]
        return {"outputs": outputs, "gradients": gradients, "beyond": beyond}
    tokens = int(job.row[2])
    length = 32 if tiny else 2048
    width, heads = (32, 2) if tiny else WIDTHS[job.row[1]]
    size = Size(tokens // length, length, heads, width // heads, 97 if tiny else 50_257)
    make = Make(device, torch.bfloat16)
    backend = "inductor" if device.type == "cuda" else "eager"
    both = gpu_ops.forward_and_backward(operation, job.column, size, make, backend)
    if only_compile:
        return {}
    return {"milliseconds": gpu_ops.milliseconds(both, device), "megabytes": gpu_ops.megabytes(both, device)}


def header(arguments: argparse.Namespace) -> str:
    """Hardware, driver, versions, command."""
    machine = platform.processor() or platform.machine()
    if arguments.device != "cpu":
        query = ["nvidia-smi", "--query-gpu=name,driver_version,power.limit", "--format=csv,noheader"]
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            machine = subprocess.run(query, capture_output=True, text=True, check=True, timeout=30).stdout
    versions = []
    for package in ("torch", "triton", "flash-linear-attention"):
        with contextlib.suppress(PackageNotFoundError):
            versions.append(f"{package} {version(package)}")
    hardware = "; ".join(machine.strip().splitlines())
    return (
        f"- hardware, driver, power limit: {hardware}\n"
        f"- Python {platform.python_version()}, {', '.join(versions)}, CUDA {torch.version.cuda}\n"
        f"- {time.strftime('%Y-%m-%d')}: `{shlex.join(['benchmarks/gpu.sh', *sys.argv[1:]])}`\n"
    )


if __name__ == "__main__":
    sys.exit(main())
