"""Waveform -> log-mel spectrogram, and the standardisers that bring its bands to one scale."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy.fft
import scipy.signal
import scipy.sparse
from numpy.typing import NDArray

from valence_lib.errors import SettingsError
from valence_lib.settings import FeatureSettings
from valence_lib.waveforms import Waveform

LogMel = NDArray[np.float32]

_SMALLEST_POWER = 1e-10  # librosa's amin: -100 dB
_SMALLEST_DEVIATION = 1e-2  # dB; a band that varies less than this (digital silence) is left near 0


@lru_cache(maxsize=4)
def mel_frequencies(settings: FeatureSettings) -> NDArray[np.float64]:
    """Centre frequencies of the mel bands in Hz [shape=(n_mels,)], on Slaney's scale."""
    import librosa

    edges = librosa.mel_frequencies(settings.n_mels + 2, fmin=0.0, fmax=settings.sample_rate / 2)
    return edges[1:-1]


@lru_cache(maxsize=4)
def _filterbank(settings: FeatureSettings) -> scipy.sparse.csr_array:
    """librosa's Slaney mel filters [shape=(n_mels, 1 + n_fft // 2)]; 98 % of their weights are zero."""
    import librosa

    filters = librosa.filters.mel(sr=settings.sample_rate, n_fft=settings.n_fft, n_mels=settings.n_mels)
    return scipy.sparse.csr_array(filters)


@lru_cache(maxsize=4)
def _window(n_fft: int) -> NDArray[np.float64]:
    # In double precision, and with it the transform: in single precision, rounding noise alone moves
    # bands 80 dB below a frame's loudest by more than 1e-3 dB.
    return scipy.signal.get_window("hann", n_fft, fftbins=True)


def log_mel(waveform: Waveform, settings: FeatureSettings) -> LogMel:
    """The log-mel spectrogram of one clip, in decibels.

    Power spectrogram of Hann-windowed, centred frames (the ends padded with zeros), Slaney mel
    filters, 10 log10 of the power re 1.0, cut off `top_db` below the clip's loudest band. It equals
    `librosa.power_to_db(librosa.feature.melspectrogram(...)).T` to within 1e-3 dB.

    Args:
        waveform [shape=(n_samples,)]: at `settings.sample_rate` Hz.

    Returns:
        [shape=(frames, n_mels)], where frames = 1 + n_samples // hop_length.
    """
    padded = np.pad(waveform, settings.n_fft // 2)
    # Overlapping frames as a view of the padded waveform: nothing is copied until the window is applied.
    frames = np.lib.stride_tricks.sliding_window_view(padded, settings.n_fft)[:: settings.hop_length]
    spectrum = scipy.fft.rfft(frames * _window(settings.n_fft), axis=1, overwrite_x=True)
    power = spectrum.real**2 + spectrum.imag**2
    mel_power = (_filterbank(settings) @ power.T).T
    decibels = 10.0 * np.log10(np.maximum(mel_power, _SMALLEST_POWER))
    return np.ascontiguousarray(np.maximum(decibels, decibels.max() - settings.top_db), dtype=np.float32)


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
        deviation = np.sqrt(np.maximum(second / n - mean**2, _SMALLEST_DEVIATION**2))
        return cls(kind, groups, mean.astype(np.float32), deviation.astype(np.float32))

    def apply(self, frames: LogMel, speaker: str = "") -> LogMel:
        """One clip's spectrogram, standardised [shape=(frames, n_mels), dtype=float32].

        Raises:
            SettingsError: the kind is "speaker" and this speaker was not among those fitted.
        """
        if self.kind == "none":
            return np.asarray(frames)
        if self.kind == "clip":
            deviation = np.maximum(frames.std(axis=0), _SMALLEST_DEVIATION)
            return (frames - frames.mean(axis=0)) / deviation
        group = "train" if self.kind == "train" else speaker
        if group not in self.groups:
            raise SettingsError(
                f"speaker {speaker!r} has no statistics; known: {', '.join(self.groups)}. "
                "Fit the standardiser on this speaker's clips first."
            )
        row = self.groups.index(group)
        return (frames - self.mean[row]) / self.deviation[row]
