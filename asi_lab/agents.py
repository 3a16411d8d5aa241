"""The language models of a lab: which one answers for which role, recorded, off the main thread.

Roles ask through an `Asker` and know nothing of models, threads or the store. While a model thinks, the
engine goes on obeying commands; a stop gives the call up.
"""

from __future__ import annotations

import functools
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from asi_lab import arms, aside, prompting, spending
from asi_lab.llm.ask import Asker, Question, RoleFailed, ask
from asi_lab.llm.codefile import CodeFile
from asi_lab.llm.model import Call, Message, Model
from asi_lab.llm.providers import connect
from asi_lab.llm.record import Exchange, Recorded
from asi_lab.llm.retry import Patient
from asi_lab.randomness import keyed_random
from asi_lab.settings import Agents as AgentSettings
from asi_lab.settings import Settings
from asi_lab.store import Store
from asi_lab.trials import Watch

T = TypeVar("T")

GROUPS = {
    "planner": "planner",
    "planner_after_duplicate": "planner",
    "novelty": "planner",
    "checker": "coder",
    "debugger": "coder",
    "judge": "judge",
    "analyst": "analyst",
    "summariser": "analyst",
}
"""Roles, by the setting that names their models."""


def names_of(settings: AgentSettings) -> list[str]:
    """All models that the settings name for some role, sorted."""
    return sorted({name for group in set(GROUPS.values()) for name in _listed(settings, group)})


def _listed(settings: AgentSettings, group: str) -> tuple[str, ...]:
    own: tuple[str, ...] = getattr(settings, group)
    return own or settings.models


def arms_of(settings: AgentSettings, store: Store, before: int | None = None) -> list[arms.Arm]:
    """The state of the bandit over the planners, as it was before candidate `before`, or as it is now."""
    names = _listed(settings, "planner")
    summaries = [s for s in store.summaries() if before is None or s.id < before]
    dollars: dict[int, float] = defaultdict(float)
    for entry in store.ledger().values():
        dollars[entry["candidate"]] += entry["dollars"] or 0.0
    return arms.arms(names, summaries, dollars, settings.cost_weight)


class Agents:
    """All models of one lab."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        lab: Path,
        watch: Watch,
        connected: Callable[[str], Model] | None = None,
    ) -> None:
        """`lab` may hold a folder `prompts` and a file `prices.toml` of its own. `watch` is told who thinks,
        and may raise to give it up. `connected` makes a model of its name; by default over the network.

        Raises:
            ConfigError: a prompt, a price or the name of a model is wrong.
        """
        self.settings: AgentSettings = settings.agents
        self.seed, self.store, self.watch = settings.seed, store, watch
        self.prompts = prompting.load_all(lab / "prompts")
        self.prices = spending.load_prices(lab)
        self.spent = spending.total(store.ledger().values())
        self._counting = threading.Lock()
        self._used_up = False
        self.stopped = threading.Event()
        """Set when the engine ends: calls of other threads are given up."""
        make = connected or self._connect
        self._models: dict[str, Model] = {name: make(name) for name in names_of(self.settings)}

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
        settings, spent = self.settings, self.spent
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

    def count(self, cost: Mapping[str, Any]) -> None:
        """Add an entry of the ledger to what was spent."""
        with self._counting:
            self.spent = self.spent.plus(cost)

    def greet(self) -> None:
        """Ask every model for a word, so that a wrong key or a missing model shows before the night.

        Raises:
            ModelError: one of them cannot be had; the message says what to do.
        """
        for name, model in self._models.items():
            self.watch.working("-", f"waiting for {name}", None)
            call = Call(temperature=0.0, timeout=self.settings.timeout_seconds)
            hello = [Message("user", "Answer with one word: ready")]
            asked = functools.partial(model.complete, hello, call)
            self.wait(asked, call.cancelled)
        if self._models:
            control = f"; the grammar proposes {self.settings.control:.0%} as a control"
            self.store.append_events(("note", f"language models: {', '.join(self._models)}{control}", {}))

    def plans(self, candidate_id: int) -> bool:
        """Whether a language model proposes this candidate, or the grammar as a control."""
        if not self.present:
            return False
        return keyed_random(self.seed, candidate_id, "control").random() >= self.settings.control

    def of(self, candidate_id: int) -> Asker:
        """Whoever works on one candidate."""
        return _Asker(self, candidate_id)

    def digests(self) -> dict[str, str]:
        """The prompts in use, by role: a hash of each."""
        return {name: prompt.digest for name, prompt in sorted(self.prompts.items())}

    def choose(self, candidate_id: int, group: str) -> str:
        """The model that fills the roles of a group for a candidate: drawn from the list, the same at every
        start, or taken by what the planners' earlier candidates became."""
        settings, names = self.settings, _listed(self.settings, group)
        if group == "planner" and settings.policy == "bandit":
            return arms.choose(arms_of(settings, self.store, before=candidate_id))
        weights = settings.weights if names == settings.models and settings.weights else None
        return keyed_random(self.seed, candidate_id, "model", group).choices(names, weights)[0]

    def model(self, name: str) -> Model:
        """The model of that name."""
        return self._models[name]

    def _connect(self, name: str) -> Model:
        settings = self.settings
        model = connect(
            name,
            ollama_host=settings.ollama_host or None,
            openai_base_url=settings.openai_base_url or None,
            context=settings.context,
        )
        return Patient(model, told=self._tell)

    def _tell(self, words: str) -> None:
        self.store.append_events(("warning", words, {}))

    def wait(self, work: Callable[[], T], cancelled: threading.Event) -> T:
        """Run `work` in a thread and tick until it is done. What `tick` raises gives it up."""
        try:
            return aside.wait(aside.begin(work, "role"), self.watch.tick)
        except BaseException:
            cancelled.set()
            raise


class _Asker:
    def __init__(self, agents: Agents, candidate_id: int) -> None:
        self._agents, self._candidate = agents, candidate_id
        self._asked: Counter[str] = Counter()
        self._chosen: dict[str, str] = {}
        self._tape = _Tape(agents, candidate_id)

    def model_of(self, role: str) -> str:
        """Chosen once: what a bandit would choose may change while other candidates come to their end."""
        group = GROUPS[role]
        if group not in self._chosen:
            self._chosen[group] = self._agents.choose(self._candidate, group)
        return self._chosen[group]

    def __call__(
        self,
        role: str,
        kind: type[T],
        values: Mapping[str, str],
        code: CodeFile | None = None,
        is_done: Callable[[T], str] = lambda answer: "",
    ) -> T:
        agents = self._agents
        is_ahead = threading.current_thread() is not threading.main_thread()
        cancelled = agents.stopped if is_ahead else threading.Event()
        limit = agents.settings.candidate_tokens
        if limit and self._tape.spent.tokens >= limit:
            raise RoleFailed(
                f"{self._tape.spent.tokens:,} tokens are used, agents.candidate_tokens is {limit:,}"
            )
        prompt = agents.prompts[role]
        system, user = prompt.render(**values)
        name = self.model_of(role)
        model = Recorded(name, agents.model(name), role, self._tape, self._asked)
        call = Call(
            temperature=prompt.temperature, timeout=agents.settings.timeout_seconds, cancelled=cancelled
        )
        question = Question(system, user, call, prompt.schema)
        try:
            if is_ahead:
                return ask(model, question, kind, code, is_done)
            agents.watch.working(f"{self._candidate:04d}", role, None)
            return agents.wait(lambda: ask(model, question, kind, code, is_done), cancelled)
        except RoleFailed as failure:
            raise RoleFailed(f"{name} gave no usable answer: {failure}") from None


class _Tape:
    """The exchanges of one candidate, in the store."""

    def __init__(self, agents: Agents, candidate_id: int) -> None:
        self._agents, self._candidate = agents, candidate_id
        own = agents.store.ledger(f"{candidate_id}/")
        self.spent = spending.total(own.values())

    def find(self, key: str) -> Exchange | None:
        raw = self._agents.store.exchange(self._candidate, key)
        return None if raw is None else msgspec.convert(raw, Exchange)

    def keep(self, key: str, exchange: Exchange) -> None:
        usage = exchange.reply.usage
        cost: dict[str, Any] = {
            "candidate": self._candidate,
            "role": exchange.role,
            "model": exchange.model,
            "prompt_tokens": usage.prompt,
            "completion_tokens": usage.completion,
            "seconds": exchange.reply.seconds,
            "dollars": spending.dollars(self._agents.prices, exchange.model, usage.prompt, usage.completion),
        }
        self.spent = self.spent.plus(cost)
        self._agents.count(cost)
        self._agents.store.put_exchange(self._candidate, key, msgspec.to_builtins(exchange), cost)
