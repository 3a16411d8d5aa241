"""The data sets of tasks that come with lm-eval: which are there, or can be downloaded.

    python -m asi_lab.scorer.fetch COPIES NAME...

COPIES is a folder with copies of data sets, or empty. For each name it prints one line of JSON, a
`protocol.TaskData`; a name that lm-eval does not know is an error. With HF_HUB_OFFLINE=1 in the environment
nothing is downloaded.
"""

from __future__ import annotations

import os

os.environ["TQDM_DISABLE"] = "1"  # read when lm-eval imports tqdm

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

import datasets
import msgspec

from asi_lab.errors import DataError, LabError
from asi_lab.protocol import TaskData
from asi_lab.scorer import harness


def look(included: harness.Included, name: str) -> TaskData:
    """Load a task, downloading what is not there yet unless that is forbidden.

    Raises:
        DataError: lm-eval knows no task of that name.
    """
    included.check(name)
    with _noted() as asked:
        try:
            items = included.load(name)
        except DataError as error:
            cause = error.__cause__ or error
            why = f"{type(cause).__name__}: {cause}".splitlines()[0]
            return TaskData(name, tuple(dict.fromkeys(asked)), why=why)
    tasks = [task for item in items for task in harness.parts(item)]
    return TaskData(name, tuple(dict.fromkeys(asked)), sum(_bytes(task.dataset) for task in tasks))


@contextlib.contextmanager
def _noted() -> Iterator[list[str]]:
    """Note which data sets lm-eval asks for."""
    usual, asked = datasets.load_dataset, list[str]()

    def load_dataset(path: str, name: str | None = None, **options: Any) -> Any:
        asked.append(f"{path} {name}" if name else path)
        return usual(path, name, **options)

    datasets.load_dataset = load_dataset
    try:
        yield asked
    finally:
        datasets.load_dataset = usual


def _bytes(found: Any) -> int:
    """The size of a loaded data set."""
    return sum(split.data.nbytes for split in found.values())


def main(arguments: list[str]) -> int:
    """Entry point; returns the exit status."""
    try:
        included = harness.Included(arguments[0])
        for name in arguments[1:]:
            found = look(included, name)
            print(msgspec.json.encode(found).decode(), flush=True)
            if found.why.startswith("ConnectionError"):
                datasets.config.HF_HUB_OFFLINE = True  # each would wait half a minute for the same network
    except LabError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    datasets.disable_progress_bars()
    sys.exit(main(sys.argv[1:]))
