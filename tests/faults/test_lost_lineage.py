"""A lineage that was lost, or changed by its user: the same commits come back, and nothing of theirs goes."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from asi_lab.lab import Lab, Lineage, Store

OURS = ("refs/heads/main", "refs/heads/best", "refs/heads/arch/", "refs/heads/reference/", "refs/failed/")
USER = ("-c", "user.name=User", "-c", "user.email=user@localhost", "-c", "commit.gpgsign=false")


def slow(*values):
    """Parameters that are left to the slow tests."""
    return [pytest.param(value, marks=pytest.mark.slow) for value in values]


def git(lab: Lab, *arguments: str) -> str:
    command = ["git", "-C", str(lab.lineage), *USER, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def branch(lab: Lab, number: int) -> str:
    """The short name of a candidate's branch."""
    return git(lab, "for-each-ref", "--format=%(refname:short)", f"refs/heads/arch/{number:04d}-*")


def refs(lab: Lab, ours: bool = True) -> dict[str, str]:
    found = Lineage.open(lab.lineage).refs()
    return {name: sha for name, sha in found.items() if name.startswith(OURS) == ours}


def repairs(lab: Lab) -> list[str]:
    with Store.open_readonly(lab.store) as store:
        return [event.message for event in store.events(limit=10**6) if event.kind == "repair"]


def lose_all(lab: Lab) -> None:
    shutil.rmtree(lab.lineage)


def lose_git(lab: Lab) -> None:
    shutil.rmtree(lab.lineage / ".git")


def lose_objects(lab: Lab) -> None:
    shutil.rmtree(lab.lineage / ".git/objects")
    (lab.lineage / ".git/objects").mkdir()


def lose_refs(lab: Lab) -> None:
    shutil.rmtree(lab.lineage / ".git/refs")
    (lab.lineage / ".git/refs").mkdir()


def lose_packs(lab: Lab) -> None:
    Lineage.open(lab.lineage).pack()
    shutil.rmtree(lab.lineage / ".git/objects/pack")


def become_a_file(lab: Lab) -> None:
    lose_all(lab)
    lab.lineage.write_text("not a folder")


def become_a_link(lab: Lab) -> None:
    lose_all(lab)
    lab.lineage.symlink_to("nowhere")


def move_git_away(lab: Lab) -> None:
    shutil.move(lab.lineage / ".git", lab.path / "elsewhere")
    (lab.lineage / ".git").write_text(f"gitdir: {lab.path / 'elsewhere'}\n")


def begin_another(lab: Lab) -> None:
    lose_all(lab)
    lab.lineage.mkdir()
    git(lab, "init", "--quiet", "--initial-branch=main")
    git(lab, "commit", "--quiet", "--allow-empty", "-m", "mine")


LOSSES = [
    *(lose_all, lose_git, lose_objects, lose_refs, lose_packs),
    *(become_a_file, become_a_link, move_git_away, begin_another),
]


@pytest.mark.parametrize("lose", LOSSES, ids=lambda lose: lose.__name__)
@pytest.mark.parametrize("way", ["start", *slow("fsck")])
def test_a_lost_lineage_comes_back_with_the_same_ids(undisturbed, engines, copy, same, lose, way):
    lab = copy(undisturbed)
    lose(lab)
    if way == "fsck":
        assert engines.program(lab, "fsck").code == 1
        assert engines.program(lab, "fsck", "--repair").code == 0
    engines.finish(lab)
    assert (way == "start") == bool(repairs(lab))
    assert refs(lab) == refs(undisturbed)
    same(lab, f"after {lose.__name__}", but="refs")


def amend_a_candidate(lab: Lab) -> None:
    git(lab, "checkout", "--quiet", branch(lab, 1))
    (lab.lineage / "architecture.py").write_text("mine = 1\n")
    git(lab, "commit", "--quiet", "--all", "--amend", "-m", "rewritten")


def commit_on_main(lab: Lab) -> None:
    (lab.lineage / "notes.txt").write_text("mine")
    git(lab, "add", "notes.txt")
    git(lab, "commit", "--quiet", "-m", "a note on main")


def rewrite_the_root(lab: Lab) -> None:
    git(lab, "commit", "--quiet", "--amend", "--allow-empty", "-m", "another root")


def move_best(lab: Lab) -> None:
    git(lab, "branch", "--force", "best", branch(lab, 3))


def rename_a_branch(lab: Lab) -> None:
    git(lab, "branch", "-m", branch(lab, 3), "arch/0003-mine")


def add_unknown_candidates(lab: Lab) -> None:
    git(lab, "branch", "arch/0099-mine", "best")
    git(lab, "update-ref", "refs/failed/0077", "best")


def delete_and_reuse_names(lab: Lab) -> None:
    git(lab, "branch", "-D", "best")
    git(lab, "branch", "best/of/mine", "main")


CHANGES = [
    *(amend_a_candidate, commit_on_main, rewrite_the_root, move_best, rename_a_branch),
    *(add_unknown_candidates, delete_and_reuse_names),
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_what_a_user_rewrote_is_kept_beside_what_was_there(undisturbed, engines, copy, same, change):
    lab = copy(undisturbed)
    git(lab, "branch", "mine", branch(lab, 1))
    change(lab)
    theirs = set(Lineage.open(lab.lineage).refs().values())
    files = {p.name: p.read_bytes() for p in lab.lineage.iterdir() if p.is_file()}
    engines.finish(lab)
    assert repairs(lab)
    assert refs(lab) == refs(undisturbed)
    others = refs(lab, ours=False)
    assert others["refs/heads/mine"] == refs(undisturbed)[f"refs/heads/{branch(lab, 1)}"]
    assert all(name.startswith(("refs/heads/mine", "refs/quarantine/")) for name in others)
    assert theirs <= {*refs(lab).values(), *others.values()}
    assert {p.name: p.read_bytes() for p in lab.lineage.iterdir() if p.is_file()} == files
    same(lab, f"after {change.__name__}", but="refs")


@pytest.mark.parametrize("name", ["refs/heads/arch", *slow("refs/failed")])
def test_a_name_that_is_a_folder_of_ours_is_moved_away(
    prepared, undisturbed, engines, boundaries, copy, same, name
):
    lab = copy(prepared)
    engines.run(lab, kill=boundaries.index("after candidate 0 done published") + 1)
    git(lab, "update-ref", name, "main")
    if name == "refs/heads/arch":
        git(lab, "checkout", "--quiet", "arch")
    engines.finish(lab)
    assert refs(lab) == refs(undisturbed)
    assert git(lab, "rev-parse", "HEAD") == refs(lab)["refs/heads/main"]
    same(lab, but="refs")


@pytest.mark.parametrize("checked_out", ["best", *slow("main", "a candidate", "a commit", "a new branch")])
def test_a_dirty_work_tree_stays_as_it_is(
    prepared, undisturbed, engines, boundaries, copy, same, checked_out
):
    """While candidates are committed and `best` moves on."""
    lab = copy(prepared)
    engines.run(lab, kill=boundaries.index("after candidate 3 done published") + 1)
    names = {"a candidate": branch(lab, 3), "a commit": f"{branch(lab, 3)}^0", "a new branch": "best"}
    options = ["-b", "mine"] if checked_out == "a new branch" else []
    git(lab, "checkout", "--quiet", *options, names.get(checked_out, checked_out))
    before = git(lab, "rev-parse", "HEAD")
    (lab.lineage / "architecture.py").write_text("dirty = 1\n")
    (lab.lineage / "new.txt").write_text("untracked")
    git(lab, "rm", "--quiet", "--cached", "motivation.md")
    status = git(lab, "status", "--porcelain")
    engines.finish(lab)
    assert refs(lab) == refs(undisturbed)
    assert git(lab, "rev-parse", "HEAD") == before
    assert git(lab, "status", "--porcelain") == status
    assert (lab.lineage / "architecture.py").read_text() == "dirty = 1\n"
    same(lab, but="refs")


def collect_garbage(lab: Lab) -> None:
    git(lab, "gc", "--quiet", "--aggressive", "--prune=now")


def pack(lab: Lab) -> None:
    git(lab, "pack-refs", "--all", "--prune")
    git(lab, "repack", "-a", "-d", "-q")


def set_hooks(lab: Lab) -> None:
    hooks = lab.path / "hooks"
    hooks.mkdir()
    for name in ("reference-transaction", "post-checkout", "pre-commit", "post-index-change"):
        (hooks / name).write_text(f"#!/bin/sh\ntouch {lab.path}/hooked-{name}\nexit 1\n")
        (hooks / name).chmod(0o755)
    git(lab, "config", "core.hooksPath", str(hooks))


def set_strange_settings(lab: Lab) -> None:
    for key, value in {
        "core.autocrlf": "true",
        "commit.gpgSign": "true",
        "i18n.commitEncoding": "latin1",
        "gc.auto": "1",
        "fastimport.unpackLimit": "1",
        "core.bare": "true",
        "user.name": "Mallory",
    }.items():
        git(lab, "config", key, value)


def replace_a_commit(lab: Lab) -> None:
    git(lab, "replace", branch(lab, 1), "main")


def add_a_work_tree(lab: Lab) -> None:
    git(lab, "worktree", "add", "--quiet", str(lab.path / "beside"), "best")


HABITS = [collect_garbage, pack, set_hooks, set_strange_settings, replace_a_commit, add_a_work_tree]


@pytest.mark.parametrize("habit", HABITS, ids=lambda habit: habit.__name__)
def test_what_users_do_with_git_changes_no_commit(undisturbed, further, engines, copy, habit):
    lab = copy(undisturbed)
    habit(lab)
    engines.finish(lab, 5)
    assert refs(lab) == refs(further)
    assert engines.program(lab, "fsck").said == "Store and lineage agree.\n"
    assert not list(lab.path.glob("hooked-*"))


@pytest.mark.parametrize("number", [0, 1, 2, 4])
def test_one_deleted_ref_comes_back(undisturbed, engines, copy, same, number):
    lab = copy(undisturbed)
    names = {0: "refs/heads/main", 2: "refs/failed/0002"}
    git(lab, "update-ref", "--no-deref", "-d", names.get(number) or f"refs/heads/{branch(lab, number)}")
    engines.finish(lab)
    assert len(repairs(lab)) == 1
    same(lab)


@pytest.mark.parametrize("step", [11, *slow(1)])
def test_a_repair_that_is_killed_goes_on(undisturbed, engines, copy, same, record_property, step):
    """At each of its durable changes, or at some."""
    lab = copy(undisturbed)
    lose_objects(lab)
    with Store.open(lab.store) as store:
        store.put_meta("engine", {**store.get_meta("engine"), "state": "running"})
    whole = copy(lab)
    counted = engines.finish(whole).boundaries
    last = max(place for place, what in enumerate(counted, start=1) if "git" in what)
    for place in range(1, last + 1, step):
        killed = copy(lab)
        assert engines.run(killed, kill=place).code == -9
        engines.finish(killed)
        same(killed, f"after a kill {counted[place - 1]}")
        shutil.rmtree(killed.path)
    record_property("drills", len(range(1, last + 1, step)))


def test_the_lineage_needs_no_home_and_no_identity(undisturbed, further, engines, copy, monkeypatch):
    monkeypatch.delenv("HOME", raising=False)
    lab = copy(undisturbed)
    assert engines.program(lab, "fsck").code == 0
    assert Lineage.open(lab.lineage).verify() == []
    assert os.environ.get("HOME") is None
