import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from asi_lab.data import builtin, sources
from asi_lab.data.sources import check_out_of_reach, readable_by_trials
from asi_lab.engine import Engine
from asi_lab.errors import DataError
from asi_lab.lab import Lab
from asi_lab.sandbox import Level, ProbedLevel
from asi_lab.settings import Data


@pytest.fixture
def shown(tmp_path, monkeypatch) -> Path:
    """A folder that the sandbox shows to trials, beside one that it does not show."""
    folder = tmp_path / "usr"
    (folder / "share").mkdir(parents=True)
    (tmp_path / "home").mkdir()
    monkeypatch.setattr(sources, "system_paths", lambda: [str(folder)])
    return folder


def test_files_below_shown_paths_are_found_through_links(shown, tmp_path):
    (shown / "share" / "words.txt").write_text("words")
    (tmp_path / "home" / "mine.txt").write_text("mine")
    (tmp_path / "home" / "link.txt").symlink_to(shown / "share" / "words.txt")
    (shown / "to-home").symlink_to(tmp_path / "home")
    (tmp_path / "to-usr").symlink_to(shown)
    files = f"text:{tmp_path}/*/*.txt"
    for root in (shown, tmp_path / "to-usr"):
        assert readable_by_trials(files, [str(root)]) == (f"{tmp_path}/home/link.txt",)
        assert readable_by_trials(f"text:{shown}/*/*.txt", [str(root)]) == (
            f"{shown}/share/words.txt",
            f"{shown}/to-home/link.txt",
        )
    assert readable_by_trials(f"hf:{shown}", [str(shown)]) == (f"{shown}/share/words.txt",)
    for nowhere in ("builtin", "hf:nobody/set", f"text:{tmp_path}/absent*"):
        assert readable_by_trials(nowhere, ["/"]) == ()


@pytest.mark.parametrize("level", [Level.BUBBLEWRAP, Level.LANDLOCK])
def test_text_that_trials_can_read_is_refused(shown, tmp_path, level):
    (shown / "share" / "words.txt").write_text("words")
    open_text = Data(source=f"text:{shown}/share/*.txt", tokenizer="byte")
    with pytest.raises(
        DataError, match=rf"found {shown}/share/words.txt \(1 of 1 files\) in {shown}.*Move the"
    ):
        check_out_of_reach(open_text, tmp_path / "lab" / "data", level)
    (tmp_path / "home" / "mine.txt").write_text("mine")
    closed = Data(source=f"text:{tmp_path}/home/*.txt", tokenizer="byte")
    assert check_out_of_reach(closed, tmp_path / "lab" / "data", level) == ()
    with pytest.raises(
        DataError, match=rf"expected a lab outside.*found it in {shown}.*Make the lab in another"
    ):
        check_out_of_reach(closed, shown / "lab" / "data", level)


def test_where_nothing_is_hidden_one_is_told(shown, tmp_path):
    (shown / "words.txt").write_text("words")
    data = Data(source=f"text:{shown}/*.txt", tokenizer="byte")
    [(kind, message, _)] = check_out_of_reach(data, tmp_path / "lab" / "data", Level.LIMITS)
    assert kind == "warning"
    assert f"{tmp_path}/lab/data is open to candidates" in message


class Silent:
    """A view that nobody looks at."""

    def say(self, text: str) -> None:
        pass


def test_a_search_on_text_that_trials_can_read_ends_before_it_begins(shown, tmp_path, monkeypatch):
    (shown / "words.txt").write_text("words")
    lab = Lab(tmp_path / "lab")
    lab.path.mkdir()
    lab.config.write_text(f'preset = "micro"\n[data]\nsource = "text:{shown}/*.txt"\n')
    monkeypatch.setattr("asi_lab.engine.sandbox.probe", lambda: [ProbedLevel(Level.BUBBLEWRAP, True)])
    with pytest.raises(DataError, match="expected text that trials cannot read; found"):
        Engine(lab, Silent()).search(1, None)
    assert not lab.data.exists()
    assert not lab.store.exists()


@pytest.fixture
def packages(tmp_path, monkeypatch) -> Path:
    """A place of packages with some that are to be hidden, and copies and namesakes of them."""
    folder = tmp_path / "lib" / "site-packages"
    for name in ("scipy", "pip/_vendor/rich", "typing/_click", "torch", "torch/mock/scipy", "models/git"):
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text("")
    (folder / "click").mkdir()  # left behind, without anything in it
    monkeypatch.setattr(builtin, "system_paths", lambda: [str(tmp_path / "lib"), str(folder)])
    builtin.hidden_paths.cache_clear()
    yield folder
    builtin.hidden_paths.cache_clear()


def test_hidden_are_the_packages_and_copies_of_them(packages):
    names = ("pip/_vendor/rich", "scipy", "typing/_click")
    assert builtin.hidden_paths() == tuple(str(packages / name) for name in names)


def test_hidden_are_packed_packages(packages):
    """Python brings pip as a wheel, and pip brings rich."""
    wheel = packages.parent / "ensurepip" / "_bundled" / "pip-1.0-py3-none-any.whl"
    wheel.parent.mkdir(parents=True)
    wheel.touch()
    assert str(wheel) in builtin.hidden_paths()


def test_the_packages_that_are_held_out_are_hidden_here():
    hidden = builtin.hidden_paths()
    assert {Path(path).name for path in hidden} >= set(builtin.HIDDEN_DISTRIBUTIONS.values())
    for package in builtin.HIDDEN_PACKAGES:
        spec = find_spec(package)
        if spec is not None:
            assert str(Path(spec.origin).parent.resolve()) in hidden


IMPORT_WITHOUT = """
import sys
from importlib.machinery import ModuleSpec

class Hidden:
    def find_spec(self, name, path=None, target=None):
        return ModuleSpec(name, self, is_package=True) if name in HIDDEN else None
    def create_module(self, spec):
        raise RuntimeError(f"{spec.name} was imported")
    def exec_module(self, module):
        pass

sys.meta_path.insert(0, Hidden())
for module in MODULES:
    __import__(module)
from asi_lab.trial import life
life.process.forget_packages(HIDDEN)
life.warm_up()
import importlib.util
for name in HIDDEN:
    assert importlib.util.find_spec(name) is None
    try:
        __import__(name)
    except ModuleNotFoundError:
        continue
    raise AssertionError(name)
print("done")
"""


@pytest.mark.slow
def test_what_runs_in_the_sandbox_needs_nothing_that_is_hidden(tmp_path):
    """The packages are there and cannot be read, as where the sandbox hides their contents."""
    names = [f"asi_lab.trial.{name}" for name in ("main", "server", "train.follower")]
    names += ["asi_lab.trial.preflight.examine", "asi_lab.sandbox.confine", "asi_lab.kernels", "einops"]
    program = IMPORT_WITHOUT.replace("MODULES", repr(names)).replace(
        "HIDDEN", repr(sorted(builtin.HIDDEN_PACKAGES))
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path)
    assert (done.stdout.strip(), done.returncode) == ("done", 0), done.stderr
