"""Read a database in the form of the package audformat, in which audb distributes corpora.

Which column holds the rating of a clip is found in `audformat_ratings`.

Sources: https://audeering.github.io/audformat/data-header.html and data-conventions.html
"""

import math
import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from valence_lib.corpora.audformat_ratings import (
    DIMENSIONS,
    HEADER,
    Key,
    Ratings,
    keys_of,
    rated_columns,
    read_ratings,
    scale_of,
    speech_tables,
    texts_in_place_of_ratings,
    words,
)
from valence_lib.corpora.labels import SUBSET_OF, UNKNOWN, LabelRow, Labels, speaker_name
from valence_lib.corpora.published.entry import PublishedCorpus
from valence_lib.corpora.published.label_files import counted, parse_sex, recordings
from valence_lib.corpora.tables import cell_text
from valence_lib.errors import CorpusError

_STORED = ("parquet", "csv")  # and as pickles, which may execute code
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


def describe_database(folder: Path, target: str = "valence") -> PublishedCorpus:
    """What the header of a database states of it, and the reader of its tables.

    The scale of a dimension is that of its scheme. Where the scheme has none, it reaches from the lowest to
    the highest rating, rounded down and up to whole numbers.

    Args:
        folder: that holds db.yaml and the tables.
        target: a dimension whose ratings are looked for, beside the usual ones.

    Raises:
        CorpusError: the package audformat is missing, the header or a table cannot be read, or the target has
            texts in place of numbers, beside ratings of other dimensions.
    """
    database = _load(folder)
    rated = {name: rated_columns(database, name) for name in dict.fromkeys([*DIMENSIONS, target])}
    scales = {name: scale_of(database, columns) for name, columns in rated.items() if columns}
    texts = texts_in_place_of_ratings(database, target)
    if texts and scales and target not in scales:
        raise CorpusError(f"{database.name!r}: {texts}")
    licence = " ".join(filter(None, [database.license, database.license_url and f"({database.license_url})"]))
    cited = next((str(database.meta[name]) for name in _CITATIONS if database.meta.get(name)), "")
    about = database.description or ""
    about = about if isinstance(about, str) else " ".join(about)  # some headers hold a list of sentences
    return PublishedCorpus(
        name=database.name,
        marks=(HEADER,),
        read=partial(_labels, database, [texts] if texts else []),  # whose tables are in memory
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
        target: a rated dimension, such as "valence"; "" for the clips alone.

    Raises:
        CorpusError: as `describe_database`.
    """
    return _labels(_load(folder), [], folder, target)


def _labels(database: Any, remarks: Sequence[str], folder: Path, target: str) -> Labels:
    """The clips of a database that is loaded; see `read`. The `remarks` are its first notes."""
    columns = rated_columns(database, target) if target else []
    with_emotion = [table for table, *_ in _holders(database, "emotion")]
    notes = [*remarks]
    ratings = Ratings()
    if columns:
        ratings = read_ratings(database, columns, target, scale_of(database, columns), notes)
    places, tables = ratings.tables, list(dict.fromkeys(ratings.tables.values()))
    if not columns:
        for table in dict.fromkeys(with_emotion or speech_tables(database)):
            for key in keys_of(database[table].index):
                places.setdefault(key, table)
    subsets = _subsets(database, [*tables, *with_emotion], notes)
    texts = {meaning: _texts(database, meaning) for meaning in _MEANINGS}
    repeated = Counter(_of_clip(key, texts["sentence"]) for key in places)
    own_language = database.languages[0] if len(database.languages or []) == 1 else ""
    rows = []
    for key in sorted(places, key=lambda key: (key[0], key[1] or 0.0, key[2] or math.inf)):
        found = {meaning: _of_clip(key, values) for meaning, values in texts.items()}
        labels = {
            "speaker": speaker_name(found["speaker"]),
            "sex": parse_sex(found["sex"]),
            "language": _language(found["language"] or own_language),
            "sentence": found["sentence"] if repeated[found["sentence"]] > 1 else "",
            "emotion": _emotion(found["emotion"]),
        }
        labels |= {"age": found["age"]} if texts["age"] else {}
        place, raters = f"table {places[key]!r}", ratings.by_rater.get(key, {})
        subset, problem = _of_clip(key, subsets), ratings.problems.get(key)
        rows.append(
            LabelRow(place, *key, ratings.of.get(key), raters, subset, labels=labels, problem=problem)
        )
    left_out = [table for table in database.tables if table not in speech_tables(database)]
    notes += counted(left_out, "table holds no speech", "tables hold no speech")
    known = {row.file for row in rows}
    known |= {
        str(file)
        for table in {*left_out, *(column.table for column in columns)}
        for file in database[table].files
    }
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
        if not isinstance(header, dict):
            raise ValueError("it holds no entries, such as name: and source:")
        database = audformat.Database.load_header_from_yaml(header)
    except (OSError, yaml.YAMLError, LookupError, TypeError, ValueError, AttributeError) as error:
        problem = f"it lacks the entry {error}" if isinstance(error, KeyError) else str(error)
        raise CorpusError(
            f"the file {HEADER} of {folder.name!r} cannot be read as the header of an audformat database: "
            f"{problem}. Fetch it again, or write it by audformat.Database.save."
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


# Labels


def _holders(database: Any, meaning: str) -> list[tuple[str, str, str]]:
    """Where labels of a meaning are, best first: table, column, and field of its scheme's labels, or ""."""
    wanted = {*_MEANINGS[meaning]}
    found = []
    for table in speech_tables(database):
        is_gold = "gold" in words(table)
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


def _texts(database: Any, meaning: str) -> dict[Key, str]:
    """The labels of a meaning by clip."""
    found: dict[Key, str] = {}
    for table, name, field in _holders(database, meaning):
        values = database[table][name].get()
        labels = database[table].columns[name].scheme.labels if field else None
        if isinstance(labels, str):
            values = values.map(database[labels][field].get().to_dict())
        elif labels:
            values = values.map({label: of.get(field) for label, of in labels.items()})
        for key, value in zip(keys_of(database[table].index), values.astype("object"), strict=True):
            if text := cell_text(value):
                found.setdefault(key, text)
    return found


def _of_clip(key: Key, values: dict[Key, str]) -> str:
    """The label of a clip, or of the whole file."""
    return values.get(key) or values.get((key[0], None, None), "")


def _subsets(database: Any, tables: Sequence[str], notes: list[str]) -> dict[Key, str]:
    """The subset of each clip, by the splits of tables, or by their names as in "emotion.train"."""
    found: dict[Key, str] = {}
    for table in dict.fromkeys(tables):
        split = database[table].split
        parts = words(split.type if split else table)
        subset = next((SUBSET_OF[word] for word in parts if word in SUBSET_OF), "")
        for key in keys_of(database[table].index) if subset else ():
            found.setdefault(key, subset)
    if len(names := {*found.values()}) == 1:
        notes.append(f"The database has the split {names.pop()} alone, so that its clips count as not split.")
        return {}
    return found


@lru_cache
def _emotion(text: str) -> str:
    name = " ".join(words(text))
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
