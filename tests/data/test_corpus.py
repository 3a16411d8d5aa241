import json
import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest

from asi_lab.data import builtin
from asi_lab.data.corpus import CUT_AT, CUT_FROM, MIN_DOCUMENT, Document, cut, documents, parse_hub_source
from asi_lab.errors import DataError

HASH_OF_SUBSET = """
from hashlib import sha256
from asi_lab.data import builtin
pages = list(builtin.pages(["click", "GitPython"], standard_library=False))
print(len(pages), sha256(repr(pages).encode()).hexdigest())
"""

HASH_OF_ALL = """
from hashlib import sha256
from asi_lab.data.corpus import documents
print(sha256(repr(list(documents("builtin"))).encode()).hexdigest())
"""


def output_in_two_surroundings(program: str, folder: Path) -> list[str]:
    root = str(Path(builtin.__file__).parents[2])
    surroundings = (("1", "C", root), ("2", "C.UTF-8", str(folder)))
    return [
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed, "LC_ALL": locale, "LANG": locale, "PYTHONPATH": root},
            cwd=cwd,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed, locale, cwd in surroundings
    ]


def test_builtin_does_not_depend_on_hash_seed_locale_or_folder(tmp_path):
    first, second = output_in_two_surroundings(HASH_OF_SUBSET, tmp_path)
    assert first == second
    assert int(first.split()[0]) > 20


@pytest.mark.slow
def test_whole_builtin_corpus(tmp_path):
    first, second = output_in_two_surroundings(HASH_OF_ALL, tmp_path)
    assert first == second
    corpus = list(documents("builtin"))
    assert first.strip() == sha256(repr(corpus).encode()).hexdigest()
    assert 6e6 < sum(len(text) for _, text, _ in corpus) < 12e6
    assert len({key for key, _, _ in corpus}) == len(corpus)
    assert len({text for _, text, _ in corpus}) == len(corpus)
    assert all(MIN_DOCUMENT <= len(text) <= CUT_AT for _, text, _ in corpus)


def test_builtin_has_no_paragraph_twice():
    paragraphs = [
        paragraph.casefold()
        for _, text in builtin.pages(["click", "rich"], standard_library=False)
        for paragraph in text.split("\n")
        if len(paragraph) >= builtin.DEDUPLICATED_LENGTH
    ]
    assert len(paragraphs) > 300
    assert len(set(paragraphs)) == len(paragraphs)


def test_docstrings_are_read_in_order_without_private_ones():
    source = b'''"""Module."""
class A:
    """Class."""
    def _hidden(self): """Hidden."""
    async def f(self):
        """Method."""
def g(): """Function."""
'''
    assert builtin.docstrings(source) == [
        ("Overview", "Module."),
        ("A", "Class."),
        ("A.f", "Method."),
        ("g", "Function."),
    ]
    assert builtin.docstrings(b'"""not python""" (') == []


@pytest.mark.skipif(sys.version_info < (3, 12), reason="the statement is of Python 3.12")
def test_a_named_type_has_no_docstring():
    source = b'"""Module."""\ntype Names = list[str]\ndef f():\n    """Function."""\n'
    assert builtin.docstrings(source) == [("Overview", "Module."), ("f", "Function.")]


def test_missing_distribution_is_an_error():
    with pytest.raises(DataError, match="no-such-package, which is not installed"):
        list(builtin.pages(["no-such-package"], standard_library=False))


def test_cut_at_blank_lines_loses_nothing_else():
    lines = [f"line {index} " + "x" * (index % 90) for index in range(2_000)]
    lines[5::7] = [""] * len(lines[5::7])
    pieces = list(cut(lines))
    assert [line for piece in pieces for line in piece.split("\n") if line] == [
        line for line in lines if line
    ]
    assert all(CUT_FROM <= len(piece) <= CUT_AT for piece in pieces[:-1])


def test_cut_long_lines():
    pieces = list(cut(["a" * (2 * CUT_AT + 5), "tail"]))
    assert [len(piece) for piece in pieces] == [CUT_AT, CUT_AT, 10]
    assert "".join(pieces).replace("\n", "") == "a" * (2 * CUT_AT + 5) + "tail"


def test_text_files(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "b.txt").write_bytes(b"\xef\xbb\xbfbad byte \xff here\r\nsecond line")
    (tmp_path / "sub" / "a.txt").write_text("Grüße", encoding="utf-8")
    (tmp_path / "empty.txt").write_text(" \n\n")
    found = list(documents(f"text:{tmp_path}/**/*.txt"))
    assert found == [Document("b.txt#0", "bad byte � here\nsecond line"), Document("sub/a.txt#0", "Grüße")]


def test_file_names_that_are_not_utf8(tmp_path):
    with open(os.fsencode(tmp_path) + b"/\xe9.txt", "w") as file:  # noqa: PTH123
        file.write("text")
    assert [document.key for document in documents(f"text:{tmp_path}/*.txt")] == ["\ufffd.txt#0"]


UMLAUTS = ("Ein Satz über Bücher und Wälder. " * 200 + "\n\n") * 10


@pytest.mark.parametrize(
    ("content", "first"),
    [
        (UMLAUTS.encode("latin1"), 9),
        (UMLAUTS.encode("utf-16"), 0),
        (UMLAUTS.encode("utf-16-le"), 1),
        (bytes(range(128, 256)) * 100, 0),
        (b"a\n" + b"\0" * 100_000, 2),
    ],
)
def test_files_that_are_no_utf8_are_refused_with_the_place(tmp_path, content, first):
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(DataError, match=rf"a\.txt: expected UTF-8 text.*the first at byte {first}\. Convert"):
        list(documents(f"text:{tmp_path}/*.txt"))


@pytest.mark.parametrize(
    ("content", "strange", "first"),
    [
        (UMLAUTS.encode() + b"caf\xe9\n", 1, 72_023),
        (b"\xef\xbb\xbf" + UMLAUTS.encode() + b"x\0y\xff", 2, 72_024),
        (UMLAUTS.replace("\n", "\r\n").encode(), 0, 0),
    ],
)
def test_a_few_strange_bytes_are_told(tmp_path, content, strange, first):
    (tmp_path / "a.txt").write_bytes(content)
    told: list[str] = []
    text = "".join(document.text for document in documents(f"text:{tmp_path}/*.txt", told.append))
    assert text.count("\N{REPLACEMENT CHARACTER}") == strange
    assert [f"{strange} of " in line and f"at byte {first:,};" in line for line in told] == [True] * bool(
        strange
    )


def test_text_pattern_relative_to_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a.txt").write_text("hello")
    assert list(documents("text:*.txt")) == [Document("a.txt#0", "hello")]


@pytest.mark.parametrize("name", ["a [1-2].txt", "*?.txt", "{a,b}.txt", "a::b.txt", "~.txt", "a\nb.txt"])
def test_a_file_of_the_very_name_is_no_pattern(tmp_path, name):
    for file in (name, "a 1.txt", "other.txt"):
        (tmp_path / file).write_text(file)
    assert [document.text for document in documents(f"text:{tmp_path}/{name}")] == [name]


def test_text_pattern_without_files(tmp_path):
    with pytest.raises(DataError, match="matches no file"):
        documents(f"text:{tmp_path}/*.txt")


@pytest.mark.parametrize("source", ["", "text:", "hf:", "built-in", "builtin:x", "http://example.org"])
def test_unknown_source(source):
    with pytest.raises(DataError, match="must be builtin, text:GLOB or hf:NAME"):
        documents(source)


def test_hub_source_is_parsed():
    fineweb = "HuggingFaceFW/fineweb-edu"
    assert parse_hub_source(f"hf:{fineweb}:sample-10BT") == (fineweb, "sample-10BT")
    assert parse_hub_source("hf:/data/set") == ("/data/set", None)
    for wrong in ("hf:name:", "hf::config", "hf:a:b:c"):
        with pytest.raises(DataError, match="not of the form"):
            parse_hub_source(wrong)


@pytest.fixture
def hub_offline(monkeypatch, tmp_path):
    """The hub is out of reach and its caches are empty."""
    import datasets
    import huggingface_hub.constants

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def test_hub_dataset_from_a_folder(tmp_path, hub_offline):
    folder = tmp_path / "tiny"
    folder.mkdir()
    rows = [{"text": "first", "id": 1}, {"text": "  ", "id": 2}, {"text": "third", "id": 3}]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert list(documents(f"hf:{folder}")) == [Document("tiny#0", "first"), Document("tiny#2", "third")]


def test_hub_dataset_without_text_column(tmp_path, hub_offline):
    (tmp_path / "train.jsonl").write_text('{"body": "x", "id": 1}\n')
    with pytest.raises(DataError, match=r"needs a column named text; it has body, id"):
        list(documents(f"hf:{tmp_path}"))


def test_hub_dataset_that_cannot_be_had(tmp_path, hub_offline):
    with pytest.raises(DataError, match="not a folder with a dataset"):
        list(documents(f"hf:{tmp_path}/absent"))
    with pytest.raises(DataError, match=r"after 0 rows.*Check the name, the configuration and the network"):
        list(documents("hf:nobody/no-such-dataset:config"))
