"""What language models have cost: tokens, calls, seconds and dollars, by candidate, role and model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec
import tomlkit

from asi_lab.errors import ConfigError

FILE_NAME = "prices.toml"
FREE = "ollama:"


class Price(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """US dollars for a million tokens."""

    prompt: float
    completion: float


class Spent(msgspec.Struct, frozen=True):
    """Sums over calls. `unpriced` is how many of them have no known price and are missing in `dollars`."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    dollars: float = 0.0
    unpriced: int = 0

    @property
    def tokens(self) -> int:
        """Tokens read and written."""
        return self.prompt_tokens + self.completion_tokens

    def plus(self, entry: Mapping[str, Any]) -> Spent:
        """With one more entry of the ledger."""
        dollars = entry.get("dollars")
        return Spent(
            self.calls + 1,
            self.prompt_tokens + (entry["prompt_tokens"] or 0),
            self.completion_tokens + (entry["completion_tokens"] or 0),
            self.seconds + entry["seconds"],
            self.dollars + (dollars or 0.0),
            self.unpriced + (dollars is None),
        )


def total(entries: Iterable[Mapping[str, Any]]) -> Spent:
    """The sum of ledger entries."""
    spent = Spent()
    for entry in entries:
        spent = spent.plus(entry)
    return spent


def load_prices(lab: Path) -> dict[str, Price]:
    """The prices of this package, corrected by the lab's own file where there is one.

    Raises:
        ConfigError: that file is no TOML or holds something else than prices.
    """
    packaged = (resources.files("asi_lab.llm") / FILE_NAME).read_text(encoding="utf-8")
    prices = _parse(packaged, FILE_NAME)
    own = lab / FILE_NAME
    if own.exists():
        prices |= _parse(own.read_text(encoding="utf-8"), str(own))
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
