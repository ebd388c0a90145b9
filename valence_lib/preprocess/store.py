"""Features on disk: rows of numbers for each clip, keyed by content, each file complete or absent.

A shard is one .npy file with the log-mel frames of some hundred clips, end to end, or with the rows of
another stream. Its name is a digest of the feature settings, of the code that computes features, and of the
clips' waveforms: a finished shard is never computed again, and reports on one corpus share their shards.
"""

from __future__ import annotations  # the processes that write shards do without pandas

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from valence_lib.corpora.waveforms import Waveform
from valence_lib.errors import RunError
from valence_lib.features.log_mel import LogMel, log_mel
from valence_lib.features.streams import ClipFeatures, Rows, layer_of, side_by_side, stream_function
from valence_lib.files import atomic_write
from valence_lib.preprocess.parallel import CLIPS_PER_CHUNK, in_chunks
from valence_lib.provenance import digest_of_content, modules_reached
from valence_lib.registry import STREAMS, check_streams
from valence_lib.settings import FeatureSettings

if TYPE_CHECKING:
    import pandas as pd

    from valence_lib.corpora.sources import Corpus


def write_shard(
    folder: Path, waveforms: Sequence[Waveform], digests: Sequence[str], settings: FeatureSettings
) -> str:
    """Compute and write the log-mel frames of some clips, unless they are there already.

    Args:
        waveforms: the clips, each [shape=(n_samples,)].
        digests: of the waveforms, from `waveforms.digest`.

    Returns:
        The shard's name, for the column shard of a `FeatureStore`'s clips.
    """
    name = _name_of("log_mel", digests, settings)
    if not (folder / f"{name}.npy").is_file():
        _save(folder / f"{name}.npy", [log_mel(waveform, settings) for waveform in waveforms])
    return name


def _save(file: Path, rows: Sequence[Rows]) -> None:
    with atomic_write(file) as path:
        np.save(path, np.concatenate(rows), allow_pickle=False)


@cache
def _code_digest(module: str) -> str:
    """Digest of the code and the libraries that compute a stream."""
    versions = [version(name) for name in ("numpy", "scipy", "numba")]
    return digest_of_content([modules_reached([], [module]), versions])


def _name_of(stream: str, digests: Sequence[str], settings: FeatureSettings) -> str:
    """The name of the shard that holds a stream of the clips with these digests."""
    if stream != "encoder":  # the other streams do not depend on it
        settings = replace(settings, encoder="", encoder_layer="auto")
    words = [stream, _code_digest(STREAMS[stream].module), settings.digest(), *digests]
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
    """Compute and write streams other than the log-mel, unless they are there; the corpus is read again.

    Args:
        corpus: from which `inspect_corpus` made `clips`.
        clips: with the columns index and digest.
        names: streams of the registry; those that come from log-mel frames need no storing and are ignored.
        workers: number of processes, as for `inspect_corpus`.
        progress: show a bar on standard error where that is a terminal.

    Raises:
        WorkerError: one of the processes was killed.
    """
    chosen = tuple(name for name in names if STREAMS[name].of == "waveform" and name != "log_mel")
    if chosen:
        wanted = dict(zip(clips["index"].tolist(), clips["digest"].tolist(), strict=True))
        task = partial(_write_streams, folder, chosen, settings, wanted)
        in_chunks(corpus, task, workers, CLIPS_PER_CHUNK, " ".join(chosen) if progress else "")


def _write_streams(
    folder: Path,
    names: Sequence[str],
    settings: FeatureSettings,
    wanted: Mapping[int, str],
    corpus: Corpus,
    first: int,
) -> None:
    """Write the shards of a chunk, whose first clip has the index `first`; `wanted`: digests by index."""
    taken = [position for position in range(len(corpus)) if first + position in wanted]
    digests = [wanted[first + position] for position in taken]
    files = {name: folder / f"{_name_of(name, digests, settings)}.npy" for name in names}
    missing = {name: file for name, file in files.items() if not file.is_file()}
    if taken and missing:
        computed = ClipFeatures([corpus.read(position).waveform for position in taken], settings)
        for name, file in missing.items():
            _save(file, computed.of([name]))


@contextmanager
def _damage_reported(name: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, EOFError) as error:
        raise RunError(
            f"the feature store lacks the shard {name}.npy, or it is damaged ({error}). "
            "Delete that file if it is there, and run 1_preprocess.ipynb again."
        ) from error


class ClipRows(Sequence[Rows]):
    """Input features of a table of clips: `rows[row]` are those of the clip in the table's row.

    Args:
        lengths [shape=(clips,)]: number of rows of features of each clip.
        widths: columns of each group of a stream.
        read: returns the features of a clip [shape=(lengths[row], sum(widths)), dtype=float32].
    """

    def __init__(self, lengths: NDArray[np.int64], widths: Sequence[int], read: Callable[[int], Rows]):
        self.lengths, self.widths, self._read = lengths, tuple(widths), read

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, row: int) -> Rows:  # type: ignore[override]
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of a feature store of {len(self)} clips")
        return self._read(row)


class FeatureStore(ClipRows):
    """The log-mel frames of a table of clips, and the other streams of the same clips.

    `store[row]` is the clip's spectrogram [shape=(frames, n_mels), dtype=float32], read from its shard when
    it is indexed, so that a corpus may be larger than memory.

    Args:
        folder: of the shards.
        clips: with the columns index, digest, shard, first_frame and n_samples, from `inspect_corpus`.
    """

    def __init__(self, folder: Path, clips: pd.DataFrame, settings: FeatureSettings):
        self.settings, self.folder, self._clips = settings, folder, clips
        self._headers: dict[str, tuple[int, tuple[int, ...], np.dtype]] = {}
        self._names = clips["shard"].tolist()
        self._first_frames = clips["first_frame"].tolist()
        lengths = np.array([settings.frames(n) for n in clips["n_samples"]], dtype=np.int64)
        super().__init__(lengths, [settings.n_mels], self._log_mel)

    def _log_mel(self, row: int) -> LogMel:
        start, count = self._first_frames[row], int(self.lengths[row])
        return self._rows_of(self._names[row], start, count, self.settings.n_mels)

    def _header(self, name: str) -> tuple[int, tuple[int, ...], np.dtype]:
        """The position of a shard's content in its file, in bytes, and the content's shape and type."""
        if name not in self._headers:
            with _damage_reported(name):
                shard = np.load(self.folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
                self._headers[name] = shard.offset, shard.shape, shard.dtype
        return self._headers[name]

    def _rows_of(self, name: str, start: int, count: int, width: int) -> Rows:
        """`count` rows of a shard from `start` on [shape=(count, width), dtype=float32]."""
        begin, shape, dtype = self._header(name)
        if shape[1:] != (width,) or shape[0] < start + count or dtype != np.float32:
            raise RunError(
                f"the shard {name}.npy holds {dtype} {shape}; expected float32 with {start + count} "
                f"rows or more of {width} columns. Delete it and run 1_preprocess.ipynb again."
            )
        with _damage_reported(name):  # np.fromfile takes a fifth of a memory map's time for one clip
            file = self.folder / f"{name}.npy"
            values = np.fromfile(file, np.float32, count * width, offset=begin + 4 * start * width)
            return values.reshape(count, width)

    def of(self, streams: Sequence[str]) -> ClipRows:
        """Some streams, concatenated by column.

        Args:
            streams: such as ("log_mel", "pitch"); "encoder:3" is layer 3 alone.

        Raises:
            SettingsError: one of them is unknown, or some have a row a frame and some one a clip.
            RunError: one of them was not stored.
        """
        check_streams(streams)
        found = [self._stream(name) for name in streams]
        if len(found) == 1:
            return found[0]
        widths = [width for stream in found for width in stream.widths]
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
        _, (n_rows, width), _ = self._header(shards[0])
        if per_clip:  # one row, or one a layer
            each = n_rows // shards.count(shards[0])
            lengths, starts = lengths * each, [start * each for start in starts]

        def read_shard(row: int) -> Rows:
            return layer_of(name, self._rows_of(shards[row], starts[row], int(lengths[row]), width))

        groups = STREAMS[base].groups
        return ClipRows(np.ones_like(lengths) if layer else lengths, [width // groups] * groups, read_shard)

    def _places_of(self, stream: str, lengths: NDArray[np.int64]) -> tuple[list[str], list[int]]:
        """The shard of each clip's rows of a stream, as `store_streams` writes it, and their place in it."""
        in_order = self._clips.reset_index(drop=True).assign(length=lengths).sort_values("index")
        chunks = in_order.groupby(in_order["index"] // CLIPS_PER_CHUNK)
        starts = chunks["length"].cumsum() - in_order["length"]
        shards = chunks["digest"].transform(lambda own: _name_of(stream, own.tolist(), self.settings))
        return shards.sort_index().tolist(), starts.sort_index().tolist()
