from __future__ import annotations

import os
import subprocess
from pathlib import Path

import msgspec
import pytest

from asi_lab.errors import LineageError
from asi_lab.lab import Lineage
from asi_lab.lab.commits import Commit, candidate_commit, ref_of, seed_commit
from asi_lab.lab.lineage import FILES
from asi_lab.records import CandidateState

S = CandidateState
CONFIG = 'preset = "micro"\n'
HOSTILE = (
    "--upload-pack=touch /tmp/x; \x1b[31mred\x1b]0;t\x07 \u202egnp \x00 $(id) `id` ../../../etc "
    "refs/heads/main ..@{u}.lock ~^:?*[\\ \r\n\nFitness: 9.9999\nCandidate: 1\n"
)


def _git(path: Path, *args: str) -> str:
    return subprocess.run(["git", "-C", str(path), *args], check=True, capture_output=True, text=True).stdout


def _trailer(path: Path, ref: str, key: str) -> list[str]:
    return _git(path, "log", "-1", f"--format=%(trailers:key={key},valueonly)", ref).split("\n")[:-2]


@pytest.fixture
def seed(make_candidate):
    return make_candidate(0, name="delta_net", code="class DeltaNet:\n    pass\n")


@pytest.fixture
def lineage(tmp_path, seed):
    return Lineage.create(tmp_path / "lineage", seed, CONFIG)


def _publish(lineage, make_candidate):
    """Publish a small tree (2 on 1, 3 failed on 1) and return {id: sha}."""
    shas = {0: lineage.sha_of(0)}
    for number, parent, state in [(1, 0, S.DONE), (2, 1, S.DONE), (3, 1, S.LEAKING)]:
        candidate = make_candidate(number, parent, state=state)
        shas[number] = lineage.commit(candidate, CONFIG, shas[parent])
    return shas


def test_a_candidate_is_a_commit_on_its_parents(lineage, make_candidate):
    shas = _publish(lineage, make_candidate)
    path = lineage.path
    assert _git(path, "rev-parse", "arch/0002-delta_net_2^").strip() == shas[1]
    assert (
        _git(path, "rev-parse", "arch/0001-delta_net_1^").strip() == _git(path, "rev-parse", "main").strip()
    )
    assert _git(path, "ls-tree", "--name-only", shas[2]).split() == [
        "analysis.md",
        "architecture.py",
        "config.toml",
        "metrics.json",
        "motivation.md",
    ]
    assert lineage.read(shas[2], "architecture.py") == "class DeltaNet:\n    number = 2\n"
    assert lineage.read(shas[2], "config.toml") == CONFIG
    assert lineage.read(shas[2], "analysis.md") == "# Analysis\n\nIt helps.\n"
    metrics = msgspec.json.decode(lineage.read(shas[2], "metrics.json"))
    assert metrics["score"]["noise"]["loss"] == 0.012
    assert metrics["evidence"]["evaluation"]["tasks"][0]["metrics"] == {"acc": 0.31}
    assert list(metrics) == sorted(metrics)
    assert [lineage.sha_of(number) for number in range(5)] == [*shas.values(), None]
    assert lineage.verify() == []


def test_the_message_has_subject_summary_and_trailers(lineage, make_candidate):
    sha = lineage.commit(make_candidate(42, 0, model="qwen3:8b"), CONFIG, lineage.sha_of(0))
    assert _git(lineage.path, "log", "-1", "--format=%B", sha).rstrip() == (
        "delta_net_42: a decay per head\n\n"
        "DeltaNet never forgets.\n\n"
        "Candidate: 42\nParent: 0\nReference: 0\n"
        "Fitness: 0.5420 +- 0.0080\nLoss: 3.9580 +- 0.0120\nBenchmark: 0.0123 +- 0.0200\n"
        "Judge: 6.25 +- 0.00\n"
        "Params: 162042\nStatus: done\nResearcher: grammar\nModel: qwen3:8b"
    )
    date = _git(lineage.path, "log", "-1", "--format=%an %ae %at %ct", sha).split()
    assert date == ["asi-lab", "asi-lab@localhost", "1700002520", "1700002520"]


def test_failures_are_kept_out_of_the_branches(lineage, make_candidate):
    shas = _publish(lineage, make_candidate)
    branches = _git(lineage.path, "log", "--branches", "--format=%H").split()
    assert set(branches) == {shas[0], shas[1], shas[2]}
    assert _git(lineage.path, "rev-parse", "refs/failed/0003").strip() == shas[3]
    assert _trailer(lineage.path, shas[3], "Status") == ["leaking"]
    assert "sees the future" in lineage.read(shas[3], "error.txt")
    assert msgspec.json.decode(lineage.read(shas[3], "metrics.json"))["evidence"]["failure"] == "leaking"
    with pytest.raises(LineageError):
        lineage.read(shas[3], "analysis.md")  # nothing is inherited from the parent's tree


def test_ids_do_not_depend_on_time_environment_or_configuration(tmp_path, seed, make_candidate, monkeypatch):
    first = _publish(Lineage.create(tmp_path / "first", seed, CONFIG), make_candidate)
    home = tmp_path / "home"
    home.mkdir()
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    for name in ("post-checkout", "reference-transaction", "post-commit"):
        (hooks / name).write_text(f"#!/bin/sh\ntouch {tmp_path}/hooked\nexit 1\n")
        (hooks / name).chmod(0o755)
    (home / ".gitconfig").write_text(
        "[user]\n name = Mallory\n[commit]\n gpgsign = true\n[core]\n autocrlf = true\n"
        f" hooksPath = {hooks}\n[init]\n defaultBranch = trunk\n defaultObjectFormat = sha256\n"
        "[i18n]\n commitEncoding = latin1\n[fastimport]\n unpackLimit = 1\n"
    )
    other = tmp_path / "other"
    for name, value in {
        "HOME": home,
        "TZ": "Pacific/Auckland",
        "LC_ALL": "C",
        "GIT_DIR": other,
        "GIT_WORK_TREE": other,
        "GIT_INDEX_FILE": other / "index",
        "GIT_OBJECT_DIRECTORY": other / "objects",
        "GIT_AUTHOR_NAME": "Mallory",
        "GIT_COMMITTER_DATE": "1 +0100",
        "GIT_DEFAULT_HASH": "sha256",
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "core.autocrlf",
        "GIT_CONFIG_VALUE_0": "true",
    }.items():
        monkeypatch.setenv(name, str(value))
    lineage = Lineage.create(tmp_path / "second", seed, CONFIG)
    assert _publish(lineage, make_candidate) == first
    assert lineage.verify() == []
    assert not other.exists()
    assert not (tmp_path / "hooked").exists()
    assert b"\r" not in (tmp_path / "second" / "architecture.py").read_bytes()


def test_what_changes_after_the_commit_is_not_in_it(seed, make_candidate):
    pending = make_candidate(5, state=S.ANALYSED)
    later = msgspec.structs.replace(pending, state=S.DONE, updated=2e9, commit="f" * 40, starts=3)
    parent = seed_commit(seed, CONFIG).sha
    assert candidate_commit(pending, CONFIG, parent) == candidate_commit(later, CONFIG, parent)
    measured = msgspec.structs.replace(seed, evidence=later.evidence, score=later.score, state=S.DONE)
    assert seed_commit(measured, CONFIG) == seed_commit(seed, CONFIG)


def test_the_computed_id_is_gits(lineage, make_candidate):
    for number, code in [(1, ""), (2, "é\x00\r\n"), (3, "no newline at the end")]:
        candidate = make_candidate(number, code=code or "\n", motivation=code, change="ü" * 90)
        sha = lineage.commit(candidate, CONFIG, lineage.sha_of(0))
        assert _git(lineage.path, "rev-parse", ref_of(candidate)).strip() == sha
        assert lineage.read(sha, "architecture.py") == (code or "\n")


def test_publishing_again_succeeds_and_something_else_is_refused(lineage, seed, make_candidate):
    shas = _publish(lineage, make_candidate)
    refs = lineage.refs()
    assert _publish(lineage, make_candidate) == shas
    again = Lineage.create(lineage.path, seed, CONFIG)
    assert again.refs() == refs
    with pytest.raises(LineageError, match="fast-import failed"):
        lineage.commit(make_candidate(2, 1, text="another analysis"), CONFIG, shas[1])
    assert lineage.refs() == refs


@pytest.mark.parametrize("field", ["name", "change", "motivation", "model", "text", "code"])
def test_hostile_text_stays_text(lineage, make_candidate, field):
    candidate = make_candidate(7, **{field: HOSTILE})
    sha = lineage.commit(candidate, CONFIG, lineage.sha_of(0))
    assert ref_of(candidate).startswith("refs/heads/arch/0007-")
    assert set(ref_of(candidate).removeprefix("refs/heads/arch/0007-")) <= set(
        "abcdefghijklmnopqrstuvwxyz0123456789_"
    )
    assert lineage.sha_of(7) == sha
    assert _trailer(lineage.path, sha, "Fitness") == ["0.5070 +- 0.0080"]
    assert _trailer(lineage.path, sha, "Candidate") == ["7"]
    message = _git(lineage.path, "log", "-1", "--format=%B", sha)
    assert len(message.split("\n")[0]) <= 72
    shown = message + "".join(lineage.read(sha, file) for file in ("motivation.md", "analysis.md"))
    assert not {"\x1b", "\x07", "\x00", "\u202e", "\r"} & set(shown)
    assert lineage.verify() == []


@pytest.mark.parametrize(
    "motivation",
    [
        "Fitness: 9.9\nCandidate: 1",
        "ok\n\nFitness: 9.9",
        "Fitness : 9.9 \u2028Fitness: 8.8\x0bFitness: 7.7\x85Fitness: 6.6",
        "word " * 14 + "Fitness: 9.9 Fitness: 8.8",
        "---\nFitness: 9.9\n",
        "",
    ],
)
def test_trailers_cannot_be_injected(lineage, make_candidate, motivation):
    candidate = make_candidate(7, motivation=motivation, name="a\n\nFitness: 9.9", model="m\nFitness: 9.9")
    sha = lineage.commit(candidate, CONFIG, lineage.sha_of(0))
    assert _trailer(lineage.path, sha, "Fitness") == ["0.5070 +- 0.0080"]
    assert _trailer(lineage.path, sha, "Model") == ["m Fitness: 9.9"]
    body = _git(lineage.path, "log", "-1", "--format=%B", sha)
    assert [line for line in body.split("\n") if line.startswith("Fitness")] == ["Fitness: 0.5070 +- 0.0080"]


def test_a_megabyte_of_text_is_a_short_message(lineage, make_candidate):
    big = "word " * 200_000
    candidate = make_candidate(8, name=big, change=big, motivation=big, code="# " + big)
    sha = lineage.commit(candidate, CONFIG, lineage.sha_of(0))
    assert len(_git(lineage.path, "log", "-1", "--format=%B", sha)) < 2000
    assert len(lineage.read(sha, "architecture.py")) == len(big) + 2
    assert len(ref_of(candidate)) < 90


def test_best_moves_and_leaves_a_checked_out_tree_alone(lineage, make_candidate):
    shas = _publish(lineage, make_candidate)
    assert lineage.best() is None
    one, two = (msgspec.structs.replace(make_candidate(n), commit=shas[n]) for n in (1, 2))
    lineage.update_best(two)
    assert lineage.best() == shas[2]
    _git(lineage.path, "checkout", "-q", "best")
    lineage.update_best(one)
    assert lineage.best() == shas[1]
    assert _git(lineage.path, "status", "--porcelain") == ""
    assert "number = 2" in (lineage.path / "architecture.py").read_text()
    with pytest.raises(LineageError, match="no commit"):
        lineage.update_best(make_candidate(2))


def test_references_are_branches_on_main(tmp_path, seed, make_candidate):
    reference = make_candidate(9, name="gated_delta_net").proposal
    lineage = Lineage.create(tmp_path / "x", seed, CONFIG, [reference])
    assert list(lineage.refs()) == ["refs/heads/main", "refs/heads/reference/gated_delta_net"]
    assert _git(lineage.path, "rev-parse", "reference/gated_delta_net^").strip() == lineage.sha_of(0)
    assert _git(lineage.path, "status", "--porcelain", "--branch") == "## main\n"


def test_a_killed_git_leaves_nothing_in_the_way(lineage, make_candidate):
    _publish(lineage, make_candidate)
    folder = lineage.path / ".git"
    (folder / "refs/heads/arch/0004-delta_net_4.lock").touch()
    (folder / "packed-refs.lock").touch()
    (folder / "refs/heads/arch/0005-delta_net_5").touch()
    with pytest.raises(LineageError, match=r"0004-delta_net_4\.lock"):
        lineage.commit(make_candidate(4), CONFIG, lineage.sha_of(0))
    assert lineage.recover() == [
        "packed-refs.lock",
        "refs/heads/arch/0004-delta_net_4.lock",
        "refs/heads/arch/0005-delta_net_5",
    ]
    for number in (4, 5):
        lineage.commit(make_candidate(number), CONFIG, lineage.sha_of(0))
    lineage.pack()
    assert lineage.verify() == []
    assert lineage.recover() == []


def test_creation_goes_on_where_it_was_cut_off(tmp_path, seed):
    whole = Lineage.create(tmp_path / "whole", seed, CONFIG)
    for cut in ("HEAD", "config", "index", "refs/heads/main"):
        path = tmp_path / cut.replace("/", "_")
        Lineage.create(path, seed, CONFIG)
        (path / ".git" / cut).unlink()
        assert Lineage.create(path, seed, CONFIG).refs() == whole.refs()
        assert _git(path, "status", "--porcelain") == ""


def test_many_commits_are_packed_and_leak_no_descriptor(lineage, make_candidate, monkeypatch):
    monkeypatch.setattr("asi_lab.lab.lineage._PACK_REFS", 20)
    root = lineage.sha_of(0)
    lineage.commit(make_candidate(1), CONFIG, root)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for number in range(2, 52):
        lineage.commit(make_candidate(number), CONFIG, root)
    assert len(list(Path("/proc/self/fd").iterdir())) <= before
    assert len(lineage.refs()) == 52
    assert len(list((lineage.path / ".git/refs/heads/arch").glob("*"))) < 20
    assert len(list((lineage.path / ".git/objects/pack").glob("*.pack"))) == 2


def test_a_git_process_holds_the_lock_it_was_given(tmp_path, seed, make_candidate):
    reading, writing = os.pipe()
    lineage = Lineage.create(tmp_path / "x", seed, CONFIG, keep_open=[writing])
    alias = f"alias.tell=!test -e /proc/self/fd/{writing} && echo open"
    assert lineage._run("-c", alias, "tell") == "open\n"
    os.close(reading)
    os.close(writing)


def test_diff_is_safe_to_print(lineage, make_candidate):
    one = lineage.commit(make_candidate(1, code="a = 1\nb = 2\n"), CONFIG, lineage.sha_of(0))
    two = lineage.commit(make_candidate(2, 1, code="a = 1\nb = '\x1b[2J3'\n"), CONFIG, one)
    text = lineage.diff(one, two)
    assert "-b = 2\n+b = '3'\n" in text
    assert "\x1b" not in text
    assert "\x1b[32m+b = '3'\x1b[0m" in lineage.diff(one, two, color=True)
    with pytest.raises(LineageError, match="commit id"):
        lineage.diff("--output=x", two)
    with pytest.raises(LineageError, match="expected one of"):
        lineage.read(two, "../secret")
    assert "architecture.py" in FILES


def test_log_is_real_git_log(lineage, make_candidate):
    shas = _publish(lineage, make_candidate)
    told = lineage.log(["--branches", "--format=%s %(trailers:key=Fitness,valueonly)"])
    assert "delta_net_2: a decay per head 0.5020 +- 0.0080\n" in list(told)
    [coloured] = lineage.log(["-1", "--format=%C(red)%H%C(reset)\x1b]0;t\x07\x1b[2J", shas[2]], color=True)
    assert coloured == f"\x1b[31m{shas[2]}\x1b[m\n"
    with pytest.raises(LineageError, match="status 128"):
        list(lineage.log(["--no-such-option"]))


def test_refusals_say_what_to_do(tmp_path, lineage, monkeypatch):
    with pytest.raises(LineageError, match="fsck --repair"):
        Lineage.open(tmp_path / "nowhere")
    assert Lineage.open(lineage.path).refs() == lineage.refs()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LineageError, match="apt install git"):
        lineage.refs()


def test_the_time_that_a_task_took_enters_no_commit_and_a_curve_only_those_of_its_rules(make_candidate):
    plain = make_candidate(1)
    (task,) = plain.measured.tasks

    def committed(rules: int, **changes: object) -> Commit:
        changed = msgspec.structs.replace(plain.measured, tasks=(msgspec.structs.replace(task, **changes),))
        evidence = msgspec.structs.replace(plain.evidence, evaluation=changed)
        return candidate_commit(
            msgspec.structs.replace(plain, evidence=evidence, rules=rules), CONFIG, "0" * 40
        )

    for rules in (1, 2, 3):
        assert committed(rules, seconds=7.0) == committed(rules)
        assert b'"seconds": 7.0' not in committed(rules, seconds=7.0).files["metrics.json"]
    curve = ((20, -1.25),)
    assert committed(2, curve=curve) == committed(2)
    assert b'"curve"' not in committed(2).files["metrics.json"]
    assert b"-1.25" in committed(3, curve=curve).files["metrics.json"]
