"""The command that shows how pruning is calibrated."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from asi_lab.cli.shared import existing, json_option, lab_option, nothing_yet

if TYPE_CHECKING:
    from rich.console import RenderableType

    from asi_lab.scoring.pruning import Calibration
    from asi_lab.settings import Settings


@click.command()
@lab_option()
@json_option
def calibrate(as_json: bool) -> None:
    """How early stopping is calibrated: limits, false kills, compute saved.

    Figures are cross-validated over the lab's candidates that were trained to the end.
    """
    from asi_lab.scoring.pruning import Pruning
    from asi_lab.view import leaderboard, remote, tables

    lab = existing()
    settings = lab.settings()
    with remote.results(lab) as store:
        baselines = leaderboard.measured(settings, store.baselines()) if store else None
        if store is None or baselines is None:
            nothing_yet(lab)
            return
        found = Pruning(settings, store).calibration(baselines)
    if as_json:
        click.echo(tables.to_json({"in_force": found.in_force, "calibration": found}))
    else:
        tables.console().print(_shown(found, settings))


def _shown(found: Calibration, settings: Settings) -> RenderableType:
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=box.SIMPLE_HEAD, padding=(0, 2, 0, 0), pad_edge=False, show_edge=False)
    for heading in ("steps done", "share", "limit, noise floors", "stopped there"):
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
