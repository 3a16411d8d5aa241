"""What a search will take, before it is started: from the lab's own figures, or what is known of others."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean, stdev

import msgspec

from asi_lab.lab import Store
from asi_lab.lab.spending import of_models, total
from asi_lab.llm.choice import names_of
from asi_lab.llm.prices import Price, dollars
from asi_lab.scoring import claims, tuning, verification
from asi_lab.scoring.baselines import Baselines
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


class Plan(msgspec.Struct, frozen=True):
    """What `hours` are enough for in a lab: so many candidates of the search, or claims in their place.

    A trial takes `seconds` with all slots at work, as `basis` says. `first` runs are made of the bar before
    any claim, as far as they are missing; a claim takes `runs` on average. `power` is about how often a true
    gain of so many sds of one run is found, and `sd` (nats per token) what that sd is; None before it is
    known.
    """

    hours: float
    seconds: float
    basis: str
    candidates: int
    first: int
    runs: float
    claims: int
    power: dict[str, float]
    sd: float | None


GAINS = (1.0, 1.5, 2.0, 3.0)


def plan(settings: Settings, store: Store, hours: float) -> Plan | None:
    """Plan some hours by the lab's own pace; None where nothing was measured yet."""
    pace = status.pace(store.summaries(), settings, status.slots_of(store))
    known = Baselines.measured(settings, store.baselines())
    verified = verification.read(settings, store)
    if pace is None or known is None or verified is None:
        return None
    terms, trials = verified.terms, int(3600 * hours / pace.seconds)
    tuning_runs = len(tuning.RATES) * tuning.LEAST_SEEDS if terms.tune else 0
    first = terms.bar_runs - verified.bar_runs + (tuning_runs if verified.bar_rate is None else 0)
    runs, noise = tuning_runs + claims.USUAL_RUNS, known.noise()
    own = [run.loss for run in known.evaluations(terms.bar)]
    ratio = (stdev(own) / noise.loss) ** 2 if noise.loss and len(own) > 1 else 1.0
    freedom = settings.baselines.noise_freedom
    return Plan(
        hours=hours,
        seconds=pace.seconds,
        basis=pace.basis,
        candidates=trials,
        first=first,
        runs=runs,
        claims=max(0, int((trials - first) / runs)),
        power={f"{gain:g}": claims.power(gain, ratio, terms.bar_runs, freedom) for gain in GAINS},
        sd=noise.loss or None,
    )


def estimate(
    settings: Settings, store: Store | None, prices: Mapping[str, Price], candidates: int
) -> Estimate:
    """Estimate time, tokens and dollars of `count` further candidates."""
    pace = status.pace(store.summaries(), settings, status.slots_of(store)) if store else None
    basis = {"time": pace.basis if pace else "nothing was measured here yet"}
    names = names_of(settings.agents)
    pooled = 1.0 - settings.search.control_share * len(settings.search.controls)
    share = 1.0 - pooled * settings.agents.control / 3  # judge and analyst work for the grammar's too
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
