"""Waveform -> log-mel spectrogram."""

from functools import lru_cache

import numpy as np
import scipy.fft
from numpy.typing import ArrayLike, NDArray

from valence_lib.corpora.waveforms import Waveform
from valence_lib.errors import SettingsError
from valence_lib.settings import FeatureSettings

LogMel = NDArray[np.float32]

_SMALLEST_POWER = 1e-10  # librosa's amin: -100 dB
_FRAMES_PER_BLOCK = 64  # transformed at a time: a block's arrays stay in the second-level cache
_SETTINGS = FeatureSettings()


def mel_frequencies(settings: FeatureSettings) -> NDArray[np.float64]:
    """Centre frequencies of the mel bands in Hz [shape=(n_mels,)], on Slaney's scale."""
    import librosa

    return librosa.mel_frequencies(settings.n_mels + 2, fmin=0, fmax=settings.sample_rate / 2)[1:-1]


@lru_cache(maxsize=4)
def mel_filters(sample_rate: int, n_fft: int, n_mels: int) -> NDArray[np.float64]:
    """Slaney's triangular mel filters, each of area 1 Hz [shape=(n_mels, 1 + n_fft // 2)]."""
    import librosa

    return librosa.filters.mel(sr=sample_rate, n_fft=n_fft, n_mels=n_mels, dtype=np.float64)


def mel_power(
    waveform: Waveform, sample_rate: int, n_fft: int, hop_length: int, n_mels: int
) -> NDArray[np.float64]:
    """Mel power spectra of Hann-windowed, centred frames, the ends padded with zeros.

    Equal to `librosa.feature.melspectrogram(...).T` in double precision, and faster (benchmarks/README.md).

    Args:
        waveform [shape=(n_samples,)]: at `sample_rate` Hz.

    Returns:
        [shape=(1 + n_samples // hop_length, n_mels)]
    """
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)
    filters = mel_filters(sample_rate, n_fft, n_mels).T
    padded = np.pad(waveform, n_fft // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, n_fft)[::hop_length]
    power = np.empty((len(frames), n_mels))
    for start in range(0, len(frames), _FRAMES_PER_BLOCK):
        block = slice(start, start + _FRAMES_PER_BLOCK)
        spectra = scipy.fft.rfft(frames[block] * window, axis=1)
        power[block] = (spectra.real**2 + spectra.imag**2) @ filters
    return power


def log_mel(waveform: Waveform, settings: FeatureSettings = _SETTINGS) -> LogMel:
    """The log-mel spectrogram of one clip, in decibels.

    10 log10 of the mel power re 1.0, cut off `top_db` below the clip's loudest band. It equals
    `librosa.power_to_db(librosa.feature.melspectrogram(...)).T` to within 1e-3 dB.

    Args:
        waveform [shape=(n_samples,)]: floating-point samples in [-1, 1], at `settings.sample_rate` Hz.
        settings: the course report's by default (8000 Hz, n_fft 2048, hop 512, 128 bands, 80 dB).

    Returns:
        [shape=(frames, n_mels), dtype=float32], where frames = 1 + n_samples // hop_length.

    Raises:
        SettingsError: the waveform is not a one-dimensional array of finite floating-point samples.
    """
    check_samples(waveform)
    power = mel_power(waveform, settings.sample_rate, settings.n_fft, settings.hop_length, settings.n_mels)
    decibels = 10 * np.log10(np.maximum(power, _SMALLEST_POWER))
    return np.maximum(decibels, decibels.max() - settings.top_db).astype(np.float32)


def check_samples(waveform: ArrayLike) -> None:
    """Refuse what is not a waveform.

    Raises:
        SettingsError: it is not an array, not floating-point, not one-dimensional, or not finite.
    """
    if not isinstance(waveform, np.ndarray):
        given = type(waveform).__name__
    elif waveform.dtype.kind != "f" or waveform.ndim != 1:
        given = f"an array of {waveform.dtype} with shape {waveform.shape}"
    elif not np.isfinite(waveform).all():
        given = "an array with NaN or infinite samples"
    else:
        return
    raise SettingsError(
        f"the waveform is {given}; expected a numpy array of finite floating-point samples in [-1, 1] with "
        "shape (n_samples,), as from valence_lib.corpora.waveforms.read_audio. Divide 16-bit samples by "
        "32768; average the channels of a stereo recording."
    )
