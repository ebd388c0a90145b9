"""What several published corpora need: their recordings, tables by column, ratings, and notes that count."""

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from valence_lib.corpora.file_kinds import AUDIO_SUFFIXES, is_clutter, name_text
from valence_lib.corpora.labels import MISSING
from valence_lib.corpora.tables import read_table
from valence_lib.errors import ClipError, CorpusError

OUTSIDE = "label outside its scale"  # why a clip cannot be used
_SEXES = {"f": "F", "female": "F", "woman": "F", "m": "M", "male": "M", "man": "M"}


@dataclass(frozen=True, slots=True)
class Record:
    """One row of a table.

    Args:
        place: of the row, such as "line 7 of 'annotations.csv'".
        cells: its texts by column.
    """

    place: str
    cells: Mapping[str, str]


def recordings(folder: Path) -> list[str]:
    """The audio files below a folder, but for hidden files and what an operating system leaves there.

    Returns:
        Their paths within the folder, "/" separated and sorted.
    """
    found: list[str] = []
    for root, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if _is_visible(name)]
        place = Path(root).relative_to(folder)
        found += [
            (place / name).as_posix()
            for name in files
            if _is_visible(name) and PurePath(name).suffix.lower() in AUDIO_SUFFIXES
        ]
    return sorted(found)


def _is_visible(name: str) -> bool:
    return not (name.startswith(".") or is_clutter(name))


def read_records(path: Path, required: Sequence[str]) -> list[Record]:
    """Read a table by its columns, in any format of `tables.read_table`.

    Args:
        path: of the table.
        required: columns that it must have, in any case; the records name them as they are given here.

    Raises:
        CorpusError: the table cannot be read, or lacks a column.
    """
    named = {name.lower(): name for name in required}
    table = read_table(path, lambda columns: set(named) <= {name.lower() for name in columns})
    columns = [named.get(name.lower(), name) for name in table.columns]
    if absent := [name for name in required if name not in columns]:
        raise CorpusError(
            f"the table {path.name!r} has the columns {', '.join(filter(None, table.columns))}; expected "
            f"{', '.join(required)}, of which {', '.join(absent)} {'is' if len(absent) == 1 else 'are'} "
            "absent. Restore the table as it is published, or write the names into its first line."
        )
    return [
        Record(f"{place} of {path.name!r}", dict(zip(columns, row, strict=True)))
        for place, row in zip(table.places, table.rows, strict=True)
    ]


def first_of_each(records: Sequence[Record], column: str, notes: list[str]) -> dict[str, Record]:
    """The first record of each value of a column; a note is added where there are others."""
    found: dict[str, Record] = {}
    repeated = [
        record.cells[column]
        for record in records
        if found.setdefault(record.cells[column], record) is not record
    ]
    notes += counted(
        repeated,
        "row repeats the clip of an earlier one and is left out",
        "rows repeat the clip of an earlier one and are left out",
    )
    return found


def parse_rating(text: str, scale: tuple[float, float], where: str) -> float | None:
    """A rating as a number; None where it is missing.

    Args:
        text: of the cell.
        scale: the lowest and the highest rating that can be given.
        where: the cell, as a message names it.

    Raises:
        ClipError: it is no number, or lies outside the scale.
    """
    if text.lower() in MISSING:
        return None
    message = f"{where} is {text!r}; expected a number from {scale[0]:g} to {scale[1]:g}."
    try:
        value = float(text)
    except ValueError as error:
        raise ClipError("label not a number", message) from error
    if not scale[0] <= value <= scale[1]:
        raise ClipError(OUTSIDE, message)
    return value


def parse_ratings(
    record: Record, columns: Mapping[str, str], scale: tuple[float, float]
) -> tuple[dict[str, float], list[ClipError]]:
    """Several ratings of one clip.

    Args:
        record: with the ratings.
        columns: of each rating, by its name.
        scale: the lowest and the highest rating that can be given.

    Returns:
        The ratings by name, NaN where one is missing or cannot be used, and why it cannot.
    """
    found, problems = dict.fromkeys(columns, math.nan), []
    for name, column in columns.items():
        try:
            rating = parse_rating(record.cells[column], scale, f"{column} in {record.place}")
        except ClipError as error:
            problems.append(error)
        else:
            found[name] = math.nan if rating is None else rating
    return found, problems


def mean_rating(ratings: Iterable[float]) -> float | None:
    """The mean of the ratings that are given; None where all are NaN."""
    given = [rating for rating in ratings if not math.isnan(rating)]
    return sum(given) / len(given) if given else None


def parse_sex(text: str) -> str:
    """A sex as "F" or "M"; "" where it is neither."""
    return _SEXES.get(text.strip().lower(), "")


def counted(names: Sequence[str], one: str, many: str) -> list[str]:
    """A note that counts clips and names the first, or none where there are none.

    >>> counted(["b.wav", "c.wav"], "recording has no labels", "recordings have no labels")
    ["2 recordings have no labels, such as 'b.wav'."]
    """
    if not names:
        return []
    shown = name_text(names[0])
    return [f"1 {one}: {shown!r}." if len(names) == 1 else f"{len(names):,} {many}, such as {shown!r}."]
