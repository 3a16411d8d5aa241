"""Packed sequences of different lengths, for all recurrences."""

from collections.abc import Callable
from functools import partial
from itertools import pairwise
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

H, K, V = 2, 8, 6
BOUNDS = (0, 7, 7, 8, 41, 58, 58)  # two sequences are empty, one has a single token
N, T = len(BOUNDS) - 1, BOUNDS[-1]
CU_SEQLENS = torch.tensor(BOUNDS)


def ssd_as_the_others(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    dt: Tensor,
    initial_state: Tensor | None = None,
    output_final_state: bool = False,
    **rest: Any,
) -> tuple[Tensor, Tensor | None]:
    A, state = torch.tensor([-1.0, -0.125]), None if initial_state is None else initial_state.mT
    o, state = ssd(v, dt, A, k, q, None, None, True, state, output_final_state, **rest)
    return o, None if state is None else state.mT


OPS: dict[str, tuple[Callable[..., Any], dict[str, tuple[int, ...]]]] = {
    "delta": (delta_rule, {"beta": ()}),
    "gated": (gated_delta_rule, {"g": (), "beta": ()}),
    "kda": (kda, {"g": (K,), "beta": ()}),
    "dplr": (dplr_delta_rule, {"g": (K,), "a": (K,), "b": (K,)}),
    "linear": (linear_attention, {}),
    "decaying": (linear_attention, {"g": ()}),
    "gla": (linear_attention, {"g": (K,)}),
    "retention": (retention, {}),
    "ssd": (ssd_as_the_others, {"dt": ()}),
}


def make_inputs(op: str, make_keys: Callable[..., Tensor]) -> dict[str, Tensor]:
    inputs = {
        "q": make_keys((1, T, H, K), 0.0),
        "k": make_keys((1, T, H, K), 0.5),
        "v": torch.randn(1, T, H, V).double(),
        "initial_state": torch.randn(N, H, K, V).double(),
    }
    for name, width in OPS[op][1].items():
        gate = torch.rand(1, T, H, *width).double()
        inputs[name] = {"g": -gate, "a": -0.4 * gate, "b": 0.4 * gate}.get(name, gate)
    return inputs


def run(op: str, implementation: str) -> Callable[..., tuple[Tensor, ...]]:
    return partial(OPS[op][0], output_final_state=True, implementation=implementation, cu_seqlens=CU_SEQLENS)


@pytest.mark.parametrize("op", OPS)
def test_packed_rows_equal_a_loop_over_the_sequences(op, assert_same, make_keys):
    """ "chunk" takes the sequences as rows of a batch, "naive" one after the other."""
    inputs = make_inputs(op, make_keys)
    assert_same(run(op, "chunk"), run(op, "naive"), inputs, 1e-9)
    assert_same(run(op, "chunk"), run(op, "naive"), inputs, 1e-4, torch.float32)


@pytest.mark.parametrize("implementation", ["naive", "chunk", "auto"])
@pytest.mark.parametrize("op", OPS)
def test_each_sequence_is_as_if_alone(op, implementation, make_keys):
    inputs = make_inputs(op, make_keys)
    o, states = run(op, implementation)(**inputs)
    state = inputs.pop("initial_state")
    assert o.shape == (1, T, H, V)
    for n, (start, end) in enumerate(pairwise(BOUNDS)):
        if start == end:
            assert torch.equal(states[n], state[n])
            continue
        own = {name: x[:, start:end] for name, x in inputs.items()}
        alone, last = OPS[op][0](**own, initial_state=state[n : n + 1], output_final_state=True)
        torch.testing.assert_close(o[:, start:end], alone, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(states[n : n + 1], last, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("implementation", ["naive", "chunk"])
@pytest.mark.parametrize("op", OPS)
def test_without_initial_states(op, implementation, make_keys):
    inputs = make_inputs(op, make_keys)
    inputs["initial_state"].zero_()
    expected = run(op, "chunk")(**inputs)
    del inputs["initial_state"]
    for actual, wanted in zip(run(op, implementation)(**inputs), expected, strict=True):
        torch.testing.assert_close(actual, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("op", OPS)
def test_a_token_changes_no_other_sequence_and_nothing_before_it(op, make_keys):
    inputs = make_inputs(op, make_keys)
    before, states = run(op, "chunk")(**inputs)
    changed = {n: x.clone() for n, x in inputs.items()}
    for name in changed.keys() - {"initial_state"}:
        changed[name][:, 20] *= 0.5
    after, changed_states = run(op, "chunk")(**changed)
    untouched = torch.arange(T) < 20
    untouched |= torch.arange(T) >= 41
    assert torch.equal(after[:, untouched], before[:, untouched])
    assert not torch.equal(after[:, 20:41], before[:, 20:41])
    same = torch.tensor([torch.equal(a, b) for a, b in zip(states, changed_states, strict=True)])
    assert same.tolist() == [True, True, True, False, True, True]


@pytest.mark.parametrize("op", ["delta", "retention", "ssd"])
def test_strided_bfloat16_with_gradients(op, make_keys):
    inputs = {n: x.bfloat16() for n, x in make_inputs(op, make_keys).items()}
    leaves = {n: x.mT.contiguous().mT.requires_grad_() for n, x in inputs.items()}
    o, states = run(op, "chunk")(**leaves)
    assert (o.dtype, states.dtype) == (torch.bfloat16, torch.float32)
    exact, _ = run(op, "naive")(**{n: x.double() for n, x in inputs.items()})
    torch.testing.assert_close(o.double(), exact, rtol=1e-2, atol=1e-2)
    (o.float().sum() + states.sum()).backward()
    assert all(x.grad is not None and x.grad.dtype == torch.bfloat16 for x in leaves.values())


def test_normalised_linear_attention_of_packed_sequences(assert_same, make_keys):
    inputs = make_inputs("gla", make_keys)
    inputs["initial_state"] = torch.rand(N, H, K, V + 1).double()
    fixed = {"feature_map": "elu", "normalize": True}
    assert_same(partial(run("gla", "chunk"), **fixed), partial(run("gla", "naive"), **fixed), inputs, 1e-9)


@pytest.mark.parametrize("implementation", ["naive", "chunk"])
@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ([1, 20, T], "from 0 to T"),
        ([0, 20, T - 1], "from 0 to T"),
        ([0, 20, T + 1], "from 0 to T"),
        ([0, 30, 20, T], "never fall"),
        ([0], "at least 1"),
        ([[0, T]], "N \\+ 1"),
        ([0.0, float(T)], "integers"),
    ],
)
def test_malformed_bounds_are_named(bounds, message, implementation, make_keys):
    inputs = make_inputs("delta", make_keys)
    del inputs["initial_state"]
    with pytest.raises(ValueError, match=f"cu_seqlens.*{message}"):
        delta_rule(**inputs, cu_seqlens=torch.tensor(bounds), implementation=implementation)


@pytest.mark.parametrize("op", OPS)
def test_a_batch_or_a_wrong_number_of_states_is_named(op, make_keys):
    inputs = make_inputs(op, make_keys)
    states = inputs.pop("initial_state")
    with pytest.raises(ValueError, match="initial_state"):
        run(op, "chunk")(**inputs, initial_state=states[1:])
    with pytest.raises(ValueError, match="batch of 1"):
        run(op, "chunk")(**{n: x.expand(2, *x.shape[1:]) for n, x in inputs.items()})
