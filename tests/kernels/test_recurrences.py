"""The contract of all recurrences: the chunked form against the recurrent reference."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from asi_lab.kernels.delta_rule import delta_rule
from asi_lab.kernels.dplr_delta_rule import dplr_delta_rule
from asi_lab.kernels.gated_delta_rule import gated_delta_rule
from asi_lab.kernels.kda import kda
from asi_lab.kernels.linear_attention import linear_attention
from asi_lab.kernels.retention import retention
from asi_lab.kernels.ssd import ssd

B, H, K, V = 2, 2, 8, 12


def ssd_as_the_others(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    dt: Tensor,
    initial_state: Tensor | None = None,
    output_final_state: bool = False,
    **rest: Any,
) -> tuple[Tensor, Tensor | None]:
    """Its names and its layout of the state as in the other operations, with constants for the rest."""
    A, D = (torch.linspace(*ends, H, dtype=v.dtype) for ends in ((-1, -0.125), (0.5, 2)))
    state = None if initial_state is None else initial_state.mT
    o, state = ssd(v, dt, A, k, q, D, None, False, state, output_final_state, **rest)
    return o, None if state is None else state.mT


OPS = {
    "delta": delta_rule,
    "gated": gated_delta_rule,
    "kda": kda,
    "dplr": dplr_delta_rule,
    "linear": linear_attention,
    "gla": linear_attention,
    "retention": retention,
    "ssd": ssd_as_the_others,
}
GATES = {
    "delta": ("beta",),
    "gated": ("g", "beta"),
    "kda": ("g", "beta"),
    "dplr": ("g", "a", "b"),
    "linear": ("g",),
    "gla": ("g",),
    "retention": (),
    "ssd": ("dt",),
}
DELTA_RULES = ("delta", "gated", "kda")
UNGATED = {"gated": "delta", "kda": "delta", "dplr": "dplr", "linear": "linear", "gla": "linear"}
DECAYING = tuple(op for op, gates in GATES.items() if "g" in gates)


def make_inputs(
    op: str,
    T: int,
    make_keys: Callable[..., Tensor],
    correlation: float = 0.0,
    beta: float | None = None,
    g: float | None = None,
) -> dict[str, Tensor]:
    """float64 inputs. beta uniform in (0, 1) or constant; g uniform in (-1, 0) or spread around a value.
    The general transition is that of a delta rule whose keys are not those it writes under."""
    shape = (B, T, H)
    decays = (*shape, K) if op in ("kda", "dplr", "gla") else shape
    gates = {
        "beta": torch.rand(shape).double() if beta is None else torch.full(shape, beta).double(),
        "g": -torch.rand(decays).double() if g is None else g * (1 + 0.1 * torch.rand(decays).double()),
        "dt": torch.rand(shape).double(),
    }
    inputs = {
        "q": make_keys((B, T, H, K), correlation),
        "k": make_keys((B, T, H, K), correlation),
        "v": torch.randn(B, T, H, V).double(),
        "initial_state": torch.randn(B, H, K, V).double(),
    }
    if op == "dplr":
        erased = make_keys((B, T, H, K), correlation)
        gates |= {"a": -gates["g"].exp() * erased, "b": gates["beta"].unsqueeze(-1) * erased}
    return inputs | {name: gates[name] for name in GATES[op]}


def run(op: str, implementation: str, **fixed: Any) -> Callable[..., tuple[Tensor, ...]]:
    return partial(OPS[op], output_final_state=True, implementation=implementation, **fixed)


@pytest.mark.parametrize("T", [1, 7, 64, 133])
@pytest.mark.parametrize("op", OPS)
def test_outputs_and_gradients_equal_the_reference(op, T, assert_same, make_keys):
    inputs = make_inputs(op, T, make_keys)
    assert_same(run(op, "chunk"), run(op, "naive"), inputs, 1e-9)
    assert_same(run(op, "chunk"), run(op, "naive"), inputs, 1e-4, torch.float32)


@pytest.mark.parametrize("chunk_size", [1, 2, 8, 64, 128])
@pytest.mark.parametrize("op", OPS)
def test_any_chunk_size_gives_the_same(op, chunk_size, assert_same, make_keys):
    inputs = make_inputs(op, 70 if chunk_size < 128 else 130, make_keys)
    assert_same(run(op, "chunk", chunk_size=chunk_size), run(op, "naive"), inputs, 1e-9)


@pytest.mark.parametrize("chunk_size", [16, 64])
@pytest.mark.parametrize("beta", [None, 2.0])
@pytest.mark.parametrize("correlation", [0.5, 0.9, 1.0])
@pytest.mark.parametrize("op", [*DELTA_RULES, "dplr"])
def test_correlated_keys_stay_accurate(op, correlation, beta, chunk_size, assert_same, make_keys):
    inputs = make_inputs(op, 90, make_keys, correlation, beta)
    chunked = run(op, "chunk", chunk_size=chunk_size)
    assert_same(chunked, run(op, "naive"), inputs, 1e-9)
    assert_same(chunked, run(op, "naive"), inputs, 2e-3, torch.float32)


@pytest.mark.parametrize("g", [0.0, -1e-3, -20.0])
@pytest.mark.parametrize("op", DECAYING)
def test_no_and_strong_decay(op, g, assert_same, make_keys):
    inputs = make_inputs(op, 100, make_keys, g=g)
    assert_same(run(op, "chunk"), run(op, "naive"), inputs, 1e-9)
    assert_same(run(op, "chunk"), run(op, "naive"), inputs, 1e-3, torch.float32)


@pytest.mark.parametrize("op", DECAYING)
def test_one_reset_among_weak_decays(op, assert_same, make_keys):
    inputs = make_inputs(op, 100, make_keys, g=-1e-2)
    inputs["g"][:, 37] = -90.0
    assert_same(run(op, "chunk"), run(op, "naive"), inputs, 1e-9)
    assert_same(run(op, "chunk"), run(op, "naive"), inputs, 1e-3, torch.float32)


@pytest.mark.parametrize("op", [op for op in DECAYING if op != "dplr"])
def test_infinite_decay_forgets_all_and_has_finite_gradients(op, make_keys):
    inputs = make_inputs(op, 40, make_keys)
    inputs["g"][:, 20] = -torch.inf
    leaves = {name: x.float().requires_grad_() for name, x in inputs.items()}
    o, _ = run(op, "chunk")(**leaves)
    o[:, 20:].sum().backward()
    assert o.isfinite().all()
    for name, x in leaves.items():
        assert x.grad is not None
        assert x.grad.isfinite().all(), name
    assert (leaves["v"].grad[:, :20] == 0).all()


@pytest.mark.parametrize("op", DECAYING)
def test_without_decay_it_is_the_ungated_rule(op, make_keys):
    inputs = make_inputs(op, 50, make_keys, g=0.0)
    gated, _ = run(op, "chunk")(**inputs)
    del inputs["g"]
    ungated, _ = run(UNGATED[op], "chunk")(**inputs)
    torch.testing.assert_close(gated, ungated, rtol=1e-12, atol=1e-12)


def test_linear_attention_without_g_equals_its_reference(assert_same, make_keys):
    inputs = make_inputs("linear", 75, make_keys)
    del inputs["g"]
    assert_same(run("linear", "chunk"), run("linear", "naive"), inputs, 1e-9)


@pytest.mark.parametrize("op", OPS)
def test_gradcheck(op, make_keys):
    inputs = make_inputs(op, 9, make_keys)
    leaves = [x.requires_grad_() for x in inputs.values()]

    def function(*values: Tensor) -> tuple[Tensor, ...]:
        return run(op, "chunk", chunk_size=4)(**dict(zip(inputs, values, strict=True)))

    assert torch.autograd.gradcheck(function, leaves, fast_mode=True)


@pytest.mark.parametrize("output", [0, 1])
@pytest.mark.parametrize("op", OPS)
def test_gradient_of_one_output_alone(op, output, assert_same, make_keys):
    """Without the initial state, and with only o or only the final state in the loss."""
    inputs = make_inputs(op, 40, make_keys)
    del inputs["initial_state"]
    q = inputs.pop("q") if output == 1 else None

    def one(implementation: str) -> Callable[..., tuple[Tensor, ...]]:
        def function(**leaves: Tensor) -> tuple[Tensor, ...]:
            query = {} if q is None else {"q": q.to(leaves["v"].dtype)}
            return (run(op, implementation)(**query, **leaves)[output],)

        return function

    assert_same(one("chunk"), one("naive"), inputs, 1e-9)


@pytest.mark.parametrize("implementation", ["auto", "naive", "chunk"])
@pytest.mark.parametrize("op", OPS)
def test_steps_of_one_token_equal_one_pass(op, implementation, make_keys):
    """Decoding: with the state carried from token to token."""
    inputs = make_inputs(op, 21, make_keys)
    whole, last = run(op, "chunk")(**inputs)
    state, outputs = inputs.pop("initial_state"), []
    for t in range(21):
        token = {n: x[:, t : t + 1] for n, x in inputs.items()}
        o, state = run(op, implementation)(**token, initial_state=state)
        outputs.append(o)
    torch.testing.assert_close(torch.cat(outputs, 1), whole, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(state, last, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("implementation", ["naive", "chunk"])
@pytest.mark.parametrize("op", OPS)
def test_two_halves_with_the_state_handed_on_equal_one_pass(op, implementation, make_keys):
    inputs = make_inputs(op, 90, make_keys)
    state = inputs.pop("initial_state")
    whole, last = run(op, implementation)(**inputs, initial_state=state)
    first, carried = run(op, implementation)(**{n: x[:, :33] for n, x in inputs.items()}, initial_state=state)
    second, end = run(op, implementation)(**{n: x[:, 33:] for n, x in inputs.items()}, initial_state=carried)
    torch.testing.assert_close(torch.cat((first, second), 1), whole, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(end, last, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("position", [0, 15, 16, 31, 47])
@pytest.mark.parametrize("op", OPS)
def test_a_token_changes_nothing_before_it(op, position, make_keys):
    inputs = make_inputs(op, 50, make_keys)
    before, _ = run(op, "chunk")(**inputs)
    changed = {n: x.clone() for n, x in inputs.items()}
    for name in changed.keys() - {"initial_state"}:
        changed[name][:, position] *= 0.5
    after, _ = run(op, "chunk")(**changed)
    assert torch.equal(after[:, :position], before[:, :position])
    assert not torch.allclose(after[:, position:], before[:, position:])


@pytest.mark.parametrize("op", OPS)
def test_sequences_of_a_batch_do_not_mix(op, make_keys):
    inputs = make_inputs(op, 50, make_keys)
    both, _ = run(op, "chunk")(**inputs)
    alone, _ = run(op, "chunk")(**{n: x[1:] for n, x in inputs.items()})
    torch.testing.assert_close(both[1:], alone, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("op", OPS)
def test_strided_inputs_no_grad_and_input_left_alone(op, make_keys):
    inputs = make_inputs(op, 37, make_keys)
    expected, _ = run(op, "chunk")(**inputs)
    strided = {n: x.transpose(0, -1).contiguous().transpose(0, -1) for n, x in inputs.items()}
    copies = {n: x.clone() for n, x in strided.items()}
    with torch.no_grad():
        for _ in range(2):
            o, _ = run(op, "chunk")(**strided)
            torch.testing.assert_close(o, expected, rtol=1e-12, atol=1e-12)
    for name, x in strided.items():
        assert torch.equal(x, copies[name]), name


@pytest.mark.parametrize("op", OPS)
def test_bfloat16_in_and_out_float32_inside(op, make_keys):
    inputs = {n: x.bfloat16() for n, x in make_inputs(op, 100, make_keys).items()}
    leaves = {n: x.clone().requires_grad_() for n, x in inputs.items()}
    o, state = run(op, "chunk")(**leaves)
    assert (o.dtype, state.dtype) == (torch.bfloat16, torch.float32)
    exact, exact_state = run(op, "naive")(**{n: x.double() for n, x in inputs.items()})
    torch.testing.assert_close(state.double(), exact_state, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(o.double(), exact, rtol=1e-2, atol=1e-2)
    o.float().sum().backward()
    assert all(x.grad is not None and x.grad.dtype == torch.bfloat16 for x in leaves.values())


@pytest.mark.parametrize("implementation", ["naive", "chunk"])
@pytest.mark.parametrize("op", OPS)
def test_autocast_does_not_lower_the_precision(op, implementation, make_keys):
    inputs = {n: x.float() for n, x in make_inputs(op, 50, make_keys).items()}
    plain = run(op, implementation)(**inputs)
    with torch.autocast("cpu", torch.bfloat16):
        cast = run(op, implementation)(**inputs)
    for a, b in zip(plain, cast, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("op", DELTA_RULES)
def test_normalising_inside_equals_normalising_before(op, assert_same, make_keys):
    inputs = make_inputs(op, 40, make_keys)
    inputs["q"], inputs["k"] = torch.randn_like(inputs["q"]), torch.randn_like(inputs["k"])

    def before(q: Tensor, k: Tensor, **rest: Tensor) -> tuple[Tensor, ...]:
        q, k = (x / (x.square().sum(-1, keepdim=True) + 1e-6).sqrt() for x in (q, k))
        return run(op, "naive")(q=q, k=k, **rest)

    assert_same(run(op, "chunk", use_qk_l2norm_in_kernel=True), before, inputs, 1e-9)


@pytest.mark.parametrize("op", OPS)
def test_auto_scale_and_state_on_request(op, make_keys):
    scale = {} if op == "ssd" else {"scale": K**-0.5}
    for T in (1, 20):
        inputs = make_inputs(op, T, make_keys)
        o, state = OPS[op](**inputs)
        explicit, last = run(op, "naive", **scale)(**inputs)
        assert state is None
        torch.testing.assert_close(o, explicit, rtol=1e-10, atol=1e-10)
        assert last.shape == (B, H, K, V)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": torch.zeros(B, 5, H, K)}, "k must have the shape of q"),
        ({"v": torch.zeros(B, 9, H)}, "v must be"),
        ({"beta": torch.zeros(B, 9, H, 1)}, "beta must be"),
        ({"initial_state": torch.zeros(B, H, V, K)}, "initial_state must be"),
        ({"implementation": "fast"}, "implementation must be"),
        ({"chunk_size": 24}, "power of two"),
        ({"q": torch.zeros(B, 0, H, K)}, "not empty"),
    ],
)
def test_what_does_not_fit_is_named(change, message, make_keys):
    with pytest.raises(ValueError, match=message):
        delta_rule(**(make_inputs("delta", 9, make_keys) | change))


FIELD = {
    "delta": ("delta_rule", "delta_rule_recurrence"),
    "gated": ("gated_delta_rule", "naive_recurrent_gated_delta_rule"),
    "kda": ("kda", "naive_recurrent_kda"),
    "linear": ("simple_gla", "naive_recurrent_simple_gla"),
    "gla": ("gla", "naive_recurrent_gla"),
}


@pytest.mark.parametrize("op", FIELD)
def test_the_naive_rules_agree_with_the_field_s_references(op, make_keys):
    module, name = FIELD[op]
    field = pytest.importorskip(f"fla.ops.{module}.naive", exc_type=ImportError)
    inputs = {n: x.float() for n, x in make_inputs(op, 60, make_keys).items()}
    o, last = run(op, "naive")(**inputs)
    if op == "delta":  # heads first, and a state always
        heads_first = {n: x if n == "initial_state" else x.transpose(1, 2) for n, x in inputs.items()}
        theirs, end = field.delta_rule_recurrence(**heads_first)
        theirs = theirs.transpose(1, 2)
    else:
        if op == "gla":
            inputs["gk"] = inputs.pop("g")
        theirs, end = getattr(field, name)(**inputs, output_final_state=True)
    torch.testing.assert_close(o, theirs, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(last, end, rtol=1e-4, atol=1e-5)
