"""short_convolution, rms_norm and l2_norm: the fast form against the reference."""

import pytest
import torch
from torch.nn import functional

from asi_lab.kernels import l2_norm, rms_norm, short_convolution


@pytest.mark.parametrize("activation", [None, "silu"])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("T", "W"), [(1, 4), (3, 4), (7, 1), (33, 4), (64, 31), (50, 200)])
def test_convolution_equals_the_reference(T, W, bias, activation, assert_same):
    inputs = {"x": torch.randn(2, T, 6).double(), "weight": torch.randn(6, W).double()}
    if bias:
        inputs["bias"] = torch.randn(6).double()

    def run(implementation):
        return lambda **leaves: (
            short_convolution(**leaves, activation=activation, implementation=implementation),
        )

    assert_same(run("shift"), run("naive"), inputs, 1e-9)
    assert_same(run("shift"), run("naive"), inputs, 1e-4, torch.float32)


def test_convolution_equals_torch():
    x, weight = torch.randn(2, 20, 6), torch.randn(6, 4)
    padded = functional.pad(x.mT, (3, 0))
    expected = functional.silu(functional.conv1d(padded, weight[:, None], groups=6)).mT
    torch.testing.assert_close(short_convolution(x, weight, activation="silu"), expected)


def test_convolution_is_causal_to_the_bit():
    x, weight = torch.randn(2, 300, 6), torch.randn(6, 128)
    changed = x.clone()
    changed[:, 200:] += 1e4
    assert torch.equal(short_convolution(changed, weight)[:, :200], short_convolution(x, weight)[:, :200])


def test_convolution_of_strided_bfloat16():
    x = torch.randn(6, 20, 2).bfloat16().transpose(0, 2).requires_grad_()
    weight = torch.randn(6, 4, requires_grad=True)
    y = short_convolution(x, weight, activation="silu")
    assert y.dtype == torch.bfloat16
    exact = short_convolution(x.double(), weight.double(), activation="silu", implementation="naive")
    torch.testing.assert_close(y.double(), exact, rtol=1e-2, atol=1e-2)
    y.float().sum().backward()
    assert (x.grad.dtype, weight.grad.dtype) == (torch.bfloat16, torch.float32)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weight": torch.zeros(5, 4)}, "weight must be"),
        ({"bias": torch.zeros(5)}, "bias must be"),
        ({"activation": "relu"}, "activation must be"),
        ({"implementation": "fft"}, "implementation must be"),
        ({"x": torch.zeros(7, 6)}, "x must be"),
    ],
)
def test_convolution_names_what_does_not_fit(arguments, message):
    with pytest.raises(ValueError, match=message):
        short_convolution(**({"x": torch.zeros(2, 7, 6), "weight": torch.zeros(6, 4)} | arguments))


@pytest.mark.parametrize("shape", [(7,), (1, 5), (2, 9, 3, 8)])
@pytest.mark.parametrize("weighted", [False, True])
def test_rms_norm_equals_the_reference(shape, weighted, assert_same):
    inputs = {"x": torch.randn(shape).double()}
    if weighted:
        inputs["weight"] = torch.randn(shape[-1]).double()

    def run(implementation):
        return lambda **leaves: (rms_norm(**leaves, eps=1e-3, implementation=implementation),)

    assert_same(run("fused"), run("naive"), inputs, 1e-9)
    assert_same(run("fused"), run("naive"), inputs, 1e-5, torch.float32)
    expected = functional.rms_norm(inputs["x"], shape[-1:], inputs.get("weight"), 1e-3)
    torch.testing.assert_close(rms_norm(**inputs, eps=1e-3), expected)


@pytest.mark.parametrize("shape", [(7,), (1, 5), (2, 9, 3, 8)])
def test_l2_norm_equals_the_reference_and_has_length_one(shape, assert_same):
    inputs = {"x": torch.randn(shape).double()}

    def run(implementation):
        return lambda x: (l2_norm(x, eps=1e-3, implementation=implementation),)

    assert_same(run("fused"), run("naive"), inputs, 1e-9)
    lengths = l2_norm(inputs["x"], eps=1e-12).norm(dim=-1)
    torch.testing.assert_close(lengths, torch.ones(shape[:-1]).double())


def test_norms_of_zero_are_zero_with_finite_gradients():
    for norm in (rms_norm, l2_norm):
        x = torch.zeros(3, 4, requires_grad=True)
        y = norm(x)
        y.sum().backward()
        assert (y == 0).all()
        assert x.grad.isfinite().all()


def test_norms_keep_the_dtype_and_leave_the_input_alone():
    x = torch.randn(3, 5, 4).bfloat16().requires_grad_()
    before = x.detach().clone()
    for y in (rms_norm(x, torch.ones(4)), l2_norm(x)):
        assert y.dtype == torch.bfloat16
        y.float().sum().backward()
    assert torch.equal(x.detach(), before)
    assert x.grad.dtype == torch.bfloat16


def test_norms_name_what_does_not_fit():
    with pytest.raises(ValueError, match="weight must be"):
        rms_norm(torch.zeros(3, 4), torch.ones(5))
    with pytest.raises(ValueError, match="implementation must be"):
        l2_norm(torch.zeros(3, 4), implementation="chunk")
