"""One role asks one model: tools carried out, cut-off answers continued, wrong ones retried.

system, user -> reply -> tool calls? carry out, go on; an answer beside them that lacks nothing ends it
                      -> cut off?    let it go on where it stopped
                      -> an answer   read it; unreadable: say precisely what is wrong, a few times
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from asi_lab.llm.codefile import TOOLS, CodeFile
from asi_lab.llm.model import Call, Message, Model, NoTools, Reply, ToolCall, TooLong
from asi_lab.llm.parse import Unreadable, calls_of, code_of, edits_of, record_of, without_reasoning
from asi_lab.llm.prompting import Prompt

T = TypeVar("T")

MOST_TURNS = 16
REMINDERS = 2
CONTINUATIONS = 3
KEPT_FREE = 10_240
"""Tokens of the window that are left to the answer and to what is said after the first question."""
SHARES = (1.0, 0.6, 0.3)
"""Of the room for a question: the next one where the server finds the last one too long."""
LEAST_OVERLAP, MOST_OVERLAP = 8, 2000
"""Characters that a model may repeat where it goes on."""

_GO_ON = "Your answer was cut off. Go on exactly where it stopped, with the next character. Repeat nothing."
_CUT_CALL = (
    "Your tool call was cut off before its end and was not carried out. Write the change as `edits` "
    "(SEARCH/REPLACE blocks), which are shorter than the whole file."
)


class RoleFailed(Exception):
    """The model gave no usable answer; the message says what was wrong with the last one."""


class Asker(Protocol):
    """Puts the prompt of a role to its model. Roles see only this.

    Raises `RoleFailed` where no usable answer comes, `ModelError` where no model can be had.
    """

    def __call__(
        self,
        role: str,
        kind: type[T],
        values: Mapping[str, str],
        code: CodeFile | None = None,
        is_done: Callable[[T], str] = lambda answer: "",
    ) -> T:
        """Return the answer as a record of `kind`. `values` fill the prompt; the rest is as in `ask`."""

    def model_of(self, role: str) -> str:
        """The name of the model that answers for a role."""


class Question(msgspec.Struct, frozen=True):
    """What a role wants to know.

    `system` and `user` are the rendered prompt, `schema` the JSON schema of the answer, `call` says how the
    calls are to be made (its tools and schema are filled in here).
    """

    system: str
    user: str
    call: Call
    schema: dict[str, Any] | None = None


class Window(msgspec.Struct, frozen=True):
    """The window of a model: its size in tokens, and `count`, which gives the tokens of a text."""

    tokens: int
    count: Callable[[str], int]

    def room(self, share: float) -> int:
        """Tokens for a question, where it is to take that share of what it may have."""
        return int(share * max(self.tokens // 2, self.tokens - KEPT_FREE))


def ask_in_window(
    model: Model,
    prompt: Prompt,
    values: Mapping[str, str],
    call: Call,
    window: Window,
    kind: type[T],
    code: CodeFile | None = None,
    is_done: Callable[[T], str] = lambda answer: "",
) -> T:
    """As `ask`, with the prompt's question cut to the model's window, and cut further where the server still
    finds it too long.

    Raises:
        TooLong: it is too long even at the smallest of `SHARES`.
        RoleFailed, ModelError: as `ask`.
    """
    for share in SHARES:
        system, user = prompt.fitted(values, window.room(share), window.count)
        try:
            return ask(model, Question(system, user, call, prompt.schema), kind, code, is_done)
        except TooLong as error:
            too_long = error
            if code is not None:
                code.restore()
    raise too_long


def ask(
    model: Model,
    question: Question,
    kind: type[T],
    code: CodeFile | None = None,
    is_done: Callable[[T], str] = lambda answer: "",
) -> T:
    """Put a question and return the answer as a record of `kind`.

    `code` is the file that the tools read and write; without one there are no tools. `is_done` looks at an
    answer and returns what is still missing, empty if nothing.

    Raises:
        RoleFailed: no usable answer after a few reminders.
        ModelError, Cancelled: the model cannot be had, or the engine stops.
    """
    return _Conversation(model, question, kind, code, is_done).run()


class _Conversation(Generic[T]):
    def __init__(
        self,
        model: Model,
        question: Question,
        kind: type[T],
        code: CodeFile | None,
        is_done: Callable[[T], str],
    ) -> None:
        self.model, self.kind, self.code, self.is_done = model, kind, code, is_done
        self.messages = [Message("system", question.system), Message("user", question.user)]
        tools = tuple(TOOLS.values()) if code else ()
        schema = None if code else question.schema
        self.call = msgspec.structs.replace(question.call, tools=tools, schema=schema)
        self.reminders = self.continuations = 0

    def run(self) -> T:
        text = ""  # of an answer in several pieces
        for _ in range(MOST_TURNS):
            reply = self._complete()
            calls = reply.calls or self._written_calls(reply.text)
            if calls:
                self._carry_out(reply, calls)
                if (answer := self._beside(reply)) is not None:
                    return answer
                text = ""
                continue
            text = _joined(text, reply.text)
            if reply.finish == "length" and self.continuations < CONTINUATIONS:
                self.continuations += 1
                self._say(reply.text, _GO_ON)
                continue
            try:
                return self._read(without_reasoning(text))
            except Unreadable as fault:
                self._remind(reply.text, str(fault))
                text = ""
        raise RoleFailed(f"no answer after {MOST_TURNS} turns")

    def _complete(self) -> Reply:
        try:
            return self.model.complete(self.messages, self.call)
        except NoTools:
            self.call = msgspec.structs.replace(self.call, tools=())
            return self.model.complete(self.messages, self.call)

    def _written_calls(self, text: str) -> tuple[ToolCall, ...]:
        """Calls that the model wrote as text although tools were offered, or because it has none."""
        return calls_of(without_reasoning(text), frozenset(TOOLS)) if self.code else ()

    def _carry_out(self, reply: Reply, calls: tuple[ToolCall, ...]) -> None:
        numbered = tuple(
            call if call.id else msgspec.structs.replace(call, id=f"call_{len(self.messages)}_{i}")
            for i, call in enumerate(calls)
        )
        as_text = not reply.calls  # then the answers go back as text too
        self.messages.append(Message("assistant", reply.text, calls=() if as_text else numbered))
        told = [self._one(call, cut=reply.finish == "length") for call in numbered]
        if as_text:
            self.messages.append(Message("user", "\n".join(told)))
            return
        for call, words in zip(numbered, told, strict=True):
            self.messages.append(Message("tool", words, call_id=call.id, name=call.name))

    def _one(self, call: ToolCall, *, cut: bool) -> str:
        if self.code is None:
            return "There are no tools here. Give the answer as text."
        if cut:  # half a file may well be valid Python
            return _CUT_CALL
        try:
            return self.code.call(call)
        except Unreadable as fault:
            return f"Not done: {fault}"

    def _beside(self, reply: Reply) -> T | None:
        """The answer that came together with tool calls, if it is whole and the file is sound."""
        if not reply.calls or not reply.text.strip() or reply.finish == "length":
            return None
        try:
            answer = self._read(without_reasoning(reply.text))
        except Unreadable:
            return None
        return None if self.code is not None and self.code.faults else answer

    def _read(self, text: str) -> T:
        """The answer, after the code that may stand beside it was taken."""
        if self.code is not None and not self.code.written:
            if edits := edits_of(text):
                self.code.edit(edits)
            elif (code := code_of(text)) is not None:
                self.code.replace(code)
        answer = record_of(text, self.kind)
        if missing := self.is_done(answer):
            raise Unreadable(missing)
        return answer

    def _remind(self, text: str, fault: str) -> None:
        if self.reminders >= REMINDERS:
            raise RoleFailed(fault)
        self.reminders += 1
        self._say(text, f"This cannot be used: {fault}. Put exactly this right and answer once more.")

    def _say(self, theirs: str, ours: str) -> None:
        self.messages += [Message("assistant", theirs), Message("user", ours)]


def _joined(text: str, piece: str) -> str:
    """An answer with its next piece; a fence that was opened again and what was repeated are left out."""
    if not text:
        return piece
    head, _, rest = piece.partition("\n")
    if head.lstrip().startswith("```") and rest:
        piece = rest
    longest = min(len(text), len(piece), MOST_OVERLAP)
    overlap = next((n for n in range(longest, LEAST_OVERLAP, -1) if text.endswith(piece[:n])), 0)
    return text + piece[overlap:]
