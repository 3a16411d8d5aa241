"""Reading answers of many shapes."""

import msgspec
import pytest

from asi_lab.llm.parse import Unreadable, calls_of, code_of, edits_of, record_of, without_reasoning

CODE = "class DeltaNet:\n    def forward(self):\n        return {'a': 1}\n"


class Plan(msgspec.Struct):
    name: str
    count: int = 0


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("<think>first\nsecond</think>\nanswer", "answer"),
        ("thoughts without a beginning</think>answer", "answer"),
        ("answer <think>and then it was cut", "answer"),
        ("<THINK>a</THINK>b<reasoning>c</reasoning>d", "bd"),
        ("a < b and b > c", "a < b and b > c"),
    ],
)
def test_reasoning_is_left_out(text, left):
    assert without_reasoning(text) == left


@pytest.mark.parametrize(
    "text",
    [
        f"Here it is:\n```python\n{CODE}```\nDone.",
        f"```\n{CODE}```",
        f"~~~py\n{CODE}~~~",
        f"```python\n{CODE}",  # the fence was forgotten, the code is whole
        f"```python\nx = 1\n```\nand\n```python\n{CODE}```\n",
        CODE,
    ],
)
def test_the_file_is_found(text):
    assert code_of(text).strip() == CODE.strip()


def test_no_file_and_a_cut_file():
    assert code_of("I would add a gate to the class of models.") is None
    with pytest.raises(Unreadable, match="ends in the middle"):
        code_of("```python\nclass DeltaNet:\n    def forward(self, x:")


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "a", "count": 2}',
        'Sure!\n```json\n{"name": "a", "count": 2}\n```\nI hope this helps {really}.',
        '{"Name": "a", "count": "2",}',
        "{'name': 'a', 'count': 2}",
        'the plan: {"name": "a", "count": 2} as asked',
        '{"name": "a", "count": 2',
        '```json\n{"name": "x"\n```\nno, better:\n```json\n{"name": "a", "count": 2}\n```',
    ],
)
def test_an_object_is_read_as_it_is_meant(text):
    assert record_of(text, Plan) == Plan("a", 2)


def test_lines_in_strings_are_no_fault():
    assert record_of('{"name": "one\ntwo"}', Plan) == Plan("one\ntwo")


def test_what_is_wrong_is_told():
    with pytest.raises(Unreadable, match="no JSON object"):
        record_of("I like gates.", Plan)
    with pytest.raises(Unreadable, match="missing required field `name`"):
        record_of('{"title": "a"}', Plan)


def test_calls_written_as_text():
    tools = frozenset({"write_code_file"})
    tagged = '<tool_call>{"name": "write_code_file", "arguments": {"content": "x"}}</tool_call>'
    fenced = '```json\n{"name": "write_code_file", "parameters": {"content": "x"}}\n```'
    for text in (tagged, fenced, '{"name": "write_code_file", "arguments": {"content": "x"}}'):
        (call,) = calls_of(text, tools)
        assert call.arguments == {"content": "x"}
    assert calls_of('{"name": "delta_net_x", "motivation": "m"}', tools) == ()
    assert calls_of('{"name": "rm", "arguments": {"path": "/"}}', tools) == ()


def test_edits():
    text = "<<<<<<< SEARCH\nold\n=======\nnew\nlines\n>>>>>>> REPLACE\n"
    text += "<<<<<<< SEARCH\na\n=======\n>>>>>>> REPLACE\n"
    assert edits_of(text) == [("old\n", "new\nlines\n"), ("a\n", "")]
    assert edits_of("<<<<<<< SEARCH\nold\n=======\nnever ends") == []
