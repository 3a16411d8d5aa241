"""A model whose replies are written beforehand: for tests, and for runs without any server."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import msgspec

from asi_lab.llm.model import Call, Cancelled, Message, Model, ModelError, Reply


class Request(msgspec.Struct, frozen=True):
    """What a scripted model was asked."""

    messages: tuple[Message, ...]
    call: Call


class Scripted(Model):
    """Gives the replies of a list in turn, or those of a function; an exception in the list is raised.

    `requests` holds what it was asked.
    """

    def __init__(
        self,
        replies: Iterable[Reply | Exception] | Callable[[Sequence[Message], Call], Reply],
        name: str = "scripted",
    ) -> None:
        self.requests: list[Request] = []
        self._name = name
        self._answer = replies if callable(replies) else None
        self._replies = iter(()) if callable(replies) else iter(replies)

    @property
    def name(self) -> str:
        """The name given to it."""
        return self._name

    def complete(self, messages: Sequence[Message], call: Call) -> Reply:
        """Give the next reply, after its text was shown to `call.on_text`.

        Raises:
            ModelError: there are no more replies.
            Exception: the one that stands in the list.
            Cancelled: `call.cancelled` is set.
        """
        if call.cancelled.is_set():
            raise Cancelled("the call was given up")
        self.requests.append(Request(tuple(messages), call))
        reply = self._next(messages, call)
        if reply.text:
            call.on_text(reply.text)
        return reply

    def _next(self, messages: Sequence[Message], call: Call) -> Reply:
        if self._answer is not None:
            return self._answer(messages, call)
        reply = next(self._replies, None)
        if reply is None:
            raise ModelError(
                f"{self.name} should have a reply for every request; it had none for number "
                f"{len(self.requests)}. Write more replies."
            )
        if isinstance(reply, Exception):
            raise reply
        return reply
