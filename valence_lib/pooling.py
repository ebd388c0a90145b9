"""Max pooling of padded clips, compiled: torch's own is the slowest part of the CNN on a CPU."""

from typing import Any

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

# Which of three neighbours was the largest; of equal ones the first, as torch has it.
_BEFORE, _SELF, _AFTER = np.uint8(0), np.uint8(1), np.uint8(2)
_ZERO = np.float32(0.0)


class MaxPool3x3(torch.autograd.Function):
    """The largest of 3 frames by 3 bands around each place of a clip, and zeros in its padding.

    Equals `max_pool2d(kernel_size=3, stride=1, padding=1)` of each clip alone, for maps after ReLU:
    they are nowhere below 0, so zeros beyond the edge change no maximum, and where all are 0, ReLU passes
    no gradient on, so it does not matter which of them gets it.

    Args:
        maps [shape=(batch, frames, n_mels, channels), dtype=float32, on the CPU]: padded with anything.
        lengths [shape=(batch,), dtype=int64]: each clip's own frames.

    Returns:
        [shape=(batch, frames, n_mels, channels)]
    """

    @staticmethod
    def forward(ctx: Any, maps: Tensor, lengths: Tensor) -> Tensor:
        """Pool, and note for each maximum where it came from."""
        maps = maps.contiguous()
        largest = torch.empty_like(maps)
        band = torch.empty(maps.shape, dtype=torch.uint8)
        frame = torch.empty_like(band)
        flat = [_rows(tensor) for tensor in (maps, largest, band, frame)]
        _pool(flat[0], lengths.numpy(), maps.shape[3], flat[1], flat[2], flat[3])
        ctx.save_for_backward(lengths, band, frame)
        return largest

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """Each maximum's gradient goes to where it came from."""
        lengths, band, frame = ctx.saved_tensors
        gradient = gradient.contiguous()
        passed = torch.empty_like(gradient)
        flat = [_rows(tensor) for tensor in (gradient, band, frame, passed)]
        _pass_back(flat[0], lengths.numpy(), gradient.shape[3], flat[1], flat[2], flat[3])
        return passed, None


def _rows(maps: Tensor) -> NDArray:
    """A row a frame [shape=(batch, frames, n_mels * channels)]: the next band is `channels` to the right."""
    return maps.detach().flatten(2).numpy()


# Each maximum is taken along the bands, then along the frames: 4 comparisons instead of 8. All inner
# loops run over whole rows, with slices in place of offsets and
# selections in place of branches: only so do they become vector code, some ten times faster.


@numba.njit(
    "void(float32[:,:,::1], int64[::1], int64, float32[:,:,::1], uint8[:,:,::1], uint8[:,:,::1])",
    error_model="numpy",
    nogil=True,
    cache=True,
)
def _pool(maps, lengths, channels, largest, band, frame):  # type: ignore[no-untyped-def]
    width = maps.shape[2]
    by_band = np.empty((3, width), np.float32)  # of the frame before, this one, the next
    for clip in range(len(maps)):
        length = lengths[clip]
        largest[clip, length:] = _ZERO
        by_band[2] = _ZERO  # before the first frame
        for following in range(length + 1):
            row = by_band[following % 3]
            if following == length:
                row[:] = _ZERO
            else:
                source, winner = maps[clip, following], band[clip, following]
                for j in range(width):
                    row[j] = source[j]
                    winner[j] = _SELF
                best_yet, which_yet, lower = row[channels:], winner[channels:], source[: width - channels]
                for j in range(len(lower)):
                    better = lower[j] >= best_yet[j]
                    best_yet[j] = lower[j] if better else best_yet[j]
                    which_yet[j] = _BEFORE if better else which_yet[j]
                higher = source[channels:]
                for j in range(len(higher)):
                    better = higher[j] > row[j]
                    row[j] = higher[j] if better else row[j]
                    winner[j] = _AFTER if better else winner[j]
            number = following - 1
            if number < 0:
                continue
            target, winner = largest[clip, number], frame[clip, number]
            before, here, after = by_band[(number - 1) % 3], by_band[number % 3], row
            for j in range(width):
                better = before[j] >= here[j]
                value = before[j] if better else here[j]
                which = _BEFORE if better else _SELF
                best = after[j] > value
                target[j] = after[j] if best else value
                winner[j] = _AFTER if best else which


@numba.njit(
    "void(float32[:,:,::1], int64[::1], int64, uint8[:,:,::1], uint8[:,:,::1], float32[:,:,::1])",
    error_model="numpy",
    nogil=True,
    cache=True,
)
def _pass_back(gradient, lengths, channels, band, frame, passed):  # type: ignore[no-untyped-def]
    width = gradient.shape[2]
    row = np.empty(width, np.float32)  # the gradient of a frame's maxima along the bands
    for clip in range(len(gradient)):
        length = lengths[clip]
        passed[clip, length:] = _ZERO
        for number in range(length):
            here, winner = gradient[clip, number], frame[clip, number]
            for j in range(width):
                row[j] = here[j] if winner[j] == _SELF else _ZERO
            if number + 1 < length:
                there, winner = gradient[clip, number + 1], frame[clip, number + 1]
                for j in range(width):
                    row[j] += there[j] if winner[j] == _BEFORE else _ZERO
            if number > 0:
                there, winner = gradient[clip, number - 1], frame[clip, number - 1]
                for j in range(width):
                    row[j] += there[j] if winner[j] == _AFTER else _ZERO
            target, winner = passed[clip, number], band[clip, number]
            for j in range(width):
                target[j] = row[j] if winner[j] == _SELF else _ZERO
            higher, its_winner = row[channels:], winner[channels:]
            for j in range(len(higher)):
                target[j] += higher[j] if its_winner[j] == _BEFORE else _ZERO
            target = target[channels:]
            for j in range(len(target)):
                target[j] += row[j] if winner[j] == _AFTER else _ZERO
