"""Stage two from the command line, with simulated trials: what holds, tags, kills and bad input."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
import tomlkit

from asi_lab import engine
from asi_lab.engineer.executor import Executor
from asi_lab.engineer.trials import MANY
from asi_lab.lab import Lab, Lineage, Store, fresh, rungs
from asi_lab.lab.commits import VERDICTS
from asi_lab.protocol import Compare
from asi_lab.records import Terms
from asi_lab.records.demand import Demand
from asi_lab.scoring import promotion, verification
from asi_lab.view import needs, verdicts
from tests import simulated_engine
from tests.cli.conftest import ENGINE

SETTINGS = (
    "[baselines]\nseeds = 2\nmax_seeds = 2\n[verify]\ntune = false\nquota = 3\nrandom = 0\nrungs = []\n"
)


@pytest.fixture(autouse=True)
def simulated(monkeypatch):
    executor: Executor = simulated_engine.SimulatedExecutor(0.0)
    monkeypatch.setattr(engine.Engine, "_executors", lambda self, rung, places: ([executor], ()))


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A lab of five candidates: the second failed, the fourth is the best."""
    lab = simulated_engine.make_lab(tmp_path_factory.mktemp("searched"), SETTINGS, seed=3)
    executor: Executor = simulated_engine.SimulatedExecutor(0.0)
    assert engine.Engine(lab, simulated_engine.Silent(), executor).search(5, None) == 0
    return lab


@pytest.fixture
def lab(tmp_path, searched):
    """A copy of that lab."""
    subprocess.run(["cp", "-r", searched.path, tmp_path / "lab"], check=True)
    return Lab(tmp_path / "lab")


def with_a_rung(lab, *more: str) -> None:
    """Give the lab a scale `big`, whose bar is named and which has a text of its own size."""
    text = lab.config.read_text()
    big = tomlkit.parse(text).unwrap()
    del big["verify"]
    big["train"]["steps"] = 4
    big["baselines"] |= {"references": ["delta_net", "gated_delta_net"], "bar": "gated_delta_net"}
    (lab.path / "big.toml").write_text(tomlkit.dumps(big))
    lab.config.write_text(text.replace("rungs = []", 'rungs = ["big.toml"]') + "\n".join(more))


def promising(lab, store) -> list[int]:
    return promotion.promising(rungs.own(lab, lab.settings()), None, store)


def scored(lab) -> list[int]:
    with Store.open_readonly(lab.store) as store:
        return [summary.id for summary in store.summaries() if summary.id and summary.loss is not None]


def found(run, lab):
    return json.loads(run("--lab", lab.path, "verdicts", "--json").stdout)["scales"]["micro"]


def test_what_is_better_holds_and_is_tagged(run, lab, monkeypatch):
    better, other = scored(lab)[:2]
    monkeypatch.setenv("SIMULATED_BETTER", f"{better:04d}-fresh")
    result = run("--lab", lab.path, "verify", other, better)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].startswith("1 hold (false-discovery rate of the procedure at most 5%), 0 open, 1 not")
    assert lines[1].split(":")[0] == "bar"
    assert "24 of 24 fresh runs" in lines[1]
    claims = {claim["promotion"]["candidate"]: claim for claim in found(run, lab)["claims"]}
    assert [claims[number]["verdict"] for number in (other, better)] == ["not shown", "holds"]
    assert claims[better]["runs"] == 12
    assert claims[better]["tagged"]
    with Store.open_readonly(lab.store) as store:
        sha = store.held(better).sha
        assert not fresh.runs(store)[0].is_tuning
    git = ["git", "-C", lab.lineage, "cat-file", "-p", f"verified/{better:04d}"]
    told = subprocess.run(git, capture_output=True, text=True, check=True).stdout
    assert told.startswith(f"object {sha}\ntype commit\n")
    assert "nats of held-out loss under the mean of " in told
    assert "12 fresh runs against 24 of " in told
    assert "at a false-discovery rate of 5%" in told
    assert f"verified/{other:04d}" not in Lineage.open(lab.lineage).refs()
    shown = run("--lab", lab.path, "show", better).stdout
    assert "verdict" in shown
    assert "holds: 12 fresh runs" in " ".join(shown.split())
    assert max(map(len, shown.splitlines())) <= 80
    figures = [line.split() for line in shown.splitlines() if line.startswith("  asi_")]
    assert [row[0] for row in figures[:2]] == ["asi_recall", "asi_copy"]
    assert figures[0][-2] == "to"
    assert "claims" in run("--lab", lab.path, "status").stdout
    top = run("--lab", lab.path, "top").stdout
    assert max(map(len, top.splitlines())) <= 80
    rows = {line.split()[1]: line for line in top.splitlines() if line[:4].strip().isdigit()}
    assert "holds" in rows[f"{better:04d}"]
    assert "not shown" in rows[f"{other:04d}"]
    assert all("not tried" in line for number, line in rows.items() if int(number) not in (better, other))


def test_a_second_call_makes_no_run_again_and_remakes_a_tag_that_was_lost(run, lab, monkeypatch):
    better = scored(lab)[0]
    monkeypatch.setenv("SIMULATED_BETTER", f"{better:04d}-fresh")
    run("--lab", lab.path, "verify", better)
    before = found(run, lab)
    with Store.open_readonly(lab.store) as store:
        made = len(fresh.runs(store))
    subprocess.run(["git", "-C", lab.lineage, "tag", "-d", f"verified/{better:04d}"], check=True)
    again = run("--lab", lab.path, "verify", better)
    assert again.exit_code == 0
    assert f"refs/tags/verified/{better:04d}" in Lineage.open(lab.lineage).refs()
    assert found(run, lab) == before
    with Store.open_readonly(lab.store) as store:
        assert len(fresh.runs(store)) == made
        assert [promotion.number for promotion in fresh.promotions(store)] == [1]


def test_without_an_id_the_most_promising_are_promoted(run, lab):
    with Store.open_readonly(lab.store) as store:
        expected = promising(lab, store)[:3]
        losses = {summary.id: summary.loss for summary in store.summaries()}
        assert expected
        assert all(losses[number] < losses[0] for number in expected)
    assert run("--lab", lab.path, "verify").exit_code == 0
    with Store.open_readonly(lab.store) as store:
        assert [promotion.candidate for promotion in fresh.promotions(store)] == expected


def test_a_candidate_that_fails_and_one_the_machine_cut_off(run, lab, monkeypatch):
    first, second = scored(lab)[:2]
    monkeypatch.setenv("SIMULATED_FAILING", f"{first:04d}-fresh0")
    monkeypatch.setenv("SIMULATED_KILLED", f"{second:04d}-fresh0")
    result = run("--lab", lab.path, "verify", first, second)
    assert result.exit_code == 0, result.output
    claims = {claim["promotion"]["candidate"]: claim for claim in found(run, lab)["claims"]}
    assert claims[first]["failed"] in ("diverged", "leaking")
    assert claims[first]["verdict"] == "not shown"
    assert claims[second]["verdict"] == "open"
    monkeypatch.delenv("SIMULATED_KILLED")
    run("--lab", lab.path, "verify")
    claims = {claim["promotion"]["candidate"]: claim for claim in found(run, lab)["claims"]}
    assert claims[second]["verdict"] == "not shown"
    assert claims[second]["failed"] is None


def test_a_run_that_is_cut_off_again_and_again_has_failed(run, lab, monkeypatch):
    first, second = scored(lab)[:2]
    monkeypatch.setenv("SIMULATED_KILLED", f"{first:04d}-fresh1")
    for _ in range(lab.settings().search.max_starts):
        run("--lab", lab.path, "verify", first, second)
    claims = {claim["promotion"]["candidate"]: claim for claim in found(run, lab)["claims"]}
    assert (claims[first]["verdict"], claims[first]["failed"]) == ("not shown", "interrupted")
    assert claims[second]["verdict"] == "not shown"


def test_after_a_race_alone_nothing_can_be_verified(run, tmp_path):
    lab = simulated_engine.make_lab(tmp_path, SETTINGS)
    run("--lab", lab.path, "race", "delta_net", "gated_delta_net", "mamba2", "--seeds", 3)
    result = run("--lab", lab.path, "verify")
    assert result.exit_code == 2
    assert "Start the search first" in result.stderr


def test_a_damaged_run_is_told(run, lab):
    number = scored(lab)[0]
    run("--lab", lab.path, "verify", number)
    with Store.open(lab.store) as store:
        key, value = next(iter(store.metas(fresh.RUNS).items()))
        store.put_meta(key, value | {"evidence": {}})
    result = run("--lab", lab.path, "verdicts")
    assert result.exit_code == 1
    assert "has no loss" in result.stderr


@pytest.mark.parametrize("number", [0, 99])
def test_who_has_no_score_cannot_be_promoted(run, lab, number):
    result = run("--lab", lab.path, "verify", number)
    assert result.exit_code == 2
    assert str(number) in result.stderr
    assert "Traceback" not in result.output


def test_a_lab_that_was_never_searched(run, tmp_path):
    lab = simulated_engine.make_lab(tmp_path, SETTINGS)
    assert "No results yet" in run("--lab", lab.path, "verdicts").stderr
    result = run("--lab", lab.path, "verify")
    assert result.exit_code == 2
    assert "Start the search first" in result.stderr


def test_killed_at_any_moment_verdicts_are_those_of_an_undisturbed_run(run, lab, tmp_path):
    """The same lab, verified at once, and by engines that are killed again and again."""
    copy = tmp_path / "copy"
    with_a_rung(lab)
    subprocess.run(["cp", "-r", lab.path, copy], check=True)
    with Store.open_readonly(lab.store) as store:
        better = promising(lab, store)[0]
    environment = {**os.environ, "SIMULATED_BETTER": f"{better:04d}-fresh {better:04d}-big-fresh"}
    undisturbed = [sys.executable, str(ENGINE), str(lab.path), "verify", "0"]
    subprocess.run(undisturbed, check=True, env=environment, capture_output=True)
    rng, kills, made = random.Random(1), 0, 0
    while True:
        command = [sys.executable, str(ENGINE), str(copy), "verify", "0.002"]
        process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        wanted = made + rng.randrange(8, 40)
        while process.poll() is None and made < wanted:
            time.sleep(0.1 * rng.random())
            with Store.open_readonly(copy / "store") as store:
                made = sum(len(fresh.runs(store, rung)) for rung in ("", "big"))
        if process.poll() is not None:
            assert process.returncode == 0
            break
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
    assert kills >= 3
    run_again = [json.loads(run("--lab", path, "verdicts", "--json").stdout) for path in (lab.path, copy)]
    for claim in (
        claim for one in run_again for scale in one["scales"].values() for claim in scale["claims"]
    ):
        claim["promotion"].pop("time")
    assert run_again[0] == run_again[1]
    assert run_again[0]["scales"]["big"]["claims"][0]["verdict"] == "holds"
    with Store.open_readonly(copy / "store") as store:
        for rung in ("", "big"):
            ended = [run.run for run in fresh.runs(store, rung)]
            assert len(ended) == len(set(ended)) > 24
    refs = [Lineage.open(path / "lineage_repo").refs("refs/tags/") for path in (lab.path, copy)]
    assert refs[0] == refs[1]
    assert {*refs[0]} == {f"refs/tags/verified/{better:04d}", f"refs/tags/verified/big/{better:04d}"}
    notes = [Lineage.open(path / "lineage_repo").notes(VERDICTS) for path in (lab.path, copy)]
    assert notes[0] == notes[1] != {}


def test_hours_are_planned_for_the_search_and_for_claims(run, lab):
    told = run("--lab", lab.path, "estimate", "--hours", 1).stdout
    assert max(map(len, told.splitlines())) <= 80
    plan = json.loads(run("--lab", lab.path, "estimate", "--hours", 1, "--json").stdout)["plan"]
    assert plan["first"] == 24
    trials = int(3600 / plan["seconds"])
    assert plan["claims"] == int((trials - 24) / plan["runs"])
    assert plan["candidates"] + plan["before"] + plan["repeats"] <= trials
    assert plan["candidates"] > 0
    assert plan["guesses"] == []
    power = [plan["power"][gain] for gain in ("1", "1.5", "2", "3")]
    assert power == sorted(power)
    run("--lab", lab.path, "verify", scored(lab)[0])
    assert json.loads(run("--lab", lab.path, "estimate", "--hours", 1, "--json").stdout)["plan"]["first"] == 0


def test_hours_are_guessed_where_nothing_was_measured(run, tmp_path, monkeypatch):
    seen = Demand("cpu", 10**6, 4 * 10**6, 0, 4 * 10**6, 8 * 10**6, 10**9, 10**9, 10**9, 10**9, 6e6, 60e9)
    monkeypatch.setattr(needs, "demand", lambda settings: seen)
    monkeypatch.setattr(needs, "slots", lambda settings: 2)
    result = run("--lab", tmp_path / "none", "estimate", "--hours", 10, "--preset", "mini", "--json")
    plan = json.loads(result.stdout)["plan"]
    # 500 steps of 16 x 256 tokens, 6e6 operations each, at half of 60e9 a second, two at a time
    assert plan["seconds"] == pytest.approx(500 * 16 * 256 * 6e6 / 30e9 / 2)
    trials = int(36_000 / plan["seconds"])
    assert plan["before"] == 9  # three references with three seeds each
    assert plan["repeats"] == 3 * min(5, plan["candidates"] // 10)
    assert plan["candidates"] + plan["before"] + plan["repeats"] in (trials, trials - 1, trials - 2)
    assert plan["claims"] == int((trials - plan["first"]) / plan["runs"])
    assert plan["guesses"] == ["the time", "power, as if the bar varied like a candidate"]
    told = run("--lab", tmp_path / "none", "estimate", "--hours", 10, "--preset", "mini").stdout
    assert max(map(len, told.splitlines())) <= 80
    assert "training alone" in told


def test_hours_too_few_for_the_references(run, tmp_path, monkeypatch):
    seen = Demand("cpu", 10**6, 4 * 10**6, 0, 4 * 10**6, 8 * 10**6, 10**9, 10**9, 10**9, 10**9, 6e9, 60e9)
    monkeypatch.setattr(needs, "demand", lambda settings: seen)
    result = run("--lab", tmp_path / "none", "estimate", "--hours", 1, "--preset", "mini", "--json")
    plan = json.loads(result.stdout)["plan"]
    assert (plan["candidates"], plan["repeats"], plan["claims"]) == (0, 0, 0)


def test_terms_are_those_of_the_first_promotion(run, lab):
    number = scored(lab)[0]
    run("--lab", lab.path, "verify", number)
    before = found(run, lab)
    bar, beside = before["terms"]["bar"], before["terms"]["beside"]
    assert before["terms"] == {"bar": bar, "bar_runs": 24, "tune": False, "freedom": 3.5, "beside": beside}
    assert {bar, *beside} == {*lab.settings().baselines.references}
    text = lab.config.read_text()
    lab.config.write_text(text.replace("tune = false", "tune = true") + "bar_runs = 48\n")
    result = run("--lab", lab.path, "verify", number)
    assert "they go on under those of the first promotion" in result.stderr
    assert found(run, lab) == before


def test_an_empty_table():
    empty = verification.assess(Terms("mamba2", 24, True, 3.5), (), (), str)
    assert verdicts.headline(empty).startswith("0 hold")


def test_what_gained_goes_on_at_the_next_scale(run, lab, monkeypatch):
    with_a_rung(lab)
    better, other = scored(lab)[:2]
    monkeypatch.setenv("SIMULATED_BETTER", f"{better:04d}-fresh {better:04d}-big-fresh")
    run("--lab", lab.path, "verify", better, other)
    assert [*json.loads(run("--lab", lab.path, "verdicts", "--json").stdout)["scales"]] == ["micro"]
    result = run("--lab", lab.path, "verify")
    assert result.exit_code == 0, result.output
    told = json.loads(run("--lab", lab.path, "verdicts", "--json").stdout)
    big = told["scales"]["big"]
    assert big["terms"]["bar"] == "gated_delta_net"
    assert [claim["promotion"]["candidate"] for claim in big["claims"]] == [better]
    assert big["claims"][0]["verdict"] == "holds"
    assert big["bar_runs"] == 24
    assert (lab.path / "rungs" / "big" / "data" / "manifest.json").exists()
    assert told["agreement"][0]["count"] == len({*told["scales"]["micro"]["losses"]} & {*big["losses"]}) >= 3
    assert {"ended": 1, "holding": 1, "promoted_under": 1}.items() <= told["hits"][1].items()
    lineage = Lineage.open(lab.lineage)
    assert {*lineage.refs("refs/tags/")} >= {f"refs/tags/verified/big/{better:04d}"}
    with Store.open_readonly(lab.store) as store:
        note = lineage.notes(VERDICTS)[store.held(better).sha]
    assert [line.split(": ")[:2] for line in note.splitlines()] == [
        ["Verdict at big", "holds"],
        ["Verdict at micro", "holds"],
    ]
    for words in (("verdicts",), ("show", better), ("status",)):
        lines = run("--lab", lab.path, *words).stdout.splitlines()
        assert max(map(len, lines)) <= 80
        assert any("big" in line for line in lines)


def test_the_next_scale_waits_until_no_claim_is_open(run, lab):
    with_a_rung(lab)
    assert run("--lab", lab.path, "verify", "--hours", 1e-9).exit_code == 0
    with Store.open_readonly(lab.store) as store:
        assert fresh.promotions(store) != ()
        assert fresh.rungs(store) == []
    assert not (lab.path / "rungs").exists()


def test_a_candidate_can_be_promoted_at_a_scale_by_hand(run, lab):
    with_a_rung(lab)
    number = scored(lab)[0]
    assert run("--lab", lab.path, "verify", number, "--rung", "big").exit_code == 0
    with Store.open_readonly(lab.store) as store:
        assert fresh.runs(store) == []
        assert [one.candidate for one in fresh.promotions(store, "big")] == [number]
    result = run("--lab", lab.path, "verify", number, "--rung", "huge")
    assert result.exit_code == 2
    assert "expected one of micro, big; found 'huge'" in result.stderr


def test_where_no_study_names_the_bar_of_a_scale_seeds_that_do_not_count_do(run, lab):
    with_a_rung(lab)
    big = lab.path / "big.toml"
    big.write_text(big.read_text().replace('bar = "gated_delta_net"', 'bar = ""'))
    number = scored(lab)[0]
    assert run("--lab", lab.path, "verify", number, "--rung", "big").exit_code == 0
    with Store.open_readonly(lab.store) as store:
        runs = fresh.runs(store, "big")
        terms = verification.of_rung(store, "big").terms
    tuned = {
        name: [run.evidence.measured.loss for run in runs if run.who == name and run.is_tuning]
        for name in ("delta_net", "gated_delta_net")
    }
    assert [len(losses) for losses in tuned.values()] == [3, 3]
    assert terms.bar == min(tuned, key=lambda name: sum(tuned[name]))


def test_claims_at_a_scale_keep_the_settings_that_they_began_with(run, lab):
    with_a_rung(lab)
    number = scored(lab)[0]
    run("--lab", lab.path, "verify", number, "--rung", "big", "--hours", 1e-9)
    big = lab.path / "big.toml"
    big.write_text(big.read_text().replace("steps = 4", "steps = 5"))
    result = run("--lab", lab.path, "verify", "--rung", "big")
    assert result.exit_code == 2
    assert "big.toml: train changed since this lab began" in result.stderr


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        ('["enormous"]', "expected one of micro, mini"),
        ('["none.toml"]', "with settings like those of lab.toml; found none"),
        ('["../big.toml"]', "or the name of a TOML file in the lab"),
        ('["mini", "mini"]', "found mini twice"),
        ('["micro"]', "found micro twice"),
    ],
)
def test_scales_that_are_none(run, lab, wanted, told):
    lab.config.write_text(lab.config.read_text().replace("rungs = []", f"rungs = {wanted}"))
    result = run("--lab", lab.path, "verify")
    assert result.exit_code == 2
    assert told in " ".join(result.stderr.split())


def test_those_drawn_by_lot_go_through_all_scales(run, lab, monkeypatch):
    with_a_rung(lab)
    text = lab.config.read_text()
    lab.config.write_text(text.replace("random = 0", "random = 1").replace("quota = 3", "quota = 1"))
    with Store.open_readonly(lab.store) as store:
        best = promising(lab, store)[0]
    monkeypatch.setenv("SIMULATED_BETTER", f"{best:04d}-fresh")
    assert run("--lab", lab.path, "verify").exit_code == 0
    with Store.open_readonly(lab.store) as store:
        drawn = [
            [one.candidate for one in fresh.promotions(store, rung) if one.drawn] for rung in ("", "big")
        ]
        found = [verification.of_rung(store, rung) for rung in ("", "big")]
    assert drawn[0] == drawn[1]
    assert len(drawn[0]) == 1
    assert drawn[0] != [best]
    assert all(len(one.losses[f"{drawn[0][0]:04d}"]) == verification.BY_LOT for one in found)
    assert [[claim.candidate for claim in one.claims] for one in found] == [[best], [best]]


def test_claims_beside_the_search_change_no_candidate(run, tmp_path):
    found = []
    for share in (0.0, 0.5):
        (tmp_path / str(share)).mkdir()
        settings = f"{SETTINGS}share = {share}\n"
        lab = simulated_engine.make_lab(tmp_path / str(share), settings, seed=3)
        assert run("--lab", lab.path, "--no-tui", "--experiments", 8).exit_code == 0
        with Store.open_readonly(lab.store) as store:
            summaries = store.summaries()
            made = [event.message for event in store.events(0, 10_000) if "fresh run of" in event.message]
            last = next(e.seq for e in store.events(0, 10_000) if e.kind == "commit" and e.candidate == 8)
            early = [e for e in store.events(0, last) if "fresh run of" in e.message and e.seq < last]
            claims = verification.read(lab.settings(), store)
        found.append([(s.id, s.parent, s.loss, s.fitness, s.state) for s in summaries])
        if share:
            assert len(early) >= 1
            assert claims.due == ()
            assert claims.count[verification.Verdict.OPEN] == 0
            assert sum(not one.drawn for one in claims_of(lab)) >= 2
        else:
            assert made == []
    assert found[0] == found[1]


def claims_of(lab):
    with Store.open_readonly(lab.store) as store:
        return fresh.promotions(store)


def test_a_scale_that_cannot_be_prepared_is_told_and_the_search_goes_on(run, tmp_path):
    lab = simulated_engine.make_lab(tmp_path, f"{SETTINGS}share = 0.5\n", seed=3)
    with_a_rung(lab)
    manifest = lab.path / "rungs" / "big" / "data" / "manifest.json"
    manifest.parent.mkdir(parents=True)
    manifest.write_text("{}")
    result = run("--lab", lab.path, "--no-tui", "--experiments", 5)
    assert result.exit_code == 0, result.output
    words = f"the search goes on without claims at big and beyond: Cannot read {manifest}"
    assert words in " ".join(result.stderr.split())
    assert len(claims_of(lab)) >= 1


def test_the_first_counted_run_of_a_candidate_is_compared_strictly(run, lab, monkeypatch):
    number, compared = scored(lab)[0], dict[str, int]()
    start, tell = simulated_engine.SimulatedTrio.start, simulated_engine.SimulatedTrio.tell

    def started(self, trial, score, files):
        self.label = simulated_engine.file_name(files)
        start(self, trial, score, files)

    def told(self, order):
        if isinstance(order, Compare):
            compared[self.label] = order.loss_positions
        tell(self, order)

    monkeypatch.setattr(simulated_engine.SimulatedTrio, "start", started)
    monkeypatch.setattr(simulated_engine.SimulatedTrio, "tell", told)
    run("--lab", lab.path, "verify", number)
    strict = {label for label, positions in compared.items() if positions == MANY}
    assert strict == {f"{number:04d}-fresh0"}
    assert {f"{number:04d}-fresh1", "mamba2-fresh0"} <= compared.keys()
