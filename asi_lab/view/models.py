"""Are the language models that a lab wants there?"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable

from asi_lab.errors import ConfigError, LabError
from asi_lab.lab import Lab
from asi_lab.llm.choice import names_of
from asi_lab.settings import AgentSettings
from asi_lab.view.diagnosis import Diagnosis

_NOT_NEEDED = "Not needed: no model is named under [agents] in lab.toml, so the grammar fills the roles"


def examine(lab: Lab) -> list[Diagnosis]:
    """What there is of Ollama and OpenAI, and what the lab's settings want of them."""
    settings = AgentSettings()
    if lab.exists:
        with contextlib.suppress(LabError):  # another finding says so
            settings = lab.settings().agents
    return [_ollama(settings, _wanted(settings, "ollama:")), _openai(settings, _wanted(settings, "openai:"))]


def missing(lab: Lab) -> list[str]:
    """The models of Ollama that the lab wants and that are not pulled.

    Raises:
        LabError: the settings are wrong, or the server cannot be reached.
    """
    settings = lab.settings().agents
    return _not_pulled(_wanted(settings, "ollama:"), _installed(settings))


def pull(lab: Lab, say: Callable[[str], None]) -> None:
    """Have the server pull what is missing; `say` gets a line for every step.

    Raises:
        LabError: the settings are wrong, or the server cannot be reached or has no such model.
    """
    from asi_lab.llm.ollama import pull

    host = lab.settings().agents.ollama_host or None
    for model in missing(lab):
        pull(host, model, say)


def beside(settings: AgentSettings) -> tuple[str, int] | None:
    """The largest model that the settings want of an Ollama on this machine, with its bytes; None where there
    is none, or the server does not say. Ollama unloads one model for another."""
    wanted = _wanted(settings, "ollama:")
    if not wanted:
        return None
    from asi_lab.llm.ollama import is_here

    try:
        there = _installed(settings) if is_here(settings.ollama_host or None) else {}
    except LabError:  # the check of the server says so
        return None
    known = {name.removesuffix(":latest"): size for name, size in there.items()} | there
    sizes = [(name, known[name]) for name in wanted if known.get(name)]
    return max(sizes, key=lambda found: found[1], default=None)


def _wanted(settings: AgentSettings, provider: str) -> list[str]:
    """The models of a provider that the settings name."""
    return [name.removeprefix(provider) for name in names_of(settings) if name.startswith(provider)]


def _installed(settings: AgentSettings) -> dict[str, int]:
    from asi_lab.llm.ollama import installed

    return installed(settings.ollama_host or None)


def _not_pulled(wanted: list[str], installed: Iterable[str]) -> list[str]:
    """A name without a tag means the tag latest."""
    names = list(installed)
    there = {*names, *(name.removesuffix(":latest") for name in names)}
    return [name for name in wanted if name not in there]


def _ollama(settings: AgentSettings, wanted: list[str]) -> Diagnosis:
    try:
        installed = _installed(settings)
    except ConfigError as error:
        return Diagnosis("ollama", "fail" if wanted else "warn", str(error), "correct what the message names")
    except LabError as error:
        if wanted:
            return Diagnosis("ollama", "fail", f"{error}", f"ollama serve, then: ollama pull {wanted[0]}")
        return Diagnosis("ollama", "warn", f"{error} {_NOT_NEEDED}", "ollama serve, or set OLLAMA_HOST")
    names = ", ".join(installed) or "no models"
    if absent := _not_pulled(wanted, installed):
        detail = f"models named in lab.toml are not pulled: {', '.join(absent)}; there are: {names}"
        return Diagnosis("ollama", "fail", detail, f"asi-lab doctor --pull, or: ollama pull {absent[0]}")
    use = f"; in use: {', '.join(wanted)}" if wanted else ". " + _NOT_NEEDED
    return Diagnosis("ollama", "ok", f"{names}{use}")


def _openai(settings: AgentSettings, wanted: list[str]) -> Diagnosis:
    """The server is only asked where a model of it is wanted."""
    if not wanted:
        if os.environ.get("OPENAI_API_KEY", "").strip():
            return Diagnosis("openai", "ok", f"OPENAI_API_KEY is set. {_NOT_NEEDED}")
        detail = f"OPENAI_API_KEY is not set. {_NOT_NEEDED}"
        return Diagnosis("openai", "warn", detail, "export OPENAI_API_KEY=...")
    from asi_lab.llm.openai import OpenAI

    try:
        offered = OpenAI(wanted[0], settings.openai_base_url or None).offered()
    except LabError as error:
        return Diagnosis("openai", "fail", str(error), "see the message")
    if absent := [name for name in wanted if name not in offered]:
        detail = (
            f"the server does not offer {', '.join(absent)}; it offers {', '.join(offered[:20]) or 'none'}"
        )
        return Diagnosis("openai", "fail", detail, "correct the name under [agents] in lab.toml")
    return Diagnosis("openai", "ok", f"the key works; in use: {', '.join(wanted)}")
