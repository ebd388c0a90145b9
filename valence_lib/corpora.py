"""Where clips come from: a course folder of pickles, a manifest beside audio files, the embedded demo.

A corpus is a lazy sequence of `Clip`: opening it lists the clips, taking one reads it. Nothing is
ever written into it.
"""

import copy
import csv
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self, overload

from valence_lib.errors import ClipError, CorpusError
from valence_lib.pickles import PickledClip, read_course_pickle
from valence_lib.waveforms import Waveform, read_audio, resample, to_waveform

COURSE_PARTS = ("train", "validation", "test")
COURSE_SAMPLE_RATE = 8000  # Hz, of the audio in course pickles
DEMO = Path(__file__).parent / "demo"
WHAT_IS_TAKEN = (
    "'demo'; a course folder with train/*.pkl and test/*.pkl; one pickle that holds many clips; "
    "or a manifest, that is, a CSV with the columns file and valence, or the folder that holds it"
)
_MISSING = {"", "na", "nan", "null", "none"}  # how tables say that a rater left a clip out
ABOUT_FILE = "corpus.json"  # beside a manifest: what the corpus says of itself
RATER_COLUMN = re.compile(r"valence_a\d+")  # one rater's valence


@dataclass(frozen=True)
class Clip:
    """One clip of speech.

    Args:
        id: its name within the corpus, e.g. "train/00001.pkl" or "audio/DK_001_A_1.flac".
        waveform [shape=(n_samples,), dtype=float32]: mono, in [-1, 1].
        sample_rate: Hz.
        valence: the rating, or None where the corpus gives none.
        part: "train", "validation" or "test" where the corpus says so, else "".
        labels: all else that the corpus says of the clip, by column: speaker, sex, language, emotion, ...
        ratings: single raters' valence by column, valence_a1 ...; NaN where a rater left a clip out.
    """

    id: str
    waveform: Waveform
    sample_rate: int
    valence: float | None
    part: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    ratings: Mapping[str, float] = field(default_factory=dict)

    @property
    def speaker(self) -> str:
        """Who speaks; "" where unknown."""
        return self.labels.get("speaker", "")


class Corpus(Sequence[Clip]):
    """Clips in a fixed order, read one at a time when they are asked for.

    Taking a clip that cannot be used raises `ClipError`; the others can still be taken.

    Args:
        name: how the report calls it.
        ids: the clips' names, one each.
        sample_rate: Hz; every waveform comes at it.
        about: what the corpus says of itself (corpus.json): "description", "synthetic", "lowest_mse".
    """

    def __init__(self, name: str, ids: Sequence[str], sample_rate: int, about: Mapping[str, object]):
        self.name = name
        self.ids = tuple(ids)
        self.sample_rate = sample_rate
        self.about = dict(about)

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, index: int) -> Clip: ...
    @overload
    def __getitem__(self, index: slice) -> list[Clip]: ...
    def __getitem__(self, index: int | slice) -> Clip | list[Clip]:
        if isinstance(index, slice):
            return [self.read(i) for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"clip {index} of a corpus of {len(self)}")
        return self.read(index % len(self))

    def __iter__(self) -> Iterator[Clip]:
        return (self.read(index) for index in range(len(self)))

    def read(self, index: int) -> Clip:
        """The clip at a position from 0.

        Raises:
            ClipError: this clip cannot be used; its `reason` says why in a word or two.
        """
        raise NotImplementedError

    def part(self, index: int) -> str:
        """The part to which the corpus assigns the clip at a position, without reading it; else ""."""
        raise NotImplementedError

    @property
    def names_speakers(self) -> bool:
        """Whether it says of every clip who speaks."""
        return False

    def files(self) -> list[Path]:
        """All files that the clips and what is said of them are read from, whether they are there or not."""
        raise NotImplementedError

    def cut(self, start: int, stop: int) -> Self:
        """The clips at the positions from `start` to before `stop` as a corpus of their own, numbered from 0.

        It holds nothing of the other clips, so that it can be sent to another process at little cost.
        """
        chosen = copy.copy(self)
        chosen.ids = self.ids[start:stop]
        return chosen


class CourseFolder(Corpus):
    """Course pickles, one clip a file: train/NNNNN.pkl with labels, test/NNNNN.pkl with or without.

    The format names no speakers; its audio is taken to be at 8000 Hz.
    """

    def __init__(self, name: str, files: Sequence[tuple[Path, str]], sample_rate: int):
        """`files`: each clip's file and part."""
        self._files = files
        super().__init__(
            name, [f"{part}/{path.name}" if part else path.name for path, part in files], sample_rate, {}
        )

    def read(self, index: int) -> Clip:
        """See `Corpus.read`."""
        path, part = self._files[index]
        content = read_course_pickle(path)
        if len(content) != 1:
            raise ClipError(
                "wrong type", f"{path.name!r} holds {len(content)} clips; expected one clip a file."
            )
        return _course_clip(self.ids[index], content[0], part, self.sample_rate)

    def part(self, index: int) -> str:
        """See `Corpus.part`."""
        return self._files[index][1]

    def files(self) -> list[Path]:
        """See `Corpus.files`."""
        return [path for path, _ in self._files]

    def cut(self, start: int, stop: int) -> Self:
        """See `Corpus.cut`."""
        chosen = super().cut(start, stop)
        chosen._files = self._files[start:stop]
        return chosen


class PickledCorpus(Corpus):
    """One pickle with many clips, or one a part: train.pkl and test.pkl. The pickles stay in memory.

    Raises:
        CorpusError: a pickle cannot be read.
    """

    def __init__(self, name: str, files: Sequence[tuple[Path, str]], sample_rate: int):
        """`files`: each pickle and the part that it holds."""
        self._paths = [path for path, _ in files]
        self._clips: list[tuple[PickledClip, str]] = []
        ids: list[str] = []
        for path, part in files:
            try:
                content = read_course_pickle(path)
            except ClipError as error:
                raise CorpusError(
                    f"the corpus {path.name!r} cannot be read ({error.reason}): {error}"
                ) from error
            self._clips.extend((clip, part) for clip in content)
            ids.extend(f"{path.name}#{position}" for position in range(len(content)))
        super().__init__(name, ids, sample_rate, {})

    def read(self, index: int) -> Clip:
        """See `Corpus.read`."""
        clip, part = self._clips[index]
        return _course_clip(self.ids[index], clip, part, self.sample_rate)

    def part(self, index: int) -> str:
        """See `Corpus.part`."""
        return self._clips[index][1]

    def files(self) -> list[Path]:
        """See `Corpus.files`."""
        return self._paths

    def cut(self, start: int, stop: int) -> Self:
        """See `Corpus.cut`."""
        chosen = super().cut(start, stop)
        chosen._clips = self._clips[start:stop]
        return chosen


def _course_clip(clip_id: str, clip: PickledClip, part: str, sample_rate: int) -> Clip:
    waveform = course_waveform(clip, sample_rate)
    if clip.valence_problem is not None:
        raise ClipError("label not a number", f"the valence is {clip.valence_problem}.")
    return Clip(clip_id, waveform, sample_rate, clip.valence, part)


def course_waveform(clip: PickledClip, sample_rate: int) -> Waveform:
    """The waveform of a course pickle's clip, at `sample_rate` Hz.

    Raises:
        ClipError: the pickle holds no audio array, or one that `to_waveform` refuses.
    """
    if clip.audio_problem is not None:
        raise ClipError("wrong type", f"the audio is {clip.audio_problem}.")
    return resample(to_waveform(clip.audio), COURSE_SAMPLE_RATE, sample_rate)


class Manifest(Corpus):
    """Audio files listed by a CSV: `file,valence[,speaker,...]`, raters as valence_a1, valence_a2, ...

    Where there is no valence column, valence is the mean of the raters. A column `part` with
    train, validation and test is used as the split.
    """

    def __init__(self, path: Path, sample_rate: int, name: str):
        self._path, self._folder = path, path.parent
        try:
            with path.open(encoding="utf-8-sig", newline="") as file:
                reader = csv.DictReader(file)
                columns = list(reader.fieldnames or ())
                self._rows = [
                    {key: (value or "").strip() for key, value in row.items() if key} for row in reader
                ]
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise CorpusError(f"the manifest {path} cannot be read as CSV in UTF-8: {error}") from error
        self._raters = [column for column in columns if RATER_COLUMN.fullmatch(column)]
        if "file" not in columns or not ("valence" in columns or self._raters):
            raise CorpusError(
                f"the manifest {path} has the columns {', '.join(columns) or '(none)'}; expected file and valence "
                "(or raters as valence_a1, valence_a2, ...). Name them so in its first line."
            )
        if unknown := sorted({row.get("part", "") for row in self._rows} - {"", *COURSE_PARTS}):
            raise CorpusError(
                f"the manifest {path} has the parts {', '.join(unknown)}; expected {', '.join(COURSE_PARTS)} or nothing. "
                "Rename them, or leave the column out to have the clips divided."
            )
        super().__init__(name, [row["file"] for row in self._rows], sample_rate, _about(self._folder))

    def read(self, index: int) -> Clip:
        """See `Corpus.read`."""
        row = self._rows[index]
        waveform = read_audio(self._folder / row["file"], self.sample_rate)
        given = {rater: row[rater] for rater in self._raters if row[rater].lower() not in _MISSING}
        ratings = {rater: _number(text, rater) for rater, text in given.items()}
        if row.get("valence"):
            valence: float | None = _number(row["valence"], "valence")
        else:
            valence = sum(ratings.values()) / len(ratings) if ratings else None
        taken = {"file", "valence", "part", *self._raters}
        labels = {column: text for column, text in row.items() if column not in taken}
        ratings = {rater: ratings.get(rater, math.nan) for rater in self._raters}
        return Clip(row["file"], waveform, self.sample_rate, valence, self.part(index), labels, ratings)

    def part(self, index: int) -> str:
        """See `Corpus.part`."""
        return self._rows[index].get("part", "")

    @property
    def names_speakers(self) -> bool:
        """See `Corpus.names_speakers`."""
        return all(row.get("speaker") for row in self._rows)

    def files(self) -> list[Path]:
        """See `Corpus.files`."""
        return [self._path, self._folder / ABOUT_FILE, *(self._folder / row["file"] for row in self._rows)]

    def cut(self, start: int, stop: int) -> Self:
        """See `Corpus.cut`."""
        chosen = super().cut(start, stop)
        chosen._rows = self._rows[start:stop]
        return chosen


def _about(folder: Path) -> dict[str, object]:
    path = folder / ABOUT_FILE
    if not path.is_file():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")).items())
    except (OSError, ValueError, AttributeError) as error:
        raise CorpusError(
            f"{path} cannot be read ({error}); expected a JSON object that describes the corpus. Mend or remove it."
        ) from error


def _number(text: str, column: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ClipError(
            "label not a number", f"the column {column} holds {text!r}; expected a number."
        ) from None


def open_corpus(where: str | Path, sample_rate: int = COURSE_SAMPLE_RATE) -> Corpus:
    """Open a corpus by what `CORPUS=` takes: "demo", a course folder, one pickle, a manifest or its folder.

    Args:
        where: "demo" or a path.
        sample_rate: Hz, to which every waveform is brought.

    Raises:
        CorpusError: there is nothing, or nothing in a known format.
    """
    if str(where) == "demo":
        return Manifest(DEMO / "labels.csv", sample_rate, "demo")
    path = Path(where).expanduser()
    name = path.resolve().name
    if not path.exists():
        raise CorpusError(f"there is no corpus at {str(where)!r}; expected {WHAT_IS_TAKEN}.")
    if path.is_file() and path.suffix in (".pkl", ".pickle"):
        return PickledCorpus(path.stem, [(path, "")], sample_rate)
    if path.is_file():
        return Manifest(path, sample_rate, name if path.suffix != ".csv" else path.resolve().parent.name)
    if pickles := [(file, part) for part in COURSE_PARTS for file in sorted((path / part).glob("*.pkl"))]:
        return CourseFolder(name, pickles, sample_rate)
    if pickles := [(file, part) for part in COURSE_PARTS if (file := path / f"{part}.pkl").is_file()]:
        return PickledCorpus(name, pickles, sample_rate)
    if pickles := [(file, "") for file in sorted(path.glob("*.pkl"))]:
        return CourseFolder(name, pickles, sample_rate)
    tables = sorted(path.glob("*.csv"))
    labels = [table for table in tables if table.name == "labels.csv"] or tables
    if len(labels) == 1:
        return Manifest(labels[0], sample_rate, name)
    found = ", ".join(sorted(entry.name for entry in path.iterdir())[:8]) or "nothing"
    raise CorpusError(f"{str(where)!r} holds {found}; expected {WHAT_IS_TAKEN}.")


def folder_of(where: str | Path) -> Path:
    """Where the files of a corpus lie: its folder, the one file that it is, or the folder of its manifest."""
    if str(where) == "demo":
        return DEMO
    path = Path(where).expanduser()
    return path.parent if path.suffix == ".csv" else path
