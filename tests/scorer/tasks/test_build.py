import json
import shutil
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest
import yaml

from asi_lab.data.tokenizer import Tokenizer, train_tokenizer
from asi_lab.errors import DataError
from asi_lab.scorer.tasks import probes
from asi_lab.scorer.tasks.build import TASK_NAMES, build_tasks
from asi_lab.scorer.tasks.passages import HeldOutDocument, Passage, cut, read_documents, symbols, word_counter
from asi_lab.scorer.tasks.textual import continuation

WORDS = [f"word{i}" for i in range(30)]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def rows(folder: Path, name: str) -> list[dict]:
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]


def test_every_task_has_its_yaml_and_samples(tasks_dir: Path) -> None:
    for name in TASK_NAMES:
        task = yaml.safe_load((tasks_dir / f"{name}.yaml").read_text())
        assert task["task"] == name
        assert task["dataset_kwargs"] == {"data_files": {"test": f"{name}.jsonl"}}
        assert len(rows(tasks_dir, name)) == 100
    assert not [path for path in tasks_dir.parent.iterdir() if path.name.startswith(".tasks")]


def test_the_same_seed_gives_the_same_bytes_and_nothing_is_made_twice(
    data_dir: Path, tasks_dir: Path, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    mine = tmp_path / "again"
    build_tasks(data_dir, mine, 0, 100, tokenizer)
    assert contents(mine) == contents(tasks_dir)
    made = mine.stat().st_ino
    build_tasks(data_dir, mine, 0, 100, tokenizer)
    assert mine.stat().st_ino == made
    build_tasks(data_dir, mine, 1, 100, tokenizer)
    assert mine.stat().st_ino != made
    assert all(contents(mine)[f"{n}.jsonl"] != contents(tasks_dir)[f"{n}.jsonl"] for n in TASK_NAMES)


def test_tasks_of_claims_are_made_of_their_own_text(
    data_dir: Path, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(data_dir, data, ignore=shutil.ignore_patterns("tasks"))
    documents = [json.loads(line) for line in (data / "evaluation.jsonl").read_text().splitlines()]
    others = [document | {"text": document["text"].replace("e", "u")} for document in documents]
    (data / "claims.jsonl").write_text("".join(json.dumps(document) + "\n" for document in others))
    build_tasks(data, data / "claims_tasks", 0, 100, tokenizer, "claims")
    build_tasks(data, data / "tasks", 0, 100, tokenizer)
    mine, theirs = (
        {row["text"] for row in rows(data / folder, "asi_perplexity")} for folder in ("claims_tasks", "tasks")
    )
    assert mine
    assert not any("e" in passage for passage in mine)
    assert any("e" in passage for passage in theirs)


def test_perplexity_passages_are_in_the_documents(tasks_dir: Path, evaluation_text: dict[str, str]) -> None:
    texts = [row["text"] for row in rows(tasks_dir, "asi_perplexity")]
    assert all(any(passage in text for text in evaluation_text.values()) for passage in texts)
    sizes = [len(text.encode()) for text in texts]
    assert max(sizes) <= 120
    assert sum(sizes) / len(sizes) > 90


def test_last_words_occurred_before_and_follow_in_the_text(
    tasks_dir: Path, evaluation_text: dict[str, str]
) -> None:
    for row in rows(tasks_dir, "asi_last_word"):
        assert row["target"].startswith(" ")
        assert row["target"].strip() in row["context"]
        assert any(row["context"] + row["target"] in text for text in evaluation_text.values())


def test_only_the_right_continuation_follows_in_the_text(
    tasks_dir: Path, evaluation_text: dict[str, str]
) -> None:
    for row in rows(tasks_dir, "asi_continuation"):
        assert len(set(row["choices"])) == 4
        right = row["choices"][row["label"]]
        assert any(f"{row['context']} {right}" in text for text in evaluation_text.values())
        for wrong in set(row["choices"]) - {right}:
            assert not any(f"{row['context']} {wrong}" in text for text in evaluation_text.values())


def test_an_ending_that_is_true_somewhere_is_no_wrong_one() -> None:
    """Such as the beginning of the right one, or what follows the same words in another passage."""
    endings = ["only function.", "only function", "of a class", "in a loop", "at the end", "below it"]
    passages = [Passage(("it", " is", f" {ending}"), (1, 1, 2)) for ending in endings]
    texts = [f"it is {ending}" for ending in endings[:3]]
    found = continuation(passages, texts, Random(0), 6, 2)
    assert {row["choices"][row["label"]] for row in found} == set(endings[:3])  # the others have too few
    for row in found:
        assert set(row["choices"]) == {row["choices"][row["label"]], *endings[3:]}


def test_the_answer_of_every_probe_follows_from_its_context(tasks_dir: Path) -> None:
    for row in rows(tasks_dir, "asi_recall"):
        *words, asked = row["context"].split()
        pairs = dict(zip(words[::2], words[1::2], strict=True))
        assert row["choices"][row["label"]] == pairs[asked]
        assert set(row["choices"]) <= set(pairs.values())
        assert len(set(row["choices"])) == 4
    for row in rows(tasks_dir, "asi_copy"):
        words = [word for word in row["context"].split() if word not in ".:"]
        assert row["choices"][row["label"]].split() == words
        assert len(set(row["choices"])) == 4
        assert all(sorted(choice.split()) == sorted(words) for choice in row["choices"])
    for row in rows(tasks_dir, "asi_induction"):
        words = row["context"].split()
        assert row["choices"][row["label"]] == words[words.index(words[-1]) + 1]
        assert len(set(row["choices"])) == 4
        assert set(row["choices"]) <= set(words) - {words[-1]}


@pytest.mark.parametrize("make", [probes.recall, probes.selective_copy, probes.induction])
def test_answers_stand_anywhere_among_the_choices(make) -> None:
    random = Random(0)
    labels = [make(WORDS, random)["label"] for _ in range(400)]
    assert all(60 < labels.count(label) < 140 for label in range(4))


def test_probe_words_are_single_tokens_where_the_tokenizer_has_them(data_dir: Path) -> None:
    documents = read_documents(data_dir / "evaluation.jsonl")
    tokenizer = train_tokenizer("bpe:1024", iter(document.text for document in documents))
    chosen = symbols(documents, word_counter(tokenizer), 64, 16)
    assert len(set(chosen)) == len(chosen) == 64
    assert all(len(tokenizer.encode(" " + word)) == 1 for word in chosen)


def test_too_few_equal_words_are_an_error() -> None:
    with pytest.raises(DataError, match="30 words of equally many tokens"):
        symbols([HeldOutDocument("a", "only few words")], len, 64, 30)


def test_passages_hold_whole_words_within_the_limit(tokenizer: Tokenizer) -> None:
    text = "one two three four five six seven eight " + "x" * 100 + " nine ten eleven"
    passages = cut([HeldOutDocument("a", text)], 20, word_counter(tokenizer))
    assert [passage.text for passage in passages] == [
        "one two three four",
        "five six seven",
        "nine ten eleven",
    ]
    assert [sum(passage.counts) for passage in passages] == [18, 15, 16]


def test_too_little_text_is_explained(tmp_path: Path, tokenizer: Tokenizer) -> None:
    with pytest.raises(DataError, match=r"evaluation\.jsonl, found no file"):
        build_tasks(tmp_path, tmp_path / "tasks", 0, 40, tokenizer)
    (tmp_path / "evaluation.jsonl").write_text('{"key": "a", "text": "A short text."}\n')
    with pytest.raises(DataError, match="at least 8 samples for asi_perplexity, found 0"):
        build_tasks(tmp_path, tmp_path / "tasks", 0, 40, tokenizer)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["evaluation.jsonl"]
    (tmp_path / "evaluation.jsonl").write_text("{]\n")
    with pytest.raises(DataError, match="expected lines with a key and a text"):
        build_tasks(tmp_path, tmp_path / "tasks", 0, 40, tokenizer)


def test_the_command_builds_next_to_the_data(
    data_dir: Path, tasks_dir: Path, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "evaluation.jsonl").write_bytes((data_dir / "evaluation.jsonl").read_bytes())
    command = [sys.executable, "-m", "asi_lab.scorer.tasks.build", str(data), "0", "100"]
    failed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert failed.returncode == 1
    assert "tokenizer" in failed.stderr
    assert "Traceback" not in failed.stderr
    tokenizer.save(data)
    subprocess.run(command, check=True)
    for name in TASK_NAMES:
        for file in (f"{name}.yaml", f"{name}.jsonl"):
            assert (data / "tasks" / file).read_bytes() == (tasks_dir / file).read_bytes()


def test_building_needs_neither_torch_nor_lm_eval() -> None:
    code = (
        "import asi_lab.scorer.tasks.build, sys; print({'torch', 'lm_eval', 'datasets'} & set(sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
