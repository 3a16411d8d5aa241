"""The terminal lab: a viewer and remote control of an engine in another process.

It opens the store read-only and gives orders as files, so closing the terminal never costs a search.

    Reader or Recording (a thread, once a second) -> Snapshot -> panes;   keys, commands -> orders -> engine
"""

from __future__ import annotations

from asi_lab.lab import Lab


def run(
    lab: Lab, *, readonly: bool = False, replay: bool = False, ascii_only: bool = False, title: str = ""
) -> int:
    """Show a lab, or `replay` its search from the beginning, until the user leaves; returns the exit status.

    Raises:
        ConfigError: the lab's settings, or the user's preferences, are wrong.
        UsageError: there is no search to play again.
    """
    import msgspec

    from asi_lab.tui import ascii, preferences
    from asi_lab.tui.app import LabApp
    from asi_lab.tui.recording import Recording
    from asi_lab.view import tables

    preferred = preferences.load()
    if ascii_only or ascii.is_needed():
        preferred = msgspec.structs.replace(preferred, ascii=True)
    recording = Recording(lab) if replay else None
    app = LabApp(lab, readonly=readonly, recording=recording, title=title, preferred=preferred)
    status = app.run() or 0
    if status == 0:
        going_on = "The search goes on. " if lab.exists and lab.engine_pid() is not None else ""
        print(f"{going_on}Come back with: {tables.command(lab, '').strip()}")
    return status
