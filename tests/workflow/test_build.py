"""From one command to a report: the request, what is refused before any work, and the locks."""

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest

from valence_lib import provenance, registry
from valence_lib.corpora.opening import open_corpus
from valence_lib.errors import CorpusError, RunError, SettingsError
from valence_lib.files import digest_of, digest_of_files, write_json
from valence_lib.registry import Model, training_settings
from valence_lib.workflow import build
from valence_lib.workflow import request as request_module
from valence_lib.workflow.build import build_report, show_plan
from valence_lib.workflow.forkserver import ONE_THREAD
from valence_lib.workflow.jobs import project_root
from valence_lib.workflow.request import Request, default_name, load_best

ROOT = Path(__file__).parents[2]
BEST = {"model": "CNN", "changes": {"learning_rate": 0.01, "standardise": "clip"}, "clips": "", "trials": 20}


def build_now(request, jobs=1, **options):
    """Build a report of the request's corpus as it is now."""
    return build_report(request, request.open_corpus(), jobs, **options)


@pytest.fixture
def manifest_folder(manifest_folder):
    """Twelve clips, enough to be split."""
    with (manifest_folder / "labels.csv").open("a") as table:
        for number in range(6, 12):
            shutil.copy(manifest_folder / "audio" / "5.wav", manifest_folder / "audio" / f"{number}.wav")
            table.write(f"audio/{number}.wav,{number / 4},S{number // 2},sines\n")
    return manifest_folder


@pytest.fixture
def snakemake(tmp_path, monkeypatch):
    """A project in which nothing is built: the commands that start Snakemake are collected."""
    started = []

    def start(command, **_):
        started.append(command)
        return subprocess.CompletedProcess(command, 0)

    for name in ("notebooks", "valence_lib", "workflow", "requirements.lock"):
        (tmp_path / name).symlink_to(ROOT / name)
    for module in (build, request_module):
        monkeypatch.setattr(module, "project_root", lambda: tmp_path)
    monkeypatch.setattr(build, "subprocess", SimpleNamespace(run=start))
    monkeypatch.setattr(build, "serving", lambda *_: nullcontext({}))
    monkeypatch.chdir(tmp_path)
    return started


# The request


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "../elsewhere"}, "cannot name a folder under reports/"),
        ({"name": ".hidden"}, "cannot name a folder"),
        ({"seeds": 0}, "SEEDS=0"),
        ({"epochs": 0}, "epochs=0"),
        ({"seed": -1}, "seed=-1"),
        ({"target": "speaker"}, "TARGET=speaker cannot name"),
    ],
)
def test_a_wrong_request_is_refused(changes, message):
    with pytest.raises(SettingsError, match=re.escape(message)):
        Request(**changes)


@pytest.mark.parametrize(
    ("corpus", "name"),
    [
        ("demo", "demo"),
        ("some/Where/my clips", "my-clips"),
        ("other corpus/labels.csv", "other-corpus"),
        ("labels.csv", "spoken"),
        (".", "spoken"),
        ("some/train.pkl", "train"),
        ("some/all.pickle", "all"),
        ("some/corpus-v1.2", "corpus-v1.2"),
        ("~/speech", "speech"),
        ("---", "report"),
    ],
)
def test_a_report_is_named_after_its_corpus(corpus, name, tmp_path, monkeypatch):
    monkeypatch.setattr(request_module, "project_root", lambda: tmp_path)
    (tmp_path / "spoken").mkdir()
    monkeypatch.chdir(tmp_path / "spoken")
    assert default_name(corpus) == name


def test_a_name_is_not_taken_from_a_report_on_another_corpus(snakemake, manifest_folder):
    assert build_now(Request(corpus=str(manifest_folder), name="spoken"), jobs=1) == 0
    for same in (str(manifest_folder), f"{manifest_folder}/../spoken/", "spoken"):
        assert default_name(same) == "spoken"
    message = r"reports/spoken is on another corpus than 'elsewhere/spoken'; give .* NAME"
    with pytest.raises(RunError, match=message):
        default_name("elsewhere/spoken")


def test_a_report_is_named_after_all_its_corpora_and_another_target(tmp_path, monkeypatch):
    monkeypatch.setattr(request_module, "project_root", lambda: tmp_path)
    assert default_name("demo,some/clips") == "demo-clips"
    assert default_name("some/clips", "demo", "arousal") == "clips-to-demo-arousal"


def test_request_json_holds_all_that_determines_the_results(snakemake, tmp_path, manifest_folder):
    def built(**changes):
        request = Request(**{"corpus": str(manifest_folder), "name": "one", "seeds": 1} | changes)
        assert build_now(request, jobs=2) == 0
        return json.loads((tmp_path / "reports" / "one" / "request.json").read_text())

    def changed(before, now):
        return {name for name, made in before["fingerprints"].items() if now["fingerprints"][name] != made}

    first = built()
    assert first["corpus"] == "spoken"
    assert str(tmp_path) not in json.dumps(first)
    runs = Request(seeds=1).runs()
    assert list(first["jobs"]) == [
        *("preprocess", *runs, "leakage", "compare", "error_analysis", "report", "render")
    ]
    preprocess = first["fingerprints"]["preprocess"]
    corpus = digest_of_files(open_corpus(manifest_folder).files(), manifest_folder)
    assert preprocess["values"]["corpus"] == corpus
    assert preprocess["parameters"]["corpus"] == "../reports/one/corpus"
    assert (tmp_path / "reports" / "one" / "corpus" / "labels.csv").samefile(manifest_folder / "labels.csv")
    experiment = first["fingerprints"]["CNN-course-0"]
    assert experiment["values"]["settings"] == training_settings("CNN", "course", 0).to_mapping()
    assert experiment["parameters"]["device"] == "auto"  # the notebook's default
    assert built() == first
    with (manifest_folder / "labels.csv").open("a") as table:
        table.write("\n")
    assert changed(first, built()) == {"preprocess"}
    assert changed(first, built(epochs=3)) == {"preprocess", *runs}
    assert len(snakemake) == 4
    assert snakemake[0][snakemake[0].index("--cores") + 1] == "2"


@pytest.mark.parametrize("protocol", ["holdout", "cv"])
def test_every_input_is_made_by_a_job_before_or_is_in_the_project(protocol):
    table = {job.name: job for job in Request(name="one", protocol=protocol, preset="best", seeds=1).jobs("")}
    table |= {job.name: job for job in Request(name="one").workers(20, 0.0, 2)}
    before: dict[str, set[str]] = {}
    for name, job in table.items():
        before[name] = {*job.after, *(earlier for after in job.after for earlier in before[after])}
        outputs = {output for earlier in before[name] for output in table[earlier].outputs}
        outputs |= {f"provenance/{earlier}.json" for earlier in before[name]}
        for path in map(Path, job.inputs):
            if path.is_relative_to("reports/one"):
                made = path.relative_to("reports/one")
                assert {str(made), *map(str, made.parents)} & outputs, (name, path)
            else:
                assert (ROOT / path).is_file(), path


def test_a_job_depends_on_the_modules_that_it_reaches():
    reached = {job.name: set(job.fingerprint(ROOT)["modules"]) for job in Request(seeds=1).jobs("")}
    models = {f"valence_lib/models/{name}.py" for name in ("lstm1", "cnn", "lstm2")}
    assert reached["CNN-default-0"] & models == {"valence_lib/models/cnn.py"}
    assert reached["LSTM1-course-0"] & models == {"valence_lib/models/lstm1.py"}
    assert reached["report"] & models == models
    assert reached["preprocess"] & models == reached["compare"] & models == set()
    assert "valence_lib/models/pooling_kernel.py" in reached["CNN-default-0"]
    assert "valence_lib/models/pooling_kernel.py" not in reached["LSTM2-default-0"]
    assert "valence_lib/training/loop.py" in reached["CNN-default-0"]
    assert "valence_lib/corpora/waveforms.py" in reached["preprocess"]
    assert not any("valence_lib/registry.py" in modules for modules in reached.values())


def test_rows_that_are_left_out_are_printed_before_anything_runs(
    snakemake, manifest_folder, monkeypatch, capsys
):
    monkeypatch.setattr(registry, "find_spec", lambda name: None)
    assert build_now(Request(corpus=str(manifest_folder), name="one"), jobs=1) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert "GaussianProcess (needs resemblyzer: `make encoder`)" in first


def test_a_changed_entry_of_the_registry_makes_the_jobs_that_use_it_stale(monkeypatch):
    def fingerprints():
        table = Request(corpus="clips", name="one", seeds=1).jobs("")
        return {job.name: json.loads(json.dumps(job.fingerprint(ROOT))) for job in table}

    before = fingerprints()
    stream = registry.STREAMS["log_mel_statistics"]._replace(groups=5)
    monkeypatch.setitem(registry.STREAMS, "log_mel_statistics", stream)
    monkeypatch.setitem(registry.MODELS, "CNN", Model("valence_lib.models.cnn:Other"))
    now = fingerprints()
    changed = {name for name in before if before[name]["values"] != now[name]["values"]}
    users = {"Ridge-default-0", "SVR-default-0", "CNN-default-0", "CNN-course-0"}
    assert changed == {"preprocess", "leakage", *users}


# Sweeps


def test_the_best_settings_of_a_sweep_are_one_more_row():
    def fingerprints(**changes):
        table = Request(corpus="clips", name="one", seeds=2, **changes).jobs("")
        return {job.name: job.fingerprint(ROOT) for job in table}

    before, now = fingerprints(), fingerprints(best=BEST)
    assert now.keys() - before.keys() == {"CNN-tuned-0", "CNN-tuned-1"}
    assert {name for name in before if now[name] != before[name]} == {"leakage", "compare"}
    tuned = training_settings("CNN", "tuned", 1, learning_rate=0.01, standardise="clip")
    assert now["CNN-tuned-1"]["values"]["settings"] == tuned.to_mapping()
    assert now["CNN-tuned-1"]["parameters"]["changes"] == BEST["changes"]
    assert now["compare"]["parameters"]["tuning"] == BEST
    # The number of trials is reported, but changes no training.
    longer = fingerprints(best=BEST | {"trials": 40})
    assert {name for name in now if now[name] != longer[name]} == {"compare"}


def test_the_best_of_no_sweep_or_of_one_on_other_clips_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(request_module, "project_root", lambda: tmp_path)
    with pytest.raises(RunError, match=r"no reports/one/sweep/best\.json; run `make sweep`"):
        load_best("one")
    folder = tmp_path / "reports" / "one"
    write_json(folder / "sweep" / "best.json", BEST)
    write_json(folder / "preprocess" / "clips.csv", "clips")
    with pytest.raises(RunError, match="chosen on other clips, or on another split"):
        load_best("one")
    best = BEST | {"clips": digest_of(folder / "preprocess" / "clips.csv")}
    write_json(folder / "sweep" / "best.json", best)
    assert load_best("one") == best


def test_a_sweep_is_preprocessing_and_its_workers(snakemake, tmp_path, manifest_folder, capsys):
    request = Request(corpus=str(manifest_folder), name="one")
    found = BEST | {"trial": 3, "validation_mse": 0.5, "pruned": 2}
    write_json(tmp_path / "reports" / "one" / "sweep" / "best.json", found)
    assert build_now(request, 2, workers=request.workers(20, 0.0, 2)) == 0
    written = json.loads((tmp_path / "reports" / "one" / "request.json").read_text())
    assert list(written["jobs"]) == ["preprocess", "sweep-1", "sweep-2"]
    given = written["fingerprints"]["sweep-2"]["parameters"]
    assert (given["budget_trials"], given["budget_minutes"], given["worker"]) == (20, 0.0, 2)
    assert "reports/one/provenance/sweep-2.json" in snakemake[0]
    assert "20 trials" in capsys.readouterr().out
    with pytest.raises(SettingsError, match="JOBS=0 was given; expected the number of workers"):
        request.workers(20, 0.0, 0)


# What is refused


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"jobs": 0}, "JOBS=0"),
        ({"time_limit": 0.0}, "TIME_LIMIT=0"),
        ({"time_limit": -5.0}, "TIME_LIMIT=-5"),
        ({"profile": "slrum"}, "no profile 'slrum'. Did you mean 'slurm'?"),
        ({"profile": ""}, "no profile ''"),
    ],
)
def test_wrong_options_are_refused(snakemake, given, message):
    with pytest.raises(SettingsError, match=re.escape(message)):
        build_now(Request(), **{"jobs": 1, **given})


def test_a_profile_that_is_no_mapping_is_refused(snakemake, tmp_path):
    (tmp_path / "workflow").unlink()
    profile = tmp_path / "workflow" / "profiles" / "own" / "config.yaml"
    profile.parent.mkdir(parents=True)
    for content in ("executor: [", "", "- slurm"):
        profile.write_text(content)
        with pytest.raises(SettingsError, match=r"(?s)own/config\.yaml cannot be read .*expected lines"):
            build_now(Request(), jobs=1, profile="own")


def test_a_missing_corpus_stops_before_anything_is_written():
    with pytest.raises(CorpusError, match="there is no corpus at"):
        build_now(Request(corpus="nowhere", name="never-made"), jobs=1)
    assert not (ROOT / "reports" / "never-made").exists()


def test_a_plan_writes_nothing(snakemake, tmp_path, manifest_folder, capsys):
    request = Request(corpus=str(manifest_folder), name="one")
    show_plan(request, request.open_corpus())
    assert not (tmp_path / "reports").exists()
    assert re.search(r"^render +not finished yet$", capsys.readouterr().out, re.M)
    assert build_now(request) == 0
    link = (tmp_path / "reports" / "one" / "corpus").readlink()
    shutil.copytree(manifest_folder, tmp_path / "others")
    moved = Request(corpus=str(tmp_path / "others"), name="one")
    show_plan(moved, moved.open_corpus())
    assert (tmp_path / "reports" / "one" / "corpus").readlink() == link


def test_a_copied_report_that_holds_the_corpus_keeps_it(snakemake, tmp_path, manifest_folder):
    copied = tmp_path / "reports" / "one" / "corpus"
    shutil.copytree(manifest_folder, copied)
    with pytest.raises(RunError, match=r"^reports/one/corpus is a folder; expected the link"):
        build_now(Request(corpus=str(manifest_folder), name="one"), jobs=1)
    assert (copied / "labels.csv").is_file()
    assert not snakemake


def test_the_project_root_holds_the_workflow(monkeypatch, tmp_path):
    assert project_root() == ROOT
    monkeypatch.setattr(provenance, "PACKAGE", tmp_path / "valence_lib")
    with pytest.raises(RunError, match="made from a clone of the project"):
        project_root()


# Locks

HOLDER = (
    "import sys; from pathlib import Path; from valence_lib.workflow.job import lock_while_running\n"
    "with lock_while_running(Path(sys.argv[1])):\n"
    "    print('held', flush=True)\n"
    "    sys.stdin.read()\n"
)


@pytest.fixture
def running_job(tmp_path):
    """A process that holds the lock of a running job until it is killed or its input ends."""
    folder = tmp_path / "reports" / "one"
    folder.mkdir(parents=True)
    command = [sys.executable, "-c", HOLDER, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        yield holder
        holder.kill()


@pytest.mark.parametrize("end", ["finished", "killed"])
def test_a_build_waits_for_a_job_that_outlived_the_build_before(snakemake, running_job, end, capsys):
    thread = threading.Thread(target=build_now, args=(Request(name="one"),), daemon=True)
    thread.start()
    printed, deadline = "", time.monotonic() + 30
    while "A notebook of a build that was killed is still running" not in printed:
        assert time.monotonic() < deadline, printed
        printed += capsys.readouterr().out
        thread.join(0.02)
    assert thread.is_alive()
    assert snakemake == []
    if end == "killed":
        running_job.kill()
    else:
        running_job.stdin.close()
    thread.join(20)
    assert not thread.is_alive()
    assert len(snakemake) == 1


def test_only_one_build_works_on_a_report(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "project_root", lambda: tmp_path)
    folder = tmp_path / "reports" / "one"
    folder.mkdir(parents=True)
    with (folder / ".lock").open("w") as lock:
        lock.write("4711")
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(RunError, match=r"another build is at work on 'one' \(process 4711\)"):
            build_now(Request(name="one"), jobs=1)


def test_the_modules_that_are_imported_once_start_no_thread_and_are_in_no_notebook():
    program = f"""if True:
        import importlib, sys
        from pathlib import Path
        for name in {build._WARM}:
            importlib.import_module(name)
        print(len(list(Path("/proc/self/task").iterdir())) if sys.platform == "linux" else 1)
        aware = {{"valence_lib.training.loop", "valence_lib.preprocess.inspection", "ipywidgets"}}
        print(aware & set(sys.modules))
    """
    finished = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, env=os.environ | ONE_THREAD
    )
    assert (finished.stdout, finished.returncode) == ("1\nset()\n", 0), finished.stderr


# The Makefile


def test_make_help_lists_every_target_with_one_line():
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.M).group(1).split()
    lines = [line.split(maxsplit=2) for line in listed.splitlines() if line.startswith("make ")]
    assert [target for _, target, _ in lines] == phony


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("SEEDD=3", "There is no variable SEEDD. Did you mean SEED?"),
        ("preset=course", "There is no variable preset. Did you mean PRESET?"),
        ("XYZ=1", "There is no variable XYZ. Known: PYTHON CORPUS TEST_CORPUS TARGET COLUMNS NAME"),
    ],
)
def test_a_misspelt_variable_of_make_stops_before_any_work(given, message):
    command = ["make", "--dry-run", "report", "CORPUS=my clips=new"]
    # As from a shell: make hands its variables on to a make that runs in it.
    shell = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    finished = subprocess.run([*command, given], cwd=ROOT, env=shell, capture_output=True, text=True)
    assert (finished.returncode, finished.stdout) == (2, "")
    assert message in finished.stderr
    assert subprocess.run(command, cwd=ROOT, env=shell, capture_output=True).returncode == 0


@pytest.mark.parametrize("page", ["README.md", "ARCHITECTURE.md"])
def test_the_links_of_a_page_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#:]+)\)", (ROOT / page).read_text())
    assert [link for link in links if not (ROOT / link).exists()] == []
