"""An entry of the cognition base: its fields, and how they stand in a markdown file."""

from __future__ import annotations

import re
from typing import Any, Literal

import msgspec
import yaml

from asi_lab.errors import KnowledgeError

BACKGROUND = {"Historical context": "context", "Limitation": "limitation", "Concepts": "concepts"}
"""The sections of a background, with their fields."""

SECTIONS = {
    "Design insight": "design",
    "Task signatures": "signatures",
    "Symptoms": "symptoms",
    "Core algorithm": "algorithm",
    "Key mechanism": "mechanism",
    "Formulation": "formulation",
    "Complexity": "complexity",
    "Integration": "integration",
    "Parameters": "parameters",
    "When to apply": "conditions",
    "Expected outcomes": "outcomes",
}
"""The sections of an insight, with their fields (appendix D.5 of the paper)."""
SKETCH = "Sketch"
INSIGHT = "Insight: "

Value = str | int | bool
_FENCE = re.compile(r"^(```.*?^```)[ \t]*$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"^```python\n(.*?)^```[ \t]*$", re.MULTILINE | re.DOTALL)


class Insight(msgspec.Struct, frozen=True, kw_only=True):
    """One idea of a paper. `genome` are genes of the grammar with the values that express it; `sketch` is
    code of our own, empty where none helps."""

    title: str
    confidence: Literal["high", "medium"]
    design: str
    signatures: str
    symptoms: str
    algorithm: str
    mechanism: str
    formulation: str
    complexity: str
    integration: str
    parameters: str
    conditions: str
    outcomes: str
    genome: dict[str, tuple[Value, ...]] = {}
    sketch: str = ""


class Front(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The front matter: what the paper is, and how it stands to others (by key). `arxiv` is empty for a paper
    that is not there."""

    key: str
    title: str
    first_author: str
    year: int
    arxiv: str
    family: str
    mechanism: str
    supersedes: tuple[str, ...] = ()
    combines_with: tuple[str, ...] = ()


class Entry(msgspec.Struct, frozen=True):
    """One paper, with its background and its insights."""

    front: Front
    context: str
    limitation: str
    concepts: str
    insights: tuple[Insight, ...]

    @property
    def key(self) -> str:
        """What the entry is called: the name of its file."""
        return self.front.key


class _Meta(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What stands before the sections of an insight."""

    confidence: Literal["high", "medium"]
    genome: dict[str, tuple[Value, ...]] = {}


Loader = type[yaml.SafeLoader]


def parse(text: str, where: str, loader: Loader = yaml.SafeLoader) -> Entry:
    """Read an entry; `where` is named in messages.

    Raises:
        KnowledgeError: it is not laid out as entries are; the message says what was expected and found.
    """
    matter = re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)
    if matter is None:
        raise KnowledgeError(f"{where}: expected front matter between lines of ---; found {text[:40]!r}.")
    front = _yaml(matter[1], Front, f"{where}, front matter", loader)
    parts = _split(text[matter.end() :], 1)
    if not parts or parts[0][0] != "Background":
        raise KnowledgeError(f"{where}: expected `# Background` first; found {[name for name, _ in parts]}.")
    background = _fields(parts[0][1], BACKGROUND, f"{where}, background")
    if len(parts) < 2:
        raise KnowledgeError(f"{where}: expected at least one `# {INSIGHT}title`; found none.")
    insights = tuple(_insight(name, body, where, loader) for name, body in parts[1:])
    return Entry(front, insights=insights, **background)


def _insight(name: str, body: str, where: str, loader: Loader) -> Insight:
    if not name.startswith(INSIGHT):
        raise KnowledgeError(f"{where}: expected `# {INSIGHT}title`; found `# {name}`.")
    title = name.removeprefix(INSIGHT).strip()
    place = f"{where}, insight {title!r}"
    head = re.split(r"^## ", _masked(body)[0], maxsplit=1, flags=re.MULTILINE)[0]
    meta = _yaml(head, _Meta, place, loader)
    sections = _split(body, 2)
    sketch = ""
    if sections and sections[-1][0] == SKETCH:
        code = _CODE.search(sections.pop()[1])
        if code is None:
            raise KnowledgeError(f"{place}: expected a ```python block under `## {SKETCH}`; found none.")
        sketch = code[1]
    fields = _named(sections, SECTIONS, place)
    return Insight(title=title, confidence=meta.confidence, genome=meta.genome, sketch=sketch, **fields)


def _fields(body: str, names: dict[str, str], where: str) -> dict[str, str]:
    return _named(_split(body, 2), names, where)


def _named(sections: list[tuple[str, str]], names: dict[str, str], where: str) -> dict[str, str]:
    found = [name for name, _ in sections]
    if found != list(names):
        raise KnowledgeError(f"{where}: expected the sections {list(names)}; found {found}.")
    if empty := [name for name, text in sections if not text.strip()]:
        raise KnowledgeError(f"{where}: expected text under {', '.join(empty)}; found none.")
    return {names[name]: text.strip() for name, text in sections}


def _masked(text: str) -> tuple[str, list[str]]:
    """The text with its code blocks taken out, and these."""
    blocks: list[str] = []

    def take(match: re.Match[str]) -> str:
        blocks.append(match[0])
        return f"\0{len(blocks) - 1}\0"

    return _FENCE.sub(take, text), blocks


def _split(text: str, level: int) -> list[tuple[str, str]]:
    """Headings of a level with what stands below each; headings in code are none."""
    masked, blocks = _masked(text)
    parts = re.split(rf"^{'#' * level} (.+)$", masked, flags=re.MULTILINE)

    def whole(part: str) -> str:
        return re.sub(r"\0(\d+)\0", lambda match: blocks[int(match[1])], part)

    return [(name.strip(), whole(body)) for name, body in zip(parts[1::2], parts[2::2], strict=True)]


def _yaml(text: str, kind: type[Any], where: str, loader: Loader) -> Any:
    try:
        return msgspec.convert(yaml.load(text, loader) or {}, kind)
    except (yaml.YAMLError, msgspec.ValidationError, ValueError, RecursionError) as error:
        raise KnowledgeError(
            f"{where}: expected {kind.__name__.strip('_').lower()} fields; found {error}."
        ) from None


def render(entry: Entry) -> str:
    """An entry as the text of its file; what `parse` reads back."""
    front = msgspec.to_builtins(entry.front)
    lines = ["---"]
    for name, value in front.items():
        quoted = name in ("title", "first_author", "arxiv", "mechanism")
        lines.append(f"{name}: {msgspec.json.encode(value).decode() if quoted else _flow(value)}")
    lines += ["---", "", "# Background", ""]
    for heading, field in BACKGROUND.items():
        lines += [f"## {heading}", getattr(entry, field), ""]
    for insight in entry.insights:
        lines += [f"# {INSIGHT}{insight.title}", "", f"confidence: {insight.confidence}"]
        if insight.genome:
            lines.append(f"genome: {_flow(msgspec.to_builtins(insight.genome))}")
        lines.append("")
        for heading, field in SECTIONS.items():
            lines += [f"## {heading}", getattr(insight, field), ""]
        if insight.sketch:
            lines += [f"## {SKETCH}", "```python", insight.sketch.rstrip("\n"), "```", ""]
    return "\n".join(lines).rstrip("\n") + "\n"


def _flow(value: Any) -> str:
    """YAML on one line."""
    return yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("...\n").strip()
