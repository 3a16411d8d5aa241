"""A new entry of a paper's text, by a language model: background first, then insights (appendix D.5).

Replies are kept beside the lab's entries, so an extraction that was broken off, or whose entry was rejected,
pays for none of them again.
"""

from __future__ import annotations

import functools
import re
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from asi_lab.common import disk
from asi_lab.errors import DiskError, KnowledgeError
from asi_lab.knowledge import lint
from asi_lab.knowledge.base import FOLDER, Base
from asi_lab.knowledge.entry import Entry, Front, Insight, render
from asi_lab.llm import prompting
from asi_lab.llm.ask import RoleFailed, Window, ask_in_window
from asi_lab.llm.model import Call, Model
from asi_lab.llm.record import Exchange, Recorded
from asi_lab.llm.tokens import Meter
from asi_lab.settings import AgentSettings

T = TypeVar("T")
REPLIES = ".replies"
"""Folder of recorded replies, in the lab's folder of entries."""
ATTEMPTS = 3
"""Times that insights are asked for, each time but the first with what was wrong with the last ones."""
NOTHING = "nothing yet"
KEY_WORDS = 5


class PaperBackground(msgspec.Struct, frozen=True):
    """What the first prompt asks for."""

    title: str
    first_author: str
    year: int
    family: str
    mechanism: str
    historical_context: str
    limitation: str
    concepts: str


class Insights(msgspec.Struct, frozen=True):
    """What the second prompt asks for."""

    insights: tuple[Insight, ...]


class FileTape:
    """Exchanges as files of a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self, key: str) -> Exchange | None:
        """The exchange of that key, if it took place and can be read."""
        try:
            return msgspec.json.decode((self.folder / f"{key}.json").read_bytes(), type=Exchange)
        except (OSError, msgspec.MsgspecError):
            return None

    def keep(self, key: str, exchange: Exchange) -> None:
        """Record an exchange.

        Raises:
            DiskError: it cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            disk.write(self.folder / f"{key}.json", msgspec.json.encode(exchange))
        except OSError as error:
            raise DiskError(disk.explain(error, self.folder)) from None


class Extractor:
    """Makes entries for one lab with one model."""

    def __init__(
        self,
        model: Model,
        settings: AgentSettings,
        lab: Path,
        genes: lint.Genes,
        say: Callable[[str], object],
    ) -> None:
        """`genes` are those of the grammar, which insights may name; `say` is told what is being done."""
        self.model, self.settings, self.lab = model, settings, lab
        self.genes, self.say = genes, say
        self._tape, self._meter = FileTape(lab / FOLDER / REPLIES), Meter()
        self._asked: Counter[str] = Counter()

    def extract(self, text: str, base: Base, key: str = "", arxiv: str = "") -> Entry:
        """An entry that keeps all rules; `key` and `arxiv` are taken from the paper where they are not given.

        Raises:
            KnowledgeError: no such entry came of it.
            ModelError: the model cannot be had.
        """
        self.say(f"{self.model.name} reads {len(text.split()):,} words: background")
        found = self._ask(
            "cognition_background", PaperBackground, paper=text, families=", ".join(sorted(lint.FAMILIES))
        )
        front = Front(
            key or _key(found.title),
            " ".join(found.title.split()),
            " ".join(found.first_author.split()),
            found.year,
            arxiv or _arxiv(text),
            found.family,
            " ".join(found.mechanism.split()),
        )
        words = f"{found.historical_context}\n\n{found.limitation}\n\n{found.concepts}"
        faults = NOTHING
        for _ in range(ATTEMPTS):
            self.say("insights" if faults == NOTHING else f"insights once more: {faults}")
            metrics = "held-out loss, " + ", ".join(sorted(lint.METRICS))
            answer = self._ask(
                "cognition_insights", Insights, paper=text, background=words, metrics=metrics, faults=faults
            )
            entry = Entry(
                front,
                found.historical_context.strip(),
                found.limitation.strip(),
                found.concepts.strip(),
                tuple(map(_stripped, answer.insights)),
            )
            others = {known.key: known for known in base if known.key != entry.key}
            wrong = [
                one
                for one in lint.faults(Base({**others, entry.key: entry}), self.genes)
                if one.key == entry.key
            ]
            if not entry.insights:
                wrong = [lint.Fault(entry.key, "there is no insight"), *wrong]
            if not wrong:
                return entry
            faults = "\n".join(f"- {one.message}" for one in wrong)
        raise KnowledgeError(
            f"{self.model.name} made no entry that keeps the rules, in {ATTEMPTS} attempts. The last one's "
            f"faults:\n{faults}"
        )

    def _ask(self, role: str, kind: type[T], **values: str) -> T:
        prompt = prompting.load(role, self.lab / "prompts")
        model = Recorded(self.model.name, self.model, role, self._tape, self._asked)
        call = Call(
            temperature=prompt.temperature, timeout=self.settings.timeout_seconds, cancelled=threading.Event()
        )
        window = Window(self.settings.context, functools.partial(self._meter.tokens, self.model.name))
        try:
            return ask_in_window(model, prompt, values, call, window, kind)
        except RoleFailed as failure:
            raise KnowledgeError(f"{self.model.name} gave no usable answer: {failure}") from None


def save(entry: Entry, lab: Path) -> Path:
    """Write an entry into the lab's folder; returns the file.

    Raises:
        DiskError: it cannot be written.
    """
    file = lab / FOLDER / f"{entry.key}.md"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        disk.write(file, render(entry).encode())
    except OSError as error:
        raise DiskError(disk.explain(error, file)) from None
    return file


def _stripped(insight: Insight) -> Insight:
    """Without blanks around, and without headings that would be read as sections."""
    texts: dict[str, Any] = {
        name: re.sub(r"^#+ +", "", value.strip(), flags=re.MULTILINE)
        for name, value in msgspec.structs.asdict(insight).items()
        if isinstance(value, str)
    }
    texts["title"] = " ".join(texts["title"].split())
    return msgspec.structs.replace(insight, **texts)


def _key(title: str) -> str:
    words = re.findall(r"[a-z0-9]+", title.lower().split(":")[0])
    return "-".join(words[:KEY_WORDS])[:60] or "paper"


def _arxiv(text: str) -> str:
    match = re.search(r"arXiv:\s*(\d{4}\.\d{4,5})", text)
    return match[1] if match else ""
