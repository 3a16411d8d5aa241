"""Which language model fills which role for which candidate."""

from __future__ import annotations

from collections import defaultdict

from asi_lab.common.randomness import keyed_random
from asi_lab.lab import Store, spending
from asi_lab.llm import bandit
from asi_lab.settings import AgentSettings

GROUPS = {
    "planner": "planner",
    "planner_after_duplicate": "planner",
    "novelty": "planner",
    "checker": "coder",
    "debugger": "coder",
    "judge": "judge",
    "analyst": "analyst",
    "summariser": "analyst",
    "components": "analyst",
    "provenance": "analyst",
}
"""Roles, by the setting that names their models."""


def names_of(settings: AgentSettings) -> list[str]:
    """All models that the settings name for some role, sorted."""
    return sorted({name for group in set(GROUPS.values()) for name in listed(settings, group)})


def listed(settings: AgentSettings, group: str) -> tuple[str, ...]:
    """The models of a group of roles: planner, coder, judge or analyst."""
    own: tuple[str, ...] = getattr(settings, group)
    return own or settings.models


def arms_of(settings: AgentSettings, store: Store, before: int | None = None) -> list[bandit.Arm]:
    """The state of the bandit over the planners, as it was before candidate `before`, or as it is now. What
    came of controls that are apart from the pool is not for the search to know."""
    names = listed(settings, "planner")
    summaries = [
        s for s in store.summaries() if (before is None or s.id < before) and not (s.arm and s.arm.is_apart)
    ]
    dollars: dict[int, float] = defaultdict(float)
    for entry in spending.of_models(store.ledger.entries().values()):
        if (candidate := entry["candidate"]) is not None:
            dollars[candidate] += entry["dollars"] or 0.0
    return bandit.arms(names, summaries, dollars, settings.cost_weight)


def choose(settings: AgentSettings, seed: int, store: Store, candidate_id: int, group: str) -> str:
    """The model that fills the roles of a group for a candidate: drawn from the list, the same at every
    start, or taken by what the planners' earlier candidates became."""
    names = listed(settings, group)
    if group == "planner" and settings.policy == "bandit":
        return bandit.choose(arms_of(settings, store, before=candidate_id))
    weights = settings.weights if names == settings.models and settings.weights else None
    return keyed_random(seed, candidate_id, "model", group).choices(names, weights)[0]
