"""Which level is taken, what is refused, and that a level which leaks is not believed."""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from asi_lab import sandbox
from asi_lab.common import scratch
from asi_lab.errors import ConfigError
from asi_lab.sandbox import Level, Policy, ProbedLevel, Sandbox, choose, ladder, landlock, seccomp

BEST, MIDDLE, LAST = Level
HELD_HERE = [finding.level for finding in sandbox.probe() if finding.holds]


def findings(*held: Level) -> list[ProbedLevel]:
    return [
        ProbedLevel(
            level, level in held, "" if level in held else "missing", "" if level in held else "install it"
        )
        for level in Level
    ]


@pytest.mark.parametrize(
    ("wanted", "held", "taken"),
    [
        ("auto", Level, BEST),
        ("auto", (MIDDLE, LAST), MIDDLE),
        ("auto", (LAST,), LAST),
        ("required", (MIDDLE, LAST), MIDDLE),
        ("limits", Level, LAST),
        ("landlock", Level, MIDDLE),
    ],
)
def test_the_strongest_level_that_holds_is_taken_or_the_one_named(wanted, held, taken):
    assert choose(wanted, findings(*held)).level is taken


@pytest.mark.parametrize(("wanted", "held"), [("required", (LAST,)), ("bubblewrap", (MIDDLE, LAST))])
def test_a_level_that_is_asked_for_and_missing_is_refused_with_the_fix(wanted, held):
    with pytest.raises(ConfigError, match=r"bubblewrap: missing\. Fix: install it"):
        choose(wanted, findings(*held))


@pytest.fixture
def folder() -> Iterator[Path]:
    """Shorter than pytest's own: the address of a local socket has at most 107 characters."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def test_the_probe_is_quick_to_tell_what_holds_and_leaves_nothing(folder, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    found = sandbox.probe()
    assert [finding.level for finding in found] == list(Level)
    assert found[-1].holds
    assert all(bool(finding.reason) == bool(finding.fix) == (not finding.holds) for finding in found)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("name", ["x" * 200, "gone/folder"])
def test_a_place_where_nothing_can_be_tried_is_told(folder, monkeypatch, name):
    place = folder / name
    if name != "gone/folder":
        place.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(place))
    assert re.search("it cannot be tried in .*set TMPDIR", ladder._try(LAST))


def test_no_folder_for_temporary_files_at_all_is_told(monkeypatch):
    def none() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    monkeypatch.setattr("tempfile.gettempdir", none)
    assert "the folder for temporary files" in ladder._try(LAST)


def test_folders_of_probes_that_were_killed_go_with_the_next_one(folder, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    (folder / "asi-lab-probe-left").mkdir()
    (folder / "other").mkdir()
    with scratch.held(ladder.PROBE_FOLDER) as held:
        ladder._try(LAST)
        assert set(folder.iterdir()) == {held, folder / "other"}


def test_a_level_that_lets_a_canary_through_does_not_hold(monkeypatch):
    """Here the strongest level is replaced by the weakest one."""
    command = Sandbox.command
    weak = Sandbox(Level.LIMITS)
    monkeypatch.setattr(Sandbox, "command", lambda self, *arguments: command(weak, *arguments))
    for level in (BEST, MIDDLE):
        trouble = ladder._try(level)
        assert trouble.startswith("it leaves open:")
        for canary in (
            "read_secret",
            "list_outside",
            "write_outside",
            "connect_tcp",
            "connect_unix",
            "signal_engine",
        ):
            assert canary in trouble


def test_a_missing_program_is_told_with_the_way_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    finding = sandbox.probe()[0]
    assert not finding.holds
    assert "apt install bubblewrap" in finding.fix


def test_a_program_that_fails_is_told_with_its_words(monkeypatch, tmp_path):
    fake = tmp_path / "bwrap"
    fake.write_text("#!/bin/sh\necho 'bwrap: setting up uid map: Permission denied' >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    finding = sandbox.probe()[0]
    assert not finding.holds
    assert "uid map: Permission denied" in finding.reason
    assert finding.fix


def test_missing_libraries_and_kernels_are_told(monkeypatch):
    monkeypatch.setattr(seccomp, "is_available", lambda: False)
    monkeypatch.setattr(landlock, "abi", lambda: 0)
    first, second, last = sandbox.probe()
    assert "libseccomp" in first.reason or "bubblewrap is not installed" in first.reason
    assert "no Landlock" in second.reason
    assert last.holds


WORK = {
    "torch and a gradient": (
        "import torch; x = torch.ones(3, requires_grad=True); x.sum().backward(); print(x.grad.sum())"
    ),
    "shared memory": (
        "from multiprocessing import shared_memory as s; m = s.SharedMemory(create=True, size=9);"
        " m.buf[0] = 7; n = s.SharedMemory(m.name); print(n.buf[0]); n.close(); m.close(); m.unlink()"
    ),
    "triton's cache": (
        "from triton.runtime.cache import get_cache_manager as g;"
        " print(open(g('ab' * 8).put(b'7', 'x.bin')).read())"
    ),
    "a compiler": (
        "import subprocess, ctypes; open('a.c', 'w').write('int f(void) { return 7; }');"
        " subprocess.run(['gcc', '-shared', '-o', 'a.so', 'a.c'], check=True);"
        " print(ctypes.CDLL('./a.so').f())"
    ),
}


def run(level: Level, code: str, folder, *arguments: str, **rules) -> subprocess.CompletedProcess[str]:
    for name in ("tmp", "cache"):
        (folder / name).mkdir()
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "USER": "asi-lab",
        "TMPDIR": str(folder / "tmp"),
        "TRITON_CACHE_DIR": str(folder / "cache"),
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "cache"),
    }
    command = Sandbox(level).command(
        Policy(str(folder), **{"memory_bytes": 6 * 2**30} | rules),
        [sys.executable, "-c", code, *arguments],
        environment,
    )
    return subprocess.run(
        command.argv,
        env=command.environment,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )


@pytest.mark.parametrize("level", HELD_HERE)
@pytest.mark.parametrize("name", WORK)
def test_what_candidates_need_works_inside(level, name, tmp_path):
    if name == "shared memory" and level is MIDDLE:
        pytest.skip("what others share is not taken apart at this level, so nothing is shared")
    done = run(level, WORK[name], tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() in ("7", "tensor(3.)")


SEEN = """
import importlib, json, sys
def read(path):
    try:
        return open(path).read()
    except OSError:
        return ""
def found(name):
    try:
        return name if importlib.import_module(name).__file__ else ""
    except OSError:
        return ""
shown, *files = sys.argv[1:]
packages = {name: found(name) for name in ("rich", "yaml")}
print(json.dumps(packages | {name: read(f"{shown}/{name}") for name in files}))
"""


@pytest.mark.parametrize("level", HELD_HERE)
def test_what_is_hidden_cannot_be_read_and_what_lies_beside_it_can(level, tmp_path):
    """Files, folders with all below them, packages of Python, and what links lead to."""
    shown = tmp_path / "shown"
    files = "plain", "hidden", "deep/plain", "deep/folder/hidden", "deep/folder/below/hidden"
    for name in files:
        (shown / name).parent.mkdir(parents=True, exist_ok=True)
        (shown / name).write_text(name)
    (shown / "link").symlink_to(shown / "hidden")
    (shown / "way").symlink_to(shown / "deep/folder")
    package = importlib.util.find_spec("rich").submodule_search_locations[0]
    paths = (
        shown / "way",
        shown / "deep/folder",
        shown / "deep/folder/below",
        shown / "hidden",
        shown / "none",
    )
    hidden = [*map(str, paths), package, "/elsewhere"]
    (tmp_path / "work").mkdir()
    rules = {"readable": (str(shown),), "hidden": tuple(hidden)}
    done = run(level, SEEN, tmp_path / "work", str(shown), *files, "link", "way/hidden", **rules)
    assert done.returncode == 0, done.stderr[-2000:]
    seen = json.loads(done.stdout)
    everything = {name: name for name in files} | {"link": "hidden", "way/hidden": "deep/folder/hidden"}
    everything |= {"rich": "rich", "yaml": "yaml"}
    open_still = everything if level is LAST else {"plain", "deep/plain", "yaml"}
    assert seen == {name: text if name in open_still else "" for name, text in everything.items()}


@pytest.mark.slow
@pytest.mark.parametrize("level", HELD_HERE)
def test_compiled_models_work_inside(level, tmp_path):
    code = (
        "import torch\n@torch.compile\ndef f(x):\n    return torch.sin(x) * 2 + x.cos()\n"
        "x = torch.randn(100)\nassert (f(x) - (torch.sin(x) * 2 + x.cos())).abs().max() < 1e-5\nprint(7)"
    )
    done = run(level, code, tmp_path)
    assert done.stdout.strip() == "7", done.stderr[-2000:]


@pytest.mark.parametrize("level", HELD_HERE)
def test_the_environment_is_exactly_what_is_given(level, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary")
    done = run(level, "import json, os; print(json.dumps(sorted(os.environ)))", tmp_path)
    given = {"HOME", "PATH", "TMPDIR", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "USER"}
    assert given <= set(json.loads(done.stdout)) <= given | {"LC_CTYPE", "PWD"}


@pytest.mark.parametrize("level", HELD_HERE)
@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("raise SystemExit(3)", 3),
        ("import os; os.kill(os.getpid(), 9)", 137),
        ("import os; os._exit(137)", 127),
        ("import os; os._exit(128)", 127),
    ],
)
def test_the_exit_status_is_passed_on_and_only_a_signal_looks_like_one(level, code, status, tmp_path):
    assert run(level, code, tmp_path).returncode == status


@pytest.mark.skipif(os.geteuid() != 0, reason="only root starts trials as another user")
@pytest.mark.parametrize("level", HELD_HERE)
def test_trials_of_root_are_not_root_where_python_can_be_read_without(level, tmp_path):
    leaves = ladder.can_leave_root(level, workspace=str(tmp_path))
    done = run(level, "import os; print(os.getresuid())", tmp_path)
    assert (done.stdout.strip() != "(0, 0, 0)") == leaves
    assert leaves or level is not Level.BUBBLEWRAP
