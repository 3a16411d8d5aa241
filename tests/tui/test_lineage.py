"""The tree and the graph of a lineage."""

from __future__ import annotations

from asi_lab.lab.summary import Summary
from asi_lab.records import CandidateState
from asi_lab.tui.panes.lineage import graph, tree
from tests.tui.labs import SIZES, seen, use

DONE = CandidateState.DONE


def summary(number: int, parent: int | None, fitness: float = 0.5, state: CandidateState = DONE) -> Summary:
    nothing = dict.fromkeys(Summary.__struct_fields__)
    known = {"id": number, "state": state, "name": f"n{number}", "parent": parent, "fitness": fitness}
    return Summary(**{**nothing, **known, "loss": 4.0 - fitness, "beyond": 0.0})


FAMILY = [
    summary(0, None),
    summary(1, 0),
    summary(2, 0, 0.6),
    summary(3, 2, 0.9),
    summary(4, 2),
    summary(5, 3),
]


def words(one: Summary) -> str:
    return one.name


def lines(rows) -> list[str]:
    return [row.cells[0] for row in rows]


def test_the_tree_marks_the_path_to_the_best():
    assert lines(tree(FAMILY, set(), words)) == [
        "● 0000 ★ n0",
        "├─● 0001 n1",
        "└─● 0002 ★ n2",
        "  ├─● 0003 ★ n3",
        "  │ └─● 0005 n5",
        "  └─● 0004 n4",
    ]
    assert lines(tree(FAMILY, {2}, words))[-1] == "└─● 0002 ★ n2  (+2 folded)"


def test_the_graph_has_ancestors_and_references():
    references = {5: (4, 1), 3: (1,)}
    rows = graph(5, FAMILY, lambda number: references.get(number, ()), words)
    assert lines(rows) == [
        "●  0005 n5",
        "│ ● ┊  0004 n4",
        "● ┼  0003 n3",
        "● ┊  0002 n2",
        "│ ●  0001 n1",
        "●  0000 n0",
    ]


def test_the_graph_of_the_seed_is_the_seed():
    assert lines(graph(0, FAMILY, lambda number: (), words)) == ["●  0000 n0"]


def test_a_failure_has_its_own_sign():
    family = [summary(0, None), summary(1, 0, state=CandidateState.LEAKING)]
    assert lines(graph(1, family, lambda number: (), words))[0] == "✗  0001 n1"


def test_keys_lead_through_the_tree(lab):
    async def script(app, pilot) -> None:
        app.selected = 8
        await pilot.press("3", "a")
        await pilot.pause(0.1)
        graphed = {row.key for row in app.query_one("#tree").rows}
        assert {8, 0, app.reader.candidate(8).parent} <= graphed
        assert app.query_one("#tree").selected == 8
        await pilot.press("escape")
        await pilot.pause(0.1)
        assert len(app.query_one("#tree").rows) == 9
        app.selected = 0
        await pilot.press("space")  # all is folded
        await pilot.pause(0.1)
        assert len(app.query_one("#tree").rows) == 1
        await pilot.press("b")  # the best child is hidden, and shown
        await pilot.pause(0.1)
        assert app.selected != 0
        assert app.query_one("#tree").selected == app.selected
        app.mark("")
        await pilot.pause(0.1)
        assert "◆" in seen(app)

    use(lab, SIZES[0], script)
