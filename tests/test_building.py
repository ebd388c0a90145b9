"""From one command to a report: what is refused before any work, and the lock."""

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import tomllib
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest

from valence_lib import building, jobs, records, registry
from valence_lib.building import build_report, held_while_running
from valence_lib.corpora import open_corpus
from valence_lib.errors import CorpusError, NotebookError, RunError, SettingsError
from valence_lib.files import digest_of, digest_of_files, write_json
from valence_lib.jobs import Job, Request, default_name, load_best, project_root
from valence_lib.notebooks import run_notebook
from valence_lib.registry import training_settings
from valence_lib.warm_start import ONE_THREAD

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    ("changes", "message"),
    [
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


@pytest.mark.parametrize(
    ("corpus", "name"),
    [
        ("demo", "demo"),
        ("some/Where/my clips", "my-clips"),
        ("some/labels.csv", "some"),
        ("other corpus/labels.csv", "other-corpus"),
        ("some/train.pkl", "train"),
        ("some/all.pickle", "all"),
        ("some/corpus-v1.2", "corpus-v1.2"),
        ("~/speech", "speech"),
        ("---", "report"),
    ],
)
def test_a_report_is_named_after_its_corpus(corpus, name, tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "project_root", lambda: tmp_path)
    monkeypatch.chdir(tmp_path)
    assert default_name(corpus) == name


def test_a_manifest_here_is_named_after_this_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "project_root", lambda: tmp_path)
    (tmp_path / "spoken").mkdir()
    monkeypatch.chdir(tmp_path / "spoken")
    assert default_name("labels.csv") == default_name(".") == "spoken"


@pytest.fixture
def snakemake(tmp_path, monkeypatch):
    """A project of its own, in which what Snakemake is started with is noted and nothing is built."""
    started = []

    def start(command, **_):
        started.append(command)
        return subprocess.CompletedProcess(command, 0)

    for name in ("notebooks", "valence_lib", "workflow", "requirements.lock"):
        (tmp_path / name).symlink_to(ROOT / name)
    for module in (building, jobs):
        monkeypatch.setattr(module, "project_root", lambda: tmp_path)
    monkeypatch.setattr(building, "subprocess", SimpleNamespace(run=start))
    monkeypatch.setattr(building, "serving", lambda *_: nullcontext({}))
    return started


def test_a_name_is_not_taken_from_a_report_on_another_corpus(
    snakemake, tmp_path, manifest_folder, monkeypatch
):
    assert default_name(str(manifest_folder)) == "spoken"
    assert build_report(Request(corpus=str(manifest_folder), name="spoken"), jobs=1) == 0
    # The same corpus again, however it is written, is the same report; it only brings it up to date.
    assert default_name(str(manifest_folder)) == "spoken"
    assert default_name(f"{manifest_folder}/../spoken/") == "spoken"
    monkeypatch.chdir(tmp_path)
    assert default_name("spoken") == "spoken"
    with pytest.raises(
        RunError, match=r"reports/spoken is on another corpus than 'elsewhere/spoken'; give .* NAME"
    ):
        default_name("elsewhere/spoken")
    assert default_name("elsewhere/written") == "written"


def test_a_request_says_what_its_results_depend_on(snakemake, tmp_path, manifest_folder):
    def build(**changes):
        asked = {"corpus": str(manifest_folder), "name": "one", "seeds": 1} | changes
        assert build_report(Request(**asked), jobs=2) == 0
        return json.loads((tmp_path / "reports" / "one" / "request.json").read_text())

    first = build()
    assert first["corpus"] == "spoken"  # seen from the project
    assert str(tmp_path) not in json.dumps(first)
    assert first["runs"] == Request(seeds=1).runs()
    assert list(first["jobs"]) == [
        "preprocess",
        *first["runs"],
        "leakage",
        "compare",
        "error_analysis",
        "report",
        "render",
    ]
    preprocess = first["jobs"]["preprocess"]["made_of"]
    assert preprocess["values"] == {
        "corpus": digest_of_files(open_corpus(manifest_folder).files(), manifest_folder)
    }
    assert preprocess["parameters"]["corpus"] == "../reports/one/corpus"
    assert (tmp_path / "reports" / "one" / "corpus" / "labels.csv").samefile(manifest_folder / "labels.csv")
    experiment = first["jobs"]["CNN-seed-0"]["made_of"]
    assert experiment["values"] == {"settings": training_settings("CNN", "seed", 0).to_mapping()}
    assert experiment["parameters"]["device"] == "auto"  # the notebook's own default, resolved
    assert build() == first
    with (manifest_folder / "labels.csv").open("a") as table:
        table.write("\n")
    assert changed_jobs(first, build()) == {"preprocess"}
    assert changed_jobs(first, build(epochs=3)) == {"preprocess", *first["runs"]}
    assert len(snakemake) == 4
    assert snakemake[0][snakemake[0].index("--cores") + 1] == "2"


def test_what_is_left_out_is_said_before_anything_runs(snakemake, manifest_folder, monkeypatch, capsys):
    request = Request(corpus=str(manifest_folder), name="one")
    monkeypatch.setattr(registry, "find_spec", lambda name: object())
    assert build_report(request, jobs=1) == 0
    assert "Left out" not in capsys.readouterr().out
    monkeypatch.setattr(registry, "find_spec", lambda name: None)
    assert build_report(request, jobs=1) == 0
    said = capsys.readouterr().out
    expected = (
        "Left out, since what they need is not installed: GaussianProcess, which needs resemblyzer "
        "(`make encoder`)."
    )
    assert said.splitlines()[0] == expected


BEST = {"model": "CNN", "changes": {"learning_rate": 0.01, "standardise": "clip"}, "clips": "", "trials": 20}


def test_what_a_sweep_found_best_is_one_row_more(snakemake, tmp_path, manifest_folder):
    def made_of(**changes):
        request = Request(corpus=str(manifest_folder), name="one", seeds=2, **changes)
        return {job.name: job.made_of(tmp_path) for job in request.jobs("")}

    before, now = made_of(), made_of(best=BEST)
    assert now.keys() - before.keys() == {"CNN-tuned-0", "CNN-tuned-1"}
    # No other training is touched, and the tuned one only by what is trained.
    assert {name for name in before if now[name] != before[name]} == {"leakage", "compare"}
    tuned = training_settings("CNN", "tuned", 1, learning_rate=0.01, standardise="clip")
    assert now["CNN-tuned-1"]["values"] == {"settings": tuned.to_mapping()}
    assert now["CNN-tuned-1"]["parameters"]["changes"] == BEST["changes"]
    assert now["compare"]["parameters"]["tuning"] == BEST
    longer = made_of(best=BEST | {"trials": 40})
    assert {name for name in now if now[name] != longer[name]} == {"compare"}
    other = made_of(best=BEST | {"changes": {"learning_rate": 0.02}})
    assert {name for name in now if now[name] != other[name]} == {"CNN-tuned-0", "CNN-tuned-1", "compare"}


def test_the_best_of_no_sweep_or_of_one_on_other_clips_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "project_root", lambda: tmp_path)
    with pytest.raises(RunError, match=r"no reports/one/sweep/best\.json; run `make sweep`"):
        load_best("one")
    folder = tmp_path / "reports" / "one"
    for name in ("sweep", "preprocess"):
        (folder / name).mkdir(parents=True)
    (folder / "preprocess" / "clips.csv").write_text("id\n")
    (folder / "sweep" / "best.json").write_text(json.dumps(BEST))
    with pytest.raises(RunError, match="chosen on other clips, or on another division"):
        load_best("one")
    best = BEST | {"clips": digest_of(folder / "preprocess" / "clips.csv")}
    (folder / "sweep" / "best.json").write_text(json.dumps(best))
    assert load_best("one") == best


def test_a_sweep_is_preprocessing_and_its_workers(snakemake, tmp_path, manifest_folder, capsys):
    request = Request(corpus=str(manifest_folder), name="one")
    found = BEST | {"trial": 3, "validation_mse": 0.5, "pruned": 2}
    write_json(tmp_path / "reports" / "one" / "sweep" / "best.json", found)
    assert build_report(request, 2, workers=request.workers(20, 0.0, 2)) == 0
    written = json.loads((tmp_path / "reports" / "one" / "request.json").read_text())
    assert list(written["jobs"]) == ["preprocess", "sweep-1", "sweep-2"]
    given = written["jobs"]["sweep-2"]["made_of"]["parameters"]
    assert (given["budget_trials"], given["budget_minutes"], given["worker"]) == (20, 0.0, 2)
    targets = [word for word in snakemake[0] if word.endswith("provenance/sweep-2.json")]
    assert len(targets) == 2  # as a target and as one that is stale
    assert "The tuned preset is the best of 20 trials" in capsys.readouterr().out
    with pytest.raises(SettingsError, match="JOBS=0 was given; expected how many workers"):
        request.workers(20, 0.0, 0)


def changed_jobs(before, now):
    return {name for name, job in before["jobs"].items() if now["jobs"][name] != job}


def test_a_job_is_made_of_the_modules_that_it_reaches(snakemake, tmp_path):
    steps = {job.name: set(job.made_of(tmp_path)["modules"]) for job in Request(seeds=1).jobs("")}
    models = {f"valence_lib/models/{name}.py" for name in ("lstm1", "cnn", "lstm2")}
    assert steps["CNN-default-0"] & models == {"valence_lib/models/cnn.py"}
    assert steps["LSTM1-seed-0"] & models == {"valence_lib/models/lstm1.py"}
    assert steps["report"] & models == models
    assert steps["preprocess"] & models == steps["compare"] & models == set()
    assert "valence_lib/pooling.py" in steps["CNN-default-0"]
    assert "valence_lib/pooling.py" not in steps["LSTM2-default-0"]
    assert "valence_lib/training.py" in steps["CNN-default-0"]
    assert "valence_lib/waveforms.py" in steps["preprocess"]
    assert not any("valence_lib/registry.py" in modules for modules in steps.values())


@pytest.mark.parametrize(
    ("given", "message"),
    [({"jobs": 0}, "JOBS=0"), ({"time_limit": 0.0}, "TIME_LIMIT=0"), ({"time_limit": -5.0}, "TIME_LIMIT=-5")],
)
def test_what_would_never_end_is_refused(snakemake, given, message):
    with pytest.raises(SettingsError, match=message):
        build_report(Request(), **{"jobs": 1, **given})


def test_a_plan_moves_nothing(snakemake, tmp_path, manifest_folder, capsys):
    building.show_plan(Request(corpus=str(manifest_folder), name="one"))
    assert not (tmp_path / "reports").exists()
    assert build_report(Request(corpus=str(manifest_folder), name="one"), jobs=1) == 0
    link = (tmp_path / "reports" / "one" / "corpus").readlink()
    shutil.copytree(manifest_folder, tmp_path / "others")
    building.show_plan(Request(corpus=str(tmp_path / "others"), name="one"))
    assert (tmp_path / "reports" / "one" / "corpus").readlink() == link


def test_a_copy_of_a_report_that_holds_its_corpus_keeps_it(snakemake, tmp_path, manifest_folder, monkeypatch):
    monkeypatch.chdir(tmp_path)
    copied = tmp_path / "reports" / "one" / "corpus"
    shutil.copytree(manifest_folder, copied)
    with pytest.raises(RunError, match=r"^reports/one/corpus is a folder; expected the link"):
        build_report(Request(corpus=str(manifest_folder), name="one"), jobs=1)
    assert (copied / "labels.csv").is_file()
    assert not snakemake


@pytest.mark.parametrize("profile", ["slrum", ""])
def test_a_profile_that_is_not_there_is_refused(snakemake, profile):
    with pytest.raises(SettingsError, match=f"no profile '{profile}'"):
        build_report(Request(), jobs=1, profile=profile)


HOLDER = (
    "import sys; from pathlib import Path; from valence_lib.building import held_while_running\n"
    "with held_while_running(Path(sys.argv[1])):\n"
    "    print('held', flush=True)\n"
    "    sys.stdin.read()\n"
)


@pytest.fixture
def notebook_at_work(tmp_path):
    """A process that holds the file of a report's notebooks until it is killed or its input ends."""
    folder = tmp_path / "reports" / "one"
    folder.mkdir(parents=True)
    command = [sys.executable, "-c", HOLDER, str(folder / building.HELD_BY_NOTEBOOKS)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        yield holder
        holder.kill()


@pytest.mark.parametrize("end", ["finished", "killed"])
def test_a_build_waits_for_a_notebook_that_outlived_the_one_before(snakemake, notebook_at_work, end, capsys):
    build = threading.Thread(target=build_report, args=(Request(name="one"), 1), daemon=True)
    build.start()
    said, patience = "", time.monotonic() + 30
    while "A notebook of a build that was killed is still at work" not in said:
        assert time.monotonic() < patience, said
        said += capsys.readouterr().out
        build.join(0.02)
    assert build.is_alive()
    assert snakemake == []
    assert not (ROOT / "reports" / "one").exists()
    if end == "killed":
        notebook_at_work.kill()
    else:
        notebook_at_work.stdin.close()
    build.join(20)
    assert not build.is_alive()
    assert len(snakemake) == 1


def test_a_build_waits_for_nothing_where_no_notebook_is_at_work(snakemake, capsys):
    for _ in range(2):
        assert build_report(Request(name="one"), jobs=1) == 0
    assert len(snakemake) == 2
    assert "still at work" not in capsys.readouterr().out


def test_what_is_imported_once_a_build_is_in_no_notebook_yet():
    # A thread would be lost in a fork, and these find out at their import whether they are in a notebook.
    program = f"""if True:
        import importlib, sys
        from pathlib import Path
        for name in {building._WARM}:
            importlib.import_module(name)
        print(len(list(Path("/proc/self/task").iterdir())) if sys.platform == "linux" else 1)
        print({{"valence_lib.training", "valence_lib.inspection", "ipywidgets"}} & set(sys.modules))
    """
    environment = os.environ | ONE_THREAD
    finished = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, env=environment
    )
    assert (finished.stdout, finished.returncode) == ("1\nset()\n", 0), finished.stderr


def test_many_notebooks_of_one_build_work_side_by_side(notebook_at_work, tmp_path):
    file = tmp_path / "reports" / "one" / building.HELD_BY_NOTEBOOKS
    with (
        held_while_running(file),
        held_while_running(file),
        file.open("a") as other,
        pytest.raises(BlockingIOError),
    ):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    notebook_at_work.communicate("")
    with file.open("a") as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


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
    monkeypatch.setattr(jobs, "PACKAGE", tmp_path / "valence_lib")
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


def test_what_the_readme_links_to_is_there():
    for page in ("README.md", "ARCHITECTURE.md"):
        links = re.findall(r"\]\(([^)#:]+)\)", (ROOT / page).read_text())
        assert [link for link in links if not (ROOT / link).exists()] == []


# One job

NOTEBOOK_THAT_LOOKS = """import fcntl
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
    """A project with one notebook, whose job's report is asked for."""
    (tmp_path / "notebooks").mkdir()
    cells = [
        nbformat.v4.new_markdown_cell("# About"),
        nbformat.v4.new_code_cell('report = ""\nseed = 0', metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell(NOTEBOOK_THAT_LOOKS),
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    content = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    nbformat.write(content, tmp_path / "notebooks" / "x.ipynb")
    (tmp_path / "requirements.lock").write_text("numpy==2.4.6\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(building, "project_root", lambda: tmp_path)
    return tmp_path


def ask(project, **parameters):
    """Ask for the job with these parameters, and do it; how it ended, and what was told meanwhile."""
    folder = Path("reports") / "one"
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    job = Job("x", "notebooks/x.ipynb", "x.ipynb", {"report": "../reports/one", **parameters})
    write_json(
        folder / "request.json",
        {
            "time_limit": None,
            "corpus": "demo",
            "jobs": {"x": {"job": asdict(job), "made_of": job.made_of(project)}},
        },
    )
    (folder / "logs" / "progress.jsonl").write_text("")
    building.run_job(folder, "x", [], [folder / "x.ipynb", folder / "made.txt"])
    told = [json.loads(line) for line in (folder / "logs" / "progress.jsonl").read_text().splitlines()]
    assert all(line["job"] == "x" for line in told)
    return told[-1]["ended"], told


def test_a_job_is_done_once_and_found_again(project):
    folder = project / "reports" / "one"
    ended, told = ask(project, seed=3)
    assert ended == "executed"
    assert (folder / "made.txt").read_text() == "held 3"  # later builds wait for a notebook that runs
    assert {"job": "x", "cell": 3, "cells": 3} in told
    assert {"job": "x", "step": "epoch 3/20"} in told
    assert "held 3" in (folder / "logs" / "x.log").read_text()
    first = (folder / "x.ipynb").read_bytes()
    record = records.load_record(folder / "provenance" / "x.json")
    assert set(record.leaves) == {"x.ipynb", "made.txt"}
    assert record.made_of["parameters"] == {"report": "../reports/one", "seed": 3}
    with (folder / building.HELD_BY_NOTEBOOKS).open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    assert ask(project, seed=3)[0] == "up to date"
    assert ask(project, seed=4)[0] == "executed"
    assert ask(project, seed=3)[0] == "restored"
    assert ((folder / "made.txt").read_text(), (folder / "x.ipynb").read_bytes()) == ("held 3", first)
    (folder / "made.txt").unlink()
    assert ask(project, seed=3)[0] == "restored"

    # Text alone is told anew, without the kernel: as executing it would have given.
    source = project / "notebooks" / "x.ipynb"
    source.write_text(source.read_text().replace("# About", "# About this"))
    assert ask(project, seed=3)[0] == "up to date"
    told_anew = (folder / "x.ipynb").read_bytes()
    assert b"# About this" in told_anew
    shutil.rmtree(project / "reports")
    assert ask(project, seed=3)[0] == "executed"
    assert (folder / "x.ipynb").read_bytes() == told_anew


def test_what_changed_while_it_was_in_use_is_not_kept(project):
    source = project / "notebooks" / "x.ipynb"
    edit = "own = Path('x.ipynb'); _ = own.write_text(own.read_text().replace('epoch 3/20', 'epoch 4/20'))"
    source.write_text(source.read_text().replace("print(found, seed)", edit))
    with pytest.raises(RunError, match=r"what x is made of changed while it was at work \(its code changed"):
        ask(project)
    assert not (project / "reports" / "one" / "provenance").exists()
    assert not list((project / "reports" / ".results").glob("[!.]*"))


def test_a_job_that_fails_tells_why(project):
    source = project / "notebooks" / "x.ipynb"
    source.write_text(source.read_text().replace("print(found, seed)", "1 / 0"))
    with pytest.raises(NotebookError, match="ZeroDivisionError"):
        ask(project)
    folder = project / "reports" / "one"
    told = json.loads((folder / "logs" / "progress.jsonl").read_text().splitlines()[-1])
    assert told["ended"] == "failed"
    assert "jupyter lab reports/one/x.failed.ipynb" in told["message"]
    assert "ZeroDivisionError" in (folder / "logs" / "x.log").read_text()


def test_a_notebook_that_hangs_is_stopped_at_its_time_limit(project):
    source = project / "notebooks" / "x.ipynb"
    source.write_text(source.read_text().replace("print(found, seed)", "import time; time.sleep(60)"))
    began = time.monotonic()
    with pytest.raises(NotebookError, match=r"stopped in its code cell 3 of 3 after 4 s.*TIME_LIMIT"):
        run_notebook(source, project / "out.ipynb", {"report": str(project)}, time_limit=4)
    assert time.monotonic() - began < 40
    assert [path.name for path in project.glob("out*")] == ["out.failed.ipynb"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("SEEDD=3", "There is no variable SEEDD. Did you mean SEED?"),
        ("preset=seed", "There is no variable preset. Did you mean PRESET?"),
        ("XYZ=1", "There is no variable XYZ. Known: PYTHON CORPUS NAME"),
    ],
)
def test_a_misspelt_variable_of_make_stops_before_any_work(given, said):
    asked = ["make", "--dry-run", "report", given, "CORPUS=my clips=new"]
    # As from a shell: make hands its variables on to a make that runs in it.
    shell = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    finished = subprocess.run(asked, cwd=ROOT, env=shell, capture_output=True, text=True)
    assert finished.returncode == 2
    assert said in finished.stderr
    assert finished.stdout == ""
    assert subprocess.run([*asked[:3], asked[4]], cwd=ROOT, env=shell, capture_output=True).returncode == 0
