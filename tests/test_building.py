"""From one command to a report: what is refused before any work, and the lock."""

import fcntl
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from valence_lib import building
from valence_lib.building import Request, build_report, default_name, project_root
from valence_lib.errors import CorpusError, RunError, SettingsError

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"preset": "sede"}, "no preset 'sede'. Did you mean 'seed'"),
        ({"name": "../elsewhere"}, "cannot name a folder under reports/"),
        ({"name": ".hidden"}, "cannot name a folder"),
        ({"seeds": 0}, "SEEDS=0"),
        ({"epochs": 0}, "epochs=0"),
        ({"seed": -1}, "seed=-1"),
        ({"valence_low": 5.0}, "valence_high"),
    ],
)
def test_a_request_that_cannot_be_met_is_refused(changes, message):
    with pytest.raises(SettingsError, match=re.escape(message)):
        Request(**changes)


def test_runs_are_every_model_and_seed_of_the_preset_and_of_raw_decibels():
    runs = Request(seed=5, seeds=2).runs()
    assert len(runs) == 2 * 3 * 2
    assert {run["preset"] for run in runs} == {"default", "seed"}
    assert {run["seed"] for run in runs} == {5, 6}
    assert len(Request(preset="seed", seeds=2).runs()) == 3 * 2


@pytest.mark.parametrize(
    ("corpus", "name"),
    [("demo", "demo"), ("some/Where/my clips", "my-clips"), ("some/labels.csv", "labels"), ("...", "report")],
)
def test_a_report_is_named_after_its_corpus(corpus, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if corpus == "...":
        corpus = str(tmp_path / "---")
    assert default_name(corpus) == name


def test_a_corpus_that_is_not_there_stops_before_anything_is_written():
    with pytest.raises(CorpusError, match="there is no corpus at"):
        build_report(Request(corpus="nowhere", name="never-made"), jobs=1)
    assert not (ROOT / "reports" / "never-made").exists()


def test_only_one_build_works_on_a_report(tmp_path, monkeypatch):
    monkeypatch.setattr(building, "project_root", lambda: tmp_path)
    folder = tmp_path / "reports" / "one"
    folder.mkdir(parents=True)
    with (folder / ".lock").open("w") as lock:
        lock.write("4711")
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(RunError, match=r"another build is at work on 'one' \(process 4711\)"):
            build_report(Request(name="one"), jobs=1)


def test_the_project_root_holds_the_workflow(monkeypatch, tmp_path):
    assert project_root() == ROOT
    monkeypatch.setattr(building, "__file__", str(tmp_path / "valence_lib" / "building.py"))
    with pytest.raises(RunError, match="made from a clone of the project"):
        project_root()


def test_make_help_lists_every_target_with_one_line():
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    makefile = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.M).group(1).split()
    assert [line.split()[1] for line in listed.splitlines() if line.startswith("make ")] == phony
    assert all(len(line.split(maxsplit=2)) == 3 for line in listed.splitlines() if line.startswith("make "))


def locked() -> dict[str, str]:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    return dict(
        line.lower().replace("_", "-").split("==") for line in lines if line and not line.startswith("#")
    )


def test_the_lock_file_pins_every_package_that_the_project_names():
    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for text in project["dependencies"] + project["optional-dependencies"]["develop"]:
        requirement = Requirement(text)
        assert requirement.name.lower() in locked(), requirement.name
        assert requirement.specifier.contains(locked()[requirement.name.lower()]), text


def test_the_lock_file_is_what_is_installed():
    from importlib.metadata import PackageNotFoundError, version

    for name, pinned in locked().items():
        try:
            installed = version(name)
        except PackageNotFoundError:
            pytest.fail(f"{name} of requirements.lock is not installed")
        assert installed.split("+")[0] == pinned.split("+")[0], name


def test_conda_gets_the_same_set():
    environment = (ROOT / "environment.yml").read_text()
    assert "- -r requirements.lock" in environment
    required = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    python = re.search(r"python=(\d+\.\d+)", environment).group(1)
    assert required == f">={python}"
    assert sys.version_info >= tuple(map(int, python.split(".")))
