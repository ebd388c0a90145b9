"""Hyperparameter search by Optuna: one study per report, shared by any number of workers.

reports/<name>/sweep/
  study.log   Optuna's journal of every trial
  study.lock  the locks by which workers share the study
  best.json   the settings of the best trial, which `make report TUNED=yes` trains as one more row

Workers are processes of one machine, or of several that share a file system with POSIX locks. The system
frees the locks of a killed worker, and another worker repeats its trial; Optuna's journal has no heartbeats.
"""

import fcntl
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import optuna
import pandas as pd
import torch
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, Trial, TrialState

from valence_lib.errors import RunError, SettingsError, TrainingError
from valence_lib.files import digest_of, temporary_folder, write_json
from valence_lib.provenance import digest_of_content, environment, modules_reached
from valence_lib.registry import COURSE_MODELS, MODELS, training_settings
from valence_lib.settings import TrainingSettings
from valence_lib.training.loop import TrainingData, train

# Fields of `TrainingSettings`. Standardising by speaker is left out: it needs named speakers.
SPACE: dict[str, CategoricalDistribution | FloatDistribution] = {
    "model": CategoricalDistribution(COURSE_MODELS),
    "learning_rate": FloatDistribution(1e-4, 1e-2, log=True),
    "weight_decay": FloatDistribution(1e-6, 1e-2, log=True),
    "batch_size": CategoricalDistribution((8, 16, 32, 64)),
    "max_gradient_norm": FloatDistribution(0.3, 10.0, log=True),
    "learning_rate_period": CategoricalDistribution((0, 2, 5, 10)),
    "learning_rate_factor": FloatDistribution(0.2, 0.8),
    "standardise": CategoricalDistribution(("train", "clip", "none")),
}
STUDY_FILE, LOCK_FILE, BEST_FILE = "study.log", "study.lock", "best.json"
_TRIES = 3  # failed trainings after which other settings are tried

optuna.logging.set_verbosity(optuna.logging.ERROR)  # `work` prints a line per trial


@dataclass(frozen=True)
class Sweep:
    """The budget of a sweep, and how each trial is trained.

    Args:
        trials: of the whole study, earlier calls included; 0 for no limit.
        minutes: during which any trial runs, earlier calls included; 0 for no limit.
        epochs: of each training.
        seed: of the sampler and of every training.

    Raises:
        SettingsError: the budget is 0 or negative, or the epochs or the seed are impossible.
    """

    trials: int = 20
    minutes: float = 0.0
    epochs: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        if self.trials < 0 or self.minutes < 0 or not (self.trials or self.minutes):
            raise SettingsError(
                f"a budget of {self.trials} trials and {self.minutes:g} minutes was given; expected one of "
                "the two above 0 and the other 0 or more."
            )
        training_settings("LSTM2", "tuned", self.seed, epochs=self.epochs)


def work(
    training_data: TrainingData, sweep: Sweep, folder: Path, device: torch.device, worker: int = 1
) -> optuna.Study:
    """Run trials of the study in `folder` until its budget is spent and no other worker runs one.

    A trial is one training; its value is the lowest validation MSE of an epoch. A trial is pruned where it
    diverges, where it is worse than the median of the earlier trials at the same epoch, and where the minutes
    are over. One worker always gives the same trials. Prints a line for each trial.

    Args:
        folder: reports/<name>/sweep; it is made.
        worker: the number of this worker, stored with its trials.

    Raises:
        RunError: study.log is damaged.
    """
    study = _open_study(training_data, sweep, folder)
    table = trials_table(study, sweep)
    for position, row in enumerate(table.itertuples(), start=1):
        print(_line(row, table.head(position), sweep))
    with (folder / LOCK_FILE).open("a", encoding="utf-8") as lock:
        while (trial := _next_trial(study, sweep, lock)) is not None:
            trial.set_user_attr("worker", worker)
            _run(trial, study, training_data, sweep, device)
            with _locked(lock), suppress(RunError):
                save_best(study, sweep, folder)
            table = trials_table(study, sweep)
            print(_line(next(table[table["trial"] == trial.number].itertuples()), table, sweep))
    return study


def _open_study(training_data: TrainingData, sweep: Sweep, folder: Path) -> optuna.Study:
    """Open or begin the study of these clips, epochs, seed, space and code; others stay in the file."""
    folder.mkdir(parents=True, exist_ok=True)
    modules = [MODELS[name].module for name in COURSE_MODELS]
    fingerprint = {
        "clips": training_data.digest(),
        "epochs": sweep.epochs,
        "seed": sweep.seed,
        "space": repr(SPACE),
        "code": modules_reached(["import valence_lib.training.loop"], modules),
        "packages": environment()["packages"],
    }
    path = folder / STUDY_FILE
    # Not Optuna's default lock, a symbolic link, which a kill leaves locked where the path is relative.
    lock = JournalFileOpenLock(str(path), grace_period=15)
    journal = JournalFileBackend(str(path), lock)
    lock.acquire()
    try:
        # A kill or a full disk may have cut off the last line, which the next one would continue.
        os.truncate(path, path.read_bytes().rfind(b"\n") + 1)
    finally:
        lock.release()
    try:
        return optuna.create_study(
            study_name=digest_of_content(fingerprint),
            storage=JournalStorage(journal),
            pruner=optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=sweep.epochs // 4),
            load_if_exists=True,
        )
    except (ValueError, KeyError) as error:
        raise RunError(f"{path} is damaged ({error}); delete it to start the sweep again.") from error


@contextmanager
def _locked(lock: TextIO) -> Iterator[None]:
    """Exclude the other workers; byte 0 of the file is the lock of the study, byte n + 1 that of trial n."""
    fcntl.lockf(lock, fcntl.LOCK_EX, 1, 0)
    try:
        yield
    finally:
        fcntl.lockf(lock, fcntl.LOCK_UN, 1, 0)


def _next_trial(study: optuna.Study, sweep: Sweep, lock: TextIO) -> Trial | None:
    """Begin and lock the next trial; None once the budget is spent and every trial has ended."""
    while True:
        with _locked(lock):
            for running in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                with suppress(BlockingIOError, PermissionError):  # its worker is alive
                    fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, running.number + 1)
                    study.tell(running.number, state=TrialState.FAIL, skip_if_finished=True)
            trials = study.get_trials(deepcopy=False)
            taken = [trial for trial in trials if trial.state != TrialState.FAIL]
            limit = 0 if _time_is_over(trials, sweep) else sweep.trials or math.inf
            if len(taken) < limit:
                # The next trial takes the place of a failed one, and with it its settings.
                places = {trial.user_attrs.get("place") for trial in taken}
                place = next(place for place in range(len(trials) + 1) if place not in places)
                tries = sum(trial.user_attrs.get("place") == place for trial in trials)
                seed = np.random.SeedSequence([sweep.seed, place, tries // _TRIES]).generate_state(1)[0]
                study.sampler = optuna.samplers.TPESampler(seed=int(seed))
                begun = study.ask(dict(SPACE))
                begun.set_user_attr("place", place)
                fcntl.lockf(lock, fcntl.LOCK_EX, 1, begun.number + 1)
                return begun
        if not any(trial.state == TrialState.RUNNING for trial in taken):
            return None
        time.sleep(0.5)


def _run(
    trial: Trial, study: optuna.Study, training_data: TrainingData, sweep: Sweep, device: torch.device
) -> None:
    def after_epoch(row: Mapping[str, float]) -> None:
        trial.report(row["validation_mse"], int(row["epoch"]))
        trials = study.get_trials(deepcopy=False)
        # The first trial may finish, without which the sweep has no result.
        completed = any(other.state == TrialState.COMPLETE for other in trials)
        if trial.should_prune() or (completed and _time_is_over(trials, sweep)):
            raise optuna.TrialPruned

    settings = _settings_of(trial.params, sweep)
    try:
        with temporary_folder() as run:
            history = train(training_data, settings, Path(run), device, False, after_epoch)
        study.tell(trial, float(history["validation_mse"].min()))
    except (optuna.TrialPruned, TrainingError) as error:
        # Not failed: a repetition would diverge too, and the sampler learns from pruned trials.
        if isinstance(error, TrainingError):
            trial.set_user_attr("why", str(error))
        study.tell(trial, state=TrialState.PRUNED)


def _settings_of(params: Mapping[str, Any], sweep: Sweep) -> TrainingSettings:
    """The settings of a trial's training, with numbers rounded to three digits."""
    changes: dict[str, Any] = {
        name: float(f"{value:.3g}") if isinstance(value, float) else value for name, value in params.items()
    }
    if not changes["learning_rate_period"]:
        changes["learning_rate_factor"] = 1.0
    return training_settings(changes.pop("model"), "tuned", sweep.seed, epochs=sweep.epochs, **changes)


def _time_is_over(trials: Sequence[FrozenTrial], sweep: Sweep) -> bool:
    """Whether trials ran for the budget's minutes; parallel ones count once, failed ones do not count."""
    total, end = timedelta(), datetime.min
    for trial in sorted(trials, key=lambda trial: trial.datetime_start or datetime.min):
        if trial.datetime_start and trial.state != TrialState.FAIL:
            complete = trial.datetime_complete or datetime.now()
            total += max(timedelta(), complete - max(trial.datetime_start, end))
            end = max(end, complete)
    return 0 < sweep.minutes <= total.total_seconds() / 60


def save_best(study: optuna.Study, sweep: Sweep, folder: Path) -> dict[str, Any]:
    """Write the settings of the best trial to best.json in `folder`.

    Returns:
        The content of the file: model and `changes`, the settings in which the best trial differs from that
            model's own; trial (its number) and validation_mse (squared rating points); trials and pruned (how
            many); epochs and seed; and the digest of the table of clips.

    Raises:
        RunError: no trial was completed.
    """
    outcomes = trials_table(study, sweep)["outcome"].to_list()
    if "completed" not in outcomes:
        raise RunError(
            f"none of {len(outcomes)} trials was completed: there is no best trial; give a larger BUDGET."
        )
    best = study.best_trial
    settings = _settings_of(best.params, sweep)
    own = training_settings(settings.model, "tuned", sweep.seed, epochs=sweep.epochs).to_mapping()
    content = {
        "model": settings.model,
        "changes": {name: value for name, value in settings.to_mapping().items() if value != own[name]},
        "trial": best.number,
        "validation_mse": best.value,
        "trials": len(outcomes),
        "pruned": len(outcomes) - outcomes.count("completed"),
        "epochs": sweep.epochs,
        "seed": sweep.seed,
        "clips": digest_of(folder.parent / "preprocess" / "clips.csv"),
    }
    write_json(folder / BEST_FILE, content)
    return content


def space_table() -> pd.DataFrame:
    """The search space in words, one row per parameter, with the columns Parameter and Tried."""
    tried = {}
    for name, space in SPACE.items():
        if isinstance(space, CategoricalDistribution):
            words = ", ".join(map(str, space.choices))
        else:
            words = f"{space.low:g} to {space.high:g}" + (", logarithmic" if space.log else "")
        tried[name.capitalize().replace("_", " ")] = words
    return pd.DataFrame(tried.items(), columns=["Parameter", "Tried"])


def trials_table(study: optuna.Study, sweep: Sweep) -> pd.DataFrame:
    """The trials that count towards the budget, one row each.

    Returns:
        Columns trial and worker (their numbers), outcome ("completed", "pruned" or "diverged"), epochs
        (trained), validation_mse (the lowest of these epochs, NaN where there is none), and the settings that
        were tried.
    """
    rows = []
    for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED)):
        tried, by_epoch = _settings_of(trial.params, sweep), trial.intermediate_values
        ended_early = "diverged" if "why" in trial.user_attrs else "pruned"
        outcome = "completed" if trial.state == TrialState.COMPLETE else ended_early
        lowest = min(by_epoch.values(), default=float("nan"))
        about = (trial.number, trial.user_attrs["worker"], outcome, len(by_epoch), lowest)
        rows.append([*about, *(getattr(tried, name) for name in SPACE)])
    return pd.DataFrame(rows, columns=["trial", "worker", "outcome", "epochs", "validation_mse", *SPACE])


def _line(row: Any, so_far: pd.DataFrame, sweep: Sweep) -> str:
    """One row of `trials_table` in words, and the trials so far."""
    best = so_far.loc[so_far["outcome"] == "completed", "validation_mse"].min()
    return (
        f"trial {row.trial:3d}  {row.model:5s}  learning rate {row.learning_rate:<8.2g} "
        f"standardise {row.standardise:5s}  validation MSE {row.validation_mse:6.3f}  {row.outcome:9s}  "
        f"{len(so_far)}{f' of {sweep.trials}' if sweep.trials else ''} done, "
        f"{'none completed' if pd.isna(best) else f'best {best:.3f}'}"
    )
