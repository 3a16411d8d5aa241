"""A lab of rules 2 that was killed in mid-search can be looked at, and its lineage comes again to the byte.

The archive holds the lab at the kill, in the middle of its sixth candidate, and the refs that the version of
then reached from there with ten candidates.
"""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest
from click.testing import CliRunner

from asi_lab.cli import cli
from asi_lab.lab import Lab, Lineage, Store, fsck, meta
from asi_lab.records import CandidateState
from asi_lab.scoring import references

ARCHIVE = Path(__file__).with_name("lab_in_mid_search.tar.xz")


@pytest.fixture
def lab(tmp_path) -> Lab:
    with tarfile.open(ARCHIVE) as archive:
        safely = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # since Python 3.11.4
        archive.extractall(tmp_path / "lab", **safely)
    return Lab(tmp_path / "lab")


def test_its_lineage_is_made_again_from_the_store(lab):
    """The archive holds none: what was published before the kill comes back to the byte."""
    expected = json.loads((lab.path / "refs.json").read_text())
    with Store.open(lab.store) as store:
        fsck.repair(store, lab.lineage, meta.CONFIG.read(store), [references.upper()])
    found = Lineage.open(lab.lineage).refs()
    assert found == {ref: expected[ref] for ref in found}
    numbers = sorted(ref.rsplit("/", 1)[1][:4] for ref in found if "/arch/" in ref or "/failed/" in ref)
    assert numbers == ["0001", "0002", "0003", "0004", "0005"]


@pytest.mark.parametrize("look", ["status", "top", "show 3", "show best --code", "log", "config show"])
def test_it_can_be_looked_at_before(lab, look):
    with Store.open_readonly(lab.store) as store:
        assert store.get(6).state is CandidateState.TRAINING
        assert meta.ENGINE.read(store).state == "running"
    if look == "log":
        with Store.open(lab.store) as store:
            fsck.repair(store, lab.lineage, meta.CONFIG.read(store), [references.upper()])
    result = CliRunner().invoke(cli, ["--lab", str(lab.path), *look.split()])
    assert result.exit_code == 0, result.output
