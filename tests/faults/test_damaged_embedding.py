"""Damaged embeddings, and an index on disk that nobody wrote."""

from __future__ import annotations

import lmdb
import numpy as np
import pytest

from asi_lab.common.embedding import DIMENSION, embed
from asi_lab.lab import Lab, Store

DAMAGES = {
    "too short": np.ones(DIMENSION - 1, np.float32),
    "too long": np.ones(DIMENSION + 1, np.float32),
    "empty": np.zeros(0, np.float32),
    "nan": np.full(DIMENSION, np.nan, np.float32),
    "one nan": np.array([np.nan, *[0.0] * (DIMENSION - 1)], np.float32),
    "infinite": np.full(DIMENSION, np.inf, np.float32),
    "not a unit": np.ones(DIMENSION, np.float32),
}


def embeddings(lab: Lab) -> list:
    with Store.open_readonly(lab.store) as store:
        ids, vectors = store.vectors()
    return [ids.tolist(), vectors.tolist()]


def results(lab: Lab) -> list:
    with Store.open_readonly(lab.store) as store:
        return [(c.id, c.state, c.proposal, c.score, c.commit) for c in store.candidates()]


def repairs(lab: Lab) -> list[str]:
    with Store.open_readonly(lab.store) as store:
        return [event.message for event in store.events(limit=10**6) if event.kind == "repair"]


def overwrite(lab: Lab, numbers: list[int], value: np.ndarray) -> None:
    with Store.open(lab.store) as store:
        for number in numbers:
            store.put(store.get(number), vector=value)


@pytest.mark.parametrize(
    "numbers", [pytest.param([2], marks=pytest.mark.slow), [1, 2, 3, 4]], ids=["one", "all"]
)
@pytest.mark.parametrize("damage", DAMAGES)
def test_an_embedding_that_is_none_is_made_again_and_the_search_goes_on(
    undisturbed, further, engines, copy, damage, numbers
):
    lab = copy(undisturbed)
    overwrite(lab, numbers, DAMAGES[damage])
    looked = engines.program(lab, "fsck")
    assert looked.code == 1
    assert all(f"candidate {number}: its embedding is no unit vector" in looked.said for number in numbers)
    engines.finish(lab, 5)
    assert repairs(lab) == [f"candidate {number}: its embedding is no unit vector" for number in numbers]
    assert embeddings(lab) == embeddings(further)
    assert results(lab) == results(further)


@pytest.mark.parametrize(
    "value",
    [b"", b"abc", b"\0" * 4, b"\0" * 1540, b"\xff" * 1540],
    ids=["empty", "short", "four zeros", "zeros", "ones"],
)
def test_an_embedding_whose_bytes_changed_is_made_again(undisturbed, further, engines, copy, value):
    lab = copy(undisturbed)
    environment = lmdb.open(str(lab.store), max_dbs=16, lib_version=0)
    with environment.begin(write=True, db=environment.open_db(b"vectors")) as transaction:
        transaction.put((3).to_bytes(8, "big"), value)
    environment.close()
    assert engines.program(lab, "fsck", "--repair").code == 0
    assert engines.program(lab, "fsck").code == 0
    engines.finish(lab, 5)
    assert embeddings(lab) == embeddings(further)
    assert results(lab) == results(further)


def test_an_index_on_disk_is_nothing_to_the_engine(undisturbed, further, engines, copy):
    lab = copy(undisturbed)
    for name in ("vectors.ann", "manifest.json", "0001/x"):
        (lab.path / "index" / name).parent.mkdir(parents=True, exist_ok=True)
        (lab.path / "index" / name).write_bytes(b"\xff garbage" * 1000)
    engines.finish(lab, 5)
    assert results(lab) == results(further)
    assert embeddings(lab) == embeddings(further)
    assert repairs(lab) == []


def test_every_embedding_that_is_made_is_one(undisturbed):
    with Store.open_readonly(undisturbed.store) as store:
        for candidate in store.candidates(1):
            assert np.array_equal(store.vector(candidate.id), embed(candidate.proposal.motivation))
