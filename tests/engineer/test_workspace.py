"""What is taken out is a copy of a plain file; what trusted trials compiled is handed on, nothing half."""

import errno
import os
from pathlib import Path

import pytest

from asi_lab.engineer import workspace as module
from asi_lab.engineer.workspace import Tampered, Workspace


def compiled_by(workspace: Workspace, name: str) -> Path:
    file = workspace.path / "cache" / "inductor" / "ab" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(name)
    return file


def test_what_two_trials_compiled_is_added_up_and_copied(tmp_path):
    shelf, first, second, third = (tmp_path / name for name in (".compiled", "first", "second", "third"))
    one = Workspace(first)
    one.keep_compiled(shelf)
    assert not shelf.exists()
    compiled_by(one, "a.so")
    (one.path / "cache" / "other").mkdir()
    one.keep_compiled(shelf)
    two = Workspace(second)
    two.warm(shelf)
    compiled_by(two, "b.so")
    (tmp_path / "secret").write_text("secret")
    (two.path / "cache" / "inductor" / "link").symlink_to(tmp_path / "secret")
    two.keep_compiled(shelf)
    three = Workspace(third)
    three.warm(shelf)
    found = {str(p.relative_to(third)) for p in third.rglob("*") if not p.is_dir() or p.is_symlink()}
    assert found == {f"cache/inductor/{name}" for name in ("ab/a.so", "ab/b.so", "link")}
    assert (third / "cache" / "inductor" / "link").is_symlink()
    assert not [path for path in tmp_path.iterdir() if "incoming" in path.name]


def test_a_copy_belongs_to_whom_the_workspace_belongs(tmp_path):
    workspace = Workspace(tmp_path / "work")
    compiled_by(Workspace(tmp_path / "baseline"), "a.so")
    Workspace.keep_compiled(Workspace(tmp_path / "empty"), tmp_path / "nothing")
    shelf = tmp_path / "baseline" / "cache"
    if os.geteuid() == 0:
        os.chown(workspace.path / "cache", 65534, 65534)
    workspace.warm(shelf)
    workspace.warm(tmp_path / "nothing")
    owner = (workspace.path / "cache").stat().st_uid
    assert all(path.lstat().st_uid == owner for path in (workspace.path / "cache").rglob("*"))
    assert (workspace.path / "cache" / "inductor" / "ab" / "a.so").read_text() == "a.so"


def test_a_descriptor_that_is_kept_open_changes_nothing_of_what_was_taken(tmp_path, monkeypatch):
    """Not after the copy, and not beyond the size that the file had when it began."""
    monkeypatch.setattr(module, "CHUNK_BYTES", 4)
    workspace, taken, pulses = Workspace(tmp_path / "work"), tmp_path / "taken", []
    taken.write_text("of before")
    with (workspace.path / "weights").open("wb", buffering=0) as kept:
        kept.write(b"honest words")

        def pulse() -> None:
            pulses.append(1)
            kept.write(b"and more and more")

        workspace.take("weights", taken, pulse)
        assert taken.read_text() == "honest words"
        kept.seek(0)
        kept.write(b"forged words")
    assert taken.read_text() == "honest words"
    assert len(pulses) == 3
    assert not (workspace.path / "weights").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["taken", "work"]


def test_a_file_that_shrinks_while_it_is_copied_ends_the_copy(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "CHUNK_BYTES", 4)
    workspace, taken = Workspace(tmp_path / "work"), tmp_path / "taken"
    (workspace.path / "weights").write_text("honest words")
    workspace.take("weights", taken, lambda: os.truncate(workspace.path / "weights", 6))
    assert taken.read_text() == "honest"


def test_what_a_full_disk_cut_off_is_not_left(tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    workspace, taken, shelf = Workspace(tmp_path / "work"), tmp_path / "taken", tmp_path / "shelf"
    (workspace.path / "weights").write_text("words")
    with pytest.raises(OSError, match="no space"):
        workspace.take("weights", taken, full)
    compiled_by(workspace, "a.so")
    monkeypatch.setattr(module.shutil, "copytree", lambda *_, **__: full())
    workspace.keep_compiled(shelf)
    shelf.mkdir()
    workspace.warm(shelf)
    assert {path.name for path in tmp_path.iterdir()} == {"work", "shelf"}
    assert not (workspace.path / "cache" / "inductor").exists()


@pytest.mark.parametrize("kind", ["nothing", "link", "folder", "pipe", "second name", "too large"])
def test_what_is_no_plain_file_of_one_name_is_not_taken(tmp_path, kind):
    workspace, taken, secret = Workspace(tmp_path / "work", 4), tmp_path / "taken", tmp_path / "secret"
    secret.write_text("me")
    place = workspace.path / "weights"
    match kind:
        case "link":
            place.symlink_to(secret)
        case "folder":
            place.mkdir()
        case "pipe":
            os.mkfifo(place)
        case "second name":
            place.hardlink_to(secret)
        case "too large":
            place.write_text("12345")
    with pytest.raises(Tampered, match="weights"):
        workspace.take("weights", taken)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["secret", "work"]


def test_a_probe_of_holes_is_not_copied(tmp_path):
    workspace, taken = Workspace(tmp_path / "work"), tmp_path / "taken"
    with (workspace.path / "probe_mqar-30.safetensors").open("wb") as file:
        file.truncate(module.MOST_PROBE_BYTES + 1)
    with pytest.raises(Tampered, match=f"limit {module.MOST_PROBE_BYTES:,}"):
        workspace.take("probe_mqar-30.safetensors", taken)
    assert not taken.exists()


def test_what_moves_while_it_is_counted_counts_once(tmp_path, monkeypatch):
    """A folder goes from where nobody has looked to where somebody has, just in time."""
    workspace, looked_at = Workspace(tmp_path / "work"), []
    (workspace.path / "tmp/big").mkdir()
    (workspace.path / "tmp/big/file").write_bytes(b"x" * 2**20)
    look = os.scandir

    def scandir(folder: str):
        name = Path(folder).name
        if name in ("tmp", "cache") and name not in looked_at:
            other = {"tmp": "cache", "cache": "tmp"}[name]
            if (workspace.path / name / "big").exists():
                (workspace.path / name / "big").rename(workspace.path / other / "big")
        looked_at.append(name)
        return look(folder)

    quiet = workspace.used_bytes()
    monkeypatch.setattr(os, "scandir", scandir)
    assert workspace.used_bytes() == quiet > 2**20
    assert looked_at.count("work") > 1


def test_a_file_of_two_names_counts_once(tmp_path):
    workspace = Workspace(tmp_path / "work")
    (workspace.path / "one").write_bytes(b"x" * 2**20)
    before = workspace.used_bytes()
    (workspace.path / "two").hardlink_to(workspace.path / "one")
    assert workspace.used_bytes() == before


def test_too_many_entries_are_too_full(tmp_path, monkeypatch):
    workspace = Workspace(tmp_path / "work")
    monkeypatch.setattr(module, "MOST_ENTRIES", 3)
    assert workspace.used_bytes() < float("inf")
    for name in ("a", "b"):
        (workspace.path / name).touch()
    assert workspace.used_bytes() == float("inf")
