"""Audio within Parquet files, as in data sets of the Hugging Face hub; a few clips are in memory at a time.

A row group of a Parquet file is read from its beginning on. Clips that are read in their order therefore cost
one pass, also where a file has one row group alone. Memory is that of some pages, for each of which pyarrow
writes up to 1,024 rows.
"""

import threading
from bisect import bisect_right
from collections.abc import Collection, Iterator, Mapping
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any, Self

from valence_lib.corpora.file_kinds import name_text
from valence_lib.corpora.waveforms import Waveform, read_audio
from valence_lib.errors import ClipError

_ROWS_AT_ONCE = 4
_BUFFER = 1 << 16  # bytes, of what is read at once from the disk
_reading = threading.Lock()  # a stream has one position


class EmbeddedAudio:
    """Recordings within Parquet files.

    Args:
        places: the file and the row, from 0, of each recording by its name.
        columns: the column of each file that holds the audio, a struct with the field "bytes".
        beside: the audio files of recordings whose bytes the table lacks.
    """

    def __init__(
        self,
        places: Mapping[str, tuple[Path, int]],
        columns: Mapping[Path, str],
        beside: Mapping[str, Path],
    ):
        self._places, self._columns, self._beside = places, columns, beside

    @property
    def paths(self) -> list[Path]:
        """The files that hold the audio."""
        return [*self._columns, *self._beside.values()]

    def read(
        self, file: str, sample_rate: int, start: float | None = None, end: float | None = None
    ) -> Waveform:
        """A recording, or a segment of it, as a waveform.

        Args:
            file: the recording's name.
            sample_rate: Hz, of the waveform.
            start, end: of the segment, in seconds; None for the beginning and the end.

        Raises:
            ClipError: "unreadable" where the row lacks audio or cannot be read, and what `read_audio` raises.
        """
        path, row = self._places[file]
        content = self._content(path, row)
        if content is None and file not in self._beside:
            message = (
                f"row {row + 1} of '{name_text(path.name)}' holds no bytes and names no file that exists."
            )
            raise ClipError("unreadable", message)
        return read_audio(self._beside.get(file, file), sample_rate, start or 0.0, end, content)

    def _content(self, path: Path, row: int) -> bytes | None:
        import pyarrow

        try:
            stamp = path.stat().st_mtime_ns
            with _reading:
                return _stream(path, self._columns[path], stamp).bytes_of(row)
        except (OSError, pyarrow.ArrowException) as error:
            _stream.cache_clear()  # its position is not defined any more
            problem = " ".join(str(error).split())
            message = f"row {row + 1} of '{name_text(path.name)}' cannot be read: {problem}"
            raise ClipError("unreadable", message) from error

    def only(self, files: Collection[str]) -> Self:
        """The recordings of these names alone, which can be sent to another process at little cost."""
        places = {file: self._places[file] for file in files if file in self._places}
        columns = {path: self._columns[path] for path, _ in places.values()}
        return type(self)(
            places, columns, {file: self._beside[file] for file in files if file in self._beside}
        )


class _Stream:
    """The audio of one Parquet file, from row to row."""

    def __init__(self, path: Path, column: str):
        from pyarrow import parquet

        self._column = f"{column}.bytes"
        # Without these two, pyarrow holds a whole row group in memory.
        self._file = parquet.ParquetFile(path, buffer_size=_BUFFER, pre_buffer=False)
        metadata = self._file.metadata
        sizes = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
        self._begins = [0, *accumulate(sizes)]  # of the row groups
        self._group = -1
        self._batches: Iterator[Any] = iter(())
        self._batch: Any = ()
        self._first = 0  # row of the batch

    def bytes_of(self, row: int) -> bytes | None:
        """The audio file in a row; None where there is none."""
        if row >= self._begins[-1]:
            raise OSError(f"the file has {self._begins[-1]} rows and was changed")
        group = bisect_right(self._begins, row) - 1
        if group != self._group or row < self._first:
            self._batches = self._file.iter_batches(
                _ROWS_AT_ONCE, row_groups=[group], columns=[self._column], use_threads=False
            )
            self._group, self._first, self._batch = group, self._begins[group], ()
        while row >= self._first + len(self._batch):
            self._first += len(self._batch)
            self._batch = next(self._batches).column(0).field("bytes")
        return self._batch[row - self._first].as_py()


@lru_cache(maxsize=1)
def _stream(path: Path, column: str, stamp: int) -> _Stream:
    """The stream of a file, which stays open for the next clip; the time of its change is the `stamp`."""
    return _Stream(path, column)
