"""qkv_convolution: the fast forms against the reference, and what the GPU kernels compile to."""

import os
import subprocess
import sys
from itertools import pairwise

import pytest
import torch

from asi_lab.kernels import l2_norm, short_convolution
from asi_lab.kernels.qkv_convolution import qkv_convolution
from asi_lab.kernels.short_convolution.triton import _heads_together

CU_SEQLENS = torch.tensor([0, 2, 2, 3, 16, 20])


def make_inputs(B, T, heads=2, key_dim=3, value_dim=5, W=4, bias=True):
    D = heads * (2 * key_dim + value_dim)
    inputs = {"qkv": torch.randn(B, T, D).double(), "weight": torch.randn(D, W).double()}
    return inputs | ({"bias": torch.randn(D).double()} if bias else {})


def run(implementation, heads=2, key_dim=3, **options):
    def convolve(**leaves):
        leaves |= {"num_heads": heads, "key_dim": key_dim, "implementation": implementation}
        return qkv_convolution(**leaves, **options)

    return convolve


@pytest.mark.parametrize("activation", [None, "silu"])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("T", "W"), [(1, 4), (3, 4), (7, 1), (33, 4), (20, 31)])
def test_fused_equals_the_reference(T, W, bias, activation, assert_same):
    inputs = make_inputs(2, T, W=W, bias=bias)
    options = {"activation": activation, "norm_eps": 1e-3}
    assert_same(run("fused", **options), run("naive", **options), inputs, 1e-9)
    assert_same(run("fused", **options), run("naive", **options), inputs, 1e-4, torch.float32)


def test_fused_over_several_blocks(assert_same):
    inputs = make_inputs(3, 90, heads=4, key_dim=128, value_dim=256)
    assert_same(run("fused", 4, 128), run("naive", 4, 128), inputs, 1e-9)


def test_fused_of_bfloat16(assert_same):
    inputs = {name: x.bfloat16().double() for name, x in make_inputs(2, 33).items()}
    assert_same(run("fused"), run("naive"), inputs, 5e-2, torch.bfloat16)


@pytest.mark.parametrize("implementation", ["auto", "naive", "fused", "triton"])
def test_equals_the_prologue_of_gated_delta_net(implementation):
    inputs = {name: x.float() for name, x in make_inputs(2, 9).items()}
    y = short_convolution(inputs["qkv"], inputs["weight"], inputs["bias"], "silu")
    q, k, v = (part.unflatten(-1, (2, -1)) for part in y.split([6, 6, 10], dim=-1))
    outputs = run(implementation)(**inputs)
    for actual, expected in zip(outputs, (l2_norm(q), l2_norm(k), v), strict=True):
        torch.testing.assert_close(actual, expected)
        assert actual.is_contiguous()


@pytest.mark.parametrize("implementation", ["fused", "triton"])
def test_sequences_in_a_row_equal_single_ones(implementation, assert_same):
    def one_by_one(qkv, **parameters):
        bounds = CU_SEQLENS.tolist()
        parts = [qkv[:, a:b] for a, b in pairwise(bounds) if a < b]
        outputs = [run("naive")(qkv=part, **parameters) for part in parts]
        return tuple(torch.cat(each, 1) for each in zip(*outputs, strict=True))

    inputs = make_inputs(1, 20)
    assert_same(run("naive", cu_seqlens=CU_SEQLENS), one_by_one, inputs, 1e-9)
    dtype, tolerance = (torch.float64, 1e-9) if implementation == "fused" else (torch.float32, 1e-4)
    assert_same(run(implementation, cu_seqlens=CU_SEQLENS), one_by_one, inputs, tolerance, dtype)


@pytest.mark.parametrize(("heads", "key_dim", "together"), [(6, 4, 2), (4, 32, 4), (3, 32, 1), (2, 128, 1)])
def test_triton_norms_each_of_the_heads_that_a_warp_takes(heads, key_dim, together, assert_same):
    assert _heads_together(heads, key_dim) == together
    inputs = make_inputs(1, 5, heads, key_dim, value_dim=7)
    fast, truth = (run(name, heads, key_dim) for name in ("triton", "naive"))
    assert_same(fast, truth, inputs, 1e-4, torch.float32)


@pytest.mark.parametrize("activation", [None, "silu"])
@pytest.mark.parametrize(("T", "W", "bias"), [(1, 4, False), (5, 1, True), (6, 4, True)])
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float32, 1e-4), pytest.param(torch.float16, 2e-2, marks=pytest.mark.slow)],
)
def test_triton_equals_the_reference(T, W, bias, activation, dtype, tolerance, assert_same):
    inputs = {name: x.to(dtype).double() for name, x in make_inputs(2, T, W=W, bias=bias).items()}
    options = {"activation": activation, "norm_eps": 1e-3}
    assert_same(run("triton", **options), run("naive", **options), inputs, tolerance, dtype)


@pytest.mark.slow
@pytest.mark.parametrize("cu_seqlens", [None, CU_SEQLENS])
def test_triton_over_several_tiles(cu_seqlens, assert_same, monkeypatch):
    from asi_lab.kernels.short_convolution import triton as kernels

    monkeypatch.setattr(kernels, "TOKENS", 8)
    monkeypatch.setattr(kernels, "PROGRAMS", 8)  # fewer than tiles times blocks: a program has several
    options = {"cu_seqlens": cu_seqlens}
    assert_same(run("triton", **options), run("naive", **options), make_inputs(1, 20), 1e-4, torch.float32)


def test_triton_needs_two_launches(launches):
    inputs = {name: x.float().requires_grad_() for name, x in make_inputs(2, 9).items()}
    with launches() as names:
        outputs = run("triton")(**inputs)
        torch.autograd.grad(outputs, list(inputs.values()), [torch.ones_like(y) for y in outputs])
    assert names == ["convolution_forward_kernel", "convolution_backward_kernel"]


def test_triton_takes_long_filters_too(assert_same):
    inputs = make_inputs(1, 21, W=19)
    assert_same(run("triton"), run("naive"), inputs, 1e-4, torch.float32)


@pytest.mark.parametrize("implementation", ["naive", "fused", "triton"])
def test_causal_to_the_bit_and_input_left_alone(implementation):
    inputs = {name: x.float() for name, x in make_inputs(1, 30, heads=4, key_dim=16, value_dim=16).items()}
    before = inputs["qkv"].clone()
    expected = run(implementation, 4, 16)(**inputs)
    assert torch.equal(inputs["qkv"], before)
    inputs["qkv"] = before.clone()
    inputs["qkv"][:, 15:] = 10.0
    for y, other in zip(expected, run(implementation, 4, 16)(**inputs), strict=True):
        assert torch.equal(y[:, :15], other[:, :15])


@pytest.mark.parametrize("implementation", ["fused", "triton"])
def test_strided_inputs_and_gradients(implementation, assert_same):
    def strided(qkv, weight, bias):
        wide = torch.cat((qkv, qkv), -1)[..., qkv.shape[-1] :]
        q, k, v = run(implementation)(qkv=wide, weight=weight.t().contiguous().t(), bias=bias)
        return q.transpose(1, 2), k.mT, v.flatten(-2)

    def plain(**leaves):
        q, k, v = run("naive")(**leaves)
        return q.transpose(1, 2), k.mT, v.flatten(-2)

    assert_same(strided, plain, make_inputs(2, 9), 1e-4, torch.float32)


def test_zero_inputs_have_finite_gradients():
    for implementation in ("naive", "fused", "triton"):
        inputs = {name: torch.zeros_like(x).float().requires_grad_() for name, x in make_inputs(1, 5).items()}
        outputs = run(implementation)(**inputs)
        gradients = torch.autograd.grad(outputs, list(inputs.values()), [torch.ones_like(y) for y in outputs])
        assert all(d.isfinite().all() for d in gradients)
        assert all((y == 0).all() for y in outputs)


def test_autocast_changes_nothing():
    inputs = {name: x.float() for name, x in make_inputs(2, 9).items()}
    with torch.autocast("cpu", torch.bfloat16):
        outputs = run("auto")(**inputs)
    assert all(torch.equal(y, other) for y, other in zip(outputs, run("auto")(**inputs), strict=True))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"qkv": torch.zeros(7, 22)}, "qkv must be"),
        ({"qkv": torch.zeros(2, 7, 12)}, "qkv must have a width"),
        ({"qkv": torch.zeros(2, 7, 21)}, "qkv must have a width"),
        ({"num_heads": 0}, "qkv must have a width"),
        ({"weight": torch.zeros(21, 4)}, "weight must be"),
        ({"bias": torch.zeros(21)}, "bias must be"),
        ({"activation": "relu"}, "activation must be"),
        ({"implementation": "shift"}, "implementation must be"),
        ({"cu_seqlens": torch.tensor([0, 7])}, "cu_seqlens needs all sequences packed"),
    ],
)
def test_names_what_does_not_fit(arguments, message):
    fitting = {"qkv": torch.zeros(2, 7, 22), "weight": torch.zeros(22, 4), "num_heads": 2, "key_dim": 3}
    with pytest.raises(ValueError, match=message):
        qkv_convolution(**(fitting | arguments))


COMPILE = """
import itertools, subprocess, tempfile
import triton
from triton.backends.compiler import GPUTarget
from asi_lab.kernels.short_convolution import triton as walk

shapes = (4, 128, 1, 2048), (2, 128, 4, 1024), (0, 0, 1, 1024)
cases = itertools.product((80, 90), ("*bf16", "*fp32"), shapes)
for (arch, dtype, (H, K, heads, V)), bias in zip(cases, itertools.cycle((True, False))):
    types = dict.fromkeys("x_ptr q_ptr k_ptr v_ptr d_q_ptr d_k_ptr d_v_ptr d_x_ptr".split(), dtype)
    types |= dict(weight_ptr="*fp32", d_taps_ptr="*fp32", T="i32", tiles="i32", programs="i32", eps="fp32")
    types |= dict(bias_ptr="*fp32") if bias else dict(tiles_ptr="*i64")
    values = dict(H=H, K=K, V=V, STRIDE=2 * H * K + V, W=4, BIAS=bias, SILU=True, VARLEN=not bias, TOKENS=64)
    values |= dict(HEADS=heads, BLOCK=128, UNROLL=4, bias_ptr=None, tiles_ptr=None)
    for kernel in (walk.convolution_forward_kernel, walk.convolution_backward_kernel):
        signature = {name: types.get(name, "constexpr") for name in kernel.arg_names}
        constants = {name: values[name] for name, kind in signature.items() if kind == "constexpr"}
        pointers = [i for i, kind in enumerate(signature.values()) if kind.startswith("*")]
        attributes = {(i,): [["tt.divisibility", 16]] for i in pointers}
        source = triton.compiler.ASTSource(kernel, signature, constants, attributes)
        done = triton.compile(source, target=GPUTarget("cuda", arch, 32), options={"num_warps": 1})
        assert done.metadata.shared == 0
        ptx = done.asm["ptx"]
        with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
            file.write(done.asm["cubin"])
            file.flush()
            command = [triton.knobs.nvidia.cuobjdump.path, "-res-usage", file.name]
            assert "STACK:0 " in subprocess.run(command, capture_output=True, text=True, check=True).stdout
        vector = "v2.b32" if dtype == "*bf16" else "v4.b32"  # four channels a lane
        assert f"ld.global.{vector}" in ptx and f"st.global.{vector}" in ptx, ptx
        print(kernel.__name__)
"""


@pytest.mark.slow
def test_kernels_compile_for_a_gpu():
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", COMPILE], env=environment, capture_output=True, text=True, timeout=200
    )
    assert done.stdout.split() == ["convolution_forward_kernel", "convolution_backward_kernel"] * 12, (
        done.stderr[-3000:]
    )
