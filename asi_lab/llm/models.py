"""The language models of a lab: which one answers for which role, recorded, off the main thread.

Roles ask through an `Asker` and know nothing of models, threads or the store. While a model thinks, the
engine goes on obeying commands; a stop gives the call up.
"""

from __future__ import annotations

import functools
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from asi_lab.analyst.judge import Scale
from asi_lab.common import background
from asi_lab.common.randomness import keyed_random
from asi_lab.events import NewEvent, Watch
from asi_lab.lab import Store, spending, trial_label
from asi_lab.llm import bandit, prices, prompting
from asi_lab.llm.ask import Asker, Question, RoleFailed, ask
from asi_lab.llm.codefile import CodeFile
from asi_lab.llm.live import LiveAnswers
from asi_lab.llm.model import Call, Message, Model, Reply, TooLong
from asi_lab.llm.providers import connect
from asi_lab.llm.record import Exchange, Recorded
from asi_lab.llm.retry import Patient
from asi_lab.llm.tokens import Meter
from asi_lab.records import Cognition, Draw
from asi_lab.scoring import references
from asi_lab.scoring.baselines import SEED_ARCHITECTURE
from asi_lab.settings import Agents as AgentSettings
from asi_lab.settings import Settings

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
    "components": "analyst",
    "provenance": "analyst",
}
"""Roles, by the setting that names their models."""

KEPT_FREE = 10_240
"""Tokens of the window that are left to the answer and to what is said after the first question."""

SHARES = (1.0, 0.6, 0.3)
"""Of the room for a question: the next one where the server finds the last one too long."""


def names_of(settings: AgentSettings) -> list[str]:
    """All models that the settings name for some role, sorted."""
    return sorted({name for group in set(GROUPS.values()) for name in listed(settings, group)})


def listed(settings: AgentSettings, group: str) -> tuple[str, ...]:
    """The models of a group of roles: planner, coder, judge or analyst."""
    own: tuple[str, ...] = getattr(settings, group)
    return own or settings.models


def arms_of(settings: AgentSettings, store: Store, before: int | None = None) -> list[bandit.Arm]:
    """The state of the bandit over the planners, as it was before candidate `before`, or as it is now."""
    names = listed(settings, "planner")
    summaries = [s for s in store.summaries() if before is None or s.id < before]
    dollars: dict[int, float] = defaultdict(float)
    for entry in spending.of_models(store.ledger.entries().values()):
        dollars[entry["candidate"]] += entry["dollars"] or 0.0
    return bandit.arms(names, summaries, dollars, settings.cost_weight)


def connected(name: str, settings: AgentSettings, told: Callable[[str], object]) -> Model:
    """The model of that name over the network, as the settings say; `told` hears of waits for its server."""
    model = connect(
        name,
        ollama_host=settings.ollama_host or None,
        openai_base_url=settings.openai_base_url or None,
        context=settings.context,
    )
    return Patient(model, told=told)


class Plan(msgspec.Struct, frozen=True):
    """What the plan of a candidate was begun with."""

    draw: Draw
    told: dict[str, str]
    cognitions: tuple[Cognition, ...] = ()


class Models:
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
        self.talks = LiveAnswers()
        self.prompts = prompting.load_all(lab / "prompts")
        self.prices = prices.load_prices(lab)
        self.meter = Meter(spending.of_models(store.ledger.entries().values()))
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
    ) -> dict[str, Any]:
        """The ledger's entry of a call. `sent_bytes` are those of the messages."""
        size, usage = _bytes(sent), reply.usage
        cost: dict[str, Any] = {
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

    def greet(self) -> None:
        """Ask every model for a word, so that a wrong key or a missing model shows before the night. One that
        is new here is sent the seed's code, so that its server counts the tokens of such a text.

        Raises:
            ModelError: one of them cannot be had; the message says what to do.
        """
        for name, model in self._models.items():
            self.watch.working("-", f"waiting for {name}", None)
            call = Call(temperature=0.0, timeout=self.settings.timeout_seconds)
            code = "" if self.meter.knows(name) else f"\n\n{references.source(SEED_ARCHITECTURE)}"
            hello = [Message("user", f"Answer with one word: ready{code}")]
            reply = self.wait(functools.partial(model.complete, hello, call), call.cancelled)
            cost = self.cost(None, "greeting", name, hello, reply)
            self.store.ledger.add(f"greeting/{name}-{time.time():.3f}", cost)
            self.watch.over("-")
        if self._models:
            control = f"; the grammar proposes {self.settings.control:.0%} as a control"
            self.store.append_events(("note", f"language models: {', '.join(self._models)}{control}", {}))

    def plans(self, candidate_id: int) -> bool:
        """Whether a language model proposes this candidate, or the grammar as a control."""
        if not self.present:
            return False
        return keyed_random(self.seed, candidate_id, "control").random() >= self.settings.control

    def of(self, candidate_id: int, judge: str | None = None) -> Asker:
        """Whoever works on one candidate; `judge` is the model that judges, where it is not to be chosen."""
        return _Asker(self, candidate_id, {"judge": judge} if judge else {})

    def begun(self, candidate_id: int) -> Plan | None:
        """What the plan of a candidate was begun with; None where none was, or where the prompt takes other
        variables by now."""
        found = self._plan(candidate_id)
        return found if found and set(found.told) == set(self.prompts["planner"].variables) else None

    def drawn(self, candidate_id: int) -> Draw | None:
        """What was drawn for a candidate when its plan was begun: a person may have pinned another parent
        since. None where no plan was begun."""
        found = self._plan(candidate_id)
        return found.draw if found else None

    def begin(self, candidate_id: int, plan: Plan) -> None:
        """Keep what was drawn and what the planner of a candidate is told, until the candidate is `done`."""
        self.store.put_meta(f"plan/{candidate_id}", msgspec.to_builtins(plan))

    def _plan(self, candidate_id: int) -> Plan | None:
        try:
            return msgspec.convert(self.store.get_meta(f"plan/{candidate_id}"), Plan)
        except msgspec.ValidationError:  # none, or one of another version
            return None

    def done(self, candidate_id: int) -> None:
        """Forget what the planner of a candidate was told."""
        self.store.drop_meta(f"plan/{candidate_id}")

    def scale(self, judge: str) -> Scale | None:
        """What a judge gave to the references under the present wording of its prompt."""
        found = self.store.get_meta(self._scale_key(judge))
        return None if found is None else msgspec.convert(found, Scale)

    def keep_scale(self, judge: str, scale: Scale, event: NewEvent) -> None:
        """Keep what a judge gave to the references."""
        self.store.put_meta(self._scale_key(judge), msgspec.to_builtins(scale), event)

    def _scale_key(self, judge: str) -> str:
        return f"scale/{self.prompts['judge'].digest}/{judge}"

    def digests(self) -> dict[str, str]:
        """The prompts in use, by role: a hash of each."""
        return {name: prompt.digest for name, prompt in sorted(self.prompts.items())}

    def choose(self, candidate_id: int, group: str) -> str:
        """The model that fills the roles of a group for a candidate: drawn from the list, the same at every
        start, or taken by what the planners' earlier candidates became."""
        settings, names = self.settings, listed(self.settings, group)
        if group == "planner" and settings.policy == "bandit":
            return bandit.choose(arms_of(settings, self.store, before=candidate_id))
        weights = settings.weights if names == settings.models and settings.weights else None
        return keyed_random(self.seed, candidate_id, "model", group).choices(names, weights)[0]

    def model(self, name: str) -> Model:
        """The model of that name."""
        return self._models[name]

    def _connect(self, name: str) -> Model:
        return connected(name, self.settings, self._tell)

    def _tell(self, words: str) -> None:
        self.store.append_events(("warning", words, {}))

    def question(
        self, role: str, model: str, values: Mapping[str, str], call: Call, share: float
    ) -> Question:
        """The prompt of a role, fitted to that share of the room in the model's window."""
        prompt, context = self.prompts[role], self.settings.context
        room = int(share * max(context // 2, context - KEPT_FREE))
        system, user = prompt.fitted(values, room, functools.partial(self.meter.tokens, model))
        return Question(system, user, call, prompt.schema)

    def wait(self, work: Callable[[], T], cancelled: threading.Event) -> T:
        """Run `work` in a thread and tick until it is done. What `tick` raises gives it up."""
        try:
            return background.wait(background.begin(work, "role"), self.watch.tick)
        except BaseException:
            cancelled.set()
            raise


class _Asker:
    def __init__(self, agents: Models, candidate_id: int, chosen: dict[str, str]) -> None:
        """`chosen` are models by group, where they are not to be chosen."""
        self._agents, self._candidate, self._chosen = agents, candidate_id, chosen
        self._asked: Counter[str] = Counter()
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
        agents, name = self._agents, self.model_of(role)
        is_ahead = threading.current_thread() is not threading.main_thread()
        cancelled = agents.stopped if is_ahead else threading.Event()
        limit = agents.settings.candidate_tokens
        if limit and self._tape.spent.tokens >= limit:
            raise RoleFailed(
                f"{self._tape.spent.tokens:,} tokens are used, agents.candidate_tokens is {limit:,}"
            )
        model = Recorded(name, agents.model(name), role, self._tape, self._asked)

        def converse() -> T:
            with agents.talks.talk(self._candidate, role, name) as heard:
                call = Call(
                    temperature=agents.prompts[role].temperature,
                    timeout=agents.settings.timeout_seconds,
                    on_text=heard,
                    cancelled=cancelled,
                )
                for share in SHARES:
                    question = agents.question(role, name, values, call, share)
                    try:
                        return ask(model, question, kind, code, is_done)
                    except TooLong as error:
                        too_long = error
                        if code is not None:
                            code.restore()
                raise too_long

        try:
            if not is_ahead or not agents.ahead:  # else it is in no slot
                agents.watch.working(trial_label(self._candidate), role, None)
            return converse() if is_ahead else agents.wait(converse, cancelled)
        except RoleFailed as failure:
            raise RoleFailed(f"{name} gave no usable answer: {failure}") from None


class _Tape:
    """The exchanges of one candidate, in the store."""

    def __init__(self, agents: Models, candidate_id: int) -> None:
        self._agents, self._candidate = agents, candidate_id
        self.spent = agents.store.ledger.spent_on(candidate_id)

    def find(self, key: str) -> Exchange | None:
        raw = self._agents.store.ledger.call(self._candidate, key)
        return None if raw is None else msgspec.convert(raw, Exchange)

    def keep(self, key: str, exchange: Exchange) -> None:
        cost = self._agents.cost(
            self._candidate, exchange.role, exchange.model, exchange.messages, exchange.reply
        )
        self.spent = self.spent.plus(cost)
        self._agents.store.ledger.add_call(self._candidate, key, msgspec.to_builtins(exchange), cost)


def _bytes(messages: Sequence[Message]) -> int:
    """Bytes of what is sent, calls of tools among it."""
    return sum(
        len(m.content.encode("utf-8", "replace")) + (len(msgspec.json.encode(m.calls)) if m.calls else 0)
        for m in messages
    )
