"""How tuned learning rates look on a terminal: 80 columns are enough."""

from __future__ import annotations

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from asi_lab.scoring.races import Race
from asi_lab.scoring.tuning import Tuned, Tuning


def rates(found: Race) -> RenderableType:
    """The losses at each rate with the best, and the order at the preset's rate beside that at own best
    rates."""
    assert found.tuning is not None
    return Group(_losses(found.tuning), Text(), _order(found), Text(), _explained(found.tuning))


def _losses(tuning: Tuning) -> Table:
    shown = Table(box=box.SIMPLE_HEAD, padding=0, pad_edge=False, show_edge=False)
    shown.add_column("tuning", no_wrap=True, overflow="ellipsis")
    for rate in tuning.rates:
        shown.add_column(f"×{rate.rate:g}", justify="right", no_wrap=True, min_width=6)
    shown.add_column("best", justify="right", no_wrap=True, min_width=5)
    for place, lane in enumerate(tuning.lanes, start=1):
        cells = [_loss(lane, rate.rate) for rate in tuning.rates]
        shown.add_row(lane.architecture, *cells, _best(lane), end_section=place == len(tuning.lanes))
    shown.add_row("learning rate", *(f"{rate.learning_rate:g}" for rate in tuning.rates))
    correlations = ("" if r.correlation is None else f"{r.correlation:.2f}" for r in tuning.rates)
    shown.add_row("rank correlation", *correlations)
    return shown


def _loss(lane: Tuned, rate: float) -> Text:
    if rate not in lane.losses:
        return Text()
    loss = lane.losses[rate]
    return Text("failed" if loss is None else f"{loss:.4f}", style="bold" if rate == lane.best else "")


def _best(lane: Tuned) -> str:
    if lane.best is None:
        return "none" if lane.losses and None in lane.losses.values() else ""
    return f"×{lane.best:g}{'=' if lane.is_tie else ' '}"


def _order(found: Race) -> Table:
    """Best at own rates first."""
    assert found.own is not None
    assert found.tuning is not None
    best = {lane.architecture: lane.best for lane in found.tuning.lanes}
    preset, own = ({lane.architecture: lane.loss.mean for lane in race.lanes} for race in (found, found.own))
    shown = Table(box=box.SIMPLE_HEAD, padding=0, pad_edge=False, show_edge=False)
    shown.add_column("order", no_wrap=True, overflow="ellipsis")
    for heading in ("at the\npreset's", "loss", "at own\nbest", "loss", "rate"):
        shown.add_column(heading, justify="right", no_wrap=True, min_width=9)
    for name in sorted(preset.keys() | own, key=lambda name: (own.get(name, 1e9), preset.get(name, 1e9))):
        rate = best.get(name)
        cells = [*_place(name, preset), *_place(name, own)]
        shown.add_row(name, *cells, "" if rate is None else f"×{rate:g}")
    return shown


def _place(name: str, losses: dict[str, float]) -> tuple[str, str]:
    if name not in losses:
        return "", ""
    return str(1 + sorted(losses, key=losses.__getitem__).index(name)), f"{losses[name]:.4f}"


def _explained(tuning: Tuning) -> Text:
    words = (
        f"Tuning: mean held-out losses over {tuning.seeds} seeds that count nowhere else, at learning rates "
        "over the preset's; = keeps the preset's, which the lowest beats by no more than the standard error "
        "of their paired difference. Rank correlation (Spearman): of the order at one rate for all with the "
        "order of the counted runs at own best rates. A preset's rate is to be the one where it is highest."
    )
    if tuning.highest is None or tuning.highest == 1.0:
        return Text(words)
    (better,) = (rate for rate in tuning.rates if rate.rate == tuning.highest)
    return Text(f"{words} Here that is ×{better.rate:g}: train.learning_rate = {better.learning_rate:g}.")
