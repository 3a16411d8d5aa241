"""What doctor says of the language models that a lab names, with real servers on the other end."""

from __future__ import annotations

import http.server
import json
import threading
from typing import Any

import pytest

from asi_lab.view import models

KEY = "sk-canary-0123456789"


class Servers(http.server.BaseHTTPRequestHandler):
    """Ollama and OpenAI in one, as far as doctor asks them."""

    pulled: list[str]

    def log_message(self, *arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        if self.path == "/api/tags":
            self._give({"models": [{"model": name} for name in self.pulled]})
        elif self.headers["Authorization"] != f"Bearer {KEY}":
            self._give({"error": {"message": f"Incorrect key {self.headers['Authorization']}"}}, 401)
        else:
            self._give({"object": "list", "data": [{"id": "gpt-x", "object": "model"}]})

    def do_POST(self) -> None:
        name = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["model"]
        if name == "nonsense":
            self._give({"error": "pull model manifest: file does not exist"}, 500)
            return
        self.pulled.append(name)
        lines = [{"status": "pulling manifest"}, {"status": "pulling manifest"}, {"status": "success"}]
        self._send(b"".join(json.dumps(line).encode() + b"\n" for line in lines))

    def _give(self, value: Any, status: int = 200) -> None:
        self._send(json.dumps(value).encode(), status)

    def _send(self, body: bytes, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def lab(fresh, monkeypatch):
    """A lab whose servers run here; `qwen3:8b` and `llama:latest` are pulled, and the key is set."""
    handler = type("Handler", (Servers,), {"pulled": ["qwen3:8b", "llama:latest"]})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("OLLAMA_HOST", f"127.0.0.1:{server.server_port}")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    url = f"http://127.0.0.1:{server.server_port}/v1"
    monkeypatch.setenv("OPENAI_BASE_URL", url)  # so it is named by the user too, and gets the key
    fresh.config.write_text(fresh.config.read_text() + f'[agents]\nopenai_base_url = "{url}"\n')
    yield fresh
    server.shutdown()
    server.server_close()


def want(lab, *names: str):
    lab.config.write_text(f"{lab.config.read_text()}models = {list(names)}\n")
    return {finding.name: finding for finding in models.examine(lab)}


def test_what_is_wanted_is_there(lab):
    found = want(lab, "ollama:qwen3:8b", "ollama:llama", "openai:gpt-x")
    assert [found[name].verdict for name in ("ollama", "openai")] == ["ok", "ok"]
    assert "in use: llama, qwen3:8b" in found["ollama"].detail


def test_nothing_is_wanted(lab, monkeypatch):
    found = {finding.name: finding for finding in models.examine(lab)}
    assert "Not needed" in found["ollama"].detail
    assert "qwen3:8b" in found["ollama"].detail
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:9")
    monkeypatch.delenv("OPENAI_API_KEY")
    found = {finding.name: finding for finding in models.examine(lab)}
    assert [found[name].verdict for name in ("ollama", "openai")] == ["warn", "warn"]


def test_ollama_is_wanted_and_not_there(lab, monkeypatch):
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:9")
    finding = want(lab, "ollama:qwen3:8b")["ollama"]
    assert finding.verdict == "fail"
    assert "127.0.0.1:9" in finding.detail
    assert "ollama serve" in finding.fix


def test_a_model_that_is_not_pulled_is_named_and_pulled_on_demand(lab, run):
    finding = want(lab, "ollama:gemma:2b")["ollama"]
    assert finding.verdict == "fail"
    assert finding.fix == "asi-lab doctor --pull, or: ollama pull gemma:2b"
    result = run("--lab", lab.path, "doctor", "--pull")
    assert result.stderr.splitlines() == ["gemma:2b: pulling manifest", "gemma:2b: success"]
    assert models.missing(lab) == []


def test_a_model_that_nobody_has(lab, run):
    want(lab, "ollama:nonsense")
    result = run("--lab", lab.path, "doctor", "--pull")
    assert result.exit_code == 1
    assert "file does not exist" in result.stderr


def test_a_wrong_key_is_told_and_not_shown(lab, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-wrong-0123456789")
    finding = want(lab, "openai:gpt-x")["openai"]
    assert finding.verdict == "fail"
    assert "OPENAI_API_KEY" in finding.detail
    assert "sk-wrong" not in finding.detail + finding.fix


def test_a_model_that_the_server_does_not_have(lab):
    finding = want(lab, "openai:gpt-y")["openai"]
    assert finding.verdict == "fail"
    assert "does not offer gpt-y; it offers gpt-x" in finding.detail
