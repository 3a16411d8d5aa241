import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asi_lab.data.prepare import prepare
from asi_lab.data.shards import TokenStream, held_out_windows, open_shard, permute
from asi_lab.errors import DataError
from asi_lab.settings import Data

CONTEXT = 16


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    text = "\n\n".join(
        f"Paragraph {n} says that {n * n} is the square of {n}, and so on." for n in range(3_000)
    )
    (folder / "text.txt").write_text(text)
    prepare(Data(source=f"text:{folder}/text.txt", tokenizer="bpe:400"), folder / "data")
    return folder / "data"


def windows_of(tokens: np.ndarray, indices: np.ndarray) -> np.ndarray:
    return np.stack([tokens[i * CONTEXT : (i + 1) * CONTEXT + 1] for i in indices]).astype(np.int64)


@given(size=st.integers(1, 3_000), key=st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 1000)))
def test_permute_is_a_permutation(size, key):
    assert sorted(permute(np.arange(size), size, key).tolist()) == list(range(size))


def test_permute_is_fixed_for_all_time():
    """A change of these numbers changes the data order of every existing lab."""
    assert permute(np.arange(10), 10, (0, 0)).tolist() == [0, 7, 4, 2, 5, 9, 8, 3, 1, 6]


def test_permute_spreads_evenly():
    """Mean displacement of a random permutation of n is n / 3, and about one point stays fixed."""
    size = 4_096
    for seed in range(5):
        sent = permute(np.arange(size), size, (seed, 0))
        assert abs(np.abs(sent - np.arange(size)).mean() / size - 1 / 3) < 0.02
        assert (sent == np.arange(size)).sum() < 8
        assert abs(np.corrcoef(sent[:-1], sent[1:])[0, 1]) < 0.06


def test_every_window_once_per_epoch(directory):
    stream = TokenStream(directory, CONTEXT, batch=1, seed=3)
    tokens = open_shard(directory, "train.bin")
    assert stream.windows == (len(tokens) - 1) // CONTEXT > 1_000
    expected = sorted(map(bytes, windows_of(tokens, np.arange(stream.windows))))
    epochs = []
    for epoch in range(2):
        steps = range(epoch * stream.windows, (epoch + 1) * stream.windows)
        epochs.append([stream.batch(step)[0].tobytes() for step in steps])
    assert sorted(epochs[0]) == sorted(epochs[1]) == expected
    assert epochs[0] != epochs[1]


def test_shape_and_type_across_the_end_of_an_epoch(directory):
    windows = TokenStream(directory, CONTEXT, batch=1, seed=0).windows
    stream = TokenStream(directory, CONTEXT, batch=windows + 5, seed=0)
    batch = stream.batch(0)
    assert batch.shape == (windows + 5, CONTEXT + 1)
    assert batch.dtype == np.int64
    single = TokenStream(directory, CONTEXT, batch=1, seed=0)
    assert np.array_equal(batch[-1], single.batch(windows + 4)[0])


def test_order_depends_on_the_seed_alone(directory):
    first, same, other = (TokenStream(directory, CONTEXT, batch=8, seed=seed) for seed in (1, 1, 2))
    in_order = [first.batch(step) for step in range(20)]
    backwards = [same.batch(step) for step in reversed(range(20))]
    assert all(np.array_equal(a, b) for a, b in zip(in_order, reversed(backwards), strict=True))
    assert not any(np.array_equal(first.batch(step), other.batch(step)) for step in range(20))


def test_batch_size_does_not_change_the_order(directory):
    small, large = (TokenStream(directory, CONTEXT, batch=batch, seed=5) for batch in (4, 12))
    assert np.array_equal(np.concatenate([small.batch(step) for step in range(3)]), large.batch(0))


@pytest.mark.parametrize("name", ["marks.bin", "validation.bin", "claims.bin"])
def test_held_out_windows_are_the_first_ones_and_share_no_token(directory, name):
    shard = open_shard(directory, name)
    windows = held_out_windows(directory, name, CONTEXT, 10 * CONTEXT + 3)
    assert windows.dtype == np.int64
    assert windows.shape == (10, CONTEXT + 1)
    assert np.array_equal(windows.flatten(), shard[: 10 * (CONTEXT + 1)])
    assert len(held_out_windows(directory, name, CONTEXT, 1)) == 1
    assert len(held_out_windows(directory, name, CONTEXT, 10**9)) == len(shard) // (CONTEXT + 1)
    whole = held_out_windows(directory, name, len(shard) - 1, 1)
    assert np.array_equal(whole[0], shard)


def test_context_longer_than_the_shard(directory):
    with pytest.raises(DataError, match="too few for one window of 10,000,001"):
        TokenStream(directory, 10_000_000, batch=1, seed=0)
    with pytest.raises(DataError, match="too few for one window"):
        held_out_windows(directory, "marks.bin", 10_000_000, 100)


def test_negative_step(directory):
    with pytest.raises(ValueError, match="counted from 0"):
        TokenStream(directory, CONTEXT, batch=1, seed=0).batch(-1)
