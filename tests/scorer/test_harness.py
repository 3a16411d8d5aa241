import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor

from asi_lab.data import taskcode
from asi_lab.data.tokenizer import Tokenizer
from asi_lab.errors import ConsentError, DataError
from asi_lab.records import CandidateState, TaskResult
from asi_lab.scorer import harness
from asi_lab.scorer.fault import CandidateFault
from asi_lab.scorer.lm import RemoteLM
from asi_lab.scorer.tasks.build import TASK_NAMES

PIQA = Path(__file__).parents[3] / "shared" / "data" / "piqa" / "validation.jsonl"
CHOICE_TASKS = [name for name in TASK_NAMES if name not in ("asi_perplexity", "asi_last_word")]
HOSTILE_NAMES = ["a [1-2]", "*?", "{a,b}", "a::b", "file:", "%20#", "-rf", "naïve\u202e", "a\nb", "~"]
CHOICE = {
    "output_type": "multiple_choice",
    "doc_to_text": "context",
    "doc_to_choice": "choices",
    "doc_to_target": "label",
    "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
}
MakeLM = Callable[..., RemoteLM]


def evaluate(lm: RemoteLM, tasks: list, limit: int, seed: int) -> tuple[TaskResult, ...]:
    return tuple(score.result() for score in harness.evaluate(lm, tasks, limit, seed))


def write_task(folder: Path, name: str, samples: list[dict], **settings: object) -> Path:
    """A task as a user would write it, with a path relative to its folder."""
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(sample) + "\n" for sample in samples))
    task = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"validation": f"{name}.jsonl"}},
        "validation_split": "validation",
        **settings,
    }
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(task))
    return folder


def oracle(texts: list[tuple[str, str]], tokenizer: Tokenizer) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """A causal model that knows what follows: looks up each prefix in what it has been told."""
    following: dict[tuple[int, ...], int] = {}
    for context, continuation in texts:
        before = tokenizer.encode(context) or [tokenizer.eot]
        tokens = before + tokenizer.encode(continuation)
        for end in range(len(before), len(tokens)):
            following[tuple(tokens[:end])] = tokens[end]

    def hidden(ids: Tensor) -> Tensor:
        states = torch.zeros(*ids.shape, tokenizer.vocab_size)
        for row, tokens in zip(states, ids.tolist(), strict=True):
            for end in range(1, len(tokens) + 1):
                known = following.get(tuple(tokens[:end]))
                if known is None:
                    row[end - 1] = 1e-3
                else:
                    row[end - 1, known] = 12
        return states

    return hidden, torch.eye(tokenizer.vocab_size)


def answers(tasks_dir: Path) -> list[tuple[str, str]]:
    """Contexts and right continuations of all offline tasks."""
    told = []
    for name in TASK_NAMES:
        for line in (tasks_dir / f"{name}.jsonl").read_text().splitlines():
            row = json.loads(line)
            if "choices" in row:
                told.append((row["context"], " " + row["choices"][row["label"]]))
            else:
                told.append((row.get("context", ""), row.get("target") or row["text"]))
    return told


def test_a_random_model_is_at_chance_everywhere(make_lm: MakeLM, model, tasks_dir: Path) -> None:
    lm = make_lm(model, 0.1 * model.head.weight, max_length=128, batch=64)
    results = evaluate(lm, harness.load(TASK_NAMES, tasks_dir), 100, 0)
    assert [result.task for result in results] == list(TASK_NAMES)
    for result in results:
        assert result.samples == 100
        if result.task in CHOICE_TASKS:
            assert (result.score_name, result.higher_is_better) == ("choice_probability", True)
            assert result.chance == 0.25
            assert result.score == pytest.approx(0.25, abs=0.02)
            assert 0 <= result.metrics["acc"] <= 0.5
        else:
            assert (result.score_name, result.higher_is_better) == ("bits_per_byte", False)
            assert result.chance == pytest.approx(math.log2(257))  # one token a byte
            assert result.score == pytest.approx(result.chance, rel=0.05)
    by_name = {result.task: result for result in results}
    last_word, perplexity = by_name["asi_last_word"], by_name["asi_perplexity"]
    assert (last_word.accuracy, last_word.chance_accuracy) == (last_word.metrics["acc"], None)
    assert perplexity.accuracy is None
    assert perplexity.metrics["bits_per_byte"] == pytest.approx(perplexity.score)
    assert set(perplexity.metrics) == {"bits_per_byte", "byte_perplexity", "word_perplexity"}


def test_a_model_that_knows_the_answers_is_near_one(
    make_lm: MakeLM, tokenizer: Tokenizer, tasks_dir: Path
) -> None:
    hidden, head = oracle(answers(tasks_dir), tokenizer)
    lm = make_lm(hidden, 20 * head, max_length=256, batch=32)
    for result in evaluate(lm, harness.load(CHOICE_TASKS, tasks_dir), 30, 0):
        assert result.score > 0.95
        assert result.accuracy == result.metrics["acc"] == 1
        assert result.chance_accuracy == 0.25
    lm = make_lm(hidden, head, max_length=256, batch=32)
    for result in evaluate(lm, harness.load(["asi_perplexity", "asi_last_word"], tasks_dir), 30, 2**40 + 3):
        assert 0 < result.score < 0.1 * result.chance  # two texts may begin alike


def test_probability_of_a_choice_is_a_softmax_of_means_per_token(
    make_lm: MakeLM, model, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    samples = [
        {"q": "Which one", "options": ["ab", "wxyz", "q"], "answer": 1},
        {"q": "And now", "options": ["long one here", "b"], "answer": 0},
    ]
    settings = {
        "output_type": "multiple_choice",
        "doc_to_text": "q",
        "doc_to_choice": "options",
        "doc_to_target": "answer",
    }
    folder = write_task(tmp_path / "mine", "pick", samples, **settings)
    lm = make_lm(model, model.head.weight)
    (result,) = evaluate(lm, harness.load([str(folder)], tmp_path), 10, 0)
    probabilities = []
    for sample in samples:
        means = []
        for option in sample["options"]:
            before, after = tokenizer.encode(sample["q"]), tokenizer.encode(" " + option)
            with torch.no_grad():
                states = model(torch.tensor([before + after]))[0, len(before) - 1 : -1]
                log_probs = torch.log_softmax(states @ model.head.weight.T, -1)
            means.append(log_probs.gather(1, torch.tensor(after)[:, None]).mean())
        probabilities.append(torch.stack(means).softmax(0)[sample["answer"]].item())
    assert result.score == pytest.approx(sum(probabilities) / 2, abs=1e-5)
    assert result.chance == pytest.approx((1 / 3 + 1 / 2) / 2)
    assert result.samples == 2


@pytest.mark.skipif(not PIQA.is_file(), reason="the PIQA data is not beside this checkout")
def test_piqa(make_lm: MakeLM, model, tokenizer: Tokenizer, tmp_path: Path) -> None:
    samples = [json.loads(line) for line in PIQA.read_text().splitlines()]
    folder = write_task(
        tmp_path / "piqa",
        "piqa_local",
        samples,
        output_type="multiple_choice",
        doc_to_text="Question: {{goal}}\nAnswer:",
        doc_to_choice="{{[sol1, sol2]}}",
        doc_to_target="label",
        metric_list=[
            {"metric": "acc", "aggregation": "mean", "higher_is_better": True},
            {"metric": "acc_norm", "aggregation": "mean", "higher_is_better": True},
        ],
    )
    lm = make_lm(model, 0.1 * model.head.weight, max_length=256, batch=64)
    (result,) = evaluate(lm, harness.load([str(folder)], tmp_path), 100, 0)
    assert (result.task, result.samples, result.chance) == ("piqa_local", 100, 0.5)
    assert result.score == pytest.approx(0.5, abs=0.02)
    assert set(result.metrics) == {"acc", "acc_norm"}
    told = [
        (
            f"Question: {sample['goal']}\nAnswer:",
            " " + (sample["sol2"] if sample["label"] else sample["sol1"]),
        )
        for sample in samples[:40]
    ]
    hidden, head = oracle(told, tokenizer)
    lm = make_lm(hidden, 20 * head, max_length=2000, batch=8)
    (result,) = evaluate(lm, harness.load([str(folder)], tmp_path), 40, 0)
    assert result.score > 0.95
    assert result.accuracy == result.metrics["acc"] == 1
    assert result.chance_accuracy == 0.5


def test_several_right_choices_and_several_inputs(make_lm: MakeLM, model, tmp_path: Path) -> None:
    folder = write_task(
        tmp_path / "mine",
        "several",
        [{"q": "Any", "options": ["a", "b", "c", "d"], "answer": [0, 2]}] * 3,
        output_type="multiple_choice",
        doc_to_text="q",
        doc_to_choice="options",
        doc_to_target="answer",
    )
    write_task(
        folder,
        "inputs",
        [{"gold": 1, "sentences": ["He fell because he", "She fell because she"], "end": "ran"}] * 2,
        output_type="multiple_choice",
        doc_to_text="gold",
        doc_to_choice="sentences",
        doc_to_target="end",
    )
    lm = make_lm(model, 0.01 * model.head.weight)
    results = {r.task: r for r in evaluate(lm, harness.load([str(folder)], tmp_path), 10, 0)}
    assert results["several"].chance == 0.5
    assert results["several"].score == pytest.approx(0.5, abs=0.01)
    assert results["inputs"].chance == 0.5
    assert results["inputs"].score == pytest.approx(0.5, abs=0.01)


def test_generated_answers_score_a_smoothed_rate(
    make_lm: MakeLM, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    samples = [{"q": "1+1=", "a": "2"}, {"q": "2+2=", "a": "4"}, {"q": "3+3=", "a": "6"}]
    folder = write_task(
        tmp_path / "mine",
        "sums",
        samples,
        output_type="generate_until",
        doc_to_text="q",
        doc_to_target="a",
        generation_kwargs={"until": ["\n"], "max_gen_toks": 4, "do_sample": False},
        metric_list=[{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    )
    told = [("1+1=", "2\n"), ("2+2=", "4\n"), ("3+3=", "7\n")]
    lm = make_lm(*oracle(told, tokenizer))
    (result,) = evaluate(lm, harness.load([str(folder)], tmp_path), 10, 0)
    assert result.metrics["exact_match"] == pytest.approx(2 / 3)
    assert (result.score_name, result.score, result.chance) == ("exact_match", 3 / 5, 1 / 5)


def test_a_lab_can_be_moved_and_leaves_no_trace(
    lm: RemoteLM, tasks_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    moved = shutil.copytree(tasks_dir, tmp_path / "elsewhere")
    (result,) = evaluate(lm, harness.load(["asi_recall"], moved), 5, 0)
    assert result.samples == 5
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_paths_are_no_patterns(lm: RemoteLM, tasks_dir: Path, tmp_path: Path, name: str) -> None:
    ours = tmp_path / name / "lab" / "tasks"
    shutil.copytree(tasks_dir, ours)
    folder = tmp_path / name / "mine"
    samples = [{"context": "it is", "choices": ["so", "not"], "label": 0}] * 8
    write_task(folder, "mine", samples, **CHOICE)
    loaded = harness.load(["asi_recall", str(folder)], ours)
    found = evaluate(lm, loaded, limit=8, seed=0)
    assert [task.task for task in found] == ["asi_recall", "mine"]
    assert found[0] == evaluate(lm, harness.load(["asi_recall"], tasks_dir), limit=8, seed=0)[0]


def test_the_limit_and_nothing_else_decides_the_samples(lm: RemoteLM, tasks_dir: Path) -> None:
    (few,) = evaluate(lm, harness.load(["asi_induction"], tasks_dir), 10, 0)
    (again,) = evaluate(lm, harness.load(["asi_induction"], tasks_dir), 10, 1)
    (more,) = evaluate(lm, harness.load(["asi_induction"], tasks_dir), 20, 0)
    assert (few.samples, more.samples) == (10, 20)
    assert few.score == pytest.approx(again.score, abs=1e-6)
    assert few.score != more.score


def test_unusable_tasks_are_explained(tasks_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'asi_nothing'.*offline tasks are asi_perplexity"):
        harness.load(["asi_nothing"], tasks_dir)
    with pytest.raises(DataError, match="expected a folder with task YAML"):
        harness.load([str(tmp_path / "missing")], tasks_dir)
    with pytest.raises(DataError, match="asi_copy more than once"):
        harness.load(["asi_copy", "asi_recall", "asi_copy"], tasks_dir)
    folder = write_task(tmp_path / "mine", "gone", [{"q": "a"}], output_type="loglikelihood_rolling")
    (folder / "gone.jsonl").unlink()
    with pytest.raises(DataError, match="'gone' to load, found FileNotFoundError"):
        harness.load([str(folder)], tasks_dir)
    (folder / "broken.yaml").write_text("task: [unclosed\n")
    with pytest.raises(DataError, match=r"broken\.yaml, found"):
        harness.load([str(folder)], tasks_dir)


def test_labels_outside_the_choices_are_explained(lm: RemoteLM, tmp_path: Path) -> None:
    folder = write_task(
        tmp_path / "mine",
        "wrong",
        [{"q": "Any", "options": ["a", "b"], "answer": 2}],
        output_type="multiple_choice",
        doc_to_text="q",
        doc_to_choice="options",
        doc_to_target="'{{answer}}'",
    )
    with pytest.raises(DataError, match="one of 2 choices"):
        evaluate(lm, harness.load([str(folder)], tmp_path), 10, 0)


def test_a_perplexity_beyond_numbers_is_divergence(make_lm: MakeLM, model, tasks_dir: Path) -> None:
    lm = make_lm(model, 1e4 * model.head.weight, max_length=128)
    with pytest.raises(CandidateFault, match="overflows") as fault:
        evaluate(lm, harness.load(["asi_perplexity"], tasks_dir), 5, 0)
    assert fault.value.state is CandidateState.DIVERGED


def test_certainty_is_no_honest_score(make_lm: MakeLM, tokenizer: Tokenizer, tasks_dir: Path) -> None:
    hidden, head = oracle(answers(tasks_dir), tokenizer)
    lm = make_lm(hidden, 100 * head, max_length=256)
    with pytest.raises(CandidateFault, match="no honest model") as fault:
        evaluate(lm, harness.load(["asi_last_word"], tasks_dir), 5, 0)
    assert fault.value.state is CandidateState.LEAKING


@pytest.mark.slow
def test_unknown_names_are_compared_with_those_of_lm_eval(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"did you mean .*hellaswag"):
        harness.load(["helaswag"], tmp_path)


def planted(folder: Path, sprung: Path, **files: str) -> None:
    """Code that leaves a file behind when it is loaded, and the YAML that asks for it."""
    (folder / "utils.py").write_text(f"open({str(sprung)!r}, 'w')\ndef f(docs): return docs\n")
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(f"{text}process_docs: !function utils.f\n")


def test_yaml_planted_beside_the_samples_is_not_read(tasks_dir: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tasks_dir, tmp_path / "tasks"))
    text = (folder / "asi_recall.yaml").read_text()
    planted(folder, tmp_path / "sprung", asi_recall=text, other=text, asi_mine="task: asi_mine\n")
    assert [task.task_name for task in harness.load(["asi_recall"], folder)] == ["asi_recall"]
    with pytest.raises(DataError, match="the offline tasks are"):
        harness.load(["asi_mine"], folder)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    "text",
    [
        '\ufeff\ufeff{"task": "lines", "process_docs": !function utils.f}',
        '{"task": "lines", "doc_to_text":\n\ufeff!function utils.f}',
    ],
)
def test_code_behind_a_byte_order_mark_is_not_run(tmp_path: Path, text: str) -> None:
    """PyYAML's two parsers read it differently."""
    folder = write_task(tmp_path / "mine", "lines", [{"q": "a"}], output_type="loglikelihood_rolling")
    planted(folder, tmp_path / "sprung")
    (folder / "lines.yaml").write_text(text, encoding="utf-8")
    with pytest.raises((ConsentError, DataError)):
        harness.load([str(folder)], tmp_path)
    assert not (tmp_path / "sprung").exists()


def test_code_of_a_folder_waits_for_consent(tmp_path: Path) -> None:
    folder = write_task(tmp_path / "mine", "lines", [{"q": "a"}], output_type="loglikelihood_rolling")
    text = (folder / "lines.yaml").read_text() + "doc_to_text: ''\ndoc_to_target: q\n"
    planted(folder, tmp_path / "sprung", lines=text)
    for given in ((), ("0" * 64,)):
        with pytest.raises(ConsentError, match=r"process_docs !function utils\.f"):
            harness.load([str(folder)], tmp_path, given)
    assert not (tmp_path / "sprung").exists()
    granted = taskcode.digest(folder, taskcode.files(folder))
    assert len(harness.load([str(folder)], tmp_path, [granted])) == 1
    assert (tmp_path / "sprung").exists()


@pytest.mark.slow
def test_a_task_of_lm_eval_is_not_taken_from_the_current_folder(tmp_path: Path, monkeypatch) -> None:
    planted(tmp_path, tmp_path / "sprung", hellaswag="task: hellaswag\n")
    (tmp_path / "Rowan" / "hellaswag").mkdir(parents=True)
    (tmp_path / "Rowan" / "hellaswag" / "validation.jsonl").write_text('{"label": "mine"}\n')
    monkeypatch.chdir(tmp_path)
    found: list[str] = []
    monkeypatch.setattr(
        harness.TaskManager,
        "load",
        lambda self, names: found.extend(map(str, Path.cwd().iterdir())) or {"tasks": {}},
    )
    harness.load(["hellaswag"], tmp_path)
    assert found == []
    assert not (tmp_path / "sprung").exists()
