"""Which line of the candidate does what: operations are watched as they are dispatched."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

_ROUNDING = 1e-4
"""Changes up to this share of the RMS of an operation's output are taken for rounding."""


class Line:
    """A place in the candidate's source and the operation that ran there."""

    def __init__(self, number: int | None, operation: str) -> None:
        self.number, self.operation = number, operation

    def __str__(self) -> str:
        return f"line {self.number} ({self.operation})" if self.number else self.operation


def current_line(path: str) -> int | None:
    """The line of the file `path` that is being executed now, None outside of it."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_filename == path:
            return frame.f_lineno
        frame = frame.f_back
    return None


def error_line(error: BaseException, path: str) -> int | None:
    """The last line of the file `path` that an exception passed through."""
    line, trace = None, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == path:
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


def tensors(values: Any) -> Iterator[Tensor]:
    """All tensors in nested lists, tuples and dicts."""
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, list | tuple):
        for value in values:
            yield from tensors(value)
    elif isinstance(values, dict):
        yield from tensors(list(values.values()))


class Tracer(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Calls `see(line, outputs)` after every operation, but for those that only take memory. That is zeroed:
    what lay there before differs from run to run and means nothing."""

    def __init__(self, path: str, see: Callable[[Line, Sequence[Tensor]], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._path, self._see = path, see

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the operation and show what it gave."""
        result = func(*args, **(kwargs or {}))
        outputs = list(tensors(result))
        if "empty" in str(func):
            for output in outputs:
                output.zero_()
            return result
        self._see(Line(current_line(self._path), str(func)), outputs)
        return result


class _Found(BaseException):
    """Ends a watched run at the operation that was looked for."""

    def __init__(self, line: Line) -> None:
        super().__init__(str(line))
        self.line = line


def first(path: str, run: Callable[[], object], wanted: Callable[[Tensor], bool]) -> Line | None:
    """The first operation of `run` with an output that is `wanted`."""

    def see(line: Line, outputs: Sequence[Tensor]) -> None:
        if any(wanted(output) for output in outputs):
            raise _Found(line)

    try:
        with Tracer(path, see):
            run()
    except _Found as found:
        return found.line
    return None


def first_not_finite(path: str, run: Callable[[], object]) -> Line | None:
    """The first operation of `run` whose output is not finite."""
    return first(path, run, lambda x: x.is_floating_point() and not bool(torch.isfinite(x).all()))


def first_change(
    path: str,
    before: Callable[[], object],
    after: Callable[[], object],
    parts: Callable[[Tensor], Sequence[Tensor]],
) -> Line | None:
    """The first operation at which two runs of the same code differ where they should be equal.

    `parts` cuts out of an operation's output what should not change. Where it cannot tell which of several
    parts that is, it gives all of them, and the operation counts only if all have changed.
    """
    seen: list[list[Tensor]] = []
    with torch.no_grad():
        with Tracer(path, lambda line, outputs: seen.extend(_copies(parts(x)) for x in outputs)):
            before()
        earlier = iter(seen)

        def changed(x: Tensor) -> bool:
            old, new = next(earlier, []), parts(x)
            return bool(new) and len(old) == len(new) and all(map(_differ, old, new))

        return first(path, after, changed)


def _copies(parts: Sequence[Tensor]) -> list[Tensor]:
    return [part.detach().clone() for part in parts]


def _differ(old: Tensor, new: Tensor) -> bool:
    """Whether two tensors differ by more than rounding; those of other shapes or whole numbers never do."""
    if old.shape != new.shape or not old.is_floating_point():
        return False
    rms = old.float().square().mean().sqrt().clamp_min(1e-30)
    return not bool(((new - old).abs() <= _ROUNDING * rms).all())
