"""Sweeps: workers share the budget, a kill costs at most its own trial, best.json holds the best trial."""

import contextlib
import io
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import optuna
import pandas as pd
import psutil
import pytest
import torch
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from project_copy import Project
from toy import make_training_data

from valence_lib.errors import RunError, SettingsError, TrainingError
from valence_lib.files import digest_of
from valence_lib.registry import training_settings
from valence_lib.settings import TrainingSettings
from valence_lib.training import tuning
from valence_lib.training.loop import TrainingData
from valence_lib.training.tuning import (
    SPACE,
    Sweep,
    _open_study,
    _settings_of,
    save_best,
    space_table,
    trials_table,
    work,
)

CPU = torch.device("cpu")
ROOT = Path(__file__).parents[2]
WORKER = """
import sys, torch
from pathlib import Path
from toy import make_training_data
from valence_lib.training.tuning import Sweep, work
report, trials, epochs = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
training_data = make_training_data(report.parent / "features")
work(training_data, Sweep(trials, epochs=epochs), report / "sweep", torch.device("cpu"))
"""
HOLDER = """
import sys, time
from pathlib import Path
from toy import make_training_data
from valence_lib.training.tuning import LOCK_FILE, Sweep, _next_trial, _open_study
report, sweep = Path(sys.argv[1]), Sweep(int(sys.argv[2]), epochs=int(sys.argv[3]))
study = _open_study(make_training_data(report.parent / "features"), sweep, report / "sweep")
with (report / "sweep" / LOCK_FILE).open("a") as lock:
    _next_trial(study, sweep, lock)
    print("begun", flush=True)
    time.sleep(600)
"""


@pytest.fixture(scope="module")
def reports(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("reports")


@pytest.fixture(scope="module")
def training_data(reports) -> TrainingData:
    return make_training_data(reports / "features")


@pytest.fixture
def report(reports, request) -> Path:
    return make_report(reports, request.node.name)


def make_report(reports: Path, name: str) -> Path:
    (reports / name / "preprocess").mkdir(parents=True)
    (reports / name / "preprocess" / "clips.csv").write_text("id\n")
    return reports / name


EIGHT = Sweep(8, epochs=2)


@pytest.fixture(scope="module")
def undisturbed(reports, training_data) -> tuple[optuna.Study, Path, list[str]]:
    """A study of eight trials by one worker, its report, and the printed lines."""
    report = make_report(reports, "undisturbed")
    with contextlib.redirect_stdout(io.StringIO()) as out:
        study = work(training_data, EIGHT, report / "sweep", CPU)
    return study, report, out.getvalue().splitlines()


def start_worker(report: Path, trials: int, epochs: int = 2, code: str = WORKER) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", code, str(report), str(trials), str(epochs)],
        env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{Path(__file__).parents[1]}"},
        stdout=subprocess.PIPE,
        text=True,
    )


def wait_for_trials(folder: Path, count: int, worker: subprocess.Popen) -> None:
    """Wait until so many trials of the journal in a folder have begun."""
    journal = folder / "study.log"
    while not journal.exists() or journal.read_text().count('"user_attr":{"worker":') < count:
        assert worker.poll() is None
        time.sleep(0.01)
    time.sleep(0.02)  # a kill during a write blocks the journal for the grace period of its lock


def settings(table: pd.DataFrame) -> pd.DataFrame:
    """The columns that do not depend on kills: all but the trials' numbers."""
    return table.drop(columns="trial").reset_index(drop=True)


def test_every_setting_of_the_space_is_one_of_a_training():
    assert set(SPACE) <= set(TrainingSettings.__dataclass_fields__)
    corners = [
        [tried.low, tried.high] if hasattr(tried, "low") else tried.choices for tried in SPACE.values()
    ]
    for place in range(max(map(len, corners))):
        params = {name: corner[place % len(corner)] for name, corner in zip(SPACE, corners, strict=True)}
        made = _settings_of(params, Sweep(epochs=7, seed=3))
        assert (made.preset, made.seed, made.epochs, made.model) == ("tuned", 3, 7, params["model"])


def test_the_search_space_in_words():
    table = space_table().set_index("Parameter")["Tried"]
    assert len(table) == len(SPACE)
    assert table["Learning rate"] == "0.0001 to 0.01, logarithmic"
    assert table["Batch size"] == "8, 16, 32, 64"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((0, 0.0), "a budget of 0 trials and 0 minutes was given; expected one of the two above 0"),
        ((-1, 0.0), "a budget of -1 trials"),
        ((5, -2.0), "-2 minutes"),
        ((5, 0.0, 0), "epochs=0 cannot be used"),
    ],
)
def test_an_empty_budget_and_impossible_epochs_are_refused(given, message):
    with pytest.raises(SettingsError, match=message):
        Sweep(*given)


def test_the_budget_is_spent_and_something_was_pruned(undisturbed):
    study, _, printed = undisturbed
    states = [trial.state for trial in study.trials]
    assert len(states) == len(printed) == 8
    assert set(states) == {TrialState.COMPLETE, TrialState.PRUNED}
    assert states[:5] == [TrialState.COMPLETE] * 5  # before there is a median
    table = trials_table(study, EIGHT)
    assert (table["epochs"][table["outcome"] == "pruned"] <= 2).all()
    assert (table["epochs"][table["outcome"] == "completed"] == 2).all()


def test_a_trial_is_an_ordinary_training(undisturbed, training_data, tmp_path):
    study, _, _ = undisturbed
    trial = study.trials[0]
    history = tuning.train(training_data, _settings_of(trial.params, EIGHT), tmp_path, CPU, progress=False)
    assert trial.value == history["validation_mse"].min()
    assert list(trial.intermediate_values.values()) == list(history["validation_mse"])


def test_one_worker_gives_the_same_trials_again(undisturbed, training_data, report, capsys):
    study, _, printed = undisturbed
    # In two calls: the trials of the first count, and are printed again by the second.
    work(training_data, Sweep(3, epochs=2), report / "sweep", CPU)
    capsys.readouterr()
    table = trials_table(work(training_data, EIGHT, report / "sweep", CPU), EIGHT)
    pd.testing.assert_frame_equal(table, trials_table(study, EIGHT))
    assert capsys.readouterr().out.splitlines() == printed


def test_another_seed_or_other_epochs_are_another_study(undisturbed, training_data):
    study, report, _ = undisturbed
    for sweep in (Sweep(8, epochs=2, seed=1), Sweep(8, epochs=3)):
        assert _open_study(training_data, sweep, report / "sweep").trials == []
    assert _open_study(training_data, Sweep(99, epochs=2), report / "sweep").study_name == study.study_name


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


def test_without_a_completed_trial_there_is_no_best(training_data, report):
    study = _open_study(training_data, EIGHT, report / "sweep")
    with pytest.raises(RunError, match=r"none of 0 trials was completed.*larger BUDGET"):
        save_best(study, EIGHT, report / "sweep")


def test_what_diverges_does_not_end_the_study(training_data, report, monkeypatch):
    trained, calls = tuning.train, itertools.count()

    def diverging(*arguments, **options):
        if next(calls) in (0, 2):
            raise TrainingError("the loss is nan in epoch 1, batch 1, on the clips tone 00.")
        return trained(*arguments, **options)

    monkeypatch.setattr(tuning, "train", diverging)
    sweep = Sweep(4, epochs=1)
    study = work(training_data, sweep, report / "sweep", CPU)
    assert list(trials_table(study, sweep)["outcome"]) == ["diverged", "completed", "diverged", "completed"]
    assert study.trials[0].user_attrs["why"].startswith("the loss is nan")


def test_a_setting_that_kills_its_workers_is_given_up(training_data, report, monkeypatch):
    monkeypatch.setattr(tuning, "train", lambda *_, **__: 1 / 0)
    for _ in range(4):
        with pytest.raises(ZeroDivisionError):
            work(training_data, EIGHT, report / "sweep", CPU)
    first, second, third, fourth = (
        t.params for t in _open_study(training_data, EIGHT, report / "sweep").trials
    )
    assert first == second == third != fourth


@pytest.mark.parametrize("last", [2, 1])
def test_the_end_of_the_minutes_prunes_a_trial_unless_none_is_completed(
    training_data, report, monkeypatch, last
):
    monkeypatch.setattr(tuning, "_time_is_over", lambda trials, sweep: len(trials) >= last)
    sweep = Sweep(0, minutes=1, epochs=2)
    for _ in range(2):  # a second call begins no trial
        table = trials_table(work(training_data, sweep, report / "sweep", CPU), sweep)
        found = list(zip(table["outcome"], table["epochs"], strict=True))
        assert found == [("completed", 2), ("pruned", 1)][:last]


def test_parallel_trials_count_once_towards_the_minutes():
    def ran(begin: int, end: int, state: TrialState = TrialState.PRUNED) -> optuna.trial.FrozenTrial:
        trial = optuna.create_trial(state=state)
        trial.datetime_start = datetime(2020, 1, 1, 0, begin)
        trial.datetime_complete = datetime(2020, 1, 1, 0, end)
        return trial

    trials = [ran(20, 25), ran(0, 10), ran(5, 12), ran(6, 8), ran(12, 19, TrialState.FAIL)]
    assert tuning._time_is_over(trials, Sweep(0, minutes=17))
    assert not tuning._time_is_over(trials, Sweep(0, minutes=17.1))
    assert not tuning._time_is_over(trials, Sweep(5))


def test_two_workers_share_one_budget(training_data, report):
    workers = [start_worker(report, 7) for _ in range(2)]
    for worker in workers:
        worker.communicate(timeout=300)
    assert [worker.returncode for worker in workers] == [0, 0]
    trials = _open_study(training_data, Sweep(7, epochs=2), report / "sweep").trials
    assert len(trials) == 7
    assert all(trial.state in (TrialState.COMPLETE, TrialState.PRUNED) for trial in trials)
    assert len({json.dumps(trial.params) for trial in trials}) == 7
    assert sorted(trial.user_attrs["place"] for trial in trials) == list(range(7))


def kill(worker: subprocess.Popen) -> None:
    worker.send_signal(signal.SIGKILL)
    worker.communicate()


def test_the_trial_of_a_live_worker_is_not_taken_and_that_of_a_killed_one_is_repeated(
    undisturbed, training_data, report, monkeypatch
):
    work(training_data, Sweep(2, epochs=2), report / "sweep", CPU)
    holder = start_worker(report, 3, code=HOLDER)
    assert holder.stdout.readline() == "begun\n"
    polls = iter(range(3))
    with monkeypatch.context() as patched, pytest.raises(StopIteration):
        patched.setattr(tuning, "time", SimpleNamespace(sleep=lambda _: next(polls)))
        work(training_data, Sweep(3, epochs=2), report / "sweep", CPU)
    kill(holder)
    study = work(training_data, EIGHT, report / "sweep", CPU)
    assert [trial.number for trial in study.trials if trial.state == TrialState.FAIL] == [2]
    # Its settings are tried again, and the later trials are those of the undisturbed study.
    expected = settings(trials_table(undisturbed[0], EIGHT))
    pd.testing.assert_frame_equal(settings(trials_table(study, EIGHT)), expected)


def test_a_truncated_line_does_no_harm(training_data, report):
    work(training_data, Sweep(1, epochs=1), report / "sweep", CPU)
    with (report / "sweep" / "study.log").open("ab") as log:
        log.write(b'{"op_code":4,"worker')
    study = work(training_data, Sweep(2, epochs=1), report / "sweep", CPU)
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 2


def test_a_damaged_log_is_named(training_data, report):
    work(training_data, Sweep(1, epochs=1), report / "sweep", CPU)
    log = report / "sweep" / "study.log"
    log.write_bytes(b"\x00 no JSON\n" + log.read_bytes())
    with pytest.raises(RunError, match=r"study\.log is damaged .* delete it"):
        _open_study(training_data, Sweep(1, epochs=1), report / "sweep")


@pytest.mark.slow
def test_a_sweep_that_is_killed_goes_on_and_its_best_can_be_reported(tmp_path):
    project = Project(tmp_path / "project", ["--corpus", "clips", "--name", "tiny", "--epochs", "3"]).create()
    sweep_folder = project.report / "sweep"

    def run(command: str, *options: str) -> str:
        finished = project.run(command, *options)
        assert finished.returncode == 0, finished.stdout
        return finished.stdout

    def counted() -> list[optuna.trial.FrozenTrial]:
        storage = JournalStorage(JournalFileBackend(str(sweep_folder / "study.log")))
        (name,) = optuna.get_all_study_names(storage)
        study = optuna.load_study(study_name=name, storage=storage)
        return study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED))

    swept = project.start("--budget", "8", "--jobs", "2", command="sweep")
    wait_for_trials(sweep_folder, 4, swept)
    kill(swept)
    # In the second call, one worker is killed.
    swept = project.start("--budget", "8", "--jobs", "2", command="sweep")
    wait_for_trials(sweep_folder, 7, swept)
    jobs = psutil.Process(swept.pid).children(recursive=True)
    victim = next(job for job in jobs if "sweep-1" in job.cmdline() and "job" in job.cmdline())
    victim.kill()
    printed = swept.communicate(timeout=300)[0]
    assert swept.returncode == 0, printed
    trials = counted()
    assert len(trials) == 8
    best = json.loads((sweep_folder / "best.json").read_text())
    value, number = min((t.value, t.number) for t in trials if t.state == TrialState.COMPLETE)
    assert (best["validation_mse"], best["trial"], best["trials"]) == (value, number, 8)
    assert f"Trial {number} has the lowest validation MSE" in printed

    # The job of the killed worker finds the budget spent; a larger budget continues the study.
    run("sweep", "--budget", "8", "--jobs", "2")
    assert len(counted()) == 8
    assert "Nothing is stale" in run("sweep", "--budget", "8", "--jobs", "1")
    assert "9 of 9 done" in run("sweep", "--budget", "9", "--jobs", "2")

    run("report", "--preset", "course", "--seeds", "1", "--tuned", "--jobs", "2")
    results = json.loads((project.report / "results.json").read_text())
    best = json.loads((sweep_folder / "best.json").read_text())
    row = next(row for row in results["rows"] if (row["preset"], row["subset"]) == ("tuned", "validation"))
    assert row["model"] == best["model"]
    assert row["mse"] == pytest.approx(best["validation_mse"], abs=1e-4)
    page = (project.report / "report.html").read_text()
    assert f"{best['trials']} trials" in " ".join(page.split())
