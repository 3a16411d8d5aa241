"""linear_cross_entropy: the forms by chunks against the reference, and against torch's composition."""

import os
import subprocess
import sys

import pytest
import torch
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from asi_lab.kernels.linear_cross_entropy import linear_cross_entropy


def example(N=13, D=5, V=11, bias=True, ignored=(2, 12)):
    """Leaves in float64, and targets of which some do not count."""
    leaves = {"x": torch.randn(N, D).double(), "weight": torch.randn(V, D).double()}
    if bias:
        leaves["bias"] = torch.randn(V).double()
    target = torch.randint(0, V, (N,))
    target[list(ignored)] = -100
    return leaves, target


def loss_of(target, implementation, **options):
    return lambda **leaves: (
        linear_cross_entropy(target=target, **leaves, implementation=implementation, **options),
    )


@pytest.mark.parametrize("implementation", ["chunk", "triton"])
@pytest.mark.parametrize("softcap", [None, 1.7])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("chunk_size", [None, 4])
def test_loss_and_gradients_equal_the_reference(
    chunk_size, bias, reduction, softcap, implementation, assert_same
):
    leaves, target = example(bias=bias)
    options = {"reduction": reduction, "logit_softcapping": softcap}
    fast = loss_of(target, implementation, chunk_size=chunk_size, **options)
    truth = loss_of(target, "naive", **options)
    assert_same(fast, truth, leaves, 1e-9)
    assert_same(fast, truth, leaves, 1e-4, torch.float32)
    if implementation == "chunk":  # Triton's interpreter has no bfloat16
        rounded = {name: x.bfloat16().double() for name, x in leaves.items()}
        assert_same(fast, truth, rounded, 3e-2, torch.bfloat16)
    else:
        rounded = {name: x.half().double() for name, x in leaves.items()}
        assert_same(fast, truth, rounded, 1e-2, torch.float16)


@pytest.mark.parametrize("implementation", ["chunk", "triton"])
@pytest.mark.parametrize(("N", "V"), [(1, 1), (1, 7), (3, 64), (2, 65), (2, 8300)])
def test_odd_sizes(N, V, implementation, assert_same):
    leaves, target = example(N=N, V=V, ignored=())
    assert_same(loss_of(target, implementation), loss_of(target, "naive"), leaves, 1e-9)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_reference_equals_torch(reduction):
    leaves, target = example()
    logits = functional.linear(**{"input" if k == "x" else k: v for k, v in leaves.items()})
    expected = functional.cross_entropy(logits, target, reduction=reduction)
    actual = linear_cross_entropy(target=target, **leaves, reduction=reduction, implementation="naive")
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("implementation", ["naive", "chunk", "triton"])
def test_without_any_target_the_mean_is_nan_and_gradients_are_zero(implementation):
    leaves, target = example(ignored=range(13))
    leaves = {name: x.requires_grad_() for name, x in leaves.items()}
    loss = linear_cross_entropy(target=target, **leaves, implementation=implementation)
    loss.backward()
    assert loss.isnan()
    assert all((x.grad == 0).all() for x in leaves.values())


@pytest.mark.parametrize("implementation", ["chunk", "triton"])
def test_a_token_that_does_not_count_cannot_spread_nan(implementation):
    leaves, target = example()
    leaves["x"][2] = float("nan")
    leaves = {name: x.requires_grad_() for name, x in leaves.items()}
    loss = linear_cross_entropy(target=target, **leaves, implementation=implementation)
    loss.backward()
    assert loss.isfinite()
    assert (leaves["x"].grad[2] == 0).all()


@pytest.mark.parametrize("implementation", ["chunk", "triton"])
def test_huge_and_forbidden_logits(implementation):
    """A bias of -inf forbids tokens; logits of 1e4 overflow no exponential."""
    weight, x = torch.eye(4), torch.diag(torch.tensor([1e4, -1e4, 0.0, 3.0]))
    bias = torch.tensor([0.0, 0.0, -torch.inf, 0.0])
    target = torch.tensor([0, 1, 3, 3])
    leaves = [p.requires_grad_() for p in (x, weight)]
    loss = linear_cross_entropy(x, target, weight, bias, reduction="sum", implementation=implementation)
    loss.backward()
    expected = functional.cross_entropy(x @ weight.t() + bias, target, reduction="sum")
    torch.testing.assert_close(loss, expected)
    assert all(p.grad.isfinite().all() for p in leaves)


@pytest.mark.parametrize(("implementation", "dtype"), [("chunk", torch.bfloat16), ("triton", torch.float16)])
def test_the_gradient_of_a_token_foretold_well_is_small_and_not_zero(implementation, dtype):
    """Its probability, 0.9999, would round to 1 in these dtypes before 1 is taken off."""
    x = torch.tensor([[6.0]], dtype=dtype, requires_grad=True)
    weight = torch.tensor([[1.0], [-0.5]], dtype=dtype)
    linear_cross_entropy(x, torch.tensor([0]), weight, implementation=implementation).backward()
    assert x.grad.item() == pytest.approx(-1.5 * torch.sigmoid(torch.tensor(-9.0)).item(), rel=1e-2)


def test_sequences_and_strides_and_inputs_left_alone():
    x = torch.randn(5, 7, 2).transpose(0, 2).requires_grad_()  # [2, 7, 5]
    weight = torch.randn(5, 9).t().requires_grad_()
    target = torch.randint(0, 9, (7, 2)).t()
    before = x.detach().clone(), weight.detach().clone(), target.clone()
    loss = linear_cross_entropy(x, target, weight, chunk_size=4)
    expected = functional.cross_entropy((x @ weight.t()).flatten(0, 1), target.flatten())
    torch.testing.assert_close(loss, expected)
    actual = torch.autograd.grad(loss, (x, weight))
    torch.testing.assert_close(actual, torch.autograd.grad(expected, (x, weight)))
    assert all(torch.equal(a, b) for a, b in zip(before, (x, weight, target), strict=True))


def test_autocast_is_that_of_the_composition():
    """Products in bfloat16, softmax and loss in float32; also in an autocast region inside of another."""
    x, weight = (torch.randn(n, 32).requires_grad_() for n in (40, 70))
    target = torch.randint(0, 70, (40,))
    with torch.autocast("cpu", torch.bfloat16):
        loss = linear_cross_entropy(x, target, weight, chunk_size=16)
        expected = functional.cross_entropy(functional.linear(x, weight).float(), target)
        with torch.autocast("cpu", enabled=False):
            exact = linear_cross_entropy(x, target, weight)
    assert loss.dtype == exact.dtype == torch.float32
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-6)  # of the very same logits
    assert abs(loss - exact) > 1e-5
    leaves = (x, weight)
    truth = torch.autograd.grad(exact, leaves)
    ours, of_torch = (torch.autograd.grad(y, leaves) for y in (loss, expected))
    for actual, other, true in zip(ours, of_torch, truth, strict=True):
        assert actual.dtype == torch.float32
        assert 0 < (actual - true).norm() < 1.2 * (other - true).norm()


def test_dtypes_of_gradients_are_those_of_the_leaves_and_backward_repeats():
    x, weight = torch.randn(6, 4).bfloat16().requires_grad_(), torch.randn(9, 4).requires_grad_()
    loss = linear_cross_entropy(x, torch.randint(0, 9, (6,)), weight)
    first = torch.autograd.grad(3 * loss, (x, weight), retain_graph=True)
    second = torch.autograd.grad(3 * loss, (x, weight))
    assert loss.dtype == torch.float32
    assert [d.dtype for d in first] == [torch.bfloat16, torch.float32]
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("frozen", ["x", "weight", "all"])
def test_only_gradients_that_are_wanted_are_made(frozen, monkeypatch):
    x, weight = torch.randn(6, 4), torch.randn(9, 4)
    if frozen != "all":
        (weight if frozen == "x" else x).requires_grad_()
    products = []
    original = torch.mm
    monkeypatch.setattr(torch, "mm", lambda *a, **k: products.append(a) or original(*a, **k))
    loss = linear_cross_entropy(x, torch.randint(0, 9, (6,)), weight)
    assert loss.requires_grad == (frozen != "all")
    assert len(products) == (2 if frozen == "weight" else 1)  # that of weight is added in place
    with torch.no_grad():
        products.clear()
        linear_cross_entropy(x, torch.zeros(6, dtype=torch.long), weight)
    assert len(products) == 1


def test_one_launch_a_chunk(launches):
    leaves, target = example()
    with launches() as names:
        linear_cross_entropy(target=target, **leaves, implementation="triton", chunk_size=4)
    assert names == ["cross_entropy_kernel"] * 4


def test_memory_stays_below_that_of_the_logits():
    """Peak of a child process: 4096 tokens times 8192 words would be 128 MB of logits, and as much again."""
    code = """
import resource, torch
from asi_lab.kernels.linear_cross_entropy import linear_cross_entropy
torch.set_num_threads(1)
x, weight = (torch.randn(n, 8).requires_grad_() for n in (4096, 8192))
target = torch.randint(0, 8192, (4096,))
linear_cross_entropy(x[:8], target[:8], weight).backward()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
linear_cross_entropy(x, target, weight).backward()
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert int(done.stdout) < 40


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x": torch.zeros(6)}, "x must be"),
        ({"x": torch.zeros(6, 4, dtype=torch.long)}, "x must be"),
        ({"target": torch.zeros(5, dtype=torch.long)}, "target must be"),
        ({"target": torch.zeros(6, dtype=torch.int32)}, "target must be"),
        ({"target": torch.full((6,), 9)}, r"target must lie in \[0, V\) with V = 9; got values from 9 to 9"),
        ({"target": torch.full((6,), -1)}, "target must lie"),
        ({"weight": torch.zeros(9, 5)}, "weight must be"),
        ({"bias": torch.zeros(8)}, "bias must be"),
        ({"reduction": "none"}, "reduction must be"),
        ({"logit_softcapping": 0.0}, "logit_softcapping must be"),
        ({"chunk_size": 0}, "chunk_size must be"),
        ({"implementation": "fused"}, "implementation must be"),
    ],
)
def test_errors_name_what_does_not_fit(arguments, message):
    sound = {"x": torch.zeros(6, 4), "target": torch.zeros(6, dtype=torch.long), "weight": torch.zeros(9, 4)}
    with pytest.raises(ValueError, match=message):
        linear_cross_entropy(**(sound | arguments))


@pytest.mark.slow
def test_the_kernel_compiles_for_gpus():
    """For sm_80 and sm_90 without having one: PTX without local memory, loads of 16 bytes."""
    code = """
import re, triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from asi_lab.kernels.linear_cross_entropy.triton import cross_entropy_kernel as kernel

names = ["logits_ptr", "target_ptr", "counted_ptr", "loss_ptr", "width", "V"]
for capability in (80, 90):
    for dtype in ("bf16", "fp32"):
        for softcap in (None, 30.0):
            constants = {"SOFTCAP": softcap, "GRADIENT": True, "BLOCK": 8192}
            types = ["*" + dtype, "*i64", "*i1", "*fp32", "i32", "i32"]
            signature = dict(zip(names, types)) | dict.fromkeys(constants, "constexpr")
            aligned = {(i,): [["tt.divisibility", 16]] for i in range(5)}  # V is odd
            source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=aligned)
            done = triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": 16})
            ptx = done.asm["ptx"]
            wide = len(re.findall(r"ld\\.global[.\\w]*\\.v4\\.b32", ptx))
            print(capability, dtype, softcap, done.metadata.shared, wide, "local" in ptx)
            assert wide >= 4 and done.metadata.shared < 4096 and ".local" not in ptx
print("done")
"""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=200
    )
    assert done.stdout.endswith("done\n"), done.stdout + done.stderr


class Products(TorchDispatchMode):
    """The sizes of the operands of all matrix products."""

    def __init__(self):
        super().__init__()
        self.sizes = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.addmm_):
            self.sizes += [tuple(x.shape) for x in args if isinstance(x, torch.Tensor) and x.dim() == 2]
        return function(*args, **kwargs or {})


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [False, True])
def test_products_are_over_a_multiple_of_8_whatever_the_vocabulary(bias, dtype):
    leaves, target = example(N=16, D=8, V=11, bias=bias)
    leaves = {name: x.to(dtype).requires_grad_() for name, x in leaves.items()}
    with Products() as products:
        loss = linear_cross_entropy(target=target, **leaves, implementation="chunk", chunk_size=8)
    loss.backward()
    assert {size for sizes in products.sizes for size in sizes} == {8, 16}
    assert [x.grad.shape for x in leaves.values()] == [x.shape for x in leaves.values()]
