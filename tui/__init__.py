"""The terminal lab: a viewer and remote control of an engine in another process.

It opens the store read-only and gives orders as files, so closing the terminal never costs a search.

    reader (a thread, once a second) -> Snapshot -> panes;   keys -> orders -> engine
"""

from __future__ import annotations

from asi_lab.lab import Lab


def run(lab: Lab, *, readonly: bool = False) -> int:
    """Show a lab until the user leaves; returns the exit status.

    Raises:
        ConfigError: the lab's settings are wrong.
    """
    from asi_lab.tui.app import LabApp

    return LabApp(lab, readonly=readonly).run() or 0
