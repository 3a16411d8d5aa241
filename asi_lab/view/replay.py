"""A candidate's roles again, from its transcript and without any model.

Each recorded conversation is held again with the recorded replies: tools are carried out, answers are read
and looked at as they were. What comes out must be what the candidate's record says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from asi_lab.analyst import judge, prose, tags
from asi_lab.engineer import repair
from asi_lab.llm.ask import Question, RoleFailed, ask
from asi_lab.llm.codefile import CodeFile
from asi_lab.llm.model import Call, ModelError, NoTools, Reply
from asi_lab.llm.record import Exchange
from asi_lab.llm.scripted import Scripted
from asi_lab.records import Candidate, Origin
from asi_lab.researcher import experience, planner

Missing = Callable[[Any, Any], str]

_PLAN: tuple[type, Missing] = (planner.PlannerAnswer, planner.missing)
_REPAIR: tuple[type, Missing] = (repair.Changes, repair.missing)
_KINDS: dict[str, tuple[type, Missing]] = {
    "planner": _PLAN,
    "planner_after_duplicate": _PLAN,
    "novelty": (planner.Novelty, lambda answer, code: ""),
    "checker": _REPAIR,
    "debugger": _REPAIR,
    "judge": (judge.Marks, lambda answer, code: judge.missing(answer)),
    "analyst": (prose.Prose, lambda answer, code: prose.missing(answer)),
    "summariser": (experience.Experience, lambda answer, code: ""),
    "components": (tags.Listed, lambda answer, code: tags.missing_components(answer)),
    "provenance": (Origin, lambda answer, code: tags.missing_origin(answer)),
}


class Outcome(msgspec.Struct, frozen=True):
    """What one conversation gave again. `agrees` says whether the candidate's record has the same; None where
    it keeps nothing to compare with."""

    role: str
    model: str
    calls: int
    result: str
    agrees: bool | None = None


def replay(candidate: Candidate, parent: Candidate, exchanges: Sequence[Exchange]) -> list[Outcome]:
    """Hold all conversations of a candidate again, in their order. The file that the last writer leaves must
    be the candidate's, each mark one of the judge's, the analysis the one that is recorded."""
    by_model = bool(candidate.proposed.model)
    held = list(conversations(exchanges))
    last_writer = max((i for i, one in enumerate(held) if _writes(one)), default=-1)
    code, found = parent.code, []
    for i, conversation in enumerate(held):
        first = conversation[0]
        plans = first.role.startswith("planner")
        file = CodeFile(parent.code if plans else code) if _writes(conversation) else None
        try:
            answer = _again(conversation, file)
        except (RoleFailed, ModelError) as error:
            result, agrees = f"no usable answer: {error}", None
        else:
            result, agrees = _words(answer), _agrees(answer, candidate)
            if file is not None:
                code = file.code
        if i == last_writer and by_model:
            agrees = code == candidate.code
        found.append(Outcome(first.role, first.model, len(conversation), result, agrees))
    return found


def conversations(exchanges: Sequence[Exchange]) -> Iterator[list[Exchange]]:
    """The exchanges by conversation; each goes on with the same two first messages."""
    held: list[Exchange] = []
    for exchange in exchanges:
        if held and not _follows(held[-1], exchange):
            yield held
            held = []
        held.append(exchange)
    if held:
        yield held


def _follows(before: Exchange, exchange: Exchange) -> bool:
    same = before.role == exchange.role and before.messages[:2] == exchange.messages[:2]
    return same and (len(exchange.messages) > len(before.messages) or bool(before.error))


def _writes(conversation: Sequence[Exchange]) -> bool:
    return _KINDS[conversation[0].role][0] in (planner.PlannerAnswer, repair.Changes)


def _again(conversation: Sequence[Exchange], code: CodeFile | None) -> Any:
    first = conversation[0]
    kind, missing = _KINDS[first.role]
    replies: list[Reply | Exception] = [
        NoTools(exchange.error) if exchange.error else exchange.reply for exchange in conversation
    ]
    system, user = (message.content for message in first.messages[:2])
    question = Question(system, user, Call(temperature=first.temperature))
    return ask(Scripted(replies, first.model), question, kind, code, lambda answer: missing(answer, code))


def _agrees(answer: Any, candidate: Candidate) -> bool | None:
    if isinstance(answer, judge.Marks) and candidate.score is not None and candidate.score.judgement.marks:
        return round(answer.mark, 3) in candidate.score.judgement.marks
    if isinstance(answer, prose.Prose) and candidate.analysis is not None:
        return prose.body(answer) in candidate.analysis.text
    if isinstance(answer, tags.Listed) and candidate.analysis is not None:
        return tags.shown(answer) == candidate.analysis.components
    if (
        isinstance(answer, Origin)
        and candidate.analysis is not None
        and candidate.analysis.origin is not None
    ):
        return answer.origin == candidate.analysis.origin.origin
    return None


def _words(answer: Any) -> str:
    return "; ".join(f"{name}: {value}" for name, value in msgspec.structs.asdict(answer).items())
