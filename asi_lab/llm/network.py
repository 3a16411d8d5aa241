"""What the environment says of the network, looked at before a client obeys it: clients fail on a proxy or a
certificate that they cannot use without saying which variable it comes from."""

from __future__ import annotations

import contextlib
import importlib.util
import ipaddress
import os
import ssl
from collections.abc import Iterator
from typing import Any
from urllib.parse import SplitResult, urlsplit

from asi_lab.errors import ConfigError
from asi_lab.llm.wire import bare
from asi_lab.text import plain

PROXIES = tuple(
    name for scheme in ("http", "https", "all") for name in (f"{scheme}_proxy", f"{scheme}_proxy".upper())
)
VARIABLES = (*PROXIES, "no_proxy", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR")
"""All that clients read."""


def split(address: str) -> SplitResult | None:
    """The parts of an address of http or https; None where it is none."""
    return _parts(address, frozenset({"http", "https"}))


def options(address: str) -> dict[str, Any]:
    """Options of an httpx client for the server at an address. One on this machine is reached directly.

    Raises:
        ConfigError: a variable of the environment names a proxy or certificates that cannot be used.
    """
    parts = split(address)
    if parts is not None and _is_here(parts.hostname or ""):
        own: dict[str, Any] = {"verify": ssl.create_default_context()} if parts.scheme == "https" else {}
        return {"trust_env": False, **own}
    check()
    return {}


def check() -> None:
    """Look at all variables.

    Raises:
        ConfigError: one names a proxy or certificates that cannot be used.
    """
    for name in PROXIES:
        _check_proxy(name, os.environ.get(name, ""))
    _check_certificates(os.environ.get("SSL_CERT_FILE", ""))
    import httpx

    try:
        httpx.Client().close()
    except Exception as error:  # of many kinds; httpx makes patterns of hosts without looking at them
        names = ", ".join(name for name in VARIABLES if os.environ.get(name))
        raise ConfigError(
            f"{names}: expected proxies, hosts and certificates to use; found: {plain(str(error))}. "
            "Correct or unset what is wrong."
        ) from None


@contextlib.contextmanager
def unread() -> Iterator[None]:
    """Hide all variables, and those of `OLLAMA_HOST`, from a package that reads them while it is imported."""
    hidden = {name: os.environ.pop(name) for name in (*VARIABLES, "OLLAMA_HOST") if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)


def _check_proxy(name: str, value: str) -> None:
    if not value:
        return
    kinds = frozenset({"http", "https", "socks5", "socks5h"})
    parts = _parts(value if "://" in value else f"http://{value}", kinds)
    wanted = f"{name}: expected a proxy such as http://host:3128; found {bare(value)!r}"
    if parts is None:
        raise ConfigError(f"{wanted}. Correct or unset it.")
    if parts.scheme.startswith("socks") and importlib.util.find_spec("socksio") is None:
        raise ConfigError(f"{wanted}, which needs the package socksio. Install that, or unset the variable.")


def _check_certificates(file: str) -> None:
    if not file:
        return
    try:
        ssl.create_default_context(cafile=file)
    except (OSError, ValueError) as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else "which holds none"
        raise ConfigError(
            f"SSL_CERT_FILE: expected a file of certificates; found {plain(file)!r}, {reason}. "
            "Correct or unset it."
        ) from None


def _parts(address: str, schemes: frozenset[str]) -> SplitResult | None:
    try:
        parts = urlsplit(address)
        host = parts.hostname or ""
        fits = parts.scheme in schemes and parts.port != 0 and bool(host)
    except ValueError:
        return None
    return parts if fits and all(c.isprintable() and not c.isspace() for c in host) else None


def _is_here(host: str) -> bool:
    """Whether a host is this machine by its name."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified
