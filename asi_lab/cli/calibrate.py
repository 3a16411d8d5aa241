"""The command that shows how pruning is calibrated, and what the tasks are worth."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from asi_lab.cli.shared import existing, json_option, lab_option, nothing_yet

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from asi_lab.scoring.pruning import Calibration
    from asi_lab.scoring.worth import Worth
    from asi_lab.settings import Settings


@click.command()
@lab_option()
@click.option("--tasks", is_flag=True, help="What each task is worth: does it tell architectures apart?")
@json_option
def calibrate(tasks: bool, as_json: bool) -> None:
    """How early stopping is calibrated: limits, false kills, compute saved.

    Figures are cross-validated over the lab's candidates that were trained to the end. With --tasks: how much
    the references of the lab differ in each task, against what their seeds differ by.
    """
    if tasks:
        _tasks(as_json)
        return
    from asi_lab.scoring.baselines import Baselines
    from asi_lab.scoring.pruning import Pruning
    from asi_lab.view import remote, tables

    lab = existing()
    settings = lab.settings()
    with remote.results(lab) as store:
        baselines = Baselines.measured(settings, store.baselines()) if store else None
        if store is None or baselines is None:
            nothing_yet(lab)
            return
        found = Pruning(settings, store).calibration(baselines)
    if as_json:
        click.echo(tables.to_json({"in_force": found.in_force, "calibration": found}))
    else:
        tables.console().print(_shown(found, settings))


def _tasks(as_json: bool) -> None:
    from asi_lab.scoring import worth
    from asi_lab.view import remote, tables

    lab = existing()
    with remote.results(lab) as store:
        runs = store.baselines() if store else []
    if not runs:
        nothing_yet(lab)
        return
    found = worth.of_tasks(runs)
    if as_json:
        click.echo(tables.to_json(found))
    else:
        tables.console().print(_worth(found, tables.command(lab, "race")))


def _worth(found: Sequence[Worth], race: str) -> RenderableType:
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from asi_lab.common.text import plain
    from asi_lab.scoring.worth import ACCURACY, LEAST_RATIO

    if not found:
        return Text(f"Two references with two runs each are needed. Measure them: {race}")
    shown = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    shown.add_column("task", no_wrap=True, overflow="ellipsis")
    for heading in (
        "sd of\none run",
        "sd between\narchitectures",
        "ratio",
        "decided\nby a seed",
        "chance",
        "s",
    ):
        shown.add_column(heading, justify="right", no_wrap=True)
    for one in found:
        ratio = "" if one.ratio is None else f"{one.ratio:.1f}{'!' if one.tells_little else ' '}"
        chance = "" if one.chance is None else f"{one.chance:.3f}"
        seconds = "" if one.seconds is None else f"{one.seconds:.1f}"
        cells = f"{one.between_seeds:.4f}", f"{one.between:.4f}", ratio, f"{one.decided:.0%}", chance, seconds
        accuracy = one.score_name == ACCURACY
        name = f"  {ACCURACY}" if accuracy else plain(one.task)
        shown.add_row(name, *cells, style="dim" if accuracy or one.tells_little else "")
    first = found[0]
    words = (
        f"{first.architectures} references, {first.runs} runs. The sd between architectures is that of "
        "their means, without what seeds alone make of it. Decided: pairs that one seed orders as the mean "
        f"of the others does; 50% is chance. ! marks what differs by less than {LEAST_RATIO:g} sd of a run: "
        "it tells seeds, rather than architectures. Below each task stands its accuracy, which enters no "
        "score. s: seconds of one run, a probe's training included.\n"
        f"More references and seeds: {race}"
    )
    return Group(shown, Text(), Text(words))


def _shown(found: Calibration, settings: Settings) -> RenderableType:
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=box.SIMPLE_HEAD, padding=(0, 2, 0, 0), pad_edge=False, show_edge=False)
    for heading in ("steps done", "share", "limit, noise\nfloors over DeltaNet", "stopped there"):
        shown.add_column(heading, justify="right")
    for step, limit in found.limits.items():
        share = f"{step / settings.train.steps:.0%}"
        shown.add_row(str(step), share, f"{limit:+.1f}", str(found.stopped.get(step, 0)))
    stopped = sum(found.stopped.values())
    words = (
        f"{found.runs} candidates trained to the end; {found.good} are good: the top quarter by fitness.\n"
        f"Cross-validated: {stopped} stopped early, {found.saved:.0%} of all training steps saved, "
        f"{found.kills} of {found.good} good ones stopped. That is at most {found.bound:.1%} with 95 % "
        f"confidence; {found.allowed:.1%} is allowed."
    )
    table: list[RenderableType] = [shown, Text()] if found.limits else []
    return Group(*table, Text(words), Text(_verdict(found, settings), "bold"))


def _verdict(found: Calibration, settings: Settings) -> str:
    if not settings.supervise.prune:
        return "Pruning is switched off (supervise.prune in lab.toml)."
    if found.in_force:
        spared = settings.supervise.spared
        return (
            f"Pruning is in force; {spared:.0%} of the candidates are spared, to go on measuring false kills."
        )
    return "Pruning is not in force: more candidates are needed before it can be trusted."
