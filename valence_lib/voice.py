"""Waveform -> how high, how loud and how harmonic a voice is, frame by frame beside the log-mel."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from valence_lib.pitch import track
from valence_lib.settings import FeatureSettings
from valence_lib.waveforms import Waveform

# A frame is hardly voiced where fewer than three of its fine frames are.
COLUMNS = (
    "pitch",  # octaves above 150 Hz; where hardly voiced, on the line between the voiced frames around
    "voicing",  # 0 (unvoiced) to 1 (periodic throughout): the mean strength, which counts where voiced
    "intensity",  # dB below the clip's loudest fine frame, of the mean power: the clip's level tells more of a microphone
    "pitch change",  # octaves a second, within the frame; 0 where hardly voiced
    "intensity change",  # dB a second, within the frame
    "harmonicity",  # dB: the harmonics' power to that of the noise
    "pitch deviation",  # octaves, around the frame's straight line; 0 where hardly voiced
    "intensity deviation",  # dB, around the frame's straight line
)

REFERENCE = 150.0  # Hz; between the voices of men and women
_HOP = 0.008  # seconds between fine frames
_SMALLEST_POWER = 1e-10  # -100 dB, as of the log-mel
_LEAST_HARMONICITY, _MOST_HARMONICITY = -10.0, 40.0  # dB; beyond them the correlation says nothing
_FEWEST_REACHED = 2  # fine frames on either side of a frame's centre that a slope needs
_FEWEST_VOICED = 3  # fine frames
_STEEPEST = 8.0  # octaves a second; voices reach about 7 (Xu and Sun, 2002), only the tracker jumps faster


@dataclass(frozen=True)
class Contours:
    """A clip's fine frames; frame n is centred on second n * hop_seconds.

    Args:
        f0 [shape=(frames,)]: Hz; NaN where unvoiced.
        strength [shape=(frames,)]: normalised autocorrelation at the best period, 0 to 1.
        intensity_db [shape=(frames,)]: dB re full scale, of the mean square in 50 ms; no lower than
            top_db below the clip's loudest frame, nor than -100 dB.
        hnr_db [shape=(frames,)]: harmonics-to-noise ratio (Boersma, 1993), from -10 to 40 dB. In
            unvoiced frames that of the best period there is.
        hop_seconds: between frames.
    """

    f0: NDArray[np.float32]
    strength: NDArray[np.float32]
    intensity_db: NDArray[np.float32]
    hnr_db: NDArray[np.float32]
    hop_seconds: float


def contours(waveform: Waveform, sample_rate: int, top_db: float = FeatureSettings.top_db) -> Contours:
    """Pitch, intensity and harmonicity of a clip, every 8 ms.

    Args:
        waveform [shape=(n_samples,)]: any number of samples, also none.
        sample_rate: Hz.
        top_db: decibels below the clip's loudest frame at which quieter ones are cut off.

    Returns:
        1 + n_samples // h frames, where h is 8 ms in whole samples.

    Raises:
        SettingsError: the sample rate is too low for `pitch.track`.
    """
    return _contours(waveform, sample_rate, _fine_hop(sample_rate), top_db)


def _fine_hop(sample_rate: int) -> int:
    return max(1, round(_HOP * sample_rate))


def _contours(waveform: Waveform, sample_rate: int, hop_length: int, top_db: float) -> Contours:
    pitch = track(waveform, sample_rate, hop_length)
    intensity = 10 * np.log10(np.maximum(pitch.power, _SMALLEST_POWER))
    share = np.clip(pitch.strength.astype(np.float64), 1e-9, 1 - 1e-9)
    harmonicity = np.clip(10 * np.log10(share / (1 - share)), _LEAST_HARMONICITY, _MOST_HARMONICITY)
    return Contours(
        pitch.f0,
        pitch.strength,
        np.maximum(intensity, intensity.max() - top_db),
        harmonicity.astype(np.float32),
        hop_length / sample_rate,
    )


def voice(waveform: Waveform, settings: FeatureSettings) -> NDArray[np.float32]:
    """What `COLUMNS` names, for every frame of the log-mel.

    A frame's values are of the fine frames (8 ms apart) within half a hop of its centre, and of two on
    either side at least. A clip that is nowhere voiced has pitch 0.

    Args:
        waveform [shape=(n_samples,)]: at `settings.sample_rate` Hz.

    Returns:
        [shape=(frames, len(COLUMNS)), dtype=float32], where frames = settings.frames(n_samples); finite
        for every finite waveform.

    Raises:
        SettingsError: the sample rate is too low for `pitch.track`.
    """
    hop = min(_fine_hop(settings.sample_rate), settings.hop_length)
    fine = _contours(waveform, settings.sample_rate, hop, settings.top_db)
    voiced = ~np.isnan(fine.f0)
    octaves = np.log2(np.where(voiced, fine.f0, REFERENCE) / REFERENCE, dtype=np.float64)

    # Which fine frames belong to each frame [shape=(frames, reached)], and when they are.
    frames = settings.frames(len(waveform))
    centres = np.round(np.arange(frames) * (settings.hop_length / hop)).astype(int)
    reach = max(_FEWEST_REACHED, round(settings.hop_length / hop / 2))
    offsets = np.arange(-reach, reach + 1)
    places = centres[:, None] + offsets
    inside = (places >= 0) & (places < len(voiced))
    places = np.clip(places, 0, len(voiced) - 1)
    times = offsets * fine.hop_seconds
    of_all = inside.astype(np.float64)
    of_voiced = of_all * voiced[places] * fine.strength[places]
    counted = of_all.sum(axis=1)

    pitch, pitch_change, pitch_deviation = _line(octaves[places], times, of_voiced)
    sounding = (of_voiced > 0).sum(axis=1) >= _FEWEST_VOICED
    numbers = np.arange(frames)
    pitch = np.interp(numbers, numbers[sounding], pitch[sounding]) if sounding.any() else np.zeros(frames)
    _, intensity_change, intensity_deviation = _line(fine.intensity_db[places], times, of_all)
    power = (of_all * 10 ** (fine.intensity_db[places] / 10)).sum(axis=1) / counted
    columns = [
        pitch,
        of_voiced.sum(axis=1) / counted,
        10 * np.log10(power) - fine.intensity_db.max(),
        sounding * np.clip(pitch_change, -_STEEPEST, _STEEPEST),
        intensity_change,
        (of_all * fine.hnr_db[places]).sum(axis=1) / counted,
        sounding * pitch_deviation,
        intensity_deviation,
    ]
    return np.stack(columns, axis=1).astype(np.float32)


def _line(
    values: NDArray[np.floating], times: NDArray[np.floating], weights: NDArray[np.floating]
) -> tuple[NDArray[np.floating], NDArray[np.floating], NDArray[np.floating]]:
    """The straight line through each row's values, by weighted least squares.

    Args:
        values, weights [shape=(n, m)]
        times [shape=(m,)]: seconds.

    Returns:
        The weighted mean, the slope (a second), and the deviation around the line, each [shape=(n,)]; 0
        where the weights leave nothing to compute them from.
    """
    total = weights.sum(axis=1)
    share = weights / np.where(total > 0, total, 1)[:, None]
    mean = (share * values).sum(axis=1)
    from_mean = values - mean[:, None]
    time = times - (share @ times)[:, None]
    spread = (share * time**2).sum(axis=1)
    slope = (share * time * from_mean).sum(axis=1) / np.where(spread > 0, spread, 1)
    residual = from_mean - slope[:, None] * time
    return mean, slope, np.sqrt((share * residual**2).sum(axis=1))
