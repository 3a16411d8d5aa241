from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from asi_lab.common.text import plain
from asi_lab.errors import StoreError
from asi_lab.lab import Store
from asi_lab.lab.database import Database
from asi_lab.lab.store import SERIES_COLUMNS
from asi_lab.lab.summary import summarise
from asi_lab.records import BaselineRun, CandidateState, Evidence

S = CandidateState


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "store") as opened:
        yield opened


def _check_whole(store: Store) -> int:
    """Assert what must hold after any crash; return the number of candidates."""
    records = list(store.candidates())
    assert [c.id for c in records] == list(range(len(records)))
    assert store.summaries() == [summarise(c) for c in records]
    events = store.events(limit=10**6)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert [e.candidate for e in events if e.kind == "candidate_state"] == [c.id for c in records]
    ids, _ = store.vectors()
    assert list(ids) == [c.id for c in records]
    return len(records)


def test_a_record_comes_back_with_its_summary_events_and_vector(store, make_candidate):
    vector = np.linspace(-1, 1, 384, dtype=np.float32)
    candidate = make_candidate(7, 3)
    written = store.put(
        candidate,
        ("candidate_state", "done", {"state": "done", "gain": 0.5}),
        ("note", "more", {}),
        vector=vector,
    )
    assert store.get(7) == candidate
    assert store.get(8) is None
    assert store.summaries() == [summarise(candidate)]
    assert [(e.seq, e.kind, e.candidate, e.message) for e in written] == [
        (1, "candidate_state", 7, "done"),
        (2, "note", 7, "more"),
    ]
    assert store.events() == written
    assert np.array_equal(store.vector(7), vector)
    assert store.vector(8) is None
    assert (store.count(), store.last_id()) == (1, 7)


def test_an_empty_store(store):
    ids, matrix = store.vectors()
    assert (ids.shape, matrix.shape) == ((0,), (0, 0))
    assert (store.count(), store.last_id(), store.best_id()) == (0, -1, None)
    assert store.events() == store.last_events(5) == store.baselines() == store.summaries() == []
    assert store.series("x").shape == (0, 7)
    assert store.get_meta("pid", "none") == "none"


def test_lists_follow_the_states(store, make_candidate):
    states = [S.DONE, S.DONE, S.TRAINING, S.LEAKING, S.ANALYSED, S.DONE]
    for number, state in enumerate(states):
        store.put(make_candidate(number, state=state, fitness=0.9 if number in (1, 4, 5) else 0.2))
    assert [c.id for c in store.unfinished()] == [2, 4]
    assert store.best_id() == 1  # the first of equals; the analysed one is not finished
    store.put(make_candidate(2, state=S.DONE, fitness=0.2))
    assert [c.id for c in store.unfinished()] == [4]


def test_reading_all_candidates_holds_no_transaction(store, make_candidate):
    for number in range(150):
        store.put(make_candidate(number))
    seen = []
    for candidate in store.candidates(start=10):
        seen.append(candidate.id)
        if candidate.id == 20:  # a write from another thread must not wait for the reader
            writer = threading.Thread(target=store.put, args=(make_candidate(150),))
            writer.start()
            writer.join(timeout=10)
            assert not writer.is_alive()
    assert seen == list(range(10, 151))


def test_events_page_forward_and_from_the_end(store):
    for number in range(1, 11):
        store.append_events(("note", f"n{number}", {}))
    assert [e.seq for e in store.events(after_seq=4, limit=3)] == [5, 6, 7]
    assert [e.message for e in store.last_events(2)] == ["n9", "n10"]
    assert len(store.last_events(50)) == 10


def test_an_unknown_kind_of_event_writes_nothing(store, make_candidate):
    with pytest.raises(ValueError, match="unknown kind"):
        store.put(make_candidate(0), ("note", "first", {}), ("gossip", "second", {}))
    assert store.count() == 0
    assert store.events() == []


def test_curves_are_packed_appended_and_dropped(store):
    rows = np.arange(700 * 7, dtype=np.float32).reshape(700, 7)
    for start in range(0, 700, 9):
        store.append_series("candidate/1", rows[start : start + 9])
    store.append_series("candidate/11", rows[:3])
    store.append_series("candidate/0", rows[:2])
    store.append_series("candidate/2", rows[:0])
    assert np.array_equal(store.series("candidate/1"), rows)
    assert len(SERIES_COLUMNS) == 7
    assert store.series_runs() == ["candidate/0", "candidate/1", "candidate/11"]
    store.drop_series("candidate/1")
    assert store.series("candidate/1").shape == (0, 7)
    assert len(store.series("candidate/11")) == 3
    store.append_series("candidate/1", rows[:1])
    assert np.array_equal(store.series("candidate/1"), rows[:1])
    with pytest.raises(ValueError, match=r"\[n, 7\]"):
        store.append_series("candidate/1", rows[:, :3])
    with pytest.raises(ValueError, match="NUL"):
        store.append_series("a\0b", rows)


def test_baselines_come_sorted(store, make_candidate):
    whole = make_candidate(1, state=S.DONE, fitness=0.2).evidence
    for name, seed in [("gated", 0), ("delta", 11), ("delta", 2)]:
        store.put_baseline(BaselineRun(name, seed, whole), ("baseline_measured", name, {}))
    store.put_baseline(BaselineRun("delta", 3, Evidence()))  # without measurements it is none
    assert [(r.architecture, r.seed_index) for r in store.baselines()] == [
        ("delta", 2),
        ("delta", 11),
        ("gated", 0),
    ]
    assert len(store.events()) == 3


def test_commands_are_recorded_once(store):
    assert store.record_command("a1", {"do": "pause"}, ("command", "paused", {}))
    assert not store.record_command("a1", {"do": "stop"}, ("command", "stopped", {}))
    assert [e.message for e in store.events()] == ["paused"]


def test_engine_state_survives_reopening(tmp_path):
    with Store.open(tmp_path / "s") as store:
        store.put_meta("engine", {"pid": 12, "state": "running"}, ("engine_started", "here", {}))
    with Store.open(tmp_path / "s", create=False) as store:
        assert store.get_meta("engine") == {"pid": 12, "state": "running"}
        assert store.events()[0].kind == "engine_started"


def test_hostile_text_is_kept_as_it_came_and_shown_harmlessly(store, make_candidate):
    hostile = "delta_net_\x1b[2J\x1b]0;owned\x07\u202egnp.exe\x00\n--help\x9b31m" + "é" * 300
    store.put(make_candidate(1, name=hostile), ("note", hostile, {"name": hostile}))
    assert store.get(1).name == hostile
    assert store.events()[0].data == {"name": hostile}
    shown = plain(hostile)
    assert shown.startswith("delta_net_gnp.exe --helpé")
    assert shown.endswith("é" * 300)
    assert plain("a\x1b[1mb\r\n\tc", multiline=True) == "ab\n\tc"
    assert plain("x" * 100, limit=10) == "xxxxxxx..."
    with pytest.raises(StoreError, match="Unicode"):
        store.put(make_candidate(2, name="broken \ud800"))
    assert store.get(2) is None


def test_the_map_grows_from_tiny(tmp_path, make_candidate):
    with Store.open(tmp_path / "s", map_size=1 << 17) as store:
        for number in range(40):
            store.put(make_candidate(number, code="x" * 100_000), vector=np.zeros(384, np.float32))
        assert store.count() == 40
    assert (tmp_path / "s" / "data.mdb").stat().st_size > 4_000_000
    with Store.open(tmp_path / "s", map_size=1 << 17) as store:  # smaller than the file
        store.put(make_candidate(40))
        assert [c.id for c in store.candidates()] == list(range(41))


def test_refusals_say_what_to_do(tmp_path, store):
    with pytest.raises(StoreError, match="already open in this process"):
        Store.open(tmp_path / "store")
    with pytest.raises(StoreError, match="start a search"):
        Store.open_readonly(tmp_path / "nowhere")
    with pytest.raises(StoreError, match="start a search"):
        Store.open(tmp_path / "nowhere", create=False)
    (tmp_path / "junk").mkdir()
    (tmp_path / "junk" / "data.mdb").write_bytes(b"not a database" * 1000)
    with pytest.raises(StoreError, match="not a readable LMDB"):
        Store.open(tmp_path / "junk")


def test_another_format_is_refused(tmp_path):
    Store.open(tmp_path / "s").close()
    with Database(tmp_path / "s", ["meta"], readonly=False, map_size=1 << 20) as database:
        database.write(lambda txn: txn.put(b"\0format", b"99", db=database.table("meta")))
    for opening in (Store.open, Store.open_readonly):
        with pytest.raises(StoreError, match="format 99"):
            opening(tmp_path / "s")


def test_a_viewer_cannot_write(tmp_path, store, make_candidate):
    store.put(make_candidate(0))
    store.close()
    with Store.open_readonly(tmp_path / "store") as viewer:
        assert viewer.count() == 1
        with pytest.raises(StoreError, match="opened for reading"):
            viewer.put(make_candidate(1))


_VIEWER = """
    import sys, time
    from pathlib import Path
    from asi_lab.lab.store import Store

    with Store.open_readonly(Path(sys.argv[1])) as viewer:
        seen, moments, deadline = 0, set(), time.monotonic() + 60
        while seen < 300 and time.monotonic() < deadline:
            count = viewer.count()
            assert count >= seen
            seen = count
            moments.add(count)
            for summary in viewer.summaries():
                assert viewer.get(summary.id).id == summary.id
            events = viewer.last_events(10)
            assert [e.seq for e in events] == list(range(events[0].seq, events[0].seq + len(events)))
            print(seen, flush=True)
    assert len(moments) > 2, "it watched while the writer wrote"
"""


def test_a_viewer_reads_while_the_engine_writes_and_grows(tmp_path, make_candidate):
    script = tmp_path / "viewer.py"
    script.write_text(textwrap.dedent(_VIEWER))
    with Store.open(tmp_path / "s", map_size=1 << 18) as store:
        store.put(make_candidate(0), ("note", "0", {}))
        viewer = subprocess.Popen(
            [sys.executable, str(script), str(tmp_path / "s")], stdout=subprocess.PIPE, env=_environment()
        )
        assert viewer.stdout.readline() == b"1\n"
        for number in range(1, 300):
            store.put(make_candidate(number, code="y" * 3000), ("note", str(number), {}))
        shown, _ = viewer.communicate(timeout=90)
    assert viewer.returncode == 0
    assert shown.split()[-1] == b"300"


_WRITER = """
    import os, sys
    from pathlib import Path
    import msgspec, numpy as np
    from asi_lab.records import Candidate, CandidateState
    from asi_lab.lab.store import Store

    store = Store.open(Path(sys.argv[1]), map_size=1 << 18)
    number = store.last_id() + 1
    while True:
        candidate = Candidate(number, CandidateState.PROPOSED, 1.0, 2.0)
        events = [("note", "x" * (number % 700), {}), ("candidate_state", "proposed", {})]
        store.put(candidate, *events, vector=np.full(64, number, np.float32))
        os.write(1, b"%d\\n" % number)
        number += 1
"""


def test_sigkill_loses_nothing_acknowledged(tmp_path):
    rng = random.Random(0)
    script = tmp_path / "writer.py"
    script.write_text(textwrap.dedent(_WRITER))
    count = 0
    for _ in range(15):
        writer = subprocess.Popen(
            [sys.executable, str(script), str(tmp_path / "s")], stdout=subprocess.PIPE, env=_environment()
        )
        first = writer.stdout.readline()
        time.sleep(rng.random() * 0.1)
        writer.send_signal(signal.SIGKILL)
        acknowledged = int((first + writer.stdout.read()).split()[-1])
        writer.stdout.close()
        writer.wait()
        with Store.open(tmp_path / "s") as store:
            before, count = count, _check_whole(store)
        assert count in (acknowledged + 1, acknowledged + 2)  # one may be done but not yet reported
        assert count > before


_FILLER = """
    import resource, signal, sys
    from pathlib import Path
    import numpy as np
    from asi_lab.errors import StoreError
    from asi_lab.records import Candidate, CandidateState
    from asi_lab.lab.store import Store

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    store = Store.open(Path(sys.argv[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, resource.RLIM_INFINITY))
    for number in range(10_000):
        events = [("note", "x" * 5000, {}), ("candidate_state", "proposed", {})]
        try:
            vector = np.full(64, number, np.float32)
            store.put(Candidate(number, CandidateState.PROPOSED, 1.0, 2.0), *events, vector=vector)
        except StoreError as error:
            print(number, error)
            break
    assert store.count() == number, "still readable after the failure"
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    store.put(Candidate(number, CandidateState.PROPOSED, 1.0, 2.0), *events, vector=vector)
"""


def test_a_full_disk_is_said_and_damages_nothing(tmp_path):
    script = tmp_path / "filler.py"
    script.write_text(textwrap.dedent(_FILLER))
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "s")],
        capture_output=True,
        text=True,
        env=_environment(),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    number, message = done.stdout.split(" ", 1)
    assert "disk full" in message
    assert "Free some space" in message
    with Store.open(tmp_path / "s") as store:
        assert _check_whole(store) == int(number) + 1 > 10


def _environment() -> dict[str, str]:
    root = str(Path(__file__).parents[2])
    return {**os.environ, "PYTHONPATH": root}


WRITER = """
import sys
from pathlib import Path
from asi_lab.lab.database import Database

database = Database(Path(sys.argv[1]), ["meta"], readonly=False, create=True, map_size=1 << 26)
for turn, _ in enumerate(sys.stdin):
    def put(txn):
        for key in range(400):
            txn.put(b"%d" % key, b"%d" % turn * 200, db=database.table("meta"))
    database.write(put)
    print(flush=True)
"""


class Beside:
    """Somebody who writes to a database when told to, and a reader without leave to write its file of
    readers."""

    def __init__(self, path: Path) -> None:
        self.writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.change()
        self.database = Database(path, ["meta"], readonly=True, map_size=1 << 26)

    def change(self, times: int = 1) -> None:
        for _ in range(times):
            self.writer.stdin.write("\n")
            self.writer.stdin.flush()
            assert self.writer.stdout.readline() == "\n"

    def read(self) -> set[bytes]:
        return self.database.read(lambda txn: {value for _, value in self.database.rows(txn, "meta")})


@pytest.fixture
def beside(tmp_path, monkeypatch):
    monkeypatch.setattr("asi_lab.lab.database.os.access", lambda path, mode: False)
    monkeypatch.setattr("asi_lab.lab.copies.FRESH_SECONDS", 0.0)
    found = Beside(tmp_path)
    yield found
    found.database.close()
    found.writer.kill()
    found.writer.wait()


def test_a_reader_that_nobody_knows_of_sees_whole_moments(beside):
    for turn in range(1, 30):
        assert beside.read() == {b"%d" % (turn - 1) * 200}
        beside.change()


@pytest.mark.parametrize(("changes", "copies"), [(0, 1), (1, 1), (2, 2)])
def test_a_copy_is_made_again_where_too_much_was_written_meanwhile(beside, monkeypatch, changes, copies):
    beside.change()
    made: list[Path] = []

    def copy(source: Path, target: Path) -> None:
        shutil.copyfile(source, target)
        if not made:
            beside.change(changes)
        made.append(target)

    monkeypatch.setattr("asi_lab.lab.copies.shutil", SimpleNamespace(copyfile=copy))
    assert len(beside.read()) == 1
    assert len(made) == copies


def test_a_reader_that_never_sees_a_moment_says_so(beside, monkeypatch):
    beside.change()
    monkeypatch.setattr(
        "asi_lab.lab.copies.shutil", SimpleNamespace(copyfile=lambda source, target: beside.change(2))
    )
    with pytest.raises(
        StoreError, match=r"written too often to be copied, and .*lock\.mdb may not be written"
    ):
        beside.read()


def test_copies_are_gone_with_their_reader(beside, monkeypatch):
    beside.read()
    folder = beside.database._file.parent
    assert folder.exists()
    beside.database.close()
    assert not folder.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be another user")
@pytest.mark.parametrize("has_readers", [True, False])
def test_another_user_can_look(tmp_path, has_readers):
    """Who may read a store, but not write to its folder."""
    tmp_path.chmod(0o755)
    for folder in (tmp_path, *tmp_path.parents):
        if not folder.stat().st_mode & 0o001:
            pytest.skip(f"{folder} is closed to others")
    with Store.open(tmp_path / "store") as store:
        store.put_meta("said", "hello")
    if not has_readers:
        (tmp_path / "store" / "lock.mdb").unlink()
    program = (
        "import os, sys; from pathlib import Path; from asi_lab.lab.store import Store; os.setuid(65534)\n"
        "with Store.open_readonly(Path(sys.argv[1])) as store: print(store.get_meta('said'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "store")], capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.returncode) == ("hello\n", 0), done.stderr
