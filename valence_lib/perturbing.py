"""A clip as it might have reached us instead: with noise, by telephone, coded with loss, louder or softer.

Each perturbation takes a waveform [shape=(n_samples,), float, in [-1, 1]], its sample rate in Hz and a seed, and
returns a waveform of the same length and type, in [-1, 1], aligned with the given one. The same arguments give the
same samples. Only the noise asks for the seed: give each clip its own, else all clips hear the same phases.
"""

from collections.abc import Callable
from functools import partial
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from valence_lib.errors import SettingsError
from valence_lib.waveforms import Waveform

Perturbation = Callable[[Waveform, int, int], Waveform]

TELEPHONE_BAND = 300.0, 3400.0  # Hz: ITU-T G.712 (2001)
_MP3_DELAY = 576 + 529  # samples: LAME's encoder and the usual decoder, as in the LAME technical FAQ


def _checked(waveform: Waveform, sample_rate: int) -> NDArray[np.float64]:
    samples = np.asarray(waveform)
    if samples.ndim != 1 or samples.size == 0 or samples.dtype.kind != "f" or not np.isfinite(samples).all():
        raise SettingsError(
            f"the waveform is an array of {samples.dtype} with the shape {samples.shape}; expected finite floats "
            "with the shape (n_samples,), n_samples > 0, as read_audio returns."
        )
    if sample_rate <= 0:
        raise SettingsError(f"sample_rate={sample_rate}; expected Hz above 0.")
    return samples.astype(np.float64)


def add_noise(waveform: Waveform, sample_rate: int, seed: int, snr_db: float) -> Waveform:
    """Add speech-shaped noise: stationary, with the magnitude spectrum of the clip itself and random phases.

    Noise of the speech's own long-term spectrum masks all frequencies alike, so that one signal-to-noise ratio
    says how hard it is to hear the clip (Plomp and Mimpen 1979, "Improving the reliability of testing the speech
    reception threshold for sentences", Audiology 18, 43-52). Where the mixture leaves [-1, 1], all of it is scaled
    down until its peak is 1, which keeps the ratio.

    Args:
        waveform [shape=(n_samples,)]
        sample_rate: Hz.
        seed: of the phases.
        snr_db: power of the whole clip over that of the noise, dB.

    Raises:
        SettingsError: the waveform is not one of floats, or silent.
    """
    speech = _checked(waveform, sample_rate)
    magnitude = np.abs(np.fft.rfft(speech))
    phase = np.random.default_rng(seed).uniform(0, 2 * np.pi, len(magnitude))
    noise = np.fft.irfft(magnitude * np.exp(1j * phase), len(speech))
    if not noise.any():
        raise SettingsError("the waveform is silent; no noise has a ratio to it. Leave silent clips out.")
    noise *= np.sqrt(np.mean(speech**2) / np.mean(noise**2) / 10 ** (snr_db / 10))
    mixture = speech + noise
    return (mixture / max(1.0, np.abs(mixture).max())).astype(waveform.dtype)


def telephone_band(waveform: Waveform, sample_rate: int, seed: int = 0) -> Waveform:
    """What a telephone lets through: 300 to 3400 Hz, the passband of ITU-T G.712 (2001).

    A Butterworth band-pass of order 4 on each side, run forwards and backwards: no delay, and 6 dB down at the
    two edges.

    Raises:
        SettingsError: the waveform is not one of floats, or its sample rate is not above 6800 Hz.
    """
    from scipy.signal import butter, sosfiltfilt

    speech = _checked(waveform, sample_rate)
    if sample_rate <= 2 * TELEPHONE_BAND[1]:
        raise SettingsError(
            f"sample_rate={sample_rate}; expected more than 6800 Hz, which hold a telephone's band."
        )
    filters = butter(4, TELEPHONE_BAND, "bandpass", fs=sample_rate, output="sos")
    heard = sosfiltfilt(filters, speech, padlen=min(6 * len(filters), len(speech) - 1))
    return np.clip(heard, -1, 1).astype(waveform.dtype)


def change_level(waveform: Waveform, sample_rate: int, seed: int, gain_db: float) -> Waveform:
    """Louder or softer by a gain in dB; what then exceeds full scale is clipped, as a recorder would.

    Raises:
        SettingsError: the waveform is not one of floats.
    """
    louder = _checked(waveform, sample_rate) * 10 ** (gain_db / 20)
    return np.clip(louder, -1, 1).astype(waveform.dtype)


def code_as_mp3(waveform: Waveform, sample_rate: int, seed: int, bits_per_second: int) -> Waveform:
    """Code as MP3 at a constant bit rate (LAME, by way of libsndfile) and decode.

    Up to 12 kHz MP3 has the bit rates 8,000, 16,000, ... 64,000, up to 24 kHz as far as 160,000.

    Raises:
        SettingsError: the waveform is not one of floats, or MP3 has no such bit rate or sample rate.
    """
    speech = _checked(waveform, sample_rate)
    lowest, highest = 8000, 64000 if sample_rate <= 12000 else 160000
    if sample_rate > 24000 or not lowest <= bits_per_second <= highest:
        raise SettingsError(
            f"bits_per_second={bits_per_second} at {sample_rate} Hz; expected {lowest} to {highest}, and at most 24000 Hz."
        )
    level = (highest - bits_per_second) / (highest - lowest)
    level = min(level, 0.99)  # libsndfile refuses 1, and takes the nearest bit rate that there is
    options = {"format": "MP3", "compression_level": level, "bitrate_mode": "CONSTANT"}
    heard = _coded(speech, sample_rate, options)
    # A frame that has room for it says how much a decoder is to drop; at low bit rates it has none.
    start = _MP3_DELAY if len(heard) > len(speech) else 0
    return _fitted(heard[start:], waveform)


def code_as_opus(waveform: Waveform, sample_rate: int, seed: int, bits_per_second: int) -> Waveform:
    """Code as Opus (RFC 6716, by way of libsndfile, which drops the codec's delay itself) and decode.

    The bit rate, 6,000 to 256,000 bit/s, is what the coder aims at on average.

    Raises:
        SettingsError: the waveform is not one of floats, or Opus has no such bit rate or sample rate.
    """
    speech = _checked(waveform, sample_rate)
    rates = (8000, 12000, 16000, 24000, 48000)
    if sample_rate not in rates or not 6000 <= bits_per_second <= 256000:
        raise SettingsError(
            f"bits_per_second={bits_per_second} at {sample_rate} Hz; expected 6000 to 256000, and one of the sample "
            f"rates {', '.join(map(str, rates))} Hz."
        )
    level = 1 - (bits_per_second - 6000) / (256000 - 6000)
    options = {"format": "OGG", "subtype": "OPUS", "compression_level": level}
    return _fitted(_coded(speech, sample_rate, options), waveform)


def _coded(speech: NDArray[np.float64], sample_rate: int, options: dict[str, Any]) -> NDArray[np.float64]:
    import soundfile

    file = BytesIO()
    soundfile.write(file, speech, sample_rate, **options)
    file.seek(0)
    return soundfile.read(file, dtype="float64")[0]


def _fitted(heard: NDArray[np.float64], waveform: Waveform) -> Waveform:
    """`heard` in [-1, 1], with the length and the type of `waveform`."""
    fitted = np.zeros(len(waveform))
    fitted[: len(heard)] = np.clip(heard[: len(fitted)], -1, 1)
    return fitted.astype(waveform.dtype)


PERTURBATIONS: dict[str, Perturbation] = {
    "noise at 20 dB": partial(add_noise, snr_db=20),
    "noise at 10 dB": partial(add_noise, snr_db=10),
    "noise at 0 dB": partial(add_noise, snr_db=0),
    "telephone band": telephone_band,
    "MP3, 16 kbit/s": partial(code_as_mp3, bits_per_second=16000),
    "Opus, 12 kbit/s": partial(code_as_opus, bits_per_second=12000),
    "6 dB louder": partial(change_level, gain_db=6),
    "6 dB softer": partial(change_level, gain_db=-6),
}
