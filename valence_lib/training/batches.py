"""Batches of clips of similar length, as padded tensors.

Similar lengths need little padding. So that the length of a clip does not decide which clips share its batch,
each epoch shuffles all clips, sorts by length within pools of some batches only, and shuffles the batches.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

_BATCHES_PER_POOL = 8


@dataclass(frozen=True)
class Batch:
    """Some clips as one tensor.

    Args:
        rows [shape=(batch,)]: the clips' rows in the store.
        frames [shape=(batch, frames, width), dtype=float32]: padded on the right with zeros.
        lengths [shape=(batch,), dtype=int64]: each clip's own frames; on the CPU.
    """

    rows: NDArray[np.int64]
    frames: Tensor
    lengths: Tensor


def in_order_of_length(
    rows: NDArray[np.int64], lengths: NDArray[np.int64], batch_size: int
) -> list[NDArray[np.int64]]:
    """The rows in batches from short to long clips, the same every time: for validation."""
    ordered = rows[np.argsort(lengths[rows], kind="stable")]
    return [ordered[start : start + batch_size] for start in range(0, len(ordered), batch_size)]


def within_frames(lengths: NDArray[np.int64], most_frames: int) -> list[NDArray[np.int64]]:
    """All rows in batches from short to long clips: for prediction in bounded memory.

    Each batch has at most `most_frames` frames, padding included, or is one longer clip.
    """
    batches: list[list[int]] = [[]]
    for row in np.argsort(lengths, kind="stable").tolist():
        if batches[-1] and (len(batches[-1]) + 1) * lengths[row] > most_frames:
            batches.append([])
        batches[-1].append(row)
    return [np.array(batch, dtype=np.int64) for batch in batches if batch]


def shuffled(
    rows: NDArray[np.int64], lengths: NDArray[np.int64], batch_size: int, generator: np.random.Generator
) -> list[NDArray[np.int64]]:
    """The rows in random batches of clips of similar length: for one epoch.

    Every row occurs once; at most one batch is smaller than `batch_size`.
    """
    mixed = generator.permutation(rows)
    pool = batch_size * _BATCHES_PER_POOL
    batches = []
    for start in range(0, len(mixed), pool):
        batches += in_order_of_length(mixed[start : start + pool], lengths, batch_size)
    return [batches[number] for number in generator.permutation(len(batches))]


def load(batches: Sequence[NDArray[np.int64]], read: Callable[[int], Tensor]) -> Iterator[Batch]:
    """Read batches one after the other; `read` returns the standardised frames of a row."""
    for rows in batches:
        clips = [read(row) for row in rows.tolist()]
        lengths = torch.tensor([len(clip) for clip in clips])
        yield Batch(rows, pad_sequence(clips, batch_first=True), lengths)
