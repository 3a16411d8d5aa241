"""Probes in real trials: sound candidates, and such as lie, look ahead or fail in a probe alone."""

from __future__ import annotations

import json
import math
from pathlib import Path

import msgspec
import pytest

from asi_lab import protocol
from asi_lab.data.manifest import load_manifest
from asi_lab.data.probes import MODEL, PROBES
from asi_lab.engineer.supervise import Supervision, run
from asi_lab.protocol import ScoreJob, TrialJob, probe_file
from asi_lab.records import CandidateState, Evidence
from asi_lab.scoring import references
from tests.engineer.test_supervise import data, executor, settings  # noqa: F401  fixtures

S = CandidateState
GOOD = references.source("delta_net")
NAME = "probe_mqar"
FILES = {probe_file(NAME, step) for step in PROBES[NAME].marks}
BATCH, LENGTH = PROBES[NAME].batch, PROBES[NAME].tests(0)[0].ids.shape[1]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trial(executor, settings, data, tmp_path_factory):  # noqa: F811
    """Run a real trial of a source with one probe."""

    def go(
        code: str, task: str = "train", directory: Path | None = None, probes: tuple[str, ...] = (NAME,)
    ) -> tuple[Evidence, list[protocol.Report]]:
        directory = directory or tmp_path_factory.mktemp("candidate")
        (directory / "architecture.py").write_text(code)
        vocab_size = load_manifest(data).vocab_size
        limits = msgspec.structs.replace(settings.limits, trial_seconds=1500.0, stall_seconds=600.0)
        job = TrialJob(
            task, str(data), vocab_size, 1, 0, "cpu", settings.model, settings.train, limits, probes=probes
        )
        evaluate = msgspec.structs.replace(settings.evaluate, probes=(NAME,), tasks=("asi_copy",))
        score = ScoreJob(str(data), 0, "cpu", settings.train.context, settings.model, evaluate, threads=1)
        reports: list[protocol.Report] = []
        trio = executor.take()
        executor.prepare()
        watch = Supervision(settings.supervise, observe=lambda report, evidence: reports.append(report))
        return run(trio, job, score, directory, watch), reports

    return go


def changed(line: str, where: str = "        return y, None") -> str:
    """The good architecture with a line before its result."""
    assert where in GOOD
    return GOOD.replace(where, f"        {line}\n{where}")


@pytest.fixture(scope="module")
def directory(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("honest")


@pytest.fixture(scope="module")
def honest(trial, directory):
    return trial(GOOD, directory=directory)


def test_a_probe_is_trained_tested_at_its_marks_and_compared(honest, directory):
    evidence, _ = honest
    assert evidence.failure is None, evidence.error
    copied, found = evidence.evaluation.tasks
    assert [copied.task, found.task] == ["asi_copy", NAME]
    assert found.score_name == "answer_probability"
    assert found.chance == 1 / 8
    assert found.samples == 256 * 4
    assert [step for step, _ in found.curve] == [*PROBES[NAME].marks]
    area, end = sum(value for _, value in found.curve) / 4, found.curve[-1][1]
    assert found.score == pytest.approx(math.exp((area + end) / 2))
    assert found.curve[-1][1] > found.curve[0][1]
    assert found.score > 2 * found.chance
    assert min(found.seconds, copied.seconds) > 0
    assert {path.name for path in directory.glob(protocol.PROBE_FILES)} == FILES
    compared = [json.loads(line) for line in (directory / "compared.jsonl").read_text().splitlines()]
    ours = [one for one in compared if one["rows"] == NAME]
    assert [len(one["positions"]) for one in ours] == [512] * 4
    assert max(abs(difference) for one in ours for difference in one["differences"]) < 1e-3
    assert evidence.evaluation.prefix_positions > 2048


def test_time_in_probes_is_not_training(honest):
    evidence, reports = honest
    names = [type(report) for report in reports]
    assert names.index(protocol.Trained) < names.index(protocol.Probed) < names.index(protocol.Answered)
    tokens = evidence.training.steps * 4 * 56
    assert evidence.training.tokens_per_second == pytest.approx(tokens / evidence.training.seconds)


def test_what_is_trained_is_only_tested_again_with_the_same_figures(trial, honest, directory):
    evidence, reports = trial(GOOD, "serve", directory, ())
    assert evidence.failure is None
    assert not any(isinstance(report, protocol.Probed) for report in reports)
    before, after = (found.evaluation.tasks[1] for found in (honest[0], evidence))
    assert after.curve == before.curve


def test_a_probe_that_was_cut_off_is_trained_anew_with_the_same_figures(trial, honest, directory):
    (directory / probe_file(NAME, PROBES[NAME].marks[-1])).unlink()
    evidence, reports = trial(GOOD, "serve", directory)
    assert [report for report in reports if isinstance(report, protocol.Probed)] == [protocol.Probed(NAME)]
    assert evidence.evaluation.tasks[1].curve == honest[0].evaluation.tasks[1].curve


def test_rows_that_the_weights_do_not_give_are_a_leak(trial):
    code = changed(
        "DeltaNet.tried = getattr(DeltaNet, 'tried', 0)"
        f" or (self.training and y.shape[:2] == ({BATCH}, {LENGTH}))\n"
        f"        if DeltaNet.tried and not self.training and y.shape[1] == {LENGTH}: y = 1.1 * y"
    )
    evidence, _ = trial(code)
    assert evidence.failure is S.LEAKING
    assert f"of a test stream of {NAME}" in evidence.error
    assert evidence.evaluation is None


def test_a_layer_that_looks_ahead_in_streams_of_a_probe_alone_is_caught(trial):
    code = changed(
        f"if y.shape[0] >= 8 and y.shape[1:] == ({LENGTH}, {MODEL.width}):\n"
        "            y = y + 0.1 * hidden_states.roll(-1, 1)"
    )
    evidence, _ = trial(code)
    assert evidence.failure is S.LEAKING
    assert f"of a test stream of {NAME}" in evidence.error


def test_a_layer_that_a_probe_breaks_fails_with_its_line_and_no_word_of_its_own(trial):
    code = changed(f"assert y.shape[:2] != ({BATCH}, {LENGTH}), 'the text is secret'")
    evidence, _ = trial(code)
    assert evidence.failure is S.BROKEN
    line = 1 + code[: code.index("the text is secret")].count("\n")
    assert evidence.error == f'broken in {NAME}, at File "architecture.py", line {line}'
    assert evidence.training is not None


def test_a_probe_that_diverges_ends_the_candidate_as_diverged(trial):
    code = changed(f"y = y * (float('nan') if y.shape[:2] == ({BATCH}, {LENGTH}) else 1.0)")
    evidence, _ = trial(code)
    assert evidence.failure is S.DIVERGED
    assert evidence.error == f"diverged in {NAME}"
