"""The offline task set: ordinary lm-eval YAML with its samples beside it, made once per lab.

    python -m asi_lab.scorer.tasks.build DATA_DIR SEED LIMIT [search|claims]

writes `DATA_DIR/tasks/`, or those of claims. Texts are held out: no model is trained on them. The
paths in the YAML are relative to the folder, so that a lab can be moved; from within the folder
plain `lm_eval --include_path . --tasks asi_recall` runs them as well.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import yaml

from asi_lab.common import disk
from asi_lab.data import tokenizer as data_tokenizer
from asi_lab.data.manifest import HELD_OUT, file_sha256
from asi_lab.data.suites import SUITES
from asi_lab.errors import DataError, LabError
from asi_lab.protocol import HeldOutText
from asi_lab.scorer.tasks import probes, textual
from asi_lab.scorer.tasks.passages import (
    EncodesText,
    HeldOutDocument,
    cut,
    read_documents,
    symbols,
    word_counter,
)

VERSION = 1
FEWEST_SAMPLES = 8
SYMBOLS = 64

PERPLEXITY_TOKENS = 120
LAST_WORD_TOKENS = 96
CONTINUATION_CONTEXT = 48
CONTINUATION_TOKENS = 64

_CHOICE: dict[str, Any] = {
    "output_type": "multiple_choice",
    "doc_to_text": "context",
    "doc_to_choice": "choices",
    "doc_to_target": "label",
    "metric_list": [
        {"metric": "acc", "aggregation": "mean", "higher_is_better": True},
        {"metric": "acc_norm", "aggregation": "mean", "higher_is_better": True},
    ],
}
_LAST_WORD: dict[str, Any] = {
    "output_type": "loglikelihood",
    "doc_to_text": "context",
    "doc_to_target": "target",
    "metric_list": [
        {"metric": "perplexity", "aggregation": "perplexity", "higher_is_better": False},
        {"metric": "acc", "aggregation": "mean", "higher_is_better": True},
    ],
}
_PERPLEXITY: dict[str, Any] = {
    "output_type": "loglikelihood_rolling",
    "doc_to_text": "",
    "doc_to_target": "text",
    "metric_list": [
        {"metric": "word_perplexity", "aggregation": "weighted_perplexity", "higher_is_better": False},
        {"metric": "byte_perplexity", "aggregation": "weighted_perplexity", "higher_is_better": False},
        {"metric": "bits_per_byte", "aggregation": "bits_per_byte", "higher_is_better": False},
    ],
}


Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class _Source:
    """What tasks are made of."""

    documents: Sequence[HeldOutDocument]
    count: Callable[[str], int]
    limit: int

    def probe(
        self, make: Callable[[list[str], Random], probes.ChoiceRow], random: Random
    ) -> list[dict[str, Any]]:
        """As many samples of a generator as the limit says."""
        words = symbols(self.documents, self.count, SYMBOLS, probes.SYMBOLS_NEEDED)
        return [{**make(words, random)} for _ in range(self.limit)]


_TASKS: dict[str, tuple[dict[str, Any], Callable[[_Source, Random], Rows]]] = {
    "asi_perplexity": (
        _PERPLEXITY,
        lambda s, r: textual.perplexity(cut(s.documents, PERPLEXITY_TOKENS, s.count), r, s.limit),
    ),
    "asi_last_word": (
        _LAST_WORD,
        lambda s, r: textual.last_word(cut(s.documents, LAST_WORD_TOKENS, s.count), r, s.limit),
    ),
    "asi_continuation": (
        _CHOICE,
        lambda s, r: textual.continuation(
            cut(s.documents, CONTINUATION_TOKENS, s.count),
            [document.text for document in s.documents],
            r,
            s.limit,
            CONTINUATION_CONTEXT,
        ),
    ),
    "asi_recall": (_CHOICE, lambda s, r: s.probe(probes.recall, r)),
    "asi_copy": (_CHOICE, lambda s, r: s.probe(probes.selective_copy, r)),
    "asi_induction": (_CHOICE, lambda s, r: s.probe(probes.induction, r)),
}

TASK_NAMES = SUITES["offline"]
"""Names of the offline tasks."""


def build_tasks(
    data_dir: Path,
    tasks_dir: Path,
    seed: int,
    limit: int,
    tokenizer: EncodesText,
    text: HeldOutText = "search",
) -> bool:
    """Write the offline tasks to `tasks_dir`, whole or not at all; returns whether others were replaced.

    A folder that was made from the same text, tokenizer, seed and limit, and is as it was made, is left
    as it is; any other is replaced.

    Raises:
        DataError: the text is missing, or too small for one of the tasks.
    """
    documents_file = HELD_OUT[text].documents
    origin = _origin(data_dir, documents_file, seed, limit)
    stamp = tasks_dir / "origin.json"
    if stamp.is_file() and stamp.read_bytes() == _stamp(origin, tasks_dir):
        return False
    documents = read_documents(data_dir / documents_file)
    source = _Source(documents, word_counter(tokenizer), limit)
    tasks_dir.parent.mkdir(parents=True, exist_ok=True)
    for left in tasks_dir.parent.glob(f".{tasks_dir.name}-*"):  # by a run that was killed
        shutil.rmtree(left)
    with tempfile.TemporaryDirectory(prefix=f".{tasks_dir.name}-", dir=tasks_dir.parent) as scratch:
        fresh = Path(scratch) / "fresh"
        fresh.mkdir()
        for name, (_, make) in _TASKS.items():
            rows = make(source, Random(f"{seed}:{name}"))
            if len(rows) < (fewest := min(FEWEST_SAMPLES, limit)):
                raise DataError(
                    f"expected at least {fewest} samples for {name}, found {len(rows)} in the "
                    f"{len(documents)} documents of {documents_file}; use a larger text as data.source"
                )
            _write_task(fresh, name, rows)
        (fresh / stamp.name).write_bytes(_stamp(origin, fresh))
        if replaced := tasks_dir.exists():
            tasks_dir.rename(Path(scratch) / "old")
        fresh.rename(tasks_dir)
    return replaced


def task_of(name: str) -> dict[str, Any]:
    """The configuration of an offline task, without where its samples lie."""
    return {"task": name, "test_split": "test", **_TASKS[name][0], "metadata": {"version": VERSION}}


def task_yaml(name: str) -> str:
    """The YAML of an offline task, from which lm-eval loads it wherever its samples lie."""
    samples = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": f"{name}.jsonl"}}}
    return yaml.safe_dump({"task": name} | samples | task_of(name), sort_keys=False)


def _write_task(folder: Path, name: str, rows: Sequence[dict[str, Any]]) -> None:
    (folder / f"{name}.jsonl").write_bytes(msgspec.json.Encoder().encode_lines(rows))
    (folder / f"{name}.yaml").write_text(task_yaml(name), encoding="utf-8")


def _origin(data_dir: Path, documents: str, seed: int, limit: int) -> dict[str, Any]:
    """What the tasks are made from."""
    names = (documents, "tokenizer.json", "tokenizer_manifest.json")
    return {"version": VERSION, "seed": seed, "limit": limit, **_hashes(data_dir, names)}


def _stamp(origin: dict[str, Any], folder: Path) -> bytes:
    """What the tasks in `folder` are made from, and what they are, as canonical JSON."""
    names = [f"{name}.{kind}" for name in _TASKS for kind in ("yaml", "jsonl")]
    return msgspec.json.encode({**origin, "files": _hashes(folder, names)}, order="sorted")


def _hashes(folder: Path, names: Sequence[str]) -> dict[str, str]:
    """SHA-256 of files by name, empty for one that is not there."""
    files = {name: folder / name for name in names}
    return {name: file_sha256(file) if file.is_file() else "" for name, file in files.items()}


def main() -> int:
    """Entry point: says on stdout what it put right; returns the exit status."""
    parser = argparse.ArgumentParser(description="Build the offline evaluation tasks of a data directory.")
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("seed", type=int)
    parser.add_argument("limit", type=int)
    parser.add_argument("text", choices=HELD_OUT, nargs="?", default="search")
    arguments = parser.parse_args()
    tasks_dir = arguments.data_dir / HELD_OUT[arguments.text].tasks
    try:
        tokenizer = data_tokenizer.Tokenizer.load(arguments.data_dir)
        wanted = arguments.seed, arguments.limit, tokenizer, arguments.text
        if build_tasks(arguments.data_dir, tasks_dir, *wanted):
            print(f"{tasks_dir}: the task files were not those that belong to the data; made again")
    except LabError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"The tasks cannot be written. {disk.explain(error, tasks_dir)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
