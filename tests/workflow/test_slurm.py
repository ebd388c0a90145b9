"""Reports made on a Slurm cluster, here one of two nodes on this machine."""

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nbformat
import pytest
import slurm_cluster
import yaml
from project_copy import ALL, ROOT, Project, wait_until

from valence_lib.errors import LackOfMemoryError, NotebookError, RunError, SettingsError
from valence_lib.files import atomic_write, write_json
from valence_lib.workflow import slurm
from valence_lib.workflow.notebooks import run_notebook
from valence_lib.workflow.progress import JobProgress, failed_for_good

# Without a cluster


@pytest.fixture
def queue(tmp_path, monkeypatch) -> Path:
    """The lines that squeue prints. scancel moves those of its arguments to the file `cancelled`."""
    programs = {
        "squeue": "cat queue",
        "scancel": 'for job; do echo "$job" >> cancelled; sed -i "/^$job|/d" queue; done',
    }
    for name, text in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\ncd {tmp_path}\n{text}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(slurm, "_POLL_SECONDS", 0.01)
    (tmp_path / "queue").write_text("")
    return tmp_path / "queue"


@pytest.fixture
def report(tmp_path) -> Path:
    folder = tmp_path / "reports" / "one"
    folder.mkdir(parents=True)
    return folder


def test_only_the_jobs_of_the_report_are_cancelled(queue, report):
    write_json(report / slurm.MARK_FILE, {"build": "earlier"})
    own, other = slurm.job_prefix(report), slurm.job_prefix(report.with_name("one-more"))
    queue.write_text(f"7|RUNNING|{own}_a\n8|PENDING|{own}_a\n9|RUNNING|{other}_a\n10|RUNNING|{own}-b_a\n")
    slurm.end_jobs(report)
    assert (queue.parent / "cancelled").read_text().split() == ["7", "8"]
    assert not (report / slurm.MARK_FILE).exists()


@pytest.mark.parametrize("folder", ["/my clips/project", "/a'b/project", "/$HOME/project"])
def test_a_path_that_the_plugin_cannot_quote_is_refused(folder):
    with pytest.raises(SettingsError, match=r"the project is in .*for PROFILE=slurm"):
        slurm.check_path(Path(folder) / ".venv" / "bin" / "python")
    slurm.check_path(Path("/home/ann-b/valence_1.2/.venv/bin/python3.11"))


def test_slurm_is_not_asked_about_a_report_without_a_mark(queue, report):
    queue.write_text(f"7|RUNNING|{slurm.job_prefix(report)}_a\n")
    slurm.end_jobs(report)
    assert not (queue.parent / "cancelled").exists()


def test_waiting_for_ending_jobs_has_a_limit(queue, report, monkeypatch):
    write_json(report / slurm.MARK_FILE, {"build": "earlier"})
    queue.write_text(f"7|COMPLETING|{slurm.job_prefix(report)}_a\n")
    monkeypatch.setattr(slurm, "_PATIENCE_SECONDS", 0.2)
    with pytest.raises(RunError, match="the Slurm jobs 7 were cancelled, but do not end"):
        slurm.end_jobs(report)
    assert (report / slurm.MARK_FILE).exists()
    assert not (queue.parent / "cancelled").exists()


def test_the_mark_stays_if_slurm_does_not_answer(report, tmp_path, monkeypatch):
    write_json(report / slurm.MARK_FILE, {"build": "earlier"})
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RunError, match=r"squeue failed.*login node"):
        slurm.end_jobs(report)
    assert (report / slurm.MARK_FILE).exists()


def test_a_job_runs_only_for_the_build_that_submitted_it(queue, report, monkeypatch):
    slurm.check_build(report)  # not submitted by any build
    with slurm.submitting(report) as variables:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        slurm.check_build(report)
        with slurm.submitting(report), pytest.raises(RunError, match="has ended"):
            slurm.check_build(report)
    with pytest.raises(RunError, match="has ended"):
        slurm.check_build(report)


def test_an_interrupted_build_cancels_its_jobs(queue, report):
    with pytest.raises(KeyboardInterrupt), slurm.submitting(report):
        queue.write_text(f"7|RUNNING|{slurm.job_prefix(report)}_a\n")
        raise KeyboardInterrupt
    assert queue.read_text() == ""


@pytest.mark.parametrize("name", ["a", "x" * 200, "mine.2-b_c", "1"])
def test_a_prefix_is_valid_for_the_executor(tmp_path, name):
    prefixes = {slurm.job_prefix(tmp_path / clone / "reports" / name) for clone in ("one", "two")}
    assert len(prefixes) == 2
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,50}", prefix) for prefix in prefixes)


def test_only_a_failure_for_good_is_not_tried_again(tmp_path):
    assert failed_for_good(tmp_path, "compare") is None
    progress = JobProgress(tmp_path, "compare")
    progress.emit(ended="failed", message="no memory", for_good=False)
    JobProgress(tmp_path, "render").emit(ended="failed", message="its own error", for_good=True)
    with (tmp_path / "progress.jsonl").open("ab") as file:
        file.write(b'{"job": "comp\xff\n8\nnull\n')  # as if two machines write at once
    assert failed_for_good(tmp_path, "compare") is None
    assert failed_for_good(tmp_path, "render") == "its own error"


@pytest.mark.parametrize(
    ("code", "lacked"),
    [
        ("raise MemoryError", True),
        ("from valence_lib.errors import WorkerError; raise WorkerError('ended')", True),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", True),
        ("raise ValueError", False),
    ],
)
def test_lack_of_memory_is_distinguished_from_an_error(tmp_path, code, lacked):
    notebook = tmp_path / "one.ipynb"
    cells = [
        nbformat.v4.new_code_cell("", metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell(code),
    ]
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), notebook)
    with pytest.raises(NotebookError) as caught:
        run_notebook(notebook, tmp_path / "executed.ipynb", {})
    assert isinstance(caught.value, LackOfMemoryError) == lacked


def test_missing_programs_of_slurm_are_named(monkeypatch):
    monkeypatch.setattr(slurm_cluster, "PROGRAMS", ("sh", "slurm-that-is-not-there"))
    with (
        pytest.raises(slurm_cluster.NoSlurm, match="slurm-that-is-not-there not found"),
        slurm_cluster.running(),
    ):
        pass


def test_the_page_of_the_profile_agrees_with_it():
    settings = yaml.safe_load((ROOT / "workflow" / "profiles" / "slurm" / "config.yaml").read_text())
    assert settings["executor"] == "slurm"
    page = (ROOT / "workflow" / "profiles" / "slurm" / "README.md").read_text()
    assert f"| `jobs` | {settings['jobs']} |" in page
    assert f"| `retries` | {settings['retries']} times," in page


# On a cluster

OPTIONS = ["--corpus", "demo", "--name", "on-slurm", "--preset", "course", "--seeds", "1"]
OPTIONS += ["--clips-per-speaker", "3", "--epochs", "2"]
PROFILE = "workflow/profiles/slurm/config.yaml"
SLURM = ("--profile", "slurm")
# Each kernel of Jupyter runs this at its start. A cell that contains the text of the file `held` begins when
# the file is gone, so that a test finds the job in that cell however fast its machine is.
HOLD_CELLS = """\
import time
from contextlib import suppress
from pathlib import Path

def wait_while_held(info):
    with suppress(FileNotFoundError):
        while Path({held!r}).read_text() in info.raw_cell:
            time.sleep(0.1)

get_ipython().events.register("pre_run_cell", wait_while_held)
"""


@pytest.fixture(scope="module")
def cluster():
    try:
        with slurm_cluster.running() as started:
            yield started
    except slurm_cluster.NoSlurm as absence:
        pytest.skip(f"no Slurm: {absence}")


@pytest.fixture(scope="module")
def local(cluster, tmp_path_factory) -> dict[str, bytes]:
    """Every artefact of the report as this machine builds it without Slurm."""
    project = Project(tmp_path_factory.mktemp("local") / "project", OPTIONS, cluster.environment).create()
    assert project.build()["executed"] == ALL
    assert sent(project, cluster) == {}
    return project.artefacts()


@pytest.fixture(scope="module")
def on_slurm(cluster, tmp_path_factory) -> Project:
    """A project for the cluster, with the profile edited as its README says."""
    folder = tmp_path_factory.mktemp("slurm")
    startup = folder / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "hold_cells.py").write_text(HOLD_CELLS.format(held=str(folder / "held")))
    environment = {**cluster.environment, "IPYTHONDIR": str(folder / "ipython")}
    project = Project(folder / "project", OPTIONS, environment).create()
    # A job takes some 15 s. The plugin waits 10 s longer before each further look at the queue.
    project.edit(PROFILE, "status-checks: 20", "status-checks: 6")
    return project


def own(project: Project, jobs: list[slurm_cluster.Job]) -> list[slurm_cluster.Job]:
    """Those of the jobs that belong to the project."""
    return [job for job in jobs if job.name.startswith(slurm.job_prefix(project.report) + "_")]


def sent(project: Project, cluster: slurm_cluster.Cluster) -> dict[str, list[slurm_cluster.Job]]:
    """The project's Slurm jobs by the report's jobs, in order."""
    found: dict[str, list[slurm_cluster.Job]] = {}
    for job in own(project, cluster.jobs()):
        found.setdefault(report_job(job), []).append(job)
    return found


def report_job(job: slurm_cluster.Job) -> str:
    """The report's job that Slurm runs, from the comment that Snakemake gives it."""
    return re.sub(r"^rule_(\w+_wildcards_)?", "", job.comment)


@contextmanager
def held(project: Project, text: str) -> Iterator[Path]:
    """No cell with this text begins while the block runs, and the file that it receives exists."""
    file = project.folder.parent / "held"
    with atomic_write(file) as part:
        part.write_text(text)
    try:
        yield file
    finally:
        file.unlink(missing_ok=True)


@contextmanager
def build_on_slurm(project: Project) -> Iterator[subprocess.Popen]:
    """A build that is at work, and is killed at the end of the block if it still is."""
    process = project.start(*SLURM)
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate(timeout=60)


def wait_for(
    name: str, project: Project, cluster: slurm_cluster.Cluster, build: subprocess.Popen, after: str = ""
) -> slurm_cluster.Job:
    """The Slurm job in a cell of a job's notebook, other than the one with the number `after`."""
    deadline = time.monotonic() + 900
    while build.poll() is None:
        assert time.monotonic() < deadline
        for job in own(project, cluster.left()):
            running = job.state == "RUNNING" and report_job(job) == name and job.number != after
            if running and in_a_cell(name, project):
                return job
        time.sleep(0.2)
    pytest.fail(f"the build ended without {name}:\n{build.communicate()[0]}")


def in_a_cell(name: str, project: Project) -> bool:
    path = project.report / "logs" / "progress.jsonl"
    lines = path.read_text().splitlines() if path.is_file() else []
    events = [event for event in map(json.loads, lines) if event["job"] == name]
    return bool(events) and "cell" in events[-1]


@pytest.mark.slurm
def test_an_interrupted_and_a_killed_build_are_resumed(cluster, on_slurm, local):
    # Ctrl-C cancels all jobs.
    with held(on_slurm, 'corpus = "demo"'), build_on_slurm(on_slurm) as build:
        wait_for("preprocess", on_slurm, cluster, build)
        os.killpg(build.pid, signal.SIGINT)
        build.communicate(timeout=120)
    assert build.returncode != 0
    assert own(on_slurm, cluster.left()) == []
    assert not (on_slurm.report / slurm.MARK_FILE).exists()

    # A job that lacks memory is sent again with more, and one that is cancelled is sent again.
    resources = "set-resources:\n  preprocess:\n    mem_mb: {} * attempt\n    runtime: 240\n"
    offered = "".join(f"#{line}\n" for line in resources.format(3000).splitlines())
    on_slurm.edit(PROFILE, offered, resources.format(450))
    with held(on_slurm, 'model = "CNN"') as cells:
        with build_on_slurm(on_slurm) as build:
            cancelled = wait_for("CNN-course-0", on_slurm, cluster, build)
            cluster.run("scancel", cancelled.number)
            again = wait_for("CNN-course-0", on_slurm, cluster, build, after=cancelled.number)
        # Jobs outlive a killed build, and the next one cancels them before it goes on.
        outlived = {job.number for job in own(on_slurm, cluster.left())}
        assert again.number in outlived
        with build_on_slurm(on_slurm) as build:
            wait_until(lambda: again.number not in [job.number for job in own(on_slurm, cluster.left())])
            cells.unlink()
            printed, _ = build.communicate(timeout=900)
    assert build.returncode == 0, printed
    (numbers,) = re.findall(r"^Cancelling .*: ([\d ]+)$", printed, re.M)
    assert again.number in numbers.split()
    assert set(numbers.split()) <= outlived
    assert "preprocess" not in re.findall(r"^\[.*\] (\S+) +executed", printed, re.M)

    jobs = sent(on_slurm, cluster)
    assert set(jobs) == ALL
    assert [job.state for job in jobs["CNN-course-0"]] == ["CANCELLED", "CANCELLED", "COMPLETED"]
    preprocess = jobs["preprocess"][1:]
    assert [job.memory for job in preprocess] == ["450M", "900M", "1350M"][: len(preprocess)]
    assert len(preprocess) > 1
    assert [job.state for job in preprocess].index("COMPLETED") == len(preprocess) - 1
    assert all(attempts[-1].state == "COMPLETED" for attempts in jobs.values())
    assert {job.node for attempts in jobs.values() for job in attempts} == set(slurm_cluster.NODES)
    # Slurm's accounting agrees.
    accounted = dict(re.match(r"JobId=(\d+) .*JobState=(\S+)", line).groups() for line in cluster.completed())
    states = {job.number: job.state for attempts in jobs.values() for job in attempts}
    assert {number: accounted[number] for number in states} == states
    print(f"{len(states)} jobs in Slurm's accounting, {len(outlived)} of them outlived a killed build")
    assert on_slurm.artefacts() == local


@pytest.mark.slurm
def test_a_notebook_with_an_error_runs_once(cluster, on_slurm, local):
    on_slurm.build(*SLURM)
    on_slurm.edit(PROFILE, "retries: 2", "retries: 1")
    notebook = on_slurm.folder / "notebooks" / "3_compare.ipynb"
    before = notebook.read_bytes()
    earlier = len(sent(on_slurm, cluster)["compare"])
    content = nbformat.read(notebook, as_version=4)
    content.cells[-1] = nbformat.v4.new_code_cell("raise ValueError('on purpose')", id=content.cells[-1].id)
    nbformat.write(content, notebook)
    finished = on_slurm.run("report", *SLURM)
    assert finished.returncode == 1, finished.stdout
    assert "on purpose" in finished.stdout
    assert len(re.findall(r"compare +failed", finished.stdout)) == 1
    # Slurm starts the job again, which then ends before the notebook runs.
    logs = (on_slurm.report / "logs" / "slurm").rglob("*.log")
    again = [log for log in logs if "has failed in this build, and would fail again" in log.read_text()]
    states = [job.state for job in sent(on_slurm, cluster)["compare"][earlier:]]
    assert states == ["FAILED"] * 2
    assert len(again) == 1
    assert own(on_slurm, cluster.left()) == []
    notebook.write_bytes(before)
    on_slurm.build()
    assert on_slurm.artefacts() == local
