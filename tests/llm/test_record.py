"""Recorded calls: never paid for twice, and without secrets."""

from collections import Counter

import pytest

from asi_lab.llm.model import Busy, Call, Message, ModelError, NoTools, Reply
from asi_lab.llm.record import Exchange, Recorded
from asi_lab.llm.scripted import Scripted

HELLO = [Message("user", "hello")]


class Tape(dict[str, Exchange]):
    def find(self, key: str) -> Exchange | None:
        return self.get(key)

    def keep(self, key: str, exchange: Exchange) -> None:
        self[key] = exchange


def recorded(model, tape: Tape, name: str = "a") -> Recorded:
    return Recorded(name, model, "planner", tape, Counter())


def test_the_same_question_is_asked_once_in_each_run():
    tape = Tape()
    first = recorded(Scripted([Reply("one"), Reply("two")]), tape)
    assert [first.complete(HELLO, Call()).text for _ in range(2)] == ["one", "two"]
    silent = Scripted([])
    again = recorded(silent, tape)
    assert [again.complete(HELLO, Call()).text for _ in range(2)] == ["one", "two"]
    assert silent.requests == []
    with pytest.raises(ModelError):
        again.complete(HELLO, Call())


@pytest.mark.parametrize(
    ("messages", "call", "name"),
    [
        ([Message("user", "hullo")], Call(), "a"),
        (HELLO, Call(temperature=0.1), "a"),
        (HELLO, Call(schema={"type": "object"}), "a"),
        (HELLO, Call(), "b"),
    ],
)
def test_another_question_is_another(messages, call, name):
    tape = Tape()
    recorded(Scripted([Reply("one")]), tape).complete(HELLO, Call())
    assert recorded(Scripted([Reply("two")]), tape, name).complete(messages, call).text == "two"
    assert len(tape) == 2


def test_without_a_model_there_is_only_the_tape():
    with pytest.raises(ModelError, match="holds no reply"):
        recorded(None, Tape()).complete(HELLO, Call())


def test_that_a_model_takes_no_tools_is_recorded_and_other_errors_are_not():
    tape = Tape()
    model = Scripted([NoTools("none"), Busy("busy"), Reply("one")])
    with pytest.raises(NoTools):
        recorded(model, tape).complete(HELLO, Call())
    with pytest.raises(NoTools):
        recorded(None, tape).complete(HELLO, Call())
    other = [Message("user", "other")]
    with pytest.raises(Busy):
        recorded(model, tape).complete(other, Call())
    assert recorded(model, tape).complete(other, Call()).text == "one"


def test_secrets_are_left_out(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", 'sk-canary"with-a-quote')
    tape = Tape()
    said = [Message("user", 'my key is sk-canary"with-a-quote')]
    reply = recorded(Scripted([Reply('yours is sk-canary"with-a-quote')]), tape).complete(said, Call())
    assert reply.text == "yours is [OPENAI_API_KEY]"
    (exchange,) = tape.values()
    assert exchange.messages[0].content == "my key is [OPENAI_API_KEY]"
    assert exchange.reply.text == "yours is [OPENAI_API_KEY]"
