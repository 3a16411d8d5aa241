"""The built-in corpus: documentation that is installed with Python and with this project.

Sources are read and parsed, never imported, in an order that depends on names alone, so the same
versions give the same bytes on every machine.
"""

from __future__ import annotations

import ast
import sys
import sysconfig
import warnings
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path, PurePosixPath

from asi_lab.data.prose import paragraphs
from asi_lab.errors import DataError

DISTRIBUTIONS = (
    "click",
    "GitPython",
    "huggingface-hub",
    "networkx",
    "numpy",
    "rich",
    "scikit-learn",
    "scipy",
    "torch",
)
"""Distributions read after the standard library: dependencies with much documentation for their
size, direct ones or always brought along (networkx by torch, scikit-learn by lm-eval)."""

STANDARD_LIBRARY_LEFT_OUT = frozenset(
    {"distutils", "ensurepip", "idlelib", "lib2to3", "test", "tkinter", "turtledemo"}
)
"""Parts that distributions of Python ship separately or not at all."""

SKIPPED_FOLDERS = frozenset({"test", "tests", "testing", "vendor", "encodings", "torchgen", "ao", "fx"})
"""Folders of any package that hold tests, copies of other packages, or much code and few words."""

PUBLIC_FOLDERS = frozenset({"_core"})
"""Folders read although their name is private: the functions of numpy are written there."""

DEDUPLICATED_LENGTH = 40
"""Paragraphs of at least this many characters occur once in the corpus."""

MIN_SECTION = 160
"""Characters below which the documentation of one class or function is left out."""


def pages(
    distributions: Iterable[str] = DISTRIBUTIONS, standard_library: bool = True
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
                    normal = paragraph.casefold()
                    if normal in seen:
                        continue
                    seen.add(normal)
                fresh.append(paragraph)
            if sum(map(len, fresh)) >= MIN_SECTION:
                kept.append("\n".join([heading, *fresh]))
        if kept:
            yield key, "\n\n".join(kept)


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
