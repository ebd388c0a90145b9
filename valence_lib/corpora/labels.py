"""From a table of labels to one typed row a clip: numbers, times, subsets, raters, and what is missing.

A cell that is no number makes its own clip unusable. A table whose rows contradict each other is refused.
"""

import math
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from valence_lib.corpora.columns import Columns, assign_columns, is_header
from valence_lib.corpora.file_kinds import printable
from valence_lib.corpora.rater_columns import rater_columns
from valence_lib.corpora.tables import PLAIN, Row, Table, read_table
from valence_lib.errors import ClipError, CorpusError

SUBSET_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev", "devel", "development"),
    "test": ("test", "testing"),
}
# How programs mark what is missing. A file may have any name.
MISSING = {"", "-", "--", "–", "—", ".", "na", "n/a", "n.a.", "k.a.", "nan", "nat", "<na>", "none", "null"}
MISSING |= {"nil", "missing", "not available", "#n/a", "#nv", "#n/d"}
MISSING |= {"#div/0!", "#ref!", "#value!", "#name?", "#null!", "#num!"}
UNKNOWN = MISSING | {"unknown", "unk", "?"}  # a speaker, or a sex
SEXES = {"f": "F", "female": "F", "woman": "F", "m": "M", "male": "M", "man": "M"}
SUBSET_OF = {name: subset for subset, names in SUBSET_NAMES.items() for name in names}
_NUMBER = re.compile(r"[+\-−–]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?", re.ASCII)
_DATE = re.compile(r"\d{4}-\d\d-\d\d|\d{1,2}[./-]\d{1,2}[./-]|\d{1,2}[-. ]{0,2}[^\W\d]{3}|[^\W\d]{3} \d\d$")
_MOST_UNREADABLE = 0.1  # of the ratings; more are a fault of the column
_OF_THE_CLIP = {"speaker", "sex", "language", "sentence"}  # and not of a rating
_MOST_SHOWN = 5


@dataclass(frozen=True, slots=True)
class LabelRow:
    """One row of a table of labels.

    Args:
        place: of the row in its file, such as "line 7".
        file: as the table names it.
        start, end: of the clip in its recording, seconds; None for the beginning and the end.
        rating: of the target, such as the valence; None where there is none.
        by_rater: single raters' ratings; NaN where one is missing.
        subset: "train", "validation", "test" or "".
        rater: who rated, in a table of one row a rating.
        labels: the other columns; "" where they are missing.
        problem: why the clip cannot be used.
    """

    place: str
    file: str
    start: float | None = None
    end: float | None = None
    rating: float | None = None
    by_rater: Mapping[str, float] = field(default_factory=dict)
    subset: str = ""
    rater: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    problem: ClipError | None = None

    @property
    def id(self) -> str:
        """The clip's name: its file, and its segment as a media fragment (W3C Media Fragments URI 1.0)."""
        file = printable(self.file)
        if self.start is None and self.end is None:
            return file
        end = "" if self.end is None else f",{self.end:.10g}"
        return f"{file}#t={self.start or 0:.10g}{end}"


@dataclass(frozen=True)
class Labels:
    """The rows of a corpus, one a clip.

    Args:
        rows: in the order of the table.
        form: how they were read.
        notes: sentences about what was found that a reader of the results should know.
        tables: the files from which they were read.
    """

    rows: list[LabelRow]
    form: str
    notes: list[str]
    tables: Sequence[Path] = ()


def read_labels(path: Path, columns: Mapping[str, str], target: str = "valence") -> Labels:
    """Read a table of labels.

    Args:
        path: of the table, in any format of `tables.read_table`.
        columns: the table's names of columns by their meaning, where these are not the usual ones.
        target: the dimension whose ratings are wanted, such as "valence".

    Raises:
        CorpusError: the table cannot be read, lacks a column, or contradicts itself.
    """
    return replace(labels_of(read_table(path, is_header), path, columns, target), tables=[path])


def labels_of(table: Table, path: Path, columns: Mapping[str, str], target: str) -> Labels:
    """Understand a table of labels; see `read_labels`.

    Args:
        path: for messages, the file or folder that has the table.
    """
    _check_unnamed_columns(table, path)
    meant = assign_columns(table.columns, columns, path.name, target, table.nested)
    for name, other in (("start", "end"), ("end", "start")):
        if name in meant.of and other not in meant.of:
            column = table.columns[meant.of[name]]
            raise _refusal(
                path, f"has a column {column}, but none for the {other}; name one, or give COLUMNS={name}="
            )
    _check_line_breaks(table, meant, path)
    named = ", ".join(
        f"{meaning}={table.columns[n]}"
        for name, n in meant.of.items()
        if table.columns[n] != (meaning := target if name == "rating" else name)
    )
    form = f"{table.form}, with the columns {named}" if named else table.form
    notes = [] if form == PLAIN else [f"The table {path.name!r} was read as {form}."]
    if "Latin-1" in table.form:
        notes.append("If names look wrong, the encoding is another one: save the table as UTF-8.")
    notes += [*meant.notes, *_subset_notes(table, meant)]
    if table.nested:
        notes.append(f"Columns of nested values are left out: {', '.join(table.nested)}.")
    rows = _with_sexes(list(_rows(table, meant, path)), notes)
    _check_numbers(rows, path)
    notes += _speaker_notes(rows)
    if unknown := sorted({row.subset for row in rows} - {"", *SUBSET_NAMES}):
        raise _refusal(
            path,
            f"has {', '.join(unknown[:_MOST_SHOWN])} in its column {table.columns[meant.of['subset']]}; "
            "expected train, validation or test. Rename them, or have the clips split by COLUMNS=subset=",
        )
    merged = _pivoted(rows, path, notes) if "rater" in meant.of else _without_repeats(rows, path, notes)
    return Labels(merged, form, notes)


def _refusal(path: Path, what: str) -> CorpusError:
    return CorpusError(f"the table {path.name!r} {what}.")


def _rows(table: Table, meant: Columns, path: Path) -> Iterator[LabelRow]:
    for column in (*meant.raters.values(), *_positions(meant, "rating", "start", "end")):
        _check_decimal_marks(table, column, path)
    named = [name for name in ("speaker", "sex", "language", "emotion", "sentence") if name in meant.of]
    texts = {name: meant.of[name] for name in named} | meant.labels
    for place, row in zip(table.places, table.rows, strict=True):
        cells = _Cells(table.columns, row, place)
        by_rater = {name: cells.read(_number, column) for name, column in meant.raters.items()}
        rated = [rating for rating in by_rater.values() if rating is not None]
        rating = cells.read(_number, meant.of["rating"]) if "rating" in meant.of else None
        if rating is None and rated:
            rating = sum(rated) / len(rated)
        start, end = (
            cells.read(_seconds, meant.of[name]) if name in meant.of else None for name in ("start", "end")
        )
        if start is None and end is not None:
            cells.problems.append(ClipError("segment not a time", f"{place} has an end, but no start."))
        file = re.sub(r"^(\.[\\/])+", "", row[meant.of["file"]])
        if not file:
            cells.problems.append(ClipError("unreadable", f"{place} names no file."))
        subset = _label(row[meant.of["subset"]], "subset") if "subset" in meant.of else ""
        yield LabelRow(
            place,
            file,
            start,
            end,
            rating,
            {name: math.nan if one is None else one for name, one in by_rater.items()},
            SUBSET_OF.get(subset.lower(), subset),
            _label(row[meant.of["rater"]], "rater") if "rater" in meant.of else "",
            {name: _label(row[column], name) for name, column in texts.items()},
            cells.problems[0] if cells.problems else None,
        )


@dataclass
class _Cells:
    """The cells of one row, and what is wrong with them."""

    columns: Row
    row: Row
    place: str
    problems: list[ClipError] = field(default_factory=list)

    def read(self, parse: Callable[[str, str], float | None], column: int) -> float | None:
        where = f"the column {self.columns[column]} holds {self.row[column]!r} in {self.place}"
        try:
            return parse(self.row[column], where)
        except ClipError as error:
            self.problems.append(error)
            return None


def _positions(meant: Columns, *meanings: str) -> list[int]:
    return [meant.of[meaning] for meaning in meanings if meaning in meant.of]


def speaker_name(text: str) -> str:
    """A speaker's name in one spelling, so that one person is not two; "" where it is unknown.

    >>> speaker_name(" 41.0"), speaker_name("unknown")
    ('41', '')
    """
    name = _person(text)
    return "" if name.lower() in UNKNOWN else printable(name)


def _person(text: str) -> str:
    name = " ".join(unicodedata.normalize("NFC", text).split())
    return re.sub(r"\.0+$", "", name) if re.fullmatch(r"\d+\.0+", name) else name


def _label(text: str, name: str) -> str:
    if name == "speaker":
        return speaker_name(text)
    if text.lower() in (UNKNOWN if name == "sex" else MISSING):
        return ""
    return printable(_person(text) if name == "rater" else text)


def _check_decimal_marks(table: Table, column: int, path: Path) -> None:
    """Refuse a column of which some numbers have a decimal point and others a decimal comma."""
    first: dict[str, str] = {}
    for place, row in zip(table.places, table.rows, strict=True):
        for mark in ".,":
            if mark in row[column] and mark not in first and _NUMBER.fullmatch(row[column]):
                first[mark] = f"{row[column]!r} in {place}"
    if len(first) == 2:
        numbers = f"{first['.']} and {first[',']} in the column {table.columns[column]}"
        raise _refusal(path, f"has {numbers}; write one decimal mark")


def _number(text: str, where: str) -> float | None:
    if text.lower() in MISSING:
        return None
    if _NUMBER.fullmatch(text):
        return float(re.sub("[−–]", "-", text.replace(",", ".")))
    advice = " A spreadsheet program may have made a date of a number." if _DATE.match(text) else ""
    raise ClipError("label not a number", f"{where}; expected a number.{advice}")


def _seconds(text: str, where: str) -> float | None:
    """A time in seconds, given as such or as a duration, such as "0 days 00:00:01.5"."""
    if _NUMBER.fullmatch(text) or text.lower() in MISSING:
        seconds = _number(text, where)
    else:
        import pandas as pd

        try:
            seconds = pd.to_timedelta(text.replace(",", ".")).total_seconds()
        except ValueError as error:
            message = f"{where}; expected seconds, or hours:minutes:seconds."
            raise ClipError("segment not a time", message) from error
    if seconds is not None and seconds < 0:
        raise ClipError("segment not a time", f"{where}; expected 0 or more.")
    return seconds


def _check_unnamed_columns(table: Table, path: Path) -> None:
    """Refuse cells beyond the header, but for an index in the first column, as pandas writes it."""
    unnamed = [n for n, name in enumerate(table.columns) if n and not name]
    for place, row in zip(table.places, table.rows, strict=True):
        if text := next((row[n] for n in unnamed if row[n]), ""):
            raise _refusal(
                path,
                f"has {text[:60]!r} in {place} in a column without a name. Name the column, or put a text "
                'that holds the separator into quotation marks (")',
            )


def _check_line_breaks(table: Table, meant: Columns, path: Path) -> None:
    """Refuse a field in quotation marks that encloses what looks like further rows: it names another file."""
    if not table.delimiter:
        return
    numeric = [*_positions(meant, "rating"), *meant.raters.values()]
    shapes = {_shape(row[meant.of["file"]]) for row in table.rows}
    for place, row in zip(table.places, table.rows, strict=True):
        for text in row:
            for line in text.splitlines()[1:] if "\n" in text or "\r" in text else ():
                fields = [part.strip().strip('"') for part in line.split(table.delimiter)]
                is_row = len(fields) == len(table.columns) and all(
                    fields[n].lower() in MISSING or _NUMBER.fullmatch(fields[n]) for n in numeric
                )
                if is_row or (len(fields) > 1 and shapes & set(map(_shape, fields))):
                    raise _refusal(
                        path,
                        f"has a quotation mark in {place} that encloses {line[:60]!r}, which looks like "
                        'another row; remove the mark, or write it twice ("")',
                    )


def _shape(name: str) -> str:
    """A file's name with its digits alike; "" for one without letters or digits."""
    return re.sub(r"\d", "0", name) if re.search(r"\w", name) else ""


def _check_numbers(rows: Sequence[LabelRow], path: Path) -> None:
    """Refuse a column of ratings of which many are no numbers, such as "1 - very negative"."""
    unreadable = [row.problem for row in rows if row.problem and row.problem.reason == "label not a number"]
    if len(unreadable) > max(2, _MOST_UNREADABLE * len(rows)):
        first = str(unreadable[0]).removesuffix(".")
        raise _refusal(path, f"has {len(unreadable):,} ratings that are no numbers, such as: {first}")


def _subset_notes(table: Table, meant: Columns) -> list[str]:
    """Notes about rows without a subset, and about columns that hold subsets under another name."""
    if "subset" not in meant.of:
        found = []
        for name, column in meant.labels.items():
            values = {row[column].lower() for row in table.rows} - MISSING
            if {"train", "test"} <= {SUBSET_OF.get(value) for value in values} and values <= SUBSET_OF.keys():
                found.append(
                    f"The column {name!r} holds train and test, but is not used: did you mean subset? "
                    f"COLUMNS=subset={name} uses it."
                )
        return found
    cells = [row[meant.of["subset"]].lower() in MISSING for row in table.rows]
    n_blank = sum(cells)
    if not 0 < n_blank < len(cells):
        return []
    return [
        f"{n_blank:,} of {len(cells):,} rows name no subset; these clips are used for training, or split."
    ]


def _with_sexes(rows: Sequence[LabelRow], notes: list[str]) -> list[LabelRow]:
    """The rows with one spelling of each sex, where a table has several, such as "f" and "Female"."""
    spellings = {row.labels.get("sex", "") for row in rows}
    known = [text for text in sorted(spellings) if text.lower() in SEXES]
    if len({SEXES[text.lower()] for text in known}) == len(known):
        return [*rows]
    notes.append(f"The sexes {', '.join(known)} are read as F and M.")
    named = {text: SEXES[text.lower()] for text in known}
    return [
        replace(row, labels={**row.labels, "sex": named[sex]})
        if (sex := row.labels.get("sex", "")) in named
        else row
        for row in rows
    ]


def _speaker_notes(rows: Sequence[LabelRow]) -> list[str]:
    names = sorted({row.labels.get("speaker", "") for row in rows})
    by_folded: dict[str, list[str]] = defaultdict(list)
    for name in names:
        by_folded[name.casefold()].append(name)
    alike = [" and ".join(found) for found in by_folded.values() if len(found) > 1]
    return [f"Speakers that differ in case alone count as different people: {'; '.join(alike[:3])}."] * bool(
        alike
    )


# Several rows for one clip


def _by_clip(rows: Sequence[LabelRow]) -> list[list[LabelRow]]:
    clips: dict[tuple, list[LabelRow]] = defaultdict(list)
    for number, row in enumerate(rows):
        clips[(number,) if row.problem else (row.file, row.start, row.end)].append(row)
    return list(clips.values())


def _content(row: LabelRow) -> tuple:
    by_rater = {name: None if math.isnan(rating) else rating for name, rating in row.by_rater.items()}
    return row.rating, by_rater, row.subset, row.labels, str(row.problem or "").replace(row.place, "")


def _places(rows: Sequence[LabelRow]) -> str:
    return ", ".join(row.place for row in rows[:_MOST_SHOWN]) + ", ..." * (len(rows) > _MOST_SHOWN)


def _without_repeats(rows: Sequence[LabelRow], path: Path, notes: list[str]) -> list[LabelRow]:
    """The first of the rows of each clip, which have to agree."""
    found = []
    for of_clip in _by_clip(rows):
        first, *others = of_clip
        found.append(first)
        if any(_content(row) != _content(first) for row in others):
            raise _refusal(
                path,
                f"describes {first.id!r} in {_places(of_clip)}, and not in the same way. Where these are "
                "ratings of several raters, add a column rater, or give its name as in COLUMNS=rater=NAME; "
                "where they are segments, add start and end",
            )
    if n_repeated := len(rows) - len(found):
        notes.append(f"{n_repeated:,} rows of the table repeat another one and are left out.")
    return found


def _pivoted(rows: Sequence[LabelRow], path: Path, notes: list[str]) -> list[LabelRow]:
    """One row a clip, with the ratings of all its raters; the rating is their mean."""
    if rows and rows[0].by_rater:
        raise _refusal(
            path, "has a column of raters and a column for each; give COLUMNS=rater= to ignore the former"
        )
    by_clip = _by_clip(rows)
    varying = {
        name
        for of_clip in by_clip
        for name, text in of_clip[0].labels.items()
        if any(row.labels[name] != text for row in of_clip)
    }
    if dropped := ", ".join(sorted(varying - _OF_THE_CLIP)):
        notes.append(f"Columns that differ between the rows of one clip are left out: {dropped}.")
    found = []
    for of_clip in by_clip:
        first = of_clip[0]
        labels = {name: text for name, text in first.labels.items() if name not in varying - _OF_THE_CLIP}
        ratings: dict[str, float] = {}
        for row in of_clip:
            same = (row.subset, {name: row.labels[name] for name in labels}) == (first.subset, labels)
            rater = row.rater or row.place  # ratings without a name are not those of one person
            if not same or (row.rating is not None and ratings.get(rater, row.rating) != row.rating):
                raise _refusal(
                    path,
                    f"contradicts itself about {row.id!r} in {_places(of_clip)}; expected one rating of each "
                    "rater, and the same speaker, sex, language, sentence and subset in all rows of a clip",
                )
            if row.rating is not None:
                ratings[rater] = row.rating
        problem = next((row.problem for row in of_clip if row.problem), None)
        rating = sum(ratings.values()) / len(ratings) if ratings else None
        found.append(
            replace(first, rating=rating, by_rater=ratings, rater="", labels=labels, problem=problem)
        )
    numbered, note = with_rater_columns(found, {row.rater for row in rows} - {""})
    notes.append(f"The table has one row a rating. {note}".strip())
    return numbered


def with_rater_columns(rows: Sequence[LabelRow], raters: Collection[str]) -> tuple[list[LabelRow], str]:
    """The rows with a column for each rater in place of the raters' names; see `rater_columns`."""
    columns, note = rater_columns([row.by_rater for row in rows], [row.id for row in rows], raters)
    return [replace(row, by_rater=found) for row, found in zip(rows, columns, strict=True)], note
