"""Every call is recorded, and a recorded call is never paid for twice.

A call is known by what was asked: model, messages, tools, schema, temperature, and how often the same was
asked before for this candidate. So a search that was killed while a role was at work takes up the replies
it has, and a candidate's roles can be run again without any model.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from asi_lab.llm.model import Call, Message, Model, ModelError, NoTools, Reply

SECRETS = ("OPENAI_API_KEY", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "OLLAMA_API_KEY")
LEAST_SECRET = 8


class Exchange(msgspec.Struct, frozen=True):
    """One call: who asked whom, what was sent and what came back; `error` where nothing did."""

    role: str
    model: str
    started: float
    messages: tuple[Message, ...]
    tools: tuple[str, ...]
    temperature: float
    reply: Reply = Reply()
    error: str = ""


class Tape(Protocol):
    """Where the exchanges of one candidate are kept."""

    def find(self, key: str) -> Exchange | None:
        """The exchange of that key, if it took place."""

    def keep(self, key: str, exchange: Exchange) -> None:
        """Record an exchange durably."""


class Recorded:
    """A model whose exchanges go to a tape, and come from there where the same was asked before.

    Without a `model` there is only the tape.
    """

    def __init__(self, name: str, model: Model | None, role: str, tape: Tape, asked: Counter[str]) -> None:
        """`asked` counts what one run has asked for one candidate; its roles share it."""
        self._name, self._model, self._role, self._tape, self._asked = name, model, role, tape, asked

    @property
    def name(self) -> str:
        """Provider and model."""
        return self._name

    def complete(self, messages: Sequence[Message], call: Call) -> Reply:
        """Answer from the tape, or ask the model and keep what it says. Raises as `Model.complete`."""
        digest = _digest(self._name, messages, call)
        self._asked[digest] += 1
        key = f"{digest}-{self._asked[digest]}"
        known = self._tape.find(key)
        if known is not None:
            if known.error == NoTools.__name__:
                raise NoTools("this model takes no tools")
            return known.reply
        if self._model is None:
            raise ModelError(f"{self._role}: the recording holds no reply to this question")
        asked = Exchange(
            self._role,
            self._name,
            time.time(),
            tuple(messages),
            tuple(tool.name for tool in call.tools),
            call.temperature,
        )
        try:
            reply = self._model.complete(messages, call)
        except NoTools:
            self._tape.keep(key, _redacted(msgspec.structs.replace(asked, error=NoTools.__name__)))
            raise
        kept = _redacted(msgspec.structs.replace(asked, reply=reply))
        self._tape.keep(key, kept)
        return kept.reply


def _digest(name: str, messages: Sequence[Message], call: Call) -> str:
    asked: list[Any] = [name, list(messages), list(call.tools), call.schema, call.temperature]
    return hashlib.sha256(msgspec.json.encode(asked, order="deterministic")).hexdigest()[:24]


def _redacted(exchange: Exchange) -> Exchange:
    """The exchange without secrets of the environment, should one have got into it."""
    text = msgspec.json.encode(exchange).decode()
    for name in SECRETS:
        secret = os.environ.get(name, "")
        if len(secret) >= LEAST_SECRET:
            text = text.replace(msgspec.json.encode(secret).decode()[1:-1], f"[{name}]")
    return msgspec.json.decode(text, type=Exchange)
