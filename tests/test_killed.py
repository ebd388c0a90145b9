"""`kill -9` of a whole build at random moments, then a build: the bytes of an undisturbed one, and nothing left over.

VALENCE_KILLS=30 kills thirty builds; by default it is five.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import time

import pytest
from project_copy import Project, make_corpus

KILLS = int(os.environ.get("VALENCE_KILLS", "5"))

pytestmark = pytest.mark.slow


@pytest.fixture
def project(tmp_path) -> Project:
    return Project(tmp_path / "project", make_corpus(tmp_path / "clips"))


@pytest.fixture
def temporary(tmp_path, project, monkeypatch):
    """The folder that the builds take for the system's temporary one."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


def finished(project: Project) -> set[str]:
    """Jobs whose results are kept: in the report, or already in the archive."""
    archive = project.folder / "reports" / ".results"
    keys = {path.name for path in archive.glob("*") if not path.name.startswith(".")}
    request = project.report / "request.json"
    names = list(json.loads(request.read_text())["jobs"]) if request.is_file() else []
    records = {name: project.report / "provenance" / f"{name}.json" for name in names}
    return {
        name
        for name, path in records.items()
        if path.is_file() and json.loads(path.read_text())["key"] in keys
    }


def executed(project: Project) -> set[str]:
    """Jobs that the last build executed to their end, by what they told."""
    progress = project.report / "logs" / "progress.jsonl"
    told = progress.read_text().splitlines() if progress.is_file() else []
    events = [json.loads(line) for line in told if line.endswith("}")]
    return {event["job"] for event in events if event.get("ended") == "executed"}


def start(project: Project, log) -> subprocess.Popen:
    return subprocess.Popen(
        project.command("report", "--jobs", "2", "--stop-with-parent"),
        cwd=project.folder,
        env=project.environment,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )


def left_over(project: Project, temporary) -> list[str]:
    """Files that nobody needs any more: hidden ones but for locks and notes, and what lies in the temporary folder."""
    known = {".lock", ".notebooks-at-work", ".corpus-digests.json"}
    hidden = [p for p in (project.folder / "reports").rglob(".*") if p.name not in known and p.is_file()]
    inside = list((project.folder / "reports").rglob("*.partial*"))
    return sorted(str(path) for path in (*hidden, *inside, *temporary.glob("valence-*")))


def test_killed_builds_end_in_the_bytes_of_an_undisturbed_one(project, temporary, tmp_path):
    began = time.monotonic()
    project.build()
    duration = time.monotonic() - began
    undisturbed = project.artefacts()
    seed = time.time_ns()
    print(f"undisturbed: {duration:.0f} s; random seed {seed}")
    generator = random.Random(seed)
    identical = again = kills = 0
    with (tmp_path / "log").open("wb") as log:
        for _ in range(KILLS):
            # A build from nothing, killed, every third time once more while it goes on, and then left to finish.
            shutil.rmtree(project.folder / "reports")
            for _ in range(generator.choice((1, 1, 2))):
                before = finished(project)
                process = start(project, log)
                time.sleep(generator.uniform(0.5, 0.95 * duration))
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    kills += 1
                process.wait()
                again += len(before & executed(project))
            before = finished(project)
            done = project.build()
            again += len(before & done.get("executed", set()))
            identical += project.artefacts() == undisturbed
            assert left_over(project, temporary) == []
    print(
        f"{kills} kills; {identical} of {KILLS} builds identical to the undisturbed one; {again} finished jobs done again"
    )
    assert (identical, again) == (KILLS, 0)


def test_what_make_had_started_ends_with_it(project, temporary, tmp_path):
    with (tmp_path / "log").open("wb") as log:
        # As make's recipe does, whose shell is killed alone.
        words = " ".join(f"'{word}'" for word in project.command("report", "--stop-with-parent"))
        shell = subprocess.Popen(
            ["sh", "-c", f"{words}; true"],
            cwd=project.folder,
            env=project.environment,
            stdout=log,
            stderr=log,
        )
        time.sleep(6)
        shell.kill()
        shell.wait()
    deadline = time.monotonic() + 20
    while busy := [pid for pid in processes() if str(project.folder) in pid]:
        assert time.monotonic() < deadline, busy
        time.sleep(0.2)


def processes() -> list[str]:
    """Folder and command of every process."""
    found = subprocess.run(["ps", "axwwo", "pid,args"], capture_output=True, text=True, check=True).stdout
    return [line for line in found.splitlines() if "ps axwwo" not in line]


def test_two_builds_of_one_report_and_of_two(project, tmp_path):
    with (tmp_path / "log").open("wb") as log:
        first = start(project, log)
        while not (project.report / "logs" / "progress.jsonl").is_file():
            time.sleep(0.05)
            assert first.poll() is None
        second = project.valence("report")
        assert second.returncode == 1
        assert f"another build is at work on 'tiny' (process {first.pid})" in second.stderr
        # Another report beside it, on the same corpus: they share the feature store.
        other = project.valence("report", "--name", "other")
        assert other.returncode == 0, other.stderr
        assert first.wait() == 0
    project.report = project.folder / "reports" / "other"
    assert (project.report / "report.pdf").is_file()
