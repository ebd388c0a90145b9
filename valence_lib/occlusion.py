"""What in a clip a model hears: hide one tile of time and frequency after another, and see what it predicts then.

The map of Zeiler and Fergus (2014), "Visualizing and understanding convolutional networks", ECCV, 818-833, with the
waveform in the place of the image, so that it serves any model that takes waveforms.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from valence_lib.errors import SettingsError
from valence_lib.waveforms import Waveform

Predict = Callable[[list[Waveform]], ArrayLike]

_FRAME_SECONDS = 0.032
_EDGE_SECONDS = 0.016  # over which a tile fades in and out
_EDGE_BINS = 2.0
_QUIET = 10  # percentile of the power of a frequency over time that stands for its floor
_LEAST_ATTENUATION_DB = (
    20.0  # below the mean power of a frequency: a steady sound would else be its own floor
)


class Occlusion(NamedTuple):
    """How far each tile of a clip lifts or lowers its prediction.

    Args:
        change [shape=(time tiles, bands)]: prediction of the whole clip less that of the clip without the tile,
            rating points: above 0 where hearing the tile makes the clip sound more positive.
        time_edges [shape=(time tiles + 1,)]: seconds.
        band_edges [shape=(bands + 1,)]: Hz.
        prediction: of the whole clip, rating points.
    """

    change: NDArray[np.float64]
    time_edges: NDArray[np.float64]
    band_edges: NDArray[np.float64]
    prediction: float


def occlude(
    predict: Predict, waveform: Waveform, sample_rate: int, time_tiles: int = 12, bands: int = 8
) -> Occlusion:
    """The occlusion map of one clip, from one call of `predict` with the whole clip and one version a tile.

    Within its tile, a version's short-time spectrum is brought down to the floor of each frequency: the 10th
    percentile of its power over the clip, or 20 dB below its mean power where that is lower. Phases stay, and edges
    are smooth. Tiles are of equal duration, bands of equal width on the mel scale (O'Shaughnessy 1987).

    Args:
        predict: takes waveforms [shape=(n_samples,)], returns a valence each [shape=(n,)], rating points.
        waveform [shape=(n_samples,)]: in [-1, 1].
        sample_rate: Hz.
        time_tiles, bands: how many tiles side by side, and one above the other.

    Raises:
        SettingsError: a waveform that is not one of finite floats or shorter than two frames of 32 ms, no tiles, or
            predictions that are not one finite number a waveform.
    """
    samples = np.asarray(waveform)
    n_fft = 2 * round(_FRAME_SECONDS * sample_rate / 2)
    if samples.ndim != 1 or len(samples) < 2 * n_fft or samples.dtype.kind != "f":
        raise SettingsError(
            f"the waveform is an array of {samples.dtype} with the shape {samples.shape}; expected floats, and at "
            f"least {2 * n_fft} samples (64 ms)."
        )
    if min(time_tiles, bands) < 1 or not np.isfinite(samples).all():
        raise SettingsError(
            f"time_tiles={time_tiles}, bands={bands}; expected 1 or more of each, and a waveform without NaN."
        )
    time_edges = np.linspace(0, len(samples) / sample_rate, time_tiles + 1)
    band_edges = _mel_edges(sample_rate, bands)
    versions = [samples, *_occluded(samples, sample_rate, n_fft, time_edges, band_edges)]
    predictions = np.asarray(predict(versions), np.float64)
    if predictions.shape != (len(versions),) or not np.isfinite(predictions).all():
        raise SettingsError(
            f"predict returned the shape {predictions.shape} for {len(versions)} waveforms, or numbers that are not "
            f"finite; expected ({len(versions)},)."
        )
    change = (predictions[0] - predictions[1:]).reshape(time_tiles, bands)
    return Occlusion(change, time_edges, band_edges, float(predictions[0]))


def _mel_edges(sample_rate: int, bands: int) -> NDArray[np.float64]:
    highest = 2595 * np.log10(1 + sample_rate / 2 / 700)
    return 700 * (10 ** (np.linspace(0, highest, bands + 1) / 2595) - 1)


def _shares(places: NDArray[np.float64], edges: NDArray[np.float64], width: float) -> NDArray[np.float64]:
    """How far each place belongs to each tile [shape=(tiles, places)]: the sum over the tiles is 1 everywhere.

    From one tile to the next the share fades over `width`, or over the narrower tile's whole width.
    """
    inner = edges[1:-1, None]
    fade = np.minimum(width, np.minimum(np.diff(edges)[:-1], np.diff(edges)[1:]))[:, None]
    beyond = np.clip((places - inner) / fade + 0.5, 0, 1)  # which edges a place lies beyond
    ones, zeros = np.ones((1, len(places))), np.zeros((1, len(places)))
    return np.concatenate([ones, beyond]) - np.concatenate([beyond, zeros])


def _occluded(
    samples: Waveform,
    sample_rate: int,
    n_fft: int,
    time_edges: NDArray[np.float64],
    band_edges: NDArray[np.float64],
) -> list[Waveform]:
    """One version of the clip a tile, the bands of the first time tile first."""
    from scipy.signal import ShortTimeFFT
    from scipy.signal.windows import hann

    transform = ShortTimeFFT(hann(n_fft, sym=False), hop=n_fft // 4, fs=sample_rate)
    spectrum = transform.stft(samples.astype(np.float64))
    power = np.abs(spectrum) ** 2
    floor = np.minimum(
        np.percentile(power, _QUIET, axis=1), power.mean(axis=1) / 10 ** (_LEAST_ATTENUATION_DB / 10)
    )
    # What is lost, and not what is left, is computed: there is nothing of it outside the tile.
    gain = np.sqrt(np.minimum(1, floor[:, None] / np.maximum(power, np.finfo(float).tiny)))
    lost = spectrum * (1 - gain)
    in_time = _shares(transform.t(len(samples)), time_edges, _EDGE_SECONDS)
    in_band = _shares(transform.f, band_edges, _EDGE_BINS * sample_rate / n_fft)
    versions = []
    for of_time in in_time:
        hidden = transform.istft(lost * in_band[:, :, None] * of_time, k1=len(samples))
        versions += list(np.clip(samples - hidden, -1, 1).astype(samples.dtype))
    return versions
