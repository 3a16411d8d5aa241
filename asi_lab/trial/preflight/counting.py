"""What a computation costs, counted by operation as it is dispatched: the same on every machine.

FLOPs are those of products and convolutions by torch's own formulas. They miss elementwise work, FFTs,
solves and custom kernels, so the bytes that each operation reads and writes are counted beside them, and the
bytes that are kept for the backward pass. Kernels that a candidate launches without torch's dispatcher are
seen by their tensors alone.
"""

from __future__ import annotations

import weakref
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_flop_count

from asi_lab.trial.preflight.trace import current_line, tensors

Place = tuple[int | None, str]
"""A line of the candidate and the operation that ran there, or the part of the backward pass."""

WRITES = "torch::autograd::CopySlices"
"""Autograd's node for writing into a part of a tensor."""

KINDS = ("FLOPs", "bytes touched", "bytes saved for backward")


class Alive:
    """Bytes of the tensors that live, `now` and at most (`peak`); views share those of what they show. `peak`
    may be set back at any time."""

    def __init__(self) -> None:
        self.now = self.peak = 0
        self._sizes: dict[int, int] = {}

    def see(self, x: Tensor) -> None:
        """Count a tensor from now until the last one that shares its memory is gone."""
        storage = x.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._sizes or not size:
            return
        self._sizes[key] = size
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._died, key)

    def _died(self, key: int) -> None:
        self.now -= self._sizes.pop(key)


class Counter(TorchDispatchMode):
    """Counts FLOPs, bytes and bytes saved for backward by place; on demand also the most bytes alive at once.

    Operations of the backward pass are booked on the line whose forward operation they belong to; those of
    writing into parts of a tensor, which autograd keeps apart, on the line that wrote into the most bytes.
    """

    def __init__(self, path: str, *, peak: bool = False) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._path, self._peak = path, peak
        self._names: dict[Any, str] = {}
        self.counts: dict[str, dict[Place, float]] = {kind: defaultdict(float) for kind in KINDS}
        self._alive = Alive()
        self._saved: set[int] = set()
        self._line_of_node: dict[int, int | None] = {}
        self._writes: dict[int, float] = defaultdict(float)
        self._hooks = saved_tensors_hooks(self._save, lambda x: x)

    @property
    def peak_bytes(self) -> int:
        """Most bytes alive at once, of what was made meanwhile; 0 unless that was asked for."""
        return self._alive.peak

    def __enter__(self) -> Counter:
        self._hooks.__enter__()
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *reason: Any) -> None:
        super().__exit__(*reason)  # type: ignore[no-untyped-call]
        self._hooks.__exit__(*reason)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the operation and book it."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        place = self._place(func)
        self._note_write(place[0], func, args)
        inputs, outputs = list(tensors(args)) + list(tensors(kwargs)), list(tensors(result))
        self.counts["FLOPs"][place] += flops(func, args, kwargs, result)
        held = {_address(x) for x in inputs}
        is_view = not func._schema.is_mutable and bool(outputs) and all(_address(x) in held for x in outputs)
        if not is_view:
            self.counts["bytes touched"][place] += sum(_bytes(x) for x in (*inputs, *outputs))
        if self._peak:
            for output in outputs:
                self._alive.see(output)
        return result

    def _place(self, func: Any) -> Place:
        node: Any = torch._C._current_autograd_node()
        if node is not None:
            line = self._line_of_node.get(node._sequence_nr())
            if line is None and node.name() == WRITES and self._writes:
                line = max(self._writes, key=lambda number: self._writes[number])
            return line, f"backward of {node.name()}"
        line = current_line(self._path)
        sequence = torch.autograd._get_sequence_nr()  # type: ignore[attr-defined]
        self._line_of_node[sequence - 1] = line
        name = self._names.get(func)
        if name is None:
            name = self._names[func] = str(func)
        return line, name

    def _note_write(self, line: int | None, func: Any, args: Sequence[Any]) -> None:
        """Note the whole bytes of a tensor into a part of which a line writes."""
        if line is None or torch._C._current_autograd_node() is not None or not func._schema.is_mutable:
            return
        if isinstance(args[0], Tensor):
            whole = args[0].untyped_storage().nbytes()
            self._writes[line] += whole if _bytes(args[0]) < whole else 0.0

    def _save(self, x: Tensor) -> Tensor:
        address = _address(x)
        if address not in self._saved:
            self._saved.add(address)
            line = current_line(self._path)
            self.counts["bytes saved for backward"][line, "saved"] += x.untyped_storage().nbytes()
        return x


def flops(func: Any, args: Sequence[Any], kwargs: dict[str, Any], result: Any) -> float:
    """Those of one operation, by torch's formula where there is one; fused attention has one on GPUs only."""
    formula = flop_registry.get(func._overloadpacket)
    if formula is not None:
        return float(formula(*args, **kwargs, out_val=result))
    name = func._overloadpacket.__name__
    if "scaled_dot_product" in name or "flash_attention" in name:
        shapes = [x.shape for x in tensors(args) if x.ndim == 4]
        if "backward" in name:  # the gradient of the output comes first, and two products become five
            return 2.5 * float(sdpa_flop_count(*shapes[1:4]))  # type: ignore[no-untyped-call]
        return float(sdpa_flop_count(*shapes[:3]))  # type: ignore[no-untyped-call]
    return 0.0


def _address(x: Tensor) -> int:
    return x.untyped_storage().data_ptr()


def _bytes(x: Tensor) -> int:
    return x.numel() * x.element_size()
