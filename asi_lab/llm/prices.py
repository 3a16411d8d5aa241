"""Prices of tokens: what a call to a language model costs."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path

import msgspec
import tomlkit

from asi_lab.errors import ConfigError

FILE_NAME = "prices.toml"
FREE = "ollama:"


class Price(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """US dollars for a million tokens."""

    prompt: float
    completion: float


def load_prices(lab: Path) -> dict[str, Price]:
    """The prices of this package, corrected by the lab's own file where there is one.

    Raises:
        ConfigError: that file is no TOML or holds something else than prices.
    """
    packaged = (resources.files("asi_lab.llm") / FILE_NAME).read_text(encoding="utf-8")
    prices = _parse(packaged, FILE_NAME)
    own = lab / FILE_NAME
    if own.exists():
        prices |= _parse(own.read_text(encoding="utf-8-sig"), str(own))
    return prices


def _parse(text: str, where: str) -> dict[str, Price]:
    try:
        return msgspec.convert(tomlkit.parse(text).unwrap(), dict[str, Price])
    except (tomlkit.exceptions.ParseError, msgspec.ValidationError) as error:
        raise ConfigError(
            f'{where}: expected tables such as ["openai:gpt-4.1"] with prompt and completion, in dollars for '
            f"a million tokens; found: {error}."
        ) from None


def dollars(
    prices: Mapping[str, Price], model: str, prompt: int | None, completion: int | None
) -> float | None:
    """What a call has cost; None where the price is not known, or the server told no tokens."""
    if model.startswith(FREE):
        return 0.0
    price = prices.get(model)
    if price is None or prompt is None or completion is None:
        return None
    return (prompt * price.prompt + completion * price.completion) / 1e6
