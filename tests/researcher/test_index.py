"""Embedding and nearest motivations, with Annoy and without."""

import numpy as np
import pytest

from asi_lab.common.embedding import DIMENSION, embed
from asi_lab.researcher import index
from asi_lab.researcher.index import Index


def test_embedding_is_unit_and_repeats():
    vector = embed("A gated delta rule with a short convolution")
    assert vector.shape == (DIMENSION,)
    assert vector.dtype == np.float32
    assert np.linalg.norm(vector) == pytest.approx(1.0, abs=1e-6)
    assert np.array_equal(vector, embed("a gated  DELTA rule, with a short convolution!"))


def test_empty_text_has_no_direction():
    assert not embed("").any()
    assert Index(np.array([1]), embed("x y")[None]).nearest(embed(""), 1)[0].similarity == 0.0


def test_similar_texts_are_nearer_than_different_ones():
    a = embed("Add a long FIR branch of 31 taps beside the delta rule memory")
    b = embed("Add a long FIR branch of 63 taps beside the delta rule memory")
    c = embed("Replace the softmax router by independent sigmoid gates with a floor")
    assert a @ b > 0.7
    assert a @ c < 0.4


def random_units(count: int, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((count, DIMENSION)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture(params=["exact", "annoy"])
def index_kind(request, monkeypatch):
    if request.param == "annoy" and not index.annoy_available():
        pytest.skip("Annoy could not be built here")
    if request.param == "exact":
        monkeypatch.setattr(index, "annoy_available", lambda: False)
    return request.param


class TestIndex:
    """The contract of the index, for both ways of searching."""

    def test_nearest_equals_brute_force(self, index_kind):
        rows = random_units(600)
        index = Index(np.arange(100, 700), rows, exact_below=200)
        assert (index._annoy is not None) == (index_kind == "annoy")
        for query in random_units(20, seed=1):
            expected = np.argsort(-(rows @ query), kind="stable")[:5] + 100
            found = index.nearest(query, 5)
            assert [n.id for n in found] == expected.tolist()
            assert found[0].similarity == pytest.approx(float((rows @ query).max()), abs=1e-5)

    def test_added_vectors_are_found_at_once(self, index_kind):
        rows = random_units(500)
        index = Index(np.arange(300), rows[:300], exact_below=100)
        for i in range(300, 500):
            index.add(i, rows[i])
            assert index.nearest(rows[i], 1)[0].id == i
        assert len(index) == 500
        assert [index.nearest(rows[i], 1)[0].id for i in (0, 299, 300, 450)] == [0, 299, 300, 450]

    def test_empty_index_finds_nothing(self, index_kind):
        index = Index(np.zeros(0, np.int64), np.zeros((0, 0), np.float32))
        assert index.nearest(embed("anything"), 5) == []
        index.add(3, embed("anything"))
        assert [n.id for n in index.nearest(embed("anything"), 5)] == [3]

    def test_ties_go_to_the_older(self, index_kind):
        vector = random_units(1)[0]
        index = Index(np.array([4, 9, 2]), np.stack([vector] * 3))
        assert [n.id for n in index.nearest(vector, 2)] == [2, 4]
