"""Labs to be damaged, engines that meet faults, and everything that must be the same afterwards."""

from __future__ import annotations

import importlib
import json
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import msgspec
import pytest

from asi_lab.data.prepare import prepare
from asi_lab.data.tokenizer import Tokenizer
from asi_lab.lab import Lab, Lineage, Store, fsck
from asi_lab.scorer.tasks.build import build_tasks
from asi_lab.scoring import references

SERVER = Path(__file__).with_name("engine_server.py")
EXPERIMENTS = 4
"""Under the seed below: 1 scored and best, 2 failed, a further seed of the baselines and a new pool before
3, 3 scored, 4 scored and best."""
WORDS = ("linear", "attention", "keeps", "a", "matrix", "of", "fast", "weights", "the", "delta", "rule")
LAB_TOML = """preset = "micro"
seed = 584
[search]
slots = 1
cold_start = 2
update_every = 2
max_starts = 1000
[data]
source = "text:{text}"
tokenizer = "bpe:300"
[train]
steps = 3
warmup_steps = 1
[evaluate]
probes = []
tasks = ["asi_recall", "asi_copy"]
limit = 4
marks = [0.5]
[baselines]
references = ["delta_net", "gated_delta_net"]
bar = ""
seeds = 2
max_seeds = 3
grow_every = 2
"""
ONCE = ("candidate_proposed", "commit", "best", "baseline_measured", "pool_updated", "note")
"""Kinds of events that come once each, however often an engine is cut off."""


class Ended(NamedTuple):
    """How a process ended: exit status (negative for a signal), what it printed, boundaries passed."""

    code: int
    said: str
    boundaries: list[str]


class Engines:
    """Runs engines one after the other, each a process of its own; `faults` are those of the server."""

    def __init__(self) -> None:
        command = [sys.executable, str(SERVER)]
        self.server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(self, lab: Lab, experiments: int = EXPERIMENTS, **faults: Any) -> Ended:
        """Run an engine to whatever its end is; a traceback is never one."""
        return self._ask({"lab": str(lab.path), "experiments": experiments, **faults})

    def program(self, lab: Lab, *arguments: object) -> Ended:
        """Run `asi-lab --lab LAB ARGUMENTS` in a process of its own."""
        return self._ask({"program": ["--lab", str(lab.path), *map(str, arguments)]})

    def _ask(self, request: dict[str, Any]) -> Ended:
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        self.server.stdin.write(json.dumps(request) + "\n")
        self.server.stdin.flush()
        ended = Ended(**json.loads(self.server.stdout.readline()))
        assert "Traceback" not in ended.said, ended.said
        return ended

    def finish(self, lab: Lab, experiments: int = EXPERIMENTS, **faults: Any) -> Ended:
        """Run an engine that reaches the end of the search."""
        ended = self.run(lab, experiments, **faults)
        assert ended.code == 0, ended.said
        return ended

    def close(self) -> None:
        self.server.communicate()


class Outcome(NamedTuple):
    """All that a search leaves and that no fault may change."""

    candidates: list[Any]
    baselines: list[Any]
    embeddings: list[Any]
    curves: dict[str, Any]
    events: list[Any]
    refs: dict[str, str]
    code: dict[str, str]
    weights: list[str]


def outcome(lab: Lab) -> Outcome:
    """Read what a search left, and assert that it is whole."""
    with Store.open(lab.store) as store:
        events = store.events(limit=10**6)
        ids, vectors = store.vectors()
        found = Outcome(
            candidates=[
                msgspec.structs.replace(c, starts=0, cuts=0, trial_seconds=0.0) for c in store.candidates()
            ],
            baselines=store.baselines(),
            embeddings=[ids.tolist(), vectors.tolist()],
            curves={run: store.series(run)[:, :-1].tolist() for run in store.series_runs()},
            events=[(e.kind, e.candidate, e.message, e.data) for e in events if e.kind in ONCE],
            refs=Lineage.open(lab.lineage).refs(),
            code={p.parent.name: p.read_text() for p in lab.trials.glob("*/architecture.py")},
            weights=sorted(str(p.relative_to(lab.trials)) for p in lab.trials.glob("*/checkpoint.*")),
        )
        findings = fsck.check(store, lab.lineage, store.get_meta("config"), [references.upper()])
    assert findings == []
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert Lineage(lab.lineage).recover() == []
    return found


def assert_same(lab: Lab, undisturbed: Outcome, when: str = "", but: str = "") -> None:
    """Assert that a search left the same, `but` one field of `Outcome`, and say in which it did not."""
    for name, found, expected in zip(Outcome._fields, outcome(lab), undisturbed, strict=True):
        assert found == expected or name == but, f"{name} differ {when}"


@pytest.fixture(scope="session")
def simulated() -> ModuleType:
    """The module with the simulated trials, for engines within the tests' own process."""
    sys.path.insert(0, str(SERVER.parents[1]))
    try:
        return importlib.import_module("simulated_engine")
    finally:
        del sys.path[0]


@pytest.fixture(scope="session")
def engines() -> Iterator[Engines]:
    opened = Engines()
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """A lab with its data, on which no search has begun. Only for copying."""
    return prepare_lab(tmp_path_factory.mktemp("prepared"))


def prepare_lab(folder: Path) -> Lab:
    """Make a lab with its data in a folder."""
    rng = random.Random(0)
    text = folder / "text.txt"
    text.write_text("\n\n".join(" ".join(rng.choice(WORDS) for _ in range(400)) + "." for _ in range(60)))
    lab = Lab(folder / "lab")
    lab.path.mkdir()
    lab.config.write_text(LAB_TOML.format(text=text))
    settings = lab.settings()
    prepare(settings.data, lab.data)
    build_tasks(
        lab.data, lab.data / "tasks", settings.seed, settings.evaluate.limit, Tokenizer.load(lab.data)
    )
    return lab


@pytest.fixture(scope="session")
def searched(
    prepared: Lab, engines: Engines, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Lab, list[str]]:
    """A lab whose search met no fault, and the boundaries that it passed."""
    lab = Lab(shutil.copytree(prepared.path, tmp_path_factory.mktemp("undisturbed") / "lab"))
    return lab, engines.finish(lab).boundaries


@pytest.fixture(scope="session")
def undisturbed(searched: tuple[Lab, list[str]]) -> Lab:
    """A lab whose search met no fault. Only for reading and copying."""
    return searched[0]


@pytest.fixture(scope="session")
def boundaries(searched: tuple[Lab, list[str]]) -> list[str]:
    """The boundaries that a search passes which meets no fault."""
    return searched[1]


@pytest.fixture(scope="session")
def further(undisturbed: Lab, engines: Engines, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """The undisturbed lab one candidate further on. Only for reading."""
    lab = Lab(shutil.copytree(undisturbed.path, tmp_path_factory.mktemp("further") / "lab"))
    engines.finish(lab, EXPERIMENTS + 1)
    return lab


@pytest.fixture
def copy(tmp_path: Path) -> Callable[[Lab], Lab]:
    """Copy a lab, so that it may be damaged."""
    count = iter(range(10**6))
    return lambda lab: Lab(shutil.copytree(lab.path, tmp_path / f"lab{next(count)}", symlinks=True))


@pytest.fixture(scope="session")
def same(undisturbed: Lab) -> Callable[..., None]:
    """Assert that a search left what the undisturbed one left."""
    expected = outcome(undisturbed)
    return lambda lab, when="", but="": assert_same(lab, expected, when, but)
