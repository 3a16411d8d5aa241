"""What a search has cost: tokens, calls, seconds and dollars of language models, seconds of trials."""

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


TRIAL = "trial"
"""The role under which trials stand in the ledger."""


class Spent(msgspec.Struct, frozen=True):
    """Sums over the ledger. `calls`, tokens, `seconds` and `dollars` are those of language models; `unpriced`
    is how many calls have no known price and are missing in `dollars`. `gpu_seconds` are those of the
    `trial_seconds` that were spent on a GPU."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    dollars: float = 0.0
    unpriced: int = 0
    trial_seconds: float = 0.0
    gpu_seconds: float = 0.0

    @property
    def tokens(self) -> int:
        """Tokens read and written."""
        return self.prompt_tokens + self.completion_tokens

    def plus(self, entry: Mapping[str, Any]) -> Spent:
        """With one more entry of the ledger."""
        if entry["role"] == TRIAL:
            return msgspec.structs.replace(
                self,
                trial_seconds=self.trial_seconds + entry["seconds"],
                gpu_seconds=self.gpu_seconds + entry["gpu_seconds"],
            )
        dollars = entry.get("dollars")
        return msgspec.structs.replace(
            self,
            calls=self.calls + 1,
            prompt_tokens=self.prompt_tokens + (entry["prompt_tokens"] or 0),
            completion_tokens=self.completion_tokens + (entry["completion_tokens"] or 0),
            seconds=self.seconds + entry["seconds"],
            dollars=self.dollars + (dollars or 0.0),
            unpriced=self.unpriced + (dollars is None),
        )


def of_trial(candidate: int | None, seconds: float, *, on_gpu: bool) -> dict[str, Any]:
    """The ledger's entry of a trial; `candidate` is None for a baseline's."""
    gpu = seconds if on_gpu else 0.0
    return {"candidate": candidate, "role": TRIAL, "seconds": seconds, "gpu_seconds": gpu}


def of_models(entries: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Those entries of the ledger that are calls to language models."""
    return [entry for entry in entries if entry["role"] != TRIAL]


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
