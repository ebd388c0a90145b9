"""Batches: every clip once, like with like, and padding that is zero and little."""

import numpy as np
import pytest
import torch

from valence_lib.batches import KeptClips, in_order_of_length, load, pad, shuffled, within_frames

LENGTHS = np.random.default_rng(0).integers(1, 200, 1000)
ROWS = np.random.default_rng(1).permutation(1000)[:777]  # neither all rows, nor in order


def _padding(batches):
    return sum(int((LENGTHS[rows].max() - LENGTHS[rows]).sum()) for rows in batches)


def test_pad_keeps_the_frames_and_fills_with_zeros():
    generator = np.random.default_rng(2)
    clips = [generator.normal(size=(n, 4)).astype(np.float32) for n in (3, 1, 5)]
    padded, lengths = pad(clips)
    assert (padded.shape, padded.dtype) == ((3, 5, 4), torch.float32)
    assert (lengths.tolist(), lengths.dtype) == ([3, 1, 5], torch.int64)
    for row, clip in enumerate(clips):
        assert np.array_equal(padded[row, : len(clip)].numpy(), clip)
        assert not padded[row, len(clip) :].any()


def test_pad_takes_read_only_and_transposed_spectrograms_without_a_warning(recwarn):
    torch.set_warn_always(True)
    clip = np.arange(6, dtype=np.float32).reshape(2, 3).T
    clip.flags.writeable = False
    padded, _ = pad([clip])
    assert np.array_equal(padded[0].numpy(), clip)
    padded += 1
    torch.set_warn_always(False)
    assert clip[0, 0] == 0
    assert [str(warning.message) for warning in recwarn] == []


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


def test_load_reads_each_row_of_each_batch_in_its_place():
    read = []

    def spectrogram(row):
        read.append(row)
        return np.full((LENGTHS[row], 2), row, np.float32)

    batches = in_order_of_length(ROWS[:50], LENGTHS, 8)
    loaded = load(batches, spectrogram)
    assert read == []  # nothing is read before it is asked for
    for rows, batch in zip(batches, loaded, strict=True):
        assert np.array_equal(batch.rows, rows)
        assert np.array_equal(batch.lengths.numpy(), LENGTHS[rows])
        assert np.array_equal(batch.log_mel[:, 0, 0].numpy(), rows)
    assert sorted(read) == sorted(ROWS[:50])
    assert {type(row) for row in read} == {int}


def _clip(row: int) -> np.ndarray:
    return np.full((LENGTHS[row], 4), row, np.float32)


@pytest.mark.parametrize(("room", "reads"), [(1 << 30, 20), (0, 60), (int(LENGTHS[:20].sum()) * 16 - 1, 22)])
def test_clips_are_read_once_as_far_as_memory_is_granted(room: int, reads: int):
    read: list[int] = []

    def reading(row: int) -> np.ndarray:
        read.append(row)
        return _clip(row)

    kept = KeptClips(reading, torch.device("cpu"), room)
    for _ in range(3):
        for batch in kept.load([np.arange(8), np.arange(19, 7, -1)]):
            assert np.array_equal(batch.lengths.numpy(), LENGTHS[batch.rows])
            assert torch.equal(batch.log_mel, pad([_clip(row) for row in batch.rows])[0])
    assert len(read) == reads


def test_kept_clips_lie_on_the_device_that_computes_but_their_lengths_on_the_cpu():
    (batch,) = KeptClips(_clip, torch.device("meta"), 1 << 30).load([np.array([3, 4])])
    assert (batch.log_mel.device.type, batch.lengths.device.type) == ("meta", "cpu")


def test_within_frames_bounds_the_padded_frames_and_keeps_every_row():
    lengths = np.array([50, 3, 7, 500, 3, 20, 21])
    batches = within_frames(lengths, 60)
    assert [batch.tolist() for batch in batches] == [[1, 4, 2], [5, 6], [0], [3]]
    assert within_frames(lengths[:0], 60) == []
