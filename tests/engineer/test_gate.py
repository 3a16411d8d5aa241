"""The gate: what an honest trial says passes whatever it is, what no trial can have to say never does."""

from __future__ import annotations

import math

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asi_lab import protocol
from asi_lab.engineer.gate import ALIVE_AT_ONCE, FAILURES, SAVES_AT_ONCE, Forged, Gate, Place, ServerGate
from asi_lab.protocol import Progress, Report, TrialJob, curve_steps
from asi_lab.records import CandidateState, Check, Work
from tests.engineer import scripts
from tests.engineer.scripts import AGAIN, BEGUN, CHECKS, PREFLIGHTED, READY, TRAINED, TRAINING, job

S = CandidateState
FAST, ALL = 1_000, 100_000


def said(*lines: scripts.Line, to: Gate | None = None) -> Gate:
    """A gate that has heard these of the trial, and has had the scorer measure at marks."""
    gate = to or Gate(job())
    for source, report in lines:
        if source == "trial":
            gate.admit(report)
        else:
            gate.go_on()
    return gate


HONEST = {
    "a whole training": (scripts.TRIAL, job(), 0),
    "with checkpoints": ([*BEGUN, *scripts.steps(saves=(1, 2, 5)), AGAIN, TRAINED], job(), 0),
    "a checkpoint between two points": ([*BEGUN, *scripts.steps()[:4], scripts.saved(2)], job(), 0),
    "gone on after four steps": ([*BEGUN, *scripts.steps(after=4), AGAIN, TRAINED], job("resume"), 4),
    "a checkpoint that is loaded": ([READY, scripts.LOADED], job("serve"), 0),
    "checks alone": ([READY, CHECKS, PREFLIGHTED], job("check"), 0),
    "a check that failed": (
        [READY, scripts.checked(failing="growth"), ("trial", protocol.Failed(S.REJECTED, "growth"))],
        job(),
        0,
    ),
    "a first check that failed": (
        [READY, scripts.checked(failing="construction"), ("trial", protocol.Failed(S.BROKEN, "no"))],
        job(),
        0,
    ),
    "a failure in training": (
        [*BEGUN, *scripts.steps()[:4], ("trial", protocol.Failed(S.DIVERGED, "nan"))],
        job(),
        0,
    ),
}


@pytest.mark.parametrize("name", HONEST)
def test_what_an_honest_trial_says_passes(name):
    lines, of, after = HONEST[name]
    alive = [line for said_ in lines for line in (said_, ("trial", protocol.Alive()))]
    gate = said(*alive, to=Gate(of, after))
    assert gate.place > Place.STARTING


def probing(task: str = "train") -> TrialJob:
    """A job with two probes."""
    return msgspec.structs.replace(job(task), probes=("probe_mqar", "probe_s3"))


ONE, TWO = (("trial", protocol.Probed(name)) for name in probing().probes)


@pytest.mark.parametrize(("task", "before"), [("train", scripts.TRIAL), ("serve", [READY, scripts.LOADED])])
def test_probes_come_in_their_order_once_the_model_is_there(task, before):
    gate = said(*before, to=Gate(probing(task)))
    assert gate.place is Place.PROBING
    assert said(ONE, to=gate).place is Place.PROBING
    assert said(TWO, to=gate).place is Place.ANSWERING
    for lines in ([TWO], [ONE, ONE], [ONE, TWO, TWO], [ONE, TRAINED]):
        with pytest.raises(Forged, match="it said"):
            said(*before, *lines, to=Gate(probing(task)))


def test_a_probe_before_the_end_of_training_or_of_another_job_is_forged():
    for lines in ([READY, ONE], [*BEGUN, ONE], [*scripts.TRIAL[:-1], ONE]):
        with pytest.raises(Forged, match="it said Probed"):
            said(*lines, to=Gate(probing()))
    with pytest.raises(Forged, match="it said Probed when it was answering"):
        said(*scripts.TRIAL, ONE)


def test_a_failure_in_a_probe_is_a_state_the_probe_and_a_line():
    gate = said(*scripts.TRIAL, ONE, to=Gate(probing()))
    words = 'File "architecture.py", line 7\nthe text is secret'
    found = gate.admit(protocol.Failed(S.BROKEN, words))
    assert found == protocol.Failed(S.BROKEN, 'broken in probe_s3, at File "architecture.py", line 7')


def test_points_that_are_not_every_step_and_marks_between_them():
    long = job(steps=1000, marks=(333, 500))
    assert curve_steps(1000)[:3] == [1, 5, 10]
    lines = [*BEGUN]
    for step in curve_steps(1000):
        if step == 335:
            lines += scripts.mark(333)
        lines.append(scripts.progress(step, steps=1000))
        lines += scripts.mark(500) if step == 500 else []
    assert said(*lines, AGAIN, to=Gate(long)).place is Place.CHECKED_AGAIN
    with pytest.raises(Forged, match="something else was next"):
        said(*[line for line in lines if not isinstance(line[1], protocol.AtMark)], to=Gate(long))


def replaced(lines: list[scripts.Line], at: int, *by: scripts.Line) -> list[scripts.Line]:
    return [*lines[:at], *by, *lines[at + 1 :]]


def claims(**figures: float) -> scripts.Line:
    return "trial", protocol.Trained(msgspec.structs.replace(scripts.CLAIMS, **figures))


def first(**fields: object) -> scripts.Line:
    return "trial", protocol.Checked((Check("construction", False, **fields),))


WHOLE = scripts.TRIAL
LIES = {
    "nothing but the end": [READY, TRAINED],
    "no checks": [READY, PREFLIGHTED],
    "one check for all": [READY, ("trial", protocol.Checked((Check("causality", True),)))],
    "no check at all": [READY, ("trial", protocol.Checked(()))],
    "a check twice": [READY, scripts.checked(names=(*protocol.PREFLIGHT_CHECKS, "growth"))],
    "checks in another order": [READY, scripts.checked(names=protocol.PREFLIGHT_CHECKS[::-1])],
    "checks twice": [READY, CHECKS, CHECKS],
    "preflighted after a failed check": [READY, scripts.checked(failing="growth"), PREFLIGHTED],
    "checks again after a failed one": [READY, scripts.checked(failing="growth"), CHECKS],
    "ready twice": [READY, READY],
    "nothing before it is ready": [CHECKS],
    "training before its checks": [READY, TRAINING],
    "preflighted twice": [READY, CHECKS, PREFLIGHTED, PREFLIGHTED],
    "done": [READY, ("trial", protocol.Stage(S.DONE))],
    "evaluated": [*BEGUN, ("trial", protocol.Stage(S.EVALUATED))],
    "a step before training": [READY, CHECKS, PREFLIGHTED, scripts.progress(1)],
    "a step left out": [*BEGUN, scripts.progress(2)],
    "a step twice": [*BEGUN, scripts.progress(1), scripts.progress(1)],
    "a step too many": [*WHOLE[:-2], scripts.progress(7)],
    "step 999,999": [*BEGUN, scripts.progress(999_999)],
    "a step below nothing": [*BEGUN, scripts.progress(-1)],
    "steps of another job": [*BEGUN, scripts.progress(1, steps=1)],
    "tokens of another job": [*BEGUN, scripts.progress(1, tokens=10**9)],
    "a loss below nothing": [*BEGUN, scripts.progress(1, loss=-0.5)],
    "a loss beyond all": [*BEGUN, scripts.progress(1, loss=1e300)],
    "a rate beyond all": [*BEGUN, scripts.progress(1, tokens_per_second=1e300)],
    "memory below nothing": [*BEGUN, scripts.progress(1, memory_mb=-1.0)],
    "a learning rate of its own": [*BEGUN, scripts.progress(1, learning_rate=1.0)],
    "a mark left out": [*BEGUN, *map(scripts.progress, (1, 2, 3))],
    "a mark too early": [*BEGUN, scripts.mark(2)[0]],
    "a mark twice": [*BEGUN, *scripts.steps()[:4], scripts.mark(2)[0]],
    "a mark that is none": [*BEGUN, scripts.progress(1), scripts.mark(1)[0]],
    "a step at a mark that nobody has measured": [*BEGUN, *scripts.steps()[:3], scripts.progress(3)],
    "checks at a mark that nobody has measured": [*BEGUN, *scripts.steps()[:3], AGAIN],
    "a checkpoint before training": [READY, CHECKS, PREFLIGHTED, scripts.saved(1)],
    "a checkpoint of steps to come": [*BEGUN, scripts.saved(1)],
    "a checkpoint of the same step again": [*BEGUN, scripts.progress(1), scripts.saved(1), scripts.saved(1)],
    "a checkpoint of a step long past": [*BEGUN, *scripts.steps()[:5], scripts.saved(1)],
    "a checkpoint after the last step": [*WHOLE[:-2], scripts.saved(6)],
    "a checkpoint after training": [*WHOLE, scripts.saved(6)],
    "a checkpoint after a million steps": [*BEGUN, scripts.progress(1), scripts.saved(10**6)],
    "compiled where nothing is": [*BEGUN, ("trial", protocol.Compiled(1.0))],
    "trained without its last steps": [*BEGUN, *scripts.steps()[:6], AGAIN],
    "trained without the checks on it": [*WHOLE[:-2], TRAINED],
    "trained twice": [*WHOLE, TRAINED],
    "a step after it was trained": [*WHOLE, scripts.progress(6)],
    "training again": [*WHOLE, TRAINING],
    "trained for other steps": [*WHOLE[:-1], claims(steps=1)],
    "tokens that were not": [*WHOLE[:-1], claims(tokens=1)],
    "a negative time": [*WHOLE[:-1], claims(seconds=-1.0)],
    "parameters beyond all": [*WHOLE[:-1], claims(params=10**19)],
    "parameters beyond all numbers": [*WHOLE[:-1], claims(params=10**400)],
    "loaded instead of trained": [*WHOLE[:-1], scripts.LOADED],
    "measured by itself": [*BEGUN, ("trial", scripts.mark(2)[1][1])],
    "scored by itself": [*WHOLE, ("trial", scripts.SCORED[1])],
    "answered by itself": [*WHOLE, ("trial", protocol.Answered())],
    "failed before it was ready": [("trial", protocol.Failed(S.BROKEN, "x"))],
    "an error without end": [READY, ("trial", protocol.Failed(S.BROKEN, "x" * 8001))],
    "a detail without end": [READY, first(detail="x" * 8001)],
    "a line that no file has": [READY, first(line=-4)],
    "a value that is none": [READY, first(value=float("inf"))],
    "a time below nothing": [READY, first(seconds=-1.0)],
}


@pytest.mark.parametrize("name", LIES)
def test_what_cannot_be_true_ends_as_forged(name):
    *before, last = LIES[name]
    heard = said(*before)
    with pytest.raises(Forged):
        said(last, to=heard)


@pytest.mark.parametrize(
    ("before", "last"),
    [
        (BEGUN, scripts.progress(10**4000)),
        (BEGUN, scripts.progress(1, tokens=10**4000)),
        (WHOLE[:-1], claims(tokens=10**4000)),
        ([*BEGUN, scripts.progress(1)], scripts.saved(10**4000)),
    ],
)
def test_a_number_is_no_way_to_tell_a_text(before, last):
    heard = said(*before)
    with pytest.raises(Forged) as error:
        said(last, to=heard)
    assert len(str(error.value)) < 120


@pytest.mark.parametrize("state", sorted(set(S) - FAILURES))
def test_a_trial_can_only_report_ends_of_its_own(state):
    with pytest.raises(Forged, match=state.value):
        said(READY, ("trial", protocol.Failed(state, "so it says")))
    said(READY, ("trial", protocol.Failed(S.LEAKING, "so it says")))


def test_being_alive_says_nothing_and_may_not_be_said_without_end():
    gate = said(READY, *[("trial", protocol.Alive())] * ALIVE_AT_ONCE)
    with pytest.raises(Forged, match="that it is alive"):
        said(*[("trial", protocol.Alive())] * (ALIVE_AT_ONCE + 100_000), to=gate)


TRACE = """File "/x/architecture.py", line 85, in forward
File "torch/nn.py", line 3
ValueError: the held-out text says so"""


def test_before_any_held_out_text_an_error_is_told_as_it_is():
    failed = protocol.Failed(S.BROKEN, TRACE)
    assert said(*BEGUN, *scripts.steps()[:2]).admit(failed) == failed


def test_after_held_out_text_an_error_is_a_state_and_a_line():
    for gate in (
        said(*BEGUN, *scripts.steps()[:4]),
        said(*BEGUN, to=Gate(job("resume"), 4, shown=True)),
        said(READY, to=Gate(job("serve"))),
        said(*WHOLE),
    ):
        told = gate.admit(protocol.Failed(S.BROKEN, TRACE))
        assert told.state is S.BROKEN
        assert told.error.endswith('at File "architecture.py", line 85')
        assert "text" not in told.error
        assert "nn.py" not in told.error
    verdicts = scripts.checked(protocol.TRAINED, protocol.LEAK_CHECKS, failing="causality")
    told = said(*WHOLE[:-2]).admit(verdicts[1])
    assert [(c.name, c.passed, c.detail, c.value) for c in told.checks] == [
        ("trained batch", True, "", None),
        ("trained causality", False, "", None),
    ]


def test_a_server_says_that_it_is_ready_and_how_it_failed():
    gate = ServerGate()
    with pytest.raises(Forged):
        gate.admit(protocol.Failed(S.BROKEN, "early"))
    gate.admit(protocol.Ready())
    gate.admit(protocol.Alive())
    assert gate.is_ready
    told = gate.admit(protocol.Failed(S.BROKEN, TRACE))
    assert told.error == 'broken when it was scored, at File "architecture.py", line 85'
    for line in (READY, CHECKS, PREFLIGHTED, scripts.progress(1), TRAINED, scripts.LOADED, scripts.SCORED):
        with pytest.raises(Forged):
            gate.admit(line[1])


def test_a_server_counts_once_and_only_when_it_was_given_its_job():
    gate, count = ServerGate(), scripts.COUNTED[1]
    gate.begin()
    with pytest.raises(Forged, match="Counted, which it cannot say"):
        gate.admit(count)  # before it is ready
    gate = ServerGate()
    gate.admit(protocol.Ready())
    with pytest.raises(Forged, match="Counted, which it cannot say"):
        gate.admit(count)  # before candidate code is loaded
    gate.begin()
    assert gate.admit(count) == count
    with pytest.raises(Forged, match="Counted, which it cannot say"):
        gate.admit(count)
    with pytest.raises(Forged, match="Counted, which it cannot say"):
        said(*scripts.TRIAL).admit(count)  # a trial never


@pytest.mark.parametrize("figure", [0.0, 1e-200, -1.0, math.nan, math.inf, 1e19])
@pytest.mark.parametrize("what", ["operations", "bytes"])
def test_a_count_that_cannot_be_is_forged(what, figure):
    gate = ServerGate()
    gate.admit(protocol.Ready())
    gate.begin()
    with pytest.raises(Forged, match=what):
        gate.admit(protocol.Counted(msgspec.structs.replace(Work(1.0, 1.0), **{what: figure})))


# Sequences without number: honest ones that were cut off, put in another order, doubled and forged.

POOL = [line for lines in [*LIES.values(), *(honest for honest, _, _ in HONEST.values())] for line in lines]
JOBS = [
    job(),
    job("resume"),
    job("serve"),
    job("check"),
    job(steps=1, marks=()),
    job(steps=1000, marks=(333,)),
]
figures = st.one_of(st.integers(-(2**63), 2**64 - 1), st.floats(), st.sampled_from([0, 1, -1, 1e308, 5e-324]))


@st.composite
def forged(draw) -> Report:
    """Any report that can be read, with figures and texts of any kind."""
    report = draw(st.sampled_from([line[1] for line in POOL]))
    fields = {}
    for name, value in msgspec.structs.asdict(report).items():
        if isinstance(value, bool | str):
            fields[name] = draw(st.text(max_size=30)) if isinstance(value, str) else draw(st.booleans())
        elif isinstance(value, int | float) and draw(st.booleans()):
            fields[name] = draw(figures)
    fields.pop("state", None)
    text = protocol.encoder.encode(msgspec.structs.replace(report, **fields))
    try:
        return protocol.decoder.decode(text)  # what cannot be read never comes to the gate
    except msgspec.DecodeError:
        return report


@st.composite
def sequences(draw) -> tuple[TrialJob, int, list[Report]]:
    lines = [line[1] for line in draw(st.sampled_from([honest for honest, _, _ in HONEST.values()]))]
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(lines)))
        match draw(st.sampled_from(["cut", "drop", "swap", "double", "forge", "other"])):
            case "cut":
                lines = lines[:at]
            case "drop":
                lines = lines[:at] + lines[at + 1 :]
            case "swap":
                lines[at : at + 2] = reversed(lines[at : at + 2])
            case "double":
                lines[at:at] = lines[at : at + 1]
            case "forge":
                lines.insert(at, draw(forged()))
            case "other":
                lines.insert(at, draw(st.sampled_from(POOL))[1])
    return draw(st.sampled_from(JOBS)), draw(st.sampled_from([0, 0, 4])), lines


def hear(case: tuple[TrialJob, int, list[Report]]) -> None:
    """Whatever comes, the gate admits or refuses; what it admits is in order, complete and bounded."""
    of, after, reports = case
    gate, admitted = Gate(of, after), []
    for report in reports:
        if isinstance(report, protocol.Measured):
            gate.go_on()
            continue
        try:
            admitted.append(gate.admit(report))
        except Forged:
            break
    kinds = [type(report) for report in admitted if not isinstance(report, protocol.Alive)]
    steps = [report.step for report in admitted if isinstance(report, Progress)]
    assert steps == curve_steps(of.train.steps, after)[: len(steps)]
    assert kinds[:1] in ([], [protocol.Ready])
    assert kinds.count(protocol.Ready) <= 1
    if protocol.Trained in kinds:
        assert kinds.count(protocol.Trained) == 1
        assert steps == curve_steps(of.train.steps, after)
        checks = [
            c.name for report in admitted if isinstance(report, protocol.Checked) for c in report.checks
        ]
        assert checks == [*protocol.PREFLIGHT_CHECKS, *(protocol.TRAINED + c for c in protocol.LEAK_CHECKS)]
        marks = [report.step for report in admitted if isinstance(report, protocol.AtMark)]
        assert marks == [mark for mark in of.marks if mark > after]
        assert set(kinds[kinds.index(protocol.Trained) + 1 :]) <= {protocol.Failed}
    for report in admitted:
        assert len(protocol.encoder.encode(report)) < protocol.MOST_LINE_BYTES
        if isinstance(report, Progress):
            assert 0 <= report.loss < float("inf")


QUIET = [HealthCheck.too_slow, HealthCheck.data_too_large]


@settings(max_examples=FAST, suppress_health_check=QUIET)
@given(sequences())
def test_no_sequence_of_reports_gets_anything_past_it(case):
    hear(case)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@settings(max_examples=ALL, suppress_health_check=QUIET)
@given(sequences())
def test_none_of_a_hundred_thousand_sequences_does(case):
    hear(case)


def test_checkpoints_that_come_faster_than_the_job_asks_for_are_forged():
    """Each is copied, so they would keep the engine from everything else."""
    often = job(steps=5000, marks=())
    slow = msgspec.structs.replace(often, train=msgspec.structs.replace(often.train, save_minutes=10.0))
    gate = said(*BEGUN, to=Gate(slow))
    gate.admit(progress_of(slow, 1))
    for step in range(2, 2 + SAVES_AT_ONCE):
        gate.admit(protocol.Saved(step))
    with pytest.raises(Forged, match=r"saved \d times in \d+ seconds"):
        gate.admit(protocol.Saved(2 + SAVES_AT_ONCE))


def progress_of(of: TrialJob, step: int) -> Progress:
    """A point of another job's curve."""
    each = of.train.batch * of.train.context
    return Progress(step, of.train.steps, step * each, 3.0, 1e-3, 100.0, 10.0)
