"""What a search will take, before it is started: from the lab's own figures, or what is known of others."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from functools import partial
from statistics import fmean, stdev

import msgspec

from asi_lab.lab import Store
from asi_lab.lab.spending import of_models, total
from asi_lab.llm.choice import names_of
from asi_lab.llm.prices import Price, dollars
from asi_lab.scoring import baselines, claims, tuning, verification
from asi_lab.scoring.baselines import Baselines
from asi_lab.settings import Settings
from asi_lab.view import needs, status

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
    """What `hours` are enough for: so many candidates of the search, or claims in their place.

    A trial takes `seconds` with all slots at work, as `basis` says. Before the first candidate `before` runs
    of the references are made, and `repeats` more of them between the `candidates`, as far as they are
    missing. `first` runs are made of the bar before any claim; a claim takes `runs` on average. `power` is
    about how often a true gain of so many sds of one run is found, and `sd` (nats per token) what that sd is;
    None before it is known. `tokens` and `dollars` are those of the candidates. `guesses` names the figures
    that rest on no measurement of this lab.
    """

    hours: float
    seconds: float
    basis: str
    candidates: int
    before: int
    repeats: int
    first: int
    runs: float
    claims: int
    power: dict[str, float]
    sd: float | None
    tokens: int
    dollars: float | None
    guesses: tuple[str, ...]


GAINS = (1.0, 1.5, 2.0, 3.0)

UTILISATION = {"cpu": 0.5, "cuda": 0.12}
"""Of the rate of a large product of matrices, what training reaches: a guess. On a GPU it is what one step of
the 20m preset was measured at (docs/benchmarks.md)."""


def plan(settings: Settings, store: Store | None, prices: Mapping[str, Price], hours: float) -> Plan | None:
    """Plan some hours by the lab's own pace, or before it has one by counted operations; None where not even
    they tell.

    Raises:
        DataError: the operations cannot be counted.
        ConfigError: there are too few GPUs for the settings.
    """
    pace = status.pace(store.summaries(), settings, status.slots_of(store)) if store else None
    guesses = [] if pace else ["the time"]
    paced = (pace.seconds, pace.basis) if pace else _guessed(settings)
    if paced is None:
        return None
    seconds, basis = paced
    trials = int(3600 * hours / seconds)
    measured = store.baselines() if store else []
    due = partial(baselines.due, settings.baselines, runs=measured)
    done = len(store.summaries()) if store else 0
    before = len(due(done))
    most = range(max(0, trials - before) + 1)
    candidates = bisect_right(most, trials, key=lambda count: count + len(due(done + count))) - 1
    found = estimate(settings, store, prices, max(0, candidates))
    if found.tokens and "mean of" not in found.basis["models"]:
        guesses.append("tokens and cost")
    known = Baselines.measured(settings, measured)
    verified = verification.read(settings, store) if store else None
    wanted, freedom, ratio = settings.verify, settings.baselines.noise_freedom, 1.0
    tuning_runs = len(tuning.RATES) * tuning.LEAST_SEEDS if wanted.tune else 0
    bar_runs, first, sd = wanted.bar_runs, wanted.bar_runs + tuning_runs, None
    if known is None or verified is None:
        guesses.append("power, as if the bar varied like a candidate")
    else:
        terms, noise = verified.terms, known.noise()
        tuning_runs, bar_runs = (tuning_runs if terms.tune else 0), terms.bar_runs
        first = bar_runs - verified.bar_runs + (tuning_runs if verified.bar_rate is None else 0)
        own = [run.loss for run in known.evaluations(terms.bar)]
        ratio = (stdev(own) / noise.loss) ** 2 if noise.loss and len(own) > 1 else 1.0
        sd = noise.loss or None
    runs = tuning_runs + claims.USUAL_RUNS
    return Plan(
        hours=hours,
        seconds=seconds,
        basis=basis,
        candidates=max(0, candidates),
        before=before,
        repeats=max(0, len(due(done + max(0, candidates))) - before),
        first=first,
        runs=runs,
        claims=max(0, int((trials - first) / runs)),
        power={f"{gain:g}": claims.power(gain, ratio, bar_runs, freedom) for gain in GAINS},
        sd=sd,
        tokens=found.tokens,
        dollars=found.dollars,
        guesses=tuple(guesses),
    )


def _guessed(settings: Settings) -> tuple[float, str] | None:
    """Seconds of a trial by the counted operations of its training, and what that rests on."""
    found = needs.demand(settings)
    if found.rate is None:
        return None
    train, share = settings.train, UTILISATION[found.device]
    tokens = train.steps * train.batch * train.context
    slots = needs.slots(settings)
    basis = (
        f"training alone, {found.flops:.2e} operations a token at {share:.0%} of {found.rate / 1e9:,.0f} "
        f"GFLOP/s, {slots} at a time"
    )
    return tokens * found.flops / (share * found.rate) / slots, basis


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
