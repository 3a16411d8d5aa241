"""What a search has cost: tokens, calls, seconds and dollars of language models, seconds of trials."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

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
