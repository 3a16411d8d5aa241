"""How long a text is in a model's own tokens: by what its server counted of earlier texts.

No tokenizer has to be at hand, and any server will do. Before the first count an estimate that is rather too
high than too low takes its place.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Mapping
from typing import Any

ESTIMATE = 3.0
"""Fewer bytes than a token of code has on average in any tokenizer in use."""

LEAST_BYTES = 2000
"""Counts of shorter conversations say more about the server's own framing than about the text."""

LOWEST, HIGHEST = 1.5, 5.0
"""Bytes a token; counts outside are not believed (a server may leave out what it had cached)."""


class Meter:
    """Bytes a token, by model: the fewest that its server ever counted."""

    def __init__(self, entries: Iterable[Mapping[str, Any]] = ()) -> None:
        """`entries` of the ledger are what was counted so far."""
        self._fewest: dict[str, float] = {}
        self._lock = threading.Lock()
        for entry in entries:
            self.saw(entry["model"], entry.get("sent_bytes"), entry["prompt_tokens"])

    def saw(self, model: str, sent: int | None, tokens: int | None) -> None:
        """Note that `sent` bytes were `tokens` for a model."""
        if not sent or not tokens or sent < LEAST_BYTES or not LOWEST <= sent / tokens <= HIGHEST:
            return
        with self._lock:
            self._fewest[model] = min(self._fewest.get(model, HIGHEST), sent / tokens)

    def knows(self, model: str) -> bool:
        """Whether anything was counted for a model."""
        return model in self._fewest

    def tokens(self, model: str, text: str) -> int:
        """How many tokens a text has for a model."""
        return math.ceil(len(text.encode("utf-8", "replace")) / self._fewest.get(model, ESTIMATE))
