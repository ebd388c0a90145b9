"""A full disk and one that can only be read: a clear message, and every earlier result is whole."""

import os
import re
import shutil
import subprocess

import pytest
from project_copy import RUNS

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("builds")]


@pytest.fixture
def on_small_disk(project):
    """The built project, with its reports on a disk of 150 MB."""
    reports, copy = project.folder / "reports", project.folder / "copy"
    reports.rename(copy)
    reports.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=150m", "tmpfs", reports]
    mounted = subprocess.run(mount, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"mounting a small disk is not permitted: {mounted.stderr.strip()}")
    shutil.copytree(copy, reports, symlinks=True, dirs_exist_ok=True)
    yield project
    subprocess.run(["umount", "-l", reports], check=True)


def test_a_full_disk_loses_nothing(on_small_disk):
    project = on_small_disk
    before = project.artefacts()
    filling = project.folder / "reports" / "filling"
    with filling.open("wb") as file, pytest.raises(OSError, match="No space left"):
        while True:
            os.write(file.fileno(), bytes(1 << 12))
    finished = project.run("report", "--epochs", "3")
    assert finished.returncode == 1
    assert "No space left on device" in finished.stdout
    assert "free some space" in finished.stdout
    assert "Traceback" not in finished.stdout
    assert project.artefacts() == before
    # 5 MB suffice to begin, but not for the checkpoint of LSTM2, which has 8 MB.
    with filling.open("r+b") as file:
        file.truncate(filling.stat().st_size - (5 << 20))
    finished = project.run("report", "--epochs", "3")
    assert finished.returncode == 1
    assert "2_experiment.ipynb failed in cell" in finished.stdout
    message = "OSError: [Errno 28] No space left on device\n    The disk is full: free some space"
    assert message in finished.stdout
    assert not list((project.folder / "reports").rglob("*.partial*"))
    # Only the jobs that ended have new outputs.
    executed = set(re.findall(r"^\[ *\d+/\d+\] (\S+) +executed$", finished.stdout, re.M))
    assert not executed & {"LSTM2-course-0", "compare", "report", "render"}
    after = project.artefacts()
    assert not [name for name in before if name not in after and "provenance/" not in name]
    weights = [f"runs/{run}/best.safetensors" for run in RUNS - executed]
    unchanged = ["report.html", "report.pdf", "results.json", *weights]
    assert {name: after[name] for name in unchanged} == {name: before[name] for name in unchanged}
    filling.unlink()
    project.build()
    assert project.artefacts() == before


def test_a_read_only_folder_is_named_in_the_message(on_small_disk):
    project = on_small_disk
    before = project.artefacts()
    subprocess.run(["mount", "-o", "remount,ro", project.folder / "reports"], check=True)
    finished = project.run("report", "--epochs", "3")
    assert finished.returncode == 1
    assert "Read-only file system" in finished.stdout
    assert "read-only: make it writable" in finished.stdout
    assert "Traceback" not in finished.stdout
    assert project.artefacts() == before
    # A plan writes nothing.
    assert "3" in project.plan("--epochs", "3")["CNN-course-0"]
