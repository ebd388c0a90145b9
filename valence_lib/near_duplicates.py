"""Clips whose audio is nearly the same: coded anew, louder, a little noisier, cut a little differently."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from valence_lib.streams import Rows
from valence_lib.waveforms import Waveform

_CANDIDATES = (
    0.8  # correlation of spectrograms from which two clips are listened to: copies cut anew keep 0.81 or more
)
# The highest correlation of two waveforms over all shifts that no unlike recordings reach. Copies at another level, in MP3 of 16
# kbit/s, with noise at 20 dB or cut 0.1 s later keep 0.88 or more, those through a telephone 0.69; of RAVDESS's 1,440
# clips, where speakers repeat a sentence nearly alike, unlike recordings reach 0.56, of EmoTale's 0.16.
SIMILAR = 0.6
_BANDS = 32
_DEPTH = 30  # dB below a clip's loudest band: what is softer tells little of speech, and noise or silence changes it
_NEIGHBOURS = 4  # that are looked at closely
_LONGEST_SHIFT = 20  # frames, some 1.3 s
_LEAST_OVERLAP = 0.7  # of the shorter clip


def near_duplicates(
    log_mels: Sequence[Rows], ids: Sequence[str], read: Callable[[int], Waveform]
) -> pd.DataFrame:
    """Pairs of clips that are nearly the same recording.

    Candidates are nearest neighbours by the mean and deviation of 32 bands, less the clip's level, without silence before and
    after it; their frames correlate when laid over each other at some shift of up to 20 frames. Those are listened to: what
    counts is the highest correlation of the two waveforms over all shifts, which is 1 for a copy at any level.

    Args:
        log_mels: each [shape=(frames, n_mels)], dB.
        ids: the clips' names.
        read: gives a clip's waveform [shape=(n_samples,)] by its position; called for candidates alone.

    Returns:
        Rows first, second, similarity (the waveforms' correlation, SIMILAR or more), the most alike first.
    """
    from sklearn.neighbors import NearestNeighbors

    patterns = [_pattern(clip) for clip in log_mels]
    summaries = np.stack([_summary(clip) for clip in log_mels])
    scaled = (summaries - summaries.mean(axis=0)) / np.maximum(summaries.std(axis=0), 1e-6)
    count = min(_NEIGHBOURS + 1, len(scaled))
    neighbours = NearestNeighbors(n_neighbors=count).fit(scaled).kneighbors(scaled, return_distance=False)
    pairs = {(min(a, b), max(a, b)) for a, own in enumerate(neighbours.tolist()) for b in own if a != b}
    rows = []
    for first, second in sorted(pairs):
        if _alike(patterns[first], patterns[second]) < _CANDIDATES:
            continue
        similarity = waveform_similarity(read(first), read(second))
        if similarity >= SIMILAR:
            rows.append({"first": ids[first], "second": ids[second], "similarity": similarity})
    table = pd.DataFrame(rows, columns=["first", "second", "similarity"])
    return table.sort_values("similarity", ascending=False, kind="stable", ignore_index=True)


def _in_bands(log_mel: Rows) -> NDArray[np.float32]:
    """The clip without the silence before and after it, cut off below its loudest band, where noise would drown it."""
    bands = np.stack(
        [band.mean(axis=1) for band in np.array_split(log_mel, min(_BANDS, log_mel.shape[1]), axis=1)], axis=1
    )
    least = bands.max() - _DEPTH
    sounding = np.flatnonzero(bands.max(axis=1) >= least)
    return np.maximum(bands[sounding[0] : sounding[-1] + 1], least)


def _summary(log_mel: Rows) -> NDArray[np.float64]:
    bands = _in_bands(log_mel).astype(np.float64)
    mean = bands.mean(axis=0)
    return np.concatenate([mean - mean.mean(), bands.std(axis=0)])


def _pattern(log_mel: Rows) -> NDArray[np.float32]:
    """Each band's course within the clip."""
    bands = _in_bands(log_mel)
    return bands - bands.mean(axis=0)


def _alike(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    """The highest correlation of two patterns over shifts; -1 where none lays enough of them over each other."""
    least = _LEAST_OVERLAP * min(len(first), len(second))
    best = -1.0
    for shift in range(-_LONGEST_SHIFT, _LONGEST_SHIFT + 1):
        a, b = (first, second[shift:]) if shift >= 0 else (first[-shift:], second)
        overlap = min(len(a), len(b))
        if overlap < max(least, 2):
            continue
        x, y = a[:overlap].ravel(), b[:overlap].ravel()
        size = float(np.linalg.norm(x) * np.linalg.norm(y))
        best = max(best, float(x @ y) / size if size > 0 else 0.0)
    return best


def waveform_similarity(first: Waveform, second: Waveform) -> float:
    """The highest normalised correlation of two waveforms over all shifts, 0 to 1; a copy with its sign turned counts too."""
    from scipy.signal import correlate

    size = float(np.linalg.norm(first) * np.linalg.norm(second))
    highest = float(np.abs(correlate(first, second, method="fft")).max())
    return min(1.0, highest / size) if size > 0 else 0.0
