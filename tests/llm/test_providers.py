from __future__ import annotations

import pytest

from asi_lab.errors import ConfigError
from asi_lab.llm import ModelError
from asi_lab.llm.ollama import Ollama
from asi_lab.llm.openai import OpenAI
from asi_lab.llm.providers import connect


def test_ollama() -> None:
    model = connect("ollama:hf.co/some/model:30b-q4", ollama_host="10.0.0.1:1", context=9000)
    assert isinstance(model, Ollama)
    assert (model.name, model.model) == ("ollama:hf.co/some/model:30b-q4", "hf.co/some/model:30b-q4")
    assert (model.host, model.context) == ("10.0.0.1:1", 9000)


def test_ollama_on_this_machine() -> None:
    model = connect("ollama:m")
    assert isinstance(model, Ollama)
    assert (model.host, model.context) == ("127.0.0.1:11434", 32768)


def test_openai() -> None:
    model = connect("openai:org/model:free", openai_base_url="http://10.0.0.1:8000/v1")
    assert isinstance(model, OpenAI)
    assert (model.name, model.model) == ("openai:org/model:free", "org/model:free")
    assert model.base_url == "http://10.0.0.1:8000/v1"


def test_openai_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match="OPENAI_API_KEY"):
        connect("openai:m")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1")
    model = connect("openai:m")
    assert isinstance(model, OpenAI)
    assert model.base_url == "https://api.openai.com/v1"


@pytest.mark.parametrize(
    "spec", ["", "ollama", "ollama:", "openai:", ":m", "qwen3:8b", "Ollama:m", "mistral:m", "ollama: m"]
)
def test_anything_else(spec: str) -> None:
    with pytest.raises(ConfigError) as fault:
        connect(spec)
    assert str(fault.value) == (
        "a model should be written ollama:NAME or openai:NAME, for example ollama:qwen3-coder:30b; "
        f"found {spec!r}. Correct it under agents in lab.toml."
    )


def test_a_hostile_name_is_shown_harmlessly() -> None:
    with pytest.raises(ConfigError, match="found 'ollama:ab'") as fault:
        connect("ollama:a\x1b[2Jb")
    assert "\x1b" not in str(fault.value)
