"""Features on disk: ragged frames, memory-mapped, keyed by content, written whole or not at all.

A shard is one .npy file with the frames of some hundred clips, end to end. Its name is a digest of
the feature settings and of those clips' waveforms: another setting or another recording is another
file, a finished shard is never computed again, and reports on one corpus share their shards.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from valence_lib.corpora import Corpus
from valence_lib.errors import CorpusError, RunError
from valence_lib.features import LogMel, log_mels
from valence_lib.files import written_whole
from valence_lib.settings import FeatureSettings
from valence_lib.waveforms import Waveform, digest

CLIPS_PER_SHARD = 256
# Part of every key: raise it when `log_mels` itself changes what it returns.
_FORMAT = "log-mel 2"


class FeatureStore:
    """The log-mel frames of a table of clips, by the table's row.

    `store[row]` is that clip's spectrogram [shape=(frames, n_mels), dtype=float32], a view of a
    memory-mapped file: only what is used is read, and a corpus may be larger than memory.

    Args:
        folder: where the shards lie.
        clips: with the columns digest and n_samples, as `inspect_corpus` makes it.
        settings: of the features.
    """

    def __init__(self, folder: Path, clips: pd.DataFrame, settings: FeatureSettings):
        self.settings = settings
        self.lengths = np.array([settings.frames(n) for n in clips["n_samples"]], dtype=np.int64)
        self._paths = [
            folder / f"{_shard_key(clips['digest'].iloc[rows], settings)}.npy"
            for rows in _shard_rows(len(clips))
        ]
        self._shards: list[np.ndarray | None] = [None] * len(self._paths)

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, row: int) -> LogMel:
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of a feature store of {len(self)} clips")
        number, position = divmod(row, CLIPS_PER_SHARD)
        shard = self._shards[number]
        if shard is None:
            shard = self._shards[number] = self._open(number)
        lengths = self.lengths[number * CLIPS_PER_SHARD :][:CLIPS_PER_SHARD]
        start = int(lengths[:position].sum())
        return shard[start : start + int(lengths[position])]

    def __iter__(self) -> Iterator[LogMel]:
        return (self[row] for row in range(len(self)))

    def _open(self, number: int) -> np.ndarray:
        rows = slice(number * CLIPS_PER_SHARD, (number + 1) * CLIPS_PER_SHARD)
        expected = (int(self.lengths[rows].sum()), self.settings.n_mels)
        try:
            shard = np.load(self._paths[number], mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise RunError(
                f"the feature store lacks the shard {self._paths[number].name}, or it is damaged ({error}). "
                "Delete that file if it is there, and run 1_preprocess.ipynb again."
            ) from error
        if shard.shape != expected or shard.dtype != np.float32:
            raise RunError(
                f"the shard {self._paths[number].name} holds {shard.dtype} {shard.shape}; expected float32 "
                f"{expected}. Delete it and run 1_preprocess.ipynb again."
            )
        return shard

    @classmethod
    def build(
        cls,
        folder: Path,
        corpus: Corpus,
        clips: pd.DataFrame,
        settings: FeatureSettings,
        progress: bool = True,
    ) -> "FeatureStore":
        """The store of these clips, computing the shards that are not there yet.

        Args:
            corpus: that `clips["index"]` points into.
            progress: show a bar on standard error.

        Raises:
            CorpusError: a clip is no longer what it was when `clips` was made.
        """
        store = cls(folder, clips, settings)
        missing = [number for number, path in enumerate(store._paths) if not path.is_file()]
        for number in tqdm(missing, desc="log-mel", unit="shard", disable=None if progress else True):
            rows = range(number * CLIPS_PER_SHARD, min((number + 1) * CLIPS_PER_SHARD, len(clips)))
            frames = list(log_mels((_read_again(corpus, clips, row) for row in rows), settings))
            with written_whole(store._paths[number]) as path:
                np.save(path, np.concatenate(frames), allow_pickle=False)
        return store


def _read_again(corpus: Corpus, clips: pd.DataFrame, row: int) -> Waveform:
    waveform = corpus.read(int(clips["index"].iloc[row])).waveform
    if digest(waveform) != clips["digest"].iloc[row]:
        raise CorpusError(
            f"the audio of {clips['id'].iloc[row]!r} is not what it was when the corpus was checked; "
            "let nothing write into the corpus, and run 1_preprocess.ipynb again."
        )
    return waveform


def _shard_rows(n_clips: int) -> list[slice]:
    return [slice(start, start + CLIPS_PER_SHARD) for start in range(0, n_clips, CLIPS_PER_SHARD)]


def _shard_key(digests: pd.Series, settings: FeatureSettings) -> str:
    return hashlib.sha256("\n".join([_FORMAT, settings.digest(), *digests]).encode()).hexdigest()
