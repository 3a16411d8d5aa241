from __future__ import annotations

from collections.abc import Sequence

import pytest

from asi_lab.llm import Busy, Call, Cancelled, Message, Model, ModelError, Reply, ToolCall
from asi_lab.llm.scripted import Request, Scripted

ASK = [Message("user", "Hi")]


def test_replies_come_in_turn_and_requests_are_kept() -> None:
    model: Model = Scripted([Reply("one"), Reply("", (ToolCall("f", {}),), "calls")])
    heard: list[str] = []
    first, second = Call(on_text=heard.append), Call(temperature=0.0, on_text=heard.append)
    assert model.complete(ASK, first) == Reply("one")
    assert model.complete([*ASK, Message("assistant", "one")], second).finish == "calls"
    assert heard == ["one"]
    assert isinstance(model, Scripted)
    assert model.requests == [
        Request((Message("user", "Hi"),), first),
        Request((Message("user", "Hi"), Message("assistant", "one")), second),
    ]
    assert model.name == "scripted"


def test_exceptions_are_raised_in_turn() -> None:
    busy = Busy("full", 3.0)
    model = Scripted(iter([busy, Reply("yes")]))
    with pytest.raises(Busy) as raised:
        model.complete(ASK, Call())
    assert raised.value is busy
    assert model.complete(ASK, Call()) == Reply("yes")


def test_running_out() -> None:
    model = Scripted([Reply("one")], name="ollama:m")
    model.complete(ASK, Call())
    with pytest.raises(ModelError) as fault:
        model.complete(ASK, Call())
    assert str(fault.value) == (
        "ollama:m should have a reply for every request; it had none for number 2. Write more replies."
    )


def test_a_function_answers() -> None:
    def echo(messages: Sequence[Message], call: Call) -> Reply:
        return Reply(f"{messages[-1].content} at {call.temperature}")

    model = Scripted(echo)
    assert [model.complete(ASK, Call(temperature=t)).text for t in (0.0, 1.0)] == ["Hi at 0.0", "Hi at 1.0"]
    assert len(model.requests) == 2


def test_cancelled() -> None:
    model, call = Scripted([Reply("one")]), Call()
    call.cancelled.set()
    with pytest.raises(Cancelled):
        model.complete(ASK, call)
    assert model.requests == []
