"""Features on disk: ragged rows of numbers, keyed by content, written whole or not at all.

A shard is one .npy file with the log-mel frames of some hundred clips, end to end, or with the rows of one other
stream of theirs. Its name is a digest of the feature settings, of the code that computes features, and of those clips'
waveforms: another of them is another file, a finished shard is never computed again, and reports on one corpus share
their shards.
"""

from __future__ import annotations  # the processes that write shards do without pandas

import hashlib
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from valence_lib.chunks import CLIPS_PER_CHUNK, in_chunks
from valence_lib.errors import RunError
from valence_lib.features import LogMel, log_mel
from valence_lib.files import written_whole
from valence_lib.provenance import digest_of_content, modules_reached
from valence_lib.registry import STREAMS, check_streams
from valence_lib.settings import FeatureSettings
from valence_lib.streams import ClipFeatures, Rows, layer_of, side_by_side, stream_function
from valence_lib.waveforms import Waveform

if TYPE_CHECKING:
    import pandas as pd

    from valence_lib.corpora import Corpus


@cache
def _made_by(module: str) -> str:
    """Digest of the code that computes a stream, and of the libraries that do it: part of every shard's name."""
    versions = [version(name) for name in ("numpy", "scipy", "numba")]
    return digest_of_content([modules_reached([], [module]), versions])


def write_shard(
    folder: Path, waveforms: Sequence[Waveform], digests: Sequence[str], settings: FeatureSettings
) -> str:
    """Compute and write the log-mel frames of some clips, unless they are there already.

    Args:
        folder: where the shards lie; it is made.
        waveforms: the clips.
        digests: of the waveforms, one each, as `waveforms.digest` gives them.
        settings: of the features.

    Returns:
        The shard's name, for the column shard of a `FeatureStore`'s clips.
    """
    name = _name_of("log_mel", digests, settings)
    if not (folder / f"{name}.npy").is_file():
        with written_whole(folder / f"{name}.npy") as path:
            np.save(
                path,
                np.concatenate([log_mel(waveform, settings) for waveform in waveforms]),
                allow_pickle=False,
            )
    return name


def _name_of(stream: str, digests: Sequence[str], settings: FeatureSettings) -> str:
    """The name of the shard that holds a stream of the clips with these digests."""
    if stream != "encoder":  # another encoder leaves all other streams as they are
        settings = replace(settings, encoder="", encoder_layer="auto")
    words = [stream, _made_by(STREAMS[stream].module), settings.digest(), *digests]
    return hashlib.sha256("\n".join(words).encode()).hexdigest()


def store_streams(
    folder: Path,
    corpus: Corpus,
    clips: pd.DataFrame,
    names: Sequence[str],
    settings: FeatureSettings,
    workers: int | None = None,
    progress: bool = True,
) -> None:
    """Compute and write streams beside the log-mel, unless they are there already; the corpus is read once more.

    Args:
        folder: of the feature store.
        clips: as `inspect_corpus` makes it from this corpus.
        names: streams of the registry; those that come from the log-mel frames need no storing, and are left out.
        workers: as for `inspect_corpus`.
        progress: show a bar on standard error where that is a terminal.

    Raises:
        WorkerError: one of the processes was ended from outside.
    """
    chosen = tuple(name for name in names if STREAMS[name].of == "waveform" and name != "log_mel")
    wanted = dict(zip(clips["index"].tolist(), clips["digest"].tolist(), strict=True))
    task = _StreamTask(folder, chosen, settings, wanted)
    if not chosen:
        return
    with (
        closing(in_chunks(corpus, task, workers, CLIPS_PER_CHUNK)) as chunks,
        tqdm(
            total=len(corpus),
            desc=" ".join(chosen),
            unit=" clips",
            disable=not (progress and sys.stderr.isatty()),
        ) as bar,
    ):
        for n_clips in chunks:
            bar.update(n_clips)


@dataclass(frozen=True)
class _StreamTask:
    """What is done with a chunk of clips: `wanted` holds the digests of those to take, by index in the corpus."""

    folder: Path
    names: tuple[str, ...]
    settings: FeatureSettings
    wanted: Mapping[int, str]

    def __call__(self, corpus: Corpus, first: int) -> int:
        """Write the shards of a chunk, of which the first clip has the index `first`; return its clips."""
        taken = [position for position in range(len(corpus)) if first + position in self.wanted]
        digests = [self.wanted[first + position] for position in taken]
        files = {name: self.folder / f"{_name_of(name, digests, self.settings)}.npy" for name in self.names}
        missing = {name: file for name, file in files.items() if not file.is_file()}
        if taken and missing:
            computed = ClipFeatures([corpus.read(position).waveform for position in taken], self.settings)
            for name, file in missing.items():
                with written_whole(file) as path:
                    np.save(path, np.concatenate(computed.of([name])), allow_pickle=False)
        return len(corpus)


class _Header(NamedTuple):
    """What a shard's file says of its content: where it begins, in bytes, and what it is."""

    begin: int
    shape: tuple[int, ...]
    dtype: np.dtype


class _Shards:
    """Shards in a folder, of which only what is asked for is read; no file stays open."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._headers: dict[str, _Header] = {}

    def shape(self, name: str) -> tuple[int, ...]:
        """Rows and columns of a shard."""
        return self._header(name).shape

    def read(self, name: str, start: int, count: int, width: int) -> Rows:
        """So many rows of a shard, which has so many columns [shape=(count, width), dtype=float32]."""
        header = self._header(name)
        fits = header.shape[1:] == (width,) and header.shape[0] >= start + count
        if not fits or header.dtype != np.float32:
            raise RunError(
                f"the shard {name}.npy holds {header.dtype} {header.shape}; expected float32 with {start + count} "
                f"rows or more of {width} columns. Delete it and run 1_preprocess.ipynb again."
            )
        try:
            # Mapping the file into memory would take five times as long for one clip.
            values = np.fromfile(
                self._folder / f"{name}.npy",
                np.float32,
                count * width,
                offset=header.begin + 4 * start * width,
            )
            return values.reshape(count, width)
        except (OSError, ValueError) as error:
            raise self._damage(name, error) from error

    def _header(self, name: str) -> _Header:
        if name not in self._headers:
            try:
                shard = np.load(self._folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
                self._headers[name] = _Header(shard.offset, shard.shape, shard.dtype)
            except (OSError, ValueError, EOFError) as error:
                raise self._damage(name, error) from error
        return self._headers[name]

    def _damage(self, name: str, error: Exception) -> RunError:
        return RunError(
            f"the feature store lacks the shard {name}.npy, or it is damaged ({error}). "
            "Delete that file if it is there, and run 1_preprocess.ipynb again."
        )


class ClipRows(Sequence[Rows]):
    """Input features of a table of clips, by the table's row: `rows[row]` is one clip's numbers.

    Args:
        lengths [shape=(clips,)]: how many rows of numbers each clip has.
        widths: columns of each group of a stream.
        read: gives a clip's [shape=(lengths[row], sum(widths)), dtype=float32].
    """

    def __init__(self, lengths: NDArray[np.int64], widths: Sequence[int], read: Callable[[int], Rows]):
        self.lengths, self.widths, self._read = lengths, tuple(widths), read

    @property
    def width(self) -> int:
        """Columns of all streams."""
        return sum(self.widths)

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, row: int) -> Rows:  # type: ignore[override]
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of a feature store of {len(self)} clips")
        return self._read(row)


class FeatureStore(ClipRows):
    """The log-mel frames of a table of clips, by the table's row, and the other streams of the same clips.

    `store[row]` is that clip's spectrogram [shape=(frames, n_mels), dtype=float32], read from its shard: only
    what is used is read, no file stays open, and a corpus may be larger than memory.

    Args:
        folder: where the shards lie.
        clips: with the columns index, digest, shard, first_frame and n_samples, as `inspect_corpus` makes it.
        settings: of the features.
    """

    def __init__(self, folder: Path, clips: pd.DataFrame, settings: FeatureSettings):
        self.settings = settings
        self.folder = folder
        self._shards = _Shards(folder)
        self._clips = clips
        self._names = clips["shard"].tolist()
        self._first_frames = clips["first_frame"].tolist()
        lengths = np.array([settings.frames(n) for n in clips["n_samples"]], dtype=np.int64)
        super().__init__(lengths, [settings.n_mels], self._log_mel)

    def _log_mel(self, row: int) -> LogMel:
        start, count = self._first_frames[row], int(self.lengths[row])
        return self._shards.read(self._names[row], start, count, self.width)

    def of(self, streams: Sequence[str]) -> ClipRows:
        """These streams side by side.

        Args:
            streams: such as ("log_mel", "voice"); of "encoder:3", layer 3 alone.

        Raises:
            SettingsError: one of them is unknown, or some have a row a frame and some one a clip.
            RunError: one of them was not stored.
        """
        check_streams(streams)
        found = [self._stream(name) for name in streams]
        widths = [width for stream in found for width in stream.widths]
        if len(found) == 1:
            return found[0]
        return ClipRows(found[0].lengths, widths, lambda row: side_by_side([stream[row] for stream in found]))

    def _stream(self, name: str) -> ClipRows:
        base, _, layer = name.partition(":")
        if base == "log_mel":
            return self
        per_clip = STREAMS[base].per == "clip"
        lengths = np.ones_like(self.lengths) if per_clip else self.lengths
        if STREAMS[base].of == "log_mel":
            read = cache(lambda row: stream_function(base)(self[row], self.settings))
            return ClipRows(lengths, [read(0).shape[1]], read)
        shards, starts = self._places_of(base, lengths)
        n_rows, width = self._shards.shape(shards[0])
        if per_clip:  # one row, or one a layer
            each = n_rows // shards.count(shards[0])
            lengths, starts = lengths * each, [start * each for start in starts]

        def read_shard(row: int) -> Rows:
            return layer_of(name, self._shards.read(shards[row], starts[row], int(lengths[row]), width))

        groups = STREAMS[base].groups
        return ClipRows(np.ones_like(lengths) if layer else lengths, [width // groups] * groups, read_shard)

    def _places_of(self, stream: str, lengths: NDArray[np.int64]) -> tuple[list[str], list[int]]:
        """In which shard each clip's rows of a stream lie, as `store_streams` writes them, and where in it."""
        shards, starts = [""] * len(self), [0] * len(self)
        in_order = self._clips.reset_index(drop=True).sort_values("index")  # as the corpus was read
        for _, together in in_order.groupby(in_order["index"] // CLIPS_PER_CHUNK):
            rows = together.index.to_numpy()
            name = _name_of(stream, together["digest"].tolist(), self.settings)
            ends = lengths[rows].cumsum()
            for row, start in zip(rows.tolist(), [0, *ends[:-1].tolist()], strict=True):
                shards[row], starts[row] = name, start
        return shards, starts
