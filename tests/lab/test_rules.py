"""Labs of older rules are looked at and repaired, not searched on; their commits come again to the byte."""

from __future__ import annotations

import msgspec
import pytest
from click.testing import CliRunner, Result

from asi_lab.cli import cli
from asi_lab.engine import Engine
from asi_lab.errors import ConfigError, UsageError
from asi_lab.lab import Lab, Store, config, fsck, imports
from asi_lab.lab.directory import check_rules
from asi_lab.records import RULES, SEED_ID, CandidateState, Proposal
from asi_lab.scoring import races, references
from tests import simulated_engine
from tests.lab import old_lab

S = CandidateState


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments)


@pytest.fixture
def old(tmp_path) -> Lab:
    return old_lab.unpack(tmp_path)


def repaired(lab: Lab) -> list[fsck.Finding]:
    with Store.open(lab.store) as store:
        return fsck.repair(store, lab.lineage, store.get_meta("config"), [references.upper()])


def test_its_lineage_is_made_again_commit_for_commit(old):
    """From the records alone, in the form that commits had then."""
    findings = repaired(old)
    assert all(finding.repaired for finding in findings)
    from asi_lab.lab import Lineage

    refs = Lineage.open(old.lineage).refs()
    assert refs == old_lab.content()["refs"]


def test_a_record_that_bricked_its_lab_is_found_and_put_right(old):
    with Store.open_readonly(old.store) as store:
        found = fsck.check(store, old.lineage, store.get_meta("config"), [references.upper()])
        assert store.get(old_lab.BROKEN).state is S.PROPOSED  # whoever reads it meets no broken record
        (broken,) = [record for record in store.records() if record.id == old_lab.BROKEN]
        assert broken.state is S.EVALUATED
    message = "its record is evaluated, but there is no training; it goes back to proposed"
    assert fsck.Finding("candidate 9", message) in found
    assert fsck.Finding("candidate 9", message, repaired=True) in repaired(old)
    assert repaired(old) == []
    with Store.open_readonly(old.store) as store:
        assert [record.state for record in store.records()][-1] is S.PROPOSED
        assert store.summary(old_lab.BROKEN).state is S.PROPOSED


LOOKS = (
    ["status", "--once"],
    ["top"],
    ["show", "9"],
    ["show", "8"],
    ["show", "best", "--code"],
    ["calibrate"],
)


@pytest.mark.parametrize("look", LOOKS, ids=" ".join)
def test_it_can_be_looked_at(old, look):
    repaired(old)
    result = run("--lab", str(old.path), *look)
    assert result.exit_code == 0, result.output
    if look == ["show", "8"]:
        assert "largest deviation from the bare prefix" in " ".join(result.output.split())
    if look == ["top"]:
        assert "4.2837" in result.output


def test_it_is_not_searched_on_and_the_way_on_is_named(old):
    before = (old.store / "data.mdb").read_bytes()
    plan = races.plan(["delta_net"], 1)
    for go in (
        lambda engine: engine.search(9, None),
        lambda engine: engine.race(plan),
    ):
        with pytest.raises(UsageError, match=r"made under rules 1.*asi-lab --lab NEW init --from") as refusal:
            go(Engine(old, simulated_engine.Silent(), simulated_engine.SimulatedExecutor(0.0)))
        assert refusal.value.exit_code == 2
    assert (old.store / "data.mdb").read_bytes() == before


def test_a_lab_of_newer_rules_is_left_to_newer_programs(tmp_path):
    with pytest.raises(UsageError, match="newer"):
        check_rules(Lab(tmp_path), RULES + 1)
    check_rules(Lab(tmp_path), RULES)


def test_a_new_lab_says_its_rules(tmp_path):
    lab = simulated_engine.make_lab(tmp_path, "[baselines]\nseeds = 2\nmax_seeds = 2\n", seed=1)
    Engine(lab, simulated_engine.Silent(), simulated_engine.SimulatedExecutor(0.0)).search(1, None)
    with Store.open_readonly(lab.store) as store:
        assert store.get_meta("rules") == RULES
        assert [candidate.rules for candidate in store.candidates()] == [RULES, RULES]


def test_a_new_lab_begins_with_the_best_of_an_old_one(old, tmp_path):
    """In the order of their fitness, as candidates like any other; then the search goes on by itself."""
    new = Lab(tmp_path / "new")
    result = run("--lab", str(new.path), "init", "--from", str(old.path), "--best", "2")
    assert result.exit_code == 0, result.output
    settings = new.settings()
    assert settings.preset == "micro"
    assert settings.train == old.settings().train
    text = simulated_engine.make_lab(tmp_path / "text", "").settings().data
    small = msgspec.structs.replace(
        settings,
        data=text,
        agents=config.from_preset("micro").agents,
        train=msgspec.structs.replace(settings.train, steps=3, warmup_steps=1),
        evaluate=msgspec.structs.replace(settings.evaluate, tasks=("asi_recall", "asi_copy"), limit=4),
    )
    new.config.write_text(config.render(small))
    Engine(new, simulated_engine.Silent(), simulated_engine.SimulatedExecutor(0.0)).search(3, None)
    with Store.open_readonly(new.store) as store, Store.open_readonly(old.store) as before:
        tried, best = list(store.candidates(1)), [before.get(8), before.get(4)]
    assert [c.proposal.code for c in tried[:2]] == [c.proposal.code for c in best]
    assert [c.proposal.researcher for c in tried] == ["import", "import", "grammar"]
    assert [c.draw.parent for c in tried[:2]] == [SEED_ID, SEED_ID]
    assert tried[0].proposal.change == "candidate 8 of lab"
    assert all(c.state.is_terminal for c in tried)


@pytest.mark.parametrize("lines", [b"{}", b"nonsense", b'{"name": 3}', b"[" * 5000])
def test_an_imports_file_that_is_none_is_told(tmp_path, lines):
    (tmp_path / imports.FILE_NAME).write_bytes(lines)
    with pytest.raises(ConfigError, match=r"imports\.jsonl"):
        imports.read(tmp_path)


def test_imports_are_read_as_they_were_written(tmp_path):
    proposals = [Proposal(f"net_{i}", "why\nso", "change", "code\n", "import") for i in range(3)]
    imports.write(tmp_path, proposals)
    assert imports.read(tmp_path) == dict(enumerate(proposals, start=1))
    assert imports.read(tmp_path / "nothing") == {}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--from", "nowhere"], "does not exist"),
        (["--from", "."], "expected a lab"),
        (["--from", "old", "--preset", "mini"], "goes not with --from"),
    ],
)
def test_a_lab_that_cannot_begin_so_is_refused(old, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old").symlink_to(old.path)
    result = run("--lab", "fresh", "init", *arguments)
    assert result.exit_code == 2
    assert words in result.output
    assert not (tmp_path / "fresh").exists()
