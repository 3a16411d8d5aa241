"""Fixtures shared by several test files."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, settings

from asi_lab.records import (
    Analysis,
    Candidate,
    CandidateState,
    Check,
    Draw,
    Evaluation,
    Evidence,
    Judgement,
    Noise,
    Proposal,
    Score,
    TaskResult,
    Training,
)

MakeCandidate = Callable[..., Candidate]

settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


@pytest.fixture(scope="session", autouse=True)
def _nothing_granted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests neither know nor change what the user has granted."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


def _evidence(number: int, failure: CandidateState | None) -> Evidence:
    checks = (Check("causality", passed=failure is None, value=1e-9, tolerance=1e-4),)
    if failure is not None:
        return Evidence(checks, failure=failure, error=f"causality: position {number} sees the future")
    task = TaskResult("recall", 0.3, "choice_probability", True, 0.25, 500, {"acc": 0.31})
    loss = 4.0 - 0.001 * number
    return Evidence(
        checks,
        Training(162_000 + number, 90_000, 200, 100_000, loss + 0.1, 20.0, 5000.0, 300.0),
        Evaluation(loss, 65_536, (task,), 1e-6, 16, 3.0),
    )


def _score(fitness: float) -> Score:
    noise = Noise(0.012, 0.02, 0.008, 4, 3, 0.007, 0.034)
    return Score(fitness, 0.5, 0.5, 0.5, 0.01, 0.0123, Judgement(6.25, (), "rubric"), noise)


@pytest.fixture
def make_candidate() -> MakeCandidate:
    """Build a complete candidate: scored by default, failed for a failure state, the seed for id 0."""

    def make(
        number: int,
        parent: int = 0,
        *,
        state: CandidateState = CandidateState.DONE,
        name: str | None = None,
        change: str = "a decay per head",
        motivation: str = "DeltaNet never forgets.\n\nA gate per head lets it.",
        code: str | None = None,
        model: str = "",
        fitness: float | None = None,
        text: str = "# Analysis\n\nIt helps.",
    ) -> Candidate:
        scored = not state.is_failure and number > 0
        return Candidate(
            id=number,
            state=state,
            created=1_700_000_000.5 + 60 * number,
            updated=1_700_000_030.5 + 60 * number,
            draw=Draw(0, parent, 1, (0,)) if number else None,
            proposal=Proposal(
                name=name or f"delta_net_{number}",
                motivation=motivation,
                change=change,
                code=code or f"class DeltaNet:\n    number = {number}\n",
                researcher="grammar",
                model=model,
                genome={"decay": "head"},
                code_hash=f"hash{number}",
            ),
            evidence=_evidence(number, state if state.is_failure else None) if number else None,
            score=_score(0.5 + 0.001 * number if fitness is None else fitness) if scored else None,
            analysis=Analysis(text, "It helps.", (), ("slow",), "table") if scored else None,
        )

    return make


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A slow test hangs only after half an hour: on two busy cores some take ten minutes."""
    for item in items:
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(1800))
