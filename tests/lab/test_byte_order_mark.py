"""Editors of Windows begin a text with a byte order mark: every file that a user writes is read with one."""

from __future__ import annotations

from pathlib import Path

from asi_lab.knowledge.base import load
from asi_lab.lab import Lab, config
from asi_lab.llm import prices, prompting
from asi_lab.tui import preferences

ROOT = Path(__file__).parents[2]


def marked(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8-sig")
    assert path.read_bytes().startswith(b"\xef\xbb\xbf")
    return path


def test_a_lab(tmp_path):
    lab = Lab(tmp_path)
    marked(lab.config, config.render(config.from_preset("micro")))
    assert lab.settings() == config.from_preset("micro")


def test_prices(tmp_path):
    marked(tmp_path / "prices.toml", '["openai:own"]\nprompt = 2.0\ncompletion = 10.0\n')
    assert prices.dollars(prices.load_prices(tmp_path), "openai:own", 1_000_000, 0) == 2.0


def test_prompts(tmp_path):
    text = (ROOT / "prompts" / "judge.md").read_text(encoding="utf-8")
    marked(tmp_path / "judge.md", text)
    assert prompting.load_all(tmp_path)["judge"] == prompting.load_all(tmp_path / "none")["judge"]


def test_entries_of_the_cognition_base(tmp_path):
    text = (ROOT / "cognition" / "gla.md").read_text(encoding="utf-8")
    marked(tmp_path / "cognition" / "own.md", text.replace("key: gla\n", "key: own\n", 1))
    assert load(tmp_path).entries["own"].insights == load().entries["gla"].insights


def test_preferences(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    marked(preferences.config_file(), "ascii = true\n")
    assert preferences.load().ascii
