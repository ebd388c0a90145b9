"""`kill -9` of a whole build at random moments, then a build: the bytes of an undisturbed one, and nothing left over.

VALENCE_KILLS=30 kills thirty builds; by default it is five.
"""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import time
from itertools import takewhile
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from project_copy import Project, make_corpus

KILLS = int(os.environ.get("VALENCE_KILLS", "5"))

pytestmark = pytest.mark.slow


@pytest.fixture
def project(tmp_path) -> Project:
    return Project(tmp_path / "project", make_corpus(tmp_path / "clips"))


@pytest.fixture
def temporary(monkeypatch):
    """The folder that the builds take for the system's temporary one: with a short path, as that has."""
    with TemporaryDirectory(prefix="t-", dir="/tmp") as folder:
        monkeypatch.setenv("TMPDIR", folder)
        yield Path(folder)


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
    return sorted(str(path) for path in (*hidden, *inside, *temporary.iterdir()))


def differing(first: dict[str, bytes], second: dict[str, bytes]) -> list[str]:
    """What two builds do not have in common, with the first bytes that differ."""
    said = []
    for name in sorted(first.keys() | second.keys()):
        if first.get(name) != second.get(name):
            one, other = first.get(name, b""), second.get(name, b"")
            at = len(list(takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))))
            near = slice(max(at - 60, 0), at + 60)
            said.append(f"{name} at {at}: {one[near]!r}, {other[near]!r}")
    return said


def test_killed_builds_end_in_the_bytes_of_an_undisturbed_one(project, temporary, tmp_path):
    began = time.monotonic()
    project.build()
    duration = time.monotonic() - began
    undisturbed = project.artefacts()
    seed = time.time_ns()
    print(f"undisturbed: {duration:.0f} s; random seed {seed}")
    generator = random.Random(seed)
    different: list[str] = []
    identical = again = kills = 0
    with (tmp_path / "log").open("wb") as log:
        for _ in range(KILLS):
            # A build from nothing, killed, every third time once more while it goes on, and then left to finish.
            shutil.rmtree(project.folder / "reports")
            for _ in range(generator.choice((1, 1, 2))):
                before = finished(project)
                (project.report / "logs" / "progress.jsonl").unlink(missing_ok=True)
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
            found = differing(undisturbed, project.artefacts())
            identical += found == []
            different += found
            assert left_over(project, temporary) == []
    print(
        f"{kills} kills; {identical} of {KILLS} builds identical to the undisturbed one; {again} finished jobs done again"
    )
    assert different == []
    assert (identical, again) == (KILLS, 0)


def test_a_rebuild_that_is_killed_half_way_through_what_changed(project, tmp_path):
    project.build()
    project.edit("valence_lib/models/cnn.py", "nn.Conv2d(1, 8,", "nn.Conv2d(1, 6,")
    project.edit("valence_lib/models/cnn.py", "nn.Conv2d(8, 16,", "nn.Conv2d(6, 16,")
    progress = project.report / "logs" / "progress.jsonl"
    progress.unlink()
    with (tmp_path / "log").open("wb") as log:
        process = start(project, log)
        deadline = time.monotonic() + 120
        while not (progress.is_file() and len(executed(project)) == 2):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    # The models are made again, and what compares them is not.
    assert {"CNN-default-0", "CNN-seed-0"} & project.plan().keys() == set()
    assert "predictions.csv changed" in project.plan()["compare"]
    project.build()
    gone_on = project.artefacts()
    shutil.rmtree(project.folder / "reports")
    project.build()
    assert gone_on == project.artefacts()


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
        deadline = time.monotonic() + 120
        while len(at_work(project)) < 5:  # the build, Snakemake, the warm process, a command and its kernel
            assert time.monotonic() < deadline
            time.sleep(0.1)
        shell.kill()
        shell.wait()
    deadline = time.monotonic() + 20
    while busy := at_work(project):
        assert time.monotonic() < deadline, busy
        time.sleep(0.2)


def at_work(project: Project) -> list[str]:
    """Numbers of the processes that work in the project's folder or below it."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            folder = Path(os.readlink(process / "cwd"))  # noqa: PTH115
            ended = (process / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
            if folder.is_relative_to(project.folder) and not ended:
                found.append(process.name)
    return found


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
    reports = project.folder / "reports"
    for one in sorted((reports / "tiny" / "runs").glob("*/best.safetensors")):
        assert one.read_bytes() == (reports / "other" / one.relative_to(reports / "tiny")).read_bytes()
    tables = [sorted((reports / name / "tables").glob("table-[0-9].csv")) for name in ("tiny", "other")]
    assert [path.read_bytes() for path in tables[0]] == [path.read_bytes() for path in tables[1]]
