"""The checks before training: sound layers pass, each planted fault is caught by its check."""

import msgspec
import pytest
import torch
from torch import nn

from asi_lab import references
from asi_lab.config import from_preset
from asi_lab.protocol import TrialJob
from asi_lab.records import CandidateState
from asi_lab.train.model import load_architecture
from asi_lab.train.preflight import preflight

MICRO = from_preset("micro")


def verdicts(layer: type[nn.Module], baseline_params: int = 0):
    torch.manual_seed(0)
    job = TrialJob(
        directory="",
        data="",
        seed=0,
        data_seed=0,
        device="cpu",
        model=msgspec.structs.replace(MICRO.model, width=32, heads=2),
        train=MICRO.train,
        limits=MICRO.limits,
        baseline_params=baseline_params,
    )
    return list(preflight(layer, job, 100))


@pytest.mark.parametrize("name", ["delta_net", "gated_delta_net"])
def test_references_pass_every_check(name, tmp_path):
    path = tmp_path / "architecture.py"
    path.write_text(references.source(name))
    found = verdicts(load_architecture(path))
    assert [check.name for check, _ in found] == [
        *("parameters", "shapes", "gradients", "causality", "batch_independence", "repeatability"),
        "state_dict",
    ]
    assert all(check.passed for check, _ in found)


class Layer(nn.Module):
    """A sound causal layer; the faults override `mix`."""

    def __init__(self, d_model: int, **kwargs: object) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(d_model) / 4)

    def forward(self, hidden_states, **kwargs):
        return self.mix(hidden_states), None, None

    def mix(self, x):
        return x * self.weight + x.cumsum(1) / torch.arange(1, x.shape[1] + 1)[:, None]


class Future(Layer):
    def mix(self, x):
        return super().mix(x) + 0.01 * x.mean(1, keepdim=True)


class FutureBeyondTheFirstChunk(Layer):
    def mix(self, x):
        y = super().mix(x)
        return y + (0.01 * x[:, -1:] if x.shape[1] > 64 else 0.0)


class BatchMixing(Layer):
    def mix(self, x):
        return super().mix(x) - 0.01 * x.mean(0, keepdim=True)


class KeepsState(Layer):
    memory = 0.0

    def mix(self, x):
        y = super().mix(x) + self.memory
        self.memory = float(x.detach().mean())
        return y


class NanAtLengthOne(Layer):
    def mix(self, x):
        return super().mix(x) / (x.shape[1] - 1)


class BadGradient(Layer):
    def mix(self, x):
        return super().mix(x) + torch.sqrt(torch.relu(self.weight) * 0)


class ForgetsABuffer(Layer):
    def __init__(self, d_model: int, **kwargs: object) -> None:
        super().__init__(d_model)
        self.hidden_scale = torch.randn(d_model)

    def mix(self, x):
        return super().mix(x) * self.hidden_scale


def test_the_sound_layer_passes():
    assert all(check.passed for check, _ in verdicts(Layer))


@pytest.mark.parametrize(
    ("layer", "check", "state"),
    [
        (Future, "causality", CandidateState.LEAKING),
        (FutureBeyondTheFirstChunk, "causality", CandidateState.LEAKING),
        (BatchMixing, "batch_independence", CandidateState.LEAKING),
        (KeepsState, "repeatability", CandidateState.BROKEN),
        (NanAtLengthOne, "shapes", CandidateState.BROKEN),
        (BadGradient, "gradients", CandidateState.BROKEN),
        (ForgetsABuffer, "state_dict", CandidateState.BROKEN),
    ],
)
def test_each_fault_is_caught_by_its_check(layer, check, state):
    failed = {found.name: (found, end) for found, end in verdicts(layer) if not found.passed}
    assert check in failed
    found, end = failed[check]
    assert end is state
    assert found.detail


def test_the_parameter_budget_is_relative_to_the_baseline():
    size = int(verdicts(Layer)[0][0].value)
    assert verdicts(Layer, baseline_params=size)[0][0].passed
    check, state = verdicts(Layer, baseline_params=size // 2)[0]
    assert not check.passed
    assert state is CandidateState.REJECTED
    assert check.tolerance == pytest.approx(1.5 * (size // 2))


@pytest.mark.parametrize(
    ("returns", "words"),
    [
        (lambda x: x, "expected \\(output, aux_or_None"),
        (lambda x: (x[:, :-1], None, None), "expected an output of shape"),
        (lambda x: (x, torch.ones(2), None), "scalar tensor in slot two"),
    ],
)
def test_returns_that_break_the_contract_are_named(returns, words):
    class Wrong(Layer):
        def forward(self, hidden_states, **kwargs):
            return returns(hidden_states)

    with pytest.raises(ValueError, match=words):
        verdicts(Wrong)
