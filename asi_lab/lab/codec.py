"""Values as the store keeps them: msgpack behind a checksum, so that what a disk has changed is an error."""

from __future__ import annotations

import struct
import zlib
from typing import Any, TypeVar

import msgspec

from asi_lab.errors import StoreError

T = TypeVar("T")

DAMAGED = "the store is damaged. Restore the lab from a copy, or move it away and start anew"

_encoder = msgspec.msgpack.Encoder()
anything = msgspec.msgpack.Decoder()
"""Reads plain values."""


def key(number: int) -> bytes:
    """A number as a key: keys sort as the numbers do."""
    return struct.pack(">Q", number)


def pack(value: Any) -> bytes:
    """Encode and seal a value. Raises `StoreError` where it holds text that is not valid Unicode."""
    try:
        return seal(_encoder.encode(value))
    except UnicodeEncodeError as error:
        raise StoreError(f"text that is not valid Unicode cannot be stored: {error}") from error


def unpack(decoder: msgspec.msgpack.Decoder[T], raw: bytes, what: str) -> T:
    """Decode a sealed value. Raises `StoreError`, which names it as `what`, where it is damaged."""
    try:
        return decoder.decode(unseal(raw, what))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise StoreError(f"{what} cannot be read ({error}): {DAMAGED}") from error


def seal(content: bytes) -> bytes:
    """Put the checksum (CRC-32, big endian) before the content of a value."""
    return zlib.crc32(content).to_bytes(4, "big") + content


def unseal(value: bytes, what: str) -> bytes:
    """Return the content of a value whose checksum is right. Raises `StoreError` where it is not."""
    content = value[4:]
    if value[:4] != zlib.crc32(content).to_bytes(4, "big"):
        raise StoreError(f"{what} has another checksum than when it was written: {DAMAGED}")
    return content
