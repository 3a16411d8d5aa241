"""The kernels of flash-linear-attention behind the forms "fla": for bfloat16 and float16 on a GPU.

Each function takes what the rule takes of a token, then `scale`, `initial_state`, `output_final_state` and
`cu_seqlens`, shapes as in the rule's public function. A single token that needs no gradient goes to the
kernel that steps through the tokens, all else to the chunked one.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from asi_lab.kernels.decay import MIN_LOG_DECAY

MIN_LOG_DECAY_DPLR = -5.5
"""Their kernel takes the exponentials of all pairs in a chunk of 16 tokens, also of those that it masks
later: 15 times 5.5 is as much as float32 bears. exp(-5.5) is what bfloat16 rounds off."""

Result = tuple[Tensor, Tensor | None]


def fla_delta_rule(q: Tensor, k: Tensor, v: Tensor, beta: Tensor, *rest: Any) -> Result:
    """The delta rule."""
    from fla.ops.delta_rule import chunk_delta_rule, fused_recurrent_delta_rule

    return _call(chunk_delta_rule, fused_recurrent_delta_rule, q, k, v, {"beta": beta}, *rest)


def fla_gated_delta_rule(q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, *rest: Any) -> Result:
    """The gated delta rule."""
    from fla.ops.gated_delta_rule import chunk_gated_delta_rule, fused_recurrent_gated_delta_rule

    gates = {"g": _cut(g), "beta": beta}
    return _call(chunk_gated_delta_rule, fused_recurrent_gated_delta_rule, q, k, v, gates, *rest)


def fla_kda(q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, *rest: Any) -> Result:
    """The delta rule with a decay a channel."""
    from fla.ops.kda import chunk_kda, fused_recurrent_kda

    return _call(chunk_kda, fused_recurrent_kda, q, k, v, {"g": _cut(g), "beta": beta}, *rest)


def fla_dplr_delta_rule(
    q: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, g: Tensor | None, *rest: Any
) -> Result:
    """The delta rule with a transition that is diagonal plus low rank; a token keeps at least exp(-5.5)."""
    from fla.ops.generalized_delta_rule import chunk_dplr_delta_rule, fused_recurrent_dplr_delta_rule

    if g is None:
        g = torch.zeros_like(k)
    gk = _cut(g if g.dim() == 4 else g.unsqueeze(-1), MIN_LOG_DECAY_DPLR).expand(k.shape)
    gates = {"a": a.to(v.dtype), "b": b.to(v.dtype), "gk": gk.contiguous()}
    return _call(chunk_dplr_delta_rule, fused_recurrent_dplr_delta_rule, q, k, v, gates, *rest)


def fla_linear_attention(q: Tensor, k: Tensor, v: Tensor, g: Tensor | None, *rest: Any) -> Result:
    """Linear attention without decay, with one a head, or with one a channel."""
    if g is not None and g.dim() == 4:
        from fla.ops.gla import chunk_gla, fused_recurrent_gla

        def step(g: Tensor, **others: Any) -> Result:
            result: Result = fused_recurrent_gla(gk=g, **others)
            return result

        return _call(chunk_gla, step, q, k, v, {"g": _cut(g)}, *rest)
    from fla.ops.simple_gla import chunk_simple_gla, fused_recurrent_simple_gla

    gates = {} if g is None else {"g": _cut(g)}
    return _call(chunk_simple_gla, fused_recurrent_simple_gla, q, k, v, gates, *rest)


def fla_retention(q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> Result:
    """Retention."""
    from fla.ops.retention import chunk_retention, fused_recurrent_retention

    return _call(chunk_retention, fused_recurrent_retention, q, k, v, {}, *rest)


def _cut(g: Tensor, least: float = MIN_LOG_DECAY) -> Tensor:
    """Log-decays in float32, none so low that cumulative sums lose the others, or that -inf becomes NaN."""
    return g.float().clamp(min=least)


def _call(
    chunk: Callable[..., Result],
    step: Callable[..., Result],
    q: Tensor,
    k: Tensor,
    v: Tensor,
    gates: dict[str, Tensor],
    scale: float,
    initial_state: Tensor | None,
    output_final_state: bool,
    cu_seqlens: Tensor | None,
) -> Result:
    if v.dtype not in (torch.bfloat16, torch.float16):
        raise ValueError(f"implementation 'fla' needs v in bfloat16 or float16, got {v.dtype}; take 'chunk'")
    sequences = 1 if cu_seqlens is None else len(cu_seqlens) - 1
    inputs = [q, k, v, initial_state, *gates.values()]
    needs_gradient = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in inputs)
    stepwise = v.shape[1] <= sequences and not needs_gradient
    arguments: dict[str, Any] = {
        "q": q.to(v.dtype),
        "k": k.to(v.dtype),
        "v": v,
        "scale": scale,
        "initial_state": None if initial_state is None else initial_state.float(),
        "output_final_state": output_final_state,
        "cu_seqlens": None if cu_seqlens is None else cu_seqlens.long(),
    }
    return (step if stepwise else chunk)(**arguments, **gates)
