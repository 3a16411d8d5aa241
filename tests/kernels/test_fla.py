"""What the forms "fla" hand to flash-linear-attention, whose kernels need a GPU: its functions are replaced
by recorders, which take only arguments that the real ones have and answer with our own reference."""

import importlib
import inspect
from functools import partial

import pytest
import torch

from asi_lab.kernels.common import choose
from asi_lab.kernels.decay import MIN_LOG_DECAY
from asi_lab.kernels.delta_rule import delta_rule
from asi_lab.kernels.dplr_delta_rule import dplr_delta_rule
from asi_lab.kernels.fla_ops import MIN_LOG_DECAY_DPLR
from asi_lab.kernels.gated_delta_rule import gated_delta_rule
from asi_lab.kernels.kda import kda
from asi_lab.kernels.linear_attention import linear_attention
from asi_lab.kernels.recurrence import Forms, pick_form
from asi_lab.kernels.retention import retention
from asi_lab.kernels.ssd import ssd
from tests.thinning import one_in

B, T, H, K, V = 2, 9, 2, 8, 6

# Of each operation: the module of fla, the end of its functions' names, our reference, the gates.
OPS = {
    "delta": ("delta_rule", "delta_rule", delta_rule, {"beta": ()}),
    "gated": ("gated_delta_rule", "gated_delta_rule", gated_delta_rule, {"g": (), "beta": ()}),
    "kda": ("kda", "kda", kda, {"g": (K,), "beta": ()}),
    "linear": ("simple_gla", "simple_gla", linear_attention, {}),
    "decaying": ("simple_gla", "simple_gla", linear_attention, {"g": ()}),
    "gla": ("gla", "gla", linear_attention, {"g": (K,)}),
    "retention": ("retention", "retention", retention, {}),
    "dplr": (
        "generalized_delta_rule",
        "dplr_delta_rule",
        dplr_delta_rule,
        {"g": (K,), "a": (K,), "b": (K,)},
    ),
}


def make_inputs(op, T=T, B=B, N=None):
    inputs = {name: torch.randn(B, T, H, width) for name, width in (("q", K), ("k", K), ("v", V))}
    for name, width in OPS[op][3].items():
        gate = torch.rand(B, T, H, *width)
        inputs[name] = {"g": -gate, "a": -0.4 * gate, "b": 0.4 * gate}.get(name, gate)
    inputs["initial_state"] = torch.randn(N or B, H, K, V)
    return {name: x.bfloat16() for name, x in inputs.items()}


@pytest.fixture(scope="module", autouse=True)
def installed() -> None:
    """Imported by whoever runs these tests, not by whoever collects them: that takes seconds."""
    pytest.importorskip("fla.ops", exc_type=ImportError)


@pytest.fixture
def record(monkeypatch):
    """Replaces the functions of an operation; returns the list of the names and arguments of all calls."""

    def install(op):
        module, end, reference, _ = OPS[op]
        module = importlib.import_module(f"fla.ops.{module}")
        calls = []
        for name in (f"chunk_{end}", f"fused_recurrent_{end}"):
            signature = inspect.signature(inspect.unwrap(getattr(module, name)))
            has_any = [p.name for p in signature.parameters.values() if p.kind is p.VAR_KEYWORD]

            def call(name=name, signature=signature, has_any=has_any, **arguments):
                bound = signature.bind(**arguments).arguments
                assert not any(bound.get(rest) for rest in has_any), f"unknown to fla: {bound}"
                calls.append((name, arguments))
                ours = {"g" if n == "gk" else n: x for n, x in arguments.items()}
                return reference(**ours, implementation="naive")

            monkeypatch.setattr(module, name, call)
        return calls

    return install


def call(op, inputs, **fixed):
    return OPS[op][2](**inputs, output_final_state=True, implementation="fla", **fixed)


@pytest.mark.parametrize("op", OPS)
def test_the_chunked_kernel_gets_the_arguments(op, record):
    calls, inputs = record(op), make_inputs(op)
    o, state = call(op, inputs, scale=0.3)
    ((name, arguments),) = calls
    assert name.startswith("chunk_")
    assert (arguments["scale"], arguments["output_final_state"], arguments["cu_seqlens"]) == (0.3, True, None)
    for key in ("q", "k", "v"):
        assert torch.equal(arguments[key], inputs[key])
    assert arguments["initial_state"].dtype == torch.float32
    expected, last = OPS[op][2](**inputs, scale=0.3, output_final_state=True, implementation="naive")
    torch.testing.assert_close(o, expected)
    torch.testing.assert_close(state, last)


@pytest.mark.parametrize("op", OPS)
def test_a_step_without_gradients_gets_the_kernel_that_steps(op, record):
    calls, inputs = record(op), make_inputs(op, T=1)
    call(op, inputs)
    inputs["v"].requires_grad_()
    call(op, inputs)
    with torch.no_grad():
        call(op, inputs)
    names = [name.removesuffix(OPS[op][1]) for name, _ in calls]
    assert names == ["fused_recurrent_", "chunk_", "fused_recurrent_"]


@pytest.mark.parametrize("op", OPS)
def test_packed_sequences_are_left_to_fla(op, record):
    calls, inputs = record(op), make_inputs(op, B=1, N=3)
    bounds = torch.tensor([0, 4, 4, T], dtype=torch.int32)
    call(op, inputs, cu_seqlens=bounds)
    ((name, arguments),) = calls
    assert name.startswith("chunk_")
    assert arguments["v"].shape == (1, T, H, V)
    assert arguments["cu_seqlens"].dtype == torch.int64
    assert torch.equal(arguments["cu_seqlens"], bounds.long())

    inputs = make_inputs(op, T=3, B=1, N=3)
    call(op, inputs, cu_seqlens=torch.arange(4))
    assert calls[1][0].startswith("fused_recurrent_")


@pytest.mark.parametrize("op", ["gated", "kda", "decaying", "gla", "dplr"])
def test_infinite_decay_is_cut_and_its_gradient_is_zero(op, record):
    calls, inputs = record(op), make_inputs(op)
    inputs["g"][:, 3] = -torch.inf
    inputs["g"].requires_grad_()
    o, _ = call(op, inputs)
    g = calls[0][1]["gk" if op == "dplr" else "g"]
    assert g.dtype == torch.float32
    assert g.min() == (MIN_LOG_DECAY_DPLR if op == "dplr" else MIN_LOG_DECAY)
    o.float().sum().backward()
    assert (inputs["g"].grad[:, 3] == 0).all()


def test_linear_attention_appends_its_normaliser_in_fla_s_dtype(record):
    calls, inputs = record("linear"), make_inputs("linear")
    del inputs["initial_state"]
    o, state = linear_attention(
        **inputs, feature_map="taylor", normalize=True, output_final_state=True, implementation="fla"
    )
    arguments = calls[0][1]
    assert (arguments["v"].shape[-1], arguments["v"].dtype) == (V + 1, torch.bfloat16)
    assert (arguments["v"][..., -1] == 1).all()
    assert (o.shape, o.dtype, state.shape[-1]) == ((B, T, H, V), torch.bfloat16, V + 1)


def test_ssd_is_linear_attention_of_all_heads(record):
    calls = record("decaying")
    x, dt = torch.randn(B, T, H, V).bfloat16(), torch.rand(B, T, H).bfloat16()
    groups = torch.randn(2, B, T, 1, K).bfloat16()
    A, D = -torch.rand(H), torch.randn(H)
    rest = {"D": D, "dt_softplus": True, "return_final_states": True}
    y, state = ssd(x, dt, A, *groups, **rest, implementation="fla")
    arguments = calls[0][1]
    assert arguments["q"].shape == arguments["k"].shape == (B, T, H, K)
    assert (arguments["scale"], arguments["v"].dtype, arguments["g"].dtype) == (1, x.dtype, torch.float32)
    expected, last = ssd(x, dt, A, *groups, **rest, implementation="naive")
    torch.testing.assert_close(y, expected, rtol=3e-2, atol=3e-2)
    torch.testing.assert_close(state, last, rtol=3e-2, atol=3e-2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_full_precision_is_refused_by_name(dtype):
    inputs = {name: x.to(dtype) for name, x in make_inputs("delta").items()}
    with pytest.raises(ValueError, match="needs v in bfloat16 or float16"):
        call("delta", inputs)


class OnGpu(torch.Tensor):
    """A tensor that says it is on a GPU."""

    is_cuda = True


@pytest.mark.parametrize(
    ("dtype", "T", "K", "form"),
    [
        (torch.bfloat16, 9, 64, "fla"),
        (torch.float16, 1, 256, "fla"),
        (torch.bfloat16, 9, 257, "chunk"),
        (torch.float32, 9, 64, "chunk"),
        (torch.float32, 1, 64, "naive"),
        (torch.float64, 9, 64, "chunk"),
    ],
)
def test_auto_takes_fla_for_half_precision_on_a_gpu(dtype, T, K, form):
    forms = Forms(*3 * (print,), fla_widest=256)
    k, v = (torch.zeros(1, T, 1, width, dtype=dtype).as_subclass(OnGpu) for width in (K, 8))
    assert pick_form(forms, "auto", k, v, None) == form
    on_cpu = v.as_subclass(torch.Tensor)
    assert pick_form(forms, "auto", k, on_cpu, None) == ("naive" if T == 1 else "chunk")
    assert pick_form(forms, "auto", k, on_cpu, torch.tensor([0, T])) == "chunk"


def test_without_a_gpu_fla_is_refused(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    pick = partial(choose, "fla", torch.zeros(1), ("chunk", "fla"), cpu="chunk", gpu="fla")
    with pytest.raises(ValueError, match="needs a tensor on a GPU"):
        pick()


@pytest.mark.parametrize("bounds", [None, [0, 3, 3, T]])
@pytest.mark.parametrize("op", one_in(2, OPS))
def test_fla_s_kernels_agree_with_our_reference(op, bounds, interpreter, make_keys):
    inputs = {n: x.half() for n, x in make_inputs(op, B=1, N=None if bounds is None else 3).items()}
    inputs |= {n: make_keys((1, T, H, K), 0.5).half() for n in ("q", "k")}
    cu_seqlens = None if bounds is None else torch.tensor(bounds)
    results = []
    for implementation in ("fla", "naive"):
        leaves = {n: x.requires_grad_() for n, x in inputs.items()}
        o, state = OPS[op][2](
            **leaves, output_final_state=True, cu_seqlens=cu_seqlens, implementation=implementation
        )
        loss = o.float().square().sum() + state.square().sum()
        gradients = torch.autograd.grad(loss, list(leaves.values()))
        results.append([o, state, *gradients])
    for theirs, ours in zip(*results, strict=True):
        assert (theirs - ours).abs().max() <= 5e-3 * ours.abs().max()
        assert theirs.dtype == ours.dtype


@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid value")  # in pairs that are masked after
@pytest.mark.parametrize("op", one_in(2, ["gated", "kda", "decaying", "gla"]))
def test_fla_s_kernels_forget_all_at_infinite_decay(op, interpreter, make_keys):
    inputs = {n: x.half() for n, x in make_inputs(op, B=1).items()}
    inputs |= {n: make_keys((1, T, H, K), 0.5).half() for n in ("q", "k")}
    inputs["g"][:, 3] = -torch.inf
    inputs = {n: x.requires_grad_() for n, x in inputs.items()}
    o, _ = call(op, inputs)
    expected, _ = OPS[op][2](**inputs, implementation="naive")
    torch.testing.assert_close(o, expected, rtol=5e-3, atol=5e-3)
    gradients = torch.autograd.grad(o[:, 3:].float().sum(), list(inputs.values()))
    assert all(d.isfinite().all() for d in gradients)


@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid value")
@pytest.mark.parametrize("g", one_in(2, [-torch.inf, MIN_LOG_DECAY_DPLR]))
def test_fla_s_general_delta_rule_bears_strong_decay(g, interpreter, make_keys):
    """At its bound exactly, beyond it as exactly as its numbers are."""
    inputs = {n: x.half() for n, x in make_inputs("dplr", T=18, B=1).items()}
    inputs |= {n: make_keys((1, 18, H, K), 0.5).half() for n in ("q", "k")}
    inputs["g"][:, 1:-1] = g
    inputs = {n: x.requires_grad_() for n, x in inputs.items()}
    results = []
    for implementation in ("fla", "naive"):
        o, state = dplr_delta_rule(**inputs, output_final_state=True, implementation=implementation)
        gradients = torch.autograd.grad(o.float().sum() + state.sum(), list(inputs.values()))
        results.append([o, state, *gradients])
    for (name, theirs), ours in zip(
        zip(("o", "state", *inputs), results[0], strict=True), results[1], strict=True
    ):
        assert theirs.isfinite().all(), name
        if name != "g" or g == MIN_LOG_DECAY_DPLR:
            assert (theirs - ours).abs().max() <= 1e-2 * ours.abs().max(), name


def test_fla_s_kernels_take_a_normaliser_and_wide_features(interpreter):
    inputs = {n: x.half() for n, x in make_inputs("decaying", B=1).items()}
    width = 1 + K + K * (K + 1) // 2
    inputs["initial_state"] = torch.rand(1, H, width, V + 1)
    fixed = {"feature_map": "taylor", "normalize": True, "output_final_state": True}
    o, state = linear_attention(**inputs, **fixed, implementation="fla")
    expected, last = linear_attention(**inputs, **fixed, implementation="naive")
    torch.testing.assert_close(o, expected, rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(state, last, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("op", OPS)
def test_fla_s_steps_agree_with_our_reference(op, interpreter):
    inputs = {n: x.half() for n, x in make_inputs(op, T=1, B=1).items()}
    for theirs, ours in zip(
        call(op, inputs), OPS[op][2](**inputs, output_final_state=True, implementation="naive"), strict=True
    ):
        torch.testing.assert_close(theirs, ours, rtol=2e-3, atol=2e-3)
