"""A power cut that leaves files empty, cut off, or filled with zeros: every kind of file of a lab."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import msgspec
import pytest

from asi_lab.data.tokenizer import Tokenizer
from asi_lab.errors import ConfigError
from asi_lab.lab import Lab, Lineage, Store, commands, config
from asi_lab.lab.directory import check_unchanged
from asi_lab.protocol import CHECKPOINT_FILE
from asi_lab.records import CandidateState
from asi_lab.scorer.tasks.build import build_tasks
from asi_lab.scoring import references

PAGE = 4096
DAMAGES = ["empty", "half", "zeros"]
each_damage = pytest.mark.parametrize("how", DAMAGES)
worst_damage = pytest.mark.parametrize(
    "how", ["zeros", *(pytest.param(how, marks=pytest.mark.slow) for how in ("empty", "half"))]
)
RESTORE = "Restore the lab from a copy"


def damage(file: Path, how: str) -> None:
    """Leave of a file what a power cut may leave of one that was being written."""
    content = file.read_bytes()
    kept = b"" if how == "empty" else content[: len(content) // 2]
    file.chmod(0o644)
    file.write_bytes(kept + bytes(len(content) - len(kept)) if how == "zeros" else kept)


def lose_power(lab: Lab) -> None:
    """Make it look as if the last engine had not come to its end."""
    with Store.open(lab.store) as store:
        store.put_meta("engine", {**store.get_meta("engine"), "state": "running"})


def repairs(lab: Lab) -> list[str]:
    with Store.open_readonly(lab.store) as store:
        return [event.message for event in store.events(limit=10**6) if event.kind == "repair"]


# The store


def places(lab: Lab, step: int) -> list[int]:
    """Sizes at page boundaries, just around them and in the middle of pages."""
    size = (lab.store / "data.mdb").stat().st_size
    around = [page + shift for page in range(0, size, step * PAGE) for shift in (0, 1, PAGE // 2)]
    return [place for place in (*around, size - PAGE, size - 1) if place < size]


def test_a_store_that_was_cut_off_is_refused(undisturbed, engines, copy, record_property):
    """By the engine, by a viewer and by fsck, whatever is left of the file."""
    lab, drills = copy(undisturbed), 0
    whole = (lab.store / "data.mdb").read_bytes()
    for place in places(undisturbed, 8):
        (lab.store / "data.mdb").write_bytes(whole[:place])
        looks = [engines.program(lab, "status"), engines.program(lab, "fsck")]
        for ended in (*looks, engines.run(lab, 5)):
            assert ended.code == 1, (place, ended)
            begun = place < 2 * PAGE and "expected data.mdb" in ended.said  # a viewer cannot know better
            assert RESTORE in ended.said or begun, (place, ended.said)
            drills += 1
    record_property("drills", drills)


@pytest.mark.slow
@pytest.mark.parametrize("step", [8, pytest.param(1, marks=pytest.mark.slow)])
def test_a_store_whose_end_is_zeros_is_refused_or_right(
    undisturbed, further, engines, copy, record_property, step
):
    """Zeros in pages that hold something are an error, never another result and never a crash."""
    lab = copy(undisturbed)
    whole, refused, drills = (lab.store / "data.mdb").read_bytes(), 0, 0
    for place in places(undisturbed, step):
        shutil.rmtree(lab.path)
        shutil.copytree(undisturbed.path, lab.path)
        (lab.store / "data.mdb").write_bytes(whole[:place] + bytes(len(whole) - place))
        looked = engines.program(lab, "status")
        assert looked.code in (0, 1), (place, looked)
        ended = engines.run(lab, 5)
        assert ended.code in (0, 1), (place, ended)
        drills += 2
        if ended.code == 0:
            found = [_results(one) for one in (lab, further)]
            assert found[0] == found[1]
        else:
            assert RESTORE in ended.said, (place, ended.said)
            refused += 1
    assert refused > 10 // step
    record_property("drills", drills)


def _results(lab: Lab) -> list:
    with Store.open_readonly(lab.store) as store:
        assert store.events(limit=10**6)
        return [msgspec.structs.replace(candidate, starts=0) for candidate in store.candidates()]


def test_zeros_within_a_value_are_noticed(undisturbed, copy, engines):
    """A record whose code ends in zeros is still a record; its checksum says that it is another one."""
    lab = copy(undisturbed)
    file = lab.store / "data.mdb"
    content = bytearray(file.read_bytes())
    code = references.seed().code.encode()
    place = content.find(code) + len(code) - 40
    assert place > len(code) - 40
    content[place : place + 40] = bytes(40)
    file.write_bytes(content)
    for ended in (engines.run(lab, 5), engines.program(lab, "show", 0), engines.program(lab, "fsck")):
        assert ended.code == 1
        assert "candidate 0 has another checksum" in ended.said


@each_damage
def test_the_file_of_readers_is_made_anew(undisturbed, further, engines, copy, how):
    lab = copy(undisturbed)
    damage(lab.store / "lock.mdb", how)
    assert engines.program(lab, "status").code == 0
    damage(lab.store / "lock.mdb", how)
    engines.finish(lab, 5)
    assert _results(lab) == _results(further)


def test_a_lab_whose_store_is_gone_is_not_begun_anew(undisturbed, engines, copy):
    lab = copy(undisturbed)
    refs = Lineage.open(lab.lineage).refs()
    shutil.rmtree(lab.store)
    ended = engines.run(lab, 5)
    assert ended.code == 1
    assert "found an empty one" in ended.said
    assert RESTORE in ended.said
    assert Lineage.open(lab.lineage).refs() == refs


# The repository


def git_files(lineage: Path) -> dict[str, Path]:
    """A file of each kind by a name for it."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", str(lineage), *words], check=True, capture_output=True, text=True)
        return done.stdout.strip()

    folder = lineage / ".git"
    branch = git("for-each-ref", "--format=%(refname)", "refs/heads/arch").split()[0]
    names = ("HEAD", "index", "config", "refs/heads/main", "refs/heads/best", "refs/failed/0002", branch)
    objects = {
        "root commit": git("rev-parse", "main"),
        "commit": git("rev-parse", branch),
        "tip": git("rev-parse", "best"),
        "failed commit": git("rev-parse", "refs/failed/0002"),
        "tree": git("rev-parse", f"{branch}^{{tree}}"),
        "code": git("rev-parse", f"{branch}:architecture.py"),
    }
    found = {name: folder / name for name in names if (folder / name).exists()}
    found |= {kind: folder / "objects" / sha[:2] / sha[2:] for kind, sha in objects.items()}
    return {kind: file for kind, file in found.items() if file.exists()}


@pytest.mark.slow
@worst_damage
def test_a_damaged_repository_is_put_right_at_the_next_start(
    undisturbed, engines, copy, same, record_property, how
):
    kinds = git_files(undisturbed.lineage)
    assert len(kinds) == 13
    for kind in kinds:
        lab = copy(undisturbed)
        damage(git_files(lab.lineage)[kind], how)
        lose_power(lab)
        engines.finish(lab)
        same(lab, f"after {kind}: {how}")
        if kind != "config":  # settings that git reads as none are given to each process anyway
            assert repairs(lab), f"nothing was said of {kind}: {how}"
        shutil.rmtree(lab.path)
    record_property("drills", len(kinds))


@worst_damage
def test_a_damaged_packed_repository_is_put_right_at_the_next_start(
    undisturbed, engines, copy, same, record_property, how
):
    packed = copy(undisturbed)
    Lineage.open(packed.lineage).pack()
    patterns = ("packed-refs", "objects/pack/*.pack", "objects/pack/*.idx")
    for pattern in patterns:
        lab = copy(packed)
        [file] = (lab.lineage / ".git").glob(pattern)
        damage(file, how)
        lose_power(lab)
        engines.finish(lab)
        same(lab, f"after {pattern}: {how}")
        assert repairs(lab)
    record_property("drills", len(patterns))


@worst_damage
def test_what_a_quick_look_does_not_see_is_seen_by_fsck(undisturbed, further, engines, copy, how):
    """The last engine ended well, so the next one reads no trees and no files; it needs none of them."""
    lab = copy(undisturbed)
    files = git_files(lab.lineage)
    for kind in ("tree", "code"):
        damage(files[kind], how)
    engines.finish(lab, 5)
    assert _results(lab) == _results(further)
    assert engines.program(lab, "fsck").code == 1
    assert engines.program(lab, "fsck", "--repair").code == 0
    assert engines.program(lab, "fsck").said == "Store and lineage agree.\n"
    assert Lineage.open(lab.lineage).refs() == Lineage.open(further.lineage).refs()


@worst_damage
def test_a_repository_that_was_just_begun_is_begun_again(
    prepared, engines, boundaries, copy, same, record_property, how
):
    """By the engine, or by the command that it names; one of both is enough."""
    begun = copy(prepared)
    engines.run(begun, kill=boundaries.index("after git fast-import") + 1)
    files = sorted(p.relative_to(begun.lineage) for p in (begun.lineage / ".git").rglob("*") if p.is_file())
    chosen = [file for file in files if "objects" not in file.parts]
    chosen += [file for file in files if "objects" in file.parts][:2]
    assert len(chosen) == 6
    for file in chosen:
        lab = copy(begun)
        damage(lab.lineage / file, how)
        if (ended := engines.run(lab)).code != 0:
            assert "asi-lab fsck --repair" in ended.said
            assert engines.program(lab, "fsck", "--repair").code == 0
            engines.finish(lab)
        same(lab, f"after {file}: {how}", but="events")  # a commit by fsck is a repair
    record_property("drills", len(chosen))


# Data and tasks


@worst_damage
def test_damaged_data_stops_the_search_before_it_gives_a_result(
    undisturbed, engines, copy, same, record_property, how
):
    lab = copy(undisturbed)
    files = sorted(path.name for path in lab.data.iterdir() if path.is_file())
    assert {"manifest.json", "train.bin", "tokenizer.json", "tokenizer_manifest.json"} < set(files)
    for name in files:
        content = (lab.data / name).read_bytes()
        damage(lab.data / name, how)
        ended = engines.run(lab, 5, prepare=True)
        assert ended.code == 1, (name, ended.said)
        assert "Move the folder away and start again" in ended.said
        assert name in ended.said
        (lab.data / name).write_bytes(content)
    damage(lab.data / files[0], how)
    lab.data.rename(lab.path / "damaged")
    engines.finish(lab, prepare=True)
    same(lab)
    record_property("drills", len(files))


def test_data_made_anew_from_another_text_is_not_taken(prepared, engines, copy, tmp_path):
    lab = copy(prepared)
    source, text = lab.settings().data.source, tmp_path / "text.txt"
    words = Path(source.removeprefix("text:")).read_text()
    text.write_text(words)
    lab.config.write_text(lab.config.read_text().replace(source, f"text:{text}"))
    shutil.rmtree(lab.data)
    engines.finish(lab, 1, prepare=True)
    text.write_text(words.replace("delta", "gamma"))
    shutil.rmtree(lab.data)
    ended = engines.run(lab, 2, prepare=True)
    assert ended.code == 1
    assert "expected the data that this lab began with" in ended.said
    text.write_text(words)
    shutil.rmtree(lab.data)
    engines.finish(lab, 2, prepare=True)


@worst_damage
def test_damaged_task_files_are_made_again(undisturbed, engines, copy, same, record_property, how):
    lab = copy(undisturbed)
    settings, tokenizer = lab.settings(), Tokenizer.load(lab.data)
    files = {path: path.read_bytes() for path in (lab.data / "tasks").iterdir()}
    assert len(files) == 13
    for file in files:
        damage(file, how)
        assert build_tasks(lab.data, lab.data / "tasks", settings.seed, settings.evaluate.limit, tokenizer)
        assert {path: path.read_bytes() for path in (lab.data / "tasks").iterdir()} == files
    damage(next(iter(files)), how)
    engines.finish(lab, prepare=True)
    assert ["made again" in message for message in repairs(lab)] == [True]
    assert {path: path.read_bytes() for path in (lab.data / "tasks").iterdir()} == files
    same(lab)
    record_property("drills", len(files) + 1)


# Small files


@each_damage
def test_a_damaged_lab_toml_is_refused(undisturbed, engines, copy, how):
    lab = copy(undisturbed)
    damage(lab.config, how)
    assert engines.run(lab, 5).code == 2
    if how != "half":  # half a lab.toml may be a valid one, though not this lab's
        assert engines.program(lab, "status").code == 2
    assert engines.program(lab, "config", "validate").code == 2


def test_a_lab_toml_cut_anywhere_gives_an_error_or_the_same_lab(record_property):
    settings = config.from_preset("micro", seed=3)
    text, drills = config.render(settings), 0
    for place in range(0, len(text), 389):
        for rest in ("", "\0" * (len(text) - place)):
            drills += 1
            try:
                found = config.parse(text[:place] + rest)
                check_unchanged(found, text)
            except ConfigError:
                continue
            cut = text[:place].splitlines()[-1].partition(" = ")[2] if place else ""
            # A number cut short is another one; where results depend on it, that was refused.
            assert found == settings or re.fullmatch(r"[0-9]+(\.[0-9]*)?", cut), place
    record_property("drills", drills)


@each_damage
def test_damaged_orders_are_no_orders(prepared, engines, copy, same, how):
    lab = copy(prepared)
    commands.send(lab.commands, "stop_now")
    [file] = lab.commands.iterdir()
    damage(file, how)
    assert [command for _, command in commands.pending(lab.commands)] == [None]
    engines.finish(lab)
    assert list(lab.commands.iterdir()) == []
    same(lab)


@pytest.mark.parametrize("content", [b"", b"12", b"\0\0\0", b"123\0\0", b"\xff\xfe", b"9" * 5000])
def test_whatever_the_lock_file_says_the_lock_counts(undisturbed, engines, copy, content):
    lab = copy(undisturbed)
    (lab.path / "engine.lock").write_bytes(content)
    assert lab.engine_pid() is None
    with lab.locked() as descriptor:
        assert descriptor
        (lab.path / "engine.lock").write_bytes(content)
        assert engines.run(lab).code == 3
        assert engines.program(lab, "status").code == 0
    assert engines.finish(lab).code == 0


def test_half_made_files_are_in_nobodys_way(undisturbed, further, engines, copy):
    lab = copy(undisturbed)
    for name in ("commands/.x.json.partial", ".lab.toml.partial", "trials/0001/checkpoint.partial"):
        (lab.path / name).parent.mkdir(exist_ok=True)
        (lab.path / name).write_bytes(b"half")
    for name in (".data.partial", "data/.tasks-x1", "lineage_repo.new/.git"):
        (lab.path / name).mkdir(parents=True)
        (lab.path / name / "HEAD").write_bytes(b"half")
    (lab.lineage / ".git/HEAD").write_bytes(b"")
    engines.finish(lab, 5, prepare=True)
    assert _results(lab) == _results(further)
    assert not (lab.path / "lineage_repo.new").exists()
    assert list(lab.commands.iterdir()) == []


@pytest.mark.parametrize("how", [*DAMAGES, "gone"])
def test_a_candidate_is_not_blamed_for_weights_that_were_lost(prepared, engines, boundaries, copy, same, how):
    """Killed between training and evaluation, with a checkpoint that the disk did not keep."""
    lab = copy(prepared)
    engines.run(lab, kill=boundaries.index("after candidate 1 trained") + 1)
    weights = lab.trials / "0001" / CHECKPOINT_FILE
    weights.unlink() if how == "gone" else damage(weights, how)
    engines.finish(lab)
    with Store.open_readonly(lab.store) as store:
        assert store.get(1).state is CandidateState.DONE
    same(lab)


@pytest.mark.parametrize("what", ["resume-2.pt", "resume.json"])
@pytest.mark.parametrize("how", ["zeros", "gone"])
def test_a_training_that_has_lost_its_checkpoint_starts_over(
    prepared, engines, boundaries, copy, same, how, what
):
    """Killed in training, with one of the two files that the disk did not keep."""
    lab = copy(prepared)
    engines.run(lab, kill=boundaries.index("before candidate 1 trained") + 1)
    file = lab.trials / "0001" / what
    file.unlink() if how == "gone" else damage(file, how)
    engines.finish(lab)
    with Store.open_readonly(lab.store) as store:
        assert store.get(1).state is CandidateState.DONE
        told = [e.message for e in store.events() if e.kind in ("trial_resumed", "warning")]
        steps = store.series("0001")[:, 0].tolist()
    noticed_late = what == "resume-2.pt" and how != "gone"
    assert any("goes on after 2" in text for text in told) == noticed_late
    assert any("starts over" in text for text in told) == noticed_late
    assert steps == [1, 2, 3]
    assert not list((lab.trials / "0001").glob("resume*"))
    same(lab)


def test_a_training_that_was_cut_off_goes_on(prepared, engines, boundaries, copy, same):
    lab = copy(prepared)
    engines.run(lab, kill=boundaries.index("before candidate 1 trained") + 1)
    engines.finish(lab)
    with Store.open_readonly(lab.store) as store:
        told = [e.message for e in store.events() if e.kind == "trial_resumed"]
        assert told == ["trial 0001 goes on after 2 of 3 steps"]
        assert store.series("0001")[:, 0].tolist() == [1, 2, 3]
    same(lab)
