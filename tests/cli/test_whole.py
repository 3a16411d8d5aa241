"""A package that lacks parts is neither built nor run."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from asi_lab import cli
from asi_lab.errors import UsageError

ROOT = Path(__file__).parents[2]


def without_links(place: Path) -> Path:
    """The top of the source tree where git can make no links: each is a file with its target."""
    package = place / "asi_lab"
    package.mkdir()
    for path in (ROOT / "asi_lab").iterdir():
        if path.is_symlink():
            (package / path.name).write_text(str(path.readlink()))
        elif path.suffix == ".py":
            shutil.copy(path, package)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, place)
    return place


def egg_info(tree: Path) -> subprocess.CompletedProcess[str]:
    """The first step of every build."""
    command = [sys.executable, "setup.py", "--quiet", "egg_info"]
    return subprocess.run(command, cwd=tree, capture_output=True, text=True, timeout=120)


def test_nothing_is_built_of_a_tree_without_links(tmp_path):
    tree = without_links(tmp_path)
    done = egg_info(tree)
    assert done.returncode != 0
    assert "found none for cognition, kernels, lineage_repo, prompts, tui." in done.stderr
    assert not list(tree.glob("*.egg-info"))


def test_a_single_part_that_is_missing_is_told(tmp_path):
    tree = without_links(tmp_path)
    for name in cli._PARTS[1:]:
        (tree / "asi_lab" / name).unlink()
        (tree / "asi_lab" / name).symlink_to(ROOT / name)
    assert "found none for cognition." in egg_info(tree).stderr
    assert tuple(sorted(p.name for p in (ROOT / "asi_lab").iterdir() if p.is_symlink())) == cli._PARTS


def test_it_says_so_when_it_runs(tmp_path):
    cli._check_whole(ROOT / "asi_lab")
    with pytest.raises(
        UsageError, match="expected the folders cognition, kernels, lineage_repo, prompts, tui"
    ):
        cli._check_whole(without_links(tmp_path) / "asi_lab")
