"""What was said between the roles and their models, as text."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from asi_lab.common.text import plain
from asi_lab.events import LiveAnswer
from asi_lab.lab import Store
from asi_lab.llm.model import Message, ToolCall
from asi_lab.llm.record import Exchange
from asi_lab.view.replay import Outcome, conversations

LONGEST = 20_000
"""Characters of a message that are shown; the JSON has all of it."""


def recorded(store: Store, candidate_id: int) -> list[Exchange]:
    """The calls to language models that were made for a candidate."""
    return [msgspec.convert(one, Exchange) for one in store.ledger.calls(candidate_id)]


def transcript(exchanges: Sequence[Exchange], talks: Sequence[LiveAnswer] = ()) -> RenderableType:
    """All conversations of a candidate, each message once, and the ends of the answers in the making."""
    parts: list[RenderableType] = []
    for conversation in conversations(exchanges):
        first = conversation[0]
        parts.append(Text(f"\n{plain(first.role)}: {plain(first.model)}", style="bold"))
        shown = 0
        for exchange in conversation:
            parts += [
                _message(message) for message in exchange.messages[shown:] if message.role != "assistant"
            ]
            parts.append(_reply(exchange))
            shown = len(exchange.messages)
    for talk in talks:
        heading = f"{talk.model} answers as {talk.role} right now, {talk.characters:,} characters so far"
        parts += [Text(), _said(heading, f"...{talk.tail}" if talk.tail else "", style="yellow")]
    return Group(*parts)


def _message(message: Message) -> RenderableType:
    return _said(f"{message.role}{f' {message.name}' if message.name else ''}", message.content)


def _reply(exchange: Exchange) -> RenderableType:
    reply = exchange.reply
    if exchange.error:
        return Text(f"-- no answer: {plain(exchange.error)}", style="yellow")
    tokens = f"{reply.usage.prompt or '?'} + {reply.usage.completion or '?'} tokens"
    heading = f"{exchange.model} ({tokens}, {reply.seconds:.1f} s, ended by {reply.finish})"
    calls = "\n".join(_call(call) for call in reply.calls)
    return _said(heading, f"{reply.text}\n{calls}".strip("\n"), style="cyan")


def _call(call: ToolCall) -> str:
    arguments = "\n".join(f"{name} = {value}" for name, value in call.arguments.items())
    return f"calls {call.name}:\n{arguments}"


def _said(heading: str, text: str, style: str = "dim") -> RenderableType:
    return Text(f"-- {plain(heading)}\n", style=style).append(
        plain(text, multiline=True, limit=LONGEST), style="default"
    )


def outcomes(found: Sequence[Outcome]) -> RenderableType:
    """What a replay gave, against the record."""
    table = Table(box=None, pad_edge=False)
    for heading in ("role", "model", "calls", "as recorded", "result"):
        table.add_column(heading, no_wrap=heading == "as recorded", overflow="fold")
    for outcome in found:
        agrees = {True: "yes", False: "NO", None: "-"}[outcome.agrees]
        style = "red" if outcome.agrees is False else ""
        cells = (
            outcome.role,
            plain(outcome.model),
            str(outcome.calls),
            agrees,
            plain(outcome.result, limit=160),
        )
        table.add_row(*(Text(cell) for cell in cells), style=style)
    return table
