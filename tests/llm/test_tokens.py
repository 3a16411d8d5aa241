"""Counting tokens by what servers have counted."""

from asi_lab.llm.tokens import Meter


def test_before_the_first_count_the_estimate_is_high():
    assert Meter().tokens("openai:a", "x" * 3000) == 1000
    assert not Meter().knows("openai:a")


def test_the_server_s_own_count_is_the_measure_and_the_densest_text_counts():
    meter = Meter()
    meter.saw("openai:a", 8000, 2000)
    assert meter.tokens("openai:a", "x" * 8000) == 2000
    meter.saw("openai:a", 7000, 2000)
    meter.saw("openai:a", 9000, 2000)
    assert meter.tokens("openai:a", "x" * 7000) == 2000
    assert meter.tokens("ollama:b", "x" * 3000) == 1000  # each model has a tokenizer of its own


def test_bytes_count_not_characters():
    meter = Meter()
    meter.saw("openai:a", 8000, 2000)
    assert meter.tokens("openai:a", "ä" * 1000) == 500


def test_what_says_nothing_is_left_out():
    meter = Meter()
    for sent, tokens in ((100, 90), (8000, None), (None, 10), (8000, 10), (8000, 8000)):
        meter.saw("openai:a", sent, tokens)
    assert not meter.knows("openai:a")


def test_what_the_ledger_holds_is_known_at_once():
    meter = Meter(
        [
            {"model": "openai:a", "sent_bytes": 8000, "prompt_tokens": 2000},
            {"model": "openai:b", "prompt_tokens": 2000},
        ]
    )
    assert meter.knows("openai:a")
    assert not meter.knows("openai:b")
