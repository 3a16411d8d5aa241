"""Conversations with models that err."""

import msgspec
import pytest

from asi_lab.llm.ask import CONTINUATIONS, MOST_TURNS, Question, RoleFailed, ask
from asi_lab.llm.codefile import CodeFile
from asi_lab.llm.model import Call, NoTools, Reply, ToolCall
from asi_lab.llm.scripted import Scripted

OLD, NEW = "class DeltaNet:\n    pass\n", "class DeltaNet:\n    gate = 1\n"


class Plan(msgspec.Struct):
    name: str


GOOD = '{"name": "gated"}'
QUESTION = Question("You design.", "Design.", Call(), {"type": "object"})


def write(content: str) -> ToolCall:
    return ToolCall("write_code_file", {"content": content})


def put(replies, code: CodeFile | None = None, **options):
    model = Scripted(replies)
    return ask(model, QUESTION, Plan, code, **options), model


def must_write(code: CodeFile):
    return lambda plan: "" if code.written else "architecture.py was not changed"


def test_an_answer_at_once_is_asked_for_by_its_schema():
    answer, model = put([Reply(GOOD)])
    assert answer == Plan("gated")
    (request,) = model.requests
    messages, call = request.messages, request.call
    assert [message.role for message in messages] == ["system", "user"]
    assert call.schema == {"type": "object"}
    assert call.tools == ()


def test_a_tool_is_called_and_its_result_goes_back():
    code = CodeFile(OLD)
    answer, model = put([Reply("", (write(NEW),), "calls"), Reply(GOOD)], code, is_done=must_write(code))
    assert answer == Plan("gated")
    assert code.code == NEW
    messages, call = model.requests[1].messages, model.requests[1].call
    assert {tool.name for tool in call.tools} == {"write_code_file", "read_code_file"}
    assert call.schema is None  # it would keep a model without tools from writing the file
    assert messages[-2].calls[0].id == messages[-1].call_id != ""
    assert messages[-1].content == "Written: 2 lines, valid Python."


def test_without_tools_the_file_stands_in_the_text():
    code = CodeFile(OLD)
    answer, model = put(
        [NoTools("none"), Reply(f"```python\n{NEW}```\n```json\n{GOOD}\n```")],
        code,
        is_done=must_write(code),
    )
    assert (answer, code.code) == (Plan("gated"), NEW)
    assert model.requests[1].call.tools == ()


def test_a_call_written_as_text_is_carried_out():
    code = CodeFile(OLD)
    written = msgspec.json.encode({"name": "write_code_file", "arguments": {"content": NEW}}).decode()
    _, model = put([Reply(f"<tool_call>{written}</tool_call>"), Reply(GOOD)], code, is_done=must_write(code))
    assert code.code == NEW
    assert [message.role for message in model.requests[1].messages[-2:]] == ["assistant", "user"]


def test_prose_instead_of_a_call_is_asked_for_again():
    code = CodeFile(OLD)
    replies = [Reply(f"I would add a gate. {GOOD}"), Reply("", (write(NEW),), "calls"), Reply(GOOD)]
    _, model = put(replies, code, is_done=must_write(code))
    assert code.code == NEW
    assert "architecture.py was not changed" in model.requests[1].messages[-1].content


def test_a_faulty_file_is_told_with_its_line():
    code = CodeFile(OLD)
    replies = [
        Reply("", (write("class DeltaNet:\n  def f(:\n"),), "calls"),
        Reply("", (write(NEW),), "calls"),
    ]
    _, model = put([*replies, Reply(GOOD)], code, is_done=must_write(code))
    assert "line 2" in model.requests[1].messages[-1].content
    assert code.code == NEW


def test_a_cut_answer_goes_on_where_it_stopped():
    code = CodeFile(OLD)
    whole = f"```python\n{NEW}```\n```json\n{GOOD}\n```"
    replies = [Reply(whole[:30], finish="length"), Reply(whole[30:])]
    answer, model = put(replies, code, is_done=must_write(code))
    assert (answer, code.code) == (Plan("gated"), NEW)
    assert "cut off" in model.requests[1].messages[-1].content


def test_a_continuation_that_repeats_and_opens_its_fence_again():
    code = CodeFile(OLD)
    whole = f"```python\n{NEW}```\n{GOOD}"
    replies = [Reply(whole[:35], finish="length"), Reply("```python\n" + whole[20:])]
    put(replies, code, is_done=must_write(code))
    assert code.code == NEW


def test_an_answer_without_end_fails():
    replies = [Reply("more ", finish="length")] * (CONTINUATIONS + 4)
    with pytest.raises(RoleFailed, match="no JSON object"):
        put(replies)


def test_a_cut_call_is_answered_with_the_shorter_way():
    code = CodeFile(OLD)
    cut = Reply("", (write("class DeltaNet:\n    half = 1\n"),), "length")  # valid Python all the same
    _, model = put([cut, Reply("", (write(NEW),), "calls"), Reply(GOOD)], code, is_done=must_write(code))
    assert "edits" in model.requests[1].messages[-1].content
    assert code.code == NEW


def test_after_two_reminders_the_role_fails():
    with pytest.raises(RoleFailed, match="no JSON object"):
        put([Reply("gates!")] * 3)


def test_a_model_that_only_reads_is_ended():
    read = Reply("", (ToolCall("read_code_file", {}),), "calls")
    with pytest.raises(RoleFailed, match=f"{MOST_TURNS} turns"):
        put([read] * MOST_TURNS, CodeFile(OLD))


def test_reasoning_is_no_answer():
    answer, _ = put([Reply('<think>maybe {"name": "wrong"}</think>' + GOOD)])
    assert answer == Plan("gated")


def test_an_answer_beside_the_call_saves_a_turn():
    code = CodeFile(OLD)
    answer, model = put([Reply(GOOD, (write(NEW),), "calls")], code, is_done=must_write(code))
    assert answer == Plan("gated")
    assert code.code == NEW
    assert len(model.requests) == 1


@pytest.mark.parametrize(
    "first",
    [
        Reply(GOOD, (write(OLD),), "calls"),  # nothing was changed
        Reply(GOOD, (write("class DeltaNet:\n  def f(:\n"),), "calls"),  # no Python
        Reply(GOOD, (write("import os\n" + NEW),), "calls"),  # has a fault
        Reply("I will gate it.", (write(NEW),), "calls"),
        Reply(GOOD, (write(NEW),), "length"),  # cut: the call was not carried out
    ],
)
def test_an_answer_beside_a_call_that_leaves_something_to_do_does_not_end_it(first):
    code = CodeFile(OLD, lambda text: "imports: os" if "import os" in text else "")
    answer, model = put(
        [first, Reply("", (write(NEW),), "calls"), Reply(GOOD)], code, is_done=must_write(code)
    )
    assert answer == Plan("gated")
    assert code.code == NEW
    assert len(model.requests) == 3


def test_faults_that_reading_shows_are_told_with_the_tool_s_answer():
    code = CodeFile(OLD, lambda text: "imports (line 1): os" if "import os" in text else "")
    faulty, sound = (Reply("", (write(text),), "calls") for text in ("import os\n" + NEW, NEW))
    replies = [faulty, sound, Reply(GOOD)]
    _, model = put(replies, code, is_done=must_write(code))
    told = [message.content for message in model.requests[-1].messages if message.role == "tool"]
    assert told == [
        "Written: 3 lines, valid Python. It cannot be used yet: imports (line 1): os",
        "Written: 2 lines, valid Python.",
    ]
