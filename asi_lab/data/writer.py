"""Writes documents to token shards and to the evaluation file."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO, Literal

import msgspec
import numpy as np

from asi_lab.data.manifest import EVALUATION_FILE, TRAIN_FILE, VALIDATION_FILE, Split
from asi_lab.data.splits import Assigned
from asi_lab.data.tokenizer import Tokenizer

ENCODE_BYTES = 1 << 20
"""Text that is taken in before the waiting part of it is encoded."""

VALIDATION_TOKENS = 4 << 20
"""Most tokens in the validation shard."""

EVALUATION_BYTES = 4 << 20
"""Most text in the evaluation file."""

ENOUGH_VALIDATION_TOKENS, ENOUGH_EVALUATION_BYTES = 128 << 10, 256 << 10
"""What the held-out splits must have before a stream is left because the training shard is full."""


class Writer:
    """Writes each split to its file, up to its limit; the counts are complete once it is closed.

    `dtype` is the type of a token in the shards. `enough` says that no split needs more.
    """

    def __init__(self, directory: Path, tokenizer: Tokenizer, max_tokens: int):
        self.dtype: Literal["uint16", "uint32"] = "uint16" if tokenizer.vocab_size <= 1 << 16 else "uint32"
        self._tokenizer = tokenizer
        self._limits = {"train": max_tokens, "validation": VALIDATION_TOKENS}
        self._files: dict[str, BinaryIO] = {
            "train": (directory / TRAIN_FILE).open("wb"),
            "validation": (directory / VALIDATION_FILE).open("wb"),
            "evaluation": (directory / EVALUATION_FILE).open("wb"),
        }
        self._documents = dict.fromkeys(self._files, 0)
        self._bytes = dict.fromkeys(self._files, 0)
        self._tokens = dict.fromkeys(self._files, 0)
        self._waiting: dict[str, list[str]] = {"train": [], "validation": []}
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
        """Take one more document; text of a full split is passed over."""
        split, (key, text) = assigned
        size = len(text.encode("utf-8", "replace"))
        if split == "evaluation":
            if self._bytes[split] + size <= EVALUATION_BYTES:
                line = msgspec.json.encode({"key": key, "text": text})
                self._files[split].write(line + b"\n")
                self._documents[split] += 1
                self._bytes[split] += size
        elif self._tokens[split] < self._limits[split]:
            self._waiting[split].append(text)
        self._waiting_bytes += size
        if self._waiting_bytes >= ENCODE_BYTES:
            self._encode()

    def counts(self) -> dict[str, Split]:
        """What each split holds."""
        return {
            name: Split(self._documents[name], self._bytes[name], self._tokens[name]) for name in self._files
        }

    def _encode(self) -> None:
        """Write the waiting documents, each with the end-of-text id after it."""
        for split, texts in self._waiting.items():
            for text, ids in zip(texts, self._tokenizer.encode_batch(texts), strict=True):
                room = self._limits[split] - self._tokens[split]
                if room <= 0:
                    break
                kept = [*ids, self._tokenizer.eot][:room]
                self._files[split].write(
                    np.array(kept, dtype=np.dtype(self.dtype).newbyteorder("<")).tobytes()
                )
                self._documents[split] += 1
                self._bytes[split] += len(text.encode("utf-8", "replace"))
                self._tokens[split] += len(kept)
            texts.clear()
        self._waiting_bytes = 0
        self.enough = (
            self._tokens["train"] >= self._limits["train"]
            and self._tokens["validation"] >= ENOUGH_VALIDATION_TOKENS
            and self._bytes["evaluation"] >= ENOUGH_EVALUATION_BYTES
        )
