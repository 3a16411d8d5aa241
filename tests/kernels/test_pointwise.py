"""short_convolution, rms_norm and l2_norm: the fast form against the reference."""

from itertools import pairwise

import pytest
import torch
from torch.nn import functional

from asi_lab.kernels import l2_norm, rms_norm, short_convolution
from asi_lab.kernels.short_convolution import short_convolution_step


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


@pytest.mark.parametrize("activation", [None, "silu"])
@pytest.mark.parametrize(("T", "W", "bias"), [(1, 4, False), (9, 4, True), (18, 20, True)])
def test_triton_convolution_equals_the_reference(T, W, bias, activation, assert_same):
    inputs = {"x": torch.randn(2, T, 6), "weight": torch.randn(6, W)}
    if bias:
        inputs["bias"] = torch.randn(6)

    def run(implementation):
        return lambda **leaves: (
            short_convolution(**leaves, activation=activation, implementation=implementation),
        )

    exact = {name: x.double() for name, x in inputs.items()}
    assert_same(run("triton"), run("naive"), exact, 1e-4, torch.float32)
    rounded = {name: x.half().double() for name, x in inputs.items()}
    assert_same(run("triton"), run("naive"), rounded, 1e-2, torch.float16)


def test_triton_convolution_needs_two_launches(launches):
    x, weight = torch.randn(2, 9, 6, requires_grad=True), torch.randn(6, 4, requires_grad=True)
    with launches() as names:
        short_convolution(x, weight, activation="silu", implementation="triton").sum().backward()
    assert names == ["convolution_forward_kernel", "convolution_backward_kernel"]


@pytest.mark.parametrize("implementation", ["naive", "shift", "triton"])
def test_convolution_of_sequences_in_a_row_equals_single_ones(implementation, assert_same):
    bounds = [0, 3, 3, 4, 14]
    inputs = {
        name: torch.randn(shape).double() for name, shape in {"x": (1, 14, 6), "weight": (6, 4)}.items()
    }

    def together(x, weight):
        cu_seqlens = torch.tensor(bounds)
        return (short_convolution(x, weight, None, "silu", cu_seqlens, implementation=implementation),)

    def one_by_one(x, weight):
        parts = [x[:, a:b] for a, b in pairwise(bounds) if a < b]
        outputs = [
            short_convolution(part, weight, activation="silu", implementation="naive") for part in parts
        ]
        return (torch.cat(outputs, 1),)

    dtype, tolerance = (torch.float32, 1e-4) if implementation == "triton" else (torch.float64, 1e-9)
    assert_same(together, one_by_one, inputs, tolerance, dtype)


@pytest.mark.parametrize("activation", [None, "silu"])
@pytest.mark.parametrize(("W", "bias"), [(1, False), (4, True), (31, True)])
def test_convolution_steps_equal_the_parallel_form(W, bias, activation):
    x, weight = torch.randn(2, 9, 6).double(), torch.randn(6, W).double()
    parameters = (weight, torch.randn(6).double() if bias else None, activation)
    cache, outputs = x.new_zeros(2, 6, W), []
    for token in x.unbind(1):
        before = cache.clone()
        y, following = short_convolution_step(token, cache, *parameters)
        assert torch.equal(cache, before)
        cache = following
        outputs.append(y)
    torch.testing.assert_close(torch.stack(outputs, 1), short_convolution(x, *parameters))
    known = min(W, 9)
    assert torch.equal(cache[:, :, W - known :], x[:, 9 - known :].mT)
    with pytest.raises(ValueError, match="cache must be"):
        short_convolution_step(x[:, 0], cache[:, :5], *parameters)
    with pytest.raises(ValueError, match="x must be"):
        short_convolution_step(x, cache, *parameters)


def test_convolution_equals_torch():
    x, weight = torch.randn(2, 20, 6), torch.randn(6, 4)
    padded = functional.pad(x.mT, (3, 0))
    expected = functional.silu(functional.conv1d(padded, weight[:, None], groups=6)).mT
    torch.testing.assert_close(short_convolution(x, weight, activation="silu"), expected)


@pytest.mark.parametrize(("implementation", "T"), [("naive", 300), ("shift", 300), ("triton", 30)])
def test_convolution_is_causal_to_the_bit(implementation, T):
    x, weight = torch.randn(2, T, 6), torch.randn(6, 4 if implementation == "triton" else 128)
    changed = x.clone()
    changed[:, T // 2 :] += 1e4
    y, other = (short_convolution(each, weight, implementation=implementation) for each in (x, changed))
    assert torch.equal(y[:, : T // 2], other[:, : T // 2])


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
        ({"cu_seqlens": torch.tensor([0, 7])}, "cu_seqlens needs all sequences packed"),
        ({"x": torch.zeros(1, 7, 6), "cu_seqlens": torch.tensor([0, 8])}, "cu_seqlens must rise"),
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
    assert_same(run("triton"), run("naive"), inputs, 1e-4, torch.float32)
    expected = functional.rms_norm(inputs["x"], shape[-1:], inputs.get("weight"), 1e-3)
    torch.testing.assert_close(rms_norm(**inputs, eps=1e-3), expected)


@pytest.mark.parametrize("shape", [(7,), (1, 5), (2, 9, 3, 8)])
def test_l2_norm_equals_the_reference_and_has_length_one(shape, assert_same):
    inputs = {"x": torch.randn(shape).double()}

    def run(implementation):
        return lambda x: (l2_norm(x, eps=1e-3, implementation=implementation),)

    assert_same(run("fused"), run("naive"), inputs, 1e-9)
    assert_same(run("triton"), run("naive"), inputs, 1e-4, torch.float32)
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
