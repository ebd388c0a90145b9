"""Pseudo-speakers for corpora without speaker names: clips clustered by voice."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from valence_lib.features.streams import Rows

_FEWEST, _MOST = 4, 64  # clusters
_CLIPS_PER_CLUSTER = 40
_MOST_COMPARED = 5000  # clips, each with each: 0.4 GB, 2 s
_SHRINKAGE = 0.1  # of the covariance within clips towards equal variances: few clips estimate it badly


def pseudo_speakers(log_mels: Sequence[Rows], pitches: Sequence[Rows]) -> NDArray[np.str_]:
    """Cluster clips by pitch and long-term spectrum; name the cluster of each "voice 00", "voice 01", ...

    A clip is described by the mean of its bands, less its level, and by its pitch. Differences between the
    two halves of a clip come from its content, not from the speaker: descriptions are whitened by their
    covariance (within-class covariance normalisation; Hatch, Kajarekar and Stolcke 2006, Interspeech, with
    halves of clips for a speaker's recordings). Ward's method (1963, Journal of the American Statistical
    Association 58, 236-244) clusters them, about 40 clips to a cluster. Of more than 5,000 clips, 5,000 drawn
    at random are clustered, and the others join the nearest cluster's mean.

    Args:
        log_mels: each [shape=(frames, n_mels)], dB.
        pitches: each [shape=(frames, 2)], the stream `pitch` of the same clips.

    Returns:
        [shape=(clips,)]
    """
    from sklearn.cluster import AgglomerativeClustering
    from sklearn.neighbors import NearestCentroid

    n_clips = len(log_mels)
    if n_clips == 1:
        return np.array(["voice 00"])
    described = _whitened(np.stack(list(map(_of_clip_and_halves, log_mels, pitches))))
    drawn = np.sort(np.random.default_rng(0).permutation(n_clips)[:_MOST_COMPARED])
    n_clusters = min(int(np.clip(n_clips / _CLIPS_PER_CLUSTER, _FEWEST, _MOST)), n_clips)
    labels = AgglomerativeClustering(n_clusters).fit_predict(described[drawn])
    if len(drawn) < n_clips:
        nearest = NearestCentroid().fit(described[drawn], labels).predict(described)
        nearest[drawn] = labels
        labels = nearest
    return np.array([f"voice {label:02d}" for label in labels])


def _whitened(descriptions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Descriptions of whole clips, whitened by the halves; `descriptions` [shape=(clips, 3, values)]."""
    whole = descriptions[:, 0]
    deviation = np.maximum(whole.std(axis=0), 1e-6)
    difference = (descriptions[:, 1] - descriptions[:, 2]) / deviation
    within = difference.T @ difference / (2 * len(whole))
    within += np.eye(len(within)) * max(_SHRINKAGE * within.trace() / len(within), 1e-6)
    scaled = (whole - whole.mean(axis=0)) / deviation
    return np.linalg.solve(np.linalg.cholesky(within), scaled.T).T


def _of_clip_and_halves(log_mel: Rows, pitch: Rows) -> NDArray[np.float64]:
    half = len(log_mel) // 2
    pieces = [slice(None), slice(half), slice(half, None)] if half else [slice(None)] * 3
    return np.stack([_described(log_mel[piece], pitch[piece]) for piece in pieces])


def _described(log_mel: Rows, pitch: Rows) -> NDArray[np.float64]:
    """Long-term spectrum without its level; lower quartile of the pitch, less expressive than its mean."""
    spectrum = log_mel.mean(axis=0, dtype=np.float64)
    octaves, voiced = pitch.T
    lowest = float(np.quantile(octaves[voiced > 0] if voiced.any() else octaves, 0.25))
    return np.append(spectrum - spectrum.mean(), lowest)
