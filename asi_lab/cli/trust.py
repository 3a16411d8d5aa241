"""The command that grants a lab what it asks for."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from asi_lab.cli.shared import current_lab, json_option, lab_option
from asi_lab.errors import ConsentError, UsageError

if TYPE_CHECKING:
    from asi_lab.consent import Asked

_DIGITS = 12
"""Of a hash, as it is shown."""


@click.command()
@lab_option()
@click.argument("folder", metavar="[LAB]", required=False, type=click.Path(path_type=Path, file_okay=False))
@click.option("--yes", is_flag=True, help="Grant it without asking.")
@json_option
def trust(folder: Path | None, yes: bool, as_json: bool) -> None:
    """Show what a lab would run and where it would send keys, and grant it.

    A lab is data, wherever it comes from, but for four things: code of its own task folders, candidates
    without a sandbox, servers of its own that an API key is sent to, and files of another user. Nothing of
    it happens before it is granted here. Grants are kept outside of labs: task code by its hash, so that
    changed code asks again; keys by server. With --json it only shows.
    """
    from asi_lab import consent
    from asi_lab.lab import Lab
    from asi_lab.view import tables

    lab = Lab(folder) if folder is not None else current_lab()
    if not lab.exists:
        raise UsageError(f"{lab.path}: expected a lab; found none.")
    asked = consent.asked(lab, lab.settings())
    if as_json:
        click.echo(tables.to_json(asked))
        return
    if asked.nothing:
        click.echo(f"{lab.path} asks for nothing that is not granted.", err=True)
        return
    _show(asked)
    if not yes:
        if not sys.stdin.isatty():
            raise ConsentError("Nothing was granted: there is no terminal to ask on. Look, then add --yes.")
        if not click.confirm("Grant all of this?", default=False, err=True):
            raise ConsentError("Nothing was granted.")
    consent.grant(asked)
    click.echo("Granted.", err=True)


def _show(asked: Asked) -> None:
    from asi_lab.common.text import one_line, plain

    if asked.owner is not None:
        click.echo(f"files of another user, number {asked.owner}: {one_line(asked.lab)}")
    if asked.unconfined:
        click.echo(f"candidates run without a sandbox, as you: {one_line(asked.lab)}")
    for code in asked.tasks:
        click.echo(f"task code in {one_line(code.folder)}, run outside of the sandbox:")
        for reason in code.reasons:
            click.echo(f"  because of {plain(reason)}")
        for name, digest in code.files.items():
            click.echo(f"  {digest[:_DIGITS]}  {one_line(name)}")
    for key in asked.keys:
        click.echo(f"the key in {key.variable} sent to {plain(key.origin)}")
