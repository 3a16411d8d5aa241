"""What a person asks of a search: pinned and banned candidates, ideas, further runs, tags and comments."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from asi_lab.cli import cli
from asi_lab.engine import Engine
from asi_lab.lab import Lab, Lineage, Store, commands, repeats, steering
from asi_lab.lab.steering import Idea, Steering
from asi_lab.llm.model import ModelError
from asi_lab.llm.scripted import Scripted
from asi_lab.records import CandidateState, Draw, PoolEntry
from asi_lab.researcher import draw
from tests import night, simulated_engine

SETTINGS = "[baselines]\nseeds = 2\nmax_seeds = 2\n"
MODELS = '[agents]\nmodels = ["openai:night"]\ncontrol = 0.0\nahead = 0\n'
HOSTILE = "x [/b] \x1b[31mred\x1b]0;t\x07 --force $(id) \u202e"


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    made = simulated_engine.make_lab(tmp_path, SETTINGS, seed=1)
    search(made, 6)
    return made


def search(lab: Lab, experiments: int, model: object = None) -> None:
    def connected(name: str) -> Scripted:
        return Scripted(model, name)

    executor = simulated_engine.SimulatedExecutor(0.001)
    Engine(lab, simulated_engine.Silent(), executor, connected).search(experiments, None)


def run(lab: Lab, *words: object):
    return CliRunner().invoke(cli, ["--lab", str(lab.path), *map(str, words)])


def done(lab: Lab) -> list[int]:
    with Store.open_readonly(lab.store) as store:
        return [s.id for s in store.summaries() if s.id and s.state is CandidateState.DONE]


def failed(lab: Lab) -> int:
    with Store.open_readonly(lab.store) as store:
        return next(s.id for s in store.summaries() if s.state.is_failure)


def at(lab: Lab) -> Steering:
    with Store.open_readonly(lab.store) as store:
        return steering.read(store)


def test_children_descend_from_the_pinned_one_until_it_is_unpinned(lab):
    pinned = done(lab)[0]
    answer = run(lab, "pin", pinned)
    assert answer.exit_code == 0
    assert answer.stdout == f"candidate {pinned} is pinned: new candidates descend from it\n"
    search(lab, 10)
    with Store.open_readonly(lab.store) as store:
        for number in range(7, 11):
            draw = store.get(number).draw
            assert (draw.parent, draw.parent_rank) == (pinned, 0)
            assert pinned not in draw.references
    run(lab, "pin", "--off")
    assert at(lab).pinned is None
    assert run(lab, "pin", "--off").exit_code == 1  # none is pinned


def test_a_banned_one_is_not_drawn(lab):
    banned = done(lab)
    for number in banned:
        assert run(lab, "ban", number).exit_code == 0
    search(lab, 12)
    with Store.open_readonly(lab.store) as store:
        for number in range(7, 13):
            draw = store.get(number).draw
            assert draw.parent not in banned
            assert not set(draw.references) & set(banned)
    assert run(lab, "ban", banned[0], "--off").exit_code == 0
    assert at(lab).banned == tuple(banned[1:])


def test_what_cannot_be_is_refused_and_says_why(lab):
    for words, reason in (
        (("pin", 99), "there is no candidate 99"),
        (("ban", 0), "candidate 0 is the root of all"),
        (("rerun", 0), "candidate 0 is the baseline"),
        (("ban", failed(lab)), "only those that are done can be"),
        (("rerun", failed(lab)), "only those that are done can be"),
        (("tag", 99, "good"), "there is no candidate 99"),
        (("tag", 1, "Not A Tag!"), "a tag is of a-z"),
        (("comment", 1, " "), "expected 1 to 2,000 characters"),
        (("idea", ""), "expected 1 to 4,000 characters"),
        (("idea", "x" * 5000), "expected 1 to 4,000 characters"),
    ):
        answer = run(lab, *words)
        assert answer.exit_code == 1, words
        assert reason in answer.stdout, words
    assert at(lab) == Steering()
    for words in (("pin",), ("pin", 1, "--off"), ("ban", -1), ("tag", 1)):
        assert run(lab, *words).exit_code == 2, words


def test_a_pin_and_a_ban_exclude_each_other(lab):
    first = done(lab)[0]
    run(lab, "pin", first)
    run(lab, "ban", first)
    assert (at(lab).pinned, at(lab).banned) == (None, (first,))
    run(lab, "pin", first)
    assert (at(lab).pinned, at(lab).banned) == (first, ())


def test_a_further_run_is_measured_and_shown_with_the_mean(lab):
    number = done(lab)[0]
    assert run(lab, "rerun", number).exit_code == 0
    assert run(lab, "rerun", number).exit_code == 0
    with Store.open_readonly(lab.store) as store:
        before = store.get(number)
    search(lab, 6)
    with Store.open_readonly(lab.store) as store:
        runs = repeats.of(store, number)
        assert [one.index for one in runs] == [1, 2]
        assert store.get(number) == before  # record and commit are those of the first run
        assert store.series(f"{number:04d}-seed1").size > 0
        messages = [event.message for event in store.events(0, 10_000)]
    losses = [before.loss, *(one.loss for one in runs)]
    assert len(set(losses)) == 3
    assert at(lab).reruns == ()
    assert f"candidate {number} once more: seed 1: loss {losses[1]:.4f}" in messages
    shown = run(lab, "show", number).stdout
    assert f"seed 2: loss {losses[2]:.4f}" in shown
    assert f"mean of 3 runs {sum(losses) / 3:.4f}" in shown
    assert f"Run: seed 1: loss {losses[1]:.4f}" in git(lab, "log", "-1", before.commit)
    assert run(lab, "fsck").exit_code == 0


def git(lab: Lab, *words: str) -> str:
    return subprocess.run(
        ["git", "-C", str(lab.lineage), *words], capture_output=True, text=True, check=True
    ).stdout


def test_notes_are_kept_in_git_and_made_again_from_the_store(lab):
    number = done(lab)[0]
    run(lab, "tag", number, "promising", "gate")
    run(lab, "tag", number, "gate", "--off")
    run(lab, "comment", number, "--", HOSTILE)
    with Store.open_readonly(lab.store) as store:
        sha, note = store.get(number).commit, steering.note(store, number)
    assert note.tags == ("promising",)
    shown = git(lab, "log", "-1", sha)
    assert "Notes (asi-lab):" in shown
    assert "Tag: promising" in shown
    assert "x [/b] red --force $(id)" in shown
    assert "\x1b" not in shown
    page = run(lab, "show", number).stdout
    assert "promising" in page
    assert "--force $(id)" in page
    git(lab, "notes", "--ref=asi-lab", "remove", sha)
    assert "its git note is not what was noted on it" in run(lab, "fsck").output
    assert run(lab, "fsck", "--repair").exit_code == 0
    assert "Tag: promising" in git(lab, "log", "-1", sha)
    run(lab, "tag", failed(lab), "dud")  # those that failed have commits too
    assert "dud" in git(lab, "log", "-1", f"refs/failed/{failed(lab):04d}")


def test_orders_to_an_engine_at_work_are_answered(tmp_path):
    made = simulated_engine.make_lab(tmp_path, SETTINGS, seed=1)
    search(made, 3)
    number = done(made)[0]

    class Asks(simulated_engine.Silent):
        """Gives its orders once the fourth candidate is on its way."""

        asked = False

        def refresh(self, store) -> None:
            if not self.asked and store.get(4) is not None:
                self.asked = True
                commands.send(made.commands, "tag", number, "seen")
                commands.send(made.commands, "rerun", number)
                commands.send(made.commands, "pin", number)

    Engine(made, Asks(), simulated_engine.SimulatedExecutor(0.01)).search(6, None)
    with Store.open_readonly(made.store) as store:
        assert steering.note(store, number).tags == ("seen",)
        assert len(repeats.of(store, number)) == 1
        assert store.get(6).draw.parent == number
        answers = [e.message for e in store.events(0, 10_000) if e.kind == "command"]
        sha = store.get(number).commit
    assert [answer.split(":")[0] for answer in answers] == [
        f"candidate {number} tagged",
        f"candidate {number} will be run once more, with another seed, as the next trial",
        f"candidate {number} is pinned",
    ]
    assert "Tag: seen" in Lineage.open(made.lineage).notes()[sha]


def test_an_order_is_carried_out_once(lab):
    command = commands.new("comment", done(lab)[0], "once")
    with Store.open(lab.store) as store:
        assert steering.obey(store, command)
        assert not steering.obey(store, command)
        assert len(steering.note(store, command.candidate).comments) == 1


def test_an_idea_goes_to_the_next_planner_and_to_no_other(tmp_path):
    made = simulated_engine.make_lab(tmp_path, SETTINGS + MODELS, seed=1)
    asked = []

    def model(messages, call):
        if night.ROLES.get(messages[0].content) == "planner" and len(messages) == 2:
            asked.append(messages[1].content)
        return nights(messages)

    nights = night.Night()
    search(made, 1, model)
    assert run(made, "idea", "give every head two time scales [/b]").exit_code == 0
    assert "waits" in run(made, "idea", "--list").stdout
    search(made, 3, model)
    told = [question for question in asked if "two time scales [/b]" in question]
    assert told == [asked[1]]
    assert "The researcher who runs this lab asks for" in told[0]
    assert [idea.taken_by for idea in at(made).ideas] == [2]
    assert "candidate 2" in run(made, "idea", "--list").stdout


def test_an_idea_comes_back_from_a_planner_that_fails(tmp_path):
    made = simulated_engine.make_lab(tmp_path, SETTINGS + MODELS, seed=1)
    nights = night.Night()
    search(made, 1, lambda messages, call: nights(messages))
    run(made, "idea", "two time scales")

    def mute(messages, call):
        if night.ROLES.get(messages[0].content) == "planner":
            raise ModelError("the server is gone")
        return nights(messages)

    search(made, 2, mute)
    assert [idea.taken_by for idea in at(made).ideas] == [None]


def test_without_a_planner_an_idea_waits(lab):
    run(lab, "idea", "two time scales")
    search(lab, 8)
    assert [idea.text for idea in at(lab).waiting] == ["two time scales"]


def test_a_draw_is_steered_only_by_what_is_there():
    drawn, entries = (
        Draw(1, 4, 2, (5, 6)),
        [PoolEntry(0, 0.3), PoolEntry(4, 0.5), PoolEntry(5, 0.4), PoolEntry(6, 0.2)],
    )
    assert draw.steered(Steering(), drawn, entries) is drawn
    assert draw.steered(Steering(pinned=9), drawn, entries) is drawn
    changed = draw.steered(Steering(pinned=5), drawn, entries)
    assert (changed.parent, changed.parent_rank, changed.references) == (5, 0, (6,))


def test_ideas_are_numbered_and_wait_in_order():
    state = Steering(ideas=(Idea(1, "a", 0.0, taken_by=3), Idea(2, "b", 0.0), Idea(3, "c", 0.0)))
    assert [idea.id for idea in state.waiting] == [2, 3]
