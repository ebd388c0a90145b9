"""Find out what a path holds, and open it as a corpus.

"demo" ┐
pickles ├─ course.py ──────────────────────────┐
labels.csv, ... ─ labels.py ───────────────┐   ├─► Corpus ─► one, or SeveralCorpora
published corpora ─ published/ ────────────┼─ LabelledClips
audformat, Hugging Face ───────────────────┘
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from valence_lib.corpora import audformat_database, hugging_face
from valence_lib.corpora.audformat_ratings import HEADER
from valence_lib.corpora.columns import parse_columns
from valence_lib.corpora.course import COURSE_SAMPLE_RATE, COURSE_SUBSETS, CourseFolder, PickledCorpus
from valence_lib.corpora.file_kinds import PICKLE_SUFFIXES, is_clutter, name_text
from valence_lib.corpora.labels import SUBSET_OF, labels_of, read_labels, with_rater_columns
from valence_lib.corpora.published.entry import PublishedCorpus
from valence_lib.corpora.published.known import incomplete, recognise
from valence_lib.corpora.rescaling import lone_end
from valence_lib.corpora.several import SeveralCorpora
from valence_lib.corpora.sources import Corpus, LabelledClips
from valence_lib.corpora.tables import TABLE_SUFFIXES
from valence_lib.errors import CorpusError, SettingsError
from valence_lib.settings import Target

DEMO = Path(__file__).parent / "demo"
WHAT_IS_TAKEN = (
    "'demo'; a course folder with train/*.pkl and test/*.pkl; one pickle that holds many clips; a table of "
    "labels (CSV, Excel, Parquet or JSON lines) with a column file and one of ratings, or its folder; an "
    "audformat database; a Hugging Face data set; or a published corpus in its own form (README)"
)
_ABOUT_FILE = "corpus.json"  # next to a table of labels: describes the corpus
_MOST_SHOWN = 8
_LONGEST_SHOWN = 80  # characters of a path that cannot be followed


def split_names(text: str, folder: Path = Path()) -> list[str]:
    """The corpora that a text names, seen from a folder: one, or several between commas.

    A single path may hold commas itself.

    Raises:
        CorpusError: there is no name before or behind a comma, or one is no possible path.

    >>> split_names("first,second")
    ['first', 'second']
    """
    if not text:
        return []
    try:
        if _exists(text, folder):
            return [text]
    except CorpusError:
        if "," not in text:  # the names of several may be too long for one
            raise
    names = [name.strip() for name in text.split(",")]
    if "" in names:
        raise CorpusError(
            f"the corpora {name_text(text)!r} were given, of which one has no name; expected paths, and a "
            "comma between each two."
        )
    for name in names if len(names) > 1 else ():
        _exists(name, folder)
    return names


def _exists(name: str, folder: Path = Path()) -> bool:
    """Whether there is something at a path.

    Raises:
        CorpusError: the path cannot be followed: it is too long, a link to itself, or in an unknown home.
    """
    try:
        path = folder / Path(name).expanduser()
        path.resolve()  # fails for a link to itself, as the next does for a long name
        return path.exists()
    except (OSError, RuntimeError, ValueError) as error:
        shown, problem = name_text(name), getattr(error, "strerror", None) or str(error).rstrip(".")
        shown = shown if len(shown) <= _LONGEST_SHOWN else f"{shown[:_LONGEST_SHOWN]}..."
        raise CorpusError(f"there is no corpus at {shown!r}: {problem}. Expected {WHAT_IS_TAKEN}.") from error


def parse_scales(text: str, count: int) -> list[tuple[float, float] | str]:
    """The rating scales of some corpora, from `RANGE=`: one for all, or one each between slashes.

    Args:
        text: such as "1,7", "1,7/1,5", "auto", or "" for the corpora's own.

    Returns:
        Of each corpus the lowest and the highest rating, "auto" or "".

    Raises:
        SettingsError: it cannot be understood.

    >>> parse_scales("1,7/auto", 2)
    [(1.0, 7.0), 'auto']
    """
    parts = [part.strip() for part in text.split("/")]
    if len(parts) not in (1, count):
        expected = f"one range, or {count} between slashes" if count > 1 else "one range"
        raise SettingsError(
            f"RANGE={text} was given for {count} {'corpora' if count > 1 else 'corpus'}; expected {expected}."
        )
    scales: list[tuple[float, float] | str] = []
    for part in parts * (count if len(parts) == 1 else 1):
        if part in ("", "auto"):
            scales.append(part)
        elif (ends := _ends(part.split(","))) is not None:
            scales.append(ends)
        else:
            raise SettingsError(
                f"RANGE={part} was given; expected two numbers as in 1,5, the lower one first, or auto."
            )
    return scales


def _ends(values: object) -> tuple[float, float] | None:
    """The lowest and the highest rating, from two texts or numbers; None where they are no scale."""
    if not isinstance(values, list):
        return None
    try:
        low, high = map(float, values)
    except (TypeError, ValueError):
        return None
    return (low, high) if low < high and math.isfinite(low) and math.isfinite(high) else None


def open_corpus(
    where: str | Path,
    sample_rate: int = COURSE_SAMPLE_RATE,
    columns: str = "",
    target: str = "valence",
    scale: str = "",
    test_corpus: str = "",
) -> Corpus:
    """Open a corpus as `CORPUS=` names it, or several.

    Args:
        where: "demo", a folder, a pickle or a table of labels; several between commas.
        sample_rate: Hz, to which every waveform is resampled.
        columns: the tables' names of columns where these are not the usual ones, as in
            "valence=EmoVal,speaker=who".
        target: the rated dimension, such as "valence", or any other column of numbers.
        scale: the lowest and the highest rating, as in "1,5", for each corpus as in "1,7/1,5", or "auto" for
            those that occur; "" for what the corpus states itself, else 1 to 5.
        test_corpus: the corpora to test on alone, as `where`; "" for none.

    Raises:
        CorpusError: nothing is there, nothing in a known format, something that can be read in two ways,
            something without ratings of the target, or the same corpus twice.
        SettingsError: `columns` or `scale` cannot be understood.
    """
    trained, tested = split_names(str(where)), split_names(test_corpus)
    if not trained:
        raise CorpusError(f"no corpus was given; expected {WHAT_IS_TAKEN}.")
    names = [*trained, *tested]
    scales = parse_scales(scale, len(names))
    parts = []
    for name, own in zip(names, scales, strict=True):
        try:
            parts.append(_open(name, sample_rate, columns, target, own))
        except CorpusError as error:
            if len(names) == 1:
                raise
            raise CorpusError(f"corpus {name_text(name)!r}: {error}") from error
    if columns and not any(part.takes_columns for part in parts):
        read_as = "; ".join(dict.fromkeys(part.form for part in parts))
        raise CorpusError(
            f"COLUMNS={columns} was given for {', '.join(map(name_text, names))}, read as {read_as}, whose "
            "columns are known. Leave COLUMNS out, or give a table of labels."
        )
    if len(parts) == 1:
        return parts[0]
    _check_distinct(parts, names)
    return SeveralCorpora(parts[: len(trained)], parts[len(trained) :])


def _check_distinct(parts: Sequence[Corpus], names: Sequence[str]) -> None:
    """Refuse a corpus that is given twice: one of the subsets would keep none of its clips."""
    seen: dict[tuple[Path, tuple[str, ...]], int] = {}
    for number, (part, name) in enumerate(zip(parts, names, strict=True)):
        other = seen.setdefault((folder_of(name).resolve(), part.ids), number)
        if other != number:
            shown = " and ".join(dict.fromkeys([name_text(names[other]), name_text(name)]))
            raise CorpusError(
                f"the same corpus was given twice ({shown}); expected different ones. Give it once, in "
                "CORPUS, whose clips are split into training and test clips."
            )


@dataclass(frozen=True)
class _Reading:
    """How a corpus is read; unless its scale is `fixed`, the one that the corpus states itself is used."""

    sample_rate: int
    columns: str
    target: Target
    fixed: bool

    def with_scale(self, scale: object) -> Target:
        """The target, on the scale that a corpus states itself, None where it states none."""
        if self.fixed or not isinstance(scale, tuple):
            return self.target
        return replace(self.target, low=scale[0], high=scale[1])


def _open(
    where: str, sample_rate: int, columns: str, target: str, scale: tuple[float, float] | str
) -> Corpus:
    """Open one corpus."""
    if scale == "auto":
        unbounded = Target(target, -math.inf, math.inf)
        corpus = _at(where, _Reading(sample_rate, columns, unbounded, fixed=True))
        corpus.target = _observed(corpus)
    else:
        is_given = isinstance(scale, tuple)
        ends = scale if isinstance(scale, tuple) else (1.0, 5.0)
        corpus = _at(where, _Reading(sample_rate, columns, Target(target, *ends), is_given))
    used, stated = (corpus.target.low, corpus.target.high), corpus.stated_scale
    if stated is not None and not np.allclose(stated, used):  # a report writes 15 digits
        note = (
            f"RANGE gives the scale {used[0]:g} to {used[1]:g}, in place of {stated[0]:g} to {stated[1]:g},"
        )
        corpus.notes = [*corpus.notes, f"{note} which the corpus states itself."]
    return corpus


def _at(where: str, reading: _Reading) -> Corpus:
    """The corpus at a path."""
    if where != "demo" and not _exists(where):
        raise CorpusError(f"there is no corpus at '{name_text(where)}'; expected {WHAT_IS_TAKEN}.")
    path = DEMO if where == "demo" else Path(where).expanduser()
    name = name_text(path.resolve().name)
    if path.is_file() and path.suffix.lower() in PICKLE_SUFFIXES:
        return PickledCorpus(
            name_text(path.stem), [(path, "")], reading.sample_rate, _course_target(reading, name)
        )
    if path.is_file():
        folder = name_text(path.resolve().parent.name)
        return _labelled(path, folder if _is_table(path) else name, reading)
    entries = sorted(entry for entry in path.iterdir() if not is_clutter(entry.name))
    if (course := _course(entries, name, reading)) is not None:
        return course
    tables = [entry for entry in entries if _is_table(entry)]
    labels = [table for table in tables if table.stem.lower() == "labels"]
    if len(labels) == 1:
        return _labelled(labels[0], name, reading)
    if (data_set := hugging_face.find(path)) is not None:
        return _data_set(data_set, path, name, reading)
    # Before the published forms: EmoDB 2 is a database with the recordings of EmoDB.
    if (path / HEADER).is_file():
        return _published(audformat_database.describe_database(path, reading.target.name), path, reading)
    if (found := recognise(path)) is not None:
        return _published(*found, reading)
    if len(labels or tables) == 1:
        return _labelled((labels or tables)[0], name, reading)
    if lacking := incomplete(path):
        raise CorpusError(lacking)
    listed = ", ".join(name_text(entry.name) for entry in entries[:_MOST_SHOWN]) or "nothing"
    several = f" Give one of the tables, as in CORPUS={name_text(tables[0])}." if tables else ""
    raise CorpusError(f"'{name_text(where)}' holds {listed}; expected {WHAT_IS_TAKEN}.{several}")


def _labelled(table: Path, name: str, reading: _Reading) -> Corpus:
    """A table of labels, and the audio files that it names or the audio that it holds."""
    if (data_set := hugging_face.find(table)) is not None:
        return _data_set(data_set, table.parent, name, reading)
    about = _about(table.parent)
    target = reading.with_scale(about.get("scale"))
    labels = read_labels(table, _columns(reading, about, table.parent), target.name)
    metadata = [table.parent / _ABOUT_FILE]
    corpus = LabelledClips(name, labels, table.parent, reading.sample_rate, target, about, metadata=metadata)
    corpus.takes_columns, corpus.stated_scale = True, about.get("scale")
    return corpus


def _data_set(data_set: hugging_face.DataSet, folder: Path, name: str, reading: _Reading) -> Corpus:
    """A data set in a form of the Hugging Face hub."""
    about = {**data_set.about, **_about(folder)}
    target = reading.with_scale(about.get("scale"))
    labels = labels_of(data_set.table, folder, _columns(reading, about, folder), target.name)
    labels = replace(labels, notes=[*data_set.notes, *labels.notes])
    metadata = [*data_set.paths, folder / _ABOUT_FILE]
    corpus = LabelledClips(
        name, labels, folder, reading.sample_rate, target, about, data_set.recordings, metadata
    )
    corpus.takes_columns, corpus.stated_scale = True, about.get("scale")
    return corpus


def _columns(reading: _Reading, about: Mapping[str, Any], folder: Path) -> dict[str, str]:
    """The names of columns that are given, else those that a corpus states."""
    if reading.columns:
        return parse_columns(reading.columns, reading.target.name)
    stated = about.get("columns", "")
    try:
        if isinstance(stated, str):
            return parse_columns(stated, reading.target.name)
        problem = f"{stated!r} is no text"
    except SettingsError as error:
        problem = str(error)
    raise CorpusError(
        f'{folder / _ABOUT_FILE} has "columns" that cannot be used: {problem.rstrip(".")}. Expected a text '
        'such as "valence=EmoVal,speaker=who".'
    )


def _published(entry: PublishedCorpus, folder: Path, reading: _Reading) -> Corpus:
    """A corpus of which the form, the scale and the terms are stated."""
    name = reading.target.name
    if entry.scales and name not in entry.scales:
        raise CorpusError(
            f"{entry.name} has no ratings of {name}; expected TARGET={' or TARGET='.join(entry.scales)}."
        )
    target = reading.with_scale(entry.scales.get(name))
    labels = entry.read(folder, name if entry.scales else "")
    if raters := {rater for row in labels.rows for rater in row.by_rater}:
        rows, note = with_rater_columns(labels.rows, raters)
        labels = replace(labels, rows=rows, notes=[*labels.notes, *filter(None, [note])])
    about = {key: getattr(entry, key) for key in ("terms", "citation", "source")}
    corpus = LabelledClips(
        entry.name, labels, folder, reading.sample_rate, target, about | {"description": entry.content}
    )
    corpus.stated_scale = entry.scales.get(name)
    if not entry.scales:
        corpus.unrated = (
            f"{entry.name} has no ratings of {name}, which a report needs. `valence check` describes its "
            "clips, and `valence predict` predicts them with a run that was trained on another corpus."
        )
    return corpus


def _course(entries: Sequence[Path], name: str, reading: _Reading) -> Corpus | None:
    """The pickles among the entries of a folder; None where there are none."""
    if found := _course_files(entries):
        files, notes = found
        return CourseFolder(name, files, reading.sample_rate, _course_target(reading, name), notes)
    pickles = [entry for entry in entries if entry.suffix.lower() in PICKLE_SUFFIXES and entry.is_file()]
    if not pickles:
        return None
    target = _course_target(reading, name)
    named = [file for file in pickles if file.stem.lower() in SUBSET_OF]
    if of_subsets := [(file, SUBSET_OF[file.stem.lower()]) for file in named]:
        of_subsets.sort(key=lambda file: COURSE_SUBSETS.index(file[1]))
        others = [name_text(file.name) for file in pickles if file not in named]
        ignored = [f"The pickle '{other}' is not read." for other in others]
        return PickledCorpus(name, of_subsets, reading.sample_rate, target, ignored)
    return CourseFolder(name, [(file, "") for file in pickles], reading.sample_rate, target)


def _course_target(reading: _Reading, name: str) -> Target:
    target = reading.target
    if target.name != "valence":
        raise CorpusError(
            f"{name!r} holds course pickles, which are rated for valence alone; TARGET={target.name} was "
            "given. Give a table of labels with that column."
        )
    return target


def _observed(corpus: Corpus) -> Target:
    """The target of a corpus with the lowest and the highest rating, rounded down and up, for RANGE=auto."""
    values = np.concatenate(corpus.rating_bounds())
    values = np.unique(values[np.isfinite(values)])
    if (end := lone_end(values)) is not None:
        outer, low, high = end
        raise CorpusError(
            f"the ratings of {corpus.name!r} lie between {low:g} and {high:g}, but for {outer:g}. Where it "
            "marks a missing rating, leave the cell empty; else give RANGE=low,high."
        )
    # Ratings that are absent or all equal are refused by `inspection.check_labels`.
    low, high = (values[0], values[-1]) if len(values) else (1.0, 5.0)
    return replace(corpus.target, low=float(np.floor(low)), high=float(max(np.ceil(high), np.floor(low) + 1)))


def _about(folder: Path) -> Mapping[str, Any]:
    path = folder / _ABOUT_FILE
    if not path.is_file():
        return {}
    try:
        about = dict(json.loads(path.read_text(encoding="utf-8-sig")).items())
    except (OSError, ValueError, AttributeError) as error:
        raise CorpusError(
            f"{path} cannot be read ({error}); expected a JSON object that describes the corpus. "
            "Correct or remove it."
        ) from error
    if "scale" in about:
        ends = _ends(about["scale"])
        if ends is None:
            raise CorpusError(
                f"{path} has the scale {about['scale']!r}; expected its two ends, as in [1, 5], the "
                "lower one first."
            )
        about["scale"] = ends
    return about


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
