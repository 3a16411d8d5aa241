"""Training that is cut off goes on to the same end, to the last bit; number formats; recomputation."""

from __future__ import annotations

import contextlib

import msgspec
import numpy as np
import pytest
import torch
from torch import nn

from asi_lab.lab.config import from_preset
from asi_lab.protocol import Alive, Compiled, Progress, Saved, saved_file
from asi_lab.scoring import references
from asi_lab.trial.model import LanguageModel, load_architecture
from asi_lab.trial.precision import MasterWeights
from asi_lab.trial.train.trainer import Fit

MICRO = from_preset("micro")
MODEL = msgspec.structs.replace(MICRO.model, width=32, heads=2)
OFTEN = 1e-9
TRAIN = msgspec.structs.replace(
    MICRO.train, steps=10, batch=4, micro_batch=2, context=32, warmup_steps=2, save_minutes=OFTEN
)
VOCABULARY = 50


class CutOff(Exception):
    """Stands for a kill."""


class Stream:
    """Batches of a learnable pattern: each token is the last one plus one."""

    def batch(self, step: int) -> np.ndarray:
        start = np.random.default_rng(step).integers(0, VOCABULARY, size=(4, 1))
        return (start + np.arange(33)) % VOCABULARY


@pytest.fixture
def layer(tmp_path) -> type[nn.Module]:
    """The seed, with dropout behind it, so that the generator takes part."""
    path = tmp_path / "architecture.py"
    end = "        return y, None, past_key_values"
    source = references.source("delta_net")
    assert end in source
    path.write_text(source.replace(end, f"        y = nn.functional.dropout(y, 0.1, self.training)\n{end}"))
    return load_architecture(path)


class Run:
    """A training run whose reports are kept; at a step `cut` it is cut off behind the checkpoint."""

    def __init__(self, layer, settings, folder, cut=None, resume=0, marks=(), model=MODEL) -> None:
        torch.manual_seed(7 if resume else 0)
        torch.set_num_threads(1)
        self.model = LanguageModel(layer, model, VOCABULARY)
        self.model.recompute = settings.recompute
        self.cut, self.losses, self.measured, self.compiled, self.pulses = cut, {}, [], [], 0
        fit = Fit(self.model, Stream(), settings, self.see, marks, self.measured.append, folder)
        if resume:
            fit.load(folder / saved_file(resume))
        self.training = None
        with contextlib.suppress(CutOff):
            self.training = fit.run()

    def see(self, report) -> None:
        if isinstance(report, Progress):
            self.losses[report.step] = report.loss
        elif isinstance(report, Alive):
            self.pulses += 1
        elif isinstance(report, Compiled):
            self.compiled.append(report.seconds)
        elif isinstance(report, Saved) and report.step == self.cut:
            raise CutOff

    def weights(self) -> dict[str, torch.Tensor]:
        return self.model.state_dict()


SLOW_HERE = [pytest.param(name, marks=pytest.mark.slow) for name in ("bf16", "bf16_weights")]
"""Number formats that a CPU computes in many times the time."""


@pytest.mark.parametrize("precision", ["fp32", *SLOW_HERE])
def test_cut_off_it_goes_on_to_the_same_weights(layer, tmp_path, precision):
    settings = msgspec.structs.replace(TRAIN, precision=precision)
    whole = Run(layer, settings, None, marks=(2, 6))
    first = Run(layer, settings, tmp_path, cut=4, marks=(2, 6))
    assert sorted(first.losses) == [1, 2, 3, 4]
    second = Run(layer, settings, tmp_path, cut=7, resume=4, marks=(2, 6))
    third = Run(layer, settings, tmp_path, resume=7, marks=(2, 6))
    assert sorted(second.losses) == [5, 6, 7]
    assert first.losses | second.losses | third.losses == whole.losses
    assert [first.measured, second.measured, third.measured] == [[2], [6], []]
    assert third.training.train_loss == whole.training.train_loss
    for name, weight in whole.weights().items():
        assert weight.dtype == torch.float32
        assert torch.equal(third.weights()[name], weight), name


def test_long_steps_are_told_between_micro_batches(layer, monkeypatch):
    monkeypatch.setattr("asi_lab.trial.train.trainer.PULSE_SECONDS", 0.0)
    run = Run(layer, msgspec.structs.replace(TRAIN, micro_batch=1), None)
    assert run.pulses == 4 * TRAIN.steps


def test_without_a_place_or_with_no_minutes_nothing_is_written(layer, tmp_path):
    never = msgspec.structs.replace(TRAIN, save_minutes=0.0)
    Run(layer, never, tmp_path)
    Run(layer, TRAIN, None)
    assert list(tmp_path.glob("resume*")) == []


def test_recomputed_activations_give_the_same_training(layer, tmp_path):
    """Dropout included: the second pass draws what the first one drew."""
    plain = Run(layer, TRAIN, None)
    again = Run(layer, msgspec.structs.replace(TRAIN, recompute=True), None)
    assert again.losses == pytest.approx(plain.losses, rel=1e-5)


@pytest.mark.slow
def test_bf16_weights_follow_float32_training(layer):
    exact = Run(layer, TRAIN, None)
    rounded = Run(layer, msgspec.structs.replace(TRAIN, precision="bf16_weights"), None)
    assert rounded.losses == pytest.approx(exact.losses, rel=2e-2)
    assert rounded.losses != exact.losses


def test_gradients_of_bf16_weights_are_summed_in_float32():
    """256 times 1 and once 2**-8: a bfloat16 sum would stop at 256 and lose the last."""
    model = nn.Linear(1, 1, bias=False)
    masters = MasterWeights(model)
    assert model.weight.dtype == torch.bfloat16
    for x in [1.0] * 257 + [2.0**-8]:
        model(torch.full((1, 1), x, dtype=torch.bfloat16)).sum().backward()
        assert model.weight.grad is None
    assert float(masters.twin(model.weight).grad) == 257 + 2.0**-8
    with masters.full():
        assert model.weight.dtype == torch.float32
        model(torch.ones(1, 1)).sum().backward()  # a check's gradient, not training's
        assert float(masters.twin(model.weight).grad) == 257 + 2.0**-8
    assert model.weight.dtype == torch.bfloat16


def test_small_updates_are_not_lost_to_rounding():
    """A step of 2**-12 is far under bfloat16's spacing at 1 (2**-7); sixty-four of them are seen."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.ones_(model.weight)
    masters = MasterWeights(model)
    for _ in range(64):
        masters.twin(model.weight).data.add_(2.0**-12)
        masters.write()
    assert masters.twin(model.weight).item() == 1 + 2.0**-6
    assert model.weight.item() == 1 + 2.0**-6


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["rms", "layer"])
def test_compiled_blocks_train_alike_and_the_time_is_told(norm, layer, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    model = msgspec.structs.replace(MODEL, norm=norm)
    plain = Run(layer, TRAIN, None, model=model)
    compiled = Run(layer, msgspec.structs.replace(TRAIN, compile="on"), None, model=model)
    assert compiled.losses == pytest.approx(plain.losses, rel=1e-4)
    assert compiled.compiled == [compiled.training.compile_seconds]
    assert compiled.training.compile_seconds > 1.0
    assert plain.compiled == []
    assert list((tmp_path / "inductor").rglob("*.py"))
