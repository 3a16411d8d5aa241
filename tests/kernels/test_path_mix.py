"""path_mix: all forms against the reference, and against the routers it is meant to express."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from asi_lab.kernels.path_mix import path_mix
from tests.kernels.gpu_compiler import compile_for_gpus

ROUTINGS: dict[str, dict[str, Any]] = {
    "softmax": {},
    "sigmoid": {"routing": "sigmoid"},
    "1 and 3": {"routing": "hierarchical", "groups": (1, 3)},
    "2, 1 and 1": {"routing": "hierarchical", "groups": [2, 1, 1]},
}
LAUNCHES = ["path_mix_forward_kernel", "path_mix_backward_kernel"]


def make_inputs(
    routing: str, shape: tuple[int, ...] = (2, 5, 3, 6), n: int = 4, scalars: str = "token"
) -> dict[str, Tensor]:
    """float64 inputs; temperature and floor per "token", per "head", or left out ("number")."""
    B, T, H, V = shape
    groups = ROUTINGS[routing].get("groups", ())
    inputs = {f"path_{p}": torch.randn(B, T, H, V).double() for p in range(n)}
    inputs["logits"] = torch.randn(B, T, H, len(groups) + n).double()
    lead = (B, T, H) if scalars == "token" else (H,)
    if scalars != "number":
        inputs["temperature"] = 0.3 + torch.rand(lead).double()
        inputs["floor"] = 0.8 / n * torch.rand(*lead, n).double()
    return inputs


def run(routing: str, implementation: str, **fixed: Any) -> Callable[..., tuple[Tensor, ...]]:
    def function(**leaves: Tensor) -> tuple[Tensor, ...]:
        paths = [leaves.pop(name) for name in list(leaves) if name.startswith("path_")]
        return path_mix(paths, **leaves, **ROUTINGS[routing], implementation=implementation, **fixed)

    return function


@pytest.mark.parametrize("scalars", ["token", "head", "number"])
@pytest.mark.parametrize("routing", ROUTINGS)
def test_fused_equals_the_reference(routing, scalars, assert_same):
    inputs = make_inputs(routing, scalars=scalars)
    numbers = {"temperature": 0.7, "floor": 0.05} if scalars == "number" else {}
    fused, naive = run(routing, "fused", **numbers), run(routing, "naive", **numbers)
    assert_same(fused, naive, inputs, 1e-9)
    assert_same(fused, naive, inputs, 1e-4, torch.float32)
    rounded = {name: x.bfloat16().double() for name, x in inputs.items()}
    assert_same(fused, naive, rounded, 3e-2, torch.bfloat16)


@pytest.mark.parametrize("scalars", ["token", "head", "number"])
@pytest.mark.parametrize("routing", ROUTINGS)
def test_triton_equals_the_reference_in_one_launch_each_way(routing, scalars, assert_same, launches):
    inputs = make_inputs(routing, scalars=scalars)
    numbers = {"temperature": 0.7, "floor": 0.05} if scalars == "number" else {}
    fast, naive = run(routing, "triton", **numbers), run(routing, "naive", **numbers)
    with launches() as names:
        assert_same(fast, naive, inputs, 1e-4, torch.float32)
    assert names == LAUNCHES
    rounded = {name: x.half().double() for name, x in inputs.items()}
    assert_same(fast, naive, rounded, 1e-2, torch.float16)


@pytest.mark.parametrize("implementation", ["fused", "triton"])
@pytest.mark.parametrize(("shape", "n"), [((1, 1, 1, 1), 2), ((1, 7, 1, 33), 2), ((2, 3, 2, 8), 16)])
def test_small_odd_and_many(shape, n, implementation, assert_same):
    dtype, tolerance = (torch.float64, 1e-9) if implementation == "fused" else (torch.float32, 1e-4)
    for routing in ("softmax", "sigmoid"):
        inputs = make_inputs(routing, shape, n)
        assert_same(run(routing, implementation), run(routing, "naive"), inputs, tolerance, dtype)


@pytest.mark.parametrize("implementation", ["fused", "triton"])
@pytest.mark.parametrize("output", [0, 1, 2])
@pytest.mark.parametrize("routing", ["softmax", "sigmoid", "1 and 3"])
def test_gradient_of_one_output_alone(routing, output, implementation, assert_same):
    dtype, tolerance = (torch.float64, 1e-9) if implementation == "fused" else (torch.float32, 1e-4)
    inputs = make_inputs(routing, (1, 3, 2, 4))
    if output:  # no gradient reaches the paths
        fixed = [inputs.pop(f"path_{p}") for p in range(4)]

    def one(form: str) -> Callable[..., tuple[Tensor, ...]]:
        def function(**leaves: Tensor) -> tuple[Tensor, ...]:
            if not output:
                return run(routing, form)(**leaves)[:1]
            paths = {f"path_{p}": x.to(leaves["logits"].dtype) for p, x in enumerate(fixed)}
            return (run(routing, form)(**paths, **leaves)[output],)

        return function

    assert_same(one(implementation), one("naive"), inputs, tolerance, dtype)


@pytest.mark.parametrize("routing", ROUTINGS)
def test_gradcheck(routing):
    inputs = make_inputs(routing, (1, 2, 2, 3), scalars="head")
    leaves = [x.requires_grad_() for x in inputs.values()]

    def function(*values: Tensor) -> tuple[Tensor, ...]:
        return run(routing, "fused")(**dict(zip(inputs, values, strict=True)))

    assert torch.autograd.gradcheck(function, leaves)


def test_two_stage_router_of_path_gate_fusion_net():
    v, short, long, delta = (torch.randn(2, 5, 3, 6).double() for _ in range(4))
    budget, pool = torch.randn(2, 5, 3, 1).double(), torch.randn(2, 5, 3, 3).double()
    residual = torch.sigmoid(torch.randn(3).double())
    copy, shares = torch.sigmoid(budget), torch.softmax(pool, dim=-1)
    contextual = shares[..., :1] * short + shares[..., 1:2] * long + shares[..., 2:] * delta
    expected = copy * v + (1 - copy) * contextual

    zero = torch.zeros_like(budget)
    logits = torch.cat((budget, zero, zero, pool), dim=-1)
    hierarchical = {"routing": "hierarchical", "groups": (1, 3)}
    o, weights, _ = path_mix((v, short, long, delta), logits, **hierarchical)
    torch.testing.assert_close(o, expected)
    torch.testing.assert_close(weights, torch.cat((copy, (1 - copy) * shares), dim=-1))

    # The residual that is always on is a floor of the copy, up to a factor that the norm takes out.
    floor = torch.zeros(3, 4).double()
    floor[:, 0] = residual / (1 + residual)
    o, _, _ = path_mix((v, short, long, delta), logits, floor=floor, **hierarchical)
    torch.testing.assert_close(o * (1 + residual)[:, None], expected + residual[:, None] * v)


def test_content_router_of_content_sharp_router():
    paths = [torch.randn(2, 5, 3, 6).double() for _ in range(4)]
    cosines, temperature = torch.rand(2, 5, 3, 4).double() * 2 - 1, 0.25 + torch.rand(2, 5, 3).double()
    shares = torch.softmax(cosines / temperature[..., None], dim=-1)
    o, weights, _ = path_mix(paths, cosines, temperature=temperature)
    torch.testing.assert_close(weights, shares)
    torch.testing.assert_close(o, (shares[..., None] * torch.stack(paths, dim=-2)).sum(-2))


def test_parallel_gates_of_fusion_gated_fir_net():
    paths = [torch.randn(2, 5, 3, 6).double() for _ in range(4)]
    logits = torch.randn(2, 5, 3, 4).double()
    o, weights, entropy = path_mix(paths, logits, routing="sigmoid")
    torch.testing.assert_close(weights, torch.sigmoid(logits))
    torch.testing.assert_close(o, (torch.sigmoid(logits)[..., None] * torch.stack(paths, dim=-2)).sum(-2))
    gates = torch.distributions.Bernoulli(logits=logits)
    torch.testing.assert_close(entropy, gates.entropy().sum(-1))


def test_hierarchical_gate_of_hier_gate_net():
    paths = [torch.randn(2, 5, 3, 6).double() for _ in range(4)]
    macro, fine, floor = torch.randn(2, 5, 3, 10).double().split((2, 4, 4), dim=-1)
    shares = torch.softmax(macro, -1)[..., None] * torch.softmax(fine.unflatten(-1, (2, 2)), dim=-1)
    floor = 0.02 + 0.18 * torch.sigmoid(floor)
    expected = floor + (1 - floor.sum(-1, keepdim=True)) * shares.flatten(-2)
    logits = torch.cat((macro, fine), dim=-1)
    o, weights, _ = path_mix(paths, logits, routing="hierarchical", groups=(2, 2), floor=floor)
    torch.testing.assert_close(weights, expected)
    assert (weights >= floor).all()
    torch.testing.assert_close(o, (expected[..., None] * torch.stack(paths, dim=-2)).sum(-2))


def test_balanced_gate_of_ada_multi_path_gate_net_and_its_entropy_penalty():
    paths = [torch.randn(2, 5, 3, 6).double() for _ in range(4)]
    token, head = torch.randn(2, 5, 3, 4).double().requires_grad_(), torch.randn(3, 4).double()
    logits = token + head + torch.randn(4).double()
    shares = 0.02 + (1 - 4 * 0.02) * torch.softmax(logits, dim=-1)
    lacking = 1 - torch.special.entr(shares).sum(-1) / math.log(4)
    o, weights, entropy = path_mix(paths, logits, floor=0.02)
    torch.testing.assert_close(weights, shares)
    torch.testing.assert_close(o, (shares[..., None] * torch.stack(paths, dim=-2)).sum(-2))
    (expected,) = torch.autograd.grad(lacking.mean(), token, retain_graph=True)
    (actual,) = torch.autograd.grad((1 - entropy / math.log(4)).mean(), token)
    torch.testing.assert_close(actual, expected)


@pytest.mark.filterwarnings("ignore:overflow encountered in exp")  # of Triton's interpreter
@pytest.mark.parametrize("implementation", ["naive", "fused", "triton"])
@pytest.mark.parametrize("routing", ["softmax", "sigmoid", "1 and 3"])
@pytest.mark.parametrize("temperature", [1.0, 1e-6, 1e-30])
@pytest.mark.parametrize("size", [1e4, 3e38, math.inf])
def test_decided_routers_have_no_entropy_and_finite_gradients(size, temperature, routing, implementation):
    """One path open, all others closed; a tensor of zeros as floor, whose gradient is wanted too."""
    inputs = {name: x.float() for name, x in make_inputs(routing, (1, 2, 2, 3), scalars="head").items()}
    inputs["logits"].fill_(-size)
    inputs["logits"][..., [0, -1] if routing == "1 and 3" else [-1]] = size
    inputs["temperature"].fill_(temperature)
    inputs["floor"].zero_()
    chosen = 0 if routing == "1 and 3" else 3
    leaves = {name: x.requires_grad_() for name, x in inputs.items()}
    o, weights, entropy = run(routing, implementation)(**leaves)
    assert torch.equal(o, inputs[f"path_{chosen}"])
    assert torch.equal(weights, functional.one_hot(torch.tensor(chosen), 4).float().expand_as(weights))
    assert (entropy == 0).all()
    gradients = torch.autograd.grad(o.sum() + weights.square().sum() + entropy.sum(), list(leaves.values()))
    for name, gradient in zip(leaves, gradients, strict=True):
        assert gradient.isfinite().all(), name


@pytest.mark.parametrize("implementation", ["naive", "fused", "triton"])
def test_differences_of_large_logits_are_kept(implementation):
    """The logits differ by about one temperature: dividing first would round that difference away."""
    logits = torch.tensor([1000.0, 1000.0 + 2**-10]).view(1, 1, 1, 2)
    paths = torch.randn(2, 1, 1, 1, 3).unbind()
    _, weights, entropy = path_mix(paths, logits, temperature=1e-3, implementation=implementation)
    expected = torch.softmax(torch.tensor([0.0, 2**-10 / 1e-3]).double(), dim=-1)
    torch.testing.assert_close(weights.flatten().double(), expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(entropy.item(), torch.special.entr(expected).sum().item())


@pytest.mark.parametrize("implementation", ["naive", "fused", "triton"])
def test_a_temperature_below_the_cut_has_no_gradient(implementation):
    paths = torch.randn(2, 1, 1, 1, 3).unbind()
    logits = torch.tensor([1.0, 1.0 + 2**-20]).view(1, 1, 1, 2)
    temperature = torch.tensor([1e-7], requires_grad=True)
    o, weights, _ = path_mix(paths, logits, temperature=temperature, implementation=implementation)
    cut = path_mix(paths, logits, temperature=1e-6, implementation=implementation)
    torch.testing.assert_close(weights, cut[1])
    assert torch.autograd.grad(o.sum(), temperature)[0] == 0


@pytest.mark.parametrize("implementation", ["fused", "triton"])
def test_a_token_changes_nothing_before_it(implementation):
    inputs = {name: x.float() for name, x in make_inputs("1 and 3", (2, 9, 2, 6)).items()}
    before = run("1 and 3", implementation)(**inputs)
    changed = {name: x.clone() for name, x in inputs.items()}
    for x in changed.values():
        x[:, 5:] *= 0.5
    after = run("1 and 3", implementation)(**changed)
    for a, b in zip(before, after, strict=True):
        assert torch.equal(a[:, :5], b[:, :5])
        assert not torch.allclose(a[:, 5:], b[:, 5:])


@pytest.mark.parametrize("implementation", ["fused", "triton"])
def test_strided_inputs_are_read_where_they_lie_and_left_alone(implementation):
    inputs = {name: x.float() for name, x in make_inputs("2, 1 and 1", (2, 5, 2, 8)).items()}
    expected = run("2, 1 and 1", implementation)(**inputs)
    merged = torch.randn(2, 5, 50)
    merged[..., 30:46] = inputs["path_0"].flatten(2)
    strided = {name: x.transpose(0, -1).contiguous().transpose(0, -1) for name, x in inputs.items()}
    strided["path_0"] = merged[..., 30:46].unflatten(-1, (2, 8))
    strided["path_1"] = inputs["path_1"].transpose(1, 2).contiguous().transpose(1, 2)
    copies = {name: x.clone() for name, x in strided.items()}
    leaves = {name: x.detach().requires_grad_() for name, x in strided.items()}
    outputs = run("2, 1 and 1", implementation)(**leaves)
    torch.testing.assert_close(outputs, expected, rtol=1e-5, atol=1e-6)
    plain = {name: x.clone().requires_grad_() for name, x in inputs.items()}
    again = run("2, 1 and 1", implementation)(**plain)
    for losses in ([y.sum() for y in outputs], [y.sum() for y in again]):
        sum(losses).backward()
    for name, x in leaves.items():
        torch.testing.assert_close(x.grad, plain[name].grad, rtol=1e-5, atol=1e-5)
        assert torch.equal(strided[name], copies[name]), name


def test_fused_makes_no_stack_and_saves_inputs_and_weights_only():
    inputs = {name: x.requires_grad_() for name, x in make_inputs("softmax").items()}
    saved: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x) or x, lambda x: x):
        _, weights, _ = run("softmax", "fused")(**inputs)
    assert sum(x.numel() for x in saved) == sum(x.numel() for x in inputs.values()) + weights.numel()


@pytest.mark.parametrize("implementation", ["naive", "fused", "triton"])
def test_dtypes_and_autocast(implementation):
    inputs = {name: x.float() for name, x in make_inputs("softmax").items()}
    inputs["logits"] = inputs["logits"].half()
    inputs["path_1"] = inputs["path_1"].half()  # as when only some paths come out of autocast
    leaves = {name: x.requires_grad_() for name, x in inputs.items()}
    plain = run("softmax", implementation)(**leaves)
    assert [x.dtype for x in plain] == [torch.float32] * 3
    with torch.autocast("cpu", torch.bfloat16):
        cast = run("softmax", implementation)(**leaves)
        gradients = torch.autograd.grad(sum(y.sum() for y in cast), list(leaves.values()))
    for a, b in zip(plain, cast, strict=True):
        assert torch.equal(a, b)
    expected = torch.autograd.grad(sum(y.sum() for y in plain), list(leaves.values()))
    for x, actual, wanted in zip(leaves.values(), gradients, expected, strict=True):
        assert actual.dtype == x.dtype
        assert torch.equal(actual, wanted)
    halves = {name: x.detach().half() for name, x in inputs.items()}
    assert [x.dtype for x in run("softmax", implementation)(**halves)] == [torch.float16] + [
        torch.float32
    ] * 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"paths": [torch.zeros(2, 3, 2, 4)]}, "paths must be 2 to 16 tensors, got 1"),
        ({"paths": [torch.zeros(2, 3, 2, 4), torch.zeros(2, 3, 2, 5)]}, r"paths must all be .* paths\[1\]"),
        ({"paths": [torch.zeros(2, 3, 8)] * 2}, "paths must all be"),
        ({"paths": [torch.zeros(2, 0, 2, 4)] * 2}, "not empty"),
        ({"logits": torch.zeros(2, 3, 2, 3)}, r"logits must be \[B, T, H, n\] = \[2, 3, 2, 2\] for softmax"),
        ({"routing": "top-k"}, "routing must be"),
        ({"routing": "hierarchical"}, "groups must be given for hierarchical routing only"),
        ({"groups": (1, 1)}, "groups must be given for hierarchical routing only"),
        ({"routing": "hierarchical", "groups": (2, 1)}, "groups must be two or more positive sizes"),
        ({"routing": "hierarchical", "groups": (1, 1)}, r"logits must be \[B, T, H, G \+ n\]"),
        ({"temperature": 0.0}, "temperature must be greater than 0"),
        ({"temperature": torch.ones(3)}, "temperature must be a number"),
        ({"floor": 0.6}, "floor must be at least 0 and at most 1 / n"),
        ({"floor": -0.1, "routing": "sigmoid"}, "floor must be at least 0 and at most 1 for sigmoid"),
        ({"floor": torch.zeros(2)}, "floor must be a number"),
        ({"implementation": "chunk"}, "implementation must be"),
    ],
)
def test_what_does_not_fit_is_named(change, message):
    arguments = {"paths": [torch.zeros(2, 3, 2, 4)] * 2, "logits": torch.zeros(2, 3, 2, 2)}
    with pytest.raises(ValueError, match=message):
        path_mix(**(arguments | change))


@pytest.mark.slow
def test_kernels_compile_without_spills_or_shared_memory(tmp_path):
    code = """
from asi_lab.kernels.path_mix.triton import triton_path_mix
B, T, H, V, n = 2, 512, 4, 64, 4
scalars = torch.ones(B, T, H, requires_grad=True), torch.zeros(H, n, requires_grad=True)
for dtype, sigmoid, groups, temperature, floor in (
    (torch.bfloat16, False, (2, 2), *scalars), (torch.float32, True, None, 1.0, 0.0)
):
    qkv = torch.randn(B, T, 3 * H * V, dtype=dtype, requires_grad=True)
    paths = [qkv[..., -H * V :].unflatten(-1, (H, V))]
    paths += [torch.randn(B, T, H, V, dtype=dtype, requires_grad=True) for _ in range(n - 1)]
    logits = torch.randn(B, T, H, n + len(groups or ()), dtype=dtype, requires_grad=True)
    outputs = triton_path_mix(paths, logits, sigmoid, groups, temperature, floor)
    torch.autograd.backward(outputs, [torch.empty_like(y) for y in outputs])
"""
    kernels = compile_for_gpus(code, tmp_path)
    assert [x["kernel"] for x in kernels[::2]] == LAUNCHES * 2
    for kernel in kernels:
        assert kernel["shared"] == 0, kernel
        assert kernel["stack"] == 0, kernel
        assert kernel["wide"] >= 4, kernel  # each path 16 bytes at a time
