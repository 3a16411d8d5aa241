"""Options and first steps that commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from asi_lab.errors import UsageError

if TYPE_CHECKING:
    from asi_lab.lab import Lab

_LAB = "asi_lab.lab"


def _remember(ctx: click.Context, _: click.Parameter, value: Path | None) -> None:
    if value is not None:
        ctx.meta[_LAB] = value


def lab_option(envvar: str | None = None) -> Callable[[Any], Any]:
    """`--lab`, which may stand before and after a command; the later one counts."""
    return click.option(
        "--lab",
        type=click.Path(path_type=Path, file_okay=False),
        envvar=envvar,
        callback=_remember,
        expose_value=False,
        help="The lab's directory; ./lab by default.",
    )


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
preset_option = click.option("--preset", help="micro (default), mini, 20m, 340m or 1.3b.")
seed_option = click.option("--seed", type=click.IntRange(min=0), help="Seed of everything random.")


def current_lab() -> Lab:
    """The lab that `--lab`, `ASI_LAB` or the default names."""
    from asi_lab.lab import Lab

    return Lab(click.get_current_context().meta.get(_LAB, Path("lab")))


def existing() -> Lab:
    """The lab, which must exist."""
    from asi_lab.view import tables

    lab = current_lab()
    if not lab.exists:
        raise UsageError(
            f"{lab.path}: expected a lab; found none. Make one with: {tables.command(lab, 'init')}"
        )
    return lab


def create(lab: Lab, preset: str | None, seed: int | None) -> None:
    """Make a lab and say so."""
    from asi_lab.lab import config

    lab.create(config.from_preset(preset or config.DEFAULT_PRESET, seed=seed or 0))
    click.echo(
        f"Made a lab in {lab.path} (preset {preset or config.DEFAULT_PRESET}, seed {seed or 0}).", err=True
    )


def create_from(lab: Lab, origin: Path, count: int, preset: str | None, seed: int | None) -> None:
    """Make a lab that begins with the best of another one, and say so.

    Raises:
        UsageError: the other is no lab with results, or another preset is asked for.
    """
    import msgspec

    from asi_lab.common import disk
    from asi_lab.errors import DiskError
    from asi_lab.lab import Lab, imports
    from asi_lab.view import remote

    other = Lab(origin)
    if not other.exists:
        raise UsageError(f"--from {origin}: expected a lab; found none.")
    if preset is not None:
        raise UsageError("--preset: goes not with --from, which takes the settings of the other lab.")
    settings = other.settings()
    with remote.results(other) as store:
        proposals = imports.best_of(store, count, origin.name) if store is not None else []
    if not proposals:
        raise UsageError(f"--from {origin}: expected a lab with scored candidates; found none.")
    lab.create(msgspec.structs.replace(settings, seed=settings.seed if seed is None else seed))
    try:
        imports.write(lab.path, proposals)
    except OSError as error:
        raise DiskError(disk.explain(error, lab.path)) from None
    click.echo(f"Made a lab in {lab.path} that begins with the {len(proposals)} best of {origin}.", err=True)


def prepare(lab: Lab, preset: str | None, seed: int | None) -> None:
    """Make the lab where there is none; an existing one must be what was asked for."""
    if not lab.exists:
        create(lab, preset, seed)
        return
    settings = lab.settings()
    for name, asked, found in (("preset", preset, settings.preset), ("seed", seed, settings.seed)):
        if asked is not None and asked != found:
            raise UsageError(
                f"--{name} {asked}: the lab at {lab.path} has {name} {found}. Leave the option out, or make "
                "another lab with --lab."
            )


def nothing_yet(lab: Lab) -> None:
    """Say that there are no results yet, and how to get some."""
    from asi_lab.view import tables

    click.echo(f"No results yet. Start the search: {tables.command(lab, '--no-tui')}", err=True)
