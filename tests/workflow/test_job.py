"""One job: it runs once, its outputs are found again, and nothing wrong is recorded."""

import fcntl
import json
import shutil
from dataclasses import asdict
from pathlib import Path

import nbformat
import pytest

from valence_lib.errors import NotebookError, RunError
from valence_lib.files import write_json
from valence_lib.workflow import job as job_module
from valence_lib.workflow.job import HELD_BY_JOBS, run_job
from valence_lib.workflow.jobs import Job
from valence_lib.workflow.records import load_record

CODE = """import fcntl
from pathlib import Path

with (Path(report) / ".notebooks-at-work").open("a") as file:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        found = "free"
    except BlockingIOError:
        found = "held"
print(found, seed)
print("epoch 3/20")
_ = (Path(report) / "made.txt").write_text(f"{found} {seed}")"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with one notebook."""
    (tmp_path / "notebooks").mkdir()
    cells = [
        nbformat.v4.new_markdown_cell("# About"),
        nbformat.v4.new_code_cell('report = ""\nseed = 0', metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell(CODE),
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    content = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    nbformat.write(content, tmp_path / "notebooks" / "x.ipynb")
    (tmp_path / "notebooks" / "x.bib").write_text("an input")
    (tmp_path / "requirements.lock").write_text("numpy==2.4.6\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(job_module, "project_root", lambda: tmp_path)
    return tmp_path


@pytest.fixture
def report(project):
    """The report's folder."""
    return project / "reports" / "one"


@pytest.fixture
def edit(project):
    """Replaces text in the notebook."""
    source = project / "notebooks" / "x.ipynb"
    return lambda old, new: source.write_text(source.read_text().replace(old, new))


def ask(project, **parameters):
    """Run the job with these parameters; its outcome and events."""
    folder = Path("reports") / "one"
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    given = {"report": "../reports/one", **parameters}
    job = Job("x", "notebooks/x.ipynb", ("notebooks/x.bib",), ("x.ipynb", "made.txt"), parameters=given)
    request = {"time_limit": None, "corpus": "demo", "jobs": {"x": asdict(job)}}
    write_json(folder / "request.json", request | {"fingerprints": {"x": job.fingerprint(project)}})
    progress = folder / "logs" / "progress.jsonl"
    progress.write_text("")
    run_job(folder, "x")
    events = [json.loads(line) for line in progress.read_text().splitlines()]
    return events[-1]["ended"], events


def test_a_job_runs_once_and_its_outputs_are_found_again(project, report, edit):
    outcome, events = ask(project, seed=3)
    assert outcome == "executed"
    assert (report / "made.txt").read_text() == "held 3"  # the lock for which later builds wait
    assert {"job": "x", "cell": 3, "cells": 3} in events
    assert {"job": "x", "step": "epoch 3/20"} in events
    assert "held 3" in (report / "logs" / "x.log").read_text()
    first = (report / "x.ipynb").read_bytes()
    record = load_record(report / "provenance" / "x.json")
    assert set(record.outputs) == {"x.ipynb", "made.txt"}
    assert set(record.inputs) == {"notebooks/x.bib"}
    assert record.fingerprint["parameters"] == {"report": "../reports/one", "seed": 3}
    with (report / HELD_BY_JOBS).open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    assert ask(project, seed=3)[0] == "up to date"
    assert ask(project, seed=4)[0] == "executed"
    assert ask(project, seed=3)[0] == "restored"
    assert ((report / "made.txt").read_text(), (report / "x.ipynb").read_bytes()) == ("held 3", first)
    (report / "made.txt").unlink()
    assert ask(project, seed=3)[0] == "restored"

    # Text is updated without a kernel, and the bytes are those of an execution.
    edit("# About", "# About this")
    assert ask(project, seed=3)[0] == "up to date"
    updated = (report / "x.ipynb").read_bytes()
    assert b"# About this" in updated
    shutil.rmtree(project / "reports")
    assert ask(project, seed=3)[0] == "executed"
    assert (report / "x.ipynb").read_bytes() == updated


@pytest.mark.parametrize(
    ("name", "old", "new", "reason"),
    [
        ("x.ipynb", "epoch 3/20", "epoch 4/20", "its code changed"),
        ("x.bib", "an input", "another input", "notebooks/x.bib changed"),
    ],
)
def test_outputs_are_not_recorded_if_inputs_change_meanwhile(project, report, edit, name, old, new, reason):
    code = f"own = Path('{name}'); _ = own.write_text(own.read_text().replace('{old}', '{new}'))"
    edit("print(found, seed)", code)
    with pytest.raises(RunError, match=rf"the inputs of x changed while it ran.*: {reason}"):
        ask(project)
    assert not (report / "provenance").exists()
    assert not list((project / "reports" / ".results").glob("[!.]*"))


def test_a_job_that_fails_reports_why(project, report, edit):
    edit("print(found, seed)", "1 / 0")
    with pytest.raises(NotebookError, match="ZeroDivisionError"):
        ask(project)
    event = json.loads((report / "logs" / "progress.jsonl").read_text().splitlines()[-1])
    assert event["ended"] == "failed"
    assert "jupyter lab reports/one/x.failed.ipynb" in event["message"]
    assert "ZeroDivisionError" in (report / "logs" / "x.log").read_text()
    with pytest.raises(RunError, match="x has failed in this build, and would fail again"):
        run_job(Path("reports") / "one", "x")
