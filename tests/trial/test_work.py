"""Counting what a model asks of a machine: exact where the answer is known, the same in every process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from asi_lab.lab.config import from_preset
from asi_lab.scoring import references
from asi_lab.trial.model import LanguageModel, load_architecture
from asi_lab.trial.work import per_token

MICRO = from_preset("micro")
WIDTH, LAYERS = MICRO.model.width, MICRO.model.layers

LINEAR = """import torch
from torch import nn


class DeltaNet(nn.Module):
    def __init__(self, d_model=None, **kwargs):
        super().__init__()
        self.mix = nn.Linear(d_model, d_model, bias=False)

    def forward(self, hidden_states, **kwargs):
        return self.mix(hidden_states), None, None
"""

ELSEWHERE = """import json, sys
from pathlib import Path
import torch
from asi_lab.lab.config import from_preset
from asi_lab.trial.model import LanguageModel, load_architecture
from asi_lab.trial.work import per_token

torch.set_num_threads(int(sys.argv[2]))
settings = from_preset("micro")
model = LanguageModel(load_architecture(Path(sys.argv[1])), settings.model, 300)
work = per_token(model, settings.train.context)
print(json.dumps([work.operations, work.bytes]))
"""


def model_of(folder: Path, code: str, vocabulary: int = 300) -> LanguageModel:
    path = folder / "architecture.py"
    path.write_text(code)
    return LanguageModel(load_architecture(path), MICRO.model, vocabulary)


def test_each_weight_of_the_blocks_costs_six_operations(tmp_path):
    """A product, and two backward; where nothing but products of weights counts as an operation."""
    model = model_of(tmp_path, LINEAR)
    weights = sum(p.numel() for p in model.blocks.parameters() if p.ndim == 2)
    for context in (16, 128):
        assert per_token(model, context).operations == pytest.approx(6 * weights)


def test_what_is_around_the_blocks_does_not_count(tmp_path):
    small, large = (per_token(model_of(tmp_path, LINEAR, size), 64) for size in (50, 5000))
    assert small == large


@pytest.mark.parametrize(
    ("line", "operations", "moved"),
    [
        # a product more for each token of each layer, forward and twice backward
        ("self.mix(self.mix(hidden_states))", 6 * WIDTH**2 * LAYERS, None),
        # elementwise work is no product, and moves its operand and its result in float32, both ways
        ("self.mix(hidden_states).sin()", 0, 4 * 2 * WIDTH * LAYERS),
        # a view costs nothing
        ("self.mix(hidden_states).unsqueeze(0).squeeze(0)", 0, 0),
    ],
)
def test_more_work_counts_more(tmp_path, line, operations, moved):
    plain = per_token(model_of(tmp_path, LINEAR), 64)
    more = per_token(model_of(tmp_path, LINEAR.replace("self.mix(hidden_states)", line)), 64)
    assert more.operations - plain.operations == pytest.approx(operations)
    if moved is None:
        assert more.bytes > plain.bytes
    elif moved:
        assert more.bytes - plain.bytes >= 2 * moved  # backward reads what forward read, too
    else:
        assert more.bytes == plain.bytes


@pytest.mark.parametrize("name", ["delta_net", "gated_delta_net"])
def test_the_same_code_counts_the_same_in_another_process(tmp_path, name):
    """With other weights and another number of threads."""
    torch.manual_seed(1)
    here = per_token(model_of(tmp_path, references.source(name)), MICRO.train.context)
    command = [sys.executable, "-c", ELSEWHERE, str(tmp_path / "architecture.py"), "2"]
    there = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert there == [here.operations, here.bytes]


def test_gradients_of_the_count_do_not_stay(tmp_path):
    model = model_of(tmp_path, LINEAR)
    per_token(model, 16)
    assert all(p.grad is None for p in model.parameters())
