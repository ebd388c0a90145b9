"""Occlusion: which parts of a clip a prediction depends on, by hiding tiles of time and frequency.

Zeiler, M. D. and Fergus, R. (2014), "Visualizing and understanding convolutional networks", ECCV, 818-833.
Here tiles are hidden in the waveform, so that the map serves any model.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from valence_lib.corpora.waveforms import Waveform
from valence_lib.evaluation.metrics import Array

Predict = Callable[[list[Waveform]], ArrayLike]
_FRAME_SECONDS = 0.032
_EDGE_SECONDS = 0.016  # over which a tile fades in and out
_EDGE_BINS = 2.0
_QUIET = 10  # percentile of the power of a frequency over time: its floor
_MIN_ATTENUATION_DB = 20.0  # below a frequency's mean power: a steady sound would else be its own floor


class Occlusion(NamedTuple):
    """How far each tile of a clip raises or lowers its prediction.

    Args:
        change [shape=(time tiles, bands)]: prediction of the whole clip minus that of the clip without the
            tile, rating points.
        time_edges [shape=(time tiles + 1,)]: seconds.
        band_edges [shape=(bands + 1,)]: Hz.
        prediction: of the whole clip, rating points.
    """

    change: Array
    time_edges: Array
    band_edges: Array
    prediction: float


def occlude(
    predict: Predict, waveform: Waveform, sample_rate: int, time_tiles: int = 12, bands: int = 8
) -> Occlusion:
    """The occlusion map of one clip, from one call of `predict` with the whole clip and one version per tile.

    In each version, the short-time spectrum within a tile is lowered to the floor of each frequency: the 10th
    percentile of its power over the clip, or 20 dB below its mean power if that is lower. Tiles are of equal
    duration, bands of equal width on the mel scale (O'Shaughnessy 1987), and edges are smooth.

    Args:
        predict: takes waveforms [shape=(n_samples,)], returns their valence [shape=(n,)], rating points.
        waveform [shape=(n_samples,)]: in [-1, 1].
        sample_rate: Hz.
    """
    from librosa import mel_frequencies

    n_fft = 2 * round(_FRAME_SECONDS * sample_rate / 2)
    samples = waveform.astype(np.float64)
    time_edges = np.linspace(0, len(samples) / sample_rate, time_tiles + 1)
    band_edges = mel_frequencies(n_mels=bands + 1, fmin=0, fmax=sample_rate / 2, htk=True)
    hidden = _tiles(samples, sample_rate, n_fft, time_edges, band_edges)
    limit = max(1.0, float(np.abs(samples).max()))
    versions = [
        waveform,
        *(np.clip(waveform - tile, -limit, limit).astype(waveform.dtype) for tile in hidden),
    ]
    predictions = np.asarray(predict(versions), np.float64)
    change = (predictions[0] - predictions[1:]).reshape(time_tiles, bands)
    return Occlusion(change, time_edges, band_edges, float(predictions[0]))


def _memberships(places: Array, edges: Array, width: float) -> Array:
    """How far each place belongs to each tile [shape=(tiles, places)], fading over `width` or a tile."""
    inner = edges[1:-1, None]
    fade = np.minimum(width, np.minimum(np.diff(edges)[:-1], np.diff(edges)[1:]))[:, None]
    beyond = np.clip((places - inner) / fade + 0.5, 0, 1)  # the edges that a place lies beyond
    ones, zeros = np.ones((1, len(places))), np.zeros((1, len(places)))
    return np.concatenate([ones, beyond]) - np.concatenate([beyond, zeros])


def _tiles(
    samples: Array, sample_rate: int, n_fft: int, time_edges: Array, band_edges: Array
) -> Iterator[Array]:
    """What hiding each tile removes from the samples, the bands of the first time tile first."""
    from scipy.signal import ShortTimeFFT
    from scipy.signal.windows import hann

    transform = ShortTimeFFT(hann(n_fft, sym=False), hop=n_fft // 4, fs=sample_rate)
    spectrum = transform.stft(samples)
    power = np.abs(spectrum) ** 2
    attenuated = power.mean(axis=1) / 10 ** (_MIN_ATTENUATION_DB / 10)
    floor = np.minimum(np.percentile(power, _QUIET, axis=1), attenuated)
    gain = np.sqrt(np.minimum(1, floor[:, None] / np.maximum(power, np.finfo(float).tiny)))
    removed = spectrum * (1 - gain)  # and not what remains, which extends beyond the tile
    in_time = _memberships(transform.t(len(samples)), time_edges, _EDGE_SECONDS)
    in_band = _memberships(transform.f, band_edges, _EDGE_BINS * sample_rate / n_fft)[:, :, None]
    for of_time in in_time:
        yield from transform.istft(removed * in_band * of_time, k1=len(samples))
