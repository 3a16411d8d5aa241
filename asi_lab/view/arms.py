"""What the search adds: its candidates beside those of its controls.

Losses stand against the bar's mean. A difference is between the means of all that were scored, with the
interval of Welch's t-test. It speaks of these candidates. Those of one arm descend from each other, so it
takes several labs to speak of the policies themselves (docs/benchmarks.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

import msgspec
from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from asi_lab.lab.summary import Summary
from asi_lab.records import Arm, CandidateState
from asi_lab.scoring.baselines import TITLES
from asi_lab.scoring.statistics import spread_of_difference

ABOUT = {
    Arm.EVOLUTION: "the search itself: drawn from the pool",
    Arm.GRAMMAR: "drawn from the pool, and proposed by the grammar although there is a language model",
    Arm.BEST_OF_N: "proposed from the seed, as all of its arm",
    Arm.SEQUENTIAL: "proposed from the best so far of its arm",
}


class Compared(msgspec.Struct, frozen=True):
    """One arm: how many candidates `ended`, how many of these `failed`, and the `best` and the `mean` loss of
    the others over the bar's mean (nats per token, lower is better). `gain` is how much lower evolution's
    mean is, negative where it is higher, with its 95 % interval; None where there are too few to tell."""

    arm: Arm
    ended: int
    failed: int
    best: float | None
    mean: float | None
    gain: float | None = None
    interval: tuple[float, float] | None = None


def compared(summaries: Sequence[Summary], bar: float) -> tuple[Compared, ...]:
    """The arms of a lab, evolution first; none where all candidates are of one. `bar` is the bar's mean loss.
    Candidates of before there were arms are left out."""
    ended = {arm: [s for s in summaries if s.arm is arm and s.state.is_terminal] for arm in Arm}
    if sum(map(bool, ended.values())) < 2:
        return ()
    losses = {
        arm: [s.loss - bar for s in found if s.state is CandidateState.DONE and s.loss is not None]
        for arm, found in ended.items()
    }
    return tuple(_of(arm, ended[arm], losses[arm], losses[Arm.EVOLUTION]) for arm in Arm if ended[arm])


def _of(arm: Arm, ended: Sequence[Summary], own: Sequence[float], evolution: Sequence[float]) -> Compared:
    found = Compared(
        arm=arm,
        ended=len(ended),
        failed=sum(s.state.is_failure for s in ended),
        best=min(own, default=None),
        mean=fmean(own) if own else None,
    )
    if arm is Arm.EVOLUTION or not own or not evolution:
        return found
    gain, spread = fmean(own) - fmean(evolution), spread_of_difference(own, evolution)
    margin = spread.margin(0.025) if spread else None
    interval = None if margin is None else (gain - margin, gain + margin)
    return msgspec.structs.replace(found, gain=gain, interval=interval)


def words(found: Sequence[Compared]) -> str:
    """How many candidates of each arm have ended; empty where there is nothing to compare."""
    return ", ".join(f"{one.ended} {one.arm}" for one in found)


def table(found: Sequence[Compared], bar: str) -> Sequence[RenderableType]:
    """What the search adds over its controls, below a line of space; nothing where there are none."""
    if not found:
        return ()
    shown = Table(box=box.SIMPLE_HEAD, padding=(0, 2, 0, 0), pad_edge=False, show_edge=False)
    for heading in ("arm", "ended", "failed", "best", "mean", "evolution is lower by (95 %)"):
        shown.add_column(heading, justify="left" if heading == "arm" else "right", no_wrap=True)
    for one in found:
        shown.add_row(
            one.arm.value,
            str(one.ended),
            f"{one.failed / one.ended:.0%}",
            _signed(one.best),
            _signed(one.mean),
            f"{_signed(one.gain)} {_between(one.interval)}".strip(),
        )
    below = (
        f"What the search adds. best, mean: loss over {TITLES[bar]}'s mean (nats), without the failed. "
        "The interval speaks of this lab's candidates, which descend from each other; it takes several labs "
        "to speak of the policies."
    )
    return Text(), shown, Text(below)


def _signed(value: float | None) -> str:
    return "" if value is None else f"{value:+.4f}"


def _between(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f"({interval[0]:+.4f} to {interval[1]:+.4f})"
