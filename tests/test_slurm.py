"""Reports made by a Slurm cluster: what a build leaves there, what is tried again, and the same bytes as without."""

import json
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
import slurm_cluster
import yaml

from valence_lib import slurm
from valence_lib.errors import LackOfMemoryError, NotebookError, RunError, SettingsError
from valence_lib.files import write_json
from valence_lib.notebooks import run_notebook
from valence_lib.progress import JobProgress, failed_for_good

ROOT = Path(__file__).parent.parent
artefacts = runpy.run_path(str(ROOT / "workflow" / "verify.py"))["artefacts"]

# Without a cluster


@pytest.fixture
def queue(tmp_path, monkeypatch) -> Path:
    """A file of lines as squeue prints them; scancel removes its arguments' lines, and notes them in `cancelled`."""
    programs = {
        "squeue": "cat queue",
        "scancel": 'for job; do echo "$job" >> cancelled; sed -i "/^$job|/d" queue; done',
    }
    for name, text in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\ncd {tmp_path}\n{text}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(slurm, "_LOOKS_SECONDS", 0.01)
    (tmp_path / "queue").write_text("")
    return tmp_path / "queue"


@pytest.fixture
def report(tmp_path) -> Path:
    folder = tmp_path / "reports" / "one"
    folder.mkdir(parents=True)
    return folder


def test_only_this_reports_jobs_are_cancelled(queue, report):
    write_json(report / slurm.MARK_FILE, {"build": "earlier"})
    own, other = slurm.job_prefix(report), slurm.job_prefix(report.with_name("one-more"))
    queue.write_text(f"7|RUNNING|{own}_a\n8|PENDING|{own}_a\n9|RUNNING|{other}_a\n10|RUNNING|{own}-b_a\n")
    slurm.end_jobs(report)
    assert (queue.parent / "cancelled").read_text().split() == ["7", "8"]
    assert not (report / slurm.MARK_FILE).exists()


@pytest.mark.parametrize("folder", ["/my clips/project", "/a'b/project", "/$HOME/project"])
def test_a_path_that_the_plugin_cannot_hand_on_is_refused(folder):
    with pytest.raises(SettingsError, match=r"the project lies in .*for PROFILE=slurm"):
        slurm.check_path(Path(folder) / ".venv" / "bin" / "python")
    slurm.check_path(Path("/home/ann-b/valence_1.2/.venv/bin/python3.11"))


def test_a_report_that_never_was_on_slurm_asks_nobody(queue, report, monkeypatch):
    queue.write_text(f"7|RUNNING|{slurm.job_prefix(report)}_a\n")
    slurm.end_jobs(report)
    assert not (queue.parent / "cancelled").exists()


def test_jobs_that_are_ending_are_waited_for_and_not_for_ever(queue, report, monkeypatch):
    write_json(report / slurm.MARK_FILE, {"build": "earlier"})
    queue.write_text(f"7|COMPLETING|{slurm.job_prefix(report)}_a\n")
    monkeypatch.setattr(slurm, "_PATIENCE_SECONDS", 0.2)
    with pytest.raises(RunError, match="the Slurm jobs 7 were cancelled, but do not end"):
        slurm.end_jobs(report)
    assert (report / slurm.MARK_FILE).exists()
    assert not (queue.parent / "cancelled").exists()


def test_where_slurm_cannot_be_asked_the_mark_stays(report, tmp_path, monkeypatch):
    write_json(report / slurm.MARK_FILE, {"build": "earlier"})
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RunError, match=r"squeue could not be asked.*login node"):
        slurm.end_jobs(report)
    assert (report / slurm.MARK_FILE).exists()


def test_a_job_writes_only_for_the_build_that_sent_it(queue, report, monkeypatch):
    slurm.check_build(report)  # one that nobody sent
    with slurm.submitting(report) as variables:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        slurm.check_build(report)
        with slurm.submitting(report), pytest.raises(RunError, match="has ended"):
            slurm.check_build(report)
    with pytest.raises(RunError, match="has ended"):
        slurm.check_build(report)


def test_an_interrupted_build_leaves_no_jobs(queue, report):
    with pytest.raises(KeyboardInterrupt), slurm.submitting(report):
        queue.write_text(f"7|RUNNING|{slurm.job_prefix(report)}_a\n")
        raise KeyboardInterrupt
    assert queue.read_text() == ""


@pytest.mark.parametrize("name", ["a", "x" * 200, "mine.2-b_c", "1"])
def test_a_prefix_is_one_that_the_executor_takes(tmp_path, name):
    prefixes = {slurm.job_prefix(tmp_path / clone / "reports" / name) for clone in ("one", "two")}
    assert len(prefixes) == 2
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,50}", prefix) for prefix in prefixes)


def test_only_what_would_fail_again_is_not_tried_again(tmp_path):
    assert failed_for_good(tmp_path, "compare") is None
    progress = JobProgress(tmp_path, "compare")
    progress.tell(ended="failed", message="no memory", for_good=False)
    JobProgress(tmp_path, "render").tell(ended="failed", message="its own error", for_good=True)
    with (tmp_path / "progress.jsonl").open("ab") as file:
        file.write(b'{"job": "comp\xff\n8\nnull\n')  # two machines wrote at once
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
def test_a_notebook_that_lacked_memory_is_told_from_one_with_an_error(tmp_path, code, lacked):
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


def test_without_slurm_it_is_said_what_is_absent(monkeypatch):
    monkeypatch.setattr(slurm_cluster, "PROGRAMS", ("sh", "slurm-that-is-not-there"))
    with (
        pytest.raises(slurm_cluster.NoSlurm, match="there is no slurm-that-is-not-there here"),
        slurm_cluster.running(),
    ):
        pass


def test_the_shipped_profile_is_one_for_slurm():
    settings = yaml.safe_load((ROOT / "workflow" / "profiles" / "slurm" / "config.yaml").read_text())
    assert settings["executor"] == "slurm"
    # What its page says about them.
    page = (ROOT / "workflow" / "profiles" / "slurm" / "README.md").read_text()
    assert f"| `jobs` | {settings['jobs']} |" in page
    assert f"| `retries` | {settings['retries']} times," in page


# On a cluster

SMALL = ["--corpus", "demo", "--name", "on-slurm", "--preset", "seed", "--seeds", "1"]
SMALL += ["--clips-per-speaker", "3", "--epochs", "2"]
JOBS = [
    "preprocess",
    "LSTM1-seed-0",
    "CNN-seed-0",
    "LSTM2-seed-0",
    "Ridge-default-0",
    "SVR-default-0",
    "GaussianProcess-default-0",
    "GaussianProcess-speaker-0",
    "leakage",
    "compare",
    "error_analysis",
    "report",
    "render",
]


class Project:
    """A copy of this project, with the profile edited as its README tells people to."""

    def __init__(self, folder: Path, cluster: slurm_cluster.Cluster):
        self.folder, self.cluster = folder, cluster
        self.report = folder / "reports" / "on-slurm"
        # With what numba has compiled.
        for name in ("valence_lib", "notebooks", "workflow"):
            shutil.copytree(ROOT / name, folder / name)
        shutil.copy2(ROOT / "requirements.lock", folder)
        self.edit("workflow/profiles/slurm/config.yaml", "status-checks: 20", "status-checks: 1")

    def edit(self, name: str, old: str, new: str) -> None:
        path = self.folder / name
        text = path.read_text(encoding="utf-8")
        assert text.count(old) == 1, f"{name} holds {old!r} {text.count(old)} times"
        path.write_text(text.replace(old, new), encoding="utf-8")

    def start(self, *options: str) -> subprocess.Popen:
        """Begin to build, in a session of its own, so that all of it can be interrupted or killed at once."""
        return subprocess.Popen(
            [sys.executable, "-m", "valence_lib", "report", *SMALL, *options],
            cwd=self.folder,
            env=self.cluster.environment | {"PYTHONPATH": str(self.folder)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            # As in a terminal, also where these tests run in the background, with interrupts ignored.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )

    def build(self, *options: str) -> str:
        """Build to the end; what it said."""
        process = self.start(*options)
        said, _ = process.communicate(timeout=900)
        assert process.returncode == 0, said + (self.report / "logs" / "snakemake.log").read_text()
        return said

    def own(self, jobs: list[slurm_cluster.Job]) -> list[slurm_cluster.Job]:
        """Those of the jobs that are this copy's."""
        return [job for job in jobs if job.name.startswith(slurm.job_prefix(self.report) + "_")]

    def sent(self) -> dict[str, list[slurm_cluster.Job]]:
        """This copy's Slurm jobs by the report's jobs, in order."""
        found: dict[str, list[slurm_cluster.Job]] = {}
        for job in self.own(self.cluster.jobs()):
            name = re.sub(r"^rule_(experiment_wildcards_)?", "", job.comment)
            found.setdefault(name, []).append(job)
        return found

    def wait_for(self, name: str, process: subprocess.Popen) -> slurm_cluster.Job:
        """A job of the report, once it runs a notebook in Slurm."""
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline:
            for job in self.own(self.cluster.left()):
                if job.comment.endswith(name) and job.state == "RUNNING" and self._told(name):
                    return job
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.2)
        pytest.fail(f"{name} did not begin")

    def _told(self, name: str) -> bool:
        lines = (self.report / "logs" / "progress.jsonl").read_text().splitlines()
        events = [event for event in map(json.loads, lines) if event["job"] == name]
        return bool(events) and "cell" in events[-1]


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
    project = Project(tmp_path_factory.mktemp("local"), cluster)
    project.build()
    assert project.sent() == {}
    return contents(project.report)


def contents(report: Path) -> dict[str, bytes]:
    return {name: path.read_bytes() for name, path in artefacts(report).items()}


def assert_same(report: Path, expected: dict[str, bytes]) -> None:
    found = contents(report)
    assert sorted(found) == sorted(expected)
    assert [name for name in found if found[name] != expected[name]] == []
    print(f"{len(found)} artefacts compared byte by byte with those of a local build")


@pytest.fixture(scope="module")
def disturbed(cluster, tmp_path_factory) -> Project:
    """A report whose first job was given too little memory at first, and one of whose trainings was cancelled once."""
    project = Project(tmp_path_factory.mktemp("disturbed"), cluster)
    asked = "set-resources:\n  preprocess:\n    mem_mb: {} * attempt\n    runtime: 240\n"
    offered = "".join(f"#{line}\n" for line in asked.format(3000).splitlines())
    project.edit("workflow/profiles/slurm/config.yaml", offered, asked.format(300))
    process = project.start("--profile", "slurm")
    cluster.say("scancel", project.wait_for("CNN-seed-0", process).number)
    said, _ = process.communicate(timeout=900)
    print(said)
    assert process.returncode == 0, said + (project.report / "logs" / "snakemake.log").read_text()
    return project


@pytest.mark.slurm
def test_what_slurm_ends_is_sent_again_and_the_report_is_that_of_a_local_build(cluster, disturbed, local):
    sent = disturbed.sent()
    assert set(sent) == set(JOBS)
    assert [job.state for job in sent["CNN-seed-0"]] == ["CANCELLED", "COMPLETED"]
    memory = [job.memory for job in sent["preprocess"]]
    assert memory == ["300M", "600M", "900M"][: len(memory)]
    states = [job.state for job in sent["preprocess"]]
    assert len(states) > 1
    assert "COMPLETED" not in states[:-1]
    assert all(jobs[-1].state == "COMPLETED" for jobs in sent.values())
    assert {job.node for jobs in sent.values() for job in jobs} == set(slurm_cluster.NODES)
    # What Slurm itself keeps account of agrees.
    numbers = {job.number for jobs in sent.values() for job in jobs}
    accounted = {re.match(r"JobId=(\d+) ", line).group(1): line for line in cluster.completed()}
    assert numbers <= set(accounted)
    assert sum("JobState=COMPLETED" in accounted[number] for number in numbers) == len(JOBS)
    print(f"{len(numbers)} jobs in Slurm's account; preprocess: {states} with {memory}")
    assert_same(disturbed.report, local)


@pytest.mark.slurm
def test_a_notebook_with_an_error_runs_once(cluster, disturbed, local):
    notebook = disturbed.folder / "notebooks" / "3_compare.ipynb"
    before = notebook.read_bytes()
    earlier = len(disturbed.sent()["compare"])
    content = nbformat.read(notebook, as_version=4)
    content.cells[-1] = nbformat.v4.new_code_cell(
        "raise ValueError('as it happens')", id=content.cells[-1].id
    )
    nbformat.write(content, notebook)
    process = disturbed.start("--profile", "slurm")
    said, _ = process.communicate(timeout=900)
    assert process.returncode == 1, said
    assert said.count("as it happens") >= 1
    assert len(re.findall(r"compare +failed", said)) == 1
    logs = sorted((disturbed.report / "logs" / "slurm" / "rule_compare").glob("*.log"))
    again = [log for log in logs if "has failed in this build, and would again" in log.read_text()]
    assert len(disturbed.sent()["compare"]) - earlier == 1 + len(again) == 3
    assert [job.state for job in disturbed.sent()["compare"][earlier:]] == ["FAILED"] * 3
    assert disturbed.own(cluster.left()) == []
    notebook.write_bytes(before)
    disturbed.build("--profile", "slurm")
    assert_same(disturbed.report, local)


@pytest.mark.slurm
def test_ctrl_c_and_kill_leave_nothing_that_writes_beside_the_next_build(cluster, tmp_path, local):
    project = Project(tmp_path, cluster)
    process = project.start("--profile", "slurm")
    project.wait_for("preprocess", process)
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=120)
    assert process.returncode != 0
    assert project.own(cluster.left()) == []
    assert not (project.report / slurm.MARK_FILE).exists()

    process = project.start("--profile", "slurm")
    project.wait_for("LSTM2-seed-0", process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    outlived = project.own(cluster.left())
    assert "rule_experiment_wildcards_LSTM2-seed-0" in [job.comment for job in outlived]

    said = project.build("--profile", "slurm")
    cancelled = (
        re.search(r"^Cancelling what is left with Slurm of a build: (.*)$", said, re.M).group(1).split()
    )
    assert set(cancelled) == {job.number for job in outlived}
    states = {job.number: job.state for job in project.own(cluster.jobs())}
    assert {states[job.number] for job in outlived} == {"CANCELLED"}
    assert "preprocess" not in re.findall(r"^\[.*\] (\S+) +executed", said, re.M)
    print(f"{len(states)} jobs in Slurm's account, {len(outlived)} of them outlived Snakemake")
    assert_same(project.report, local)
