"""The file that tools act on."""

import pytest

from asi_lab.llm.codefile import CodeFile
from asi_lab.llm.model import ToolCall
from asi_lab.llm.parse import Unreadable

CODE = """\
class DeltaNet:
    def forward(self, x):
        return x

    def other(self, x):
        return x
"""


def edit(old: str, new: str) -> dict[str, str]:
    return {"edits": f"<<<<<<< SEARCH\n{old}=======\n{new}>>>>>>> REPLACE\n"}


def test_a_whole_file_with_or_without_a_fence():
    for content in ("class DeltaNet:\n    pass\n", "```python\nclass DeltaNet:\n    pass\n```"):
        file = CodeFile(CODE)
        assert not file.written
        assert file.write({"content": content}) == "Written: 2 lines, valid Python."
        assert file.code == "class DeltaNet:\n    pass\n"
        assert file.written


def test_reading_and_unknown_tools():
    file = CodeFile(CODE)
    assert file.call(ToolCall("read_code_file", {"path": "/etc/passwd"})) == CODE
    with pytest.raises(Unreadable, match="no tool run"):
        file.call(ToolCall("run", {}))


def test_an_edit_replaces_the_one_place():
    file = CodeFile(CODE)
    file.write(
        edit("    def other(self, x):\n        return x\n", "    def other(self, x):\n        return -x\n")
    )
    assert file.code == CODE[: CODE.rindex("return x")] + "return -x\n"


def test_an_edit_may_miss_the_indentation():
    file = CodeFile(CODE)
    file.write(edit("def other(self, x):\n    return x\n", "def other(self, x):\n    y = x\n    return y\n"))
    assert file.code.endswith("    def other(self, x):\n        y = x\n        return y\n")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (edit("        return x\n", "        return 1\n"), "2 times"),
        (edit("    def forwards(self, x):\n", "\n"), "does not stand in the file"),
        (edit("    def forwards(self, x):\n", "\n"), "def forward"),
        (edit("\n", "x\n"), "is empty"),
        ({"edits": "replace line 3"}, "no complete block"),
        (
            {"content": "class DeltaNet:\n    def forward(self\n"},
            "no valid Python and was not written: line 2",
        ),
        ({}, "needs `content`"),
    ],
)
def test_what_cannot_be_done_is_told_and_changes_nothing(arguments, told):
    file = CodeFile(CODE)
    with pytest.raises(Unreadable, match=told):
        file.write(arguments)
    assert file.code == CODE
    assert not file.written


def test_of_several_edits_all_or_none_are_made():
    file = CodeFile(CODE)
    good, bad = edit("class DeltaNet:\n", "class DeltaNet(object):\n"), edit("nothing\n", "x\n")
    with pytest.raises(Unreadable):
        file.write({"edits": good["edits"] + bad["edits"]})
    assert file.code == CODE


def test_arguments_that_are_no_valid_json_are_read_as_meant():
    file = CodeFile(CODE)
    file.write({"_raw": '{"content": "class DeltaNet:\\n    pass\\n",}'})
    assert file.code == "class DeltaNet:\n    pass\n"
