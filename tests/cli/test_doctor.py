"""What doctor finds, and that each trouble comes with a fix."""

from __future__ import annotations

import http.server
import json
import subprocess
import sys
import threading

import msgspec
import pytest

from asi_lab import sandbox
from asi_lab.data.pace import TextPace
from asi_lab.records.demand import Demand
from asi_lab.view import doctor, needs

NAMES = [
    "python",
    "torch",
    "gpu",
    "git",
    "machine",
    "disk",
    "sandbox",
    "annoy",
    "ollama",
    "openai",
    "lab",
    "data",
    "memory",
    "storage",
    "text",
]
SECRET = "sk-secret-0123456789"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Nothing is reached over the network, importing torch is done by one test alone, and what a search needs
    is counted and measured by the tests of that."""
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:9")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    report = json.dumps({"version": "2.13.0", "cuda": None, "gpus": []})
    monkeypatch.setattr(doctor, "_TORCH", f"print({report!r})")
    gigabyte = 10**9
    demand = Demand(
        *("cpu", 10**6, 4 * 10**6, 0, 4 * 10**6, 8 * 10**6, gigabyte, gigabyte, gigabyte // 2, gigabyte // 4),
        flops=6e6,
        rate=60e9,
    )
    monkeypatch.setattr(needs, "demand", lambda settings: demand)
    pace = msgspec.json.encode(TextPace(2.0, 1.0, 4.0)).decode()
    monkeypatch.setattr(needs, "run_module", lambda module, arguments, tick: [pace])
    monkeypatch.setattr(needs, "_ram", lambda: needs.Room(64 * needs.GB, 0.0))


def found(lab, name: str) -> doctor.Finding:
    return next(finding for finding in doctor.examine(lab) if finding.name == name)


def test_every_subject_is_examined_and_every_trouble_has_a_fix(searched):
    findings = doctor.examine(searched)
    assert [finding.name for finding in findings] == NAMES
    assert all(bool(finding.fix) == (finding.verdict != "ok") for finding in findings)
    assert doctor.is_fit(findings)


def test_a_lab_need_not_exist(tmp_path):
    from asi_lab.lab import Lab

    findings = doctor.examine(Lab(tmp_path / "deep" / "lab"))
    assert doctor.is_fit(findings)
    assert not (tmp_path / "deep").exists()


def test_torch_is_really_imported(searched, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:9")
    import importlib.metadata

    assert importlib.metadata.version("torch") in found(searched, "torch").detail


def test_torch_that_cannot_be_imported_fails(searched, monkeypatch):
    monkeypatch.setattr(doctor, "_TORCH", "import no_such_module_here")
    finding = found(searched, "torch")
    assert finding.verdict == "fail"
    assert "no_such_module_here" in finding.detail
    assert not doctor.is_fit([finding])


def test_gpus_are_named(searched, monkeypatch):
    report = json.dumps({"version": "2.13.0", "cuda": "13.0", "gpus": ["Big GPU"]})
    monkeypatch.setattr(doctor, "_TORCH", f"print({report!r})")
    assert found(searched, "gpu") == doctor.Diagnosis("gpu", "ok", "Big GPU")


def test_missing_git_fails(searched, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert found(searched, "git").verdict == "fail"


@pytest.mark.parametrize(("free", "verdict"), [(50e9, "ok"), (5e9, "warn"), (0.5e9, "fail")])
def test_disk_space(searched, monkeypatch, free, verdict):
    usage = doctor.shutil.disk_usage(searched.path)._replace(free=int(free))
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: usage)
    assert found(searched, "disk").verdict == verdict


BEST, MIDDLE, LAST = sandbox.Level
WORKS = {level: sandbox.ProbedLevel(level, True) for level in sandbox.Level}
FAILS = {level: sandbox.ProbedLevel(level, False, "it is missing", "install it") for level in sandbox.Level}


@pytest.mark.parametrize(
    ("findings", "verdict", "words"),
    [
        ([WORKS[BEST], WORKS[MIDDLE], WORKS[LAST]], "ok", "bubblewrap; it leaves open"),
        ([WORKS[BEST], FAILS[MIDDLE], WORKS[LAST]], "ok", "bubblewrap; it leaves open"),
        ([FAILS[BEST], WORKS[MIDDLE], WORKS[LAST]], "warn", "bubblewrap does not work: it is missing"),
        ([FAILS[BEST], FAILS[MIDDLE], WORKS[LAST]], "warn", "limits; it leaves open your files"),
    ],
)
def test_the_sandbox_is_told_with_what_it_leaves_open(searched, monkeypatch, findings, verdict, words):
    monkeypatch.setattr(doctor.sandbox, "probe", lambda: findings)
    finding = found(searched, "sandbox")
    assert finding.verdict == verdict
    assert words in finding.detail
    assert bool(finding.fix) == (verdict == "warn")


def test_a_sandbox_that_the_lab_requires_and_the_machine_lacks_fails(copied, monkeypatch):
    monkeypatch.setattr(doctor.sandbox, "probe", lambda: [FAILS[BEST], FAILS[MIDDLE], WORKS[LAST]])
    copied.config.write_text('sandbox = "required"\n' + copied.config.read_text())
    finding = found(copied, "sandbox")
    assert finding.verdict == "fail"
    assert "install it" in finding.fix


def test_annoy_is_optional(searched, monkeypatch):
    monkeypatch.setattr(doctor, "annoy_available", lambda: False)
    finding = found(searched, "annoy")
    assert finding.verdict == "warn"
    assert "exact" in finding.detail


def test_the_key_is_seen_but_never_printed(run, searched, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    assert found(searched, "openai").verdict == "ok"
    for arguments in (["doctor"], ["doctor", "--json"]):
        assert SECRET not in run("--lab", searched.path, *arguments).output


def test_ollama_lists_its_models(searched, monkeypatch):
    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = json.dumps({"models": [{"model": "qwen3:8b"}]}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("OLLAMA_HOST", f"127.0.0.1:{server.server_port}")
        finding = found(searched, "ollama")
        server.shutdown()
    assert finding.verdict == "ok"
    assert "qwen3:8b" in finding.detail


def test_ollama_out_of_reach_is_no_failure(searched):
    finding = found(searched, "ollama")
    assert finding.verdict == "warn"
    assert "127.0.0.1:9" in finding.detail


def test_a_broken_configuration_fails(run, copied):
    copied.config.write_text("preset = 'nonsense'\n")
    assert found(copied, "lab").verdict == "fail"
    result = run("--lab", copied.path, "doctor", "--json")
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert report["ok"] is False
    assert {check["name"]: check["verdict"] for check in report["checks"]}["lab"] == "fail"


def test_a_running_engine_is_named(searched):
    hold = (
        "import sys, time; from pathlib import Path; from asi_lab.lab.directory import Lab\n"
        "with Lab(Path(sys.argv[1])).locked(): print('held', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", hold, str(searched.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        holder.stdout.readline()
        assert f"process {holder.pid}" in found(searched, "lab").detail
        holder.kill()


def test_data_that_matches_no_file_fails(fresh):
    fresh.config.write_text('preset = "micro"\n[data]\nsource = "text:/nowhere/*.txt"\n')
    assert found(fresh, "data").verdict == "fail"


def test_damaged_data_fails(copied):
    (copied.data / "train.bin").write_bytes(b"short")
    assert found(copied, "data").verdict == "fail"


def test_data_is_described(searched, fresh):
    assert "training tokens" in found(searched, "data").detail
    assert "first search" in found(fresh, "data").detail


def test_a_check_that_breaks_takes_no_other_with_it(searched, monkeypatch):
    def broken() -> None:
        raise RuntimeError("odd machine")

    monkeypatch.setattr(doctor, "annoy_available", broken)
    findings = doctor.examine(searched)
    assert [finding.name for finding in findings] == NAMES
    finding = next(finding for finding in findings if finding.name == "annoy")
    assert finding.verdict == "fail"
    assert "RuntimeError: odd machine" in finding.detail


@pytest.mark.parametrize(("gigabytes", "verdict"), [(0.5, "warn"), (1000.0, "ok")])
def test_what_a_control_group_allows_is_told(searched, monkeypatch, tmp_path, gigabytes, verdict):
    (tmp_path / "cpu.max").write_text("25000 100000\n")
    (tmp_path / "memory.max").write_text(f"{int(gigabytes * 2**30)}\n")
    monkeypatch.setattr(doctor.cgroup, "own", lambda: doctor.cgroup.Groups((tmp_path,), (tmp_path,)))
    finding = found(searched, "machine")
    assert finding.verdict == verdict
    assert "of which a control group allows 0.25" in finding.detail
    assert ("0.5 GB of memory, while limits.memory_gb allows a trial 4" in finding.detail) == (
        verdict == "warn"
    )


def test_a_proxy_that_is_none_is_named_beside_all_other_findings(searched, monkeypatch):
    monkeypatch.setenv("OLLAMA_HOST", "http://models.example:1")
    monkeypatch.setenv("HTTP_PROXY", "nonsense://")
    findings = doctor.examine(searched)
    assert [finding.name for finding in findings] == NAMES
    ollama = next(finding for finding in findings if finding.name == "ollama")
    assert ollama.detail.startswith("HTTP_PROXY: expected a proxy")
    assert ollama.fix == "correct what the message names"


def test_needs_are_told_for_the_lab_or_for_a_preset(run, searched, tmp_path):
    assert found(searched, "memory").detail.startswith("micro, delta_net, 1,000,000 parameters")
    assert found(searched, "text").detail == "tokenized already"
    result = run("--lab", searched.path, "doctor", "--preset", "20m")
    assert "20m, delta_net" in result.stdout
    assert "compressed, and none of it is kept" in " ".join(result.stdout.split())
    assert max(map(len, result.stdout.splitlines())) <= 80
    other = json.loads(run("--lab", tmp_path / "none", "doctor", "--json").stdout)["checks"]
    assert next(one for one in other if one["name"] == "memory")["detail"].startswith("micro")


def test_a_preset_that_cannot_fit_fails_before_the_night(run, tmp_path, monkeypatch):
    monkeypatch.setattr(needs, "_ram", lambda: needs.Room(1.6 * needs.GB, 0.0))
    result = run("--lab", tmp_path / "none", "doctor", "--preset", "micro")
    assert result.exit_code == 1
    assert "fix: set search.slots below 2" in result.stdout


def test_a_preset_that_is_none(run, tmp_path):
    result = run("--lab", tmp_path / "none", "doctor", "--preset", "huge")
    assert result.exit_code == 2
    assert "expected one of micro" in result.stderr
