"""Normalisation over the last dimension: root mean square (arXiv 1910.07467) and Euclidean."""

from typing import Literal

from torch import Tensor

from asi_lab.kernels.common import check_eps, check_tensors, choose
from asi_lab.kernels.foreign import drop_in
from asi_lab.kernels.norms.fused import fused_norm
from asi_lab.kernels.norms.naive import naive_norm

NormImplementation = Literal["auto", "naive", "fused", "triton"]


@drop_in
def rms_norm(
    x: Tensor,
    weight: Tensor | None = None,
    eps: float = 1e-5,
    *,
    implementation: NormImplementation = "auto",
) -> Tensor:
    """`weight * x / sqrt(mean(x^2) + eps)` over the last dimension.

    x is `[..., D]`, weight `[D]` or None; the result has the shape and dtype of x. Takes the keywords of
    flash-linear-attention's `rms_norm` too, or says what to do instead (`kernels.foreign`). Raises ValueError
    for what is no tensor and for a weight that does not fit.
    """
    _check(x, weight, eps)
    return _norm(x, weight, eps, x.shape[-1], implementation)


@drop_in
def l2_norm(x: Tensor, eps: float = 1e-6, *, implementation: NormImplementation = "auto") -> Tensor:
    """`x / sqrt(sum(x^2) + eps)` over the last dimension of x, `[..., D]`; keywords and errors as above."""
    _check(x, None, eps)
    return _norm(x, None, eps, 1, implementation)


def _check(x: Tensor, weight: Tensor | None, eps: float) -> None:
    check_tensors(x=x, **{} if weight is None else {"weight": weight})
    if x.dim() == 0:
        raise ValueError("x must be [..., D], got a scalar")
    if weight is not None and weight.shape != x.shape[-1:]:
        raise ValueError(f"weight must be [D] = {list(x.shape[-1:])}, got {list(weight.shape)}")
    check_eps(eps)


def _norm(
    x: Tensor, weight: Tensor | None, eps: float, count: int, implementation: NormImplementation
) -> Tensor:
    on_gpu = "triton" if x.numel() else "fused"  # nothing to launch for nothing
    form = choose(implementation, x, ("naive", "fused", "triton"), cpu="fused", gpu=on_gpu)
    if form == "triton":
        from asi_lab.kernels.norms.triton import triton_norm

        return triton_norm(x, weight, eps, count)
    return (fused_norm if form == "fused" else naive_norm)(x, weight, eps, count)
