"""Frames between trial and scorer: a small JSON header and raw arrays.

    b"ASI1" | length of the header, uint32 | header, JSON | bytes of each array, in order

All numbers are little-endian. Nothing is ever unpickled, and no size is believed before it is
checked, since the process at the other end of the pipe runs candidate code. Errors repeat nothing of what it
sent: language models read them.
"""

from __future__ import annotations

import math
import struct
from typing import IO, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from asi_lab.protocol import UNREADABLE

MAGIC = b"ASI1"
MAX_HEADER = 1 << 16
MAX_BYTES = 1 << 31
MAX_DIMENSIONS = 4
DTYPES = frozenset({"<f4", "<i4", "<i8"})

_PREFIX = struct.Struct("<4sI")


class WireError(ConnectionError):
    """The other side is gone, or what it sent is not a frame."""


class Gone(WireError):
    """The other side closed the pipe."""


class Closed(Gone):
    """The other side closed the pipe between two frames."""


class _Spec(msgspec.Struct, forbid_unknown_fields=True):
    dtype: str
    shape: list[int]


class _Header(msgspec.Struct, forbid_unknown_fields=True):
    fields: dict[str, Any]
    arrays: list[_Spec]


_decoder = msgspec.json.Decoder(_Header)


def send(stream: IO[bytes], header: dict[str, Any], *arrays: NDArray[Any]) -> None:
    """Write one frame and flush it. Arrays are float32, int32 or int64 of up to four axes.

    Raises:
        ValueError: an array of another type, or a header of more than 64 KiB.
        Gone: the other side is.
    """
    blocks = [np.ascontiguousarray(array, array.dtype.newbyteorder("<")) for array in arrays]
    for block in blocks:
        if block.dtype.str not in DTYPES or block.ndim > MAX_DIMENSIONS:
            raise ValueError(f"cannot send an array of {block.dtype} with {block.ndim} axes")
    specs = [_Spec(block.dtype.str, list(block.shape)) for block in blocks]
    text = msgspec.json.encode(_Header(header, specs))
    if len(text) > MAX_HEADER:
        raise ValueError(f"the header has {len(text)} bytes, at most {MAX_HEADER} are allowed")
    try:
        _write(stream, _PREFIX.pack(MAGIC, len(text)) + text)
        for block in blocks:
            _write(stream, block.data.cast("B") if block.size else b"")
        stream.flush()
    except OSError as error:
        raise Gone(f"the other side stopped reading: {error}") from error


def receive(stream: IO[bytes], max_bytes: int = MAX_BYTES) -> tuple[dict[str, Any], list[NDArray[Any]]]:
    """Read one frame whose arrays have at most `max_bytes` bytes together.

    Returns:
        The header and the arrays. Their values may be anything, NaN included.

    Raises:
        Closed: end of file before the frame.
        Gone: end of file in it.
        WireError: not a frame, or more bytes than allowed.
    """
    magic, length = _PREFIX.unpack(_read(stream, _PREFIX.size, begun=False))
    if magic != MAGIC:
        raise WireError(f"expected a frame that starts with {MAGIC!r}, found something else")
    if length > MAX_HEADER:
        raise WireError(f"a header of {length} bytes was announced, at most {MAX_HEADER} are allowed")
    try:
        header = _decoder.decode(_read(stream, length))
    except UNREADABLE as error:
        raise WireError("the header of a frame cannot be read") from error
    left = max_bytes
    for spec in header.arrays:
        if spec.dtype not in DTYPES or len(spec.shape) > MAX_DIMENSIONS or min(spec.shape, default=0) < 0:
            raise WireError("an array was announced whose type or shape cannot be")
        left -= math.prod(spec.shape) * np.dtype(spec.dtype).itemsize
        if left < 0 or max(spec.shape, default=0) > max_bytes:
            raise WireError(f"more than the allowed {max_bytes} bytes of arrays were announced")
    return header.fields, [_read_array(stream, spec) for spec in header.arrays]


def _read_array(stream: IO[bytes], spec: _Spec) -> NDArray[Any]:
    dtype = np.dtype(spec.dtype)
    data = _read(stream, math.prod(spec.shape) * dtype.itemsize)
    return np.frombuffer(data, dtype).reshape(spec.shape)


def _read(stream: IO[bytes], size: int, *, begun: bool = True) -> bytearray:
    """Exactly `size` bytes: a pipe may return fewer at a time. `begun` says whether a frame has begun."""
    data = bytearray(size)
    view = memoryview(data)
    while view:
        try:
            count = stream.readinto(view)  # type: ignore[attr-defined]
        except OSError as error:
            raise Gone(f"the pipe cannot be read: {error}") from error
        if not count and not begun and len(view) == size:
            raise Closed("the other side closed the pipe")
        if not count:
            raise Gone(f"the other side closed the pipe, {len(view)} of {size} bytes missing")
        view = view[count:]
    return data


def _write(stream: IO[bytes], data: bytes | memoryview) -> None:
    """All of `data`: an unbuffered pipe may take fewer bytes at a time."""
    view = memoryview(data)
    while view:
        count = stream.write(view)
        if not count:
            raise Gone("the pipe takes no bytes")
        view = view[count:]
