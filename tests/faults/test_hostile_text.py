"""Hostile text in every field of a candidate: through store, git, fsck, and everything that is shown."""

from __future__ import annotations

import io
import json
import os
import pty
import random
import re
import shutil
import subprocess
import sys
import unicodedata

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from asi_lab.cli.headless import ConsoleView
from asi_lab.common.text import plain
from asi_lab.errors import StoreError
from asi_lab.lab import Lab, Lineage, Store, fsck
from asi_lab.lab.commits import Commit, candidate_commit, ref_of
from asi_lab.lab.config import from_preset
from asi_lab.lab.summary import summarise
from asi_lab.records import (
    Analysis,
    Candidate,
    CandidateState,
    Check,
    Difference,
    Draw,
    Judgement,
    Neighbour,
    Proposal,
    RubricPart,
    TaskResult,
)

MEGABYTE = 1_000_000
COUNT = 1000
FAMILY = "\U0001f469\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466"
FRAGMENTS = [
    # rich markup, links and emoji codes
    *("[/b] [red]x[/red]", "[bold", "[/]", "[link=file:///etc/passwd]x[/link]"),
    *(":smile:", "[@click=app.quit()]x"),
    # terminal: CSI, OSC 0, 8 and 52, DCS, APC, title, alternate screen, C1, backspace, bell, carriage return
    *("\x1b[2J\x1b[H", "\x1b]0;owned\x07", "\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\"),
    *("\x1b]52;c;cm0gLXJm\x07", "\x1bP+q544e\x1b\\", "\x1b_x\x1b\\", "\x1b[?1049h", "\x1b[31;5m"),
    *("\x1b(0", "\x1bc", "\x1b[6n", "\x1b", "\x9b31m", "\x9d0;t\x9c", "\x90x\x9c", "\x84\x85\x8d"),
    *("\b\b\b\b", "\a", "\r", "\v\f", "\x00", "\x7f", "\x1b]unterminated", "\x1b[" + "1;" * 50),
    *("\x1b\x1b[0m[31m", "\x0e\x0f", "\x1b]1337;File=:x\x07"),
    # right to left, zero width, invisible, separators, non-characters, private use, tags, fillers
    *("\u202egnp.exe\u202c", "\u2066x\u2069", "\u200b\u200d\ufeff", "\u2028\u2029", "\ufffe\uffff"),
    *("\ue000", "\U000e0041\U000e0042", "\u00ad", "\u061c", "\u180e", "\u115f\u3164", "\U0010ffff"),
    # floods
    *("e" + "\u0301" * 200, FAMILY * 9, "\u6f22" * 90, "\ufdfa" * 20),
    *("x" * 500, "-" * 300, "\n" * 60, "\t" * 40),
    # paths, options, shells, format strings
    *("../../../etc/passwd", "/etc/passwd\x00.py", "-rf", "--upload-pack=touch /tmp/x", "--output=x", "-"),
    *("$(id) `id` ; id | id & id", "%s%n%x {0} {x.__class__}", "~", "*", "'\"'\"", "\\", "!!", "con", "NUL"),
    # git: trailers, end of the message, scissors, comments, fast-import, refs
    *("\n\nFitness: 1.0", "\nFitness: 9.9\nCandidate: 1\n", "Signed-off-by: x <x@x>"),
    *("(cherry picked from commit 1)", "\n---\n", "---", "\n# comment", "\nConflicts:\n\tx"),
    *(
        "# ------------------------ >8 ------------------------",
        "\ndata 5\nhello\n",
        "\nfrom refs/heads/main\n",
    ),
    *("\nfrom refs/heads/main\n", "\nM 100644 inline x\ndata 1\nx"),
    *("\ncommit refs/heads/main\n", "\ndone\n", "\ndeleteall\n"),
    *("x.lock", "..", "@{-1}", "~^:?*[\\", "refs/heads/main", "HEAD", "a//b", ".x", "@"),
    # JSON, TOML, YAML, Markdown, HTML, CSV, Python
    *('"}],{"x": 1', '"""\n[data]\nsource = "x"\n', "'''", "\\u0000", "!!python/object:os.system"),
    *("| a | b |\n|--|--|", "<script>alert(1)</script>", "=1+1", "```", "# heading", '"""'),
    *("# -*- coding: utf-7 -*-", "NaN", "null", "1e999"),
]
LONE = ["\ud800", "x\udfff", "\udc80\udc81"]
HARMLESS = re.compile(r"[^\n\t\x20-\x7e\xa0-\U0010ffff]")
HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
CONFIG = 'preset = "micro"\n'


def text(rng: random.Random) -> str:
    """Some hostile text; now and then a long one."""
    chosen = rng.choices(FRAGMENTS, k=rng.choice((1, 1, 2, 3, 6)))
    joined = rng.choice(("", " ", "\n", "\n\n", ": ", "/")).join(chosen)
    return joined * 40 if rng.random() < 0.02 else joined


def candidate(number: int, parent: int, rng: random.Random, base: Candidate) -> Candidate:
    """A scored or failed candidate all of whose texts are hostile."""

    def words() -> str:
        return text(rng)

    proposal = Proposal(
        name=words(),
        motivation=words(),
        change=words(),
        code=words(),
        researcher=words(),
        model=rng.choice(("", words())),
        genome={words(): words(), "list": [words(), 1, None, {words(): 0.5}]},
        code_hash=words(),
        nearest=(Neighbour(parent, 0.5),),
    )
    checks = tuple(Check(words(), passed=True, value=1.0, detail=words()) for _ in range(2))
    evidence = msgspec.structs.replace(base.evidence, checks=checks)
    common = {"id": number, "draw": Draw(0, parent, 1, (parent,)), "proposal": proposal, "commit": None}
    if rng.random() < 0.3:
        failures = [state for state in CandidateState if state.is_failure]
        state = rng.choice(failures)
        ended = msgspec.structs.replace(evidence, failure=state, error=words())
        return msgspec.structs.replace(base, **common, state=state, evidence=ended, score=None, analysis=None)
    evaluation = msgspec.structs.replace(
        base.evidence.evaluation,
        tasks=(TaskResult(words(), 0.3, words(), True, 0.25, 10, {words(): 0.5}),),
    )
    judgement = Judgement(6.0, (RubricPart(words(), 1.0, words()),), words())
    analysis = Analysis(
        text=words(),
        summary=words(),
        ablation=(Difference(words(), words(), -0.1, 0.1, 0.1, -1.0, 1.0, 1.0),),
        weaknesses=(words(), words()),
        analyst=words(),
    )
    return msgspec.structs.replace(
        base,
        **common,
        state=CandidateState.DONE,
        evidence=msgspec.structs.replace(evidence, evaluation=evaluation),
        score=msgspec.structs.replace(base.score, judgement=judgement),
        analysis=analysis,
    )


def populate(store: Store, base: Candidate, numbers: range, rng: random.Random) -> list[Candidate]:
    """Put hostile candidates into a store, each with an event; a parent is a scored one before it."""
    parents, made = [0], []
    for number in numbers:
        found = candidate(number, rng.choice(parents), rng, base)
        message = text(rng)
        written = store.put(
            found, ("note", message, {message[:50]: message}), vector=np.zeros(384, np.float32)
        )
        assert [event.message for event in written] == [message]
        made.append(found)
        if not found.state.is_failure:
            parents.append(number)
    return made


def publish(store: Store, lineage: Lineage, made: list[Candidate]) -> list[Commit]:
    """Commit candidates as the loop does, with one process for all of them."""
    shas, commits = {0: lineage.sha_of(0)}, []
    for found in made:
        commits.append(candidate_commit(found, CONFIG, shas[found.parent]))
        shas[found.id] = commits[-1].sha
    lineage.publish(commits)
    for found, commit in zip(made, commits, strict=True):
        store.put(msgspec.structs.replace(found, commit=commit.sha))
    return commits


def assert_harmless(shown: str) -> None:
    """Assert that a terminal sees nothing but text in what was shown."""
    if found := HARMLESS.search(shown):
        raise AssertionError(repr(shown[max(found.start() - 80, 0) : found.end() + 20]))
    bad = {char for char in set(shown) if unicodedata.category(char) in HIDDEN} - {"\n", "\t"}
    assert bad == set(), {f"U+{ord(char):04X}" for char in bad}


@pytest.fixture(scope="module")
def crowd(tmp_path_factory):
    """A store and a lineage with a thousand hostile candidates: folder, candidates, their commits."""
    from asi_lab.records import Evaluation, Evidence, Noise, Score, Training

    folder = tmp_path_factory.mktemp("crowd")
    training = Training(162_000, 90_000, 200, 100_000, 4.1, 20.0, 5000.0, 300.0)
    evidence = Evidence((), training, Evaluation(4.0, 65_536, (), 1e-6, 16, 3.0))
    noise = Noise(0.012, 0.02, 0.008, 4, 3, 0.007, 0.034)
    score = Score(0.5, 0.5, 0.5, 0.5, 0.01, 0.0123, Judgement(6.25, (), "rubric"), noise)
    base = Candidate(1, CandidateState.DONE, 1.7e9, 1.7e9 + 30, evidence=evidence, score=score)
    proposal = Proposal("delta_net", "why", "seed", "x = 0\n", "reference")
    seed = Candidate(0, CandidateState.DONE, 1.7e9, 1.7e9, proposal=proposal)
    with Store.open(folder / "store") as store:
        store.put(seed)
        lineage = Lineage.create(folder / "lineage", seed, CONFIG)
        store.put(msgspec.structs.replace(seed, commit=lineage.sha_of(0)))
        made = populate(store, base, range(1, COUNT + 1), random.Random(0))
        commits = publish(store, lineage, made)
        lineage.update_best(store.get(store.best_id()))
    return folder, made, commits


def test_the_store_gives_back_what_it_got(crowd, record_property):
    folder, made, commits = crowd
    with Store.open(folder / "store") as store:
        expected = [msgspec.structs.replace(c, commit=g.sha) for c, g in zip(made, commits, strict=True)]
        assert list(store.candidates(1)) == expected
        assert store.summaries()[1:] == [summarise(found) for found in expected]
        assert [event.seq for event in store.events(limit=10**6)] == list(range(1, COUNT + 1))
    record_property("drills", COUNT)


def test_every_field_is_hostile_somewhere(crowd):
    """The drill would be worth little if the generator spared a field or a fragment."""
    _, made, _ = crowd
    packed = msgspec.json.encode(made).decode()
    for fragment in FRAGMENTS:
        assert (
            json.dumps(fragment, ensure_ascii=False)[1:-1] in packed
            or len(fragment) > 300
            or any(fragment in found.proposal.code or fragment in found.proposal.motivation for found in made)
        )
    assert {found.state.is_failure for found in made} == {True, False}


def test_commits_are_what_they_were_computed_to_be(crowd, record_property):
    """Id, ref, files and parents, as git has them; and git finds nothing to complain about."""
    folder, made, commits = crowd
    lineage = Lineage.open(folder / "lineage")
    refs = lineage.refs()
    assert {commit.ref: commit.sha for commit in commits}.items() <= refs.items()
    assert len(refs) == COUNT + 2
    assert all(re.fullmatch(r"refs/(heads/arch/\d{4}-[a-z0-9_]{1,60}|failed/\d{4})", c.ref) for c in commits)
    assert lineage.verify() == []
    for found, commit in list(zip(made, commits, strict=True))[::50]:
        assert ref_of(found) == commit.ref
        blob = subprocess.run(
            ["git", "-C", str(folder / "lineage"), "cat-file", "blob", f"{commit.sha}:architecture.py"],
            capture_output=True,
            check=True,
        ).stdout
        assert blob == found.proposal.code.encode()
    record_property("drills", COUNT)


def test_messages_hold_our_trailers_and_no_others(crowd, record_property):
    folder, made, commits = crowd
    lines = {}
    layout = "%H%x00%(trailers:only=true,unfold=true)%x01"
    log = subprocess.run(
        ["git", "-C", str(folder / "lineage"), "log", "--all", f"--format={layout}"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for entry in filter(None, (part.strip("\n") for part in log.split("\x01"))):
        sha, trailers = entry.split("\0")
        lines[sha] = trailers.splitlines()
    for found, commit in zip(made, commits, strict=True):
        expected = ["Candidate", "Parent", "Reference"]
        expected += [] if found.state.is_failure else ["Fitness"]
        expected += ["Loss"]
        expected += [] if found.state.is_failure else ["Benchmark", "Judge"]
        expected += ["Params", "Status", "Researcher", *(["Model"] if found.proposal.model else [])]
        assert [line.split(":")[0] for line in lines[commit.sha]] == expected
        assert lines[commit.sha][0] == f"Candidate: {found.id}"
        assert "Fitness: 0.5000 +- 0.0080" in lines[commit.sha] or found.state.is_failure
        assert_harmless(commit.message)
        assert len(commit.message.splitlines()[0]) <= 72
    record_property("drills", COUNT)


def test_other_programs_read_the_same_trailers(crowd, record_property):
    _, _, commits = crowd
    for commit in commits[::5]:
        command = ["git", "interpret-trailers", "--parse"]
        parsed = subprocess.check_output(command, input=commit.message, text=True)
        assert parsed.strip() == commit.message.strip().split("\n\n")[-1]
    record_property("drills", len(commits[::5]))


def test_fsck_agrees_and_makes_the_whole_lineage_again(crowd, tmp_path, record_property):
    folder, _, _ = crowd
    refs = Lineage.open(folder / "lineage").refs()
    shutil.copytree(folder / "store", tmp_path / "store")
    with Store.open(tmp_path / "store") as store:
        assert fsck.check(store, folder / "lineage", CONFIG) == []
        assert all(finding.repaired for finding in fsck.repair(store, tmp_path / "lineage", CONFIG))
        assert Lineage.open(tmp_path / "lineage").refs() == refs
        assert fsck.check(store, tmp_path / "lineage", CONFIG) == []
    record_property("drills", COUNT)


def test_text_that_is_no_unicode_is_refused_with_all_its_change(tmp_path, crowd, record_property):
    base, rng, drills = crowd[1][0], random.Random(1), 0
    fields = ("name", "motivation", "change", "code", "researcher", "model", "code_hash")
    with Store.open(tmp_path / "s") as store:
        for lone in LONE:
            for field in fields:
                proposal = msgspec.structs.replace(base.proposal, **{field: text(rng) + lone})
                with pytest.raises(StoreError, match="not valid Unicode cannot be stored"):
                    store.put(msgspec.structs.replace(base, proposal=proposal), ("note", "x", {}))
            for event in ((lone, {}), ("x", {lone: 1}), ("x", {"a": [lone]})):
                with pytest.raises(StoreError, match="not valid Unicode"):
                    store.put(base, ("note", *event))
            drills += len(fields) + 3
        assert (store.count(), store.events()) == (0, [])
    record_property("drills", drills)


# What is shown

WORST = {
    "a megabyte": "x" * MEGABYTE,
    "a megabyte of lines": "\n".join(["Fitness: 9.9"] * (MEGABYTE // 12)),
    "a megabyte of escapes": "\x1b]0;x\x07\x1b[31m" * (MEGABYTE // 11),
    "a megabyte of one escape": "\x1b]" + "9" * MEGABYTE,
    "combining": "e" + "\u0301" * 50_000,
    "wide": "\u6f22" * 50_000,
    "nothing": "",
    "blanks": " \t\n " * 10,
    "scissors": "# ------------------------ >8 ------------------------",
    "divider": "---",
    "only hidden": "\u200b\x00\x1b\u202e",
}


def filled(found: Candidate, value: str) -> Candidate:
    """A candidate with one value in its longest texts."""
    names = ("name", "motivation", "change", "code", "model")
    proposal = msgspec.structs.replace(found.proposal, **dict.fromkeys(names, value))
    evidence = msgspec.structs.replace(found.evidence, error=value)
    analysis = found.analysis and msgspec.structs.replace(
        found.analysis, text=value, summary=value, weaknesses=(value,)
    )
    return msgspec.structs.replace(found, proposal=proposal, evidence=evidence, analysis=analysis)


@pytest.fixture(scope="module")
def shown_lab(undisturbed, crowd, tmp_path_factory) -> tuple[Lab, range, range]:
    """A searched lab with hostile candidates in it, ordinary ones first, then the worst."""
    lab = Lab(shutil.copytree(undisturbed.path, tmp_path_factory.mktemp("shown") / "lab"))
    rng = random.Random(2)
    with Store.open(lab.store) as store:
        base = next(c for c in store.candidates(1) if c.score)
        first = store.last_id() + 1
        parent = store.get(0).commit
        ordinary, worst = range(first, first + 60), range(first + 60, first + 60 + len(WORST))
        made = [candidate(number, 0, rng, base) for number in ordinary]
        made += [
            filled(candidate(number, 0, rng, base), value)
            for number, value in zip(worst, WORST.values(), strict=True)
        ]
        config = store.get_meta("config")
        commits = [candidate_commit(found, config, parent) for found in made]
        Lineage.open(lab.lineage).publish(commits)
        for found, commit in zip(made, commits, strict=True):
            message = found.name[:10_000]
            store.put(
                msgspec.structs.replace(found, commit=commit.sha),
                ("warning", message, {"a": message}),
                vector=np.zeros(384, np.float32),
            )
        beat = {"pid": os.getpid(), "time": 0.0, "state": "running", "stage": "training"}
        store.put_meta("engine", {**beat, "label": f"{first:04d}"})
        Lineage.open(lab.lineage).update_best(store.get(store.best_id()))
    return lab, ordinary, worst


COMMANDS = [["status"], ["top", "-n", 100], ["log"], ["fsck"], ["status", "--json"], ["top", "--json"]]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(map(str, command)))
def test_lists_are_harmless(shown_lab, engines, command):
    lab, _, _ = shown_lab
    ended = engines.program(lab, *command)
    assert ended.code == 0, ended.said[-500:]
    assert_harmless(ended.said)
    assert "--json" not in command or ended.said.isascii()


@pytest.mark.parametrize("step", [12, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "command", [["show"], ["show", "--code"], ["show", "--json", "--code"], ["diff"]], ids=" ".join
)
def test_pages_are_harmless(shown_lab, engines, command, step, record_property):
    lab, ordinary, worst = shown_lab
    with Store.open_readonly(lab.store) as store:
        records = {found.id: msgspec.to_builtins(found) for found in store.candidates()}
    numbers = [*ordinary[::step], *worst]
    for number in numbers:
        ended = engines.program(lab, *command, number)
        assert ended.code == 0, (number, ended.said[-500:])
        assert_harmless(ended.said)
        if "--json" in command:
            assert ended.said.isascii()
            assert json.loads(ended.said) == json.loads(json.dumps(records[number]))
    record_property("drills", len(numbers))


@pytest.mark.parametrize(
    "command", [["show", "--code"], ["diff"], ["status", "--once"], ["top"]], ids=" ".join
)
def test_a_terminal_gets_no_escapes_but_ours(shown_lab, record_property, command):
    """On a terminal of its own: colours are there, and nothing that is not a colour."""
    lab, ordinary, worst = shown_lab
    numbers = [[number] for number in (ordinary[0], worst[3])] if len(command[0]) < 5 else [[]]
    numbers = [[]] if command[0] == "top" else numbers
    for number in numbers:
        ours, theirs = pty.openpty()
        environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
        process = subprocess.Popen(
            [sys.executable, "-m", "asi_lab", "--lab", str(lab.path), *command, *map(str, number)],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**environment, "TERM": "xterm-256color", "COLUMNS": "100"},
        )
        os.close(theirs)
        shown = b""
        while True:
            try:
                part = os.read(ours, 1 << 16)
            except OSError:  # the other end is closed
                break
            shown += part
        os.close(ours)
        assert process.wait(timeout=60) == 0
        coloured = shown.decode().replace("\r\n", "\n")
        assert "\x1b[" in coloured
        assert_harmless(re.sub(r"\x1b\[[0-9;]*m", "", coloured))
    record_property("drills", len(numbers))


@pytest.mark.parametrize("terminal", [False, True], ids=["lines", "bars"])
def test_the_narration_of_a_search_is_harmless(shown_lab, terminal, monkeypatch):
    lab, ordinary, _ = shown_lab
    monkeypatch.setenv("TERM", "xterm")
    file = io.StringIO()
    console = Console(
        file=file, force_terminal=terminal, width=80, markup=False, highlight=False, emoji=False
    )
    with Store.open_readonly(lab.store) as store, ConsoleView(console, lab.settings(), 9) as view:
        view._seen = 0
        view.refresh(store)
        view.say(text(random.Random(3)))
        view.working(f"{ordinary[0]:04d}\x1b[2J", "\x1b]0;x\x07training", None)
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]" if terminal else "a^", "", file.getvalue())
    assert_harmless(shown.replace("\r", ""))


@pytest.mark.parametrize("hostile", FRAGMENTS[::4], ids=lambda hostile: ascii(hostile)[:30])
def test_settings_are_told_harmlessly(prepared, engines, copy, hostile):
    lab = copy(prepared)
    said, micro = json.dumps(hostile), 'preset = "micro"\n'
    wrong = (f"{said} = 1", f"seed = {said}", f"[data]\nsource = {said}")
    for settings_text in (f"preset = {said}", *(micro + line for line in wrong)):
        lab.config.write_text(settings_text)
        ended = engines.program(lab, "config", "validate")
        assert ended.code == 2
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", ended.said)


# Any text at all

any_text = st.text(st.characters(exclude_categories=()), max_size=200) | st.lists(
    st.sampled_from(FRAGMENTS + LONE), max_size=5
).map("".join)


@given(any_text, st.booleans(), st.none() | st.integers(0, 100))
@settings(max_examples=300)
def test_plain_text_is_plain(value, multiline, limit):
    shown = plain(value, multiline=multiline, limit=limit)
    assert_harmless(shown)
    assert plain(shown, multiline=multiline, limit=limit) == shown
    assert limit is None or len(shown) <= max(limit, 3)
    assert multiline or not {"\n", "\t"} & set(shown)


@given(any_text, any_text, any_text, any_text)
@settings(max_examples=150)
def test_a_message_ends_in_our_trailers_alone(name, change, motivation, model):
    values = (value.encode("utf-8", "replace").decode() for value in (name, motivation, change, model))
    name, motivation, change, model = values  # what the store would take
    proposal = Proposal(name, motivation, change, "x = 1", "grammar", model)
    found = Candidate(7, CandidateState.BROKEN, 0.0, 0.0, draw=Draw(0, 0, 1), proposal=proposal)
    message = candidate_commit(found, "", "0" * 40).message
    subject, *body, trailers = message.rstrip("\n").split("\n\n")
    assert [line.split(": ")[0] for line in trailers.split("\n")][:2] == ["Candidate", "Parent"]
    assert len(body) <= 1
    assert not subject.startswith(("#", "-"))
    for line in (line for part in body for line in part.split("\n")):
        assert not re.match(r"[#-]|[A-Za-z0-9-]+\s*:", line)


def test_presets_have_no_hostile_text():
    assert_harmless(from_preset("micro").data.source)
