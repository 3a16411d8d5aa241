"""The scorer's side of the seam: asks a process that runs candidate code, and believes no shape of it."""

from __future__ import annotations

from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from asi_lab.common.wire import WireError, receive, send
from asi_lab.protocol import LEAK_CHECKS
from asi_lab.records import CandidateState
from asi_lab.scorer.fault import CandidateFault
from asi_lab.scorer.output import Output
from asi_lab.settings import ModelSettings

Ints = NDArray[np.integer[Any]]


class Remote:
    """A model in another process, at the other end of a pair of pipes: of a trial, or of a server.

    Every method raises `Gone` where the process is, and another `WireError` where it answers what is no
    answer. Messages hold nothing of what it sent: they are read by language models.
    """

    def __init__(
        self,
        reader: IO[bytes],
        writer: IO[bytes],
        model: ModelSettings,
        device: torch.device | str = "cpu",
        of: str | None = None,
    ) -> None:
        """`of` names the model where it is another than the one that was trained first."""
        self._reader, self._writer = reader, writer
        self._model, self._device = model, torch.device(device)
        self._rows = {"op": "rows"} | ({} if of is None else {"of": of})

    def of(self, name: str, model: ModelSettings) -> Remote:
        """Another model in the same process."""
        return Remote(self._reader, self._writer, model, self._device, name)

    def residual(self, ids: Ints, lengths: Ints, starts: Ints) -> Tensor:
        """The residual stream behind the last block at the wanted positions, row after row, float32 [N, D].

        Args:
            ids: [B, L], padded on the right with any token.
            lengths: [B], tokens of each row.
            starts: [B]; the positions starts <= t < lengths are returned.

        Raises:
            CandidateFault: a value is not finite.
        """
        shape = int((lengths - starts).sum()), self._model.width
        send(self._writer, self._rows, *(a.astype(np.int32) for a in (ids, lengths, starts)))
        (states,) = self._answer(self._rows, [shape])
        if not np.isfinite(states).all():
            raise CandidateFault(
                CandidateState.DIVERGED, "the residual stream has values that are not finite"
            )
        return torch.from_numpy(states).to(self._device)

    def output(self, vocab_size: int) -> Output:
        """Final norm and output head as they are now, by what the process says.

        Raises:
            CandidateFault: a value is not finite.
        """
        width, norms = self._model.width, 1 if self._model.norm == "rms" else 2
        send(self._writer, asked := {"op": "around"})
        head, *norm = self._answer(asked, [(vocab_size, width), *[(width,)] * norms])
        return Output(head, norm, self._model, self._device)

    def recheck(self) -> list[str]:
        """Have the process repeat its checks for leaks; returns the faults it finds, in our words."""
        send(self._writer, {"op": "recheck"})
        header, arrays = receive(self._reader, 0)
        faults = header.get("faults")
        if header.get("op") != "recheck" or arrays or not isinstance(faults, list):
            raise WireError("expected a list of faults, found something else")
        return [_words(fault) for fault in faults[: len(LEAK_CHECKS)]]

    def go_on(self) -> None:
        """Let the training go on."""
        send(self._writer, {"op": "go_on"})

    def _answer(self, asked: dict[str, str], shapes: list[tuple[int, ...]]) -> list[NDArray[np.float32]]:
        header, arrays = receive(self._reader, 4 * sum(int(np.prod(shape)) for shape in shapes))
        kinds = [(array.shape, array.dtype) for array in arrays]
        if header != asked or kinds != [(shape, np.dtype(np.float32)) for shape in shapes]:
            raise WireError(f"expected float32 arrays of shapes {shapes} for {asked}, found something else")
        return arrays


def _words(fault: object) -> str:
    match fault:
        case [int(check), int(line)] if 0 <= check < len(LEAK_CHECKS):
            return f"{LEAK_CHECKS[check]}{f', line {line}' if 0 < line < 10**6 else ''}"
    raise WireError("expected a check and a line, found something else")
