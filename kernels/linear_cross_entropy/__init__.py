"""Cross-entropy of a linear layer's outputs, without ever holding the logits of all tokens."""

from typing import Literal

import torch
from torch import Tensor

from asi_lab.kernels.common import check_tensors, choose, describe
from asi_lab.kernels.foreign import drop_in
from asi_lab.kernels.linear_cross_entropy.chunk import chunk_linear_cross_entropy
from asi_lab.kernels.linear_cross_entropy.naive import naive_linear_cross_entropy


@drop_in
def linear_cross_entropy(
    x: Tensor,
    target: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    ignore_index: int = -100,
    logit_softcapping: float | None = None,
    reduction: Literal["mean", "sum"] = "mean",
    *,
    implementation: Literal["auto", "naive", "chunk", "triton"] = "auto",
    chunk_size: int | None = None,
) -> Tensor:
    """Cross-entropy in nats of `softmax(x weight^T + bias)` against the target tokens, a scalar.

    x is `[N, D]` or `[B, T, D]`, target `[N]` or `[B, T]` (int64), weight `[V, D]`, bias `[V]` or None.
    Tokens whose target is `ignore_index` do not count; the mean is over the others, and NaN (with gradients
    of zero) where there are none, as in `torch.nn.functional.cross_entropy`. With `logit_softcapping` c the
    logits are first bounded: `c tanh(logits / c)` (arXiv 2408.00118).

    The products are those of `torch.nn.functional.linear`, in the autocast dtype where autocast is on;
    softmax and loss are float32 (float64 for float64). `chunk_size` tokens are processed at a time, by
    default as many as suit the device. The gradients are computed along with the loss where gradients are
    enabled, and kept for the backward pass: of x in the dtype of the products, of weight and bias summed
    over the chunks in float32.

    Takes the keywords of flash-linear-attention's `fused_linear_cross_entropy_loss` too, or says what to do
    instead (`kernels.foreign`). Raises ValueError for what is no tensor, for shapes, dtypes and options that
    do not fit and, on a CPU, for targets outside of `[0, V)`. A GPU would have to be waited for; there such a
    target makes the loss NaN, or stops the device as any index out of range does.
    """
    _check(x, target, weight, bias)
    if logit_softcapping is not None and not logit_softcapping > 0:
        raise ValueError(f"logit_softcapping must be None or positive, got {logit_softcapping}")
    if reduction not in ("mean", "sum"):
        raise ValueError(f"reduction must be 'mean' or 'sum', got {reduction!r}")
    if chunk_size is not None and chunk_size < 1:
        raise ValueError(f"chunk_size must be None or at least 1, got {chunk_size}")
    form = choose(implementation, x, ("naive", "chunk", "triton"), cpu="chunk", gpu="triton")
    dtype = _product_dtype(x, weight)
    x, target = x.reshape(-1, x.shape[-1]), target.reshape(-1)
    counted = target != ignore_index
    if target.device.type == "cpu":
        _check_range(target[counted], weight.shape[0])
    count = counted.sum() if reduction == "mean" else None
    with torch.autocast(x.device.type, enabled=False):
        if form == "naive":
            return naive_linear_cross_entropy(x, target, weight, bias, counted, count, logit_softcapping)
        return chunk_linear_cross_entropy(
            x, target, weight, bias, counted, count, logit_softcapping, dtype, chunk_size, form == "triton"
        )


def _product_dtype(x: Tensor, weight: Tensor) -> torch.dtype:
    """What autocast casts the operands of a linear layer to; it leaves float64 alone."""
    device, dtype = x.device.type, torch.promote_types(x.dtype, weight.dtype)
    if dtype != torch.float64 and torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return dtype


def _check(x: Tensor, target: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    """Raise ValueError, naming the argument, unless shapes and dtypes fit."""
    check_tensors(x=x, weight=weight, **{} if bias is None else {"bias": bias})
    if x.dim() not in (2, 3):
        raise ValueError(f"x must be [N, D] or [B, T, D], got {list(x.shape)}")
    if not (torch.is_tensor(target) and target.shape == x.shape[:-1] and target.dtype == torch.int64):
        raise ValueError(f"target must be {list(x.shape[:-1])} and int64, got {describe(target)}")
    if weight.dim() != 2 or weight.shape[0] == 0 or weight.shape[1] != x.shape[-1]:
        raise ValueError(f"weight must be [V, D] with D = {x.shape[-1]}, got {list(weight.shape)}")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"bias must be [V] = [{weight.shape[0]}], got {list(bias.shape)}")


def _check_range(target: Tensor, V: int) -> None:
    """Raise ValueError unless all of `target` lie in `[0, V)`."""
    if target.numel() == 0:
        return
    low, high = (int(x) for x in target.aminmax())
    if low < 0 or high >= V:
        raise ValueError(f"target must lie in [0, V) with V = {V}; got values from {low} to {high}")
