"""Which tasks a lab measures, with what there is of data sets given; looking itself is tests/scorer's."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from asi_lab.errors import ConfigError, DataError
from asi_lab.lab import Store, choice, config
from asi_lab.protocol import TaskData
from asi_lab.records import BaselineRun, CandidateState, Evidence

NAMES = '"asi_recall", "piqa", "boolq"'
DATA = {"piqa": "baber/piqa", "boolq": "aps/super_glue boolq", "sciq": "allenai/sciq"}


@pytest.fixture
def hub(monkeypatch):
    """What is in the cache, what is on the hub, and which calls were made: (offline, names)."""

    class Hub:
        def __init__(self):
            self.cached, self.online, self.calls = set(), set(), []

        def run(self, module, arguments, tick, environment=None):
            assert module == "asi_lab.scorer.fetch"
            offline = (environment or {}).get("HF_HUB_OFFLINE") == "1"
            self.calls.append((offline, arguments[1:]))
            self.cached |= set() if offline else self.online & {*arguments[1:]}
            found = [
                TaskData(name, (DATA[name],), 10) if name in self.cached
                else TaskData(name, (DATA[name],), None, "ConnectionError: no network")
                for name in arguments[1:]
            ]  # fmt: skip
            return [msgspec.json.encode(one).decode() for one in found]

    hub = Hub()
    monkeypatch.setattr(choice, "run_module", hub.run)
    return hub


def made(more: str = "", verify: str = ""):
    return config.parse(f"preset='micro'\n[evaluate]\ntasks=[{NAMES}]\n{more}\n[verify]\ntasks=[{verify}]\n")


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "store") as store:
        yield store


def settle(store, settings, text="search"):
    return choice.settled(settings, store, text, Path())


def test_what_is_there_is_not_asked_of_the_hub_and_what_is_missing_is_downloaded(store, hub):
    hub.cached, hub.online = {"piqa"}, {"boolq"}
    assert settle(store, made()).evaluate.tasks == ("asi_recall", "piqa", "boolq")
    assert hub.calls == [(True, ["piqa", "boolq"]), (False, ["boolq"])]
    assert choice._key("search", "").read(store) == choice.Chosen(("asi_recall", "piqa", "boolq"))


def test_a_lab_without_benchmarks_asks_nobody(store, hub):
    settings = config.from_preset("micro")
    assert settle(store, settings).evaluate == settings.evaluate
    assert hub.calls == []


def test_what_cannot_be_had_is_refused_by_name_with_the_command(store, hub):
    hub.cached = {"piqa"}
    with pytest.raises(DataError) as refused:
        settle(store, made())
    for words in ("boolq (aps/super_glue boolq)", "no network", "asi-lab fetch", 'evaluate.missing = "skip"'):
        assert words in str(refused.value)
    assert "piqa" not in str(refused.value)
    assert choice._key("search", "").read(store) is None


def test_what_is_skipped_stays_skipped_for_everybody(store, hub):
    hub.cached = {"piqa"}
    settings = made('missing="skip"')
    assert settle(store, settings).evaluate.tasks == ("asi_recall", "piqa")
    assert store.last_events(1)[0].message.endswith("for good: boolq (aps/super_glue boolq)")
    hub.cached = {"piqa", "boolq"}
    assert settle(store, settings).evaluate.tasks == ("asi_recall", "piqa")
    hub.cached = set()
    with pytest.raises(DataError, match=r"none of piqa .* has begun with them, so none can be left out"):
        settle(store, settings)


def test_a_lab_needs_a_task_to_begin(store, hub):
    settings = config.parse("preset='micro'\n[evaluate]\ntasks=['piqa']\nmissing='skip'\n")
    with pytest.raises(DataError, match="none of piqa"):
        settle(store, settings)


def test_a_lab_of_before_has_begun_with_all(store, hub):
    store.put_baseline(
        BaselineRun("delta_net", 0, Evidence(failure=CandidateState.DIVERGED)), ("note", "", {})
    )
    with pytest.raises(DataError, match="has begun with them"):
        settle(store, made('missing="skip"'))


def test_tasks_beside_claims_are_chosen_when_these_begin_and_stay(store, hub):
    hub.cached = {"piqa", "boolq"}
    assert settle(store, made(verify="'sciq'")).verify.tasks == ("sciq",)
    skipping = made('missing="skip"', verify="'sciq', 'asi_copy'")
    assert settle(store, skipping, "claims").verify.tasks == ("asi_copy",)
    with pytest.raises(ConfigError, match=r"verify\.tasks: expected .* sciq, asi_copy; found none"):
        settle(store, made('missing="skip"'), "claims")
    with pytest.raises(ConfigError, match=r"evaluate\.tasks: expected"):
        settle(store, config.from_preset("micro"))


def test_a_folder_of_copies_is_relative_to_the_lab(tmp_path):
    assert choice.copies(made(), tmp_path) == ""
    assert choice.copies(made("datasets='../c'"), tmp_path / "lab") == str(tmp_path / "c")
