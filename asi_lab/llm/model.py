"""The seam to language models: one method, and the values that go through it.

    complete(messages, tools, schema, temperature, timeout) -> Reply

Whatever is on the other side (a local server, a paid service, a recording), a role sees only this.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol

import msgspec

from asi_lab.errors import LabError

RAW = "_raw"
"""Under this name stand the arguments of a call that are no JSON object, as the model wrote them."""


class ToolCall(msgspec.Struct, frozen=True):
    """A model's wish to call a tool. `arguments` is what it gave, not yet checked."""

    name: str
    arguments: dict[str, Any]
    id: str = ""


class Message(msgspec.Struct, frozen=True):
    """One turn of a conversation. A `tool` message answers the call `call_id` of the tool `name`."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str = ""
    calls: tuple[ToolCall, ...] = ()
    call_id: str = ""
    name: str = ""


class Tool(msgspec.Struct, frozen=True):
    """A function that the model may call; `parameters` is the JSON schema of its arguments."""

    name: str
    description: str
    parameters: dict[str, Any]


class TokenUsage(msgspec.Struct, frozen=True):
    """Tokens that one call took, as the server counted them; None where it did not say."""

    prompt: int | None = None
    completion: int | None = None


class Reply(msgspec.Struct, frozen=True):
    """What a model answered. `finish` is `length` where it was cut off. `seconds` is the wall time."""

    text: str = ""
    calls: tuple[ToolCall, ...] = ()
    finish: Literal["stop", "length", "calls"] = "stop"
    usage: TokenUsage = TokenUsage()
    seconds: float = 0.0


class ModelError(LabError):
    """A model cannot be had: the message says why, and which command or setting puts it right."""


class Busy(ModelError):
    """The call may succeed when it is made again: no connection, too many requests, a server's own fault.

    `after` is how many seconds the server asked to wait, None where it did not say.
    """

    def __init__(self, message: str, after: float | None = None) -> None:
        super().__init__(message)
        self.after = after


NOT_READY = frozenset({502, 503})
"""Statuses of a server that is not ready, said by itself or by what stands before it."""


class NotReady(Busy):
    """The server is there but not ready: it loads its model, or has no room for now."""


class Unreachable(Busy):
    """Nothing answers at the server's address."""


class NoTools(ModelError):
    """The model cannot call tools. The same call without tools may succeed."""


class TooLong(ModelError):
    """The conversation is longer than the model's context. A shorter one may succeed."""


class Cancelled(Exception):
    """The call was given up because the engine stops."""


class Call(msgspec.Struct, frozen=True):
    """How a call is to be made.

    `schema` is a JSON schema that the text must follow, where the server can enforce one. `timeout` bounds
    the silence of the server in seconds, not the length of its answer. `on_text` sees the answer piece by
    piece as it comes. `cancelled` is set from outside to give the call up.
    """

    tools: tuple[Tool, ...] = ()
    schema: dict[str, Any] | None = None
    temperature: float = 0.7
    timeout: float = 600.0
    on_text: Callable[[str], None] = lambda piece: None
    cancelled: threading.Event = msgspec.field(default_factory=threading.Event)


class Model(Protocol):
    """A language model under a name such as `ollama:qwen3-coder:30b`."""

    @property
    def name(self) -> str:
        """Provider and model, as in the settings."""

    def complete(self, messages: Sequence[Message], call: Call) -> Reply:
        """Answer a conversation.

        Raises:
            Busy: it may be tried again.
            ModelError: trying again is no use.
            Cancelled: `call.cancelled` was set meanwhile.
        """
