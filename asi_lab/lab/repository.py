"""A git repository that may be a stranger's, handled as data.

Git runs in a bare directory of our own, made in a temporary place for each call:

    config                      ours, all of it
    HEAD                        a copy, after a look that it is a ref or a commit id
    objects, refs, packed-refs  links to theirs

So nothing of their `.git/config`, hooks, attributes or `commondir` is ever read, for looking and for writing
alike, and what is written goes into their objects and refs alone. The user's configuration and environment
have no influence either. What could lead out of the repository is refused: links, alternates, special files.
"""

from __future__ import annotations

import os
import re
import stat
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from asi_lab.common import disk, scratch, trust
from asi_lab.common.text import plain
from asi_lab.errors import LineageError

SHA = re.compile(r"[0-9a-f]{40}")
REF = re.compile(r"refs/(?!.*(?:\.\.|//|@\{|\.lock(?:/|$)|/\.))[^\0-\x20\x7f~^:?*\[\\]+(?<![./])")
_ENVIRONMENT = {
    "GIT_ALLOW_PROTOCOL": "",
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_SYSTEM": os.devnull,
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_PAGER": "cat",
    "GIT_TERMINAL_PROMPT": "0",
    "HOME": os.devnull,
    "XDG_CONFIG_HOME": os.devnull,
    "LC_ALL": "C",
}
FOLDER = "asi-lab-git-"
"""How directories of ours begin."""
_ALTERNATES = ("objects/info/alternates", "objects/info/http-alternates")


class Repository:
    """The repository whose work tree is `path`. Holds no descriptor and no process between calls.

    `settings` are the git settings of every call, by key such as `core.fsync`; `keep_open` are descriptors
    that git processes inherit.
    """

    def __init__(self, path: Path, settings: Mapping[str, str], keep_open: Sequence[int] = ()) -> None:
        """Raises `LineageError` when git is missing."""
        try:
            from git import Git  # looks for the git program when imported
        except ImportError as error:
            raise _no_git() from error
        self.path, self.folder = path, path / ".git"
        self.settings = {"core.repositoryformatversion": "0", "core.filemode": "true", **settings}
        self._git, self._keep_open = Git(str(path)), tuple(keep_open)

    @property
    def exists(self) -> bool:
        """Whether there is a repository, or what looks like one."""
        return os.path.lexists(self.folder)

    def lay_out(self, head: str) -> None:
        """Make an empty repository, or what one that was begun still lacks, for the user's git too. The
        branch `head` is checked out. Raises as `check`."""
        if self.path.is_symlink() or self.exists:
            self.check()
        try:
            for name in ("objects/info", "objects/pack", "refs/heads"):
                (self.folder / name).mkdir(parents=True, exist_ok=True)
            disk.write(self.folder / "config", _as_text({**self.settings, "core.bare": "false"}))
        except OSError as error:
            raise LineageError(disk.explain(error, self.folder)) from None
        self.write_head(f"ref: {head}")

    def check(self) -> None:
        """Look whether the repository is another user's, or leads out of its folder.

        Raises:
            LineageError: it leads out; nothing of it was read.
            ConsentError: it is another user's.
        """
        if self.path.is_symlink() or self.folder.is_symlink() or not self.folder.is_dir():
            raise LineageError(f"no lineage at {self.path}: expected a folder with a git repository, no link")
        trust.check_owner(self.folder, self.path)
        for name in _ALTERNATES:
            if os.path.lexists(self.folder / name):
                raise self._leads_out(name)
        for name in ("HEAD", "index", "packed-refs"):
            if os.path.lexists(self.folder / name) and not stat.S_ISREG((self.folder / name).lstat().st_mode):
                raise self._leads_out(name)
        for name in ("objects", "refs"):
            if os.path.lexists(self.folder / name):
                self._check_folder(self.folder / name)

    def _check_folder(self, folder: Path) -> None:
        if not stat.S_ISDIR(folder.lstat().st_mode):
            raise self._leads_out(str(folder.relative_to(self.folder)))
        with os.scandir(folder) as entries:
            for entry in entries:
                if not entry.is_file(follow_symlinks=False):
                    self._check_folder(Path(entry))

    def _leads_out(self, name: str) -> LineageError:
        return LineageError(
            f"{self.path}: expected a repository that holds everything itself; found {plain(name)!r} in "
            ".git, which leads elsewhere or is no plain file. `asi-lab fsck --repair` sets the repository "
            "aside and makes it again from the store"
        )

    def head(self) -> str | None:
        """The ref that is checked out, None where a commit is.

        Raises:
            LineageError: HEAD cannot be read, or says neither.
        """
        text = self._head_text()
        return text.removeprefix("ref: ") if text.startswith("ref: ") else None

    def write_head(self, text: str) -> None:
        """Make HEAD say `ref: NAME` or a commit id."""
        try:
            disk.write(self.folder / "HEAD", f"{text}\n".encode())
        except OSError as error:
            raise LineageError(disk.explain(error, self.folder)) from None

    def _head_text(self) -> str:
        try:
            with (self.folder / "HEAD").open("rb") as file:
                text = file.read(4096).decode(errors="replace").strip()
        except OSError as error:
            raise LineageError(f"{disk.explain(error, self.folder)} See `asi-lab fsck --repair`") from None
        if SHA.fullmatch(text) or (text.startswith("ref: ") and REF.fullmatch(text[5:])):
            return text
        raise LineageError(
            f"{self.folder / 'HEAD'}: expected a ref or a commit id; found {plain(text, limit=80)!r}. See "
            "`asi-lab fsck --repair`"
        )

    def run(self, *args: str, stdin: bytes = b"", work_tree: bool = False) -> tuple[int, str, str]:
        """Run git to its end; returns status, output and errors. It works on the work tree only where asked
        to.

        Raises:
            LineageError: git is missing, or there is no repository.
        """
        with self._directory() as directory:
            process = self._started(directory, args, work_tree)
            out, err = process.communicate(stdin)
        return process.returncode, out.decode(errors="replace"), err.decode(errors="replace")

    def lines(self, *args: str) -> Iterator[str]:
        """The lines that git prints, as they come, with their breaks; it complains on our standard error.

        Raises:
            LineageError: as `run`, and at the end where git failed.
        """
        with self._directory() as directory:
            command, environment = self._command(directory, args, work_tree=False)
            given = os.environ | environment
            try:
                process = subprocess.Popen(
                    command, env=given, cwd=self.path, stdout=subprocess.PIPE, errors="replace"
                )
            except FileNotFoundError as error:
                raise _no_git() from error
            with process:
                try:
                    assert process.stdout is not None
                    yield from process.stdout
                finally:
                    process.kill()  # where the reader has seen enough
        if process.returncode > 0:
            raise LineageError(
                f"git {args[0]} ended with status {process.returncode}: see what it said above"
            )

    @contextmanager
    def _directory(self) -> Iterator[Path]:
        head = self._head_text()
        try:
            with scratch.held(FOLDER) as ours:
                (ours / "config").write_bytes(_as_text({**self.settings, "core.bare": "true"}))
                (ours / "HEAD").write_text(f"{head}\n")
                for part in ("objects", "refs", "packed-refs"):
                    (ours / part).symlink_to(self.folder / part)
                yield ours
        except OSError as error:
            raise LineageError(disk.explain(error, scratch.PLACE)) from None

    def _command(
        self, directory: Path, args: Sequence[str], work_tree: bool
    ) -> tuple[list[str], dict[str, str]]:
        scrub = [part for name in sorted(_foreign()) for part in ("-u", name)]
        command = [*(["env", *scrub] if scrub else []), "git", f"--git-dir={directory}", "--no-pager"]
        if not work_tree:
            return [*command, *args], _ENVIRONMENT
        index = {"GIT_INDEX_FILE": str(self.folder / "index")}
        return [*command, f"--work-tree={self.path}", *args], _ENVIRONMENT | index

    def _started(self, directory: Path, args: Sequence[str], work_tree: bool) -> Any:
        from git.exc import GitCommandNotFound

        command, environment = self._command(directory, args, work_tree)
        try:
            return self._git.execute(
                command,
                istream=subprocess.PIPE,
                as_process=True,
                env=environment,
                pass_fds=self._keep_open,
                start_new_session=True,  # Ctrl+C is for the engine, not for git in mid-commit
            )
        except GitCommandNotFound as error:
            raise _no_git() from error


def _as_text(settings: Mapping[str, str]) -> bytes:
    """Settings as a configuration file of git."""
    sections: dict[str, list[str]] = {}
    for key, value in settings.items():
        section, name = key.split(".")
        sections.setdefault(section, []).append(f"\t{name} = {value}\n")
    return "".join(f"[{section}]\n{''.join(lines)}" for section, lines in sections.items()).encode()


def _foreign() -> set[str]:
    """Names of the environment variables that would turn git to another repository or behaviour."""
    return {name for name in os.environ if name.startswith("GIT_")} - {*_ENVIRONMENT, "GIT_EXEC_PATH"}


def _no_git() -> LineageError:
    return LineageError("git was not found: install it (apt install git) and try again")
