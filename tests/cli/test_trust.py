"""`asi-lab trust`, and what is refused before it."""

from __future__ import annotations

import http.server
import json
import re
import subprocess
import sys
import threading

import pytest

from asi_lab.cli import cli
from asi_lab.common import trust
from asi_lab.engineer.executor import MODULES
from asi_lab.lab import Lab
from asi_lab.view import models

KEY = "sk-canary-0123456789"


@pytest.fixture(autouse=True)
def nothing_granted(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    for name in ("OPENAI_BASE_URL", "OLLAMA_HOST", "OLLAMA_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


@pytest.fixture
def server():
    """An OpenAI-compatible server that offers no model, and the `authorization` of each request."""
    told: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            told.append(self.headers.get("authorization", ""))
            if self.path.startswith("/moved"):
                self.send_response(307)
                self.send_header("Location", f"http://localhost:{self.server.server_port}/v1/models")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            body = json.dumps({"object": "list", "data": []}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self):
            told.append(self.headers.get("authorization", ""))
            self.send_error(500)

        def log_message(self, *words):
            pass

    served = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=served.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{served.server_port}", told
    served.shutdown()
    served.server_close()


def edit(lab: Lab, **values: str) -> None:
    """Change keys of a lab.toml, in the first table that has each."""
    text = lab.config.read_text()
    for key, value in values.items():
        text = re.sub(f"^{key} = .*$", lambda _, line=f"{key} = {value}": line, text, count=1, flags=re.M)
    lab.config.write_text(text)


@pytest.fixture
def lab(tmp_path, run) -> Lab:
    run("--lab", tmp_path / "lab", "init")
    return Lab(tmp_path / "lab")


@pytest.fixture
def coded(lab, tmp_path) -> Lab:
    """A lab with a folder of tasks whose code leaves a file behind."""
    folder = lab.path / "tasks"
    folder.mkdir()
    (folder / "mine.yaml").write_text("task: mine\nprocess_docs: !function utils.f\n")
    (folder / "utils.py").write_text(f"open({str(tmp_path / 'sprung')!r}, 'w')\ndef f(docs): return docs\n")
    edit(lab, tasks='["asi_recall", "./tasks"]')
    return lab


def test_the_search_ends_before_task_code_is_loaded(coded, run, tmp_path):
    refused = run("--lab", coded.path, "--no-tui", "--experiments", 1)
    assert refused.exit_code == 2
    assert f"asi-lab trust {coded.path}" in refused.stderr
    assert "process_docs !function utils.f" in refused.stderr
    assert not (tmp_path / "sprung").exists()
    assert not coded.data.exists()


def test_it_shows_what_would_run_and_grants_it(coded, run, tmp_path):
    shown = run("trust", coded.path)
    assert shown.exit_code == 2
    assert "because of mine.yaml: process_docs !function utils.f" in shown.stdout
    assert [line.split()[1] for line in shown.stdout.splitlines()[-2:]] == ["mine.yaml", "utils.py"]
    assert "Nothing was granted" in shown.stderr
    assert not trust.file().exists()
    listed = json.loads(run("trust", coded.path, "--json").stdout)
    assert listed["tasks"][0]["folder"] == str(coded.path / "tasks")
    granted = run("--lab", coded.path, "trust", "--yes")
    assert (granted.exit_code, granted.stderr) == (0, "Granted.\n")
    assert "asks for nothing" in run("trust", coded.path).stderr
    (coded.path / "tasks" / "utils.py").write_text("changed = 1\n")
    assert run("trust", coded.path).exit_code == 2
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("n\n", 2), ("\n", 2)])
def test_on_a_terminal_it_asks(coded, monkeypatch, answer, code):
    from click.testing import CliRunner

    from asi_lab.cli import trust as command

    monkeypatch.setattr(command, "sys", type("Sys", (), {"stdin": type("In", (), {"isatty": lambda: True})}))
    assert CliRunner().invoke(cli, ["trust", str(coded.path)], input=answer).exit_code == code
    assert trust.file().exists() == (code == 0)


def test_no_command_sends_a_key_before_it_is_granted(lab, run, server):
    address, told = server
    edit(lab, openai_base_url=f'"{address}/v1"', models='["openai:m"]', embedder='"openai:e"')
    paper = lab.path / "paper.txt"
    paper.write_text("word " * 400)
    commands = [
        (["--no-tui", "--experiments", "1"], 2),
        (["cognition", "search", "recall"], 2),
        (["cognition", "search", "--embedder", "openai:e", "recall"], 2),
        (["cognition", "add", str(paper)], 2),
    ]
    for words, code in commands:
        done = run("--lab", lab.path, *words)
        assert done.exit_code == code, words
        assert "asi-lab trust" in done.stdout + done.stderr, words
        assert KEY not in done.stdout + done.stderr
    [_, openai] = models.examine(lab)  # as doctor does
    assert "asi-lab trust" in openai.detail
    assert told == []
    shown = run("trust", lab.path, "--yes")
    assert f"the key in OPENAI_API_KEY sent to {address}" in shown.stdout
    models.examine(lab)
    assert told == [f"Bearer {KEY}"]


def test_a_redirect_to_another_host_does_not_take_the_key_along(lab, run, server):
    address, told = server
    edit(lab, openai_base_url=f'"{address}/moved"', models='["openai:m"]')
    assert run("trust", lab.path, "--yes").exit_code == 0
    models.examine(lab)
    assert told == [f"Bearer {KEY}", ""]


def test_without_a_key_nothing_is_asked(lab, server, monkeypatch):
    address, told = server
    monkeypatch.delenv("OPENAI_API_KEY")
    edit(lab, openai_base_url=f'"{address}/v1"', models='["openai:m"]')
    models.examine(lab)
    assert told == ["Bearer no-key"]


def test_children_import_nothing_from_the_current_folder(tmp_path):
    for name in ("torch", "msgspec", "json", "asi_lab"):
        (tmp_path / f"{name}.py").write_text("import os; os._exit(7)\n")
    python, *options, _ = MODULES["trial"]
    command = [python, *options, "asi_lab.protocol"]
    assert subprocess.run(command, cwd=tmp_path, check=False).returncode == 0
    assert (
        subprocess.run([sys.executable, "-m", "asi_lab.protocol"], cwd=tmp_path, check=False).returncode != 0
    )
