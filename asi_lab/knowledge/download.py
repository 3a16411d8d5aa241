"""A document from the network, bounded in bytes and seconds. It leads to no server of this machine or its
network unless the user named one."""

from __future__ import annotations

import ipaddress
import socket
import threading
import time
from typing import Any
from urllib.parse import urljoin, urlsplit

from asi_lab.common.text import plain
from asi_lab.errors import KnowledgeError
from asi_lab.llm.network import options
from asi_lab.llm.wire import Connections, bare

SECONDS = 60.0
"""For the whole download, redirects among it."""
MOST_BYTES = 64 << 20
MOST_REDIRECTS = 5


def fetch(address: str) -> bytes:
    """What an address of http or https gives.

    Raises:
        KnowledgeError: it cannot be had, is too long or takes too long, or the server sends us to a private
            address while `address` is none itself.
        ConfigError: the environment names a proxy or certificates that cannot be used.
    """
    import httpx

    line, deadline = Connections(), time.monotonic() + SECONDS
    cutting = threading.Timer(SECONDS, line.cut)
    cutting.daemon = True
    cutting.start()
    is_private = _leads_to_private(address)
    try:
        with httpx.Client(event_hooks=line.hooks, timeout=SECONDS, **options(address)) as client:
            place = address
            for _ in range(MOST_REDIRECTS + 1):
                with client.stream("GET", place) as answer:
                    if not answer.is_redirect:
                        answer.raise_for_status()
                        return _content(answer, address, deadline)
                    place = urljoin(place, answer.headers["location"])
                _check_redirect(address, place, is_private)
    except httpx.HTTPStatusError as error:
        raise KnowledgeError(f"{address}: the server answered {error.response.status_code}.") from None
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        if time.monotonic() > deadline:
            raise _too_slow(address) from None
        raise KnowledgeError(
            f"{address}: it cannot be reached ({type(error).__name__}). Without a network give a file: "
            "asi-lab cognition add paper.pdf"
        ) from None
    finally:
        cutting.cancel()
    raise KnowledgeError(f"{address}: expected a document; found more than {MOST_REDIRECTS} redirects.")


def _content(answer: Any, address: str, deadline: float) -> bytes:
    content = bytearray()
    for piece in answer.iter_bytes():
        content += piece
        if len(content) > MOST_BYTES:
            raise KnowledgeError(f"{address}: expected at most {MOST_BYTES >> 20} MB; found more.")
        if time.monotonic() > deadline:
            raise _too_slow(address)
    return bytes(content)


def _too_slow(address: str) -> KnowledgeError:
    return KnowledgeError(
        f"{address}: not read within {SECONDS:.0f} s. Give a file: asi-lab cognition add FILE"
    )


def _check_redirect(address: str, place: str, is_private: bool) -> None:
    if urlsplit(place).scheme not in ("http", "https"):
        raise KnowledgeError(
            f"{address}: redirects to {plain(bare(place))}, which is neither http nor https."
        )
    if not is_private and _leads_to_private(place):
        raise KnowledgeError(
            f"{address}: redirects to {plain(bare(place))}, an address of this machine or of a private "
            "network, so it was not followed. Name that address yourself if you want it."
        )


def _leads_to_private(address: str) -> bool:
    """Whether a host has any address that is not one of the public Internet. One that cannot be looked up
    here may be known to a proxy: only names that say so are private then."""
    host = urlsplit(address).hostname or ""
    try:
        found = {str(entry[4][0]) for entry in socket.getaddrinfo(host, None)}
    except (OSError, UnicodeError):
        return "." not in host or host.endswith((".local", ".localhost", ".internal"))
    return any(not _is_public(ipaddress.ip_address(one.partition("%")[0])) for one in found)


def _is_public(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    inner = getattr(ip, "ipv4_mapped", None) or getattr(ip, "sixtofour", None)
    return ip.is_global and not ip.is_multicast and (inner is None or inner.is_global)
