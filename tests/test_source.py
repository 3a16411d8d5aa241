"""Source code as a tree, and without prose."""

from __future__ import annotations

import threading

from asi_lab import references
from asi_lab.source import parsed, without_prose


def test_prose_is_left_out():
    assert without_prose('"""Great."""\ndef f():\n    """The best."""  # ever\n') == "def f():\n    pass"


def test_many_threads_may_parse_at_once():
    code, faults = references.source("delta_net"), []

    def work() -> None:
        try:
            for _ in range(30):
                parsed(code)
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
