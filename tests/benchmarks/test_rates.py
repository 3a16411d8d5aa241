"""The file behind the table of learning rates: what of it still counts."""

from __future__ import annotations

import msgspec
import pytest

from asi_lab.lab.config import from_preset
from asi_lab.records import TUNING_SEED, BaselineRun, CandidateState, Evaluation, Evidence
from asi_lab.scoring import references
from benchmarks import rates

SETTINGS = from_preset("micro")
NAMES = ["delta_net", "gated_delta_net", "mamba2"]


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setattr(rates, "RESULTS", tmp_path / "results/rates.jsonl")
    return rates.RESULTS


def ended(name: str, seed: int, rate: float, loss: float) -> BaselineRun:
    return BaselineRun(name, seed, Evidence(evaluation=Evaluation(loss, 0, ())), rate)


def test_runs_are_read_again_where_code_settings_and_text_are_the_same(file, monkeypatch):
    runs = [ended("delta_net", TUNING_SEED, 2.0, 4.5)]
    failure = Evidence(failure=CandidateState.DIVERGED, error="step 9: loss nan")
    runs += [BaselineRun("mamba2", 1, failure, 4.0)]
    results = rates.Results(SETTINGS, "text")
    for run in runs:
        results.add(run)
    assert rates.Results(SETTINGS, "text").runs == results.runs == runs
    slow = BaselineRun("mamba2", 2, Evidence(failure=CandidateState.TIMED_OUT, error="silent"))
    results.add(slow)
    assert results.runs == [*runs, slow]
    assert rates.Results(SETTINGS, "text").runs == runs  # the next one measures it again
    assert rates.Results(SETTINGS, "another text").runs == []
    slower = msgspec.structs.replace(SETTINGS.train, learning_rate=1e-3)
    assert rates.Results(msgspec.structs.replace(SETTINGS, train=slower), "text").runs == []
    source = references.source
    monkeypatch.setattr(
        references, "source", lambda name: source(name) + ("x = 1\n" if name == "mamba2" else "")
    )
    assert rates.Results(SETTINGS, "text").runs == runs[:1]


def test_the_tables_of_a_whole_race(file, capsys):
    runs = []
    for place, name in enumerate(NAMES):
        for rate, loss in ((0.5, 4.2), (1.0, 4.0), (2.0, 4.4)):
            runs += [ended(name, TUNING_SEED + i, rate, loss + place / 10) for i in range(3)]
        runs += [ended(name, 0, 1.0, 4.0 + place / 10)]
    rates.show(NAMES, 1, 3, SETTINGS, runs)
    said = capsys.readouterr().out
    assert "| mamba2 | 4.4000 | 4.2000 | 4.6000 |  | ×1 |" in said
    assert "| rank correlation | 1.00 | 1.00 | 1.00 | | |" in said
    assert "| gated_delta_net | 2 | 4.1000 | 2 | 4.1000 | ×1 |" in said
    assert "30 runs, 0 failed." in said
