"""Streams of probes: their answers are read again by a plain reader of one stream at a time."""

from __future__ import annotations

import functools

import msgspec
import numpy as np
import pytest

from asi_lab.data.probes import MODEL, NAMES, NOTHING, PROBES, title_of
from asi_lab.data.probes.tracking import ELEMENTS

COUNT = 200
RECALL = NAMES[:-2]


def sizes(name: str) -> dict[str, int]:
    generate = PROBES[name].generate
    assert isinstance(generate, functools.partial)
    return generate.keywords


def streams(name: str) -> list[tuple[list[int], list[int]]]:
    found = PROBES[name].tests(3)
    return [
        (ids, answers)
        for part in found
        for ids, answers in zip(part.ids.tolist()[:COUNT], part.answers.tolist(), strict=False)
    ]


def by_last_value(ids: list[int], keys: range, values: range) -> list[int]:
    """A key that is followed by a value is a pair; any other key asks for its last value."""
    memory: dict[int, int] = {}
    answers = [NOTHING] * len(ids)
    for at, token in enumerate(ids):
        following = ids[at + 1] if at + 1 < len(ids) else None
        if token in keys and following in values:
            memory[token] = following
        elif token in keys:
            answers[at] = memory[token]
    return answers


@pytest.mark.parametrize("name", ["probe_mqar", "probe_reassigned", "probe_noisy"])
def test_a_key_asks_for_the_value_that_it_was_given_last(name):
    keys, values = sizes(name)["keys"], sizes(name)["values"]
    for ids, answers in streams(name):
        assert by_last_value(ids, range(keys), range(keys, keys + values)) == answers


def test_keys_are_reassigned_and_the_first_value_would_not_do():
    keys, values = sizes("probe_reassigned")["keys"], sizes("probe_reassigned")["values"]
    changed = 0
    for ids, answers in streams("probe_reassigned"):
        first: dict[int, int] = {}
        for key, value in zip(ids[::2], ids[1::2], strict=False):
            if key < keys <= value < keys + values:
                first.setdefault(key, value)
        asked = [(token, answer) for token, answer in zip(ids, answers, strict=True) if answer != NOTHING]
        assert len(asked) == len(first) == sizes("probe_reassigned")["pairs"]
        changed += sum(first[key] != answer for key, answer in asked)
    assert 0.4 < changed / (COUNT * len(first)) < 0.8


def test_two_tokens_together_name_a_value_and_neither_does_alone():
    parts, pairs = sizes("probe_compositional")["parts"], sizes("probe_compositional")["pairs"]
    alone = 0
    for ids, answers in streams("probe_compositional"):
        memory = {}
        for at in range(0, 3 * pairs, 3):
            first, second, value = ids[at : at + 3]
            assert first < parts <= second < 2 * parts <= value
            memory[first, second] = value
        assert len(memory) == pairs
        for at in range(3 * pairs, len(ids), 2):
            assert answers[at] == NOTHING
            assert answers[at + 1] == memory[ids[at], ids[at + 1]]
            alone += sum(second == ids[at + 1] for _, second in memory) == 1
    assert alone < 0.6 * COUNT * pairs  # most second tokens stand behind several first ones


def test_keys_of_one_to_three_tokens_stand_behind_a_mark():
    keys, values = sizes("probe_fuzzy")["keys"], sizes("probe_fuzzy")["values"]
    lengths = []
    for ids, answers in streams("probe_fuzzy"):
        memory, asked, at = {}, 0, 0
        while at < len(ids):
            assert ids[at] == keys + values  # a mark, or the padding behind the last query
            key = []
            while at + 1 < len(ids) and ids[at + 1] < keys:
                at += 1
                key.append(ids[at])
            if key and at + 1 < len(ids) and ids[at + 1] < keys + values:
                assert answers[at] == NOTHING
                assert tuple(key) not in memory
                memory[tuple(key)] = ids[at := at + 1]
                lengths.append(len(key))
            elif key:
                assert answers[at] == memory[tuple(key)]
                asked += 1
            at += 1
        assert asked == len(memory) == sizes("probe_fuzzy")["pairs"]
        assert sum(answer != NOTHING for answer in answers) == asked
    assert set(lengths) == {1, 2, 3}


def test_symbols_are_copied_in_their_order_without_the_noise():
    of = sizes("probe_selective_copy")
    for ids, answers in streams("probe_selective_copy"):
        marks = [at for at, token in enumerate(ids) if token == of["symbols"] + of["kinds"]]
        assert marks == [*range(len(ids) - of["copied"], len(ids))]
        assert [answers[at] for at in marks] == [token for token in ids if token < of["symbols"]]
        assert sum(answer != NOTHING for answer in answers) == of["copied"]


def test_states_are_followed_token_by_token():
    for ids, answers in streams("probe_parity"):
        assert answers == [2 + sum(ids[: at + 1]) % 2 for at in range(len(ids))]
    for ids, answers in streams("probe_s3"):
        things = (0, 1, 2)
        for token, answer in zip(ids, answers, strict=True):
            things = tuple(ELEMENTS[token][thing] for thing in things)
            assert ELEMENTS[answer - len(ELEMENTS)] == things


@pytest.mark.parametrize("name", NAMES)
def test_tokens_answers_and_lengths_are_those_of_the_definition(name):
    probe = PROBES[name]
    batches, tests = probe.training(1), probe.tests(1)
    assert len(batches) == probe.steps
    assert probe.marks == (30, 60, 90, 120)
    assert sum(len(part.ids) for part in tests) == 256
    assert probe.vocabulary <= 64
    wanted = np.concatenate([part.wanted for part in [*batches, *tests]])
    assert len(np.unique(wanted)) == probe.choices
    assert np.bincount(wanted).max() < 1.2 * len(wanted) / probe.choices  # no answer is guessed
    for part in [*batches, *tests]:
        assert part.ids.shape == part.answers.shape
        assert 0 <= part.ids.min() <= part.ids.max() < probe.vocabulary
        assert not (part.ids == part.answers).any()
    assert batches[0].ids.shape[1] <= 64
    assert {part.ids.shape[1] for part in tests} <= {64, 128} if probe.lengths else len(tests) == 1


@pytest.mark.parametrize("name", RECALL)
def test_no_answer_stands_where_it_is_asked_for_nor_behind_it(name):
    """What comes after the first question holds no value that was not there before."""
    values = set(PROBES[name].tests(5)[0].wanted.tolist())
    for ids, answers in streams(name):
        first = next(at for at, answer in enumerate(answers) if answer != NOTHING)
        assert not values & set(ids[first:])


@pytest.mark.parametrize("name", NAMES)
def test_a_seed_gives_the_same_streams_and_another_one_others(name):
    probe = PROBES[name]
    assert (probe.tests(7)[0].ids == probe.tests(7)[0].ids).all()
    assert (probe.tests(7)[0].ids != probe.tests(8)[0].ids[: len(probe.tests(7)[0].ids)]).any()
    assert (probe.training(7)[0].ids != probe.training(7)[1].ids).any()


def test_probes_have_titles_and_the_model_is_tiny():
    assert all(title_of(name) == PROBES[name].title for name in NAMES)
    assert title_of("asi_recall") is None
    assert (MODEL.layers, MODEL.width) == (2, 64)
    assert msgspec.structs.replace(PROBES["probe_s3"].train).steps == 120
