"""What trusted trials compiled is handed on; nothing is followed, nothing half."""

import os
from pathlib import Path

from asi_lab.engineer.workspace import Workspace


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
