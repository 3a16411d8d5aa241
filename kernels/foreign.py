"""Keywords of flash-linear-attention and mamba_ssm that our functions do not have themselves.

Code written for those libraries calls ours with them. `DIALECTS` says for each function of ours what becomes
of each such keyword, `drop_in` makes a function keep to it. A keyword is

    accepted    it tunes their kernels or repeats what another argument says: no value changes the result
    translated  into arguments of ours, or into something done with the result
    refused     with a ValueError that says what to do instead, unless its value asks for nothing

and one that is not in the table is a TypeError, as everywhere in Python. `benchmarks/signatures.py` holds the
table against the signatures of the flash-linear-attention that is installed.
"""

from collections.abc import Callable, Mapping
from functools import wraps
from inspect import signature
from typing import Any, Literal, NamedTuple, ParamSpec, TypeVar, cast

import torch
from torch import Tensor
from torch.nn import functional

from asi_lab.kernels.common import check_tensors, compute_dtype, describe
from asi_lab.kernels.packing import after_earlier, last_tokens

P = ParamSpec("P")
R = TypeVar("R")
Call = dict[str, Any]
"""Arguments of a call by the names that our function has for them."""
After = Callable[[Any], Any]
"""What is still to be done with the result of a call."""


class Keyword(NamedTuple):
    """What becomes of a keyword: its kind and, for people, what that means or what to do instead.

    `nothing` are the values of a refused one that ask for nothing. `translate` takes the call, which it
    changes or checks, and all keywords that share it as far as they are given.
    """

    kind: Literal["accepted", "translated", "refused"]
    what: str
    nothing: tuple[object, ...] = ()
    translate: Callable[..., After | None] | None = None


Dialect = dict[str, Keyword]


def drop_in(function: Callable[P, R]) -> Callable[P, R]:
    """`function`, which now also takes the keywords of its dialect.

    Raises, when called:
        ValueError: a keyword asks for what we do not do, or does not fit.
        TypeError: nobody knows the keyword.
    """
    name, own, ours = function.__name__, signature(function), cast(Callable[..., Any], function)
    dialect = DIALECTS[name]

    @wraps(function)
    def understand(*args: P.args, **keywords: P.kwargs) -> R:
        foreign = {word: value for word, value in keywords.items() if word not in own.parameters}
        if not foreign:
            return function(*args, **keywords)
        known = {word: value for word, value in keywords.items() if word not in foreign}
        call: Call = dict(own.bind_partial(*args, **known).arguments)
        afters = _translate(name, dialect, foreign, call)
        result = ours(**call)
        for after in afters:
            result = after(result)
        return cast(R, result)

    return understand


def _translate(name: str, dialect: Dialect, foreign: Mapping[str, Any], call: Call) -> list[After]:
    """Check all foreign keywords, translate `call` in the dialect's order; what to do with the result."""
    for word, value in foreign.items():
        if word not in dialect:
            raise TypeError(f"{name}() got an unexpected keyword argument {word!r}")
        known = dialect[word]
        if known.kind == "refused" and not _asks_nothing(value, known.nothing):
            wanted = " or ".join(map(repr, known.nothing)) or "left out"
            raise ValueError(f"{word} of {name} must be {wanted}, got {_shown(value)}; instead, {known.what}")
    afters, done = [], set()
    for known in dialect.values():
        if known.translate is None or known.translate in done:
            continue
        done.add(known.translate)
        words = [word for word, other in dialect.items() if other.translate is known.translate]
        given = {word: foreign[word] for word in words if word in foreign}
        after = known.translate(call, **given) if given else None
        if after is not None:
            afters.append(after)
    return afters


def _asks_nothing(value: Any, nothing: tuple[object, ...]) -> bool:
    return any(value is one or (not torch.is_tensor(value) and value == one) for one in nothing)


def _shown(value: Any) -> str:
    return repr(value) if isinstance(value, bool | int | float | str | tuple) else describe(value)


def _renamed(ours: str) -> Callable[..., None]:
    def rename(call: Call, **given: Any) -> None:
        """One word for another."""
        for word, value in given.items():
            if ours in call:
                raise TypeError(f"{word} is another word for {ours}: give one of them")
            call[ours] = value

    return rename


def _check_bounds(call: Call, *, cu_seqlens_cpu: Any = None, chunk_indices: Any = None) -> None:
    """What is derived from `cu_seqlens` comes with it."""
    for word, value in (("cu_seqlens_cpu", cu_seqlens_cpu), ("chunk_indices", chunk_indices)):
        if value is not None and call.get("cu_seqlens") is None:
            raise ValueError(f"{word} repeats what cu_seqlens says, which is missing; give cu_seqlens")


def _squash_beta(
    call: Call, *, use_beta_sigmoid_in_kernel: bool = False, allow_neg_eigval: bool = False
) -> None:
    """beta from its logits, up to 2 where eigenvalues may be negative."""
    if allow_neg_eigval and not use_beta_sigmoid_in_kernel:
        raise ValueError(
            "allow_neg_eigval doubles the sigmoid of use_beta_sigmoid_in_kernel=True, which is missing; "
            "a beta that is no logit may be up to 2 by itself"
        )
    if use_beta_sigmoid_in_kernel:
        check_tensors(beta=call.get("beta"))
        beta = call["beta"].to(compute_dtype(call["beta"])).sigmoid()
        call["beta"] = 2 * beta if allow_neg_eigval else beta


def _gate(
    call: Call,
    *,
    use_gate_in_kernel: bool = False,
    A_log: Tensor | None = None,
    dt_bias: Tensor | None = None,
    lower_bound: float | None = None,
    safe_gate: bool = False,
) -> None:
    """The log-decay g from what a layer projects: `-exp(A_log) softplus(g + dt_bias)`, or, between
    `lower_bound` and 0, `lower_bound sigmoid(exp(A_log) (g + dt_bias))`; an A_log a head, a bias a decay."""
    if not use_gate_in_kernel:
        return
    check_tensors(g=call.get("g"))
    g = call["g"].to(compute_dtype(call["g"]))
    if dt_bias is not None:
        g = g + _one_each("dt_bias", dt_bias, g.shape[2:]).to(g.dtype)
    rate: Tensor | float = 1.0
    if A_log is not None:
        heads = (g.shape[2], *[1] * (g.dim() - 3))
        rate = _one_each("A_log", A_log, heads).to(g.dtype).exp()
    if lower_bound is None and (A_log is None or safe_gate):
        missing = "lower_bound" if safe_gate else "A_log"
        raise ValueError(f"use_gate_in_kernel=True needs {missing}, got None")
    if lower_bound is not None and not lower_bound < 0:
        raise ValueError(f"lower_bound must be negative, the least logarithm of a decay, got {lower_bound}")
    call["g"] = -rate * functional.softplus(g) if lower_bound is None else lower_bound * (rate * g).sigmoid()


def _one_each(name: str, x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """x in that shape, if it has as many elements."""
    check_tensors(**{name: x})
    if x.numel() != torch.Size(shape).numel():
        wanted = torch.Size(shape).numel()
        raise ValueError(f"{name} must have {wanted} elements, {list(shape)}, got {list(x.shape)}")
    return x.reshape(shape)


def _add_decays(call: Call, *, gk: Tensor | None = None, g_gamma: Tensor | None = None) -> None:
    """All log-decays in one: g `[B, T, H]`, gk `[B, T, H, K]`, g_gamma `[H]`."""
    g = call.get("g")
    if g_gamma is not None:
        check_tensors(v=call.get("v"))
        heads = call["v"].shape[:3]
        g_gamma = _one_each("g_gamma", g_gamma, heads[2:]).expand(heads)
        g = g_gamma if g is None else g + (g_gamma.unsqueeze(-1) if g.dim() == 4 else g_gamma)
    if gk is not None:
        check_tensors(gk=gk)
        g = gk if g is None else gk + (g if g.dim() == gk.dim() else g.unsqueeze(-1))
    call["g"] = g


def _slopes(call: Call, *, layer_idx: int | None = None, num_layers: int | None = None) -> None:
    """The decays of lightning attention, weaker in later layers and none in the first head."""
    if layer_idx is None or num_layers is None:
        raise ValueError("layer_idx and num_layers make the decay together; give both")
    check_tensors(v=call.get("v"))
    v = call["v"]
    heads = torch.arange(v.shape[2], dtype=compute_dtype(v), device=v.device)
    slopes = -8 / v.shape[2] * (1 - layer_idx / num_layers) * heads
    _add_decays(call, g_gamma=slopes)


def _turn_states(
    call: Call, *, state_v_first: bool = False, transpose_state_layout: bool = False
) -> After | None:
    """States as `[N, H, V, K]`."""
    if not (state_v_first or transpose_state_layout):
        return None
    if call.get("initial_state") is not None:
        check_tensors(initial_state=call["initial_state"])
        call["initial_state"] = call["initial_state"].mT
    return lambda result: (result[0], None if result[1] is None else result[1].mT)


def _carry_inputs(
    call: Call,
    *,
    residual: Tensor | None = None,
    initial_state: Tensor | None = None,
    output_final_state: bool = False,
) -> After | None:
    """The convolution goes on after the inputs `[N, D, W]` of before, and hands on its own last ones."""
    check_tensors(x=call.get("x"), weight=call.get("weight"))
    x, W, bounds = call["x"], call["weight"].shape[-1], call.get("cu_seqlens")
    if residual is not None:
        check_tensors(residual=residual)
        if residual.shape != x.shape:
            raise ValueError(f"residual must be as x, {list(x.shape)}, got {list(residual.shape)}")
    own: slice | Tensor = slice(None)
    if initial_state is not None:
        check_tensors(initial_state=initial_state)
        call["x"], call["cu_seqlens"], own = after_earlier(x, initial_state, W, bounds)

    def after(y: Tensor) -> Any:
        y = y[:, own]
        if residual is not None:
            y = y + residual.to(y.dtype)
        return (y, last_tokens(x, initial_state, W, bounds)) if output_final_state else y

    return after


def _add_residual(call: Call, *, residual: Tensor | None = None) -> After | None:
    """Added to the output of a step."""
    if residual is None:
        return None
    check_tensors(residual=residual)
    return lambda result: (result[0] + residual.to(result[0].dtype), result[1])


def _accepted(words: str, what: str, check: Callable[..., None] | None = None) -> Dialect:
    return {word: Keyword("accepted", what, translate=check) for word in words.split()}


def _refused(words: str, what: str, *nothing: object) -> Dialect:
    return {word: Keyword("refused", what, nothing) for word in words.split()}


def _translated(words: str, what: str, translate: Callable[..., After | None]) -> Dialect:
    return {word: Keyword("translated", what, translate=translate) for word in words.split()}


_ROWS: Dialect = {
    **_refused("head_first", "transpose to `[B, T, H, ...]`", False, None),
    **_accepted(
        "cu_seqlens_cpu chunk_indices", "beside `cu_seqlens`, whose values it repeats", _check_bounds
    ),
    **_refused("cp_context", "give one device whole sequences", None),
}
_RECURRENCE: Dialect = {
    **_ROWS,
    **_refused("reverse", "flip the tokens of inputs and output: `x.flip(1)`", False),
    **_refused("output_attentions", "go without: no matrix of all pairs is ever made", False),
    **_translated("state_v_first transpose_state_layout", "states are `[N, H, V, K]`", _turn_states),
}
_BETA: Dialect = _translated(
    "use_beta_sigmoid_in_kernel allow_neg_eigval", "beta becomes `sigmoid(beta)`, or twice that", _squash_beta
)
_GATE: Dialect = _translated(
    "use_gate_in_kernel A_log dt_bias", "g becomes `-exp(A_log) softplus(g + dt_bias)`", _gate
)
_NO_GV: Dialect = _refused("gv", "take a decay of key channels: value channels have none of their own", None)
_TUNING = "it tunes their kernel"
_RESIDUAL: Dialect = {
    **_refused("bias", "add it to the result", None),
    **_refused("residual", "add it to x before the call", None),
    **_refused("prenorm", "keep the sum of x and the residual yourself", False),
    **_accepted("residual_in_fp32", "there is no residual"),
}
_DELTA: Dialect = _RECURRENCE | _BETA
_LINEAR: Dialect = {
    **_RECURRENCE,
    **_NO_GV,
    **_translated("gk g_gamma", "added to g", _add_decays),
    **_translated("layer_idx num_layers", "g is lightning attention's, `-8 (1 - idx / num) h / H`", _slopes),
}

DIALECTS: Mapping[str, Dialect] = {
    "delta_rule": _DELTA,
    "gated_delta_rule": {
        **_DELTA,
        **_GATE,
        **_refused("gk", "call `kda`, whose g `[B, T, H, K]` decays key channels", None),
        **_NO_GV,
    },
    "kda": {
        **_DELTA,
        **_GATE,
        **_translated("lower_bound safe_gate", "g stays between lower_bound and 0", _gate),
        **_accepted("disable_recompute use_graph max_num_seqs", _TUNING),
        **_refused("return_intermediate_states", "call it for each part, with the state handed on", False),
    },
    "dplr_delta_rule": {
        **_RECURRENCE,
        **_translated("gk", "g", _renamed("g")),
        **_refused("r w", "call with `q=r, g=w` and RWKV-7's `scale=1.0`"),
        **_refused("kk", "call with `a=-kk, b=kk * a`"),
        **_accepted("safe_gate lower_bound disable_recompute", _TUNING),
    },
    "linear_attention": _LINEAR,
    "retention": _RECURRENCE,
    "ssd": {
        **_refused("z", "multiply y by `silu(z)`, or call `gated_rms_norm`", None),
        **_refused("seq_idx", "give the bounds of the sequences as `cu_seqlens`", None),
        **_refused("dt_limit", "clamp dt before the call", (0.0, float("inf")), None),
        **_refused("return_varlen_states", "read them from `return_final_states`", False),
    },
    "short_convolution": {
        **_ROWS,
        **_translated("residual", "added to the result", _carry_inputs),
        **_translated("initial_state", "the last W inputs before x, `[N, D, W]`", _carry_inputs),
        **_translated("output_final_state", "returns y and the last W inputs `[N, D, W]`", _carry_inputs),
        **_accepted("backend", _TUNING),
        **_refused("seq_idx", "give the bounds of the sequences as `cu_seqlens`", None),
    },
    "short_convolution_step": _translated("residual", "added to the result", _add_residual),
    "rms_norm": _RESIDUAL,
    "l2_norm": _refused("output_dtype", "cast x before the call, or the result", None),
    "gated_rms_norm": {
        **_translated("g z", "gate", _renamed("gate")),
        **_RESIDUAL,
        **_refused(
            "group_size", "split x and gate, `x.unflatten(-1, (-1, group_size))`, and weigh after", None
        ),
    },
    "linear_cross_entropy": {
        **_refused("label_smoothing", "train on the targets as they are", 0.0),
        **_refused("logit_scale", "scale x, and the bias", 1.0),
        **_refused("use_l2warp", "penalise the logits in the loss", False),
        **_refused("process_group", "give one device all of the vocabulary", None),
        **_accepted("num_chunks l2_penalty_factor accumulate_grad_in_fp32", _TUNING),
    },
}
"""Of each function of ours: the keywords of others' that it does not have, and what becomes of them."""
