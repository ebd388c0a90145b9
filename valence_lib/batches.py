"""Clips of like length -> padded tensors and lengths.

Batches of clips of like length waste little on padding. So that length does not fix who meets whom,
each epoch shuffles all clips, sorts by length only within pools of some batches, and shuffles the
batches.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.utils.rnn import pad_sequence

from valence_lib.features import LogMel

_BATCHES_PER_POOL = 8


@dataclass(frozen=True)
class Batch:
    """Some clips as one tensor.

    Args:
        rows [shape=(batch,)]: which rows of the store these are.
        log_mel [shape=(batch, frames, n_mels), dtype=float32]: padded on the right with zeros; on the device
            that computes.
        lengths [shape=(batch,), dtype=int64]: each clip's own frames; on the CPU.
    """

    rows: NDArray[np.int64]
    log_mel: torch.Tensor
    lengths: torch.Tensor


def pad(clips: Sequence[LogMel]) -> tuple[torch.Tensor, torch.Tensor]:
    """Spectrograms of unlike length as one tensor, padded on the right with zeros, and their lengths.

    Args:
        clips: each [shape=(frames, n_mels)].
    """
    lengths = [len(clip) for clip in clips]
    # Filled by numpy: torch warns of the read-only arrays that a memory-mapped store gives.
    padded = np.zeros((len(clips), max(lengths), clips[0].shape[1]), np.float32)
    for row, clip in enumerate(clips):
        padded[row, : len(clip)] = clip
    return torch.from_numpy(padded), torch.tensor(lengths)


def own_frames(frames: int, lengths: torch.Tensor) -> torch.Tensor:
    """Which frames of padded clips are a clip's own [shape=(batch, frames)]; on the device of `lengths`."""
    return torch.arange(frames, device=lengths.device) < lengths[:, None]


def in_order_of_length(
    rows: NDArray[np.int64], lengths: NDArray[np.int64], batch_size: int
) -> list[NDArray[np.int64]]:
    """The rows in batches from short clips to long, the same every time: for prediction."""
    ordered = rows[np.argsort(lengths[rows], kind="stable")]
    return [ordered[start : start + batch_size] for start in range(0, len(ordered), batch_size)]


def within_frames(lengths: NDArray[np.int64], most_frames: int) -> list[NDArray[np.int64]]:
    """All rows in batches from short clips to long, each of at most `most_frames` frames with padding, or of
    one clip that alone has more: for prediction in bounded memory."""
    batches: list[list[int]] = [[]]
    for row in np.argsort(lengths, kind="stable").tolist():
        if batches[-1] and (len(batches[-1]) + 1) * lengths[row] > most_frames:
            batches.append([])
        batches[-1].append(row)
    return [np.array(batch, dtype=np.int64) for batch in batches if batch]


def shuffled(
    rows: NDArray[np.int64], lengths: NDArray[np.int64], batch_size: int, generator: np.random.Generator
) -> list[NDArray[np.int64]]:
    """The rows in random batches of clips of like length: for one epoch of training.

    Every row comes exactly once; only one batch can be smaller than `batch_size`.
    """
    mixed = generator.permutation(rows)
    pool = batch_size * _BATCHES_PER_POOL
    batches = []
    for start in range(0, len(mixed), pool):
        batches += in_order_of_length(mixed[start : start + pool], lengths, batch_size)
    return [batches[number] for number in generator.permutation(len(batches))]


def load(batches: Sequence[NDArray[np.int64]], read: Callable[[int], LogMel]) -> Iterator[Batch]:
    """Read the batches one after the other; `read` gives a row's standardised spectrogram."""
    for rows in batches:
        yield Batch(rows, *pad([read(int(row)) for row in rows]))


class KeptClips:
    """Clips of a training: read once, and kept on the device that computes as far as memory is granted.

    Args:
        read: gives a row's standardised spectrogram, in memory of its own.
        device: where batches are wanted.
        most_bytes: of the clips that are kept; others are read again for every batch.
    """

    def __init__(self, read: Callable[[int], LogMel], device: torch.device, most_bytes: int):
        self._read, self._device, self._room = read, device, most_bytes
        self._kept: dict[int, torch.Tensor] = {}

    def load(self, batches: Sequence[NDArray[np.int64]]) -> Iterator[Batch]:
        """Batches one after the other."""
        for rows in batches:
            clips = [self._clip(int(row)) for row in rows]
            lengths = torch.tensor([len(clip) for clip in clips])
            yield Batch(rows, pad_sequence(clips, batch_first=True), lengths)

    def _clip(self, row: int) -> torch.Tensor:
        clip = self._kept.get(row)
        if clip is None:
            clip = torch.from_numpy(self._read(row)).to(self._device, non_blocking=True)
            if clip.nbytes <= self._room:
                self._kept[row] = clip
                self._room -= clip.nbytes
        return clip
