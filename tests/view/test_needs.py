"""What a search will need, judged against what there is: nothing is counted here."""

from __future__ import annotations

import msgspec
import pytest

from asi_lab.lab import config
from asi_lab.records.demand import Demand
from asi_lab.view import needs
from asi_lab.view.needs import GB, Room

MINI = config.from_preset("mini")
BIG = config.from_preset("1.3b")


def demand(device: str = "cpu", **changes: float) -> Demand:
    found = Demand(
        device=device,
        params=1_000_000,
        weights=4_000_000,
        twins=0,
        gradients=4_000_000,
        moments=8_000_000,
        activations=1_600_000_000,
        evaluation=500_000_000,
        resident=400_000_000,
        private=250_000_000,
        flops=6e6,
    )
    return msgspec.structs.replace(found, **changes)


def test_a_trial_that_fits_is_fine():
    found = needs.memory(MINI, demand(), 1, Room(32 * GB, 4 * GB), None)
    assert found.verdict == "ok"
    assert "activations 1.6 GB for 16 x 256 tokens" in found.detail
    assert "a trial takes about 3.4 GB" in found.detail  # 0.4, and 1.4 times 1.616 and 0.504


def test_trials_at_once_are_added_up_and_fewer_of_them_are_proposed():
    room = Room(16 * GB, 0.0)
    assert needs.memory(MINI, demand(), 2, room, None).verdict == "ok"
    found = needs.memory(MINI, demand(), 8, room, None)
    assert (found.verdict, found.fix) == ("fail", "set search.slots below 8")


def test_what_certainly_does_not_fit_fails_with_the_micro_batch_that_would():
    found = needs.memory(MINI, demand(activations=16 * GB), 1, Room(8 * GB, 0.0), None)
    assert found.verdict == "fail"
    # (8 - 0.4) / 1.4 - 0.5 = 4.9 GB, and a row takes 1 GB: of the divisors of 16 four fits
    assert found.fix.startswith("set train.micro_batch = 4, which fits by this count")


def test_rows_that_do_not_fit_singly_ask_for_recomputing_and_weights_for_another_preset():
    room = Room(8 * GB, 0.0)
    huge = demand(activations=16 * 20 * GB)
    assert "train.recompute = true" in needs.memory(MINI, huge, 1, room, None).fix
    heavy = demand(moments=20 * GB)
    assert "smaller preset" in needs.memory(MINI, heavy, 1, room, None).fix


def test_the_limit_of_a_trial_counts_too():
    low = msgspec.structs.replace(MINI, limits=msgspec.structs.replace(MINI.limits, memory_gb=1.5))
    found = needs.memory(low, demand(), 1, Room(64 * GB, 0.0), None)
    assert found.verdict == "fail"
    assert "limits.memory_gb" in found.fix


def test_long_rows_of_evaluation_are_told_apart_from_training():
    found = needs.memory(MINI, demand(evaluation=60 * GB), 1, Room(32 * GB, 0.0), None)
    assert found.fix.startswith("set evaluate.batch below 64")


@pytest.mark.parametrize(("used", "model", "verdict"), [(0, 0, "ok"), (0, 18, "warn"), (20, 0, "warn")])
def test_a_gpu_is_shared_with_a_language_model_and_with_others(used, model, verdict):
    beside = ("qwen3:30b", int(model * GB)) if model else None
    found = needs.memory(BIG, demand("cuda", activations=8 * GB), 1, Room(24 * GB, used * GB), beside)
    assert found.verdict == verdict
    assert ("qwen3:30b" in found.detail) == bool(model)
    assert bool(found.fix) == (verdict == "warn")


def test_disk_must_hold_shards_and_what_training_goes_on_from(tmp_path, monkeypatch):
    found = needs.storage(BIG, demand("cuda", params=1_415_785_472), 1, tmp_path / "lab")
    assert "shards at most 212.0 GB" in found.detail  # two bytes a token
    assert "what training goes on from 17.0 GB" in found.detail
    usage = needs.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(needs.shutil, "disk_usage", lambda path: usage._replace(free=int(100 * GB)))
    assert needs.storage(BIG, demand("cuda"), 1, tmp_path / "lab").verdict == "fail"
    monkeypatch.setattr(needs.shutil, "disk_usage", lambda path: usage._replace(free=int(900 * GB)))
    assert needs.storage(BIG, demand("cuda"), 1, tmp_path / "lab").verdict == "ok"
    tight = msgspec.structs.replace(BIG, limits=msgspec.structs.replace(BIG.limits, disk_gb=10.0))
    found = needs.storage(tight, demand("cuda", params=1_415_785_472), 1, tmp_path / "lab")
    assert (found.verdict, found.fix) == ("fail", "set limits.disk_gb above 21.1")


def test_the_demand_of_a_preset_is_counted_by_its_code():
    """In a process of its own, as doctor does it: micro, on a CPU."""
    found = needs.demand(config.from_preset("micro"), "cpu")
    assert found.params == 164_992
    assert (found.weights, found.gradients) == (4 * found.params, 4 * found.params)
    assert found.moments == pytest.approx(8 * found.params, rel=0.01)
    assert 10e6 < found.activations < 40e6
    assert 0.8 * 6 * found.params < found.flops < 1.2 * 6 * found.params
    assert found.rate is not None
    assert found.rate > 1e8
