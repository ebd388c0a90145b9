"""Clips with nearly the same audio: coded again, louder, a little noisier, cut differently."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from valence_lib.corpora.waveforms import Waveform
from valence_lib.features.streams import Rows

_CANDIDATES = 0.8  # correlation of spectrograms from which two clips' waveforms are compared
# Correlation of waveforms over all shifts. Copies at another level, in MP3 of 16 kbit/s, with noise at 20 dB
# or cut 0.1 s later reach 0.88 or more; different recordings of one sentence by one speaker reach 0.56
# (RAVDESS).
SIMILAR = 0.6
_BANDS = 32
_DEPTH = 30  # dB below a clip's loudest band: noise and silence change what is softer
_NEIGHBOURS = 4  # of each clip, that are compared
_LONGEST_SHIFT = 20  # frames, some 1.3 s
_LEAST_OVERLAP = 0.7  # of the shorter clip


def near_duplicates(
    log_mels: Sequence[Rows], ids: Sequence[str], read: Callable[[int], Waveform]
) -> pd.DataFrame:
    """Pairs of clips that are nearly the same recording.

    Candidates are nearest neighbours by mean and deviation of 32 bands, without the clip's level and the
    silence at its ends, whose frames correlate at some shift of up to 20 frames. Of these, the highest
    correlation of the two waveforms over all shifts counts; it is 1 for a copy at any level.

    Args:
        log_mels: each [shape=(frames, n_mels)], dB.
        ids: the clips' names.
        read: returns a clip's waveform [shape=(n_samples,)] by its position; called for candidates alone.

    Returns:
        Rows first, second, similarity (the waveforms' correlation, SIMILAR or more), the most alike first.
    """
    from sklearn.neighbors import NearestNeighbors

    bands = [_bands(clip) for clip in log_mels]
    patterns = [clip - clip.mean(axis=0) for clip in bands]
    moments = [(clip.mean(axis=0), clip.std(axis=0)) for clip in (own.astype(np.float64) for own in bands)]
    summaries = np.stack([np.append(mean - mean.mean(), deviation) for mean, deviation in moments])
    scaled = (summaries - summaries.mean(axis=0)) / np.maximum(summaries.std(axis=0), 1e-6)
    count = min(_NEIGHBOURS + 1, len(scaled))
    neighbours = NearestNeighbors(n_neighbors=count).fit(scaled).kneighbors(scaled, return_distance=False)
    pairs = {(min(a, b), max(a, b)) for a, own in enumerate(neighbours.tolist()) for b in own if a != b}
    candidates = [pair for pair in sorted(pairs) if _alike(*(patterns[clip] for clip in pair)) >= _CANDIDATES]
    rows = [(ids[a], ids[b], waveform_similarity(read(a), read(b))) for a, b in candidates]
    table = pd.DataFrame(rows, columns=["first", "second", "similarity"])
    table = table[table["similarity"] >= SIMILAR]
    return table.sort_values("similarity", ascending=False, kind="stable", ignore_index=True)


def _bands(log_mel: Rows) -> NDArray[np.float32]:
    """The clip in few bands, without the silence at its ends, limited to a depth below its loudest band."""
    groups = np.array_split(log_mel, min(_BANDS, log_mel.shape[1]), axis=1)
    bands = np.stack([group.mean(axis=1) for group in groups], axis=1)
    least = bands.max() - _DEPTH
    sounding = np.flatnonzero(bands.max(axis=1) >= least)
    return np.maximum(bands[sounding[0] : sounding[-1] + 1], least)


def _alike(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    """The highest correlation of two patterns over shifts; -1 if they never overlap enough."""
    least = _LEAST_OVERLAP * min(len(first), len(second))
    best = -1.0
    for shift in range(-_LONGEST_SHIFT, _LONGEST_SHIFT + 1):
        a, b = first[max(-shift, 0) :], second[max(shift, 0) :]
        overlap = min(len(a), len(b))
        if overlap >= max(least, 2):
            x, y = a[:overlap].ravel(), b[:overlap].ravel()
            size = float(np.linalg.norm(x) * np.linalg.norm(y))
            best = max(best, float(x @ y) / size if size > 0 else 0.0)
    return best


def waveform_similarity(first: Waveform, second: Waveform) -> float:
    """The highest absolute normalised correlation of two waveforms over all shifts, 0 to 1."""
    from scipy.signal import correlate

    size = float(np.linalg.norm(first) * np.linalg.norm(second))
    highest = float(np.abs(correlate(first, second, method="fft")).max())
    return min(1.0, highest / size) if size > 0 else 0.0
