"""Prompt templates: strict reading, literal rendering, overrides, and what the packaged ones must say."""

import inspect
import os
import re
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec
import pytest

from asi_lab import kernels
from asi_lab.common.text import CUT
from asi_lab.engineer.contract import CONSTRUCTOR, FORWARD
from asi_lab.engineer.names import ALLOWED_IMPORTS
from asi_lab.errors import ConfigError
from asi_lab.knowledge import entry
from asi_lab.llm import prompting

ROLES = [
    *("analyst", "checker", "cognition_background", "cognition_insights", "components", "debugger", "judge"),
    *("novelty", "planner", "planner_after_duplicate", "provenance", "summariser"),
]
CODERS = ["planner", "planner_after_duplicate", "checker", "debugger"]
PLANNERS = CODERS[:2]
NOT_FOR_LAYERS = {"linear_cross_entropy", "short_convolution_step"}
"""Kernels that a layer has no use for, since it sees a whole sequence at once and no loss."""

TOLD = (
    "parent_name parent_code parent_results references standings insights lessons experience direction budget"
)
VARIABLES = {
    "planner": TOLD,
    "planner_after_duplicate": f"{TOLD} repeated",
    "novelty": "motivation candidates",
    "checker": "motivation code verdicts",
    "debugger": "motivation code error stage earlier",
    "judge": "rubric_facts code top",
    "analyst": "name motivation code_diff results ablation insights",
    "summariser": "parent results",
    "components": "code motivation",
    "cognition_background": "paper families",
    "cognition_insights": "paper background metrics faults",
    "provenance": "motivation code_change insights experience",
}

PLAN = {"name": "delta_net_head_decay", "motivation": "why", "change": "decay per head"}
SECTIONS = {
    "design_evaluation": "a",
    "experimental_results_with_ablation": "b",
    "expectation_vs_reality": "c",
    "theoretical_explanation_with_evidence": "d",
    "synthesis_and_insights": "e",
    "weaknesses": ["forgets"],
}
PARTS = ("complexity", "efficiency", "novelty")
MARKS = dict.fromkeys(PARTS, 7) | {f"{part}_reason": "r" for part in PARTS}
BACKGROUND = {
    **dict.fromkeys(("title", "first_author", "family", "mechanism"), "a"),
    **dict.fromkeys(("historical_context", "limitation", "concepts"), "b"),
    "year": 2025,
}
INSIGHT = {**dict.fromkeys(entry.SECTIONS.values(), "a"), "title": "t", "confidence": "high"}
REPEATED = {"is_repeated": True, "repeated_ids": [3, 12], "reason": "r"}

ANSWERS: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]] = {
    "planner": (PLAN, [PLAN | {"name": "DeltaNet2"}, PLAN | {"code": "x"}, {"name": "delta_net_x"}]),
    "planner_after_duplicate": (PLAN, [PLAN | {"name": "gated_net"}, PLAN | {"change": None}]),
    "novelty": (REPEATED, [REPEATED | {"is_repeated": "yes"}, REPEATED | {"repeated_ids": ["3"]}]),
    "checker": ({"fixed": True, "changes": "c"}, [{"fixed": 1, "changes": "c"}, {"fixed": True}]),
    "debugger": ({"changes": "c"}, [{"changes": ["c"]}, {}]),
    "judge": (MARKS, [MARKS | {"novelty": 11}, MARKS | {"mark": 5}, MARKS | {"complexity": 6.5}]),
    "analyst": (SECTIONS, [SECTIONS | {"weaknesses": "forgets"}, SECTIONS | {"summary": "s"}]),
    "summariser": ({"experience": "e"}, [{"summary": "e"}, {"experience": 3}]),
    "components": (
        {"components": [{"family": "gating", "label": "silu gate"}]},
        [{"components": [{"family": "magic", "label": "m"}]}, {"components": [{"family": "gating"}]}],
    ),
    "cognition_background": (BACKGROUND, [BACKGROUND | {"year": "2025"}, {"title": "t"}]),
    "cognition_insights": (
        {"insights": [INSIGHT]},
        [{"insights": [INSIGHT | {"confidence": "sure"}]}, {"insights": INSIGHT}, {}],
    ),
    "provenance": (
        {"origin": "analysis", "reason": "r"},
        [{"origin": "experience", "reason": "r"}, {"origin": "analysis"}],
    ),
}

TEXT = """---
variables: [code, error]
temperature: 0.5
---
# System

Repair.

# User

{{code}} fails: {{error}}
"""


def fits(value: Any, schema: dict[str, Any]) -> bool:
    """Whether a value has the shape of a JSON schema, for the keywords that the prompts use."""
    known = {"type", "properties", "required", "additionalProperties", "items", "enum", "pattern"}
    assert set(schema) <= known | {"minimum", "maximum"}
    kinds = {"object": dict, "array": list, "string": str, "boolean": bool, "integer": int}
    kind = schema["type"]
    if isinstance(value, bool) != (kind == "boolean"):
        return False
    if not isinstance(value, kinds.get(kind, (int, float))):
        return False
    if kind == "object":
        properties = schema["properties"]
        return (
            set(schema["required"]) <= set(value) <= set(properties)
            and schema["additionalProperties"] is False
            and all(fits(item, properties[key]) for key, item in value.items())
        )
    if kind == "array":
        return all(fits(item, schema["items"]) for item in value)
    if kind == "string":
        return value in schema.get("enum", [value]) and bool(re.search(schema.get("pattern", ""), value))
    return bool(schema.get("minimum", value) <= value <= schema.get("maximum", value))


def dummies(prompt: prompting.Prompt) -> dict[str, str]:
    return {variable: f"<value of {variable}>" for variable in prompt.variables}


def packaged(name: str) -> str:
    return (resources.files("asi_lab.prompts") / f"{name}.md").read_text(encoding="utf-8")


@pytest.fixture
def load_text(tmp_path: Path):
    """Loads a text as the override of a packaged prompt; it stands in for `summariser` unless told."""

    def load(text: str | bytes, name: str = "summariser") -> prompting.Prompt:
        path = tmp_path / f"{name}.md"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return prompting.load(name, tmp_path)

    return load


# The packaged prompts


def test_there_is_one_prompt_for_each_role():
    assert prompting.names() == ROLES
    assert list(prompting.load_all()) == ROLES


@pytest.mark.parametrize("name", ROLES)
def test_a_packaged_prompt_renders_every_variable(name):
    prompt = prompting.load(name)
    assert (prompt.name, list(prompt.variables)) == (name, VARIABLES[name].split())
    system, user = prompt.render(**dummies(prompt))
    assert "{{" not in system + user
    for value in dummies(prompt).values():
        assert value in user  # the system part is the same in every call, so that a server can cache it
    assert system == prompt.system


@pytest.mark.parametrize("name", ROLES)
def test_a_schema_takes_good_answers_and_no_bad_ones(name):
    schema = prompting.load(name).schema
    assert schema is not None
    good, bad = ANSWERS[name]
    assert set(good) == set(schema["properties"])
    assert fits(good, schema)
    for answer in bad:
        assert not fits(answer, schema), answer


@pytest.mark.parametrize("name", ROLES)
def test_the_example_in_a_prompt_fits_its_schema(name):
    prompt = prompting.load(name)
    assert prompt.schema is not None
    example = re.findall(r"```json\n(.*?)```", prompt.system, re.DOTALL)[-1]
    answer = msgspec.json.decode(example)
    assert fits(answer, prompt.schema)
    assert list(answer) == list(prompt.schema["properties"])  # servers write the keys in this order


@pytest.mark.parametrize("name", ROLES)
def test_a_prompt_is_short_enough_for_a_small_model(name):
    assert len(prompting.load(name).system) < (9000 if name in PLANNERS else 5800)


@pytest.mark.parametrize("name", ["novelty", "judge", "components", "provenance"])
def test_verdicts_are_asked_for_without_chance(name):
    assert prompting.load(name).temperature == 0.0


def test_the_analyst_and_the_summariser_are_nearly_certain():
    assert prompting.load("analyst").temperature == 0.3
    assert prompting.load("summariser").temperature == 0.2


@pytest.mark.parametrize("name", ROLES)
def test_those_who_write_code_have_the_tool(name):
    prompt = prompting.load(name)
    assert prompt.tools == (("write_code_file",) if name in CODERS else ())
    assert ("<<<<<<< SEARCH\nold lines\n=======\nnew lines\n>>>>>>> REPLACE" in prompt.system) == (
        name in CODERS
    )
    assert ("Without tools" in prompt.system) == (name in CODERS)


@pytest.mark.parametrize("name", PLANNERS)
def test_a_planner_is_told_the_contract(name):
    system = prompting.load(name).system
    signatures = re.search(r"```python\n(.*?)```", system, re.DOTALL)
    assert signatures
    constructor, forward = signatures[1].split("def forward")
    for argument in (*CONSTRUCTOR, "**kwargs"):
        assert re.search(rf"(?<!\w){re.escape(argument)}\b", constructor), argument
    for argument in (*FORWARD, "**kwargs"):
        assert re.search(rf"(?<!\w){re.escape(argument)}\b", forward), argument
    assert "class DeltaNet(nn.Module)" in system


@pytest.mark.parametrize("name", CODERS)
def test_those_who_write_code_are_told_every_allowed_import(name):
    told = re.search(r"Import only from: (.*?)\. ?", prompting.load(name).system + " ", re.MULTILINE)
    assert told
    listed = re.findall(r"[\w.]+", prompting.load(name).system[told.start() :].partition("\n")[0])
    for allowed in ALLOWED_IMPORTS:
        assert allowed in [word.rstrip(".") for word in listed], allowed


@pytest.mark.parametrize("name", PLANNERS)
def test_a_planner_is_told_every_kernel_as_it_is(name):
    system = prompting.load(name).system
    for kernel in set(kernels.__all__) - NOT_FOR_LAYERS:
        told = re.search(rf"`{kernel}\((.*?)\)`", system)
        assert told, kernel
        real = list(inspect.signature(getattr(kernels, kernel)).parameters)
        given = [argument.partition("=")[0] for argument in told[1].split(", ")]
        assert given[: len(real)] == [a for a in real if a in given], kernel


def test_the_judge_sees_no_author_and_no_claim():
    assert set(prompting.load("judge").variables) == {"rubric_facts", "code", "top"}


# Strict reading

HEAD = "variables: [parent, results]\ntemperature: 0.2\n"
BODY = "# System\n\nSum up.\n\n# User\n\n{{parent}} {{results}}\n"


def whole(head: str = HEAD, body: str = BODY) -> str:
    return f"---\n{head}---\n{body}"


BAD = {
    "undeclared": (
        whole(body=BODY + "{{code}}"),
        "expected placeholders of declared variables, parent, results; found {{code}}",
    ),
    "blanks in a placeholder": (whole(body=BODY + "{{ parent }}"), "found {{ parent }}"),
    "undeclared in the system part": (
        whole(body=BODY.replace("Sum up.", "Sum up {{it}}.")),
        "found {{it}}",
    ),
    "unused": (
        whole(body=BODY.replace("{{results}}", "")),
        "expected every declared variable in the text; found no placeholder for results",
    ),
    "unknown key": (
        whole(HEAD + "top_p: 1\n"),
        "expected the keys variables, temperature, schema, tools, gives_way; found: Object contains unknown",
    ),
    "no temperature": (whole("variables: [parent, results]\n"), "missing required field `temperature`"),
    "temperature in words": (whole(HEAD.replace("0.2", "low")), "$.temperature"),
    "temperature too high": (whole(HEAD.replace("0.2", "3")), "`float` <= 2.0 - at `$.temperature`"),
    "schema is text": (whole(HEAD + "schema: yes\n"), "$.schema"),
    "variable is no name": (whole(HEAD.replace("results", "Results")), "$.variables"),
    "variable twice": (
        whole(HEAD.replace("results]", "results, parent]")),
        "variables: expected each name once; found parent repeated",
    ),
    "a stranger gives way": (
        whole(HEAD + "gives_way: [code]\n"),
        "gives_way: expected names of variables, parent, results; found code",
    ),
    "a shared text that is not there": (
        whole(body=BODY.replace("Sum up.", "{{> planner}}")),
        "expected the name of a shared text; found 'planner'",
    ),
    "no YAML": (whole("variables: [\n"), "expected YAML in the front matter; found"),
    "front matter is a list": (whole("- variables\n"), "Expected `object`, got `array`"),
    "no front matter": (BODY, "expected front matter between two lines of ---; found '# System' first"),
    "front matter not closed": ("---\n" + HEAD + BODY, "and no second ---"),
    "empty file": ("", "expected front matter between two lines of ---; found '' first"),
    "no system part": (
        whole(body=BODY.partition("# User")[2]),
        "expected the parts # System and # User, in this order; found neither",
    ),
    "no user part": (whole(body=BODY.partition("# User")[0]), "in this order; found # System."),
    "parts turned round": (
        whole(body="# User\n\n{{parent}}\n\n# System\n\n{{results}}\n"),
        "in this order; found # User, # System",
    ),
    "a part twice": (whole(body=BODY + "# User\nmore\n"), "found # System, # User, # User"),
    "an empty part": (
        whole(body=BODY.replace("Sum up.", "")),
        "expected text under # System and # User; found none under # System",
    ),
    "text before the parts": (
        whole(body="Hello\n" + BODY),
        "expected # System after the front matter; found 'Hello'",
    ),
    "not UTF-8": (whole().encode() + b"\xff", "expected UTF-8 text; found"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_broken_template_is_refused_with_file_expected_and_found(case, load_text, tmp_path):
    text, message = BAD[case]
    with pytest.raises(ConfigError) as caught:
        load_text(text)
    assert str(caught.value).startswith(f"{tmp_path / 'summariser.md'}: ")
    assert message in str(caught.value)
    assert "expected" in str(caught.value).lower()


def test_what_a_template_holds_is_read(load_text):
    head = HEAD + "schema: {type: object}\ntools: [write_code_file]\n"
    prompt = load_text(whole(head).replace("\n", "\r\n"))  # as an editor on Windows leaves it
    assert prompt.variables == ("parent", "results")
    assert (prompt.temperature, prompt.schema, prompt.tools) == (
        0.2,
        {"type": "object"},
        ("write_code_file",),
    )
    assert (prompt.system, prompt.user) == ("Sum up.", "{{parent}} {{results}}")
    plain = load_text(whole())
    assert (plain.schema, plain.tools) == (None, ())


def test_a_prompt_that_is_not_there_is_named_with_those_that_are():
    with pytest.raises(ConfigError, match=r"expected one of analyst, .*; found 'poet'"):
        prompting.load("poet")
    with pytest.raises(ConfigError, match=r"found '\.\./planner'"):
        prompting.load("../planner")


# Rendering


def test_missing_and_extra_values_are_refused():
    prompt = prompting.load("summariser")
    with pytest.raises(
        ConfigError, match=r"^summariser.md: expected values for parent, results; found parent missing\.$"
    ):
        prompt.render(results="r")
    with pytest.raises(ConfigError, match=r"found code, error besides\.$"):
        prompt.render(parent="p", results="r", error="e", code="c")
    with pytest.raises(ConfigError, match=r"found results missing, result besides\.$"):
        prompt.render(parent="p", result="r")


def test_values_are_inserted_once_and_literally(load_text):
    prompt = load_text(whole(body=BODY + "again {{parent}}\n"))
    value = "{{results}} {{nobody}} \\1 \\g<0> $x {y} %s\n# User\n---"
    _, user = prompt.render(parent=value, results="{{parent}}")
    assert user == f"{value} {{{{parent}}}}\nagain {value}"


def test_an_empty_value_is_a_value(load_text):
    assert load_text(whole()).render(parent="", results="r") == ("Sum up.", " r")


# Fitting


def words(text: str) -> int:
    return len(text.split())


def test_what_fits_is_left_alone_and_what_does_not_gives_way_in_order(load_text):
    prompt = load_text(whole(HEAD + "gives_way: [results, parent]\n"))
    values = {"parent": "one two\nthree four\nfive", "results": "\n".join(f"r{n}" for n in range(20))}
    assert prompt.fitted(values, 1000, words) == prompt.render(**values)
    system, user = prompt.fitted(values, 15, words)
    assert words(system) + words(user) <= 15
    assert user.startswith("one two\nthree four\nfive r0\nr1\n")
    assert user.endswith(CUT)
    _, user = prompt.fitted(values, 6, words)
    assert user == f"one two\n{CUT} {CUT}"


def test_what_may_not_give_way_stays_whole_however_little_room_there_is(load_text):
    prompt = load_text(whole(HEAD + "gives_way: [results]\n"))
    _, user = prompt.fitted({"parent": "a b c d", "results": "e\nf"}, 1, words)
    assert user == f"a b c d {CUT}"


@pytest.mark.parametrize("name", ROLES)
def test_code_that_is_to_be_changed_or_judged_never_gives_way(name):
    assert not {"parent_code", "code", "budget", "rubric_facts"} & set(prompting.load(name).gives_way)


# Overrides and digests


def test_an_override_of_a_shared_text_changes_all_that_share_it(tmp_path):
    (tmp_path / "_kernels.md").write_text("None here.\n", encoding="utf-8")
    prompts = prompting.load_all(tmp_path)
    for name in CODERS:
        assert "None here.\n" in prompts[name].system
        assert prompts[name].digest != prompting.load(name).digest
    assert prompts["judge"] == prompting.load("judge")


def test_an_override_wins_and_the_others_stay(tmp_path):
    (tmp_path / "summariser.md").write_text(whole(), encoding="utf-8")
    (tmp_path / ".planner.md.swp").write_bytes(b"\0")
    prompts = prompting.load_all(tmp_path)
    assert prompts["summariser"].system == "Sum up."
    assert prompts["planner"] == prompting.load("planner")
    assert prompting.load("summariser").system != "Sum up."


def test_a_folder_that_is_not_there_overrides_nothing(tmp_path):
    assert prompting.load_all(tmp_path / "none") == prompting.load_all()


def test_unknown_files_among_the_overrides_are_refused(tmp_path):
    (tmp_path / "plannr.md").write_text(whole(), encoding="utf-8")
    with pytest.raises(
        ConfigError, match=r"plannr.md: expected only files named _contract.md, .*; found plannr"
    ):
        prompting.load_all(tmp_path)


def test_a_file_in_place_of_the_folder_and_a_folder_in_place_of_a_file_are_refused(tmp_path):
    file = tmp_path / "file"
    file.write_text("x")
    with pytest.raises(ConfigError, match="expected a folder of prompts; found"):
        prompting.load_all(file)
    (tmp_path / "prompts" / "judge.md").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"judge.md: expected a readable file; found"):
        prompting.load_all(tmp_path / "prompts")


@pytest.mark.parametrize("name", ["_contract.md", "judge.md"])
@pytest.mark.parametrize("leads", ["to a file", "nowhere", "to a pipe"])
def test_links_among_the_overrides_are_refused(tmp_path, name, leads):
    """They would send whatever they lead to to the model's server."""
    folder, secret = tmp_path / "prompts", tmp_path / "secret"
    folder.mkdir()
    if leads == "to a file":
        secret.write_text(whole(), encoding="utf-8")
    if leads == "to a pipe":
        os.mkfifo(folder / name)
    else:
        (folder / name).symlink_to(secret)
    with pytest.raises(ConfigError, match=rf"{name}: expected a readable file; found"):
        prompting.load_all(folder)
    (tmp_path / "linked").symlink_to(tmp_path)
    with pytest.raises(ConfigError, match="expected a folder of prompts; found a link"):
        prompting.load_all(tmp_path / "linked")


@pytest.mark.parametrize("value", ["2024-13-45", "0x_", "[" * 5000])
def test_yaml_that_cannot_be_read_is_told(load_text, value):
    with pytest.raises(ConfigError, match="front matter"):
        load_text(whole().replace("temperature:", f"x: {value}\ntemperature:", 1))


def test_an_override_takes_the_same_variables(load_text):
    with pytest.raises(
        ConfigError,
        match=r"variables: expected those of the packaged summariser.md, parent, results; found code, error",
    ):
        load_text(TEXT)


def test_the_digest_is_that_of_the_text(load_text):
    packaged_prompt = prompting.load("summariser")
    assert re.fullmatch(r"[0-9a-f]{16}", packaged_prompt.digest)
    same = load_text(packaged("summariser"))
    assert same == packaged_prompt
    changed = load_text(packaged("summariser").replace('Write "nothing yet"', 'Write "none"'))
    assert changed.digest != packaged_prompt.digest
    warmer = load_text(packaged("summariser").replace("temperature: 0.2", "temperature: 0.3"))
    assert warmer.digest not in (changed.digest, packaged_prompt.digest)
    assert len({prompt.digest for prompt in prompting.load_all().values()}) == len(ROLES)
