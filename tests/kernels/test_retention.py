"""retention, beyond the contract of all recurrences."""

import pytest
import torch

from asi_lab.kernels.retention import retention

B, T, H, K, V = 2, 70, 3, 8, 6


@pytest.fixture
def inputs(make_keys):
    return [make_keys((B, T, H, K), 0.5), make_keys((B, T, H, K), 0.5), torch.randn(B, T, H, V).double()]


@pytest.mark.parametrize("implementation", ["naive", "chunk"])
def test_it_is_the_parallel_form_of_the_paper(implementation, inputs):
    q, k, v = inputs
    gamma = torch.tensor([1 - 1 / 32, 1 - 1 / 64, 1 - 1 / 128]).double()
    distance = torch.arange(T)[:, None] - torch.arange(T)
    D = torch.where(distance >= 0, gamma[:, None, None] ** distance.clamp(min=0), 0)
    expected = torch.einsum("bihk,bjhk,hij,bjhv->bihv", q, k, D, v)
    o, state = retention(q, k, v, scale=1.0, output_final_state=True, implementation=implementation)
    torch.testing.assert_close(o, expected, rtol=1e-10, atol=1e-10)
    ages = gamma ** (T - 1 - torch.arange(T))[:, None]
    expected_state = torch.einsum("bjhk,jh,bjhv->bhkv", k, ages, v)
    torch.testing.assert_close(state, expected_state, rtol=1e-10, atol=1e-10)


def test_the_field_s_reference_agrees(inputs):
    field = pytest.importorskip("fla.ops.retention.naive", exc_type=ImportError)
    heads_first = [x.float().transpose(1, 2) for x in inputs]
    theirs = field.naive_retention(*heads_first).transpose(1, 2)
    o, _ = retention(*[x.float() for x in inputs])
    torch.testing.assert_close(o, theirs, rtol=1e-4, atol=1e-5)


def test_what_does_not_fit_is_named(inputs):
    q, k, v = inputs
    with pytest.raises(ValueError, match="k must have"):
        retention(q, k[..., :3], v)
    with pytest.raises(ValueError, match="initial_state must be"):
        retention(q, k, v, initial_state=torch.zeros(B, H, V, K))
