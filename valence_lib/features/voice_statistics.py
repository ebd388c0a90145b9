"""Waveform -> one row of statistics of the voice: pitch, intensity, rhythm, timbre and resonances.

Contours are computed on short frames (32 ms, every 8 ms at 8000 Hz) and described by a few statistics each.
The choice follows Scherer (2003), "Vocal communication of emotion", Speech Communication 40, 227-256, and
Eyben et al. (2016), "The Geneva minimalistic acoustic parameter set (GeMAPS)", IEEE Transactions on Affective
Computing 7, 190-202.
"""

from functools import cache, lru_cache

import numpy as np
import scipy.fft
import scipy.signal
from numpy.typing import NDArray

from valence_lib.corpora.waveforms import Waveform
from valence_lib.features.pitch import track
from valence_lib.settings import FeatureSettings

Array = NDArray[np.float64]

_BANDS = 20  # of the short frames' mel spectrum
_CEPSTRA = 12
_FORMANTS = 3
_QUIETEST = -60.0  # dB re the clip's loudest frame, the lowest intensity
_AUDIBLE = -35.0  # dB re the clip's loudest frame


def voice_statistics(waveform: Waveform, settings: FeatureSettings) -> NDArray[np.float32]:
    """Statistics of one clip, in the order of `statistic_names` [shape=(1, n_statistics), dtype=float32].

    They do not depend on the clip's level. Without voiced frames, statistics of voiced frames are those of
    all frames, and pitch is 0.

    Args:
        waveform [shape=(n_samples,)]: at `settings.sample_rate` Hz.
    """
    return np.array([list(_describe(waveform, settings).values())], np.float32)


@cache
def statistic_names() -> tuple[str, ...]:
    """The names of the columns of `voice_statistics`."""
    return tuple(_describe(np.zeros(8000, np.float32), FeatureSettings()))


def _describe(waveform: Waveform, settings: FeatureSettings) -> dict[str, float]:
    rate = settings.sample_rate
    hop = settings.short_hop_length
    frame_rate = rate / hop
    pitch = track(waveform, rate, hop)
    power, frequencies = _spectra(waveform, settings)
    intensity = 10 * np.log10(np.maximum(power.sum(axis=1), 1e-12))
    intensity = np.maximum(intensity - intensity.max(), _QUIETEST)
    audible = intensity > _AUDIBLE
    sounding = np.isfinite(pitch.f0)
    f0 = np.where(sounding, pitch.f0, 0.0).astype(np.float64)
    voiced = sounding & audible
    used = next((mask for mask in (voiced, audible) if mask.sum() >= 3), np.ones(len(audible), bool))
    share = np.clip(pitch.strength.astype(np.float64), 0.01, 1 - 1e-4)
    harmonicity = 10 * np.log10(share / (1 - share))

    # Pitch, in semitones above 100 Hz
    semitones = 12 * np.log2(np.where(sounding, f0, 100.0) / 100)
    found = _spread("pitch", semitones[used])
    found |= _movement("pitch", semitones, voiced, frame_rate)
    found |= _ends("pitch", semitones[used])

    # Intensity, in dB re the clip's loudest frame
    found |= _spread("intensity", intensity[audible])
    found |= _movement("intensity", intensity, audible, frame_rate)
    found |= _ends("intensity", intensity[used])
    found["intensity voiced mean"] = float(intensity[used].mean())
    found["intensity pitch correlation"] = _correlation(semitones[used], intensity[used])

    # Rhythm
    found["duration"] = len(waveform) / rate
    found["speech share"] = float(audible.mean())
    found["voiced share"] = float(voiced.sum() / audible.sum())
    found |= _runs("voiced", voiced, frame_rate)
    found |= _runs("pause", ~audible, frame_rate)
    found |= _modulation(intensity, frame_rate)

    # Voice quality
    found |= _spread("harmonics to noise", harmonicity[used])
    found |= _perturbation(f0, intensity, voiced)

    # Timbre
    spectrum = power / np.maximum(power.sum(axis=1, keepdims=True), 1e-20)
    decibels = 10 * np.log10(np.maximum(spectrum, 1e-8))
    for name, contour in _timbre(spectrum, decibels, frequencies).items():
        found |= _mean_and_sd(name, contour[used])
    bands = 10 * np.log10(np.maximum(spectrum @ _bands(len(frequencies), rate).T, 1e-8))
    cepstra = scipy.fft.dct(bands, axis=1, norm="ortho")[:, 1 : 1 + _CEPSTRA]
    changes = np.abs(np.gradient(cepstra, axis=0)) * frame_rate if len(cepstra) > 1 else 0 * cepstra
    for number in range(_CEPSTRA):
        found |= _mean_and_sd(f"cepstrum {number + 1}", cepstra[used, number])
        found[f"cepstrum {number + 1} change"] = float(changes[used, number].mean())
    flux = np.sqrt((np.diff(bands, axis=0) ** 2).mean(axis=1))[used[1:]] if len(bands) > 1 else np.zeros(1)
    found |= _mean_and_sd("flux", flux)

    # Resonances
    resonances, widths = _formants(waveform, settings)
    for number in range(_FORMANTS):
        found |= _mean_and_sd(f"formant {number + 1}", resonances[used, number])
        found[f"formant {number + 1} width"] = float(widths[used, number].mean())
    return {name: float(value) for name, value in found.items()}


def _frames(waveform: Waveform, settings: FeatureSettings) -> NDArray[np.float32]:
    """Centred short frames [shape=(1 + n_samples // hop, size)], the ends padded with zeros."""
    hop, size = settings.short_hop_length, settings.short_n_fft
    padded = np.pad(np.asarray(waveform, np.float32), (size // 2, size // 2 + hop))
    return np.lib.stride_tricks.sliding_window_view(padded, size)[::hop][: 1 + len(waveform) // hop]


def _spectra(waveform: Waveform, settings: FeatureSettings) -> tuple[Array, Array]:
    """Power spectra of Hann-windowed short frames above 50 Hz, and their frequencies in Hz."""
    size = settings.short_n_fft
    window = scipy.signal.get_window("hann", size).astype(np.float32)
    frames = _frames(waveform, settings)
    spectra = scipy.fft.rfft(frames * window, axis=1)
    power = (spectra.real**2 + spectra.imag**2).astype(np.float64)
    frequencies = np.arange(power.shape[1]) * settings.sample_rate / size
    return power[:, frequencies >= 50], frequencies[frequencies >= 50]


@lru_cache(maxsize=4)
def _bands(bins: int, rate: int) -> Array:
    """Triangular bands on O'Shaughnessy's mel scale, 50 Hz to half the sample rate [shape=(_BANDS, bins)]."""
    frequencies = np.linspace(50, rate / 2, bins)
    mels = 2595 * np.log10(1 + frequencies / 700)
    edges = np.linspace(mels[0], mels[-1], _BANDS + 2)[:, None]
    rise = (mels - edges[:-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[2:] - mels) / (edges[2:] - edges[1:-1])
    return np.maximum(0, np.minimum(rise, fall))


def _timbre(share: Array, decibels: Array, frequencies: Array) -> dict[str, Array]:
    """Distribution of the power of each frame over frequency [shape=(frames,) each]."""

    def inside(low: float, high: float) -> NDArray[np.bool_]:
        return (frequencies >= low) & (frequencies < high)

    def between(low: float, high: float) -> Array:
        return np.maximum(share[:, inside(low, high)].sum(axis=1), 1e-8)

    def slope(low: float, high: float) -> Array:
        octaves = np.log2(frequencies[inside(low, high)])
        octaves -= octaves.mean()
        return decibels[:, inside(low, high)] @ octaves / (octaves @ octaves)

    below, above = decibels[:, frequencies < 2000].max(axis=1), decibels[:, frequencies >= 2000].max(axis=1)
    return {
        "alpha ratio": 10 * np.log10(between(1000, 5000) / between(50, 1000)),  # dB, above 1 kHz over below
        "Hammarberg index": below - above,  # dB, of the highest peaks below and above 2 kHz
        "low band": 10 * np.log10(between(50, 300)),  # dB of the whole
        "middle band": 10 * np.log10(between(300, 1000)),
        "high band": 10 * np.log10(between(2000, 4000)),
        "low slope": slope(50, 500),  # dB an octave
        "high slope": slope(500, 4000),
        "centroid": share @ frequencies,  # Hz
        "bandwidth": np.sqrt(np.maximum(share @ frequencies**2 - (share @ frequencies) ** 2, 0)),
        "entropy": -(share * np.log2(np.maximum(share, 1e-12))).sum(axis=1),  # bits
    }


def _formants(waveform: Waveform, settings: FeatureSettings) -> tuple[Array, Array]:
    """The lowest resonances of each frame and their bandwidths, Hz [shape=(frames, _FORMANTS) each].

    They are the roots of a linear predictor of order 2 + rate / 1000 by the autocorrelation method (Markel
    and Gray 1976) on pre-emphasised frames. A frame with too few roots is given the clip's median.
    """
    rate, size = settings.sample_rate, settings.short_n_fft
    order = 2 + rate // 1000
    emphasised = np.append(waveform[:1], waveform[1:] - 0.97 * waveform[:-1])
    frames = _frames(emphasised, settings) * scipy.signal.get_window("hamming", size).astype(np.float32)
    spectra = scipy.fft.rfft(frames, 2 * size, axis=1)
    lags = scipy.fft.irfft(spectra.real**2 + spectra.imag**2, axis=1)[:, : order + 1].astype(np.float64)
    lags[:, 0] = lags[:, 0] * (1 + 1e-5) + 1e-9 * lags[:, 0].max() + 1e-30
    toeplitz = lags[:, np.abs(np.subtract.outer(np.arange(order), np.arange(order)))]
    predictor = np.linalg.solve(toeplitz, lags[:, 1:, None])[:, :, 0]
    companion = np.zeros((len(frames), order, order))
    companion[:, 0] = predictor
    companion[:, np.arange(1, order), np.arange(order - 1)] = 1
    roots = np.linalg.eigvals(companion)
    frequency = np.angle(roots) * rate / (2 * np.pi)
    width = -np.log(np.maximum(np.abs(roots), 1e-6)) * rate / np.pi
    implausible = (frequency < 150) | (frequency > rate / 2 - 100) | (width > 600)
    frequency[implausible] = width[implausible] = np.nan
    lowest = np.argsort(frequency, axis=1)[:, :_FORMANTS]  # NaN comes last
    frequency, width = (np.take_along_axis(values, lowest, axis=1) for values in (frequency, width))
    # Without any root in the clip: the resonances of a neutral vocal tract.
    return _filled(frequency, np.array([500.0, 1500.0, 2500.0])), _filled(width, np.full(_FORMANTS, 150.0))


def _filled(values: NDArray[np.floating], fallback: Array) -> Array:
    """NaN replaced by the median of its column, or by the fallback in a column of NaN."""
    medians = np.ma.median(np.ma.masked_invalid(values), axis=0)
    medians = np.where(np.ma.getmaskarray(medians), fallback, medians)
    return np.where(np.isnan(values), medians, values)


def _mean(values: Array) -> float:
    return values.mean() if len(values) else 0.0


def _mean_and_sd(name: str, values: Array) -> dict[str, float]:
    return {f"{name} mean": values.mean(), f"{name} SD": values.std()}


def _spread(name: str, values: Array) -> dict[str, float]:
    """Mean, standard deviation, 10th, 50th and 90th percentile, and the range between the outer two."""
    low, middle, high = np.percentile(values, [10, 50, 90])
    return _mean_and_sd(name, values) | {
        f"{name} 10 %": low,
        f"{name} median": middle,
        f"{name} 90 %": high,
        f"{name} range": high - low,
    }


def _movement(name: str, contour: Array, where: NDArray[np.bool_], frame_rate: float) -> dict[str, float]:
    """Rate of change of a contour between successive frames of a mask, in units a second."""
    steps = np.diff(contour)[where[1:] & where[:-1]] * frame_rate
    rising, falling = steps[steps > 0], steps[steps < 0]
    return {
        f"{name} movement": _mean(np.abs(steps)),
        f"{name} rise": _mean(rising),
        f"{name} fall": _mean(falling),
        f"{name} rising share": len(rising) / len(steps) if len(steps) else 0.5,
    }


def _ends(name: str, values: Array) -> dict[str, float]:
    """Mean of a contour's first and last third less its mean, and its linear trend from first to last."""
    first, _, last = np.array_split(values, 3)
    time = np.linspace(-0.5, 0.5, len(values))
    return {
        f"{name} beginning": first.mean() - values.mean(),
        f"{name} end": last.mean() - values.mean() if len(last) else 0.0,
        f"{name} trend": (time @ values) / (time @ time) if len(values) > 1 else 0.0,
    }


def _correlation(first: Array, second: Array) -> float:
    if len(first) < 3 or first.std() < 1e-6 or second.std() < 1e-6:
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])


def _runs(name: str, where: NDArray[np.bool_], frame_rate: float) -> dict[str, float]:
    """Number of runs a second, and mean and standard deviation of their length in seconds."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], where.astype(np.int8), [0]])))
    seconds = (edges[1::2] - edges[::2]) / frame_rate
    return {
        f"{name} stretches": len(seconds) * frame_rate / len(where),
        f"{name} length mean": _mean(seconds),
        f"{name} length SD": seconds.std() if len(seconds) else 0.0,
    }


def _modulation(intensity: Array, frame_rate: float) -> dict[str, float]:
    """Peaks of intensity a second, and its modulation at rates of words, syllables and sounds, in dB."""
    smooth = scipy.signal.convolve(intensity, np.full(5, 0.2), mode="same")
    distance = max(1, int(0.08 * frame_rate))
    peaks, _ = scipy.signal.find_peaks(smooth, height=-30, prominence=2, distance=distance)
    found = {"syllable rate": len(peaks) * frame_rate / len(intensity)}
    size = max(len(intensity), int(2 * frame_rate))
    spectrum = np.abs(scipy.fft.rfft(intensity - intensity.mean(), size)) ** 2 / len(intensity)
    rates = np.arange(len(spectrum)) * frame_rate / size
    for name, low, high in (("word", 1, 3), ("syllable", 3, 8), ("sound", 8, 20)):  # Hz
        inside = spectrum[(rates >= low) & (rates < high)]
        found[f"{name} swing"] = 10 * np.log10(inside.mean() + 1e-3) if len(inside) else -30.0
    return found


def _perturbation(f0: Array, intensity: Array, voiced: NDArray[np.bool_]) -> dict[str, float]:
    """Median second difference of pitch (as a share of it) and of intensity (dB) in voiced frames."""
    three = voiced[2:] & voiced[1:-1] & voiced[:-2]
    if not three.any():
        return {"pitch perturbation": 0.0, "intensity perturbation": 0.0}
    changes = np.diff(f0, 2)[three] / f0[1:-1][three], np.diff(intensity, 2)[three]
    pitch, loudness = (np.median(np.abs(values)) for values in changes)
    return {"pitch perturbation": pitch, "intensity perturbation": loudness}
