"""Labs that real engines have searched with simulated trials, and an application to look at them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from asi_lab.engine import Engine
from asi_lab.lab import Lab
from asi_lab.llm.scripted import Scripted
from asi_lab.tui.app import LabApp
from tests import night, simulated_engine

SIZES = [(80, 24), (160, 45)]
EACH_SIZE = [SIZES[0], pytest.param(SIZES[1], marks=pytest.mark.slow)]
"""For tests that are much the same at both: the larger one among the slow tests."""

SETTINGS = "[baselines]\nseeds = 2\nmax_seeds = 2\n"
MODELS = '[agents]\nmodels = ["openai:night"]\ncontrol = 0.0\nahead = 0\n'
HOSTILE = "x [/b] [red]boo[/red] \x1b[31mESC\x1b]0;title\x07 \u202e rtl \0 {{code}} $PATH"


def fresh(folder: Path, more: str = "") -> Lab:
    """A lab that nothing was searched in."""
    return simulated_engine.make_lab(folder, SETTINGS + more, seed=1)


def search(lab: Lab, experiments: int) -> None:
    """Search without language models."""
    executor = simulated_engine.SimulatedExecutor(0.001)
    Engine(lab, simulated_engine.Silent(), executor).search(experiments, None)


def search_with_models(lab: Lab, experiments: int) -> None:
    """Search with a scripted language model."""
    model = night.Night()

    def connected(name: str) -> Scripted:
        return Scripted(lambda messages, call: model(messages), name)

    executor = simulated_engine.SimulatedExecutor(0.001)
    Engine(lab, simulated_engine.Silent(), executor, connected).search(experiments, None)


def use(lab: Lab, size: tuple[int, int], script: Callable[..., Any], **options: Any) -> None:
    """Run a script on an application of that size."""

    async def run() -> None:
        app = LabApp(lab, **options)
        async with app.run_test(size=size) as pilot:
            await until(pilot, lambda: app.snapshot is not None)
            await script(app, pilot)

    asyncio.run(run())


async def until(pilot: Any, true: Callable[[], object], seconds: float = 10.0) -> None:
    """Wait for something to come true."""
    for _ in range(int(seconds / 0.05)):
        await pilot.pause(0.05)
        if true():
            return
    raise AssertionError("it did not come true")


def seen(app: LabApp) -> str:
    """What is on the screen, as text."""
    strips = app.screen._compositor.render_strips(app.size)
    return "\n".join("".join(segment.text for segment in strip).rstrip() for strip in strips)


def told(app: LabApp) -> list[str]:
    """What the user was told here."""
    return [notice.message for notice in app.notices]


def toasts(app: LabApp) -> list[str]:
    """What pops up from now on; it grows."""
    popped: list[str] = []
    notify = app.notify

    def also(message: str, **options: Any) -> None:
        popped.append(message)
        notify(message, **options)

    app.notify = also  # type: ignore[method-assign]
    return popped
