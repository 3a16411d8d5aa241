"""dplr_delta_rule, beyond the contract of all recurrences: its special cases, its decay, the field's form."""

import pytest
import torch

from asi_lab.kernels.dplr_delta_rule import dplr_delta_rule
from asi_lab.kernels.gated_delta_rule import gated_delta_rule
from asi_lab.kernels.kda import kda

B, T, H, K, V = 2, 50, 2, 8, 6


def make_inputs(make_keys, correlation=0.5):
    """As in RWKV-7: keys of length one are erased, `a = -kk`, each channel to its own part."""
    erased = make_keys((B, T, H, K), correlation)
    return {
        "q": make_keys((B, T, H, K), 0.0),
        "k": make_keys((B, T, H, K), correlation),
        "v": torch.randn(B, T, H, V).double(),
        "a": -erased,
        "b": erased * torch.rand(B, T, H, K).double(),
        "g": -torch.rand(B, T, H, K).double(),
        "initial_state": torch.randn(B, H, K, V).double(),
    }


def run(implementation, **fixed):
    return lambda **leaves: dplr_delta_rule(
        **leaves, **fixed, output_final_state=True, implementation=implementation
    )


@pytest.mark.parametrize("op", [gated_delta_rule, kda])
@pytest.mark.parametrize("beta", [0.5, 2.0])
def test_the_delta_rules_are_cases_of_it(op, beta, assert_same, make_keys):
    inputs = {name: x for name, x in make_inputs(make_keys, 0.9).items() if name not in ("a", "b")}
    inputs["beta"] = torch.full((B, T, H, 1), beta).double()
    if op is gated_delta_rule:
        inputs["g"] = inputs["g"][..., :1].clone()

    def general(k, v, g, beta, **rest):
        decay = g.squeeze(-1) if op is gated_delta_rule else g
        return run("chunk")(k=k, v=beta * v, a=-g.exp() * k, b=beta * k, g=decay, **rest)

    def special(g, beta, **rest):
        decay = g.squeeze(-1) if op is gated_delta_rule else g
        return op(g=decay, beta=beta.squeeze(-1), **rest, output_final_state=True, implementation="naive")

    assert_same(general, special, inputs, 1e-9)
    assert_same(general, special, inputs, 1e-3, torch.float32)


@pytest.mark.parametrize("width", [None, (), (K,)])
@pytest.mark.parametrize("strength", [1e-3, 300.0])
def test_no_decay_one_a_head_or_one_a_channel(width, strength, assert_same, make_keys):
    inputs = make_inputs(make_keys, 0.9)
    del inputs["g"]
    if width is not None:
        inputs["g"] = -strength * torch.rand(B, T, H, *width).double()
    assert_same(run("chunk"), run("naive"), inputs, 1e-9)
    assert_same(run("chunk"), run("naive"), inputs, 1e-3, torch.float32)


def test_channels_that_forget_at_once_next_to_channels_that_keep_all(assert_same, make_keys):
    inputs = make_inputs(make_keys)
    inputs["g"][..., ::2] = 0
    inputs["g"][..., 1::2] = -300
    assert_same(run("chunk"), run("naive"), inputs, 1e-9)
    assert_same(run("chunk"), run("naive"), inputs, 1e-4, torch.float32)


def test_infinite_decay_leaves_what_is_read_before_it(make_keys):
    """At such a token only b and k write; a still meets the state of before."""
    inputs = make_inputs(make_keys)
    inputs["g"][:, 20] = -torch.inf
    exact, last = run("naive")(**inputs)
    leaves = {name: x.float().requires_grad_() for name, x in inputs.items()}
    o, state = run("chunk")(**leaves)
    torch.testing.assert_close(o.double(), exact, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(state.double(), last, rtol=1e-4, atol=1e-5)
    o[:, 20:].sum().backward()
    assert all(x.grad.isfinite().all() for x in leaves.values())
    assert leaves["v"].grad[:, :20].any()
    with torch.no_grad():
        inputs["a"][:, 20] = 0
        cut = {name: x.clone().requires_grad_() for name, x in inputs.items()}
    run("chunk")(**cut)[0][:, 20:].sum().backward()
    assert not cut["v"].grad[:, :20].any()


def test_a_reset_does_not_blur_the_weak_decays_around_it(make_keys):
    inputs = make_inputs(make_keys)
    inputs["g"] *= 1e-2
    inputs["g"][:, 20] = -5000
    exact, _ = run("naive")(**inputs)
    o, _ = run("chunk", chunk_size=64)(**{name: x.float() for name, x in inputs.items()})
    torch.testing.assert_close(o.double(), exact, rtol=1e-5, atol=2e-6)


def test_no_gradient_of_g_where_none_is_wanted(make_keys):
    inputs = make_inputs(make_keys)
    asked = {name: x.clone().requires_grad_(name != "g") for name, x in inputs.items()}
    both = {name: x.clone().requires_grad_() for name, x in inputs.items()}
    for leaves in (asked, both):
        run("chunk")(**leaves)[0].sum().backward()
    for name in inputs.keys() - {"g"}:
        torch.testing.assert_close(asked[name].grad, both[name].grad, rtol=1e-12, atol=1e-12)


def test_the_field_s_references_agree(make_keys):
    field = pytest.importorskip("fla.ops.generalized_delta_rule.dplr.naive", exc_type=ImportError)
    inputs = {name: x.float() for name, x in make_inputs(make_keys).items()}
    o, last = run("naive")(**inputs)
    heads_first = {n: x if n == "initial_state" else x.transpose(1, 2) for n, x in inputs.items()}
    theirs = {"a": "alpha", "b": "beta", "g": "gk"}
    expected, state = field.dplr_recurrence(**{theirs.get(n, n): x for n, x in heads_first.items()})
    torch.testing.assert_close(o, expected.transpose(1, 2), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(last, state, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"a": torch.zeros(B, T, H, V)}, "a must have the shape of k"),
        ({"b": torch.zeros(B, T, H)}, "b must have the shape of k"),
        ({"g": torch.zeros(B, T, 1, K)}, "g must be"),
        ({"a": None}, "a must be a tensor of floating-point numbers, got None"),
        ({"initial_state": torch.zeros(B, H, V, K)}, "initial_state must be"),
    ],
)
def test_what_does_not_fit_is_named(change, message, make_keys):
    with pytest.raises(ValueError, match=message):
        dplr_delta_rule(**make_inputs(make_keys) | change)
