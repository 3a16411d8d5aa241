import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest

from asi_lab.data import splits, writer
from asi_lab.data.corpus import Document
from asi_lab.data.manifest import FILES, Manifest, load_manifest
from asi_lab.data.prepare import main, prepare
from asi_lab.data.shards import open_shard
from asi_lab.data.splits import HELD_OUT_PERCENT, Assigned, part_of, with_all_parts
from asi_lab.data.tokenizer import Tokenizer
from asi_lab.errors import DataError
from asi_lab.settings import Data

PARAGRAPHS = [f"Paragraph {n} says that {n * n} is the square of {n}, whoever may ask." for n in range(4_000)]


@pytest.fixture
def source(tmp_path):
    """About 280 kB of text in one file, 60 documents or so."""
    (tmp_path / "text.txt").write_text("\n\n".join(PARAGRAPHS))
    return f"text:{tmp_path}/text.txt"


def settings(source: str, **changes) -> Data:
    return Data(**{"source": source, "tokenizer": "bpe:400", **changes})


def documents_of(directory: Path, name: str) -> list[str]:
    tokenizer = Tokenizer.load(directory)
    tokens = open_shard(directory, name)
    ends = np.flatnonzero(tokens == tokenizer.eot)
    assert ends[-1] == len(tokens) - 1
    return [tokenizer.decode(part[part != tokenizer.eot]) for part in np.split(tokens, ends + 1)[:-1]]


def texts_of(directory: Path) -> dict[str, list[str]]:
    """The documents of every part."""
    return {
        part: documents_of(directory, name)
        if name.endswith(".bin")
        else [json.loads(line)["text"] for line in (directory / name).read_text().splitlines()]
        for part, name in FILES.items()
    }


def test_parts_hold_all_text_once(source, tmp_path):
    manifest = prepare(settings(source), tmp_path / "data")
    held = texts_of(tmp_path / "data")
    found = [paragraph for texts in held.values() for text in texts for paragraph in text.split("\n\n")]
    assert sorted(found) == sorted(PARAGRAPHS)
    moved = 0
    for name, texts in held.items():
        moved += sum(part_of(Document("", text)) != name for text in texts)
        part = getattr(manifest, name)
        assert part.documents == len(texts) > 0
        assert part.bytes == sum(len(text.encode()) for text in texts)
        assert (part.tokens == 0) == FILES[name].endswith(".jsonl")
    assert moved <= len(HELD_OUT_PERCENT)  # to parts that would be empty
    assert manifest.train.tokens == len(open_shard(tmp_path / "data", "train.bin"))
    for name in ("evaluation.jsonl", "claims.jsonl"):
        lines = (tmp_path / "data" / name).read_text().splitlines()
        assert all(sorted(json.loads(line)) == ["key", "text"] for line in lines)
    assert (manifest.vocab_size, manifest.eot, manifest.dtype) == (400, 399, "uint16")


@pytest.mark.parametrize("odds", [0, 1, 2])
def test_shares_of_the_parts_and_dependence_on_text_alone(odds):
    parts = [part_of(Document(str(n % 7), f"document {n}", odds)) for n in range(20_000)]
    for name, percent in HELD_OUT_PERCENT.items():
        assert parts.count(name) / len(parts) == pytest.approx(odds * percent / 100, abs=0.007)
    assert parts.count("train") / len(parts) == pytest.approx(1 - 0.21 * odds, abs=0.01)


def test_the_split_is_fixed_for_all_time():
    """A change of this makes another split, with which no older result compares."""
    parts = [part_of(Document("", f"document {n}")) for n in range(500)]
    assert {name: parts.index(name) for name in FILES} == {
        "train": 3,
        "marks": 66,
        "validation": 5,
        "evaluation": 8,
        "claims": 0,
        "claims_tasks": 1,
    }


def test_repeated_documents_are_kept_once(tmp_path):
    for name in "abcdefgh":
        (tmp_path / f"{name}.txt").write_text(f"text of {name}")
        (tmp_path / f"{name}-again.txt").write_text(f"text of {name}")
    prepare(settings(f"text:{tmp_path}/*.txt", tokenizer="byte"), tmp_path / "data")
    held = [text for texts in texts_of(tmp_path / "data").values() for text in texts]
    assert sorted(held) == [f"text of {name}" for name in "abcdefgh"]


@pytest.mark.parametrize("count", [6, 7, 12])
@pytest.mark.parametrize("batch", range(10))
def test_small_corpora_fill_every_part(count, batch):
    pieces = [Document(str(n), f"{batch} {n}") for n in range(count)]
    assigned = with_all_parts([Assigned(part_of(piece), piece) for piece in pieces], "text:x")
    assert {part for part, _ in assigned} == set(FILES)
    assert [document for _, document in assigned] == pieces


def test_what_trials_can_read_fills_no_part():
    shown = [Document(f"shown {n}", f"shown {n}", 0) for n in range(50)]
    hidden = [Document(f"hidden {n}", f"hidden {n}", 2) for n in range(6)]
    assigned = with_all_parts([Assigned(part_of(piece), piece) for piece in shown + hidden], "builtin")
    assert {part for part, _ in assigned} == set(FILES)
    assert {part for part, document in assigned if document.odds == 0} == {"train"}
    with pytest.raises(DataError, match="gives 5 different documents"):
        with_all_parts([Assigned("train", piece) for piece in shown + hidden[:5]], "builtin")


def test_too_little_text_says_how_much(tmp_path):
    (tmp_path / "text.txt").write_text("short\n" * 100)
    with pytest.raises(DataError, match=r"gives 1 different documents.*at least 50,000 characters"):
        prepare(settings(f"text:{tmp_path}/text.txt"), tmp_path / "data")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["text.txt"]


def test_the_advised_amount_of_text_is_enough(tmp_path):
    (tmp_path / "text.txt").write_text("\n".join(PARAGRAPHS)[:50_000])
    manifest = prepare(settings(f"text:{tmp_path}/text.txt"), tmp_path / "data")
    assert all(getattr(manifest, part).documents > 0 for part in FILES)


def test_same_text_and_settings_give_the_same_bytes(source, tmp_path):
    first = prepare(settings(source), tmp_path / "one")
    second = prepare(settings(source), tmp_path / "two")
    assert first == second
    assert first.fingerprint == second.fingerprint
    other = prepare(settings(source, tokenizer="byte"), tmp_path / "three")
    assert other.fingerprint != first.fingerprint


def test_max_tokens_bounds_the_training_shard(source, tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "ENCODE_BYTES", 1)
    manifest = prepare(settings(source, max_tokens=10_001), tmp_path / "data")
    assert manifest.train.tokens == 10_001
    whole = prepare(settings(source), tmp_path / "whole")
    assert whole.train.tokens > 50_000
    start = open_shard(tmp_path / "whole", "train.bin")[:10_001]
    assert np.array_equal(open_shard(tmp_path / "data", "train.bin"), start)
    assert manifest.validation == whole.validation


def test_reading_stops_when_every_split_has_enough(source, tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "ENCODE_BYTES", 1)
    monkeypatch.setattr(writer, "ENOUGH_TOKENS", dict.fromkeys(writer.ENOUGH_TOKENS, 1))
    monkeypatch.setattr(writer, "ENOUGH_TEXT_BYTES", 1)
    monkeypatch.setattr(splits, "HEAD_CHARACTERS", 20_000)
    read = []
    real = writer.Writer.add
    monkeypatch.setattr(writer.Writer, "add", lambda self, item: (read.append(item), real(self, item)))
    manifest = prepare(settings(source, max_tokens=2_000), tmp_path / "data")
    assert manifest.train.tokens == 2_000
    assert manifest.validation.documents > 0
    total = len(PARAGRAPHS) * 70 // 4_000
    assert len(read) < 0.8 * total


def test_evaluation_text_is_capped(source, tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "MOST_TEXT_BYTES", 5_000)
    manifest = prepare(settings(source), tmp_path / "data")
    assert manifest.evaluation.documents == 1
    assert manifest.evaluation.bytes <= 5_000


def test_large_vocabulary_is_written_in_32_bits(source, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "asi_lab.data.build.train_tokenizer", lambda kind, texts: Tokenizer("byte", 70_000, 69_999)
    )
    manifest = prepare(settings(source, tokenizer="byte"), tmp_path / "data")
    assert manifest.dtype == "uint32"
    assert open_shard(tmp_path / "data", "train.bin").max() == 69_999


def test_prepared_data_is_reused_without_its_source(source, tmp_path):
    first = prepare(settings(source), tmp_path / "data")
    changed = (tmp_path / "data" / "train.bin").stat().st_mtime_ns
    (tmp_path / "text.txt").unlink()
    assert (
        prepare(settings(source), tmp_path / "data") == first == load_manifest(tmp_path / "data", hashes=True)
    )
    assert (tmp_path / "data" / "train.bin").stat().st_mtime_ns == changed


def test_other_settings_are_refused(source, tmp_path):
    prepare(settings(source), tmp_path / "data")
    with pytest.raises(DataError, match=r"data.tokenizer is 'byte' but was 'bpe:400'.*start a new lab"):
        prepare(settings(source, tokenizer="byte"), tmp_path / "data")
    with pytest.raises(DataError, match=r"data.max_tokens is 5 but was 50000000"):
        prepare(settings(source, max_tokens=5), tmp_path / "data")


def test_foreign_folder_is_left_alone(source, tmp_path):
    (tmp_path / "data").mkdir()
    prepare(settings(source), tmp_path / "data")  # an empty folder is filled
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(DataError, match="holds no prepared data"):
        prepare(settings(source), tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "x"


def test_damage_is_found(source, tmp_path):
    prepare(settings(source), tmp_path / "data")
    shard = tmp_path / "data" / "train.bin"
    content = shard.read_bytes()
    shard.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    load_manifest(tmp_path / "data")
    with pytest.raises(DataError, match="its hash differs"):
        load_manifest(tmp_path / "data", hashes=True)
    shard.write_bytes(content[:-2])
    for read in (load_manifest, lambda folder: open_shard(folder, "train.bin")):
        with pytest.raises(
            DataError, match=f"should be {len(content):,} bytes long and is {len(content) - 2:,}"
        ):
            read(tmp_path / "data")
    shard.unlink()
    with pytest.raises(DataError, match="is missing"):
        prepare(settings(source), tmp_path / "data")


def test_other_formats_and_broken_manifests_are_refused(source, tmp_path):
    manifest = prepare(settings(source), tmp_path / "data")
    path = tmp_path / "data" / "manifest.json"
    path.write_bytes(msgspec.json.encode(msgspec.structs.replace(manifest, format=3)))
    with pytest.raises(DataError, match="format 3, this version reads formats up to 2"):
        load_manifest(tmp_path / "data")
    path.write_text('{"format": 1')
    with pytest.raises(DataError, match=r"Cannot read .*manifest.json"):
        load_manifest(tmp_path / "data")


def as_format_1(directory: Path, manifest: Manifest) -> None:
    """Leave what data of format 1 had."""
    later = {"marks", "claims", "claims_tasks"}
    for part in later:
        (directory / FILES[part]).unlink()
    old = {key: value for key, value in msgspec.to_builtins(manifest).items() if key not in later}
    gone = {FILES[part] for part in later}
    old |= {"format": 1, "files": [file for file in old["files"] if file["name"] not in gone]}
    (directory / "manifest.json").write_bytes(msgspec.json.encode(old))


def test_data_of_format_1_is_read_and_not_searched_on(source, tmp_path):
    manifest = prepare(settings(source), tmp_path / "data")
    as_format_1(tmp_path / "data", manifest)
    old = load_manifest(tmp_path / "data", hashes=True)
    assert (old.format, old.train, old.validation) == (1, manifest.train, manifest.validation)
    assert (old.marks.documents, old.claims.tokens) == (0, 0)
    with pytest.raises(DataError, match=r"split by an older version \(format 1\).*Start a new lab"):
        prepare(settings(source), tmp_path / "data")


def command(directory: Path, data: Data) -> list[str]:
    return [sys.executable, "-m", "asi_lab.data.prepare", str(directory), msgspec.json.encode(data).decode()]


def test_killed_run_leaves_nothing_that_is_taken_for_whole(source, tmp_path):
    directory, partial = tmp_path / "data", tmp_path / ".data.partial"
    data = settings(f"text:{tmp_path}/*.txt")
    for number in range(60):  # enough text to be still busy when the kill comes
        (tmp_path / f"{number}.txt").write_text(f"{number}\n" + "\n\n".join(PARAGRAPHS))
    process = subprocess.Popen(command(directory, data), stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not partial.exists() and time.monotonic() < deadline:
        time.sleep(0.002)
    process.kill()
    assert process.wait() == -9
    assert partial.exists()
    assert not directory.exists()
    for number in range(60):
        (tmp_path / f"{number}.txt").unlink()
    (partial / "stale.bin").write_bytes(b"x")
    manifest = prepare(data, directory)
    assert not partial.exists()
    assert {file.name for file in manifest.files} | {"manifest.json"} == {
        path.name for path in directory.iterdir()
    }


def test_full_disk_is_a_message_and_leaves_nothing(source, tmp_path):
    """A limit on the size of files makes writing fail as a full disk does."""
    run = subprocess.run(
        command(tmp_path / "data", settings(source)),
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000)),
    )
    assert run.returncode == 1
    assert "Cannot write the data" in run.stderr
    assert "Free some space" in run.stderr
    assert "Traceback" not in run.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["text.txt"]


def test_two_processes_prepare_the_same_directory(source, tmp_path):
    both = [
        subprocess.Popen(command(tmp_path / "data", settings(source)), stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=60)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert sum("data is ready" in text for text in said) == 1
    load_manifest(tmp_path / "data", hashes=True)


def test_command_line_with_a_streamed_dataset(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    rows = ({"text": f"Row {n}. " + PARAGRAPHS[n] * 5} for n in range(1_000))
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = subprocess.run(
        command(tmp_path / "data", settings(f"hf:{folder}", max_tokens=3_000)),
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")},
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout == ""
    assert "3,000 training tokens" in run.stderr
    assert load_manifest(tmp_path / "data", hashes=True).train.tokens == 3_000


def test_command_line_errors(tmp_path, capsys):
    assert main([str(tmp_path / "data"), '{"source": "nowhere", "tokenizer": "byte"}']) == 1
    assert "must be builtin" in capsys.readouterr().err
    assert main([str(tmp_path / "data"), '{"source": "builtin", "tokenizer": "word"}']) == 1
    assert "must be byte" in capsys.readouterr().err
    assert main([str(tmp_path / "data"), '{"sauce": 1}']) == 2
    assert "data settings" in capsys.readouterr().err
    assert main([]) == 2
    assert "Usage" in capsys.readouterr().err
