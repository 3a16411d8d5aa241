"""How GPUs and cores are shared out among slots."""

from __future__ import annotations

import msgspec
import pytest

from asi_lab.engineer import allocation
from asi_lab.engineer.allocation import Allocation, listed, share_out, visible_gpus
from asi_lab.errors import ConfigError
from asi_lab.lab import config
from asi_lab.lab.config import from_preset
from asi_lab.settings import Settings

FOUR = ("0", "1", "2", "3")


def settings(slots: int, device: str = "auto", ranks: int = 1, threads: int = 0) -> Settings:
    found = from_preset("micro", device=device)
    return msgspec.structs.replace(
        found,
        search=msgspec.structs.replace(found.search, slots=slots),
        train=msgspec.structs.replace(found.train, ranks=ranks, threads=threads),
    )


def test_by_default_there_is_one_slot_and_nothing_is_assigned():
    assert from_preset("mini").search.slots == 1
    assert share_out(settings(1), FOUR, 8) == Allocation(((),), 8)
    assert share_out(settings(1, ranks=0), FOUR, 8) == Allocation(((),), 2)
    assert share_out(settings(1), FOUR, 8).words == ""


@pytest.mark.parametrize(
    ("slots", "ranks", "gpus"),
    [
        (2, 1, (("0",), ("1",))),
        (0, 1, (("0",), ("1",), ("2",), ("3",))),
        (2, 2, (("0", "1"), ("2", "3"))),
        (0, 2, (("0", "1"), ("2", "3"))),
        (2, 0, (("0", "1"), ("2", "3"))),
        (3, 0, (("0",), ("1",), ("2",))),
        (0, 3, ((),)),  # room for one alone, which sees all
        (0, 0, ((),)),
        (0, 8, ((),)),  # what is missing is told by the trial, as with one slot
    ],
)
def test_each_slot_has_gpus_of_its_own(slots, ranks, gpus):
    assert share_out(settings(slots, ranks=ranks), FOUR, 8).gpus == gpus


def test_entries_of_the_outer_variable_are_passed_on():
    names = ("GPU-8932f937-d72c-4106-c12f-20bd9faed9f6", "MIG-1a2b", "5")
    assert share_out(settings(3, threads=1), names, 8).gpus == tuple((name,) for name in names)


@pytest.mark.parametrize(("slots", "ranks", "most"), [(5, 1, 4), (3, 2, 2), (5, 0, 4)])
def test_more_slots_than_gpus_are_refused(slots, ranks, most):
    with pytest.raises(ConfigError, match=f"search.slots: expected at most {most}, for 4 GPUs"):
        share_out(settings(slots, ranks=ranks), FOUR, 8)


def test_a_lab_for_gpus_without_a_list_of_them_is_refused():
    with pytest.raises(ConfigError, match="CUDA_VISIBLE_DEVICES"):
        share_out(settings(2, device="cuda"), (), 8)
    assert share_out(settings(0, device="cuda"), (), 8).count == 1
    assert share_out(settings(1, device="cuda"), (), 8).count == 1


@pytest.mark.parametrize(
    ("slots", "threads", "count", "each", "crowded"),
    [
        (0, 1, 8, 1, False),
        (0, 2, 4, 2, False),
        (0, 3, 2, 3, False),
        (0, 0, 1, 8, False),  # a trial takes all cores, so there is room for one
        (0, 16, 1, 16, False),
        (2, 0, 2, 4, False),
        (3, 0, 3, 2, False),
        (16, 0, 16, 1, True),
        (4, 4, 4, 4, True),
    ],
)
def test_cores_are_divided_where_threads_are_left_to_the_machine(slots, threads, count, each, crowded):
    found = share_out(settings(slots, device="cpu", threads=threads), FOUR, 8)
    assert found == Allocation(((),) * count, each, crowded)
    assert share_out(settings(slots, threads=threads), (), 8) == found
    assert ("more than the machine has cores" in found.words) == crowded


def test_what_is_told():
    assert share_out(settings(2, ranks=2), FOUR, 8).words == (
        "2 trials at the same time, 2 threads each, on the GPUs 0,1 | 2,3"
    )
    assert share_out(settings(2, threads=1), (), 2).words == "2 trials at the same time, 1 thread each"


def test_settings_take_the_numbers_over():
    wanted = settings(0, device="cpu", threads=2)
    found = share_out(wanted, (), 8).settled(wanted)
    assert (found.search.slots, found.train.threads) == (4, 2)
    assert share_out(settings(1), (), 8).settled(settings(1)) == settings(1, threads=8)


@pytest.mark.parametrize(
    ("value", "entries"),
    [
        ("0,1", ("0", "1")),
        (" 2 , GPU-8932f937,MIG-1 ", ("2", "GPU-8932f937", "MIG-1")),
        ("", ()),
        ("-1", ()),
        ("0,-1,1", ("0",)),
        ("0,,1", ("0",)),
    ],
)
def test_the_variable_is_read_as_cuda_reads_it(value, entries):
    assert listed(value) == entries


def test_visible_gpus(monkeypatch):
    class Nvml:
        def nvmlDeviceGetCount(self):  # noqa: N802  as NVML has it
            return 2

    monkeypatch.setattr(allocation, "find_nvml", Nvml)
    monkeypatch.setattr(allocation, "gpu_devices", lambda: ())
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "0"}) == ()
    monkeypatch.setattr(allocation, "gpu_devices", lambda: ("/dev/nvidia0",))
    assert visible_gpus({}) == ("0", "1")
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "GPU-1,GPU-0,3"}) == ("GPU-1", "GPU-0", "3")
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": ""}) == ()
    monkeypatch.setattr(allocation, "find_nvml", lambda: None)
    assert visible_gpus({}) == ()


@pytest.mark.parametrize("value", ["-1", "1.5", "'all'"])
def test_a_wrong_number_is_told_with_its_line(value):
    with pytest.raises(ConfigError, match=r"lab.toml:3: search\.slots: expected integer >= 0"):
        config.parse(f"preset = 'micro'\n[search]\nslots = {value}\n")
