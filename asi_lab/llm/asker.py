"""The conversations about one candidate: roles ask, models answer, the store keeps every exchange."""

from __future__ import annotations

import functools
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeVar

import msgspec

from asi_lab.lab import trial_label
from asi_lab.llm.ask import RoleFailed, Window, ask_in_window
from asi_lab.llm.choice import GROUPS
from asi_lab.llm.codefile import CodeFile
from asi_lab.llm.model import Call
from asi_lab.llm.record import Exchange, Recorded

if TYPE_CHECKING:
    from asi_lab.llm.models import Models

T = TypeVar("T")


class CandidateAsker:
    """The `Asker` of one candidate. It knows which thread asks: off the main thread nothing needs to tick."""

    def __init__(self, models: Models, candidate_id: int, chosen: dict[str, str]) -> None:
        """`chosen` are models by group, where they are not to be chosen."""
        self._models, self._candidate, self._chosen = models, candidate_id, chosen
        self._asked: Counter[str] = Counter()
        self._tape = _Tape(models, candidate_id)

    def model_of(self, role: str) -> str:
        """Chosen once: what a bandit would choose may change while other candidates come to their end."""
        group = GROUPS[role]
        if group not in self._chosen:
            self._chosen[group] = self._models.choose(self._candidate, group)
        return self._chosen[group]

    def __call__(
        self,
        role: str,
        kind: type[T],
        values: Mapping[str, str],
        code: CodeFile | None = None,
        is_done: Callable[[T], str] = lambda answer: "",
    ) -> T:
        """Ask the model of a role; see `Asker`."""
        models, name = self._models, self.model_of(role)
        in_background = threading.current_thread() is not threading.main_thread()
        cancelled = models.stopped if in_background else threading.Event()
        limit = models.settings.candidate_tokens
        if limit and self._tape.spent.tokens >= limit:
            raise RoleFailed(
                f"{self._tape.spent.tokens:,} tokens are used, agents.candidate_tokens is {limit:,}"
            )
        model = Recorded(name, models.model(name), role, self._tape, self._asked)
        prompt, settings = models.prompts[role], models.settings
        window = Window(settings.context, functools.partial(models.meter.tokens, name))

        def converse() -> T:
            with models.live.heard(self._candidate, role, name) as hear:
                call = Call(
                    temperature=prompt.temperature,
                    timeout=settings.timeout_seconds,
                    on_text=hear,
                    cancelled=cancelled,
                )
                return ask_in_window(model, prompt, values, call, window, kind, code, is_done)

        try:
            if not in_background or not models.ahead:  # else the candidate is in no slot
                models.watch.working(trial_label(self._candidate), role, None)
            return converse() if in_background else models.wait(converse, cancelled)
        except RoleFailed as failure:
            raise RoleFailed(f"{name} gave no usable answer: {failure}") from None


class _Tape:
    """The exchanges of one candidate, in the store."""

    def __init__(self, models: Models, candidate_id: int) -> None:
        self._models, self._candidate = models, candidate_id
        self.spent = models.store.ledger.spent_on(candidate_id)

    def find(self, key: str) -> Exchange | None:
        raw = self._models.store.ledger.call(self._candidate, key)
        return None if raw is None else msgspec.convert(raw, Exchange)

    def keep(self, key: str, exchange: Exchange) -> None:
        cost = self._models.cost(
            self._candidate, exchange.role, exchange.model, exchange.messages, exchange.reply
        )
        self.spent = self.spent.plus(cost)
        self._models.store.ledger.add_call(self._candidate, key, msgspec.to_builtins(exchange), cost)
