"""The last line: the keys that are live in the pane in view, as one text: it changes with every pane."""

from __future__ import annotations

from rich.style import Style
from rich.text import Text
from textual import events
from textual.screen import Screen
from textual.widgets import Static


class Clickable(Static):
    """Text whose parts stand for keys (`key` in their style's meta): a click presses the key."""

    async def on_click(self, event: events.Click) -> None:
        """Press the key."""
        if (key := event.style.meta.get("key")) is not None:
            self.app.simulate_key(key)


class KeyLine(Clickable):
    """Keys and what they do."""

    DEFAULT_CSS = "KeyLine { height: 1; padding: 0 1; background: $panel; color: $foreground; }"

    def on_mount(self) -> None:
        """Follow what is focused."""
        self.screen.bindings_updated_signal.subscribe(self, self._changed)

    def _changed(self, screen: Screen[object]) -> None:
        groups: dict[str, list[tuple[str, str]]] = {}
        for active in screen.active_bindings.values():
            binding = active.binding
            if binding.show and active.enabled:
                named = groups.setdefault(
                    binding.group.description if binding.group else binding.description, []
                )
                if (display := self.app.get_key_display(binding)) not in [shown for shown, _ in named]:
                    named.append((display, binding.key))
        words = Text(no_wrap=True, overflow="ellipsis")
        for description, keys in groups.items():
            for display, key in keys:
                words.append(f"{display} ", Style(bold=True, meta={"key": key}))
            words.append(f"{description}   ", Style(meta={"key": keys[0][1]}))
        self.update(words, layout=False)
