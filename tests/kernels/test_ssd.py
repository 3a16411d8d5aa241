"""ssd, beyond the contract of all recurrences: groups, steps, the skip, and the Mamba-2 of the lineage."""

import pytest
import torch
from torch.nn import functional

from asi_lab.kernels.ssd import ssd
from asi_lab.lineage_repo.mamba2.architecture import DeltaNet as Mamba2

b, T, H, P, N = 2, 45, 4, 6, 8


def make_inputs(G=2, skip=(H,)):
    inputs = {
        "x": torch.randn(b, T, H, P),
        "dt": torch.randn(b, T, H),
        "A": -torch.rand(H) * 4,
        "B": torch.randn(b, T, G, N) / N**0.5,
        "C": torch.randn(b, T, G, N),
        "D": torch.randn(skip),
        "dt_bias": torch.randn(H),
        "initial_states": torch.randn(b, H, P, N),
    }
    return {name: x.double() for name, x in inputs.items()}


def run(implementation, **fixed):
    fixed = {"dt_softplus": True, "return_final_states": True, "implementation": implementation} | fixed
    return lambda **leaves: ssd(**leaves, **fixed)


@pytest.mark.parametrize("skip", [(H,), (H, P)])
@pytest.mark.parametrize("G", [1, 2, 4])
def test_outputs_and_gradients_equal_the_reference(G, skip, assert_same):
    inputs = make_inputs(G, skip)
    assert_same(run("chunk"), run("naive"), inputs, 1e-9)
    assert_same(run("chunk"), run("naive"), inputs, 1e-4, torch.float32)


@pytest.mark.parametrize("implementation", ["naive", "chunk"])
def test_it_is_the_dual_form_of_the_paper(implementation):
    """y = (L * C B^T) (dt x) + D x, with L the decays from token to token."""
    inputs = make_inputs()
    x, A = inputs["x"], inputs["A"]
    dt = functional.softplus(inputs["dt"] + inputs["dt_bias"])
    B, C = (inputs[name].repeat_interleave(2, 2) for name in "BC")  # heads 0 and 1 share group 0
    total = (A * dt).cumsum(1)
    difference = total[:, :, None] - total[:, None]
    L = difference.exp().masked_fill(torch.ones(T, T).triu(1)[:, :, None] == 1, 0)
    expected = torch.einsum("bijh,bihn,bjhn,bjh,bjhp->bihp", L, C, B, dt, x) + inputs["D"][:, None] * x
    del inputs["initial_states"]
    y, _ = run(implementation)(**inputs)
    torch.testing.assert_close(y, expected, rtol=1e-10, atol=1e-10)


def test_optional_inputs_may_be_missing(assert_same):
    inputs = {name: x for name, x in make_inputs().items() if name in ("x", "dt", "A", "B", "C")}
    inputs["dt"] = functional.softplus(inputs["dt"])
    assert_same(run("chunk", dt_softplus=False), run("naive", dt_softplus=False), inputs, 1e-9)
    y, state = ssd(**inputs)
    assert y.shape == (b, T, H, P)
    assert state is None
    _, state = ssd(**inputs, return_final_states=True)
    assert state.shape == (b, H, P, N)


@pytest.mark.parametrize("implementation", ["naive", "chunk"])
def test_bfloat16_with_float32_parameters_and_autocast(implementation):
    rounded = {name: x.bfloat16() for name, x in make_inputs().items()}
    parameters = {name: x.float() for name, x in rounded.items() if name in ("A", "D", "dt_bias")}
    exact, exact_state = run("naive")(**{name: x.double() for name, x in rounded.items()})
    y, state = run(implementation)(**rounded | parameters)
    assert (y.dtype, state.dtype) == (torch.bfloat16, torch.float32)
    torch.testing.assert_close(y.double(), exact, rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(state.double(), exact_state, rtol=1e-4, atol=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        cast, _ = run(implementation)(**rounded | parameters)
    assert torch.equal(cast, y)


@pytest.mark.parametrize("length", [1, 40])
def test_it_is_the_memory_of_the_lineage_s_mamba2(length):
    layer = Mamba2(d_model=32, num_heads=4).double()
    u = torch.randn(2, length, 32).double()
    z, memory, raw = layer.in_proj(u).split(layer.widths, dim=-1)
    x, B, C = layer.conv(memory).split(layer.memory_widths, dim=-1)
    x = x.unflatten(-1, (4, -1))
    A, bias = -layer.step.log_rate.exp(), layer.step.bias
    y, _ = ssd(x, raw, A, B[:, :, None], C[:, :, None], layer.skip, bias, dt_softplus=True)
    y = functional.rms_norm(y.flatten(-2) * functional.silu(z), layer.norm_weight.shape, None, layer.norm_eps)
    torch.testing.assert_close(layer.out_proj(y * layer.norm_weight), layer(u)[0], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(b, T, H)}, "x must be"),
        ({"dt": torch.zeros(b, T, 1)}, "dt must have"),
        ({"A": torch.zeros(H, 1)}, "A must have"),
        ({"B": torch.zeros(b, T, 3, N)}, "G a divisor of H"),
        ({"C": torch.zeros(b, T, 1, N)}, "C must have"),
        ({"D": torch.zeros(P)}, "D must have"),
        ({"dt_bias": torch.zeros(1)}, "dt_bias must have"),
        ({"initial_states": torch.zeros(b, H, N, P)}, "initial_states must have"),
    ],
)
def test_what_does_not_fit_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        ssd(**make_inputs() | change)
