"""What a search has cost: tokens, calls, seconds and dollars of language models, seconds of trials."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypedDict, final

import msgspec

TRIAL = "trial"
"""The role under which trials stand in the ledger."""


@final
class TrialCost(TypedDict):
    """What a trial took; `candidate` is None for a baseline's."""

    candidate: int | None
    role: str
    seconds: float
    gpu_seconds: float


@final
class CallCost(TypedDict):
    """What a call to a language model took. `sent_bytes` are those of the messages; tokens are None where the
    server told none, dollars where no price is known."""

    candidate: int | None
    role: str
    model: str
    sent_bytes: int
    prompt_tokens: int | None
    completion_tokens: int | None
    seconds: float
    dollars: float | None


Cost = TrialCost | CallCost
"""An entry of the ledger."""


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

    def plus(self, entry: Cost) -> Spent:
        """With one more entry of the ledger."""
        if "gpu_seconds" in entry:
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


def of_trial(candidate: int | None, seconds: float, *, on_gpu: bool) -> TrialCost:
    """The ledger's entry of a trial; `candidate` is None for a baseline's."""
    gpu = seconds if on_gpu else 0.0
    return {"candidate": candidate, "role": TRIAL, "seconds": seconds, "gpu_seconds": gpu}


def of_models(entries: Iterable[Cost]) -> list[CallCost]:
    """Those entries of the ledger that are calls to language models."""
    return [entry for entry in entries if "gpu_seconds" not in entry]


def total(entries: Iterable[Cost]) -> Spent:
    """The sum of ledger entries."""
    spent = Spent()
    for entry in entries:
        spent = spent.plus(entry)
    return spent
