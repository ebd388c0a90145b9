"""One run of a report: a model, or a blend of several, trained on every division of the clips, and what it predicts.

A division says of each clip whether it is trained on, validates, tests or stays out; a holdout has one, a
cross-validation one a fold. The trainings lie below the run's folder:

    runs/<run>/                    holdout, one model
    runs/<run>/<member>/           holdout, a blend
    runs/<run>/fold-0/             cross-validation, one model
    runs/<run>/fold-0/<member>/    cross-validation, a blend

Where the settings say `refit`, what lies there was trained on training and validation clips, and the training that left the
validation clips out, by which the model is judged and chosen, lies in `validated/` below.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from valence_lib.protocols import FOLD, OUT_OF_FOLD, VALIDATED, Divisions
from valence_lib.registry import training_settings, trainings
from valence_lib.runs import load_run, save_members
from valence_lib.streams import Rows
from valence_lib.training import Material, train


def run_experiment(
    material: Material,
    divisions: Divisions,
    folder: Path,
    device: torch.device,
    model: str,
    preset: str,
    seed: int,
    progress: bool = True,
    validated: bool = True,
    **changes: object,
) -> pd.DataFrame:
    """Train a model, or all members of a blend, on every division; what was finished in `folder` is not done again.

    Args:
        folder: of the run.
        validated: of settings that `refit`, do both trainings; False leaves out the one without the validation clips.
        changes: of the training's settings, as `registry.training_settings` takes them.

    Returns:
        The histories of all trainings, as `training.train` returns them, with the columns fold and member.
    """
    members = trainings(model, preset, seed, **changes)
    whole = training_settings(model, preset, seed, **changes)
    histories = []
    for division, parts in divisions.items():
        divided = material.divided(parts)
        for member, settings in members.items():
            place = folder / division / member
            if progress and (division or member):
                print(place.relative_to(folder).as_posix())
            if settings.refit:
                both = material.divided(np.where(parts == "validation", "train", parts))
                history = train(both, settings, place, device, progress=False)
                if validated:
                    history = train(divided, settings, place / VALIDATED, device, progress)
            else:
                history = train(divided, settings, place, device, progress)
            histories.append(history.assign(fold=division, member=member))
        if "" not in members:
            save_members(folder / division, whole, list(members))
    if "" not in divisions:
        save_members(folder, whole, list(divisions))
    return pd.concat(histories, ignore_index=True)


class _Chosen:
    """Some clips of a store, as what a run hears."""

    def __init__(self, material: Material, rows: NDArray[np.int64]):
        self._material, self._rows = material, rows

    def of(self, names: str) -> list[Rows]:
        """See `runs.Hearing`."""
        heard = self._material.store.of(names)
        return [heard[int(row)] for row in self._rows]


def predict_held_out(
    material: Material, divisions: Divisions, folder: Path, validated: bool = True, member: str = ""
) -> pd.DataFrame:
    """What a run predicts for the clips that it was not trained on, one row a clip, part and fold.

    Args:
        member: of a blend, to predict by it alone.
        validated: predict the validation clips too, which a run that was trained without `validated` has heard.

    Returns:
        Columns id, part, fold, speaker, duration_seconds, truth (NaN where there is no rating) and prediction. In
        a cross-validation, "test" is called "out_of_fold": each rated clip is in it once, as the training predicts it that had
        not heard it; an unlabelled clip has the mean of all folds' predictions.
    """
    frames = []
    for division, parts in divisions.items():
        for validates in (True, False) if validated else (False,):
            rows = np.flatnonzero(np.isin(parts, ["validation"] if validates else ["test", "unlabelled"]))
            if not len(rows):
                continue
            clips = material.clips.iloc[rows]
            run = load_run(folder / division / member, validated=validates)
            predictions = run.hear(_Chosen(material, rows), clips["speaker"].tolist())
            found = clips[["id", "speaker", "duration_seconds", "valence"]].rename(
                columns={"valence": "truth"}
            )
            tested = (parts[rows] == "test") & (division != "")
            found.insert(1, "part", np.where(tested, OUT_OF_FOLD, parts[rows]))
            found.insert(2, "fold", division.removeprefix(FOLD))
            frames.append(found.assign(prediction=predictions))
    held_out = pd.concat(frames, ignore_index=True)
    if len(divisions) == 1:
        return held_out
    everywhere = held_out["part"] == "unlabelled"
    unlabelled = held_out[everywhere].assign(fold="")
    means = unlabelled.groupby("id", sort=False, as_index=False).agg(
        {"part": "first", "fold": "first", "speaker": "first", "duration_seconds": "first", "truth": "first"}
        | {"prediction": "mean"}
    )
    return pd.concat([held_out[~everywhere], means], ignore_index=True)


def predict_by_members(
    material: Material,
    divisions: Divisions,
    folder: Path,
    model: str,
    preset: str,
    seed: int,
    validated: bool = True,
) -> pd.DataFrame:
    """As `predict_held_out`, by each member of a blend alone, with the column member; no rows of any other model."""
    members = [name for name in trainings(model, preset, seed) if name]
    frames = [
        predict_held_out(material, divisions, folder, validated, member).assign(member=member)
        for member in members
    ]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame({"member": []})
