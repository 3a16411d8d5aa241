"""The operations of the field that are a call or two of ours, as docs/kernels.md says, against references."""

import pytest
import torch
from torch.nn import functional

from asi_lab.kernels import dplr_delta_rule, gated_delta_rule, linear_attention

B, T, H, K, V = 2, 13, 2, 4, 3


def reference(module, name):
    found = pytest.importorskip(f"fla.ops.{module}", exc_type=ImportError)
    return getattr(found, name)


def heads_first(*tensors):
    return [x.transpose(1, 2) for x in tensors]


@pytest.fixture
def inputs():
    q, k = (functional.normalize(torch.randn(B, T, H, K), dim=-1) for _ in range(2))
    return q, k, torch.randn(B, T, H, V)


def assert_equal(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


def test_rwkv7(inputs):
    r, k, v = inputs
    kk = functional.normalize(torch.randn(B, T, H, K), dim=-1)
    w, a = -torch.rand(B, T, H, K), torch.rand(B, T, H, K)
    o, _ = dplr_delta_rule(r, k, v, -kk, kk * a, w, scale=1.0)
    dplr = reference("generalized_delta_rule.dplr.naive", "dplr_recurrence")
    expected, _ = dplr(*heads_first(r * K**0.5, k, v, -kk, kk * a, w))
    assert_equal(o, expected.transpose(1, 2))


def test_iplr(inputs):
    q, k, v = inputs
    a, b = 0.5 * torch.randn(2, B, T, H, K)
    o, _ = dplr_delta_rule(q, k, v, a, b)
    expected, _ = reference("generalized_delta_rule.iplr.naive", "iplr_recurrence")(
        *heads_first(q, k, v, a, b)
    )
    assert_equal(o, expected.transpose(1, 2))


def test_comba(inputs):
    q, k, v = inputs
    p, beta, g = 0.5 * k + 0.1 * torch.randn(B, T, H, K), torch.rand(B, T, H), -torch.rand(B, T, H)
    write = beta[..., None] * k
    o, _ = dplr_delta_rule(q, write, v, -p, write, g)
    expected, _ = reference("comba.naive", "naive_chunk_comba")(q, k, v, p, g, beta)
    assert_equal(o, expected)
    o, _ = dplr_delta_rule(q, write, v, -g.exp()[..., None] * p, write, g)
    expected, _ = reference("comba.naive", "naive_recurrent_comba")(q, k, v, p, beta, g)
    assert_equal(o, expected)


def test_delta_product(inputs):
    n, (q, *_) = 3, inputs
    k = functional.normalize(torch.randn(B, n * T, H, K), dim=-1)
    v, beta, g = torch.randn(B, n * T, H, V), torch.rand(B, n * T, H), -torch.rand(B, T, H)
    last, first = torch.zeros(B, n * T, H, K), torch.zeros(B, n * T, H)
    last[:, n - 1 :: n], first[:, ::n] = q, g
    o, _ = gated_delta_rule(last, k, v, first, beta)
    product = reference("gated_delta_product.naive", "naive_recurrent_gated_delta_product")
    expected, _ = product(q, k, v, g, beta, K**-0.5, num_householder=n)
    assert_equal(o[:, n - 1 :: n], expected)


def test_rwkv6(inputs):
    r, k, v = inputs
    w, u = -torch.rand(B, T, H, K), torch.randn(H, K)
    ahead = functional.pad(r[:, 1:], (0, 0, 0, 0, 0, 1))
    before, _ = linear_attention(ahead, k, v, w)
    now = K**-0.5 * (r * u * k).sum(-1, keepdim=True) * v
    o = functional.pad(before[:, :-1], (0, 0, 0, 0, 1, 0)) + now
    rwkv6 = reference("rwkv6.recurrent_naive", "naive_recurrent_rwkv6")
    expected, _ = rwkv6(*heads_first(r, k, v, w), u)
    assert_equal(o, expected.transpose(1, 2))


def test_hgrn():
    x, g = torch.randn(B, T, V), -torch.rand(B, T, V)
    ones = torch.ones(B, T, V, 1)
    o, _ = linear_attention(ones, ones, x[..., None], g, scale=1.0)
    expected, _ = reference("hgrn.naive", "naive_recurrent_hgrn")(x, g)
    assert_equal(o[..., 0], expected)


def test_lightning_attention(inputs):
    q, k, v = inputs
    layer, layers = 2, 6
    o, _ = linear_attention(q, k, v, layer_idx=layer, num_layers=layers)
    g = (-8 / H * (1 - layer / layers) * torch.arange(H)).expand(B, T, H)
    expected, _ = reference("simple_gla.naive", "naive_recurrent_simple_gla")(q, k, v, g)
    assert_equal(o, expected)
    with pytest.raises(ValueError, match="give both"):
        linear_attention(q, k, v, layer_idx=layer)


def test_based(inputs):
    q, k, v = inputs
    o, _ = linear_attention(q, k, v, scale=1.0, feature_map="taylor", normalize=True)
    s = torch.einsum("bihk,bjhk->bhij", q, k) * K**-0.5
    weights = (1 + s + s.square() / 2).tril()
    expected = torch.einsum("bhij,bjhv->bihv", weights / weights.sum(-1, keepdim=True), v)
    assert_equal(o, expected)
