"""Operations of `benchmarks/gpu.py`: their inputs, their contenders, how they are compared and timed."""

from __future__ import annotations

import importlib
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, get_args, get_type_hints

import torch
from torch import Tensor
from torch.nn import functional as F

from asi_lab.kernels.common import GPU_FORMS

Inputs = dict[str, Any]
"""Arguments by name: tensors, or lists of tensors."""

CONTENDERS = ("ours", "PyTorch form", "fla", "compiled")
"""Ours as "auto" picks it, our form without Triton, flash-linear-attention, torch.compile of the formula."""


@dataclass(frozen=True)
class Size:
    """`B` sequences of `T` tokens, `H` heads of `K` channels, so `H * K` wide."""

    B: int
    T: int
    H: int
    K: int
    vocabulary: int

    @property
    def width(self) -> int:
        """Of the residual stream."""
        return self.H * self.K


@dataclass(frozen=True)
class Make:
    """Makes random leaves: keys whose inner products are about `likeness`, and `beta` for delta rules."""

    device: torch.device
    dtype: torch.dtype
    likeness: float = 0.9
    beta: float = 2.0

    def normal(self, *shape: int, scale: float = 1.0, dtype: torch.dtype | None = None) -> Tensor:
        """Normally distributed."""
        x = torch.randn(shape, device=self.device, dtype=torch.float32) * scale
        return x.to(dtype or self.dtype)

    def keys(self, size: Size) -> Tensor:
        """Of length one and as alike as asked, `[B, T, H, K]`."""
        common, own = (
            F.normalize(self.normal(size.B, t, size.H, size.K).float(), dim=-1) for t in (1, size.T)
        )
        return F.normalize(self.likeness**0.5 * common + (1 - self.likeness) ** 0.5 * own, dim=-1).to(
            self.dtype
        )

    def log_decays(self, *shape: int) -> Tensor:
        """At most 0, and in float32 whatever the rest is in."""
        return -F.softplus(self.normal(*shape, dtype=torch.float32))


@dataclass(frozen=True)
class Operation:
    """An operation and those it is compared with."""

    kernel: str
    inputs: Callable[[Size, Make], Inputs]
    options: Callable[[Size], dict[str, Any]] = field(default=lambda size: {})
    formula: Callable[..., Any] | None = None
    """Plain PyTorch of (size, inputs), to be compiled."""
    fla: Callable[..., Any] | None = None
    fla_inputs: Callable[[Size, Inputs], Inputs] = field(default=lambda size, inputs: inputs)
    timed: bool = True

    @property
    def function(self) -> Callable[..., Any]:
        """Ours."""
        folder, _, name = self.kernel.rpartition(".")
        module = importlib.import_module(f"asi_lab.kernels.{folder or name}")
        function: Callable[..., Any] = getattr(module, name)
        return function

    def forms(self, device: torch.device, dtype: torch.dtype) -> list[str]:
        """Forms other than the reference that run there."""
        left_out = {"auto", "naive"} | (set() if device.type == "cuda" else set(GPU_FORMS))
        if dtype not in (torch.bfloat16, torch.float16):
            left_out.add("fla")
        return [name for name in self.all_forms() if name not in left_out]

    def all_forms(self) -> list[str]:
        """All that its argument `implementation` takes."""
        return list(get_args(get_type_hints(self.function)["implementation"]))

    def ours(self, size: Size, implementation: str) -> Callable[[Inputs], Any]:
        """Our form of that name."""
        function, options = self.function, self.options(size)
        return lambda inputs: function(**inputs, **options, implementation=implementation)


def qkv(size: Size, make: Make) -> Inputs:
    return {
        "qkv": make.normal(size.B, size.T, 3 * size.width),
        "weight": make.normal(3 * size.width, 4, scale=0.5),
    }


def qkv_formula(size: Size, inputs: Inputs) -> Any:
    x, weight = inputs["qkv"], inputs["weight"]
    y = F.silu(F.conv1d(F.pad(x.mT, (3, 0)), weight[:, None], groups=len(weight))).mT
    q, k, v = (part.unflatten(-1, (size.H, size.K)).float() for part in y.chunk(3, -1))
    q, k = (part * (part.square().sum(-1, True) + 1e-6).rsqrt() for part in (q, k))
    return [part.to(x.dtype) for part in (q, k, v)]


def qkv_apart(size: Size, inputs: Inputs) -> Inputs:
    """As fla's layers have them: three projections of their own."""
    parts = {"qkv": inputs["qkv"].split(size.width, -1), "weight": inputs["weight"].split(size.width)}
    return {name: [x.contiguous() for x in xs] for name, xs in parts.items()}


def qkv_fla(size: Size, inputs: Inputs) -> Any:
    from fla.modules.causal_conv1d import causal_conv1d
    from fla.modules.norm.l2norm import l2norm

    pairs = zip(inputs["qkv"], inputs["weight"], strict=True)
    q, k, v = (causal_conv1d(x, w, activation="silu")[0].unflatten(-1, (size.H, size.K)) for x, w in pairs)
    return l2norm(q), l2norm(k), v


def fir_bank(*widths: int) -> Operation:
    def inputs(size: Size, make: Make) -> Inputs:
        weights = [make.normal(size.width, W, scale=W**-0.5) for W in widths]
        return {"x": make.normal(size.B, size.T, size.width), "weights": weights}

    def formula(size: Size, inputs: Inputs) -> Any:
        x = inputs["x"].mT
        return [
            F.conv1d(F.pad(x, (w.shape[1] - 1, 0)), w[:, None], groups=len(w)).mT for w in inputs["weights"]
        ]

    def fla(size: Size, inputs: Inputs) -> Any:
        from fla.modules.causal_conv1d import causal_conv1d

        return [causal_conv1d(inputs["x"], w)[0] for w in inputs["weights"]]

    # fla's kernel is unrolled over the taps, and tuned: with 64 of them it compiles for minutes.
    return Operation("fir_bank", inputs, formula=formula, fla=fla if max(widths) <= 8 else None)


def paths(size: Size, make: Make) -> Inputs:
    shape = (size.B, size.T, size.H)
    return {"paths": [make.normal(*shape, size.K) for _ in range(4)], "logits": make.normal(*shape, 4)}


def path_mix_formula(size: Size, inputs: Inputs) -> Any:
    w = 0.02 + (1 - 4 * 0.02) * inputs["logits"].float().softmax(-1)
    o = sum(w[..., p, None] * path for p, path in enumerate(inputs["paths"]))
    return o.to(inputs["paths"][0]), w, -(w * w.log()).sum(-1)


def gated(size: Size, make: Make) -> Inputs:
    x, gate = (make.normal(size.B, size.T, size.H, size.K) for _ in range(2))
    return {"x": x, "gate": gate, "weight": 1 + make.normal(size.K, scale=0.1)}


def gated_formula(size: Size, inputs: Inputs) -> Any:
    x, gate = inputs["x"].float(), inputs["gate"].float()
    y = x * (x.square().mean(-1, True) + 1e-5).rsqrt() * inputs["weight"] * F.silu(gate)
    return y.to(inputs["x"])


def gated_fla(size: Size, inputs: Inputs) -> Any:
    from fla.modules.norm.fused_norm_gate import rms_norm_gated

    return rms_norm_gated(inputs["x"], inputs["gate"], inputs["weight"], None, "swish", eps=1e-5)


def head(size: Size, make: Make) -> Inputs:
    target = torch.randint(0, size.vocabulary, (size.B * size.T,), device=make.device)
    weight = make.normal(size.vocabulary, size.width, scale=size.width**-0.5)
    return {"x": make.normal(size.B * size.T, size.width), "target": target, "weight": weight}


def head_formula(size: Size, inputs: Inputs) -> Any:
    return F.cross_entropy(F.linear(inputs["x"], inputs["weight"]).float(), inputs["target"])


def head_fla(size: Size, inputs: Inputs) -> Any:
    from fla.modules.fused_linear_cross_entropy import fused_linear_cross_entropy_loss

    return fused_linear_cross_entropy_loss(**inputs)


def recurrence(
    kernel: str, gate: Literal["none", "head", "channel"], delta: bool, fla: str = ""
) -> Operation:
    """One with a matrix as memory; keys are alike, and a delta rule's beta is 2, where it is hardest."""

    def inputs(size: Size, make: Make) -> Inputs:
        shape = (size.B, size.T, size.H)
        made = {"q": make.keys(size), "k": make.keys(size), "v": make.normal(*shape, size.K)}
        if gate != "none":
            made["g"] = make.log_decays(*shape, *([size.K] if gate == "channel" else []))
        if delta:
            made["beta"] = torch.full(shape, make.beta, device=make.device, dtype=make.dtype)
        return made

    def call(size: Size, inputs: Inputs) -> Any:
        folder, name = fla.split(".")
        return getattr(importlib.import_module(f"fla.ops.{folder}"), name)(**inputs)[0]

    return Operation(kernel, inputs, fla=call if fla else None, timed=bool(fla))


def dplr(size: Size, make: Make) -> Inputs:
    """A delta rule that erases other keys than it writes under."""
    shape = (size.B, size.T, size.H)
    erased, g = make.keys(size), make.log_decays(*shape, size.K)
    return {
        "q": make.keys(size),
        "k": make.keys(size),
        "v": make.normal(*shape, size.K),
        "a": (-g.exp() * erased).to(make.dtype),
        "b": make.beta * erased,
        "g": g,
    }


def dplr_fla(size: Size, inputs: Inputs) -> Any:
    from fla.ops.generalized_delta_rule import chunk_dplr_delta_rule

    return chunk_dplr_delta_rule(**{"gk" if name == "g" else name: x for name, x in inputs.items()})[0]


def ssd(size: Size, make: Make) -> Inputs:
    shape = (size.B, size.T, size.H)
    return {
        "x": make.normal(*shape, size.K),
        "dt": -make.log_decays(*shape),
        "A": -1 - make.normal(size.H, dtype=torch.float32).abs(),
        "B": make.normal(size.B, size.T, 1, size.K),
        "C": make.normal(size.B, size.T, 1, size.K),
        "D": make.normal(size.H),
    }


def convolution(size: Size, make: Make) -> Inputs:
    return {"x": make.normal(size.B, size.T, size.width), "weight": make.normal(size.width, 4, scale=0.5)}


def norm(size: Size, make: Make) -> Inputs:
    return {"x": make.normal(size.B, size.T, size.width), "weight": 1 + make.normal(size.width, scale=0.1)}


OPERATIONS = {
    "qkv_convolution": Operation(
        "qkv_convolution", qkv, lambda s: {"num_heads": s.H, "key_dim": s.K}, qkv_formula, qkv_fla, qkv_apart
    ),
    "fir_bank, W = 5": fir_bank(5),
    "fir_bank, W = 5 and 64": fir_bank(5, 64),
    "path_mix, n = 4": Operation("path_mix", paths, lambda s: {"floor": 0.02}, path_mix_formula),
    "gated_rms_norm": Operation("gated_rms_norm", gated, lambda s: {}, gated_formula, gated_fla),
    "linear_cross_entropy": Operation("linear_cross_entropy", head, lambda s: {}, head_formula, head_fla),
    "delta_rule": recurrence("delta_rule", "none", True, "delta_rule.chunk_delta_rule"),
    "gated_delta_rule": recurrence(
        "gated_delta_rule", "head", True, "gated_delta_rule.chunk_gated_delta_rule"
    ),
    "kda": recurrence("kda", "channel", True, "kda.chunk_kda"),
    "dplr_delta_rule": Operation("dplr_delta_rule", dplr, fla=dplr_fla),
    "linear_attention": recurrence("linear_attention", "none", False, "simple_gla.chunk_simple_gla"),
    "linear_attention, decay": recurrence("linear_attention", "head", False, "simple_gla.chunk_simple_gla"),
    "retention": recurrence("retention", "none", False),
    "ssd": Operation("ssd", ssd, timed=False),
    "short_convolution": Operation("short_convolution", convolution, timed=False),
    "rms_norm": Operation("norms.rms_norm", norm, timed=False),
}


def contenders(operation: Operation, device: torch.device) -> list[str]:
    """Those of `CONTENDERS` that there are."""
    there = {"ours", "PyTorch form"}
    there |= {"fla"} if operation.fla is not None and device.type == "cuda" else set()
    there |= {"compiled"} if operation.formula is not None else set()
    return [name for name in CONTENDERS if name in there]


def leaves_of(inputs: Inputs) -> list[Tensor]:
    """What gradients are taken of, which is now required."""
    tensors = [x for value in inputs.values() for x in (value if isinstance(value, list) else [value])]
    return [x.requires_grad_() for x in tensors if x.is_floating_point()]


def outputs_of(result: Any) -> list[Tensor]:
    """Tensors of a result; a recurrence's state is left out, where there is none."""
    values = [result] if isinstance(result, Tensor) else result
    return [x for x in values if x is not None]


def compare(operation: Operation, form: str, size: Size, make: Make) -> tuple[float, float]:
    """Largest relative errors (by norm) of an output and of a gradient, against the reference in float64."""
    torch.manual_seed(0)
    inputs = operation.inputs(size, make)
    exact = {name: _doubled(value) for name, value in inputs.items()}
    results = []
    for given, implementation in ((inputs, form), (exact, "naive")):
        leaves = leaves_of(given)
        outputs = outputs_of(operation.ours(size, implementation)(given))
        torch.manual_seed(1)
        weights = [torch.randn(y.shape, device=y.device, dtype=torch.float64) for y in outputs]
        projected = [(y.double() * w).sum() for y, w in zip(outputs, weights, strict=True)]
        results.append((outputs, torch.autograd.grad(projected, leaves)))
    (outputs, gradients), (true_outputs, true_gradients) = results
    return _error(outputs, true_outputs), _error(gradients, true_gradients)


def _doubled(value: Any) -> Any:
    if isinstance(value, list):
        return [x.detach().double() for x in value]
    return value.detach().double() if value.is_floating_point() else value


def _error(actual: Any, expected: Any) -> float:
    """Each by its own norm, but at least by a thousandth of the largest: some gradients are 0 in truth."""
    norms = [e.double().norm().item() for e in expected]
    errors = [
        (a.double() - e.double()).norm().item() / max(norm, 1e-3 * max(norms))
        for a, e, norm in zip(actual, expected, norms, strict=True)
    ]
    return math.nan if any(math.isnan(e) for e in errors) else max(errors)


def forward_and_backward(
    operation: Operation, contender: str, size: Size, make: Make, backend: str
) -> Callable[[], None]:
    """Both passes of a contender, which have run once: what is to be compiled is compiled."""
    torch.manual_seed(0)
    inputs = operation.inputs(size, make)
    if contender == "fla":
        inputs = operation.fla_inputs(size, inputs)
    call = _contender(operation, contender, size, make, backend)
    leaves = leaves_of(inputs)
    gradients = [torch.randn_like(y) for y in outputs_of(call(inputs))]

    def both() -> None:
        torch.autograd.grad(outputs_of(call(inputs)), leaves, gradients)

    both()
    return both


def _contender(
    operation: Operation, contender: str, size: Size, make: Make, backend: str
) -> Callable[[Inputs], Any]:
    if contender == "ours":
        return operation.ours(size, "auto")
    if contender == "PyTorch form":
        return operation.ours(
            size, next(f for f in operation.forms(make.device, make.dtype) if f not in GPU_FORMS)
        )
    if contender == "fla":
        fla = operation.fla
        assert fla is not None
        return lambda inputs: fla(size, inputs)
    formula = operation.formula
    assert formula is not None
    torch.compiler.reset()  # after some shapes it would compile no more and run the formula as it is
    return torch.compile(lambda inputs: formula(size, inputs), backend=backend, dynamic=False)


def milliseconds(function: Callable[[], None], device: torch.device) -> float:
    """Median time of a call, by events on a GPU, its cache emptied before each."""
    if device.type == "cuda":
        from triton.testing import do_bench

        return float(do_bench(function, warmup=25, rep=100, return_mode="median"))
    times = []
    for _ in range(3):
        started = time.perf_counter()
        function()
        times.append(1e3 * (time.perf_counter() - started))
    return statistics.median(times)


def megabytes(function: Callable[[], None], device: torch.device) -> float:
    """Memory that a call holds at most, beyond what is held before it; NaN without a GPU."""
    if device.type != "cuda":
        return math.nan
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    function()
    torch.cuda.synchronize(device)
    return (torch.cuda.max_memory_allocated(device) - before) / 2**20
