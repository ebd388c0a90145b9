"""Input features -> zero mean and unit variance, by training clips, speaker or clip."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from valence_lib.errors import SettingsError
from valence_lib.features.log_mel import LogMel

_SMALLEST_SHARE = 1e-4  # of the mean; a column that varies less, such as digital silence, stays near 0


@dataclass(frozen=True)
class Standardiser:
    """Brings every column of the input features to mean 0 and standard deviation 1.

    Args:
        kind: frames that give mean and deviation: "train" for those of the training subset; "speaker" for
            all of the clip's speaker; "clip" for those of the clip; "none" for unchanged features.
        groups: of the rows below: ("train",) or the speakers' names; else empty.
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
            speakers: each clip's speaker; "" where unknown.
            in_training: whether each clip is in the training subset; "train" uses these only.

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
            raise SettingsError(f"standardise={kind!r} was given without clips; expected a training clip.")
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
