"""How verdicts come about: order, states, exceptions, conditions, evidence."""

from __future__ import annotations

import dataclasses
import threading

import msgspec
import pytest
import torch

from asi_lab.lab.config import from_preset
from asi_lab.records import CandidateState
from asi_lab.scoring import references
from asi_lab.trial.model import LanguageModel
from asi_lab.trial.preflight import examine, recheck
from asi_lab.trial.preflight.examine import _runs
from tests.zoo import faulty, sound

S = CandidateState
GOOD = references.source("delta_net")
NAMES = [
    *(
        "construction",
        "parameters",
        "shapes",
        "cost",
        "growth",
        "dtype",
        "repeatability",
        "state",
        "state_dict",
    ),
    *("learning", "batch", "causality", "statistics", "gradients"),
]


def entry(name: str) -> str:
    return next(found.source for found in [*sound(), *faulty()] if found.name == name)


def spiked(line: str, where: str = "        x = hidden_states\n") -> str:
    """DeltaNet with one more line in `forward`."""
    assert where in GOOD
    return GOOD.replace(where, f"{where}        {line}\n")


def failed(exam, only: str = ""):
    return {check.name: (check, state) for check, state in examine(exam, only) if not check.passed}


QUICK = "gated_delta_net"


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name == QUICK else pytest.mark.slow) for name in references.names()],
)
def test_references_pass_every_check(name, exam_of):
    found = [check for check, _ in examine(exam_of(references.source(name)))]
    assert [check.name for check in found] == NAMES
    assert all(check.passed for check in found)
    assert all(check.seconds > 0 for check in found)


@pytest.mark.slow
def test_the_same_candidate_gives_the_same_numbers(exam_of):
    def numbers():
        verdicts = examine(exam_of(references.source("gated_delta_net")))
        return [(c.name, c.value) for c, _ in verdicts if c.name != "cost"]

    assert numbers() == numbers()


@pytest.mark.parametrize(("precision", "passed"), [("fp32", True), ("bf16", False)])
def test_what_leaks_in_half_precision_alone_is_found_where_a_lab_trains_so(exam_of, precision, passed):
    line = "x = x + 0.5 * x.roll(-1, 1) if (x @ x.new_ones(x.shape[-1], 1)).dtype == torch.bfloat16 else x"
    settings = from_preset("micro")
    train = msgspec.structs.replace(settings.train, precision=precision)
    exam = exam_of(spiked(line), msgspec.structs.replace(settings, train=train))
    (found,) = [check for check, _ in examine(exam, "causality")]
    assert found.passed is passed
    assert passed or "in mixed precision" in found.detail
    sound = exam_of(GOOD, msgspec.structs.replace(settings, train=train))
    assert [check.passed for check, _ in examine(sound, "causality")] == [True]


def test_on_a_gpu_longer_sequences_are_looked_at(exam_of):
    exam = exam_of(GOOD)
    assert 2048 not in exam.lengths
    assert dataclasses.replace(exam, device=torch.device("cuda")).lengths == (*exam.lengths, 2048)


@pytest.mark.parametrize("check", ["batch", "causality", "statistics"])
def test_an_exception_is_no_leak(exam_of, check):
    code = spiked("x = x + undefined_name if x.shape[1] > 1 else x")
    found, state = failed(exam_of(code), check)[check]
    assert state is S.BROKEN
    assert "undefined_name" in found.detail


def test_an_exception_fails_its_check_with_the_line(exam_of):
    code = spiked("x = x + undefined_name if x.shape[1] == 1 else x")
    check, state = failed(exam_of(code), "shapes")["shapes"]
    assert state is S.BROKEN
    assert "undefined_name" in check.detail
    assert "batch 1, length 1" in check.detail
    assert (
        check.line == code.splitlines().index("        x = x + undefined_name if x.shape[1] == 1 else x") + 1
    )


def test_without_a_layer_the_rest_is_left_out(exam_of):
    code = GOOD.replace(
        "        super().__init__()\n        width", "        raise TypeError('no')\n        width"
    )
    assert [check.name for check, _ in examine(exam_of(code))] == ["construction"]


def test_a_layer_that_runs_nowhere_is_told_once_for_each_check(exam_of):
    found = failed(exam_of(spiked("raise ArithmeticError")))
    assert "construction" not in found
    assert "ArithmeticError" in found["shapes"][0].detail


def test_out_of_memory_passes_through(exam_of):
    with pytest.raises(MemoryError):
        list(examine(exam_of(spiked("raise MemoryError"))))


@pytest.mark.slow
def test_too_slow_a_layer_is_not_checked_further(exam_of):
    code = spiked("x = x + 0 * sum(x.sin().mean() for _ in range(3000))")
    found = [check for check, _ in examine(exam_of(code))]
    assert [check.name for check in found] == NAMES[: NAMES.index("cost") + 1]
    assert not found[-1].passed
    assert found[-1].value > 10


def test_the_parameter_budget_is_relative_to_the_baseline_at_this_scale(exam_of):
    def size(**scale):
        return next(check for check, _ in examine(exam_of(GOOD, **scale), "parameters"))

    micro, wide = size(), size(width=128, heads=2)
    assert micro.value == micro.tolerance / 1.5 == 164_992
    assert wide.value == wide.tolerance / 1.5 > 3 * micro.value
    heavy = GOOD.replace(
        "        self.norm_eps = norm_eps\n",
        "        self.norm_eps = norm_eps\n        self.w = nn.Linear(width, 700)\n",
    )
    check, state = failed(exam_of(heavy), "parameters")["parameters"]
    assert state is S.REJECTED
    assert check.value == 164_992 + 2 * (64 + 1) * 700


@pytest.mark.parametrize(
    ("name", "conditions"),
    [
        ("behind_a_closed_gate", ("with randomised parameters", "after overfit steps")),
        ("mean_over_time", ("at initialisation", "with randomised parameters", "after overfit steps")),
    ],
)
def test_the_evidence_names_condition_mode_and_place(name, conditions, exam_of):
    check, state = failed(exam_of(entry(name)), "causality")["causality"]
    assert state is S.LEAKING
    assert check.detail.startswith(conditions)
    assert "mode" in check.detail
    assert "position" in check.detail
    assert check.value > check.tolerance


@pytest.mark.slow
def test_a_leak_that_only_training_opens_is_caught_on_the_trained_model(exam_of, tmp_path):
    """Its gate opens only far from where it starts, so that the three conditions before training miss it."""
    peek = "self.gate = nn.Parameter(torch.tensor(-1e3))"
    code = GOOD.replace(
        "        self.norm_eps = norm_eps\n", f"        self.norm_eps = norm_eps\n        {peek}\n"
    )
    code = code.replace(
        "        return y, None",
        "        y = y + torch.relu(self.gate + 2e3 * (self.gate > 1e4)) * 1e-3 * hidden_states.roll(-1, 1)\n"
        "        return y, None",
    )
    exam = exam_of(code)
    assert "causality" not in failed(exam)
    model = LanguageModel(exam.layer, exam.model, 64)
    verdicts = {c.name: c for c, _ in recheck(model, 64, exam.device, exam.path, exam.train.context)}
    assert all(check.passed for check in verdicts.values())
    with torch.no_grad():
        model.mixers()[1].gate.fill_(2e4)
    model.train()
    verdicts = {c.name: c for c, _ in recheck(model, 64, exam.device, exam.path, exam.train.context)}
    assert set(verdicts) == {"batch", "causality", "statistics"}
    assert not verdicts["causality"].passed
    assert verdicts["causality"].detail.startswith("trained")
    assert verdicts["batch"].passed
    assert model.training


def test_recheck_leaves_the_model_as_it_was(exam_of):
    exam = exam_of(GOOD)
    model = LanguageModel(exam.layer, exam.model, 64).eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    list(recheck(model, 64, exam.device, exam.path, exam.train.context))
    assert not model.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_rounding_is_told_from_a_leak_by_float64(exam_of):
    """A long convolution by Fourier transform rounds by more than the tolerance; it leaks nothing."""
    exam = exam_of(entry("long_convolution"))
    assert "statistics" not in failed(exam, "statistics")
    leaky = exam_of(entry("circular_spectrum"))
    assert "causality" in failed(leaky, "causality")


def test_nothing_is_compiled(exam_of):
    """Compiling what a candidate marks for it takes minutes, at every length anew."""
    code = spiked("x = doubled(x)").replace(
        "class DeltaNet",
        "def refuse(graph, inputs):\n    raise AssertionError('compiled')\n\n\n"
        "@torch.compile(backend=refuse)\ndef doubled(x):\n    return 2 * x\n\n\nclass DeltaNet",
        1,
    )
    exam = exam_of(code)
    assert _runs(exam)
    assert failed(exam, "shapes") == {}


@pytest.mark.parametrize(
    ("mine", "rounds", "passed"),
    [
        ([1.0], 3, True),
        ([50.0], 3, False),
        ([12.0, 11.0, 11.0, 9.0], 12, True),  # near the limit the least of many counts
        ([12.0], 12, False),
        ([30.0, 30.0, 19.0, 4.0], 4, True),
    ],
)
def test_time_near_its_limit_is_measured_again(monkeypatch, mine, rounds, passed):
    from asi_lab.trial.preflight import cost

    taken: list[float] = []

    def seconds(subject, batch, length):
        if subject == "baseline":
            return 1.0
        taken.append(mine[min(len(taken), len(mine) - 1)])
        return taken[-1]

    monkeypatch.setattr(cost, "_seconds", seconds)
    monkeypatch.setattr(cost, "_peak_bytes", lambda *rest: 1)
    found = cost.cost("mine", "baseline", 8, 128, (10.0, 10.0), "")
    assert found.passed is passed
    assert found.value == min(taken)
    assert len(taken) == rounds


def test_threads_that_spin_beside_a_step_cost_it_nothing(exam_of):
    """Torch's own do, while they wait for work."""
    over = threading.Event()

    def spin() -> None:
        while not over.is_set():
            torch.ones(20_000).exp_()

    threads = [threading.Thread(target=spin) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        exam = exam_of(GOOD)
        (found,) = [check for check, _ in examine(exam) if check.name == "cost"]
    finally:
        over.set()
    assert found.passed
    assert 0.5 < found.value < 2.0


@pytest.mark.slow
def test_the_checks_run_at_every_preset_of_the_paper_on_a_small_model(exam_of):
    """Their precision and context, at a width that a CPU bears."""
    for preset in ("20m", "340m"):
        exam = exam_of(GOOD, from_preset(preset), width=64, heads=2, layers=2, micro_batch=1)
        assert [c.detail for c, _ in examine(exam) if not c.passed] == []
