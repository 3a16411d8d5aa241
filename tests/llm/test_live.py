"""Answers in the making, as viewers see them."""

import threading

import pytest

from asi_lab.llm.live import TAIL, LiveAnswers


def test_an_answer_is_seen_while_it_comes_and_gone_when_it_is_there():
    talks = LiveAnswers()
    with talks.heard(3, "planner", "openai:a") as hear:
        (talk,) = talks.now()
        assert (talk.candidate, talk.role, talk.model, talk.characters, talk.tail) == (
            3,
            "planner",
            "openai:a",
            0,
            "",
        )
        hear("class ")
        hear("DeltaNet")
        assert talks.now()[0].tail == "class DeltaNet"
        hear("x" * 1000)
        (talk,) = talks.now()
        assert talk.characters == 1014
        assert talk.tail == "x" * TAIL
    assert talks.now() == []
    hear("late")  # from a thread that was given up
    assert talks.now() == []


def test_a_failed_one_is_gone_too():
    talks = LiveAnswers()

    def broken():
        with talks.heard(3, "planner", "openai:a"):
            raise ValueError

    with pytest.raises(ValueError):
        broken()
    assert talks.now() == []


def test_many_talk_at_once_and_are_told_by_candidate():
    talks, together = LiveAnswers(), threading.Barrier(4)

    def work(number: int) -> None:
        with talks.heard(number, "planner", "openai:a") as hear:
            hear(str(number))
            together.wait(10)
            together.wait(10)

    threads = [threading.Thread(target=work, args=(number,)) for number in (7, 5, 6)]
    for thread in threads:
        thread.start()
    together.wait(10)
    assert [(talk.candidate, talk.tail) for talk in talks.now()] == [(5, "5"), (6, "6"), (7, "7")]
    together.wait(10)
    for thread in threads:
        thread.join()
