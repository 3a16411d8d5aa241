"""A memory map that is full and grows, under readers in the same and in other processes."""

from __future__ import annotations

import itertools
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest

from asi_lab.errors import StoreError
from asi_lab.lab import Store, database

TINY = 1 << 16


def map_size(store: Store) -> int:
    return int(store._db._env.info()["map_size"])


def test_a_value_larger_than_the_map_grows_it_several_times_in_one_change(tmp_path, make_candidate):
    with Store.open(tmp_path / "s", map_size=TINY) as store:
        before = map_size(store)
        candidate = make_candidate(1, code="x" * (40 * TINY))
        written = store.put(candidate, ("note", "y" * TINY, {}), ("note", "z", {}))
        assert map_size(store) >= 64 * before
        assert store.get(1) == candidate
        assert store.events() == written
        assert [event.seq for event in written] == [1, 2]


def test_every_kind_of_change_grows_a_full_map(tmp_path, make_candidate, record_property):
    long = "x" * (8 * TINY)
    changes = [
        lambda s: s.put(make_candidate(1, code=long), vector=np.zeros(384, np.float32)),
        lambda s: s.append_events(*(("note", long, {}) for _ in range(3))),
        lambda s: s.append_series("r", np.ones((40_000, 7), np.float32)),
        lambda s: s.put_meta("m", long),
        lambda s: s.ledger.add("l", {"role": "trial", "seconds": 1.0, "gpu_seconds": 0.0, "text": long}),
        lambda s: s.record_command("c", {"text": long}, ("note", "taken", {})),
    ]
    for number, change in enumerate(changes):
        with Store.open(tmp_path / str(number), map_size=TINY) as store:
            before = map_size(store)
            change(store)
            assert map_size(store) > before
    record_property("drills", len(changes))


_READER = """
    import sys
    from pathlib import Path
    from asi_lab.lab.database import Database
    from asi_lab.lab.store import _TABLES, Store

    with Store(Database(Path(sys.argv[1]), _TABLES, readonly=True, map_size=1 << 16)) as viewer:
        print(viewer._db._env.info()["map_size"], flush=True)
        for line in sys.stdin:
            number = int(line)
            assert viewer.last_id() == number
            assert len(viewer.get(number).proposal.code) == 30_000
            assert viewer.last_events(1)[0].message == str(number)
            print(viewer._db._env.info()["map_size"], flush=True)
"""


@pytest.mark.parametrize("every", [1, 50])
def test_a_reader_in_another_process_lives_through_growth(tmp_path, make_candidate, record_property, every):
    """It looks after each change, or only when the map has grown several times."""
    script = tmp_path / "reader.py"
    script.write_text(textwrap.dedent(_READER))
    sizes = []
    with Store.open(tmp_path / "s", map_size=TINY) as store:
        store.put_meta("m", 1)
        command = [sys.executable, str(script), str(tmp_path / "s")]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as reader:
            sizes.append(int(reader.stdout.readline()))
            for number in range(1, 101):
                store.put(make_candidate(number, code="y" * 30_000), ("note", str(number), {}))
                if number % every == 0:
                    reader.stdin.write(f"{number}\n")
                    reader.stdin.flush()
                    sizes.append(int(reader.stdout.readline()))
        assert reader.returncode == 0
        assert map_size(store) >= 32 * TINY
    assert sizes[0] < 4 * TINY
    assert sizes[-1] >= 32 * TINY, "the reader took the size over"
    record_property("drills", len(sizes) - 1)


def test_readers_in_other_threads_live_through_growth(tmp_path, make_candidate):
    wrong: list[object] = []
    with Store.open(tmp_path / "s", map_size=TINY) as store:
        store.put(make_candidate(0))
        over = threading.Event()

        def read() -> None:
            try:
                while not over.is_set():
                    last = store.last_id()
                    if [c.id for c in store.candidates()][: last + 1] != list(range(last + 1)):
                        wrong.append(last)
            except Exception as error:
                wrong.append(error)

        threads = [threading.Thread(target=read) for _ in range(3)]
        for thread in threads:
            thread.start()
        for number in range(1, 60):
            store.put(make_candidate(number, code="y" * 30_000))
        over.set()
        for thread in threads:
            thread.join()
        assert map_size(store) >= 32 * TINY
    assert wrong == []


def test_at_the_largest_size_a_change_is_refused_and_all_else_is_there(tmp_path, monkeypatch, make_candidate):
    monkeypatch.setattr(database, "_LARGEST_MAP", 1 << 20)
    with Store.open(tmp_path / "s", map_size=TINY) as store:

        def fill() -> None:
            for number in itertools.count():
                store.put(make_candidate(number, code="x" * 10_000), ("note", str(number), {}))

        with pytest.raises(StoreError, match=r"is full.*Go on in another lab"):
            fill()
        stored = store.count()
        assert stored > 50
        assert [c.id for c in store.candidates()] == list(range(stored))
        assert [e.message for e in store.events()] == [str(number) for number in range(stored)]
    with Store.open(tmp_path / "s") as store:
        assert store.count() == stored


def test_a_search_that_begins_with_a_tiny_map_ends_the_same(prepared, engines, copy, same):
    lab = copy(prepared)
    engines.finish(lab, map_bytes=TINY)
    same(lab)


_BOUNDED = """
    import resource, sys
    from pathlib import Path
    from asi_lab.errors import StoreError
    from asi_lab.lab.store import Store

    store = Store.open(Path(sys.argv[1]), map_size=1 << 20)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (24 << 20),) * 2)
    try:
        for number in range(100):
            store.put_meta(f"m{number}", "x" * 1_000_000)
    except StoreError as error:
        print(number, error)
    try:
        store.get_meta("m0")
    except StoreError as error:
        print(error)
    store.close()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_without_address_space_it_is_an_error_and_nothing_is_lost(tmp_path):
    script = tmp_path / "bounded.py"
    script.write_text(textwrap.dedent(_BOUNDED))
    command = [sys.executable, str(script), str(tmp_path / "s")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    number = int(done.stdout.split()[0])
    assert "Cannot allocate memory" in done.stdout
    with Store.open(tmp_path / "s") as store:
        assert [store.get_meta(f"m{n}") is not None for n in range(number + 1)] == [True] * number + [False]
