"""Verdicts on a terminal: what holds, at which error rate, and what is still open. 80 columns are enough."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from asi_lab.common.text import plain
from asi_lab.lab import Store, fresh
from asi_lab.scoring import agreement, verification
from asi_lab.scoring.agreement import Correlation
from asi_lab.scoring.baselines import TITLES
from asi_lab.scoring.beside import Beside, of_references
from asi_lab.scoring.verification import Verdict, Verification
from asi_lab.settings import Settings
from asi_lab.view import tables

NAME = 28
STYLES = {Verdict.HOLDS: "bold green", Verdict.OPEN: "yellow", Verdict.NOT_SHOWN: "dim"}

Everywhere = Mapping[str, Verification]
"""The claims by scale, that of the lab first."""


def everywhere(settings: Settings, store: Store) -> dict[str, Verification]:
    """The claims of a lab at all its scales; none before its baselines are measured."""
    own = verification.read(settings, store)
    return {settings.preset: own, **verification.higher(store)} if own else {}


def headline(found: Verification) -> str:
    """How many claims hold, beside the rate that the procedure keeps."""
    count = found.count
    rate = f"false-discovery rate of the procedure at most {found.level:.0%}"
    rest = f"{count[Verdict.OPEN]} open, {count[Verdict.NOT_SHOWN]} not shown"
    return f"{count[Verdict.HOLDS]} hold ({rate}), {rest}"


def of_store(settings: Settings, store: Store) -> str:
    """The headline of each scale of a lab; empty where no candidate was promoted."""
    if not fresh.promotions(store):
        return ""
    found = everywhere(settings, store)
    at = (f"at {scale}: " if len(found) > 1 else "" for scale in found)
    return "\n".join(start + headline(one) for start, one in zip(at, found.values(), strict=True))


def figures(found: Everywhere) -> dict[str, Any]:
    """All of it as plain values: what is claimed by scale, and how the scales agree."""
    pairs = pairwise(found.items())
    compared = [agreement.agreement(*low, *high) for low, high in pairs]
    hits = [agreement.hits(scale, one) for scale, one in found.items()]
    return {"scales": found, "agreement": compared, "hits": hits}


def verdicts(found: Everywhere, names: Mapping[int, str]) -> RenderableType:
    """All claims as tables, one for each scale, in the order of promotion; how the scales agree, and how to
    read it."""
    parts: list[RenderableType] = []
    for scale, one in found.items():
        if len(found) > 1:
            parts.append(Text(scale, style="bold underline"))
        parts += [*_scale(one, names), Text()]
    if any(one.claims for one in found.values()):
        agreed = list(_agreement(found))
        parts += [*agreed, *([Text()] if agreed else []), Text(NOTE, style="dim")]
    return Group(*parts)


NOTE = (
    "gain: nats of held-out loss under the bar's mean, with fresh seeds, fresh orders of the data and text "
    "that the search never reads, for an open claim so far; interval: at the level that the family leaves "
    "it, none for a claim that was dropped. The rate of those that hold is that of a family whose end was "
    "set beforehand: who stops promoting once something holds should go by the tags, which stay whatever is "
    "added."
)


def _scale(found: Verification, names: Mapping[int, str]) -> Iterator[RenderableType]:
    title = TITLES.get(found.terms.bar, found.terms.bar)
    at = "" if found.bar_rate in (None, 1.0) else f" at {found.bar_rate:g} times the learning rate"
    yield Text(headline(found), style="bold")
    yield Text(f"bar: {title}, {found.bar_runs} of {found.terms.bar_runs} fresh runs{at}")
    if found.bar_failed:
        failed = f"The bar itself failed in a fresh run ({found.bar_failed}): nothing can be claimed"
        yield Text(failed, style="red")
    if not found.claims:
        yield Text("No candidate is promoted yet.")
        return
    yield Text()
    yield _claims(found, names)
    if beside := _beside(found):
        yield Text()
        yield from beside


def _claims(found: Verification, names: Mapping[int, str]) -> Table:
    shown = Table(box=box.SIMPLE_HEAD, padding=(0, 2, 0, 0), pad_edge=False, show_edge=False)
    shown.add_column("id", justify="right", no_wrap=True)
    shown.add_column("name", overflow="fold")
    shown.add_column("verdict", no_wrap=True)
    level = verification.confidence(found)
    interval = f"{level} interval" if any(claim.interval for claim in found.claims) else "interval"
    for heading in ("gain", interval, "runs"):
        shown.add_column(heading, justify="right", no_wrap=True)
    for claim in found.claims:
        verdict = f"{claim.verdict}{', tagged' if claim.tagged else ''}"
        gain = "" if claim.gain is None else f"{claim.gain.gain:+.4f}"
        between = "" if claim.interval is None else "{:+.3f} to {:+.3f}".format(*claim.interval)
        runs = f"{claim.runs} {claim.failed}" if claim.failed else str(claim.runs)
        whole = names.get(claim.candidate, "")
        own = whole.removeprefix(tables.PREFIX)
        name = plain(own if own == whole else f"…{own}", limit=NAME)
        cells = (f"{claim.candidate:04d}", name, verdict, gain, between, runs)
        shown.add_row(*map(Text, cells), style=STYLES[claim.verdict])
    return shown


def _beside(found: Verification) -> list[RenderableType]:
    """How the claims stand to the other references; nothing of it is claimed."""
    rows = [(claim, of_references(found, claim)) for claim in found.claims if not claim.dropped]
    known = sorted({line.name for _, lines in rows for line in lines}, key=found.terms.beside.index)
    if not known:
        return []
    shown = Table(box=box.SIMPLE_HEAD, padding=(0, 2, 0, 0), pad_edge=False, show_edge=False)
    shown.add_column("id", justify="right", no_wrap=True)
    for name in known:
        shown.add_column(f"under {TITLES[name]} (95 %)", justify="right", no_wrap=True)
    for claim, lines in rows:
        by_name = {line.name: line for line in lines}
        cells = [_gain(by_name[name]) if name in by_name else "" for name in known]
        shown.add_row(f"{claim.candidate:04d}", *cells)
    return [Text("Beside the other references, each figure alone, none of them claimed:"), shown]


def _gain(line: Beside) -> str:
    told = f"{line.bar - line.candidate:+.4f}"
    if line.interval is not None:
        low, high = line.interval
        told += f" ({-high:+.3f} to {-low:+.3f})"
    return told


def _agreement(found: Everywhere) -> Iterator[RenderableType]:
    for scale, one in found.items():
        hit = agreement.hits(scale, one)
        if not hit.promoted + hit.drawn:
            continue
        lot = f", of {hit.drawn} drawn by lot {hit.drawn_under}" if hit.drawn else ""
        words = f"mean loss under the bar's at {scale}: of {hit.promoted} promoted {hit.promoted_under}{lot}"
        yield Text(words)
    for low, high in pairwise(found.items()):
        both = agreement.agreement(*low, *high)
        words = f"rank correlation of {both.smaller} with {both.larger}: {_correlation(both.everyone)}"
        if both.better_half:
            words += f"; of the better half {_correlation(both.better_half)}"
        at_both = f" ({both.count} architectures at both)"
        yield Text(words + at_both)


def _correlation(found: Correlation | None) -> str:
    if found is None:
        return f"unknown, it takes {agreement.LEAST} architectures"
    low, high = found.interval
    return f"{found.value:.2f} ({low:.2f} to {high:.2f})"
