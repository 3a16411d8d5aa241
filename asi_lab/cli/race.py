"""The command race: reference architectures measured side by side."""

from __future__ import annotations

import click

from asi_lab.cli.shared import current_lab, json_option, lab_option, prepare, preset_option, seed_option
from asi_lab.errors import UsageError


@click.command()
@click.argument("architectures", nargs=-1, metavar="[ARCHITECTURE]...")
@lab_option()
@preset_option
@seed_option
@click.option(
    "--seeds", type=click.IntRange(min=1), default=5, show_default=True, help="Runs of each architecture."
)
@json_option
@click.pass_context
def race(
    ctx: click.Context,
    architectures: tuple[str, ...],
    preset: str | None,
    seed: int | None,
    seeds: int,
    as_json: bool,
) -> None:
    """Train and evaluate reference architectures side by side, all of them by default.

    Each is measured with several seeds as a candidate would be; differences are to the first one. Every run
    is kept in the lab as a baseline, so a race that is cut off goes on where it was, and one with more seeds
    adds them. The lab is made where there is none.
    """
    from asi_lab.cli import headless
    from asi_lab.scoring import references

    known = references.names()
    if unknown := [name for name in architectures if name not in known]:
        raise UsageError(f"{unknown[0]}: expected a reference architecture: {', '.join(known)}.")
    lab = current_lab()
    prepare(lab, preset, seed)
    ctx.exit(headless.race(lab, architectures or known, seeds, as_json))
