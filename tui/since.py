"""What happened in a lab since it was last watched from here."""

from __future__ import annotations

import time
from collections import Counter

from asi_lab.records import SEED_ID, CandidateState
from asi_lab.tui.snapshot import Snapshot

LEAST_AWAY = 60.0
"""Seconds of absence that are not worth a word."""


def summary(snapshot: Snapshot, since: float) -> str:
    """What came to an end since then, in a line; empty where nothing did."""
    ended = [s for s in snapshot.summaries if s.id != SEED_ID and s.state.is_terminal and s.updated > since]
    if not ended or time.time() - since < LEAST_AWAY:
        return ""
    clock = time.strftime(
        "%H:%M" if time.time() - since < 86_400 else "%Y-%m-%d %H:%M", time.localtime(since)
    )
    states = Counter(s.state for s in ended)
    done = states.pop(CandidateState.DONE, 0)
    winners = {row.id for row in snapshot.board.candidates if row.beats_bar} if snapshot.board else set()
    won = sum(s.id in winners for s in ended)
    parts = [f"{len(ended)} tried", f"{done} scored", f"{won} beat the bar beyond noise"]
    parts += [f"{count} {state.value.replace('_', ' ')}" for state, count in states.most_common()]
    return f"since {clock}: {', '.join(parts)}"
