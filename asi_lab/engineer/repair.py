"""Checker and debugger: language models that put a candidate's code right (paper, section 2.3).

The checker is given the measured verdicts where a rule of the contract is broken, the debugger the error
where the code does not run. Both keep the idea.
"""

from __future__ import annotations

import re

import msgspec

from asi_lab.common.syntax import code_hash
from asi_lab.engineer.contract import faults
from asi_lab.llm.ask import Asker, RoleFailed
from asi_lab.llm.codefile import CodeFile
from asi_lab.llm.model import ModelError
from asi_lab.llm.models import Models
from asi_lab.records import Candidate, CandidateState, Check, Proposal, Repair

S = CandidateState

ROLES = {
    S.REJECTED: "checker",
    S.LEAKING: "checker",
    S.SLOW: "checker",
    S.BROKEN: "debugger",
    S.DIVERGED: "debugger",
    S.OUT_OF_MEMORY: "debugger",
    S.TIMED_OUT: "debugger",
}
"""Who puts which failure right. What is not here is nobody's to repair."""

OWN_FRAME = re.compile(r'^\s*File ".*architecture\.py", line \d+')
MOST_LINES, MOST_CHARACTERS = 40, 4000


class Changes(msgspec.Struct, frozen=True):
    """What the model says it changed."""

    changes: str


def repair(models: Models, candidate: Candidate, most: int) -> tuple[Proposal, Repair] | None:
    """Changed code for a candidate that failed; None where it is not to be repaired any more: it has had
    `most` repairs, no model wrote it, or none can be asked."""
    by_model = candidate.proposal is not None and candidate.proposal.model != ""
    left = most - len(candidate.repairs)
    if not (models.present and by_model and left > 0 and candidate.state in ROLES):
        return None
    try:
        proposal, done = rewrite(models.of(candidate.id), candidate)
    except (RoleFailed, ModelError) as error:
        models.stand_in(candidate.id, ROLES[candidate.state], "it is given up", error)
        return None
    return msgspec.structs.replace(proposal, code_hash=code_hash(proposal.code)), done


def rewrite(ask: Asker, candidate: Candidate) -> tuple[Proposal, Repair]:
    """Ask for code that does what the candidate wants without the failure it ended in.

    Raises:
        RoleFailed: no changed code came.
        ModelError: no model can be had.
    """
    proposal, evidence = candidate.proposed, candidate.found
    role, code = ROLES[candidate.state], CodeFile(proposal.code, faults)
    error = matter(evidence.error)
    values = {"motivation": proposal.motivation, "code": proposal.code}
    if role == "checker":
        values["verdicts"] = verdicts(evidence.checks, proposal.code) or error
    else:
        values |= {"error": error, "stage": stage(candidate), "earlier": earlier(candidate)}
    answer = ask(role, Changes, values, code, lambda given: missing(given, code))
    done = Repair(role, ask.model_of(role), candidate.state, error, answer.changes.strip())
    return msgspec.structs.replace(proposal, code=code.code, code_hash=""), done


def missing(answer: Changes, code: CodeFile) -> str:
    """What a repair still lacks, in words for the model; empty if nothing."""
    del answer
    if code.written:
        return ""
    return (
        "architecture.py was not changed: call write_code_file, or give the whole file in a ```python block"
    )


def verdicts(checks: tuple[Check, ...], code: str) -> str:
    """The measured verdicts in words: the failed ones with their numbers and lines, the others by name."""
    source = dict(enumerate(code.splitlines(), start=1))
    failed = [check for check in checks if not check.passed]
    lines = []
    for check in failed:
        number = f" (measured {check.value:.3g}, limit {check.tolerance:.3g})" if _measured(check) else ""
        place = f" [line {check.line}: {source.get(check.line, '').strip()}]" if check.line else ""
        lines.append(f"FAILED {check.name}{number}{place}: {check.detail}")
    passed = [check.name for check in checks if check.passed]
    if failed and passed:
        lines.append(f"passed: {', '.join(passed)}")
    return "\n".join(lines)[:MOST_CHARACTERS]


def _measured(check: Check) -> bool:
    return check.value is not None and check.tolerance is not None


def matter(error: str) -> str:
    """Those lines of an error that matter: the frames of the candidate's own file and what was raised."""
    lines = error.strip().splitlines()
    frames = [i for i, line in enumerate(lines) if line.lstrip().startswith('File "')]
    if not frames:
        return "\n".join(lines[-MOST_LINES:])[-MOST_CHARACTERS:]
    kept: list[str] = []
    for i, line in enumerate(lines):
        if line.lstrip().startswith('File "'):
            if OWN_FRAME.match(line):
                kept += [re.sub(r'File ".*architecture\.py"', 'File "architecture.py"', line)]
                kept += [text for text in lines[i + 1 : i + 2] if not text.lstrip().startswith('File "')]
        elif i > frames[-1] and not line.startswith(" "):
            kept.append(line)  # what was raised, and notes on it
        elif i < frames[0]:
            kept.append(line)
    return "\n".join(kept[-MOST_LINES:])[-MOST_CHARACTERS:]


def stage(candidate: Candidate) -> str:
    """Where the candidate failed, in words."""
    evidence = candidate.found
    if evidence.training is not None:
        return "scoring, after training"
    failed = next((check.name for check in evidence.checks if not check.passed), None)
    return f"check {failed}, before training" if failed else "training"


def earlier(candidate: Candidate) -> str:
    """What was tried before, and what it was tried against."""
    told = [
        f"{number}. {done.role} on {done.failure.value}: {done.changes}\n   error then: {_last(done.error)}"
        for number, done in enumerate(candidate.repairs, start=1)
    ]
    return "\n".join(told) or "nothing yet"


def _last(error: str) -> str:
    lines = error.strip().splitlines()
    return lines[-1][:300] if lines else ""
