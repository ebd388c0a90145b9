"""Records, the cache of earlier results, and `valence verify`."""

import json
import os

import pytest

from valence_lib.errors import RunError
from valence_lib.files import digest_of, write_json
from valence_lib.workflow import records, verify
from valence_lib.workflow.records import (
    Record,
    cache_get,
    cache_put,
    changed_files,
    digests_of,
    load_record,
    load_records,
    record_path,
)
from valence_lib.workflow.verify import verify_report

FINGERPRINT = {"program": "notebooks/3_compare.ipynb", "code": "c", "text": "t", "parameters": {"seed": 0}}
OUTPUTS = ("results.json", "runs/a", "not-made.csv")


@pytest.fixture
def report(tmp_path):
    """A report with one job that made a file and a folder."""
    folder = tmp_path / "reports" / "one"
    (folder / "runs" / "a").mkdir(parents=True)
    for name in ("results.json", "runs/a/best.safetensors", "runs/a/seconds.json"):
        (folder / name).write_text(f"content of {name}")
    (folder / "runs" / "a" / ".hidden.partial").touch()
    (folder / "runs" / "a" / "x.failed.ipynb").touch()
    return folder


@pytest.fixture
def record(report):
    """The job's record, with its outputs in the cache."""
    made = Record(FINGERPRINT, {"notebooks/x.bib": "d"}, digests_of(report, OUTPUTS), {"threads": 1})
    made.save(record_path(report, "compare"))
    cache_put(report, made, OUTPUTS)
    return made


def contents(report):
    files = [path for path in report.rglob("*") if path.is_file() and not path.name.startswith(".")]
    return {path.relative_to(report).as_posix(): path.read_text() for path in files}


def test_digests_are_of_files_that_are_neither_hidden_nor_failed_nor_measured_times(report):
    names = ["results.json", "runs/a/best.safetensors"]
    assert digests_of(report, OUTPUTS) == {name: digest_of(report / name) for name in names}


def test_a_record_is_read_as_it_was_written(report, record):
    assert load_record(record_path(report, "compare")) == record
    assert json.loads(record_path(report, "compare").read_text())["key"] == record.key
    assert load_records(report, ["compare"]) == {"compare": record}
    with pytest.raises(RunError, match="no record of the job 'report'"):
        load_records(report, ["report"])


@pytest.mark.parametrize("content", ["", "{}", "[]", "no JSON"])
def test_a_damaged_record_is_none(tmp_path, content):
    (tmp_path / "x.json").write_text(content)
    assert load_record(tmp_path / "x.json") is None
    assert load_record(tmp_path / "absent.json") is None


def test_the_key_depends_on_all_but_the_text(record):
    def key(**changes):
        return Record({**FINGERPRINT, **changes}, record.inputs, {}, {}).key

    assert key() == key(text="other") == record.key
    assert len({key(), key(code="d"), key(parameters={"seed": 1}), key(python="3.12")}) == 4
    assert Record(FINGERPRINT, {"notebooks/x.bib": "e"}, {}, {}).key != key()


def test_changed_files_are_named(report, record):
    assert changed_files(record.outputs, report) == []
    (report / "results.json").write_text("other")
    (report / "runs" / "a" / "best.safetensors").unlink()
    assert changed_files(record.outputs, report) == ["results.json", "runs/a/best.safetensors"]


def test_outputs_come_back_from_the_cache_and_no_other_files_stay(report, record):
    first = contents(report)
    assert cache_get(report, record.key, OUTPUTS) == (record, False)
    (report / "results.json").write_text("of other code")
    (report / "runs" / "a" / "more.csv").write_text("of other code")
    assert cache_get(report, record.key, OUTPUTS) == (record, True)
    assert contents(report) == first
    assert cache_get(report, "0" * 64, OUTPUTS) is None


def test_a_damaged_entry_of_the_cache_is_removed(report, record):
    entry = report.parent / records.CACHE_FOLDER / record.key
    (entry / "files" / "results.json").write_text("damaged")
    (report / "results.json").write_text("of other code")
    assert cache_get(report, record.key, OUTPUTS) is None
    assert (report / "results.json").read_text() == "of other code"
    assert not entry.exists()


def test_the_cache_keeps_what_was_used_last(report, record, monkeypatch):
    cache = report.parent / records.CACHE_FOLDER
    size = sum(path.stat().st_size for path in (cache / record.key).rglob("*") if path.is_file())
    monkeypatch.setattr(records, "_CACHE_BYTES", 2.5 * size)  # two entries, but not three
    second, third = (Record({**FINGERPRINT, "code": code}, {}, record.outputs, {}) for code in "de")
    cache_put(report, second, OUTPUTS)
    assert all((cache / made.key).is_dir() for made in (record, second))
    os.utime(cache / second.key, ns=(1, 1))
    (report / "results.json").unlink()
    assert cache_get(report, record.key, OUTPUTS) == (record, True)
    cache_put(report, third, OUTPUTS)
    assert [(cache / made.key).is_dir() for made in (record, second, third)] == [True, False, True]
    assert not list(cache.glob(".*"))


# Verifying


@pytest.fixture
def source(report, record, monkeypatch):
    """An input of the job, whose request and record are written."""
    root = report.parent.parent
    monkeypatch.setattr(verify, "project_root", lambda: root)
    job = {"name": "compare", "program": "notebooks/3_compare.ipynb", "inputs": [], "outputs": OUTPUTS}
    write_json(report / "request.json", {"jobs": {"compare": job}})
    path = root / "notebooks" / "x.bib"
    write_json(path, "an input")
    inputs = {"notebooks/x.bib": digest_of(path)}
    Record(FINGERPRINT, inputs, record.outputs, record.environment).save(record_path(report, "compare"))
    return path


def test_a_report_as_it_was_made_is_verified(report, source, capsys):
    assert verify_report(report) == 0
    printed = capsys.readouterr().out
    assert "compare: the project has changed since" in printed  # its notebook is gone
    assert "2 files of 1 jobs in" in printed
    assert "0 faults, 1 remarks" in printed
    write_json(report / "tables" / "table-9.csv", "")
    assert verify_report(report) == 0
    assert "tables/table-9.csv: no job made it" in capsys.readouterr().out


def test_the_records_of_all_jobs_count_not_only_those_of_the_last_request(report, source, capsys):
    load_record(record_path(report, "compare")).save(record_path(report, "CNN-default-0"))
    (report / "results.json").write_text("x")
    assert verify_report(report) == 1
    assert "CNN-default-0: results.json is not what the job made" in capsys.readouterr().out


def forge(path):
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda r, s: (r / "results.json").write_text("x"), "compare: results.json is not what the job made"),
        (lambda r, s: (r / "results.json").unlink(), "compare: results.json is missing"),
        (lambda r, s: s.write_text("x"), "compare: its input notebooks/x.bib changed"),
        (lambda r, s: record_path(r, "compare").unlink(), "compare: has no record"),
        (lambda r, s: forge(record_path(r, "compare")), "the key is not the digest"),
    ],
)
def test_every_difference_from_the_record_is_named(report, source, capsys, spoil, message):
    spoil(report, source)
    assert verify_report(report) == 1
    assert message in capsys.readouterr().out


def test_a_folder_that_is_no_report_is_refused(tmp_path):
    with pytest.raises(RunError, match="is no report"):
        verify_report(tmp_path)
