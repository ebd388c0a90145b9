"""Features on disk: ragged frames, keyed by content, written whole or not at all.

A shard is one .npy file with the frames of some hundred clips, end to end. Its name is a digest of
the feature settings, of the code that computes features, and of those clips' waveforms: another of them is another
file, a finished shard is never computed again, and reports on one corpus share their shards.
"""

from __future__ import annotations  # the processes that write shards do without pandas

import hashlib
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from valence_lib.errors import RunError
from valence_lib.features import LogMel, log_mels
from valence_lib.files import written_whole
from valence_lib.provenance import digest_of_content, modules_reached
from valence_lib.settings import FeatureSettings
from valence_lib.waveforms import Waveform

if TYPE_CHECKING:
    import pandas as pd


@cache
def _made_by() -> str:
    """Digest of the code that computes features, and of the libraries that do it: part of every shard's name."""
    versions = [version(name) for name in ("numpy", "scipy", "numba")]
    return digest_of_content([modules_reached(["import valence_lib.features"]), versions])


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
    name = hashlib.sha256("\n".join([_made_by(), settings.digest(), *digests]).encode()).hexdigest()
    if not (folder / f"{name}.npy").is_file():
        with written_whole(folder / f"{name}.npy") as path:
            np.save(path, np.concatenate(list(log_mels(waveforms, settings))), allow_pickle=False)
    return name


class _Header(NamedTuple):
    """What a shard's file says of its content: where it begins, in bytes, and what it is."""

    begin: int
    shape: tuple[int, ...]
    dtype: np.dtype


class FeatureStore:
    """The log-mel frames of a table of clips, by the table's row.

    `store[row]` is that clip's spectrogram [shape=(frames, n_mels), dtype=float32], read from its shard: only
    what is used is read, no file stays open, and a corpus may be larger than memory.

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
        self._headers: dict[str, _Header] = {}

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, row: int) -> LogMel:
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of a feature store of {len(self)} clips")
        name, start, count = self._names[row], self._first_frames[row], int(self.lengths[row])
        if name not in self._headers:
            self._headers[name] = self._read_header(name)
        header, bands = self._headers[name], self.settings.n_mels
        fits = header.shape[1:] == (bands,) and header.shape[0] >= start + count
        if not fits or header.dtype != np.float32:
            raise RunError(
                f"the shard {name}.npy holds {header.dtype} {header.shape}; expected float32 with {start + count} "
                f"frames or more of {bands} bands. Delete it and run 1_preprocess.ipynb again."
            )
        try:
            # Mapping the file into memory would take five times as long for one clip.
            values = np.fromfile(
                self._folder / f"{name}.npy",
                np.float32,
                count * bands,
                offset=header.begin + 4 * start * bands,
            )
            return values.reshape(count, bands)
        except (OSError, ValueError) as error:
            raise self._damage(name, error) from error

    def __iter__(self) -> Iterator[LogMel]:
        return (self[row] for row in range(len(self)))

    def _read_header(self, name: str) -> _Header:
        try:
            shard = np.load(self._folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
            return _Header(shard.offset, shard.shape, shard.dtype)
        except (OSError, ValueError, EOFError) as error:
            raise self._damage(name, error) from error

    def _damage(self, name: str, error: Exception) -> RunError:
        return RunError(
            f"the feature store lacks the shard {name}.npy, or it is damaged ({error}). "
            "Delete that file if it is there, and run 1_preprocess.ipynb again."
        )
