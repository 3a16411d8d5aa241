"""How fast text becomes shards here, on a sample of it. Also `python -m asi_lab.data.pace DATA_JSON`.

The sample goes the way that all text goes: split, tokenized, written. A data set of the hub is not touched,
and a tokenizer that would have to be downloaded neither: text of the built-in corpus and a small tokenizer
made from it stand in for them.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from asi_lab.data.corpus import Document, documents, files_of
from asi_lab.data.splits import HEAD_CHARACTERS, Assigned, part_of, without_repetition
from asi_lab.data.tokenizer import GPT2_NAME, train_tokenizer
from asi_lab.data.writer import Writer
from asi_lab.settings import Data

SAMPLE_CHARACTERS = 1 << 20
STAND_IN = "bpe:4096"


class TextPace(msgspec.Struct, frozen=True):
    """Seconds to make the tokenizer of all the text it is made from, seconds a million tokens take to write,
    and bytes of text in a token. `stand_ins` names what was measured in the place of something else."""

    tokenizer_seconds: float
    seconds_per_million: float
    bytes_per_token: float
    stand_ins: tuple[str, ...] = ()


def measure(data: Data) -> TextPace:
    """Measure on about a megabyte.

    Raises:
        DataError: the text is missing.
    """
    stand_ins, source, kind = [], data.source, data.tokenizer
    if source.startswith("hf:") and not files_of(source):
        source = "builtin"
        stand_ins.append("built-in text")
    if kind == "gpt2" and not is_cached():
        kind = STAND_IN
        stand_ins.append(f"the tokenizer {STAND_IN}")
    sample = list(_sample(without_repetition(documents(source))))
    size = sum(len(document.text) for document in sample)
    began = time.perf_counter()
    tokenizer = train_tokenizer(kind, (document.text for document in sample))
    made = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        with Writer(Path(folder), tokenizer, SAMPLE_CHARACTERS) as writer:
            for document in sample:
                writer.add(Assigned(part_of(document), document))
        written = time.perf_counter()
    parts = [part for part in writer.counts().values() if part.tokens]
    tokens = sum(part.tokens for part in parts)
    whole = HEAD_CHARACTERS / size if kind.startswith("bpe") and kind == data.tokenizer else 1.0
    return TextPace(
        tokenizer_seconds=(made - began) * max(1.0, whole),
        seconds_per_million=1e6 * (written - made) / tokens,
        bytes_per_token=sum(part.bytes for part in parts) / tokens,
        stand_ins=tuple(stand_ins),
    )


def is_cached() -> bool:
    """Whether the files of `gpt2` lie in this machine's cache."""
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(GPT2_NAME, "tokenizer.json"), str)


def _sample(stream: Iterator[Document]) -> Iterator[Document]:
    size = 0
    for document in stream:
        yield document
        size += len(document.text)
        if size >= SAMPLE_CHARACTERS:
            return


def main(arguments: list[str]) -> int:
    """Measure and print as JSON; returns the exit status."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")  # as where the shards are made
    found = measure(msgspec.json.decode(arguments[0], type=Data))
    print(msgspec.json.encode(found).decode())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
