"""Find data sets in the forms of the Hugging Face hub.

    metadata.csv, .jsonl or .parquet beside audio files (AudioFolder) ─┐
    data/train-00000-of-00002.parquet, ..., which hold the audio ──────┴─► DataSet: a table and recordings

Sources: https://huggingface.co/docs/hub/datasets-audio, https://huggingface.co/docs/datasets/audio_dataset
"""

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from valence_lib.corpora.columns import is_header
from valence_lib.corpora.embedded import EmbeddedAudio
from valence_lib.corpora.file_kinds import is_clutter, name_text
from valence_lib.corpora.labels import SUBSET_OF
from valence_lib.corpora.tables import (
    Row,
    Table,
    dataset_features,
    is_parquet,
    parquet_schema,
    parquet_texts,
    read_table,
)
from valence_lib.errors import CorpusError

_METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
_FILE_NAME = "file_name"  # the column of these tables that names the audio file
_IN_HEADER = re.compile(rb"\bfile_name\b", re.IGNORECASE)
_README = "README.md"
_ABOUT = {"terms": "license", "description": "pretty_name"}
_SHARD = re.compile(r"-(\d+)-of-(\d+)(-[0-9a-f]+)?\.parquet$")
_LONGEST_LINE = 1 << 16  # bytes


@dataclass(frozen=True)
class DataSet:
    """A data set in a form of the Hugging Face hub.

    Args:
        table: with the column "file" and, where the data set has a training and another subset, "subset".
        paths: the files from which the table was read, but for those of `recordings`.
        about: "terms" and "description" where README.md states them.
        recordings: the audio that Parquet files hold, by the names in the column "file"; None where that
            column names files within the folder.
        notes: sentences about what was found that a reader of the results should know.
    """

    table: Table
    paths: list[Path]
    about: dict[str, str]
    recordings: EmbeddedAudio | None = None
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Part:
    """One table of a data set: its name for messages, the names of its files, and the subset of each."""

    name: str
    table: Table
    files: Row
    subsets: Row


def find(path: Path) -> DataSet | None:
    """The data set that a folder, or one Parquet file, holds; None where it has none of these forms.

    Raises:
        CorpusError: the data set cannot be read, or has several configurations.
    """
    folder = path if path.is_dir() else path.parent
    if shards := _shards(path) if path.is_dir() else _with_audio([path]):
        return _of_parquet(shards, folder)
    tables = [table for table in _metadata_tables(path) if _names_files(table)]
    if not tables:
        return None
    parts = [_audio_folder(table, folder) for table in tables]
    table, notes = _joined(parts, f"a Hugging Face AudioFolder, with {_listed(part.name for part in parts)}")
    return DataSet(table, [*tables, folder / _README], _about(folder), None, notes)


def _about(folder: Path) -> dict[str, str]:
    """What the YAML header of a data set's README.md states."""
    import yaml

    readme = folder / _README
    text = readme.read_text(encoding="utf-8-sig", errors="replace") if readme.is_file() else ""
    header = re.match(r"---\s*\n(.*?)\n---", text, re.DOTALL)
    try:
        stated = yaml.safe_load(header[1]) if header else {}
    except yaml.YAMLError:
        return {}  # it only describes the data set
    found = {key: stated.get(name) for key, name in _ABOUT.items()} if isinstance(stated, dict) else {}
    return {
        key: ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        for key, value in found.items()
        if value
    }


def _subset_of(name: str) -> str:
    """The subset that a word in the name of a file or folder means, as in "train-00000-of-00002"; else ""."""
    words = re.split(r"[\W\d_]+", name.lower())
    return next((SUBSET_OF[word] for word in words if word in SUBSET_OF), "")


def _listed(names: Iterable[str]) -> str:
    first, *others = names
    return f"{first} and {len(others):,} others" if len(others) > 1 else " and ".join([first, *others])


def _joined(parts: Sequence[_Part], form: str) -> tuple[Table, list[str]]:
    """One table of several, whose columns may differ, and notes about it."""
    subsets = sorted({subset for part in parts for subset in part.subsets} - {""})
    notes = []
    if len(subsets) == 1:
        notes.append(f"The data set has the split {subsets[0]} alone, so that its clips count as not split.")
    own = ["file", "subset"] if len(subsets) > 1 else ["file"]
    names = list(dict.fromkeys(name for part in parts for name in part.table.columns))
    others = [name for name in names if name.casefold() not in own]
    if replaced := ", ".join(repr(name) for name in names if name not in others):
        notes.append(f"The names of recordings and splits of the data set replace the column {replaced}.")
    rows, places = [], []
    for part in parts:
        position = {name: n for n, name in enumerate(part.table.columns)}
        given = zip(part.table.rows, part.table.places, part.files, part.subsets, strict=True)
        for row, place, *stated in given:
            cells = [row[position[name]] if name in position else "" for name in others]
            rows.append([*stated[: len(own)], *cells])
            places.append(f"{place} of {part.name}" if len(parts) > 1 else place)
    delimiters = {part.table.delimiter for part in parts}
    nested = dict.fromkeys(name for part in parts for name in part.table.nested)
    delimiter = delimiters.pop() if len(delimiters) == 1 else ""
    return Table([*own, *others], rows, places, form, delimiter, list(nested)), notes


# Audio in files


def _metadata_tables(folder: Path) -> list[Path]:
    """The tables of an AudioFolder: at the top, in "data", and in the folders of subsets in either."""
    places = [folder, folder / "data"]
    places += [
        entry
        for place in places
        if place.is_dir()
        for entry in sorted(place.iterdir())
        if entry.is_dir() and _subset_of(entry.name) and not is_clutter(entry.name)
    ]
    return [path for place in places for name in _METADATA if (path := place / name).is_file()]


def _names_files(table: Path) -> bool:
    """Whether a table has the column of an AudioFolder; others are called metadata.csv too."""
    if is_parquet(table):
        return _position_of_names(parquet_schema(table).names) is not None
    with table.open("rb") as file:
        # Every second byte of Latin text in UTF-16 is zero.
        return _IN_HEADER.search(file.readline(_LONGEST_LINE).replace(b"\0", b"")) is not None


def _position_of_names(columns: Sequence[str]) -> int | None:
    return next((n for n, name in enumerate(columns) if name.casefold() == _FILE_NAME), None)


def _audio_folder(path: Path, folder: Path) -> _Part:
    table = read_table(path, is_header)
    position = _position_of_names(table.columns)
    if position is None:
        found = ", ".join(table.columns)
        raise CorpusError(
            f"the table {path.name!r} has the columns {found}; expected {_FILE_NAME} among them."
        )
    place = path.parent.relative_to(folder)
    files = [(place / row[position]).as_posix() if row[position] else "" for row in table.rows]
    tops = [next((part for part in file.split("/")[:-1] if part != "data"), "") for file in files]
    # Without the index that pandas writes into a first column without a name.
    kept = [n for n, name in enumerate(table.columns) if n != position and (n or name)]
    rows = [[row[n] for n in kept] for row in table.rows]
    table = replace(table, columns=[table.columns[n] for n in kept], rows=rows)
    return _Part(path.relative_to(folder).as_posix(), table, files, [_subset_of(top) for top in tops])


# Audio in Parquet


def _shards(folder: Path) -> dict[Path, str]:
    """The Parquet files of a data set that hold audio, each with its column.

    Raises:
        CorpusError: they are of several configurations, or one of them is damaged.
    """
    found = sorted(path for depth in ("", "*/", "*/*/") for path in folder.glob(f"{depth}*.parquet"))
    parts = {path: path.relative_to(folder).parts for path in found}
    shards = _with_audio(
        [path for path in found if not any(part.startswith(".") or is_clutter(part) for part in parts[path])]
    )
    configurations = {_configuration(path, folder): path for path in shards}
    if len(configurations) > 1:
        names = ", ".join(sorted(place.relative_to(folder).as_posix() for place in configurations))
        raise CorpusError(
            f"the data set {folder.name!r} has several configurations, in the folders {names}. Give one of "
            f"them, as in CORPUS={name_text(max(configurations))}."
        )
    return shards


def _configuration(path: Path, folder: Path) -> Path:
    """The folder that holds all subsets to which a Parquet file belongs."""
    place = path.parent
    while place != folder and (place.name == "data" or _subset_of(place.name)):
        place = place.parent
    return place


def _with_audio(paths: Sequence[Path]) -> dict[Path, str]:
    """Those of some files that hold audio, each with its column.

    Raises:
        CorpusError: one of them is damaged, and by the others or by its name it is of a data set.
    """
    columns: dict[Path, str] = {}
    damage: dict[Path, CorpusError] = {}
    for path in paths:
        try:
            if column := _audio_column(path):
                columns[path] = column
        except CorpusError as error:
            damage[path] = error
    if problem := next((damage[path] for path in damage if columns or _SHARD.search(path.name)), None):
        raise problem
    return columns


def _audio_column(path: Path) -> str:
    """The column of a file that holds audio, as a struct with the field "bytes"; "" for none."""
    from pyarrow import types

    if path.suffix.lower() != ".parquet" and not is_parquet(path):
        return ""
    schema = parquet_schema(path)
    features = dataset_features(schema.metadata)
    found = [
        field.name
        for field in schema
        if types.is_struct(field.type)
        and field.type.get_field_index("bytes") >= 0
        and features.get(field.name, {}).get("_type", "Audio") == "Audio"
    ]
    return "audio" if "audio" in found else next(iter(found), "")


def _of_parquet(shards: dict[Path, str], folder: Path) -> DataSet:
    """The data set in Parquet files, which hold audio in a column each."""
    repeated = len({path.name for path in shards}) < len(shards)
    names = {path: path.relative_to(folder).as_posix() if repeated else path.name for path in shards}
    given = {path: _paths_within(path, column) for path, column in shards.items()}
    counts = Counter(file for files in given.values() for file in files)
    are_names = max(counts.values(), default=0) == 1 and "" not in counts
    n_lacking = {path: _n_without_bytes(path, column) for path, column in shards.items()}
    in_files = all(n_lacking[path] == len(given[path]) for path in shards)
    parts = []
    places: dict[str, tuple[Path, int]] = {}
    beside: dict[str, Path] = {}
    for path, column in shards.items():
        columns, rows, nested = parquet_texts(path)
        numbered = [f"{names[path]}#{row}" for row in range(len(rows))]
        files = given[path] if in_files or are_names else numbered
        places |= {file: (path, row) for row, file in enumerate(files)}
        if n_lacking[path]:
            for file, name in zip(files, given[path], strict=True):
                base = next((base for base in (path.parent, folder) if _is_file(base, name)), None)
                if base is not None:
                    beside[file] = base / name
        row_names = [f"row {row}" for row in range(1, len(rows) + 1)]
        table = Table(columns, rows, row_names, "Parquet", nested=[name for name in nested if name != column])
        within = [path.stem, *reversed(path.relative_to(folder).parts[:-1])]
        subset = next(filter(None, map(_subset_of, within)), "")
        parts.append(_Part(names[path], table, files, [subset] * len(rows)))
    audio = f"{'named' if in_files else 'held'} by the column {' or '.join(sorted({*shards.values()}))}"
    form = f"a Hugging Face data set, with audio {audio} of {_listed(names.values())}"
    table, notes = _joined(parts, form)
    if not table.rows:
        raise CorpusError(f"the data set {folder.name!r} has no rows; expected one for each clip.")
    notes += _missing_shards(shards)
    about, readme = _about(folder), folder / _README
    if in_files:
        return DataSet(table, [*shards, readme], about, None, notes)
    return DataSet(table, [readme], about, EmbeddedAudio(places, shards, beside), notes)


def _is_file(folder: Path, name: str) -> bool:
    return os.path.isfile(os.path.join(folder, name))  # noqa: PTH113, PTH118 (no error for odd names)


def _missing_shards(shards: Iterable[Path]) -> list[str]:
    """A note about files that belong to a data set by the names of the others, such as ...-of-00003."""
    found: dict[tuple[Path, str, int], set[int]] = {}
    for path in shards:
        if match := _SHARD.search(path.name):
            series = path.parent, path.name[: match.start()], int(match[2])
            found.setdefault(series, set()).add(int(match[1]))
    notes = []
    for (_, name, count), numbers in found.items():
        if missing := sorted(set(range(count)) - numbers):
            notes.append(
                f"Files missing of the {count:,} of {name!r}, with their clips: {len(missing):,}, such as "
                f"{name}-{missing[0]:05}-of-{count:05}.parquet. Fetch them, if the data set is to be whole."
            )
    return notes


def _paths_within(path: Path, column: str) -> Row:
    """The names that the audio column gives its recordings, as a table of labels gives them; "" for none."""
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        if file.schema_arrow.field(column).type.get_field_index("path") < 0:
            return [""] * file.metadata.num_rows
        audio = file.read([f"{column}.path"]).column(column)
    return [
        re.sub(r"^(\.[\\/])+", "", ((value or {}).get("path") or "").strip()) for value in audio.to_pylist()
    ]


def _n_without_bytes(path: Path, column: str) -> int:
    """How many rows of an audio column lack the bytes; at least one where there are no statistics of it."""
    from pyarrow import parquet

    metadata = parquet.read_metadata(path)
    leaf = next(n for n in range(metadata.num_columns) if metadata.schema.column(n).path == f"{column}.bytes")
    statistics = [metadata.row_group(n).column(leaf).statistics for n in range(metadata.num_row_groups)]
    return sum(found.null_count if found and found.has_null_count else 1 for found in statistics)
