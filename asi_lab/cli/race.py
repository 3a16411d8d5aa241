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
    "--seeds",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="Runs of each architecture.",
)
@click.option("--all", "everyone", is_flag=True, help="Race all references, not only the eight.")
@click.option("--list", "listing", is_flag=True, help="Name all references, and measure nothing.")
@click.option("--tune", is_flag=True, help="Race each also at its own best learning rate.")
@click.option(
    "--tuning-seeds",
    type=click.IntRange(min=3),
    default=3,
    show_default=True,
    help="Seeds that --tune finds the best rates with; they count nowhere else.",
)
@json_option
@click.pass_context
def race(
    ctx: click.Context,
    architectures: tuple[str, ...],
    preset: str | None,
    seed: int | None,
    seeds: int,
    everyone: bool,
    listing: bool,
    tune: bool,
    tuning_seeds: int,
    as_json: bool,
) -> None:
    """Train and evaluate reference architectures side by side: DeltaNet, Gated DeltaNet, Mamba-2 and the five
    discoveries of the ASI-ARCH paper, unless others are named; --list says which there are.

    Each is measured with several seeds as a candidate would be; differences are to the first one. Every run
    is kept in the lab as a baseline, so a race that is cut off goes on where it was, and one with more seeds
    adds them. The lab is made where there is none. A run that fails is told and left out, and the exit code
    is 1 then.

    With --tune each is first trained at half, one and two times the preset's learning rate, and up to two
    doublings further while the best lies at the edge. A rate within noise of the preset's is left for the
    preset's. Runs at other rates are no baselines.
    """
    from asi_lab.cli import headless
    from asi_lab.records import TUNING_SEED
    from asi_lab.scoring import references

    if seeds > TUNING_SEED:
        raise UsageError(
            f"--seeds: expected {TUNING_SEED} at most (those after are of tuning); found {seeds}."
        )
    known = references.names()
    if listing:
        click.echo("\n".join(known))
        return
    if unknown := [name for name in architectures if name not in known]:
        raise UsageError(f"{unknown[0]}: expected a reference architecture: {', '.join(known)}.")
    if everyone and architectures:
        raise UsageError("--all: does not go with names, which say who races.")
    lab = current_lab()
    prepare(lab, preset, seed)
    chosen = architectures or (known if everyone else references.EIGHT)
    ctx.exit(headless.race(lab, chosen, seeds, tuning_seeds if tune else 0, as_json))
