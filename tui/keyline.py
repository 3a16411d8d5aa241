"""The last line: the keys that are live in the pane in view, as one text: it changes with every pane."""

from __future__ import annotations

from rich.style import Style
from rich.text import Text
from textual import events
from textual.screen import Screen
from textual.widgets import Static


class KeyLine(Static):
    """Keys and what they do; a click is a key."""

    DEFAULT_CSS = "KeyLine { height: 1; padding: 0 1; background: $panel; color: $foreground; }"

    def on_mount(self) -> None:
        """Follow what is focused."""
        self.screen.bindings_updated_signal.subscribe(self, self._changed)

    def _changed(self, screen: Screen[object]) -> None:
        words, seen = Text(no_wrap=True, overflow="ellipsis"), set[str]()
        for active in screen.active_bindings.values():
            binding = active.binding
            if not binding.show or not active.enabled or binding.action in seen:
                continue
            seen.add(binding.action)
            keys = Style(bold=True, meta={"key": binding.key})
            words.append(f"{self.app.get_key_display(binding)} ", keys)
            words.append(f"{binding.description}   ", Style(meta={"key": binding.key}))
        self.update(words, layout=False)

    async def on_click(self, event: events.Click) -> None:
        """Press the key."""
        if (key := event.style.meta.get("key")) is not None:
            self.app.simulate_key(key)
