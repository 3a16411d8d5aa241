"""Commands that look at a lab: status, watch, top, show, replay, diff, log."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from asi_lab.cli.shared import existing, json_option, lab_option, nothing_yet
from asi_lab.errors import UsageError

if TYPE_CHECKING:
    from asi_lab.lab import Lab

_NO_TALK = "candidate {}: no language model was asked for it, so there is no transcript."


@click.command()
@lab_option()
@json_option
@click.option("--once", is_flag=True, help="Print once instead of refreshing until Ctrl+C.")
def status(as_json: bool, once: bool) -> None:
    """What the lab is doing, and how far it came."""
    from asi_lab.view import remote, status, tables

    lab = existing()
    settings, console = lab.settings(), tables.console()

    def look() -> status.Status:
        with remote.results(lab) as store:
            return status.read(lab, settings, store)

    if as_json:
        click.echo(tables.to_json(look()))
    elif once or not console.is_terminal:
        console.print(tables.status(look()))
    else:
        from rich.live import Live

        try:
            with Live(tables.status(look()), console=console, auto_refresh=False) as live:
                while True:
                    time.sleep(1)
                    live.update(tables.status(look()), refresh=True)
        except KeyboardInterrupt:
            return


@click.command()
@lab_option()
@json_option
@click.option(
    "-n",
    "count",
    type=click.IntRange(min=0),
    default=10,
    show_default=True,
    help="Events before those to come.",
)
@click.option("--until-stopped", is_flag=True, help="End with the engine instead of going on until Ctrl+C.")
def watch(as_json: bool, count: int, until_stopped: bool) -> None:
    """Print what happens, line by line, as it happens."""
    from asi_lab.view import remote, status, tables
    from asi_lab.view.news import News

    lab = existing()
    settings, console = lab.settings(), tables.console()
    watched = News(count)
    try:
        while True:
            with remote.results(lab) as store:
                news = watched.look(store) if store else []
                engine = status.read(lab, settings, store, known=((), None)).engine
            for event in news:
                if as_json:
                    click.echo(tables.to_json(event, indent=None))
                else:
                    console.print(tables.event_line(event), soft_wrap=True)
            sys.stdout.flush()
            if watched.told(engine.words) and not as_json:
                click.echo(f"engine: {engine.words}", err=True)
            if until_stopped and not engine.is_there:
                return
            time.sleep(1)
    except KeyboardInterrupt:
        return


@click.command()
@lab_option()
@click.option("-n", "count", type=click.IntRange(min=1), default=10, show_default=True, help="Rows.")
@json_option
def top(count: int, as_json: bool) -> None:
    """The leaderboard, with its noise."""
    from asi_lab.view import leaderboard, remote, tables

    lab = existing()
    settings, console = lab.settings(), tables.console()
    with remote.results(lab) as store:
        board = leaderboard.read(store, settings) if store else None
    if as_json:
        click.echo(tables.board_json(board, count))
    elif board is None:
        nothing_yet(lab)
    else:
        console.print(tables.leaderboard(board, count, console.width))


@click.command()
@lab_option()
@click.argument("candidate")
@json_option
@click.option("--code", is_flag=True, help="Include the source of architecture.py.")
@click.option("--transcript", "talk", is_flag=True, help="Show what its roles and language models said.")
def show(candidate: str, as_json: bool, code: bool, talk: bool) -> None:
    """All about CANDIDATE: an id such as 42, or best."""
    from asi_lab.view import leaderboard, page, remote, tables

    lab = existing()
    console = tables.console()
    if talk:
        _show_talk(lab, candidate, as_json)
        return
    with remote.results(lab) as store:
        found = remote.find(lab, store, candidate)
        board = leaderboard.read(store, lab.settings()) if store else None
        known = page.dossier(found, store, lab.settings(), board) if store else page.Dossier(found)
    if as_json:
        click.echo(page.as_json(found, code))
        return
    console.print(page.page(known, tables.shown(lab.lineage)))
    if code and found.proposal is not None:
        console.print(page.code(found.proposal.code, console), soft_wrap=True)


def _show_talk(lab: Lab, candidate: str, as_json: bool) -> None:
    """What was said on a candidate, also on one that is only being planned, and what is being said."""
    from asi_lab.view import remote, status, tables
    from asi_lab.view.transcript import recorded, transcript

    with remote.results(lab) as store:
        number = int(candidate) if candidate.isdecimal() else remote.find(lab, store, candidate).id
        exchanges = recorded(store, number) if store else []
        talks = [t for t in status.read(lab, lab.settings(), store).talks if t.candidate == number]
        if not exchanges and not talks:
            remote.find(lab, store, candidate)  # there may be no such candidate
    if as_json:
        click.echo(tables.to_json(exchanges))
    elif exchanges or talks:
        tables.console().print(transcript(exchanges, talks), soft_wrap=True)
    else:
        click.echo(_NO_TALK.format(number), err=True)


@click.command()
@lab_option()
@click.argument("candidate")
@json_option
@click.pass_context
def replay(ctx: click.Context, candidate: str, as_json: bool) -> None:
    """Run CANDIDATE's roles again from its transcript, without a model.

    Exit status 1 says that what comes out is not what its record has.
    """
    from asi_lab.view import remote, tables, transcript
    from asi_lab.view.replay import replay

    lab = existing()
    with remote.results(lab) as store:
        found = remote.find(lab, store, candidate)
        exchanges = transcript.recorded(store, found.id) if store else []
        parent = remote.find(lab, store, str(found.parent)) if found.parent is not None else None
    if parent is None:
        raise UsageError(
            f"candidate {found.id} is the seed: no role wrote it, so there is nothing to replay."
        )
    if not exchanges:
        raise UsageError(_NO_TALK.format(found.id))
    outcomes = replay(found, parent, exchanges)
    if as_json:
        click.echo(tables.to_json(outcomes))
    else:
        tables.console().print(transcript.outcomes(outcomes))
    ctx.exit(1 if any(outcome.agrees is False for outcome in outcomes) else 0)


@click.command()
@lab_option()
@click.argument("before", metavar="A")
@click.argument("after", metavar="[B]", required=False)
def diff(before: str, after: str | None) -> None:
    """The code's change from A to B.

    A and B are ids or best. With A alone: the change from its parent to A.
    """
    from asi_lab.lab import Lineage
    from asi_lab.view import remote, tables

    lab = existing()
    with remote.results(lab) as store:
        old = remote.find(lab, store, before)
        if after is None and old.parent is None:
            raise UsageError(f"candidate {old.id} is the seed and has no parent: name two candidates.")
        new = old if after is None else remote.find(lab, store, after)
        old = remote.find(lab, store, str(old.parent)) if after is None else old
    for candidate in (old, new):
        if candidate.commit is None:
            state = candidate.state.value
            code = tables.command(lab, f"show {candidate.id} --code")
            raise UsageError(
                f"candidate {candidate.id} is not committed ({state}). Read its code with: {code}"
            )
    console = tables.console()
    coloured = console.is_terminal and not console.no_color
    click.echo(Lineage.open(lab.lineage).diff(old.sha, new.sha, coloured).rstrip("\n"), color=coloured)


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@lab_option()
@click.argument("arguments", metavar="[GIT LOG ARGUMENTS]...", nargs=-1, type=click.UNPROCESSED)
def log(arguments: Sequence[str]) -> None:
    """The lineage, through git log.

    Arguments go to git; by default it draws a graph of all branches. On a terminal $PAGER shows it.
    """
    from asi_lab.lab import Lineage
    from asi_lab.view import tables

    lab = existing()
    if not lab.lineage.exists():
        nothing_yet(lab)
        return
    console = tables.console()
    coloured = console.is_terminal and not console.no_color
    arguments = arguments or ("--graph", "--branches", "--oneline", "--decorate")
    lines = Lineage.open(lab.lineage).log(arguments, coloured)
    if console.is_terminal:
        click.echo_via_pager(lines, color=coloured)
        return
    for line in lines:
        click.echo(line, nl=False)
