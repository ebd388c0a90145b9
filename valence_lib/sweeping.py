"""Hyperparameters tuned by Optuna: one study a report, which any number of workers share through one file.

reports/<name>/sweep/
  study.log         every trial and what became of it, appended line by line
  best.json         the best trial's setting, which `make report TUNED=yes` trains as one more row
  trials/<number>/  a training that is under way; removed when it ends

Workers may be processes of one machine or of several that see the same folder. Each begins a trial only while the
study's budget lasts, and a worker that is killed costs the study the trial that it was at, which another takes over.
"""

import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import optuna
import pandas as pd
import torch
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    distribution_to_json,
)
from optuna.exceptions import TrialPruned, UpdateFinishedTrialError
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, Trial, TrialState

from valence_lib.errors import RunError, SettingsError, TrainingError
from valence_lib.files import digest_of, write_json
from valence_lib.provenance import digest_of_content, environment, modules_reached
from valence_lib.registry import MODELS, SEED_MODELS, training_settings
from valence_lib.settings import TrainingSettings
from valence_lib.training import Material, train


class Range(NamedTuple):
    """What is tried of one parameter: Optuna's distribution of it, with its unit and the reason in words."""

    space: BaseDistribution
    why: str


# All of it fields of `TrainingSettings`. Where a range goes over decades, it is the logarithm that is drawn evenly.
SPACE: dict[str, Range] = {
    "model": Range(CategoricalDistribution(SEED_MODELS), "the course report's three"),
    "learning_rate": Range(
        FloatDistribution(1e-4, 1e-2, log=True),
        "of Adam, in the first epoch: the course report's 0.001, and ten times less and more",
    ),
    "weight_decay": Range(
        FloatDistribution(1e-6, 1e-2, log=True),
        "L2 regularisation: from next to none to 100 times that of LSTM2 in the course report",
    ),
    "batch_size": Range(
        CategoricalDistribution((8, 16, 32, 64)),
        "clips: with fewer, matrix products are slow; with more, a small corpus has few steps an epoch",
    ),
    "max_gradient_norm": Range(
        FloatDistribution(0.3, 10.0, log=True),
        "Euclidean: from clipping nearly every gradient to clipping hardly any",
    ),
    "learning_rate_period": Range(
        CategoricalDistribution((0, 2, 5, 10)),
        "epochs between two reductions of the learning rate; 0 for none",
    ),
    "learning_rate_factor": Range(
        FloatDistribution(0.2, 0.8), "what a reduction multiplies the learning rate by, where there is any"
    ),
    "standardise": Range(
        CategoricalDistribution(("train", "clip", "none")),
        "not by speaker: it would need named speakers, and hear all clips of held-out ones",
    ),
}
STUDY_FILE, BEST_FILE = "study.log", "best.json"
# A setting during which workers died so often is given up for another; until then, it is tried again.
_TRIES = 3
_PRUNER_STARTS_AFTER = 5  # trials, whose median says what a promising one looks like
_SECONDS_BETWEEN_SIGNS = 5.0  # of life, from a worker that is at a trial
_SECONDS_OF_A_LOCK = 15  # none holds one for longer than some hundredths
_SECONDS_BETWEEN_LOOKS = 0.5  # at a study whose last trials others are at
_COUNTED = (TrialState.COMPLETE, TrialState.PRUNED)

optuna.logging.set_verbosity(optuna.logging.ERROR)  # workers say themselves what became of a trial


@dataclass(frozen=True)
class Sweep:
    """What a sweep is to do.

    Args:
        trials: budget of the whole study, those of earlier calls included; 0 for no limit.
        minutes: budget of time in which any trial was under way, earlier calls included; 0 for no limit.
        epochs: of each training.
        seed: of what is tried, and of every training.
    """

    trials: int = 20
    minutes: float = 0.0
    epochs: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        if self.trials < 0 or self.minutes < 0 or not (self.trials or self.minutes):
            raise SettingsError(
                f"a budget of {self.trials} trials and {self.minutes:g} minutes was given; expected one of the two "
                "above 0 and the other 0 or more."
            )
        training_settings("LSTM2", "tuned", self.seed, epochs=self.epochs)


class _TimeOver(Exception):  # noqa: N818 (no error: it was asked for)
    """The budget's minutes ended during a trial."""


def work(
    material: Material,
    sweep: Sweep,
    folder: Path,
    device: torch.device,
    worker: int = 1,
    say: Callable[[str], object] = print,
    silent_after: float = 60.0,
) -> optuna.Study:
    """Join the study in `folder` and run trials until its budget is spent; return the study.

    A trial is one training with the sweep's seed; its value is the lowest validation MSE of an epoch. One that is worse
    than the median of earlier ones at the same epoch is pruned, as is one that diverges. What is tried next depends on
    the seed and on what is known by then alone, so that one worker gives the same trials again. It ends when no other is
    at a trial either, so that all leave the same best.json.

    Args:
        folder: reports/<name>/sweep, made if it is not there.
        worker: this one's number, noted with its trials.
        say: told one line for each trial that this worker ended, after one for each that had ended before it joined.
        silent_after: seconds without a sign of life after which another worker counts as dead, and its trial as failed.

    Raises:
        RunError: study.log is damaged.
    """
    study = open_study(material, sweep, folder)
    before = finished(study)
    for number, trial in enumerate(before):
        say(_line(trial, before[: number + 1], sweep))
    while (begun := _claim(study, sweep, folder, silent_after)) is not None:
        begun.set_user_attr("worker", worker)
        _run(begun, study, material, sweep, folder, device)
        ended = study.get_trials(deepcopy=False)[begun.number]
        if ended.state in _COUNTED:
            say(_line(ended, finished(study), sweep))
    return study


def open_study(material: Material, sweep: Sweep, folder: Path) -> optuna.Study:
    """The study of this material, these epochs, this seed, this search space and this code; begun if there is none.

    The log may hold studies of other material or code, which are left alone.

    Raises:
        RunError: study.log is damaged.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made_of = {
        "material": material.digest(),
        "epochs": sweep.epochs,
        "seed": sweep.seed,
        "space": {name: distribution_to_json(tried.space) for name, tried in SPACE.items()},
        "code": modules_reached(
            ["import valence_lib.training"], [MODELS[name].module for name in SEED_MODELS]
        ),
        "packages": environment()["packages"],
    }
    try:
        return optuna.create_study(
            study_name=digest_of_content(made_of),
            storage=JournalStorage(_Log(folder / STUDY_FILE)),
            pruner=optuna.pruners.MedianPruner(_PRUNER_STARTS_AFTER, n_warmup_steps=sweep.epochs // 4),
            load_if_exists=True,
        )
    except (ValueError, KeyError) as error:
        raise RunError(
            f"{folder / STUDY_FILE} is damaged ({error}); delete it, and the sweep begins anew."
        ) from error


class _Log(JournalFileBackend):
    """Optuna's journal, which also survives that a writer is killed in the middle of a line."""

    def __init__(self, path: Path):
        super().__init__(str(path), lock_obj=_lock(path))
        self._path = path

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """See `JournalFileBackend`."""
        lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs).encode()
        with _held(self._path), self._path.open("ab") as file:
            if (end := _end_of_last_line(self._path)) < file.tell():
                file.truncate(end)
            file.write(lines)
            file.flush()
            os.fsync(file.fileno())


def _end_of_last_line(path: Path) -> int:
    """Where the last whole line of a file ends: its size, unless a writer was cut off."""
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        while end:
            begin = max(0, end - 4096)
            file.seek(begin)
            if (found := file.read(end - begin).rfind(b"\n")) >= 0:
                return begin + found + 1
            end = begin
    return 0


def _lock(path: Path) -> JournalFileOpenLock:
    """Optuna's lock for shared file systems: a file that only one can create, taken away once its owner must be dead."""
    return JournalFileOpenLock(str(path), grace_period=_SECONDS_OF_A_LOCK)


@contextmanager
def _held(path: Path) -> Iterator[float]:
    """Alone among all workers on a file; gives the time that it is on that file system's clock."""
    lock = _lock(path)
    lock.acquire()
    try:
        yield Path(f"{path}.lock").stat().st_mtime
    finally:
        with suppress(RuntimeError):  # taken away by others, who took this process for dead
            lock.release()


# One trial after the other


def _claim(study: optuna.Study, sweep: Sweep, folder: Path, silent_after: float) -> Trial | None:
    """Begin the next trial within the budget; None once it is spent. Waits where others are at the last ones."""
    while True:
        with _held(folder / "claim") as now:
            _give_up_silent(study, folder, now - silent_after)
            trials = study.get_trials(deepcopy=False)
            counted = [trial for trial in trials if trial.state in _COUNTED]
            taken = [trial for trial in trials if trial.state in (*_COUNTED, TrialState.RUNNING)]
            spent = (sweep.trials and len(counted) >= sweep.trials) or _time_is_over(trials, sweep)
            if spent and len(taken) == len(counted):
                return None
            if not spent and (not sweep.trials or len(taken) < sweep.trials):
                return _begin(study, trials, taken, sweep, folder)
        time.sleep(_SECONDS_BETWEEN_LOOKS)


def _begin(
    study: optuna.Study,
    trials: Sequence[FrozenTrial],
    taken: Sequence[FrozenTrial],
    sweep: Sweep,
    folder: Path,
) -> Trial:
    # A place in the study is free again where its trial failed. The sampler's seed comes from the place, so that a
    # killed trial's setting is drawn again, and two workers never draw the same.
    places = {trial.user_attrs.get("place") for trial in taken}
    place = next(place for place in range(len(trials) + 1) if place not in places)
    tries = sum(trial.user_attrs.get("place") == place for trial in trials)
    seed = np.random.SeedSequence([sweep.seed, place, tries // _TRIES]).generate_state(1)[0]
    study.sampler = optuna.samplers.TPESampler(seed=int(seed))
    trial = study.ask({name: tried.space for name, tried in SPACE.items()})
    trial.set_user_attr("place", place)
    sign = _sign_of_life(folder, trial.number)
    shutil.rmtree(sign.parent, ignore_errors=True)  # of a killed worker at another study of this log
    sign.parent.mkdir(parents=True)
    sign.touch()
    return trial


def _run(
    trial: Trial, study: optuna.Study, material: Material, sweep: Sweep, folder: Path, device: torch.device
) -> None:
    def after_epoch(row: Mapping[str, float]) -> None:
        trial.report(row["validation_mse"], int(row["epoch"]))
        if trial.should_prune():
            raise TrialPruned
        trials = study.get_trials(deepcopy=False)
        # The first trial of all may finish: a sweep without any result is of no use.
        if _time_is_over(trials, sweep) and any(other.state == TrialState.COMPLETE for other in trials):
            raise _TimeOver

    settings = settings_of(trial.params, sweep)
    making = folder / "trials" / str(trial.number)
    value: float | None = None
    state = TrialState.FAIL
    try:
        with _signs_of_life(_sign_of_life(folder, trial.number)):
            history = train(material, settings, making, device, progress=False, after_epoch=after_epoch)
        state, value = TrialState.COMPLETE, float(history["validation_mse"].min())
    except TrialPruned:
        state = TrialState.PRUNED
    except TrainingError as error:
        # It diverged. Pruned and not failed: it would only diverge again, and is worth knowing to what is tried next.
        state = TrialState.PRUNED
        trial.set_user_attr("why", str(error))
    except _TimeOver:
        trial.set_user_attr("why", "the budget's time was over")
    except UpdateFinishedTrialError:
        pass  # this process was silent for so long that another worker took over
    finally:
        study.tell(trial, value, state=state, skip_if_finished=True)
        shutil.rmtree(making, ignore_errors=True)
        with _held(folder / "claim"), suppress(RunError):
            save_best(study, sweep, folder)


def settings_of(params: Mapping[str, Any], sweep: Sweep) -> TrainingSettings:
    """The settings of a trial's training; numbers to three digits, so that they can be read and told on."""
    changes: dict[str, Any] = {
        name: float(f"{value:.3g}") if isinstance(value, float) else value for name, value in params.items()
    }
    if not changes["learning_rate_period"]:
        changes["learning_rate_factor"] = 1.0
    return training_settings(changes.pop("model"), "tuned", sweep.seed, epochs=sweep.epochs, **changes)


def _time_is_over(trials: Sequence[FrozenTrial], sweep: Sweep) -> bool:
    return sweep.minutes > 0 and _minutes(trials) >= sweep.minutes


def _minutes(trials: Sequence[FrozenTrial]) -> float:
    """Minutes in which any trial was under way; those that a killed worker was at do not count."""
    spans = sorted(
        (trial.datetime_start, trial.datetime_complete or datetime.now())
        for trial in trials
        if trial.datetime_start and (trial.state != TrialState.FAIL or "why" in trial.user_attrs)
    )
    total, end = timedelta(), datetime.min
    for begin, complete in spans:
        total += max(timedelta(), complete - max(begin, end))
        end = max(end, complete)
    return total.total_seconds() / 60


# Who is still alive


def _sign_of_life(folder: Path, number: int) -> Path:
    return folder / "trials" / str(number) / "alive"


@contextmanager
def _signs_of_life(path: Path) -> Iterator[None]:
    """Touch a file every few seconds, until the block ends or this process dies."""
    ended = threading.Event()

    def touch() -> None:
        while not ended.wait(_SECONDS_BETWEEN_SIGNS):
            with suppress(OSError):
                path.touch()

    thread = threading.Thread(target=touch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _give_up_silent(study: optuna.Study, folder: Path, heard_since: float) -> None:
    """Fail the trials of workers of which no sign of life came, and remove what they left."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if _last_sign(_sign_of_life(folder, trial.number)) < heard_since:
            study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
    for left in (folder / "trials").glob("*"):
        if _last_sign(left / "alive") < heard_since:
            shutil.rmtree(left, ignore_errors=True)


def _last_sign(path: Path) -> float:
    try:
        with path.open("rb") as file:  # opened, for then a shared file system asks its server anew
            return os.fstat(file.fileno()).st_mtime
    except OSError:
        return -1.0


# What came of it


def finished(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that count towards the budget, by number: completed and pruned ones."""
    return study.get_trials(deepcopy=False, states=_COUNTED)


def save_best(study: optuna.Study, sweep: Sweep, folder: Path) -> dict[str, Any]:
    """Write best.json, and return what stands in it.

    It holds the model and `changes`, the settings in which the best trial differs from that model's own; the trial's
    number and validation_mse (squared rating points); how many trials it was the best of, and how many of them were
    pruned; epochs and seed; and the digest of the table of clips on whose validation part it was chosen.

    Raises:
        RunError: no trial was completed.
    """
    counted = finished(study)
    completed = [trial for trial in counted if trial.state == TrialState.COMPLETE]
    if not completed:
        raise RunError(
            f"none of {len(counted)} trials was completed, so that there is no best one; give a larger BUDGET."
        )
    best = min(completed, key=lambda trial: (trial.value, trial.number))
    settings = settings_of(best.params, sweep)
    own = training_settings(settings.model, "tuned", sweep.seed, epochs=sweep.epochs).to_mapping()
    content = {
        "model": settings.model,
        "changes": {name: value for name, value in settings.to_mapping().items() if value != own[name]},
        "trial": best.number,
        "validation_mse": best.value,
        "trials": len(counted),
        "pruned": len(counted) - len(completed),
        "epochs": sweep.epochs,
        "seed": sweep.seed,
        "clips": digest_of(folder.parent / "preprocess" / "clips.csv"),
    }
    write_json(folder / BEST_FILE, content)
    return content


def space_table() -> pd.DataFrame:
    """The search space in words: a row a parameter, with the columns Parameter, Tried and Why."""
    return pd.DataFrame(
        [
            (name.capitalize().replace("_", " "), _in_words(tried.space), tried.why)
            for name, tried in SPACE.items()
        ],
        columns=["Parameter", "Tried", "Why"],
    )


def _in_words(space: BaseDistribution) -> str:
    if isinstance(space, FloatDistribution):
        return f"{space.low:g} to {space.high:g}" + (", logarithmic" if space.log else "")
    assert isinstance(space, CategoricalDistribution)
    return ", ".join(map(str, space.choices))


def trials_table(study: optuna.Study, sweep: Sweep) -> pd.DataFrame:
    """A row a trial that has ended, by number.

    Columns: trial, worker (its number), outcome ("completed", "pruned" or "diverged"), epochs (that it was trained), validation_mse (the
    lowest of these epochs, NaN where there is none), and the settings that were tried.
    """
    rows = []
    for trial in finished(study):
        tried = settings_of(trial.params, sweep).to_mapping()
        rows.append(
            {
                "trial": trial.number,
                "worker": trial.user_attrs["worker"],
                "outcome": _outcome(trial),
                "epochs": len(trial.intermediate_values),
                "validation_mse": _lowest(trial),
                **{name: tried[name] for name in SPACE},
            }
        )
    return pd.DataFrame(rows, columns=["trial", "worker", "outcome", "epochs", "validation_mse", *SPACE])


def _outcome(trial: FrozenTrial) -> str:
    if trial.state == TrialState.COMPLETE:
        return "completed"
    return "diverged" if "why" in trial.user_attrs else "pruned"


def _line(trial: FrozenTrial, so_far: Sequence[FrozenTrial], sweep: Sweep) -> str:
    """What became of a trial, and where the study stood then."""
    setting = settings_of(trial.params, sweep)
    completed = [_lowest(other) for other in so_far if other.state == TrialState.COMPLETE]
    budget = f" of {sweep.trials}" if sweep.trials else ""
    best = f"best {min(completed):.3f}" if completed else "none completed"
    return (
        f"trial {trial.number:3d}  {setting.model:5s}  learning rate {setting.learning_rate:<8.2g} "
        f"standardise {setting.standardise:5s}  validation MSE {_lowest(trial):6.3f}  {_outcome(trial):9s}  "
        f"{len(so_far)}{budget} done, {best}"
    )


def _lowest(trial: FrozenTrial) -> float:
    return min(trial.intermediate_values.values(), default=float("nan"))
