"""Locks and half-done things that the dead left behind: of the engine, of git, of LMDB, of viewers."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from asi_lab.engine import Engine
from asi_lab.errors import StoreError
from asi_lab.lab import Lab, Lineage, Store, commands, database

READERS = 126
"""So many readers LMDB allows at a time."""


def results(lab: Lab) -> list:
    with Store.open_readonly(lab.store) as store:
        return [(c.id, c.state, c.proposal, c.score, c.commit) for c in store.candidates()]


def test_the_pid_of_a_dead_engine_locks_nothing(undisturbed, further, engines, copy):
    dead = subprocess.Popen(["true"])
    dead.wait()
    lab = copy(undisturbed)
    (lab.path / "engine.lock").write_text(str(dead.pid))
    assert lab.engine_pid() is None
    engines.finish(lab, 5)
    assert results(lab) == results(further)


def left_behind(lineage: Path, further: Path) -> list[Path]:
    """Locks and temporary files in every place where git may make one."""
    folder = lineage / ".git"
    refs = [
        path.relative_to(further / ".git") for path in (further / ".git/refs").rglob("*") if path.is_file()
    ]
    names = ["index", "HEAD", "config", "packed-refs", "ORIG_HEAD", "shallow", *map(str, refs)]
    names += ["objects/info/packs", "objects/info/commit-graph", "objects/pack/multi-pack-index"]
    files = [folder / f"{name}.lock" for name in names]
    files += [folder / "packed-refs.new", folder / "objects/pack/tmp_pack_x", folder / "objects/ab/tmp_obj_y"]
    return [*files, folder / "objects/pack/.tmp-1-pack-z.pack", folder / "fast_import_crash_77"]


def test_what_a_killed_git_left_stops_nobody(undisturbed, further, engines, copy, record_property):
    lab = copy(undisturbed)
    left = left_behind(lab.lineage, further.lineage)
    for file in left:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"half")
    engines.finish(lab, 5)
    assert results(lab) == results(further)
    assert [file for file in left if file.exists()] == []
    Lineage.open(lab.lineage).pack()
    assert Lineage.open(lab.lineage).verify() == []
    assert engines.program(lab, "fsck").code == 0
    record_property("drills", len(left))


@pytest.mark.parametrize("name", ["index.lock", "packed-refs.new"])
def test_fsck_repair_removes_them_too(undisturbed, engines, copy, name):
    lab = copy(undisturbed)
    (lab.lineage / ".git" / name).write_bytes(b"")
    assert engines.program(lab, "fsck", "--repair").code == 0
    assert not (lab.lineage / ".git" / name).exists()
    Lineage.open(lab.lineage).pack()


_READER = """
    import os, signal, sys
    import lmdb

    path, count, dies = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "dies"
    for _ in range(count):
        reading, writing = os.pipe()
        if os.fork() == 0:
            environment = lmdb.open(path, readonly=True, max_dbs=16, lib_version=0)
            transaction = environment.begin()
            os.write(writing, b"r")
            if dies:
                os.kill(os.getpid(), signal.SIGKILL)
            signal.pause()
        os.read(reading, 1)
        os.close(reading)
        os.close(writing)
    if dies:
        for _ in range(count):
            os.wait()
    print("there", flush=True)
    sys.stdin.read()
    os.killpg(os.getpid(), signal.SIGKILL)
"""


class Readers:
    """Processes that are inside a transaction: killed there, or alive until the end."""

    def __init__(self, folder: Path, store: Path, count: int, what: str) -> None:
        script = folder / "readers.py"
        script.write_text(textwrap.dedent(_READER))
        command = [sys.executable, str(script), str(store), str(count), what]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        assert self.process.stdout.readline() == b"there\n"

    def close(self) -> None:
        self.process.communicate()


def test_readers_that_were_killed_take_no_place(tmp_path, make_candidate, record_property):
    """More of them than LMDB allows at a time, beside a writer at work."""
    with Store.open(tmp_path / "s") as store:
        store.put(make_candidate(0))
        for _ in range(3):
            Readers(tmp_path, tmp_path / "s", READERS, "dies").close()
            store.put(make_candidate(1))
            assert store.count() == 2
        Readers(tmp_path, tmp_path / "s", READERS - 1, "dies").close()
        command = "import sys; from pathlib import Path; from asi_lab.lab.store import Store\n"
        command += "print(Store.open_readonly(Path(sys.argv[1])).count())"
        done = subprocess.run(
            [sys.executable, "-c", command, str(tmp_path / "s")], capture_output=True, text=True, check=True
        )
        assert done.stdout == "2\n"
    record_property("drills", 4 * READERS - 1)


def test_what_killed_readers_saw_is_used_again(tmp_path, monkeypatch):
    """The file does not grow for ever because somebody was killed while looking."""
    monkeypatch.setattr(database, "_READER_CHECK", 50)
    with Store.open(tmp_path / "s") as store:
        store.put_meta("m", "x" * 100_000)
        Readers(tmp_path, tmp_path / "s", 3, "dies").close()
        for _ in range(400):
            store.put_meta("m", "x" * 100_000)
    assert (tmp_path / "s" / "data.mdb").stat().st_size < 10_000_000 < 400 * 100_000


def test_too_many_living_readers_are_told(tmp_path, make_candidate):
    with Store.open(tmp_path / "s") as store:
        store.put(make_candidate(0))
        readers = Readers(tmp_path, tmp_path / "s", READERS, "lives")
        with pytest.raises(StoreError, match=r"too many viewers.*close some"):
            store.count()
        store.put(make_candidate(1))  # writing goes on
        readers.close()
        assert store.count() == 2


def leftovers(folder: Path) -> int:
    """Fill a folder of orders with what may lie in one; returns how many look like orders."""
    folder.mkdir(exist_ok=True)
    for number in range(60):
        (folder / f"{number:020d}-junk.json").write_bytes(b"{" * (number % 7))
        (folder / f".{number}.json.partial").write_bytes(b"half")
        (folder / f"{number}.txt").write_bytes(b"a note")
    (folder / "large.json").write_bytes(b" " * 10_000_000)
    (folder / "long-id.json").write_text(f'{{"id": "{"a" * 600}", "action": "stop", "time": 0}}')
    (folder / "no-id.json").write_text('{"id": "", "action": "stop", "time": 0}')
    (folder / "path-id.json").write_text('{"id": "../../x", "action": "stop", "time": 0}')
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff\x1b[31m.json")).write_bytes(b"")
    (folder / "\u202ered\u001b]0;x.json").write_bytes(b"")
    (folder / "link.json").symlink_to("/dev/zero")
    (folder / "nowhere.json").symlink_to("nowhere")
    (folder / "folder.json").mkdir()
    os.mkfifo(folder / "pipe.json")
    return 60 + 6


def test_leftover_orders_are_dropped_at_the_start(prepared, engines, copy, same):
    lab = copy(prepared)
    count = leftovers(lab.commands) + 1
    commands.send(lab.commands, "stop_now")
    engines.finish(lab)
    same(lab)
    with Store.open_readonly(lab.store) as store:
        dropped = [e.message for e in store.events(limit=10**6) if e.kind == "warning"]
    assert len(dropped) == count
    assert all(message.endswith("came before this engine started; dropped") for message in dropped)
    assert {path.suffix for path in lab.commands.iterdir() if path.is_file()} == {".txt"}


def test_what_is_no_order_is_removed_while_the_engine_works(prepared, copy, simulated):
    lab, view, count = copy(prepared), simulated.Silent(), []

    def working(label: str, *_: object) -> None:
        if label == "0001" and not count:
            count.append(leftovers(lab.commands))

    view.working = working
    assert Engine(lab, view, simulated.SimulatedExecutor(0.0)).search(2, None) == 0
    with Store.open_readonly(lab.store) as store:
        removed = [e.message for e in store.events(limit=10**6) if e.kind == "warning"]
        assert [c.id for c in store.candidates()] == [0, 1, 2]
    assert len(removed) == count[0]
    assert all(message.endswith("holds no command; removed") for message in removed)
    assert not any("\x1b" in message for message in removed)
