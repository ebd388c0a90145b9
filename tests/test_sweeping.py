"""A sweep: its budget holds for all workers together, a kill costs nothing but time, and the best is the best."""

import io
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pandas as pd
import psutil
import pytest
import soundfile
import torch
from optuna.trial import TrialState
from toy import make_material, tone

from valence_lib import sweeping
from valence_lib.errors import RunError, SettingsError, TrainingError
from valence_lib.files import digest_of
from valence_lib.progress import JobProgress, Progress
from valence_lib.registry import training_settings
from valence_lib.settings import TrainingSettings
from valence_lib.sweeping import SPACE, Sweep, open_study, save_best, settings_of, trials_table, work
from valence_lib.training import Material

CPU = torch.device("cpu")
ROOT = Path(__file__).parent.parent
WORKER = """
import sys, torch
from pathlib import Path
from toy import make_material
from valence_lib.sweeping import Sweep, work
report, trials, epochs, silent_after = Path(sys.argv[1]), *map(float, sys.argv[2:])
material = make_material(report.parent / "features")
print("ready", flush=True)
work(material, Sweep(int(trials), epochs=int(epochs)), report / "sweep", torch.device("cpu"), silent_after=silent_after)
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
    """A study of eight trials, made by one worker; its report; and what was said."""
    said: list[str] = []
    report = make_report(reports, "undisturbed")
    return work(material, EIGHT, report / "sweep", CPU, say=said.append), report, said


def start_worker(report: Path, trials: int, epochs: int = 2, silent_after: float = 60) -> subprocess.Popen:
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER, str(report), str(trials), str(epochs), str(silent_after)],
        env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{Path(__file__).parent}"},
        stdout=subprocess.PIPE,
        text=True,
    )
    return worker


def settings(table: pd.DataFrame) -> pd.DataFrame:
    """What does not depend on how often a worker was killed: all but the trials' numbers."""
    return table.drop(columns="trial").reset_index(drop=True)


# What is tried


def test_every_setting_of_the_space_is_one_of_a_training():
    fields = TrainingSettings.__dataclass_fields__
    assert set(SPACE) <= set(fields)
    corners = {name: [tried.space.low, tried.space.high] if hasattr(tried.space, "low") else tried.space.choices for name, tried in SPACE.items()}  # fmt: skip
    for values in itertools.zip_longest(*corners.values()):
        params = {name: given if (given := value) is not None else corners[name][0] for name, value in zip(corners, values, strict=True)}  # fmt: skip
        made = settings_of(params, Sweep(epochs=7, seed=3))
        assert (made.preset, made.seed, made.epochs, made.model) == ("tuned", 3, 7, params["model"])


def test_a_setting_is_short_enough_to_be_told_on():
    params = {name: tried.space.choices[0] if hasattr(tried.space, "choices") else 0.0012345678 for name, tried in SPACE.items()}  # fmt: skip
    assert settings_of(params, Sweep()).learning_rate == 0.00123


def test_no_reductions_leave_no_factor():
    params = {
        "model": "CNN",
        "learning_rate": 0.01,
        "weight_decay": 1e-5,
        "batch_size": 8,
        "max_gradient_norm": 1.0,
    }
    params |= {"learning_rate_period": 0, "learning_rate_factor": 0.5, "standardise": "none"}
    assert settings_of(params, Sweep()).learning_rate_factor == 1.0
    assert settings_of({**params, "learning_rate_period": 2}, Sweep()).learning_rate_factor == 0.5


@pytest.mark.parametrize(
    ("trials", "minutes", "said"),
    [
        (0, 0.0, "a budget of 0 trials and 0 minutes was given; expected one of the two above 0"),
        (-1, 0.0, "a budget of -1 trials"),
        (5, -2.0, "-2 minutes"),
    ],
)
def test_a_budget_of_nothing_is_refused(trials, minutes, said):
    with pytest.raises(SettingsError, match=said):
        Sweep(trials, minutes)


def test_epochs_are_those_of_a_training():
    with pytest.raises(SettingsError, match="epochs=0 cannot be used"):
        Sweep(epochs=0)


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
    history = sweeping.train(material, settings_of(trial.params, EIGHT), tmp_path, CPU, progress=False)
    assert trial.value == history["validation_mse"].min()
    assert list(trial.intermediate_values.values()) == list(history["validation_mse"])


def test_one_worker_gives_the_same_trials_again(undisturbed, material, report):
    study, _, said = undisturbed
    again: list[str] = []
    # In two goes: what was done counts, and is told again.
    work(material, Sweep(3, epochs=2), report / "sweep", CPU)
    table = trials_table(work(material, EIGHT, report / "sweep", CPU, say=again.append), EIGHT)
    pd.testing.assert_frame_equal(table, trials_table(study, EIGHT))
    assert again == said
    assert not list((report / "sweep" / "trials").iterdir())


def test_another_seed_or_other_epochs_are_another_study(undisturbed, material):
    study, report, _ = undisturbed
    for sweep in (Sweep(8, epochs=2, seed=1), Sweep(8, epochs=3)):
        assert open_study(material, sweep, report / "sweep").trials == []
    assert open_study(material, Sweep(99, epochs=2), report / "sweep").study_name == study.study_name


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
    assert made == settings_of(study.trials[number].params, EIGHT)
    assert "2026" not in json.dumps(best)
    assert save_best(study, EIGHT, report / "sweep") == best


def test_without_a_completed_trial_there_is_no_best(material, report):
    study = open_study(material, EIGHT, report / "sweep")
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
    assert [trial.state for trial in study.trials] == [
        TrialState.FAIL,
        TrialState.COMPLETE,
        TrialState.COMPLETE,
    ]
    expected = trials_table(undisturbed[0], EIGHT).head(2)
    pd.testing.assert_frame_equal(settings(trials_table(study, EIGHT)), settings(expected))


def test_a_setting_that_kills_its_workers_is_given_up(material, report, monkeypatch):
    monkeypatch.setattr(sweeping, "train", lambda *_, **__: 1 / 0)
    for _ in range(4):
        with pytest.raises(ZeroDivisionError):
            work(material, EIGHT, report / "sweep", CPU)
    first, second, third, fourth = (t.params for t in open_study(material, EIGHT, report / "sweep").trials)
    assert first == second == third != fourth


def test_a_budget_of_minutes_ends_in_time_and_is_not_begun_again(material, report):
    sweep = Sweep(0, minutes=0.05, epochs=3)
    began = time.monotonic()
    study = work(material, sweep, report / "sweep", CPU)
    assert 2.5 < time.monotonic() - began < 10
    ended = len(study.trials)
    assert ended >= 2
    assert len(work(material, sweep, report / "sweep", CPU).trials) == ended
    # More minutes: it goes on, with the trial for which there was no time.
    more = work(material, Sweep(0, minutes=0.08, epochs=3), report / "sweep", CPU)
    places = [
        t.user_attrs["place"] for t in more.trials if t.state in (TrialState.COMPLETE, TrialState.PRUNED)
    ]
    assert sorted(places) == list(range(len(places)))


# Several workers, and killed ones


def test_two_workers_share_one_budget(material, report):
    workers = [start_worker(report, 7) for _ in range(2)]
    said = [worker.communicate(timeout=120)[0].splitlines() for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0]
    trials = open_study(material, Sweep(7, epochs=2), report / "sweep").trials
    assert len(trials) == 7
    assert all(trial.state in (TrialState.COMPLETE, TrialState.PRUNED) for trial in trials)
    assert len({json.dumps(trial.params) for trial in trials}) == 7
    begun = sorted((trial.datetime_start, trial.datetime_complete) for trial in trials)
    assert any(later < end for (_, end), (later, _) in itertools.pairwise(begun)), "never two at a time"
    assert all("ready" in lines for lines in said)
    assert not list((report / "sweep" / "trials").iterdir())


def kill(worker: subprocess.Popen) -> None:
    worker.send_signal(signal.SIGKILL)
    worker.communicate()


def test_a_killed_workers_trial_is_done_again(undisturbed, material, report):
    worker = start_worker(report, 8)
    while not (report / "sweep" / "trials" / "2" / "alive").exists():
        assert worker.poll() is None
        time.sleep(0.01)
    kill(worker)
    time.sleep(1)
    study = work(material, EIGHT, report / "sweep", CPU, silent_after=1)
    assert [trial.number for trial in study.trials if trial.state == TrialState.FAIL] == [2]
    # Its setting is tried again in the same place, so that all goes on as if nothing had happened.
    expected = settings(trials_table(undisturbed[0], EIGHT))
    pd.testing.assert_frame_equal(settings(trials_table(study, EIGHT)), expected)
    assert not list((report / "sweep" / "trials").iterdir())


def test_a_killed_worker_does_not_hold_up_another(material, report):
    killed, other = (start_worker(report, 6, epochs=4, silent_after=2) for _ in range(2))
    while len(list((report / "sweep").glob("trials/*/alive"))) < 2:
        assert killed.poll() is None
        time.sleep(0.01)
    kill(killed)
    other.communicate(timeout=120)
    assert other.returncode == 0
    assert len(sweeping.finished(open_study(material, Sweep(6, epochs=4), report / "sweep"))) == 6


def test_a_line_that_was_cut_off_does_no_harm(material, report):
    work(material, Sweep(1, epochs=1), report / "sweep", CPU)
    with (report / "sweep" / "study.log").open("ab") as log:
        log.write(b'{"op_code":4,"worker')
    study = work(material, Sweep(2, epochs=1), report / "sweep", CPU)
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 2
    assert [trial.value for trial in open_study(material, Sweep(2, epochs=1), report / "sweep").trials] == [
        trial.value for trial in study.trials
    ]


def test_a_damaged_log_is_named(material, report):
    work(material, Sweep(1, epochs=1), report / "sweep", CPU)
    log = report / "sweep" / "study.log"
    log.write_bytes(b"\x00 no JSON\n" + log.read_bytes())
    with pytest.raises(RunError, match=r"study\.log is damaged .* delete it"):
        open_study(material, Sweep(1, epochs=1), report / "sweep")


def test_who_was_given_up_does_not_come_back(material, report, monkeypatch):
    """A worker that was silent for long, as in a laptop that slept, finds its trial failed and takes the next."""
    trained, calls = sweeping.train, itertools.count()

    def slept(*arguments, **options):
        if next(calls) == 0:
            study = open_study(material, Sweep(2, epochs=1), report / "sweep")
            sweeping._give_up_silent(study, report / "sweep", time.time() + 100)
        return trained(*arguments, **options)

    monkeypatch.setattr(sweeping, "train", slept)
    study = work(material, Sweep(2, epochs=1), report / "sweep", CPU)
    assert [trial.state.name for trial in study.trials] == ["FAIL", "COMPLETE", "COMPLETE"]


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


class Project:
    """A copy of the project with a tiny corpus beside it."""

    def __init__(self, folder: Path):
        self.folder, corpus = folder / "project", folder / "clips"
        for name in ("valence_lib", "notebooks", "workflow"):
            shutil.copytree(ROOT / name, self.folder / name)
        shutil.copy2(ROOT / "requirements.lock", self.folder)
        corpus.mkdir()
        rows = ["file,valence,speaker"]
        for number in range(40):
            valence = 1 + number % 5
            soundfile.write(corpus / f"{number:02}.wav", tone(valence, 0.5, number), 8000)
            rows.append(f"{number:02}.wav,{valence},S{number % 8}")
        (corpus / "labels.csv").write_text("\n".join(rows) + "\n")
        self.asked = ["--corpus", str(corpus), "--name", "tiny", "--epochs", "3"]
        self.sweep_folder = self.folder / "reports" / "tiny" / "sweep"

    def start(self, command: str, *options: str) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-m", "valence_lib", command, *self.asked, *options],
            cwd=self.folder,
            env=os.environ | {"PYTHONPATH": str(self.folder)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, command: str, *options: str) -> str:
        process = self.start(command, *options)
        said = process.communicate(timeout=300)[0]
        assert process.returncode == 0, said
        return said

    def wait_for_trials(self, count: int) -> None:
        """Until so many trials have begun."""
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            numbers = [int(path.name) for path in self.sweep_folder.glob("trials/*")]
            if max(numbers, default=-1) + 1 >= count:
                return
            time.sleep(0.02)
        pytest.fail(f"{count} trials had not begun after two minutes")

    def trials(self) -> list[optuna.trial.FrozenTrial]:
        storage = optuna.storages.JournalStorage(sweeping._Log(self.sweep_folder / "study.log"))
        (name,) = optuna.get_all_study_names(storage)
        return optuna.load_study(study_name=name, storage=storage).trials


@pytest.mark.slow
def test_a_sweep_that_is_killed_goes_on_and_its_best_can_be_reported(tmp_path):
    project = Project(tmp_path)
    swept = project.start("sweep", "--budget", "8", "--jobs", "2")
    project.wait_for_trials(4)
    kill(swept)
    # Its second half also loses a worker, without a chance to say so.
    swept = project.start("sweep", "--budget", "8", "--jobs", "2")
    project.wait_for_trials(7)
    jobs = psutil.Process(swept.pid).children(recursive=True)
    victim = next(job for job in jobs if "sweep-1" in job.cmdline() and "job" in job.cmdline())
    victim.kill()
    said = swept.communicate(timeout=300)[0]
    assert swept.returncode == 0, said
    counted = [trial for trial in project.trials() if trial.state in sweeping._COUNTED]
    assert len(counted) == 8
    best = json.loads((project.sweep_folder / "best.json").read_text())
    value, number = min((t.value, t.number) for t in counted if t.state == TrialState.COMPLETE)
    assert (best["validation_mse"], best["trial"], best["trials"]) == (value, number, 8)
    assert f"in trial {number}: {best['model']}" in said

    # The killed worker finds nothing left to do, and then there is nothing; a larger budget goes on from there.
    project.run("sweep", "--budget", "8", "--jobs", "2")
    assert len([trial for trial in project.trials() if trial.state in sweeping._COUNTED]) == 8
    assert "Nothing is stale" in project.run("sweep", "--budget", "8", "--jobs", "1")
    assert "9 of 9 done" in project.run("sweep", "--budget", "9", "--jobs", "2")

    project.run("report", "--seeds", "1", "--tuned", "--jobs", "2")
    results = json.loads((project.sweep_folder.parent / "results.json").read_text())
    best = json.loads((project.sweep_folder / "best.json").read_text())
    row = next(row for row in results["rows"] if (row["preset"], row["part"]) == ("tuned", "validation"))
    assert row["model"] == best["model"]
    assert row["mse"] == pytest.approx(best["validation_mse"], abs=1e-4)
    page = (project.sweep_folder.parent / "report.html").read_text()
    assert f"{best['trials']} trials" in " ".join(page.split())
