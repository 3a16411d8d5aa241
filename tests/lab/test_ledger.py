"""Entries, their sum, and the calls behind them."""

import threading

import pytest

from asi_lab.lab import Store, spending
from asi_lab.lab.spending import Spent


def call(candidate: int | None, dollars: float | None = 0.5) -> dict:
    return {
        "candidate": candidate,
        "role": "planner",
        "model": "openai:a",
        "sent_bytes": 400,
        "prompt_tokens": 100,
        "completion_tokens": 10,
        "seconds": 2.0,
        "dollars": dollars,
    }


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "store") as opened:
        yield opened


def test_an_empty_ledger(store):
    assert store.ledger.spent() == Spent()
    assert store.ledger.entries() == {}
    assert store.ledger.calls(3) == []
    assert store.ledger.call(3, "a-1") is None


def test_an_entry_counts_once(store):
    assert store.ledger.add("7/a", call(7))
    assert not store.ledger.add("7/a", call(7, dollars=9.0))
    assert store.ledger.entries() == {"7/a": call(7)}
    assert store.ledger.spent() == Spent(1, 100, 10, 2.0, 0.5)


def test_the_sum_is_that_of_the_entries_calls_and_trials_apart(store):
    store.ledger.add_call(7, "a-1", {"started": 2.0, "text": "second"}, call(7))
    store.ledger.add_call(7, "b-1", {"started": 1.0, "text": "first"}, call(7, dollars=None))
    store.ledger.add_call(7, "b-1", {"started": 1.0, "text": "again"}, call(7))
    store.ledger.add("7/trial-1", spending.of_trial(7, 30.0, on_gpu=True))
    store.ledger.add("delta_net-seed0/trial-1", spending.of_trial(None, 20.0, on_gpu=False))
    store.ledger.add("8/c", call(8))
    spent = store.ledger.spent()
    assert spent == spending.total(store.ledger.entries().values())
    assert (spent.calls, spent.tokens, spent.dollars, spent.unpriced) == (3, 330, 1.0, 1)
    assert (spent.seconds, spent.trial_seconds, spent.gpu_seconds) == (6.0, 50.0, 30.0)
    assert store.ledger.spent_on(7).trial_seconds == 30.0
    assert store.ledger.spent_on(7).calls == 2
    assert [one["text"] for one in store.ledger.calls(7)] == ["first", "second"]
    assert store.ledger.call(7, "b-1") == {"started": 1.0, "text": "first"}
    assert len(spending.of_models(store.ledger.entries().values())) == 3


def test_the_sum_survives_reopening_and_many_writers(tmp_path):
    with Store.open(tmp_path / "store") as store:
        threads = [
            threading.Thread(target=lambda n=n: [store.ledger.add(f"{n}/{i}", call(n)) for i in range(20)])
            for n in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    with Store.open_readonly(tmp_path / "store") as store:
        assert store.ledger.spent() == Spent(80, 8000, 800, 160.0, 40.0)
