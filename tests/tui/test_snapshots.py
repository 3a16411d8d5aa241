"""Pictures of panes of the packaged recording, held at a moment.

After a change that was wanted: pytest tests/tui/test_snapshots.py --snapshot-update, and look at them.
"""

from __future__ import annotations

import time

import msgspec
import pytest

from asi_lab.tui import recorded
from asi_lab.tui.app import LabApp
from asi_lab.tui.recording import Recording
from asi_lab.tui.snapshot import Snapshot

PICTURES = {
    "overview": ((160, 45), 0.5, ["1"]),
    "candidates": ((80, 24), 0.5, ["2", "s", "s"]),
    "lineage": ((80, 24), 0.4, ["3", "a"]),
    "curves": ((80, 24), 1.0, ["4", "m", "full_stop"]),
    "diff": ((160, 45), 1.0, ["5", "v"]),
    "agents": ((80, 24), 1.0, ["colon", "6", "0", "enter", "6"]),
}


class Held(Recording):
    """A recording that stands still, wherever its lab lies."""

    def read(self) -> Snapshot:
        found = super().read()
        return msgspec.structs.replace(found, status=msgspec.structs.replace(found.status, lab="/lab"))


@pytest.fixture
def universal(monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize("name", PICTURES)
def test_a_pane_looks_as_it_did(name, snap_compare, universal, monkeypatch):
    size, share, keys = PICTURES[name]
    lab = recorded.unpacked()
    monkeypatch.chdir(lab.path.parent)  # so that paths on it are the same everywhere
    held = Held(lab)
    held.clock.hold()
    held.clock.move(-1.0)
    held.clock.move(share)

    async def ready(pilot) -> None:
        app = pilot.app
        for _ in range(200):
            await pilot.pause(0.05)
            if app.snapshot is not None:
                break
        await pilot.press(*keys)
        await pilot.pause(0.4)
        app.clear_notifications()
        await pilot.pause(0.4)

    app = LabApp(lab, recording=held, title="a recording")
    assert snap_compare(app, terminal_size=size, run_before=ready)
