"""What the environment says of the network, looked at before a client obeys it: clients fail on a proxy or a
certificate that they cannot use without saying which variable it comes from."""

from __future__ import annotations

import contextlib
import importlib.util
import ipaddress
import os
import socket
import ssl
from collections.abc import Iterator
from typing import Any
from urllib.parse import SplitResult, urlsplit

from asi_lab.common.text import plain
from asi_lab.errors import ConfigError
from asi_lab.llm.wire import bare

PROXIES = tuple(
    name for scheme in ("http", "https", "all") for name in (f"{scheme}_proxy", f"{scheme}_proxy".upper())
)
VARIABLES = (*PROXIES, "no_proxy", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR", "SSLKEYLOGFILE")
"""All that clients read."""


def split(address: str) -> SplitResult | None:
    """The parts of an address of http or https; None where it is none."""
    return _parts(address, frozenset({"http", "https"}))


def options(address: str) -> dict[str, Any]:
    """Options of an httpx client for the server at an address. One on this machine is reached directly.

    Raises:
        ConfigError: a variable of the environment names a proxy or certificates that cannot be used.
    """
    _check_keys_file()
    parts = split(address)
    if parts is not None and _is_here(parts.hostname or ""):
        own: dict[str, Any] = {"verify": ssl.create_default_context()} if parts.scheme == "https" else {}
        return {"trust_env": False, **own}
    for name in _proxies_in_use():
        _check_proxy(name, os.environ[name])
    _check_certificates(os.environ.get("SSL_CERT_FILE", ""))
    _check_all()
    return {}


@contextlib.contextmanager
def unread() -> Iterator[None]:
    """Hide all variables, and those of `OLLAMA_HOST`, from a package that reads them while it is imported."""
    hidden = {name: os.environ.pop(name) for name in (*VARIABLES, "OLLAMA_HOST") if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)


def _proxies_in_use() -> list[str]:
    """Those that clients read: of each pair the small one, where both are there; none under NO_PROXY=*."""
    excepted = os.environ.get("no_proxy", os.environ.get("NO_PROXY", ""))
    if "*" in [host.strip() for host in excepted.split(",")]:
        return []
    small = [name for name in PROXIES if name.islower()]
    pairs = [name if name in os.environ else name.upper() for name in small]
    return [name for name in pairs if os.environ.get(name)]


def _check_keys_file() -> None:
    """Python writes the keys of connections there, where it is asked to."""
    file = os.environ.get("SSLKEYLOGFILE")
    if not file:
        return
    try:
        with open(file, "ab"):  # noqa: PTH123  # it may be empty, which Path takes for the working directory
            pass
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "no name of a file"
        raise ConfigError(
            f"SSLKEYLOGFILE: expected a file that can be written; found {plain(file)!r} ({reason}). "
            "Correct or unset it."
        ) from None


def _check_all() -> None:
    """Make a client, as the last look: httpx makes patterns of the hosts in NO_PROXY, for example."""
    import httpx

    try:
        httpx.Client().close()
    except Exception as error:  # of many kinds
        names = ", ".join(name for name in VARIABLES if os.environ.get(name))
        raise ConfigError(
            f"{names or 'the environment'}: expected proxies, hosts and certificates to use; found: "
            f"{plain(str(error))}. Correct or unset what is wrong."
        ) from None


def _check_proxy(name: str, value: str) -> None:
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
    host = host.rstrip(".")
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(
            socket.inet_aton(host) if host[:1].isdigit() and ":" not in host else host
        )
    except (ValueError, OSError):
        return False
    mapped = getattr(address, "ipv4_mapped", None) or address
    return bool(mapped.is_loopback or mapped.is_unspecified)
