"""What every recurrence does around its own rule: pick a form, part packed sequences, shut autocast out."""

import importlib.util
from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from asi_lab.kernels.common import check_shapes, check_tensors, choose, first_state
from asi_lab.kernels.norms import l2_norm
from asi_lab.kernels.packing import Packing

Implementation = Literal["auto", "naive", "chunk", "fla"]


class Forms(NamedTuple):
    """The functions that compute a rule. Each takes what the rule takes of a token (`q, k, v, ...`,
    `[B, T, ...]`), `scale` and `initial_state`, and returns o and the last state.

    `chunk` also takes the size of a chunk; zeros after the last token must leave its state alone. `fla` also
    takes `output_final_state` and `cu_seqlens`, and keys of at most `fla_widest` channels.
    """

    naive: Callable[..., tuple[Tensor, Tensor]]
    chunk: Callable[..., tuple[Tensor, Tensor]]
    fla: Callable[..., tuple[Tensor, Tensor | None]]
    fla_widest: float = 256


def pick_form(forms: Forms, implementation: str, k: Tensor, v: Tensor, cu_seqlens: Tensor | None) -> str:
    """The form that shall run.

    Under "auto" flash-linear-attention runs bfloat16 and float16 on a GPU. Its kernels do not keep the
    precision of float32 (or refuse it), so that goes to "chunk", as everything does on a CPU; but a single
    token, a step of decoding, goes to "naive".
    """
    fast = "naive" if v.shape[1] == 1 and cu_seqlens is None else "chunk"
    half = v.dtype in (torch.bfloat16, torch.float16)
    gpu = "fla" if half and k.shape[-1] <= forms.fla_widest and _has_fla() else fast
    return choose(implementation, v, ("naive", "chunk", "fla"), cpu=fast, gpu=gpu)


def recur(
    forms: Forms,
    form: str,
    tokens: Sequence[Any],
    scale: float,
    initial_state: Tensor | None,
    output_final_state: bool,
    cu_seqlens: Tensor | None,
    chunk_size: int | None,
) -> tuple[Tensor, Tensor | None]:
    """o `[B, T, H, V]` and the last state, None unless asked for, by the form that was picked.

    Packed sequences are a loop for "naive", rows of a batch for "chunk"; "fla" looks into `cu_seqlens`
    itself, where no check of its values makes the host wait for the GPU.
    """
    v = tokens[2]
    with torch.autocast(v.device.type, enabled=False):
        if form == "fla":
            o, state = forms.fla(*tokens, scale, initial_state, output_final_state, cu_seqlens)
        elif cu_seqlens is None and form == "naive":
            o, state = forms.naive(*tokens, scale, initial_state)
        elif cu_seqlens is None:
            o, state = forms.chunk(*tokens, scale, initial_state, chunk_size)
        elif form == "naive":
            o, state = _one_by_one(forms, tokens, scale, initial_state, cu_seqlens)
        else:
            packing = Packing(cu_seqlens, v.shape[1])
            rows = [None if x is None else packing.unpack(x) for x in tokens]
            o, state = forms.chunk(*rows, scale, initial_state, chunk_size)
            o = packing.pack(o)
    return o, state if output_final_state else None


def recur_delta(
    forms: Forms,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: tuple[Tensor, ...],
    beta: Tensor | None,
    scale: float | None,
    initial_state: Tensor | None,
    output_final_state: bool,
    use_qk_l2norm_in_kernel: bool,
    cu_seqlens: Tensor | None,
    implementation: str,
    chunk_size: int | None,
    *,
    channels: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """What the delta rules have in common, from the check of their arguments on; shapes as in `delta_rule`.

    `g` is empty or one log-decay `[B, T, HV]`, with `channels` `[B, T, HV, K]`. Queries and keys of H heads
    serve HV / H heads of values in a row each. A beta for each value channel, shaped as v, makes every
    channel a memory of its own with one value.
    """
    check_tensors(q=q, k=k, v=v)
    q, k = _to_heads(q, k, v)
    check_shapes(q, k, v, initial_state, cu_seqlens)
    beta = torch.ones_like(v[..., 0]) if beta is None else beta
    check_tensors(beta=beta)
    if use_qk_l2norm_in_kernel:
        q, k = l2_norm(q), l2_norm(k)
    shape, letters = (k.shape, "[B, T, H, K]") if channels else (k.shape[:3], "[B, T, H]")
    for decay in g:
        check_tensors(g=decay)
        if decay.shape != shape:
            raise ValueError(f"g must be {letters} = {list(shape)}, got {list(decay.shape)}")
    apart = beta.shape == v.shape
    if apart:
        q, k, *g_apart = (x.repeat_interleave(v.shape[3], 2) for x in (q, k, *g))
        tokens = (q, k, v.flatten(2).unsqueeze(-1), *g_apart, beta.flatten(2))
        initial_state = None if initial_state is None else initial_state.mT.flatten(1, 2).unsqueeze(-1)
    else:
        check_shapes(q, k, v, None, cu_seqlens, beta=beta)
        tokens = (q, k, v, *g, beta)
    scale = k.shape[-1] ** -0.5 if scale is None else scale
    form = pick_form(forms, implementation, k, tokens[2], cu_seqlens)
    o, state = recur(forms, form, tokens, scale, initial_state, output_final_state, cu_seqlens, chunk_size)
    if apart:
        o = o.reshape(v.shape)
        state = None if state is None else state.reshape(-1, *v.shape[2:], k.shape[-1]).mT
    return o, state


def _to_heads(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """q and k with each head as often as v has heads for it, or as they are where that is not even."""
    if not (q.dim() == v.dim() == 4 and k.shape == q.shape and 0 not in q.shape):
        return q, k
    share, rest = divmod(v.shape[2], q.shape[2])
    return (q, k) if rest or share < 2 else (q.repeat_interleave(share, 2), k.repeat_interleave(share, 2))


def _one_by_one(
    forms: Forms, tokens: Sequence[Any], scale: float, initial_state: Tensor | None, cu_seqlens: Tensor
) -> tuple[Tensor, Tensor]:
    _, k, v, *_ = tokens
    outputs, states = [], []
    for n, (start, end) in enumerate(pairwise(Packing(cu_seqlens, v.shape[1]).bounds)):
        own = [None if x is None else x[:, start:end] for x in tokens]
        state = first_state(None if initial_state is None else initial_state[n : n + 1], k, v)
        if start < end:
            o, state = forms.naive(*own, scale, state)
            outputs.append(o)
        states.append(state)
    return torch.cat(outputs, 1), torch.cat(states)


@cache
def _has_fla() -> bool:
    return importlib.util.find_spec("fla") is not None
