"""Starting, usage errors, making a lab, searching, and looking after it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from asi_lab import __version__, sandbox
from asi_lab.lab import Lab
from asi_lab.records import CandidateState

ESCAPE = re.compile(r"\x1b|\x9b|\x07")
HEAVY = {"torch", "lmdb", "git", "rich", "numpy", "scipy", "msgspec", "tomlkit"}
READERS = (
    ["status"],
    ["top"],
    ["show", "1"],
    ["diff", "1"],
    ["log"],
    ["pause"],
    ["resume"],
    ["stop"],
    ["config", "show"],
    ["config", "validate"],
    ["fsck"],
)


def test_help_names_every_command_and_the_exit_codes(run):
    shown = run("--help").stdout
    for word in ("init", "status", "top", "show", "diff", "log", "pause", "resume", "stop", "config"):
        assert re.search(rf"^  {word}\b", shown, re.MULTILINE)
    assert "3 the lab is locked" in " ".join(shown.split())


def test_version(run):
    assert __version__ in run("--version").stdout


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], []])
def test_starting_imports_nothing_heavy(arguments):
    code = (
        "import sys\n"
        "from asi_lab.cli import main\n"
        f"sys.argv[1:] = {arguments!r}\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        f"heavy = {HEAVY} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_without_the_terminal_ui_the_way_to_search_is_named(run):
    result = run()
    assert result.exit_code == 2
    assert "--no-tui" in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("command", READERS, ids=" ".join)
def test_a_missing_lab_is_a_usage_error_that_names_init(run, tmp_path, command):
    result = run("--lab", tmp_path / "none", *command)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("Error: ")
    assert "init" in result.stderr
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["top", "-n", "0"],
        ["--experiments", "0", "--no-tui"],
        ["--hours", "nan", "--no-tui"],
        ["--hours", "-1", "--no-tui"],
        ["--experiments", "3", "top"],
        ["--preset", "mini", "status"],
        ["completion", "tcsh"],
    ],
    ids=" ".join,
)
def test_wrong_usage_exits_with_2(run, searched, arguments):
    result = run("--lab", searched.path, *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr


def test_init_makes_a_lab_once(run, tmp_path):
    lab = tmp_path / "my lab"
    first = run("--lab", lab, "init", "--preset", "mini", "--seed", "7")
    assert (first.exit_code, first.stdout) == (0, "")
    assert f"'{lab}'" in first.stderr  # the next command can be pasted
    settings = Lab(lab).settings()
    assert (settings.preset, settings.seed) == ("mini", 7)
    assert run("--lab", lab, "init").exit_code == 2


def test_init_refuses_an_unknown_preset(run, tmp_path):
    result = run("--lab", tmp_path / "lab", "init", "--preset", "huge")
    assert result.exit_code == 2
    assert "micro" in result.stderr
    assert not (tmp_path / "lab").exists()


@pytest.mark.parametrize("command", [["status"], ["top"], ["log"], ["fsck"]], ids=" ".join)
def test_a_lab_without_results_says_how_to_go_on(run, fresh, command):
    result = run("--lab", fresh.path, *command)
    assert result.exit_code == 0
    assert "asi-lab" in result.output
    assert "--no-tui" in result.output


def test_a_lab_without_results_gives_valid_json(run, fresh):
    top = json.loads(run("--lab", fresh.path, "top", "--json").stdout)
    assert (top["candidates"], top["scored"], top["noise"]) == ([], 0, None)
    status = json.loads(run("--lab", fresh.path, "status", "--json").stdout)
    assert status["engine"]["state"] == "never started"
    assert status["finished"] == 0


@pytest.mark.parametrize("before", [True, False])
def test_the_lab_may_be_named_before_and_after_the_command(run, searched, tmp_path, before):
    named = ["--lab", searched.path]
    arguments = [*named, "show", "1"] if before else ["--lab", tmp_path, "show", "1", *named]
    assert run(*arguments).stdout.startswith("0001 ")


def test_the_lab_may_be_named_by_the_environment(run, searched, monkeypatch):
    monkeypatch.setenv("ASI_LAB", str(searched.path))
    assert run("show", "1").stdout.startswith("0001 ")


def test_an_existing_lab_must_have_the_preset_and_seed_asked_for(run, searched):
    preset = run("--lab", searched.path, "--no-tui", "--preset", "mini")
    assert preset.exit_code == 2
    assert "mini" in preset.stderr
    assert "micro" in preset.stderr
    seed = run("--lab", searched.path, "--no-tui", "--seed", "5")
    assert seed.exit_code == 2
    assert "seed 1" in seed.stderr


def test_a_full_lab_shows_what_came_out_and_how_to_go_on(run, searched):
    result = run("--lab", searched.path, "--no-tui", "--experiments", "8", "--preset", "micro", "--seed", "1")
    assert result.exit_code == 0
    assert "holds 8 candidates already" in result.stderr
    assert "--experiments 16" in result.stderr
    assert "by luck alone" in result.stdout
    assert "diff --git a/architecture.py" in result.stdout
    assert "git -C" in result.stdout


def test_a_search_makes_its_lab_and_says_so(run, tmp_path, monkeypatch):
    monkeypatch.setattr("asi_lab.cli.headless.Engine.search", lambda engine, experiments, hours: experiments)
    result = run("--lab", tmp_path / "new", "--no-tui", "--experiments", "5", "--preset", "mini")
    assert result.exit_code == 5  # what the engine returned
    assert result.stdout == ""
    assert f"Made a lab in {tmp_path / 'new'}" in result.stderr
    assert Lab(tmp_path / "new").settings().preset == "mini"


SIMULATED = """
import sys
sys.path.insert(0, sys.argv.pop(1))
import simulated_engine
from asi_lab import cli
from asi_lab.cli import headless
from asi_lab.engine import Engine
headless.Engine = lambda lab, view: Engine(lab, view, simulated_engine.SimulatedExecutor(0.01))
cli.main()
"""


def test_a_search_narrates_on_stderr_and_leaves_its_results_on_stdout(fresh, candidates):
    command = [sys.executable, "-c", SIMULATED, str(Path(__file__).parent.parent), "--lab", str(fresh.path)]
    done = subprocess.run(
        [*command, "--no-tui", "--experiments", "3"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    ended = candidates(fresh)
    assert [c.id for c in ended] == [0, 1, 2, 3]
    for candidate in ended[1:]:
        assert f" {candidate.id:04d} {candidate.name}: from " in done.stderr
        assert f" {candidate.id:04d} {'loss' if candidate.score else candidate.state.value}" in done.stderr
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ", line) for line in done.stderr.splitlines())
    assert done.stdout.splitlines()[0].split()[:3] == ["#", "id", "name"]
    assert not ESCAPE.search(done.stdout + done.stderr)


@pytest.mark.parametrize(
    ("wanted", "works", "found"),
    [("required", {"limits"}, "landlock"), ("bubblewrap", {"landlock", "limits"}, "bubblewrap")],
)
def test_a_search_below_the_sandbox_asked_for_does_not_start(run, fresh, monkeypatch, wanted, works, found):
    findings = [sandbox.ProbedLevel(n, n.value in works, f"{n.value} fails", "get it") for n in sandbox.Level]
    monkeypatch.setattr(sandbox, "probe", lambda: findings)
    fresh.config.write_text(f'sandbox = "{wanted}"\n' + fresh.config.read_text())
    result = run("--lab", fresh.path, "--no-tui", "--experiments", "1")
    assert result.exit_code == 2
    assert f"{found} fails" in result.stderr
    assert "Fix: get it" in result.stderr
    assert not fresh.store.exists()
    assert not fresh.data.exists()


def test_config_show_and_validate(run, copied):
    shown = run("--lab", copied.path, "config", "show").stdout
    assert 'preset = "micro"' in shown
    assert "[train]" in shown  # merged with the preset
    assert run("--lab", copied.path, "config", "show", "--first").stdout == copied.config.read_text()
    assert run("--lab", copied.path, "config", "validate").exit_code == 0


def test_config_show_first_needs_a_search(run, fresh):
    assert run("--lab", fresh.path, "config", "show", "--first").exit_code == 2


def test_config_validate_names_the_line_and_what_changed(run, copied):
    first = copied.config.read_text()
    copied.config.write_text(first + "nonsense = 1\n")
    result = run("--lab", copied.path, "config", "validate")
    assert result.exit_code == 2
    assert f"lab.toml:{len(first.splitlines()) + 1}" in result.stderr
    copied.config.write_text(first.replace("limit = 4", "limit = 5"))
    changed = run("--lab", copied.path, "config", "validate")
    assert changed.exit_code == 2
    assert "evaluate changed" in changed.stderr


def test_fsck_finds_and_repairs(run, copied, candidates):
    assert run("--lab", copied.path, "fsck").exit_code == 0
    done = next(c for c in candidates(copied) if c.state is CandidateState.DONE and c.id)
    git = ["git", "-C", str(copied.lineage)]
    branches = subprocess.check_output([*git, "branch", "--format=%(refname:short)"], text=True).split()
    branch = next(name for name in branches if name.startswith(f"arch/{done.id:04d}"))
    subprocess.run([*git, "branch", "-q", "-D", branch], check=True)
    found = run("--lab", copied.path, "fsck")
    assert found.exit_code == 1
    assert branch in found.stdout
    repaired = run("--lab", copied.path, "fsck", "--repair")
    assert repaired.exit_code == 0
    assert "repaired: " in repaired.stdout
    assert run("--lab", copied.path, "fsck").stdout == ""


def test_completion_scripts(run, monkeypatch):
    for shell in ("bash", "zsh", "fish"):
        assert "_ASI_LAB_COMPLETE" in run("completion", shell).stdout
    monkeypatch.setenv("SHELL", "/bin/zsh")
    assert run("completion").stdout == run("completion", "zsh").stdout
    monkeypatch.setenv("SHELL", "/bin/nonsense")
    assert run("completion").exit_code == 2
