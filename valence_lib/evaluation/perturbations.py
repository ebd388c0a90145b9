"""Perturbed clips: with added noise, through a telephone's band, coded with loss, at another level.

A perturbation takes a waveform [shape=(n_samples,), float, in [-1, 1]], its sample rate in Hz and a seed, of
which only noise depends. It returns an aligned waveform of the same length and type, in [-1, 1].
"""

from collections.abc import Callable
from functools import partial
from io import BytesIO
from typing import Any

import numpy as np

from valence_lib.corpora.waveforms import Waveform
from valence_lib.errors import SettingsError

Perturbation = Callable[[Waveform, int, int], Waveform]

TELEPHONE_BAND = 300.0, 3400.0  # Hz: ITU-T G.712 (2001)
_MP3_RATES = [8000, 11025, 12000, 16000, 22050, 24000]  # Hz: MPEG-2 and 2.5
_OPUS_RATES = [8000, 12000, 16000, 24000, 48000]
_MP3_DELAY = 576 + 529  # samples: LAME's encoder and the usual decoder, as in the LAME technical FAQ


def add_noise(waveform: Waveform, sample_rate: int, seed: int, snr_db: float) -> Waveform:
    """Add speech-shaped noise: stationary, with the magnitude spectrum of the clip and random phases.

    Plomp, R. and Mimpen, A. M. (1979), "Improving the reliability of testing the speech reception threshold
    for sentences", Audiology 18, 43-52. A mixture beyond [-1, 1] is scaled to a peak of 1.

    Args:
        snr_db: power of the whole clip over that of the noise, dB; the clip must not be silent.
    """
    speech = waveform.astype(np.float64)
    magnitude = np.abs(np.fft.rfft(speech))
    phase = np.random.default_rng(seed).uniform(0, 2 * np.pi, len(magnitude))
    noise = np.fft.irfft(magnitude * np.exp(1j * phase), len(speech))
    noise *= np.sqrt(np.mean(speech**2) / np.mean(noise**2) / 10 ** (snr_db / 10))
    mixture = speech + noise
    return (mixture / max(1.0, np.abs(mixture).max())).astype(waveform.dtype)


def telephone_band(waveform: Waveform, sample_rate: int, seed: int = 0) -> Waveform:
    """Limit to a telephone's band, by a Butterworth filter of order 4 that runs forwards and backwards."""
    from scipy.signal import butter, sosfiltfilt

    speech = waveform.astype(np.float64)
    filters = butter(4, TELEPHONE_BAND, "bandpass", fs=sample_rate, output="sos")
    filtered = sosfiltfilt(filters, speech, padlen=min(6 * len(filters), len(speech) - 1))
    return np.clip(filtered, -1, 1).astype(waveform.dtype)


def change_level(waveform: Waveform, sample_rate: int, seed: int, gain_db: float) -> Waveform:
    """Amplify by a gain in dB, and clip at full scale."""
    return np.clip(waveform.astype(np.float64) * 10 ** (gain_db / 20), -1, 1).astype(waveform.dtype)


def code(waveform: Waveform, sample_rate: int, seed: int, codec: str, bits_per_second: int) -> Waveform:
    """Code with loss and decode, through libsndfile.

    Args:
        codec: "MP3" (LAME, at a constant bit rate) or "Opus" (RFC 6716).
        bits_per_second: MP3 has 8,000 to 64,000 up to 12 kHz, and 160,000 above; Opus 6,000 to 256,000.

    Raises:
        SettingsError: the codec has no such sample rate.
    """
    import soundfile

    options: dict[str, Any]
    if codec == "MP3":
        rates, lowest, highest = _MP3_RATES, 8000, 64000 if sample_rate <= 12000 else 160000
        options, delay, most = {"format": "MP3", "bitrate_mode": "CONSTANT"}, _MP3_DELAY, 0.99
    else:
        rates, lowest, highest = _OPUS_RATES, 6000, 256000
        options, delay, most = {"format": "OGG", "subtype": "OPUS"}, 0, 1.0
    if sample_rate not in rates:
        expected = ", ".join(map(str, rates))
        raise SettingsError(f"{codec} cannot code {sample_rate} Hz; expected a sample rate of {expected} Hz.")
    level = min(1 - (bits_per_second - lowest) / (highest - lowest), most)  # libsndfile refuses 1 for MP3
    file = BytesIO()
    soundfile.write(file, waveform.astype(np.float64), sample_rate, compression_level=level, **options)
    file.seek(0)
    decoded = soundfile.read(file, dtype="float64")[0]
    # At low bit rates no MP3 frame has room for the delay, which the decoder would otherwise remove.
    decoded = decoded[delay if len(decoded) > len(waveform) else 0 :][: len(waveform)]
    return np.pad(np.clip(decoded, -1, 1), (0, len(waveform) - len(decoded))).astype(waveform.dtype)


PERTURBATIONS: dict[str, Perturbation] = {
    "noise at 20 dB": partial(add_noise, snr_db=20),
    "noise at 10 dB": partial(add_noise, snr_db=10),
    "noise at 0 dB": partial(add_noise, snr_db=0),
    "telephone band": telephone_band,
    "MP3, 16 kbit/s": partial(code, codec="MP3", bits_per_second=16000),
    "Opus, 12 kbit/s": partial(code, codec="Opus", bits_per_second=12000),
    "6 dB louder": partial(change_level, gain_db=6),
    "6 dB softer": partial(change_level, gain_db=-6),
}
