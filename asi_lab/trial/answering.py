"""The side of the scoring seam that runs candidate code: answers token ids with the residual stream."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import IO

import numpy as np
import torch
from torch import Tensor

from asi_lab.common.wire import WireError, receive, send

Residual = Callable[[Tensor], Tensor]
"""Maps ids, int64 [B, L] on the CPU, to the residual stream [B, L, D] behind the last block."""

Fault = tuple[int, int]
"""A check for leaks that failed, by its place among them, and the line of the source, 0 where none is
known."""


def serve(
    residual: Residual,
    reader: IO[bytes],
    writer: IO[bytes],
    *,
    around: Sequence[Tensor] = (),
    recheck: Callable[[], Sequence[Fault]] = lambda: (),
    snapshot: Callable[[str], Residual] | None = None,
) -> int:
    """Answer the scorer until it lets the training go on, without gradients.

    Known requests: `rows` with ids [B, L] padded on the right, lengths [B] and starts [B] (the residual
    stream at the positions starts <= t < lengths of each row, one after the other, [N, D]), with `of` that of
    another model; `around` (the output head [V, D], then the weights [D] of the final norm, as they are now);
    `recheck` (the faults that the checks for leaks find now); `go_on`. Whoever calls puts the model into eval
    mode.

    Args:
        residual: of the model.
        reader: where requests come from.
        writer: where answers go.
        around: what `around` is answered with.
        recheck: repeats the checks for leaks.
        snapshot: gives that of another model by its name.

    Returns:
        The number of batches answered.

    Raises:
        WireError: the scorer is gone or sent something else than a request. Whatever `residual` raises.
    """
    answered = 0
    while True:
        header, arrays = receive(reader)
        match header.get("op"), arrays:
            case "rows", [ids, lengths, starts]:
                name = header.get("of")
                asked = snapshot(name) if snapshot is not None and name else residual
                with torch.no_grad():
                    states = asked(torch.from_numpy(ids.astype(np.int64)))
                position = np.arange(ids.shape[1])
                wanted = (position >= starts[:, None]) & (position < lengths[:, None])
                send(writer, header, _float32(states[torch.from_numpy(wanted).to(states.device)]))
                answered += 1
            case "around", []:
                send(writer, header, *map(_float32, around))
            case "recheck", []:
                send(writer, {"op": "recheck", "faults": list(recheck())})
            case "go_on", []:
                return answered
            case _:
                raise WireError(f"unknown request {header} with {len(arrays)} arrays")


def _float32(tensor: Tensor) -> np.ndarray:
    return tensor.detach().to("cpu", torch.float32).numpy()
