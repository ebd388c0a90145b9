"""Waveform -> fundamental frequency, how periodic the voice is, and its power, some hundred times a second."""

import math
from functools import lru_cache
from typing import NamedTuple

import numba
import numpy as np
import scipy.fft
from numpy.typing import NDArray

from valence_lib.errors import SettingsError
from valence_lib.settings import FeatureSettings
from valence_lib.waveforms import Waveform

FLOOR = 60.0  # Hz; no lower fundamental is looked for
CEILING = 500.0  # Hz; no higher one either

# Boersma's (1993) parameters, at the values of Praat's command "To Pitch (ac)".
_PERIODS = 3  # of the floor, in a window
_CANDIDATES = 15  # periods that are kept for a frame
_SILENCE = 0.03  # frames whose peak is a lower share of the clip's are likely unvoiced
_VOICING = 0.45  # autocorrelation that a voiced frame must exceed
_OCTAVE_COST = 0.01  # an octave; lets the shortest of equally good periods win
_JUMP_COST = 0.35  # an octave between frames, ...
_VOICING_COST = 0.14  # ... and a change between voiced and unvoiced, at 10 ms between frames

_FRAMES_PER_BLOCK = 128  # transformed at a time: a block's arrays stay in the second-level cache


class Pitch(NamedTuple):
    """What is known of each frame; frame n is centred on sample n * hop_length.

    Args:
        f0 [shape=(frames,), dtype=float32]: fundamental frequency in Hz; NaN where unvoiced.
        strength [shape=(frames,), dtype=float32]: normalised autocorrelation at the period, 0 to 1: the
            share of the power that repeats itself. Where unvoiced, at the best period there is; 0 if none.
        power [shape=(frames,), dtype=float32]: mean square of the 50 ms around (without their mean, under the
            window), re full scale 1.
    """

    f0: NDArray[np.float32]
    strength: NDArray[np.float32]
    power: NDArray[np.float32]


class _Analysis(NamedTuple):
    """What does not depend on the clip.

    Args:
        window [shape=(length,)]: Hann's, of an odd number of samples.
        size: of the transform.
        lags: the autocorrelation's lags to look at, from 0, half a sample apart.
        weight [shape=(lags,)]: inverse of the window's own autocorrelation, 1 at lag 0.
        shortest: the first lag at which a period may be, in halves of a sample.
    """

    window: NDArray[np.float32]
    size: int
    lags: int
    weight: NDArray[np.float32]
    shortest: int


def _longest_period(sample_rate: int) -> int:
    return int(np.ceil(sample_rate / FLOOR)) + 1


@lru_cache(maxsize=4)
def _analysis(sample_rate: int) -> _Analysis:
    length = 2 * round(_PERIODS * sample_rate / FLOOR / 2) + 1
    longest = _longest_period(sample_rate)
    size = scipy.fft.next_fast_len(length + longest, real=True)
    size += size % 2
    window = 0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(length) + 1) / (length + 1))
    lags = 2 * longest + 1
    own = _autocorrelation(window[None], size)[0, :lags]
    shortest = int(2 * sample_rate / CEILING)
    return _Analysis(
        window.astype(np.float32), size, lags, (own[0] / own).astype(np.float32), max(shortest, 2)
    )


def _autocorrelation(frames: NDArray[np.floating], size: int) -> NDArray[np.floating]:
    """The autocorrelation of frames [shape=(n, up to size)] at lags 0, 1/2, 1, ...

    The power spectrum is even and real, so that a cosine transform (DCT-I) leads back. Zeros behind it
    double the rate at which the lags are sampled, as band-limited interpolation does.
    """
    spectra = scipy.fft.rfft(frames, size, axis=1)
    power = np.zeros((len(frames), size + 1), frames.dtype)
    np.square(spectra.real, out=power[:, : spectra.shape[1]])
    power[:, : spectra.shape[1]] += np.square(spectra.imag)
    power[:, spectra.shape[1] - 1] /= 2  # the highest bin, which stands for both its signs
    return scipy.fft.dct(power, type=1, axis=1, overwrite_x=True)


@numba.njit(
    "void(float32[::1], int64, int64, float32[::1], int64, float32[:,::1], float32[::1])",
    error_model="numpy",
    nogil=True,
    cache=True,
)
def _windowed(waveform, first_centre, hop_length, window, around, frames, peaks):  # type: ignore[no-untyped-def]
    """Fill in the frames, without their mean and windowed, and the largest size of the samples in their middle.

    Args:
        waveform [shape=(n_samples,)]: zeros are assumed around it.
        first_centre: the sample on which the first frame is centred.
        window [shape=(length,)]
        around: samples on either side of the centre that count as the middle.
        frames [shape=(n, length)]: filled.
        peaks [shape=(n,)]: filled.
    """
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
    error_model="numpy",
    nogil=True,
    cache=True,
)
def _find_candidates(  # type: ignore[no-untyped-def]
    correlation, weight, shortest, rate, floor, octave_cost, frequency, strength
):
    """Fill in each frame's best periods: the peaks of its normalised autocorrelation.

    Args:
        correlation [shape=(n, at least lags)]
        weight [shape=(lags,)]
        shortest: the first lag at which a period may be.
        rate: lags a second.
        frequency, strength [shape=(n, candidates)]: filled; frequency 0 where there are fewer peaks.
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
            # The vertex of the parabola through the three.
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
    "void(float32[:,::1], float32[:,::1], float32[::1], float64, float64, float64, float64, float32[::1], float32[::1])",
    error_model="numpy",
    nogil=True,
    cache=True,
)
def _find_path(  # type: ignore[no-untyped-def]
    frequency, strength, unvoiced, floor, octave_cost, jump_cost, voicing_cost, f0, chosen_strength
):
    """Fill in the cheapest path through all frames' candidates (Viterbi, 1967).

    Args:
        frequency, strength [shape=(n, candidates)]: as `_find_candidates` leaves them.
        unvoiced [shape=(n,)]: the strength of being unvoiced.
        f0, chosen_strength [shape=(n,)]: filled.
    """
    n, kept = frequency.shape
    # Place `kept` is the unvoiced candidate.
    pitch = np.zeros((n, kept + 1))  # octaves
    came_from = np.zeros((n, kept + 1), np.int8)
    score, earlier = np.zeros(kept + 1), np.zeros(kept + 1)
    count = np.zeros(n, np.int64)
    for number in range(n):
        while count[number] < kept and frequency[number, count[number]] > 0:
            pitch[number, count[number]] = math.log2(frequency[number, count[number]])
            count[number] += 1
    for number in range(n):
        earlier, score = score, earlier
        for here in range(kept + 1):
            if here >= count[number] and here < kept:
                continue
            best, best_from = -np.inf, kept
            if number == 0:
                best = 0.0
            else:
                for there in range(kept + 1):
                    if there >= count[number - 1] and there < kept:
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
            chosen_strength[number] = 0
            for other in range(count[number]):
                chosen_strength[number] = max(chosen_strength[number], strength[number, other])
        else:
            f0[number] = frequency[number, place]
            chosen_strength[number] = strength[number, place]
        place = came_from[number, place]


def track(waveform: Waveform, sample_rate: int, hop_length: int) -> Pitch:
    """The fundamental frequency of a voice, by Boersma's (1993) autocorrelation method.

    In each frame the periods are looked for at which the autocorrelation, divided by that of the window,
    peaks; through all frames' candidates goes the path that explains the frames best and jumps least.

    Args:
        waveform [shape=(n_samples,)]: any number of samples, also none.
        sample_rate: Hz.
        hop_length: samples between frames.

    Returns:
        One value a frame, of 1 + n_samples // hop_length.

    Raises:
        SettingsError: the sample rate is too low for a voice, or hop_length is not above 0.

    Source: P. Boersma, "Accurate short-term analysis of the fundamental frequency and the
    harmonics-to-noise ratio of a sampled sound", IFA Proceedings 17 (1993), 97-110.
    """
    if sample_rate < 4 * CEILING:
        raise SettingsError(
            f"sample_rate={sample_rate} Hz was given to the pitch tracker; expected {4 * CEILING:.0f} Hz or more. "
            "Resample the clip to a higher rate."
        )
    if hop_length < 1:
        raise SettingsError(f"hop_length={hop_length} was given; expected 1 sample or more.")
    analysis = _analysis(sample_rate)
    samples = np.ascontiguousarray(waveform, np.float32)
    n = 1 + len(samples) // hop_length
    frequency, strength = np.empty((2, n, _CANDIDATES), np.float32)
    power, peaks = np.empty((2, n), np.float32)
    around = _longest_period(sample_rate) // 2
    frames = np.empty((_FRAMES_PER_BLOCK, len(analysis.window)), np.float32)
    for start in range(0, n, _FRAMES_PER_BLOCK):
        own = slice(start, min(n, start + _FRAMES_PER_BLOCK))
        block = frames[: own.stop - start]
        _windowed(samples, start * hop_length, hop_length, analysis.window, around, block, peaks[own])
        correlation = _autocorrelation(block, analysis.size)
        power[own] = correlation[:, 0]
        _find_candidates(
            correlation, analysis.weight, analysis.shortest, 2.0 * sample_rate, FLOOR, _OCTAVE_COST,
            frequency[own], strength[own],
        )  # fmt: skip
    power /= analysis.size * float(np.sum(analysis.window.astype(np.float64) ** 2))

    loudest = float(peaks.max())
    relative = peaks / loudest if loudest > 0 else peaks
    unvoiced = _VOICING + np.maximum(0, 2 - relative * (1 + _VOICING) / _SILENCE)
    per_frame = 0.01 * sample_rate / hop_length
    f0, chosen = np.empty((2, n), np.float32)
    _find_path(
        frequency, strength, unvoiced.astype(np.float32), FLOOR, _OCTAVE_COST,
        _JUMP_COST * per_frame, _VOICING_COST * per_frame, f0, chosen,
    )  # fmt: skip
    return Pitch(f0, chosen, power)


def pitch(waveform: Waveform, settings: FeatureSettings) -> NDArray[np.float32]:
    """Pitch beside the frames of the log-mel: octaves above 100 Hz, 0 where unvoiced; and 1 where voiced, else 0.

    Args:
        waveform [shape=(n_samples,)]: at `settings.sample_rate` Hz.

    Returns:
        [shape=(frames, 2), dtype=float32], where frames = settings.frames(n_samples).

    Raises:
        SettingsError: as `track`.
    """
    f0 = track(waveform, settings.sample_rate, settings.hop_length).f0
    voiced = np.isfinite(f0)
    return np.stack([np.log2(np.where(voiced, f0, 100.0) / 100), voiced], axis=1).astype(np.float32)
