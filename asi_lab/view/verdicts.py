"""Verdicts on a terminal: what holds, at which error rate, and what is still open. 80 columns are enough."""

from __future__ import annotations

from collections.abc import Mapping

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from asi_lab.common.text import plain
from asi_lab.lab import Store, fresh
from asi_lab.scoring import verification
from asi_lab.scoring.baselines import TITLES
from asi_lab.scoring.claims import CAP, interval_level
from asi_lab.scoring.verification import Claim, Verdict, Verification
from asi_lab.settings import Settings

NAME = 36
STYLES = {Verdict.HOLDS: "bold green", Verdict.OPEN: "yellow", Verdict.NOT_SHOWN: "dim"}


def headline(found: Verification) -> str:
    """How many claims hold, beside the rate that the procedure keeps."""
    count = found.count
    rate = f"false-discovery rate of the procedure at most {found.level:.0%}"
    rest = f"{count[Verdict.OPEN]} open, {count[Verdict.NOT_SHOWN]} not shown"
    return f"{count[Verdict.HOLDS]} hold ({rate}), {rest}"


def of_store(settings: Settings, store: Store) -> str:
    """The headline of a lab; empty where no candidate was promoted."""
    if not fresh.promotions(store):
        return ""
    found = verification.read(settings, store)
    return headline(found) if found else ""


def words(claim: Claim, found: Verification) -> str:
    """What is known of one promoted candidate."""
    title = TITLES.get(found.terms.bar, found.terms.bar)
    told = f"{claim.verdict}: {_runs(claim)}"
    if claim.gain is not None:
        side = "under" if claim.gain.gain >= 0 else "above"
        told += (
            f", held-out loss {abs(claim.gain.gain):.4f} nats {side} the mean of {found.bar_runs} of {title}"
        )
    if claim.interval is not None:
        low, high = claim.interval
        told += f" (gain {low:+.4f} to {high:+.4f} at {_level(found)})"
    return f"{told}; tagged verified/{claim.candidate:04d}" if claim.tagged else told


def _level(found: Verification) -> str:
    """The level of the intervals, in per cent."""
    ended = len(found.claims) - found.count[Verdict.OPEN]
    return f"{100 * (1 - interval_level(found.count[Verdict.HOLDS], ended)):.4g} %"


def _runs(claim: Claim) -> str:
    if claim.failed:
        return f"failed after {claim.runs} fresh runs ({claim.failed})"
    return f"{claim.runs} fresh runs{', dropped at a look' if claim.dropped else f' of {CAP}'}"


def verdicts(found: Verification, names: Mapping[int, str]) -> RenderableType:
    """All claims as a table, in the order of promotion, and how to read it."""
    title = TITLES.get(found.terms.bar, found.terms.bar)
    at = "" if found.bar_rate in (None, 1.0) else f" at {found.bar_rate:g} times the learning rate"
    lines = [Text(headline(found), style="bold")]
    lines.append(Text(f"bar: {title}, {found.bar_runs} of {found.terms.bar_runs} fresh runs{at}"))
    if found.bar_failed:
        failed = f"The bar itself failed in a fresh run ({found.bar_failed}): nothing can be claimed"
        lines.append(Text(failed, style="red"))
    if not found.claims:
        return Group(*lines, Text("No candidate is promoted yet."))
    shown = Table(box=box.SIMPLE_HEAD, padding=(0, 2, 0, 0), pad_edge=False, show_edge=False)
    shown.add_column("id", justify="right", no_wrap=True)
    shown.add_column("name", overflow="fold")
    shown.add_column("verdict", no_wrap=True)
    for heading in ("gain", "interval", "runs"):
        shown.add_column(heading, justify="right", no_wrap=True)
    for claim in found.claims:
        verdict = f"{claim.verdict}{', tagged' if claim.tagged else ''}"
        gain = "" if claim.gain is None else f"{claim.gain.gain:+.4f}"
        interval = "" if claim.interval is None else "{:+.3f} to {:+.3f}".format(*claim.interval)
        runs = f"{claim.runs} {claim.failed}" if claim.failed else str(claim.runs)
        name = plain(names.get(claim.candidate, ""), limit=NAME)
        cells = (f"{claim.candidate:04d}", name, verdict, gain, interval, runs)
        shown.add_row(*map(Text, cells), style=STYLES[claim.verdict])
    note = (
        "gain: nats of held-out loss under the bar's mean, with fresh seeds, fresh orders of the data and "
        f"text that the search never reads; interval: at {_level(found)}, none for a claim that was dropped. "
        "The rate of those that hold is that of a family whose end was set beforehand: who stops promoting "
        "once something holds should go by the tags, which stay whatever is added."
    )
    return Group(*lines, Text(), shown, Text(), Text(note, style="dim"))
