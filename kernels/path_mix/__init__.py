"""Routing over parallel paths, as in the architectures that ASI-ARCH found (arXiv 2507.18074)."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from asi_lab.kernels.common import check_list, check_tensors, choose
from asi_lab.kernels.path_mix.fused import fused_path_mix
from asi_lab.kernels.path_mix.naive import naive_path_mix

MAX_PATHS = 16


def path_mix(
    paths: Sequence[Tensor],
    logits: Tensor,
    *,
    routing: Literal["softmax", "sigmoid", "hierarchical"] = "softmax",
    groups: Sequence[int] | None = None,
    temperature: Tensor | float = 1.0,
    floor: Tensor | float = 0.0,
    implementation: Literal["auto", "naive", "fused", "triton"] = "auto",
) -> tuple[Tensor, Tensor, Tensor]:
    """`o = sum_p w_p path_p`, with weights w from logits for every token, head and path.

    paths are n tensors `[B, T, H, V]`, 2 <= n <= 16, and logits `[B, T, H, n]`. By routing the share s is

    - "softmax": `softmax(logits / temperature)` over the paths;
    - "sigmoid": `sigmoid(logits / temperature)`, a gate of its own for every path;
    - "hierarchical": a softmax over groups of paths times a softmax inside the group. `groups` holds the
      sizes of at least two consecutive groups and logits are `[B, T, H, G + n]`, those of groups first.

    temperature is a number, `[H]` or `[B, T, H]`, greater than 0; values below 1e-6 count as 1e-6. floor is
    a number, `[H, n]` or `[B, T, H, n]`, the least weight of a path: `w = floor + (1 - sum(floor)) s`, where
    the floors of all paths should not sum to more than 1, and `w = floor + (1 - floor) s` for sigmoid gates.
    Tensors are not checked for that. An infinite logit opens or closes its path.

    Returns o `[B, T, H, V]` in the paths' dtype, w `[B, T, H, n]` and the entropy `[B, T, H]` in nats, both
    float32 (float64 for float64 paths) and differentiable as o is. The entropy is `-sum w log w`; for
    sigmoid gates, which do not sum to one, it is the sum of those of n independent choices to open a path,
    `-sum w log w + (1 - w) log(1 - w)`. Raises ValueError for arguments that do not fit.
    """
    _check(paths, logits, routing, groups, temperature, floor)
    form = choose(implementation, paths[0], ("naive", "fused", "triton"), cpu="fused", gpu="triton")
    sizes = None if groups is None else tuple(groups)
    arguments = (paths, logits, routing == "sigmoid", sizes, temperature, floor)
    with torch.autocast(logits.device.type, enabled=False):
        if form == "naive":
            return naive_path_mix(*arguments)
        if form == "fused":
            return fused_path_mix(*arguments)
        from asi_lab.kernels.path_mix.triton import triton_path_mix

        return triton_path_mix(*arguments)


def _check(
    paths: Sequence[Tensor],
    logits: Tensor,
    routing: str,
    groups: Sequence[int] | None,
    temperature: Tensor | float,
    floor: Tensor | float,
) -> None:
    check_list("paths", paths)
    check_tensors(logits=logits)
    n = len(paths)
    if not 2 <= n <= MAX_PATHS:
        raise ValueError(f"paths must be 2 to {MAX_PATHS} tensors, got {n}")
    shape = paths[0].shape
    for p, path in enumerate(paths):
        if path.dim() != 4 or path.shape != shape or 0 in shape:
            found = f"paths[{p}] is {list(path.shape)} and paths[0] {list(shape)}"
            raise ValueError(f"paths must all be [B, T, H, V], of one shape and not empty; {found}")
    if routing not in ("softmax", "sigmoid", "hierarchical"):
        raise ValueError(f"routing must be 'softmax', 'sigmoid' or 'hierarchical', got {routing!r}")
    if (groups is not None) != (routing == "hierarchical"):
        raise ValueError(f"groups must be given for hierarchical routing only; got {groups} for {routing}")
    if groups is not None and (len(groups) < 2 or min(groups) < 1 or sum(groups) != n):
        raise ValueError(f"groups must be two or more positive sizes that sum to n = {n}, got {list(groups)}")
    B, T, H, _ = shape
    scores = n if groups is None else len(groups) + n
    if logits.shape != (B, T, H, scores):
        what = "n" if groups is None else "G + n"
        raise ValueError(
            f"logits must be [B, T, H, {what}] = {[B, T, H, scores]} for {routing} routing, "
            f"got {list(logits.shape)}"
        )
    if isinstance(temperature, Tensor):
        if temperature.shape not in ((H,), (B, T, H)):
            raise ValueError(
                f"temperature must be a number, [H] = {[H]} or [B, T, H] = {[B, T, H]}, "
                f"got {list(temperature.shape)}"
            )
    elif not temperature > 0:
        raise ValueError(f"temperature must be greater than 0, got {temperature}")
    if isinstance(floor, Tensor):
        if floor.shape not in ((H, n), (B, T, H, n)):
            raise ValueError(
                f"floor must be a number, [H, n] = {[H, n]} or [B, T, H, n] = {[B, T, H, n]}, "
                f"got {list(floor.shape)}"
            )
    elif not 0 <= floor <= (1 if routing == "sigmoid" else 1 / n):
        most = "1 for sigmoid routing" if routing == "sigmoid" else f"1 / n, n = {n},"
        raise ValueError(f"floor must be at least 0 and at most {most} got {floor}")
