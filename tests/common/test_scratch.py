"""Temporary folders that are held, swept when their holders are gone."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from asi_lab.common import disk, scratch

PREFIX = "asi-lab-some-"
HOLD = f"""
import sys, tempfile, time
from asi_lab.common import scratch
tempfile.tempdir = sys.argv[1]
with scratch.held({PREFIX!r}) as folder:
    (folder / "file").touch()
    print(folder, flush=True)
    time.sleep(1000)
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def test_a_held_one_stays_whatever_the_clock_says_and_then_goes(place, monkeypatch):
    with scratch.held(PREFIX) as folder:
        monkeypatch.setattr(time, "time", lambda: 4e9)
        scratch.sweep(PREFIX)
        assert folder.is_dir()
        assert folder.parent == place
    assert list(place.iterdir()) == []


def test_one_of_another_process_goes_once_that_is_killed(place):
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(place)], stdout=subprocess.PIPE, text=True
    ) as holder:
        folder = Path(holder.stdout.readline().strip())
        scratch.sweep(PREFIX)
        assert (folder / "file").exists()
        holder.kill()
    assert folder.exists()
    (folder / "objects").symlink_to(place / "mine")
    (place / "mine").mkdir()
    scratch.sweep(PREFIX)
    assert list(place.iterdir()) == [place / "mine"]  # what it links to is not its own


def test_links_and_what_others_named_are_left_alone(place):
    (place / "mine").mkdir()
    (place / f"{PREFIX}link").symlink_to(place / "mine")
    (place / f"{PREFIX}file").touch()
    left = sorted(place.iterdir())
    scratch.sweep(PREFIX)
    assert sorted(place.iterdir()) == left


def test_one_that_is_swept_before_it_is_locked_is_made_again(place, monkeypatch):
    flock, calls = disk.fcntl.flock, []

    def late(folder: int, how: int) -> None:
        calls.append(folder)
        if len(calls) == 1:
            scratch.sweep(PREFIX)
        flock(folder, how)

    monkeypatch.setattr(disk.fcntl, "flock", late)
    with scratch.held(PREFIX) as folder:
        assert folder.is_dir()
        assert list(place.iterdir()) == [folder]
