"""What can be said of a clip's recording from its waveform alone: level, signal-to-noise ratio, clipping."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from valence_lib.errors import SettingsError
from valence_lib.waveforms import Waveform

FRAME_SECONDS = 0.032
ACTIVE_RANGE_DB = 30.0  # frames more than this below the loud ones are no speech
SNR_RANGE_DB = -10.0, 60.0
_LOUD, _QUIET = 95, 10  # percentiles of the frames' power that stand for loud speech, and for the noise
_ABOVE_NOISE = 1.5
_FULL_SCALE = 0.999


class SignalMeasures(NamedTuple):
    """Measures of one recording.

    Args:
        level_db: power of the active speech, and of the noise within it, dB re full scale (a square wave at full
            scale has 0, a sine -3).
        snr_db: estimated ratio of the speech's power to the noise's, dB, within `SNR_RANGE_DB`.
        clipped_share: of all samples, those at full scale, from 0 to 1.
    """

    level_db: float
    snr_db: float
    clipped_share: float


def measure(waveform: Waveform, sample_rate: int) -> SignalMeasures:
    """Level, signal-to-noise ratio and clipping of one clip.

    The power of frames of 32 ms, half overlapping, tells speech from pauses. The noise has the power of the 10th
    percentile of all frames, a percentile method after Hirsch and Ehrlicher (1995), "Noise estimation techniques for
    robust speech recognition", ICASSP, 153-156. Active are the frames of more than 1.5 times that power and less
    than 30 dB below the loud ones (95th percentile), or all where there are none; their mean power is the level,
    and 10 log10((active - noise) / noise) the ratio. A clip without
    pauses hides its noise, so that the estimate is then too low: of use to sort clips of one corpus, not to state
    the ratio of one of them.

    Args:
        waveform [shape=(n_samples,)]: in [-1, 1].
        sample_rate: Hz.

    Raises:
        SettingsError: the waveform is not one of finite floats, is shorter than a frame, or silent.
    """
    samples = np.asarray(waveform)
    length = round(FRAME_SECONDS * sample_rate)
    if samples.ndim != 1 or len(samples) < max(length, 1) or samples.dtype.kind != "f":
        raise SettingsError(
            f"the waveform is an array of {samples.dtype} with the shape {samples.shape}; expected floats, and at "
            f"least the {length} samples of one frame of {FRAME_SECONDS * 1000:.0f} ms."
        )
    if not np.isfinite(samples).all() or not samples.any():
        raise SettingsError("the waveform is silent, or holds NaN or infinity; leave such clips out.")
    power = _frame_powers(samples.astype(np.float64), length)
    loud, noise = np.percentile(power, [_LOUD, _QUIET])
    speaks = power > max(loud / 10 ** (ACTIVE_RANGE_DB / 10), _ABOVE_NOISE * noise)
    active = power[speaks].mean() if speaks.any() else power.mean()
    lowest, highest = SNR_RANGE_DB
    with np.errstate(divide="ignore"):  # digital silence in the pauses, or no speech above the noise
        snr_db = 10 * np.log10(max(active - noise, 0.0) / noise) if noise > 0 else highest
    return SignalMeasures(
        level_db=float(10 * np.log10(active)),
        snr_db=float(np.clip(snr_db, lowest, highest)),
        clipped_share=float((np.abs(samples) >= _FULL_SCALE).mean()),
    )


def _frame_powers(samples: NDArray[np.float64], length: int) -> NDArray[np.float64]:
    """Mean power of half-overlapping frames [shape=(frames,)]; samples that fill no frame are left out."""
    frames = np.lib.stride_tricks.sliding_window_view(samples**2, length)[:: max(1, length // 2)]
    return frames.mean(axis=1)
