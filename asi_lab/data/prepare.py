"""A data directory, made once and then used again. Also `python -m asi_lab.data.prepare`.

    DIRECTORY/  manifest.json  tokenizer_manifest.json  tokenizer.json (but for byte)
                train.bin  marks.bin  validation.bin  evaluation.jsonl  claims.bin  claims.jsonl

It appears under its name only when it is whole.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec

from asi_lab.common import disk
from asi_lab.data.manifest import FORMAT, Manifest, load_manifest
from asi_lab.errors import DataError, LabError, UsageError
from asi_lab.settings import Data

Say = Callable[[str], None]


def prepare(
    data: Data, directory: Path, say: Say = lambda message: None, warn: Say = lambda message: None
) -> Manifest:
    """Make `directory` from the settings, or reuse it where it was made from the same ones.

    The directory appears under its name only when it is whole. `say` is told what happens, `warn` what
    is wrong with the text, but no reason to refuse it.
    Raises `DataError` where it was made from other settings or is damaged, where the text is
    missing or too short, and where the disk is full.
    """
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        with disk.locked(directory.parent):  # two processes do not prepare the same data
            if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
                return _reuse(data, directory, say)
            return _make(data, directory, say, warn)
    except OSError as error:
        full = error.errno in disk.FULL
        fix = "Free some space, or lower data.max_tokens" if full else "Check the disk and its permissions"
        raise DataError(
            f"Cannot write the data to {directory}: {error.strerror or error}. {fix}, "
            "then start again; nothing half-made was left."
        ) from error


def _reuse(data: Data, directory: Path, say: Say) -> Manifest:
    manifest = load_manifest(directory, hashes=True)
    if differences := manifest.differences(data):
        raise DataError(
            f"The data in {directory} was made with other settings: {'; '.join(differences)}. "
            "A lab keeps its data, so that its candidates stay comparable: undo the change, or start a "
            "new lab with it."
        )
    if manifest.format != FORMAT:
        raise DataError(
            f"The data in {directory} was split by an older version (format {manifest.format}), without text "
            "for the marks. Start a new lab."
        )
    say(f"data is ready: {manifest.train.tokens:,} training tokens, fingerprint {manifest.fingerprint[:12]}")
    return manifest


def _make(data: Data, directory: Path, say: Say, warn: Say) -> Manifest:
    """Build next to `directory`, then rename."""
    from asi_lab.data.build import build  # takes longer to import than a look at what is there

    partial = directory.parent / f".{directory.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)  # left by a run that was killed
    try:
        partial.mkdir()
        manifest = build(data, partial, say, warn)
        partial.replace(directory)
        disk.sync(directory.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    say(f"{manifest.train.tokens:,} training tokens, fingerprint {manifest.fingerprint[:12]}")
    return manifest


def main(arguments: list[str]) -> int:
    """Prepare from the command line: a directory, and `settings.Data` as JSON.

    Narrates on stderr, warns on stdout. Returns the exit code of the error, 0 when all went well.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")  # this process does nothing else
    try:
        if len(arguments) != 2:
            raise UsageError("Usage: python -m asi_lab.data.prepare DIRECTORY SETTINGS_JSON")
        prepare(_settings(arguments[1]), Path(arguments[0]), _narrate, print)
    except LabError as error:
        _narrate(str(error))
        return error.exit_code
    return 0


def _settings(text: str) -> Data:
    try:
        return msgspec.json.decode(text, type=Data)
    except msgspec.DecodeError as error:
        raise UsageError(f"The data settings must be one JSON object as in lab.toml: {error}.") from error


def _narrate(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
