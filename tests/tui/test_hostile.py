"""Text that a language model, a candidate or a stranger wrote is shown as text, in every widget."""

from __future__ import annotations

import tempfile
import unicodedata
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from asi_lab.engine import Engine
from asi_lab.lab import Lab, Store
from asi_lab.lab.steering import Comment, Note
from asi_lab.llm.live import LiveAnswer
from asi_lab.llm.model import Message
from asi_lab.llm.record import Exchange
from asi_lab.records import Candidate
from asi_lab.tui.app import LabApp
from asi_lab.tui.linetable import LineTable, TableColumn, TableRow
from asi_lab.tui.panes.pane import Pane
from asi_lab.tui.snapshot import Reader, Snapshot
from tests import simulated_engine
from tests.tui.labs import HOSTILE, SIZES, fresh, seen, use

MARKUP = st.sampled_from(
    [
        *("[/b]", "[red]", "[link=file:///etc]x[/]", "[@click=app.quit]q[/]", "\\[", "{{x}}"),
        *("\x1b[2J", "\x1b]52;c;eA==\x07", "\x9b31m", "\r", "\n", "\0", "\x7f", "\u202e", "\u2066"),
        *("漢字", "e\u0301", "\U0001f469\u200d\U0001f680"),
    ]
)
TEXT = st.lists(st.one_of(MARKUP, st.text(max_size=6)), max_size=12).map("".join)
BATCH = st.lists(TEXT, min_size=6, max_size=6)
HARMLESS = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def poisoned(found: Candidate, texts: list[str]) -> Candidate:
    """A record whose every text is somebody's."""
    name, motivation, change, code, error, detail = (text or "-" for text in texts)
    proposal = found.proposal and msgspec.structs.replace(
        found.proposal,
        name=name,
        motivation=motivation,
        change=change,
        code=code,
        model=name,
        researcher=name,
    )
    checks = tuple(
        msgspec.structs.replace(check, name=name, detail=detail, passed=False)
        for check in (found.evidence.checks if found.evidence else ())
    )
    evidence = found.evidence and msgspec.structs.replace(found.evidence, error=error, checks=checks)
    analysis = found.analysis and msgspec.structs.replace(
        found.analysis, text=f"{motivation}\n---\n", summary=change, weaknesses=(error,), analyst=name
    )
    return msgspec.structs.replace(found, proposal=proposal, evidence=evidence, analysis=analysis)


class Poisoned(Reader):
    """A lab in which all that somebody wrote is hostile."""

    def __init__(self, lab: Lab, texts: list[str]) -> None:
        super().__init__(lab)
        self.texts = texts

    def read(self) -> Snapshot:
        found, texts = super().read(), self.texts
        events = tuple(msgspec.structs.replace(event, message=texts[0]) for event in found.events)
        summaries = tuple(
            msgspec.structs.replace(s, name=texts[1][:200] or "-", model=texts[2]) for s in found.summaries
        )
        talk = LiveAnswer(found.summaries[-1].id, "planner", texts[2], found.status.time, 9, texts[3])
        engine = msgspec.structs.replace(found.status.engine, state="running")
        status = msgspec.structs.replace(found.status, events=events[-6:], talks=(talk,), engine=engine)
        notes = {s.id: Note((), (Comment(0.0, texts[4]),)) for s in summaries}
        return msgspec.structs.replace(found, events=events, summaries=summaries, status=status, notes=notes)

    def candidate(self, number: int) -> Candidate | None:
        found = super().candidate(number)
        return found and poisoned(found, self.texts)

    def dossier(self, number: int):
        known = super().dossier(number)
        note = Note((), (Comment(0.0, self.texts[4]),))
        return known and msgspec.structs.replace(
            known, candidate=poisoned(known.candidate, self.texts), note=note
        )

    def calls(self, number: int) -> list[Exchange]:
        messages = (Message("system", self.texts[0]), Message("user", self.texts[1]))
        return [Exchange("planner", self.texts[2], 0.0, messages, (), 0.0, error=self.texts[3])]


def shown_harmless(app: LabApp) -> None:
    for line in seen(app).split("\n"):
        assert not any(unicodedata.category(sign) in HARMLESS for sign in line), repr(line)


LAB = None


def searched() -> Lab:
    """One search for all examples."""
    global LAB
    if LAB is None:
        LAB = fresh(Path(tempfile.mkdtemp(prefix="hostile")))
        executor = simulated_engine.SimulatedExecutor(0.001)
        Engine(LAB, simulated_engine.Silent(), executor).search(3, None)
    return LAB


@pytest.mark.slow
@settings(max_examples=3, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=BATCH, wide=st.booleans())
@example(texts=[HOSTILE] * 6, wide=False)
@example(texts=[HOSTILE] * 6, wide=True)
@example(texts=["[" * 200, "\x1b" * 50, "\u202e" * 50, "x" * 5000, "\n" * 60, "漢" * 300], wide=False)
def test_every_pane_shows_any_text_as_text(texts, wide):
    lab = searched()

    async def script(app, pilot) -> None:
        app.reader.close()
        app.reader = Poisoned(lab, texts)
        app.poll()
        await pilot.pause(0.15)
        for keys in ("1", "2", ("2", "enter"), ("escape", "3"), "4", "5", ("v",), "6", "7", "8"):
            await pilot.press(*keys)
            await pilot.pause(0.05)
            shown_harmless(app)
        app.tell(texts[5] or "-", "warning")
        await pilot.pause(0.05)
        shown_harmless(app)
        assert app.return_code is None
        assert isinstance(app.pane, Pane)

    use(lab, SIZES[wide], script)


@given(texts=st.lists(TEXT, min_size=2, max_size=2), width=st.integers(12, 60))
def test_a_row_is_one_line_of_the_width_there_is(texts, width):
    table = LineTable([TableColumn("#", 4, right=True), TableColumn("name", 0), TableColumn("x", 3)])
    from rich.style import Style

    strip = table._strip(("1", texts[0], texts[1]), width, Style())
    assert strip.cell_length == width
    assert "\n" not in strip.text
    assert not any(unicodedata.category(sign) in HARMLESS for sign in strip.text)
    assert list(TableRow(1, texts).cells) == texts == list(TableRow(1, lambda: texts).cells)


def test_the_store_keeps_what_is_hostile_as_it_came():
    lab = searched()
    with Store.open_readonly(lab.store) as store:
        found = store.get(1)
    assert poisoned(found, [HOSTILE] * 6).proposal.motivation == HOSTILE
