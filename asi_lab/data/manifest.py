"""What a data directory holds, and whether it is still whole."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from asi_lab.errors import DataError
from asi_lab.protocol import HeldOutText
from asi_lab.settings import Data

FORMAT = 2
READABLE = (1, FORMAT)
"""Format 1 had neither `marks` nor what is kept for claims; it is read, so that old labs can be looked at."""

MANIFEST_FILE = "manifest.json"
TRAIN_FILE = "train.bin"
MARKS_FILE = "marks.bin"
VALIDATION_FILE = "validation.bin"
EVALUATION_FILE = "evaluation.jsonl"
CLAIMS_FILE = "claims.bin"
CLAIMS_TASKS_FILE = "claims.jsonl"

PartName = Literal["train", "marks", "validation", "evaluation", "claims", "claims_tasks"]

FILES: dict[PartName, str] = {
    "train": TRAIN_FILE,
    "marks": MARKS_FILE,
    "validation": VALIDATION_FILE,
    "evaluation": EVALUATION_FILE,
    "claims": CLAIMS_FILE,
    "claims_tasks": CLAIMS_TASKS_FILE,
}
"""The parts of the text, each in a file of its own; see docs/data.md for who reads which."""


class HeldOut(NamedTuple):
    """Where the text lies that results are measured on: shard, documents of the offline tasks, and the folder
    of what is made of them."""

    shard: str
    documents: str
    tasks: str


HELD_OUT: dict[HeldOutText, HeldOut] = {
    "search": HeldOut(VALIDATION_FILE, EVALUATION_FILE, "tasks"),
    "claims": HeldOut(CLAIMS_FILE, CLAIMS_TASKS_FILE, "claims_tasks"),
}
"""What the search chooses by, and what only claims are measured on."""


class DataPart(msgspec.Struct, frozen=True):
    """What one part holds. `bytes` are those of its text in UTF-8, without separators; `tokens` count the
    end of text after each document and are 0 for the parts for tasks, which are kept as text."""

    documents: int = 0
    bytes: int = 0
    tokens: int = 0


class File(msgspec.Struct, frozen=True):
    """A file of the directory: its name, its size in bytes and its hash."""

    name: str
    size: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The contents of a data directory. `fingerprint` is a hash of all its files: two labs with
    the same fingerprint train on the same tokens and are evaluated on the same text."""

    format: int
    source: str
    tokenizer: str
    max_tokens: int
    vocab_size: int
    eot: int
    dtype: Literal["uint16", "uint32"]
    train: DataPart
    marks: DataPart = DataPart()
    validation: DataPart
    evaluation: DataPart
    claims: DataPart = DataPart()
    claims_tasks: DataPart = DataPart()
    files: tuple[File, ...]
    fingerprint: str

    def differences(self, data: Data) -> list[str]:
        """Which settings this directory was not made with, in words; empty when it matches."""
        pairs = [
            (name, getattr(self, name), getattr(data, name)) for name in ("source", "tokenizer", "max_tokens")
        ]
        return [
            f"data.{name} is {wanted!r} but was {made!r}" for name, made, wanted in pairs if made != wanted
        ]


def fingerprint(files: tuple[File, ...]) -> str:
    """One hash over the names and hashes of all files."""
    return hashlib.sha256("".join(f"{file.name} {file.sha256}\n" for file in files).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_manifest(directory: Path, hashes: bool = False, only: str | None = None) -> Manifest:
    """Read the manifest and check that every file has its size, and its hash where `hashes` is set.

    With `only`, nothing but the file of that name is looked at: a trial can see no other.

    Raises `DataError` where the directory was not prepared, is of another version or is damaged.
    """
    advice = "Move the folder away and start again (data is then prepared anew), or use a new lab."
    try:
        manifest = msgspec.json.decode((directory / MANIFEST_FILE).read_bytes(), type=Manifest)
    except FileNotFoundError:
        raise DataError(f"{directory} holds no prepared data: {MANIFEST_FILE} is missing. {advice}") from None
    except (OSError, msgspec.DecodeError) as error:
        raise DataError(f"Cannot read {directory / MANIFEST_FILE}: {error}. {advice}") from error
    if manifest.format not in READABLE:
        raise DataError(
            f"{directory} has data of format {manifest.format}, this version reads formats up to {FORMAT}. "
            f"{advice}"
        )
    for file in manifest.files:
        if only not in (None, file.name):
            continue
        path = directory / file.name
        size = path.stat().st_size if path.is_file() else None
        if size != file.size:
            found = "missing" if size is None else f"{size:,} bytes long"
            raise DataError(f"{path} should be {file.size:,} bytes long and is {found}. {advice}")
        if hashes and file_sha256(path) != file.sha256:
            raise DataError(f"{path} has changed since it was made (its hash differs). {advice}")
    return manifest
