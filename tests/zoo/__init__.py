"""Architectures whose verdict is known: sound ones of many kinds, and ones with a single planted fault."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
MARK = "# the fault"


@dataclass(frozen=True)
class Entry:
    """One architecture.

    `source` is the complete text of an `architecture.py`; `check` names the check meant to reject it,
    "" where the architecture is sound; `summary` is the first paragraph of its docstring without the verdict.
    """

    name: str
    check: str
    summary: str
    source: str

    @property
    def line(self) -> int | None:
        """The line of the source that is marked as the fault, None where no line is."""
        marked = (number for number, line in enumerate(self.source.splitlines(), 1) if line.endswith(MARK))
        return next(marked, None)


def sound() -> list[Entry]:
    """The architectures that every check must let pass."""
    return _entries("sound")


def faulty() -> list[Entry]:
    """The architectures that must be rejected, each by the check it names."""
    return _entries("faulty")


def style() -> list[Entry]:
    """Sources in the manner of language models, for the checks that read: they must let them pass."""
    return [
        Entry(path.stem, "", "", _with_wrapper(path.read_text(encoding="utf-8")))
        for path in sorted((HERE / "style").glob("*.py"))
    ]


def _entries(folder: str) -> list[Entry]:
    return [_entry(path) for path in sorted((HERE / folder).glob("*.py"))]


def _entry(path: Path) -> Entry:
    source = path.read_text()
    tree = ast.parse(source)
    paragraph = " ".join((ast.get_docstring(tree) or "").partition("\n\n")[0].split())
    verdict = re.fullmatch(r"(?:Sound|Fault: (\w+))\. (.+)", paragraph)
    if verdict is None:
        raise ValueError(f"{path}: the docstring begins neither with 'Sound. ' nor with 'Fault: <check>. '")
    return Entry(path.stem, verdict[1] or "", verdict[2], _with_wrapper(source))


def _with_wrapper(source: str) -> str:
    classes = [node.name for node in ast.parse(source).body if isinstance(node, ast.ClassDef)]
    return source if "DeltaNet" in classes else source + "\n\n" + (HERE / "wrapper.py").read_text()
