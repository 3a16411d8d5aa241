"""The packaged entries: all there, as papers are, without faults, with sketches that do what they say."""

from __future__ import annotations

import math
import re

import msgspec
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from asi_lab.common.text import plain
from asi_lab.errors import KnowledgeError
from asi_lab.knowledge import lint
from asi_lab.knowledge.base import FOLDER, Base, load
from asi_lab.knowledge.entry import Entry, Front, Insight, parse, render
from asi_lab.researcher.grammar.genome import GENES

BASE = load()
SKETCHES = [
    pytest.param(insight.sketch, id=f"{entry.key}-{number}")
    for entry in BASE
    for number, insight in enumerate(entry.insights)
    if insight.sketch
]
LENGTH, WIDTH = 24, 32


def test_there_are_130_papers_of_14_families():
    assert len(BASE) == 130
    assert {entry.front.family for entry in BASE} == lint.FAMILIES
    assert len({entry.front.arxiv for entry in BASE}) == 130
    assert sum(len(entry.insights) for entry in BASE) >= 150


def test_no_entry_is_at_fault():
    assert lint.faults(BASE, GENES) == []


def test_what_is_written_is_read_back():
    for entry in BASE:
        assert parse(render(entry), entry.key) == entry


@pytest.mark.parametrize("sketch", SKETCHES)
def test_a_sketch_runs_and_is_causal_where_it_says_so(sketch):
    names = {"torch": torch, "math": math, "F": torch.nn.functional, "nn": torch.nn}
    exec(sketch, names)

    def run(x: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(0)
        with torch.no_grad():
            return names["sketch"](x)

    torch.manual_seed(1)
    x = torch.randn(2, LENGTH, WIDTH)
    y = run(x)
    assert y.shape == x.shape
    assert torch.isfinite(y).all()
    torch.testing.assert_close(run(x.clone()), y)
    if sketch.startswith("# causal"):
        for last in (0, 7, 15, 22):
            other = x.clone()
            other[:, last + 1 :] += torch.randn(2, LENGTH - 1 - last, WIDTH)
            torch.testing.assert_close(run(other)[:, : last + 1], y[:, : last + 1], atol=1e-4, rtol=1e-4)


def test_most_entries_have_a_sketch():
    assert len(SKETCHES) >= 2 * len(BASE) / 3


GOOD = render(BASE.get("deltanet"))


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda t: t.replace("---\n", "", 1), "expected front matter"),
        (lambda t: t.replace("year: 2024", "year: soon"), "front matter"),
        (lambda t: t.replace("family:", "kind:"), "front matter"),
        (lambda t: t.replace("# Background", "# Foreground"), "expected `# Background` first"),
        (lambda t: t.replace("## Limitation", "## Limits"), "expected the sections"),
        (lambda t: t.replace("# Insight: ", "# Idea: ", 1), "expected `# Insight: title`"),
        (lambda t: t.replace("confidence: high", "confidence: sure", 1), "confidence"),
        (
            lambda t: re.sub(r"(?s)## Symptoms\n.*?\n\n## Core", "## Symptoms\n\n## Core", t, count=1),
            "Symptoms",
        ),
        (lambda t: t.replace("```python", "```", 1), "expected a ```python block"),
        (lambda t: t.split("# Insight")[0], "expected at least one"),
    ],
)
def test_what_is_laid_out_wrong_is_told(change, found):
    text = change(GOOD)
    assert text != GOOD
    with pytest.raises(KnowledgeError, match=re.escape(found)):
        parse(text, "x.md")


def test_headings_in_code_are_none():
    entry = BASE.get("deltanet")
    sketch = "# causal\n## Symptoms\n# Insight: none\ndef sketch(x):\n    return x\n"
    changed = msgspec.structs.replace(
        entry, insights=(msgspec.structs.replace(entry.insights[0], sketch=sketch),)
    )
    assert parse(render(changed), "x").insights[0].sketch == sketch


def faulty(**changes: object) -> list[str]:
    """What is wrong with an entry in which that is changed."""
    entry = BASE.get("deltanet")
    front = {name: value for name, value in changes.items() if name in Front.__struct_fields__}
    insight = {name: value for name, value in changes.items() if name in Insight.__struct_fields__}
    outer = {name: value for name, value in changes.items() if name in ("context", "limitation", "concepts")}
    changed = msgspec.structs.replace(
        entry,
        front=msgspec.structs.replace(entry.front, **{n: v for n, v in front.items() if n != "title"}),
        insights=(msgspec.structs.replace(entry.insights[0], **insight), *entry.insights[1:]),
        **outer,
    )
    linked = {*changed.front.supersedes, *changed.front.combines_with} - {changed.key}
    entries = {known.key: known for known in BASE if known.key in linked}
    return [fault.message for fault in lint.faults(Base({**entries, changed.key: changed}), GENES)]


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"arxiv": "math/0309136"}, "arxiv: expected an id"),
        ({"year": 1066}, "year: found 1066"),
        ({"family": "magic"}, "family: expected one of"),
        ({"mechanism": "word " * 31}, "at most 30 words; found 31"),
        ({"context": "word " * 200}, "background: expected at most 200 words"),
        ({"symptoms": "word " * 91}, "Symptoms: expected at most 90 words; found 91"),
        ({"formulation": "word " * 141}, "Formulation: expected at most 140 words"),
        ({"supersedes": ("nobody",)}, "supersedes: expected the key of another entry; found 'nobody'"),
        ({"combines_with": ("deltanet",)}, "combines_with: expected the key of another"),
        ({"combines_with": ("rwkv-7", "gla", "mamba", "samba", "titans")}, "at most 4 links; found 5"),
        ({"signatures": "asi_nonsense rises"}, "no metric is called asi_nonsense"),
        ({"genome": {"colour": ("red",)}}, "no gene is called 'colour'"),
        ({"genome": {"rule": ("magic",)}}, "rule has no value ['magic']"),
        ({"genome": {"copy": (1,)}}, "copy has no value [1]"),
        ({"sketch": "def sketch(x):\n    return x"}, "Sketch: expected # causal"),
        ({"sketch": "# causal\ndef sketch(x):\n" + "    x = x\n" * 30}, "at most 26 lines"),
    ],
)
def test_rules_are_looked_after(changes, found):
    assert any(found in message for message in faulty(**changes)), faulty(**changes)


def test_the_same_insight_twice_and_circles_are_found():
    copied = BASE.get("deltanet")
    twin = msgspec.structs.replace(copied, front=msgspec.structs.replace(copied.front, key="twin"))
    messages = [fault.message for fault in lint.faults(Base({"deltanet": copied, "twin": twin}), GENES)]
    assert any("is that of deltanet" in message for message in messages)
    one = msgspec.structs.replace(copied, front=msgspec.structs.replace(copied.front, supersedes=("twin",)))
    other = msgspec.structs.replace(twin, front=msgspec.structs.replace(twin.front, supersedes=("deltanet",)))
    messages = [fault.message for fault in lint.faults(Base({"deltanet": one, "twin": other}), GENES)]
    assert "supersedes itself, by way of others" in messages


def test_links_in_place_of_own_entries_and_of_their_folder_are_refused(tmp_path):
    lab, elsewhere = tmp_path / "lab", tmp_path / "elsewhere"
    for folder in (lab, elsewhere):
        folder.mkdir()
    (lab / FOLDER).symlink_to(elsewhere)
    with pytest.raises(KnowledgeError, match="expected a folder of entries; found a link"):
        load(lab)
    (lab / FOLDER).unlink()
    (lab / FOLDER).mkdir()
    (lab / FOLDER / "own.md").symlink_to(elsewhere)
    with pytest.raises(KnowledgeError, match=r"own\.md: expected an entry of the cognition base; found"):
        load(lab)


def test_a_labs_own_entries_stand_above_the_packaged_ones(tmp_path):
    own = tmp_path / FOLDER
    own.mkdir()
    entry = BASE.get("deltanet")
    changed = msgspec.structs.replace(entry, limitation="Another one.")
    (own / "deltanet.md").write_text(render(changed))
    base = load(tmp_path)
    assert len(base) == 130
    assert base.get("deltanet").limitation == "Another one."
    (own / "broken.md").write_text("nothing")
    with pytest.raises(KnowledgeError, match=r"broken\.md: expected front matter"):
        load(tmp_path)
    (own / "broken.md").write_bytes(b"\xff\xfe")
    with pytest.raises(KnowledgeError, match=r"broken\.md: expected an entry"):
        load(tmp_path)


def test_an_entry_that_is_not_there_is_told_with_those_like_it():
    with pytest.raises(KnowledgeError, match=r"Like it: .*gated-deltanet"):
        BASE.get("deltane")


LINE = st.text(st.characters(blacklist_categories=("Cs", "Cc", "Zl", "Zp")), min_size=1).map(plain)


@given(
    st.lists(
        LINE.filter(lambda text: text.strip() and not text.strip().startswith(("#", "```"))),
        min_size=3,
        max_size=3,
    )
)
def test_any_text_survives_the_file(texts):
    entry = BASE.get("deltanet")
    insight = msgspec.structs.replace(entry.insights[0], symptoms=texts[0].strip(), design=texts[1].strip())
    front = msgspec.structs.replace(entry.front, mechanism=texts[2])
    changed = Entry(front, entry.context, entry.limitation, entry.concepts, (insight,))
    assert parse(render(changed), "x") == changed
