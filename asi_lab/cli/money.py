"""Commands on what models do and cost: models, estimate."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

import click

from asi_lab.cli.shared import current_lab, existing, json_option, lab_option, preset_option

if TYPE_CHECKING:
    from asi_lab.view.estimate import Plan


@click.command()
@lab_option()
@json_option
def models(as_json: bool) -> None:
    """What each planner's candidates became, and who is asked next."""
    from rich.table import Table
    from rich.text import Text

    from asi_lab.common.text import plain
    from asi_lab.llm import bandit
    from asi_lab.llm.choice import arms_of
    from asi_lab.view import remote, tables

    lab = existing()
    settings = lab.settings().agents
    with remote.results(lab) as store:
        found = arms_of(settings, store) if store else []
    following = bandit.choose(found) if found and settings.policy == "bandit" else None
    if as_json:
        click.echo(tables.to_json({"policy": settings.policy, "next": following, "arms": found}))
        return
    if not found:
        click.echo(
            "No language model is named under [agents] in lab.toml, or nothing was searched yet.", err=True
        )
        return
    shown = Table(box=None, pad_edge=False)
    for heading in ("planner", "candidates", "trained", "over parent", "reward", "$ each", "index"):
        shown.add_column(heading, justify="left" if heading == "planner" else "right")
    for arm in found:
        index = "-" if arm.index is None else f"{arm.index:.3f}"
        cells = (arm.pulls, arm.trained, arm.better, f"{arm.reward:.3f}", f"{arm.dollars:.4f}", index)
        shown.add_row(Text(plain(arm.model)), *map(str, cells))
    tables.console().print(shown)
    how = "drawn from the list" if following is None else f"{plain(following)} (bandit)"
    click.echo(f"Next: {how}.", err=True)


@click.command()
@lab_option()
@click.option("-n", "--experiments", type=click.IntRange(min=1), default=100, show_default=True)
@click.option(
    "--hours",
    type=click.FloatRange(min=0, min_open=True),
    help="Also what so many hours are enough for: candidates, or claims and their power.",
)
@preset_option
@json_option
def estimate(experiments: int, hours: float | None, preset: str | None, as_json: bool) -> None:
    """What so many further candidates will take: time, tokens, dollars.

    With --preset: in a new lab of that preset. What nothing was measured for is guessed, and said to be.
    """
    from asi_lab.lab import config
    from asi_lab.llm.prices import load_prices
    from asi_lab.view import remote, tables
    from asi_lab.view.estimate import estimate, plan

    lab = current_lab() if preset else existing()
    settings = config.from_preset(preset) if preset else lab.settings()
    prices = load_prices(lab.path)
    with nullcontext() if preset else remote.results(lab) as store:
        found = estimate(settings, store, prices, experiments)
        planned = plan(settings, store, prices, hours) if hours else None
    if as_json:
        click.echo(tables.to_json(found if hours is None else {"estimate": found, "plan": planned}))
        return
    if hours is not None:
        click.echo("\n".join(_planned(planned, hours)))
        return
    time = "unknown" if found.seconds is None else tables.duration(found.seconds)
    click.echo(f"{found.candidates} candidates")
    click.echo(f"time    {time} ({found.basis['time']})")
    click.echo(f"tokens  {found.tokens:,} ({found.basis['models']})")
    click.echo(f"cost    {_dollars(found.dollars)}")


def _dollars(found: float | None) -> str:
    return "unknown" if found is None else f"${found:,.2f}"


def _planned(found: Plan | None, hours: float) -> list[str]:
    """What some hours are enough for, in lines."""
    from textwrap import wrap

    if found is None:
        return [f"{hours:g} h: unknown before the lab's first candidates are measured"]
    power = ", ".join(f"{share:.2f} of {gain} sd" for gain, share in found.power.items())
    first = f"{found.first} runs of the bar, then " if found.first else ""
    before = f"{found.before} runs of references, then " if found.before else ""
    rows = [
        ("search", f"{before}{found.candidates:,} candidates, {found.repeats} repeats of references between"),
        ("", "them; or in their place"),
        ("claims", f"{first}{found.claims:,} promotions, each {found.runs:.1f} runs on average"),
        ("power", power),
        ("sd", "unknown" if found.sd is None else f"{found.sd:.4f} nats, by which single runs vary"),
        ("tokens", f"{found.tokens:,} for the candidates, cost {_dollars(found.dollars)}"),
        ("guesses", "; ".join(found.guesses) or "none"),
    ]
    head = f"{found.hours:g} h, a trial in {found.seconds:,.1f} s ({found.basis}):"
    indent = " " * 9
    return [
        *wrap(head, 80),
        *(
            line
            for name, words in rows
            for line in wrap(words, 80, initial_indent=f"{name:<9}", subsequent_indent=indent)
        ),
    ]
