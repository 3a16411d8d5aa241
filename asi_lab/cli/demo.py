"""The command demo: a packaged recording of a real search, in the terminal UI."""

from __future__ import annotations

import sys

import click

from asi_lab.errors import UsageError


@click.command()
@click.option("--ascii", "ascii_only", is_flag=True, help="Draw with ASCII alone.")
@click.option("--path", "only_path", is_flag=True, help="Print where the recorded lab lies, and end.")
@click.pass_context
def demo(ctx: click.Context, ascii_only: bool, only_path: bool) -> None:
    """Play a recorded search in the terminal UI: nothing is trained.

    It is a real search at the preset micro, made by this program; p holds it, ( and ) change its speed. The
    other commands work on its lab too: asi-lab --lab "$(asi-lab demo --path)" top.
    """
    from asi_lab import tui
    from asi_lab.tui import recorded

    if only_path:
        click.echo(recorded.unpacked().path)
        return
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("The demo needs a terminal. Its lab without one: asi-lab demo --path")
    lab = recorded.unpacked()
    ctx.exit(tui.run(lab, replay=True, ascii_only=ascii_only, title=recorded.title()))
