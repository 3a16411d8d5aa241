"""Kernels and training steps on one GPU, against flash-linear-attention and torch.compile.

    benchmarks/gpu.sh [-o FILE] [--minutes 9.5] [--only TEXT] [--device cpu --tiny]

Three tables: errors of each form against the float64 reference, time and memory of a forward and backward
pass, tokens a second of whole models. Each figure is measured in a worker process. If one fails, hangs or
takes the GPU down with it, a new worker goes on behind it; the table says what went wrong and the exit
status is 1. What no time was left for is told apart. `--device cpu --tiny` runs all of the logic on a
machine without a GPU, leaving out what needs one.
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
from collections.abc import Generator, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import gpu_models, gpu_ops
from benchmarks.gpu_ops import CONTENDERS, OPERATIONS, Make, Size

WIDTHS = {"20M": (256, 8), "340M": (1024, 8), "1.3B": (2048, 16)}
"""Width and heads of the presets."""

TOKENS = (32_768, 8_192, 65_536)
"""Tokens of a pass, in sequences of 2048. All is measured at the first before anything at the others."""

BOUNDS = {"fp32": 1e-2, "bf16": 5e-2}
"""Errors beyond are marked: more than rounding of these formats (TF32 products included) should do."""

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
JOB_SECONDS = 120.0
MARK = "RESULT "
BROKEN_GPU = 3


class Job(NamedTuple):
    """One figure: which table, its row, its column."""

    table: str
    row: tuple[str, ...]
    column: str


def main() -> int:
    arguments = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if arguments.worker is not None:
        return work(arguments)
    jobs = list(plan(arguments))
    results: list[dict[str, Any]] = []
    head = header(arguments)
    print(head, file=sys.stderr)
    try:
        collect(jobs, results, arguments)
    except KeyboardInterrupt:
        print("interrupted; this is what there is", file=sys.stderr)
        return 130
    finally:
        results += [{"missing": True}] * (len(jobs) - len(results))
        text = "\n".join([head, *render(dict(zip(jobs, results, strict=True)))])
        print(text)
        if arguments.output is not None:
            arguments.output.write_text(text + "\n", encoding="utf-8")
    return int(any("error" in result or result.get("beyond") for result in results))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, help="write the tables to this file as well")
    parser.add_argument("--device", default="cuda", help="a GPU, or cpu (default cuda)")
    parser.add_argument("--tiny", action="store_true", help="the smallest sizes, to try the script")
    parser.add_argument("--minutes", type=float, default=9.5, help="time for all (default 9.5)")
    parser.add_argument("--only", default="", help="only rows that have this text in a cell")
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


def plan(arguments: argparse.Namespace) -> Iterator[Job]:
    """All jobs, the most telling ones first."""
    device = torch.device(arguments.device)
    for job in _plan(device, arguments.tiny):
        if any(arguments.only in cell for cell in job.row):
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
    for preset in ("micro",) if tiny else ("20m", "340m"):
        for kind in gpu_models.MODELS if device.type == "cuda" else ("ours",):
            yield Job("models", (preset, kind), "")
    timed = {name: operation for name, operation in OPERATIONS.items() if operation.timed}
    tokens = (64,) if tiny else TOKENS
    yield from _timings(timed, device, tiny, tokens[0], CONTENDERS)
    for contenders in (CONTENDERS[:-1], CONTENDERS[-1:]):  # compiling takes longest
        for count in tokens[1:]:
            yield from _timings(timed, device, tiny, count, contenders)


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


def collect(jobs: list[Job], results: list[dict[str, Any]], arguments: argparse.Namespace) -> None:
    """Append the result of each job, until time is over."""
    end = time.monotonic() + 60 * arguments.minutes
    while len(results) < len(jobs) and time.monotonic() < end:
        with contextlib.closing(worker_results(len(results), end)) as arriving:
            for job, result in zip(jobs[len(results) :], arriving, strict=False):
                results.append(result)
                print(f"[{len(results)}/{len(jobs)}] {name_of(job)}: {result}", file=sys.stderr)


def name_of(job: Job) -> str:
    """Row and column in words."""
    return ", ".join(filter(None, (*job.row, job.column)))


def worker_results(first: int, end: float) -> Generator[dict[str, Any], None, None]:
    """Results of a worker that begins at job `first`, at least one; the last may be what it died of."""
    command = [sys.executable, __file__, *sys.argv[1:], "--worker", str(first)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    lines: queue.Queue[str | None] = queue.Queue()
    threading.Thread(target=_read, args=(process, lines), daemon=True).start()
    done = 0
    try:
        while True:
            try:
                left = end - time.monotonic()
                line = lines.get(timeout=max(0.0, min(JOB_SECONDS, left)))
            except queue.Empty:
                if time.monotonic() < end:
                    yield {"error": f"no result within {JOB_SECONDS:.0f} s"}
                return
            if line is None:
                if process.wait() not in (0, BROKEN_GPU) or not done:
                    yield {"error": f"the worker ended with status {process.returncode}"}
                return
            if line.startswith(MARK):
                done += 1
                yield json.loads(line.removeprefix(MARK))
            else:
                print(line, end="", file=sys.stderr)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _read(process: subprocess.Popen[str], lines: queue.Queue[str | None]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        lines.put(line)
    lines.put(None)


def work(arguments: argparse.Namespace) -> int:
    """Do the jobs from `arguments.worker` on, one line of standard output each."""
    device = torch.device(arguments.device)
    if device.type == "cpu":
        torch.set_num_threads(1)
    for job in list(plan(arguments))[arguments.worker :]:
        try:
            result = run(job, device, arguments.tiny)
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


def run(job: Job, device: torch.device, tiny: bool) -> dict[str, Any]:
    """The figures of one job."""
    if job.table == "models":
        preset, kind = job.row
        return gpu_models.measure(preset, kind, device, tiny)
    operation = OPERATIONS[job.row[0]]
    if job.table == "errors":
        dtype, form = job.row[1:]
        size = Size(B=2, T=20, H=2, K=8, vocabulary=97) if tiny else Size(2, 200, 8, 32, 1003)
        outputs, gradients = gpu_ops.compare(operation, form, size, Make(device, DTYPES[dtype]))
        beyond = not max(outputs, gradients) <= BOUNDS[dtype]
        return {"outputs": outputs, "gradients": gradients, "beyond": beyond}
    tokens = int(job.row[2])
    length = 32 if tiny else 2048
    width, heads = (32, 2) if tiny else WIDTHS[job.row[1]]
    size = Size(tokens // length, length, heads, width // heads, 97 if tiny else 50_257)
    make = Make(device, torch.bfloat16)
    backend = "inductor" if device.type == "cuda" else "eager"
    milliseconds, megabytes = gpu_ops.measure(operation, job.column, size, make, backend)
    return {"milliseconds": milliseconds, "megabytes": megabytes}


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


def render(results: dict[Job, dict[str, Any]]) -> Iterator[str]:
    """The three tables as markdown, then what went wrong."""
    yield from _render_errors(results)
    yield from _render_times(results)
    yield from _render_models(results)
    failed = {job: result["error"] for job, result in results.items() if "error" in result}
    if failed:
        yield "Errors:\n"
        yield from (f"- {name_of(job)}: {error}" for job, error in failed.items())
    missing = sum("missing" in result for result in results.values())
    if missing:
        yield f"\nNo time was left for {missing} of {len(results)} figures (`?`)."


def _cell(result: dict[str, Any] | None, text: str) -> str:
    """`text` filled in; a dash for what does not exist, a question mark for what was not reached."""
    if result is None:
        return "–"
    return "?" if "missing" in result else "error" if "error" in result else text.format(**result)


def _render_errors(results: dict[Job, dict[str, Any]]) -> Iterator[str]:
    yield (
        "Relative errors (by norm, of the worst output and gradient) against the reference in float64 on "
        "the same inputs; keys alike (0.9) and beta = 2. "
        f"Bold: beyond {BOUNDS['fp32']} (fp32), {BOUNDS['bf16']} (bf16).\n"
    )
    yield "| operation | dtype | form | outputs | gradients |\n|---|---|---|---:|---:|"
    for job, result in results.items():
        if job.table == "errors":
            bold = "**" if result.get("beyond") else ""
            cells = [bold + _cell(result, "{" + key + ":.1e}") + bold for key in ("outputs", "gradients")]
            yield "| " + " | ".join((*job.row, *cells)) + " |"
    yield ""


def _render_times(results: dict[Job, dict[str, Any]]) -> Iterator[str]:
    yield (
        "Milliseconds of a forward and backward pass in bf16 (median; in brackets MB held beyond the "
        "inputs). Ours as chosen by `auto`; the last column is the best other's time over ours.\n"
    )
    yield f"| operation | model | tokens | {' | '.join(CONTENDERS)} | best other / ours |"
    yield "|---|---|---:|" + "---:|" * (len(CONTENDERS) + 1)
    rows = dict.fromkeys(job.row for job in results if job.table == "times")
    order = (list(OPERATIONS), ["tiny", *WIDTHS])
    for row in sorted(rows, key=lambda row: (order[0].index(row[0]), order[1].index(row[1]), int(row[2]))):
        of = {column: results.get(Job("times", row, column)) for column in CONTENDERS}
        times = {column: (result or {}).get("milliseconds") for column, result in of.items()}
        others = [x for column, x in times.items() if x is not None and column != "ours"]
        ratio = f"{min(others) / times['ours']:.2f}" if others and times["ours"] else "–"
        text = "{milliseconds:.3f} ({megabytes:.0f})"
        cells = [_cell(result, text).removesuffix(" (nan)") for result in of.values()]
        yield "| " + " | ".join((*row, *cells, ratio)) + " |"
    yield ""


def _render_models(results: dict[Job, dict[str, Any]]) -> Iterator[str]:
    columns = {
        "M parameters": "{parameters:.1f}",
        "tokens a step": "{tokens}",
        "ms a step": "{milliseconds:.1f}",
        "tokens/s": "{rate:.0f}",
        "TFLOP/s": "{teraflops:.1f}",
        "MFU": "{share:.1%}",
        "peak MB": "{megabytes:.0f}",
    }
    yield (
        "Training steps of DeltaNet: bf16 autocast, fused AdamW, random tokens. MFU is 6 operations for each "
        "weight of ours and token, over the rate of a large bf16 product on this device.\n"
    )
    yield f"| preset | model | {' | '.join(columns)} |\n|---|---|" + "---:|" * len(columns)
    for job, result in results.items():
        if job.table == "models":
            yield "| " + " | ".join((*job.row, *(_cell(result, text) for text in columns.values()))) + " |"
    yield ""


if __name__ == "__main__":
    sys.exit(main())
