"""The planner: a language model that changes the parent's code and says why (paper, section 2.2)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

import msgspec

from asi_lab.llm.ask import Asker, RoleFailed
from asi_lab.llm.codefile import CodeFile
from asi_lab.records import Candidate, Proposal

RESEARCHER = "planner"
NAME = re.compile(r"delta_net_[a-z0-9_]{2,70}")
LEAST_MOTIVATION = 80


class Plan(msgspec.Struct, frozen=True):
    """What the planner says beside the code."""

    name: str
    motivation: str
    change: str


class Novelty(msgspec.Struct, frozen=True):
    """What the novelty judge says of a motivation beside the nearest earlier ones."""

    is_repeated: bool
    repeated_ids: tuple[int, ...] = ()
    reason: str = ""


def plan(
    ask: Asker,
    parent: Candidate,
    values: Mapping[str, str],
    repeated: str,
    prompts: Mapping[str, str],
    inspect: Callable[[str], str],
) -> Proposal:
    """Ask for a child of `parent`. `values` fill the prompt; `repeated` says which earlier idea the last
    plan repeated, empty at first. `inspect` says what is wrong with code. `code_hash` is left to the caller.

    Raises:
        RoleFailed: no usable plan came.
        ModelError: no model can be had.
    """
    assert parent.proposal is not None
    role = "planner_after_duplicate" if repeated else "planner"
    code = CodeFile(parent.proposal.code, inspect)
    asked = {**values, "repeated": repeated} if repeated else values
    answer = ask(role, Plan, asked, code, lambda given: missing(given, code))
    return Proposal(
        name=answer.name.strip(),
        motivation=answer.motivation.strip(),
        change=" ".join(answer.change.split()),
        code=code.code,
        researcher=RESEARCHER,
        model=ask.model_of(role),
        prompts=dict(prompts),
    )


def missing(answer: Plan, code: CodeFile) -> str:
    """What a plan still lacks, in words for the model; empty if nothing."""
    if not code.written:
        return (
            "architecture.py was not changed: call write_code_file, or give the whole file in one ```python "
            "block before the JSON"
        )
    if not NAME.fullmatch(answer.name.strip()):
        return f"`name` must be snake_case and begin with delta_net_; found {answer.name[:80]!r}"
    if len(answer.motivation.strip()) < LEAST_MOTIVATION:
        return f"`motivation` must say in at least {LEAST_MOTIVATION} characters what changes and why"
    return "" if answer.change.strip() else "`change` must say in a few words what changed"


def repeats(ask: Asker, proposal: Proposal, nearest: Sequence[Candidate]) -> str:
    """Have the novelty judge compare an idea with the nearest earlier ones; returns of which it is a
    repetition and why, empty where it is new or the judge gave no usable answer."""
    if not nearest:
        return ""
    told = "\n\n".join(
        f"Candidate {c.id} ({c.name}):\nChange: {c.proposal.change}\n{c.proposal.motivation}"
        for c in nearest
        if c.proposal is not None
    )
    values = {"motivation": f"Change: {proposal.change}\n{proposal.motivation}", "candidates": told}
    try:
        found = ask("novelty", Novelty, values)
    except RoleFailed:
        return ""
    if not found.is_repeated:
        return ""
    known = {candidate.id: candidate for candidate in nearest}
    ids = [number for number in found.repeated_ids if number in known] or [nearest[0].id]
    return f"candidate {ids[0]} ({known[ids[0]].name}): {' '.join(found.reason.split())}"
