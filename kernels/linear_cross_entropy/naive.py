"""Linear layer and cross-entropy by their formulas: the readable truth."""

import torch
from torch import Tensor

from asi_lab.kernels.common import compute_dtype


def naive_linear_cross_entropy(
    x: Tensor,
    target: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    counted: Tensor,
    count: Tensor | None,
    softcap: float | None,
) -> Tensor:
    """`logsumexp(logits) - logits[target]`, summed over the tokens that are `counted`, over `count` if given.

    x is `[N, D]`, target and counted (bool) `[N]`; all logits are in memory, in the compute dtype.
    """
    dtype = compute_dtype(x)
    logits = x.to(dtype) @ weight.to(dtype).t()
    if bias is not None:
        logits = logits + bias.to(dtype)
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    of_target = logits.gather(1, target.where(counted, 0)[:, None]).squeeze(1)
    total = (torch.logsumexp(logits, 1) - of_target).where(counted, 0).sum()
    return total if count is None else total / count
