"""Training of models that are fitted in one step to one row of numbers per clip."""

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from valence_lib.features.standardise import Standardiser
from valence_lib.files import atomic_write
from valence_lib.models.build import build_model
from valence_lib.models.contract import OneStepModel
from valence_lib.settings import TrainingSettings
from valence_lib.training.loop import TrainingData, TrainingFolder, validation_mse
from valence_lib.training.runs import Ensemble, Run, save_best

VALIDATION_FILE = "validation.csv"  # predictions of the validation clips by a fit without them
_LAYER_FOLDS = 3  # by which the layer of an encoder is chosen
_LAYER_CLIPS = 1000


def fit(
    training_data: TrainingData, settings: TrainingSettings, folder: Path, progress: bool = True
) -> pd.DataFrame:
    """Fit one model and write a run to `folder`, unless the same fit was finished there.

    The model is fitted twice: to the training clips, which gives the validation MSE, and to training and
    validation clips together, which gives the run. Where the settings name all layers of an encoder, the
    layer is chosen by `with_chosen_layer`.

    Deterministic: the same clips, settings and processor give the same bytes.

    Args:
        progress: print a line with the MSEs.

    Returns:
        The history, one row: epoch (1), learning_rate (0), training_mse and validation_mse, both of the first
            fit; NaN where there are no validation clips.

    Raises:
        TrainingError: a prediction of a validation clip is not finite.
    """
    torch.set_num_threads(1)
    place = TrainingFolder(training_data, settings, folder, "import valence_lib.training.one_step")
    if not place.is_finished():
        _fit(place)
    history = pd.read_csv(folder / "history.csv")
    if progress:
        row = history.iloc[0]
        print(f"fitted   training MSE {row['training_mse']:.3f}   validation MSE {row['validation_mse']:.3f}")
    return history


def _fit(place: TrainingFolder) -> None:
    started = time.perf_counter()
    training_data, train = place.training_data, place.training_data.rows("train")
    settings = with_chosen_layer(training_data, place.settings, train)
    validation = training_data.rows("validation")
    every = np.arange(len(training_data.clips))
    run = fitted(training_data, settings, train, every)
    training_mse = float(np.mean((training_data.truth[train] - predict(run, training_data, train)) ** 2))
    row = {"epoch": 1.0, "learning_rate": 0.0, "training_mse": training_mse, "validation_mse": float("nan")}
    predictions = np.zeros(0)
    if len(validation):
        predictions = predict(run, training_data, validation)
        row["validation_mse"] = validation_mse(training_data, validation, predictions)
        run = fitted(training_data, settings, np.sort(np.concatenate([train, validation])), every)
    place.begin(run)
    table = pd.DataFrame({"id": training_data.clips["id"].iloc[validation], "prediction": predictions})
    with atomic_write(place.unfinished / VALIDATION_FILE) as path:
        table.to_csv(path, index=False, lineterminator="\n")
    save_best(place.unfinished, run)
    place.finish([row], time.perf_counter() - started, "cpu")


def fitted(
    training_data: TrainingData, settings: TrainingSettings, rows: NDArray[np.int64], known: NDArray[np.int64]
) -> Run:
    """A model of these settings, fitted to some clips.

    Args:
        rows: of the clips that it is fitted to, with their ratings.
        known: of the clips that give a speaker's statistics, where the settings standardise by speaker.
    """
    features, speakers = training_data.store.of(settings.streams), training_data.speakers
    of_standardiser = known if settings.standardise == "speaker" else rows
    standardiser = Standardiser.fit(
        settings.standardise,
        (features[int(row)] for row in of_standardiser),
        speakers[of_standardiser].tolist(),
        np.ones(len(of_standardiser), bool),
    )
    vectors = np.concatenate([standardiser.apply(features[int(row)], speakers[row]) for row in rows])
    model = build_model(settings.model, features.widths)
    assert isinstance(model, OneStepModel)
    model.fit(vectors, training_data.truth[rows], speakers[rows])
    return Run(training_data.store.settings, settings, model.eval(), standardiser, training_data.target)


def predict(run: Run | Ensemble, training_data: TrainingData, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """The predicted ratings of some clips [shape=(rows,)]; speakers' statistics are those of these clips."""
    source, speakers = training_data.source(rows), training_data.speakers[rows].tolist()
    return run.adapt(source, speakers).predict_features(source, speakers)


def with_chosen_layer(
    training_data: TrainingData, settings: TrainingSettings, rows: NDArray[np.int64]
) -> TrainingSettings:
    """The settings with one layer of the encoder instead of all, as in "encoder:3".

    It is the layer with the lowest MSE in a cross-validation among at most 1000 of these rows, by speaker
    where there are enough. Settings without an encoder, or with one of its layers, stay as they are.
    """
    if "encoder" not in settings.streams:
        return settings
    layers = len(training_data.store.of(["encoder"])[int(rows[0])])
    if layers == 1:
        return settings
    from valence_lib.models.fitted import folds_of  # imports scikit-learn

    some = np.sort(np.random.default_rng(0).permutation(rows)[:_LAYER_CLIPS])
    folds, groups = folds_of(training_data.speakers[some], _LAYER_FOLDS)
    splits = [(some[inside], some[outside]) for inside, outside in folds.split(some, groups=groups)]
    errors = {}
    for layer in range(layers):
        streams = tuple(f"encoder:{layer}" if name == "encoder" else name for name in settings.streams)
        candidate = replace(settings, streams=streams)
        residuals = [
            predict(fitted(training_data, candidate, inside, some), training_data, outside)
            - training_data.truth[outside]
            for inside, outside in splits
        ]
        errors[candidate] = np.mean(np.concatenate(residuals) ** 2)
    return min(errors, key=errors.__getitem__)
