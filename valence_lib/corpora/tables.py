"""Read a table of labels as texts, whichever program wrote it.

    text ─ decode ─► strict csv, or JSON lines ─┐
    .xlsx ─ openpyxl, .parquet ─ pyarrow ───────┴─► Table

What can be read in one way is read; what can be read in two ways is refused, with its line.
"""

import codecs
import csv
import io
import json
import math
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np

from valence_lib.corpora.file_kinds import describe
from valence_lib.errors import CorpusError

TABLE_SUFFIXES = (".csv", ".tsv", ".tab", ".xlsx", ".xlsm", ".parquet", ".jsonl", ".ndjson")
PLAIN = "CSV in UTF-8, separated by commas"  # the form that needs no remark
_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
# UTF-32 first: its mark begins with that of UTF-16.
_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
    codecs.BOM_UTF8: "UTF-8-SIG",
}
_SEPARATOR_LINE = re.compile(r"\s*\"?sep=(.)\"?\s*", re.IGNORECASE)  # as Excel reads and writes it

_PARQUET = b"PAR1"  # the first bytes of such a file

_MOST_LINES = 5  # that are listed

Row = list[str]


@dataclass(frozen=True)
class Table:
    """A table as texts without surrounding spaces; an empty cell is "".

    Args:
        columns: the header, as many texts as each row has.
        rows: without empty ones.
        places: where each row is in its file, such as "line 7".
        form: how the file was read, such as "CSV in UTF-8, separated by commas".
        delimiter: of a text table; "" for others.
        nested: columns that are left out, because they hold lists, structs or bytes.
    """

    columns: Row
    rows: list[Row]
    places: list[str]
    form: str
    delimiter: str = ""
    nested: Row = field(default_factory=list)


def read_table(path: Path, is_header: Callable[[Sequence[str]], bool]) -> Table:
    """Read a table: CSV with any usual separator and encoding, Excel (.xlsx), Parquet or JSON lines.

    Args:
        path: of the table. The content decides what it is, not the suffix.
        is_header: whether some columns are those of the table that is looked for; chooses the Excel sheet.

    Raises:
        CorpusError: the file cannot be read, or could be read in two ways.
    """
    if is_parquet(path):
        return _from_parquet(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CorpusError(f"the table {path} cannot be read: {error.strerror}.") from error
    if content.startswith(b"PK"):
        return _from_excel(content, path, is_header)
    kind = describe(path)
    if content and kind and not kind.startswith("a text file"):
        raise _refusal(path, f"is {kind}; expected CSV, Excel (.xlsx), Parquet or JSON lines")
    text, encoding = _decoded(content, path)
    if text.lstrip().startswith(("{", "[")):
        return _from_json_lines(text, encoding, path)
    return _from_text(text, encoding, path)


def _refusal(path: Path, what: str) -> CorpusError:
    return CorpusError(f"the table {path.name!r} {what}.")


def _decoded(content: bytes, path: Path) -> tuple[str, str]:
    """The text of a file, and the name of its encoding."""
    encoding = next((name for mark, name in _MARKS.items() if content.startswith(mark)), "UTF-8")
    beginning = content[:4096]
    if encoding == "UTF-8" and b"\0" in beginning:
        # Every second byte of Latin text in UTF-16 is zero.
        in_second_place = beginning[1::2].count(0) > beginning[::2].count(0)
        encoding = "UTF-16-LE" if in_second_place else "UTF-16-BE"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding != "UTF-8":
            raise _refusal(path, f"begins as {encoding}, but is damaged at byte {error.start}") from error
        text, encoding = _partly_latin_1(content)
    if "\0" in text:
        raise _refusal(path, "is no text; expected CSV, Excel (.xlsx), Parquet or JSON lines")
    return text.removeprefix("\ufeff"), encoding.removesuffix("-SIG")


def _partly_latin_1(content: bytes) -> tuple[str, str]:
    """Text of which not all lines are UTF-8: the others are read as Latin-1, with Windows' additions."""
    lines, others = [], []
    for number, line in enumerate(content.split(b"\n"), 1):
        try:
            lines.append(line.decode("utf-8"))
        except UnicodeDecodeError:
            others.append(number)
            try:
                lines.append(line.decode("windows-1252"))
            except UnicodeDecodeError:
                lines.append(line.decode("latin-1"))
    text = "\n".join(lines)
    in_utf_8 = set(range(1, len(lines) + 1)).difference(others)
    if all(lines[number - 1].isascii() for number in in_utf_8):
        return text, "Latin-1 (Windows-1252; it is not UTF-8)"
    shown = ", ".join(map(str, others[:_MOST_LINES])) + ", ..." * (len(others) > _MOST_LINES)
    return text, f"UTF-8, but Latin-1 (Windows-1252) in line {shown}"


# Text with separators


def _from_text(text: str, encoding: str, path: Path) -> Table:
    first_line, *rest = re.split("\r\n|\r|\n", text, maxsplit=1)
    if given := _SEPARATOR_LINE.fullmatch(first_line):
        delimiter, text, skipped = given[1], "".join(rest), 1
    else:
        delimiter, skipped = _delimiter(text, path), 0
    records = list(_records(text, delimiter, skipped, path))
    if len(records) < 2:
        raise _refusal(path, "is empty; expected a header and a row for each clip")
    _, header = records.pop(0)
    if all(len(record) == len(header) + 1 for _, record in records):
        header.insert(0, "")  # R writes the names of the rows without a header
    rows: list[Row] = []
    for line, record in records:
        n_fields = len(record)
        while len(record) > len(header) and not record[-1]:
            record.pop()
        if len(record) != len(header):
            name = _DELIMITERS.get(delimiter, repr(delimiter))
            raise _refusal(
                path,
                f"has {n_fields} fields in line {line} and {len(header)} in its header, separated by {name}. "
                'Put a text that holds the separator, or a decimal comma, into quotation marks ("), and '
                "give every row all fields",
            )
        rows.append(record)
    form = f"CSV in {encoding}, separated by {_DELIMITERS.get(delimiter, repr(delimiter))}"
    return Table(header, rows, [f"line {line}" for line, _ in records], form, delimiter)


def _delimiter(text: str, path: Path) -> str:
    """The separator that divides the header into most columns."""
    counts = {}
    for delimiter in _DELIMITERS:
        try:
            _, header = next(_records(text, delimiter, 0, path))
        except (CorpusError, StopIteration):
            continue
        counts[delimiter] = len(header)
    most = max(counts.values(), default=1)
    if most == 1:
        return ","
    best = [delimiter for delimiter, count in counts.items() if count == most]
    if len(best) > 1:
        names = " or ".join(_DELIMITERS[delimiter] for delimiter in best)
        raise _refusal(path, f"can be read as separated by {names}; write sep=, (or ;) as its first line")
    return best[0]


def _records(text: str, delimiter: str, skipped: int, path: Path) -> Iterator[tuple[int, Row]]:
    """The records of a text that are not empty, each with the line at which it begins."""
    file = io.StringIO(text, newline="")
    reader = csv.reader(file, delimiter=delimiter, strict=True, skipinitialspace=delimiter != " ")
    while True:
        line = skipped + reader.line_num + 1
        try:
            record = [field.strip().lstrip("\ufeff") for field in next(reader)]
        except StopIteration:
            return
        except csv.Error as error:
            raise _refusal(
                path,
                f"cannot be read from line {line} on: {error}. A quotation mark that does not enclose a "
                'whole field is the usual cause: remove it, or write it twice ("") inside an enclosed field',
            ) from error
        if any(record):
            yield line, record


# JSON lines


def _from_json_lines(text: str, encoding: str, path: Path) -> Table:
    if text.lstrip().startswith("["):
        objects = _parsed(text, "", path)
        found = [(f"entry {number}", entry) for number, entry in enumerate(objects, 1)]
    else:
        lines = [(f"line {number}", line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
        found = [(place, _parsed(line, f" in {place}", path)) for place, line in lines]
    if stranger := next((place for place, entry in found if not isinstance(entry, dict)), None):
        raise _refusal(path, f"holds no JSON object in {stranger}; expected one for each clip")
    columns = list(dict.fromkeys(name for _, entry in found for name in entry))
    values = [[entry.get(name) for name in columns] for _, entry in found]
    return _from_values(columns, values, [place for place, _ in found], f"JSON lines in {encoding}", path)


def _parsed(text: str, place: str, path: Path) -> Any:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) < len(pairs):
            raise _refusal(path, f"holds an object with a key that occurs twice{place}")
        return dict(pairs)

    try:
        return json.loads(text, object_pairs_hook=unique)
    except ValueError as error:
        raise _refusal(path, f"cannot be read as JSON{place}: {error}") from error


# Tables with types


def is_parquet(path: Path) -> bool:
    """Whether a file begins as a Parquet file does; not so where it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(len(_PARQUET)) == _PARQUET
    except OSError:
        return False


def _from_parquet(path: Path) -> Table:
    columns, rows, nested = parquet_texts(path)
    places = [f"row {number}" for number in range(1, len(rows) + 1)]
    return _without_empty_rows(columns, rows, places, "Parquet", nested, path)


def parquet_schema(path: Path) -> Any:
    """The columns of a Parquet file, a `pyarrow.Schema`.

    Raises:
        CorpusError: it is no Parquet file, or a part of one.
    """
    import pyarrow
    from pyarrow import parquet

    try:
        return parquet.read_schema(path)
    except (pyarrow.ArrowException, OSError) as error:
        if (kind := describe(path)) and not is_parquet(path):
            raise _refusal(path, f"is {kind}; expected a Parquet file") from error
        what = f"cannot be read as Parquet ({error}); if it is truncated, fetch it again"
        raise _refusal(path, what) from error


def parquet_texts(path: Path) -> tuple[Row, list[Row], Row]:
    """All rows of a Parquet file as texts, empty ones among them.

    Columns of lists, structs and bytes are not read: they may hold gigabytes of audio. Where the library
    `datasets` wrote the file, classes that are stored as numbers are given by their names.

    Returns:
        The columns' names, the rows, and the names of the columns that are not read.

    Raises:
        CorpusError: the file cannot be read.
    """
    import pyarrow
    from pyarrow import parquet, types

    schema = parquet_schema(path)
    is_left_out = (
        types.is_nested,
        types.is_binary,
        types.is_large_binary,
        types.is_fixed_size_binary,
        types.is_binary_view,
    )
    nested = [column.name for column in schema if any(kind(column.type) for kind in is_left_out)]
    try:
        with parquet.ParquetFile(path) as file:
            frame = file.read([name for name in schema.names if name not in nested]).to_pandas()
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise _refusal(path, f"cannot be read as Parquet: {error}") from error
    if any(name is not None for name in frame.index.names):
        frame = frame.reset_index()  # as audformat stores file, start and end
    columns = list(map(str, frame.columns))
    features = dataset_features(schema.metadata)
    texts = []
    for column, (_, series) in zip(columns, frame.items(), strict=True):
        # As an object, a number of single precision would get digits that it does not have.
        values = series.to_numpy() if series.dtype.kind == "f" else series.astype(object)
        names = features.get(column, {}).get("names")
        texts.append([_class_name(value, names) for value in values])
    rows = [list(row) for row in zip(*texts, strict=True)] if texts else [[] for _ in range(len(frame))]
    return columns, rows, nested


def dataset_features(metadata: Mapping[bytes, bytes] | None) -> dict[str, dict[str, Any]]:
    """The columns of a Parquet file as the library `datasets` describes them in its metadata; else none.

    Source: https://huggingface.co/docs/datasets/about_dataset_features
    """
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
        return {name: feature for name, feature in features.items() if isinstance(feature, dict)}
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}


def _class_name(value: Any, names: Sequence[str] | None) -> str:
    """A value as text: the name of a class where the column has classes, of which -1 marks a missing one."""
    text = cell_text(value)
    if names and text == "-1":
        return ""
    return str(names[int(text)]) if names and text.isdecimal() and int(text) < len(names) else text


def _from_excel(content: bytes, path: Path, is_header: Callable[[Sequence[str]], bool]) -> Table:
    import openpyxl

    try:
        book = openpyxl.load_workbook(io.BytesIO(content))
        if any(cell.data_type == "f" for sheet in book.worksheets for row in sheet for cell in row):
            formulas, book = book, openpyxl.load_workbook(io.BytesIO(content), data_only=True)
            _check_formulas(formulas, book, path)
    except (KeyError, ValueError, OSError, zipfile.BadZipFile) as error:
        what = describe(path) or f"damaged ({error})"
        raise _refusal(path, f"cannot be read as an Excel workbook: it is {what}") from error
    found: dict[str, tuple[Row, list[list[Any]], list[str]]] = {}
    for sheet in book.worksheets:
        grid = [list(row) for row in sheet.values]
        for merged in sheet.merged_cells.ranges:  # one value for several rows, such as a speaker's
            for row, column in merged.cells:
                grid[row - 1][column - 1] = grid[merged.min_row - 1][merged.min_col - 1]
        rows = [(f"row {number}", row) for number, row in enumerate(grid, 1) if any(map(cell_text, row))]
        if rows:
            (_, header), *others = rows
            columns = [cell_text(value) for value in header]
            found[sheet.title] = columns, [row for _, row in others], [place for place, _ in others]
    fitting = [name for name, (columns, *_) in found.items() if is_header(columns)] or list(found)
    if len(fitting) != 1:
        names = ", ".join(map(repr, fitting)) or "none that holds anything"
        raise _refusal(path, f"has the sheets {names}; expected one with labels. Save that one as a file")
    return _from_values(*found[fitting[0]], f"Excel, sheet {fitting[0]!r}", path)


def _check_formulas(formulas: Any, values: Any, path: Path) -> None:
    """Refuse formulas whose results are not stored, as in workbooks that no spreadsheet program has saved."""
    for sheet in formulas.worksheets:
        for row in sheet:
            for cell in row:
                if cell.data_type == "f" and values[sheet.title][cell.coordinate].value is None:
                    raise _refusal(
                        path,
                        f"has a formula without a result in cell {cell.coordinate}; open and save it in a "
                        "spreadsheet program, or write the values",
                    )


def _from_values(
    columns: Sequence[str], values: Sequence[Sequence[Any]], places: Sequence[str], form: str, path: Path
) -> Table:
    nested = (dict, list, tuple, bytes, np.ndarray)
    kept = [n for n in range(len(columns)) if not any(isinstance(row[n], nested) for row in values)]
    left_out = [str(name) for n, name in enumerate(columns) if n not in kept]
    rows = [[cell_text(row[n]) for n in kept] for row in values]
    return _without_empty_rows([cell_text(columns[n]) for n in kept], rows, places, form, left_out, path)


def _without_empty_rows(
    columns: Row, rows: Sequence[Row], places: Sequence[str], form: str, nested: Row, path: Path
) -> Table:
    filled = [n for n, row in enumerate(rows) if any(row)]
    if not filled:
        raise _refusal(path, "is empty; expected a row for each clip")
    return Table(columns, [rows[n] for n in filled], [places[n] for n in filled], form, nested=nested)


def cell_text(value: Any) -> str:
    """A value as it would be written into a CSV; "" where it is missing."""
    if value is None or type(value).__name__ in ("NaTType", "NAType"):
        return ""
    if isinstance(value, timedelta):
        return repr(value.total_seconds())
    if isinstance(value, float | np.floating):
        if math.isnan(value):
            return ""
        # Integers with gaps become floats in pandas: a speaker 7 is not named "7.0".
        return str(int(value)) if math.isfinite(value) and value == int(value) else str(value)
    return str(value).strip()
