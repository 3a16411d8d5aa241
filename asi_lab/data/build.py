"""From text to the files of a data directory: split, tokenize, write.

A document's part depends on its text alone, so the same text is never in two parts.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from pathlib import Path

import msgspec

from asi_lab.common import disk
from asi_lab.data.corpus import Warn, documents
from asi_lab.data.manifest import FILES, FORMAT, MANIFEST_FILE, File, Manifest, file_sha256, fingerprint
from asi_lab.data.splits import Assigned, part_of, read_head, with_all_parts, without_repetition
from asi_lab.data.tokenizer import check_kind, train_tokenizer
from asi_lab.data.writer import Writer
from asi_lab.errors import DataError
from asi_lab.settings import Data


def build(data: Data, directory: Path, say: Callable[[str], None], warn: Warn) -> Manifest:
    """Fill the empty `directory`; the manifest is written last. `warn` is told what is wrong with the text,
    but no reason to refuse it.

    Raises:
        DataError: the text is missing or too short, or the tokenizer is unknown.
    """
    check_kind(data.tokenizer)
    say(f"reading text from {data.source}")
    stream = without_repetition(documents(data.source, warn))
    head, ended = read_head(stream)
    if ended:
        head = with_all_parts(head, data.source)
    say(f"making the tokenizer {data.tokenizer}")
    tokenizer = train_tokenizer(data.tokenizer, (document.text for part, document in head if part == "train"))
    tokenizer.save(directory)
    say("writing tokens")
    rest = (Assigned(part_of(document), document) for document in stream)
    with Writer(directory, tokenizer, data.max_tokens) as writer:
        for assigned in chain(head, rest):
            writer.add(assigned)
            if writer.enough:
                break
    counts = writer.counts()
    for part, count in counts.items():
        if count.documents == 0:
            raise DataError(f"The text of {data.source} left nothing for {FILES[part]}. Give more documents.")
    names = sorted(path.name for path in directory.iterdir())
    files = tuple(
        File(name, (directory / name).stat().st_size, file_sha256(directory / name)) for name in names
    )
    manifest = Manifest(
        format=FORMAT,
        source=data.source,
        tokenizer=data.tokenizer,
        max_tokens=data.max_tokens,
        vocab_size=tokenizer.vocab_size,
        eot=tokenizer.eot,
        dtype=writer.dtype,
        files=files,
        fingerprint=fingerprint(files),
        **counts,
    )
    (directory / MANIFEST_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(manifest)) + b"\n")
    for path in (*directory.iterdir(), directory):
        disk.sync(path)
    return manifest
