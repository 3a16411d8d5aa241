"""Commands of stage two: verify, which makes the runs that claims need, and verdicts, which shows them."""

from __future__ import annotations

import click

from asi_lab.cli.shared import existing, json_option, lab_option, nothing_yet


@click.command()
@click.argument("candidates", nargs=-1, type=click.IntRange(min=1), metavar="[ID]...")
@lab_option()
@click.option("--rung", metavar="SCALE", help="At this scale alone: the lab's preset or one of verify.rungs.")
@click.option("--hours", type=click.FloatRange(min=0, min_open=True), help="Begin no run after so long.")
@json_option
@click.pass_context
def verify(
    ctx: click.Context, candidates: tuple[int, ...], rung: str | None, hours: float | None, as_json: bool
) -> None:
    """Promote candidates, and find out by fresh runs whether they are better than the bar.

    The bar is the lab's best reference. It and each candidate are tuned first, then run with fresh seeds and
    fresh orders of the data, and measured on text that the search never reads. How many runs that takes is
    the procedure's: a candidate is dropped early only where it has no chance, and else has twelve. Claims
    that hold do so at a false-discovery rate of at most 5 %.

    Without an ID the most promising candidates are promoted, where no claim is open: verify.quota of lab.toml
    at a time, with verify.random others drawn by lot. Once all claims have ended, those that gained go on at
    the next scale of verify.rungs, against the bar there. What is cut off goes on with the next call.
    """
    from asi_lab.cli import headless

    ctx.exit(headless.verify(existing(), candidates, rung, hours, as_json))


@click.command()
@lab_option()
@json_option
def verdicts(as_json: bool) -> None:
    """What is claimed of the promoted candidates, and at which error rate."""
    from asi_lab.cli import headless

    lab = existing()
    if not headless.show_verdicts(lab, as_json):
        nothing_yet(lab)
