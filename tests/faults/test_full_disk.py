"""A full disk, at whatever is being written: store, commits, orders, a new lab, data and tasks."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from asi_lab.errors import DiskError, StoreError
from asi_lab.lab import Lab, Lineage, Store, commands

ROOM = "Free some space"
DISK_BYTES = 80 << 20


def few_or_many(name: str, few, many):
    """A drill at few places, and at many for the slow tests."""
    values = [pytest.param(few, id="few"), pytest.param(many, id="many", marks=pytest.mark.slow)]
    return pytest.mark.parametrize(name, values)


class SmallDisk:
    """A file system of its own that can be filled and emptied."""

    def __init__(self, path: Path) -> None:
        self.path, self._ballast = path, path / "ballast"

    def fill(self, leave: int = 0) -> None:
        """Use up the disk but for `leave` bytes."""
        self.empty()
        free = os.statvfs(self.path).f_bavail * os.statvfs(self.path).f_frsize
        with self._ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, free - leave)

    def empty(self) -> None:
        self._ballast.unlink(missing_ok=True)


@pytest.fixture
def disk(tmp_path):
    """A disk on which trials have the room they want, 32 MB; skips where no file system may be mounted."""
    path = tmp_path / "disk"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(path)]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("a file system can be mounted by root only; the drills with a limit on file sizes do run")
    yield SmallDisk(path)
    subprocess.run(["umount", "--lazy", str(path)], check=True)


def on(disk: SmallDisk, lab: Lab) -> Lab:
    """A copy of a lab on the small disk."""
    shutil.rmtree(disk.path / "lab", ignore_errors=True)
    return Lab(shutil.copytree(lab.path, disk.path / "lab", symlinks=True))


def stored(lab: Lab) -> list:
    """What the store has acknowledged; nothing as long as there is no whole store."""
    with contextlib.suppress(StoreError), Store.open_readonly(lab.store) as store:
        return store.events(limit=10**6)
    return []


def drill(engines, lab, same, full, give_room) -> bool:
    """Run on a disk that becomes full, make room, go on. Returns whether it became full."""
    ended = full()
    assert ended.code in (0, 1), ended
    if ended.code == 1:
        assert ROOM in ended.said or "fsck --repair" in ended.said, ended.said
    give_room()
    before = stored(lab)
    engines.finish(lab)
    assert stored(lab)[: len(before)] == before
    same(lab)
    return ended.code == 1


@few_or_many("rooms", range(0, 900, 150), range(4, 1000, 12))
def test_a_search_goes_on_when_there_is_room_again(disk, prepared, engines, same, record_property, rooms):
    """With so many kilobytes left at its start it fails at another place each time."""
    failed = 0
    for room in rooms:
        lab = on(disk, prepared)
        disk.fill(room << 10)
        failed += drill(engines, lab, same, lambda lab=lab: engines.run(lab), disk.empty)
    assert failed > len(rooms) * 2 // 3
    record_property("drills", len(rooms))


@few_or_many("limits", range(8, 240, 40), range(8, 256, 4))
def test_a_search_goes_on_after_a_limit_on_the_size_of_files(
    prepared, engines, copy, same, record_property, limits
):
    """Works where nothing can be mounted: no file may grow beyond so many kilobytes."""
    failed = 0
    for limit in limits:
        lab = copy(prepared)
        failed += drill(
            engines, lab, same, lambda lab=lab, limit=limit: engines.run(lab, file_bytes=limit << 10), int
        )
        shutil.rmtree(lab.path)
    assert failed > len(limits) // 2
    record_property("drills", len(limits))


@few_or_many("rooms", (0, 80), range(4, 400, 8))
def test_data_is_whole_or_not_there(disk, prepared, engines, same, record_property, rooms):
    failed = 0
    for room in rooms:
        lab = on(disk, prepared)
        shutil.rmtree(lab.data)
        disk.fill(room << 10)
        ended = engines.run(lab, 1, prepare=True)
        disk.empty()
        if not lab.store.exists():
            failed += 1
            assert (ended.code, ROOM in ended.said) == (1, True), ended.said
            assert not list(lab.path.glob(".data*"))
            assert not list(lab.path.glob("data/.tasks*"))
        engines.finish(lab, prepare=True)
        same(lab)
    assert failed
    record_property("drills", len(rooms))


def test_a_lab_is_made_whole_or_not_at_all(disk, engines):
    lab = Lab(disk.path / "new")
    disk.fill()
    ended = engines.program(lab, "init")
    assert ended.code == 1
    assert ROOM in ended.said
    assert not lab.exists
    assert [path.name for path in lab.path.glob("*")] == []
    disk.empty()
    assert engines.program(lab, "init").code == 0
    assert lab.settings().preset == "micro"


def test_an_order_is_given_whole_or_not_at_all(disk, undisturbed):
    lab = on(disk, undisturbed)
    commands.send(lab.commands, "pause")
    disk.fill()
    with pytest.raises(DiskError, match=f"The order was not given.*{ROOM}"):
        commands.send(lab.commands, "resume")
    assert [command.action for _, command in commands.pending(lab.commands)] == ["pause"]
    disk.empty()
    commands.send(lab.commands, "resume")
    assert [command.action for _, command in commands.pending(lab.commands)] == ["pause", "resume"]
    assert not list(lab.commands.glob(".*"))


def test_a_viewer_needs_no_room_or_says_so(disk, undisturbed, engines):
    """Without LMDB's file of readers there is no way to look; making it must not end the process."""
    lab = on(disk, undisturbed)
    disk.fill()
    for command in (["status"], ["top"], ["show", 1], ["diff", 1], ["log"], ["fsck"]):
        assert engines.program(lab, *command).code == 0
    (lab.store / "lock.mdb").unlink()
    disk.fill()
    for command in (["status"], ["fsck"]):
        ended = engines.program(lab, *command)
        assert (ended.code, ROOM in ended.said) == (1, True), ended
    disk.empty()
    assert engines.program(lab, "status").code == 0


@pytest.mark.parametrize("with_lock", [True, False])
def test_a_disk_that_nobody_can_write_can_be_looked_at(disk, undisturbed, engines, with_lock):
    lab = on(disk, undisturbed)
    if not with_lock:
        (lab.store / "lock.mdb").unlink()
    subprocess.run(["mount", "-o", "remount,ro", str(disk.path)], check=True)
    for command in (["status"], ["top"], ["show", 1], ["diff", 1], ["log"], ["fsck"]):
        assert engines.program(lab, *command).code == 0
    for ended in (engines.run(lab, 5), engines.program(lab, "fsck", "--repair")):
        assert (ended.code, "Read-only file system" in ended.said) == (1, True), ended.said


@pytest.mark.parametrize("room", [0, 40, 100, 140])
def test_a_repair_moves_nothing_before_it_has_what_replaces_it(disk, undisturbed, engines, same, room):
    lab = on(disk, undisturbed)
    (lab.lineage / ".git/HEAD").write_bytes(b"")
    files = sorted(path.relative_to(lab.lineage) for path in lab.lineage.rglob("*"))
    disk.fill(room << 10)
    ended = engines.program(lab, "fsck", "--repair")
    disk.empty()
    assert ended.code == 1
    assert ROOM in ended.said
    if not list(lab.path.glob("lineage_repo.damaged-*")):
        assert sorted(path.relative_to(lab.lineage) for path in lab.lineage.rglob("*")) == files
    assert engines.program(lab, "fsck", "--repair").code == 0
    assert Lineage.open(lab.lineage).refs() == Lineage.open(undisturbed.lineage).refs()
    same(lab)


def test_a_full_disk_while_an_engine_is_refused_or_begins(disk, prepared, engines, same):
    """Not even the lock can be written."""
    lab = on(disk, prepared)
    (lab.path / "engine.lock").unlink(missing_ok=True)
    disk.fill()
    for _ in range(2):
        ended = engines.run(lab)
        assert (ended.code, ROOM in ended.said) == (1, True), ended
    disk.empty()
    engines.finish(lab)
    same(lab)
