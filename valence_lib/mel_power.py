"""Spectra -> mel power, compiled: of the mel filters 98 % are zeros, which no product with them should touch."""

from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray


class Bands(NamedTuple):
    """The mel filters without their zeros, in one precision.

    Args:
        first_bin [shape=(n_mels,)]: the first bin of each band.
        offset [shape=(n_mels + 1,)]: where each band's weights begin, and the last one's end.
        weight [shape=(offset[-1],)]: all bands' weights, end to end.
    """

    first_bin: NDArray[np.int64]
    offset: NDArray[np.int64]
    weight: NDArray[np.floating]

    @classmethod
    def of(cls, filters: NDArray[np.floating]) -> "Bands":
        """The bands of a filter bank [shape=(n_mels, bins)]; its dtype is that of all computation."""
        used = [np.flatnonzero(band) for band in filters]
        spans = [slice(bins[0], bins[-1] + 1) if len(bins) else slice(0, 0) for bins in used]
        offset = np.cumsum([0] + [span.stop - span.start for span in spans])
        weight = np.concatenate([band[span] for band, span in zip(filters, spans, strict=True)])
        return cls(np.array([span.start for span in spans]), offset, weight)


# Reassociation lets the sum become vector code; it is the same for every frame all the same.
@numba.njit(fastmath={"contract", "reassoc"}, error_model="numpy", nogil=True, cache=True)
def _power(spectrum, power):  # type: ignore[no-untyped-def]
    """Power of each bin; returns their sum. The spectrum's real and imaginary parts alternate."""
    total = power.dtype.type(0)
    for number in range(len(power)):
        value = (
            spectrum[2 * number] * spectrum[2 * number] + spectrum[2 * number + 1] * spectrum[2 * number + 1]
        )
        power[number] = value
        total += value
    return total


# Eight frames at a time, one in each lane of a vector register; hence eight sums written out by name, which the
# compiler keeps in one register, as it does not with an array of eight. Lanes do not mix, so that a frame's
# result does not depend, to the last bit, on the frames beside it, nor on whether there are any.
@numba.njit(
    [
        f"void({real}[:,::1], int64[::1], int64[::1], {real}[::1], float32[:,::1], float32[::1])"
        for real in ("float32", "float64")
    ],
    fastmath={"contract"},
    error_model="numpy",
    nogil=True,
    cache=True,
)
def mel_power(spectra, first_bin, offset, weight, mel, mean):  # type: ignore[no-untyped-def]
    """Fill in the mel power and the mean power a bin of these frames.

    Args:
        spectra [shape=(n, 2 * bins), float32 or float64]: real and imaginary parts in turn.
        first_bin, offset, weight: the bands, as in `Bands`, in the spectra's precision.
        mel [shape=(n, n_mels)]: filled.
        mean [shape=(n,)]: filled.
    """
    count, bins = len(spectra), spectra.shape[1] // 2
    zero = weight.dtype.type(0)
    rows = np.zeros((8, bins), weight.dtype)  # power of eight frames
    power = np.empty((bins, 8), weight.dtype)  # the same, transposed
    sums = np.empty((len(first_bin), 8), weight.dtype)
    for start in range(0, count, 8):
        lanes = min(8, count - start)
        for lane in range(lanes):
            mean[start + lane] = _power(spectra[start + lane], rows[lane]) / bins
        for number in range(bins):
            for lane in range(8):
                power[number, lane] = rows[lane, number]
        for band in range(len(first_bin)):
            s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = zero
            to_bin = first_bin[band] - offset[band]
            for number in range(offset[band], offset[band + 1]):
                w = weight[number]
                at = np.uint64(to_bin + number)  # unsigned: no check for an index from the end
                s0 += w * power[at, 0]
                s1 += w * power[at, 1]
                s2 += w * power[at, 2]
                s3 += w * power[at, 3]
                s4 += w * power[at, 4]
                s5 += w * power[at, 5]
                s6 += w * power[at, 6]
                s7 += w * power[at, 7]
            sums[band, 0], sums[band, 1], sums[band, 2], sums[band, 3] = s0, s1, s2, s3
            sums[band, 4], sums[band, 5], sums[band, 6], sums[band, 7] = s4, s5, s6, s7
        for lane in range(lanes):
            for band in range(len(first_bin)):
                mel[start + lane, band] = sums[band, lane]


@numba.njit(
    "void(float32[:,::1], float32[::1], int64[:,::1], float32[::1], float32, float32, float32, boolean[::1])",
    error_model="numpy",
    nogil=True,
    cache=True,
)
def mark_weak_frames(mel, mean, clips, to_one_bin, cut_off, smallest, share, weak):  # type: ignore[no-untyped-def]
    """Mark the frames in which a band that is heard has too small a share of the frame's power.

    Args:
        mel [shape=(n, n_mels)], mean [shape=(n,)]: as `mel_power` fills them.
        clips [shape=(n_clips, 2)]: each clip's first frame, and the one after its last.
        to_one_bin [shape=(n_mels,)]: brings a band's power to that of one bin.
        cut_off: share of a clip's loudest band below which nothing is heard.
        smallest: power below which nothing is heard.
        share: of a frame's mean power a bin, below which a band is weak.
        weak [shape=(n,)]: set to True for those frames; others are left.
    """
    for clip in range(len(clips)):
        loudest = smallest
        for frame in range(clips[clip, 0], clips[clip, 1]):
            for band in range(mel.shape[1]):
                loudest = max(loudest, mel[frame, band])
        floor = max(smallest, loudest * cut_off)
        for frame in range(clips[clip, 0], clips[clip, 1]):
            limit = share * mean[frame]
            found = False
            for band in range(mel.shape[1]):
                found |= max(mel[frame, band], floor) * to_one_bin[band] < limit
            weak[frame] = found
