"""The reasons for which a job is stale."""

import pytest

from valence_lib.files import write_json
from valence_lib.workflow.jobs import Job
from valence_lib.workflow.records import Record, digests_of, record_path
from valence_lib.workflow.stale import plan

FINGERPRINT = {"code": "c", "text": "t", "parameters": {"seed": 0}, "modules": {"a.py": "a"}, "lock": "l"}
FIRST = Job("first", "1.ipynb", ("x.bib",), ("first.json",))
SECOND = Job("second", "2.ipynb", ("reports/one/first.json",), ("second.json",), after=("first",))


@pytest.fixture
def reasons(tmp_path):
    """Plans a finished report of two jobs; `reasons(**changes)` changes the fingerprint of the first."""
    folder = tmp_path / "reports" / "one"
    write_json(tmp_path / "x.bib", "x")
    for job in (FIRST, SECOND):
        write_json(folder / job.outputs[0], job.name)
        inputs = digests_of(tmp_path, job.inputs)
        record = Record(FINGERPRINT, inputs, digests_of(folder, job.outputs), {})
        record.save(record_path(folder, job.name))

    def find(jobs=(FIRST, SECOND), **changes):
        fingerprints = {"first": {**FINGERPRINT, **changes}, "second": FINGERPRINT}
        return plan(folder, jobs, fingerprints, tmp_path)

    return find


def test_a_finished_job_is_not_stale_when_files_are_touched(reasons, tmp_path):
    (tmp_path / "x.bib").touch()
    assert reasons() == {"first": [], "second": []}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"code": "d"}, "its code changed"),
        ({"text": "u"}, "its text changed"),
        ({"lock": "m"}, "requirements.lock changed"),
        ({"parameters": {"seed": 1}}, "seed: 0 -> 1"),
        ({"modules": {"b.py": "b"}}, "a.py changed; b.py changed"),
        ({"python": "3.13"}, "python: None -> 3.13"),
    ],
)
def test_a_changed_fingerprint_makes_a_job_and_those_after_it_stale(reasons, changes, reason):
    assert reasons(**changes) == {"first": reason.split("; "), "second": ["after first"]}


def test_changed_files_make_a_job_stale(reasons, tmp_path):
    folder = tmp_path / "reports" / "one"
    write_json(tmp_path / "x.bib", "y")
    assert reasons() == {"first": ["x.bib changed"], "second": ["after first"]}
    write_json(tmp_path / "x.bib", "x")
    (folder / "second.json").unlink()
    assert reasons() == {"first": [], "second": ["second.json is not what the job made"]}
    record_path(folder, "second").unlink()
    assert reasons() == {"first": [], "second": ["not finished yet"]}


def test_an_output_that_was_made_again_by_a_killed_build_makes_the_next_job_stale(reasons, tmp_path):
    folder = tmp_path / "reports" / "one"
    write_json(folder / "first.json", "made again")
    inputs = digests_of(tmp_path, FIRST.inputs)
    record = Record(FINGERPRINT, inputs, digests_of(folder, FIRST.outputs), {})
    record.save(record_path(folder, "first"))
    assert reasons() == {"first": [], "second": ["reports/one/first.json changed"]}


def test_other_input_files_make_a_job_stale(reasons):
    more = Job("first", "1.ipynb", ("x.bib", "requirements.lock"), ("first.json",))
    assert reasons((more, SECOND))["first"] == ["its inputs are other files"]
