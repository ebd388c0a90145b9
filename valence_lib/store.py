"""Features on disk: ragged frames, memory-mapped, keyed by content, written whole or not at all.

A shard is one .npy file with the frames of some hundred clips, end to end. Its name is a digest of
the feature settings and of those clips' waveforms: another setting or another recording is another
file, a finished shard is never computed again, and reports on one corpus share their shards.
"""

from __future__ import annotations  # the processes that write shards do without pandas

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from valence_lib.errors import RunError
from valence_lib.features import LogMel, log_mels
from valence_lib.files import written_whole
from valence_lib.settings import FeatureSettings
from valence_lib.waveforms import Waveform

if TYPE_CHECKING:
    import pandas as pd

# Part of every key: raise it when `log_mels` itself changes what it returns.
_FORMAT = "log-mel 3"
# Pages of a map count as this process's memory for as long as it is open; a shard takes some 10 MB.
_MOST_OPEN_SHARDS = 16


def write_shard(
    folder: Path, waveforms: Sequence[Waveform], digests: Sequence[str], settings: FeatureSettings
) -> str:
    """Compute and write the frames of some clips, unless they are there already.

    Args:
        folder: where the shards lie; it is made.
        waveforms: the clips.
        digests: of the waveforms, one each, as `waveforms.digest` gives them.
        settings: of the features.

    Returns:
        The shard's name, for the column shard of a `FeatureStore`'s clips.
    """
    name = hashlib.sha256("\n".join([_FORMAT, settings.digest(), *digests]).encode()).hexdigest()
    if not (folder / f"{name}.npy").is_file():
        with written_whole(folder / f"{name}.npy") as path:
            np.save(path, np.concatenate(list(log_mels(waveforms, settings))), allow_pickle=False)
    return name


class FeatureStore:
    """The log-mel frames of a table of clips, by the table's row.

    `store[row]` is that clip's spectrogram [shape=(frames, n_mels), dtype=float32], a view of a
    memory-mapped file: only what is used is read, few files are open at a time, and a corpus may be
    larger than memory.

    Args:
        folder: where the shards lie.
        clips: with the columns shard, first_frame and n_samples, as `inspect_corpus` makes it.
        settings: of the features.
    """

    def __init__(self, folder: Path, clips: pd.DataFrame, settings: FeatureSettings):
        self.settings = settings
        self.lengths = np.array([settings.frames(n) for n in clips["n_samples"]], dtype=np.int64)
        self._folder = folder
        self._names = clips["shard"].tolist()
        self._first_frames = clips["first_frame"].tolist()
        self._open_shards: dict[str, np.ndarray] = {}  # the one used last stands last

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, row: int) -> LogMel:
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of a feature store of {len(self)} clips")
        name, start = self._names[row], self._first_frames[row]
        end = start + int(self.lengths[row])
        shard = self._open_shards.pop(name, None)
        if shard is None:
            shard = self._open(name)
        self._open_shards[name] = shard
        if len(self._open_shards) > _MOST_OPEN_SHARDS:
            self._open_shards.pop(next(iter(self._open_shards)))
        fits = shard.ndim == 2 and shard.shape[1] == self.settings.n_mels and len(shard) >= end
        if not fits or shard.dtype != np.float32:
            raise RunError(
                f"the shard {name}.npy holds {shard.dtype} {shard.shape}; expected float32 with {end} frames "
                f"or more of {self.settings.n_mels} bands. Delete it and run 1_preprocess.ipynb again."
            )
        return shard[start:end]

    def __iter__(self) -> Iterator[LogMel]:
        return (self[row] for row in range(len(self)))

    def _open(self, name: str) -> np.ndarray:
        try:
            return np.load(self._folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise RunError(
                f"the feature store lacks the shard {name}.npy, or it is damaged ({error}). "
                "Delete that file if it is there, and run 1_preprocess.ipynb again."
            ) from error
