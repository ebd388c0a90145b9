"""A corpus as all stages use it: a lazy sequence of `Clip`, and clips that a table of labels describes.

Opening a corpus lists its clips, indexing reads one. It is never written to. `opening.open_corpus` finds out
what a path holds.
"""

import copy
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from valence_lib.corpora.labels import Labels
from valence_lib.corpora.locating import Files
from valence_lib.corpora.waveforms import Waveform, read_audio
from valence_lib.errors import ClipError, CorpusError
from valence_lib.settings import Target


@dataclass(frozen=True)
class Clip:
    """One clip of speech.

    Args:
        id: its name within the corpus, e.g. "train/00001.pkl" or "audio/DK_001_A_1.flac".
        waveform [shape=(n_samples,), dtype=float32]: mono, in [-1, 1].
        sample_rate: Hz.
        rating: of the corpus's target, such as the valence; None where the corpus gives none.
        subset: "train", "validation" or "test" where the corpus names one, else "".
        labels: the other columns of the corpus: speaker, sex, language, emotion, ...
        by_rater: single raters' ratings by column, rating_a1 ...; NaN where one is missing.
    """

    id: str
    waveform: Waveform
    sample_rate: int
    rating: float | None
    subset: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    by_rater: Mapping[str, float] = field(default_factory=dict)

    @property
    def speaker(self) -> str:
        """The speaker's name; "" where unknown."""
        return self.labels.get("speaker", "")


class Corpus(Sequence[Clip]):
    """Clips in a fixed order, read one at a time.

    Reading a clip that cannot be used raises `ClipError`; the others can still be read.

    Args:
        name: as the report shows it.
        ids: the clips' names, one each.
        sample_rate: Hz, to which every waveform is resampled.
        target: what the ratings rate, and their scale.
        about: what is stated of the corpus: "description", "synthetic", "lowest_mse", "terms", "citation",
            "source".
        entries: of each clip, what `read` needs, and the subset to which the corpus assigns it, else "".

    Attributes:
        form: how the corpus is stored, in a few words.
        notes: sentences about how it was read, for everyone who uses the results; empty for an ordinary one.
        unrated: why no clip has a rating; "" where the corpus has ratings.
        takes_columns: whether it has a table whose columns can be named, as by `COLUMNS=`.
        stated_scale: the ends of the rating scale that it states itself; None where it states none.
    """

    form = ""
    notes: Sequence[str] = ()
    unrated = ""
    takes_columns = False
    stated_scale: tuple[float, float] | None = None

    def __init__(
        self,
        name: str,
        ids: Sequence[str],
        sample_rate: int,
        target: Target,
        about: Mapping[str, object],
        entries: Sequence[tuple[Any, str]] = (),
    ):
        self.name = name
        self.ids = tuple(ids)
        self.sample_rate = sample_rate
        self.target = target
        self.about = dict(about)
        self._entries = entries

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Clip:  # type: ignore[override]
        return self.read(range(len(self))[index])

    def read(self, index: int) -> Clip:
        """The clip at a position from 0.

        Raises:
            ClipError: this clip cannot be used; its `reason` names the problem in a word or two.
        """
        raise NotImplementedError

    def subset(self, index: int) -> str:
        """The subset to which the corpus assigns the clip at a position, without reading it; else ""."""
        return self._entries[index][1]

    def ratings(self) -> NDArray[np.float64]:
        """The rating of each clip; NaN where there is none [shape=(clips,)].

        A corpus that has its ratings without decoding audio overrides this; they are then checked at once.
        """

        def of_clip(index: int) -> float | None:
            try:
                return self.read(index).rating
            except ClipError:  # it is reported when the clip is read again
                return None

        values = map(of_clip, range(len(self)))
        return np.array([math.nan if value is None else value for value in values], np.float64)

    def rating_bounds(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The lowest and the highest rating of each clip, by any rater; NaN where there is none."""
        values = self.ratings()
        return values, values

    def speakers(self) -> list[str]:
        """The speaker of each clip; "" where unknown."""
        return [""] * len(self)

    @property
    def names_speakers(self) -> bool:
        """Whether every clip has a speaker's name."""
        return all(self.speakers())

    @property
    def rater_columns(self) -> Sequence[str]:
        """The columns of single raters, rating_a1, ..., which are the keys of every clip's `by_rater`."""
        return []

    @property
    def parts(self) -> "Sequence[Corpus]":
        """The corpora of which this one is made up; itself, where it is one."""
        return [self]

    def part_of(self, index: int) -> str:
        """The name of the part to which the clip at a position belongs."""
        return self.name

    def files(self) -> list[Path]:
        """All files from which the clips and their labels are read, whether they exist or not."""
        raise NotImplementedError

    def cut(self, start: int, stop: int) -> Self:
        """The clips at the positions from `start` to before `stop` as a corpus of their own, numbered from 0.

        It holds nothing of the other clips, so that it can be sent to another process at little cost.
        """
        chosen = copy.copy(self)
        chosen.ids, chosen._entries = self.ids[start:stop], self._entries[start:stop]
        return chosen


class Recordings(Protocol):
    """Where the audio of a corpus with labels is."""

    @property
    def paths(self) -> list[Path]:
        """All files with audio."""
        ...

    def read(self, file: str, sample_rate: int, start: float | None, end: float | None) -> Waveform:
        """A recording by its name in the table, or a segment of it, in seconds."""
        ...

    def only(self, files: Collection[str]) -> "Recordings":
        """Some of them, to be sent to another process."""
        ...


@dataclass(frozen=True)
class AudioFiles:
    """Recordings in files of their own, by their names in the table."""

    by_name: Mapping[str, Path]

    @property
    def paths(self) -> list[Path]:
        """See `Recordings`."""
        return list(self.by_name.values())

    def read(self, file: str, sample_rate: int, start: float | None, end: float | None) -> Waveform:
        """See `Recordings`."""
        return read_audio(self.by_name[file], sample_rate, start or 0.0, end)

    def only(self, files: Collection[str]) -> "AudioFiles":
        """See `Recordings`."""
        return AudioFiles({name: path for name, path in self.by_name.items() if name in files})


class LabelledClips(Corpus):
    """Recordings, or segments of them, with a row of labels each.

    Args:
        labels: as `labels.read_labels` and the readers of published corpora give them.
        folder: to which the names of files refer.
        recordings: where the audio is; None for files in `folder`.
        metadata: further files on which the labels depend.

    Raises:
        CorpusError: no row can be used.
    """

    def __init__(
        self,
        name: str,
        labels: Labels,
        folder: Path,
        sample_rate: int,
        target: Target,
        about: Mapping[str, object],
        recordings: Recordings | None = None,
        metadata: Sequence[Path] = (),
    ):
        rows, notes = labels.rows, list(labels.notes)
        if recordings is None:
            files = Files(folder, [row.file for row in rows if row.file])
            rows = [replace(row, problem=row.problem or files.problems.get(row.file)) for row in rows]
            recordings = AudioFiles(files.paths)
            if files.respelled:
                given, found = next(iter(files.respelled.items()))
                notes.append(
                    f"{len(files.respelled):,} files have other names in the table, such as '{found}' the "
                    f"name '{given}'."
                )
        if rows and all(row.problem for row in rows):
            first = "".join(f"\n  {row.id or row.place}: {row.problem}" for row in rows[:3])
            table = labels.tables[0].name if len(labels.tables) == 1 else name
            raise CorpusError(f"none of the {len(rows):,} rows of {table!r} can be used:{first}")
        self.form, self.notes, self._recordings = labels.form, notes, recordings
        self._tables = [*labels.tables, *metadata]
        entries = [(row, row.subset) for row in rows]
        super().__init__(name, [row.id for row in rows], sample_rate, target, about, entries)

    def read(self, index: int) -> Clip:
        row, subset = self._entries[index]
        if row.problem:
            raise row.problem
        waveform = self._recordings.read(row.file, self.sample_rate, row.start, row.end)
        return Clip(row.id, waveform, self.sample_rate, row.rating, subset, row.labels, row.by_rater)

    def ratings(self) -> NDArray[np.float64]:
        values = (None if row.problem else row.rating for row, _ in self._entries)
        return np.array([math.nan if value is None else value for value in values], np.float64)

    def rating_bounds(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        given = [
            [value, *row.by_rater.values()]
            for value, (row, _) in zip(self.ratings(), self._entries, strict=True)
        ]
        table = np.array(given, np.float64).reshape(len(self), -1)
        return np.fmin.reduce(table, axis=1), np.fmax.reduce(table, axis=1)

    def speakers(self) -> list[str]:
        return [row.labels.get("speaker", "") for row, _ in self._entries]

    @property
    def rater_columns(self) -> Sequence[str]:
        return list(self._entries[0][0].by_rater) if self._entries else []

    def files(self) -> list[Path]:
        return [*self._tables, *self._recordings.paths]

    def cut(self, start: int, stop: int) -> Self:
        chosen = super().cut(start, stop)
        chosen._recordings = self._recordings.only({row.file for row, _ in chosen._entries})
        return chosen
