"""Records, the archive of earlier results, and `valence verify`."""

import json
import os

import pytest

from valence_lib import records, verifying
from valence_lib.errors import RunError
from valence_lib.files import write_json
from valence_lib.records import (
    Record,
    digests_of,
    files_left,
    keep,
    kept,
    load_record,
    load_records,
    record_path,
    restore,
)
from valence_lib.verifying import verify_report

MADE_OF = {"program": "notebooks/3_compare.ipynb", "code": "c", "text": "t", "parameters": {"seed": 0}}


@pytest.fixture
def report(tmp_path):
    """A report with one job that left two files and a folder, and its record."""
    folder = tmp_path / "reports" / "one"
    (folder / "runs" / "a").mkdir(parents=True)
    for name in ("results.json", "runs/a/best.safetensors", "runs/a/seconds.json"):
        (folder / name).write_text(f"content of {name}")
    (folder / "runs" / "a" / ".hidden.partial").touch()
    (folder / "runs" / "a" / "x.failed.ipynb").touch()
    return folder


def leaves(report):
    return [report / "results.json", report / "runs" / "a", report / "not-made.csv"]


@pytest.fixture
def record(report):
    names = files_left(report, leaves(report))
    made = Record(MADE_OF, {"notebooks/x.bib": "d"}, digests_of(report, names), {"threads": 1})
    made.save(record_path(report, "compare"))
    keep(report, made, names)
    return made


def test_what_is_left_is_files_and_all_in_folders_but_what_is_hidden_or_failed(report):
    expected = ["results.json", "runs/a/best.safetensors", "runs/a/seconds.json"]
    assert files_left(report, leaves(report)) == expected
    # What a clock measured has no digest.
    assert list(digests_of(report, expected)) == expected[:2]


def test_a_record_is_read_as_it_was_written(report, record):
    assert load_record(record_path(report, "compare")) == record
    assert json.loads(record_path(report, "compare").read_text())["key"] == record.key
    assert load_records(report, ["compare"]) == {"compare": record}
    with pytest.raises(RunError, match="no record of the job 'report'"):
        load_records(report, ["report"])


@pytest.mark.parametrize("content", ["", "{}", "[]", "no JSON"])
def test_a_record_that_cannot_be_read_is_none(tmp_path, content):
    (tmp_path / "x.json").write_text(content)
    assert load_record(tmp_path / "x.json") is None
    assert load_record(tmp_path / "absent.json") is None


def test_the_key_is_of_all_that_decides_and_of_no_text(record):
    def key(**changes):
        return Record({**MADE_OF, **changes}, record.reads, {}, {}).key

    assert key() == key(text="other") == record.key
    assert len({key(), key(code="d"), key(parameters={"seed": 1}), key(python="3.12")}) == 4
    assert Record(MADE_OF, {"notebooks/x.bib": "e"}, {}, {}).key != key()


def test_what_changed_is_named(report, record):
    assert record.changed(report) == []
    (report / "results.json").write_text("other")
    (report / "runs" / "a" / "best.safetensors").unlink()
    assert record.changed(report) == ["results.json", "runs/a/best.safetensors"]


def test_results_are_restored_and_nothing_else_is_left_beside_them(report, record):
    first = {p.name: p.read_text() for p in report.rglob("*") if p.is_file() and not p.name.startswith(".")}
    (report / "results.json").write_text("of other code")
    (report / "runs" / "a" / "more.csv").write_text("of other code")
    assert restore(report, record.key, leaves(report)) == record
    assert not (report / "runs" / "a" / "more.csv").exists()
    assert {
        p.name: p.read_text() for p in report.rglob("*") if p.is_file() and not p.name.startswith(".")
    } == first


def test_what_the_archive_does_not_have_is_not_restored(report, record):
    assert restore(report, "0" * 64, leaves(report)) is None
    assert kept(report, "0" * 64) is None


def test_a_damaged_entry_of_the_archive_is_not_restored_and_goes(report, record):
    entry = report.parent / records.ARCHIVE_FOLDER / record.key
    (entry / "files" / "results.json").write_text("damaged")
    (report / "results.json").write_text("of other code")
    assert restore(report, record.key, leaves(report)) is None
    assert (report / "results.json").read_text() == "of other code"
    assert not entry.exists()


def test_the_archive_keeps_what_was_used_last(report, record, monkeypatch):
    names = files_left(report, leaves(report))
    archive = report.parent / records.ARCHIVE_FOLDER
    size = sum(path.stat().st_size for path in (archive / record.key).rglob("*") if path.is_file())
    monkeypatch.setattr(records, "_ARCHIVE_BYTES", 2.5 * size)  # two entries and not three
    second, third = (Record({**MADE_OF, "code": code}, {}, record.leaves, {}) for code in "de")
    keep(report, second, names)
    assert kept(report, record.key)
    assert kept(report, second.key)
    os.utime(archive / second.key, ns=(1, 1))
    assert restore(report, record.key, leaves(report)) == record
    keep(report, third, names)
    assert [kept(report, made.key) is not None for made in (record, second, third)] == [True, False, True]
    assert not list(archive.glob("*.partial*"))


@pytest.fixture
def request_file(report, record, monkeypatch):
    monkeypatch.setattr(verifying, "project_root", lambda: report.parent.parent)
    job = {"name": "compare", "program": "notebooks/3_compare.ipynb", "main": "results.json"}
    write_json(report / "request.json", {"jobs": {"compare": {"job": job, "made_of": MADE_OF}}})
    (report.parent.parent / "notebooks").mkdir()
    source = report.parent.parent / "notebooks" / "x.bib"
    source.write_text("read")
    made = Record(MADE_OF, {"notebooks/x.bib": records.digest_of(source)}, record.leaves, record.environment)
    made.save(record_path(report, "compare"))
    return source


def test_a_report_as_it_was_made_is_verified(report, request_file, capsys):
    assert verify_report(report) == 0
    said = capsys.readouterr().out
    # Its notebook is not there, and the file without a job is nobody's: both are said, and are no fault.
    assert "compare: the project has changed since it was made" in said
    assert "2 artefacts of 1 jobs in" in said
    assert "0 faults, 1 remarks" in said
    (report / "tables").mkdir()
    (report / "tables" / "table-9.csv").touch()
    assert verify_report(report) == 0
    assert "tables/table-9.csv: no job left it" in capsys.readouterr().out


def test_the_records_of_all_jobs_count_not_only_those_of_the_last_request(report, request_file, capsys):
    made = load_record(record_path(report, "compare"))
    made.save(record_path(report, "CNN-default-0"))
    (report / "results.json").write_text("x")
    assert verify_report(report) == 1
    assert "CNN-default-0: results.json is not what it left" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda r, s: (r / "results.json").write_text("x"), "compare: results.json is not what it left"),
        (lambda r, s: (r / "results.json").unlink(), "compare: results.json is gone"),
        (lambda r, s: s.write_text("x"), "compare: read another notebooks/x.bib than the one that is there"),
        (lambda r, s: record_path(r, "compare").unlink(), "compare: has no record"),
        (
            lambda r, s: record_path(r, "compare").write_text(
                record_path(r, "compare").read_text().replace('"seed": 0', '"seed": 1')
            ),
            "the key is not the digest",
        ),
    ],
)
def test_whatever_is_not_as_the_record_says_is_named(report, request_file, capsys, spoil, said):
    spoil(report, request_file)
    assert verify_report(report) == 1
    assert said in capsys.readouterr().out


def test_a_folder_that_is_no_report_is_refused(tmp_path):
    with pytest.raises(RunError, match="is no report"):
        verify_report(tmp_path)
