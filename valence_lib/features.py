"""Waveform -> log-mel spectrogram, and the standardisers that bring its bands to one scale."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy.fft
import scipy.sparse
from numpy.typing import NDArray

from valence_lib.errors import SettingsError
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


class _MelPower:
    """Frames -> mel power, in one precision, through arrays that are used again for each block.

    A frame's result does not depend on the frames around it, to the last bit (which a dense product
    would not promise): a clip has the same features alone and among others.

    Args:
        settings: of the features.
        precision: of the window, the transform, the power and the filters.
    """

    def __init__(self, settings: FeatureSettings, precision: str):
        n_fft = settings.n_fft
        self._window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)).astype(precision)
        self._filters = _sparse_filters(settings, precision)
        self._frames = np.empty((_FRAMES_PER_BLOCK, n_fft), precision)
        self._power = np.empty((_FRAMES_PER_BLOCK, 1 + n_fft // 2), precision)
        self._imaginary = np.empty_like(self._power)

    def __call__(
        self, frames: NDArray[np.float32], mel_power: NDArray[np.float32], mean_power: NDArray[np.float32]
    ) -> None:
        """Fill in the mel power and the mean power a bin of these frames.

        Args:
            frames [shape=(n, n_fft)]: samples; may be a view in which frames overlap. Not changed.
            mel_power [shape=(n_mels, n)]: filled.
            mean_power [shape=(n,)]: filled.
        """
        for start in range(0, len(frames), _FRAMES_PER_BLOCK):
            block = slice(start, min(start + _FRAMES_PER_BLOCK, len(frames)))
            used = slice(0, block.stop - start)
            windowed, power, imaginary = self._frames[used], self._power[used], self._imaginary[used]
            np.multiply(frames[block], self._window, out=windowed)
            spectrum = scipy.fft.rfft(windowed, axis=1, overwrite_x=True)
            np.multiply(spectrum.real, spectrum.real, out=power)
            np.multiply(spectrum.imag, spectrum.imag, out=imaginary)
            power += imaginary
            mean_power[block] = power.mean(axis=1)
            mel_power[:, block] = self._filters @ power.T


@lru_cache(maxsize=4)
def _sparse_filters(settings: FeatureSettings, precision: str) -> scipy.sparse.csr_array:
    return scipy.sparse.csr_array(mel_filters(settings).astype(precision))


@lru_cache(maxsize=4)
def _power_of_one_bin(settings: FeatureSettings) -> NDArray[np.float32]:
    """What mel power comes to for one bin of power 1 in each band, weighted as the band weights its bins.

    [shape=(n_mels,)]; 1 for a band that is too narrow to hold a bin.
    """
    filters = mel_filters(settings)
    total = filters.sum(axis=1)
    return np.divide((filters**2).sum(axis=1), total, out=np.ones(len(total)), where=total > 0).astype(
        np.float32
    )


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
    single, double = _MelPower(settings, "float32"), _MelPower(settings, "float64")
    group: list[Waveform] = []
    n_frames = 0
    for waveform in waveforms:
        group.append(waveform)
        n_frames += settings.frames(len(waveform))
        if n_frames >= _FRAMES_PER_GROUP:
            yield from _log_mels_of_group(group, settings, single, double)
            group, n_frames = [], 0
    if group:
        yield from _log_mels_of_group(group, settings, single, double)


def _log_mels_of_group(
    waveforms: list[Waveform], settings: FeatureSettings, single: _MelPower, double: _MelPower
) -> Iterator[LogMel]:
    # The clips lie end to end, half a frame of zeros around each, every one starting on a multiple of
    # hop_length: so the frames of all are one view of the samples, and nothing is copied until the window
    # is applied. The one or two frames between clips are computed and left unused.
    hop, padding = settings.hop_length, settings.n_fft // 2
    starts = np.cumsum([0] + [-(-(len(waveform) + padding) // hop) for waveform in waveforms])
    samples = np.zeros(hop * starts[-1] + settings.n_fft, np.float32)
    for start, waveform in zip(starts, waveforms, strict=False):
        samples[hop * start + padding :][: len(waveform)] = waveform
    frames = np.lib.stride_tricks.sliding_window_view(samples, settings.n_fft)[::hop][: starts[-1]]

    mel_power = np.empty((settings.n_mels, len(frames)), np.float32)
    mean_power = np.empty(len(frames), np.float32)
    single(frames, mel_power, mean_power)

    clips = [
        slice(start, start + settings.frames(len(waveform)))
        for start, waveform in zip(starts, waveforms, strict=False)
    ]
    # What is cut off needs no precision; nor do the frames between clips.
    floor = np.full(len(frames), np.inf, np.float32)
    for clip in clips:
        floor[clip] = max(_SMALLEST_POWER, mel_power[:, clip].max() * 10 ** (-settings.top_db / 10))
    quietest = (np.maximum(mel_power, floor) / _power_of_one_bin(settings)[:, None]).min(axis=0)
    imprecise = np.flatnonzero(quietest < _SINGLE_PRECISION_SUFFICES * mean_power)
    if len(imprecise):
        precise = np.empty((settings.n_mels, len(imprecise)), np.float32)
        double(frames[imprecise], precise, mean_power[: len(imprecise)])
        mel_power[:, imprecise] = precise

    # The natural logarithm, because numpy computes it in vector registers on more machines than log10.
    decibels = np.maximum(mel_power, _SMALLEST_POWER, out=mel_power)
    np.log(decibels, out=decibels)
    decibels *= 10 / np.log(10)
    for clip in clips:
        own = decibels[:, clip]
        yield np.maximum(own, own.max() - settings.top_db).T.copy()


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
