"""What the environment says of the network, and how it is told that it cannot be used."""

from __future__ import annotations

import http.server
import subprocess
import sys
import threading

import pytest

from asi_lab.errors import ConfigError
from asi_lab.llm import network
from asi_lab.llm.ollama import Ollama, installed
from asi_lab.llm.openai import OpenAI

FAR = "https://models.example/v1"


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    for name in (*network.VARIABLES, "OLLAMA_HOST", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HTTP_PROXY", "htp://proxy:3128"),
        ("http_proxy", "http://"),
        ("HTTPS_PROXY", "proxy:port"),
        ("https_proxy", "http://pro xy:1"),
        ("ALL_PROXY", "http://[::1"),
        ("all_proxy", "socks4://proxy:1080"),
        ("HTTPS_PROXY", "http://proxy:99999"),
    ],
)
def test_a_proxy_that_is_none_is_named(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=rf"^{name}: expected a proxy such as http://host:3128; found "):
        network.options(FAR)


def test_a_socks_proxy_names_what_it_needs(monkeypatch):
    monkeypatch.setenv("ALL_PROXY", "socks5://proxy:1080")
    monkeypatch.setattr(network.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"^ALL_PROXY: .* needs the package socksio"):
        network.options(FAR)


@pytest.mark.parametrize(
    "value",
    [
        "ftp://user:hunter2@proxy:1",
        "http://user:hun/hunter2@proxy:3128",
        "user:hunter2?x@proxy:x",
        "//user:hunter2@proxy:x",
        "http://user:hunter2@x@proxy:x",
    ],
)
def test_a_proxys_password_is_not_told(monkeypatch, value):
    monkeypatch.setenv("HTTPS_PROXY", value)
    with pytest.raises(ConfigError) as fault:
        network.options(FAR)
    assert "hunter2" not in str(fault.value)


@pytest.mark.parametrize("content", [None, b"", b"no certificates"])
def test_certificates_that_are_none_are_named(monkeypatch, tmp_path, content):
    file = tmp_path / "authorities.pem"
    if content is not None:
        file.write_bytes(content)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    with pytest.raises(ConfigError, match=r"^SSL_CERT_FILE: expected a file of certificates; found "):
        network.options(FAR)


def test_exceptions_that_the_client_does_not_take_are_named(monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    monkeypatch.setenv("NO_PROXY", "[::1")
    with pytest.raises(ConfigError, match=r"^HTTPS_PROXY, NO_PROXY: expected "):
        network.options(FAR)


def test_a_file_for_keys_that_cannot_be_written_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "nowhere" / "keys"))
    for address in (FAR, "http://127.0.0.1:1"):
        with pytest.raises(ConfigError, match=r"^SSLKEYLOGFILE: expected a file that can be written; found "):
            network.options(address)
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    assert network.options(FAR) == {}


@pytest.mark.parametrize("names", [{"NO_PROXY": "a, *"}, {"all_proxy": ""}])
def test_a_proxy_that_no_client_would_use_does_not_matter(monkeypatch, names):
    monkeypatch.setenv("ALL_PROXY", "socks4://proxy:1080")
    for name, value in names.items():
        monkeypatch.setenv(name, value)
    assert network.options(FAR) == {}


def test_what_can_be_used_is_left_to_the_client(monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://user:word@proxy:3128")
    monkeypatch.setenv("http_proxy", "proxy:3128")
    monkeypatch.setenv("NO_PROXY", "localhost,127.0.0.1,.example.org")
    assert network.options(FAR) == {}


@pytest.mark.parametrize(
    "address",
    [
        "http://127.0.0.1:11434",
        "http://localhost:1/v1",
        "http://[::1]:1",
        "http://0.0.0.0:1",
        "http://127.1:1",
        "http://localhost.:1",
        "http://[::ffff:127.0.0.1]:1",
    ],
)
def test_this_machine_is_reached_directly(monkeypatch, address):
    monkeypatch.setenv("HTTP_PROXY", "nonsense://")
    assert network.options(address) == {"trust_env": False}


def test_a_server_here_is_asked_past_the_proxy(monkeypatch):
    asked: list[str] = []

    class Server(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"models": [{"model": "big:30b"}]}')

        def log_message(self, *args: object) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    try:
        assert list(installed(f"127.0.0.1:{server.server_port}")) == ["big:30b"]
    finally:
        server.shutdown()
        server.server_close()
    assert asked == ["/api/tags"]


@pytest.mark.parametrize(
    "host", ["http://[::1", "127.0.0.1:x", "my host", "host:0", "ftp://host", "a:b:c", "://x"]
)
def test_a_host_that_is_none_is_refused(monkeypatch, host):
    monkeypatch.setenv("OLLAMA_HOST", host)
    with pytest.raises(ConfigError, match="Ollama's server should be an address"):
        Ollama("m")
    with pytest.raises(ConfigError, match="OpenAI-compatible server should be an address"):
        OpenAI("m", base_url=host)


@pytest.mark.parametrize("host", ["  ", ":11434", "127.0.0.1", "http://host", "[::1]:11434", "host/path"])
def test_hosts_may_be_short(monkeypatch, host):
    monkeypatch.setenv("OLLAMA_HOST", host)
    assert Ollama("m").host


@pytest.mark.parametrize(
    ("name", "value"),
    [("OLLAMA_HOST", "http://h:x"), ("ALL_PROXY", "nonsense://p"), ("SSL_CERT_FILE", "/nowhere.pem")],
)
def test_the_official_client_is_imported_whatever_the_environment_says(name, value):
    """Which makes a client of its own then. In a process of its own: here it may have been imported."""
    program = (
        f"import os; os.environ[{name!r}] = {value!r}\n"
        "from asi_lab.llm import ollama\n"
        f"print(ollama.official().__name__, os.environ[{name!r}])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.returncode) == (f"ollama {value}\n", 0), done.stderr
