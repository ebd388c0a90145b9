"""Where clips come from: a course folder of pickles, a manifest of audio files, the embedded demo.

A corpus is a lazy sequence of `Clip`: opening it lists the clips, indexing reads one. It is never written to.
"""

import copy
import csv
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from valence_lib.corpora.pickles import PickledClip, read_course_pickle
from valence_lib.corpora.waveforms import Waveform, read_audio, resample, to_waveform
from valence_lib.errors import ClipError, CorpusError

COURSE_SUBSETS = ("train", "validation", "test")
COURSE_SAMPLE_RATE = 8000  # Hz, of the audio in course pickles
DEMO = Path(__file__).parent / "demo"
WHAT_IS_TAKEN = (
    "'demo'; a course folder with train/*.pkl and test/*.pkl; one pickle that holds many clips; "
    "or a manifest, that is, a CSV with the columns file and valence, or the folder that holds it"
)
_MISSING = {"", "na", "nan", "null", "none"}  # how tables mark a missing rating
_ABOUT_FILE = "corpus.json"  # next to a manifest: describes the corpus
RATER_COLUMN = re.compile(r"valence_a\d+")  # one rater's valence


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
    """

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

    @property
    def names_speakers(self) -> bool:
        """Whether every clip has a speaker's name."""
        return False

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

    The format names no speakers; its audio is taken to be at 8000 Hz. `files`: each clip's file and subset.
    """

    def __init__(self, name: str, files: Sequence[tuple[Path, str]], sample_rate: int):
        ids = [f"{subset}/{path.name}" if subset else path.name for path, subset in files]
        super().__init__(name, ids, sample_rate, {}, files)

    def read(self, index: int) -> Clip:
        path, subset = self._entries[index]
        clips = read_course_pickle(path)
        if len(clips) != 1:
            raise ClipError("wrong type", f"{path.name!r} holds {len(clips)} clips; expected one.")
        return _course_clip(self.ids[index], clips[0], subset, self.sample_rate)

    def files(self) -> list[Path]:
        return [path for path, _ in self._entries]


class PickledCorpus(Corpus):
    """One pickle with many clips, or one a subset: train.pkl and test.pkl. The clips stay in memory.

    Raises:
        CorpusError: a pickle cannot be read.
    """

    def __init__(self, name: str, files: Sequence[tuple[Path, str]], sample_rate: int):
        self._paths = [path for path, _ in files]
        ids, entries = [], []
        for path, subset in files:
            try:
                clips = read_course_pickle(path)
            except ClipError as error:
                message = f"the corpus {path.name!r} cannot be read ({error.reason}): {error}"
                raise CorpusError(message) from error
            entries += [(clip, subset) for clip in clips]
            ids += [f"{path.name}#{position}" for position in range(len(clips))]
        super().__init__(name, ids, sample_rate, {}, entries)

    def read(self, index: int) -> Clip:
        return _course_clip(self.ids[index], *self._entries[index], self.sample_rate)

    def files(self) -> list[Path]:
        return self._paths


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
    return resample(to_waveform(clip.audio), COURSE_SAMPLE_RATE, sample_rate)


class Manifest(Corpus):
    """Audio files listed by a CSV: `file,valence[,speaker,...]`, raters as valence_a1, valence_a2, ...

    Where there is no valence column, valence is the mean of the raters. A column `part` with
    train, validation and test assigns the clips to subsets.

    Raises:
        CorpusError: the CSV or the corpus.json next to it cannot be read, or the CSV lacks a column.
    """

    def __init__(self, path: Path, sample_rate: int, name: str):
        self._path, self._folder = path, path.parent
        try:
            with path.open(encoding="utf-8-sig", newline="") as file:
                reader = csv.DictReader(file)
                columns = list(reader.fieldnames or ())
                rows = [{key: (value or "").strip() for key, value in row.items() if key} for row in reader]
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise CorpusError(f"the manifest {path} cannot be read as CSV in UTF-8: {error}") from error
        self._raters = [column for column in columns if RATER_COLUMN.fullmatch(column)]
        if "file" not in columns or not ("valence" in columns or self._raters):
            raise CorpusError(
                f"the manifest {path} has the columns {', '.join(columns) or '(none)'}; expected file and "
                "valence (or raters as valence_a1, valence_a2, ...). Name them so in its first line."
            )
        entries = [(row, row.get("part", "")) for row in rows]
        if unknown := sorted({subset for _, subset in entries} - {"", *COURSE_SUBSETS}):
            raise CorpusError(
                f"the manifest {path} has {', '.join(unknown)} in its column part; expected nothing or "
                f"{', '.join(COURSE_SUBSETS)}. Rename them, or omit the column to have the clips split."
            )
        super().__init__(name, [row["file"] for row in rows], sample_rate, _about(self._folder), entries)

    def read(self, index: int) -> Clip:
        row, subset = self._entries[index]
        waveform = read_audio(self._folder / row["file"], self.sample_rate)
        given = {rater: row[rater] for rater in self._raters if row[rater].lower() not in _MISSING}
        ratings = {rater: _number(text, rater) for rater, text in given.items()}
        valence = sum(ratings.values()) / len(ratings) if ratings else None
        if row.get("valence"):
            valence = _number(row["valence"], "valence")
        labels = {c: text for c, text in row.items() if c not in ("file", "valence", "part", *self._raters)}
        ratings = {rater: ratings.get(rater, math.nan) for rater in self._raters}
        return Clip(row["file"], waveform, self.sample_rate, valence, subset, labels, ratings)

    @property
    def names_speakers(self) -> bool:
        return all(row.get("speaker") for row, _ in self._entries)

    def files(self) -> list[Path]:
        return [self._path, self._folder / _ABOUT_FILE, *(self._folder / clip for clip in self.ids)]


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


def _number(text: str, column: str) -> float:
    try:
        return float(text)
    except ValueError:
        message = f"the column {column} holds {text!r}; expected a number."
        raise ClipError("label not a number", message) from None


def open_corpus(where: str | Path, sample_rate: int = COURSE_SAMPLE_RATE) -> Corpus:
    """Open a corpus as `CORPUS=` names it: "demo", a course folder, one pickle, a manifest or its folder.

    Args:
        sample_rate: Hz, to which every waveform is resampled.

    Raises:
        CorpusError: nothing is there, or nothing in a known format.
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
    files = [(file, subset) for subset in COURSE_SUBSETS for file in sorted(path.glob(f"{subset}/*.pkl"))]
    if files:
        return CourseFolder(name, files, sample_rate)
    if files := [(file, subset) for subset in COURSE_SUBSETS for file in path.glob(f"{subset}.pkl")]:
        return PickledCorpus(name, files, sample_rate)
    if files := [(file, "") for file in sorted(path.glob("*.pkl"))]:
        return CourseFolder(name, files, sample_rate)
    tables = list(path.glob("labels.csv")) or list(path.glob("*.csv"))
    if len(tables) == 1:
        return Manifest(tables[0], sample_rate, name)
    found = ", ".join(sorted(entry.name for entry in path.iterdir())[:8]) or "nothing"
    raise CorpusError(f"{str(where)!r} holds {found}; expected {WHAT_IS_TAKEN}.")


def folder_of(where: str | Path) -> Path:
    """Where the files of a corpus lie: its folder, the one file that it is, or the folder of its manifest."""
    if str(where) == "demo":
        return DEMO
    path = Path(where).expanduser()
    return path.parent if path.suffix == ".csv" else path
