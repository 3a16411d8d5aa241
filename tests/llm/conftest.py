"""A server on 127.0.0.1 that speaks the chat formats of Ollama and OpenAI and does what a test tells it."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from asi_lab.common import trust
from asi_lab.llm import Model

Chunk = dict[str, Any]


@dataclass(frozen=True)
class Seen:
    """A request that came in; the names of `headers` are in lower case."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]


class OllamaWire:
    """Newline-delimited JSON."""

    kind = "application/x-ndjson"

    def text(self, piece: str, thinking: str = "") -> Chunk:
        message = {"role": "assistant", "content": piece} | ({"thinking": thinking} if thinking else {})
        return {"model": "m", "message": message, "done": False}

    def calls(self, calls: Sequence[tuple[str, Any]]) -> Iterator[Chunk]:
        functions = [{"function": {"name": name, "arguments": arguments}} for name, arguments in calls]
        message = {"role": "assistant", "content": "", "tool_calls": functions}
        yield {"model": "m", "message": message, "done": False}

    def end(self, reason: str, usage: tuple[int, int] | None) -> Iterator[Chunk]:
        end = {"model": "m", "message": {"role": "assistant", "content": ""}, "done": True}
        counts = {"prompt_eval_count": usage[0], "eval_count": usage[1]} if usage else {}
        yield end | {"done_reason": "stop" if reason == "tool_calls" else reason} | counts

    def fault(self, message: str, code: str | None) -> Chunk:
        return {"error": message}

    def refusal(self, message: str, code: str | None, param: str | None) -> Any:
        return {"error": message}

    def encode(self, chunk: Chunk | str) -> bytes:
        return (chunk if isinstance(chunk, str) else json.dumps(chunk)).encode() + b"\n"

    tail = b""


class OpenAIWire:
    """Server-sent events."""

    kind = "text/event-stream"

    def _chunk(self, delta: Chunk, finish: str | None = None) -> Chunk:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return {"id": "c", "object": "chat.completion.chunk", "created": 0, "model": "m", "choices": [choice]}

    def text(self, piece: str, thinking: str = "") -> Chunk:
        return self._chunk({"content": piece} | ({"reasoning_content": thinking} if thinking else {}))

    def calls(self, calls: Sequence[tuple[str, Any]]) -> Iterator[Chunk]:
        """First all names, then the arguments in thirds, in turn."""
        texts = [a if isinstance(a, str) else json.dumps(a) for _, a in calls]
        for index, (name, _) in enumerate(calls):
            function = {"name": name, "arguments": ""}
            yield self._chunk(
                {
                    "tool_calls": [
                        {"index": index, "id": f"id_{index}", "type": "function", "function": function}
                    ]
                }
            )
        for part in range(3):
            for index, text in enumerate(texts):
                third = text[len(text) * part // 3 : len(text) * (part + 1) // 3]
                yield self._chunk({"tool_calls": [{"index": index, "function": {"arguments": third}}]})

    def end(self, reason: str, usage: tuple[int, int] | None) -> Iterator[Chunk]:
        yield self._chunk({}, reason)
        if usage:
            counts = {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)}
            yield self._chunk({}) | {"choices": [], "usage": counts}

    def fault(self, message: str, code: str | None) -> Chunk:
        return {"error": {"message": message, "type": "server_error", "code": code, "param": None}}

    def refusal(self, message: str, code: str | None, param: str | None) -> Any:
        return {"error": {"message": message, "type": "invalid_request_error", "code": code, "param": param}}

    def encode(self, chunk: Chunk | str) -> bytes:
        return b"data: " + (chunk if isinstance(chunk, str) else json.dumps(chunk)).encode() + b"\n\n"

    tail = b"data: [DONE]\n\n"


Wire = OllamaWire | OpenAIWire


class _Quiet(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that leave in the middle are part of the tests."""


class Server:
    """What to do for each chat, in turn, and what came in. Each method adds one thing to do."""

    def __init__(self) -> None:
        self.requests: list[Seen] = []
        self.hung_up = threading.Event()
        """Set when the client closed its connection while the server was silent."""
        self.stopping = threading.Event()
        self.todo: deque[Callable[[_Handler, Wire], None]] = deque()
        self.models = ["small:1b", "big:30b"]
        self.http = _Quiet(("127.0.0.1", 0), _Handler)
        self.http.daemon_threads = True
        self.http.script = self  # type: ignore[attr-defined]
        self.address = f"http://127.0.0.1:{self.http.server_port}"
        self.vectors: list[list[float]] | None = None

    def answer(
        self,
        *pieces: str,
        calls: Sequence[tuple[str, Any]] = (),
        reason: str | None = None,
        usage: tuple[int, int] | None = (11, 7),
        pause: float = 0.0,
        thinking: str = "",
    ) -> None:
        def act(handler: _Handler, wire: Wire) -> None:
            handler.begin(wire)
            if thinking:
                handler.chunk(wire.encode(wire.text("", thinking)))
            for piece in pieces:
                time.sleep(pause)
                handler.chunk(wire.encode(wire.text(piece)))
            for chunk in wire.calls(calls) if calls else ():
                handler.chunk(wire.encode(chunk))
            for chunk in wire.end(reason or ("tool_calls" if calls else "stop"), usage):
                handler.chunk(wire.encode(chunk))
            handler.chunk(wire.tail)
            handler.finish_chunks()

        self.todo.append(act)

    def refuse(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        **headers: str,
    ) -> None:
        """Underscores in the names of headers become hyphens."""

        def act(handler: _Handler, wire: Wire) -> None:
            names = {name.replace("_", "-"): value for name, value in headers.items()}
            handler.whole(wire.refusal(message, code, param), status, names)

        self.todo.append(act)

    def silence(self, *pieces: str) -> None:
        """Say nothing more after the pieces; without any, not even the headers."""

        def act(handler: _Handler, wire: Wire) -> None:
            if pieces:
                handler.begin(wire)
            for piece in pieces:
                handler.chunk(wire.encode(wire.text(piece)))
            handler.wait_for_hang_up()

        self.todo.append(act)

    def cut(self, *pieces: str) -> None:
        """Close the connection after the pieces; without any, before the headers."""

        def act(handler: _Handler, wire: Wire) -> None:
            if pieces:
                handler.begin(wire)
            for piece in pieces:
                handler.chunk(wire.encode(wire.text(piece)))
            handler.hang_up()

        self.todo.append(act)

    def lines(self, *lines: str, pieces: Sequence[str] = ("Hel",)) -> None:
        """Send some pieces, then these lines as they are, and end the body properly."""

        def act(handler: _Handler, wire: Wire) -> None:
            handler.begin(wire)
            for piece in pieces:
                handler.chunk(wire.encode(wire.text(piece)))
            for line in lines:
                handler.chunk(wire.encode(line))
            handler.finish_chunks()

        self.todo.append(act)

    def fault(self, message: str, *, code: str | None = None, pieces: Sequence[str] = ("Hel",)) -> None:
        """Report an error in the middle of an answer."""

        def act(handler: _Handler, wire: Wire) -> None:
            handler.begin(wire)
            for piece in pieces:
                handler.chunk(wire.encode(wire.text(piece)))
            handler.chunk(wire.encode(wire.fault(message, code)))
            handler.finish_chunks()

        self.todo.append(act)

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [seen.body for seen in self.requests]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def script(self) -> Server:
        return self.server.script  # type: ignore[attr-defined,no-any-return]

    def log_message(self, *words: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._see(b"{}")
        if self.path == "/api/version":
            self.whole({"version": "0.12.0"})
        elif self.path == "/api/tags":
            self.whole({"models": [{"name": name, "model": name} for name in self.script.models]})
        elif self.path == "/v1/models":
            self.whole({"object": "list", "data": [{"id": n, "object": "model"} for n in self.script.models]})
        else:
            self.whole({"error": "no such page"}, 404)

    def do_POST(self) -> None:
        seen = self._see(self.rfile.read(int(self.headers["Content-Length"])))
        wires: dict[str, Wire] = {"/api/chat": OllamaWire(), "/v1/chat/completions": OpenAIWire()}
        wire = wires.get(self.path, OllamaWire())
        chat = self.path in wires
        if self.script.todo and (chat or self.script.vectors is None):
            self.script.todo.popleft()(self, wire)
        elif self.path == "/api/embed":
            vectors = self.script.vectors or []
            self.whole({"model": seen.body["model"], "embeddings": vectors})
        else:
            self.whole({"error": "the test wrote no answer for this request"}, 418)

    def _see(self, body: bytes) -> Seen:
        headers = {name.lower(): value for name, value in self.headers.items()}
        seen = Seen(self.path, headers, json.loads(body))
        self.script.requests.append(seen)
        return seen

    def whole(self, value: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        for name, content in (headers or {}).items():
            self.send_header(name, content)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def begin(self, wire: Wire) -> None:
        self.send_response(200)
        self.send_header("Content-Type", wire.kind)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def chunk(self, data: bytes) -> None:
        if data:
            self._write(b"%x\r\n%s\r\n" % (len(data), data))

    def finish_chunks(self) -> None:
        self._write(b"0\r\n\r\n")

    def _write(self, data: bytes) -> None:
        with contextlib.suppress(OSError):  # the client may have left
            self.wfile.write(data)

    def hang_up(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def wait_for_hang_up(self) -> None:
        self.close_connection = True
        self.connection.settimeout(0.05)
        while not self.script.stopping.is_set():
            with contextlib.suppress(TimeoutError):
                try:
                    gone = not self.connection.recv(1)
                except ConnectionError:
                    gone = True
                if gone:
                    self.script.hung_up.set()
                    return


@pytest.fixture
def server(_environment: None) -> Iterator[Server]:
    """A running server with nothing to do yet, which keys may be sent to."""
    script = Server()
    grant(script.address)
    thread = threading.Thread(target=script.http.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield script
    script.stopping.set()
    script.http.shutdown()
    script.http.server_close()
    thread.join()


def grant(address: str) -> None:
    """Let keys go to a server."""
    trust.keep(trust.Grants(hosts=dict.fromkeys(KEYS.values(), frozenset({address}))))


KEYS = {"ollama": "OLLAMA_API_KEY", "openai": "OPENAI_API_KEY"}
CANARY = "sk-canary-0123456789"


@dataclass(frozen=True)
class Provider:
    """One of the clients, to be tried on a server. `key` is set in the environment."""

    name: str
    key: str

    def model(self, address: str, model: str = "big:30b") -> Model:
        grant(address)
        if self.name == "ollama":
            from asi_lab.llm.ollama import Ollama

            return Ollama(model, address)
        from asi_lab.llm.openai import OpenAI

        return OpenAI(model, f"{address}/v1")

    def server(self, address: str) -> str:
        """What messages call the server."""
        return f"Ollama at {address}" if self.name == "ollama" else f"the model server at {address}/v1"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    for name in ("OLLAMA_HOST", "OPENAI_BASE_URL", *KEYS.values()):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture(params=["ollama", "openai"])
def provider(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Provider:
    """Both clients, one after the other."""
    monkeypatch.setenv(KEYS[request.param], CANARY)
    return Provider(request.param, CANARY)
