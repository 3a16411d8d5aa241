"""The chunked delta rule: the gated one without decay."""

from torch import Tensor

from asi_lab.kernels.gated_delta_rule.chunk import chunk_delta_rule as _chunk


def chunk_delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    scale: float,
    initial_state: Tensor | None,
    chunk_size: int | None,
) -> tuple[Tensor, Tensor]:
    """Shapes as in `delta_rule`.

    Returns o `[B, T, H, V]` in the dtype of v and the last state `[B, H, K, V]` in the compute dtype.
    """
    return _chunk(q, k, v, None, beta, scale, initial_state, chunk_size)
