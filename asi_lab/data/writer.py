"""Writes documents to token shards and to the files of text."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO, Literal

import msgspec
import numpy as np

from asi_lab.data.manifest import FILES, DataPart, PartName
from asi_lab.data.splits import Assigned
from asi_lab.data.tokenizer import Tokenizer

ENCODE_BYTES = 1 << 20
"""Text that is taken in before the waiting part of it is encoded."""

MOST_TOKENS: dict[PartName, int] = {"marks": 1 << 20, "validation": 4 << 20, "claims": 4 << 20}
"""Most tokens in each held-out shard. A part that is neither here nor `train` is kept as text."""

MOST_TEXT_BYTES = 4 << 20
"""Most text in each part that is kept as text."""

ENOUGH_TOKENS: dict[PartName, int] = {"marks": 32 << 10, "validation": 192 << 10, "claims": 192 << 10}
ENOUGH_TEXT_BYTES = 256 << 10
"""What the held-out parts must have before a stream is left because the training shard is full: more than
any preset reads."""


class Writer:
    """Writes each part to its file, up to its limit; the counts are complete once it is closed.

    `dtype` is the type of a token in the shards. `enough` says that no part needs more.
    """

    def __init__(self, directory: Path, tokenizer: Tokenizer, max_tokens: int):
        self.dtype: Literal["uint16", "uint32"] = "uint16" if tokenizer.vocab_size <= 1 << 16 else "uint32"
        self._tokenizer = tokenizer
        self._limits: dict[PartName, int] = {"train": max_tokens, **MOST_TOKENS}
        self._files: dict[PartName, BinaryIO] = {
            part: (directory / name).open("wb") for part, name in FILES.items()
        }
        self._documents = dict.fromkeys(self._files, 0)
        self._bytes = dict.fromkeys(self._files, 0)
        self._tokens = dict.fromkeys(self._files, 0)
        self._waiting: dict[PartName, list[str]] = {part: [] for part in self._limits}
        self._waiting_bytes = 0
        self.enough = False

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, failed: type[BaseException] | None, *_: object) -> None:
        try:
            if failed is None:
                self._encode()
        finally:
            for file in self._files.values():
                file.close()

    def add(self, assigned: Assigned) -> None:
        """Take one more document; text of a full part is passed over."""
        part, (key, text, _) = assigned
        size = len(text.encode("utf-8", "replace"))
        if part not in self._limits:
            if self._bytes[part] + size <= MOST_TEXT_BYTES:
                self._files[part].write(msgspec.json.encode({"key": key, "text": text}) + b"\n")
                self._documents[part] += 1
                self._bytes[part] += size
        elif self._tokens[part] < self._limits[part]:
            self._waiting[part].append(text)
        self._waiting_bytes += size
        if self._waiting_bytes >= ENCODE_BYTES:
            self._encode()

    def counts(self) -> dict[PartName, DataPart]:
        """What each part holds."""
        return {
            name: DataPart(self._documents[name], self._bytes[name], self._tokens[name])
            for name in self._files
        }

    def _encode(self) -> None:
        """Write the waiting documents, each with the end-of-text id after it."""
        for part, texts in self._waiting.items():
            for text, ids in zip(texts, self._tokenizer.encode_batch(texts), strict=True):
                room = self._limits[part] - self._tokens[part]
                if room <= 0:
                    break
                kept = [*ids, self._tokenizer.eot][:room]
                self._files[part].write(
                    np.array(kept, dtype=np.dtype(self.dtype).newbyteorder("<")).tobytes()
                )
                self._documents[part] += 1
                self._bytes[part] += len(text.encode("utf-8", "replace"))
                self._tokens[part] += len(kept)
            texts.clear()
        self._waiting_bytes = 0
        self.enough = all(
            self._tokens[part] >= ENOUGH_TOKENS.get(part, limit) for part, limit in self._limits.items()
        ) and all(self._bytes[part] >= ENOUGH_TEXT_BYTES for part in FILES if part not in self._limits)
