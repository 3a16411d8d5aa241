"""No position sees a later one: by perturbation, by prefix and by gradient.

    perturbation   inputs from t on are replaced; outputs before t stay
    prefix         inputs from t on are cut off; outputs before t stay
    gradient       of the output at t - 1 with respect to inputs from t on; it is zero

Replacing by fresh noise finds what looks at single tokens. Sums and norms over time hardly move when noise
is replaced by noise, so a second check gives the future quite other statistics than the past.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor

from asi_lab.records import Check
from asi_lab.trial.preflight.compare import ROUGHEST, Deviation, Worst, deviation, gradient_deviation, settle
from asi_lab.trial.preflight.subject import MODES, Subject
from asi_lab.trial.preflight.trace import Line, first_change

CUTS: dict[int, tuple[int, ...]] = {
    7: (1, 2, 3, 4, 5, 6),
    64: (1, 31, 32, 63),
    100: (1, 15, 16, 17, 31, 33, 63, 64, 65, 99),
    257: (1, 63, 64, 65, 127, 128, 129, 255, 256),
    521: (1, 128, 255, 256, 257, 511, 512, 513, 520),
}
"""Lengths, and the positions t from which on the future is replaced: before, at and after the boundaries
of chunks of 16 to 512 tokens, in lengths that are and are not their multiples."""

LONG = 1031
"""A length that hardly any lab comes to, looked at at few positions like those that the lab uses."""

PREFIXES: dict[int, tuple[int, ...]] = {100: (1, 7, 64, 99), 257: (64, 129, 256), 521: (257, 512)}
"""Lengths, and the lengths of the prefixes that are compared with them."""

STATISTICS: dict[int, tuple[int, ...]] = {100: (1, 16, 50, 99), 257: (1, 65, 128, 255)}
"""Lengths and positions of the check through statistics, one position for each of `FUTURES`."""

FUTURES: tuple[tuple[str, Callable[[Tensor], Tensor]], ...] = (
    ("values 30 times as large", lambda x: 30.0 * x),
    ("values shifted by 10", lambda x: x + 10.0),
    ("zeros", torch.zeros_like),
    ("values that alternate by 10", lambda x: x + 10.0 * _alternating(x)),
)


def causality(
    subjects: Iterable[Subject], path: str, lengths: Sequence[int] = (), rough: Iterable[Subject] = ()
) -> Check:
    """The verdict over all subjects, in eval and in train mode. `path` is the candidate's file; `lengths` are
    those of the lab, that of training first. `rough` subjects compute in half precision, and are looked at by
    perturbation at the lab's lengths alone."""
    worst = Worst()
    own = sorted({LONG, *(length for length in lengths if length > 1)} - CUTS.keys())
    for probe in _probes(subjects, path, worst):
        longest = max(CUTS)  # costs most: it is looked at once, by perturbation
        for length, cuts in CUTS.items():
            if probe.is_new or length < longest:
                probe.perturb(length, cuts)
            if probe.is_new and length < longest:
                probe.differentiate(length, cuts)
        for length, prefixes in PREFIXES.items() if probe.is_new else ():
            probe.cut_off(length, prefixes)
        for length in own:
            if probe.is_new or length in lengths[:1]:
                probe.perturb(length, _halves(length))
    for probe in _probes(rough, path, worst):
        for length in own if probe.is_new else ():
            probe.perturb(length, _halves(length))
    looked = ", ".join(map(str, sorted({*CUTS, *own})))
    return worst.check("causality", f"lengths {looked}, {' and '.join(MODES)} mode")


def statistics(subjects: Iterable[Subject], path: str) -> Check:
    """As `causality`, by futures whose sums, norms, extremes and spectra differ from the past's."""
    worst = Worst()
    for probe in _probes(subjects, path, worst):
        for length, cuts in STATISTICS.items():
            probe.perturb(length, cuts, FUTURES)
    return worst.check("statistics", f"futures of {', of '.join(name for name, _ in FUTURES)}")


class _Probe:
    """One subject in one mode. `is_new` is False where the other mode has given the same numbers."""

    def __init__(self, subject: Subject, mode: str, is_new: bool, path: str, worst: Worst) -> None:
        self.subject, self.mode, self.is_new = subject, mode, is_new
        self.path, self.worst = path, worst
        self.where = f"{subject.condition}, {mode} mode"

    def perturb(
        self,
        length: int,
        cuts: Sequence[int],
        futures: Sequence[tuple[str, Callable[[Tensor], Tensor]]] = (),
    ) -> None:
        """Row i gets other inputs from `cuts[i]` on: fresh ones, or `futures[i]` of those it had."""
        x, changed = self.subject.draw(len(cuts), length), self.subject.draw(len(cuts), length)
        for row, cut in enumerate(cuts):
            changed[row, :cut] = x[row, :cut]
            if futures:
                changed[row, cut:] = futures[row][1](x[row, cut:])

        before = _before(cuts, length)

        def compare(dtype: torch.dtype) -> Deviation:
            with torch.no_grad():
                return deviation(self.subject(changed.to(dtype)), self.subject(x.to(dtype)), before)

        # A future that is 30 times as loud as the past rounds it as much more, in each product anew.
        found = settle(self.subject, compare, roughest=math.inf if futures else ROUGHEST)
        slack = max(1.0, length / max(CUTS))  # rounding of sums over time grows with it, in float32 for good
        by = f" by {futures[found.row][0]}" if futures else ""
        self.worst.see(
            self.subject,
            found,
            f"{self.where}, length {length}: replacing the input from position {cuts[found.row]} on{by} "
            f"changes the output at position {found.position} (channel {found.channel}) by "
            f"{found.value:.2g} of its RMS",
            self._localiser(x[found.row], changed[found.row], cuts[found.row]),
            slack,
        )

    def differentiate(self, length: int, cuts: Sequence[int]) -> None:
        """Row i asks for the gradient of its output at `cuts[i] - 1` with respect to all its inputs."""
        drawn, directions = self.subject.draw(len(cuts), length), self.subject.draw(len(cuts), 1)[:, 0]
        before = _before(cuts, length)

        def compare(dtype: torch.dtype) -> Deviation:
            x = drawn.to(dtype).requires_grad_()
            output = self.subject(x)
            at = output[torch.arange(len(cuts)), torch.tensor(cuts) - 1]
            (gradient,) = torch.autograd.grad(
                at, x, directions.to(at.dtype), allow_unused=True, materialize_grads=True
            )
            return gradient_deviation(gradient, before)

        found = settle(self.subject, compare)
        self.worst.see(
            self.subject,
            found,
            f"{self.where}, length {length}: the output at position {cuts[found.row] - 1} has a gradient "
            f"of {found.value:.2g} of the RMS with respect to the later input at position {found.position} "
            f"(channel {found.channel})",
            self._localiser(drawn[found.row], self.subject.draw(1, length)[0], cuts[found.row]),
        )

    def cut_off(self, length: int, prefixes: Sequence[int]) -> None:
        """Compare the first tokens alone with the whole; left out where dropout tells them apart."""
        x = self.subject.draw(2, length)
        with torch.no_grad():
            if self.mode == "train" and not torch.equal(self.subject(x), self.subject(x, seed=1)):
                return
        for prefix in prefixes:

            def compare(dtype: torch.dtype, prefix: int = prefix) -> Deviation:
                with torch.no_grad():
                    rows = x.to(dtype)
                    return deviation(self.subject(rows[:, :prefix]), self.subject(rows)[:, :prefix])

            found = settle(self.subject, compare)
            self.worst.see(
                self.subject,
                found,
                f"{self.where}: of {length} tokens the first {prefix} alone give another output at "
                f"position {found.position} (channel {found.channel}), by {found.value:.2g} of its RMS",
                self._localiser(x[found.row], self.subject.draw(1, length)[0], prefix),
            )

    def _localiser(self, x: Tensor, other: Tensor, cut: int) -> Callable[[], Line | None]:
        """Finds the first operation whose output before the cut changes when `other` [L, D] follows there
        instead of `x` [L, D]."""

        def past(output: Tensor) -> list[Tensor]:
            axes = (axis for axis, size in enumerate(output.shape) if axis and size == len(x))
            return [output.narrow(axis, 0, cut) for axis in axes]

        def localise() -> Line | None:
            self.subject.module.train(self.mode == "train")
            changed = torch.cat([x[:cut], other[cut:]])
            pair = [rows.expand(2, -1, -1).clone() for rows in (x, changed)]
            return first_change(self.path, lambda: self.subject(pair[0]), lambda: self.subject(pair[1]), past)

        return localise


def _probes(subjects: Iterable[Subject], path: str, worst: Worst) -> Iterator[_Probe]:
    for subject in subjects:
        differs = not subject.trains_as_it_runs()
        for mode in MODES:
            subject.module.train(mode == "train")
            yield _Probe(subject, mode, mode == "eval" or differs, path, worst)


def _halves(length: int) -> list[int]:
    """Near the middle, and before the last position."""
    return sorted({max(1, length // 2 - 3), length - 1})


def _before(cuts: Sequence[int], length: int) -> Tensor:
    """[B, L], True before each row's cut."""
    return torch.arange(length) < torch.tensor(cuts)[:, None]


def _alternating(x: Tensor) -> Tensor:
    """+1 and -1 in turn over the positions of x [L, D]: [L, 1]."""
    return (1 - 2 * (torch.arange(len(x), device=x.device) % 2))[:, None].to(x.dtype)
