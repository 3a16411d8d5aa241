"""Every key on every pane, at both sizes: it reaches what it is for, and nothing breaks."""

from __future__ import annotations

import pytest
from textual.binding import Binding

from asi_lab.tui.app import PANES, LabApp, scopes
from asi_lab.tui.dialogs import Help
from tests.thinning import one_in
from tests.tui.labs import EACH_SIZE, SIZES, use

LEAVES = {"quit", "background"}
"""These have tests of their own, in a terminal."""


def of_a_pane(pane: str) -> list[Binding]:
    return [binding for binding in scopes()[pane] if binding.id not in LEAVES]


def of_all_panes(pane: str) -> list[Binding]:
    """Those that the pane does not take for itself."""
    taken = {key for binding in scopes()[pane] for key in binding.key.split(",")}
    return [b for b in scopes()[""] if b.id not in LEAVES and not set(b.key.split(",")) & taken]


@pytest.mark.parametrize("size", EACH_SIZE, ids=lambda size: "x".join(map(str, size)))
@pytest.mark.parametrize(
    ("pane", "bindings"),
    [
        *(pytest.param(*case.values, of_a_pane, marks=case.marks) for case in one_in(2, PANES)),
        *(pytest.param(*case.values, of_all_panes, marks=case.marks) for case in one_in(len(PANES), PANES)),
    ],
)
def test_every_key_reaches_its_action(lab, pane, bindings, size, monkeypatch):
    done: list[str] = []
    original = LabApp.run_action

    async def run_action(self, action, default_namespace=None, namespaces=None):
        done.append(action if isinstance(action, str) else action[-1])
        return await original(self, action, default_namespace, namespaces)

    monkeypatch.setattr(LabApp, "run_action", run_action)

    async def script(app, pilot) -> None:
        for binding in bindings(pane):
            if app.check_action(binding.action.partition("(")[0], ()) is False:
                continue  # what only a recording has
            for key in binding.key.split(","):
                app.action_pane(pane)
                await pilot.pause()
                done.clear()
                await pilot.press(key)
                assert binding.action in done, (pane, key)
                while len(app.screen_stack) > 1:
                    app.pop_screen()
                await pilot.pause()
                if app.focused is not None and app.focused.id in ("commands", "filter"):
                    await pilot.press("escape")
        assert app.return_code is None

    use(lab, size, script)


@pytest.mark.parametrize("size", EACH_SIZE)
def test_help_lists_the_live_keys_of_every_pane(lab, size):
    async def script(app, pilot) -> None:
        for name in PANES:
            app.action_pane(name)
            await pilot.pause()
            await pilot.press("question_mark")
            await pilot.pause(0.1)
            assert isinstance(app.screen, Help)
            words = [description for _, description in app.screen.keys]
            for binding in scopes()[name]:
                assert binding.description in words, (name, binding.description)
            await pilot.press("escape")
            await pilot.pause()

    use(lab, size, script)


def test_the_last_line_can_be_clicked(lab):
    async def script(app, pilot) -> None:
        app.action_pane("curves")
        await pilot.pause(0.1)
        line = app.query_one("KeyLine")
        shown = line.render_line(0).text
        await pilot.click(line, offset=(shown.index("Log") + 1, 0))
        await pilot.pause(0.1)
        assert app._panes["curves"].logarithmic
        shown = app.query_one("#tabs").render_line(0).text
        await pilot.click("#tabs", offset=(shown.index("6 agents") + 3, 0))
        await pilot.pause(0.1)
        assert app.pane.id == "agents"

    use(lab, SIZES[1], script)
