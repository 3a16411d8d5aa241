"""The runs of studies: each is made once, and learning rates are tuned as a lab tunes them."""

from __future__ import annotations

import measuring
import msgspec
import pytest
import rates
from measuring import Run, Wanted

from asi_lab.records import TUNING_SEED
from asi_lab.scoring import references

NAMES = ["delta_net", "gated_delta_net", "mamba2"]
PRESET = 1.2e-2


@pytest.fixture(autouse=True)
def file(tmp_path, monkeypatch):
    monkeypatch.setattr(measuring, "RESULTS", tmp_path / "runs.jsonl")
    return measuring.RESULTS


def end(wanted: Wanted, loss: float) -> None:
    """Write down a run that has ended."""
    run = Run(wanted, *measuring._key(wanted), loss, {}, 0, 1.0)
    with measuring.RESULTS.open("ab") as file:
        file.write(msgspec.json.encode(run) + b"\n")


def test_a_run_counts_as_long_as_code_and_settings_are_the_same(monkeypatch):
    wanted = [Wanted(name, "micro", 0) for name in NAMES]
    for run in wanted[:2]:
        end(run, 4.0)
    assert measuring.missing(wanted) == wanted[2:]
    monkeypatch.setattr(measuring, "_known_references", lambda: frozenset(NAMES))
    source = measuring.source
    monkeypatch.setattr(measuring, "source", lambda name: source(name) + ("x = 1\n" * (name == NAMES[0])))
    assert measuring.missing(wanted) == [wanted[0], wanted[2]]


def test_a_run_is_the_same_in_whatever_words_it_is_asked_for():
    end(Wanted("mamba2", "micro", 0, changes={"train.learning_rate": PRESET}), 4.0)
    assert measuring.missing([Wanted("mamba2", "micro", 0)]) == []
    others = [
        Wanted("mamba2", "micro", 0, changes={"train.learning_rate": 2 * PRESET}),
        Wanted("mamba2", "micro", 0, probes=True),
        Wanted("mamba2", "micro", 0, order=1),
        Wanted("mamba2", "mini", 0),
    ]
    assert measuring.missing(others) == others


def test_the_study_goes_on_where_the_best_rate_lies_at_the_edge():
    first = rates.wanted(NAMES[:1], "micro")
    assert [run.changes for run in first[:3]] == [
        {"train.learning_rate": 0.5 * PRESET},
        {},
        {"train.learning_rate": 2 * PRESET},
    ]
    assert {run.index for run in first} == {TUNING_SEED, TUNING_SEED + 1, TUNING_SEED + 2}
    for run, loss in zip(first, (4.4, 4.2, 4.0) * 3, strict=True):
        end(run, loss)
    then = measuring.missing(rates.wanted(NAMES[:1], "micro"))
    assert [run.changes for run in then] == [{"train.learning_rate": 4 * PRESET}] * 3
    for run in then:
        end(run, 4.1)
    assert {
        (run.index, run.changes.get("train.learning_rate"))
        for run in measuring.missing(rates.wanted(NAMES[:1], "micro"))
    } == {(index, rate) for index in range(rates.COUNTED) for rate in (None, 2 * PRESET)}


def test_the_tables(monkeypatch, capsys):
    for place, name in enumerate(NAMES):
        for run in rates.wanted([name], "micro"):
            loss = {0.5 * PRESET: 4.2, 2 * PRESET: 4.4}.get(run.changes.get("train.learning_rate"), 4.0)
            end(run, loss + place / 10)
        for index in range(rates.COUNTED):
            end(Wanted(name, "micro", index), 4.0 + place / 10)
    monkeypatch.setattr("sys.argv", ["rates.py", *NAMES])
    rates.main()
    said = capsys.readouterr().out
    assert "| Mamba-2 | 4.4000 | 4.2000 | 4.6000 |  | ×1 |" in said
    assert "| rank correlation | 1.00 | 1.00 | 1.00 | | |" in said
    assert "| Gated DeltaNet | 2 | 4.1000 | 2 | 4.1000 | ×1 |" in said
    assert "27 runs of tuning." in said
    assert set(NAMES) <= set(references.names())
