"""Tests of probes over real pipes: what is believed of a trial's rows, and what is not."""

from __future__ import annotations

import math
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from asi_lab.data.probes import MODEL, PROBES
from asi_lab.protocol import probe_file
from asi_lab.records import CandidateState
from asi_lab.scorer.fault import CandidateFault
from asi_lab.scorer.probes import ProbeTest
from asi_lab.trial.probes import Seeds, Snapshots, train
from tests.trial.test_probes import Mean

CPU = torch.device("cpu")
NAMES = ("probe_mqar", "probe_parity")
ALL = 10**6


@pytest.fixture
def trained(tmp_path, monkeypatch) -> Path:
    """A folder with the weights of two short probes, which is the working directory."""
    monkeypatch.chdir(tmp_path)
    for name in NAMES:
        probe = msgspec.structs.replace(PROBES[name], steps=8, batch=8)
        monkeypatch.setitem(PROBES, name, probe)
        models = train(Mean, probe, CPU, Seeds(1, 2, 3))
        for step, model in zip(probe.marks, models, strict=True):
            Snapshots(Mean, CPU).keep(probe, step, model)
    return tmp_path


def lying(change):
    """Snapshots whose rows are changed: `change` maps ids and states to what is answered."""
    honest = Snapshots(Mean, CPU)

    def snapshot(name):
        residual = honest.residual(name)
        return lambda ids: change(ids, residual(ids))

    return snapshot


def scored(connect, folder: Path, name: str = NAMES[0], trial=None, server=None, count: int = ALL):
    """The result of a whole test, and what was written down."""
    told: list[dict[str, object]] = []
    test = ProbeTest(name, folder, 0, CPU, 64)
    honest = Snapshots(Mean, CPU).residual
    test.ask(connect(lambda ids: None, 64, snapshot=trial or honest))
    result, compared = test.compare(
        connect(lambda ids: None, 64, snapshot=server or honest), count, told.append
    )
    assert compared == sum(len(one["positions"]) for one in told)
    return result, told


@pytest.mark.parametrize("name", NAMES)
def test_the_score_is_of_the_end_and_of_the_area_under_the_curve(connect, trained, name):
    result, told = scored(connect, trained, name, count=400)
    steps, values = zip(*result.curve, strict=True)
    assert steps == (2, 4, 6, 8) == tuple(one["step"] for one in told)
    assert result.score == pytest.approx(math.exp((np.mean(values) + values[-1]) / 2))
    assert result.metrics["log_probability"] == values[-1]
    assert 0 < result.metrics["accuracy"] < 1
    assert result.chance == 1 / PROBES[name].choices
    assert max(abs(found) for one in told for found in one["differences"]) < 1e-4
    assert [len(one["positions"]) for one in told] == [100] * 4


def test_log_probabilities_are_those_of_the_weights(connect, trained):
    (streams,) = ProbeTest(NAMES[0], trained, 0, CPU, 64)._tests
    states = Snapshots(Mean, CPU).residual("probe_mqar-8")(torch.from_numpy(streams.ids))
    from safetensors.torch import load_file

    weights = load_file(trained / probe_file(NAMES[0], 8))
    normed = states * torch.rsqrt(states.square().mean(2, keepdim=True) + MODEL.norm_eps)
    log_probs = (normed * weights["norm.weight"] @ weights["head.weight"].T).log_softmax(2)
    rows, columns = streams.places
    expected = log_probs[rows, columns, streams.wanted].mean().item()
    assert scored(connect, trained, count=8)[0].curve[-1][1] == pytest.approx(expected, rel=1e-5)


def test_a_test_is_the_same_again_and_another_for_other_weights(connect, trained):
    first = ProbeTest(NAMES[0], trained, 0, CPU, 64)._tests[0].ids
    assert (ProbeTest(NAMES[0], trained, 0, CPU, 64)._tests[0].ids == first).all()
    assert (ProbeTest(NAMES[0], trained, 1, CPU, 64)._tests[0].ids != first).any()
    first_figures, again = (scored(connect, trained, count=8)[0] for _ in range(2))
    assert first_figures.curve == again.curve
    one, other = (trained / probe_file(NAMES[0], step) for step in (2, 4))
    other.write_bytes(one.read_bytes())
    assert (ProbeTest(NAMES[0], trained, 0, CPU, 64)._tests[0].ids != first).any()


def test_rows_that_are_made_up_are_a_leak(connect, trained):
    forged = lying(lambda ids, states: states + 0.5 * states.flip(2))
    with pytest.raises(CandidateFault, match="a test stream of probe_mqar") as found:
        scored(connect, trained, trial=forged, count=64)
    assert found.value.state is CandidateState.LEAKING


def test_a_layer_that_looks_ahead_in_whole_streams_alone_is_a_leak(connect, trained):
    length = ProbeTest(NAMES[0], trained, 0, CPU, 64)._tests[0].ids.shape[1]
    ahead = lying(lambda ids, states: states + 0.1 * states.roll(-1, 1) if ids.shape[1] == length else states)
    with pytest.raises(CandidateFault) as found:
        scored(connect, trained, trial=ahead, server=ahead)
    assert found.value.state is CandidateState.LEAKING


def test_a_small_lie_is_taken_out_of_the_figures(connect, trained):
    honest, _ = scored(connect, trained, count=8)
    slightly = lying(lambda ids, states: states + 0.002 * states.flip(2))
    found, told = scored(connect, trained, trial=slightly)
    assert len(told[0]["positions"]) == found.samples == 256 * 4
    assert np.abs(told[-1]["differences"]).mean() > 1e-4
    assert found.curve[-1][1] == pytest.approx(honest.curve[-1][1], abs=1e-6)


def test_states_that_are_not_finite_and_answers_without_a_chance_have_diverged(connect, trained):
    broken = lying(lambda ids, states: states * float("inf"))
    with pytest.raises(CandidateFault) as found:
        scored(connect, trained, trial=broken)
    assert found.value.state is CandidateState.DIVERGED


def test_weights_that_are_none_are_forged(connect, trained):
    (trained / probe_file(NAMES[0], 4)).write_bytes(b"no weights")
    with pytest.raises(CandidateFault) as found:
        scored(connect, trained)
    assert found.value.state is CandidateState.FORGED
