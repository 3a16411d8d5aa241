"""What a record must hold in the state that it claims, and what is left of one that does not.

A record is looked at whole before it is written and when it is read. One that does not fit goes back to the
last state that it does fit: what that state still needs is measured again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from asi_lab.data import suites
from asi_lab.records import (
    SEED_ID,
    Candidate,
    CandidateState,
    Evaluation,
    Evidence,
    HeldOut,
    Score,
    Training,
    Work,
)

S = CandidateState

_MEASURED = (S.TRAINED, S.EVALUATED, S.JUDGED, S.ANALYSED, S.DONE)
"""States that stand on measurements, in the order in which they are reached."""

_TRIED = (S.CHECKED, S.PREFLIGHTED, S.TRAINING)


def as_far_as_sound(candidate: Candidate) -> tuple[Candidate, str]:
    """The record itself and nothing, or what is left of it, and what was wrong with it in words."""
    if candidate.id == SEED_ID or candidate.proposal is None:
        return candidate, ""
    state = candidate.state
    if state.is_failure:
        failure = candidate.evidence.failure if candidate.evidence else None
        if failure is state:
            return candidate, ""
        return _begun_again(candidate), f"is {state.value} without evidence of it"
    if state in _TRIED and candidate.evidence is not None and candidate.evidence.evaluation is not None:
        return _begun_again(candidate), f"is {state.value} and evaluated"
    if state not in _MEASURED:
        return candidate, ""
    wrong = _faults(candidate)
    reached = _MEASURED[: _MEASURED.index(state) + 1]
    first = next((needed for needed in reached if wrong[needed]), None)
    if first is None:
        return candidate, ""
    message = f"is {state.value}, but {wrong[first]}"
    last = _MEASURED.index(first) - 1
    return (_back_to(candidate, _MEASURED[last]) if last >= 0 else _begun_again(candidate)), message


def back_to(candidate: Candidate) -> str:
    """What becomes of such a record, in words."""
    return f"it goes back to {candidate.state.value}"


def faults_of(evidence: Evidence) -> str:
    """What is wrong with the measurements of a whole run, in words; empty if nothing."""
    training, evaluation = evidence.training, evidence.evaluation
    return (
        _of_training(training)
        or _of_curve(evidence.held_out)
        or _of_evaluation(evaluation)
        or _of_work(evidence.work)
    )


def _faults(candidate: Candidate) -> dict[CandidateState, str]:
    """What each state lacks, empty for nothing."""
    evidence = candidate.evidence or Evidence()
    return {
        S.TRAINED: _of_training(evidence.training) or _of_curve(evidence.held_out),
        S.EVALUATED: _of_evaluation(evidence.evaluation)
        or _of_work(evidence.work)
        or ("it has failed" if evidence.failure else ""),
        S.JUDGED: _of_score(candidate.score),
        S.ANALYSED: "" if candidate.analysis is not None else "there is no analysis",
        S.DONE: "",
    }


def _back_to(candidate: Candidate, state: CandidateState) -> Candidate:
    evidence = candidate.evidence
    if state is S.TRAINED and evidence is not None:
        evidence = msgspec.structs.replace(evidence, evaluation=None, work=None, failure=None, error="")
    judged = state in (S.JUDGED, S.ANALYSED)
    return msgspec.structs.replace(
        candidate,
        state=state,
        evidence=evidence,
        score=candidate.score if judged else None,
        analysis=candidate.analysis if state is S.ANALYSED else None,
    )


def _begun_again(candidate: Candidate) -> Candidate:
    return msgspec.structs.replace(candidate, state=S.PROPOSED, evidence=None, score=None, analysis=None)


def _of_training(training: Training | None) -> str:
    if training is None:
        return "there is no training"
    counts = training.params, training.steps, training.tokens
    rates = training.seconds, training.tokens_per_second
    claims = (training.train_loss, training.peak_memory_mb, training.step_seconds, training.cpu_seconds)
    if min(counts) < 1 or not _all_positive(rates) or not all(map(math.isfinite, claims)):
        return "its training has figures that cannot be"
    return ""


def _of_curve(curve: Sequence[HeldOut]) -> str:
    steps = [point.step for point in curve]
    if steps != sorted(set(steps)) or not all(math.isfinite(point.loss) for point in curve):
        return "its held-out losses at the marks are out of order"
    return ""


def _of_evaluation(evaluation: Evaluation | None) -> str:
    if evaluation is None:
        return "there is no evaluation"
    if not _all_positive([evaluation.loss, *(task.score for task in evaluation.tasks)]):
        return "its evaluation has figures that cannot be"
    if kept := suites.kept_for_claims(task.task for task in evaluation.tasks):
        return f"its evaluation has {', '.join(kept)}, which are kept for claims and enter no fitness"
    return "" if evaluation.tasks else "no task was evaluated"


def _of_work(work: Work | None) -> str:
    if work is not None and not _all_positive((work.operations, work.bytes, work.size)):
        return "its counted work has figures that cannot be"
    return ""


def _of_score(score: Score | None) -> str:
    if score is None:
        return "there is no score"
    shares = score.fitness, score.loss_part, score.benchmark_part, score.judge_part
    is_sound = 0 <= score.judgement.beyond < math.inf and 0 <= score.spread < math.inf
    is_off = not 1 <= score.judgement.mark <= 10 or not is_sound
    if is_off or not all(0.0 <= share <= 1.0 for share in shares):
        return "its score has figures that cannot be"
    return ""


def _all_positive(figures: Sequence[float]) -> bool:
    return all(math.isfinite(figure) and figure > 0 for figure in figures)
