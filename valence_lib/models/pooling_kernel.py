"""Max pooling of padded clips, compiled: with torch's own, the CNN trains half as fast on one thread."""

from functools import partial
from typing import Any

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

# Which of three neighbours was the largest; of equal ones the first, as in torch.
_BEFORE, _SELF, _AFTER = np.uint8(0), np.uint8(1), np.uint8(2)
_ZERO = np.float32(0.0)
_compiled = partial(numba.njit, error_model="numpy", nogil=True, cache=True)


class MaxPool3x3(torch.autograd.Function):
    """The largest of 3 frames by 3 bands around each place of a clip, and zeros in its padding.

    Equals `max_pool2d(kernel_size=3, stride=1, padding=1)` of each clip alone for maps after ReLU, which are
    nowhere below 0: zeros beyond the edge change no maximum, and ReLU passes no gradient on where all are 0.

    Args:
        maps [shape=(batch, frames, n_mels, channels), dtype=float32, on the CPU]: padded with anything.
        lengths [shape=(batch,), dtype=int64]: each clip's own frames.

    Returns:
        [shape=(batch, frames, n_mels, channels)]
    """

    @staticmethod
    def forward(ctx: Any, maps: Tensor, lengths: Tensor) -> Tensor:
        """Pool, and store for each maximum which neighbour it is."""
        maps = maps.contiguous()
        largest = torch.empty_like(maps)
        band, frame = (torch.empty(maps.shape, dtype=torch.uint8) for _ in range(2))
        _pool(lengths.numpy(), maps.shape[3], *map(_rows, (maps, largest, band, frame)))
        ctx.save_for_backward(lengths, band, frame)
        return largest

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """Pass each maximum's gradient to its origin."""
        lengths, band, frame = ctx.saved_tensors
        gradient = gradient.contiguous()
        passed = torch.empty_like(gradient)
        _pass_back(lengths.numpy(), gradient.shape[3], *map(_rows, (gradient, band, frame, passed)))
        return passed, None


def _rows(maps: Tensor) -> NDArray:
    """One row per frame [shape=(batch, frames, n_mels * channels)]; bands are `channels` apart."""
    return maps.detach().flatten(2).numpy()


# The maximum is taken along the bands, then along the frames: 4 comparisons instead of 8. Loops run over
# whole rows, with slices instead of offsets and selections instead of branches: only so are they vectorised.


@_compiled
def _take(best, which, neighbour, code):  # type: ignore[no-untyped-def]
    for j in range(len(best)):
        first_of_equal = (neighbour[j] == best[j]) & (code < which[j])
        better = (neighbour[j] > best[j]) | first_of_equal
        best[j] = neighbour[j] if better else best[j]
        which[j] = code if better else which[j]


@_compiled("void(int64[::1], int64, float32[:,:,::1], float32[:,:,::1], uint8[:,:,::1], uint8[:,:,::1])")
def _pool(lengths, channels, maps, largest, band, frame):  # type: ignore[no-untyped-def]
    width = maps.shape[2]
    for clip in range(len(maps)):
        length = lengths[clip]
        largest[clip, length:] = _ZERO
        by_band = np.zeros((length + 2, width), np.float32)  # the maxima along the bands, between zeros
        for number in range(length):
            source, target, winner = maps[clip, number], by_band[number + 1], band[clip, number]
            target[:] = source
            winner[:] = _SELF
            _take(target[channels:], winner[channels:], source[: width - channels], _BEFORE)
            _take(target[: width - channels], winner[: width - channels], source[channels:], _AFTER)
        for number in range(length):
            target, winner = largest[clip, number], frame[clip, number]
            target[:] = by_band[number + 1]
            winner[:] = _SELF
            _take(target, winner, by_band[number], _BEFORE)
            _take(target, winner, by_band[number + 2], _AFTER)


@_compiled
def _add(target, gradient, winner, which):  # type: ignore[no-untyped-def]
    for j in range(len(target)):
        target[j] += gradient[j] if winner[j] == which else _ZERO


@_compiled("void(int64[::1], int64, float32[:,:,::1], uint8[:,:,::1], uint8[:,:,::1], float32[:,:,::1])")
def _pass_back(lengths, channels, gradient, band, frame, passed):  # type: ignore[no-untyped-def]
    width = gradient.shape[2]
    row = np.empty(width, np.float32)  # the gradients of a frame's maxima along the bands
    for clip in range(len(gradient)):
        length = lengths[clip]
        passed[clip] = _ZERO
        for number in range(length):
            row[:] = _ZERO
            _add(row, gradient[clip, number], frame[clip, number], _SELF)
            if number + 1 < length:
                _add(row, gradient[clip, number + 1], frame[clip, number + 1], _BEFORE)
            if number > 0:
                _add(row, gradient[clip, number - 1], frame[clip, number - 1], _AFTER)
            target, winner = passed[clip, number], band[clip, number]
            _add(target, row, winner, _SELF)
            _add(target[: width - channels], row[channels:], winner[channels:], _BEFORE)
            _add(target[channels:], row[: width - channels], winner[: width - channels], _AFTER)
