"""A record holds what its state says, or goes back to the last state of which it holds everything."""

from __future__ import annotations

import msgspec
import pytest

from asi_lab.lab import Store
from asi_lab.lab.soundness import as_far_as_sound, faults_of
from asi_lab.records import (
    Analysis,
    Candidate,
    CandidateState,
    Draw,
    Evaluation,
    Evidence,
    HeldOut,
    Judgement,
    Noise,
    Proposal,
    Score,
    TaskResult,
    Training,
    Work,
)

S = CandidateState
TRAINING = Training(9, 5, 3, 30, 4.0, 2.0, 15.0, 1.0)
TASK = TaskResult("task", 0.5, "choice_probability", True, 0.25, 10)
EVALUATION = Evaluation(4.0, 100, (TASK,))
NOISE = Noise(0.01, 0.01, 0.01, 4, 3, 0.005, 0.02)
SCORE = Score(0.7, 0.7, 0.7, 0.7, 0.1, 0.1, Judgement(7.0, (), "rubric"), NOISE)
EVIDENCE = Evidence(training=TRAINING, evaluation=EVALUATION, held_out=(HeldOut(1, 5.0), HeldOut(2, 4.5)))
WHOLE = Candidate(
    id=7,
    state=S.DONE,
    created=1.0,
    updated=2.0,
    draw=Draw(0, 0, 1),
    proposal=Proposal("net", "why", "change", "code", "grammar"),
    evidence=EVIDENCE,
    score=SCORE,
    analysis=Analysis("text", "summary", (), (), "table"),
)
STEPS = [S.TRAINED, S.EVALUATED, S.JUDGED, S.ANALYSED, S.DONE]


def but(part: str, **fields: object) -> Candidate:
    """The whole record with other figures in one part of its evidence, or without it."""
    changed = msgspec.structs.replace(getattr(EVIDENCE, part), **fields) if fields else None
    return msgspec.structs.replace(WHOLE, evidence=msgspec.structs.replace(EVIDENCE, **{part: changed}))


@pytest.mark.parametrize("state", [*STEPS, S.PROPOSED, S.CHECKED, S.PREFLIGHTED, S.TRAINING])
def test_a_sound_record_stays_as_it_is(state):
    early = state in (S.PROPOSED, S.CHECKED, S.PREFLIGHTED, S.TRAINING)
    record = msgspec.structs.replace(WHOLE, state=state, evidence=None if early else EVIDENCE)
    assert as_far_as_sound(record) == (record, "")


NAN, INF = float("nan"), float("inf")
BROKEN = {
    "no training": (but("training"), S.PROPOSED),
    "no time": (but("training", seconds=0.0), S.PROPOSED),
    "a time that is none": (but("training", seconds=NAN), S.PROPOSED),
    "a speed below nothing": (but("training", tokens_per_second=-11_103.0), S.PROPOSED),
    "an endless speed": (but("training", tokens_per_second=INF), S.PROPOSED),
    "no parameters": (but("training", params=0), S.PROPOSED),
    "a claim that is none": (but("training", train_loss=NAN), S.PROPOSED),
    "no evaluation": (but("evaluation"), S.TRAINED),
    "a loss below nothing": (but("evaluation", loss=-1.0), S.TRAINED),
    "a loss that is none": (but("evaluation", loss=NAN), S.TRAINED),
    "no task": (but("evaluation", tasks=()), S.TRAINED),
    "a task without score": (
        but("evaluation", tasks=(msgspec.structs.replace(TASK, score=0.0),)),
        S.TRAINED,
    ),
    "a task that is kept for claims": (
        but("evaluation", tasks=(TASK, msgspec.structs.replace(TASK, task="sciq"))),
        S.TRAINED,
    ),
    "marks out of order": (
        msgspec.structs.replace(
            WHOLE, evidence=msgspec.structs.replace(EVIDENCE, held_out=(HeldOut(2, 4.0), HeldOut(1, 4.0)))
        ),
        S.PROPOSED,
    ),
    "a failure": (
        msgspec.structs.replace(WHOLE, evidence=msgspec.structs.replace(EVIDENCE, failure=S.LEAKING)),
        S.TRAINED,
    ),
    "no evidence": (msgspec.structs.replace(WHOLE, evidence=None), S.PROPOSED),
    "no score": (msgspec.structs.replace(WHOLE, score=None), S.EVALUATED),
    "a fitness above one": (
        msgspec.structs.replace(WHOLE, score=msgspec.structs.replace(SCORE, fitness=1.5)),
        S.EVALUATED,
    ),
    "a fitness that is none": (
        msgspec.structs.replace(WHOLE, score=msgspec.structs.replace(SCORE, fitness=NAN)),
        S.EVALUATED,
    ),
    "a mark beyond all": (
        msgspec.structs.replace(
            WHOLE,
            score=msgspec.structs.replace(
                SCORE, judgement=msgspec.structs.replace(SCORE.judgement, beyond=INF)
            ),
        ),
        S.EVALUATED,
    ),
    "work that is none": (
        msgspec.structs.replace(WHOLE, evidence=msgspec.structs.replace(EVIDENCE, work=Work(0.0, 1.0))),
        S.TRAINED,
    ),
    "no analysis": (msgspec.structs.replace(WHOLE, analysis=None), S.JUDGED),
    "leaking without evidence": (msgspec.structs.replace(WHOLE, state=S.LEAKING, evidence=None), S.PROPOSED),
    "leaking with another failure": (
        msgspec.structs.replace(WHOLE, state=S.LEAKING, evidence=Evidence(failure=S.BROKEN)),
        S.PROPOSED,
    ),
    "in training and evaluated": (msgspec.structs.replace(WHOLE, state=S.TRAINING), S.PROPOSED),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_record_that_does_not_fit_goes_back_as_far_as_it_does(name):
    record, state = BROKEN[name]
    left, wrong = as_far_as_sound(record)
    assert wrong
    assert left.state is state
    assert as_far_as_sound(left) == (left, "")
    assert (left.id, left.proposal, left.draw) == (record.id, record.proposal, record.draw)
    if state in (S.PROPOSED, S.TRAINED):
        assert left.score is None
        assert left.evidence is None or left.evidence.evaluation is None


@pytest.mark.parametrize("name", BROKEN)
def test_no_broken_record_is_written_and_none_is_read(tmp_path, name):
    record, state = BROKEN[name]
    with Store.open(tmp_path / "store") as store:
        (event,) = store.put(record)
        assert event.kind == "warning"
        assert event.message.endswith(f"it goes back to {state.value}")
        assert store.get(7).state is state
        assert store.summary(7).state is state
        assert [c.state for c in store.candidates()] == [c.state for c in store.records()] == [state]


def test_a_run_is_looked_at_whole():
    assert faults_of(EVIDENCE) == ""
    assert faults_of(msgspec.structs.replace(EVIDENCE, training=None)) == "there is no training"
    assert faults_of(Evidence(training=TRAINING)) == "there is no evaluation"
