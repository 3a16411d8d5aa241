"""Model names of the settings, such as `ollama:qwen3-coder:30b`, made into models."""

from __future__ import annotations

from collections.abc import Callable

from asi_lab.common.text import plain
from asi_lab.errors import ConfigError
from asi_lab.llm.model import Model
from asi_lab.llm.retry import Patient
from asi_lab.settings import AgentSettings


def connect(
    spec: str,
    *,
    ollama_host: str | None = None,
    openai_base_url: str | None = None,
    context: int = 32768,
) -> Model:
    """Return the model called `ollama:NAME` or `openai:NAME`. No server is asked yet.

    `ollama_host` and `openai_base_url` are the servers, by default those of the environment. `context` is the
    largest window in tokens that Ollama may be asked for.

    Raises:
        ConfigError: `spec` is no such name, or the address of its server is wrong.
        ModelError: the provider needs a key and none is set.
    """
    provider, _, model = spec.partition(":")
    if model and not any(c.isspace() or not c.isprintable() for c in model):
        if provider == "ollama":
            from asi_lab.llm.ollama import Ollama

            return Ollama(model, ollama_host, context)
        if provider == "openai":
            from asi_lab.llm.openai import OpenAI

            return OpenAI(model, openai_base_url)
    raise ConfigError(
        "a model should be written ollama:NAME or openai:NAME, for example ollama:qwen3-coder:30b; "
        f"found {plain(spec, limit=100)!r}. Correct it under agents in lab.toml."
    )


def connected(name: str, settings: AgentSettings, say: Callable[[str], object]) -> Model:
    """The model of that name over the network, as the settings have it, with retries; `say` is told of waits
    for its server. Raises as `connect`."""
    model = connect(
        name,
        ollama_host=settings.ollama_host or None,
        openai_base_url=settings.openai_base_url or None,
        context=settings.context,
    )
    return Patient(model, told=say)
