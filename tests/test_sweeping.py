"""Sweeps: the budget holds for all workers together, a kill costs at most its own trial, and the best trial is the best."""

import contextlib
import io
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import optuna
import pandas as pd
import psutil
import pytest
import torch
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from project_copy import Project, make_corpus
from toy import make_material

from valence_lib import sweeping
from valence_lib.errors import RunError, SettingsError, TrainingError
from valence_lib.files import digest_of
from valence_lib.progress import JobProgress, Progress
from valence_lib.registry import training_settings
from valence_lib.settings import TrainingSettings
from valence_lib.sweeping import (
    SPACE,
    Sweep,
    _open_study,
    _settings_of,
    save_best,
    space_table,
    trials_table,
    work,
)
from valence_lib.training import Material

CPU = torch.device("cpu")
ROOT = Path(__file__).parent.parent
WORKER = """
import sys, torch
from pathlib import Path
from toy import make_material
from valence_lib.sweeping import Sweep, work
report, trials, epochs = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
material = make_material(report.parent / "features")
print("ready", flush=True)
work(material, Sweep(trials, epochs=epochs), report / "sweep", torch.device("cpu"))
"""


@pytest.fixture(scope="module")
def reports(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("reports")


@pytest.fixture(scope="module")
def material(reports) -> Material:
    return make_material(reports / "features")


@pytest.fixture
def report(reports, request) -> Path:
    return make_report(reports, request.node.name)


def make_report(reports: Path, name: str) -> Path:
    (reports / name / "preprocess").mkdir(parents=True)
    (reports / name / "preprocess" / "clips.csv").write_text("id\n")
    return reports / name


EIGHT = Sweep(8, epochs=2)


@pytest.fixture(scope="module")
def undisturbed(reports, material) -> tuple[optuna.Study, Path, list[str]]:
    """A study of eight trials by one worker, its report, and the printed lines."""
    report = make_report(reports, "undisturbed")
    with contextlib.redirect_stdout(io.StringIO()) as out:
        study = work(material, EIGHT, report / "sweep", CPU)
    return study, report, out.getvalue().splitlines()


def start_worker(report: Path, trials: int, epochs: int = 2) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, str(report), str(trials), str(epochs)],
        env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{Path(__file__).parent}"},
        stdout=subprocess.PIPE,
        text=True,
    )


def begun(folder: Path) -> int:
    """How many trials of the journal in a folder have begun."""
    journal = folder / "study.log"
    return journal.read_text().count('"user_attr":{"worker":') if journal.exists() else 0


def wait_for_trials(folder: Path, count: int, worker: subprocess.Popen) -> None:
    """Wait until so many trials have begun."""
    while begun(folder) < count:
        assert worker.poll() is None
        time.sleep(0.01)
    time.sleep(0.02)  # a kill during a write blocks the journal for the grace period of its lock


def settings(table: pd.DataFrame) -> pd.DataFrame:
    """The columns that do not depend on kills: all but the trials' numbers."""
    return table.drop(columns="trial").reset_index(drop=True)


# What is tried


def test_every_setting_of_the_space_is_one_of_a_training():
    fields = TrainingSettings.__dataclass_fields__
    assert set(SPACE) <= set(fields)
    corners = {name: [tried.low, tried.high] if hasattr(tried, "low") else tried.choices for name, tried in SPACE.items()}  # fmt: skip
    for values in itertools.zip_longest(*corners.values()):
        params = {name: given if (given := value) is not None else corners[name][0] for name, value in zip(corners, values, strict=True)}  # fmt: skip
        made = _settings_of(params, Sweep(epochs=7, seed=3))
        assert (made.preset, made.seed, made.epochs, made.model) == ("tuned", 3, 7, params["model"])


def test_settings_have_three_digits_and_without_reductions_no_factor():
    params = {name: tried.choices[0] if hasattr(tried, "choices") else 0.0012345678 for name, tried in SPACE.items()}  # fmt: skip
    params |= {"learning_rate_period": 2, "learning_rate_factor": 0.5}
    made = _settings_of(params, Sweep())
    assert (made.learning_rate, made.learning_rate_factor) == (0.00123, 0.5)
    assert _settings_of(params | {"learning_rate_period": 0}, Sweep()).learning_rate_factor == 1.0


def test_the_search_space_has_words():
    table = space_table().set_index("Parameter")["Tried"]
    assert len(table) == len(SPACE)
    assert table["Learning rate"] == "0.0001 to 0.01, logarithmic"
    assert table["Batch size"] == "8, 16, 32, 64"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((0, 0.0), "a budget of 0 trials and 0 minutes was given; expected one of the two above 0"),
        ((-1, 0.0), "a budget of -1 trials"),
        ((5, -2.0), "-2 minutes"),
        ((5, 0.0, 0), "epochs=0 cannot be used"),
    ],
)
def test_a_budget_of_nothing_and_epochs_of_no_training_are_refused(given, said):
    with pytest.raises(SettingsError, match=said):
        Sweep(*given)


# One worker


def test_the_budget_is_spent_and_something_was_pruned(undisturbed):
    study, _, said = undisturbed
    states = [trial.state for trial in study.trials]
    assert len(states) == len(said) == 8
    assert set(states) == {TrialState.COMPLETE, TrialState.PRUNED}
    assert states[:5] == [TrialState.COMPLETE] * 5  # before there is a median
    table = trials_table(study, EIGHT)
    assert (table["epochs"][table["outcome"] == "pruned"] <= 2).all()
    assert (table["epochs"][table["outcome"] == "completed"] == 2).all()


def test_a_trial_is_an_ordinary_training(undisturbed, material, tmp_path):
    study, _, _ = undisturbed
    trial = study.trials[0]
    history = sweeping.train(material, _settings_of(trial.params, EIGHT), tmp_path, CPU, progress=False)
    assert trial.value == history["validation_mse"].min()
    assert list(trial.intermediate_values.values()) == list(history["validation_mse"])


def test_one_worker_gives_the_same_trials_again(undisturbed, material, report, capsys):
    study, _, said = undisturbed
    # In two calls: the trials of the first count, and are printed again by the second.
    work(material, Sweep(3, epochs=2), report / "sweep", CPU)
    capsys.readouterr()
    table = trials_table(work(material, EIGHT, report / "sweep", CPU), EIGHT)
    pd.testing.assert_frame_equal(table, trials_table(study, EIGHT))
    assert capsys.readouterr().out.splitlines() == said


def test_another_seed_or_other_epochs_are_another_study(undisturbed, material):
    study, report, _ = undisturbed
    for sweep in (Sweep(8, epochs=2, seed=1), Sweep(8, epochs=3)):
        assert _open_study(material, sweep, report / "sweep").trials == []
    assert _open_study(material, Sweep(99, epochs=2), report / "sweep").study_name == study.study_name


def test_the_best_trial_is_the_best_by_hand(undisturbed):
    study, report, _ = undisturbed
    best = json.loads((report / "sweep" / "best.json").read_text())
    value, number = min((t.value, t.number) for t in study.trials if t.state == TrialState.COMPLETE)
    assert (best["validation_mse"], best["trial"]) == (value, number)
    assert best["trials"] == 8
    assert best["pruned"] == sum(t.state == TrialState.PRUNED for t in study.trials)
    assert best["clips"] == digest_of(report / "preprocess" / "clips.csv")
    # Model and changes are all that it takes to train it again.
    made = training_settings(best["model"], "tuned", 0, epochs=2, **best["changes"])
    assert made == _settings_of(study.trials[number].params, EIGHT)
    assert "2026" not in json.dumps(best)
    assert save_best(study, EIGHT, report / "sweep") == best


def test_without_a_completed_trial_there_is_no_best(material, report):
    study = _open_study(material, EIGHT, report / "sweep")
    with pytest.raises(RunError, match=r"none of 0 trials was completed.*larger BUDGET"):
        save_best(study, EIGHT, report / "sweep")


def test_what_diverges_does_not_end_the_study(material, report, monkeypatch):
    trained, calls = sweeping.train, itertools.count()

    def diverging(*arguments, **options):
        if next(calls) in (0, 2):
            raise TrainingError("the loss is nan in epoch 1, batch 1, on the clips tone 00.")
        return trained(*arguments, **options)

    monkeypatch.setattr(sweeping, "train", diverging)
    sweep = Sweep(4, epochs=1)
    study = work(material, sweep, report / "sweep", CPU)
    assert list(trials_table(study, sweep)["outcome"]) == ["diverged", "completed", "diverged", "completed"]
    assert study.trials[0].user_attrs["why"].startswith("the loss is nan")


def test_an_error_that_is_none_of_the_training_ends_the_worker_and_is_tried_again(
    material, report, monkeypatch, undisturbed
):
    def full(*_, **__):
        raise OSError("no space left on device")

    trained = sweeping.train
    monkeypatch.setattr(sweeping, "train", full)
    with pytest.raises(OSError, match="no space left"):
        work(material, Sweep(2, epochs=2), report / "sweep", CPU)
    monkeypatch.setattr(sweeping, "train", trained)
    study = work(material, Sweep(2, epochs=2), report / "sweep", CPU)
    assert [trial.state.name for trial in study.trials] == ["FAIL", "COMPLETE", "COMPLETE"]
    expected = trials_table(undisturbed[0], EIGHT).head(2)
    pd.testing.assert_frame_equal(settings(trials_table(study, EIGHT)), settings(expected))


def test_a_setting_that_kills_its_workers_is_given_up(material, report, monkeypatch):
    monkeypatch.setattr(sweeping, "train", lambda *_, **__: 1 / 0)
    for _ in range(4):
        with pytest.raises(ZeroDivisionError):
            work(material, EIGHT, report / "sweep", CPU)
    first, second, third, fourth = (t.params for t in _open_study(material, EIGHT, report / "sweep").trials)
    assert first == second == third != fourth


def test_a_budget_of_minutes_ends_in_time_and_is_not_begun_again(material, report):
    sweep = Sweep(0, minutes=0.05, epochs=3)
    began = time.monotonic()
    study = work(material, sweep, report / "sweep", CPU)
    assert 2.5 < time.monotonic() - began < 10
    ended = len(study.trials)
    assert ended >= 2
    assert len(work(material, sweep, report / "sweep", CPU).trials) == ended
    more = work(material, Sweep(0, minutes=0.08, epochs=3), report / "sweep", CPU)
    assert len(more.trials) > ended


def test_the_end_of_the_minutes_prunes_a_trial_unless_none_is_completed(material, report, monkeypatch):
    monkeypatch.setattr(sweeping, "_time_is_over", lambda trials, sweep: len(trials) >= 2)
    sweep = Sweep(0, minutes=1, epochs=2)
    table = trials_table(work(material, sweep, report / "sweep", CPU), sweep)
    assert list(zip(table["outcome"], table["epochs"], strict=True)) == [("completed", 2), ("pruned", 1)]
    shutil.rmtree(report / "sweep")
    monkeypatch.setattr(sweeping, "_time_is_over", lambda trials, sweep: len(trials) >= 1)
    table = trials_table(work(material, sweep, report / "sweep", CPU), sweep)
    assert list(zip(table["outcome"], table["epochs"], strict=True)) == [("completed", 2)]


def test_parallel_trials_count_once_towards_the_minutes():
    def ran(begin: int, end: int, state: TrialState = TrialState.PRUNED) -> optuna.trial.FrozenTrial:
        trial = optuna.create_trial(state=state)
        trial.datetime_start, trial.datetime_complete = (
            datetime(2020, 1, 1, 0, minute) for minute in (begin, end)
        )
        return trial

    trials = [ran(20, 25), ran(0, 10), ran(5, 12), ran(6, 8), ran(12, 19, TrialState.FAIL)]
    assert sweeping._time_is_over(trials, Sweep(0, minutes=17))
    assert not sweeping._time_is_over(trials, Sweep(0, minutes=17.1))
    assert not sweeping._time_is_over(trials, Sweep(5))


# Several workers, and killed ones


def test_two_workers_share_one_budget(material, report):
    workers = [start_worker(report, 7) for _ in range(2)]
    said = [worker.communicate(timeout=120)[0].splitlines() for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0]
    trials = _open_study(material, Sweep(7, epochs=2), report / "sweep").trials
    assert len(trials) == 7
    assert all(trial.state in (TrialState.COMPLETE, TrialState.PRUNED) for trial in trials)
    assert len({json.dumps(trial.params) for trial in trials}) == 7
    assert sorted(trial.user_attrs["place"] for trial in trials) == list(range(7))
    spans = sorted((trial.datetime_start, trial.datetime_complete) for trial in trials)
    assert any(later < end for (_, end), (later, _) in itertools.pairwise(spans)), "never two at a time"
    assert all("ready" in lines for lines in said)


def kill(worker: subprocess.Popen) -> None:
    worker.send_signal(signal.SIGKILL)
    worker.communicate()


def test_a_killed_workers_trial_is_done_again(undisturbed, material, report):
    worker = start_worker(report, 8)
    wait_for_trials(report / "sweep", 3, worker)
    kill(worker)
    study = work(material, EIGHT, report / "sweep", CPU)
    assert [trial.number for trial in study.trials if trial.state == TrialState.FAIL] == [2]
    # Its settings are tried again in the same place, and the later trials are those of the undisturbed study.
    expected = settings(trials_table(undisturbed[0], EIGHT))
    pd.testing.assert_frame_equal(settings(trials_table(study, EIGHT)), expected)


def test_the_trial_of_a_live_worker_is_not_taken(material, report):
    worker = start_worker(report, 1, epochs=30)
    wait_for_trials(report / "sweep", 1, worker)
    worker.send_signal(signal.SIGSTOP)  # silent, but not ended
    other = start_worker(report, 1, epochs=30)
    with pytest.raises(subprocess.TimeoutExpired):
        other.communicate(timeout=20)
    worker.send_signal(signal.SIGCONT)
    for process in (worker, other):
        process.communicate(timeout=120)
        assert process.returncode == 0
    states = [trial.state for trial in _open_study(material, Sweep(1, epochs=30), report / "sweep").trials]
    assert states == [TrialState.COMPLETE]


def test_a_line_that_was_cut_off_does_no_harm(material, report):
    work(material, Sweep(1, epochs=1), report / "sweep", CPU)
    with (report / "sweep" / "study.log").open("ab") as log:
        log.write(b'{"op_code":4,"worker')
    study = work(material, Sweep(2, epochs=1), report / "sweep", CPU)
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 2
    assert [trial.value for trial in _open_study(material, Sweep(2, epochs=1), report / "sweep").trials] == [
        trial.value for trial in study.trials
    ]


def test_a_damaged_log_is_named(material, report):
    work(material, Sweep(1, epochs=1), report / "sweep", CPU)
    log = report / "sweep" / "study.log"
    log.write_bytes(b"\x00 no JSON\n" + log.read_bytes())
    with pytest.raises(RunError, match=r"study\.log is damaged .* delete it"):
        _open_study(material, Sweep(1, epochs=1), report / "sweep")


# By the command


def test_a_build_shows_each_trial_once(tmp_path):
    first, second = JobProgress(tmp_path, "sweep-1"), JobProgress(tmp_path, "sweep-2")
    progress = Progress(["sweep-1", "sweep-2"], ["sweep"] * 2, 2, out := io.StringIO())
    with progress.following(tmp_path):
        for job in (first, second):
            job.tell(begins=True)
            job.said("trial   0  CNN    validation MSE  0.500  completed  1 of 2 done, best 0.500\n")
        second.said("trial   1  CNN    validation MSE  0.400  completed  2 of 2 done, best 0.400\n")
        second.tell(ended="executed")
    assert [line.split()[:2] for line in out.getvalue().splitlines() if line.startswith("trial")] == [
        ["trial", "0"],
        ["trial", "1"],
    ]


@pytest.mark.slow
def test_a_sweep_that_is_killed_goes_on_and_its_best_can_be_reported(tmp_path):
    project = Project(tmp_path / "project", make_corpus(tmp_path / "clips"))
    asked = ["--corpus", str(project.corpus), "--name", "tiny", "--epochs", "3"]
    sweep_folder = project.report / "sweep"

    def start(command: str, *options: str) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-m", "valence_lib", command, *asked, *options],
            cwd=project.folder,
            env=project.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(command: str, *options: str) -> str:
        process = start(command, *options)
        said = process.communicate(timeout=300)[0]
        assert process.returncode == 0, said
        return said

    def counted() -> list[optuna.trial.FrozenTrial]:
        storage = JournalStorage(JournalFileBackend(str(sweep_folder / "study.log")))
        (name,) = optuna.get_all_study_names(storage)
        study = optuna.load_study(study_name=name, storage=storage)
        return study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED))

    swept = start("sweep", "--budget", "8", "--jobs", "2")
    wait_for_trials(sweep_folder, 4, swept)
    kill(swept)
    # In the second call, one worker is killed.
    swept = start("sweep", "--budget", "8", "--jobs", "2")
    wait_for_trials(sweep_folder, 7, swept)
    jobs = psutil.Process(swept.pid).children(recursive=True)
    victim = next(job for job in jobs if "sweep-1" in job.cmdline() and "job" in job.cmdline())
    victim.kill()
    said = swept.communicate(timeout=300)[0]
    assert swept.returncode == 0, said
    trials = counted()
    assert len(trials) == 8
    best = json.loads((sweep_folder / "best.json").read_text())
    value, number = min((t.value, t.number) for t in trials if t.state == TrialState.COMPLETE)
    assert (best["validation_mse"], best["trial"], best["trials"]) == (value, number, 8)
    assert f"in trial {number}: {best['model']}" in said

    # The job of the killed worker finds the budget spent; a larger budget continues the study.
    run("sweep", "--budget", "8", "--jobs", "2")
    assert len(counted()) == 8
    assert "Nothing is stale" in run("sweep", "--budget", "8", "--jobs", "1")
    assert "9 of 9 done" in run("sweep", "--budget", "9", "--jobs", "2")

    run("report", "--seeds", "1", "--tuned", "--jobs", "2")
    results = json.loads((project.report / "results.json").read_text())
    best = json.loads((sweep_folder / "best.json").read_text())
    row = next(row for row in results["rows"] if (row["preset"], row["part"]) == ("tuned", "validation"))
    assert row["model"] == best["model"]
    assert row["mse"] == pytest.approx(best["validation_mse"], abs=1e-4)
    page = (project.report / "report.html").read_text()
    assert f"{best['trials']} trials" in " ".join(page.split())
