"""One run: a model trained on each split of the clips, and its predictions of held-out clips.

A holdout has one split, a cross-validation one per fold, whose trainings are in the folders fold-0, ... of
the run.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from valence_lib.preprocess.splits import FOLD, OUT_OF_FOLD, Splits
from valence_lib.registry import model_entry, training_settings
from valence_lib.training.loop import TrainingData, train
from valence_lib.training.one_step import VALIDATION_FILE, fit, predict
from valence_lib.training.runs import load_run, save_members

_COLUMNS = {"id": "id", "speaker": "speaker", "duration_seconds": "duration_seconds", "rating": "truth"}


def run_experiment(
    training_data: TrainingData,
    splits: Splits,
    folder: Path,
    device: torch.device,
    model: str,
    preset: str,
    seed: int,
    progress: bool = True,
    **changes: object,
) -> pd.DataFrame:
    """Train a model on every split; what was finished in `folder` is not repeated.

    Args:
        folder: of the run.
        changes: of the training's settings, for `registry.training_settings`.

    Returns:
        The histories of all trainings, as `loop.train` returns them, with the column fold.
    """
    settings = training_settings(model, preset, seed, **changes)
    histories = []
    for split, subsets in splits.items():
        of_split = training_data.with_subsets(subsets)
        if progress and split:
            print(split)
        if model_entry(model).fitted:
            history = fit(of_split, settings, folder / split, progress)
        else:
            history = train(of_split, settings, folder / split, device, progress)
        histories.append(history.assign(fold=split))
    if "" not in splits:
        save_members(folder, settings, list(splits))
    return pd.concat(histories, ignore_index=True)


def predict_held_out(training_data: TrainingData, splits: Splits, folder: Path) -> pd.DataFrame:
    """Predictions of the clips that a run was not trained on, one row per clip, subset and fold.

    Validation clips of a one-step model are predicted by its fit without them.

    Returns:
        Columns id, subset, fold, speaker, duration_seconds, truth (NaN where there is no rating) and
        prediction. In a cross-validation, "test" is called "out_of_fold": each rated clip is in it once,
        predicted by the training that tests it. The prediction of an unlabelled clip is the mean over folds.
    """
    frames = []
    for split, subsets in splits.items():
        run = load_run(folder / split)
        for together in (["validation"], ["test", "unlabelled"]):
            rows = np.flatnonzero(np.isin(subsets, together))
            if not len(rows):
                continue
            saved = folder / split / VALIDATION_FILE
            if together == ["validation"] and saved.is_file():
                predictions = pd.read_csv(saved)["prediction"].to_numpy(np.float64)
            else:
                predictions = predict(run, training_data, rows)
            found = training_data.clips.iloc[rows][list(_COLUMNS)].rename(columns=_COLUMNS)
            is_out_of_fold = (subsets[rows] == "test") & (split != "")
            found.insert(1, "subset", np.where(is_out_of_fold, OUT_OF_FOLD, subsets[rows]))
            found.insert(2, "fold", split.removeprefix(FOLD))
            frames.append(found.assign(prediction=predictions))
    held_out = pd.concat(frames, ignore_index=True)
    if len(splits) == 1:
        return held_out
    is_unlabelled = held_out["subset"] == "unlabelled"
    by_clip = held_out[is_unlabelled].assign(fold="").groupby("id", sort=False, as_index=False)
    first = dict.fromkeys(held_out.columns.drop(["id", "prediction"]), "first")
    return pd.concat(
        [held_out[~is_unlabelled], by_clip.agg(first | {"prediction": "mean"})], ignore_index=True
    )
