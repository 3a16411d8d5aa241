"""The whole prologue on a GPU, one launch a direction: see `short_convolution.triton`."""

from torch import Tensor

from asi_lab.kernels.norms.fused import fused_norm
from asi_lab.kernels.short_convolution.triton import LONGEST, triton_short_convolution, walk


def triton_qkv_convolution(
    qkv: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    heads: int,
    key_dim: int,
    silu: bool,
    eps: float,
    cu_seqlens: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Shapes as in `qkv_convolution`."""
    shape = (*qkv.shape[:2], heads, -1)
    if weight.shape[1] <= LONGEST:
        q, k, v = walk(qkv, weight, bias, silu, cu_seqlens, heads, key_dim, eps)
        return q.view(shape), k.view(shape), v.view(shape)
    y = triton_short_convolution(qkv, weight, bias, silu, cu_seqlens)
    keys = heads * key_dim
    q, k, v = (part.reshape(shape) for part in (y[..., :keys], y[..., keys : 2 * keys], y[..., 2 * keys :]))
    return fused_norm(q, None, eps, 1), fused_norm(k, None, eps, 1), v
