"""The scorer's side of the seam: asks for hidden states and does not take them on trust.

A causal model gives position t the same state whether or not tokens after t are there. So beside
most batches travels one probe: a row cut off at a random position, whose last state must match the
one from the full row. Half of the probes share the batch with their full row, the others go with a
later batch of other lengths, and the last ones alone. To the model a probe is a row like any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from asi_lab.evaluate.fault import CandidateFault
from asi_lab.evaluate.wire import WireError, receive, send
from asi_lab.records import CandidateState

Ints = NDArray[np.integer[Any]]

MAX_WIDTH = 1 << 14
"""Widest hidden state accepted."""

PROBE_ROWS = 16
"""Batches of fewer rows carry a probe only in rows / PROBE_ROWS of the cases, to stay cheap; the
checks at the end send this many probes at once."""


@dataclass(frozen=True, eq=False)
class _Probe:
    prefix: Ints  # [t + 1]
    length: int  # of the full row
    expected: Tensor  # [D], the state of the full row at position t


class HiddenStates:
    """A trained model at the other end of a pair of pipes.

    `head` is the output matrix, float32 [V, D]. `prefix_error` and `prefix_positions` say how far
    the states of bare prefixes were off at most, and how many were compared.
    """

    def __init__(
        self,
        reader: IO[bytes],
        writer: IO[bytes],
        *,
        vocab_size: int,
        prefix_checks: int,
        prefix_tolerance: float,
        seed: int,
        device: str = "cpu",
    ) -> None:
        """Ask for the head; this waits until the trial answers.

        Raises:
            CandidateFault: the head is not finite or does not have `vocab_size` rows.
            WireError: the trial is gone.
        """
        self._reader = reader
        self._writer = writer
        self._checks = prefix_checks
        self._tolerance = prefix_tolerance
        self._random = np.random.default_rng(seed)
        self._pending: list[_Probe] = []
        self._device = torch.device(device)
        self.prefix_error = 0.0
        self.prefix_positions = 0
        send(writer, {"op": "head"})
        self.head = self._answer("head", max_bytes=4 * vocab_size * MAX_WIDTH)
        if self.head.ndim != 2 or len(self.head) != vocab_size:
            shape = tuple(self.head.shape)
            raise CandidateFault(
                CandidateState.BROKEN, f"the output head should have {vocab_size} rows; its shape is {shape}"
            )

    def hidden(self, ids: Ints, lengths: Ints, starts: Ints) -> Tensor:
        """Hidden states of the wanted positions, row after row, float32 [N, D].

        Args:
            ids: [B, L], padded on the right with any token.
            lengths: [B], tokens of each row.
            starts: [B]; the states of starts <= t < lengths are returned.

        Raises:
            CandidateFault: a state is not finite, or depends on what comes after it.
            WireError: the trial is gone.
        """
        drawn = self._draw(lengths, starts)
        earlier = [probe for probe in self._pending if len(probe.prefix) <= ids.shape[1]]
        if not (drawn or earlier) or self._random.random() * PROBE_ROWS >= len(ids):
            states = self._exchange(ids, lengths, starts)
        elif earlier and (not drawn or self._random.random() < 0.5):
            probe = earlier[self._random.integers(len(earlier))]
            self._pending.remove(probe)
            states, state = self._exchange_with(probe.prefix, ids, lengths, starts)
            self._compare(probe, state)
        else:
            row, position, at = drawn.pop()
            prefix = ids[row, : position + 1]
            states, state = self._exchange_with(prefix, ids, lengths, starts)
            self._compare(_Probe(prefix, int(lengths[row]), states[at]), state)
        for row, position, at in drawn:
            self._keep(_Probe(ids[row, : position + 1].copy(), int(lengths[row]), states[at].clone()))
        return states

    def finish(self) -> None:
        """Make the prefix checks that are still due, at least one of them in a batch of its own.

        Raises:
            CandidateFault, WireError: as `hidden`.
            ValueError: nothing was checked, since no row had tokens after a wanted position.
        """
        due = max(1, self._checks - self.prefix_positions)
        order = self._random.permutation(len(self._pending))[:due]
        probes = [self._pending[i] for i in order]
        self._check(probes[:1])
        for at in range(1, len(probes), PROBE_ROWS):
            self._check(probes[at : at + PROBE_ROWS])
        self._pending.clear()
        if not self.prefix_positions:
            raise ValueError("no prefix could be checked: no row had tokens after a wanted position")

    def _draw(self, lengths: Ints, starts: Ints) -> list[tuple[int, int, int]]:
        """Random wanted positions that have tokens after them: row, position, index in the answer."""
        futures = np.maximum(lengths - 1 - starts, 0).cumsum()
        if not len(futures) or not futures[-1]:
            return []
        first = (lengths - starts).cumsum() - (lengths - starts)
        drawn = []
        for number in self._random.integers(futures[-1], size=max(2, self._checks - len(self._pending))):
            row = int(futures.searchsorted(number, side="right"))
            offset = int(number - (futures[row - 1] if row else 0))
            drawn.append((row, int(starts[row]) + offset, int(first[row]) + offset))
        return drawn

    def _keep(self, probe: _Probe) -> None:
        """Remember a probe for later; when there are enough, it replaces a random one."""
        if len(self._pending) < self._checks:
            self._pending.append(probe)
        else:
            self._pending[self._random.integers(len(self._pending))] = probe

    def _check(self, probes: Sequence[_Probe]) -> None:
        """Send the probes as one batch and compare."""
        if not probes:
            return
        lengths = np.array([len(probe.prefix) for probe in probes])
        ids = np.zeros((len(probes), lengths.max()), np.int64)
        for row, probe in zip(ids, probes, strict=True):
            row[: len(probe.prefix)] = probe.prefix
        for probe, state in zip(probes, self._exchange(ids, lengths, lengths - 1), strict=True):
            self._compare(probe, state)

    def _compare(self, probe: _Probe, state: Tensor) -> None:
        """Compare the state of a prefix with that of the full row.

        Two figures are taken and the larger counts: the deviation of the state relative to its RMS,
        and that of the logits (around their mean) relative to their standard deviation. The second
        cannot be hidden behind a large component of the state which the head ignores.
        """
        expected = probe.expected
        logits, other = self.head @ expected, self.head @ state
        error = max(
            _relative(state - expected, expected),
            _relative((other - other.mean()) - (logits - logits.mean()), logits - logits.mean()),
        )
        self.prefix_positions += 1
        self.prefix_error = max(self.prefix_error, error)
        if not error <= self._tolerance:
            position = len(probe.prefix) - 1
            raise CandidateFault(
                CandidateState.LEAKING,
                f"the hidden state of position {position} in a row of {probe.length} tokens changes by "
                f"{error:.3g} of its size when the {probe.length - 1 - position} tokens after it are taken "
                f"away; at most {self._tolerance:.3g} is allowed",
            )

    def _exchange_with(self, prefix: Ints, ids: Ints, lengths: Ints, starts: Ints) -> tuple[Tensor, Tensor]:
        """Send a batch with a prefix as one more row somewhere in it.

        Returns:
            The states of the batch [N, D] and the last state of the prefix [D].
        """
        row = np.zeros(ids.shape[1], ids.dtype)
        row[: len(prefix)] = prefix
        slot = int(self._random.integers(len(ids) + 1))
        states = self._exchange(
            np.insert(ids, slot, row, axis=0),
            np.insert(lengths, slot, len(prefix)),
            np.insert(starts, slot, len(prefix) - 1),
        )
        at = int((lengths - starts)[:slot].sum())
        return torch.cat([states[:at], states[at + 1 :]]), states[at]

    def _exchange(self, ids: Ints, lengths: Ints, starts: Ints) -> Tensor:
        send(self._writer, {"op": "hidden"}, *(a.astype(np.int32) for a in (ids, lengths, starts)))
        shape = int((lengths - starts).sum()), self.head.shape[1]
        states = self._answer("hidden", max_bytes=4 * shape[0] * shape[1])
        if states.shape != shape:
            raise WireError(f"expected hidden states of shape {shape}, found {tuple(states.shape)}")
        return states

    def _answer(self, op: str, max_bytes: int) -> Tensor:
        header, arrays = receive(self._reader, max_bytes)
        if header != {"op": op} or len(arrays) != 1 or arrays[0].dtype != np.float32:
            raise WireError(f"expected one float32 array for {op!r}, found {header} and {len(arrays)} arrays")
        if not np.isfinite(arrays[0]).all():
            raise CandidateFault(
                CandidateState.DIVERGED, f"the answer to {op!r} has values that are not finite"
            )
        return torch.from_numpy(arrays[0]).to(self._device)


class Trial:
    """The trial between its answers about hidden states: at which step it waits, and what it finds itself.

    Raises `WireError` from every method when the trial is gone or answers what is no answer.
    """

    def __init__(self, reader: IO[bytes], writer: IO[bytes]) -> None:
        self.reader, self.writer = reader, writer

    def wait(self) -> tuple[int, bool]:
        """Wait until the training stands still; returns the steps done, and whether it is over."""
        answer = self._ask("wait")
        step, final = answer.get("step"), answer.get("final")
        if type(step) is not int or type(final) is not bool or step < 0:
            raise WireError(f"expected a step and whether it is the last, found {answer}")
        return step, final

    def recheck(self) -> list[str]:
        """Have the trial repeat its checks for leaks; returns the faults it finds, in words."""
        faults = self._ask("recheck").get("faults")
        if not isinstance(faults, list) or not all(isinstance(fault, str) for fault in faults):
            raise WireError(f"expected a list of faults, found {faults!r}")
        return faults

    def go_on(self) -> None:
        """Let the training go on."""
        send(self.writer, {"op": "go_on"})

    def _ask(self, op: str) -> dict[str, Any]:
        send(self.writer, {"op": op})
        header, arrays = receive(self.reader, 0)
        if header.get("op") != op or arrays:
            raise WireError(f"expected an answer to {op!r}, found {header} and {len(arrays)} arrays")
        return header


def _relative(difference: Tensor, reference: Tensor) -> float:
    """Largest deviation over the root mean square of the reference; 0 where nothing deviates."""
    largest = float(difference.abs().max())
    return largest / max(float(reference.square().mean().sqrt()), 1e-30) if largest else 0.0
