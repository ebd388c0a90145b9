"""The ratings of an audformat database: which columns hold them, on which scale, and what a clip is rated.

Several columns may hold ratings of one dimension. The rating of a clip is that of the gold standard, by the
name of its table or rater. Without a gold standard, it is that of a column whose rater is a vote or the
ground truth, or that has the dimension's name and no rater; else the mean of the single raters.
"""

import math
import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from valence_lib.corpora.published.label_files import OUTSIDE, counted, mean_rating
from valence_lib.corpora.rescaling import lone_end, rescaled
from valence_lib.errors import ClipError, CorpusError

HEADER = "db.yaml"
DIMENSIONS: dict[str, tuple[str, ...]] = {
    "valence": ("valence",),
    "arousal": ("arousal", "activation"),
    "dominance": ("dominance",),
}
# Words in names of columns that describe ratings, and hold none.
_ABOUT_RATINGS = {"confidence", "agreement", "std", "sd", "variance", "count", "votes", "time"}
# Neither are these, where no rater is stated, who may be called Max.
_STATISTICS = {"min", "max", "minimum", "maximum", "range", "z", "zscore", "normalized", "normalised"}
_NO_RATER = ("mean", "average", "original", "raw", "median")  # neither are these a rater's name; best first
_GOLD, _CONSENSUS, _SINGLE = range(3)
_NO_SPEECH = "laryngo"  # EmoDB 2 has the electroglottogram of each recording, too

Key = tuple[str, float | None, float | None]  # file, start and end in seconds
Scale = tuple[float, float]


@dataclass(frozen=True)
class RatedColumn:
    """A column of ratings.

    Args:
        table, name: where it is.
        rank: _GOLD, _CONSENSUS or _SINGLE.
        rater: the name of a single rater.
        scale: the lowest and the highest rating; None where the database does not state them.
        preference: of columns of one rank, those with a lower number go first.
    """

    table: str
    name: str
    rank: int
    rater: str
    scale: Scale | None
    preference: int


@dataclass
class Ratings:
    """What the clips are rated, on one scale.

    Args:
        of: the rating of each clip that has one.
        by_rater: those of single raters.
        tables: of each clip that may have a rating, the table of it.
        problems: why a rating cannot be used.
    """

    of: dict[Key, float] = field(default_factory=dict)
    by_rater: dict[Key, dict[str, float]] = field(default_factory=lambda: defaultdict(dict))
    tables: dict[Key, str] = field(default_factory=dict)
    problems: dict[Key, ClipError] = field(default_factory=dict)


def speech_tables(database: Any) -> list[str]:
    """The tables of a database, without those of what is no speech."""
    return [table for table in database.tables if words(table)[:1] != [_NO_SPEECH]]


def words(name: str | None) -> list[str]:
    """The words of a name in lower case."""
    return re.findall(r"[^\W_]+", (name or "").lower())


def keys_of(index: Any) -> list[Key]:
    """The clips of a table."""
    files = index.get_level_values("file").tolist()
    if "start" not in index.names:
        return [(file, None, None) for file in files]
    starts = index.get_level_values("start").total_seconds()
    ends = index.get_level_values("end").total_seconds()
    return [
        (file, start if start or end == end else None, end if end == end else None)  # NaN is the file's end
        for file, start, end in zip(files, starts, ends, strict=True)
    ]


def _named(database: Any, dimension: str) -> Iterator[tuple[str, str, Any, set[str]]]:
    """The columns that are called after a dimension: table, name, column, and the dimension's words.

    Those of machines and of the speakers themselves, and what only describes ratings, are not among them.
    """
    names = [words(name) for name in DIMENSIONS.get(dimension, (dimension,))]
    for table in speech_tables(database):
        for name, column in database[table].columns.items():
            own, of_scheme, rater = words(name), words(column.scheme_id), words(column.rater_id)
            called = next((of for of in names if of in (own[: len(of)], of_scheme[: len(of)])), None)
            if called is None or {*own, *of_scheme, *rater} & {*_ABOUT_RATINGS, "self"}:
                continue
            if not rater and {*own[1:], *of_scheme[1:]} & _STATISTICS:
                continue
            if not (column.rater and column.rater.type == "machine"):
                yield table, name, column, {*called}


def rated_columns(database: Any, dimension: str) -> list[RatedColumn]:
    """The columns that hold ratings of a dimension, such as "valence"."""
    found = []
    for table, name, column, called in _named(database, dimension):
        scheme = column.scheme
        if scheme is not None and not scheme.is_numeric:
            continue
        own, rater = words(name), words(column.rater_id)
        is_named_so = set(own) <= called.union(_NO_RATER)
        if "gold" in rater or (is_named_so and "gold" in words(table)):
            rank = _GOLD
        elif (column.rater and column.rater.type in ("vote", "ground truth")) or (is_named_so and not rater):
            rank = _CONSENSUS
        else:
            rank = _SINGLE
        names = "|".join(map(re.escape, DIMENSIONS.get(dimension, (dimension,))))
        of_rater = column.rater_id or re.sub(rf"^({names})[\W_]", "", name, flags=re.IGNORECASE)
        preference = next((n for n, word in enumerate(_NO_RATER, 1) if word in own), 0)
        found.append(RatedColumn(table, name, rank, of_rater, _stated_scale(scheme), preference))
    return found


def texts_in_place_of_ratings(database: Any, dimension: str) -> str:
    """Which columns are called after a dimension and hold texts, as a sentence; "" where there are none."""
    found = [
        f"{name!r} of the table {table!r}"
        for table, name, column, _ in _named(database, dimension)
        if column.scheme is not None and not column.scheme.is_numeric
    ]
    if not found:
        return ""
    return (
        f"{HEADER} states texts for the column {' and '.join(found[:3])}, so that it holds no ratings of "
        f"{dimension}; expected a scheme of the dtype float or int."
    )


def _stated_scale(scheme: Any) -> Scale | None:
    if scheme is None:
        return None
    ends = [scheme.minimum, scheme.maximum]
    if not scheme.uses_table and scheme.labels:
        ends = [min(scheme.labels), max(scheme.labels)]
    return None if None in ends else (float(ends[0]), float(ends[1]))


def _chosen(columns: Sequence[RatedColumn]) -> list[RatedColumn]:
    """Those of some columns whose values are the ratings, or have the ratings as their means.

    A gold standard is a selection of clips, too: beside it, no other clip is taken. A consensus is completed
    by the single raters of other clips.
    """
    best = min(column.rank for column in columns)
    of_best = [column for column in columns if column.rank == best]
    if best == _CONSENSUS:
        tables = {column.table for column in of_best}
        of_best += [column for column in columns if column.rank == _SINGLE and column.table not in tables]
    return sorted(of_best, key=lambda column: (column.rank, column.preference))


def scale_of(database: Any, columns: Sequence[RatedColumn]) -> Scale:
    """The scale of some columns: the first that is stated, else from the lowest to the highest rating.

    The latter are rounded down and up to whole numbers.
    """
    if stated := _first_scale(columns):
        return stated
    values = _unscaled_values(database, columns) or [1.0, 5.0]
    low, high = math.floor(min(values)), math.ceil(max(values))
    return float(low), float(max(high, low + 1))


def _first_scale(columns: Sequence[RatedColumn]) -> Scale | None:
    """The scale that the database states of the ratings; None where it states none."""
    chosen = _chosen(columns)
    return next((column.scale for column in chosen if column.scale and column.rank == chosen[0].rank), None)


def _unscaled_values(database: Any, columns: Sequence[RatedColumn]) -> list[float]:
    return [value for column in columns if column.scale is None for _, value in _values(database, column)]


def _values(database: Any, column: RatedColumn) -> Iterator[tuple[Key, float]]:
    """The clips that have a value in a column, each with it."""
    import pandas as pd

    table = database[column.table]
    series = pd.to_numeric(table[column.name].get().astype("object"), errors="coerce")
    for key, value in zip(keys_of(table.index), series.to_numpy(float, na_value=math.nan), strict=True):
        if not math.isnan(value):
            yield key, float(value)


def read_ratings(
    database: Any, columns: Sequence[RatedColumn], dimension: str, scale: Scale, notes: list[str]
) -> Ratings:
    """What the clips of a database are rated, on one scale, from all columns of a dimension.

    Args:
        scale: as `scale_of` gives it.
        notes: to which sentences are added about what is not used, and what is mapped.

    Raises:
        CorpusError: no scale is stated, and one rating is far from all others.
    """
    chosen = _chosen(columns)
    has_scale = _first_scale(columns) is not None
    if not has_scale:
        _check_ends(_unscaled_values(database, columns), dimension, database.name)
    unscaled = [column for column in columns if (column.scale is not None) != has_scale]
    kept = [column for column in columns if column not in unscaled]
    found = Ratings()
    _add_single_ratings(database, [column for column in kept if column.rank == _SINGLE], scale, found, notes)
    consensus = [column for column in chosen if column.rank != _SINGLE and column in kept]
    _add_consensus(database, consensus, dimension, scale, found, notes)
    n_consensus = len(found.of)
    completed: dict[str, None] = {}
    for column in chosen:
        if column.rank == _SINGLE and column in kept:
            for key in keys_of(database[column.table].index):
                mean = mean_rating(found.by_rater.get(key, {}).values())
                if found.tables.setdefault(key, column.table) == column.table and mean is not None:
                    found.of[key] = mean
                    completed[column.table] = None
    if n_consensus and completed:
        notes.append(
            f"Ratings in {_listed([*completed])} are means of single raters, those in other tables are not."
        )
    used = list(dict.fromkeys(column.table for column in chosen if column in kept))
    others = dict.fromkeys(column.table for column in columns if column.rank != _SINGLE)
    if unused := [table for table in others if table not in used]:
        notes.append(f"The ratings are those in {_listed(used)}; those in {_listed(unused)} are not used.")
    rated = {key: None for column in columns for key, _ in _values(database, column)}
    left_out = [key[0] for key in rated if key not in found.tables]
    notes += counted(
        left_out,
        "clip is rated in other tables alone, and left out",
        "clips are rated in other tables alone, and left out",
    )
    if not has_scale:
        notes.append(
            f"{HEADER} states no scale of the ratings; it is taken to be {scale[0]:g} to {scale[1]:g}."
        )
    notes += counted(
        [column.rater for column in unscaled if column.rank == _SINGLE],
        "column of a rater is left out",
        "columns of raters on other scales are left out",
    )
    notes += counted(
        [f"{column.table}, {column.name}" for column in unscaled if column.rank != _SINGLE],
        "column is left out, as its scale is not stated, or that of others is not",
        "columns are left out, as their scale is not stated, or that of others is not",
    )
    return found


def _check_ends(values: Collection[float], dimension: str, name: str) -> None:
    """Refuse a scale that would reach to a mark for missing ratings."""
    if (end := lone_end(np.array([*values], np.float64), fewest=3)) is not None:
        outer, low, high = end
        raise CorpusError(
            f"the ratings of {dimension} in {name!r} lie between {low:g} and {high:g}, but for {outer:g}; "
            f"{HEADER} states no scale. If that marks a missing rating, leave the cell empty; else state "
            "minimum and maximum in the scheme."
        )


def _add_single_ratings(
    database: Any, columns: Sequence[RatedColumn], scale: Scale, found: Ratings, notes: list[str]
) -> None:
    repeated, outside, mapped = [], [], []
    for column in columns:
        low, high = column.scale or scale
        if (low, high) != scale:
            mapped.append(f"from {low:g} to {high:g}")
        for key, value in _values(database, column):
            if not low <= value <= high:
                outside.append(key[0])
            elif column.rater in found.by_rater[key]:
                repeated.append(key[0])
            else:
                found.by_rater[key][column.rater] = rescaled(value, (low, high), scale)
    if mapped:
        notes.append(
            f"Ratings of single raters, {' and '.join(dict.fromkeys(mapped))}, are mapped linearly to the "
            f"scale from {scale[0]:g} to {scale[1]:g}."
        )
    notes += counted(repeated, "rating repeats one of the same rater", "ratings repeat one of the same rater")
    notes += counted(outside, "single rating is outside its scale", "single ratings are outside their scale")


def _add_consensus(
    database: Any,
    columns: Sequence[RatedColumn],
    dimension: str,
    scale: Scale,
    found: Ratings,
    notes: list[str],
) -> None:
    contradicted: list[str] = []
    for column in columns:
        for key in keys_of(database[column.table].index):
            found.tables.setdefault(key, column.table)
        low, high = column.scale or scale
        if (low, high) != scale:
            notes.append(
                f"Ratings in the table {column.table!r}, from {low:g} to {high:g}, are mapped linearly to "
                f"the scale from {scale[0]:g} to {scale[1]:g}."
            )
        for key, value in _values(database, column):
            rating = rescaled(value, (low, high), scale)
            if key not in found.of:
                found.of[key], found.tables[key] = rating, column.table
                if not low <= value <= high:
                    message = (
                        f"the {dimension} in the table {column.table!r} is {value:g}; expected {low:g} to "
                        f"{high:g}."
                    )
                    found.problems[key] = ClipError(OUTSIDE, message)
            elif column.table != found.tables[key] and not math.isclose(rating, found.of[key]):
                contradicted.append(key[0])
    notes += counted(
        contradicted,
        "clip has different ratings in two tables, of which the first is used",
        "clips have different ratings in two tables, of which the first is used",
    )


def _listed(tables: Sequence[str]) -> str:
    return f"the table{'s' * (len(tables) > 1)} {', '.join(map(repr, tables))}"
