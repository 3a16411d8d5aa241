"""Which folders of lm-eval tasks are data, and which may run code of their own.

lm-eval's YAML runs code in more ways than `!function`: templates are those of Jinja, which reach every
object of Python; `include` reads other files; metrics and data sets may come with code, and some formats of
data are pickles. So this is a list of what is known to be data. A folder with anything else needs consent.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Container, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from asi_lab.common.text import plain
from asi_lab.data.manifest import file_sha256
from asi_lab.errors import ConsentError, DataError

_DATA = frozenset({"json", "csv", "text", "parquet"})
"""Formats of local files that `datasets` reads without running anything."""
_METRICS = frozenset(
    {"acc", "acc_norm", "acc_bytes", "exact_match", "perplexity", "word_perplexity", "byte_perplexity"}
    | {"bits_per_byte", "brier_score", "f1", "mcc", "likelihood"}
)
_NAMES = frozenset(
    {"task", "task_alias", "tag", "test_split", "validation_split", "training_split", "fewshot_split"}
    | {"output_type", "num_fewshot", "repeats", "should_decontaminate", "target_delimiter"}
    | {"fewshot_delimiter", "dataset_name"}
)
"""Keys whose values lm-eval compares, counts or joins to texts."""
_TABLES = frozenset({"metadata", "generation_kwargs"})
_TEMPLATES = frozenset(
    {"doc_to_text", "doc_to_choice", "doc_to_target", "description", "doc_to_decontamination_query"}
)
_METRIC_KEYS = frozenset({"metric", "aggregation", "higher_is_better", "ignore_case", "ignore_punctuation"})
_AGGREGATIONS = frozenset(
    {"mean", "median", "perplexity", "weighted_perplexity", "bits_per_byte", "brier_score", "f1"}
    | {"matthews_corrcoef"}
)
_NAME = r"[A-Za-z]\w*(?:\.[A-Za-z]\w*|\[\d+\])*"
_FIELD = re.compile(rf"\{{\{{\s*(?:{_NAME}|\[\s*{_NAME}(?:\s*,\s*{_NAME})*\s*\])\s*\}}\}}")
"""What a template may hold: a field of a document, or a list of fields."""
_MARKS = ("{{", "{%", "{#")
_FUNCTION = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+")
_MOST_FILES = 10_000


class _Code:
    """What a tag of YAML other than its own stands for."""

    def __init__(self, tag: str, name: str) -> None:
        self.tag, self.name = tag, name


class _Loader(yaml.SafeLoader):
    """Reads what bears a tag as `_Code`."""

    def tagged(self, node: yaml.Node) -> _Code:
        """A value with a tag that YAML itself does not know."""
        return _Code(str(node.tag), node.value if isinstance(node, yaml.ScalarNode) else "")


_Loader.add_constructor(None, _Loader.tagged)


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
                raise DataError(
                    f"{path}: expected plain files in a folder of tasks; found a link or a device"
                )
            if path.is_file():
                found[str(path.relative_to(folder))] = file_sha256(path)
            if len(found) > _MOST_FILES:
                raise DataError(
                    f"{folder}: expected a folder of tasks; found more than {_MOST_FILES:,} files"
                )
    except OSError as error:
        raise DataError(f"{folder}: the tasks cannot be read ({error.strerror})") from None
    return found


def digest(folder: Path, found: Mapping[str, str]) -> str:
    """One hash of a folder's place and of all that was `found` in it by `files`."""
    lines = [f"{name}\0{value}\n" for name, value in found.items()]
    return hashlib.sha256("".join([f"{folder}\n", *lines]).encode("utf-8", "surrogateescape")).hexdigest()


def reasons(folder: Path) -> list[str]:
    """Why a folder's tasks may run code, a line each; none where they are data.

    Raises:
        DataError: they cannot be read, or name code or YAML outside of the folder.
    """
    found: list[str] = []
    waiting = sorted(folder.rglob("*.yaml"))
    seen = set(waiting)
    while waiting:
        path = waiting.pop(0)
        content = _read(path)
        name = plain(os.path.relpath(path, folder), limit=100)
        try:
            found += [f"{name}: {reason}" for reason in _reasons(content, folder)]
        except RecursionError:
            raise DataError(f"expected a task of lm-eval in {path}, found one that holds itself") from None
        for included in _included(content, path):
            if not included.resolve().is_relative_to(folder.resolve()) or included.is_symlink():
                raise _outside(path, f"include: {included}")
            if included not in seen:
                seen.add(included)
                waiting.append(included)
        for code in _code_in(content):
            if not _FUNCTION.fullmatch(code.name):
                raise _outside(path, f"{code.tag} {code.name}")
    return found


def _read(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            return yaml.load(file, Loader=_Loader)  # a safe loader of ours
    except (yaml.YAMLError, OSError, ValueError, RecursionError) as error:
        raise DataError(f"expected a task of lm-eval in {path}, found: {error}") from error


def _outside(path: Path, what: str) -> DataError:
    return DataError(
        f"{path}: expected code and YAML of its own folder or of an installed package; found "
        f"{plain(what, limit=200)!r}. Copy what it needs into the folder."
    )


def _included(content: Any, path: Path) -> list[Path]:
    value = content.get("include", []) if isinstance(content, dict) else []
    names = value if isinstance(value, list) else [value]
    return [path.parent / (name if isinstance(name, str) else "") for name in names]


def _code_in(value: Any) -> Iterator[_Code]:
    if isinstance(value, _Code):
        yield value
    elif isinstance(value, dict):
        yield from _code_in([*value, *value.values()])
    elif isinstance(value, list | tuple | set):
        for one in value:
            yield from _code_in(one)


def _reasons(content: Any, folder: Path) -> list[str]:
    if not isinstance(content, dict):
        return ["no table"]
    found = []
    for key, value in content.items():
        if key in _NAMES:
            fits = all(map(_is_scalar, value)) if isinstance(value, list) else _is_scalar(value)
        elif key in _TABLES:
            fits = _is_plain(value)
        elif key in _TEMPLATES:
            fits = all(map(_is_template, value)) if isinstance(value, list) else _is_template(value)
        elif key == "dataset_path":
            fits = isinstance(value, str) and value in _DATA
        elif key == "dataset_kwargs":
            fits = _are_own_files(value, folder)
        elif key == "metric_list":
            fits = isinstance(value, list) and all(map(_is_metric, value))
        else:
            fits = False
        if not fits:
            codes = [f" {code.tag} {code.name}" for code in _code_in(value)]
            found.append(plain(f"{key}{''.join(codes)}", limit=200))
    return found


def _is_scalar(value: Any) -> bool:
    return not isinstance(value, dict | list) and _is_plain(value)


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
        and all(_is_scalar(one) for one in value.values())
        and value.get("metric") in _METRICS
        and value.get("aggregation", "mean") in _AGGREGATIONS
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


def code_of(names: Iterable[str], lab: Path) -> dict[Path, list[str]]:
    """The folders among a lab's tasks that may run code, with the reasons.

    Raises:
        DataError: one cannot be read, or leads out of itself.
    """
    folders = [Path(resolve(name, lab)) for name in names if is_folder(name)]
    found = {folder: reasons(folder) for folder in folders if folder.is_dir()}
    return {folder: why for folder, why in found.items() if why}


def check(folder: Path, granted: Container[str], command: str = "asi-lab trust LAB") -> None:
    """Look whether a folder's tasks are data, or among the hashes that are `granted`.

    Raises:
        ConsentError: they are neither; the message names the `command` that grants them.
        DataError: they cannot be read, or lead out of their folder.
    """
    if (why := reasons(folder)) and digest(folder, files(folder)) not in granted:
        raise ConsentError(
            f"{folder}: its tasks may run code of their own ({plain('; '.join(why), limit=200)}), which you "
            f"have not granted, or which has changed since. See it, and grant it: {command}"
        )
