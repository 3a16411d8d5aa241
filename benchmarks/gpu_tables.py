"""What `benchmarks/gpu.py` measures, and how it is shown: as markdown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from benchmarks.gpu_ops import CONTENDERS, OPERATIONS

WIDTHS = {"20M": (256, 8), "340M": (1024, 8), "1.3B": (2048, 16)}
"""Width and heads of the presets."""

BOUNDS = {"fp32": 1e-4, "bf16": 1e-2, "fla": 1e-1}
"""Errors beyond are marked: more than rounding of these formats should do. fla's kernels invert in bf16 what
belongs to a chunk, and lose more where keys are alike."""


KERNELS = 16
"""Of a step that are shown."""


class Job(NamedTuple):
    """One figure: which table, its row, its column."""

    table: str
    row: tuple[str, ...]
    column: str

    @property
    def words(self) -> str:
        """Row and column in words."""
        return ", ".join(filter(None, (*self.row, self.column)))


Results = dict[Job, dict[str, Any]]


def render(results: Results) -> Iterator[str]:
    """The tables as markdown, then what went wrong."""
    yield from _render_errors(results)
    yield from _render_times(results)
    yield from _render_models(results)
    yield from _render_kernels(results)
    failed = {job: result["error"] for job, result in results.items() if "error" in result}
    if failed:
        yield "Errors:\n"
        yield from (f"- {job.words}: {error}" for job, error in failed.items())
    missing = sum("missing" in result for result in results.values())
    if missing:
        yield f"\nNo time was left for {missing} of {len(results)} figures (`?`)."


def _cell(result: dict[str, Any] | None, text: str) -> str:
    """`text` filled in; a dash for what does not exist, a question mark for what was not reached."""
    if result is None:
        return "–"
    return "?" if "missing" in result else "error" if "error" in result else text.format(**result)


def _render_errors(results: Results) -> Iterator[str]:
    yield (
        "Relative errors (by norm, of the worst output and gradient) against the reference in float64 on "
        "the same inputs; keys alike (0.9) and beta = 2. "
        f"Bold: beyond {', '.join(f'{bound} ({name})' for name, bound in BOUNDS.items())}.\n"
    )
    yield "| operation | dtype | form | outputs | gradients |\n|---|---|---|---:|---:|"
    for job, result in results.items():
        if job.table == "errors":
            bold = "**" if result.get("beyond") else ""
            cells = [bold + _cell(result, "{" + key + ":.1e}") + bold for key in ("outputs", "gradients")]
            yield "| " + " | ".join((*job.row, *cells)) + " |"
    yield ""


def _render_times(results: Results) -> Iterator[str]:
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


def _render_models(results: Results) -> Iterator[str]:
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


def _render_kernels(results: Results) -> Iterator[str]:
    for job, result in results.items():
        if result.get("kernels"):
            total = sum(milliseconds for _, _, milliseconds in result["kernels"])
            yield f"Kernels of a step of {job.words}, {total:.1f} ms in all; those that take most:\n"
            yield "| kernel | launches | ms |\n|---|---:|---:|"
            for name, launches, milliseconds in result["kernels"][:KERNELS]:
                yield f"| `{name}` | {launches} | {milliseconds:.2f} |"
            yield ""
