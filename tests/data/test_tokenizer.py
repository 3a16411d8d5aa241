import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asi_lab.data import tokenizer as module
from asi_lab.data.tokenizer import Tokenizer, check_kind, train_tokenizer
from asi_lab.errors import DataError

TEXTS = [f"the cat number {n} sat on the mat and the dog number {n * 7} did not. Grüße!" for n in range(300)]
HOSTILE = [
    "",
    " ",
    "\x00\x01\x7f",
    "  leading and trailing  \n\n\t",
    "<|endoftext|> in the text </s> [UNK]",
    "Ġ Ċ ▁ are letters of the byte alphabet",
    "a\u0301 \u00e1 ﬁ Å",
    "𝔘𝔫𝔦 👩‍👩‍👧‍👦 \U0010ffff",
    "\u202eright to left\u202c \ufeff\u200b",
    "日本語テキスト العربية",
    "\r\n\r",
]


@pytest.fixture(scope="module")
def bpe():
    return train_tokenizer("bpe:400", iter(TEXTS))


@pytest.fixture(params=["byte", "bpe"])
def tokenizer(request, bpe):
    return bpe if request.param == "bpe" else train_tokenizer("byte", iter(()))


@pytest.mark.parametrize("text", HOSTILE)
def test_round_trip_of_hostile_text(tokenizer, text):
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert all(0 <= token < tokenizer.vocab_size and token != tokenizer.eot for token in ids)


@given(st.text())
def test_round_trip_of_any_text(text):
    for tokenizer in (train_tokenizer("byte", iter(())), _bpe_once()):
        assert tokenizer.decode(tokenizer.encode(text)) == text.encode("utf-8", "replace").decode()


@functools.cache
def _bpe_once() -> Tokenizer:
    return train_tokenizer("bpe:300", iter(TEXTS))


def test_lone_surrogates_become_question_marks(tokenizer):
    assert tokenizer.decode(tokenizer.encode("a\ud800é")) == "a?é"


def test_end_of_text_is_never_written(tokenizer):
    assert tokenizer.decode([tokenizer.eot, *tokenizer.encode("a"), tokenizer.eot]) == "a"


def test_batch_equals_one_by_one(tokenizer):
    assert tokenizer.encode_batch(HOSTILE) == [tokenizer.encode(text) for text in HOSTILE]


def test_vocabulary_sizes(bpe):
    assert (bpe.vocab_size, bpe.eot) == (400, 399)
    byte = train_tokenizer("byte", iter(()))
    assert (byte.vocab_size, byte.eot) == (257, 256)
    assert byte.encode("é") == [0xC3, 0xA9]
    assert len(bpe.encode(TEXTS[0])) < len(byte.encode(TEXTS[0])) / 2


def test_poor_text_gives_a_smaller_vocabulary():
    poor = train_tokenizer("bpe:1000", iter(["aaab"]))
    assert 257 < poor.vocab_size < 270
    assert poor.eot == poor.vocab_size - 1
    assert max(poor.encode("aaab")) < poor.eot


def test_save_and_load(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    loaded = Tokenizer.load(tmp_path)
    assert (loaded.kind, loaded.vocab_size, loaded.eot) == (
        tokenizer.kind,
        tokenizer.vocab_size,
        tokenizer.eot,
    )
    assert loaded.encode_batch(HOSTILE) == tokenizer.encode_batch(HOSTILE)


def test_training_is_deterministic_across_processes(bpe, tmp_path):
    bpe.save(tmp_path)
    program = (
        "import sys, json; from pathlib import Path; from asi_lab.data.tokenizer import train_tokenizer; "
        "folder = Path(sys.argv[1]); folder.mkdir(); "
        "train_tokenizer('bpe:400', iter(json.load(sys.stdin))).save(folder)"
    )
    for seed, parallel in (("1", "true"), ("2", "false")):
        subprocess.run(
            [sys.executable, "-c", program, str(tmp_path / seed)],
            input=json.dumps(TEXTS),
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed, "TOKENIZERS_PARALLELISM": parallel},
        )
        assert (tmp_path / seed / "tokenizer.json").read_bytes() == (tmp_path / "tokenizer.json").read_bytes()


def test_loading_imports_nothing_heavy(bpe, tmp_path):
    bpe.save(tmp_path)
    program = (
        "import sys; from pathlib import Path; from asi_lab.data import corpus, prepare, shards, tokenizer; "
        "tokenizer.Tokenizer.load(Path(sys.argv[1])); "
        "print({'torch', 'transformers', 'datasets', 'pandas'} & set(sys.modules))"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "set()"


@pytest.mark.parametrize("kind", ["", "bpe", "bpe:", "bpe:x", "bpe:-5", "bpe:٣٠٠", "word", "gpt-2"])
def test_unknown_kind(kind):
    with pytest.raises(DataError, match="must be byte, bpe:N or gpt2"):
        check_kind(kind)


def test_too_small_vocabulary():
    with pytest.raises(DataError, match="N must be above 257"):
        check_kind("bpe:257")
    check_kind("bpe:258")


def test_damaged_files(bpe, tmp_path):
    with pytest.raises(DataError, match="Cannot read the tokenizer"):
        Tokenizer.load(tmp_path)
    bpe.save(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"version": "1.0"')
    with pytest.raises(DataError, match="Cannot read the tokenizer"):
        Tokenizer.load(tmp_path)


def gpt2_in_a_process(hub: Path, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    program = (
        "import sys; from pathlib import Path; from asi_lab.data.tokenizer import *\n"
        "try: tokenizer = train_tokenizer('gpt2', iter(()))\n"
        "except DataError as error: sys.exit(str(error))\n"
        "tokenizer.save(Path(sys.argv[1])); loaded = Tokenizer.load(Path(sys.argv[1]))\n"
        "text = 'the cat <|endoftext|> sat'; ids = loaded.encode(text)\n"
        "print(loaded.vocab_size, loaded.eot, loaded.eot in ids, loaded.decode([*ids, loaded.eot]) == text)"
    )
    return subprocess.run(
        [sys.executable, "-c", program, tmp_path],
        env={**os.environ, "HF_HOME": str(hub), "HF_HUB_CACHE": str(hub / "hub"), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )


def test_gpt2_without_network_says_what_to_do(tmp_path):
    run = gpt2_in_a_process(tmp_path / "empty", tmp_path)
    assert run.returncode == 1
    assert "Cannot get the gpt2 tokenizer" in run.stderr
    assert "bpe:32768" in run.stderr


def test_gpt2_from_the_local_cache(bpe, tmp_path):
    """A stand-in for GPT-2's file in the hub's cache, with its special token where GPT-2 has it."""
    bpe.save(tmp_path)
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    content["added_tokens"] = [{"id": module.GPT2_EOT, "content": "<|endoftext|>", **flags}]
    content["model"]["vocab"]["<|endoftext|>"] = module.GPT2_EOT
    repository = tmp_path / "hub" / "hub" / "models--openai-community--gpt2"
    (repository / "snapshots" / "abc").mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    (repository / "snapshots" / "abc" / "tokenizer.json").write_text(json.dumps(content))
    run = gpt2_in_a_process(tmp_path / "hub", tmp_path)
    assert run.stdout.split() == ["50257", "50256", "False", "True"], run.stderr
