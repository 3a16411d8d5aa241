"""Which folders of lm-eval tasks are data, and which may run code of their own.

lm-eval's YAML runs code in more ways than `!function`: templates are those of Jinja, which reach every
object of Python; `include` reads other files; metrics and data sets may come with code, and some formats of
data are pickles. So this is a list of what is known to be data. A folder with anything else needs consent.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import Any

import yaml

from asi_lab import trust
from asi_lab.data.manifest import file_sha256
from asi_lab.errors import ConsentError, DataError
from asi_lab.text import plain

_DATA = frozenset({"json", "csv", "text", "parquet"})
"""Formats of local files that `datasets` reads without running anything."""
_METRICS = frozenset(
    {"acc", "acc_norm", "acc_bytes", "exact_match", "perplexity", "word_perplexity", "byte_perplexity"}
    | {"bits_per_byte", "brier_score", "f1", "mcc", "likelihood"}
)
_PLAIN_KEYS = frozenset(
    {"task", "task_alias", "tag", "test_split", "validation_split", "training_split", "fewshot_split"}
    | {"output_type", "num_fewshot", "repeats", "should_decontaminate", "target_delimiter"}
    | {"fewshot_delimiter", "metadata", "version"}
)
"""Keys whose values lm-eval compares or counts."""
_TEMPLATES = frozenset(
    {"doc_to_text", "doc_to_choice", "doc_to_target", "description", "doc_to_decontamination_query"}
)
_METRIC_KEYS = frozenset({"metric", "aggregation", "higher_is_better", "ignore_case", "ignore_punctuation"})
_AGGREGATIONS = frozenset(
    {"mean", "median", "perplexity", "weighted_perplexity", "bits_per_byte", "brier_score", "f1"}
    | {"matthews_corrcoef"}
)
_FIELD = re.compile(r"\{\{\s*[A-Za-z]\w*(?:\.[A-Za-z]\w*|\[\d+\])*\s*\}\}")
"""What a template may hold: a field of a document."""
_MARKS = ("{{", "{%", "{#")
_MOST_FILES = 10_000


class _Loader(yaml.SafeLoader):
    """Reads `!function NAME` and any other tag as an object that is no data."""


class _Code:
    def __init__(self, tag: str) -> None:
        self.tag = tag


_Loader.add_multi_constructor("", lambda _, tag, __: _Code(tag))
_Loader.add_multi_constructor("!", lambda _, tag, __: _Code(f"!{tag}"))


def is_folder(name: str) -> bool:
    """Whether one of `evaluate.tasks` is a folder of tasks, rather than the name of a task."""
    return os.sep in name or name.startswith((".", "~"))


def resolve(name: str, lab: Path) -> str:
    """A task as the scorer takes it: folders are relative to the lab."""
    return str((lab / Path(name).expanduser()).resolve()) if is_folder(name) else name


def files(folder: Path) -> dict[str, str]:
    """SHA-256 of all files in a folder, by their names in it.

    Raises:
        DataError: it cannot be read, leads out of itself, or holds too many.
    """
    found: dict[str, str] = {}
    try:
        for path in sorted(folder.rglob("*")):
            if path.is_symlink() or not (path.is_dir() or path.is_file()):
                raise DataError(f"{path}: expected plain files in a folder of tasks; found a link or a device")
            if path.is_file() and "__pycache__" not in path.parts:
                found[str(path.relative_to(folder))] = file_sha256(path)
            if len(found) > _MOST_FILES:
                raise DataError(f"{folder}: expected a folder of tasks; found more than {_MOST_FILES:,} files")
    except OSError as error:
        raise DataError(f"{folder}: the tasks cannot be read ({error.strerror})") from None
    return found


def digest(folder: Path) -> str:
    """One hash of a folder's place and all that is in it."""
    lines = [f"{name}\0{value}\n" for name, value in files(folder).items()]
    return hashlib.sha256("".join([f"{folder}\n", *lines]).encode("utf-8", "surrogateescape")).hexdigest()


def reasons(folder: Path) -> list[str]:
    """Why a folder's tasks may run code, a line each; none where they are data."""
    found: list[str] = []
    for path in sorted(folder.rglob("*.yaml")):
        try:
            with path.open("rb") as file:
                content = yaml.load(file, Loader=_Loader)  # noqa: S506  # a safe loader of ours
        except (yaml.YAMLError, OSError, ValueError, RecursionError) as error:
            raise DataError(f"expected a task of lm-eval in {path}, found: {error}") from error
        name = plain(str(path.relative_to(folder)), limit=100)
        found += [f"{name}: {reason}" for reason in _reasons(content, folder, path.parent)]
    return found


def _reasons(content: Any, folder: Path, here: Path) -> list[str]:
    if not isinstance(content, dict):
        return []  # lm-eval refuses it
    found = []
    for key, value in content.items():
        if key in _PLAIN_KEYS:
            fits = _is_plain(value)
        elif key in _TEMPLATES:
            fits = all(map(_is_template, value)) if isinstance(value, list) else _is_template(value)
        elif key == "dataset_path":
            fits = value in _DATA
        elif key == "dataset_kwargs":
            fits = _are_own_files(value, folder)
        elif key == "metric_list":
            fits = isinstance(value, list) and all(map(_is_metric, value))
        else:
            fits = False
        if not fits:
            tag = f" {value.tag}" if isinstance(value, _Code) else ""
            found.append(f"{plain(str(key), limit=60)}{plain(tag, limit=60) and ' '}{plain(tag, limit=60)}")
    return found


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(one) for key, one in value.items())
    if isinstance(value, list):
        return all(map(_is_plain, value))
    return value is None or (
        isinstance(value, str | int | float | bool)
        and not any(mark in value for mark in _MARKS if isinstance(value, str))
    )


def _is_template(value: Any) -> bool:
    if not isinstance(value, str):
        return value is None or isinstance(value, int | bool)
    rest = _FIELD.sub("", value)
    return not any(mark in rest for mark in _MARKS)


def _is_metric(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and set(value) <= _METRIC_KEYS
        and value.get("metric") in _METRICS
        and value.get("aggregation", "mean") in _AGGREGATIONS
        and all(_is_plain(one) for one in value.values())
    )


def _are_own_files(value: Any, folder: Path) -> bool:
    """Whether data sets are read from files of the folder, and nothing else is asked for."""
    if not isinstance(value, dict) or set(value) != {"data_files"}:
        return False
    named = value["data_files"]
    groups = list(named.values()) if isinstance(named, dict) else [named]
    names = [name for group in groups for name in (group if isinstance(group, list) else [group])]
    return all(
        isinstance(name, str)
        and "://" not in name
        and "::" not in name
        and (folder / name).resolve().is_relative_to(folder.resolve())
        for name in names
    )


def check(names: tuple[str, ...], lab: Path) -> None:
    """Look whether all folders among a lab's tasks are data, or granted.

    Raises:
        ConsentError: one is neither.
        DataError: one cannot be read.
    """
    for name in filter(is_folder, names):
        folder = Path(resolve(name, lab))
        if not folder.is_dir() or not (why := reasons(folder)):
            continue
        if digest(folder) not in trust.granted().tasks:
            raise ConsentError(
                f"{folder}: the lab's tasks may run code of their own ({plain('; '.join(why), limit=200)}), "
                f"which you have not granted, or which has changed since. See it, and grant it: "
                f"{trust.command(lab)}"
            )
