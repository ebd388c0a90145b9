"""Where clips come from: a course folder of pickles, a table of labels with audio files, the embedded demo.

A corpus is a lazy sequence of `Clip`: opening it lists the clips, indexing reads one. It is never written to.
"""

import copy
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from valence_lib.corpora.columns import parse_columns
from valence_lib.corpora.file_kinds import PICKLE_SUFFIXES, is_clutter, name_text, printable
from valence_lib.corpora.labels import SUBSET_OF, LabelRow, read_labels
from valence_lib.corpora.locating import Files
from valence_lib.corpora.pickles import PickledClip, read_course_pickle
from valence_lib.corpora.tables import TABLE_SUFFIXES
from valence_lib.corpora.waveforms import Waveform, read_audio, resample, to_waveform
from valence_lib.errors import ClipError, CorpusError

COURSE_SUBSETS = ("train", "validation", "test")
COURSE_SAMPLE_RATE = 8000  # Hz, of the audio in course pickles
DEMO = Path(__file__).parent / "demo"
WHAT_IS_TAKEN = (
    "'demo'; a course folder with train/*.pkl and test/*.pkl; one pickle that holds many clips; or a table "
    "of labels (CSV, Excel, Parquet or JSON lines) with the columns file and valence, or its folder"
)
_ABOUT_FILE = "corpus.json"  # next to a table of labels: describes the corpus
_MOST_SHOWN = 8


@dataclass(frozen=True)
class Clip:
    """One clip of speech.

    Args:
        id: its name within the corpus, e.g. "train/00001.pkl" or "audio/DK_001_A_1.flac".
        waveform [shape=(n_samples,), dtype=float32]: mono, in [-1, 1].
        sample_rate: Hz.
        valence: the rating, or None where the corpus gives none.
        subset: "train", "validation" or "test" where the corpus names one, else "".
        labels: the other columns of the corpus: speaker, sex, language, emotion, ...
        ratings: single raters' valence by column, valence_a1 ...; NaN where a rating is missing.
    """

    id: str
    waveform: Waveform
    sample_rate: int
    valence: float | None
    subset: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    ratings: Mapping[str, float] = field(default_factory=dict)

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
        about: the corpus's description of itself (corpus.json): "description", "synthetic", "lowest_mse".
        entries: of each clip, what `read` needs, and the subset to which the corpus assigns it, else "".

    Attributes:
        form: how the corpus is stored, in a few words.
        notes: sentences about how it was read, for everyone who uses the results; empty for an ordinary one.
    """

    form = ""
    notes: Sequence[str] = ()

    def __init__(
        self,
        name: str,
        ids: Sequence[str],
        sample_rate: int,
        about: Mapping[str, object],
        entries: Sequence[tuple[Any, str]] = (),
    ):
        self.name = name
        self.ids = tuple(ids)
        self.sample_rate = sample_rate
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

    def valences(self) -> NDArray[np.float64]:
        """The rating of each clip; NaN where there is none [shape=(clips,)].

        A corpus that knows its ratings without decoding audio overrides this; they are then checked at once.
        """

        def of_clip(index: int) -> float | None:
            try:
                return self.read(index).valence
            except ClipError:  # it is reported when the clip is read again
                return None

        values = map(of_clip, range(len(self)))
        return np.array([math.nan if value is None else value for value in values], np.float64)

    def rating_bounds(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The lowest and the highest rating of each clip, by any rater; NaN where there is none."""
        values = self.valences()
        return values, values

    def speakers(self) -> list[str]:
        """The speaker of each clip; "" where unknown."""
        return [""] * len(self)

    @property
    def names_speakers(self) -> bool:
        """Whether every clip has a speaker's name."""
        return all(self.speakers())

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


class CourseFolder(Corpus):
    """Course pickles, one clip a file: train/NNNNN.pkl with labels, test/NNNNN.pkl with or without.

    The format names no speakers. Its audio is taken to be at 8000 Hz where a pickle does not give its rate.
    `files`: each clip's file and subset.
    """

    form = "a folder of pickles"

    def __init__(
        self, name: str, files: Sequence[tuple[Path, str]], sample_rate: int, notes: Sequence[str] = ()
    ):
        ids = [
            printable(f"{path.parent.name}/{path.name}" if subset else path.name) for path, subset in files
        ]
        super().__init__(name, ids, sample_rate, {}, files)
        self.notes = notes

    def read(self, index: int) -> Clip:
        path, subset = self._entries[index]
        clips = read_course_pickle(path)
        if len(clips) != 1:
            raise ClipError("wrong type", f"'{name_text(path.name)}' holds {len(clips)} clips; expected one.")
        return _course_clip(self.ids[index], clips[0], subset, self.sample_rate)

    def valences(self) -> NDArray[np.float64]:
        def of_file(path: Path) -> Iterator[PickledClip]:
            try:
                yield from read_course_pickle(path)[:1]
            except ClipError:  # it is reported when the clip is read
                return

        return _valences(next(of_file(path), None) for path, _ in self._entries)

    def files(self) -> list[Path]:
        return [path for path, _ in self._entries]


class PickledCorpus(Corpus):
    """One pickle with many clips, or one a subset: train.pkl and test.pkl. The clips stay in memory.

    Raises:
        CorpusError: a pickle cannot be read.
    """

    form = "pickles that hold many clips"

    def __init__(
        self, name: str, files: Sequence[tuple[Path, str]], sample_rate: int, notes: Sequence[str] = ()
    ):
        self._paths, self.notes = [path for path, _ in files], notes
        ids, entries = [], []
        for path, subset in files:
            try:
                clips = read_course_pickle(path)
            except ClipError as error:
                message = f"the corpus {path.name!r} cannot be read ({error.reason}): {error}"
                raise CorpusError(message) from error
            entries += [(clip, subset) for clip in clips]
            ids += [f"{printable(path.name)}#{position}" for position in range(len(clips))]
        super().__init__(name, ids, sample_rate, {}, entries)

    def read(self, index: int) -> Clip:
        return _course_clip(self.ids[index], *self._entries[index], self.sample_rate)

    def valences(self) -> NDArray[np.float64]:
        return _valences(clip for clip, _ in self._entries)

    def files(self) -> list[Path]:
        return self._paths


def _valences(clips: Iterable[PickledClip | None]) -> NDArray[np.float64]:
    values = [math.nan if clip is None or clip.valence is None else clip.valence for clip in clips]
    return np.array(values, np.float64)


def _course_clip(clip_id: str, clip: PickledClip, subset: str, sample_rate: int) -> Clip:
    waveform = course_waveform(clip, sample_rate)
    if clip.valence_problem is not None:
        raise ClipError("label not a number", f"the valence is {clip.valence_problem}.")
    return Clip(clip_id, waveform, sample_rate, clip.valence, subset)


def course_waveform(clip: PickledClip, sample_rate: int) -> Waveform:
    """The waveform of a course pickle's clip, at `sample_rate` Hz.

    Raises:
        ClipError: the pickle holds no audio array, or one that `to_waveform` refuses.
    """
    if clip.audio_problem is not None:
        raise ClipError("wrong type", f"the audio is {clip.audio_problem}.")
    return resample(to_waveform(clip.audio), clip.sample_rate or COURSE_SAMPLE_RATE, sample_rate)


class Manifest(Corpus):
    """Audio files, or segments of them, listed by a table of labels; see `labels.read_labels`.

    Where there is no column of the valence, it is the mean of the raters.

    Args:
        path: of the table.
        columns: the table's names of columns, as `COLUMNS=` gives them.

    Raises:
        CorpusError: the table or the corpus.json next to it cannot be read, or no row can be used.
    """

    def __init__(self, path: Path, sample_rate: int, name: str, columns: str = ""):
        self._path, self._folder = path, path.parent
        labels = read_labels(path, parse_columns(columns))
        files = Files(self._folder, [row.file for row in labels.rows if row.file])
        self._paths = files.paths
        rows = [replace(row, problem=row.problem or files.problems.get(row.file)) for row in labels.rows]
        self._check_usable(rows)
        self.form, notes = labels.form, list(labels.notes)
        if files.respelled:
            given, found = next(iter(files.respelled.items()))
            notes.append(
                f"{len(files.respelled):,} files have other names in the table, such as '{found}' the name "
                f"'{given}'."
            )
        self.notes = notes
        entries = [(row, row.subset) for row in rows]
        super().__init__(name, [row.id for row in rows], sample_rate, _about(self._folder), entries)

    def _check_usable(self, rows: Sequence[LabelRow]) -> None:
        if rows and all(row.problem for row in rows):
            first = "".join(f"\n  {row.id or row.place}: {row.problem}" for row in rows[:3])
            raise CorpusError(f"none of the {len(rows):,} rows of {self._path.name!r} can be used:{first}")

    def read(self, index: int) -> Clip:
        row, subset = self._entries[index]
        if row.problem:
            raise row.problem
        waveform = read_audio(self._paths[row.file], self.sample_rate, row.start or 0.0, row.end)
        return Clip(row.id, waveform, self.sample_rate, row.valence, subset, row.labels, row.ratings)

    def valences(self) -> NDArray[np.float64]:
        values = (None if row.problem else row.valence for row, _ in self._entries)
        return np.array([math.nan if value is None else value for value in values], np.float64)

    def rating_bounds(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        given = [
            [value, *row.ratings.values()]
            for value, (row, _) in zip(self.valences(), self._entries, strict=True)
        ]
        table = np.array(given, np.float64).reshape(len(self), -1)
        return np.fmin.reduce(table, axis=1), np.fmax.reduce(table, axis=1)

    def speakers(self) -> list[str]:
        return [row.labels.get("speaker", "") for row, _ in self._entries]

    def files(self) -> list[Path]:
        return [self._path, self._folder / _ABOUT_FILE, *self._paths.values()]

    def cut(self, start: int, stop: int) -> Self:
        chosen = super().cut(start, stop)
        names = {row.file for row, _ in chosen._entries}
        chosen._paths = {name: path for name, path in self._paths.items() if name in names}
        return chosen


def _about(folder: Path) -> dict[str, object]:
    path = folder / _ABOUT_FILE
    if not path.is_file():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")).items())
    except (OSError, ValueError, AttributeError) as error:
        raise CorpusError(
            f"{path} cannot be read ({error}); expected a JSON object that describes the corpus. "
            "Correct or remove it."
        ) from error


def open_corpus(where: str | Path, sample_rate: int = COURSE_SAMPLE_RATE, columns: str = "") -> Corpus:
    """Open a corpus as `CORPUS=` names it: "demo", a course folder, a pickle, or a table of labels.

    Args:
        sample_rate: Hz, to which every waveform is resampled.
        columns: the table's names of columns where these are not the usual ones, as in
            "valence=EmoVal,speaker=who".

    Raises:
        CorpusError: nothing is there, nothing in a known format, or something that can be read in two ways.
        SettingsError: `columns` cannot be understood.
    """
    if str(where) == "demo":
        return Manifest(DEMO / "labels.csv", sample_rate, "demo")
    path = Path(where).expanduser()
    name = name_text(path.resolve().name)
    if not path.exists():
        raise CorpusError(f"there is no corpus at '{name_text(str(where))}'; expected {WHAT_IS_TAKEN}.")
    if path.is_file() and path.suffix.lower() in PICKLE_SUFFIXES:
        return PickledCorpus(name_text(path.stem), [(path, "")], sample_rate)
    if path.is_file():
        folder = name_text(path.resolve().parent.name)
        return Manifest(path, sample_rate, folder if _is_table(path) else name, columns)
    entries = sorted(entry for entry in path.iterdir() if not is_clutter(entry.name))
    if found := _course_files(entries):
        files, notes = found
        return CourseFolder(name, files, sample_rate, notes)
    pickles = [entry for entry in entries if entry.suffix.lower() in PICKLE_SUFFIXES and entry.is_file()]
    named = [file for file in pickles if file.stem.lower() in SUBSET_OF]
    if of_subsets := [(file, SUBSET_OF[file.stem.lower()]) for file in named]:
        of_subsets.sort(key=lambda file: COURSE_SUBSETS.index(file[1]))
        others = [name_text(file.name) for file in pickles if file not in named]
        ignored = [f"The pickle '{other}' is not read." for other in others]
        return PickledCorpus(name, of_subsets, sample_rate, ignored)
    if pickles:
        return CourseFolder(name, [(file, "") for file in pickles], sample_rate)
    tables = [entry for entry in entries if _is_table(entry)]
    tables = [table for table in tables if table.stem.lower() == "labels"] or tables
    if len(tables) == 1:
        return Manifest(tables[0], sample_rate, name, columns)
    listed = ", ".join(name_text(entry.name) for entry in entries[:_MOST_SHOWN]) or "nothing"
    several = f" Give one of the tables, as in CORPUS={name_text(tables[0])}." if tables else ""
    raise CorpusError(f"'{name_text(str(where))}' holds {listed}; expected {WHAT_IS_TAKEN}.{several}")


def _course_files(entries: Sequence[Path]) -> tuple[list[tuple[Path, str]], list[str]] | None:
    """The pickles of a course folder with their subsets, and notes; None where there are none."""
    folders: dict[str, list[Path]] = {}
    ignored = []
    for entry in entries:
        if not entry.is_dir():
            continue
        found = sorted(
            file
            for file in entry.iterdir()
            if file.suffix.lower() in PICKLE_SUFFIXES and not is_clutter(file.name)
        )
        if found and entry.name.lower() in SUBSET_OF:
            folders[entry.name] = found
        elif found:
            ignored.append(f"The folder '{name_text(entry.name)}' with {len(found):,} pickles is not read.")
        elif entry.name.lower() in SUBSET_OF and any(entry.iterdir()):
            ignored.append(f"The folder '{name_text(entry.name)}' holds no pickles and is not read.")
    if not folders:
        return None
    files = [(file, SUBSET_OF[name.lower()]) for name, found in folders.items() for file in found]
    return sorted(files, key=lambda file: COURSE_SUBSETS.index(file[1])), ignored


def folder_of(where: str | Path) -> Path:
    """Where the files of a corpus lie: its folder, the one file that it is, or the folder of its table."""
    if str(where) == "demo":
        return DEMO
    path = Path(where).expanduser()
    return path.parent if _is_table(path) else path


def _is_table(path: Path) -> bool:
    """Whether a file is a table of labels, by its name."""
    suffix = path.suffix.lower()
    return suffix in TABLE_SUFFIXES or (path.stem.lower() == "labels" and suffix in (".txt", ".json"))
