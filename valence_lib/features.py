"""Waveform -> log-mel spectrogram, and the standardisers that bring its bands to one scale."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from valence_lib.errors import SettingsError
from valence_lib.settings import FeatureSettings
from valence_lib.waveforms import Waveform

LogMel = NDArray[np.float32]

_SMALLEST_POWER = 1e-10  # librosa's amin: -100 dB
# A column that varies less than this share of its mean (a band of digital silence, at -100 dB) is left near 0.
_SMALLEST_SHARE = 1e-4
_FRAMES_PER_BLOCK = 64  # transformed at a time: a block's arrays stay in the second-level cache


def _edges(sample_rate: int, n_mels: int) -> NDArray[np.float64]:
    """The n_mels + 2 frequencies in Hz between which the mel filters rise and fall, up to half the sample rate.

    Slaney's scale (Auditory Toolbox, 1998): 200/3 Hz a mel up to 1000 Hz, then 27 mel for a factor of 6.4.
    """
    top = sample_rate / 2
    highest = top * 3 / 200 if top < 1000 else 15 + 27 * np.log(top / 1000) / np.log(6.4)
    mels = np.linspace(0, highest, n_mels + 2)
    return np.where(mels < 15, mels * 200 / 3, 1000 * 6.4 ** ((mels - 15) / 27))


def mel_frequencies(settings: FeatureSettings) -> NDArray[np.float64]:
    """Centre frequencies of the mel bands in Hz [shape=(n_mels,)], on Slaney's scale."""
    return _edges(settings.sample_rate, settings.n_mels)[1:-1]


@lru_cache(maxsize=4)
def mel_filters(sample_rate: int, n_fft: int, n_mels: int) -> NDArray[np.float64]:
    """Slaney's triangular mel filters, each of area 1 Hz [shape=(n_mels, 1 + n_fft // 2)]."""
    edges = _edges(sample_rate, n_mels)[:, None]
    bins = np.arange(1 + n_fft // 2) * (sample_rate / n_fft)
    rise = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    return np.maximum(0, np.minimum(rise, fall)) * (2 / (edges[2:] - edges[:-2]))


def mel_power(
    waveform: Waveform, sample_rate: int, n_fft: int, hop_length: int, n_mels: int
) -> NDArray[np.float64]:
    """Mel power spectra of Hann-windowed, centred frames, the ends padded with zeros.

    Equal to `librosa.feature.melspectrogram(...).T`, in double precision: in single precision, bands 80 dB below the loudest are
    off by 1e-3 dB.

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


def log_mel(waveform: Waveform, settings: FeatureSettings) -> LogMel:
    """The log-mel spectrogram of one clip, in decibels.

    10 log10 of the mel power re 1.0, cut off `top_db` below the clip's loudest band. It equals
    `librosa.power_to_db(librosa.feature.melspectrogram(...)).T` to within 1e-3 dB.

    Args:
        waveform [shape=(n_samples,)]: at `settings.sample_rate` Hz.

    Returns:
        [shape=(frames, n_mels), dtype=float32], where frames = 1 + n_samples // hop_length.
    """
    power = mel_power(waveform, settings.sample_rate, settings.n_fft, settings.hop_length, settings.n_mels)
    decibels = 10 * np.log10(np.maximum(power, _SMALLEST_POWER))
    return np.maximum(decibels, decibels.max() - settings.top_db).astype(np.float32)


@dataclass(frozen=True)
class Standardiser:
    """Brings every mel band to mean 0 and deviation 1, by statistics of one of four origins.

    "train": of the training part's frames; "speaker": of all frames of the clip's speaker, which uses
    that speaker's other clips but no labels; "clip": of the clip's own frames; "none": decibels stay
    decibels.

    Args:
        kind: one of the four.
        groups: whose statistics the rows below are: ("train",) or the speakers' names; else empty.
        mean [shape=(len(groups), n_mels)]: dB.
        deviation [shape=(len(groups), n_mels)]: dB.
    """

    kind: str
    groups: tuple[str, ...]
    mean: NDArray[np.float32]
    deviation: NDArray[np.float32]

    @classmethod
    def fit(
        cls,
        kind: str,
        log_mels: Iterable[LogMel],
        speakers: Sequence[str],
        in_training: Sequence[bool] | NDArray[np.bool_],
    ) -> "Standardiser":
        """Statistics from clips, each read once.

        Args:
            log_mels: one spectrogram a clip.
            speakers: who speaks in each clip; "" where unknown.
            in_training: whether each clip belongs to the training part; only those count for "train".

        Raises:
            SettingsError: "speaker" where a clip's speaker is unknown; no clip to fit on.
        """
        if kind in ("clip", "none"):
            nothing = np.zeros((0, 0), np.float32)
            return cls(kind, (), nothing, nothing)
        if kind == "speaker" and not all(speakers):
            raise SettingsError(
                "standardise='speaker' was given, but the corpus does not name the speaker of every clip; "
                "expected a 'speaker' column. Use standardise='clip' or 'train'."
            )
        sums: dict[str, list[NDArray[np.float64]]] = {}
        for frames, speaker, training in zip(log_mels, speakers, in_training, strict=True):
            if kind == "train" and not training:
                continue
            group = "train" if kind == "train" else speaker
            values = frames.astype(np.float64)
            total = np.stack([np.full(values.shape[1], len(values)), values.sum(0), (values**2).sum(0)])
            sums.setdefault(group, []).append(total)
        if not sums:
            raise SettingsError(
                f"standardise={kind!r} was given, but no clip to fit it on; expected at least one training clip."
            )
        groups = tuple(sorted(sums))
        n, first, second = np.stack([np.sum(sums[group], axis=0) for group in groups], axis=1)
        mean = first / n
        deviation = np.maximum(np.sqrt(np.maximum(second / n - mean**2, 0)), _smallest_deviation(mean))
        return cls(kind, groups, mean.astype(np.float32), deviation.astype(np.float32))

    def apply(self, frames: LogMel, speaker: str = "") -> LogMel:
        """One clip's spectrogram, standardised, in memory of its own [shape=(frames, n_mels), dtype=float32].

        Raises:
            SettingsError: the kind is "speaker" and this speaker was not among those fitted.
        """
        if self.kind == "none":
            return np.array(frames)
        if self.kind == "clip":
            mean = frames.mean(axis=0)
            return (frames - mean) / np.maximum(frames.std(axis=0), _smallest_deviation(mean))
        group = "train" if self.kind == "train" else speaker
        if group not in self.groups:
            raise SettingsError(
                f"speaker {speaker!r} has no statistics; known: {', '.join(self.groups)}. "
                "Fit the standardiser on this speaker's clips first."
            )
        row = self.groups.index(group)
        return (frames - self.mean[row]) / self.deviation[row]


def _smallest_deviation(mean: NDArray[np.floating]) -> NDArray[np.floating]:
    return np.maximum(_SMALLEST_SHARE * np.abs(mean), 1e-6)
