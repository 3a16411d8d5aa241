"""The command `check`: on files and candidates, for people and for programs."""

from __future__ import annotations

import json

import pytest

from asi_lab.scoring import references

GOOD = references.source("delta_net")
LEAK = GOOD.replace(
    "        x = hidden_states\n", "        x = hidden_states + 0.1 * hidden_states.flip(1)\n"
)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_sound_file_passes_without_a_lab(run, tmp_path):
    (tmp_path / "mine.py").write_text(GOOD)
    result = run("check", "mine.py")
    assert result.exit_code == 0, result.output
    assert "causality" in result.stdout
    assert "All checks passed" in result.stderr
    assert "sandbox: " in result.stderr


def test_a_leak_is_told_with_its_line_as_json(run, tmp_path):
    (tmp_path / "mine.py").write_text(LEAK)
    result = run("check", "mine.py", "--json")
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert report["ok"] is False
    assert report["state"] == "leaking"
    failed = {check["name"]: check for check in report["checks"] if not check["passed"]}
    assert set(failed) >= {"causality", "statistics"}
    line = LEAK.splitlines().index("        x = hidden_states + 0.1 * hidden_states.flip(1)") + 1
    assert failed["causality"]["line"] == line
    assert failed["causality"]["value"] > failed["causality"]["tolerance"]
    assert report["sandbox"] in ("bubblewrap", "landlock", "limits")


def test_code_that_breaks_the_contract_is_not_run(run, tmp_path):
    (tmp_path / "mine.py").write_text(f"open({str(tmp_path / 'touched')!r}, 'w')\n{GOOD}")
    result = run("check", "mine.py")
    assert result.exit_code == 1
    assert "line 1: open is out of bounds" in result.stdout
    assert "rejected" in result.stderr
    assert not (tmp_path / "touched").exists()


def test_a_candidate_of_a_lab_is_checked_at_its_scale(run, searched):
    result = run("--lab", searched.path, "check", "1", "--json")
    assert result.exit_code == 0, result.output
    parameters = next(c for c in json.loads(result.stdout)["checks"] if c["name"] == "parameters")
    assert 257 * 64 < parameters["value"] < 164_992  # its tokens are bytes


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere.py"], "expected a file, a candidate's id or best; found 'nowhere.py'"),
        (["7"], "expected a lab"),
        (["best"], "expected a lab"),
        (["mine.py", "--preset", "huge"], "expected one of micro"),
    ],
)
def test_what_cannot_be_checked_is_told(run, tmp_path, arguments, words):
    (tmp_path / "mine.py").write_text(GOOD)
    result = run("check", *arguments)
    assert result.exit_code == 2
    assert words in result.stderr


def test_a_candidate_that_is_not_there_and_a_file_that_is_no_text(run, searched, tmp_path):
    assert "found 999" in run("--lab", searched.path, "check", "999").stderr
    (tmp_path / "binary.py").write_bytes(b"\xff\xfe\x00")
    assert "cannot be read as UTF-8" in run("check", "binary.py").stderr


def test_a_sandbox_that_is_required_and_missing_refuses(run, searched, copied, monkeypatch):
    from asi_lab import sandbox

    monkeypatch.setattr(
        sandbox,
        "probe",
        lambda: [
            sandbox.ProbedLevel(level, level.value == "limits", "missing", "get it")
            for level in sandbox.Level
        ],
    )
    copied.config.write_text('sandbox = "required"\n' + copied.config.read_text())
    result = run("--lab", copied.path, "check", "1")
    assert result.exit_code == 2
    assert "Fix: get it" in result.stderr
