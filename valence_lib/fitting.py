"""Models that are fitted in one step, to one row of numbers a clip."""

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from valence_lib.features import Standardiser
from valence_lib.files import written_whole
from valence_lib.metrics import mse
from valence_lib.models import build_model
from valence_lib.runs import Ensemble, Run, save_best
from valence_lib.settings import TrainingSettings
from valence_lib.training import HISTORY, Material, TrainingFolder, read_history, validation_mse

VALIDATION_FILE = "validation.csv"  # in a run's folder: predictions of these clips by a fit without them
_LAYER_FOLDS = 3  # by which the layer of an encoder is chosen
_LAYER_CLIPS = 1000


def fit(material: Material, settings: TrainingSettings, folder: Path, progress: bool = True) -> pd.DataFrame:
    """Fit one model and leave a run in `folder`; where just this fit was finished there, do nothing.

    Such a model needs no validation clips to stop by. It is fitted twice: to the training clips, which gives the
    predictions of the validation clips and so the validation MSE, and then to training and validation clips together, which
    gives the run. Where the settings name all layers of an encoder, the one with the lowest MSE in a cross-validation among
    the training clips is taken.

    Deterministic: the same material, settings and processor give the same bytes.

    Args:
        progress: print a line with the MSEs.

    Returns:
        The history, one row: epoch (1), learning_rate (0), training_mse and validation_mse, both of the first fit; NaN
        where there are no validation clips.

    Raises:
        TrainingError: a prediction of a validation clip is not finite.
    """
    torch.set_num_threads(1)
    place = TrainingFolder(material, settings, folder, "import valence_lib.fitting")
    if not place.is_finished():
        _fit(place)
    (row,) = history = read_history(folder)
    if progress:
        print(f"fitted   training MSE {row['training_mse']:.3f}   validation MSE {row['validation_mse']:.3f}")
    return pd.DataFrame(history, columns=HISTORY)


def _fit(place: TrainingFolder) -> None:
    started = time.perf_counter()
    material, train = place.material, place.material.rows("train")
    settings = with_chosen_layer(material, place.settings, train)
    validation = material.rows("validation")
    row = {"epoch": 1.0, "learning_rate": 0.0}
    everything = np.arange(len(material.clips))
    first = fitted(material, settings, train, everything)
    row["training_mse"] = mse(_truth(material, train), predict(first, material, train))
    row["validation_mse"] = float("nan")
    run = first
    predictions = np.zeros(0)
    if len(validation):
        predictions = predict(first, material, validation)
        row["validation_mse"] = validation_mse(material, validation, predictions)
        run = fitted(material, settings, np.sort(np.concatenate([train, validation])), everything)
    place.begin(settings, run.standardiser, run.model, material.store.of(settings.streams).widths)
    table = pd.DataFrame({"id": material.clips["id"].iloc[validation], "prediction": predictions})
    with written_whole(place.making / VALIDATION_FILE) as path:
        table.to_csv(path, index=False, lineterminator="\n")
    save_best(place.making, run.model, run.standardiser)
    place.note_progress([row], time.perf_counter() - started, "cpu")
    place.finish()


def fitted(
    material: Material, settings: TrainingSettings, rows: NDArray[np.int64], seen: NDArray[np.int64]
) -> Run:
    """A model of these settings, fitted to some rows of the material.

    Args:
        rows: of the clips that it is fitted to, with their ratings.
        seen: of the clips that give a speaker's statistics, where the settings standardise by speaker.
    """
    features, speakers = material.store.of(settings.streams), _speakers(material)
    of_standardiser = seen if settings.standardise == "speaker" else rows
    standardiser = Standardiser.fit(
        settings.standardise,
        (features[int(row)] for row in of_standardiser),
        speakers[of_standardiser].tolist(),
        np.ones(len(of_standardiser), bool),
    )
    vectors = np.concatenate([standardiser.apply(features[int(row)], speakers[row]) for row in rows])
    model = build_model(settings.model, features.widths)
    model.fit(vectors, _truth(material, rows), speakers[rows])  # type: ignore[operator]
    return Run(material.store.settings, settings, model.eval(), standardiser)


def predict(run: Run | Ensemble, material: Material, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Valence of some rows of the material [shape=(rows,)]; speakers' statistics are those of these clips."""
    source, speakers = material.source(rows), _speakers(material)[rows].tolist()
    return run.adapt(source, speakers).predict(source, speakers)


def with_chosen_layer(
    material: Material, settings: TrainingSettings, rows: NDArray[np.int64]
) -> TrainingSettings:
    """The settings with one layer of the encoder in the place of all, as in "encoder:3".

    Of all layers it is the one with the lowest MSE in a cross-validation among some of these rows, by speaker where there are
    enough of them. Settings without an encoder, or with one layer of it alone, stay as they are.
    """
    if "encoder" not in settings.streams:
        return settings
    layers = len(material.store.of(["encoder"])[int(rows[0])])
    if layers == 1:
        return settings
    from valence_lib.models.fitted import folds_of  # brings scikit-learn, which networks do without

    some = np.sort(np.random.default_rng(0).permutation(rows)[:_LAYER_CLIPS])
    folds, groups = folds_of(_speakers(material)[some], _LAYER_FOLDS)
    divisions = [(some[inside], some[out]) for inside, out in folds.split(some, groups=groups)]
    candidates = [
        replace(settings, streams=tuple(f"encoder:{n}" if s == "encoder" else s for s in settings.streams))
        for n in range(layers)
    ]
    errors = [
        np.concatenate(
            [
                predict(fitted(material, candidate, inside, some), material, out) - _truth(material, out)
                for inside, out in divisions
            ]
        )
        for candidate in candidates
    ]
    return candidates[int(np.argmin([np.mean(of_layer**2) for of_layer in errors]))]


def _speakers(material: Material) -> NDArray[np.str_]:
    return material.clips["speaker"].to_numpy(dtype=str)


def _truth(material: Material, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    return material.clips["valence"].to_numpy(np.float64)[rows]
