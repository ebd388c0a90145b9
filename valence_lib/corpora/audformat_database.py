"""Read a database in the form of the package audformat, in which audb distributes corpora.

Several columns may hold ratings of one dimension. The rating of a clip is then that of the gold standard, by
the name of its table or rater; else that of a column whose rater is a vote or the ground truth, or that has
the dimension's name and no rater; else the mean of the single raters.

Sources: https://audeering.github.io/audformat/data-header.html and data-conventions.html
"""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from valence_lib.corpora.labels import SUBSET_OF, UNKNOWN, LabelRow, Labels
from valence_lib.corpora.published.entry import PublishedCorpus
from valence_lib.corpora.published.label_files import OUTSIDE, counted, mean_rating, parse_sex, recordings
from valence_lib.corpora.rescaling import rescaled
from valence_lib.corpora.tables import cell_text
from valence_lib.errors import ClipError, CorpusError

HEADER = "db.yaml"
_STORED = ("parquet", "csv")  # and as pickles, which may execute code
_DIMENSIONS = {"valence": {"valence"}, "arousal": {"arousal", "activation"}, "dominance": {"dominance"}}
# Words in names of columns that describe ratings, and hold none.
_ABOUT_RATINGS = {"confidence", "agreement", "std", "sd", "variance", "count", "votes", "time"}
_NO_RATER = {"mean", "average", "original", "raw"}  # neither are these a rater's name
_GOLD, _CONSENSUS, _SINGLE = range(3)
_NO_SPEECH = "laryngo"  # EmoDB 2 has the electroglottogram of each recording, too
_MEANINGS = {
    "speaker": ("speaker",),
    "sex": ("sex", "gender"),
    "language": ("language",),
    "sentence": ("sentence", "transcription", "text"),
    "emotion": ("emotion",),
    "age": ("age",),
}
_EMOTIONS = {
    **{"angry": "anger", "bored": "boredom", "calmness": "calm", "contemptuous": "contempt"},
    **{"disgusted": "disgust", "excited": "excitement", "fearful": "fear", "frustrated": "frustration"},
    **{"happy": "happiness", "joy": "happiness", "sad": "sadness", "surprised": "surprise"},
}
_CITATIONS = ("citation", "reference", "publication", "bibtex")

_Key = tuple[str, float | None, float | None]  # file, start and end in seconds
_Scale = tuple[float, float]


@dataclass(frozen=True)
class _Column:
    """A column of ratings.

    Args:
        table, name: where it is.
        rank: _GOLD, _CONSENSUS or _SINGLE.
        rater: the name of a single rater.
        scale: the lowest and the highest rating; None where the database does not state them.
    """

    table: str
    name: str
    rank: int
    rater: str
    scale: _Scale | None


def describe_database(folder: Path) -> PublishedCorpus:
    """What the header of a database states of it, and the reader of its tables.

    The scale of a dimension is that of its scheme. Where the scheme has none, it reaches from the lowest to
    the highest rating, rounded down and up to whole numbers.

    Raises:
        CorpusError: the package audformat is missing, or the header or a table cannot be read.
    """
    database = _load(folder)
    scales = {name: _scale(database, columns) for name in _DIMENSIONS if (columns := _rated(database, name))}
    licence = " ".join(filter(None, [database.license, database.license_url and f"({database.license_url})"]))
    cited = next((str(database.meta[name]) for name in _CITATIONS if database.meta.get(name)), "")
    about = database.description or ""
    about = about if isinstance(about, str) else " ".join(about)  # some headers hold a list of sentences
    return PublishedCorpus(
        name=database.name,
        marks=(HEADER,),
        read=partial(_labels, database),  # whose tables are in memory
        content=re.split(r"(?<=[.!?])\s", about.strip())[0],
        source=database.source or "",
        terms=f"{licence or 'no licence is stated'}; usage: {database.usage}",
        citation=cited or ", ".join(filter(None, [database.author, database.organization])),
        scales=scales,
    )


def read(folder: Path, target: str) -> Labels:
    """The clips of a database, with their ratings of a dimension.

    Args:
        folder: that holds db.yaml and the tables.
        target: "valence", "arousal" or "dominance"; "" for the clips alone.

    Raises:
        CorpusError: as `describe_database`.
    """
    return _labels(_load(folder), folder, target)


def _labels(database: Any, folder: Path, target: str) -> Labels:
    """The clips of a database that is loaded; see `read`."""
    columns = _rated(database, target) if target else []
    tables = [column.table for column in _chosen(columns)]
    with_emotion = [table for table, *_ in _holders(database, "emotion")]
    places: dict[_Key, str] = {}
    for table in dict.fromkeys(tables or with_emotion or _tables(database)):
        for key in _keys(database[table].index):
            places.setdefault(key, table)
    notes: list[str] = []
    scale = _scale(database, columns) if columns else (-math.inf, math.inf)
    ratings, by_rater = _ratings(database, columns, scale, notes)
    subsets = _subsets(database, [*tables, *with_emotion], notes)
    texts = {meaning: _texts(database, meaning) for meaning in _MEANINGS}
    repeated = Counter(_of_clip(key, texts["sentence"]) for key in places)
    own_language = database.languages[0] if len(database.languages or []) == 1 else ""
    rows = []
    for key in sorted(places, key=lambda key: (key[0], key[1] or 0.0, key[2] or math.inf)):
        found = {meaning: _of_clip(key, values) for meaning, values in texts.items()}
        labels = {
            "speaker": "" if found["speaker"].lower() in UNKNOWN else found["speaker"],
            "sex": parse_sex(found["sex"]),
            "language": _language(found["language"] or own_language),
            "sentence": found["sentence"] if repeated[found["sentence"]] > 1 else "",
            "emotion": _emotion(found["emotion"]),
        }
        labels |= {"age": found["age"]} if texts["age"] else {}
        rating, place = ratings.get(key), f"table {places[key]!r}"
        problem = None
        if rating is not None and not scale[0] <= rating <= scale[1]:
            message = f"the {target} in the {place} is {rating:g}; expected {scale[0]:g} to {scale[1]:g}."
            problem = ClipError(OUTSIDE, message)
        raters = by_rater.get(key, {})
        subset = _of_clip(key, subsets)
        rows.append(LabelRow(place, *key, rating, raters, subset, labels=labels, problem=problem))
    left_out = [table for table in database.tables if table not in _tables(database)]
    notes += counted(left_out, "table holds no speech", "tables hold no speech")
    known = {row.file for row in rows} | {str(file) for table in left_out for file in database[table].files}
    unlabelled = [file for file in recordings(folder) if file not in known]
    notes += counted(unlabelled, "recording has no labels", "recordings have no labels")
    stored = [found for table in database for found in [_stored(folder, table)] if found]
    return Labels(rows, f"audformat database {database.name!r}", notes, [folder / HEADER, *stored])


# The header and the tables


def _load(folder: Path) -> Any:
    """The `audformat.Database` of a folder, with all tables in memory. Nothing that it holds is executed."""
    try:
        import audformat
    except ImportError as error:
        raise CorpusError(
            f"{folder.name!r} is a database in the form of the package audformat, which is not installed. "
            'Install it: pip install "valence-lib[audformat]"'
        ) from error
    import pyarrow
    import yaml

    path = folder / HEADER
    try:
        # By safe_load: audformat's own loader executes code in tags such as !!python/object/apply.
        header = yaml.safe_load(path.read_bytes())
        database = audformat.Database.load_header_from_yaml(header)
    except (OSError, yaml.YAMLError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise CorpusError(
            f"the file {HEADER} of {folder.name!r} cannot be read as the header of an audformat database: "
            f"{error}. Fetch it again, or write it by audformat.Database.save."
        ) from error
    # Where there are pickles, audformat reads these; this folder has none.
    with TemporaryDirectory() as links:
        for table in [*database.misc_tables, *database.tables]:
            stored = _stored(folder, table)
            if stored is None:
                pickled = (
                    " It has a pickle, which is not read, since it may execute code: write the table by "
                )
                pickled += "audformat.Database.save(folder, storage_format='parquet')."
                raise CorpusError(
                    f"the database {folder.name!r} lacks the table {table!r}; expected db.{table}.parquet or "
                    f"db.{table}.csv.{pickled * (folder / f'db.{table}.pkl').exists()}"
                )
            (Path(links) / stored.name).symlink_to(stored.resolve())
            try:
                database[table].load(str(Path(links) / f"db.{table}"))
            except (
                OSError,
                LookupError,
                TypeError,
                ValueError,
                RuntimeError,
                pyarrow.ArrowException,
            ) as error:
                raise CorpusError(
                    f"the table {stored.name!r} cannot be read: {error}. Expected the columns that {HEADER} "
                    "states. Fetch it again, or write it by audformat.Database.save."
                ) from error
    return database


def _stored(folder: Path, table: str) -> Path | None:
    paths = [folder / f"db.{table}.{suffix}" for suffix in _STORED]
    return next((path for path in paths if path.is_file()), None)


def _tables(database: Any) -> list[str]:
    return [table for table in database.tables if _words(table)[:1] != [_NO_SPEECH]]


def _words(name: str | None) -> list[str]:
    return re.findall(r"[^\W_]+", (name or "").lower())


def _keys(index: Any) -> list[_Key]:
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


# Ratings


def _rated(database: Any, dimension: str) -> list[_Column]:
    """The columns that hold ratings of a dimension, without those of machines and of the speakers."""
    names = _DIMENSIONS[dimension]
    found = []
    for table in _tables(database):
        for name, column in database[table].columns.items():
            own, of_scheme, rater = _words(name), _words(column.scheme_id), _words(column.rater_id)
            words = {*own, *of_scheme, *rater}
            if not names & {*own[:1], *of_scheme[:1]} or words & {*_ABOUT_RATINGS, "self"}:
                continue
            kind = column.rater.type if column.rater else ""
            scheme = column.scheme
            if kind == "machine" or (scheme is not None and not scheme.is_numeric):
                continue
            is_named_so = set(own) <= names | _NO_RATER
            if "gold" in rater or (is_named_so and "gold" in _words(table)):
                rank = _GOLD
            elif kind in ("vote", "ground truth") or (is_named_so and not rater):
                rank = _CONSENSUS
            else:
                rank = _SINGLE
            of_rater = column.rater_id or re.sub(rf"^({'|'.join(names)})[\W_]", "", name, flags=re.IGNORECASE)
            found.append(_Column(table, name, rank, of_rater, _stated_scale(scheme)))
    return found


def _stated_scale(scheme: Any) -> _Scale | None:
    if scheme is None:
        return None
    ends = [scheme.minimum, scheme.maximum]
    if not scheme.uses_table and scheme.labels:
        ends = [min(scheme.labels), max(scheme.labels)]
    return None if None in ends else (float(ends[0]), float(ends[1]))


def _chosen(columns: Sequence[_Column]) -> list[_Column]:
    """Those of some columns whose values are the ratings, or have the ratings as their means."""
    best = min((column.rank for column in columns), default=_SINGLE)
    of_best = [column for column in columns if column.rank == best]
    return [column for column in of_best if column.scale == of_best[0].scale]


def _scale(database: Any, columns: Sequence[_Column]) -> _Scale:
    if stated := _chosen(columns)[0].scale:
        return stated
    values = [
        value for column in columns if column.scale is None for _, value in _values(database, column)
    ] or [1.0, 5.0]
    low, high = math.floor(min(values)), math.ceil(max(values))
    return float(low), float(max(high, low + 1))


def _values(database: Any, column: _Column) -> Iterator[tuple[_Key, float]]:
    """The clips that have a value in a column, each with it."""
    import pandas as pd

    table = database[column.table]
    series = pd.to_numeric(table[column.name].get().astype("object"), errors="coerce")
    for key, value in zip(_keys(table.index), series.to_numpy(float, na_value=math.nan), strict=True):
        if not math.isnan(value):
            yield key, float(value)


def _ratings(
    database: Any, columns: Sequence[_Column], scale: _Scale, notes: list[str]
) -> tuple[dict[_Key, float], dict[_Key, dict[str, float]]]:
    """The rating of each clip, and those of single raters, on one scale."""
    if not columns:
        return {}, {}
    chosen = _chosen(columns)
    rank, has_scale = chosen[0].rank, chosen[0].scale is not None
    by_rater: dict[_Key, dict[str, float]] = defaultdict(dict)
    unscaled, repeated, outside, mapped = [], [], [], []
    for column in (column for column in columns if column.rank == _SINGLE):
        if (column.scale is not None) != has_scale:
            unscaled.append(column.rater)
            continue
        low, high = column.scale or scale
        if (low, high) != scale:
            mapped.append(f"from {low:g} to {high:g}")
        for key, value in _values(database, column):
            if not low <= value <= high:
                outside.append(key[0])
            elif column.rater in by_rater[key]:
                repeated.append(key[0])
            else:
                by_rater[key][column.rater] = rescaled(value, (low, high), scale)
    ratings: dict[_Key, float] = {}
    if rank == _SINGLE:
        means = {key: mean_rating(given.values()) for key, given in by_rater.items()}
        ratings = {key: mean for key, mean in means.items() if mean is not None}
    else:
        for column in chosen:
            for key, value in _values(database, column):
                ratings.setdefault(key, value)
    used = list(dict.fromkeys(column.table for column in chosen))
    others = dict.fromkeys(column.table for column in columns if column.rank != _SINGLE)
    if unused := [table for table in others if table not in used]:
        notes.append(f"The ratings are those in {_listed(used)}; those in {_listed(unused)} are not used.")
    if mapped:
        notes.append(
            f"Ratings of single raters, {' and '.join(dict.fromkeys(mapped))}, are mapped linearly to the "
            f"scale from {scale[0]:g} to {scale[1]:g}."
        )
    if not has_scale:
        notes.append(
            f"{HEADER} states no scale of the ratings; it is taken to be {scale[0]:g} to {scale[1]:g}."
        )
    notes += counted(
        unscaled, "column of a rater is left out", "columns of raters on other scales are left out"
    )
    notes += counted(repeated, "rating repeats one of the same rater", "ratings repeat one of the same rater")
    notes += counted(outside, "single rating is outside its scale", "single ratings are outside their scale")
    return ratings, by_rater


def _listed(tables: Sequence[str]) -> str:
    return f"the table{'s' * (len(tables) > 1)} {', '.join(map(repr, tables))}"


# Labels


def _holders(database: Any, meaning: str) -> list[tuple[str, str, str]]:
    """Where labels of a meaning are, best first: table, column, and field of its scheme's labels, or ""."""
    wanted = {*_MEANINGS[meaning]}
    found = []
    for table in _tables(database):
        is_gold = "gold" in _words(table)
        for name, column in database[table].columns.items():
            names, scheme = {name.lower(), (column.scheme_id or "").lower()}, column.scheme
            # Without a list of texts, a transcription does not name a sentence.
            is_free = meaning == "sentence" and "sentence" not in names and not (scheme and scheme.labels)
            if names & wanted and not is_free:
                found.append((not is_gold, name.lower() not in wanted, table, name, ""))
            fields = _fields(database, scheme) if meaning != "sentence" else {}
            found += [
                (not is_gold, True, table, name, field) for field, called in fields.items() if called & wanted
            ]
    return [(table, name, field) for *_, table, name, field in sorted(found, key=lambda one: one[:2])]


def _fields(database: Any, scheme: Any) -> dict[str, set[str]]:
    """The fields that the labels of a scheme have, such as a speaker's sex, each with its names."""
    if scheme is None or not scheme.labels:
        return {}
    if scheme.uses_table:
        columns = database[scheme.labels].columns.items()
        return {name: {name.lower(), (column.scheme_id or "").lower()} for name, column in columns}
    described = scheme.labels.values() if isinstance(scheme.labels, dict) else []
    return {name: {name.lower()} for of in described if isinstance(of, dict) for name in of}


def _texts(database: Any, meaning: str) -> dict[_Key, str]:
    """The labels of a meaning by clip."""
    found: dict[_Key, str] = {}
    for table, name, field in _holders(database, meaning):
        values = database[table][name].get()
        labels = database[table].columns[name].scheme.labels if field else None
        if isinstance(labels, str):
            values = values.map(database[labels][field].get().to_dict())
        elif labels:
            values = values.map({label: of.get(field) for label, of in labels.items()})
        for key, value in zip(_keys(database[table].index), values.astype("object"), strict=True):
            if text := cell_text(value):
                found.setdefault(key, text)
    return found


def _of_clip(key: _Key, values: dict[_Key, str]) -> str:
    """The label of a clip, or of the whole file."""
    return values.get(key) or values.get((key[0], None, None), "")


def _subsets(database: Any, tables: Sequence[str], notes: list[str]) -> dict[_Key, str]:
    """The subset of each clip, by the splits of tables, or by their names as in "emotion.train"."""
    found: dict[_Key, str] = {}
    for table in dict.fromkeys(tables):
        split = database[table].split
        words = _words(split.type if split else table)
        subset = next((SUBSET_OF[word] for word in words if word in SUBSET_OF), "")
        for key in _keys(database[table].index) if subset else ():
            found.setdefault(key, subset)
    if len(names := {*found.values()}) == 1:
        notes.append(f"The database has the split {names.pop()} alone, so that its clips count as not split.")
        return {}
    return found


@lru_cache
def _emotion(text: str) -> str:
    name = " ".join(_words(text))
    return "" if name in UNKNOWN else _EMOTIONS.get(name, name)


@lru_cache
def _language(text: str) -> str:
    """A language's code of ISO 639-1, or of 639-3 where it has none; "" where it is unknown."""
    import audformat
    import iso639

    try:
        code = audformat.utils.map_language(text) if text else ""
    except ValueError:
        return ""
    return str(iso639.Lang(code).pt1 or code) if code else ""
