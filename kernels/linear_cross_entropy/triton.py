"""Cross-entropy of a chunk of logits and its gradient in place, in one Triton kernel."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from asi_lab.kernels.common import compute_dtype


@triton.jit
def cross_entropy_kernel(
    logits_ptr,
    target_ptr,
    counted_ptr,
    loss_ptr,
    width,
    V,
    SOFTCAP: tl.constexpr,
    GRADIENT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program is one token. Its row is read twice, the second time from the L2 cache.

    Masks are by `width`, the distance between rows: it divides by 16 where V does not, which loads and stores
    of 16 bytes need. What lies between V and `width` is read and overwritten, and has no effect. Each lane
    sums exponentials of its own, so that a block costs one reduction, that of the maximum.
    """
    row = tl.program_id(0)
    exact = tl.float64 if logits_ptr.dtype.element_ty == tl.float64 else tl.float32
    logits_ptr += row.to(tl.int64) * width
    columns = tl.arange(0, BLOCK)
    if tl.load(counted_ptr + row) == 0:
        tl.store(loss_ptr + row, 0.0)
        if GRADIENT:
            for start in range(0, width, BLOCK):
                tl.store(logits_ptr + start + columns, tl.zeros([BLOCK], exact), start + columns < width)
        return

    target = tl.load(target_ptr + row)
    # Read before the first reduction: every thread must have it before one replaces it by its gradient.
    of_target = tl.load(logits_ptr + target, (target >= 0) & (target < V), float("nan")).to(exact)
    if SOFTCAP is not None:
        of_target = SOFTCAP * _tanh(of_target / SOFTCAP)
    highest = tl.full([], -3e38, exact)  # finite, so that a block of nothing but -inf adds nothing
    sums = tl.zeros([BLOCK], exact)
    for start in range(0, width, BLOCK):
        z = tl.load(logits_ptr + start + columns, start + columns < width, 0.0).to(exact)
        if SOFTCAP is not None:
            z = SOFTCAP * _tanh(z / SOFTCAP)
        z = tl.where(start + columns < V, z, float("-inf"))
        before = highest
        highest = tl.maximum(highest, tl.max(z, 0))
        sums = sums * tl.exp(before - highest) + tl.exp(z - highest)
    log_sum = highest + tl.log(tl.sum(sums, 0))
    tl.store(loss_ptr + row, log_sum - of_target)
    if GRADIENT:
        for start in range(0, width, BLOCK):
            z = tl.load(logits_ptr + start + columns, start + columns < width, 0.0).to(exact)
            slope = tl.full([BLOCK], 1.0, exact)
            if SOFTCAP is not None:
                bounded = _tanh(z / SOFTCAP)
                z = SOFTCAP * bounded
                slope = 1.0 - bounded * bounded
            d = tl.exp(z - log_sum)
            d = tl.where(start + columns == target, d - 1.0, d) * slope
            tl.store(logits_ptr + start + columns, d, start + columns < width)


@triton.jit
def _tanh(z):
    """Without overflow: no exponential of a positive number."""
    e = tl.exp(-2.0 * tl.abs(z))
    t = (1.0 - e) / (1.0 + e)
    return tl.where(z < 0, -t, t)


def triton_loss_and_gradient(
    logits: Tensor, target: Tensor, counted: Tensor, softcap: float | None, gradient: bool
) -> Tensor:
    """The form of `chunk.Differentiate` in one launch, with float32 arithmetic (float64 for float64).

    Rows may lie further apart than they are long; what is between them is overwritten.
    """
    loss = torch.empty(len(logits), dtype=compute_dtype(logits), device=logits.device)
    width = logits.stride(0)
    # 16 elements a thread and block: two vectors of 16 bytes in bfloat16.
    BLOCK = min(8192, triton.next_power_of_2(width))
    cross_entropy_kernel[(len(logits),)](
        logits,
        target,
        counted,
        loss,
        width,
        logits.shape[1],
        SOFTCAP=softcap,
        GRADIENT=gradient,
        BLOCK=BLOCK,
        num_warps=max(1, BLOCK // 512),
    )
    return loss
