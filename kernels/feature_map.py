"""Feature maps of linear attention: what queries and keys become before they meet the memory.

The maps have no parameters; those that learn (Hedgehog's, for one) are a linear layer before one of these.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from asi_lab.kernels.common import check_tensors, compute_dtype


def feature_map(x: Tensor, name: str) -> Tensor:
    """`x`, queries or keys `[..., D]`, by one of the maps of `FEATURE_MAPS`, `[..., D']` in x's dtype.

    | name     | formula                            | D'                | values      | source           |
    |----------|------------------------------------|-------------------|-------------|------------------|
    | identity | x                                  | D                 | any         |                  |
    | relu     | max(x, 0)                          | D                 | at least 0  | arXiv 2103.13076 |
    | relu2    | max(x, 0)^2                        | D                 | at least 0  | arXiv 2109.08668 |
    | elu      | elu(x) + 1                         | D                 | above 0     | arXiv 2006.16236 |
    | softmax  | softmax of x                       | D                 | above 0     | arXiv 1812.01243 |
    | hedgehog | softmax of [x, -x]                 | 2 D               | above 0     | arXiv 2402.04347 |
    | dpfp     | r_i r_(i-1), r = relu of [x, -x]   | 2 D               | at least 0  | arXiv 2102.11174 |
    | taylor   | see below                          | 1 + D + D(D+1)/2  | any         | arXiv 2402.18668 |

    The softmax goes over the width; of 1812.01243, which takes it over the tokens for keys, this is the part
    that is causal. dpfp is the map with nu = 1; `r_(-1)` is the last of r. The inner product of two taylor
    maps is the expansion of exp to second order, `1 + s + s^2 / 2` with `s = x y / sqrt(D)`, which is above
    0: a 1, the `x_i / D^(1/4)`, the `x_i^2 / sqrt(2 D)` and the `x_i x_j / sqrt(D)` for i < j.

    Computed in float32 (float64 for float64). Raises ValueError for what is no tensor and for a name that is
    not there.
    """
    check_tensors(x=x)
    if name not in FEATURE_MAPS:
        names = ", ".join(f"'{known}'" for known in FEATURE_MAPS)
        raise ValueError(f"feature_map must be one of {names}; got {name!r}")
    return FEATURE_MAPS[name](x.to(compute_dtype(x))).to(x.dtype)


def _elu(x: Tensor) -> Tensor:
    # Not functional.elu(x) + 1, which rounds to 0 below -17 in float32.
    return torch.where(x > 0, x + 1, x.clamp(max=0).exp())


def _both_signs(x: Tensor) -> Tensor:
    return torch.cat((x, -x), -1)


def _dpfp(x: Tensor) -> Tensor:
    r = _both_signs(x).relu()
    return r * r.roll(1, -1)


def _taylor(x: Tensor) -> Tensor:
    D = x.shape[-1]
    x = x * D**-0.25
    i, j = torch.triu_indices(D, D, 1, device=x.device)
    return torch.cat((torch.ones_like(x[..., :1]), x, x.square() * 0.5**0.5, x[..., i] * x[..., j]), -1)


FEATURE_MAPS: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda x: x,
    "relu": torch.relu,
    "relu2": lambda x: x.relu().square(),
    "elu": _elu,
    "softmax": lambda x: functional.softmax(x, -1),
    "hedgehog": lambda x: functional.softmax(_both_signs(x), -1),
    "dpfp": _dpfp,
    "taylor": _taylor,
}
"""The maps by name: `[..., D]` to `[..., D']` in the same dtype."""
