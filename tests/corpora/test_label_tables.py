"""Any way of writing a table gives the same clips, or an error that names its cause."""

import csv
import io
import json
import math
import os
import unicodedata
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, assume, event, given, reject, settings
from hypothesis import strategies as st

from valence_lib.corpora.file_kinds import printable
from valence_lib.corpora.labels import read_labels
from valence_lib.errors import CorpusError

# 100,000 once: VALENCE_EXAMPLES=100000 pytest tests/corpora/test_label_tables.py
EXAMPLES = int(os.environ.get("VALENCE_EXAMPLES", "300"))
MARKS = ["", "NA", "N/A", "nan", "NaN", "None", "null", "-"]
HEADERS = {
    "file": ["file", "File", "path", "filename", "file_name", "FileName", " file "],
    "valence": ["valence", "Valence", "VALENCE "],
    "speaker": ["speaker", "Speaker", "speaker_id", "SpkrID"],
    "subset": ["split", "part", "subset", "Partition"],
}
SUBSETS = {
    "train": ["train", "Train", "training"],
    "validation": ["dev", "valid", "val", "validation", "Development"],
    "test": ["test", "TEST"],
    "": MARKS,
}
FAULTS = [
    "open quotation mark",
    "column twice",
    "field too many",
    "field too few",
    "cut off",
    "both decimal marks",
]

# Names that no program would take for a missing one, without spaces at the ends, which every reader drops.
_letters = st.characters(exclude_categories=("Cs", "Cc"))
_anything = st.one_of(_letters, st.sampled_from("\n,;\t|\"'=$<>{}`\\"))
names = (
    st.text(_anything, min_size=1, max_size=12)
    .map(lambda text: f"c{text}z.wav")
    .filter(lambda text: "\0" not in text)
)
speakers = st.text(_letters, max_size=6).map(lambda text: f"S{text}s") | st.just("")
ratings = st.none() | st.integers(100, 500).map(lambda value: value / 100)
clips = st.lists(
    st.tuples(names, ratings, speakers, st.sampled_from(list(SUBSETS))),
    min_size=1,
    max_size=6,
    unique_by=lambda clip: clip[0],
)


@dataclass(frozen=True)
class Writing:
    """How a table is written."""

    format: str
    columns: tuple[tuple[str, str], ...]  # meaning and header, in their order
    delimiter: str
    encoding: str
    decimal: str
    quoting: int
    line_end: str
    mark: str
    separator_line: bool
    empty_rows: bool
    empty_column: bool


@st.composite
def writings(draw: st.DrawFn) -> Writing:
    columns = [(meaning, draw(st.sampled_from(headers))) for meaning, headers in HEADERS.items()]
    delimiter = draw(st.sampled_from(",;\t|"))
    return Writing(
        draw(st.sampled_from(["csv", "csv", "csv", "csv", "jsonl", "xlsx", "parquet"])),
        tuple(draw(st.permutations(columns))),
        delimiter,
        draw(
            st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1"])
        ),
        draw(st.sampled_from(".,")),
        draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])),
        draw(st.sampled_from(["\n", "\r\n"])),
        draw(st.sampled_from(MARKS)),
        draw(st.booleans()),
        draw(st.booleans()),
        draw(st.booleans()),
    )


def write(rows: list[list[str | float | None]], way: Writing, folder: Path) -> Path:
    """Write a header and rows; numbers are floats, and what is missing is None."""
    path = folder / f"labels.{way.format}"
    header, *others = rows
    if way.format in ("xlsx", "parquet"):
        frame = pd.DataFrame(others, columns=header)
        frame.to_excel(path, index=False) if way.format == "xlsx" else frame.to_parquet(path, index=False)
        return path
    if way.format == "jsonl":
        lines = (json.dumps(dict(zip(header, row, strict=True)), ensure_ascii=False) for row in others)
        path.write_bytes("\n".join(lines).encode(way.encoding))
        return path
    file = io.StringIO(newline="")
    writer = csv.writer(file, delimiter=way.delimiter, quoting=way.quoting, lineterminator=way.line_end)
    if way.separator_line:
        file.write(f"sep={way.delimiter}{way.line_end}")
    extra = [""] if way.empty_column else []
    for row in rows:
        texts = [way.mark if cell is None else str(cell) for cell in row]
        numbers = [isinstance(cell, float) for cell in row]
        pairs = zip(texts, numbers, strict=True)
        writer.writerow(
            [text.replace(".", way.decimal) if number else text for text, number in pairs] + extra
        )
        if way.empty_rows:
            writer.writerow([""] * len(row) + extra)
    path.write_bytes(file.getvalue().encode(way.encoding))
    return path


def rows_of(found: list[tuple], way: Writing, draw_subset: dict[str, str]) -> list[list[str | float | None]]:
    values = [
        {
            "file": name,
            "valence": rating,
            "speaker": speaker or None,
            "subset": draw_subset[subset] if subset else None,
        }
        for name, rating, speaker, subset in found
    ]
    header: list[str | float | None] = [header for _, header in way.columns]
    return [header, *([value[meaning] for meaning, _ in way.columns] for value in values)]


def read(path: Path) -> list[tuple]:
    return [
        (row.file, row.rating, row.labels["speaker"], row.subset)
        for row in read_labels(path, {}).rows
        if row.problem is None
    ]


def person(speaker: str) -> str:
    """A speaker's name as it is compared."""
    return printable(" ".join(unicodedata.normalize("NFC", speaker).split()))


def is_utf_8(content: bytes) -> bool:
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


subset_words = st.fixed_dictionaries({name: st.sampled_from(words) for name, words in SUBSETS.items()})
quick = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    derandomize="VALENCE_EXAMPLES" not in os.environ,
)


@quick
@given(clips, writings(), subset_words)
def test_every_way_of_writing_gives_the_same_clips(tmp_path, found, way, words):
    try:
        path = write(rows_of(found, way, words), way, tmp_path)
    except UnicodeEncodeError:  # Latin-1 lacks the letter
        reject()
    if way.encoding == "latin-1":  # "Â" before a no-break space is also one character in UTF-8
        assume(path.read_bytes().isascii() or not is_utf_8(path.read_bytes()))
    try:
        read_back = read(path)
    except CorpusError as error:
        # Only what could be another row, or another encoding, is refused.
        assert "looks like another row" in str(error) or way.encoding.startswith("utf-16-")
        event("refused")
        return
    expected = [(name, rating, person(speaker), subset) for name, rating, speaker, subset in found]
    if way.format == "xlsx":  # a workbook has one kind of line break
        expected = [(name.replace("\r\n", "\n"), *rest) for name, *rest in expected]
    assert read_back == expected
    event(way.format)


@quick
@given(clips, writings(), subset_words, st.sampled_from(FAULTS), st.data())
def test_a_damaged_table_is_refused_or_read_as_it_was(tmp_path, found, way, words, fault, data):
    assume(way.format == "csv" and not way.encoding.startswith("utf-16-"))
    rows = rows_of(found, way, words)
    number = data.draw(st.integers(1, len(rows) - 1))
    if fault == "column twice":
        position = data.draw(st.integers(0, len(way.columns) - 1))
        rows = [[*row, row[position]] for row in rows]
    elif fault == "field too many":
        rows[number] = [*rows[number], "more"]
    elif fault == "field too few":
        rows[number] = rows[number][:-1]
    elif fault == "both decimal marks":
        column = [meaning for meaning, _ in way.columns].index("valence")
        rows[number][column] = 2.5
        rows.append([*rows[number]])
        rows[-1][column] = "2.5" if way.decimal == "," else "2,5"
        rows[-1][[meaning for meaning, _ in way.columns].index("file")] = "another.wav"
    try:
        path = write(rows, way, tmp_path)
    except UnicodeEncodeError:
        reject()
    content = path.read_bytes()
    if fault == "cut off":
        content = content[: data.draw(st.integers(0, len(content)))]
    if fault == "open quotation mark":
        text = content.decode(way.encoding)
        lines = text.split(way.line_end)
        at = data.draw(st.integers(0, len(lines) - 1))
        lines[at] = f'"{lines[at]}'
        content = way.line_end.join(lines).encode(way.encoding)
    path.write_bytes(content)
    try:
        read_back = read(path)
    except CorpusError as error:
        assert path.name in str(error) or "COLUMNS" in str(error)
        event(f"{fault}: refused")
        return
    event(f"{fault}: read")
    expected = {(name, rating, person(speaker), subset) for name, rating, speaker, subset in found}
    expected |= {("another.wav", 2.5, *row[2:]) for row in expected}
    if fault == "cut off":  # whole rows may be missing; the last one may be cut within its last field
        assert len(set(read_back) - expected) <= 1
    else:
        assert set(read_back) <= expected


def test_a_rating_is_not_lost_in_any_format(tmp_path):
    frame = pd.DataFrame({"file": ["a.wav", "b.wav"], "valence": [3.25, math.nan], "speaker": [1, 2]})
    frame.to_csv(tmp_path / "labels.csv", index=False)
    frame.to_excel(tmp_path / "labels.xlsx", index=False)
    frame.astype({"valence": "float32"}).to_parquet(tmp_path / "labels.parquet")
    frame.to_json(tmp_path / "labels.jsonl", orient="records", lines=True)
    for path in sorted(tmp_path.iterdir()):
        assert read(path) == [("a.wav", 3.25, "1", ""), ("b.wav", None, "2", "")], path.name


@pytest.mark.parametrize(
    "content", [b"", b"\n\n", b"file,valence\n", b"\x00\x01\x02" * 99, b"PK\x03\x04", b"PAR1"]
)
def test_what_is_no_table_is_refused(tmp_path, content):
    (tmp_path / "labels.csv").write_bytes(content)
    with pytest.raises(CorpusError, match=r"labels\.csv"):
        read(tmp_path / "labels.csv")
