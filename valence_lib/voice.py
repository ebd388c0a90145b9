"""Waveform -> pitch, voicing and intensity, and how they change, on the frames of the log-mel spectrogram."""

import numpy as np
from numpy.typing import NDArray

from valence_lib.pitch import track
from valence_lib.settings import FeatureSettings
from valence_lib.waveforms import Waveform

COLUMNS = (
    "pitch",  # octaves above 100 Hz, the mean of the voiced short frames; drawn straight from one voiced frame to the next
    "pitch change",  # octaves a second
    "voicing",  # the share of short frames that are voiced, 0 to 1
    "strength",  # the mean autocorrelation at the period, 0 to 1
    "intensity",  # dB below the clip's loudest frame
    "intensity change",  # dB a second
    "intensity deviation",  # dB, within the frame
)
_FINE_FRAMES = 8  # to a hop
_QUIETEST = -60.0  # dB below the loudest


def voice(waveform: Waveform, settings: FeatureSettings) -> NDArray[np.float32]:
    """The columns that `COLUMNS` names, for each frame of the clip's log-mel spectrogram.

    Each frame sums up the short frames, of an eighth of the hop, that lie nearer to its centre than to the next one's. The
    pitch is Boersma's (see `valence_lib.pitch`), the intensity that of squares in 32 ms.

    Args:
        waveform [shape=(n_samples,)]: at `settings.sample_rate` Hz.

    Returns:
        [shape=(settings.frames(n_samples), len(COLUMNS)), dtype=float32]
    """
    hop = max(1, settings.hop_length // _FINE_FRAMES)
    per_frame = settings.hop_length // hop
    frames = settings.frames(len(waveform))
    seconds = settings.hop_length / settings.sample_rate
    pitch = track(waveform, settings.sample_rate, hop)
    intensity = _intensity(waveform, hop, settings.sample_rate)
    # Short frame number n belongs to frame round(n / per_frame).
    frame_of = np.minimum((np.arange(len(intensity)) + per_frame // 2) // per_frame, frames - 1)

    def mean(values: NDArray[np.float64], weights: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
        weights = np.ones_like(values) if weights is None else weights
        total = np.bincount(frame_of, weights, frames)
        return np.bincount(frame_of, values * weights, frames) / np.maximum(total, 1e-9)

    voicing = mean(pitch.voiced.astype(np.float64))
    octaves = mean(np.log2(np.where(pitch.voiced, pitch.f0, 100.0) / 100), pitch.voiced.astype(np.float64))
    heard = np.flatnonzero(voicing > 0)
    octaves = np.interp(np.arange(frames), heard, octaves[heard]) if len(heard) else np.zeros(frames)
    level = mean(intensity)
    deviation = np.sqrt(np.maximum(mean(intensity**2) - level**2, 0))
    columns = [
        octaves,
        _change(octaves) / seconds,
        voicing,
        mean(pitch.strength),
        level,
        _change(level) / seconds,
        deviation,
    ]
    return np.stack(columns, axis=1).astype(np.float32)


def _change(contour: NDArray[np.float64]) -> NDArray[np.float64]:
    """The slope at each frame, in units a frame; 0 where there is but one."""
    return np.gradient(contour) if len(contour) > 1 else np.zeros_like(contour)


def _intensity(waveform: Waveform, hop: int, sample_rate: int) -> NDArray[np.float64]:
    """Of each short frame, dB below the clip's loudest [shape=(1 + n_samples // hop,)]."""
    size = int(0.032 * sample_rate)
    squares = np.pad(np.asarray(waveform, np.float64) ** 2, (size // 2 + 1, size - size // 2 + hop))
    sums = np.cumsum(squares)
    starts = np.arange(1 + len(waveform) // hop) * hop
    energy = np.maximum(sums[starts + size] - sums[starts], 1e-12)
    decibels = 10 * np.log10(energy)
    return np.maximum(decibels - decibels.max(), _QUIETEST)
