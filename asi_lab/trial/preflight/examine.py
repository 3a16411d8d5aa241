"""All checks in their order, each timed and guarded."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from importlib import resources

import msgspec
import torch
from torch import Tensor, nn

from asi_lab.protocol import ARCHITECTURE_FILE, Reach
from asi_lab.records import CandidateState, Check
from asi_lab.settings import Limits, ModelSettings, Train
from asi_lab.trial.model import LanguageModel, build_layer, count_parameters, load_architecture
from asi_lab.trial.precision import autocast, is_mixed
from asi_lab.trial.preflight import causality, cost, gradients, growth, interface, isolation, learning
from asi_lab.trial.preflight.subject import Result, Subject, of_layer, randomise
from asi_lab.trial.preflight.trace import error_line

S = CandidateState
Verdict = tuple[Check, CandidateState]
"""A check, and the state in which a candidate that fails it ends: broken where its code raised."""

RANDOMISED_TRIES = 4
ON_A_GPU = 2048
"""A length that is looked at too where it costs little."""
ROUGH = 0.1
"""Deviations in mixed precision up to this share of the RMS count as rounding: a value of bf16 has 8 bits."""
ERROR_LINES = 12


@dataclass(frozen=True, eq=False)
class Exam:
    """One candidate, at the scale of one lab. `path` is the file that `layer` was loaded from; `reach` says
    how long and large the lab's batches become in evaluation.

    Three conditions of its parameters are made when first asked for, each from the same seed.
    """

    layer: type[nn.Module]
    path: str
    model: ModelSettings
    train: Train
    limits: Limits
    vocab_size: int
    device: torch.device
    seed: int
    reach: Reach

    @cached_property
    def generator(self) -> torch.Generator:
        """Of all inputs, on the CPU: the same on every device."""
        return torch.Generator().manual_seed(self.seed)

    @cached_property
    def reference(self) -> type[nn.Module]:
        """DeltaNet's layer, which sizes and speeds are compared with."""
        file = resources.files("asi_lab.lineage_repo") / "delta_net" / ARCHITECTURE_FILE
        with resources.as_file(file) as path:
            return load_architecture(path)

    def subject(
        self, condition: str, layer: type[nn.Module], width: int = 0, heads: int = 0, seed: int = 0
    ) -> Subject:
        """A new layer, at the lab's width and heads unless others are given, with inputs of its width.

        `seed` is added to that of the exam for the initialisation.
        """
        model = msgspec.structs.replace(
            self.model, width=width or self.model.width, heads=heads or self.model.heads
        )
        torch.manual_seed(self.seed + seed)
        built = build_layer(layer, model).to(self.device)

        def draw(batch: int, length: int) -> Tensor:
            return torch.randn(batch, length, model.width, generator=self.generator).to(self.device)

        return of_layer(condition, built, draw)

    def twin(self, subject: Subject) -> Subject:
        """A new layer with the weights of a subject that holds one layer."""
        copy = self.subject(subject.condition, self.layer)
        copy.module.load_state_dict(subject.module.state_dict())
        return copy

    @cached_property
    def initial(self) -> Subject:
        """The layer as it is built."""
        return self.subject("at initialisation", self.layer)

    @cached_property
    def randomised(self) -> Subject:
        """The layer with noise on all parameters; less of it where the output would not stay finite."""
        for tries in range(RANDOMISED_TRIES):
            subject = self.subject("with randomised parameters", self.layer)
            randomise(subject.module, self.generator, strength=0.5**tries)
            with torch.no_grad():
                if bool(torch.isfinite(subject(subject.draw(2, 257))).all()):
                    break
        return subject

    @cached_property
    def overfit(self) -> learning.Overfit:
        """A small language model after a few steps on one batch."""
        torch.manual_seed(self.seed)
        return learning.overfit(
            self.layer, self.model, self.device, self.generator, self.mixed or nullcontext
        )

    @property
    def mixed(self) -> Callable[[], AbstractContextManager[object]] | None:
        """Opens the preset's mixed precision; None where it trains in float32."""
        if not is_mixed(self.device, self.train.precision):
            return None
        return lambda: autocast(self.device, self.train.precision)

    @property
    def lengths(self) -> tuple[int, ...]:
        """Those that the lab uses, and twice that of training, since evaluation may go on from there."""
        own = self.train.context, 2 * self.train.context, self.reach.length
        return (*own, ON_A_GPU) if self.device.type == "cuda" else own

    @property
    def most_rows(self) -> int:
        """Of a batch of the lab."""
        return max(self.train.micro_batch, self.reach.rows)

    def rough(self) -> Iterator[Subject]:
        """The layer in the mixed precision that it trains in, where it does."""
        if (mixed := self.mixed) is not None:
            exact = self.initial

            def forward(x: Tensor, mask: Tensor | None = None) -> Result:
                with mixed():
                    return exact.forward(x, mask)

            yield replace(exact, condition="in mixed precision", forward=forward, tolerance=ROUGH)

    def conditions(self) -> Iterator[Subject]:
        """The three conditions; the last only where there is one, else the check `learning` tells why."""
        yield self.initial
        yield self.randomised
        with suppress(Exception):
            yield self.overfit.subject


def examine(exam: Exam, only: str = "") -> Iterator[Verdict]:
    """Yield the verdicts of all checks, or of the one named. A check that raises has failed.

    Where the layer cannot be built, or is too slow to be checked further, the rest is left out.
    """
    runs = _runs(exam)
    for name, state, check in _checks(exam, runs):
        if only not in ("", name):
            continue
        found, state = _guarded(name, state, exam.path, check)
        yield found, state
        too_slow = name == "cost" and not found.passed and found.value is not None
        if too_slow or (name == "construction" and not found.passed and not _can_be_built(exam)):
            return


def recheck(
    model: LanguageModel, vocab_size: int, device: torch.device, path: str, length: int
) -> Iterator[Verdict]:
    """Repeat on a trained model the checks that look for leaks; `length` is that of its training."""
    generator = torch.Generator().manual_seed(0)
    trained = learning.of_model("trained", model, vocab_size, device, generator)
    was_training = model.training
    for name, state, check in _leaks(lambda: [trained], path, (length,)):
        yield _guarded(name, state, path, check)
    model.train(was_training)


def _checks(exam: Exam, runs: bool) -> Iterator[tuple[str, CandidateState, Callable[[], Check]]]:
    """Name, failure state and body of every check, in the order in which they matter."""
    path, limits, train = exam.path, exam.limits, exam.train
    sizes = partial(exam.subject, "as built", exam.layer)
    lab = exam.model.width, exam.model.heads
    yield "construction", S.BROKEN, lambda: interface.construction(sizes, lab, runs)
    size = partial(count_parameters, settings=exam.model, vocab_size=exam.vocab_size)
    yield (
        "parameters",
        S.REJECTED,
        lambda: interface.parameters(size(exam.layer), size(exam.reference), limits.parameter_ratio),
    )
    yield "shapes", S.BROKEN, lambda: interface.shapes(exam.initial, path)
    baseline = partial(exam.subject, "DeltaNet", exam.reference)
    ratios = limits.time_ratio, limits.memory_ratio
    yield (
        "cost",
        S.SLOW,
        lambda: cost.cost(exam.initial, baseline(), train.micro_batch, train.context, ratios, path),
    )
    yield "growth", S.REJECTED, lambda: growth.growth(exam.initial, path, train.context)
    yield "dtype", S.BROKEN, lambda: interface.dtype(exam.initial, exam.mixed, path)
    yield "repeatability", S.BROKEN, lambda: isolation.repeatability(exam.initial)
    yield "state", S.BROKEN, lambda: isolation.state(exam.initial, exam.twin(exam.initial))
    loaded = partial(exam.subject, "loaded", exam.layer, seed=1)
    yield "state_dict", S.BROKEN, lambda: interface.state_dict(exam.initial, loaded())
    yield "learning", S.BROKEN, lambda: learning.learning(exam.overfit.losses)
    yield from _leaks(exam.conditions, path, exam.lengths, exam.most_rows, exam.rough)
    longest = max(gradients.LEAST, *exam.lengths)
    yield "gradients", S.BROKEN, lambda: gradients.gradients(exam.conditions(), longest)


def _leaks(
    subjects: Callable[[], Iterable[Subject]],
    path: str,
    lengths: Sequence[int],
    most_rows: int = isolation.ROWS,
    rough: Callable[[], Iterable[Subject]] = tuple,
) -> Iterator[tuple[str, CandidateState, Callable[[], Check]]]:
    yield "batch", S.LEAKING, lambda: isolation.batch(subjects(), path, most_rows)
    yield "causality", S.LEAKING, lambda: causality.causality(subjects(), path, lengths, rough())
    yield "statistics", S.LEAKING, lambda: causality.statistics(subjects(), path)


def _guarded(name: str, state: CandidateState, path: str, check: Callable[[], Check]) -> Verdict:
    """Run a check and time it; `state` is that of its failure. An exception of the candidate's code is one of
    its own kind: whatever was to be checked, the code does not run."""
    started = time.perf_counter()
    try:
        with _eager():
            found = check()
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        notes = getattr(error, "__notes__", [])
        error.__notes__ = []  # they come first, so that the last line is what was raised
        lines = "".join(traceback.format_exception(error)).splitlines()
        detail = "\n".join([*notes, *lines[-ERROR_LINES:]])
        found, state = Check(name, False, detail=detail, line=error_line(error, path)), S.BROKEN
    return msgspec.structs.replace(found, seconds=time.perf_counter() - started), state


def _eager() -> AbstractContextManager[object]:
    """Run compiled functions of a candidate uncompiled. Importing the compiler takes seconds, and a candidate
    that compiles nothing has not imported it."""
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()


def _can_be_built(exam: Exam) -> bool:
    """Whether the layer can be built at the lab's own size."""
    try:
        return exam.initial is not None
    except Exception:
        return False


def _runs(exam: Exam) -> bool:
    """Whether the layer can also be called there."""
    try:
        with torch.no_grad(), _eager():
            exam.initial(exam.initial.draw(2, 33))
    except Exception:
        return False
    return True
