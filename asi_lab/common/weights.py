"""Trained weights as a trial left them: a safetensors file, read without believing it and without torch.

u64 length of the header | header, JSON: {name: {dtype, shape, data_offsets}} | bytes of all tensors
"""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from asi_lab.protocol import UNREADABLE
from asi_lab.settings import ModelSettings

HEADER_BYTES_PER_LAYER = 1 << 14
"""Most bytes of the header for each layer, and for the rest of the model: names can carry what should be
counted as weights."""
_KINDS = {
    8: ("F64", "I64", "U64", "C64"),
    4: ("F32", "I32", "U32"),
    2: ("F16", "BF16", "I16", "U16"),
    1: ("I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2"),
}
ITEM_BYTES = {kind: size for size, kinds in _KINDS.items() for kind in kinds}
FLOAT_BYTES = 4

EMBEDDING, HEAD, NORM, NORM_BIAS = "embed.weight", "head.weight", "norm.weight", "norm.bias"
"""Names of the tensors around the candidate's layers that the scorer applies itself, and the one that the
head may be tied to."""


class BadWeights(Exception):
    """The file is not what a trained model leaves; the message says what was expected, and repeats no word of
    the file: language models read it."""


_Count = Annotated[int, msgspec.Meta(ge=0, le=2**62)]


class _Tensor(msgspec.Struct, frozen=True):
    dtype: str
    shape: tuple[_Count, ...]
    data_offsets: tuple[_Count, _Count]


class Weights:
    """The tensors of one model. Raises `BadWeights` where the file is no sound safetensors file."""

    def __init__(self, path: Path, model: ModelSettings) -> None:
        size, most = path.stat().st_size, HEADER_BYTES_PER_LAYER * (model.layers + 1)
        with path.open("rb") as file:
            prefix = file.read(8)
            length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
            if not 2 <= length <= min(most, size - 8):
                raise BadWeights(
                    f"expected a header of at most {most:,} bytes, found {length:,} in a file of {size:,}"
                )
            text = file.read(length)
        self._path, self._start, self._model = path, 8 + length, model
        self._tensors = _tensors(text)
        end = 0
        for tensor in sorted(self._tensors.values(), key=lambda tensor: tensor.data_offsets):
            begin, end_of_this = tensor.data_offsets
            wanted = ITEM_BYTES.get(tensor.dtype, 0) * math.prod(tensor.shape)
            if tensor.dtype not in ITEM_BYTES or begin != end or end_of_this - begin != wanted:
                raise BadWeights("a tensor does not lie where its type and shape say")
            end = end_of_this
        if self._start + end != size:
            raise BadWeights(f"expected {self._start + end:,} bytes, found {size:,}")

    def parameters(self) -> int:
        """Number of all elements, buffers among them; those of a tied head count once, an element of more
        than four bytes as several."""
        tied = {HEAD} if self._model.tie_embeddings else set()
        return sum(
            math.prod(tensor.shape) * max(1, ITEM_BYTES[tensor.dtype] // FLOAT_BYTES)
            for name, tensor in self._tensors.items()
            if name not in tied
        )

    def around_layers(self, vocab_size: int) -> tuple[NDArray[Any], list[NDArray[Any]]]:
        """The output head [V, D], and weight [D] (and bias [D]) of the final norm, float32.

        Raises:
            BadWeights: one is missing, has another shape or type, or the head is not tied where it has to be.
        """
        model = self._model
        head = self._array(HEAD, (vocab_size, model.width))
        if model.tie_embeddings and not np.array_equal(
            head.view(np.uint32), self._array(EMBEDDING, head.shape).view(np.uint32)
        ):
            raise BadWeights("its output head is not the token embedding, to which this lab ties it")
        names = (NORM,) if model.norm == "rms" else (NORM, NORM_BIAS)
        return head, [self._array(name, (model.width,)) for name in names]

    def _array(self, name: str, shape: tuple[int, ...]) -> NDArray[Any]:
        tensor = self._tensors.get(name)
        if tensor is None or tensor.dtype != "F32" or tensor.shape != shape:
            found = "none" if tensor is None else "another type or shape"
            raise BadWeights(f"expected {name} as F32 {list(shape)}, found {found}")
        start = self._start + tensor.data_offsets[0]
        return np.fromfile(self._path, "<f4", math.prod(shape), offset=start).reshape(shape)


def _tensors(text: bytes) -> dict[str, _Tensor]:
    try:
        return msgspec.json.decode(text, type=dict[str, _Tensor])
    except UNREADABLE:
        raise BadWeights("its header is no table of tensors") from None
