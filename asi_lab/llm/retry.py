"""Waiting for a server that is busy or away for a while."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence

from asi_lab.llm.model import (
    Busy,
    Call,
    Cancelled,
    Message,
    Model,
    ModelError,
    NotReady,
    Reply,
    Unreachable,
)

BASE_SECONDS = 1.0
CAP_SECONDS = 60.0
LONGEST_SECONDS = 600.0
"""A server may ask for a longer wait than the cap, up to this."""


class Patient:
    """A model that is asked again while it is busy.

    The waits grow exponentially and are drawn at random, so that many callers do not come back all at once.
    So many attempts are made. A server that is not ready, or was there and is not any more, is waited for
    instead, as long as it might be silent, calls among it: loading a large model takes minutes.
    `call.on_text` sees an answer that broke off, and then the next one from its start.
    """

    def __init__(
        self,
        model: Model,
        attempts: int = 6,
        told: Callable[[str], object] = lambda note: None,
        sleep: Callable[[threading.Event, float], bool] = threading.Event.wait,
        now: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        """`attempts` counts the first one too. `told` gets one line for each wait. `sleep` waits for an event
        for some seconds and says whether it is set; `now` tells the time of calls.

        Raises:
            ValueError: `attempts` is less than 1.
        """
        if attempts < 1:
            raise ValueError(f"attempts should be at least 1, not {attempts}")
        self.model, self.attempts = model, attempts
        self._told, self._sleep, self._now, self._rng = told, sleep, now, rng or random.Random()
        self._has_answered = False

    @property
    def name(self) -> str:
        """The name of the model that is asked."""
        return self.model.name

    def complete(self, messages: Sequence[Message], call: Call) -> Reply:
        """Answer a conversation, after some waits where they help.

        Raises:
            ModelError: trying again is no use, or was none. Never `Busy`.
            Cancelled: `call.cancelled` was set, also during a wait.
        """
        waits, attempt, waited = 0, 1, 0.0
        while True:
            began = self._now()
            try:
                reply = self.model.complete(messages, call)
            except Busy as busy:
                fault, words = busy, str(busy).rstrip(".")
            else:
                self._has_answered = True
                return reply
            waits += 1
            seconds = self._wait(waits, fault.after)
            if isinstance(fault, NotReady) or (isinstance(fault, Unreachable) and self._has_answered):
                waited += self._now() - began
                if waited >= call.timeout:
                    tried = f"Waited {call.timeout:g} s for it"
                    raise ModelError(f"{words}. {tried}; start again when the server answers.")
                left = call.timeout - waited
                seconds = min(seconds, left)
                waited += seconds
                bound = f"for up to {left:.0f} s more"
            elif attempt < self.attempts:
                attempt += 1
                bound = f"attempt {attempt} of {self.attempts}"
            else:
                tried = "Tried once" if attempt == 1 else f"Tried {attempt} times"
                raise ModelError(f"{words}. {tried}; start again when the server answers.")
            self._told(f"{words}; trying again in {seconds:.1f} s ({bound})")
            if self._sleep(call.cancelled, seconds):
                raise Cancelled("the call was given up")

    def _wait(self, attempt: int, after: float | None) -> float:
        drawn = self._rng.uniform(0.0, min(CAP_SECONDS, BASE_SECONDS * 2.0 ** min(attempt - 1, 10)))
        return max(drawn, min(after or 0.0, LONGEST_SECONDS))
