"""Commands on what models do and cost: models, estimate."""

from __future__ import annotations

import click

from asi_lab.cli.shared import existing, json_option, lab_option


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
@json_option
def estimate(experiments: int, as_json: bool) -> None:
    """What so many further candidates will take: time, tokens, dollars."""
    from asi_lab.llm.prices import load_prices
    from asi_lab.view import remote, tables
    from asi_lab.view.estimate import estimate

    lab = existing()
    settings, prices = lab.settings(), load_prices(lab.path)
    with remote.results(lab) as store:
        found = estimate(settings, store, prices, experiments)
    if as_json:
        click.echo(tables.to_json(found))
        return
    time = "unknown" if found.seconds is None else tables.duration(found.seconds)
    cost = "unknown" if found.dollars is None else f"${found.dollars:,.2f}"
    click.echo(f"{found.candidates} candidates")
    click.echo(f"time    {time} ({found.basis['time']})")
    click.echo(f"tokens  {found.tokens:,} ({found.basis['models']})")
    click.echo(f"cost    {cost}")
