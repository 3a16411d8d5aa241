"""The bandit over planners."""

import pytest

from asi_lab.lab.summary import summarise
from asi_lab.llm.bandit import Arm, arms, choose
from asi_lab.records import CandidateState

S = CandidateState
NAMES = ["ollama:small", "openai:large"]


def past(make_candidate, *rows):
    """Summaries of a seed of fitness 0.5, and of candidates by model, state and fitness."""
    import msgspec

    seed = msgspec.structs.replace(summarise(make_candidate(0)), fitness=0.5, fitness_noise=0.01)
    found = [seed]
    for number, (model, state, fitness) in enumerate(rows, start=1):
        found.append(
            msgspec.structs.replace(
                seed, id=number, parent=0, model=model, state=state, fitness=fitness, fitness_noise=0.01
            )
        )
    return found


def test_each_is_asked_once_first(make_candidate):
    found = arms(NAMES, past(make_candidate), {}, 0.1)
    assert [arm.index for arm in found] == [None, None]
    assert choose(found) == "ollama:small"
    found = arms(NAMES, past(make_candidate, ("ollama:small", S.DONE, 0.9)), {}, 0.1)
    assert choose(found) == "openai:large"


def test_rewards_by_what_became_of_the_candidates(make_candidate):
    rows = [
        ("ollama:small", S.BROKEN, None),
        ("ollama:small", S.DIVERGED, None),  # it passed the checks
        ("ollama:small", S.DONE, 0.5),  # as its parent
        ("openai:large", S.DONE, 0.9),
        ("openai:large", S.TRAINING, None),  # on its way: a pull without a reward
    ]
    small, large = arms(NAMES, past(make_candidate, *rows), {}, 0.0)
    assert (small.pulls, small.trained, small.better) == (3, 2, 0)
    assert small.reward == pytest.approx((0.0 + 0.2 + (0.2 + 0.8 * 0.5)) / 3)
    assert (large.pulls, large.trained, large.better) == (2, 1, 1)
    assert large.reward == pytest.approx(1.0 / 2)


def test_the_better_is_asked_more_and_the_other_not_forgotten(make_candidate):
    rows = []
    for _ in range(100):
        asked = choose(arms(NAMES, past(make_candidate, *rows), {}, 0.1))
        rows.append((asked, S.DONE, 0.55 if asked == "openai:large" else 0.49))
    asked = [model for model, _, _ in rows]
    assert asked.count("openai:large") > 60
    assert "ollama:small" in asked[20:]


def test_equal_planners_are_told_apart_by_their_price(make_candidate):
    rows = [("ollama:small", S.DONE, 0.6), ("openai:large", S.DONE, 0.6)]
    summaries = past(make_candidate, *rows)
    found = arms(NAMES, summaries, {2: 0.5}, 0.1)
    assert found[1].dollars == 0.5
    assert found[0].index - found[1].index == pytest.approx(0.1)
    assert choose(found) == "ollama:small"
    assert choose(arms(NAMES[::-1], summaries, {2: 0.5}, 0.0)) == "openai:large"


def test_names_that_are_no_longer_listed_do_not_count(make_candidate):
    found = arms(["openai:large"], past(make_candidate, ("ollama:small", S.DONE, 0.9)), {}, 0.1)
    assert found == [Arm("openai:large")]
