"""Commits are functions of results: what the machine and its other work decide is not in them."""

from __future__ import annotations

import json
import subprocess

import msgspec
import pytest

from asi_lab.lab import Lineage
from asi_lab.lab.commits import EPOCH, candidate_commit, reference_commit, seed_commit
from asi_lab.records import RULES, CandidateState, Check, HeldOut, Repair, Work

S = CandidateState
CONFIG, PARENT = "", "0" * 40


@pytest.fixture
def make(make_candidate):
    """A candidate of the present rules; `weather` scales all that was timed."""

    def made(number: int = 7, weather: float = 1.0, state=S.DONE, error: str = "", repairs=()):
        found = make_candidate(number, state=state)
        checks = (
            Check(
                "cost", state is not S.SLOW, 1.1 * weather, 10.0, f"a step takes {weather:.1f} times as long"
            ),
            Check("causality", True, 1e-9, 1e-4, seconds=0.2 * weather),
            Check("processor_time", True, 9.0 * weather, 300.0 * weather, f"{9 * weather} seconds"),
        )
        evidence = msgspec.structs.replace(
            found.evidence,
            checks=checks,
            held_out=(HeldOut(20, 4.5, seconds=weather),),
            work=None if state.is_failure else Work(1e6, 1e5),
            error=error,
        )
        if evidence.training is not None:
            training = msgspec.structs.replace(
                evidence.training,
                **dict.fromkeys(("seconds", "tokens_per_second", "peak_memory_mb"), 7.0 * weather),
                **dict.fromkeys(("compile_seconds", "matmul_rate", "joules"), 3.0 * weather),
                **dict.fromkeys(("step_seconds", "cpu_seconds"), 2.0 * weather),
            )
            evaluation = msgspec.structs.replace(evidence.evaluation, seconds=5.0 * weather)
            evidence = msgspec.structs.replace(evidence, training=training, evaluation=evaluation)
        return msgspec.structs.replace(
            found,
            evidence=evidence,
            rules=RULES,
            created=found.created * weather,
            updated=found.updated * weather,
            trial_seconds=weather,
            repairs=repairs,
        )

    return made


def sha(candidate) -> str:
    return candidate_commit(candidate, CONFIG, PARENT).sha


def test_a_busy_day_gives_the_same_commit(make):
    assert sha(make(weather=1.0)) == sha(make(weather=3.7))
    other = msgspec.structs.replace(
        make(), evidence=msgspec.structs.replace(make().evidence, work=Work(2.0, 1.0))
    )
    assert sha(other) != sha(make())


def test_what_was_timed_stands_in_no_file(make):
    told = json.loads(candidate_commit(make(), CONFIG, PARENT).files["metrics.json"])
    evidence = told["evidence"]
    assert "created" not in told
    assert evidence["training"].keys() == {
        "params", "body_params", "steps", "tokens", "train_loss", "flops_per_token"
    }  # fmt: skip
    assert evidence["evaluation"].keys() == {"loss", "loss_tokens", "tasks", "prefix_positions", "correction"}
    assert evidence["held_out"] == [{"step": 20, "loss": 4.5, "suspect": False}]
    assert evidence["checks"][0] == {
        "name": "cost", "passed": True, "value": None, "tolerance": 10.0, "detail": "", "line": None
    }  # fmt: skip
    assert evidence["checks"][1]["value"] == 1e-9
    assert evidence["work"] == {"operations": 1e6, "bytes": 1e5}


@pytest.mark.parametrize("state", [S.SLOW, S.TIMED_OUT, S.OUT_OF_MEMORY, S.INTERRUPTED])
def test_an_end_by_the_clock_is_the_same_whatever_the_clock_said(make, state):
    slow = [
        make(state=state, weather=w, error=f"cost: a step takes {w:.1f} times as long") for w in (12.0, 31.0)
    ]
    first, second = (candidate_commit(candidate, CONFIG, PARENT) for candidate in slow)
    assert first.sha == second.sha
    assert first.files["error.txt"].decode() == f"{state.value}: the store has the figures\n"


def test_an_error_tells_of_the_code_and_not_of_where_it_lay(make):
    trace = (
        '  File "/tmp/next-{0}/work/architecture.py", line 12, in forward\nTypeError: <object at 0x7f{0}00>'
    )
    errors = [trace.format(name) for name in ("ab12", "cd34")]
    shas = {sha(make(state=S.BROKEN, error=error)) for error in errors}
    assert len(shas) == 1
    shown = (
        candidate_commit(make(state=S.BROKEN, error=errors[0]), CONFIG, PARENT).files["error.txt"].decode()
    )
    assert 'File "architecture.py", line 12' in shown
    done = [(Repair("debugger", "m", S.BROKEN, error, "c"),) for error in errors]
    assert sha(make(repairs=done[0])) == sha(make(repairs=done[1]))
    timed = [(Repair("checker", "m", S.SLOW, f"{w} times", "c"),) for w in (11, 12)]
    assert sha(make(repairs=timed[0])) == sha(make(repairs=timed[1]))


def test_dates_are_numbers_of_candidates(make, make_candidate, tmp_path):
    """In their order, so that git shows children after their parents; the seed's is the start of 2000."""
    seed = msgspec.structs.replace(make_candidate(0), rules=RULES)
    lineage = Lineage.create(tmp_path / "lineage", seed, CONFIG)
    for number in (1, 90):
        lineage.commit(make(number), CONFIG, lineage.sha_of(0))
    command = ["git", "-C", str(lineage.path), "log", "--branches", "--format=%ad %cd", "--date=iso-strict"]
    dates = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    expected = [f"2000-01-01T{time}:00+00:00" for time in ("01:30", "00:01", "00:00")]
    assert dates == [f"{date} {date}" for date in expected]
    assert seed_commit(seed, CONFIG).time == reference_commit(seed.proposal, seed, CONFIG).time == EPOCH


def test_commits_of_older_rules_keep_their_form(make_candidate):
    old = msgspec.structs.replace(make_candidate(7), rules=2)
    commit = candidate_commit(old, CONFIG, PARENT)
    told = json.loads(commit.files["metrics.json"])
    assert commit.time == int(old.created) == int(told["created"])
    assert told["evidence"]["training"]["seconds"] == old.evidence.training.seconds
    assert "work" not in told["evidence"]
    assert "beyond" not in told["score"]["judgement"]


def test_where_a_leak_was_seen_is_drawn_anew_each_time(make):
    words = "after {} tokens of a held-out row the next token's log probability is {} nats off when the later"
    first, second = (words.format(*drawn) for drawn in ((7, "+0.3"), (99, "-1.2e-01")))
    other = first.replace("held-out row", "row of a task")
    shas = [sha(make(state=S.LEAKING, error=error)) for error in (first, second, other)]
    assert shas[0] == shas[1] != shas[2]
