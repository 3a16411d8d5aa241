"""The exchange with a server that every client goes through.

A server may be silent for minutes while it loads a model or reads a long prompt, and may die meanwhile.
So the answer is read in a thread of its own (`exchange`), and the caller can leave at any moment: then the
sockets are shut down, which also tells the server to stop.
"""

from __future__ import annotations

import contextlib
import math
import queue
import re
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

from asi_lab.common.text import plain
from asi_lab.llm.model import Busy, Call, Cancelled, ModelError

CONNECT_SECONDS = 10.0
POLL_SECONDS = 0.1
MOST_CHARACTERS = 400_000
"""An answer this long comes from a model that repeats itself without end."""


class Connections:
    """The connections of one call, which another thread may cut, and the wait that the server asked for."""

    def __init__(self) -> None:
        self.after: float | None = None
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._is_cut = False

    @property
    def hooks(self) -> dict[str, list[Callable[..., Any]]]:
        """Event hooks for an httpx client, whose calls then go over this line."""
        return {"request": [self._on_request], "response": [self._on_response]}

    def cut(self) -> None:
        """End every connection, also one that is only being made; whoever waits on one wakes up."""
        with self._lock:
            self._is_cut = True
            for connection in self._sockets:
                _shut(connection)

    def _on_request(self, request: Any) -> None:
        request.extensions["trace"] = self._on_trace

    def _on_response(self, response: Any) -> None:
        self.after = _wait_asked_for(response.headers)

    def _on_trace(self, event: str, details: dict[str, Any]) -> None:
        if not event.endswith(("connect_tcp.complete", "start_tls.complete")):
            return
        connection = details["return_value"].get_extra_info("socket")
        if not isinstance(connection, socket.socket):
            return
        with self._lock:
            self._sockets.append(connection)
            if self._is_cut:
                _shut(connection)


def _shut(connection: socket.socket) -> None:
    """Closing would leave a reader in another thread asleep, and TLS's own shutdown would wait for it."""
    with contextlib.suppress(OSError):
        socket.socket.shutdown(connection, socket.SHUT_RDWR)


def _wait_asked_for(headers: Any) -> float | None:
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) * unit
        except ValueError:
            continue
        if math.isfinite(seconds) and seconds >= 0:
            return seconds
    return None


def exchange(
    call: Call,
    read: Callable[[Connections], Iterator[str]],
    explain: Callable[[Exception, Connections], Exception],
) -> str:
    """Run `read` in a thread and return the text that it yields, passing each piece on to `call.on_text`.

    `read` yields an empty piece where something else than text came. What it raises is raised here as
    `explain` puts it, without the original, which may hold secrets.

    Raises:
        Cancelled: `call.cancelled` was set, at most `POLL_SECONDS` ago, whatever the server does.
        ModelError: the answer has no end.
    """
    if call.cancelled.is_set():
        raise Cancelled("the call was given up")
    line = Connections()
    arrived: queue.SimpleQueue[str | Exception | None] = queue.SimpleQueue()

    def pump() -> None:
        try:
            for piece in read(line):
                arrived.put(piece)
        except Exception as error:
            arrived.put(error)
        else:
            arrived.put(None)

    threading.Thread(target=pump, daemon=True, name="model").start()
    text: list[str] = []
    length = 0
    try:
        while True:
            piece = _next(arrived)
            if call.cancelled.is_set():
                raise Cancelled("the call was given up")
            if piece is None:
                return "".join(text)
            if isinstance(piece, Exception):
                raise explain(piece, line)
            if piece:
                text.append(piece)
                length += len(piece)
                call.on_text(piece)
            if length > MOST_CHARACTERS:
                raise ModelError(f"the model does not end its answer: {length:,} characters so far")
    finally:
        line.cut()


def _next(arrived: queue.SimpleQueue[str | Exception | None]) -> str | Exception | None:
    """What comes next; an empty piece where nothing came for a moment."""
    try:
        return arrived.get(timeout=POLL_SECONDS)
    except queue.Empty:
        return ""


def said(text: object, *secrets: str) -> str:
    """What a server said, on one short harmless line without the secrets that it may repeat."""
    words = str(text)
    for secret in filter(None, secrets):
        words = words.replace(secret, "***")
    words = plain(words)
    for secret in filter(None, secrets):  # once more: it may have been spelt with characters that do not show
        words = words.replace(secret, "***")
    return plain(words, limit=300)


def bare(address: str) -> str:
    """An address as it is shown: without the user, password and query that it may carry, however they are
    written. Nothing before the last @ is shown, which may belong to any of them."""
    scheme, mark, rest = address.rpartition("://")
    return plain(scheme + mark + re.split("[?&#]", rest.rpartition("@")[2])[0], limit=200)


def of_one_length(vectors: list[list[float]], wanted: int, server: str) -> list[list[float]]:
    """The vectors that a server gave for `count` texts.

    Raises:
        Busy: they are more or fewer, or of several lengths.
    """
    if len(vectors) == wanted and len({len(vector) for vector in vectors}) == 1:
        return vectors
    raise Busy(f"{server} should give {wanted} vectors of one length; it gave {len(vectors)}")
