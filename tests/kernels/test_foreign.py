"""Keywords of other libraries: those translated mean what they mean there, others are refused by name."""

import inspect
from itertools import pairwise

import pytest
import torch
from torch.nn import functional

from asi_lab import kernels
from asi_lab.kernels.foreign import DIALECTS

B, T, H, K, V = 2, 9, 2, 4, 3
BOUNDS = torch.tensor([0, 2, 2, 9])
DELTA_RULES = ["delta_rule", "gated_delta_rule", "kda"]
RECURRENCES = [*DELTA_RULES, "dplr_delta_rule", "linear_attention", "retention"]


def make(op, B=B, T=T, HV=H):
    inputs = {"q": torch.randn(B, T, H, K), "k": functional.normalize(torch.randn(B, T, H, K), dim=-1)}
    inputs["v"] = torch.randn(B, T, HV, V)
    gates = {
        "beta": torch.rand(B, T, HV),
        "g": -torch.rand(B, T, HV, *([K] if op in ("kda", "dplr_delta_rule") else [])),
        "a": -inputs["k"],
        "b": 0.5 * inputs["k"],
    }
    wanted = inspect.signature(getattr(kernels, op)).parameters
    return {name: x.double() for name, x in (inputs | gates).items() if name in wanted}


def call(op, inputs, **keywords):
    return getattr(kernels, op)(**inputs, **keywords)


def assert_equal(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)


VALID = {
    **{op: make(op) for op in RECURRENCES},
    "ssd": {
        "x": torch.randn(B, T, H, V),
        "dt": torch.rand(B, T, H),
        "A": -torch.rand(H),
        "B": torch.randn(B, T, 1, K),
        "C": torch.randn(B, T, 1, K),
    },
    "short_convolution": {"x": torch.randn(B, T, V), "weight": torch.randn(V, 3)},
    "short_convolution_step": {
        "x": torch.randn(B, V),
        "cache": torch.zeros(B, V, 3),
        "weight": torch.randn(V, 3),
    },
    "qkv_convolution": {
        "qkv": torch.randn(B, T, 2 * H * K + H * V),
        "weight": torch.randn(2 * H * K + H * V, 3),
        "num_heads": H,
        "key_dim": K,
    },
    "fir_bank": {"x": torch.randn(B, T, V), "weights": [torch.randn(V, 3)]},
    "path_mix": {"paths": 2 * [torch.randn(B, T, H, V)], "logits": torch.randn(B, T, H, 2)},
    "rms_norm": {"x": torch.randn(B, V), "weight": torch.ones(V)},
    "l2_norm": {"x": torch.randn(B, V)},
    "gated_rms_norm": {"x": torch.randn(B, V), "gate": torch.randn(B, V), "weight": torch.ones(V)},
    "linear_cross_entropy": {
        "x": torch.randn(T, V),
        "target": torch.zeros(T, dtype=torch.int64),
        "weight": torch.randn(5, V),
    },
    "feature_map": {"x": torch.randn(B, V), "name": "relu"},
}
"""Of every function arguments that it takes."""

KNOWN = [(op, word, known) for op, dialect in DIALECTS.items() for word, known in dialect.items()]
REFUSED = [(op, word) for op, word, known in KNOWN if known.kind == "refused"]
ACCEPTED = [(op, word) for op, word, known in KNOWN if known.kind == "accepted" and not known.translate]


def test_every_function_is_tried():
    assert set(VALID) == set(kernels.__all__)
    assert set(DIALECTS) <= set(VALID)


@pytest.mark.parametrize(("op", "word"), REFUSED)
def test_what_is_refused_is_refused_by_name_unless_it_asks_for_nothing(op, word):
    known = DIALECTS[op][word]
    with pytest.raises(ValueError, match=f"^{word} of {op} must be") as refusal:
        call(op, VALID[op], **{word: torch.ones(1)})
    assert known.what in str(refusal.value)
    for nothing in known.nothing:
        call(op, VALID[op], **{word: nothing})


@pytest.mark.parametrize(("op", "word"), ACCEPTED)
def test_what_is_accepted_changes_nothing(op, word):
    expected, actual = call(op, VALID[op]), call(op, VALID[op], **{word: 16})
    for one, other in zip(*([x] if torch.is_tensor(x) else x for x in (expected, actual)), strict=True):
        assert one is other is None or torch.equal(one, other)


@pytest.mark.parametrize("op", DIALECTS)
def test_an_unknown_keyword_is_an_error_of_python(op):
    with pytest.raises(TypeError, match=f"{op}.* unexpected keyword argument 'speed'"):
        call(op, VALID[op], speed=3)


@pytest.mark.parametrize("op", VALID)
@pytest.mark.parametrize("value", [None, [1.0, 2.0], 3, torch.ones(2, 2, dtype=torch.int64), torch.ones(())])
def test_what_is_no_tensor_or_does_not_fit_is_named(op, value):
    """Every tensor that has to be there, and None for those alone."""
    parameters = inspect.signature(getattr(kernels, op)).parameters
    for name, x in VALID[op].items():
        if not (torch.is_tensor(x) or isinstance(x, list)):
            continue
        if value is None and parameters[name].default is None:
            continue
        if op == "feature_map" and torch.is_tensor(value) and value.is_floating_point():
            continue  # it takes any shape
        with pytest.raises(ValueError, match=rf"^{name}(\[0\])? "):
            call(op, VALID[op] | {name: value})


@pytest.mark.parametrize("op", RECURRENCES)
def test_bounds_and_states_that_are_no_tensors_are_named(op):
    for name in ("cu_seqlens", "initial_state"):
        with pytest.raises(ValueError, match=f"^{name} must be"):
            call(op, VALID[op], **{name: [0, 4, 9]})
    with pytest.raises(ValueError, match="cu_seqlens_cpu repeats what cu_seqlens says"):
        call(op, VALID[op], cu_seqlens_cpu=BOUNDS)
    packed = make(op, B=1)
    expected, _ = call(op, packed, cu_seqlens=BOUNDS)
    actual, _ = call(op, packed, cu_seqlens=BOUNDS, cu_seqlens_cpu=BOUNDS, head_first=False)
    assert torch.equal(actual, expected)


@pytest.mark.parametrize("word", ["state_v_first", "transpose_state_layout"])
@pytest.mark.parametrize("op", RECURRENCES)
def test_states_with_values_first(op, word):
    inputs, state = make(op), torch.randn(B, H, K, V).double()
    o, last = call(op, inputs, initial_state=state, output_final_state=True)
    turned, end = call(op, inputs, initial_state=state.mT, output_final_state=True, **{word: True})
    assert_equal(turned, o)
    assert_equal(end, last.mT)
    assert call(op, inputs, **{word: True})[1] is None


@pytest.mark.parametrize("op", DELTA_RULES)
def test_beta_from_its_logits(op):
    inputs = make(op)
    logits = inputs.pop("beta").requires_grad_()
    for twice, factor in ((False, 1), (True, 2)):
        o, _ = call(op, inputs, beta=logits, use_beta_sigmoid_in_kernel=True, allow_neg_eigval=twice)
        expected, _ = call(op, inputs, beta=factor * logits.sigmoid())
        assert_equal(o, expected)
        assert_equal(*(torch.autograd.grad(y.sum(), logits) for y in (o, expected)))
    with pytest.raises(ValueError, match="allow_neg_eigval doubles"):
        call(op, inputs, beta=logits, allow_neg_eigval=True)
    with pytest.raises(ValueError, match="beta must be a tensor"):
        call(op, inputs, use_beta_sigmoid_in_kernel=True)


@pytest.mark.parametrize("op", DELTA_RULES)
def test_without_beta_values_replace(op):
    inputs = make(op)
    beta = inputs.pop("beta")
    expected, _ = call(op, inputs, beta=torch.ones_like(beta))
    assert_equal(call(op, inputs)[0], expected)
    assert_equal(call(op, inputs, beta=None)[0], expected)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("op", DELTA_RULES)
def test_a_beta_for_each_value_channel(op, packed):
    """Then value channels do not meet: each is a rule of its own."""
    inputs = make(op, B=1 if packed else B)
    beta = torch.rand_like(inputs["v"])
    state = torch.randn(3 if packed else B, H, K, V).double()
    common = {"output_final_state": True, "cu_seqlens": BOUNDS if packed else None}
    o, last = call(op, inputs | {"beta": beta}, initial_state=state, **common)
    for channel in range(V):
        own = {"v": inputs["v"][..., channel, None], "beta": beta[..., channel]}
        expected, end = call(op, inputs | own, initial_state=state[..., channel, None], **common)
        assert_equal(o[..., channel, None], expected)
        assert_equal(last[..., channel, None], end)


@pytest.mark.parametrize("implementation", ["naive", "chunk"])
@pytest.mark.parametrize("op", DELTA_RULES)
def test_heads_of_keys_serve_more_heads_of_values(op, implementation):
    inputs = make(op, HV=6)
    fixed = {"use_qk_l2norm_in_kernel": True, "output_final_state": True, "implementation": implementation}
    o, state = call(op, inputs, **fixed)
    assert (o.shape, state.shape) == ((B, T, 6, V), (B, 6, K, V))
    repeated = {name: inputs[name].repeat_interleave(3, 2) for name in ("q", "k")}
    expected, last = call(op, inputs | repeated, **fixed)
    assert_equal(o, expected)
    assert_equal(state, last)
    with pytest.raises(ValueError, match="v must be"):
        call(op, inputs | {"v": torch.randn(B, T, 5, V)})
    with pytest.raises(ValueError, match="k must have the shape of q"):
        call(op, inputs | {"k": repeated["k"]})


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("op", "bounded"), [("gated_delta_rule", False), ("kda", False), ("kda", True)])
def test_decay_from_what_a_layer_projects(op, bounded, bias):
    inputs = make(op)
    raw, A_log = inputs.pop("g"), torch.randn(H).double()
    dt_bias = torch.randn(raw.shape[2:]).double() if bias else None
    rate = A_log.exp().view(H, 1) if op == "kda" else A_log.exp()
    shifted = raw + dt_bias if bias else raw
    g = -5 * torch.sigmoid(rate * shifted) if bounded else -rate * functional.softplus(shifted)
    keywords = {"use_gate_in_kernel": True, "A_log": A_log}
    keywords |= {"dt_bias": dt_bias.flatten()} if bias else {}
    keywords |= {"lower_bound": -5.0, "safe_gate": True} if bounded else {}
    expected, _ = call(op, inputs, g=g)
    assert_equal(call(op, inputs, g=raw, **keywords)[0], expected)


def test_a_gate_that_does_not_fit_is_named():
    inputs, A_log = VALID["kda"], torch.zeros(H)
    for keywords, message in (
        ({}, "needs A_log"),
        ({"A_log": torch.zeros(3)}, "A_log must have 2 elements"),
        ({"A_log": A_log, "dt_bias": torch.zeros(K)}, "dt_bias must have 8 elements"),
        ({"A_log": A_log, "safe_gate": True}, "needs lower_bound"),
        ({"A_log": A_log, "lower_bound": 1.0}, "lower_bound must be negative"),
        ({"A_log": [0.0, 0.0]}, "A_log must be a tensor"),
    ):
        with pytest.raises(ValueError, match=message):
            call("kda", inputs, use_gate_in_kernel=True, **keywords)
    expected, _ = call("kda", inputs)
    ignored = {"use_gate_in_kernel": False, "A_log": A_log, "lower_bound": -5.0, "safe_gate": True}
    assert_equal(call("kda", inputs, **ignored)[0], expected)


def test_decays_by_any_of_their_names_add_up():
    inputs = make("linear_attention")
    g = inputs.pop("g")
    gk, g_gamma = -torch.rand(B, T, H, K).double(), -torch.rand(H).double()
    run = kernels.linear_attention
    assert_equal(run(**inputs, gk=gk), run(**inputs, g=gk))
    assert_equal(run(**inputs, g_gamma=g_gamma), run(**inputs, g=g_gamma.expand(B, T, H)))
    assert_equal(run(**inputs, g=g, g_gamma=g_gamma), run(**inputs, g=g + g_gamma))
    total = gk + (g + g_gamma).unsqueeze(-1)
    assert_equal(run(**inputs, g=g, gk=gk, g_gamma=g_gamma), run(**inputs, g=total))
    with pytest.raises(ValueError, match="g_gamma must have 2 elements"):
        run(**inputs, g_gamma=torch.zeros(3))


def test_arguments_by_position_go_with_foreign_keywords():
    inputs = make("delta_rule")
    expected, _ = call("delta_rule", inputs, scale=0.5)
    o, _ = kernels.delta_rule(*inputs.values(), 0.5, head_first=False)
    assert torch.equal(o, expected)
    with pytest.raises(TypeError, match="multiple values"):
        kernels.delta_rule(*inputs.values(), beta=inputs["beta"], head_first=False)
    with pytest.raises(TypeError, match="missing"):
        kernels.delta_rule(inputs["q"], head_first=False)


def test_another_word_for_an_argument():
    inputs = make("dplr_delta_rule")
    g = inputs.pop("g")
    assert_equal(call("dplr_delta_rule", inputs, gk=g), call("dplr_delta_rule", inputs, g=g))
    with pytest.raises(TypeError, match="gk is another word for g"):
        call("dplr_delta_rule", inputs, g=g, gk=g)
    x, gate, weight = VALID["gated_rms_norm"].values()
    expected = kernels.gated_rms_norm(x, gate, weight)
    assert torch.equal(kernels.gated_rms_norm(x=x, g=gate, weight=weight, activation="swish"), expected)
    assert torch.equal(kernels.gated_rms_norm(x, z=gate, weight=weight), expected)


def test_a_pair_of_states_is_refused_with_how_to_join_it():
    inputs = make("linear_attention")
    inputs = {name: x.abs() for name, x in inputs.items() if name != "g"}
    half = {name: x[:, :4] for name, x in inputs.items()}
    rest = {name: x[:, 4:] for name, x in inputs.items()}
    kv = torch.einsum("bthk,bthv->bhkv", half["k"], half["v"])
    z = half["k"].sum(1, keepdim=True)
    with pytest.raises(ValueError, match="got a pair") as refusal:
        kernels.linear_attention(**rest, normalize=True, initial_state=(kv, z))
    joined = eval(str(refusal.value).partition("it is ")[2], {"torch": torch, "kv": kv, "z": z})
    o, _ = kernels.linear_attention(**rest, normalize=True, initial_state=joined)
    expected, _ = kernels.linear_attention(**inputs, normalize=True)
    assert_equal(o, expected[:, 4:])


# Convolutions

D, W = 3, 4


@pytest.mark.parametrize("activation", [None, "silu", "swish"])
def test_a_convolution_goes_on_where_another_ended(activation):
    x, weight, residual = torch.randn(B, T, D), torch.randn(D, W), torch.randn(B, T, D)
    plain = kernels.short_convolution(x, weight, None, "silu" if activation else None)
    for cut in (1, 5):
        first, state = kernels.short_convolution(
            x[:, :cut], weight, activation=activation, output_final_state=True, residual=residual[:, :cut]
        )
        second, last = kernels.short_convolution(
            x[:, cut:],
            weight.unsqueeze(1),
            activation=activation,
            initial_state=state,
            output_final_state=True,
            residual=residual[:, cut:],
            backend="triton",
        )
        torch.testing.assert_close(torch.cat((first, second), 1), plain + residual)
        assert torch.equal(last, x[:, -W:].mT)
        padded = functional.pad(x[:, :cut].mT, (W, 0))[..., -W:]
        assert torch.equal(state, padded)


def test_packed_convolutions_go_on_and_pass_gradients():
    x, weight = torch.randn(1, T, D, requires_grad=True), torch.randn(D, W, requires_grad=True)
    earlier = torch.randn(3, D, W, requires_grad=True)
    y, last = kernels.short_convolution(
        x, weight, cu_seqlens=BOUNDS, initial_state=earlier, output_final_state=True
    )
    for n, (start, end) in enumerate(pairwise(BOUNDS)):
        cache = earlier[n : n + 1]
        for t in range(start, end):
            step, cache = kernels.short_convolution_step(x[:, t], cache, weight)
            torch.testing.assert_close(y[:, t], step)
        assert torch.equal(last[n : n + 1], cache)
    gradients = torch.autograd.grad(y.sum() + last.sum(), (x, weight, earlier))
    assert all(d.abs().sum() > 0 for d in gradients)


def test_what_does_not_fit_a_convolution_is_named():
    x, weight = torch.randn(B, T, D), torch.randn(D, W)
    for keywords, message in (
        ({"initial_state": torch.zeros(B, D, W - 1)}, r"initial_state must be \[N, D, W\]"),
        ({"residual": torch.zeros(B, T, 1)}, "residual must be as x"),
        ({"residual": [1.0]}, "residual must be a tensor"),
        ({"activation": "gelu"}, "activation must be None or 'silu'"),
    ):
        with pytest.raises(ValueError, match=message):
            kernels.short_convolution(x, weight, **keywords)
    with pytest.raises(ValueError, match=r"weight must be \[D, W\] or \[D, 1, W\]"):
        kernels.short_convolution(x, torch.randn(D, 2, W))


def test_a_step_adds_its_residual():
    x, cache, weight = torch.randn(B, D), torch.randn(B, D, W), torch.randn(D, W)
    y, after = kernels.short_convolution_step(x, cache, weight, activation="swish")
    added, same = kernels.short_convolution_step(x, cache, weight[:, None], activation="silu", residual=x)
    assert torch.equal(added, y + x)
    assert torch.equal(after, same)


@pytest.mark.slow
def test_a_compiled_layer_may_use_foreign_keywords():
    inputs = make("kda")
    raw = {"use_gate_in_kernel": True, "A_log": torch.zeros(H).double(), "state_v_first": True}

    def layer(**inputs):
        return kernels.kda(**inputs, **raw)[0]

    compiled = torch.compile(layer, backend="eager")
    assert_equal(compiled(**inputs), layer(**inputs))
