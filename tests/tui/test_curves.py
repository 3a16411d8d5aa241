"""Curves: smoothing, crosshair, axes, and points that are marked."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from asi_lab.lab import Store
from asi_lab.records import CandidateState
from asi_lab.tui.panes.curves import Curve, _averaged
from tests.tui.labs import EACH_SIZE, SIZES, search, seen, use


def test_smoothing_keeps_a_constant_and_follows_a_step():
    assert np.allclose(_averaged(np.full(5, 3.0)), 3.0)
    stepped = _averaged(np.array([0.0, 1.0, 1.0]))
    assert np.allclose(stepped, [0.0, 0.1, 0.19])


def test_a_curve_has_a_value_only_where_it_is():
    curve = Curve("a", "red", np.array([1.0, 3.0]), np.zeros(2), np.array([2.0, 4.0]), np.zeros(0))
    assert curve.at(2.0) == 3.0
    assert curve.at(0.5) is None
    assert curve.at(3.5) is None


@pytest.mark.parametrize("size", EACH_SIZE)
def test_keys_of_the_plot(lab, size):
    async def script(app, pilot) -> None:
        pane = app._panes["curves"]
        app.selected = 5
        await pilot.press("4")
        await pilot.pause(0.2)
        assert "0005 (cyan)" in seen(app)
        await pilot.press("full_stop")
        await pilot.pause(0.1)
        assert "at step 2:" in seen(app)
        await pilot.press("greater_than_sign", "full_stop", "comma", "less_than_sign", "less_than_sign")
        await pilot.pause(0.1)
        assert 1.0 <= pane._cross < 2.0
        assert "0005 (cyan): -" not in seen(app)
        await pilot.press("escape")
        await pilot.pause(0.1)
        assert "at step" not in seen(app)
        for axis in ("tokens", "seconds", "step"):
            await pilot.press("a")
            await pilot.pause(0.1)
            assert pane.axis == axis
        await pilot.press("l")
        await pilot.pause(0.1)
        assert "log loss" in seen(app)
        await pilot.press("m")  # the selected one stays when another is selected
        app.selected = 4
        await pilot.pause(0.2)
        assert "0004 (cyan)" in seen(app)
        assert "0005 (green)" in seen(app)
        await pilot.press("plus", "minus", "left", "right", "up", "down", "r")
        await pilot.pause(0.1)
        await pilot.click("#plot", offset=(app.size.width // 2, 8))
        await pilot.pause(0.2)
        assert pane._cross is not None

    use(lab, size, script)


def test_lost_and_cut_points_are_marked(own):
    search(own, 2)
    with Store.open(own.store) as store:
        rows = np.array([[s, s * 10, np.nan if s == 3 else 4.0 / s, 1e-3, 1, 1, s] for s in range(1, 7)])
        store.drop_series("0002")
        store.append_series("0002", rows.astype(np.float32))
        found = store.get(2)
        evidence = msgspec.structs.replace(found.evidence, failure=CandidateState.PRUNED)
        ended = msgspec.structs.replace(found, state=CandidateState.PRUNED, evidence=evidence)
        store.put(ended, ("candidate_state", "pruned", {"state": "pruned"}))

    async def script(app, pilot) -> None:
        app.selected = 2
        await pilot.press("4")
        await pilot.pause(0.2)
        shown = seen(app)
        assert "1 not finite (!)" in shown
        assert "pruned (✗)" in shown
        assert "!" in shown.split("\n", 6)[6]

    use(own, SIZES[1], script)


def test_without_results_there_are_no_curves(own):
    async def script(app, pilot) -> None:
        await pilot.press("escape", "4", "full_stop", "a", "l", "m")
        await pilot.pause(0.2)
        assert "no curve" in seen(app)

    use(own, SIZES[0], script)
