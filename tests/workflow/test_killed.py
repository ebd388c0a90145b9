"""Builds killed at random moments end in the bytes of an undisturbed one, with nothing left over.

`VALENCE_KILLS=30 make slow` kills thirty builds; the default is three.
"""

import contextlib
import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import time
from itertools import takewhile
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from project_copy import Project, wait_until

KILLS = int(os.environ.get("VALENCE_KILLS", "3"))

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("builds")]


@pytest.fixture
def temporary(monkeypatch):
    """A folder for the temporary files of the builds. Its path is short: it holds sockets."""
    with TemporaryDirectory(prefix="t-", dir="/tmp") as folder:
        monkeypatch.setenv("TMPDIR", folder)
        yield Path(folder)


def finished(project: Project) -> set[str]:
    """The jobs whose record is in the report and whose results are in the archive."""
    archive = project.folder / "reports" / ".results"
    keys = {path.name for path in archive.glob("*") if not path.name.startswith(".")}
    records = project.report.glob("provenance/*.json")
    return {path.stem for path in records if json.loads(path.read_text())["key"] in keys}


def executed(project: Project) -> set[str]:
    """The jobs that the last build executed to their end."""
    with contextlib.suppress(FileNotFoundError):
        lines = (project.report / "logs" / "progress.jsonl").read_text().splitlines()
        events = [json.loads(line) for line in lines if line.endswith("}")]
        return {event["job"] for event in events if event.get("ended") == "executed"}
    return set()


def start(project: Project) -> subprocess.Popen:
    return project.start("--jobs", "2", "--stop-with-parent", output=subprocess.DEVNULL)


def kill(process: subprocess.Popen) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def left_over(project: Project, temporary: Path) -> list[str]:
    """Hidden files that no build needs, partial files, and temporary ones."""
    reports = project.folder / "reports"
    known = {".lock", ".notebooks-at-work", ".corpus-digests.json"}
    hidden = [path for path in reports.rglob(".*") if path.name not in known and path.is_file()]
    return sorted(map(str, (*hidden, *reports.rglob("*.partial*"), *temporary.iterdir())))


def differences(first: dict[str, bytes], second: dict[str, bytes]) -> list[str]:
    """Artefacts of two builds that differ, with the bytes around the first difference."""
    found = []
    for name in sorted(first.keys() | second.keys()):
        one, other = first.get(name, b""), second.get(name, b"")
        if one != other:
            at = len(list(takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))))
            near = slice(max(at - 60, 0), at + 60)
            found.append(f"{name} at {at}: {one[near]!r}, {other[near]!r}")
    return found


def test_killed_builds_end_in_the_bytes_of_an_undisturbed_one(built, project, temporary):
    undisturbed = built.artefacts()
    seed = time.time_ns()
    print(f"undisturbed: {built.seconds:.0f} s; random seed {seed}")
    generator = random.Random(seed)
    different: list[str] = []
    identical = again = kills = 0
    for _ in range(KILLS):
        # A build from nothing is killed, every third one twice, and then continued to its end.
        shutil.rmtree(project.folder / "reports")
        for _ in range(generator.choice((1, 1, 2))):
            before = finished(project)
            (project.report / "logs" / "progress.jsonl").unlink(missing_ok=True)
            process = start(project)
            time.sleep(generator.uniform(0.5, 0.95 * built.seconds))
            kills += process.poll() is None
            kill(process)
            again += len(before & executed(project))
        before = finished(project)
        again += len(before & project.build().get("executed", set()))
        found = differences(undisturbed, project.artefacts())
        identical += found == []
        different += found
        assert left_over(project, temporary) == []
    print(f"{kills} kills; {identical} of {KILLS} builds identical; {again} finished jobs executed again")
    assert different == []
    assert (identical, again) == (KILLS, 0)


def test_a_rebuild_that_is_killed_ends_in_the_bytes_of_an_undisturbed_one(built, project, tmp_path):
    undisturbed = built.copy(tmp_path / "undisturbed")
    for copy in (project, undisturbed):
        copy.edit("valence_lib/models/cnn.py", "nn.Conv2d(1, 8,", "nn.Conv2d(1, 6,")
        copy.edit("valence_lib/models/cnn.py", "nn.Conv2d(8, 16,", "nn.Conv2d(6, 16,")
    (project.report / "logs" / "progress.jsonl").unlink()
    process = start(project)
    wait_until(lambda: "CNN-course-0" in executed(project))
    kill(process)
    # The model is trained, and what compares the models has yet to run.
    assert "CNN-course-0" not in project.plan()
    assert "predictions.csv changed" in project.plan()["compare"]
    project.build()
    undisturbed.build()
    assert differences(undisturbed.artefacts(), project.artefacts()) == []


@pytest.mark.parametrize("number", [4, 5, 6])
def test_all_processes_end_with_make(number, tmp_path):
    project = Project(tmp_path / "project").create()
    # As in a recipe of make, whose shell is killed alone.
    words = [sys.executable, "-m", "valence_lib", "report", *project.options, "--stop-with-parent"]
    shell = subprocess.Popen(
        ["sh", "-c", f"{shlex.join(words)}; true"],
        cwd=project.folder,
        env=project.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    # The shell, the build, Snakemake, the process that forks, a job and its kernel: all moments of a start.
    wait_until(lambda: len(at_work(project)) >= number)
    shell.kill()
    shell.wait()
    deadline = time.monotonic() + 60
    while at_work(project) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert at_work(project) == []


def at_work(project: Project) -> list[str]:
    """The commands of the processes whose working directory is in the project."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            ended = (process / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
            if (process / "cwd").readlink().is_relative_to(project.folder) and not ended:
                found.append((process / "cmdline").read_text())
    return found


def test_two_builds_at_once_of_one_report_and_of_two(built, project):
    shutil.rmtree(project.folder / "reports")
    first = start(project)
    wait_until((project.report / "logs" / "progress.jsonl").is_file)
    second = project.run("report")
    assert second.returncode == 1
    assert f"another build is at work on 'tiny' (process {first.pid})" in second.stdout
    # Another report on the same corpus, which shares the feature store.
    other = project.run("report", "--name", "other")
    assert other.returncode == 0, other.stdout
    assert first.wait() == 0
    assert differences(built.artefacts(), project.artefacts()) == []
    expected = {name: data for name, data in built.artefacts().items() if name.endswith(".safetensors")}
    folder = project.folder / "reports" / "other"
    assert {name: (folder / name).read_bytes() for name in expected} == expected
    for path in built.report.glob("tables/table-[0-9].csv"):
        assert (folder / "tables" / path.name).read_bytes() == path.read_bytes()
