"""Waveform -> log-mel spectrogram, and the standardisers that bring its bands to one scale."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from valence_lib.errors import SettingsError
from valence_lib.mel_power import Bands, mark_weak_frames, mel_power
from valence_lib.settings import FeatureSettings
from valence_lib.waveforms import Waveform

LogMel = NDArray[np.float32]

_SMALLEST_POWER = 1e-10  # librosa's amin: -100 dB
_SMALLEST_DEVIATION = 1e-2  # dB; a band that varies less than this (digital silence) is left near 0

_FRAMES_PER_BLOCK = 64  # transformed at a time: a block's arrays stay in the second-level cache
_FRAMES_PER_GROUP = 2048  # clips are laid end to end up to about this many frames: some 6 MB

# A transform in single precision leaves the same noise in every bin, in proportion to the frame's power.
# A band whose power, seen as that of one bin, is below this share of the frame's mean power a bin is
# near enough to that noise to be off by more than about 5e-4 dB.
_SINGLE_PRECISION_SUFFICES = 3e-5


def _slaney_edges(settings: FeatureSettings) -> NDArray[np.float64]:
    """The n_mels + 2 frequencies in Hz between which the mel filters rise and fall.

    Slaney's scale (Auditory Toolbox, 1998): 200/3 Hz a mel up to 1000 Hz, then 27 mel for a factor of 6.4.
    """
    top = settings.sample_rate / 2
    highest = top * 3 / 200 if top < 1000 else 15 + 27 * np.log(top / 1000) / np.log(6.4)
    mels = np.linspace(0, highest, settings.n_mels + 2)
    return np.where(mels < 15, mels * 200 / 3, 1000 * 6.4 ** ((mels - 15) / 27))


def mel_frequencies(settings: FeatureSettings) -> NDArray[np.float64]:
    """Centre frequencies of the mel bands in Hz [shape=(n_mels,)], on Slaney's scale."""
    return _slaney_edges(settings)[1:-1]


def mel_filters(settings: FeatureSettings) -> NDArray[np.float64]:
    """Slaney's triangular mel filters, each of area 1 Hz [shape=(n_mels, 1 + n_fft // 2)]."""
    edges = _slaney_edges(settings)[:, None]
    bins = np.arange(1 + settings.n_fft // 2) * (settings.sample_rate / settings.n_fft)
    rise = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    return np.maximum(0, np.minimum(rise, fall)) * (2 / (edges[2:] - edges[:-2]))


class _Precision:
    """Frames -> mel power, in one precision, through arrays that are used again for each block.

    Args:
        settings: of the features.
        precision: of the window, the transform, the power and the filters.
    """

    def __init__(self, settings: FeatureSettings, precision: str):
        self._window, self._bands = _window_and_bands(settings, precision)
        self._windowed = np.empty((_FRAMES_PER_BLOCK, settings.n_fft), precision)

    def mel_power(
        self, frames: NDArray[np.float32], mel: NDArray[np.float32], mean: NDArray[np.float32]
    ) -> None:
        """Fill in the mel power and the mean power a bin of these frames.

        A frame's result does not depend on the frames around it, to the last bit: a clip has the same
        features alone and among others.

        Args:
            frames [shape=(n, n_fft)]: samples; may be a view in which frames overlap. Not changed.
            mel [shape=(n, n_mels)]: filled.
            mean [shape=(n,)]: filled.
        """
        for start in range(0, len(frames), _FRAMES_PER_BLOCK):
            block = frames[start : start + _FRAMES_PER_BLOCK]
            windowed = np.multiply(block, self._window, out=self._windowed[: len(block)])
            spectra = scipy.fft.rfft(windowed, axis=1, overwrite_x=True)
            own = slice(start, start + len(block))
            mel_power(spectra.view(windowed.dtype), *self._bands, mel[own], mean[own])


@lru_cache(maxsize=4)
def _window_and_bands(settings: FeatureSettings, precision: str) -> tuple[NDArray[np.floating], Bands]:
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(settings.n_fft) / settings.n_fft)
    return window.astype(precision), Bands.of(mel_filters(settings).astype(precision))


@lru_cache(maxsize=4)
def _to_one_bin(settings: FeatureSettings) -> NDArray[np.float32]:
    """What brings a band's mel power to that of one bin, weighted as the band weights its bins.

    [shape=(n_mels,)]; 1 for a band that is too narrow to hold a bin.
    """
    filters = mel_filters(settings)
    total, squares = filters.sum(axis=1), (filters**2).sum(axis=1)
    return np.divide(total, squares, out=np.ones(len(total)), where=total > 0).astype(np.float32)


class _FrontEnd:
    """Waveforms -> log-mels, some clips at a time, through arrays that are used again for each group."""

    def __init__(self, settings: FeatureSettings):
        self._settings = settings
        self._single, self._double = _Precision(settings, "float32"), _Precision(settings, "float64")
        self._samples = np.empty(0, np.float32)
        self._to_one_bin = _to_one_bin(settings)

    def log_mels(self, waveforms: list[Waveform]) -> Iterator[LogMel]:
        """The spectrogram of each clip."""
        settings = self._settings
        # The clips lie end to end, half a frame of zeros around each, every one starting on a multiple of
        # hop_length: so the frames of all are one view of the samples, and nothing is copied until the
        # window is applied. The one or two frames between clips are computed and left unused.
        hop, padding = settings.hop_length, settings.n_fft // 2
        ends = np.cumsum([-(-(len(waveform) + padding) // hop) for waveform in waveforms]).tolist()
        clips = [
            slice(start, start + settings.frames(len(waveform)))
            for start, waveform in zip([0, *ends], waveforms, strict=False)
        ]
        frames = self._laid_out(waveforms, [hop * clip.start + padding for clip in clips], ends[-1])
        mel = np.empty((len(frames), settings.n_mels), np.float32)
        mean = np.empty(len(frames), np.float32)
        self._single.mel_power(frames, mel, mean)
        self._make_precise(frames, mel, mean, clips)

        # The natural logarithm, because numpy computes it in vector registers on more machines than log10.
        decibels = np.maximum(mel, _SMALLEST_POWER, out=mel)
        np.log(decibels, out=decibels)
        decibels *= 10 / np.log(10)
        for clip in clips:
            own = decibels[clip]
            yield np.maximum(own, own.max() - settings.top_db)

    def _laid_out(self, waveforms: list[Waveform], places: list[int], n_frames: int) -> NDArray[np.float32]:
        """The waveforms at their places among zeros, as overlapping frames [shape=(n_frames, n_fft)]."""
        settings = self._settings
        needed = settings.hop_length * n_frames + settings.n_fft
        if len(self._samples) < needed:
            self._samples = np.empty(needed, np.float32)
        samples, end = self._samples[:needed], 0
        for waveform, place in zip(waveforms, places, strict=True):
            samples[end:place] = 0
            end = place + len(waveform)
            samples[place:end] = waveform
        samples[end:] = 0
        return np.lib.stride_tricks.sliding_window_view(samples, settings.n_fft)[:: settings.hop_length][
            :n_frames
        ]

    def _make_precise(
        self,
        frames: NDArray[np.float32],
        mel: NDArray[np.float32],
        mean: NDArray[np.float32],
        clips: list[slice],
    ) -> None:
        """Compute the frames again in double precision that single precision may not get right."""
        weak = np.zeros(len(frames), np.bool_)
        spans = np.array([(clip.start, clip.stop) for clip in clips])
        cut_off = 10 ** (-self._settings.top_db / 10)
        mark_weak_frames(
            mel, mean, spans, self._to_one_bin, cut_off, _SMALLEST_POWER, _SINGLE_PRECISION_SUFFICES, weak
        )
        again = np.flatnonzero(weak)
        if len(again):
            precise = np.empty((len(again), mel.shape[1]), np.float32)
            self._double.mel_power(frames[again], precise, mean[: len(again)])
            mel[again] = precise


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
    return next(log_mels([waveform], settings))


def log_mels(waveforms: Iterable[Waveform], settings: FeatureSettings) -> Iterator[LogMel]:
    """`log_mel` of many clips, some at a time: faster than one by one, in memory that does not grow.

    Args:
        waveforms: each as for `log_mel`; read some clips ahead of what is yielded.

    Yields:
        Each clip's spectrogram [shape=(frames, n_mels), dtype=float32], in order.
    """
    front_end = _FrontEnd(settings)
    group: list[Waveform] = []
    n_frames = 0
    for waveform in waveforms:
        group.append(waveform)
        n_frames += settings.frames(len(waveform))
        if n_frames >= _FRAMES_PER_GROUP:
            yield from front_end.log_mels(group)
            group, n_frames = [], 0
    if group:
        yield from front_end.log_mels(group)


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
        """One clip's spectrogram, standardised, in memory of its own [shape=(frames, n_mels), dtype=float32].

        Raises:
            SettingsError: the kind is "speaker" and this speaker was not among those fitted.
        """
        if self.kind == "none":
            return np.array(frames)
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
