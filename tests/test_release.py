"""A loss too good to be true waits for a person; released, it is scored and published like any other."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from asi_lab import control
from asi_lab.cli import cli
from asi_lab.lab import Lab, Lineage, Store, fsck
from asi_lab.records import CandidateState
from asi_lab.scoring import references
from tests.test_engine import ENGINE, finish, make_lab, wait_for

S = CandidateState
SUSPECT = 2


def start(lab: Lab, experiments: int, delay: float = 0.001) -> subprocess.Popen[str]:
    """An engine in which candidate 2 has half of the loss that it should have."""
    return subprocess.Popen(
        [sys.executable, str(ENGINE), str(lab.path), str(experiments), str(delay)],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "SIMULATED_TOO_GOOD": f"{SUSPECT:04d}"},
    )


def command(lab: Lab, *words: str):
    return CliRunner().invoke(cli, ["--lab", str(lab.path), *words])


def candidate(lab: Lab, number: int = SUSPECT):
    with Store.open_readonly(lab.store) as store:
        return store.get(number)


def findings(lab: Lab) -> list:
    with Store.open(lab.store) as store:
        return fsck.check(store, lab.lineage, store.get_meta("config"), [references.upper()])


@pytest.fixture(scope="module")
def searched(tmp_path_factory) -> Lab:
    lab = make_lab(tmp_path_factory.mktemp("searched"))
    code, err = finish(start(lab, 4))
    assert code == 0, err
    return lab


@pytest.fixture
def lab(searched: Lab, tmp_path: Path) -> Lab:
    return Lab(shutil.copytree(searched.path, tmp_path / "lab"))


def test_a_suspect_leaves_the_pool_and_keeps_its_evidence(lab):
    found = candidate(lab)
    assert found.state is S.SUSPECT
    assert found.score is None
    assert found.evidence.evaluation is not None
    assert f"asi-lab release {SUSPECT}" in found.evidence.error
    lineage = Lineage.open(lab.lineage)
    assert lineage.sha_of(SUSPECT) == found.commit
    assert f"refs/failed/{SUSPECT:04d}" in lineage.refs()
    assert all(candidate(lab, number).draw.parent != SUSPECT for number in (3, 4))
    assert "suspect" in command(lab, "show", str(SUSPECT)).output


def test_a_released_one_is_scored_by_the_next_search(lab):
    result = command(lab, "release", str(SUSPECT))
    assert result.exit_code == 0, result.output
    assert "is released and will be scored next" in result.stdout
    assert "--no-tui" in result.stderr
    assert candidate(lab).state is S.EVALUATED
    code, err = finish(start(lab, 4))
    assert code == 0, err
    found = candidate(lab)
    assert found.state is S.DONE
    assert found.released
    assert found.score.loss_part > 0.99
    refs = Lineage.open(lab.lineage).refs()
    assert f"refs/failed/{SUSPECT:04d}" not in refs
    assert any(ref.startswith(f"refs/quarantine/failed/{SUSPECT:04d}/") for ref in refs)
    assert found.commit in refs.values()
    log = subprocess.run(
        ["git", "-C", str(lab.lineage), "log", "-1", "--format=%(trailers)", found.commit],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "Released: by hand" in log
    assert findings(lab) == []


def test_a_running_engine_takes_the_release_as_an_order(lab):
    engine = start(lab, 1000, delay=0.05)
    try:
        wait_for(lambda: lab.engine_pid() == engine.pid and candidate(lab, 5) is not None)
        result = command(lab, "release", str(SUSPECT))
        assert result.exit_code == 0, result.output
        assert "is released" in result.stdout
        wait_for(lambda: candidate(lab).state is S.DONE)
    finally:
        engine.kill()
        finish(engine)
    assert candidate(lab).commit is not None


def test_nothing_else_can_be_released(lab):
    for number in ("1", "3"):
        result = command(lab, "release", number)
        assert result.exit_code == 2
        assert "only suspect ones" in result.stderr
    assert "expected a candidate" in command(lab, "release", "99").stderr
    with Store.open(lab.store) as store:
        for number in (None, 1, 99):
            assert control.release(store, number).startswith("not released")
        assert store.get(1).state is not S.EVALUATED


def test_one_that_is_just_being_published_is_not_released(lab):
    with Store.open(lab.store) as store:
        found = msgspec.structs.replace(store.get(SUSPECT), commit=None)
        store.put(found)
        assert "ask again" in control.release(store, SUSPECT)
        assert store.get(SUSPECT) == found


def test_a_released_one_survives_a_kill_before_it_is_scored(lab):
    assert command(lab, "release", str(SUSPECT)).exit_code == 0
    engine = start(lab, 4, delay=0.2)
    time.sleep(0.7)
    engine.kill()
    finish(engine)
    code, err = finish(start(lab, 4))
    assert code == 0, err
    assert candidate(lab).state is S.DONE
    assert findings(lab) == []
