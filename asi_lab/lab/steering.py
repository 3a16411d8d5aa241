"""What a person asks of a search, other than to pause or end it, and how the search heeds it.

    idea            a note that the next planner must take up
    pin, unpin      every new candidate descends from this one, until it is unpinned
    ban, unban      this one is drawn neither as parent nor as reference
    rerun           train and evaluate this one once more, with another seed
    tag, untag, comment   notes on a candidate, kept in git notes too

The state lives in the store. Each order changes it in the one transaction that also records the order's id
and the answer, so it is heeded exactly once, whoever dies in between.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from asi_lab.common.text import plain
from asi_lab.lab import repeats
from asi_lab.lab.commands import Command
from asi_lab.lab.lineage import Lineage
from asi_lab.lab.repeats import Repeat
from asi_lab.lab.store import Store
from asi_lab.records import SEED_ID, Candidate, CandidateState

KEY = "steering"
LONGEST_IDEA, LONGEST_COMMENT = 4000, 2000
MOST_TAGS = 20
TAG = re.compile(r"[a-z0-9][a-z0-9_.-]{0,39}")
SHOWN = 60


class Idea(msgspec.Struct, frozen=True):
    """A person's note for a planner. `taken_by` is the candidate whose planner took it up."""

    id: int
    text: str
    time: float
    taken_by: int | None = None


class Steering(msgspec.Struct, frozen=True):
    """What is in force: the pinned parent, the banned candidates, the ideas, the runs that are waited for."""

    pinned: int | None = None
    banned: tuple[int, ...] = ()
    ideas: tuple[Idea, ...] = ()
    reruns: tuple[int, ...] = ()

    @property
    def waiting(self) -> tuple[Idea, ...]:
        """Ideas that no planner has taken up yet, oldest first."""
        return tuple(idea for idea in self.ideas if idea.taken_by is None)


class Comment(msgspec.Struct, frozen=True):
    """What a person wrote about a candidate; `time` is in seconds since the epoch."""

    time: float
    text: str


class Note(msgspec.Struct, frozen=True):
    """A person's tags and comments on one candidate."""

    tags: tuple[str, ...] = ()
    comments: tuple[Comment, ...] = ()


T = TypeVar("T", Steering, Note)

Change = Callable[[T], tuple[T | None, str]]
"""From what is in force to what is from now on, None where that stays as it is, and the answer in words."""


def read(store: Store) -> Steering:
    """What is in force."""
    return _held(store.get_meta(KEY), Steering)


def note(store: Store, candidate_id: int) -> Note:
    """The tags and comments of a candidate."""
    return _held(store.get_meta(_note_key(candidate_id)), Note)


def notes(store: Store) -> dict[int, Note]:
    """All candidates that have tags or comments."""
    found = store.metas(_note_key())
    return {int(key.removeprefix(_note_key())): _held(value, Note) for key, value in found.items()}


def published(store: Store, candidate_id: int) -> str:
    """A candidate's tags, comments and further runs as the text of its git note; empty without any."""
    found = note(store, candidate_id)
    lines = [f"Tag: {tag}" for tag in found.tags]
    lines += [f"Run: {run.words}" for run in repeats.of(store, candidate_id)]
    for comment in found.comments:
        clock = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(comment.time))
        lines += ["", f"{clock}", plain(comment.text, multiline=True)]
    return "\n".join(lines).strip()


def publish(store: Store, lineage: Lineage, candidate_id: int) -> None:
    """Write a candidate's tags, comments and reruns to its git note; does nothing before it has a commit."""
    with lineage.publishing:
        found = store.get(candidate_id)
        if found is not None and found.commit is not None:
            lineage.annotate(found.commit, published(store, candidate_id))


def obey(store: Store, command: Command) -> bool:
    """Carry an order out, once: with its answer as an event, which also says where it cannot be heeded.

    Returns whether it changed what is published in git notes. Orders that steer the engine itself (pause,
    stop, release) are none of these.
    """
    key, change = _change(store, command)
    payload = {"action": command.action, "time": command.time}
    done = store.obey(command.id, payload, key, change, candidate=command.candidate)
    return done and key.startswith(_note_key())


def taken(store: Store, candidate_id: int) -> str:
    """The idea that a candidate's planner is to take up: one that it was given before, else the oldest that
    waits, which is its own from now on. Empty where there is none."""
    state = read(store)
    own = next((idea for idea in state.ideas if idea.taken_by == candidate_id), None)
    if own is not None or not state.waiting:
        return own.text if own is not None else ""
    found = ""

    def take(state: Steering) -> tuple[Steering | None, str]:
        nonlocal found
        first = next(iter(state.waiting), None)
        if first is None:  # another planner was faster
            return None, ""
        found = first.text
        mine = msgspec.structs.replace(first, taken_by=candidate_id)
        ideas = tuple(mine if idea.id == first.id else idea for idea in state.ideas)
        words = f"idea {first.id} goes to the planner of candidate {candidate_id}: {_short(first.text)}"
        return msgspec.structs.replace(state, ideas=ideas), words

    store.change_meta(KEY, _plainly(Steering, take), candidate=candidate_id)
    return found


def give_back(store: Store, candidate_id: int) -> None:
    """Let another planner take up the idea that this candidate's planner could not."""

    def back(state: Steering) -> tuple[Steering | None, str]:
        own = next((idea for idea in state.ideas if idea.taken_by == candidate_id), None)
        if own is None:
            return None, ""
        free = msgspec.structs.replace(own, taken_by=None)
        ideas = tuple(free if idea.id == own.id else idea for idea in state.ideas)
        return msgspec.structs.replace(state, ideas=ideas), f"idea {own.id} waits for another planner"

    if any(idea.taken_by == candidate_id for idea in read(store).ideas):
        store.change_meta(KEY, _plainly(Steering, back), candidate=candidate_id)


def finished_rerun(store: Store, run: Repeat) -> None:
    """Record a further run of a candidate, and that it is not waited for any more."""

    def finish(state: Steering) -> tuple[Steering | None, str]:
        reruns = list(state.reruns)
        if run.candidate in reruns:
            reruns.remove(run.candidate)
        words = f"candidate {run.candidate} once more: {run.words}"
        return msgspec.structs.replace(state, reruns=tuple(reruns)), words

    done = _plainly(Steering, finish)
    store.change_meta(KEY, done, candidate=run.candidate, kind="note", also=repeats.row(run))


def _change(store: Store, command: Command) -> tuple[str, Callable[[Any], tuple[Any, str]]]:
    """Which value an order is about, and how it changes that."""
    words = plain(command.text, multiline=True).strip()
    candidate = None if command.candidate is None else store.get(command.candidate)
    match command.action:
        case "idea":
            return KEY, _plainly(Steering, lambda state: _add_idea(state, words, command.time))
        case "unpin":
            return KEY, _plainly(Steering, _unpin)
        case "pin" | "ban" | "unban" | "rerun":
            change = _CHANGES[command.action]
            return KEY, _plainly(Steering, lambda state: change(state, command, candidate))
        case "tag" | "untag" | "comment":
            found = None if candidate is None else candidate.id
            return _note_key(found), _plainly(Note, lambda note: _annotated(note, command, words, found))
    raise ValueError(f"{command.action} is no order of this kind")


def _add_idea(state: Steering, text: str, when: float) -> tuple[Steering | None, str]:
    if not text or len(text) > LONGEST_IDEA:
        return None, f"idea not taken: expected 1 to {LONGEST_IDEA:,} characters, found {len(text):,}"
    idea = Idea(1 + max((one.id for one in state.ideas), default=0), text, when)
    words = f"idea {idea.id} waits for the next planner: {_short(text)}"
    return msgspec.structs.replace(state, ideas=(*state.ideas, idea)), words


def _unpin(state: Steering) -> tuple[Steering | None, str]:
    if state.pinned is None:
        return None, "no parent is pinned"
    words = f"candidate {state.pinned} is unpinned: parents are drawn again"
    return msgspec.structs.replace(state, pinned=None), words


def _pin(state: Steering, command: Command, found: Candidate | None) -> tuple[Steering | None, str]:
    if refusal := _not_done(found, command):
        return None, f"not pinned: {refusal}"
    banned = tuple(number for number in state.banned if number != command.candidate)
    changed = msgspec.structs.replace(state, pinned=command.candidate, banned=banned)
    return changed, f"candidate {command.candidate} is pinned: new candidates descend from it"


def _ban(state: Steering, command: Command, found: Candidate | None) -> tuple[Steering | None, str]:
    if command.candidate == SEED_ID:
        return None, "not banned: candidate 0 is the root of all"
    if refusal := _not_done(found, command):
        return None, f"not banned: {refusal}"
    if command.candidate in state.banned:
        return None, f"candidate {command.candidate} is banned already"
    assert command.candidate is not None
    pinned = None if state.pinned == command.candidate else state.pinned
    changed = msgspec.structs.replace(state, banned=(*state.banned, command.candidate), pinned=pinned)
    return changed, f"candidate {command.candidate} is banned: it is not drawn any more"


def _unban(state: Steering, command: Command, found: Candidate | None) -> tuple[Steering | None, str]:
    del found
    if command.candidate not in state.banned:
        return None, f"candidate {command.candidate} is not banned"
    banned = tuple(number for number in state.banned if number != command.candidate)
    words = f"candidate {command.candidate} may be drawn again"
    return msgspec.structs.replace(state, banned=banned), words


def _rerun(state: Steering, command: Command, found: Candidate | None) -> tuple[Steering | None, str]:
    if command.candidate == SEED_ID:
        return None, "not run again: candidate 0 is the baseline, of which the lab measures several seeds"
    if refusal := _not_done(found, command):
        return None, f"not run again: {refusal}"
    changed = msgspec.structs.replace(state, reruns=(*state.reruns, command.candidate))
    words = f"candidate {command.candidate} will be run once more, with another seed, as the next trial"
    return changed, words


_CHANGES = {"pin": _pin, "ban": _ban, "unban": _unban, "rerun": _rerun}


def _annotated(
    found: Note, command: Command, words: str, candidate_id: int | None
) -> tuple[Note | None, str]:
    if candidate_id is None:
        return None, f"not noted: there is no candidate {command.candidate}"
    if command.action == "comment":
        if not words or len(words) > LONGEST_COMMENT:
            return None, f"not noted: expected 1 to {LONGEST_COMMENT:,} characters, found {len(words):,}"
        comments = (*found.comments, Comment(command.time, words))
        words = f"noted on candidate {candidate_id}: {_short(words)}"
        return msgspec.structs.replace(found, comments=comments), words
    tags = words.split()
    if not tags or any(not TAG.fullmatch(tag) for tag in tags):
        expected = "a tag is of a-z 0-9 _ . - and of 1 to 40 characters"
        return None, f"not tagged: {expected}; found {_short(words)!r}"
    if command.action == "untag":
        kept, verb = tuple(tag for tag in found.tags if tag not in tags), "no longer tagged"
    else:
        kept, verb = tuple(dict.fromkeys((*found.tags, *tags))), "tagged"
    if len(kept) > MOST_TAGS:
        return None, f"not tagged: a candidate has at most {MOST_TAGS} tags"
    words = f"candidate {candidate_id} {verb}: {' '.join(tags)}"
    return msgspec.structs.replace(found, tags=kept), words


def _not_done(found: Candidate | None, command: Command) -> str:
    """Why a candidate is none of the scored ones, in words; empty where it is one."""
    if found is None:
        return f"there is no candidate {command.candidate}"
    if found.state is not CandidateState.DONE:
        return f"candidate {found.id} is {found.state.value}, and only those that are done can be"
    return ""


def _note_key(candidate_id: int | None = None) -> str:
    return "note/" if candidate_id is None else f"note/{candidate_id}"


def _held(value: Any, kind: type[T]) -> T:
    """What lies in the store, or nothing yet."""
    return msgspec.convert(value, kind) if value else kind()


def _plainly(kind: type[T], change: Change[T]) -> Callable[[Any], tuple[Any, str]]:
    """A change as the store makes it, on plain values."""

    def changed(value: Any) -> tuple[Any, str]:
        new, words = change(_held(value, kind))
        return None if new is None else msgspec.to_builtins(new), words

    return changed


def _short(text: str) -> str:
    return plain(text, limit=SHOWN)
