"""The engine's life around the loop: lock, data, store, lineage, baselines, signals, goodbye."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Callable, Iterator, Sequence, Set
from pathlib import Path
from typing import NamedTuple

import msgspec

from asi_lab import consent, sandbox
from asi_lab.analyst import Analyst
from asi_lab.common import disk
from asi_lab.common.background import StopNow
from asi_lab.common.process import physical_cores
from asi_lab.control import Control
from asi_lab.data.sources import check_out_of_reach
from asi_lab.engineer import Engineer, contract
from asi_lab.engineer.allocation import Allocation, share_out, visible_gpus
from asi_lab.engineer.executor import Executor, LocalExecutor
from asi_lab.engineer.ladder import Ladder
from asi_lab.engineer.slots import Slots
from asi_lab.engineer.trials import Trials
from asi_lab.engineer.verifier import Verifier
from asi_lab.errors import ConfigError, DiskError, LabError, StoreError, UsageError
from asi_lab.events import NewEvent
from asi_lab.heartbeat import Pacemaker, View
from asi_lab.knowledge import rank as knowledge
from asi_lab.lab import (
    Lab,
    Lineage,
    Store,
    choice,
    fsck,
    imports,
    meta,
    preparing,
    run_label,
    rungs,
    trial_label,
)
from asi_lab.lab.directory import check_rules, check_unchanged
from asi_lab.lab.plans import Plans
from asi_lab.lab.rungs import Rung
from asi_lab.llm.live import LiveAnswers
from asi_lab.llm.model import Model
from asi_lab.llm.models import Models
from asi_lab.loop import Loop
from asi_lab.protocol import CHECKPOINT_FILE, PROBE_FILES
from asi_lab.records import RULES, SEED_ID, CandidateState, Run
from asi_lab.researcher import Researcher
from asi_lab.scoring import baselines, promotion, races, references, verification
from asi_lab.scoring.baselines import SEED_ARCHITECTURE
from asi_lab.settings import Settings

News = Sequence[NewEvent]


class _Held(NamedTuple):
    """What an engine holds while it is at work on its lab: the lab's `own` scale with the numbers that its
    settings leave to the machine, `news` is what the preparations gave, `lock` the lock's file descriptor."""

    store: Store
    control: Control
    own: Rung
    executors: Sequence[Executor]
    news: News
    lock: int


class Engine:
    """One run of the search on one lab. `search` is its whole life."""

    def __init__(
        self,
        lab: Lab,
        view: View,
        executor: Executor | None = None,
        connected: Callable[[str], Model] | None = None,
    ) -> None:
        """`executor` runs the trials, those of all slots; by default they run on this machine. `connected`
        makes a language model of its name; by default over the network."""
        self.lab, self.view = lab, view
        self.settings: Settings = lab.settings()
        self.executor, self.connected = executor, connected

    def search(self, experiments: int | None, hours: float | None) -> int:
        """Search until the lab holds `experiments` candidates, `hours` are over or someone stops it.

        Returns:
            0, or 128 + n when signal n ended it (130 for Ctrl+C).

        Raises:
            LabLocked: another engine runs on this lab.
            LabError: the disk, data, store, lineage or the machinery of trials failed.
        """
        return self._alone(hours, lambda held: self._search(held, experiments))

    def race(self, plan: races.Plan) -> int:
        """Measure and record the runs of reference architectures that a plan asks for; those that are there
        already are left out. One that fails is recorded as failed, and the others go on. Returns and raises
        as `search`.
        """
        return self._alone(None, lambda held: self._race(held, plan))

    def verify(self, candidates: Sequence[int], hours: float | None, scale: str | None = None) -> int:
        """Promote candidates at a scale, and make the fresh runs that say what can be claimed of all that are
        promoted there. Without any the most promising ones are promoted, as many as the settings say, where
        none is open; without a scale either, at one after the other. Candidates without a scale are promoted
        at the lab's own. Returns and raises as `search`; also `UsageError` where one cannot be promoted.
        """
        if candidates and scale is None:
            scale = self.settings.preset
        wanted = rungs.named(self.lab, self.settings, scale)
        return self._alone(hours, lambda held: self._verify(held, candidates, wanted))

    def _alone(self, hours: float | None, work: Callable[[_Held], None]) -> int:
        """Do `work` as the one engine of the lab, with its data prepared and its store open."""
        references.check(self.settings)
        consent.check(self.lab, self.settings)
        with self.lab.locked() as lock:
            self._check_rules()
            control = Control(self.lab, self.view.say, hours)
            with control.listening():
                try:
                    allocation = share_out(self.settings, visible_gpus(os.environ), physical_cores())
                    settings = allocation.settled(self.settings)
                    own = rungs.own(self.lab, settings)
                    executors, confinement = self._executors(own, allocation)
                    data = preparing.data(own, control.tick_unless_stopping, self.view.say)
                    news = [*confinement, *_told(allocation), *data]
                    with Store.open(self.lab.store) as store:
                        control.attend(store)
                        path, tick = self.lab.path, control.tick_unless_stopping
                        settings = choice.settled(settings, store, "search", path, tick)
                        own = own._replace(settings=settings)
                        work(_Held(store, control, own, executors, news, lock))
                except StopNow:
                    self.view.say(
                        "Cut off. What is finished is kept; what was in trial goes on from its last "
                        "checkpoint next time, or starts over where it has none."
                    )
                except OSError as error:
                    if error.filename is None and error.errno not in disk.FULL:
                        raise  # nothing about a file
                    raise DiskError(
                        f"{disk.explain(error, self.lab.path)} What is finished is kept."
                    ) from error
        return 0 if control.signalled is None else 128 + control.signalled

    def _search(self, held: _Held, experiments: int | None) -> None:
        """Build the parts of a search, each from those before it, and run its loop."""
        store, control, own, executors, news, lock = held
        settings, live = own.settings, LiveAnswers()
        config_text, thorough = self._config_text(store), not _ended_well(store)
        watch = Pacemaker(store, control, self.view, live, len(executors), experiments)
        slots = Slots(executors, watch)
        models = Models(settings, store, self.lab.path, watch, live, self.connected)
        with self._beating(watch, slots, news):
            models.greet(references.source(SEED_ARCHITECTURE))
            slots.prepare()
            trials = Trials(self.lab, own, store, slots, watch)
            self._measure_baselines(store, trials, lambda: control.may_go_on(watch.tick))
            lineage = self._lineage(store, config_text, lock, thorough=thorough)
            control.note_in(lineage)
            self._sweep_weights(store)
            plans = Plans(store, models.prompts["planner"].variables)
            adviser = knowledge.adviser(settings.agents, self.lab.path)
            first = imports.read(self.lab.path)
            researcher = Researcher(settings, store, models, plans, adviser, first, contract.faults)
            engineer = Engineer(settings, store, trials, models)
            analyst = Analyst(settings, store, models, plans, adviser.cited)
            roles = researcher, engineer, analyst
            ladder = self._ladder(held, slots, watch, lineage)
            loop = Loop(settings, config_text, store, lineage, watch, models, plans, ladder, *roles)
            loop.run(experiments, lambda: _may_go_on(control, watch, models))

    def _race(self, held: _Held, plan: races.Plan) -> None:
        store, control, own, executors, news, lock = held
        config_text, thorough = self._config_text(store), not _ended_well(store)
        watch = Pacemaker(store, control, self.view, LiveAnswers(), len(executors), None)
        slots = Slots(executors, watch)
        with self._beating(watch, slots, news):
            slots.prepare()
            if store.get(SEED_ID) is not None:
                self._lineage(store, config_text, lock, thorough=thorough)
            trials = Trials(self.lab, own, store, slots, watch)
            begun: set[Run] = set()
            while due := _due(plan, store, begun):
                _measure(trials, due, trials.reference, lambda: control.may_go_on(watch.tick))
                begun.update(due)

    def _verify(self, held: _Held, candidates: Sequence[int], wanted: Sequence[Rung]) -> None:
        store, control, own, executors, news, lock = held
        config_text, thorough = self._config_text(store), not _ended_well(store)
        _check_promotable(own.settings, store, candidates)
        watch = Pacemaker(store, control, self.view, LiveAnswers(), len(executors), None)
        slots = Slots(executors, watch)
        with self._beating(watch, slots, news):
            lineage = self._lineage(store, config_text, lock, thorough=thorough)
            for rung in wanted:
                below = rungs.below(self.lab, own, rung)
                if not candidates and not promotion.is_of_use(rung, below, store):
                    store.append_events(("warning", promotion.nobody(rung, below), {}))
                    continue
                verifier = self._verifier(held, rung, slots, watch, lineage)
                go_on, quota = functools.partial(control.may_go_on, watch.tick), own.settings.verify.quota
                if not verifier.run(go_on, candidates, quota):
                    break

    def _verifier(
        self, held: _Held, rung: Rung, slots: Slots, watch: Pacemaker, lineage: Lineage
    ) -> Verifier:
        """What verifies at a scale, with all prepared that this takes.

        Raises:
            LabError: its data or its settings do not do.
        """
        store, own, allocation = held.store, held.own, None
        below = rungs.below(self.lab, own, rung)

        def tick() -> None:
            held.control.tick_unless_stopping()
            watch.tick()

        if rung.name:
            rung = preparing.frozen(rung, store)
            allocation = share_out(rung.settings, visible_gpus(os.environ), physical_cores())
            rung = rung._replace(settings=allocation.settled(rung.settings))
        rung = preparing.ready(rung if rung.name else own, store, self.lab.path, tick, self.view.say)
        if allocation:
            slots = slots.at(self._executors(rung, allocation)[0])
        return Verifier(rung, below, store, lineage, Trials(self.lab, rung, store, slots, watch))

    def _ladder(self, held: _Held, slots: Slots, watch: Pacemaker, lineage: Lineage) -> Ladder:
        """What makes claims beside the search: nothing unless it has a share of the time. A scale that cannot
        be prepared is told, and left out with those beyond it."""
        store, wanted, verifiers = held.store, held.own.settings.verify, list[Verifier]()
        for rung in rungs.of_lab(self.lab, held.own.settings) if wanted.share else ():
            try:
                verifiers.append(self._verifier(held, rung, slots, watch, lineage))
            except LabError as error:
                words = f"the search goes on without claims at {rung.title} and beyond: {error}"
                store.append_events(("warning", words, {}))
                break
        return Ladder(verifiers, slots, wanted.share, wanted.quota)

    @contextlib.contextmanager
    def _beating(self, watch: Pacemaker, slots: Slots, news: News) -> Iterator[None]:
        """Tell viewers of the engine's start and, whatever happens, of its end, where the slots close."""
        started: NewEvent = ("engine_started", f"engine {os.getpid()} started", {"pid": os.getpid()})
        watch.beat("running", started, *news)
        try:
            yield
        finally:
            slots.close()
            cause = sys.exception()  # it says more than what may follow from it
            with contextlib.suppress(*([StoreError] if cause else [])):
                watch.beat("stopped", ("engine_stopped", f"engine {os.getpid()} stopped", {}))
                self.view.refresh(watch.store)

    def _executors(self, rung: Rung, allocation: Allocation) -> tuple[Sequence[Executor], News]:
        """Where trials run, for each slot, and what is to be told of their confinement.

        Raises:
            ConfigError: the settings ask for a sandbox that does not work here.
            DataError: it shows text to trials that is held out from them.
        """
        if self.executor is not None:
            return [self.executor] * allocation.count, ()
        settings, data = rung.settings, rung.data
        confinement = sandbox.choose(settings.sandbox, sandbox.probe())
        level, weak = confinement.level, confinement.level is sandbox.Level.LIMITS
        if settings.train.ranks != 1 and level is sandbox.Level.LANDLOCK:
            raise ConfigError(
                "train.ranks: several processes train together through local sockets, which the sandbox "
                "`landlock` closes. Install bubblewrap (asi-lab doctor says how), or set ranks = 1."
            )
        hint = ". How to get a better one: asi-lab doctor" if weak else ""
        left = ", ".join(sandbox.uncovered(level))
        message = f"sandbox of trials: {level.value}; it leaves open {left}{hint}"
        told: NewEvent = ("warning" if weak else "note", message, {"sandbox": level.value})
        waiting = self.lab.trials / ".waiting"
        executors = [LocalExecutor(waiting, confinement, data, settings, gpus) for gpus in allocation.gpus]
        return executors, (told, *check_out_of_reach(settings.data, data, level))

    def _check_rules(self) -> None:
        """Raises `UsageError` where the lab was begun under other rules."""
        if self.lab.has_results():
            with Store.open(self.lab.store) as store:
                if meta.CONFIG.read(store) is not None:
                    check_rules(self.lab, meta.RULES.read(store) or 1)

    def _config_text(self, store: Store) -> str:
        """The configuration that the lab began with, after a look that it and the data still fit."""
        text = meta.CONFIG.read(store)
        if text is None:
            if self.lab.lineage.exists():
                raise StoreError(
                    f"{self.lab.store}: expected the store of the search that {self.lab.lineage.name}/ "
                    "shows, found an empty one. Restore the lab from a copy, or move it away and start anew"
                )
            text = self.lab.config.read_text(encoding="utf-8-sig")
            meta.RULES.write(store, RULES)
            meta.CONFIG.write(store, text)
        check_unchanged(self.settings, text)
        preparing.same_data(rungs.own(self.lab, self.settings), meta.DATA, store)
        return text

    def _measure_baselines(self, store: Store, trials: Trials, may_go_on: Callable[[], bool]) -> None:
        due = [Run(*run) for run in baselines.due(self.settings.baselines, 0, store.baselines())]
        _measure(trials, due, trials.baseline, may_go_on)
        if store.get(SEED_ID) is None:
            seed = references.seed_candidate(self.settings, store.baselines())
            store.put(seed, ("note", f"seed architecture: {SEED_ARCHITECTURE}", {}))

    def _lineage(self, store: Store, config_text: str, lock: int, thorough: bool) -> Lineage:
        """The lineage with the seed in it: a new one where the lab has none yet, else put in order.

        What a killed git left behind, and refs or a whole repository that were lost, are made again from
        the store; each repair is an event. A `thorough` look reads every object, which is due after an
        engine that did not end by itself: the machine may have lost power.
        """
        seed = store.get(SEED_ID)
        assert seed is not None
        if seed.commit is None:
            lineage = Lineage.create(self.lab.lineage, seed, config_text, [references.upper()], [lock])
            sha = lineage.sha_of(SEED_ID)
            seed = msgspec.structs.replace(seed, commit=sha)
            store.put(seed, ("commit", f"{seed.name}: the root of the lineage", {"sha": sha}))
            lineage.update_best(seed)
        upper = [references.upper()]
        for finding in fsck.repair(store, self.lab.lineage, config_text, upper, thorough=thorough):
            message = f"{finding.subject}: {finding.message}"
            store.append_events(("repair" if finding.repaired else "warning", message, {}))
        return Lineage.open(self.lab.lineage, [lock])

    def _sweep_weights(self, store: Store) -> None:
        """Remove weights that nobody will ask for: a kill may have come before their removal."""
        if self.settings.limits.checkpoints == "best":
            numbers = [store.best_id() or SEED_ID, *(candidate.id for candidate in store.unfinished())]
            wanted = {trial_label(number) for number in numbers}
            for pattern in (f"*{Path(CHECKPOINT_FILE).stem}.*", f"*{PROBE_FILES}"):
                for file in self.lab.trials.glob(f"*/{pattern}"):
                    if file.parent.name not in wanted:
                        file.unlink()


def _ended_well(store: Store) -> bool:
    """Whether the engine before this one ended by itself."""
    beat = meta.ENGINE.read(store)
    return beat.state == "stopped" if beat else not meta.ENGINE.is_there(store)


def _check_promotable(settings: Settings, store: Store, candidates: Sequence[int]) -> None:
    """Raises `UsageError` where one of them has no score, or nothing was searched yet."""
    if verification.first_terms(settings, store) is None or store.get(SEED_ID) is None:
        raise UsageError("verify: expected a lab that was searched. Start the search first.")
    for number in candidates:
        candidate = store.get(number)
        if candidate is None or candidate.state is not CandidateState.DONE or number == SEED_ID:
            raise UsageError(f"verify: expected candidates with a score (asi-lab top); found {number}.")


def _told(allocation: Allocation) -> News:
    """What is to be told of the slots."""
    return [("warning" if allocation.crowded else "note", allocation.words, {})] if allocation.words else []


def _due(plan: races.Plan, store: Store, begun: Set[Run]) -> list[Run]:
    """The runs of a plan that have neither ended nor been begun by this engine."""
    ended = [run for run in store.reference_runs() if run.run in begun or not races.may_pass(run)]
    return [run for run in races.due(plan, ended) if run not in begun]


def _measure(
    trials: Trials, runs: Sequence[Run], work: Callable[[Run], object], may_go_on: Callable[[], bool]
) -> None:
    """Do the `work` of measuring each of these runs of references, wherever a slot is free.

    Raises:
        StopNow: the search is to end.
    """
    slots = trials.slots
    for run in runs:
        slots.wait_for_room()
        if not may_go_on():
            slots.wait()
            raise StopNow
        slots.begin(run_label(*run), functools.partial(work, run))
    slots.wait()


def _may_go_on(control: Control, watch: Pacemaker, models: Models) -> bool:
    """Whether another candidate may be started; waits while paused, also where the models cost too much."""
    if why := models.used_up():
        control.hold(why)
    return control.may_go_on(watch.tick)
