"""gated_rms_norm: all forms against the reference; the kernels are also those of rms_norm and l2_norm."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from asi_lab.kernels.gated_rms_norm import gated_rms_norm
from tests.kernels.gpu_compiler import compile_for_gpus

LAUNCHES = ["norm_forward_kernel", "norm_backward_kernel"]


def make_inputs(shape: tuple[int, ...], weighted: bool = True) -> dict[str, Tensor]:
    inputs = {"x": torch.randn(shape).double(), "gate": torch.randn(shape).double()}
    return inputs | ({"weight": torch.randn(shape[-1]).double()} if weighted else {})


def run(implementation: str, **fixed: Any) -> Callable[..., tuple[Tensor, ...]]:
    return lambda **leaves: (gated_rms_norm(**leaves, **fixed, implementation=implementation),)


@pytest.mark.parametrize("activation", ["silu", "sigmoid"])
@pytest.mark.parametrize("norm_before_gate", [True, False])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", [(7,), (1, 5), (2, 9, 3, 8), (1, 3, 70)])
def test_all_forms_equal_the_reference(shape, weighted, norm_before_gate, activation, assert_same, launches):
    inputs = make_inputs(shape, weighted)
    options = {"eps": 1e-3, "activation": activation, "norm_before_gate": norm_before_gate}
    fused, triton, naive = (run(form, **options) for form in ("fused", "triton", "naive"))
    assert_same(fused, naive, inputs, 1e-9)
    assert_same(fused, naive, inputs, 1e-4, torch.float32)
    with launches() as names:
        assert_same(triton, naive, inputs, 1e-4, torch.float32)
    assert names == LAUNCHES
    rounded = {name: x.half().double() for name, x in inputs.items()}
    assert_same(triton, naive, rounded, 2e-2, torch.float16)
    rounded = {name: x.bfloat16().double() for name, x in inputs.items()}
    assert_same(fused, naive, rounded, 0.1, torch.bfloat16)


def test_the_reference_is_torch_s_norm_times_the_gate():
    x, gate, weight = make_inputs((2, 9, 3, 8)).values()
    y = gated_rms_norm(x, gate, weight)
    torch.testing.assert_close(y, functional.rms_norm(x, (8,), weight, 1e-5) * functional.silu(gate))
    y = gated_rms_norm(x, gate, weight, norm_before_gate=False, activation="sigmoid")
    torch.testing.assert_close(y, functional.rms_norm(x * torch.sigmoid(gate), (8,), weight, 1e-5))


@pytest.mark.parametrize("norm_before_gate", [True, False])
def test_gradcheck(norm_before_gate):
    leaves = [x.requires_grad_() for x in make_inputs((3, 2, 5)).values()]

    def function(x: Tensor, gate: Tensor, weight: Tensor) -> Tensor:
        return gated_rms_norm(x, gate, weight, norm_before_gate=norm_before_gate)

    assert torch.autograd.gradcheck(function, leaves)


@pytest.mark.parametrize("implementation", ["fused", "triton"])
def test_more_rows_than_programs(implementation, assert_same, monkeypatch):
    """Programs of the backward kernel that take several blocks of rows each."""
    from asi_lab.kernels.norms import triton

    monkeypatch.setattr(triton, "MAX_PROGRAMS", 3)
    inputs = make_inputs((85, 60))
    assert_same(run(implementation), run("naive"), inputs, 1e-4, torch.float32)


@pytest.mark.filterwarnings("ignore:overflow encountered in exp")  # of Triton's interpreter
@pytest.mark.parametrize("norm_before_gate", [True, False])
@pytest.mark.parametrize("implementation", ["naive", "fused", "triton"])
def test_extreme_rows_keep_their_precision(implementation, norm_before_gate):
    """Rows of zeros, large numbers and tiny ones, and gates that are shut or wide open."""
    scales, gates = torch.tensor([0.0, 1e15, 1e-25, 1.0, 1.0]), torch.tensor([1.0, 1.0, 1.0, -1e4, 1e4])
    x, gate = scales[:, None] * torch.randn(5, 4), gates[:, None] + torch.randn(5, 4)
    weights, results = torch.randn(5, 4), []
    for form, dtype in ((implementation, torch.float32), ("naive", torch.float64)):
        leaves = [t.to(dtype).requires_grad_() for t in (x, gate, torch.ones(4))]
        y = gated_rms_norm(*leaves, norm_before_gate=norm_before_gate, implementation=form)
        results.append([y.detach(), *torch.autograd.grad((weights * y).sum(), leaves)])
    for actual, expected in zip(*results, strict=True):
        size = expected.abs().amax(-1, keepdim=True).clamp(min=1e-30)
        torch.testing.assert_close(actual / size, expected / size, rtol=0, atol=1e-4, check_dtype=False)


@pytest.mark.parametrize("implementation", ["fused", "triton"])
def test_a_token_changes_nothing_before_it(implementation):
    inputs = {name: x.float() for name, x in make_inputs((2, 9, 3, 8)).items()}
    (before,) = run(implementation)(**inputs)
    inputs["x"][:, 5:] *= 0.5
    inputs["gate"][:, 5:] *= 0.5
    (after,) = run(implementation)(**inputs)
    assert torch.equal(after[:, :5], before[:, :5])
    assert not torch.allclose(after[:, 5:], before[:, 5:])


@pytest.mark.parametrize("norm_before_gate", [True, False])
@pytest.mark.parametrize("implementation", ["naive", "fused", "triton"])
def test_strided_inputs_autocast_and_input_left_alone(implementation, norm_before_gate):
    x, gate, weight = (t.float() for t in make_inputs((2, 9, 3, 8)).values())
    merged = torch.randn(2, 9, 60)
    merged[..., 30:54] = gate.flatten(2)
    strided = [
        x.transpose(0, -1).contiguous().transpose(0, -1),
        merged[..., 30:54].unflatten(-1, (3, 8)),
        torch.stack((weight, weight), dim=-1)[..., 0],
    ]
    results = []
    for inputs in ([x, gate, weight], strided):
        leaves = [t.clone().requires_grad_() if inputs is not strided else t.requires_grad_() for t in inputs]
        copies = [t.detach().clone() for t in leaves]
        with torch.autocast("cpu", torch.bfloat16, enabled=inputs is strided):
            y = gated_rms_norm(*leaves, norm_before_gate=norm_before_gate, implementation=implementation)
            gradients = torch.autograd.grad(y.sum(), leaves)
        assert y.dtype == torch.float32
        for leaf, copy in zip(leaves, copies, strict=True):
            assert torch.equal(leaf.detach(), copy)
        results.append([y.detach(), *gradients])
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("implementation", ["fused", "triton"])
def test_mixed_dtypes(implementation):
    x, gate, weight = make_inputs((2, 9, 8)).values()
    leaves = [x.half().requires_grad_(), gate.float().requires_grad_(), weight.float().requires_grad_()]
    y = gated_rms_norm(*leaves, implementation=implementation)
    assert y.dtype == torch.float16
    y.float().sum().backward()
    assert [t.grad.dtype for t in leaves] == [t.dtype for t in leaves]


def test_fused_saves_inputs_and_a_factor_a_row():
    inputs = {name: x.requires_grad_() for name, x in make_inputs((2, 9, 3, 8)).items()}
    saved: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x) or x, lambda x: x):
        run("fused")(**inputs)
    assert sum(x.numel() for x in saved) == sum(x.numel() for x in inputs.values()) + 2 * 9 * 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(0, 4)}, "x must be .* not empty"),
        ({"gate": torch.zeros(3, 5)}, "gate must have the shape of x"),
        ({"weight": torch.zeros(5)}, "weight must be"),
        ({"activation": "relu"}, "activation must be"),
        ({"implementation": "chunk"}, "implementation must be"),
    ],
)
def test_what_does_not_fit_is_named(change, message):
    arguments = {"x": torch.zeros(3, 4), "gate": torch.zeros(3, 4), "weight": torch.zeros(4)}
    with pytest.raises(ValueError, match=message):
        gated_rms_norm(**(arguments | change))


@pytest.mark.slow
def test_kernels_compile_without_spills(tmp_path):
    code = """
from asi_lab.kernels.norms.triton import triton_norm
for dtype, shape, gated in (
    (torch.bfloat16, (2, 512, 4, 64), True), (torch.float32, (2, 512, 256), True),
    (torch.bfloat16, (2, 512, 4, 128), False),
):
    x, gate = (torch.randn(shape, dtype=dtype, requires_grad=True) for _ in range(2))
    weight = torch.ones(shape[-1], requires_grad=True) if gated else None
    y = triton_norm(x, weight, 1e-5, shape[-1], gate if gated else None, True, shape[-1] == 64)
    y.backward(torch.empty_like(y))
"""
    kernels = compile_for_gpus(code, tmp_path)
    assert [x["kernel"] for x in kernels[::2]] == LAUNCHES * 3
    for kernel in kernels:
        assert kernel["shared"] <= 8192, kernel
        assert kernel["stack"] == 0, kernel
        assert kernel["wide"] >= 1, kernel
