"""kda and the channel-wise decay it rests on, beyond the contract of all recurrences."""

import pytest
import torch

from asi_lab.kernels.decay import ChannelDecay, make_decay
from asi_lab.kernels.gated_delta_rule import gated_delta_rule
from asi_lab.kernels.kda import kda
from asi_lab.kernels.linear_attention import linear_attention

B, T, H, K, V = 2, 50, 2, 8, 6


def make_inputs(make_keys):
    return {
        "q": make_keys((B, T, H, K), 0.0),
        "k": make_keys((B, T, H, K), 0.5),
        "v": torch.randn(B, T, H, V).double(),
        "g": -torch.rand(B, T, H, K).double(),
        "beta": torch.rand(B, T, H).double(),
        "initial_state": torch.randn(B, H, K, V).double(),
    }


@pytest.mark.parametrize("strength", [0.0, 1.0, 300.0, torch.inf])
@pytest.mark.parametrize("C", [1, 2, 16, 64])
def test_pairs_built_by_halving_equal_their_definition(C, strength):
    left, right = torch.randn(2, 3, 2 * C, K).double(), torch.randn(2, 3, C, K).double()
    g = -strength * torch.rand(2, 3, C, K).double() if strength else torch.zeros(2, 3, C, K).double()
    decay = ChannelDecay(g.exp())
    expected = torch.zeros(2, 3, 2 * C, C).double()
    for i in range(C):
        passed = torch.zeros(2, 3, K).double()  # the log-decay from token j to token i
        for j in range(i, -1, -1):
            for row in (i, C + i):
                expected[:, :, row, j] = (left[:, :, row] * right[:, :, j] * passed.exp()).sum(-1)
            passed = passed + g[:, :, j]
    torch.testing.assert_close(decay.products(left, right), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(decay.from_start, g.cumsum(2).exp(), rtol=1e-12, atol=1e-14)


def test_one_decay_for_all_channels_is_the_gated_rule(assert_same, make_keys):
    inputs = make_inputs(make_keys)
    inputs["g"] = inputs["g"][..., 0].clone()

    def spread(g, **rest):
        return kda(g=g.unsqueeze(-1).expand(B, T, H, K), **rest, output_final_state=True)

    def gated(**leaves):
        return gated_delta_rule(**leaves, output_final_state=True, implementation="naive")

    assert_same(spread, gated, inputs, 1e-9)


def test_channels_that_forget_at_once_next_to_channels_that_keep_all(assert_same, make_keys):
    inputs = make_inputs(make_keys)
    inputs["g"][..., ::2] = 0
    inputs["g"][..., 1::2] = -300

    def run(implementation):
        return lambda **leaves: kda(**leaves, output_final_state=True, implementation=implementation)

    assert_same(run("chunk"), run("naive"), inputs, 1e-9)
    assert_same(run("chunk"), run("naive"), inputs, 1e-4, torch.float32)


def test_a_reset_does_not_blur_the_weak_decays_around_it(make_keys):
    """Cumulative sums of log-decays in float32 would: one of -5000 leaves three digits of the others."""
    inputs = make_inputs(make_keys)
    inputs["g"] *= 1e-2
    inputs["g"][:, 20] = -5000
    exact, _ = kda(**inputs, implementation="naive")
    o, _ = kda(**{n: x.float() for n, x in inputs.items()}, chunk_size=64)
    torch.testing.assert_close(o.double(), exact, rtol=1e-5, atol=2e-6)


def test_no_gradient_of_g_where_none_is_wanted(make_keys):
    inputs = make_inputs(make_keys)
    beta = inputs.pop("beta")
    for rule in (lambda **x: kda(beta=beta, **x), linear_attention):
        wanted = torch.autograd.grad(
            rule(**inputs | {"k": inputs["k"].requires_grad_(), "g": inputs["g"].requires_grad_()})[0].sum(),
            (inputs["k"], inputs["g"]),
        )
        alone = torch.autograd.grad(rule(**inputs | {"g": inputs["g"].detach()})[0].sum(), inputs["k"])
        torch.testing.assert_close(alone[0], wanted[0], rtol=1e-12, atol=1e-12)


def test_the_kind_of_decay_follows_from_the_shape_of_g():
    like = torch.zeros(1, 2, 4, 3)
    shapes = [
        None if make_decay(g, like).from_start is None else make_decay(g, like).from_start.shape[-1]
        for g in (None, torch.zeros(1, 4, 2), torch.zeros(1, 4, 2, 3))
    ]
    assert shapes == [None, 1, 3]


def test_what_does_not_fit_is_named(make_keys):
    inputs = make_inputs(make_keys)
    with pytest.raises(ValueError, match="g must be"):
        kda(**inputs | {"g": inputs["beta"]})
    with pytest.raises(ValueError, match="beta must be"):
        kda(**inputs | {"beta": inputs["g"]})
    with pytest.raises(ValueError, match="g must be"):
        linear_attention(inputs["q"], inputs["k"], inputs["v"], inputs["g"][..., :3])
