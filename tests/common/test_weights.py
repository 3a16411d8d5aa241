"""Weights that a trial has left: counted, and believed in nothing."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from asi_lab.common.weights import BadWeights, Weights
from asi_lab.lab.config import from_preset
from asi_lab.records import CandidateState
from asi_lab.scorer.fault import CandidateFault
from asi_lab.scorer.output import Output
from asi_lab.scoring import references
from asi_lab.settings import ModelSettings
from asi_lab.trial.model import LanguageModel, load_architecture
from asi_lab.trial.train import checkpoint

MODEL = from_preset("micro").model
FOLDER = Path(__file__).parents[2] / "lineage_repo"
VOCABULARY = 300


def built(name: str = "delta_net", model: ModelSettings = MODEL) -> LanguageModel:
    torch.manual_seed(0)
    return LanguageModel(load_architecture(FOLDER / name / "architecture.py"), model, VOCABULARY)


@pytest.mark.parametrize("name", references.names())
@pytest.mark.parametrize("tied", [True, False])
def test_all_elements_are_counted_tied_ones_once(tmp_path, name, tied):
    model = msgspec.structs.replace(MODEL, tie_embeddings=tied)
    lm, file = built(name, model), tmp_path / "weights"
    checkpoint.save_trained(lm, file)
    buffers = sum(buffer.numel() for key, buffer in lm.named_buffers() if key in lm.state_dict())
    assert Weights(file, model).parameters() == lm.parameter_counts()[0] + buffers
    twin = built(name, model)
    checkpoint.load_trained(twin, file)
    assert all(
        torch.equal(a, b) for a, b in zip(lm.state_dict().values(), twin.state_dict().values(), strict=True)
    )


def test_buffers_and_wide_types_count_for_what_they_can_hold(tmp_path):
    tensors = {
        "a": torch.ones(10),
        "b": torch.ones(4, dtype=torch.int64),
        "c": torch.ones(3, dtype=torch.bool),
    }
    save_file(tensors, tmp_path / "weights")
    assert Weights(tmp_path / "weights", MODEL).parameters() == 10 + 2 * 4 + 3


@pytest.mark.parametrize("norm", ["rms", "layer"])
def test_the_scorer_applies_the_same_norm_and_head_as_the_model(tmp_path, norm):
    model = msgspec.structs.replace(MODEL, norm=norm, tie_embeddings=False)
    lm, file = built(model=model).eval(), tmp_path / "weights"
    with torch.no_grad():
        for parameter in lm.norm.parameters():
            parameter.add_(torch.randn_like(parameter))
    checkpoint.save_trained(lm, file)
    output = Output.of_checkpoint(file, model, VOCABULARY)
    ids = torch.randint(VOCABULARY, (2, 9))
    with torch.no_grad():
        expected = lm.hidden(ids)[0] @ lm.head.weight.T
        found = output.logits(lm.residual(ids).flatten(0, 1))
    torch.testing.assert_close(found, expected.flatten(0, 1))


def change(file: Path, key: str, value: torch.Tensor | None) -> None:
    from safetensors.torch import load_file

    tensors = load_file(file)
    tensors = {name: tensor for name, tensor in tensors.items() if name != key}
    save_file(tensors if value is None else tensors | {key: value}, file)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("head.weight", None),
        ("head.weight", torch.ones(VOCABULARY, MODEL.width + 1)),
        ("head.weight", torch.ones(VOCABULARY + 1, MODEL.width)),
        ("head.weight", torch.ones(VOCABULARY, MODEL.width)),  # not what it is tied to
        ("head.weight", torch.ones(VOCABULARY, MODEL.width, dtype=torch.float64)),
        ("norm.weight", torch.ones(1)),
        ("norm.weight", None),
    ],
)
def test_a_head_or_norm_of_its_own_is_forged(tmp_path, key, value):
    file = tmp_path / "weights"
    checkpoint.save_trained(built(), file)
    change(file, key, value)
    with pytest.raises(CandidateFault) as fault:
        Output.of_checkpoint(file, MODEL, VOCABULARY)
    assert fault.value.state is CandidateState.FORGED


def test_a_head_that_is_not_finite_has_diverged(tmp_path):
    lm, file = built(), tmp_path / "weights"
    with torch.no_grad():
        lm.head.weight[3, 5] = float("inf")
    checkpoint.save_trained(lm, file)
    with pytest.raises(CandidateFault) as fault:
        Output.of_checkpoint(file, MODEL, VOCABULARY)
    assert fault.value.state is CandidateState.DIVERGED


def written(path: Path, header: object, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def entry(shape: list[int], begin: int, end: int, dtype: str = "F32") -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


BAD = {
    "no file of its kind": b"nonsense",
    "no header": b"[]",
    "a header too deep": b"[" * 10_000,
    "an entry that is none": {"a": 3},
    "a type that is none": {"a": entry([1], 0, 4, "F128")},
    "a type that is none, of nothing": {"a": entry([0], 0, 0, "F128"), "b": entry([1], 0, 4)},
    "no text": b'{"\xff": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}',
    "a size below nothing": {"a": entry([-1], 0, 4)},
    "sizes that overflow": {"a": entry([2**62, 4], 0, 0)},
    "numbers too long to be written": {"a": entry([10**4299], 0, 10**4299, "U8")},
    "bytes too few": {"a": entry([2], 0, 8)},
    "bytes too many": {"a": entry([], 0, 4), "b": entry([0], 4, 4)},
    "a hole": {"a": entry([1], 4, 8)},
    "an overlap": {"a": entry([2], 0, 8), "b": entry([1], 4, 8)},
    "words beside the tensors": {"__metadata__": {"text": "held-out"}, "a": entry([1], 0, 4)},
    "names that are text": {"x" * 100_000: entry([1], 0, 4)},
}


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_is_none_is_refused(tmp_path, name):
    file = written(
        tmp_path / "weights", BAD[name], b"\0" * {"bytes too few": 4, "bytes too many": 12}.get(name, 4)
    )
    if name == "no file of its kind":
        file.write_bytes(b"nonsense")
    with pytest.raises(BadWeights) as error:
        Weights(file, MODEL)
    assert "'" not in str(error.value)  # nothing of the file is quoted


def test_a_sound_file_of_that_kind_is_taken(tmp_path):
    file = written(tmp_path / "weights", {"a": entry([2], 0, 8), "b": entry([], 8, 12)}, b"\0" * 12)
    assert Weights(file, MODEL).parameters() == 3
    assert np.fromfile(file, "<f4", 3, offset=file.stat().st_size - 12).tolist() == [0.0] * 3
