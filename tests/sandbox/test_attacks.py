"""Every attack at every level that this machine has, each with its expected outcome."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from asi_lab import sandbox
from asi_lab.sandbox import Level
from asi_lab.sandbox.command import can_leave_root
from tests.sandbox.attacks import ATTACKS, Attack, is_safe, perform
from tests.thinning import one_in

HELD_HERE = {finding.level: finding.holds for finding in sandbox.probe()}
STRONGEST = next(level for level in Level if HELD_HERE[level])
LEVELS = [level if level is STRONGEST else pytest.param(level, marks=pytest.mark.slow) for level in Level]
"""All of them; in the fast tests the one that trials get here."""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A place that other users can reach, unlike pytest's own: root's trials run as another user."""
    with tempfile.TemporaryDirectory(prefix="asi-lab-attack-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.parametrize("attack", one_in(2, ATTACKS, lambda attack: attack.name.replace(" ", "_")))
@pytest.mark.parametrize("level", LEVELS)
def test_an_attack_is_held_where_it_should_be(attack: Attack, level: Level, folder):
    if not HELD_HERE[level]:
        pytest.skip(f"{level.value} does not work on this machine")
    if not is_safe(attack, level):
        pytest.skip("the kernel does not limit the processes of root")
    held, outcome = perform(attack, level, folder)
    is_open = level in attack.open_at
    if is_open and level is Level.LIMITS and os.geteuid() == 0 and can_leave_root(level):
        return  # another user holds much of what limits alone do not
    assert held == (not is_open), outcome
