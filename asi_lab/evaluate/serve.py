"""The trial's side of the scoring seam: answers token ids with hidden states."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import IO

import numpy as np
import torch
from torch import Tensor

from asi_lab.evaluate.wire import WireError, receive, send

MOST_FAULTS, FAULT_LENGTH = 8, 1000


def serve(
    hidden: Callable[[Tensor], Tensor],
    head_weight: Tensor,
    reader: IO[bytes],
    writer: IO[bytes],
    *,
    step: int = 0,
    final: bool = True,
    recheck: Callable[[], Sequence[str]] = lambda: (),
) -> int:
    """Answer the scorer until it lets the training go on or says goodbye, without gradients.

    Known requests: `wait` (answered with the step, and whether training is over); `head` (the output matrix
    [V, D]); `hidden` with ids [B, L] padded on the right, lengths [B] and starts [B] (the states of positions
    starts <= t < lengths of each row, one after the other, [N, D]); `recheck` (the faults that the checks
    for leaks find now, in words); `go_on`; `bye`. Whoever calls puts the model into eval mode.

    Args:
        hidden: maps ids, int64 [B, L] on the CPU, to the states [B, L, D] that the head is applied to.
        head_weight: [V, D].
        reader: where requests come from.
        writer: where answers go.
        step: steps done.
        final: whether training is over.
        recheck: repeats the checks for leaks.

    Returns:
        The number of batches answered.

    Raises:
        WireError: the scorer is gone or sent something else than a request.
        ValueError: `hidden` returned something else than [B, L, D]. Whatever `hidden` raises.
    """
    answered = 0
    while True:
        header, arrays = receive(reader)
        match header.get("op"), arrays:
            case "wait", []:
                send(writer, {"op": "wait", "step": step, "final": final})
            case "head", []:
                send(writer, header, _float32(head_weight))
            case "hidden", [ids, lengths, starts]:
                with torch.no_grad():
                    states = _states(hidden, ids, lengths, starts, head_weight.shape[1])
                send(writer, header, _float32(states))
                answered += 1
            case "recheck", []:
                faults = [fault[:FAULT_LENGTH] for fault in recheck()[:MOST_FAULTS]]
                send(writer, {"op": "recheck", "faults": faults})
            case (("bye" | "go_on"), []):
                return answered
            case _:
                raise WireError(f"unknown request {header} with {len(arrays)} arrays")


def _states(
    hidden: Callable[[Tensor], Tensor],
    ids: np.ndarray,
    lengths: np.ndarray,
    starts: np.ndarray,
    width: int,
) -> Tensor:
    states = hidden(torch.from_numpy(ids.astype(np.int64)))
    if states.shape != (*ids.shape, width):
        raise ValueError(
            f"expected hidden states of shape {(*ids.shape, width)}, found {tuple(states.shape)}"
        )
    position = np.arange(ids.shape[1])
    wanted = (position >= starts[:, None]) & (position < lengths[:, None])
    return states[torch.from_numpy(wanted).to(states.device)]


def _float32(tensor: Tensor) -> np.ndarray:
    return tensor.detach().to("cpu", torch.float32).numpy()
