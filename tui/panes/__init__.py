"""The panes of the terminal lab, one module each. All take snapshots by `show` and share one selection."""
