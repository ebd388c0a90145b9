"""One run of a report: a model trained on every division of the clips, and what it predicts.

A division says of each clip whether it is trained on, validates, tests or stays out; a holdout has one, a
cross-validation one a fold. The trainings lie in the run's folder, those of a cross-validation in its folders fold-0, ...
"""

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from valence_lib.fitting import VALIDATION_FILE, fit, predict
from valence_lib.protocols import FOLD, OUT_OF_FOLD, Divisions
from valence_lib.registry import model_entry, training_settings
from valence_lib.runs import load_run, save_members
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
    **changes: object,
) -> pd.DataFrame:
    """Train a model on every division; what was finished in `folder` is not done again.

    Args:
        folder: of the run.
        changes: of the training's settings, as `registry.training_settings` takes them.

    Returns:
        The histories of all trainings, as `training.train` returns them, with the column fold.
    """
    settings = training_settings(model, preset, seed, **changes)
    histories = []
    for division, parts in divisions.items():
        divided = material.divided(parts)
        if progress and division:
            print(division)
        if model_entry(model).fitted:
            history = fit(divided, settings, folder / division, progress)
        else:
            history = train(divided, settings, folder / division, device, progress)
        histories.append(history.assign(fold=division))
    if "" not in divisions:
        save_members(folder, settings, list(divisions))
    return pd.concat(histories, ignore_index=True)


def predict_held_out(material: Material, divisions: Divisions, folder: Path) -> pd.DataFrame:
    """What a run predicts for the clips that it was not trained on, one row a clip, part and fold.

    Validation clips of a model that is fitted in one step are predicted by its fit without them.

    Returns:
        Columns id, part, fold, speaker, duration_seconds, truth (NaN where there is no rating) and prediction. In
        a cross-validation, "test" is called "out_of_fold": each rated clip is in it once, predicted by the training of the fold
        that tests it; an unlabelled clip has the mean of all folds' predictions.
    """
    frames = []
    for division, parts in divisions.items():
        run = load_run(folder / division)
        for in_group in (["validation"], ["test", "unlabelled"]):
            rows = np.flatnonzero(np.isin(parts, in_group))
            if not len(rows):
                continue
            clips = material.clips.iloc[rows]
            saved = folder / division / VALIDATION_FILE
            if in_group == ["validation"] and saved.is_file():
                predictions = pd.read_csv(saved)["prediction"].to_numpy(np.float64)
            else:
                predictions = predict(run, material, rows)
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
