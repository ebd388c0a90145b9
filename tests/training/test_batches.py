"""Batches: every clip once, clips of similar length together, padded with zeros."""

import numpy as np
import pytest
import torch

from valence_lib.training.batches import in_order_of_length, load, shuffled, within_frames

LENGTHS = np.random.default_rng(0).integers(1, 200, 1000)
ROWS = np.random.default_rng(1).permutation(1000)[:777]  # neither all rows, nor in order


def _padding(batches):
    return sum(int((LENGTHS[rows].max() - LENGTHS[rows]).sum()) for rows in batches)


@pytest.mark.parametrize("batch_size", [1, 32, 1000])
def test_in_order_of_length_takes_every_row_once_from_short_to_long(batch_size):
    batches = in_order_of_length(ROWS, LENGTHS, batch_size)
    rows = np.concatenate(batches)
    assert sorted(rows) == sorted(ROWS)
    assert (np.diff(LENGTHS[rows]) >= 0).all()
    assert {len(batch) for batch in batches[:-1]} <= {batch_size}
    assert 1 <= len(batches[-1]) <= batch_size


@pytest.mark.parametrize("batch_size", [1, 7, 32, 1000])
def test_shuffled_takes_every_row_once_and_has_one_small_batch_at_most(batch_size):
    batches = shuffled(ROWS, LENGTHS, batch_size, np.random.default_rng(0))
    assert sorted(np.concatenate(batches)) == sorted(ROWS)
    sizes = sorted(len(batch) for batch in batches)
    assert sizes[-1] <= batch_size
    assert all(size == batch_size for size in sizes[1:])


def test_shuffled_wastes_less_padding_than_random_batches():
    padding = random_padding = 0
    for seed in range(5):
        generator = np.random.default_rng(seed)
        padding += _padding(shuffled(ROWS, LENGTHS, 32, generator))
        mixed = generator.permutation(ROWS)
        random_padding += _padding([mixed[start : start + 32] for start in range(0, len(mixed), 32)])
    assert padding < 0.4 * random_padding


def test_length_does_not_fix_the_order_of_the_batches():
    # Eight batches, which are sorted by length together: the longest clips come first, last and between.
    places = set()
    for seed in range(20):
        batches = shuffled(ROWS[:256], LENGTHS, 32, np.random.default_rng(seed))
        places.add(int(np.argmax([LENGTHS[rows].mean() for rows in batches])))
    assert len(places) > 4


def test_load_reads_each_row_in_its_place_and_pads_with_zeros():
    read = []

    def frames(row):
        read.append(row)
        return torch.full((LENGTHS[row], 2), float(row + 1))

    batches = in_order_of_length(ROWS[:50], LENGTHS, 8)
    loaded = load(batches, frames)
    assert read == []  # nothing is read before it is requested
    for rows, batch in zip(batches, loaded, strict=True):
        assert np.array_equal(batch.rows, rows)
        assert np.array_equal(batch.lengths.numpy(), LENGTHS[rows])
        assert (batch.frames.dtype, batch.lengths.dtype) == (torch.float32, torch.int64)
        expected = np.arange(LENGTHS[rows].max()) < LENGTHS[rows][:, None]
        assert np.array_equal(batch.frames[:, :, 1].numpy(), expected * (rows[:, None] + 1))
    assert sorted(read) == sorted(ROWS[:50])
    (batch,) = load([np.array([3, 4])], lambda row: frames(row).to("meta"))
    assert (batch.frames.device.type, batch.lengths.device.type) == ("meta", "cpu")


def test_within_frames_bounds_the_padded_frames_and_keeps_every_row():
    lengths = np.array([50, 3, 7, 500, 3, 20, 21])
    batches = within_frames(lengths, 60)
    assert [batch.tolist() for batch in batches] == [[1, 4, 2], [5, 6], [0], [3]]
    assert within_frames(lengths[:0], 60) == []
