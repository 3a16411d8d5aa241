"""`asi-lab fetch`: get what a lab takes from the network, before a night without one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from asi_lab.cli.shared import existing, lab_option

if TYPE_CHECKING:
    from asi_lab.lab import Lab
    from asi_lab.lab.rungs import Rung
    from asi_lab.protocol import TaskData


@click.command()
@lab_option()
@click.option("--check", "only_look", is_flag=True, help="Download nothing; say what is there.")
@click.pass_context
def fetch(ctx: click.Context, only_look: bool) -> None:
    """Get text, tokenizer and data sets beforehand; say what is missing.

    After it a search needs no network, but for language models. The exit status is 1 where something is
    missing.
    """
    ctx.exit(0 if all_of(existing(), download=not only_look) else 1)


def all_of(lab: Lab, *, download: bool) -> bool:
    """Get or look at all that a lab takes from the network, at all scales of its claims, a line for each;
    returns whether it is there.

    Raises:
        ConfigError: a scale that is named is none.
        DataError: lm-eval knows no task of a name.
    """
    from asi_lab.data import suites
    from asi_lab.lab import choice, rungs
    from asi_lab.view import tables

    settings = lab.settings()
    found_rungs = rungs.of_lab(lab, settings)
    texts = [_text(rung, download) for rung in found_rungs]
    whole = all(texts)
    wanted = [(*rung.settings.evaluate.tasks, *rung.settings.verify.tasks) for rung in found_rungs]
    names = suites.of_lm_eval(tuple(dict.fromkeys(name for tasks in wanted for name in tasks)))
    for found in choice.look(names, choice.copies(settings, lab.path), _nothing, download=download):
        whole &= not found.why
        click.echo(_line(found))
        if found.why and download:
            click.echo(f"         {found.why}", err=True)
    if not whole:
        command = tables.command(lab, "fetch")
        click.echo(f"Get what is missing where there is a network: {command}", err=True)
    return whole


def _text(rung: Rung, download: bool) -> bool:
    """Whether the text of a scale is there in tokens, with its tokenizer."""
    import msgspec

    from asi_lab.common.process import run_module
    from asi_lab.data.manifest import MANIFEST_FILE
    from asi_lab.errors import DataError

    data, why = rung.settings.data, ""
    what = f"text and tokenizer of {rung.title}: {data.source}, {data.tokenizer}"
    if download:
        click.echo(f"Preparing data of {rung.title}: {data.source}, {data.tokenizer}", err=True)
        try:
            arguments = [str(rung.data), msgspec.json.encode(data).decode()]
            for warning in run_module("asi_lab.data.prepare", arguments, _nothing):
                click.echo(warning, err=True)
        except DataError as error:
            why = str(error)
    there = not why and (rung.data / MANIFEST_FILE).exists()
    if not (download or there or data.source.startswith("hf:") or data.tokenizer == "gpt2"):
        click.echo(f"there    made here   {what}")
        return True
    size = sum(file.stat().st_size for file in rung.data.iterdir() if file.is_file()) if there else None
    click.echo(f"{_verdict(there)}  {_size(size):>10}  {what}")
    if why:
        click.echo(f"         {why}", err=True)
    return there


def _line(found: TaskData) -> str:
    """What there is of a task's data sets. Of those that are missing the hub is asked for the size."""
    from asi_lab.data import hub

    size = found.bytes
    if found.why:
        sizes = [hub.size_of(name.partition(" ")[0]) for name in found.datasets]
        size = None if not sizes or None in sizes else sum(one or 0 for one in sizes)
    places = ", ".join(found.datasets) or "no data set"
    return f"{_verdict(not found.why)}  {_size(size):>10}  {found.task}: {places}"


def _verdict(there: bool) -> str:
    return "there  " if there else "missing"


def _size(size: int | None) -> str:
    return "size ?" if size is None else f"{size / 1e6:,.1f} MB"


def _nothing() -> None:
    """Nobody waits for this command."""
