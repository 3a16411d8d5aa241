"""Commands that make a lab and look after it: init, config, doctor, fsck, completion."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

import click

from asi_lab.cli import fetch
from asi_lab.cli.shared import (
    create,
    create_from,
    current_lab,
    existing,
    json_option,
    lab_option,
    nothing_yet,
    preset_option,
    seed_option,
)
from asi_lab.errors import UsageError


@click.command()
@lab_option()
@preset_option
@seed_option
@click.option(
    "--from",
    "origin",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Begin with the best architectures of another lab, under its settings.",
)
@click.option(
    "--best", "count", type=click.IntRange(min=1), default=10, show_default=True, help="How many of them."
)
@click.option("--fetch", "fetching", is_flag=True, help="Then fetch what it needs, as asi-lab fetch does.")
@click.pass_context
def init(
    ctx: click.Context, preset: str | None, seed: int | None, origin: Path | None, count: int, fetching: bool
) -> None:
    """Make a lab with a commented lab.toml."""
    from asi_lab.view import tables

    lab = current_lab()
    if origin is None:
        create(lab, preset, seed)
    else:
        create_from(lab, origin, count, preset, seed)
    whole = fetch.all_of(lab, download=True) if fetching else True
    settings = tables.shown(lab.config)
    click.echo(f"Change {settings} as you like, then: {tables.command(lab, '--no-tui')}", err=True)
    ctx.exit(0 if whole else 1)


@click.group()
def config() -> None:
    """Show or check the lab's settings."""


@config.command("show")
@lab_option()
@click.option("--first", is_flag=True, help="The lab.toml with which the search began.")
def config_show(first: bool) -> None:
    """All settings as they apply, with comments."""
    from asi_lab.lab import config, meta
    from asi_lab.view import remote

    lab = existing()
    if not first:
        click.echo(config.render(lab.settings()), nl=False)
        return
    with remote.results(lab) as store:
        text = meta.CONFIG.read(store) if store else None
    if text is None:
        raise UsageError("the search has not begun, so there is no first configuration yet.")
    click.echo(text, nl=False)


@config.command("validate")
@lab_option()
def config_validate() -> None:
    """Check lab.toml and the scales that it names, also against what the lab began with."""
    from asi_lab.lab import meta, rungs
    from asi_lab.lab.directory import check_unchanged
    from asi_lab.view import remote

    lab = existing()
    settings = lab.settings()
    with remote.results(lab) as store:
        text = meta.CONFIG.read(store) if store else None
    rungs.of_lab(lab, settings)
    if text is not None:
        check_unchanged(settings, text)
    click.echo(f"{lab.config}: fine.", err=True)


@click.command()
@lab_option()
@json_option
@preset_option
@click.option("--pull", is_flag=True, help="First have Ollama pull the models that lab.toml names.")
@click.pass_context
def doctor(ctx: click.Context, as_json: bool, preset: str | None, pull: bool) -> None:
    """Check machine and lab, with a fix for each finding, and what a search will need.

    With --preset: what a search in a new lab of that preset would need.
    """
    from asi_lab.view import doctor, models, tables

    if pull:
        models.pull(existing(), lambda step: click.echo(step, err=True))
    findings = doctor.examine(current_lab(), preset)
    if as_json:
        click.echo(tables.to_json({"ok": doctor.is_fit(findings), "checks": findings}))
    else:
        tables.console().print(doctor.table(findings))
    ctx.exit(0 if doctor.is_fit(findings) else 1)


@click.command()
@lab_option()
@click.option("--repair", is_flag=True, help="Put right what is found; nothing is ever deleted.")
@click.pass_context
def fsck(ctx: click.Context, repair: bool) -> None:
    """Check that store and git lineage say the same."""
    from asi_lab.common.text import plain
    from asi_lab.lab import Store, fsck, meta
    from asi_lab.scoring import references

    lab = existing()
    if not lab.has_results():
        nothing_yet(lab)
        return
    if not repair and lab.engine_pid() is not None:
        click.echo("An engine is at work; what it just writes may show as a difference.", err=True)
    with ExitStack() as stack:
        if repair:
            stack.enter_context(lab.locked())
        opened = Store.open(lab.store, create=False) if repair else Store.open_readonly(lab.store)
        store = stack.enter_context(opened)
        config_text = meta.CONFIG.read(store) or ""
        examine = fsck.repair if repair else fsck.check
        findings = examine(store, lab.lineage, config_text, [references.upper()])
    for finding in findings:
        done = "repaired: " if finding.repaired else ""
        click.echo(f"{done}{plain(finding.subject)}: {plain(finding.message)}")
    left = sum(not finding.repaired for finding in findings)
    if left and not repair:
        click.echo("Put right what can be with: asi-lab fsck --repair", err=True)
    elif not findings:
        click.echo("Store and lineage agree.", err=True)
    ctx.exit(1 if left else 0)


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]), required=False)
def completion(shell: str | None) -> None:
    """Print a shell's completion script.

    Without SHELL, the shell is that of $SHELL.
    For bash: eval "$(asi-lab completion bash)" in ~/.bashrc.
    """
    from click.shell_completion import get_completion_class

    shell = shell or Path(os.environ.get("SHELL", "")).name
    kind = get_completion_class(shell)
    if kind is None:
        raise UsageError(f"expected bash, zsh or fish; found {shell or 'no $SHELL'}.")
    click.echo(
        kind(click.get_current_context().find_root().command, {}, "asi-lab", "_ASI_LAB_COMPLETE").source()
    )
