"""Models of an Ollama server."""

from __future__ import annotations

import functools
import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, cast
from urllib.parse import urlsplit

import msgspec

from asi_lab.common.text import plain
from asi_lab.common.trust import KeyHost
from asi_lab.errors import ConfigError
from asi_lab.llm import network
from asi_lab.llm.model import (
    NOT_READY,
    Busy,
    Call,
    Message,
    ModelError,
    NoTools,
    NotReady,
    Reply,
    TokenUsage,
    ToolCall,
    Unreachable,
)
from asi_lab.llm.wire import CONNECT_SECONDS, Connections, bare, exchange, of_one_length, said

KEEP_ALIVE = "30m"
"""How long the server keeps a model in memory; roles take turns, and loading takes a while."""

LEAST_WINDOW = 4096
ANSWER_TOKENS = 8192
BYTES_PER_TOKEN = 3
"""A low estimate for English and code, so that a prompt is rather thought too long than cut off."""

DEFAULT_PORT = 11434
DEFAULT_HOST = f"127.0.0.1:{DEFAULT_PORT}"
OFFICIAL = "https://ollama.com"

LIST_SECONDS = 10.0
EMBED_SECONDS = 300.0


class _Answer:
    """What came beside text."""

    def __init__(self) -> None:
        self.calls: list[ToolCall] = []
        self.reason: str | None = None
        self.usage = TokenUsage()


class Ollama:
    """A model of an Ollama server, under the name `ollama:<model>`."""

    def __init__(self, model: str, host: str | None = None, context: int = 32768) -> None:
        """`host` is the server, by default OLLAMA_HOST or this machine. `context` is the largest window in
        tokens that is asked for: a larger one takes more memory.

        Raises:
            ConfigError: `host` is no address.
            ConsentError: the key may not go there.
        """
        self.model = model
        self.host = _address(host)
        key_host(host).check()
        official()
        self.context = context
        self._lock = threading.Lock()
        self._window = 0

    @property
    def name(self) -> str:
        """Provider and model, as in the settings."""
        return f"ollama:{self.model}"

    def complete(self, messages: Sequence[Message], call: Call) -> Reply:
        """Answer a conversation. A prompt longer than `context` is cut off by the server without a word.

        Raises:
            Busy: the server is busy, silent or at fault, or the answer is empty or garbled; `Unreachable`
                without a connection, `NotReady` where the server is.
            NoTools: the model cannot call tools.
            ModelError: the model is not pulled, or the server refuses the request.
            Cancelled: `call.cancelled` was set meanwhile.
        """
        started = time.monotonic()
        request = self._request(messages, call)
        answer = _Answer()

        def read(line: Connections) -> Iterator[str]:
            with _client(self.host, call.timeout, line) as client:
                for part in client.chat(**request):
                    message = part.message
                    answer.calls += [
                        ToolCall(c.function.name, dict(c.function.arguments))
                        for c in message.tool_calls or ()
                    ]
                    if part.done:
                        answer.reason = part.done_reason or "stop"
                        answer.usage = TokenUsage(part.prompt_eval_count, part.eval_count)
                    yield message.content or ""

        text = exchange(call, read, lambda error, line: _explain(error, line, self.host, self.model, call))
        if answer.reason is None:
            raise Busy(f"{_server(self.host)} broke off its answer before the end")
        if not text.strip() and not answer.calls:
            raise Busy(f"{self.name} gave an empty answer (it ended with {said(answer.reason, _key())!r})")
        finish: Literal["stop", "length", "calls"] = "calls" if answer.calls else "stop"
        if answer.reason == "length":
            finish = "length"
        return Reply(text, tuple(answer.calls), finish, answer.usage, time.monotonic() - started)

    def _request(self, messages: Sequence[Message], call: Call) -> dict[str, Any]:
        turns = [_turn(message) for message in messages]
        tools = [{"type": "function", "function": msgspec.to_builtins(tool)} for tool in call.tools]
        window = self._window_for(len(msgspec.json.encode([turns, tools, call.schema])))
        return {
            "model": self.model,
            "messages": turns,
            "tools": tools or None,
            "stream": True,
            "format": call.schema,
            "options": {
                "temperature": call.temperature,
                "num_ctx": window,
                "num_predict": ANSWER_TOKENS,  # a model that repeats itself would never end
            },
            "keep_alive": KEEP_ALIVE,
        }

    def _window_for(self, prompt_bytes: int) -> int:
        """The smallest window that holds the prompt and an answer; never a smaller one than before, since
        the server loads the model anew for every other size."""
        needed = math.ceil(prompt_bytes / BYTES_PER_TOKEN) + ANSWER_TOKENS
        window = max(LEAST_WINDOW, 1 << (needed - 1).bit_length())
        with self._lock:
            self._window = max(self._window, min(window, self.context))
            return self._window


def installed(host: str | None) -> dict[str, int]:
    """Return the models that are pulled by name, sorted, with the bytes of each on the server's disk, 0 where
    it does not tell. `host` is as in `Ollama`.

    Raises:
        ConfigError: `host` is no address.
        ConsentError: the key may not go there.
        Busy: no connection, or the server is at fault.
        ModelError: the server refuses the request.
    """
    address, line = _address(host), Connections()
    try:
        with _client(address, LIST_SECONDS, line) as client:
            found = {entry.model: int(entry.size or 0) for entry in client.list().models if entry.model}
            return dict(sorted(found.items()))
    except Exception as error:
        fault = _explain(error, line, address, "", Call(timeout=LIST_SECONDS))
    raise fault


def pull(host: str | None, model: str, say: Callable[[str], None]) -> None:
    """Have the server fetch a model; `say` gets a line whenever something else is being done.

    Raises:
        ConfigError: `host` is no address.
        ConsentError: the key may not go there.
        Busy: no connection, or the server is at fault.
        ModelError: there is no such model.
    """
    address, line = _address(host), Connections()
    last = ""
    try:
        with _client(address, EMBED_SECONDS, line) as client:
            for part in client.pull(model, stream=True):
                step = f"{model}: {part.status or ''}"
                if step != last:
                    say(said(step, _key()))
                last = step
        return
    except Exception as error:
        fault = _explain(error, line, address, model, Call(timeout=EMBED_SECONDS))
    raise fault


def embed(host: str | None, model: str, texts: Sequence[str]) -> list[list[float]]:
    """Return one vector for each text, all of one length. `host` is as in `Ollama`.

    Raises:
        ConfigError: `host` is no address.
        ConsentError: the key may not go there.
        Busy: no connection, or the server is at fault.
        ModelError: the model is not pulled, or is none for embeddings.
    """
    if not texts:
        return []
    address, line = _address(host), Connections()
    try:
        with _client(address, EMBED_SECONDS, line) as client:
            answer = client.embed(model=model, input=list(texts), keep_alive=KEEP_ALIVE)
            vectors = [[float(x) for x in vector] for vector in answer.embeddings]
    except Exception as error:
        fault = _explain(error, line, address, model, Call(timeout=EMBED_SECONDS))
    else:
        return of_one_length(vectors, len(texts), _server(address))
    raise fault


def _client(host: str, timeout: float, line: Connections) -> Any:
    import httpx

    key_host(host).check()
    patience = httpx.Timeout(timeout, connect=min(timeout, CONNECT_SECONDS))
    return official().Client(
        host=host, timeout=patience, event_hooks=line.hooks, **network.options(_url(host))
    )


@functools.cache
def official() -> Any:
    """The official package, which makes a client of its own while it is imported. Whoever goes on to start
    threads asks for it before: until it is there, the environment lacks some variables."""
    with network.unread():
        import ollama
    return ollama


def key_host(host: str | None) -> KeyHost:
    """Where OLLAMA_API_KEY is sent; `host` is as in `Ollama`. Raises `ConfigError` as that does."""
    own = (OFFICIAL, _url(DEFAULT_HOST), _url(_address(None)))
    return KeyHost("OLLAMA_API_KEY", _url(_address(host)), own)


def _url(address: str) -> str:
    """An address with what the official client adds to it."""
    parts = urlsplit(address if "://" in address else f"http://{address}")
    host = parts.hostname or "127.0.0.1"
    port = parts.port or (None if "://" in address else DEFAULT_PORT)
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}{f':{port}' if port else ''}"


def _address(host: str | None) -> str:
    address = host or os.environ.get("OLLAMA_HOST", "").strip() or DEFAULT_HOST
    scheme, mark, rest = address.rpartition("://")
    host_first = f"127.0.0.1{rest}" if rest.startswith((":", "/")) else rest
    if network.split(f"{scheme if mark else 'http'}://{host_first}") is None:
        raise _wrong_address(address)
    return address


def is_here(host: str | None) -> bool:
    """Whether the server's address is one of this machine alone. `host` is as in `Ollama`.

    Raises:
        ConfigError: `host` is no address.
    """
    place = _address(host).rpartition("://")[2].removeprefix("[")
    return place.startswith(("127.", "localhost", "0.0.0.0", "::1", ":"))


def _wrong_address(address: str) -> ConfigError:
    return ConfigError(
        "Ollama's server should be an address such as 127.0.0.1:11434 or http://host:11434; "
        f"found {bare(address)!r}. Set agents.ollama_host or OLLAMA_HOST."
    )


def _key() -> str:
    """What the official client sends to a server that wants a key."""
    return os.environ.get("OLLAMA_API_KEY", "").strip()


def _server(host: str) -> str:
    return f"Ollama at {bare(host)}"


def _turn(message: Message) -> dict[str, Any]:
    turn: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.calls:
        turn["tool_calls"] = [
            {"function": {"name": call.name, "arguments": call.arguments}} for call in message.calls
        ]
    if message.role == "tool":
        turn["tool_name"] = message.name
    return turn


def _explain(error: Exception, line: Connections, host: str, model: str, call: Call) -> Exception:
    """The error of the official client as one of ours; an error that is not about the server unchanged."""
    import httpx

    server = _server(host)
    if isinstance(error, official().ResponseError):
        return _refusal(error, line, server, model, call)
    if isinstance(error, ConnectionError | httpx.ConnectError | httpx.ConnectTimeout):
        return Unreachable(f"{server} cannot be reached; is it running? Start it with `ollama serve`.")
    if isinstance(error, httpx.TimeoutException):
        return Busy(f"{server} was silent for {call.timeout:g} s")
    if isinstance(error, httpx.HTTPError | OSError):
        return Busy(f"the connection to {server} broke ({type(error).__name__})")
    if isinstance(error, httpx.InvalidURL):
        return _wrong_address(host)
    if isinstance(error, ValueError | TypeError | AttributeError | LookupError):
        return Busy(f"{server} sent an answer that cannot be read ({type(error).__name__})")
    return error


def _refusal(error: Any, line: Connections, server: str, model: str, call: Call) -> ModelError:
    words = said(error.error, _key())
    model = plain(model)
    status = cast(int, error.status_code)
    if call.tools and "does not support tools" in words:
        return NoTools(f"{model} on {server} cannot call tools: {words}")
    if status == 404 and model:
        return ModelError(f"{server} has no model {model}: {words}. Get it with `ollama pull {model}`.")
    if status in {401, 403}:
        return ModelError(f"{server} refuses access ({status}): {words}. Sign in with `ollama signin`.")
    if status in NOT_READY:
        return NotReady(f"{server} is not ready ({status}): {words}", line.after)
    if status in {-1, 408, 425, 429} or status >= 500:  # -1: the fault came in the middle of the answer
        number = "" if status < 0 else f" ({status})"
        return Busy(f"{server} is busy or at fault{number}: {words}", line.after)
    return ModelError(f"{server} refuses the request ({status}): {words}")
