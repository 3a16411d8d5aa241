"""Each of the paper's benchmarks, by the code and YAML of the installed lm-eval, on items of our own."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import datasets
import lm_eval
import pytest
import torch
from lm_eval.api.group import Group
from lm_eval.api.task import Task
from lm_eval.tasks import TaskManager

from asi_lab.data import suites
from asi_lab.data.tokenizer import Tokenizer
from asi_lab.errors import DataError
from asi_lab.records import TaskResult
from asi_lab.scorer import fetch, harness
from asi_lab.scorer.lm import RemoteLM
from tests.scorer import benchmarks
from tests.scorer.test_harness import oracle

NAMES = (*suites.EXPLORATION, *suites.GENERALIZATION)
METABENCH = ("arc", "hellaswag", "mmlu", "truthfulqa", "winogrande")


@pytest.fixture(params=["their folders", pytest.param("all of lm-eval", marks=pytest.mark.slow)])
def _local(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The data sets are our items; the fast variant has lm-eval index the folders of these tasks alone."""
    monkeypatch.setattr(datasets, "load_dataset", benchmarks.load_dataset)
    if request.param == "their folders":
        monkeypatch.setattr(harness, "TaskManager", benchmarks.narrow)


def right_texts(task: Task) -> list[tuple[str, str]]:
    """What a model that knows the answers would have to know, by the numbers we wrote down."""
    key = benchmarks.key_of(task.DATASET_PATH, task.DATASET_NAME)
    _, gold = benchmarks.ITEMS[key]
    task.build_all_requests(limit=None, rank=0, world_size=1)
    if task.OUTPUT_TYPE == "loglikelihood_rolling":
        return [("", instance.args[0]) for instance in task.instances]
    return [instance.args for instance in task.instances if instance.idx == gold[instance.doc_id]]


def run(lm: RemoteLM, item: Task | Group) -> TaskResult:
    scores = harness.evaluate(lm, harness.parts(item), 500, 0)
    results = [score.result() for score in scores]
    return harness.averaged(item, scores, results) if isinstance(item, Group) else results[0]


@pytest.mark.usefixtures("_local")
def test_every_benchmark_has_the_papers_figures(
    make_lm: Callable[..., RemoteLM], model: torch.nn.Module, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    items = harness.load(NAMES, tmp_path)
    told = [text for item in items for task in harness.parts(item) for text in right_texts(task)]
    assert tuple(item.name if isinstance(item, Group) else item.task_name for item in items) == NAMES
    hidden, head = oracle(told, tokenizer)
    knows = make_lm(hidden, head, max_length=4096, batch=64)
    guesses = make_lm(model, 0.01 * model.head.weight, max_length=4096, batch=64)
    by_name = {}
    for item in items:
        result = by_name[getattr(item, "name", None) or item.task_name] = run(knows, item)
        assert tuple(result.figures) == result.reported == suites.figures(result.task)
        assert all(math.isfinite(value) and value > 0 for value in result.figures.values())
        assert result.accuracy in (1.0, None), result
    assert [name for name, result in by_name.items() if result.accuracy is None] == ["wikitext"]
    assert by_name["wikitext"].figures["word_perplexity"] < 1.1
    assert by_name["hellaswag"].accuracy == by_name["hellaswag"].metrics["acc_norm"]
    choices = {name: r for name, r in by_name.items() if r.score_name == "choice_probability"}
    assert set(NAMES) - set(choices) == {"wikitext", "lambada_openai"}
    for item in items[2:]:
        result = run(guesses, item)
        assert result.score == pytest.approx(result.chance, abs=0.02)
        assert choices[result.task].score > result.score + 0.3


@pytest.mark.usefixtures("_local")
def test_metabench_is_the_mean_accuracy_of_its_parts_that_have_one(
    make_lm: Callable[..., RemoteLM], tokenizer: Tokenizer, tmp_path: Path
) -> None:
    (group,) = harness.load(["metabench"], tmp_path)
    assert {task.task_name for task in group.get_all_tasks()} - {
        f"metabench_{part}" for part in METABENCH
    } == {"metabench_gsm8k"}
    tasks = harness.parts(group)
    assert [task.task_name for task in tasks] == [f"metabench_{part}" for part in METABENCH]
    told = [text for task in tasks if task.task_name != "metabench_arc" for text in right_texts(task)]
    lm = make_lm(*oracle(told, tokenizer), max_length=4096)
    scores = harness.evaluate(lm, harness.parts(group), 500, 0)
    results = [score.result() for score in scores]
    found = harness.averaged(group, scores, results)
    assert found.task == "metabench"
    assert found.metrics["acc"] == pytest.approx(sum(r.metrics["acc"] for r in results) / 5)
    assert found.score == pytest.approx(sum(r.score for r in results) / 5)
    assert found.samples == 5
    assert found.reported == ("acc",)
    wrong = [results[0], TaskResult("lines", 1.0, "bits_per_byte", False, 8.0, 1)]
    with pytest.raises(DataError, match="one kind of score, found bits_per_byte, choice_probability"):
        harness.averaged(group, scores[:2], wrong)


@pytest.mark.usefixtures("_local")
def test_all_ways_to_say_that_it_cannot_be_known_are_right_in_bbq(
    make_lm: Callable[..., RemoteLM], model: torch.nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unknown = [benchmarks._bbq(2, "ambig", "neg")]
    monkeypatch.setitem(benchmarks.ITEMS, "oskarvanderwal/bbq", (unknown, [2]))
    (task,) = harness.load(["bbq"], tmp_path)
    result = run(make_lm(model, 0.0 * model.head.weight, max_length=512), task)
    assert result.chance == result.score == pytest.approx(10 / 12)


@pytest.mark.usefixtures("_local")
def test_data_sets_are_there_or_missing_by_name_and_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load_dataset(path: str, name: str | None = None, **options: object) -> datasets.DatasetDict:
        if path == "Rowan/hellaswag" or name == "MMLU":
            raise ConnectionError("no network")
        return benchmarks.load_dataset(path, name)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    included = harness.Included()
    piqa, hellaswag, metabench = (fetch.look(included, n) for n in ("piqa", "hellaswag", "metabench"))
    assert (piqa.datasets, piqa.why) == (("baber/piqa",), "")
    assert 0 < piqa.bytes < 10_000
    assert (hellaswag.datasets, hellaswag.bytes) == (("Rowan/hellaswag",), None)
    assert hellaswag.why == "ConnectionError: no network"
    assert "no network" in metabench.why
    assert "HCAI/metabench ARC" in metabench.datasets
    assert datasets.load_dataset is load_dataset
    with pytest.raises(DataError, match=r"found 'pique'; did you mean piqa\?"):
        fetch.look(included, "pique")


@pytest.mark.usefixtures("_local")
def test_copies_of_data_sets_are_files_of_data(tmp_path: Path) -> None:
    folder = tmp_path / "copies [1]" / "baber" / "piqa"
    with pytest.raises(DataError, match="expected a folder with copies"):
        harness.Included(str(folder))
    folder.mkdir(parents=True)
    (folder / "loader.py").write_text("raise SystemExit\n")
    with pytest.raises(DataError, match=r"found .*loader\.py"):
        harness.Included(str(tmp_path / "copies [1]"))


def test_local_copies_are_read_by_their_names_on_the_hub(
    make_lm: Callable[..., RemoteLM],
    model: torch.nn.Module,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place = Path(lm_eval.__file__).parent / "tasks" / "piqa"
    monkeypatch.setattr(
        harness, "TaskManager", lambda **_: TaskManager(include_path=str(place), include_defaults=False)
    )
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    folder = tmp_path / "copies [1]" / "baber" / "piqa"
    folder.mkdir(parents=True)
    rows, _ = benchmarks.ITEMS["baber/piqa"]
    for split in ("train", "validation"):
        datasets.Dataset.from_list(rows).to_json(folder / f"{split}.jsonl")
    (task,) = harness.load(["piqa"], tmp_path, copies=str(tmp_path / "copies [1]"))
    result = run(make_lm(model, 0.1 * model.head.weight, max_length=512), task)
    assert (result.task, result.samples, result.chance) == ("piqa", 2, 0.5)
    with pytest.raises(DataError, match="'piqa' to load, found ConnectionError"):
        harness.load(["piqa"], tmp_path)
