"""Training of one language model, from its start or from where it was cut off.

Deterministic for a seed on a CPU: the same job gives the same losses to the last bit, however often it was
cut off.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from asi_lab.protocol import PULSE_SECONDS, Alive, Compiled, Progress, Report, Saved, curve_steps, saved_file
from asi_lab.records import Training
from asi_lab.settings import Train
from asi_lab.trial.model import LanguageModel
from asi_lab.trial.precision import is_mixed
from asi_lab.trial.train import checkpoint
from asi_lab.trial.train.loader import Batches, prefetched
from asi_lab.trial.train.meter import EnergyMeter, flops_per_token, matmul_rate, peak_memory_mb
from asi_lab.trial.train.optimisation import Optimisation
from asi_lab.trial.train.ranks import Alone, Ranks
from asi_lab.trial.train.schedule import learning_rate_factor

LATEST = 50
"""Steps over which the training loss of the record is averaged."""


class Diverged(Exception):
    """Loss or gradient left the finite numbers."""


class Fit:
    """One training run.

    `report` receives the points of the curve (`protocol.curve_steps`). After each number of steps in
    `marks` training is paused while `measure` is called with the number of steps done; what it takes does
    not count as training time. With a folder `saves`, what training goes on from is written there every
    `save_minutes`, and reported. Of several `ranks` only the first does."""

    def __init__(
        self,
        model: LanguageModel,
        stream: Batches,
        train: Train,
        report: Callable[[Report], None],
        marks: Collection[int] = (),
        measure: Callable[[int], None] = lambda step: None,
        saves: Path | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        self.model, self.stream, self.train, self.report = model, stream, train, report
        self.marks, self.measure, self.saves = frozenset(marks), measure, saves
        self.device = next(model.parameters()).device
        self.done = 0
        self.recent: deque[float] = deque(maxlen=LATEST)
        self.compile_seconds = 0.0
        self._earlier = 0.0
        self._ranks = ranks or Alone()
        self._optimisation = Optimisation(model, train, self._ranks, self._pulse)
        self._told = time.perf_counter()
        self._energy = EnergyMeter(self.device)

    def load(self, path: Path) -> None:
        """Go on from what an earlier run wrote to its `saves`."""
        state = checkpoint.load(path)
        self._optimisation.load(state)
        self.done, self._earlier = state["done"], state["seconds"]
        self.recent.extend(state["recent"])
        torch.set_rng_state(state["generator"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(state["gpu_generator"], self.device)

    def run(self) -> Training:
        """Train the model in place and return what it cost and gave.

        Raises:
            Diverged: the loss or the gradient norm is not finite.
        """
        train = self.train
        self.model.train()
        self._compile()
        points = frozenset(curve_steps(train.steps, self.done))
        started = saved = time.perf_counter()
        for step, tokens in prefetched(self.stream, range(self.done, train.steps), self.device):
            rate = train.learning_rate * learning_rate_factor(step, train)
            loss, norm = self._optimisation.step(tokens, rate)
            if not (math.isfinite(loss) and math.isfinite(norm)):
                raise Diverged(f"step {step + 1}: loss {loss}, gradient norm {norm}")
            self.done = step + 1
            self.recent.append(loss)
            if self.done in points:
                self._tell(loss, rate, time.perf_counter() - started)
            paused = time.perf_counter()
            if self.done in self.marks:
                with self._standing_still():
                    self.measure(self.done)
            if self._is_due(paused - saved):
                assert self.saves is not None
                checkpoint.save(self._state(paused - started), self.saves / saved_file(self.done))
                self.report(Saved(self.done))
                saved = time.perf_counter()
            started += time.perf_counter() - paused
        self._optimisation.finish()
        return self._record(time.perf_counter() - started)

    def _pulse(self) -> None:
        if time.perf_counter() - self._told > PULSE_SECONDS:
            self._told = time.perf_counter()
            self.report(Alive())

    def _compile(self) -> None:
        """Compile, and take the time that it takes: that of a first pass forward and backward."""
        mode = self.train.compile
        if mode == "off" or (mode == "auto" and self.device.type != "cuda"):
            return
        started = time.perf_counter()
        self.model.compile_blocks()
        tokens = torch.from_numpy(self.stream.batch(0)[: self.train.micro_batch]).to(self.device)
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            self._optimisation.accumulate(tokens)
        self._optimisation.optimizer.zero_grad(set_to_none=True)
        self.compile_seconds = time.perf_counter() - started
        self.report(Compiled(self.compile_seconds))

    def _tell(self, loss: float, rate: float, seconds: float) -> None:
        tokens = self.done * self.train.batch * self.train.context
        point = Progress(
            step=self.done,
            steps=self.train.steps,
            tokens=tokens,
            loss=loss,
            learning_rate=rate,
            tokens_per_second=tokens / (self._earlier + seconds),
            memory_mb=peak_memory_mb(self.device),
        )
        self.report(point)
        self._told = time.perf_counter()

    @contextmanager
    def _standing_still(self) -> Iterator[None]:
        """Eval mode for a while, after which training goes on as if nothing had happened."""
        with (
            torch.random.fork_rng([self.device] if self.device.type == "cuda" else []),
            self._optimisation.full_precision(),
        ):
            self.model.eval()
            yield
            self.model.zero_grad(set_to_none=True)
            self.model.train()

    def _is_due(self, seconds: float) -> bool:
        if self.saves is None or not self._ranks.leads or self.done == self.train.steps:
            return False
        return 0 < 60 * self.train.save_minutes <= seconds

    def _state(self, seconds: float) -> dict[str, Any]:
        state = self._optimisation.state() | {
            "done": self.done,
            "seconds": self._earlier + seconds,
            "recent": list(self.recent),
            "generator": torch.get_rng_state(),
        }
        if self.device.type == "cuda":
            state["gpu_generator"] = torch.cuda.get_rng_state(self.device)
        return state

    def _record(self, seconds: float) -> Training:
        count = self.train.steps * self.train.batch * self.train.context
        params, body = self.model.parameter_counts()
        joules = self._energy.joules()
        mixed = is_mixed(self.device, self.train.precision)
        seconds += self._earlier
        return Training(
            params=params,
            body_params=body,
            steps=self.train.steps,
            tokens=count,
            train_loss=sum(self.recent) / len(self.recent),
            seconds=seconds,
            tokens_per_second=count / seconds,
            peak_memory_mb=peak_memory_mb(self.device),
            compile_seconds=self.compile_seconds,
            flops_per_token=flops_per_token(self.model),
            matmul_rate=matmul_rate(self.device, torch.bfloat16 if mixed else torch.float32),
            joules=joules,
        )
