"""The language models of a lab: which one answers for which role, recorded, off the main thread.

Roles ask through an `Asker` and know nothing of models, threads or the store. While a model thinks, the
engine goes on obeying commands; a stop gives the call up.
"""

from __future__ import annotations

import functools
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from asi_lab.common import background
from asi_lab.events import Watch
from asi_lab.lab import Store, spending, trial_label
from asi_lab.lab.spending import CallCost
from asi_lab.llm import choice, prices, prompting, providers
from asi_lab.llm.ask import Asker, RoleFailed, Window, ask_in_window
from asi_lab.llm.choice import GROUPS
from asi_lab.llm.codefile import CodeFile
from asi_lab.llm.live import LiveAnswers
from asi_lab.llm.model import Call, Message, Model, Reply
from asi_lab.llm.record import Exchange, Recorded
from asi_lab.llm.tokens import Meter
from asi_lab.records import Arm
from asi_lab.settings import AgentSettings, Settings

T = TypeVar("T")


class Models:
    """All models of one lab."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        lab: Path,
        watch: Watch,
        live: LiveAnswers,
        connected: Callable[[str], Model] | None = None,
    ) -> None:
        """`lab` may hold a folder `prompts` and a file `prices.toml` of its own. `watch` is told who thinks,
        and may raise to give it up; `live` takes the answers while they arrive. `connected` makes a model of
        its name; by default over the network.

        Raises:
            ConfigError: a prompt, a price or the name of a model is wrong.
        """
        self.settings: AgentSettings = settings.agents
        self.seed, self.store, self.watch = settings.seed, store, watch
        self.live = live
        self.prompts = prompting.load_all(lab / "prompts")
        self.prices = prices.load_prices(lab)
        self.meter = Meter(spending.of_models(store.ledger.entries().values()))
        self._used_up = False
        self.stopped = threading.Event()
        """Set when the engine ends: calls of other threads are given up."""
        make = connected or self._connect
        self._models: dict[str, Model] = {name: make(name) for name in choice.names_of(self.settings)}

    @property
    def present(self) -> bool:
        """Whether any may be asked: without, the grammar, the rubric and the table fill the roles."""
        return bool(self._models) and not self._used_up

    @property
    def ahead(self) -> int:
        """How many candidates are proposed ahead: none where no model does."""
        return self.settings.ahead if self._models and self.settings.control < 1 else 0

    def used_up(self) -> str:
        """Say, once, that a limit of the whole lab is reached; empty otherwise. From then on nobody is
        asked."""
        settings, spent = self.settings, self.store.ledger.spent()
        limits = [
            (f"${spent.dollars:,.2f}", spent.dollars, "most_dollars", settings.most_dollars),
            (f"{spent.tokens:,} tokens", spent.tokens, "most_tokens", settings.most_tokens),
        ]
        over = [(used, name, limit) for used, amount, name, limit in limits if limit and amount >= limit]
        if not over or self._used_up or not self._models:
            return ""
        self._used_up = True
        used, name, limit = over[0]
        return (
            f"paused: the language models have used {used}, and agents.{name} is {limit:g}. Raise it in "
            "lab.toml and start the search again, or go on without them: asi-lab resume"
        )

    def cost(
        self, candidate: int | None, role: str, model: str, sent: Sequence[Message], reply: Reply
    ) -> CallCost:
        """The ledger's entry of a call. `sent_bytes` are those of the messages."""
        size, usage = _bytes(sent), reply.usage
        cost: CallCost = {
            "candidate": candidate,
            "role": role,
            "model": model,
            "sent_bytes": size,
            "prompt_tokens": usage.prompt,
            "completion_tokens": usage.completion,
            "seconds": reply.seconds,
            "dollars": prices.dollars(self.prices, model, usage.prompt, usage.completion),
        }
        self.meter.saw(model, size, usage.prompt)
        return cost

    def greet(self, sample: str) -> None:
        """Ask every model for a word, so that a wrong key or a missing model shows before the night. One that
        is new here is sent a `sample` of code, so that its server counts the tokens of such a text.

        Raises:
            ModelError: one of them cannot be had; the message says what to do.
        """
        for name, model in self._models.items():
            self.watch.working("-", f"waiting for {name}", None)
            call = Call(temperature=0.0, timeout=self.settings.timeout_seconds)
            code = "" if self.meter.knows(name) else f"\n\n{sample}"
            hello = [Message("user", f"Answer with one word: ready{code}")]
            reply = self.wait(functools.partial(model.complete, hello, call), call.cancelled)
            cost = self.cost(None, "greeting", name, hello, reply)
            self.store.ledger.add(f"greeting/{name}-{time.time():.3f}", cost)
            self.watch.over("-")
        if self._models:
            control = f"; the grammar proposes {self.settings.control:.0%} as a control"
            self.store.append_events(("note", f"language models: {', '.join(self._models)}{control}", {}))

    def plans(self, arm: Arm | None) -> bool:
        """Whether a language model proposes the candidates of this arm, or the grammar."""
        return self.present and self.settings.control < 1 and arm is not Arm.GRAMMAR

    def of(self, candidate_id: int, judge: str | None = None) -> Asker:
        """Whoever works on one candidate; `judge` is the model that judges, where it is not to be chosen."""
        return _Asker(self, candidate_id, {"judge": judge} if judge else {})

    def stand_in(self, candidate_id: int, role: str, words: str, error: Exception) -> None:
        """Record that something else takes the place of a model in a role; `words` say what."""
        data = {"role": role, "candidate": candidate_id}
        self._warn(f"candidate {candidate_id}: {role} failed, {words}: {error}", data)

    def digests(self) -> dict[str, str]:
        """The prompts in use, by role: a hash of each."""
        return {name: prompt.digest for name, prompt in sorted(self.prompts.items())}

    def choose(self, candidate_id: int, group: str) -> str:
        """The model that fills the roles of a group for a candidate."""
        return choice.choose(self.settings, self.seed, self.store, candidate_id, group)

    def model(self, name: str) -> Model:
        """The model of that name."""
        return self._models[name]

    def _connect(self, name: str) -> Model:
        return providers.connected(name, self.settings, self._warn)

    def _warn(self, message: str, data: dict[str, Any] | None = None) -> None:
        self.store.append_events(("warning", message, data or {}))

    def wait(self, work: Callable[[], T], cancelled: threading.Event) -> T:
        """Run `work` in a thread and tick until it is done. What `tick` raises gives it up."""
        try:
            return background.wait(background.begin(work, "role"), self.watch.tick)
        except BaseException:
            cancelled.set()
            raise


class _Asker:
    """The `Asker` of one candidate. It knows which thread asks: off the main thread nothing needs to tick."""

    def __init__(self, models: Models, candidate_id: int, chosen: dict[str, str]) -> None:
        """`chosen` are models by group, where they are not to be chosen."""
        self._models, self._candidate, self._chosen = models, candidate_id, chosen
        self._asked: Counter[str] = Counter()
        self._tape = _StoreTape(models, candidate_id)

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


class _StoreTape:
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


def _bytes(messages: Sequence[Message]) -> int:
    """Bytes of what is sent, calls of tools among it."""
    return sum(
        len(m.content.encode("utf-8", "replace")) + (len(msgspec.json.encode(m.calls)) if m.calls else 0)
        for m in messages
    )
