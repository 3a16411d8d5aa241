"""Loads lm-eval tasks and runs them through its own `simple_evaluate`."""

from __future__ import annotations

import contextlib
import difflib
import logging
import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import datasets
import msgspec
import yaml
from lm_eval import evaluator
from lm_eval.api.group import Group
from lm_eval.api.task import Task
from lm_eval.tasks import TaskManager, _yaml_loader

from asi_lab.data import suites, taskcode
from asi_lab.errors import DataError
from asi_lab.records import CandidateState, TaskResult
from asi_lab.scorer.fault import CandidateFault
from asi_lab.scorer.lm import RemoteLM
from asi_lab.scorer.scores import TaskScore, metrics_of
from asi_lab.scorer.tasks.build import TASK_NAMES, task_of

PATTERN = re.compile(r"[*?\[\]{}]|::|://")
"""What makes a path a pattern or an address to `datasets`."""

COPIES = frozenset({".json", ".jsonl", ".csv", ".tsv", ".txt", ".parquet", ".md", ""})
"""Endings of files that may lie in copies of data sets: formats that are read without running anything."""


def load(
    names: Sequence[str], tasks_dir: Path, consented: Sequence[str] = (), copies: str = ""
) -> list[Task | Group]:
    """Load tasks with their data, and groups that lm-eval averages.

    A name that starts with `asi_` is an offline task, whose samples alone are read from `tasks_dir`. One with
    a slash, or that starts with a dot or tilde, is a folder, all of whose tasks are taken; data files are
    found relative to it. Any other is a task, group or tag that comes with lm-eval, whose data may be
    downloaded, and is never taken from the current folder, but from the folder `copies` where there is one.
    `consented` are hashes of folders whose code may run (`asi_lab.data.taskcode`).

    Raises:
        DataError: a task is unknown, named twice or cannot be loaded.
        ConsentError: a folder may run code and is not consented.
    """
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    tasks: list[Task | Group] = []
    included: Included | None = None
    for name in names:
        if name.startswith(suites.OFFLINE_PREFIX):
            tasks += _load_offline(name, tasks_dir)
        elif taskcode.is_folder(name):
            folder = Path(name).expanduser().absolute()
            taskcode.check(folder, consented)
            with _parsed_as_checked(), _literal(folder) as place:
                manager = _folder_manager(folder)
                for found in manager.all_subtasks:
                    tasks += _load(manager, found, place)
        else:
            included = included or Included(copies)
            tasks += included.load(name)
    loaded = [task.task_name for item in tasks for task in parts(item)]
    if twice := sorted({name for name in loaded if loaded.count(name) > 1}):
        raise DataError(f"expected each task once, found {', '.join(twice)} more than once in evaluate.tasks")
    return tasks


class Included:
    """The tasks that come with lm-eval; `copies` is a folder with copies of their data sets, or empty."""

    def __init__(self, copies: str = "") -> None:
        """Raises `DataError` where the copies hold other files than data."""
        logging.getLogger("lm_eval").setLevel(logging.ERROR)
        self._manager = TaskManager()
        self._copies = Path(copies) if copies else None
        if self._copies is not None:
            _check_copies(self._copies)

    def check(self, name: str) -> None:
        """Raises `DataError` where lm-eval knows no task of that name."""
        _check_known(self._manager, name)

    def load(self, name: str) -> list[Task | Group]:
        """A task, the tasks of a tag or group, or a group that is averaged; raises `DataError`."""
        with contextlib.ExitStack() as stack:
            if self._copies is not None:
                place = stack.enter_context(_literal(self._copies.absolute()))
            else:
                place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="asi-lab-")))
            return _load(self._manager, name, place)


def parts(item: Task | Group) -> list[Task]:
    """The tasks to be run of what `load` gave: of a group those that have a metric that it averages. The
    others enter nothing of it, such as the generated part of metabench, which has no accuracy."""
    if not isinstance(item, Group):
        return [item]
    averaged = {one.metric for one in item.aggregate_metric_list}
    return [task for task in item.get_all_tasks() if averaged & {*task.aggregation()}]


def averaged(group: Group, scores: Sequence[TaskScore], results: Sequence[TaskResult]) -> TaskResult:
    """The one result of a group: lm-eval's own average of its parts' metrics, and the score by its weights.

    Args:
        group: what `load` gave.
        scores: those of its parts, as `evaluate` gave them.
        results: the results of these.

    Raises:
        DataError: its parts have scores of different kinds.
    """
    kinds = sorted({result.score_name for result in results})
    if len(kinds) != 1:
        raise DataError(
            f"expected group {group.name!r} to have parts with one kind of score, found "
            f"{', '.join(kinds) or 'none'}; name its tasks instead"
        )
    by_size = group.aggregate_metric_list[0].weight_by_size
    weights = [result.samples if by_size else 1 for result in results]

    def mean(values: Iterable[float]) -> float:
        return sum(w * value for w, value in zip(weights, values, strict=True)) / sum(weights)

    return TaskResult(
        group.name,
        mean(result.score for result in results),
        kinds[0],
        results[0].higher_is_better,
        mean(result.chance for result in results),
        sum(result.samples for result in results),
        metrics_of(group.aggregate({score.name: score.figures for score in scores})),
        seconds=sum(result.seconds for result in results),
        reported=suites.figures(group.name),
    )


def generates(task: Task) -> bool:
    """Whether a task has text generated, instead of scoring text that it gives."""
    return bool(task.OUTPUT_TYPE == "generate_until")


def evaluate(lm: RemoteLM, tasks: Sequence[Task], limit: int, seed: int) -> list[TaskScore]:
    """Run loaded tasks on at most `limit` samples each.

    Args:
        lm: the model.
        tasks: what `load` returned; they are used up.
        limit: how many samples of each task are taken, from the first on.
        seed: for few-shot examples and whatever else a task draws.

    Raises:
        CandidateFault: the model misbehaves.
        DataError: a task cannot be scored.
    """
    if not tasks:
        return []
    seed %= 2**32  # numpy takes no larger one
    try:
        with _without_report():
            results = evaluator.simple_evaluate(
                model=lm,
                tasks=list(tasks),
                task_manager=TaskManager(include_defaults=False),
                limit=limit,
                bootstrap_iters=0,
                log_samples=True,
                random_seed=seed,
                numpy_random_seed=seed,
                torch_random_seed=seed,
                fewshot_random_seed=seed,
            )
    except OverflowError as error:
        raise CandidateFault(CandidateState.DIVERGED, f"a perplexity overflows: {error}") from error
    return [
        TaskScore(
            task,
            results["samples"][task.task_name],
            results["results"][task.task_name],
            lm.tok_encode,
            lm.vocab_size,
        )
        for task in tasks
    ]


def _load_offline(name: str, tasks_dir: Path) -> list[Task]:
    """The folder's own YAML is for its reader: what is loaded is what we would write there. The samples are
    read here, since `datasets` would take brackets or colons in the lab's path for a pattern."""
    file = tasks_dir / f"{name}.jsonl"
    if name not in TASK_NAMES or not file.is_file():
        raise DataError(
            f"expected {file} for {name!r} in evaluate.tasks, found no file; "
            f"the offline tasks are {', '.join(TASK_NAMES)}, made by python -m asi_lab.scorer.tasks.build"
        )
    with _explained(name):
        rows = [msgspec.json.decode(line) for line in file.read_bytes().splitlines()]
        samples = datasets.DatasetDict(test=datasets.Dataset.from_list(rows))
        task = task_of(name) | {"custom_dataset": lambda **_: samples}
        return list(TaskManager(include_defaults=False).load([task])["tasks"].values())


def _check_known(manager: TaskManager, name: str) -> None:
    if name not in manager.all_tasks:
        near = difflib.get_close_matches(name, manager.all_tasks)
        hint = f"; did you mean {', '.join(near)}?" if near else ""
        raise DataError(f"expected a task that lm-eval knows in evaluate.tasks, found {name!r}{hint}")


def _load(manager: TaskManager, name: str, folder: Path) -> list[Task | Group]:
    _check_known(manager, name)
    with _explained(name), contextlib.chdir(folder):
        found = manager.load([name])
    group = found["groups"].get(name)
    if group is not None and group.aggregate_metric_list:
        return [group]
    return list(found["tasks"].values())


def _check_copies(folder: Path) -> None:
    """Raises `DataError` where a folder is none, or holds other files than data."""
    if not folder.is_dir():
        raise DataError(f"expected a folder with copies of data sets at {folder} (evaluate.datasets)")
    hidden = ".git", ".cache"  # of tools that download
    for path in folder.rglob("*"):
        if path.is_file() and not {*path.parts} & {*hidden} and path.suffix not in COPIES:
            raise DataError(
                f"expected files of data in evaluate.datasets ({' '.join(sorted(COPIES - {''}))}), "
                f"found {path}"
            )


@contextlib.contextmanager
def _explained(name: str) -> Iterator[None]:
    """Whatever keeps a task from loading becomes a `DataError` that says so."""
    try:
        yield
    except Exception as error:  # whatever a task's YAML or code, its data set or the network can raise
        raise DataError(
            f"expected task {name!r} to load, found {type(error).__name__}: {error}; "
            "look at its YAML and data files, or whether its data can be downloaded"
        ) from error


def _folder_manager(folder: Path) -> TaskManager:
    """The tasks of a folder. lm-eval passes over files it cannot read; here they are errors."""
    for path in sorted(folder.rglob("*.yaml")):
        try:
            _yaml_loader.load_yaml(path, resolve_func=False)
        except (yaml.YAMLError, ValueError, OSError) as error:
            raise DataError(f"expected a task of lm-eval in {path}, found: {error}") from error
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    if not manager.all_subtasks:
        raise DataError(f"expected a folder with task YAML at {folder} (evaluate.tasks), found none")
    return manager


@contextlib.contextmanager
def _parsed_as_checked() -> Iterator[None]:
    """lm-eval reads YAML with libyaml, `taskcode` with PyYAML's own parser: around a byte order mark they
    disagree about what is text and what is code."""
    usual = _yaml_loader._Base
    _yaml_loader._Base = yaml.SafeLoader
    try:
        yield
    finally:
        _yaml_loader._Base = usual


@contextlib.contextmanager
def _literal(folder: Path) -> Iterator[Path]:
    """A folder, or where `datasets` would take its path for a pattern, one of our own with a link to each of
    its files; then what is made of them is not kept."""
    if not PATTERN.search(str(folder)):
        yield folder
        return
    kept = datasets.config.HF_DATASETS_CACHE
    with tempfile.TemporaryDirectory(prefix="asi-lab-") as ours:
        links, datasets.config.HF_DATASETS_CACHE = Path(ours, "tasks"), Path(ours, "cache")
        links.mkdir()
        for path in sorted(folder.rglob("*")):
            link = links / path.relative_to(folder)
            if path.is_dir():
                link.mkdir()
            else:
                link.symlink_to(path)
        try:
            yield links
        finally:
            datasets.config.HF_DATASETS_CACHE = kept


@contextlib.contextmanager
def _without_report() -> Iterator[None]:
    """Leave out lm-eval's report on the machine, which runs a dozen programs and takes 2 s."""

    def nothing(*_: Any) -> None:
        return None

    before = evaluator.add_env_info, evaluator.get_git_commit_hash
    evaluator.add_env_info = evaluator.get_git_commit_hash = nothing
    try:
        yield
    finally:
        evaluator.add_env_info, evaluator.get_git_commit_hash = before
