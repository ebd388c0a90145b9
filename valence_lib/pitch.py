"""Waveform -> pitch: the fundamental frequency of each short frame, and how strongly the frame is voiced.

The method is Boersma's (1993), "Accurate short-term analysis of the fundamental frequency and the harmonics-to-noise ratio of a
sampled sound", IFA Proceedings 17, 97-110, as Praat has it: the autocorrelation of the windowed frame, divided by
that of the window, has a peak at each period; the best path through the frames' peaks and "unvoiced" is the pitch. Peaks
are placed between samples by a parabola, where Praat uses a sinc.
"""

from dataclasses import dataclass
from functools import lru_cache

import numba
import numpy as np
import scipy.fft
from numpy.typing import NDArray

from valence_lib.waveforms import Waveform

FLOOR, CEILING = 65.0, 500.0  # Hz; speech of adults and children lies between
_PERIODS = 3  # of the lowest pitch in a frame
_CANDIDATES = 12  # periods that are kept of a frame, beside "unvoiced"
# Boersma's costs, with Praat's values: of a jump between voiced and unvoiced, of an octave's jump (both in 10 ms), of
# a candidate an octave lower, and what voicing and silence are told by.
_VOICING_JUMP, _OCTAVE_JUMP, _OCTAVE_COST = 0.14, 0.35, 0.01
_VOICING_THRESHOLD, _SILENCE_THRESHOLD = 0.45, 0.03
_STRONGEST = (
    1 - 1e-4
)  # of a frame's voicing: 40 dB of harmonics over noise, all that frames this short can tell


@dataclass(frozen=True)
class Pitch:
    """The pitch of a clip's short frames, whose centres lie a hop apart; the first is the clip's beginning.

    Args:
        f0 [shape=(frames,)]: Hz; 0 where the frame is not voiced.
        strength [shape=(frames,)]: the autocorrelation, from 0 to 1, at the period taken, or where the frame is not voiced,
            at its best.
    """

    f0: NDArray[np.float64]
    strength: NDArray[np.float64]

    @property
    def voiced(self) -> NDArray[np.bool_]:
        """Which frames are voiced [shape=(frames,)]."""
        return self.f0 > 0

    @property
    def harmonics_to_noise(self) -> NDArray[np.float64]:
        """Of each frame, dB: 10 log10(r / (1 - r)), where r is the strength, from -20 to 40 [shape=(frames,)]."""
        r = np.clip(self.strength, 0.01, _STRONGEST)
        return 10 * np.log10(r / (1 - r))


def track(waveform: Waveform, sample_rate: int, hop_length: int) -> Pitch:
    """The pitch of one clip.

    Args:
        waveform [shape=(n_samples,)]
        sample_rate: Hz; at least 2000.
        hop_length: samples between the centres of successive frames; some 5 to 10 ms.

    Returns:
        1 + n_samples // hop_length frames, as many as a log-mel spectrogram of that hop.
    """
    size, window, of_window = _window(sample_rate)
    half = len(window) // 2
    frames = np.lib.stride_tricks.sliding_window_view(
        np.pad(waveform.astype(np.float32), (half, half + hop_length)), len(window)
    )[::hop_length][: 1 + len(waveform) // hop_length]
    frames = frames - frames.mean(axis=1, keepdims=True)
    peaks = np.abs(frames).max(axis=1)
    loudest = float(np.abs(waveform - waveform.mean()).max()) if len(waveform) else 0.0
    spectra = scipy.fft.rfft(frames * window, size, axis=1)
    power = spectra.real**2 + spectra.imag**2
    longest = len(of_window)
    correlation = scipy.fft.irfft(power, size, axis=1)[:, :longest]
    energy = np.maximum(correlation[:, :1], np.finfo(np.float32).tiny)
    correlation = (correlation / energy / of_window).astype(np.float32)
    correlation[peaks < 1e-7] = 0
    silence = peaks / max(loudest, 1e-12) / (_SILENCE_THRESHOLD / (1 + _VOICING_THRESHOLD))
    unvoiced = _VOICING_THRESHOLD + np.maximum(0, 2 - silence)
    f0, strength = _best_path(
        correlation,
        unvoiced.astype(np.float64),
        float(sample_rate),
        0.01 * sample_rate / hop_length,
    )
    return Pitch(f0, strength)


@lru_cache(maxsize=4)
def _window(sample_rate: int) -> tuple[int, NDArray[np.float32], NDArray[np.float32]]:
    """Length of the transform, the Hann window, and the window's own normalised autocorrelation up to the longest lag."""
    n_samples = int(_PERIODS * sample_rate / FLOOR) // 2 * 2 + 1
    longest = int(np.ceil(sample_rate / FLOOR)) + 2
    size = scipy.fft.next_fast_len(n_samples + longest, real=True)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(n_samples) + 0.5) / n_samples)
    own = scipy.fft.irfft(np.abs(scipy.fft.rfft(window, size)) ** 2, size)[:longest]
    return size, window.astype(np.float32), (own / own[0]).astype(np.float32)


@numba.njit(
    "Tuple((float64[::1], float64[::1]))(float32[:,::1], float64[::1], float64, float64)",
    error_model="numpy",
    nogil=True,
    cache=True,
)
def _best_path(correlation, unvoiced, sample_rate, per_10_ms):  # type: ignore[no-untyped-def]
    """The pitch and the strength of every frame, on the cheapest path through all frames (Viterbi).

    Args:
        correlation [shape=(frames, lags)]: normalised; of each lag in samples.
        unvoiced [shape=(frames,)]: the strength that a period must have to be taken for one.
        sample_rate: Hz.
        per_10_ms: frames in 10 ms, the time to which the costs of a jump refer.
    """
    n_frames, n_lags = correlation.shape
    n_states = _CANDIDATES + 1  # the last one is "unvoiced"
    shortest = max(2, int(sample_rate / CEILING))
    f0 = np.zeros((n_frames, n_states))
    height = np.zeros((n_frames, n_states))
    worth = np.full((n_frames, n_states), -1e9)
    best = np.zeros(n_frames)
    for t in range(n_frames):
        row = correlation[t]
        worth[t, _CANDIDATES] = unvoiced[t]
        for lag in range(shortest, n_lags - 1):
            left, middle, right = row[lag - 1], row[lag], row[lag + 1]
            if not (middle > left and middle >= right and middle > 0.5 * _VOICING_THRESHOLD):
                continue
            curve = left - 2 * middle + right
            shift = 0.5 * (left - right) / curve if curve < 0 else 0.0
            at, value = lag + shift, min(middle - 0.25 * (left - right) * shift, _STRONGEST)
            frequency = sample_rate / at
            if frequency < FLOOR or frequency > CEILING:
                continue
            if value > best[t]:
                best[t] = value
            rank = value - _OCTAVE_COST * np.log2(FLOOR * at / sample_rate)
            weakest = 0
            for k in range(1, _CANDIDATES):
                if worth[t, k] < worth[t, weakest]:
                    weakest = k
            if rank > worth[t, weakest]:
                worth[t, weakest], f0[t, weakest], height[t, weakest] = rank, frequency, value
    came_from = np.zeros((n_frames, n_states), np.int64)
    total = worth[0].copy() if n_frames else np.zeros(n_states)
    for t in range(1, n_frames):
        following = np.empty(n_states)
        for k in range(n_states):
            highest, source = -1e18, 0
            for j in range(n_states):
                if (f0[t, k] > 0) != (f0[t - 1, j] > 0):
                    cost = _VOICING_JUMP * per_10_ms
                elif f0[t, k] > 0:
                    cost = _OCTAVE_JUMP * per_10_ms * abs(np.log2(f0[t, k] / f0[t - 1, j]))
                else:
                    cost = 0.0
                if total[j] - cost > highest:
                    highest, source = total[j] - cost, j
            following[k] = highest + worth[t, k]
            came_from[t, k] = source
        total = following
    path_f0, path_strength = np.zeros(n_frames), np.zeros(n_frames)
    state = np.argmax(total)
    for t in range(n_frames - 1, -1, -1):
        path_f0[t] = f0[t, state]
        path_strength[t] = height[t, state] if f0[t, state] > 0 else best[t]
        state = came_from[t, state]
    return path_f0, path_strength
