"""Waveform -> fundamental frequency and periodicity of each frame."""

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numba
import numpy as np
import scipy.fft
from numpy.typing import NDArray

from valence_lib.corpora.waveforms import Waveform
from valence_lib.errors import SettingsError
from valence_lib.settings import FeatureSettings

FLOOR = 60.0  # Hz, the lowest fundamental frequency
CEILING = 500.0  # Hz, the highest

# Boersma's (1993) parameters, at the values of Praat's command "To Pitch (ac)".
_PERIODS = 3  # of the floor, in a window
_CANDIDATES = 15  # periods of a frame
_SILENCE = 0.03  # share of the clip's peak below which a frame is likely unvoiced
_VOICING = 0.45  # autocorrelation that a voiced frame must exceed
_OCTAVE_COST = 0.01  # an octave: the shortest of equally good periods is chosen
_JUMP_COST = 0.35  # an octave between frames 10 ms apart
_VOICING_COST = 0.14  # a change between voiced and unvoiced in 10 ms

_FRAMES_PER_BLOCK = 128  # transformed at a time: a block's arrays stay in the second-level cache
_COMPILED: dict[str, Any] = {"error_model": "numpy", "nogil": True, "cache": True}


class Pitch(NamedTuple):
    """The voice in each frame; frame n is centred on sample n * hop_length.

    Args:
        f0 [shape=(frames,), dtype=float32]: fundamental frequency in Hz; NaN where unvoiced.
        strength [shape=(frames,), dtype=float32]: normalised autocorrelation at the period, 0 to 1; where
            unvoiced, the largest of the frame's candidates, 0 without any.
    """

    f0: NDArray[np.float32]
    strength: NDArray[np.float32]


class _Analysis(NamedTuple):
    """What depends on the sample rate alone. Lags of the autocorrelation are half a sample apart."""

    window: NDArray[np.float32]  # Hann's, of an odd number of samples
    size: int  # of the transform
    weight: NDArray[np.float32]  # inverse of the window's own autocorrelation, at each lag
    shortest: int  # the first lag that may be a period
    longest: int  # samples in the longest period


@lru_cache(maxsize=4)
def _analysis(sample_rate: int) -> _Analysis:
    length = 2 * round(_PERIODS * sample_rate / FLOOR / 2) + 1
    longest = int(np.ceil(sample_rate / FLOOR)) + 1
    size = scipy.fft.next_fast_len(length + longest, real=True)
    size += size % 2
    window = 0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(length) + 1) / (length + 1))
    own = _autocorrelation(window[None], size)[0, : 2 * longest + 1]
    weight = (own[0] / own).astype(np.float32)
    return _Analysis(window.astype(np.float32), size, weight, int(2 * sample_rate / CEILING), longest)


def _autocorrelation(frames: NDArray[np.floating], size: int) -> NDArray[np.floating]:
    """The autocorrelation of frames [shape=(n, up to size)] at lags 0, 1/2, 1, ... samples."""
    # The power spectrum is real and even: a DCT-I inverts it, and zeros after it interpolate between lags.
    spectra = scipy.fft.rfft(frames, size, axis=1)
    power = np.zeros((len(frames), size + 1), frames.dtype)
    np.square(spectra.real, out=power[:, : spectra.shape[1]])
    power[:, : spectra.shape[1]] += np.square(spectra.imag)
    power[:, spectra.shape[1] - 1] /= 2  # the highest bin holds both +f and -f
    return scipy.fft.dct(power, type=1, axis=1, overwrite_x=True)


@numba.njit(
    "void(float32[::1], int64, int64, float32[::1], int64, float32[:,::1], float32[::1])", **_COMPILED
)
def _windowed(waveform, first_centre, hop_length, window, around, frames, peaks):  # type: ignore[no-untyped-def]
    """Fill in frames, less their mean and windowed, and the peak within `around` samples of their centre."""
    length = len(window)
    for number in range(len(frames)):
        start = first_centre + number * hop_length - length // 2
        first, last = max(0, -start), min(length, len(waveform) - start)
        total = 0.0
        for place in range(first, last):
            total += waveform[start + place]
        mean = np.float32(total / max(1, last - first))
        peak = np.float32(0)
        frame = frames[number]
        frame[:] = 0
        for place in range(first, last):
            value = waveform[start + place] - mean
            if abs(place - length // 2) <= around:
                peak = max(peak, abs(value))
            frame[place] = value * window[place]
        peaks[number] = peak


@numba.njit(
    "void(float32[:,::1], float32[::1], int64, float64, float64, float64, float32[:,::1], float32[:,::1])",
    **_COMPILED,
)
def _find_candidates(  # type: ignore[no-untyped-def]
    correlation, weight, shortest, rate, floor, octave_cost, frequency, strength
):
    """Fill in each frame's candidates, peaks of its autocorrelation; frequency 0 where there are fewer.

    `rate` is in lags a second; `frequency` and `strength` are [shape=(n, candidates)].
    """
    lags, kept = len(weight), frequency.shape[1]
    value = np.empty(lags, np.float32)
    merit = np.empty(kept)
    for number in range(len(correlation)):
        frequency[number] = 0
        strength[number] = 0
        energy = correlation[number, 0]
        if not energy > 0:
            continue
        for lag in range(shortest - 1, lags):
            value[lag] = correlation[number, lag] / energy * weight[lag]
        count = 0
        for lag in range(shortest, lags - 1):
            before, here, after = value[lag - 1], value[lag], value[lag + 1]
            if here <= 0 or here <= before or here < after:
                continue
            # The vertex of the parabola through the three values.
            slope, bend = (after - before) / 2, 2 * here - before - after
            period = (lag + slope / bend) / rate
            height = min(here + slope * slope / (2 * bend), 1.0)
            if period * floor > 1:
                continue
            worth = height - octave_cost * math.log2(floor * period)
            if count < kept:
                place = count
                count += 1
            else:
                place = np.argmin(merit)
                if merit[place] >= worth:
                    continue
            merit[place] = worth
            frequency[number, place] = 1 / period
            strength[number, place] = height


@numba.njit(
    "void(float32[:,::1], float32[:,::1], float32[::1], float64, float64, float64, float64, "
    "float32[::1], float32[::1])",
    **_COMPILED,
)
def _find_path(  # type: ignore[no-untyped-def]
    frequency, strength, unvoiced, floor, octave_cost, jump_cost, voicing_cost, f0, chosen_strength
):
    """Fill in the cheapest path through all frames' candidates (Viterbi, 1967).

    `unvoiced`, the strength of the unvoiced candidate, `f0` and `chosen_strength` are [shape=(n,)].
    """
    n, kept = frequency.shape
    # Index `kept` is the unvoiced candidate.
    pitch = np.zeros((n, kept + 1))  # octaves
    came_from = np.zeros((n, kept + 1), np.int8)
    score, earlier = np.zeros(kept + 1), np.zeros(kept + 1)
    count = np.zeros(n, np.int64)
    for number in range(n):
        while count[number] < kept and frequency[number, count[number]] > 0:
            pitch[number, count[number]] = math.log2(frequency[number, count[number]])
            count[number] += 1
        earlier, score = score, earlier
        for here in range(kept + 1):
            if count[number] <= here < kept:
                continue
            best, best_from = -np.inf if number else 0.0, kept
            for there in range(kept + 1 if number else 0):
                if count[number - 1] <= there < kept:
                    continue
                if here == kept and there == kept:
                    cost = 0.0
                elif here == kept or there == kept:
                    cost = voicing_cost
                else:
                    cost = jump_cost * abs(pitch[number, here] - pitch[number - 1, there])
                if earlier[there] - cost > best:
                    best, best_from = earlier[there] - cost, there
            if here == kept:
                own = unvoiced[number]
            else:
                own = strength[number, here] + octave_cost * (pitch[number, here] - math.log2(floor))
            score[here] = best + own
            came_from[number, here] = best_from
    place = kept
    for here in range(count[n - 1]):
        if score[here] > score[place]:
            place = here
    for number in range(n - 1, -1, -1):
        if place == kept:
            f0[number] = np.nan
            chosen_strength[number] = strength[number].max()
        else:
            f0[number] = frequency[number, place]
            chosen_strength[number] = strength[number, place]
        place = came_from[number, place]


def track(waveform: Waveform, sample_rate: int, hop_length: int) -> Pitch:
    """The fundamental frequency of a voice, by Boersma's (1993) autocorrelation method.

    Candidates are the peaks of each frame's autocorrelation, divided by that of the window. The path through
    all frames' candidates maximises their strength less the cost of jumps.

    Args:
        waveform [shape=(n_samples,)]: any number of samples, also none.
        sample_rate: Hz.
        hop_length: samples between frames, at least 1.

    Returns:
        1 + n_samples // hop_length frames.

    Raises:
        SettingsError: the sample rate is too low for a voice.

    Source: P. Boersma, "Accurate short-term analysis of the fundamental frequency and the
    harmonics-to-noise ratio of a sampled sound", IFA Proceedings 17 (1993), 97-110.
    """
    if sample_rate < 4 * CEILING:
        raise SettingsError(
            f"sample_rate={sample_rate} Hz was given to the pitch tracker; expected {4 * CEILING:.0f} Hz or "
            "more. Resample the clip to a higher rate."
        )
    analysis = _analysis(sample_rate)
    samples = np.ascontiguousarray(waveform, np.float32)
    n = 1 + len(samples) // hop_length
    frequency, strength = np.empty((2, n, _CANDIDATES), np.float32)
    peaks = np.empty(n, np.float32)
    around = analysis.longest // 2
    frames = np.empty((_FRAMES_PER_BLOCK, len(analysis.window)), np.float32)
    for start in range(0, n, _FRAMES_PER_BLOCK):
        own = slice(start, min(n, start + _FRAMES_PER_BLOCK))
        block = frames[: own.stop - start]
        _windowed(samples, start * hop_length, hop_length, analysis.window, around, block, peaks[own])
        correlation = _autocorrelation(block, analysis.size)
        _find_candidates(
            correlation, analysis.weight, analysis.shortest, 2.0 * sample_rate, FLOOR, _OCTAVE_COST,
            frequency[own], strength[own],
        )  # fmt: skip
    loudest = float(peaks.max())
    relative = peaks / loudest if loudest > 0 else peaks
    unvoiced = _VOICING + np.maximum(0, 2 - relative * (1 + _VOICING) / _SILENCE)
    per_frame = 0.01 * sample_rate / hop_length
    f0, chosen = np.empty((2, n), np.float32)
    _find_path(
        frequency, strength, unvoiced.astype(np.float32), FLOOR, _OCTAVE_COST,
        _JUMP_COST * per_frame, _VOICING_COST * per_frame, f0, chosen,
    )  # fmt: skip
    return Pitch(f0, chosen)


def pitch(waveform: Waveform, settings: FeatureSettings) -> NDArray[np.float32]:
    """Pitch of the log-mel's frames: octaves above 100 Hz, 0 where unvoiced; and 1 where voiced, else 0.

    Args:
        waveform [shape=(n_samples,)]: at `settings.sample_rate` Hz.

    Returns:
        [shape=(frames, 2), dtype=float32], where frames = settings.frames(n_samples).

    Raises:
        SettingsError: the sample rate is too low for a voice.
    """
    f0 = track(waveform, settings.sample_rate, settings.hop_length).f0
    voiced = np.isfinite(f0)
    return np.stack([np.log2(np.where(voiced, f0, 100.0) / 100), voiced], axis=1).astype(np.float32)
