"""RMS norm with an output gate, as in Gated DeltaNet (arXiv 2412.06464) and Mamba-2 (arXiv 2405.21060)."""

from typing import Literal

import torch
from torch import Tensor

from asi_lab.kernels.common import check_eps, check_tensors, choose
from asi_lab.kernels.foreign import drop_in
from asi_lab.kernels.gated_rms_norm.fused import fused_gated_rms_norm
from asi_lab.kernels.gated_rms_norm.naive import naive_gated_rms_norm


@drop_in
def gated_rms_norm(
    x: Tensor,
    gate: Tensor,
    weight: Tensor | None = None,
    eps: float = 1e-5,
    activation: Literal["silu", "swish", "sigmoid"] = "silu",
    norm_before_gate: bool = True,
    *,
    implementation: Literal["auto", "naive", "fused", "triton"] = "auto",
) -> Tensor:
    """`rms_norm(x) * weight * act(gate)` over the last dimension, with act by `activation`.

    x and gate are `[..., D]`, weight `[D]` or None; the result has the shape and dtype of x. Without
    `norm_before_gate` the gate comes first, `rms_norm(x * act(gate)) * weight`, as in Mamba-2. "swish" is
    another word for "silu". Takes the keywords of flash-linear-attention's `rms_norm_gated` and `rmsnorm_fn`
    too, or says what to do instead (`kernels.foreign`); their eps is 1e-6 by default. Raises ValueError for
    what is no tensor and for arguments that do not fit.
    """
    check_tensors(x=x, gate=gate, **{} if weight is None else {"weight": weight})
    if x.dim() == 0 or x.numel() == 0:
        raise ValueError(f"x must be [..., D] and not empty, got {list(x.shape)}")
    if gate.shape != x.shape:
        raise ValueError(f"gate must have the shape of x, {list(x.shape)}, got {list(gate.shape)}")
    if weight is not None and weight.shape != x.shape[-1:]:
        raise ValueError(f"weight must be [D] = {list(x.shape[-1:])}, got {list(weight.shape)}")
    check_eps(eps)
    if activation not in ("silu", "swish", "sigmoid"):
        raise ValueError(f"activation must be 'silu' or 'sigmoid', got {activation!r}")
    form = choose(implementation, x, ("naive", "fused", "triton"), cpu="fused", gpu="triton")
    silu = activation != "sigmoid"
    with torch.autocast(x.device.type, enabled=False):
        if form == "naive":
            return naive_gated_rms_norm(x, gate, weight, eps, silu, norm_before_gate)
        if form == "fused":
            return fused_gated_rms_norm(x, gate, weight, eps, silu, norm_before_gate)
        from asi_lab.kernels.norms.triton import triton_norm

        return triton_norm(x, weight, eps, x.shape[-1], gate, silu, norm_before_gate)
