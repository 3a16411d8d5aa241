from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import lmdb
import msgspec
import numpy as np
import pytest

from asi_lab.errors import LineageError
from asi_lab.lab import Lineage, Store, fresh, fsck
from asi_lab.lab.commits import is_published
from asi_lab.records import SEED_ID, CandidateState, Evaluation, Evidence, FreshRun, Terms

S = CandidateState
CONFIG = 'preset = "micro"\n'
TREE = [
    (0, 0, S.DONE),
    (1, 0, S.DONE),
    (2, 1, S.DONE),
    (3, 1, S.LEAKING),
    (4, 2, S.ANALYSED),
    (5, 2, S.TRAINING),
]


class Lab:
    """A store and its lineage in agreement: a chain 0-1-2, a failed 3, a pending 4, a young 5."""

    def __init__(self, path, make_candidate):
        self.make = make_candidate
        self.reference = make_candidate(9, name="gated_delta_net").proposal
        self.store = Store.open(path / "store")
        self.path = path / "lineage"
        for number, parent, state in TREE:
            self.store.put(make_candidate(number, parent, state=state))
        self.lineage = Lineage.create(self.path, self.store.get(0), CONFIG, [self.reference])
        shas = {}
        for candidate in self.store.candidates():
            if is_published(candidate):
                if candidate.id == SEED_ID:
                    sha = self.lineage.sha_of(0)
                else:
                    sha = self.lineage.commit(candidate, CONFIG, shas[candidate.parent])
                shas[candidate.id] = sha
                self.store.put(msgspec.structs.replace(candidate, commit=sha))
        self.lineage.update_best(self.store.get(2))
        self.refs = self.lineage.refs()

    def check(self):
        return fsck.check(self.store, self.path, CONFIG, [self.reference])

    def repair(self):
        findings = fsck.repair(self.store, self.path, CONFIG, [self.reference])
        assert self.check() == [f for f in findings if not f.repaired]
        return findings

    def git(self, *args):
        subprocess.run(["git", "-C", str(self.path), *args], check=True, capture_output=True)


@pytest.fixture
def lab(tmp_path, make_candidate):
    built = Lab(tmp_path, make_candidate)
    yield built
    built.store.close()


def test_a_whole_lab_has_no_findings(lab):
    assert lab.check() == []
    assert lab.repair() == []
    assert lab.lineage.refs() == lab.refs


def test_checking_changes_nothing(lab):
    lab.git("update-ref", "refs/heads/arch/0002-delta_net_2", "HEAD")
    lab.git("update-ref", "-d", "refs/failed/0003")
    before = lab.lineage.refs()
    assert [f.subject for f in lab.check()] == ["refs/heads/arch/0002-delta_net_2", "refs/failed/0003"]
    assert lab.lineage.refs() == before


@pytest.mark.parametrize("wreck", ["deleted", "emptied", "objects"])
def test_a_lost_repository_is_made_again_to_the_same_ids(lab, wreck):
    if wreck == "objects":
        shutil.rmtree(lab.path / ".git/objects/pack", ignore_errors=True)
        for folder in (lab.path / ".git/objects").glob("??"):
            shutil.rmtree(folder)
    else:
        shutil.rmtree(lab.path)
        if wreck == "emptied":
            lab.path.mkdir()
    findings = lab.repair()
    assert findings
    assert all(f.repaired for f in findings)
    assert lab.lineage.refs() == lab.refs
    assert lab.lineage.verify() == []


def test_a_damaged_object_means_a_new_repository_beside_the_old(lab):
    lab.lineage.pack()
    pack = next((lab.path / ".git/objects/pack").glob("*.pack"))
    pack.chmod(0o644)
    content = bytearray(pack.read_bytes())
    content[len(content) // 2] ^= 0xFF
    pack.write_bytes(content)
    assert "damaged" in lab.check()[0].message
    lab.repair()
    assert lab.lineage.refs() == lab.refs
    assert (lab.path.parent / "lineage.damaged-1/.git/objects/pack" / pack.name).exists()


def test_without_git_nothing_is_moved(lab, monkeypatch):
    monkeypatch.setenv("PATH", str(lab.path.parent / "nothing"))
    with pytest.raises(LineageError, match="apt install git"):
        lab.repair()
    monkeypatch.undo()
    assert lab.check() == []
    assert [p.name for p in lab.path.parent.glob("lineage.damaged*")] == []


def test_missing_refs_come_back(lab):
    for ref in lab.refs:
        if ref != "refs/heads/main":
            lab.git("update-ref", "-d", ref)
    (lab.path / ".git/index.lock").touch()
    (lab.path / ".git/refs/heads/arch").mkdir(exist_ok=True)
    (lab.path / ".git/refs/heads/arch/0001-delta_net_1").touch()  # what a power cut leaves
    findings = fsck.repair(lab.store, lab.path, CONFIG, [lab.reference], thorough=False)
    assert {f.subject for f in findings} == set(lab.refs) - {"refs/heads/main"}
    assert lab.lineage.refs() == lab.refs
    assert lab.check() == []


def test_orphans_and_wrong_refs_are_set_aside_not_deleted(lab):
    orphan = lab.refs["refs/heads/arch/0001-delta_net_1"]
    wrong = lab.refs["refs/failed/0003"]
    lab.git("update-ref", "refs/heads/arch/0077-delta_net_x", orphan)
    lab.git("update-ref", "refs/heads/arch/0002-renamed", orphan)
    lab.git("update-ref", "refs/failed/0078", orphan)
    lab.git("update-ref", "refs/heads/arch/0002-delta_net_2", wrong)
    lab.git("update-ref", "refs/heads/mine", orphan)
    findings = lab.repair()
    assert len(findings) == 4
    assert all(f.repaired for f in findings)
    refs = lab.lineage.refs()
    kept = {ref: sha for ref, sha in refs.items() if ref.startswith("refs/quarantine/")}
    assert kept == {
        f"refs/quarantine/arch/0077-delta_net_x/{orphan[:12]}": orphan,
        f"refs/quarantine/arch/0002-renamed/{orphan[:12]}": orphan,
        f"refs/quarantine/failed/0078/{orphan[:12]}": orphan,
        f"refs/quarantine/arch/0002-delta_net_2/{wrong[:12]}": wrong,
    }
    assert {r: s for r, s in refs.items() if r not in kept} == {**lab.refs, "refs/heads/mine": orphan}


def test_a_commit_made_just_before_a_kill_is_accepted(lab):
    pending = lab.store.get(4)
    sha = lab.lineage.commit(pending, CONFIG, lab.store.get(2).commit)
    assert lab.check() == []
    done = msgspec.structs.replace(pending, state=S.DONE, commit=sha)
    assert lab.lineage.commit(done, CONFIG, lab.store.get(2).commit) == sha
    lab.store.put(done)
    lab.lineage.update_best(done)
    assert lab.check() == []


def test_a_failed_candidate_is_left_to_the_engine_that_has_not_published_it(lab):
    lab.store.put(lab.make(6, 2, state=S.BROKEN))
    assert lab.repair() == []
    assert lab.store.get(6).commit is None
    lab.lineage.commit(lab.store.get(6), CONFIG, lab.store.get(2).commit)  # a kill before it is recorded
    assert lab.repair() == []


def test_records_best_and_summaries_are_put_right(lab):
    lab.store.put(msgspec.structs.replace(lab.store.get(1), commit="0" * 40))
    lab.lineage.set_ref("refs/heads/best", lab.refs["refs/heads/main"])
    lab.store.close()
    environment = lmdb.open(str(lab.path.parent / "store"), max_dbs=16, map_size=1 << 30)
    with environment.begin(write=True) as txn:
        txn.delete((2).to_bytes(8, "big"), db=environment.open_db(b"summaries", txn=txn))
    environment.close()
    lab.store = Store.open(lab.path.parent / "store")
    assert [f.subject for f in lab.repair()] == ["candidate 2", "candidate 1", "refs/heads/best"]
    assert lab.lineage.refs() == lab.refs


def test_what_cannot_be_repaired_is_reported(lab):
    lab.store.put(lab.make(8, 44))
    lab.store.append_series("candidate/1", np.zeros((2, 7), np.float32))
    findings = lab.repair()
    assert [(f.subject, f.repaired) for f in findings] == [
        ("series candidate/1", False),
        ("candidate 8", False),
    ]
    assert "parent 44" in findings[1].message


def test_a_store_without_seed(tmp_path, make_candidate):
    with Store.open(tmp_path / "s") as store:
        assert fsck.check(store, tmp_path / "l", CONFIG) == []
        store.put(make_candidate(1))
        assert [f.subject for f in fsck.check(store, tmp_path / "l", CONFIG)] == ["candidate 0"]


_ENGINE = """
    import fcntl, os, sys
    from pathlib import Path
    from msgspec.structs import replace
    from asi_lab.lab import fsck
    from asi_lab.lab.lineage import Lineage
    from asi_lab.records import Analysis, Candidate, CandidateState as S, Draw, Evidence, Proposal
    from asi_lab.lab.store import Store
    from tests.analyst import test_ablation

    lab, last = Path(sys.argv[1]), int(sys.argv[2])
    lock = os.open(lab / "lock", os.O_CREAT | os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)  # waits for a git process that outlived the last engine
    store = Store.open(lab / "store")
    whole = test_ablation.candidate(1, 4.0, 0.5)
    analysis = Analysis("", "", (), (), "test")

    def proposal(number):
        return Proposal(f"delta_net_{number}", "why", "what", f"x = {number}", "grammar")

    if store.last_id() < 0:
        store.put(Candidate(0, S.DONE, 0.0, 0.0, proposal=proposal(0)))
    fsck.repair(store, lab / "lineage", "config", thorough=False)
    lineage = Lineage.open(lab / "lineage", keep_open=[lock])
    print("ready", flush=True)
    for number in range(1, last + 1):
        candidate = store.get(number)
        if candidate is None:
            parent = number // 2 if number // 2 % 5 != 4 else number // 2 - 1  # never a broken one
            draw = Draw(0, parent, 1)
            candidate = Candidate(number, S.PROPOSED, 60.0 * number, 0.0, draw, proposal(number))
            store.put(candidate, ("candidate_proposed", "", {}))
        if candidate.state is S.PROPOSED:
            if number % 5 == 4:
                candidate = replace(candidate, state=S.BROKEN, evidence=Evidence(failure=S.BROKEN))
            else:
                candidate = replace(
                    candidate, state=S.ANALYSED, evidence=whole.evidence, score=whole.score, analysis=analysis
                )
            store.put(candidate, ("candidate_state", "", {}))
        if candidate.commit is None:
            sha = lineage.commit(candidate, "config", store.get(candidate.parent).commit)
            state = candidate.state if candidate.state.is_failure else S.DONE
            store.put(replace(candidate, state=state, commit=sha), ("commit", sha, {}))
"""


@pytest.mark.slow
def test_an_engine_killed_at_random_moments_publishes_the_same_lineage(tmp_path):
    script = tmp_path / "engine.py"
    script.write_text(textwrap.dedent(_ENGINE))
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    last, rng = 24, random.Random(1)

    def start(lab):
        lab.mkdir(exist_ok=True)
        command = [sys.executable, str(script), str(lab), str(last)]
        engine = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)
        assert engine.stdout.readline() == b"ready\n"
        return engine

    undisturbed = start(tmp_path / "undisturbed")
    kills = 0
    while kills < 6:
        engine = start(tmp_path / "killed")
        time.sleep(rng.random() * 0.1)
        kills += engine.poll() is None
        engine.kill()
        engine.communicate()
    for engine in (start(tmp_path / "killed"), undisturbed):
        engine.communicate(timeout=120)
        assert engine.returncode == 0
    refs = [Lineage.open(tmp_path / name / "lineage").refs() for name in ("killed", "undisturbed")]
    refs[0].pop("refs/heads/best", None)  # set by a repair; this engine names none itself
    assert refs[0] == refs[1]
    assert len(refs[0]) == 1 + last
    with Store.open(tmp_path / "killed" / "store") as store:
        assert fsck.check(store, tmp_path / "killed" / "lineage", "config") == []
        published = [e.candidate for e in store.events() if e.kind in ("commit", "repair")]
        assert sorted(published) == list(range(last + 1))  # the seed's by a repair


def test_promotions_and_fresh_runs_are_looked_at(lab):
    terms = Terms("mamba2", 24, tune=True, freedom=3.5)
    fresh.promote(lab.store, "", terms, [2])
    fresh.keep(lab.store, FreshRun("0002", 0, Evidence(evaluation=Evaluation(4.0, 1, ()))))
    assert lab.check() == []
    fresh.promote(lab.store, "mini", terms, [3])
    found = [(finding.subject, finding.message) for finding in lab.check()]
    assert found == [("promotion 1", "is of candidate 3, which has no score")]
    lab.store.put_meta(f"{fresh.RUNS}0002-fresh0", {"who": "0002"})
    assert "claims" in {finding.subject for finding in lab.repair()}
