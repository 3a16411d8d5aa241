"""What is counted on tensors without values, against the same step on real ones."""

from __future__ import annotations

import subprocess
import sys

import msgspec
import pytest
import torch

from asi_lab.lab import config
from asi_lab.protocol import TrialJob
from asi_lab.records.demand import Demand
from asi_lab.scoring import references
from asi_lab.trial import demand
from asi_lab.trial.model import LanguageModel, load_architecture
from asi_lab.trial.train.optimisation import Optimisation
from asi_lab.trial.train.ranks import Alone


def job_of(**train: object) -> TrialJob:
    """A small one: two layers, 8 rows of 64 tokens, and rows as long to answer."""
    replace, settings = msgspec.structs.replace, config.from_preset("micro")
    small = replace(settings.train, context=64, **train)
    answers = replace(settings.evaluate, batch=8, max_length=64)
    settings = replace(settings, train=small, evaluate=answers)
    return TrialJob.of(settings, "train", data="", vocab_size=settings.data.vocabulary, seed=0)


@pytest.fixture
def layer(tmp_path):
    path = tmp_path / "architecture.py"
    path.write_text(references.source("delta_net"))
    return load_architecture(path)


def really(layer, job: TrialJob) -> float:
    """The most that lives during a real second step beside its state, in bytes."""
    torch.manual_seed(0)
    model = LanguageModel(layer, job.model, job.vocab_size)
    model.recompute = job.train.recompute
    model.train()
    optimisation = Optimisation(model, job.train, Alone())
    tokens = torch.randint(0, job.vocab_size, (job.train.batch, job.train.context + 1))
    optimisation.step(tokens, 1e-3)
    tally = demand.Tally()
    moments = (x for values in optimisation.optimizer.state.values() for x in values.values())
    for there in (*model.parameters(), *optimisation.parameters, *moments):
        tally.alive.see(there)
    before = tally.alive.now
    with tally:
        optimisation.step(tokens, 1e-3)
    return tally.alive.peak - before


@pytest.mark.parametrize(
    "train",
    [
        {"precision": "fp32"},
        {"precision": "fp32", "recompute": True},
        {"precision": "bf16_weights", "micro_batch": 4},
    ],
)
def test_a_step_without_values_holds_what_a_real_one_does(layer, train):
    job = job_of(**train)
    found = demand.count(layer, job, "cpu")
    assert found.activations + found.gradients == pytest.approx(really(layer, job), rel=0.05)


def test_number_formats_show_in_what_stays(layer):
    plain, rounded = (demand.count(layer, job_of(precision=name), "cpu") for name in ("fp32", "bf16_weights"))
    assert plain.twins == 0
    assert (rounded.weights, rounded.twins) == (2 * rounded.params, 4 * rounded.params)
    assert rounded.gradients == plain.gradients == 4 * plain.params


def test_recomputing_keeps_less(layer):
    kept, again = (demand.count(layer, job_of(recompute=flag), "cpu") for flag in (False, True))
    assert again.activations < 0.8 * kept.activations


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="Triton is there on Linux alone")
def test_a_gpu_is_counted_without_one():
    job = job_of(precision="bf16")
    code = str(references.resources.files("asi_lab.lineage_repo") / "delta_net" / "architecture.py")
    command = [sys.executable, "-m", "asi_lab.trial.demand", "cuda", code, msgspec.json.encode(job).decode()]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = msgspec.json.decode(told.splitlines()[-1], type=Demand)
    assert found.device == "cuda"
    assert found.params == 164_992
    assert found.weights < found.activations < 60e6
