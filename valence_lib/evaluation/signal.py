"""Measures of a recording from its waveform: level, signal-to-noise ratio, clipping."""

from typing import NamedTuple

import numpy as np

from valence_lib.corpora.waveforms import Waveform

FRAME_SECONDS = 0.032
ACTIVE_RANGE_DB = 30.0  # frames further below the loud ones are not speech
SNR_RANGE_DB = -10.0, 60.0
_LOUD, _QUIET = 95, 10  # percentiles of the frames' power: loud speech, and noise
_ABOVE_NOISE = 1.5
_FULL_SCALE = 0.999


class SignalMeasures(NamedTuple):
    """Measures of one recording.

    Args:
        level_db: power of the active frames, dB re full scale (a sine at full scale has -3).
        snr_db: estimated ratio of the speech's power to the noise's, dB, within `SNR_RANGE_DB`.
        clipped_share: share of samples at full scale, from 0 to 1.
    """

    level_db: float
    snr_db: float
    clipped_share: float


def measure(waveform: Waveform, sample_rate: int) -> SignalMeasures:
    """Level, signal-to-noise ratio and clipping of one clip.

    The noise is the 10th percentile of the power of half-overlapping frames of 32 ms (Hirsch and Ehrlicher
    1995, "Noise estimation techniques for robust speech recognition", ICASSP, 153-156). Active frames have
    more than 1.5 times that power and are less than 30 dB below the 95th percentile; all, if there are none.
    The ratio is that of active minus noise to noise, and too low for clips without pauses.

    Args:
        waveform [shape=(n_samples,)]: in [-1, 1], not silent, and at least one frame long.
        sample_rate: Hz.
    """
    samples = waveform.astype(np.float64)
    length = round(FRAME_SECONDS * sample_rate)
    power = np.lib.stride_tricks.sliding_window_view(samples**2, length)[:: length // 2].mean(axis=1)
    loud, noise = np.percentile(power, [_LOUD, _QUIET])
    is_active = power > max(loud / 10 ** (ACTIVE_RANGE_DB / 10), _ABOVE_NOISE * noise)
    active = power[is_active].mean() if is_active.any() else power.mean()
    lowest, highest = SNR_RANGE_DB
    with np.errstate(divide="ignore"):  # no speech above the noise
        snr_db = 10 * np.log10(max(active - noise, 0.0) / noise) if noise > 0 else highest
    clipped_share = float((np.abs(waveform) >= _FULL_SCALE).mean())
    level_db = float(10 * np.log10(active))
    return SignalMeasures(level_db, float(np.clip(snr_db, lowest, highest)), clipped_share)
