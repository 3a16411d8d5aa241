"""The planner: a language model that changes the parent's code and says why (paper, section 2.2)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

import msgspec

from asi_lab.llm.ask import Asker, RoleFailed
from asi_lab.llm.codefile import CodeFile
from asi_lab.records import Candidate, Proposal
from asi_lab.scoring import results

RESEARCHER = "planner"
NAME = re.compile(r"delta_net_[a-z0-9_]{2,70}")
LEAST_MOTIVATION = 80
CHANGED_LINES = 120


class PlannerAnswer(msgspec.Struct, frozen=True):
    """What the planner says beside the code."""

    name: str
    motivation: str
    change: str


class Earlier(msgspec.Struct, frozen=True):
    """An earlier candidate with its parent, against which its change is shown."""

    candidate: Candidate
    parent: Candidate


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
    role = "planner_after_duplicate" if repeated else "planner"
    code = CodeFile(parent.code, inspect)
    asked = {**values, "repeated": repeated} if repeated else values
    answer = ask(role, PlannerAnswer, asked, code, lambda given: missing(given, code))
    return Proposal(
        name=answer.name.strip(),
        motivation=answer.motivation.strip(),
        change=" ".join(answer.change.split()),
        code=code.code,
        researcher=RESEARCHER,
        model=ask.model_of(role),
        prompts=dict(prompts),
    )


def missing(answer: PlannerAnswer, code: CodeFile) -> str:
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


def repeats(ask: Asker, parent: Candidate, proposal: Proposal, near: Sequence[Earlier]) -> str:
    """Have the novelty judge compare a child of `parent` with the nearest earlier candidates.

    Returns of which it is a repetition and why, empty where it is new or there was no usable answer.
    """
    if not near:
        return ""
    values = {
        "motivation": _idea(parent, msgspec.structs.replace(parent, proposal=proposal)),
        "candidates": "\n\n".join(
            f"### Candidate {one.candidate.id} ({one.candidate.name})\n\n{_idea(one.parent, one.candidate)}"
            for one in near
        ),
    }
    try:
        found = ask("novelty", Novelty, values)
    except RoleFailed:
        return ""
    if not found.is_repeated:
        return ""
    names = {one.candidate.id: one.candidate.name for one in near}
    first = next((number for number in found.repeated_ids if number in names), near[0].candidate.id)
    return f"candidate {first} ({names[first]}): {' '.join(found.reason.split())}"


def _idea(parent: Candidate, child: Candidate) -> str:
    """What a child changes and why: words, and the change of the code."""
    code = results.change(parent, child, context=0, most=CHANGED_LINES)
    return f"Change: {child.proposed.change}\n\n{child.proposed.motivation}\n\n```diff\n{code}\n```"
