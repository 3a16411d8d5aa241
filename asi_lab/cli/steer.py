"""Commands that steer a lab: pause, resume, stop, release."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from asi_lab.cli.shared import existing, lab_option
from asi_lab.errors import UsageError

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


@click.command()
@lab_option()
@click.argument("candidate", type=click.IntRange(min=1), metavar="ID")
def release(candidate: int) -> None:
    """Let a suspect candidate in after all.

    Its loss was too far under the baseline's to be believed, though no check found a leak. Read its code
    (asi-lab show ID --code) before you do.
    """
    from asi_lab import control
    from asi_lab.store import Store
    from asi_lab.view import remote, tables

    lab = existing()
    with remote.results(lab) as store:
        found = remote.find(lab, store, str(candidate))
    if found.state.value != "suspect":
        raise UsageError(f"candidate {candidate} is {found.state.value}; only suspect ones can be released.")
    if lab.engine_pid() is not None:
        click.echo(remote.order(lab, "release", candidate) or "Not taken yet: the engine is busy.")
        return
    with lab.locked(), Store.open(lab.store, create=False) as store:
        click.echo(control.release(store, candidate))
    click.echo(f"Start the search to have it scored: {tables.command(lab, '--no-tui')}", err=True)


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
