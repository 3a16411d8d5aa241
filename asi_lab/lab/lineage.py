"""The published record: one git commit per finished candidate, on top of its parent's commit.

    main                          the seed               best            the best candidate so far
    arch/0042-delta_net_<name>    a scored candidate     reference/<x>   a reference baseline
    refs/notes/asi-lab            people's tags and comments, and further runs
    verified/0042                 an annotated tag: what is claimed of a candidate, and never taken back
    refs/failed/0043              a candidate that failed: kept, out of `git log --branches`
    refs/quarantine/...           what the store does not know; moved there by `asi-lab fsck --repair`

Commits are made by `git fast-import`: one durable process for one commit, and the same path for
thousands. Text of candidates reaches git on its standard input only, never as ref, option or path.
Neither the configuration of the repository nor the user's has any influence (`asi_lab.lab.repository`).
"""

from __future__ import annotations

import os
import re
import shutil
import threading
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Self

from asi_lab.common import disk, scratch
from asi_lab.common.text import plain
from asi_lab.errors import LineageError
from asi_lab.lab.commits import (
    ARCHITECTURES,
    BEST,
    EMAIL,
    EPOCH,
    FAILURES,
    MAIN,
    NAME,
    NOTES,
    Commit,
    candidate_commit,
    reference_commit,
    seed_commit,
)
from asi_lab.lab.repository import FOLDER, SHA, Repository
from asi_lab.records import SEED_ID, Candidate, Proposal

FILES = ("architecture.py", "motivation.md", "analysis.md", "metrics.json", "config.toml", "error.txt")
TAGS = "refs/tags/"
_SETTINGS = {
    "core.fsync": "all",
    "core.hooksPath": os.devnull,
    "core.autocrlf": "false",
    "core.logAllRefUpdates": "false",
    "commit.gpgSign": "false",
    "gc.auto": "0",  # this class packs
    "maintenance.auto": "false",
    "notes.displayRef": f"{NOTES}*",
    "user.name": NAME,
    "user.email": EMAIL,
}
"""Written to the repository for the user's git; our own git processes have them from a file of ours."""
_STREAM_COMMITS = 200
_PACK_REFS = 256
_LEAST_FREE_BYTES = 1 << 20
_REF = re.compile(rb"(?:[0-9a-f]{40}|ref: refs/[^\0\n]+)\n?")
_LEFT_BEHIND = (
    *("*.lock", "refs/**/*.lock", "objects/**/*.lock", "packed-refs.new"),
    *("objects/**/tmp_*", "objects/**/.tmp-*", "fast_import_crash_*"),
)
"""Files of a git process that was killed; `packed-refs.new` stops every later packing."""
_COLOUR = re.compile(r"(\x1b\[[0-9;]*m)")
_COLOURS = {"@": "\x1b[36m", "+": "\x1b[32m", "-": "\x1b[31m"}


class Lineage:
    """A lab's git repository. Holds no descriptor and no process between calls.

    `keep_open` are descriptors that git processes inherit: given the lab's lock, a git process that
    outlives a killed engine still holds the lab. Every method raises `LineageError` when git is
    missing or refuses.
    """

    def __init__(self, path: Path, keep_open: Sequence[int] = ()) -> None:
        self.path = path.absolute()
        self._repository = Repository(self.path, _SETTINGS, keep_open)
        self.publishing = threading.RLock()
        """Held by a thread from when it reads what it publishes until it is published."""

    @classmethod
    def create(
        cls,
        path: Path,
        seed: Candidate,
        config_text: str,
        references: Sequence[Proposal] = (),
        keep_open: Sequence[int] = (),
    ) -> Self:
        """Make the repository with its root commit (the seed) and reference baselines; go on with one
        that was begun. The work tree shows the seed."""
        lineage = cls(path, keep_open)
        lineage._repository.lay_out(MAIN)
        lineage.recover()
        lineage.publish(
            [seed_commit(seed, config_text), *(reference_commit(r, seed, config_text) for r in references)]
        )
        lineage._run("read-tree", "--reset", "-u", MAIN, work_tree=True)
        return lineage

    @classmethod
    def open(cls, path: Path, keep_open: Sequence[int] = (), *, rooted: bool = True) -> Self:
        """Open an existing lineage, which must have its root unless it is not `rooted`.

        Raises:
            LineageError: it has not, or leads out of its folder.
            ConsentError: it is another user's, and not trusted.
        """
        lineage = cls(path, keep_open)
        if lineage._repository.exists:
            lineage._repository.check()
        if not lineage._repository.exists or (rooted and MAIN not in lineage.refs(MAIN)):
            raise LineageError(
                f"no lineage at {path}: expected a git repository with a branch main. "
                "`asi-lab fsck --repair` rebuilds it from the store"
            )
        return lineage

    def commit(self, candidate: Candidate, config_text: str, parent_sha: str) -> str:
        """Publish a finished or failed candidate and return the commit's id. Publishing it again gives
        the same id; another commit under the candidate's ref is an error."""
        commit = candidate_commit(candidate, config_text, parent_sha)
        self.publish([commit])
        if candidate.released:  # it was published as a failure before
            for ref, sha in self.refs(f"{FAILURES}{candidate.id:04d}").items():
                self.quarantine(ref, sha)
        return commit.sha

    def publish(self, commits: Iterable[Commit]) -> None:
        """Create commits and their refs, parents before children. Refs are created or advanced, never
        turned back."""
        waiting = iter(commits)
        while batch := list(islice(waiting, _STREAM_COMMITS)):
            marks: dict[str, int] = {}
            stream = bytearray()
            for mark, commit in enumerate(batch, start=1):
                stream += commit.stream(mark, marks)
                marks[commit.sha] = mark
            self._run("fast-import", "--quiet", "--date-format=raw", stdin=bytes(stream))
            self._pack_when_due()

    def refs(self, *patterns: str) -> dict[str, str]:
        """Return {full name: commit id} of the refs under the given prefixes, of all without any. A ref whose
        commit is lost is an error."""
        layout = "%(objecttype) %(objectname) %(refname)"  # git reads an object to know its type
        lines = self._run("for-each-ref", f"--format={layout}", *patterns).splitlines()
        return {ref: sha for _, sha, ref in (line.split(" ", 2) for line in lines)}

    def sha_of(self, candidate: int) -> str | None:
        """Return the commit id of a candidate, None when it is not published."""
        if candidate == SEED_ID:
            return self.refs(MAIN).get(MAIN)
        found = self.refs(f"{ARCHITECTURES}{candidate:04d}-*", f"{FAILURES}{candidate:04d}")
        return next(iter(found.values()), None)

    def best(self) -> str | None:
        """Return the commit id of branch `best`, None before any."""
        return self.refs(BEST).get(BEST)

    def update_best(self, candidate: Candidate) -> None:
        """Move branch `best` to a published candidate.

        Where the user has checked `best` out, the work tree is first detached at the old commit, so
        that it does not look modified.
        """
        if candidate.commit is None:
            raise LineageError(
                f"candidate {candidate.id} has no commit yet: publish it before making it best"
            )
        if old := self.best():
            self._detach_from(BEST, old)
        self.set_ref(BEST, candidate.commit)

    def annotate(self, sha: str, text: str, notes: str = NOTES) -> None:
        """Keep a text as the note of a commit, which `git log` and `git show` print with it; an empty one
        removes it. `notes` is the ref of the notes that it is among."""
        command = ("add", "--force", "--file", "-") if text else ("remove", "--ignore-missing")
        self._run("notes", "--ref", notes, *command, _checked(sha), stdin=text.encode())

    def notes(self, notes: str = NOTES) -> dict[str, str]:
        """Return {commit id: text} of all notes under that ref."""
        lines = self._run("notes", "--ref", notes, "list").splitlines()
        return {sha: self._run("cat-file", "blob", blob).rstrip("\n") for blob, sha in map(str.split, lines)}

    def tag(self, name: str, sha: str, text: str) -> bool:
        """Make an annotated tag of a commit, unless there is one of that name; returns whether it was made.
        The same text gives the same tag."""
        if ref := self.refs(f"{TAGS}{name}"):
            return not ref
        content = f"object {_checked(sha)}\ntype commit\ntag {name}\ntagger {NAME} <{EMAIL}> {EPOCH} +0000\n"
        made = self._run("mktag", stdin=f"{content}\n{text.strip()}\n".encode()).strip()
        self._run("update-ref", f"{TAGS}{name}", _checked(made), "0" * len(made))
        return True

    def set_ref(self, ref: str, sha: str) -> None:
        """Point a ref at a commit wherever it points now."""
        self._run("update-ref", ref, _checked(sha))

    def head(self) -> str | None:
        """Return the name of the branch that is checked out, None when none is."""
        return self._repository.head()

    def set_head(self, ref: str) -> None:
        """Check a branch out by name alone: index and work tree stay as they are."""
        self._repository.write_head(f"ref: {ref}")

    def _detach_from(self, ref: str, sha: str) -> None:
        """Where `ref` is checked out, check out its commit `sha` instead, so that the ref can be moved."""
        if self.head() == ref:
            self._repository.write_head(_checked(sha))

    def quarantine(self, ref: str, sha: str) -> str:
        """Move a ref out of the way, keeping its commit; returns the new name."""
        kept = f"refs/quarantine/{ref.removeprefix('refs/').removeprefix('heads/')}/{_checked(sha)[:12]}"
        self._run("update-ref", kept, sha)
        self._detach_from(ref, sha)
        self._run("update-ref", "--no-deref", "-d", ref)
        return kept

    def recover(self) -> list[str]:
        """Remove what a killed git left behind (locks, files it was writing) and refs that a power cut left
        without a commit id; returns their names. Call it only while holding the lab's lock."""
        scratch.sweep(FOLDER)
        folder = self._repository.folder
        left = {file for place in _LEFT_BEHIND for file in folder.glob(place) if file.is_file()}
        loose = {ref for ref in folder.glob("refs/**/*") if ref.is_file()} - left
        stale = sorted([*left, *(ref for ref in loose if not _REF.fullmatch(ref.read_bytes()))])
        for file in stale:
            file.unlink()
        return [str(file.relative_to(folder)) for file in stale]

    def pack(self) -> None:
        """Gather loose refs and objects: keeps `git log` fast over thousands of branches."""
        self._run("pack-refs", "--all")
        self._run("repack", "-d", "-l", "-q")

    def _pack_when_due(self) -> None:
        folders = [self._repository.folder / ref for ref in (ARCHITECTURES, FAILURES)]
        if sum(1 for folder in folders if folder.is_dir() for _ in folder.iterdir()) >= _PACK_REFS:
            self.pack()

    def verify(self) -> list[str]:
        """Check every object and link; returns git's complaints, none when all is well."""
        looks = ("--full", "--no-dangling", "--no-progress")
        status, out, err = self._git_process("fsck", *looks, work_tree=True)  # for the index
        return (_lines(err + "\n" + out) or [f"git fsck ended with status {status}"]) if status else []

    def read(self, sha: str, file: str) -> str:
        """Return one of `FILES` as it stands in a commit."""
        if file not in FILES:
            raise LineageError(f"expected one of {', '.join(FILES)}, found {file!r}")
        return self._run("cat-file", "blob", f"{_checked(sha)}:{file}")

    def diff(self, before: str, after: str, color: bool = False) -> str:
        """Return the unified diff of `architecture.py` between two commits, safe to print."""
        commits = (_checked(before), _checked(after))
        options = ("--no-color", "--no-ext-diff", "--no-textconv", "--text")
        text = plain(self._run("diff", *options, *commits, "--", "architecture.py"), multiline=True)
        if not color:
            return text
        return "\n".join(_coloured(line) for line in text.split("\n"))

    def log(self, args: Sequence[str], color: bool = False) -> Iterator[str]:
        """The lines that `git log` prints for `args`, safe to print: of what a terminal obeys only colours
        are left, where they are asked for."""
        for line in self._repository.lines("log", f"--color={'always' if color else 'never'}", *args):
            yield "".join(
                part if color and _COLOUR.fullmatch(part) else plain(part, multiline=True)
                for part in _COLOUR.split(line)
            )

    def _run(self, *args: str, stdin: bytes = b"", work_tree: bool = False) -> str:
        status, out, err = self._git_process(*args, stdin=stdin, work_tree=work_tree)
        if status:
            lines = _lines(err)
            reasons = [line for line in lines if line.startswith(("error:", "fatal:"))] or lines
            told = "; ".join(reasons[-3:]) or f"status {status}"
            fix = "Free some space, then start again" if self._is_full(err) else "See `asi-lab fsck --repair`"
            raise LineageError(f"git {args[0]} failed in {self.path}: {told}. {fix}")
        return out

    def _is_full(self, said: str) -> bool:
        """Whether git was refused space, which it does not always say."""
        named = any(os.strerror(number) in said for number in disk.FULL)
        return named or shutil.disk_usage(self.path).free < _LEAST_FREE_BYTES

    def _git_process(self, *args: str, stdin: bytes = b"", work_tree: bool = False) -> tuple[int, str, str]:
        return self._repository.run(*args, stdin=stdin, work_tree=work_tree)


def _checked(sha: str) -> str:
    if not SHA.fullmatch(sha):
        raise LineageError(f"expected a commit id of 40 hexadecimal digits, found {sha[:60]!r}")
    return sha


def _lines(text: str) -> list[str]:
    return [line for line in plain(text, multiline=True).split("\n") if line.strip()]


def _coloured(line: str) -> str:
    header = line.startswith(("diff ", "index ", "--- ", "+++ "))
    colour = "\x1b[1m" if header else _COLOURS.get(line[:1])
    return f"{colour}{line}\x1b[0m" if colour else line
