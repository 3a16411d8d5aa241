"""Training: deterministic, resumable at the end, honest about divergence."""

import math
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from torch import nn

from asi_lab.lab.config import from_preset
from asi_lab.scoring import references
from asi_lab.trial.model import LanguageModel, load_architecture
from asi_lab.trial.train import checkpoint, trainer

MICRO = from_preset("micro")
MODEL = msgspec.structs.replace(MICRO.model, width=32, heads=2)
TRAIN = msgspec.structs.replace(MICRO.train, steps=12, batch=4, micro_batch=4, context=32, warmup_steps=2)
VOCABULARY = 50


class Stream:
    """Batches of a learnable pattern: each token is the last one plus one."""

    def batch(self, step: int) -> np.ndarray:
        start = np.random.default_rng(step).integers(0, VOCABULARY, size=(4, 1))
        return (start + np.arange(33)) % VOCABULARY


@pytest.fixture
def delta_net(tmp_path) -> type[nn.Module]:
    path = tmp_path / "architecture.py"
    path.write_text(references.source("delta_net"))
    return load_architecture(path)


def train(layer: type[nn.Module], settings=TRAIN, seed: int = 0):
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    model = LanguageModel(layer, MODEL, VOCABULARY)
    curve: list = []
    return model, trainer.Fit(model, Stream(), settings, curve.append).run(), curve


def test_two_runs_of_a_seed_give_identical_losses(delta_net):
    first, second, other = (train(delta_net, seed=seed)[2] for seed in (0, 0, 1))
    assert [p.loss for p in first] == [p.loss for p in second]
    assert [p.loss for p in first] != [p.loss for p in other]


def test_what_is_around_the_layers_starts_alike_for_all_architectures(delta_net, tmp_path):
    path = tmp_path / "gated.py"
    path.write_text(references.source("gated_delta_net"))
    models = []
    for layer, seed, shared in ((delta_net, 0, 7), (load_architecture(path), 1, 7), (delta_net, 0, 8)):
        torch.manual_seed(seed)
        models.append(dict(LanguageModel(layer, MODEL, VOCABULARY, shared).named_parameters()))
    around = [name for name, found in models[0].items() if ".mixer." not in name and found.dim() == 2]
    assert {"embed.weight", "blocks.0.mlp.up.weight", "blocks.0.mlp.down.weight"} <= {*around}
    for name in around:
        assert torch.equal(models[0][name], models[1][name])
        assert not torch.equal(models[0][name], models[2][name])
        assert models[0][name].std().item() == pytest.approx(MODEL.init_std, rel=0.2)
    inside = next(name for name in models[0] if ".mixer." in name and models[0][name].dim() == 2)
    assert torch.equal(models[0][inside], models[2][inside])


def test_it_learns_and_reports_every_step_of_a_short_run(delta_net):
    _, training, curve = train(delta_net, msgspec.structs.replace(TRAIN, steps=40))
    assert [p.step for p in curve] == list(range(1, 41))
    assert curve[-1].tokens == 40 * 4 * 32 == training.tokens
    assert curve[-1].loss < 0.5 * curve[0].loss
    assert curve[0].loss == pytest.approx(math.log(VOCABULARY), rel=0.5)
    assert curve[1].learning_rate == pytest.approx(TRAIN.learning_rate)
    assert training.tokens_per_second > 0
    assert training.peak_memory_mb > 10


@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16_weights", marks=pytest.mark.slow)])
@pytest.mark.parametrize("micro_batch", [1, 3])
def test_micro_batches_give_the_same_gradient(delta_net, micro_batch, precision):
    """Also where the last one is smaller."""
    settings = msgspec.structs.replace(TRAIN, precision=precision)
    split = msgspec.structs.replace(settings, micro_batch=micro_batch)
    whole, parts = train(delta_net, settings)[2], train(delta_net, split)[2]
    tolerance = 1e-3 if precision == "fp32" else 2e-2
    assert [p.loss for p in parts] == pytest.approx([p.loss for p in whole], rel=tolerance)


def test_a_checkpoint_brings_back_the_same_model(delta_net, tmp_path):
    model, _, _ = train(delta_net)
    checkpoint.save_trained(model, tmp_path / "checkpoint.safetensors")
    torch.manual_seed(9)
    twin = LanguageModel(delta_net, MODEL, VOCABULARY)
    checkpoint.load_trained(twin, tmp_path / "checkpoint.safetensors")
    ids = torch.arange(20)[None]
    assert torch.equal(twin.eval().residual(ids), model.eval().residual(ids))
    assert [path.name for path in tmp_path.glob("checkpoint*")] == ["checkpoint.safetensors"]


class Exploding(nn.Module):
    """A layer whose output leaves the finite numbers after a few calls in training."""

    def __init__(self, d_model: int, **kwargs: object) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(d_model))
        self.calls = 0

    def forward(self, hidden_states, **kwargs):
        self.calls += 1
        return hidden_states * self.scale * (math.inf if self.calls > 3 else 1.0), None, None


def test_divergence_names_the_step():
    with pytest.raises(trainer.Diverged, match="step 4"):
        train(Exploding)


class WithAux(Exploding):
    """A layer with an auxiliary loss in slot two."""

    def forward(self, hidden_states, **kwargs):
        return hidden_states * self.scale, 100.0 + self.scale.sum(), None


def test_auxiliary_loss_trains_but_is_not_reported():
    model, training, curve = train(WithAux)
    assert training.train_loss < 20
    assert curve[0].loss < 20
    assert float(model.blocks[0].mixer.scale.detach().mean()) < 1.0


def test_tied_embeddings_are_counted_once(delta_net):
    tied = LanguageModel(delta_net, MODEL, VOCABULARY).parameter_counts()
    untied_settings = msgspec.structs.replace(MODEL, tie_embeddings=False)
    untied = LanguageModel(delta_net, untied_settings, VOCABULARY).parameter_counts()
    assert tied[1] == untied[1]
    assert tied[0] - tied[1] == VOCABULARY * 32
    assert untied[0] - untied[1] == 2 * VOCABULARY * 32


@pytest.mark.parametrize(
    ("preset", "body", "total"),
    [
        ("20m", 6_324_992, 19_190_784),
        ("340m", 302_388_224, 405_314_560),
        ("1.3b", 1_209_932_800, 1_415_785_472),
    ],
)
def test_sizes_of_the_papers_presets(delta_net, preset, body, total):
    with torch.device("meta"):
        model = LanguageModel(delta_net, from_preset(preset).model, 50_257)
    everything, outside = model.parameter_counts()
    assert (outside, everything) == (body, total)


def test_loading_an_architecture_runs_that_file(tmp_path):
    path = Path(tmp_path / "architecture.py")
    path.write_text("class DeltaNet:\n    mark = 7\n")
    assert load_architecture(path).mark == 7
    path.write_text("class Other:\n    pass\n")
    with pytest.raises(AttributeError, match="DeltaNet"):
        load_architecture(path)
