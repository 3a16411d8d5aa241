"""The built-in corpus: documentation that is installed with Python and with this project.

Sources are read and parsed, never imported, in an order that depends on names alone, so the same
versions give the same bytes on every machine.

What is held out of training comes from distributions that no trial needs, and the sandbox hides these
(`hidden_paths`): from what a trial can read the held-out text cannot be made again.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import os
import re
import sys
import sysconfig
import warnings
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path, PurePosixPath

from asi_lab.data.prose import paragraphs
from asi_lab.errors import DataError
from asi_lab.sandbox.policy import system_paths

SHOWN_DISTRIBUTIONS = ("networkx", "numpy", "torch")
"""Distributions read after the standard library that trials need, or that what they need brings along
(networkx by torch). As trials can read them, nothing of them is held out."""

HIDDEN_DISTRIBUTIONS = {
    "click": "click",
    "GitPython": "git",
    "huggingface-hub": "huggingface_hub",
    "rich": "rich",
    "scikit-learn": "sklearn",
    "scipy": "scipy",
}
"""Distributions that the engine and the scorer need and trials do not, with the names of their packages. They
are read last: a paragraph that is found elsewhere too is training text."""

HIDDEN_PACKAGES = frozenset(HIDDEN_DISTRIBUTIONS.values()) | {
    *("datasets", "joblib", "narwhals", "nltk", "pandas", "textual", "transformers", "typer")
}
"""What is hidden from trials: those packages, and such as repeat parts of their documentation."""

HIDDEN_ODDS = 2
"""The hidden distributions are about half of the corpus, so twice the usual share of them is held out."""

STANDARD_LIBRARY_LEFT_OUT = frozenset(
    {"distutils", "ensurepip", "idlelib", "lib2to3", "test", "tkinter", "turtledemo"}
)
"""Parts that distributions of Python ship separately or not at all."""

SKIPPED_FOLDERS = frozenset({"test", "tests", "testing", "vendor", "encodings", "torchgen", "ao", "fx"})
"""Folders of any package that hold tests, copies of other packages, or much code and few words."""

PUBLIC_FOLDERS = frozenset({"_core"})
"""Folders read although their name is private: the functions of numpy are written there."""

DEDUPLICATED_LENGTH = 40
"""Paragraphs of at least this many characters occur once in the corpus; those with the same words are the
same."""

LICENCE = ("redistribution", "this software is provided by")
"""How paragraphs of licences begin, which stand in many files of every system. They are left out."""

MIN_SECTION = 160
"""Characters below which the documentation of one class or function is left out."""


def pages(
    distributions: Iterable[str] = (*SHOWN_DISTRIBUTIONS, *HIDDEN_DISTRIBUTIONS),
    standard_library: bool = True,
) -> Iterator[tuple[str, str]]:
    """Yield `(key, text)` for every documented module, cleaned, with no paragraph twice.

    Raises `DataError` where a distribution, or the source of the standard library, is not installed.
    """
    seen: set[str] = set()
    for key, sections in _sections(distributions, standard_library):
        kept: list[str] = []
        for heading, docstring in sections:
            fresh = []
            for paragraph in paragraphs(docstring):
                if len(paragraph) >= DEDUPLICATED_LENGTH:
                    normal = words(paragraph)
                    if normal in seen or normal.startswith(LICENCE):
                        continue
                    seen.add(normal)
                fresh.append(paragraph)
            if sum(map(len, fresh)) >= MIN_SECTION:
                kept.append("\n".join([heading, *fresh]))
        if kept:
            yield key, "\n\n".join(kept)


def words(text: str) -> str:
    """The words of a text, in lower case, with one space between them."""
    return " ".join(re.findall(r"\w+", text.casefold()))


def odds(key: str) -> int:
    """How much likelier than usual a page is held out: 0 where trials can read where it comes from."""
    return HIDDEN_ODDS if key.partition("/")[0] in HIDDEN_DISTRIBUTIONS else 0


@functools.cache
def hidden_paths() -> tuple[str, ...]:
    """Where `HIDDEN_PACKAGES` lie among what the sandbox shows, sorted and with links followed.

    Copies count: those of other Pythons, and those that other packages bring along, in a folder `_vendor` or
    with an underscore before the name. So do wheels, packed packages that a trial has no use for: Python has
    one of pip, which brings rich along. All folders are looked through, which may take a second.
    """
    found: set[Path] = set()
    wheels: set[Path] = set()
    for root in {Path(path).resolve() for path in system_paths()}:
        left = [str(root)]
        while left:  # os.walk takes three times as long
            folder, inner = Path(left.pop()), []
            with contextlib.suppress(OSError), os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name.endswith(".whl"):
                        wheels.add(Path(entry.path))
                    elif entry.is_dir(follow_symlinks=False):
                        inner.append(entry.path)
            if folder.name.endswith("-packages"):
                for place in (folder, *folder.glob("*/_vendor")):
                    found |= {place / package for package in HIDDEN_PACKAGES}
                found |= {copy for copy in folder.glob("*/_*") if copy.name[1:] in HIDDEN_PACKAGES}
            else:
                left += inner
    packages = {path.resolve() for path in found if (path / "__init__.py").is_file()}
    return tuple(sorted(map(str, packages | {wheel.resolve() for wheel in wheels})))


Sections = Iterable[tuple[str, str]]


def _sections(distributions: Iterable[str], standard_library: bool) -> Iterator[tuple[str, Sections]]:
    """`(key, [(heading, docstring), ...])` of every page, before cleaning."""
    if standard_library:
        from pydoc_data.topics import topics

        for topic in sorted(topics):
            yield f"python/topics/{topic}", [(topic, topics[topic])]
        for name, path in _standard_library():
            yield f"python/{name}", docstrings(_read(path))
    for distribution in distributions:
        for name, path in _distribution(distribution):
            yield f"{distribution}/{name}", docstrings(_read(path))


NAMED = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
"""What has a docstring, besides the module. Other statements have names too, of other types."""


def docstrings(source: bytes) -> list[tuple[str, str]]:
    """`(qualified name, docstring)` of a module, its public classes and functions, in order of the source.

    Empty for source that does not parse. The module itself goes by the name `Overview`.
    """
    if b'"""' not in source and b"'''" not in source:
        return []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in other people's strings
            module = ast.parse(source)
    except (SyntaxError, ValueError):
        return []
    found: list[tuple[str, str]] = []
    _collect(module, "", found)
    return found


def _collect(node: ast.AST, name: str, found: list[tuple[str, str]]) -> None:
    if isinstance(node, ast.Module | NAMED):
        if docstring := ast.get_docstring(node):
            found.append((name or "Overview", docstring))
        for child in node.body:
            if isinstance(child, NAMED) and not child.name.startswith("_"):
                _collect(child, f"{name}.{child.name}" if name else child.name, found)


def _standard_library() -> list[tuple[str, Path]]:
    root = Path(sysconfig.get_path("stdlib"))
    files = []
    for name in sorted(sys.stdlib_module_names - STANDARD_LIBRARY_LEFT_OUT):
        if (root / f"{name}.py").is_file():
            files.append((f"{name}.py", root / f"{name}.py"))
        elif (root / name).is_dir():
            inner = sorted((path.relative_to(root).as_posix(), path) for path in (root / name).rglob("*.py"))
            files += [(key, path) for key, path in inner if _is_documentation(PurePosixPath(key))]
    if not any(key == "argparse.py" for key, _ in files):
        raise DataError(
            f"The built-in corpus needs the source files of Python's standard library, but {root} has none. "
            'Use a Python that ships them, or your own text: source = "text:GLOB".'
        )
    return [(key, path) for key, path in files if not key.startswith("_sysconfigdata")]


def _distribution(name: str) -> list[tuple[str, Path]]:
    try:
        files = metadata.files(name)
    except metadata.PackageNotFoundError:
        files = None
    if not files:
        raise DataError(
            f"The built-in corpus reads the documentation of {name}, which is not installed (or "
            "without its list of files). Install the project with all its dependencies again."
        )
    return [
        (file.as_posix(), Path(str(file.locate())))
        for file in sorted(files, key=lambda file: file.as_posix())
        if file.suffix == ".py" and _is_documentation(file)
    ]


def _is_documentation(file: PurePosixPath) -> bool:
    return not any(
        folder in SKIPPED_FOLDERS or (folder.startswith("_") and folder not in PUBLIC_FOLDERS)
        for folder in file.parts[:-1]
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(
            f"Cannot read {path} for the built-in corpus: {error.strerror}. Install the project again."
        ) from error
