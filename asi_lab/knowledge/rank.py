"""Which search a lab's settings ask for, over the entries that it knows."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

from asi_lab.errors import ConfigError
from asi_lab.knowledge.advice import Adviser, Search
from asi_lab.knowledge.base import Base, load
from asi_lab.knowledge.search import Found, Lexical
from asi_lab.knowledge.semantic import Embed, Semantic
from asi_lab.settings import AgentSettings

LEXICAL = "lexical"
INDEX = "index"
"""Folder of a lab for vectors."""


def adviser(settings: AgentSettings, lab: Path) -> Adviser:
    """The adviser of a lab. No embedding model is asked yet.

    Raises:
        KnowledgeError: an entry of the lab's own cannot be read.
        ConfigError: the settings name no embedder that there is.
    """
    base = load(lab)
    wanted = search(base, settings, lab / INDEX)
    plain = wanted if settings.embedder == LEXICAL else Lexical(base).search
    return Adviser(base, wanted, plain)


def search(base: Base, settings: AgentSettings, cache: Path, embedder: str | None = None) -> Search:
    """The search by the embedder that the settings name, or by another one; `cache` is for vectors.

    Raises:
        ConfigError: there is no such embedder.
    """
    name = embedder or settings.embedder
    if name == LEXICAL:
        return Lexical(base).search
    embed = _embed(name, settings)

    @functools.cache
    def semantic() -> Semantic:
        return Semantic(base, embed, name, cache)

    def search(query: str, count: int) -> Sequence[Found]:
        return semantic().search(query, count)

    return search


def _embed(name: str, settings: AgentSettings) -> Embed:
    provider, _, model = name.partition(":")
    if provider == "ollama" and model:
        from asi_lab.llm import ollama

        ollama.official()
        return functools.partial(ollama.embed, settings.ollama_host or None, model)
    if provider == "openai" and model:
        from asi_lab.llm import openai

        return functools.partial(openai.embed, settings.openai_base_url or None, model)
    raise ConfigError(
        f"an embedder should be written {LEXICAL}, ollama:NAME or openai:NAME, such as "
        f"ollama:nomic-embed-text; found {name[:100]!r}. Correct agents.embedder in lab.toml."
    )
