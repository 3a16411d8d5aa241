"""A whole night through the command line: a real server on the other end, and real trials."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from asi_lab.lab import Store, fsck
from asi_lab.records import CandidateState
from asi_lab.scoring import references
from tests import night, test_search

KEY = "sk-canary-4711-do-not-keep"


@pytest.mark.slow
def test_ten_candidates_with_honest_mistakes(tmp_path):
    lab = test_search.make_lab(tmp_path)
    model = night.Night()
    with night.serve(model, echo=True) as url:
        agents = f'[agents]\nmodels = ["openai:night"]\ncontrol = 0.0\nahead = 0\nopenai_base_url = "{url}"\n'
        lab.config.write_text(lab.config.read_text() + agents)
        done = subprocess.run(
            [sys.executable, "-m", "asi_lab", "--lab", lab.path, "--no-tui", "--experiments", "10"],
            capture_output=True,
            text=True,
            check=False,
            timeout=1500,
            env=os.environ | {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": url},
        )
    assert done.returncode == 0, done.stderr
    with Store.open_readonly(lab.store) as store:
        found = {candidate.id: candidate for candidate in store.candidates()}
        assert not fsck.check(store, lab.lineage, store.get_meta("config"), [references.upper()])
    assert {number: c.state for number, c in found.items() if number != 10} == dict.fromkeys(
        range(10), CandidateState.DONE
    )
    assert [(r.role, r.failure.value) for r in found[2].repairs] == [("checker", "leaking")]
    assert "v.cumsum(dim=1)" in found[2].proposal.code
    assert [(r.role, r.failure.value) for r in found[3].repairs] == [("debugger", "broken")]
    assert found[4].proposal.rejected == 1
    assert found[5].proposal.code == night.gated(night.LINES[5])
    assert found[6].proposal.code == night.gated(night.LINES[6])
    assert found[7].proposal.code == night.gated(night.LINES[7])
    assert found[8].proposal.researcher == "grammar"
    assert [(r.role, r.failure.value) for r in found[9].repairs] == [("checker", "rejected")]
    assert found[10].state is CandidateState.BROKEN
    assert "missing_name" in found[10].evidence.error
    assert [r.role for r in found[10].repairs] == ["debugger"]
    trailers = subprocess.run(
        ["git", "-C", lab.lineage, "log", "--branches", "--format=%(trailers:key=Repaired,valueonly)"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\n")
    assert sorted(filter(None, trailers)) == [
        "checker after leaking",
        "checker after rejected",
        "debugger after broken",
    ]
    assert "[OPENAI_API_KEY]" in found[1].analysis.text  # the server said the key aloud
    assert KEY not in done.stdout + done.stderr
    files = [path for path in lab.path.rglob("*") if path.is_file()]
    assert len(files) > 100
    assert [path for path in files if KEY.encode() in path.read_bytes()] == []
    shown = subprocess.run(
        ["git", "-C", lab.lineage, "log", "--all", "-p"], capture_output=True, check=True
    ).stdout
    assert KEY.encode() not in shown
