"""Which task folders are data, and which may run code."""

from __future__ import annotations

import json

import pytest
import yaml

from asi_lab.data import taskcode
from asi_lab.errors import ConsentError, DataError

PLAIN = {
    "task": "mine",
    "dataset_path": "json",
    "dataset_kwargs": {"data_files": {"test": "mine.jsonl"}},
    "test_split": "test",
    "output_type": "multiple_choice",
    "doc_to_text": "Question: {{ question }}\nAnswer:",
    "doc_to_choice": "{{[first, second.text]}}",
    "doc_to_target": "label",
    "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    "metadata": {"version": 1, "by": ["somebody"]},
}
ATTACK = "{{ cycler.__init__.__globals__.os.system('touch /tmp/x') }}"


def folder_of(tmp_path, text: str, name: str = "mine.yaml"):
    folder = tmp_path / "tasks"
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    (folder / "mine.jsonl").write_text(json.dumps({"question": "?"}))
    return folder


def test_data_needs_no_consent(tmp_path):
    folder = folder_of(tmp_path, yaml.safe_dump(PLAIN))
    assert taskcode.reasons(folder) == []
    taskcode.check(folder, ())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("doc_to_text", ATTACK),
        ("doc_to_text", "{% set x = 1 %}"),
        ("doc_to_text", "{{ x.__class__ }}"),
        ("doc_to_text", "{{ x._y }}"),
        ("doc_to_text", "{{ x() }}"),
        ("doc_to_text", "{{ x | attr('y') }}"),
        ("doc_to_text", "{{ x['__class__'] }}"),
        ("doc_to_text", "{{ question }} {{ '' }}"),
        ("doc_to_choice", [ATTACK]),
        ("doc_to_choice", {"a": ATTACK}),
        ("doc_to_target", ATTACK),
        ("description", ATTACK),
        ("target_delimiter", ATTACK),
        ("fewshot_delimiter", ATTACK),
        ("gen_prefix", ATTACK),
        ("include", "other.yaml"),
        ("task", ["a", {"task": "b", "dataset_path": "pandas"}]),
        ("group", "all"),
        ("dataset_path", "pandas"),
        ("dataset_path", "./loader.py"),
        ("dataset_path", "somebody/set"),
        ("dataset_path", ["json"]),
        ("dataset_kwargs", {"trust_remote_code": True}),
        ("dataset_kwargs", {"data_files": "x.jsonl", "trust_remote_code": True}),
        ("dataset_kwargs", {"data_files": {"test": "../outside.jsonl"}}),
        ("dataset_kwargs", {"data_files": "https://evil.example/x.json"}),
        ("dataset_kwargs", {"data_files": "zip://x::y"}),
        ("metric_list", [{"metric": "./metric.py", "hf_evaluate": True}]),
        ("metric_list", [{"metric": "./metric.py"}]),
        ("metric_list", [{"metric": "acc", "aggregation": "./x"}]),
        ("metric_list", [{"metric": ["acc"]}]),
        ("filter_list", [{"name": "x", "filter": [{"function": "custom"}]}]),
        ("use_prompt", "promptsource:x"),
        ("unsafe_code", True),
        ("fewshot_config", {"sampler": "x"}),
    ],
)
def test_what_is_not_known_to_be_data_needs_consent(tmp_path, key, value):
    folder = folder_of(tmp_path, yaml.safe_dump({**PLAIN, key: value}))
    (folder / "other.yaml").write_text(yaml.safe_dump(PLAIN))
    [reason] = taskcode.reasons(folder)
    assert reason == f"mine.yaml: {key}"
    with pytest.raises(ConsentError, match="asi-lab trust") as refused:
        taskcode.check(folder, ())
    assert refused.value.exit_code == 2
    taskcode.check(folder, {taskcode.digest(folder, taskcode.files(folder))})


@pytest.mark.parametrize("code", ["process_docs: !function utils.f", "class: !function utils.Task"])
def test_functions_need_consent_to_their_very_text(tmp_path, code):
    folder = folder_of(tmp_path, f"task: mine\n{code}\n")
    (folder / "utils.py").write_text("def f(docs): return docs\n")
    [reason] = taskcode.reasons(folder)
    assert reason == f"mine.yaml: {code.replace(':', '', 1)}"
    given = {taskcode.digest(folder, taskcode.files(folder))}
    taskcode.check(folder, given)
    (folder / "utils.py").write_text("import os\n")
    with pytest.raises(ConsentError, match="has changed since"):
        taskcode.check(folder, given)
    (folder / "utils.py").write_text("def f(docs): return docs\n")
    taskcode.check(folder, given)
    (folder / "more.py").write_text("")
    with pytest.raises(ConsentError):
        taskcode.check(folder, given)


def test_a_tag_is_seen_however_deep(tmp_path):
    folder = folder_of(tmp_path, "task: mine\nmetadata: {a: [{b: !function os.system}]}\n")
    assert taskcode.reasons(folder) == ["mine.yaml: metadata !function os.system"]


@pytest.mark.parametrize(
    "text",
    [
        "process_docs: !function /tmp/evil.f",
        "process_docs: !function ../evil.f",
        "process_docs: !function [a, b]",
        "metadata: !!python/object/apply:os.system [id]",
        "metadata: {? !function /tmp/evil.f : 1}",
        "metadata: !!set {? !function /tmp/evil.f}",
        "include: ../other.yaml",
        "include: /etc/other.yaml",
        "include: [inner.txt]",
    ],
)
def test_what_lies_outside_of_the_folder_cannot_be_granted(tmp_path, text):
    folder = folder_of(tmp_path, f"task: mine\n{text}\n")
    (folder / "inner.txt").write_text("process_docs: !function ..evil.f\n")
    (tmp_path / "other.yaml").write_text("process_docs: !function utils.f\n")
    with pytest.raises(DataError, match="of its own folder"):
        taskcode.reasons(folder)


@pytest.mark.parametrize("text", ["metadata: &a [*a]", "metadata: &a {b: *a}", "metadata: " + "[" * 5000])
def test_what_never_ends_is_told(tmp_path, text):
    with pytest.raises(DataError, match=r"mine\.yaml"):
        taskcode.reasons(folder_of(tmp_path, f"task: mine\n{text}\n"))


def test_what_is_no_table_needs_consent(tmp_path):
    assert taskcode.reasons(folder_of(tmp_path, '\ufeff\ufeff{"task":"mine"}')) == ["mine.yaml: no table"]


@pytest.mark.parametrize("place", ["", "__pycache__"])
def test_compiled_code_is_code(tmp_path, place):
    """Where it says that it is not to be compared with its source, Python runs it instead."""
    (tmp_path / place).mkdir(exist_ok=True)
    folder = folder_of(tmp_path / place, "task: mine\nprocess_docs: !function utils.f\n")
    (folder / "utils.py").write_text("def f(docs): return docs\n")
    given = {taskcode.digest(folder, taskcode.files(folder))}
    taskcode.check(folder, given)
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "utils.cpython-311.pyc").write_bytes(b"other code")
    with pytest.raises(ConsentError, match="has changed since"):
        taskcode.check(folder, given)


def test_a_link_in_a_folder_is_refused(tmp_path):
    folder = folder_of(tmp_path, "task: mine\nprocess_docs: !function utils.f\n")
    (folder / "utils.py").symlink_to(tmp_path / "utils.py")
    with pytest.raises(DataError, match="found a link"):
        taskcode.digest(folder, taskcode.files(folder))


def test_a_name_with_a_slash_or_a_dot_is_a_folder(tmp_path):
    assert [taskcode.is_folder(name) for name in ("a/b", "./a", "~/a", ".", "/a", "asi_recall", "piqa")] == [
        *([True] * 5),
        False,
        False,
    ]
    assert taskcode.resolve("mine/tasks", tmp_path) == str(tmp_path / "mine" / "tasks")
    assert taskcode.resolve("piqa", tmp_path) == "piqa"
