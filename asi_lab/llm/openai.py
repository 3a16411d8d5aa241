"""Models of OpenAI, and of every server that speaks its chat protocol (vLLM, llama.cpp, LM Studio, others).

Such servers differ in which parameters they take. One that is refused by name is left out from then on.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import msgspec

from asi_lab.common.text import plain
from asi_lab.common.trust import KeyHost
from asi_lab.errors import ConfigError
from asi_lab.llm import network
from asi_lab.llm.model import (
    NOT_READY,
    RAW,
    Busy,
    Call,
    Message,
    ModelError,
    NoTools,
    NotReady,
    Reply,
    TokenUsage,
    ToolCall,
    TooLong,
    Unreachable,
)
from asi_lab.llm.wire import CONNECT_SECONDS, Connections, bare, exchange, of_one_length, said

OPTIONAL = ("stream_options", "response_format", "temperature")
"""Parameters that are left out where the server refuses them."""

EMBED_SECONDS = 120.0
LIST_SECONDS = 10.0
NO_KEY = "no-key"
"""Sent where no key is set: a local server needs none, but the client insists on one."""

DEFAULT_URL = "https://api.openai.com/v1"

_TOO_LONG = ("context_length_exceeded", "maximum context length", "exceed_context_size", "context window")
_NO_TOOLS = ("support tools", "support tool use", "support function", "tool choice requires")


class OpenAI:
    """A model of OpenAI or of a compatible server, under the name `openai:<model>`."""

    def __init__(self, model: str, base_url: str | None = None) -> None:
        """`base_url` is the server, by default OPENAI_BASE_URL or OpenAI itself. The key is OPENAI_API_KEY; a
        server of one's own may need none.

        Raises:
            ConfigError: `base_url` is no address.
            ConsentError: the key may not go to that server.
            ModelError: there is no key for OpenAI itself, or it is malformed.
        """
        self.model = model
        given = base_url or os.environ.get("OPENAI_BASE_URL", "").strip()
        self.base_url = _checked_url(given or DEFAULT_URL)
        key_host(base_url).check()
        self._key = os.environ.get("OPENAI_API_KEY", "").strip()
        if not self._key and not given:
            raise ModelError(
                "OpenAI needs a key in OPENAI_API_KEY; it is not set. Set it, or set OPENAI_BASE_URL or "
                "agents.openai_base_url to a server that needs none."
            )
        if not self._key.isascii() or any(not c.isprintable() or c.isspace() for c in self._key):
            raise ModelError(
                "OPENAI_API_KEY should be one word of plain characters; it holds others. Copy the key again."
            )
        self._lock = threading.Lock()
        self._refused: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        """Provider and model, as in the settings."""
        return f"openai:{self.model}"

    def complete(self, messages: Sequence[Message], call: Call) -> Reply:
        """Answer a conversation. Where the server takes no schema or temperature, the answer has neither.

        Raises:
            Busy: too many requests, the server is silent or at fault, or the answer is empty or garbled;
                `Unreachable` without a connection, `NotReady` where the server is.
            NoTools: the model cannot call tools.
            TooLong: the conversation is longer than the model's context.
            ModelError: the key or the request is refused, the model is missing, or the account is empty.
            Cancelled: `call.cancelled` was set meanwhile.
        """
        started = time.monotonic()
        request = self._request(messages, call)
        answer = _Answer()

        def read(line: Connections) -> Iterator[str]:
            client = _client(self.base_url, self._key, call.timeout, line)
            with client, self._open(client, request) as stream:
                for chunk in stream:
                    yield answer.take(chunk)

        text = exchange(call, read, lambda error, line: self._explain(error, line, call))
        if answer.reason is None:
            raise Busy(f"{self._server} broke off its answer before the end")
        calls = answer.calls()
        if not text.strip() and not calls:
            raise Busy(f"{self.name} gave an empty answer (it ended with {said(answer.reason, self._key)!r})")
        finish: Literal["stop", "length", "calls"] = "calls" if calls else "stop"
        if answer.reason == "length":
            finish = "length"
        return Reply(text, calls, finish, answer.usage, time.monotonic() - started)

    def offered(self) -> list[str]:
        """Return the names of the models that the server has for this key, sorted. Raises `Busy` and
        `ModelError` as `complete`."""
        line = Connections()
        try:
            with _client(self.base_url, self._key, LIST_SECONDS, line) as client:
                return sorted(entry.id for entry in client.models.list())
        except Exception as error:
            fault = self._explain(error, line, Call(timeout=LIST_SECONDS))
        raise fault

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """Return one vector for each text, all of one length. Raises `Busy` and `ModelError` as
        `complete`."""
        if not texts:
            return []
        line = Connections()
        try:
            with _client(self.base_url, self._key, EMBED_SECONDS, line) as client:
                answer = client.embeddings.create(
                    model=self.model, input=list(texts), encoding_format="float"
                )
                rows = sorted(answer.data, key=lambda row: row.index)
                vectors = [[float(x) for x in row.embedding] for row in rows]
        except Exception as error:
            fault = self._explain(error, line, Call(timeout=EMBED_SECONDS))
        else:
            return of_one_length(vectors, len(texts), self._server)
        raise fault

    @property
    def _server(self) -> str:
        return f"the model server at {bare(self.base_url)}"

    def _request(self, messages: Sequence[Message], call: Call) -> dict[str, Any]:
        request: dict[str, Any] = {
            "model": self.model,
            "messages": [_turn(message) for message in messages],
            "stream": True,
            "stream_options": {"include_usage": True},
            "temperature": call.temperature,
        }
        if call.tools:
            request["tools"] = [
                {"type": "function", "function": msgspec.to_builtins(tool)} for tool in call.tools
            ]
        if call.schema is not None:
            form = {"name": "answer", "schema": call.schema, "strict": _is_strict(call.schema)}
            request["response_format"] = {"type": "json_schema", "json_schema": form}
        return request

    def _open(self, client: Any, request: dict[str, Any]) -> Any:
        """Start the answer; parameters that the server refuses by name are left out, now and later."""
        from openai import BadRequestError, UnprocessableEntityError

        while True:
            sent = {name: value for name, value in request.items() if name not in self._refused}
            try:
                return client.chat.completions.create(**sent)
            except (BadRequestError, UnprocessableEntityError) as error:
                words = f"{error.param} {_message(error)}"
                refused = {name for name in OPTIONAL if name in sent and name in words}
                if not refused or _is_about(error, _TOO_LONG):
                    raise
                with self._lock:
                    self._refused |= refused

    def _explain(self, error: Exception, line: Connections, call: Call) -> Exception:
        """The error of the official client as one of ours; one that is not about the server unchanged."""
        import httpx2
        import openai

        server = self._server
        if isinstance(error, openai.APIStatusError):
            return self._refusal(error, error.status_code, line, call)
        if isinstance(error, openai.APITimeoutError) and not isinstance(
            error.__cause__, httpx2.ConnectTimeout
        ):
            return Busy(f"{server} was silent for {call.timeout:g} s")
        if isinstance(error, openai.APIConnectionError):
            if isinstance(error.__cause__, httpx2.ConnectError | httpx2.ConnectTimeout):
                return Unreachable(f"{server} cannot be reached; check that it runs, and the network")
            return Busy(f"the connection to {server} broke ({type(error.__cause__).__name__})")
        if isinstance(error, openai.APIError):  # the fault came in the middle of the answer
            return self._refusal(error, 500, line, call)
        if isinstance(error, httpx2.HTTPError | OSError):
            return Busy(f"the connection to {server} broke ({type(error).__name__})")
        if isinstance(error, ValueError | TypeError | AttributeError | LookupError):
            return Busy(f"{server} sent an answer that cannot be read ({type(error).__name__})")
        return error

    def _refusal(self, error: Any, status: int, line: Connections, call: Call) -> ModelError:
        server, words = self._server, said(_message(error), self._key)
        if status in {401, 403}:  # the server's words may repeat a part of the key
            if self._key:
                return ModelError(f"OPENAI_API_KEY is refused by {server} ({status}). Set another key.")
            return ModelError(f"{server} asks for a key ({status}). Set OPENAI_API_KEY.")
        if "insufficient_quota" in (error.code, error.type):
            return ModelError(f"the account at {server} is used up: {words}. Add credit or use another key.")
        if status in {408, 409, 425, 429}:
            return Busy(f"{server} takes no more requests now ({status}): {words}", line.after)
        if _is_about(error, _TOO_LONG):
            return TooLong(f"the conversation is too long for {self.name}: {words}")
        if call.tools and _is_about(error, _NO_TOOLS):
            return NoTools(f"{self.name} cannot call tools: {words}")
        if status in NOT_READY:
            return NotReady(f"{server} is not ready ({status}): {words}", line.after)
        if status >= 500:
            return Busy(f"{server} is at fault ({status}): {words}", line.after)
        if status == 404:
            return ModelError(
                f"{server} has no model {plain(self.model)}: {words}. Set agents.models to one that it lists."
            )
        return ModelError(f"{server} refuses the request ({status}): {words}")


def key_host(base_url: str | None) -> KeyHost:
    """Where OPENAI_API_KEY is sent; `base_url` is as in `OpenAI`."""
    named = os.environ.get("OPENAI_BASE_URL", "").strip()
    return KeyHost("OPENAI_API_KEY", base_url or named or DEFAULT_URL, (DEFAULT_URL, named))


def embed(base_url: str | None, model: str, texts: Sequence[str]) -> list[list[float]]:
    """Vectors of texts; `base_url` and what is raised are as in `OpenAI`."""
    return OpenAI(model, base_url).embed(texts)


class _Answer:
    """What came beside text."""

    def __init__(self) -> None:
        self.reason: str | None = None
        self.usage = TokenUsage()
        self._calls: dict[int, dict[str, str]] = {}

    def take(self, chunk: Any) -> str:
        """Take in one chunk and return the text in it."""
        if chunk.usage:
            self.usage = TokenUsage(chunk.usage.prompt_tokens, chunk.usage.completion_tokens)
        if not chunk.choices:
            return ""
        choice = chunk.choices[0]
        self.reason = choice.finish_reason or self.reason
        if choice.delta is None:
            return ""
        for delta in choice.delta.tool_calls or ():
            self._add(delta)
        text: str = choice.delta.content or choice.delta.refusal or ""
        return text

    def calls(self) -> tuple[ToolCall, ...]:
        """The calls, put together from their pieces."""
        ordered = [self._calls[index] for index in sorted(self._calls)]
        return tuple(ToolCall(c["name"], _arguments(c["arguments"]), c["id"]) for c in ordered)

    def _add(self, delta: Any) -> None:
        index = delta.index
        if not isinstance(index, int):  # some servers leave it out: then a new id begins a new call
            index = max(self._calls, default=0) + (1 if delta.id and self._calls else 0)
        call = self._calls.setdefault(index, {"id": "", "name": "", "arguments": ""})
        call["id"] = call["id"] or delta.id or ""
        if delta.function is not None:
            call["name"] = call["name"] or delta.function.name or ""
            call["arguments"] += delta.function.arguments or ""


def _client(base_url: str, key: str, timeout: float, line: Connections) -> Any:
    import openai

    return openai.OpenAI(
        api_key=key or NO_KEY,
        base_url=base_url,
        max_retries=0,
        timeout=openai.Timeout(timeout, connect=min(timeout, CONNECT_SECONDS)),
        http_client=openai.DefaultHttpxClient(event_hooks=line.hooks, **network.options(base_url)),
    )


def _checked_url(address: str) -> str:
    if network.split(address) is None:
        raise ConfigError(
            "an OpenAI-compatible server should be an address such as http://127.0.0.1:8000/v1; "
            f"found {bare(address)!r}. Set agents.openai_base_url or OPENAI_BASE_URL."
        )
    return address


def _turn(message: Message) -> dict[str, Any]:
    turn: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.calls:
        turn["tool_calls"] = [
            {
                "id": call.id or f"call_{index}",
                "type": "function",
                "function": {"name": call.name, "arguments": json.dumps(call.arguments)},
            }
            for index, call in enumerate(message.calls)
        ]
    if message.role == "tool":
        turn["tool_call_id"] = message.call_id
    return turn


def _arguments(text: str) -> dict[str, Any]:
    if not text.strip():
        return {}
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {RAW: text}
    return value if isinstance(value, dict) else {RAW: text}


def _is_strict(schema: Any) -> bool:
    """Whether OpenAI's strict mode takes the schema: every object closed, every property required."""
    if isinstance(schema, list):
        return all(map(_is_strict, schema))
    if not isinstance(schema, dict):
        return True
    if schema.get("type") == "object" or "properties" in schema:
        names = schema.get("properties", {})
        if schema.get("additionalProperties") is not False or set(schema.get("required", ())) != set(names):
            return False
    return all(map(_is_strict, schema.values()))


def _message(error: Any) -> str:
    """What the server said: the `message` of an error object, or everything."""
    body = error.body
    if isinstance(body, dict) and isinstance(body.get("message"), str):
        return str(body["message"])
    if body is None:
        return str(error.message)
    return body if isinstance(body, str) else json.dumps(body)


def _is_about(error: Any, signs: tuple[str, ...]) -> bool:
    words = f"{error.code} {error.type} {_message(error)}".lower()
    return any(sign in words for sign in signs)
