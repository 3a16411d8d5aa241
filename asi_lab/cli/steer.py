"""Commands that steer a lab: pause, resume, stop, release; idea, pin, ban, rerun, tag, comment."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from asi_lab.cli.shared import existing, lab_option
from asi_lab.common.text import plain
from asi_lab.errors import UsageError

if TYPE_CHECKING:
    from asi_lab.events import Event
    from asi_lab.lab.commands import Action

_ID = click.IntRange(min=0)


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
    from asi_lab.lab import Store
    from asi_lab.view import remote, tables

    lab = existing()
    with remote.results(lab) as store:
        found = remote.find(lab, store, str(candidate))
    if found.state.value != "suspect":
        raise UsageError(f"candidate {candidate} is {found.state.value}; only suspect ones can be released.")
    if lab.engine_pid() is not None:
        _tell(remote.order(lab, "release", candidate))
        return
    with lab.locked(), Store.open(lab.store, create=False) as store:
        answer = control.release(store, candidate)
        store.append_events(("command", answer, {}))
    click.echo(plain(answer))
    click.echo(f"Start the search to have it scored: {tables.command(lab, '--no-tui')}", err=True)


@click.command()
@lab_option()
@click.argument("text", nargs=-1)
@click.option("--list", "listed", is_flag=True, help="List the ideas, and who took them up.")
def idea(text: tuple[str, ...], listed: bool) -> None:
    """Have the next planner take up TEXT; `-` reads it from stdin.

    Planners are language models. Without any the idea waits: the grammar cannot read.
    """
    from asi_lab.lab import steering
    from asi_lab.view import remote

    if not listed:
        words = " ".join(text)
        _steer("idea", None, sys.stdin.read() if words == "-" else words)
        return
    with remote.results(existing()) as store:
        ideas = steering.read(store).ideas if store else ()
    if not ideas:
        click.echo("No ideas were given yet: asi-lab idea TEXT", err=True)
    for one in ideas:
        state = "waits" if one.taken_by is None else f"candidate {one.taken_by}"
        click.echo(f"{one.id}  {state}  {plain(one.text)}")


@click.command()
@lab_option()
@click.argument("candidate", type=_ID, metavar="[ID]", required=False)
@click.option("--off", is_flag=True, help="Draw parents again.")
def pin(candidate: int | None, off: bool) -> None:
    """Have all new candidates descend from one, until it is unpinned."""
    if off == (candidate is not None):
        raise UsageError("name one candidate, such as asi-lab pin 42, or give --off.")
    _steer("unpin" if off else "pin", candidate)


@click.command()
@lab_option()
@click.argument("candidate", type=_ID, metavar="ID")
@click.option("--off", is_flag=True, help="Let it be drawn again.")
def ban(candidate: int, off: bool) -> None:
    """Draw a candidate neither as parent nor as reference any more."""
    _steer("unban" if off else "ban", candidate)


@click.command()
@lab_option()
@click.argument("candidate", type=_ID, metavar="ID")
def rerun(candidate: int) -> None:
    """Train and evaluate a candidate once more, with another seed.

    Its fitness stays that of its first run; `asi-lab show` tells the mean of all.
    """
    _steer("rerun", candidate)


@click.command()
@lab_option()
@click.argument("candidate", type=_ID, metavar="ID")
@click.argument("tags", nargs=-1, required=True)
@click.option("--off", is_flag=True, help="Remove the tags.")
def tag(candidate: int, tags: tuple[str, ...], off: bool) -> None:
    """Tag a candidate, for the table's filter and in git notes."""
    _steer("untag" if off else "tag", candidate, " ".join(tags))


@click.command()
@lab_option()
@click.argument("candidate", type=_ID, metavar="ID")
@click.argument("text", nargs=-1, required=True)
def comment(candidate: int, text: tuple[str, ...]) -> None:
    """Write a comment on a candidate, kept in git notes too."""
    _steer("comment", candidate, " ".join(text))


def _steer(action: Action, candidate: int | None, text: str = "") -> None:
    """Give an order and print its answer; exit status 1 where it cannot be heeded."""
    from asi_lab.view import remote

    if _tell(remote.steer(existing(), action, candidate, text)):
        click.get_current_context().exit(1)


def _tell(answer: Event | None) -> bool:
    """Print the engine's answer; returns whether it refused."""
    if answer is None:
        click.echo("Not taken yet: the engine is busy, and takes the order when it looks next.", err=True)
        return False
    click.echo(plain(answer.message, multiline=True))
    return bool(answer.data.get("refused"))


def _order(action: Action, meaning: str) -> None:
    """Send an order to the engine, say what it means and print the answer."""
    from asi_lab.view import remote

    lab = existing()
    click.echo(f"Process {remote.engine_pid(lab)}: {meaning}", err=True)
    _tell(remote.order(lab, action))
