"""Every keyword of the installed flash-linear-attention is known to our function that stands for it."""

import importlib.util
from pathlib import Path

import pytest

from asi_lab.kernels.foreign import DIALECTS
from benchmarks import signatures

DOCS = Path(__file__).parents[2] / "docs" / "kernels.md"


@pytest.fixture(scope="module", autouse=True)
def installed() -> None:
    if importlib.util.find_spec("fla") is None:  # to import it takes seconds, and its sources are read
        pytest.skip("flash-linear-attention is not installed")


@pytest.mark.parametrize(("ours", "theirs"), signatures.pairs())
def test_every_keyword_is_ours_or_accepted_translated_or_refused(ours, theirs):
    unknown = signatures.unknown(ours, theirs)
    assert not unknown, f"say in kernels/foreign.py what {ours} makes of {unknown}"


def test_a_keyword_that_appears_would_be_seen(monkeypatch):
    more = (*signatures.arguments("kda.chunk_kda"), signatures.Argument("use_magic", True, False))
    monkeypatch.setattr(signatures, "arguments", lambda theirs: more)
    assert signatures.unknown("kda", "kda.chunk_kda") == ["use_magic"]


def test_keywords_that_hide_in_the_rest_are_found():
    names = [argument.name for argument in signatures.arguments("gated_delta_rule.chunk_gated_delta_rule")]
    hidden = {"A_log", "dt_bias", "use_gate_in_kernel", "head_first", "chunk_size", "transpose_state_layout"}
    assert hidden <= set(names)


def test_every_function_of_fla_ops_is_mentioned():
    assert signatures.unlisted() == set()


def test_no_keyword_of_ours_is_foreign():
    """It would never be translated."""
    for name, dialect in DIALECTS.items():
        own = signatures.own_parameters(name)
        assert not own.keys() & dialect.keys(), name


def test_the_documentation_holds_the_tables():
    text = DOCS.read_text(encoding="utf-8")
    for table in signatures.tables().split("\n\n"):
        assert table in text, f"write what `python benchmarks/signatures.py` prints to {DOCS.name}"
