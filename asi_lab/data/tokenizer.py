"""Tokenizers: `byte`, `bpe:N` trained on the lab's own text, and `gpt2` of the paper's presets."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from asi_lab.errors import DataError

if TYPE_CHECKING:
    import tokenizers

TOKENIZER_FILE = "tokenizer.json"
MANIFEST_FILE = "tokenizer_manifest.json"
BYTES = 256
GPT2_NAME = "openai-community/gpt2"
GPT2_EOT = 50_256


class Tokenizer:
    """Text to ids and back, without loss for any text that UTF-8 can write.

    Ids are below `vocab_size`. `eot` separates documents; no text encodes to it, not even
    `<|endoftext|>`, and `decode` leaves it out. Lone surrogates, which UTF-8 cannot write, become
    question marks. Make one with `train_tokenizer` or `Tokenizer.load`.
    """

    def __init__(self, kind: str, vocab_size: int, eot: int, backend: tokenizers.Tokenizer | None = None):
        self.kind = kind
        self.vocab_size = vocab_size
        self.eot = eot
        self._backend = backend

    def encode(self, text: str) -> list[int]:
        """The ids of `text`, without `eot`."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text; faster than one by one."""
        if self._backend is None:
            return [list(text.encode("utf-8", "replace")) for text in texts]
        encodings = self._backend.encode_batch_fast(
            [_writable(text) for text in texts], add_special_tokens=False
        )
        return [encoding.ids for encoding in encodings]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids` without `eot`; bytes that are no UTF-8 become the replacement character."""
        kept = [int(token) for token in ids if token != self.eot]
        if self._backend is None:
            return bytes(kept).decode("utf-8", "replace")
        return self._backend.decode(kept, skip_special_tokens=False)

    def save(self, directory: Path) -> None:
        """Write `tokenizer_manifest.json`, and `tokenizer.json` for kinds other than `byte`."""
        if self._backend is not None:
            (directory / TOKENIZER_FILE).write_text(self._backend.to_str(pretty=True), encoding="utf-8")
        manifest = {"kind": self.kind, "vocab_size": self.vocab_size, "eot": self.eot}
        (directory / MANIFEST_FILE).write_text(json.dumps(manifest) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, directory: Path) -> Tokenizer:
        """Read what `save` wrote. Raises `DataError` where it is missing or unreadable."""
        try:
            manifest = json.loads((directory / MANIFEST_FILE).read_text(encoding="utf-8"))
            kind, vocab_size, eot = manifest["kind"], manifest["vocab_size"], manifest["eot"]
            backend = (
                None if kind == "byte" else _backend((directory / TOKENIZER_FILE).read_text(encoding="utf-8"))
            )
        except (OSError, ValueError, KeyError) as error:
            raise DataError(
                f"Cannot read the tokenizer in {directory}: {error}. Restore the folder or start a new lab."
            ) from error
        return cls(kind, vocab_size, eot, backend)


def train_tokenizer(kind: str, texts: Iterator[str]) -> Tokenizer:
    """Make the tokenizer `kind`; only `bpe:N` reads `texts`, and is a function of them alone.

    `N` is the vocabulary with `eot`; a text too poor for that many merges gives a smaller one.
    Raises `DataError` for an unknown kind, or where the files of `gpt2` cannot be had.
    """
    if kind == "byte":
        return Tokenizer(kind, BYTES + 1, BYTES)
    if kind == "gpt2":
        return Tokenizer(kind, GPT2_EOT + 1, GPT2_EOT, _gpt2())
    size = bpe_size(kind)
    tokenizers = _library()
    backend = tokenizers.Tokenizer(tokenizers.models.BPE())
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=size - 1,  # the last id is eot, which the backend does not know
        show_progress=False,
        initial_alphabet=sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()),
    )
    backend.train_from_iterator(texts, trainer)
    learned = backend.get_vocab_size()
    return Tokenizer(kind, learned + 1, learned, backend)


def check_kind(kind: str) -> None:
    """Raise `DataError` where `kind` is not a tokenizer, before any work is done for it."""
    if kind not in ("byte", "gpt2"):
        bpe_size(kind)


def bpe_size(kind: str) -> int:
    """The `N` of `bpe:N`. Raises `DataError` where `kind` is not of that form or `N` is too small."""
    name, _, size = kind.partition(":")
    if name != "bpe" or not (size.isascii() and size.isdigit()):
        raise DataError(f"data.tokenizer must be byte, bpe:N or gpt2, not {kind!r}.")
    if int(size) <= BYTES + 1:
        raise DataError(
            f"data.tokenizer {kind!r} is too small: a vocabulary holds {BYTES} bytes, the end of text and at "
            f"least one merge, so N must be above {BYTES + 1}. Use byte for a vocabulary without merges."
        )
    return int(size)


def _gpt2() -> tokenizers.Tokenizer:
    # A missing network, a missing file and a broken cache all raise different errors of other packages.
    try:
        backend = _library().Tokenizer.from_pretrained(GPT2_NAME)
    except Exception as error:
        raise DataError(
            f"Cannot get the gpt2 tokenizer ({GPT2_NAME}): {error} Run this once with network access and "
            f"without HF_HUB_OFFLINE, or run `hf download {GPT2_NAME} tokenizer.json` on a connected machine "
            'and copy its Hugging Face cache here, or train one on your own text: tokenizer = "bpe:32768".'
        ) from error
    return _as_plain_text(backend)


def _backend(text: str) -> tokenizers.Tokenizer:
    try:
        return _as_plain_text(_library().Tokenizer.from_str(text))
    except Exception as error:  # the library raises bare Exception
        raise ValueError(str(error)) from error


def _as_plain_text(backend: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """Encode `<|endoftext|>` within a text as the characters it is written with."""
    backend.encode_special_tokens = True
    return backend


def _library() -> ModuleType:
    """The `tokenizers` package, imported where needed; it uses one thread unless told otherwise."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import tokenizers
    import tokenizers.decoders
    import tokenizers.models
    import tokenizers.pre_tokenizers
    import tokenizers.trainers

    return tokenizers


def _writable(text: str) -> str:
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")
