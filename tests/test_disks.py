"""A disk that is full, or that can only be read: a clear error, and what was there before is whole."""

import os
import re
import subprocess

import pytest
from project_copy import RUNS, Project, make_corpus

pytestmark = pytest.mark.slow


@pytest.fixture
def project(tmp_path):
    """A project whose reports lie on a small disk of their own.

    Two LSTM2 that train side by side hold, for a moment, two checkpoints of 8 MB each beside the 50 MB of reports.
    """
    project = Project(tmp_path / "project", make_corpus(tmp_path / "clips"))
    reports = project.folder / "reports"
    reports.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=150m", "tmpfs", str(reports)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"a small disk needs the right to mount one: {mounted.stderr.strip()}")
    yield project
    subprocess.run(["umount", "-l", str(reports)], check=True)


def test_a_full_disk_loses_nothing(project):
    project.build()
    before = project.artefacts()
    filling = project.folder / "reports" / "filling"
    with filling.open("wb") as file, pytest.raises(OSError, match="No space left"):
        while True:
            os.write(file.fileno(), bytes(1 << 12))
    finished = project.valence("report", "--epochs", "3")
    assert finished.returncode == 1
    assert "No space left on device" in finished.stderr + finished.stdout
    assert "free some space" in finished.stderr + finished.stdout
    assert "Traceback" not in finished.stderr
    assert project.artefacts() == before
    # With 5 MB the build begins, and LSTM2, whose checkpoint has 8 MB, finds the disk full in its notebook.
    with filling.open("r+b") as file:
        file.truncate(filling.stat().st_size - (5 << 20))
    finished = project.valence("report", "--epochs", "3")
    assert finished.returncode == 1
    assert "2_experiment.ipynb failed in cell" in finished.stdout
    assert (
        "OSError: [Errno 28] No space left on device\n    The disk is full: free some space"
        in finished.stdout
    )
    assert not list((project.folder / "reports").rglob("*.partial*"))
    # What the build that failed had finished is new; all else, the pages and weights among it, is as it was.
    executed = set(re.findall(r"^\[ *\d+/\d+\] (\S+) +executed$", finished.stdout, re.M))
    assert not executed & {"LSTM2-default-0", "LSTM2-seed-0", "compare", "report", "render"}
    after = project.artefacts()
    assert not [name for name in before if name not in after and "provenance/" not in name]
    for name in (
        "report.html",
        "report.pdf",
        "results.json",
        *(f"runs/{run}/best.safetensors" for run in RUNS - executed),
    ):
        assert after[name] == before[name], name
    filling.unlink()
    project.build()
    assert project.artefacts() == before
    project.build("--epochs", "3")


def test_a_folder_that_can_only_be_read_is_said_to_be_one(project):
    project.build()
    before = project.artefacts()
    reports = project.folder / "reports"
    subprocess.run(["mount", "-o", "remount,ro", str(reports)], check=True)
    finished = project.valence("report", "--epochs", "3")
    assert finished.returncode == 1
    assert "Read-only file system" in finished.stderr
    assert "can only be read: make it writable" in finished.stderr
    assert "Traceback" not in finished.stderr
    assert project.artefacts() == before
    # What needs no writing goes on.
    assert "3" in project.plan("--epochs", "3")["CNN-default-0"]
