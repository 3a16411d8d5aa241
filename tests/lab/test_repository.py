"""A stranger's repository is data: nothing in it runs, whatever is done with it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from asi_lab.common import trust
from asi_lab.errors import ConsentError, LineageError
from asi_lab.lab import Lineage

CONFIG = 'preset = "micro"\n'
TRAPS = {
    "a pager": {"core.pager": "TRAP", "pager.log": "TRAP", "pager.diff": "TRAP"},
    "a monitor": {"core.fsmonitor": "TRAP"},
    "signatures": {"log.showSignature": "true", "gpg.program": "TRAP", "commit.gpgSign": "true"},
    "another diff": {"diff.external": "TRAP", "diff.evil.command": "TRAP", "diff.evil.textconv": "TRAP"},
    "filters": {"filter.evil.smudge": "TRAP", "filter.evil.clean": "TRAP", "filter.evil.required": "true"},
    "a promisor": {
        "extensions.partialClone": "evil",
        "core.repositoryformatversion": "1",
        "remote.evil.promisor": "true",
        "remote.evil.url": "ext::TRAP",
        "protocol.ext.allow": "always",
    },
    "ssh": {"core.sshCommand": "TRAP", "core.gitProxy": "TRAP", "core.askPass": "TRAP"},
    "hooks": {"core.hooksPath": "HOOKS"},
    "another file": {"include.path": "../../included"},
    "aliases": {
        "alias.log": "!TRAP",
        "alias.diff": "!TRAP",
        "core.editor": "TRAP",
        "sequence.editor": "TRAP",
    },
    "another place": {"core.worktree": "/", "core.attributesFile": "../../attributes", "core.bare": "true"},
}


@pytest.fixture
def lineage(tmp_path, make_candidate):
    """A lineage with two candidates on the seed."""
    made = Lineage.create(tmp_path / "lab" / "lineage_repo", make_candidate(0), CONFIG)
    for number in (1, 2):
        made.commit(make_candidate(number), CONFIG, made.sha_of(0))
    return made


@pytest.fixture
def arm(tmp_path, lineage) -> Callable[[dict[str, str]], Path]:
    """Put settings into the repository, with hooks and attributes; returns the file that appears when any of
    them runs something."""

    def arm(settings: dict[str, str]) -> Path:
        sprung, trap, hooks = tmp_path / "sprung", tmp_path / "trap.sh", tmp_path / "hooks"
        trap.write_text(f"#!/bin/sh\necho $0 $* >> {sprung}\nexec cat\n")
        trap.chmod(0o755)
        for folder in (hooks, lineage.path / ".git" / "hooks"):
            folder.mkdir()
            for name in ("reference-transaction", "post-checkout", "pre-commit", "post-index-change"):
                (folder / name).symlink_to(trap)
        (lineage.path / ".gitattributes").write_text("* diff=evil filter=evil\n")
        (lineage.path / ".git" / "info").mkdir()
        (lineage.path / ".git" / "info" / "attributes").write_text("* diff=evil filter=evil\n")
        (tmp_path / "lab" / "included").write_text(f"[core]\n\tfsmonitor = {trap}\n\tpager = {trap}\n")
        config = lineage.path / ".git" / "config"
        for key, value in settings.items():
            told = value.replace("TRAP", str(trap)).replace("HOOKS", str(hooks))
            subprocess.run(["git", "config", "--file", str(config), key, told], check=True)
        return sprung

    return arm


@pytest.mark.parametrize("settings", TRAPS.values(), ids=TRAPS)
def test_nothing_of_its_settings_runs(arm, lineage, make_candidate, settings):
    sprung = arm(settings)
    found = Lineage.open(lineage.path)
    one, two = found.sha_of(1), found.sha_of(2)
    assert "number = 2" in found.diff(one, two)
    assert sum("delta_net" in line for line in found.log(["--branches", "--oneline", "-p"])) > 3
    assert found.read(two, "architecture.py") == "class DeltaNet:\n    number = 2\n"
    assert found.notes() == {}
    assert found.verify() == []
    three = found.commit(make_candidate(3, 1), CONFIG, one)
    found.annotate(three, "noted")
    found.set_ref("refs/heads/best", three)
    found.quarantine("refs/heads/best", three)
    found.pack()
    found.recover()
    assert found.notes() == {three: "noted"}
    assert found.verify() == []
    assert not sprung.exists()


def test_a_lost_object_is_not_fetched(arm, lineage):
    """From a remote that runs a program, as a partial clone would."""
    sprung = arm(TRAPS["a promisor"])
    sha = lineage.sha_of(2)
    blob = subprocess.run(
        ["git", "rev-parse", f"{sha}:architecture.py"],
        cwd=lineage.path,
        env={"PATH": os.environ["PATH"], "GIT_ALLOW_PROTOCOL": ""},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    sprung.unlink(missing_ok=True)
    (lineage.path / ".git" / "objects" / blob[:2] / blob[2:]).unlink(missing_ok=True)
    for pack in (lineage.path / ".git" / "objects" / "pack").glob("*.pack"):
        pack.with_suffix(".promisor").touch()
    for look in (lineage.verify, lambda: list(lineage.log(["-p", sha])), lambda: lineage.notes()):
        try:
            look()
        except LineageError:
            continue
    assert not sprung.exists()


def test_the_environment_has_no_influence(lineage, tmp_path, monkeypatch):
    trap = tmp_path / "trap.sh"
    trap.write_text(f"#!/bin/sh\ntouch {tmp_path}/sprung\n")
    trap.chmod(0o755)
    for name in ("GIT_PAGER", "GIT_EXTERNAL_DIFF", "GIT_SSH_COMMAND", "GIT_ASKPASS", "GIT_EDITOR"):
        monkeypatch.setenv(name, str(trap))
    monkeypatch.setenv("GIT_CONFIG_PARAMETERS", f"'core.fsmonitor={trap}'")
    monkeypatch.setenv("GIT_DIR", str(tmp_path))
    assert "number = 2" in lineage.diff(lineage.sha_of(1), lineage.sha_of(2))
    assert list(lineage.log(["--oneline", "-p", "--branches"]))
    assert not (tmp_path / "sprung").exists()


def link(path: Path, target: Path) -> None:
    """Move what is there to `target` and leave a link."""
    path.rename(target)
    path.symlink_to(target)


@pytest.mark.parametrize(
    "lead",
    [
        lambda git, out: link(git, out),
        lambda git, out: link(git / "refs", out),
        lambda git, out: link(git / "objects", out),
        lambda git, out: link(git / "refs" / "heads" / "arch", out),
        lambda git, out: link(git / "HEAD", out),
        lambda git, out: (git / "packed-refs").symlink_to(out),
        lambda git, out: (git / "index").unlink() or (git / "index").symlink_to(out),
        lambda git, out: (git / "objects" / "info" / "alternates").write_text(f"{out}\n"),
        lambda git, out: os.mkfifo(git / "refs" / "heads" / "pipe"),
        lambda git, out: link(git.parent, out),
    ],
    ids=["git", "refs", "objects", "arch", "HEAD", "packed-refs", "index", "alternates", "pipe", "lineage"],
)
def test_what_leads_out_of_it_is_refused(lineage, tmp_path, lead):
    lead(lineage.path / ".git", tmp_path / "elsewhere")
    with pytest.raises(LineageError, match=r"holds everything itself|no link"):
        Lineage.open(lineage.path)


@pytest.mark.parametrize(
    "text",
    [
        "ref: ../../../etc/passwd",
        "ref: refs/heads/../../x",
        "--help",
        "",
        "ref: refs/heads/a\x1b[2J",
        "0" * 39,
    ],
)
def test_a_head_that_is_none_is_refused(lineage, text):
    (lineage.path / ".git" / "HEAD").write_text(text)
    with pytest.raises(LineageError, match="expected a ref or a commit id") as refused:
        lineage.head()
    assert "\x1b" not in str(refused.value)


def test_nothing_is_made_where_a_link_leads(tmp_path, make_candidate):
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "link").symlink_to(outside)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / ".git").symlink_to(outside)
    for path in (tmp_path / "link", tmp_path / "folder"):
        with pytest.raises(LineageError, match="no link"):
            Lineage.create(path, make_candidate(0), CONFIG)
    assert list(outside.iterdir()) == []


def test_a_link_is_not_written_through(lineage, tmp_path):
    target = tmp_path / "mine"
    target.write_text("mine")
    (lineage.path / ".git" / ".HEAD.partial").symlink_to(target)
    lineage.set_head("refs/heads/best")
    assert lineage.head() == "refs/heads/best"
    assert target.read_text() == "mine"


def test_another_users_repository_is_refused_until_it_is_trusted(lineage, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    other = os.geteuid() + 1
    monkeypatch.setattr(trust.os, "geteuid", lambda: other)
    monkeypatch.delenv("SUDO_UID", raising=False)
    with pytest.raises(ConsentError, match=rf"asi-lab trust {lineage.path.parent}"):
        Lineage.open(lineage.path)
    monkeypatch.setattr(trust, "granted", lambda: trust.Grants(labs=frozenset({str(lineage.path.parent)})))
    assert Lineage.open(lineage.path).refs()


def test_root_owns_what_the_user_of_sudo_owns(tmp_path, monkeypatch):
    owner = tmp_path.stat().st_uid
    monkeypatch.setattr(trust.os, "geteuid", lambda: 0)
    monkeypatch.setenv("SUDO_UID", str(owner))
    assert trust.is_own(tmp_path)
    monkeypatch.setenv("SUDO_UID", str(owner + 1))
    assert trust.is_own(tmp_path) == (owner == 0)
