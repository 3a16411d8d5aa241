"""fir_bank: the fast forms against the reference, and what its GPU kernels compile to."""

import os
import subprocess
import sys
from itertools import pairwise

import pytest
import torch

from asi_lab.kernels import short_convolution
from asi_lab.kernels.fir_bank import fir_bank

CU_SEQLENS = torch.tensor([0, 3, 3, 4, 21, 30])


def make_inputs(shape, widths):
    D = torch.Size(shape[2:]).numel()
    weights = {f"weight_{i}": torch.randn(D, W).double() for i, W in enumerate(widths)}
    return {"x": torch.randn(shape).double()} | weights


def run(implementation, cu_seqlens=None):
    def bank(x, **weights):
        return fir_bank(x, list(weights.values()), cu_seqlens, implementation=implementation)

    return bank


@pytest.mark.parametrize("shape", [(2, 1, 6), (1, 7, 6), (3, 33, 6), (2, 33, 2, 3)])
@pytest.mark.parametrize("widths", [(1,), (3, 7), (5, 64), (31, 4, 200)])
def test_shift_equals_the_reference(shape, widths, assert_same):
    inputs = make_inputs(shape, widths)
    assert_same(run("shift"), run("naive"), inputs, 1e-9)
    assert_same(run("shift"), run("naive"), inputs, 1e-4, torch.float32)


@pytest.mark.parametrize("shape", [(1, 150, 1024), (7, 60, 1024)])
def test_shift_over_several_blocks(shape, assert_same):
    assert_same(run("shift"), run("naive"), make_inputs(shape, (3, 31)), 1e-9)


def test_shift_of_bfloat16(assert_same):
    inputs = {name: x.bfloat16().double() for name, x in make_inputs((2, 33, 6), (5, 31)).items()}
    assert_same(run("shift"), run("naive"), inputs, 3e-2, torch.bfloat16)


def test_every_output_is_a_short_convolution(assert_same):
    inputs = make_inputs((2, 40, 6), (3, 31))

    def separate(x, **weights):
        return tuple(short_convolution(x, weight, implementation="naive") for weight in weights.values())

    assert_same(run("naive"), separate, inputs, 1e-9)


@pytest.mark.parametrize("implementation", ["shift", "triton"])
def test_sequences_in_a_row_equal_single_ones(implementation, assert_same):
    inputs = make_inputs((1, 30, 6), (3, 19))

    def one_by_one(x, **weights):
        bounds = CU_SEQLENS.tolist()
        parts = [x[:, a:b] for a, b in pairwise(bounds) if a < b]
        outputs = [fir_bank(part, list(weights.values()), implementation="naive") for part in parts]
        return tuple(torch.cat(each, 1) for each in zip(*outputs, strict=True))

    assert_same(run("naive", CU_SEQLENS), one_by_one, inputs, 1e-9)
    dtype, tolerance = (torch.float64, 1e-9) if implementation == "shift" else (torch.float32, 1e-4)
    assert_same(run(implementation, CU_SEQLENS), one_by_one, inputs, tolerance, dtype)


@pytest.mark.parametrize(
    ("shape", "widths"), [((2, 1, 6), (1, 5)), ((2, 37, 6), (3, 35)), ((1, 18, 2, 65), (16, 4, 33))]
)
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float32, 1e-4), pytest.param(torch.float16, 1e-2, marks=pytest.mark.slow)],
)
def test_triton_equals_the_reference(shape, widths, dtype, tolerance, assert_same):
    inputs = {name: x.to(dtype).double() for name, x in make_inputs(shape, widths).items()}
    assert_same(run("triton"), run("naive"), inputs, tolerance, dtype)


def test_triton_over_several_tiles(assert_same, monkeypatch):
    from asi_lab.kernels.fir_bank import triton as kernels

    monkeypatch.setattr(kernels, "PROGRAMS", 2)
    assert_same(run("triton"), run("naive"), make_inputs((2, 70, 6), (5,)), 1e-4, torch.float32)


def test_triton_needs_three_launches(launches):
    x = torch.randn(2, 20, 6, requires_grad=True)
    weights = [torch.randn(6, W, requires_grad=True) for W in (3, 5)]
    with launches() as names:
        outputs = fir_bank(x, weights, implementation="triton")
        torch.autograd.grad(outputs, [x, *weights], [torch.ones_like(y) for y in outputs])
    assert names == ["bank_forward_kernel", "bank_input_gradient_kernel", "bank_taps_gradient_kernel"]


@pytest.mark.parametrize(("implementation", "T"), [("naive", 40), ("shift", 600), ("triton", 40)])
def test_causal_to_the_bit_and_input_left_alone(implementation, T):
    x, weights = torch.randn(2, T, 300), [torch.randn(300, W) for W in (3, 31)]
    before = x.clone()
    expected = fir_bank(x, weights, implementation=implementation)
    assert torch.equal(x, before)
    changed = x.clone()
    changed[:, T // 2 :] = 1e4
    for y, other in zip(expected, fir_bank(changed, weights, implementation=implementation), strict=True):
        assert torch.equal(y[:, : T // 2], other[:, : T // 2])


@pytest.mark.parametrize("implementation", ["shift", "triton"])
def test_strided_inputs(implementation, assert_same):
    inputs = make_inputs((2, 9, 6), (3,))

    def strided(x, weight_0):
        wide = torch.cat((x, x), -1)  # its halves are views with rows that are further apart
        swapped = x.transpose(0, 2).contiguous().transpose(0, 2)
        return sum(
            (fir_bank(each, [weight_0], implementation=implementation) for each in (wide[..., 6:], swapped)),
            start=(),
        )

    def plain(x, weight_0):
        return fir_bank(x, [weight_0], implementation="naive") * 2

    assert_same(strided, plain, inputs, 1e-4, torch.float32)


def test_autocast_changes_nothing():
    x, weight = torch.randn(2, 9, 6), torch.randn(6, 3)
    with torch.autocast("cpu", torch.bfloat16):
        (y,) = fir_bank(x, [weight])
    assert torch.equal(y, fir_bank(x, [weight])[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x": torch.zeros(7, 6)}, "x must be"),
        ({"weights": []}, "weights must hold"),
        ({"weights": [torch.zeros(6, 3), torch.zeros(5, 3)]}, r"weights\[1\] must be"),
        ({"weights": [torch.zeros(6, 0)]}, r"weights\[0\] must be"),
        ({"implementation": "fft"}, "implementation must be"),
        ({"cu_seqlens": torch.tensor([0, 7])}, "cu_seqlens needs all sequences packed"),
        ({"x": torch.zeros(1, 7, 6), "cu_seqlens": torch.tensor([0, 6])}, "cu_seqlens must rise"),
        ({"x": torch.zeros(1, 7, 6), "cu_seqlens": torch.tensor([0, 5, 3, 7])}, "cu_seqlens must rise"),
        ({"x": torch.zeros(1, 7, 6), "cu_seqlens": torch.tensor([0.0, 7.0])}, "cu_seqlens must be"),
    ],
)
def test_names_what_does_not_fit(arguments, message):
    with pytest.raises(ValueError, match=message):
        fir_bank(**({"x": torch.zeros(2, 7, 6), "weights": [torch.zeros(6, 4)]} | arguments))


COMPILE = """
import subprocess, sys, tempfile
import triton
from triton.backends.compiler import GPUTarget
from asi_lab.kernels.fir_bank import triton as bank

arch, dtype, varlen, widths = int(sys.argv[1]), "*" + sys.argv[2], sys.argv[3] == "True", eval(sys.argv[4])
tensors = (dtype,) * len(widths)
types = dict(x_ptr=dtype, taps_ptr="*fp32", y_ptrs=tensors, d_y_ptrs=tensors, d_x_ptr=dtype)
types |= dict(d_taps_ptr="*fp32", T="i32", tiles="i32", programs="i32")
types |= dict(tiles_ptr="*i64") if varlen else {}
groups = bank._cumulative([triton.cdiv(width, bank.GROUP) for width in widths])
values = dict(STRIDE=1024, D=1024, WIDTHS=widths, STARTS=bank._cumulative(widths), GROUPS=groups)
values |= dict(GROUP=bank.GROUP, TAPS=bank.TAPS, TOKENS=128, BLOCK=128, VARLEN=varlen, tiles_ptr=None)
for kernel in (bank.bank_forward_kernel, bank.bank_input_gradient_kernel, bank.bank_taps_gradient_kernel):
    values["ROWS"] = bank.GRADIENT_ROWS if kernel is bank.bank_taps_gradient_kernel else bank.ROWS
    signature = {name: types.get(name, "constexpr") for name in kernel.arg_names}
    constants = {name: values[name] for name, kind in signature.items() if kind == "constexpr"}
    source = triton.compiler.ASTSource(fn=kernel, signature=signature, constexprs=constants)
    done = triton.compile(source, target=GPUTarget("cuda", arch, 32), options={"num_warps": 4})
    assert done.metadata.shared == 0
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(done.asm["cubin"])
        file.flush()
        command = [triton.knobs.nvidia.cuobjdump.path, "-res-usage", file.name]
        assert "STACK:0 " in subprocess.run(command, capture_output=True, text=True, check=True).stdout
    print(kernel.__name__)
"""


@pytest.mark.parametrize(
    ("arch", "dtype", "varlen", "widths"),
    [
        pytest.param(80, "fp32", True, (7,), marks=pytest.mark.slow),
        pytest.param(90, "bf16", False, (5, 64), marks=pytest.mark.slow),
        pytest.param(90, "fp32", True, (16, 4), marks=pytest.mark.slow),
        (90, "bf16", False, (3,)),
    ],
)
def test_kernels_compile_for_a_gpu(arch, dtype, varlen, widths):
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    arguments = [str(each) for each in (arch, dtype, varlen, widths)]
    done = subprocess.run(
        [sys.executable, "-c", COMPILE, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.stdout.split() == [
        "bank_forward_kernel",
        "bank_input_gradient_kernel",
        "bank_taps_gradient_kernel",
    ], done.stderr
