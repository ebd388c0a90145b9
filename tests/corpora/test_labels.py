"""Numbers, times, subsets, raters and missing values of a table of labels."""

import math
import unicodedata
from pathlib import Path

import openpyxl
import pandas as pd
import pytest

from valence_lib.corpora.labels import read_labels
from valence_lib.errors import CorpusError

LATIN_1 = "Latin-1 (Windows-1252; it is not UTF-8)"


def read(folder: Path, text: str, columns: dict[str, str] | None = None):
    (folder / "labels.csv").write_text(text, encoding="utf-8")
    return read_labels(folder / "labels.csv", columns or {})


MISSING = ["", "NA", "N/A", "nan", "NaN", "None", "null", "-", " na ", "#N/A", "<NA>", "#NV", ".", "–", "NIL"]


@pytest.mark.parametrize("missing", MISSING)
def test_what_is_missing_is_unrated_and_nobody(tmp_path, missing):
    table = (
        f"file,valence,speaker,sex,part,emotion\na.wav,{missing},{missing},{missing},{missing},{missing}\n"
    )
    (row,) = read(tmp_path, table).rows
    assert (row.rating, row.subset, row.labels) == (None, "", {"speaker": "", "sex": "", "emotion": ""})
    assert row.problem is None


def test_an_unknown_speaker_is_nobody_and_other_labels_may_be_unknown(tmp_path):
    (row,) = read(tmp_path, "file,valence,speaker,emotion\na.wav,3,Unknown,unknown\n").rows
    assert row.labels == {"speaker": "", "emotion": "unknown"}


@pytest.mark.parametrize(
    ("text", "value"),
    [("3", 3), ("3.25", 3.25), ("−1.5", -1.5), ("+2", 2), (".5", 0.5), ("1e-1", 0.1), ('"2,5"', 2.5)],
)
def test_numbers(tmp_path, text, value):
    (row,) = read(tmp_path, f"file,valence\na.wav,{text}\n").rows
    assert row.rating == value


@pytest.mark.parametrize("text", ["three", "1_000", "inf", "3.5.1", "0x3", "１"])
def test_what_is_no_number_costs_its_own_clip(tmp_path, text):
    first, second = read(tmp_path, f"file,valence\na.wav,{text}\nb.wav,2\n").rows
    assert first.problem.reason == "label not a number"
    assert f"the column valence holds '{text}' in line 2; expected a number" in str(first.problem)
    assert (second.rating, second.problem) == (2, None)


def test_a_date_is_explained(tmp_path):
    frame = pd.DataFrame({"file": ["a.wav"], "valence": [pd.Timestamp("2026-05-03")]})
    frame.to_excel(tmp_path / "labels.xlsx", index=False)
    (row,) = read_labels(tmp_path / "labels.xlsx", {}).rows
    assert "A spreadsheet program may have made a date of a number" in str(row.problem)


def test_both_decimal_marks_in_one_column_are_refused(tmp_path):
    with pytest.raises(CorpusError, match=r"has '2\.5' in line 3 and '2,5' in line 2 in the column valence"):
        read(tmp_path, "file;valence\na.wav;2,5\nb.wav;2.5\n")


def test_segments_are_clips_of_their_own(tmp_path):
    text = "file,start,end,valence\na.wav,0,1,3\na.wav,1,2.5,4\na.wav,2.5,,5\nb.wav,,,2\n"
    rows = read(tmp_path, text).rows
    assert [row.id for row in rows] == ["a.wav#t=0,1", "a.wav#t=1,2.5", "a.wav#t=2.5", "b.wav"]
    assert [(row.start, row.end) for row in rows] == [(0, 1), (1, 2.5), (2.5, None), (None, None)]


@pytest.mark.parametrize("start", ["0 days 00:00:01.500000", "00:00:01.5", "1.5", "1.5s", "PT1.5S"])
def test_times_as_durations(tmp_path, start):
    (row,) = read(tmp_path, f"file,start,end,valence\na.wav,{start},2,3\n").rows
    assert row.start == 1.5


def test_times_of_parquet(tmp_path):
    times = pd.to_timedelta([0.25, 1.75], unit="s")
    index = pd.MultiIndex.from_arrays(
        [["a.wav", "a.wav"], times, times + times[0]], names=["file", "start", "end"]
    )
    pd.DataFrame({"valence": [3.0, 4.0]}, index=index).to_parquet(tmp_path / "labels.parquet")
    rows = read_labels(tmp_path / "labels.parquet", {}).rows
    assert [(row.start, row.end, row.rating) for row in rows] == [(0.25, 0.5, 3), (1.75, 2, 4)]


def test_times_with_a_decimal_comma(tmp_path):
    (row,) = read(tmp_path, "file;start;end;valence\na.wav;0:00:00,5;0:01:02,25;3\n").rows
    assert (row.start, row.end) == (0.5, 62.25)


@pytest.mark.parametrize(("start", "message"), [("soon", "expected seconds"), ("-1", "expected 0 or more")])
def test_impossible_times_cost_their_own_clip(tmp_path, start, message):
    first, second = read(tmp_path, f"file,start,end,valence\na.wav,{start},2,3\na.wav,3,4,3\n").rows
    assert first.problem.reason == "segment not a time"
    assert message in str(first.problem)
    assert second.problem is None


@pytest.mark.parametrize("header", ["file,begin,valence", "file,end,valence", "file,stop,valence"])
def test_one_of_start_and_end_alone_is_refused(tmp_path, header):
    with pytest.raises(CorpusError, match="but none for the"):
        read(tmp_path, f"{header}\na.wav,1,3\n")


def test_an_end_needs_its_start(tmp_path):
    first, second = read(tmp_path, "file,start,end,valence\na.wav,,2,3\na.wav,2,3,3\n").rows
    assert str(first.problem) == "line 2 has an end, but no start."
    assert second.problem is None


def test_a_start_without_an_end_is_refused(tmp_path):
    with pytest.raises(CorpusError, match="has a column start, but none for the end"):
        read(tmp_path, "file,start,valence\na.wav,1,3\n")


@pytest.mark.parametrize(
    ("name", "subset"),
    [
        ("train", "train"),
        ("Training", "train"),
        ("dev", "validation"),
        ("val", "validation"),
        ("TEST", "test"),
    ],
)
def test_names_of_subsets(tmp_path, name, subset):
    (row,) = read(tmp_path, f"file,valence,split\na.wav,3,{name}\n").rows
    assert row.subset == subset


def test_unknown_subsets_are_refused(tmp_path):
    with pytest.raises(
        CorpusError, match=r"has 0, 1 in its column split; expected train, validation or test"
    ):
        read(tmp_path, "file,valence,split\na.wav,3,0\nb.wav,3,1\n")
    assert len(read(tmp_path, "file,valence,split\na.wav,3,0\n", {"subset": ""}).rows) == 1


def test_one_row_a_rating_becomes_raters(tmp_path):
    rows = ["a.wav,r10,3,s1,1", "a.wav,r2,4,s1,2", "b.wav,r2,,s2,1", "b.wav,r10,2,s2,1"]
    labels = read(tmp_path, "\n".join(["file,rater,valence,speaker,arousal", *rows]))
    first, second = labels.rows
    assert first.by_rater == {"rating_a1": 4, "rating_a2": 3}
    assert (first.rating, second.rating) == (3.5, 2)
    assert math.isnan(second.by_rater["rating_a1"])
    assert first.labels == {"speaker": "s1"}
    assert labels.notes == [
        "Columns that differ between the rows of one clip are left out: arousal.",
        "The table has one row a rating. The raters are a1 r2, a2 r10.",
    ]


def test_ratings_without_a_name_are_not_those_of_one_person(tmp_path):
    (row,) = read(tmp_path, "file,rater,valence\na.wav,NA,3\n./a.wav,NA,5\na.wav,r1,4\n").rows
    assert (row.rating, row.by_rater) == (4, {"rating_a1": 4})


@pytest.mark.parametrize(
    "rows",
    ["a.wav,r1,3,s1\na.wav,r1,4,s1", "a.wav,r1,3,s1\na.wav,r2,3,s2"],
    ids=["two ratings of a rater", "two speakers"],
)
def test_contradicting_ratings_are_refused(tmp_path, rows):
    with pytest.raises(CorpusError, match=r"contradicts itself about 'a\.wav' in line 2, line 3"):
        read(tmp_path, f"file,rater,valence,speaker\n{rows}\n")


def test_rows_that_repeat_are_left_out_and_rows_that_differ_are_refused(tmp_path):
    labels = read(tmp_path, "file,valence\na.wav,3\nb.wav,2\na.wav,3\n")
    assert [row.file for row in labels.rows] == ["a.wav", "b.wav"]
    assert labels.notes == ["1 rows of the table repeat another one and are left out."]
    with pytest.raises(CorpusError, match=r"describes 'a\.wav' in line 2, line 4, and not in the same way"):
        read(tmp_path, "file,valence\na.wav,3\nb.wav,2\na.wav,4\n")


def test_an_open_quotation_mark_is_refused_with_its_line(tmp_path):
    rows = "".join(f"c{n}.wav,3,{chr(34) if n == 2 else ''}it is so\n" for n in range(6))
    with pytest.raises(CorpusError, match=r"cannot be read from line 4 on: .* A quotation mark"):
        read(tmp_path, f"file,valence,text\n{rows}")
    # Two open marks enclose whole rows between them.
    rows = 'a.wav,3,"so\nb.wav,2,it\nc.wav,4,is"\nd.wav,5,so\n'
    with pytest.raises(
        CorpusError, match=r"in line 2 that encloses 'b\.wav,2,it', which looks like another row"
    ):
        read(tmp_path, f"file,valence,text\n{rows}")
    # Also where they enclose parts of rows.
    with pytest.raises(CorpusError, match="looks like another row"):
        read(tmp_path, 'file,text,valence,speaker\na1.wav,"so,3,s1\na2.wav,so",4,s2\na3.wav,so,4,s2\n')
    labels = read(tmp_path, 'file,valence,text\na.wav,3,"well,\nyes"\n')
    assert labels.rows[0].labels["text"] == "well,\\nyes"


def test_rows_with_other_numbers_of_fields_are_refused_with_their_line(tmp_path):
    with pytest.raises(CorpusError, match=r"has 3 fields in line 3 and 2 in its header, separated by commas"):
        read(tmp_path, "file,valence\na.wav,3\nb.wav,3,5\n")


def test_columns_without_a_name(tmp_path):
    assert len(read(tmp_path, ",file,valence,\n0,a.wav,3,\n1,b.wav,2,\n").rows) == 2
    with pytest.raises(CorpusError, match=r"has 'yes' in line 2 in a column without a name"):
        read(tmp_path, "file,valence,text,\na.wav,3,well, yes\n")


def test_empty_rows_are_skipped(tmp_path):
    rows = read(tmp_path, "file,valence,speaker\n\na.wav,3,s1\n,,\n , , \nb.wav,2,s2\n,,\n").rows
    assert [row.place for row in rows] == ["line 3", "line 6"]


def test_a_row_without_a_file_costs_itself(tmp_path):
    first, second = read(tmp_path, "file,valence\n,3\nb.wav,2\n").rows
    assert (first.problem.reason, str(first.problem)) == ("unreadable", "line 2 names no file.")
    assert second.problem is None


@pytest.mark.parametrize(
    ("content", "form"),
    [
        ("file,valence\nä.wav,3\n".encode(), "CSV in UTF-8, separated by commas"),
        ("file;valence\nä.wav;3,5\n".encode("latin-1"), f"CSV in {LATIN_1}, separated by semicolons"),
        (
            "file,valence\nä.wav,3\n".encode() + b"#,3\n" + "ö.wav,2\n".encode("latin-1"),
            "CSV in UTF-8, but Latin-1 (Windows-1252) in line 4, separated by commas",
        ),
        ("file\tvalence\nä.wav\t3\n".encode("utf-16"), "CSV in UTF-16, separated by tabs"),
        ("sep=|\nfile|valence\nä.wav|3\n".encode(), "CSV in UTF-8, separated by vertical bars"),
        ('{"file": "ä.wav", "valence": 3}\n'.encode(), "JSON lines in UTF-8"),
    ],
)
def test_what_was_detected_is_noted_unless_it_is_plain(tmp_path, content, form):
    (tmp_path / "labels.csv").write_bytes(content)
    labels = read_labels(tmp_path / "labels.csv", {})
    assert labels.form == form
    assert [row.file for row in labels.rows if row.file not in ("#", "ö.wav")] == ["ä.wav"]
    noted = [] if "UTF-8, separated by commas" in form else [f"The table 'labels.csv' was read as {form}."]
    assert labels.notes[:1] == noted
    assert ("If names look wrong" in str(labels.notes)) == ("Latin-1" in form)


def test_one_speaker_in_several_spellings(tmp_path):
    names = ["Zoë", unicodedata.normalize("NFD", "Zoë"), "A  B", "A B", "7", "7.0", "s1", "S1"]
    rows = "".join(f"{n}.wav,{1 + n % 4},{name}\n" for n, name in enumerate(names))
    labels = read(tmp_path, f"file,valence,speaker\n{rows}")
    assert [row.labels["speaker"] for row in labels.rows] == [
        "Zoë",
        "Zoë",
        "A B",
        "A B",
        "7",
        "7",
        "s1",
        "S1",
    ]
    assert labels.notes == ["Speakers that differ in case alone count as different people: S1 and s1."]


def test_ratings_of_which_many_are_no_numbers_are_refused(tmp_path):
    rows = "".join(f"{n}.wav,{('1 - negative', '2', '3', '4', '5 - positive')[n % 5]}\n" for n in range(20))
    with pytest.raises(
        CorpusError, match=r"has 8 ratings that are no numbers, such as: .* '1 - negative' in lin"
    ):
        read(tmp_path, f"file,valence\n{rows}")


def test_subsets_under_another_name_and_rows_without_one_are_noted(tmp_path):
    (note,) = read(tmp_path, "file,valence,usage\na.wav,1,train\nb.wav,2,test\n").notes
    assert "'usage' holds train and test, but is not used: did you mean subset? COLUMNS=subset=usage" in note
    labels = read(tmp_path, "file,valence,subset\na.wav,1,train\nb.wav,2,test\nc.wav,2,\n")
    assert labels.notes == ["1 of 3 rows name no subset; these clips are used for training, or split."]


def test_merged_cells_hold_one_value_and_formulas_need_a_result(tmp_path):
    book = openpyxl.Workbook()
    for row in (["file", "valence", "speaker"], ["a.wav", 1, "s1"], ["b.wav", 2, None], ["c.wav", 3, "s2"]):
        book.active.append(row)
    book.active.merge_cells("C2:C3")
    book.save(tmp_path / "labels.xlsx")
    rows = read_labels(tmp_path / "labels.xlsx", {}).rows
    assert [row.labels["speaker"] for row in rows] == ["s1", "s1", "s2"]
    book.active["B4"] = "=1+2"
    book.save(tmp_path / "labels.xlsx")
    with pytest.raises(CorpusError, match="has a formula without a result in cell B4; open and save it"):
        read_labels(tmp_path / "labels.xlsx", {})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<!DOCTYPE html><html></html>", "is an HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a Git LFS pointer"),
        (b"PK\x03\x04 no workbook", "cannot be read as an Excel workbook: it is a zip archive"),
    ],
)
def test_what_is_no_table_is_called_what_it_is(tmp_path, content, message):
    (tmp_path / "labels.csv").write_bytes(content)
    with pytest.raises(CorpusError, match=message):
        read_labels(tmp_path / "labels.csv", {})


def test_names_of_rows_as_r_writes_them(tmp_path):
    rows = read(tmp_path, "file\tvalence\n1\ta.wav\t3\n2\tb.wav\t2\n").rows
    assert [(row.file, row.rating) for row in rows] == [("a.wav", 3), ("b.wav", 2)]


def test_the_sheet_with_labels_is_found(tmp_path):
    with pd.ExcelWriter(tmp_path / "labels.xlsx") as book:
        pd.DataFrame({"speaker": ["s1"], "age": [30]}).to_excel(book, sheet_name="people", index=False)
        pd.DataFrame({"file": ["a.wav"], "valence": [2.5]}).to_excel(book, sheet_name="ratings", index=False)
    labels = read_labels(tmp_path / "labels.xlsx", {})
    assert (labels.form, labels.rows[0].rating) == ("Excel, sheet 'ratings'", 2.5)
    with pd.ExcelWriter(tmp_path / "labels.xlsx", mode="a") as book:
        pd.DataFrame({"file": ["a.wav"], "valence": [4]}).to_excel(book, sheet_name="second", index=False)
    with pytest.raises(CorpusError, match="has the sheets 'ratings', 'second'; expected one with labels"):
        read_labels(tmp_path / "labels.xlsx", {})


def test_sexes_in_several_spellings_become_one(tmp_path):
    labels = read(tmp_path, "file,valence,sex\na.wav,3,F\nb.wav,2,female\nc.wav,2,Male\nd.wav,2,other\n")
    assert [row.labels["sex"] for row in labels.rows] == ["F", "F", "M", "other"]
    assert labels.notes == ["The sexes F, Male, female are read as F and M."]
    labels = read(tmp_path, "file,valence,sex\na.wav,3,male\nb.wav,2,female\n")
    assert ([row.labels["sex"] for row in labels.rows], labels.notes) == (["male", "female"], [])


def test_a_message_ends_with_one_full_stop(tmp_path):
    rows = "".join(f"{n}.wav,high\n" for n in range(5))
    with pytest.raises(CorpusError, match=r"expected a number\.$"):
        read(tmp_path, f"file,valence\n{rows}")
