"""What a search will take, before it is started: from the lab's own figures, or what is known of others."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean

import msgspec

from asi_lab.lab import Store
from asi_lab.lab.spending import of_models, total
from asi_lab.llm.choice import names_of
from asi_lab.llm.prices import Price, dollars
from asi_lab.settings import Settings
from asi_lab.view import status

PROMPT_TOKENS, COMPLETION_TOKENS = 25_000, 6_000
"""For a candidate with a summary, a plan of two turns, novelty, three opinions, an analysis and tags, as they
were in a search on the micro preset. Repairs come on top."""


class Estimate(msgspec.Struct, frozen=True):
    """For `candidates` candidates. `seconds` is None where nothing was measured yet; `dollars` where no price
    is known. `basis` says what each figure rests on."""

    candidates: int
    seconds: float | None
    tokens: int
    dollars: float | None
    basis: dict[str, str]


def estimate(
    settings: Settings, store: Store | None, prices: Mapping[str, Price], candidates: int
) -> Estimate:
    """Estimate time, tokens and dollars of `count` further candidates."""
    pace = status.pace(store.summaries(), settings, status.slots_of(store)) if store else None
    basis = {"time": pace.basis if pace else "nothing was measured here yet"}
    names = names_of(settings.agents)
    share = 1.0 - settings.agents.control / 3  # judge and analyst work for the control arm too
    known = of_models(store.ledger.entries().values()) if store else []
    entries = [entry for entry in known if entry["candidate"]]  # what every search pays once is left out
    count, spent = len({entry["candidate"] for entry in entries}), total(entries)
    tokens = 0
    cost: float | None
    if not names:
        cost, basis["models"] = 0.0, "no language model is named in lab.toml"
    elif count:
        tokens = round(spent.tokens / count)
        cost = None if spent.unpriced else spent.dollars / count
        basis["models"] = f"mean of {count} candidates of this lab"
    else:
        tokens = round((PROMPT_TOKENS + COMPLETION_TOKENS) * share)
        each = [dollars(prices, name, PROMPT_TOKENS, COMPLETION_TOKENS) for name in names]
        priced = [one for one in each if one is not None]
        cost = fmean(priced) * share if len(priced) == len(each) else None
        basis["models"] = "a candidate without repairs, by the length of the prompts"
    return Estimate(
        candidates,
        pace.seconds * candidates if pace else None,
        tokens * candidates,
        None if cost is None else cost * candidates,
        basis,
    )
