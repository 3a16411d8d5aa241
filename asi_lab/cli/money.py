"""Commands on what models do and cost: models, estimate."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from asi_lab.cli.shared import existing, json_option, lab_option

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
@json_option
def estimate(experiments: int, hours: float | None, as_json: bool) -> None:
    """What so many further candidates will take: time, tokens, dollars."""
    from asi_lab.llm.prices import load_prices
    from asi_lab.view import remote, tables
    from asi_lab.view.estimate import estimate, plan

    lab = existing()
    settings, prices = lab.settings(), load_prices(lab.path)
    with remote.results(lab) as store:
        found = estimate(settings, store, prices, experiments)
        planned = plan(settings, store, hours) if store and hours else None
    if as_json:
        click.echo(tables.to_json(found if hours is None else {"estimate": found, "plan": planned}))
        return
    time = "unknown" if found.seconds is None else tables.duration(found.seconds)
    cost = "unknown" if found.dollars is None else f"${found.dollars:,.2f}"
    click.echo(f"{found.candidates} candidates")
    click.echo(f"time    {time} ({found.basis['time']})")
    click.echo(f"tokens  {found.tokens:,} ({found.basis['models']})")
    click.echo(f"cost    {cost}")
    if hours is not None:
        click.echo("\n".join(["", *_planned(planned, hours)]))


def _planned(found: Plan | None, hours: float) -> list[str]:
    """What some hours are enough for, in lines."""
    if found is None:
        return [f"{hours:g} h: unknown before the lab's first candidates are measured"]
    power = ", ".join(f"{share:.2f} of {gain} sd" for gain, share in found.power.items())
    sd = [] if found.sd is None else [f"one sd  {found.sd:.4f} nats, by which single runs vary"]
    first = f"{found.first} runs of the bar, then " if found.first else ""
    return [
        f"{found.hours:g} h, a trial in {found.seconds:.1f} s ({found.basis}):",
        f"search  {found.candidates:,} candidates, or in their place",
        f"claims  {first}{found.claims:,}, each {found.runs:.1f} runs on average",
        f"power   {power}",
        *sd,
    ]
