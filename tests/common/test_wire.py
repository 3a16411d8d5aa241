import contextlib
import io
import os
import struct

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asi_lab.common.wire import MAGIC, MAX_HEADER, WireError, receive, send


def frame(header: object = None, body: bytes = b"", magic: bytes = MAGIC) -> bytes:
    text = header if isinstance(header, bytes) else msgspec.json.encode(header)
    return magic + struct.pack("<I", len(text)) + text + body


def announced(dtype: str, shape: list[int], body: bytes = b"") -> bytes:
    return frame({"fields": {}, "arrays": [{"dtype": dtype, "shape": shape}]}, body)


class OneByteAtATime(io.RawIOBase):
    """A pipe at its slowest."""

    def __init__(self, data: bytes = b"") -> None:
        self.data = bytearray(data)

    def readinto(self, buffer: memoryview) -> int:
        count = min(1, len(self.data))
        buffer[:count] = self.data[:count]
        del self.data[:count]
        return count

    def write(self, data: memoryview) -> int:
        self.data += data[:1]
        return min(1, len(data))


ARRAYS = [
    np.arange(6, dtype=np.float32).reshape(2, 3),
    np.array([[1, -2]], np.int32),
    np.array([2**40, -1], np.int64),
    np.zeros((0, 5), np.float32),
    np.array([np.nan, np.inf, -0.0], np.float32),
]


def test_what_is_sent_arrives() -> None:
    stream = io.BytesIO()
    send(stream, {"op": "hidden", "n": 3}, *ARRAYS)
    send(stream, {"op": "bye"})
    stream.seek(0)
    header, arrays = receive(stream)
    assert header == {"op": "hidden", "n": 3}
    for sent, got in zip(ARRAYS, arrays, strict=True):
        assert got.dtype == sent.dtype
        np.testing.assert_array_equal(got, sent)
    assert receive(stream) == ({"op": "bye"}, [])


def test_slow_pipes_and_strided_or_big_endian_arrays() -> None:
    stream = OneByteAtATime()
    strided = np.arange(12, dtype=np.int32).reshape(3, 4).T[::2]
    send(stream, {}, strided, np.array([1.5], ">f4"))  # type: ignore[arg-type]
    _, (first, second) = receive(OneByteAtATime(bytes(stream.data)))  # type: ignore[arg-type]
    np.testing.assert_array_equal(first, strided)
    assert second.dtype.str == "<f4"
    assert second.tolist() == [1.5]


def test_a_frame_cut_anywhere_is_an_error() -> None:
    stream = io.BytesIO()
    send(stream, {"op": "hidden"}, *ARRAYS[:2])
    whole = stream.getvalue()
    for size in range(len(whole)):
        with pytest.raises(WireError):
            receive(io.BytesIO(whole[:size]))


@pytest.mark.parametrize(
    "data",
    [
        frame({"fields": {}, "arrays": []}, magic=b"EVIL"),
        MAGIC + struct.pack("<I", MAX_HEADER + 1),
        frame(b"not json"),
        frame(b"\xff\xfe"),
        frame(b"[" * 60_000),
        frame({"fields": {}}),
        frame({"fields": {}, "arrays": [], "more": 1}),
        frame({"fields": [], "arrays": []}),
        announced("|O", [1], b"cos\nsystem\n(S'true'\ntR."),
        announced("<f8", [1], bytes(8)),
        announced("<f4", [-1], bytes(8)),
        announced("<f4", [-2, -2], bytes(16)),
        announced("<f4", [1, 1, 1, 1, 1], bytes(4)),
        announced("<f4", [2**62]),
        announced("<f4", [2**40, 0]),
        announced("<f4", [2**16, 2**16]),
    ],
)
def test_hostile_frames_are_errors(data: bytes) -> None:
    with pytest.raises(WireError):
        receive(io.BytesIO(data + bytes(64)))


def test_the_callers_limit_holds_before_anything_is_read() -> None:
    stream = io.BytesIO(announced("<f4", [100, 3]))
    with pytest.raises(WireError, match="more than the allowed 1199 bytes"):
        receive(stream, max_bytes=1199)
    with pytest.raises(WireError, match="missing"):
        receive(io.BytesIO(announced("<f4", [100, 3])), max_bytes=1200)


@settings(max_examples=300)
@given(st.binary(max_size=200), st.integers(0, 3))
def test_noise_never_raises_anything_else(noise: bytes, kind: int) -> None:
    data = [noise, MAGIC + noise, frame(noise), announced("<i4", [3], noise)][kind]
    try:
        _, arrays = receive(io.BytesIO(data))
    except WireError:
        return
    assert all(isinstance(array, np.ndarray) for array in arrays)


@settings(max_examples=200)
@given(st.integers(0, 10**6), st.integers(0, 255))
def test_a_flipped_byte_never_raises_anything_else(position: int, value: int) -> None:
    stream = io.BytesIO()
    send(stream, {"op": "hidden"}, *ARRAYS[:2])
    data = bytearray(stream.getvalue())
    data[position % len(data)] = value
    with contextlib.suppress(WireError):
        receive(io.BytesIO(bytes(data)))


def test_our_own_mistakes_are_not_wire_errors() -> None:
    with pytest.raises(ValueError, match="float64"):
        send(io.BytesIO(), {}, np.zeros(2))
    with pytest.raises(ValueError, match="header"):
        send(io.BytesIO(), {"text": "x" * MAX_HEADER})


def test_a_closed_pipe_is_a_wire_error_on_both_ends() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    with os.fdopen(write_end, "wb", buffering=0) as writer, pytest.raises(WireError):
        send(writer, {"op": "head"})
    read_end, write_end = os.pipe()
    os.close(write_end)
    with os.fdopen(read_end, "rb", buffering=0) as reader, pytest.raises(WireError, match="closed"):
        receive(reader)
