"""Commands that steer a running engine: pause, resume, stop."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from asi_lab.cli.shared import existing, lab_option

if TYPE_CHECKING:
    from asi_lab.commands import Action


@click.command()
@lab_option()
def pause() -> None:
    """Pause after the running candidate."""
    _order("pause", "The engine waits once the running candidate is finished.")


@click.command()
@lab_option()
def resume() -> None:
    """Let a paused engine go on."""
    _order("resume", "The engine goes on.")


@click.command()
@lab_option()
@click.option("--now", is_flag=True, help="Cut the running trial off; it starts over with the next search.")
def stop(now: bool) -> None:
    """End the search after the running candidate."""
    if now:
        _order("stop_now", "The engine ends at once; the running trial starts over with the next search.")
    else:
        _order("stop", "The engine ends once the running candidate is finished.")


def _order(action: Action, meaning: str) -> None:
    """Send an order to the engine, say what it means and print the answer."""
    from asi_lab.view import remote

    lab = existing()
    click.echo(f"Process {remote.engine_pid(lab)}: {meaning}", err=True)
    answer = remote.order(lab, action)
    if answer is None:
        click.echo("Not taken yet: the engine is busy, and takes the order when it looks next.", err=True)
    else:
        click.echo(answer)
