"""What is held out cannot be found in what a trial can read."""

import json
import os
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from asi_lab.data import builtin
from asi_lab.data.manifest import FILES
from asi_lab.data.prepare import prepare
from asi_lab.data.shards import open_shard
from asi_lab.data.tokenizer import Tokenizer
from asi_lab.sandbox.policy import system_paths
from asi_lab.settings import Data

START = 6
"""Words by which a paragraph is looked up."""

TEXT = re.compile(r"\.(py|pyi|txt|md|rst|html|json|ipynb|toml|cfg|h|c|cpp)$|^[A-Z]+$")


def paragraphs_of(directory: Path, parts: Iterable[str]) -> set[str]:
    """The words of all paragraphs of 40 characters or more in these parts of the data."""
    tokenizer, texts = Tokenizer.load(directory), []
    for part in parts:
        if FILES[part].endswith(".bin"):
            tokens = open_shard(directory, FILES[part])
            pieces = np.split(tokens, np.flatnonzero(tokens == tokenizer.eot))
            texts += map(tokenizer.decode, pieces)
        else:
            lines = (directory / FILES[part]).read_text().splitlines()
            texts += [json.loads(line)["text"] for line in lines]
    return {
        builtin.words(line)
        for text in texts
        for line in text.split("\n")
        if len(line) >= builtin.DEDUPLICATED_LENGTH
    }


def readable(roots: Iterable[str], hidden: Iterable[str]) -> Iterator[Path]:
    """The files of text below `roots` and not below `hidden`."""
    for root in {os.path.realpath(root) for root in roots}:
        for folder, inner, files in os.walk(root):
            inner[:] = [name for name in inner if f"{folder}/{name}" not in hidden]
            yield from (Path(folder, name) for name in files if TEXT.search(name))


def found_in(files: Iterable[Path], wanted: set[str]) -> dict[str, Path]:
    """Those of the paragraphs that stand in one of the files, whatever the signs between their words."""
    by_start = defaultdict(list)
    for paragraph in wanted:
        words = paragraph.split()
        by_start[tuple(words[:START])].append(words)
    found = {}
    for file in files:
        if not file.is_file():
            continue
        words = builtin.words(file.read_bytes().decode("utf-8", "replace")).split()
        for at, start in enumerate(zip(*(words[shift:] for shift in range(START)), strict=False)):
            for paragraph in by_start.get(start, ()):
                if words[at : at + len(paragraph)] == paragraph:
                    found[" ".join(paragraph)] = file
    return found


HELD_OUT = [part for part in FILES if part != "train"]


SHARED = (
    "Both packages explain this in the very same words, for reasons that nobody remembers now, and that it "
    "is not worth to look for, since whoever wrote it has left for another project long ago."
)


def module(name: str, numbers: Iterable[int]) -> str:
    documented = [
        f'def f{n}():\n    """The function {n} of {name} squares what is given to it, and adds {n * n}.\n\n'
        f"    Nobody but {name} knows why the number {n} was taken for this, and not the number {n + 1}.\n\n"
        f'    Whoever calls it gets {n} numbers in one array that belongs to {name} from then on.\n    """\n'
        for n in numbers
    ]
    return f'"""{SHARED}"""\n' + "\n".join(documented)


@pytest.fixture
def site(tmp_path, monkeypatch) -> Path:
    """A place with a package that trials need, one that they do not need, and a copy of that."""
    folder = tmp_path / "lib" / "site-packages"
    for name, modules in (("alpha", 20), ("beta", 60), ("pip/_vendor/beta", 60)):
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text("")
        for number in range(modules):
            text = module(Path(name).name, range(4 * number, 4 * number + 4))
            (folder / name / f"m{number}.py").write_text(text)
    for name in ("alpha", "beta"):
        (folder / f"{name}-1.dist-info").mkdir()
        (folder / f"{name}-1.dist-info" / "METADATA").write_text(f"Name: {name}\nVersion: 1\n")
        record = "".join(f"{name}/{file.name},,\n" for file in sorted((folder / name).iterdir()))
        (folder / f"{name}-1.dist-info" / "RECORD").write_text(record)
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    monkeypatch.setattr(builtin, "HIDDEN_DISTRIBUTIONS", {"beta": "beta"})
    monkeypatch.setattr(builtin, "HIDDEN_PACKAGES", {"beta"})
    monkeypatch.setattr(builtin, "system_paths", lambda: [str(tmp_path / "lib")])
    monkeypatch.setattr(builtin, "pages", partial(builtin.pages, ["alpha", "beta"], False))
    builtin.hidden_paths.cache_clear()
    yield folder
    builtin.hidden_paths.cache_clear()


def test_held_out_text_is_not_among_what_trials_can_read(site, tmp_path):
    prepare(Data(source="builtin", tokenizer="byte"), tmp_path / "data")
    held_out, train = (paragraphs_of(tmp_path / "data", parts) for parts in (HELD_OUT, ["train"]))
    assert len(held_out) > 100
    assert not held_out & train
    assert all("beta" in paragraph for paragraph in held_out)
    assert any("beta" in paragraph for paragraph in train)
    assert builtin.words(SHARED) in train
    everything = list(readable([str(site.parent)], ()))
    assert found_in(everything, held_out).keys() == held_out
    shown = list(readable([str(site.parent)], builtin.hidden_paths()))
    assert {file.parent.name for file in shown} == {"alpha", "alpha-1.dist-info", "beta-1.dist-info"}
    assert found_in(shown, held_out) == {}


@pytest.mark.slow
@pytest.mark.timeout(1800)  # reads all text that the sandbox shows
def test_held_out_text_of_the_built_in_corpus_is_not_among_what_trials_can_read(tmp_path):
    """But for a few sentences that others write too."""
    prepare(Data(source="builtin", tokenizer="byte"), tmp_path / "data")
    held_out = paragraphs_of(tmp_path / "data", HELD_OUT)
    assert len(held_out) > 8_000
    found = found_in(readable(system_paths(), builtin.hidden_paths()), held_out)
    assert sum(map(len, found)) < 0.002 * sum(map(len, held_out)), found
