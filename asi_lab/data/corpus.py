"""Where text comes from: `builtin`, `text:GLOB` or `hf:NAME[:CONFIG]`, as a stream of documents."""

from __future__ import annotations

import codecs
import glob
import os
import re
import shlex
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from asi_lab.data import builtin
from asi_lab.errors import DataError

MIN_DOCUMENT = 200
"""Characters below which a piece of the built-in corpus is left out."""

FEW_STRANGE, MOST_STRANGE = 3, 0.001
"""A file is refused where more of its bytes, and a larger share, are no UTF-8 text; zero bytes are none."""

_STRANGE = re.compile("[\\0\udc80-\udcff]")

CUT_FROM, CUT_AT = 4_000, 8_000
"""A long text is cut at the first blank line after `CUT_FROM` characters, at `CUT_AT` at the latest."""


Warn = Callable[[str], object]


class Document(NamedTuple):
    """One document; `key` says where it comes from and is unique within its source.

    `odds` says how much likelier than usual it is held out: 0 for what every trial can read anyway.
    """

    key: str
    text: str
    odds: int = 1


def documents(source: str, warn: Warn = lambda message: None) -> Iterator[Document]:
    """The documents of `source`, always in the same order, none empty. `warn` is told of files with a few
    bytes that are no text.

    Raises `DataError` for a source that is unknown, missing, unreachable or without text.
    """
    kind, _, rest = source.partition(":")
    if source == "builtin":
        return _builtin_documents()
    if kind == "text" and rest:
        return _text_documents(rest, warn)
    if kind == "hf" and rest:
        return _hub_documents(*parse_hub_source(source))
    raise DataError(f"data.source must be builtin, text:GLOB or hf:NAME[:CONFIG], not {source!r}.")


def files_of(source: str) -> list[Path]:
    """The files that `text:GLOB` matches, or that lie in the folder of `hf:FOLDER`, sorted; else none."""
    kind, _, rest = source.partition(":")
    matches: Iterable[Path] = ()
    if kind == "text":
        given = Path(rest).expanduser()
        # A file of that very name is meant, whatever signs of a pattern are in it.
        matches = [given] if given.is_file() else map(Path, glob.glob(str(given), recursive=True))  # noqa: PTH207
    elif kind == "hf" and Path(name := parse_hub_source(source)[0]).is_absolute():
        matches = Path(name).rglob("*")
    return sorted(path for path in matches if path.is_file())


def parse_hub_source(source: str) -> tuple[str, str | None]:
    """`hf:NAME[:CONFIG]` as `(name, config)`; the name is a hub name or the path of a folder."""
    name, colon, config = source.removeprefix("hf:").partition(":")
    if not name or (colon and not config) or ":" in config:
        raise DataError(
            f"{source!r} is not of the form hf:NAME[:CONFIG], for example "
            "hf:HuggingFaceFW/fineweb-edu:sample-10BT."
        )
    return name, config or None


def cut(lines: Iterable[str]) -> Iterator[str]:
    """Cut text, given as lines, into documents of 4,000 to 8,000 characters at blank lines.

    Where no blank line comes in time the cut is made between lines, or within a line longer than
    a whole document. The last document is as long as what is left; blank documents are left out.
    """
    held: list[str] = []
    length = 0
    for whole_line in lines:
        line = whole_line.rstrip("\n")
        for start in range(0, max(len(line), 1), CUT_AT):
            part = line[start : start + CUT_AT]
            if (length >= CUT_FROM and not part.strip()) or length + len(part) > CUT_AT:
                yield from _joined(held)
                held, length = [], 0
            held.append(part)
            length += len(part) + 1
    yield from _joined(held)


def _joined(lines: list[str]) -> Iterator[str]:
    text = "\n".join(lines).strip("\n")
    if text.strip():
        yield text


def _builtin_documents() -> Iterator[Document]:
    for key, page in builtin.pages():
        for index, text in enumerate(cut(page.split("\n"))):
            if len(text) >= MIN_DOCUMENT:
                yield Document(f"{key}#{index}", text, builtin.odds(key))


def _text_documents(pattern: str, warn: Warn) -> Iterator[Document]:
    files = files_of(f"text:{pattern}")
    if not files:
        raise DataError(
            f"text:{pattern} matches no file (looked from {Path.cwd()}). Give the path of a text file or a "
            "pattern such as text:~/books/**/*.txt, where ** also matches subfolders. Where [ ? * belong "
            "to the name of a folder, write [[] [?] [*]."
        )
    return _documents_of_files(files, warn)


def _documents_of_files(files: list[Path], warn: Warn) -> Iterator[Document]:
    root = os.path.commonpath([path.parent for path in files])
    for path in files:
        name = os.fsencode(path.relative_to(root).as_posix()).decode("utf-8", "replace")
        try:
            with path.open(encoding="utf-8-sig", errors="surrogateescape") as lines:
                counted = _Counted(lines)
                for index, text in enumerate(cut(counted)):
                    counted.check(path)
                    yield Document(f"{name}#{index}", text)
                counted.check(path)
                if counted.strange:
                    warn(
                        f"{path}: {counted.strange:,} of {counted.bytes:,} bytes are no UTF-8 text or zero, "
                        f"the first at byte {_first_strange(path):,}; a sign stands in the place of each"
                    )
        except OSError as error:
            raise DataError(
                f"Cannot read {path}: {error.strerror}. Make it readable or leave it out."
            ) from error


class _Counted:
    """The lines of a file that was decoded with `surrogateescape`, with a sign in the place of each byte that
    is no text; how many bytes were read, and how many of them are none."""

    def __init__(self, lines: Iterable[str]) -> None:
        self.lines, self.bytes, self.strange = lines, 0, 0

    def __iter__(self) -> Iterator[str]:
        for line in self.lines:
            self.bytes += len(line.encode("utf-8", "surrogateescape"))
            text, strange = _STRANGE.subn("\N{REPLACEMENT CHARACTER}", line)
            self.strange += strange
            yield text

    def check(self, path: Path) -> None:
        """Raises `DataError` where more of what was read is no text than slips of the pen explain."""
        if self.strange > max(FEW_STRANGE, MOST_STRANGE * self.bytes):
            found = f"{self.strange:,} of the first {self.bytes:,} bytes that are none"
            name = shlex.quote(str(path))
            raise DataError(
                f"{path}: expected UTF-8 text without zeros; found {found}, the first at byte "
                f"{_first_strange(path):,}. Convert it: iconv -f {_likely_encoding(path)} -t utf-8 {name}, "
                "or leave it out."
            )


def _likely_encoding(path: Path) -> str:
    """What iconv may read a text as that is no UTF-8."""
    with path.open("rb") as file:
        head = file.read(4096)
    is_wide = head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or head.count(0) > len(head) // 4
    return "utf-16" if is_wide else "latin1"


def _first_strange(path: Path) -> int:
    """Where the first byte stands that is no text."""
    read = 0
    with path.open("rb") as lines:
        for line in lines:
            text = line.decode("utf-8", "surrogateescape")
            if found := _STRANGE.search(text):
                return read + len(text[: found.start()].encode("utf-8", "surrogateescape"))
            read += len(line)
    return read


def _hub_documents(name: str, config: str | None) -> Iterator[Document]:
    if Path(name).is_absolute() and not Path(name).is_dir():
        raise DataError(
            f"hf:{name} is not a folder with a dataset. Give an existing folder or a name on the hub."
        )
    import datasets

    datasets.disable_progress_bars()
    rows = 0
    # The library raises errors of many packages here (its own, requests, fsspec, pyarrow): all mean
    # that the text cannot be had, and none is ours.
    try:
        for row in datasets.load_dataset(name, config, split="train", streaming=True):
            text = row.get("text")
            if not isinstance(text, str):
                raise DataError(f"hf:{name} needs a column named text; it has {', '.join(row)}.")
            if text.strip():
                yield Document(f"{Path(name).name}#{rows}", text)
            rows += 1
    except DataError:
        raise
    except Exception as error:
        raise DataError(
            f"Cannot read the dataset {name}{f' ({config})' if config else ''}, after {rows} rows: {error} "
            "Check the name, the configuration and the network (HF_HUB_OFFLINE and HF_DATASETS_OFFLINE "
            'forbid it), name a downloaded copy as hf:/path/to/folder, or use source = "builtin".'
        ) from error
