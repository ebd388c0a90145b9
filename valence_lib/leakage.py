"""The leakage analysis: what a model scores where test clips share speakers or sentences with its training clips."""

from __future__ import annotations  # who only reads the results does without the feature store

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from valence_lib.divisions import DESIGNS, fold_parts
from valence_lib.errors import CorpusError
from valence_lib.evaluation import Resampling, compare, groups_of, score
from valence_lib.report import load_frame, load_json

if TYPE_CHECKING:
    from valence_lib.settings import TrainingSettings
    from valence_lib.training import Material

REFERENCE = "speaker"  # the design that matches new speakers
MOST_CLIPS = 2000  # of a larger corpus so many are drawn, which bounds the time of the analysis
_SEED = 0  # of the folds, and of that draw


def sampled(clips: pd.DataFrame) -> np.ndarray:
    """The rows of the rated clips, or of MOST_CLIPS of them at random where there are more."""
    rated = np.flatnonzero(clips["valence"].notna())
    return np.sort(np.random.default_rng(_SEED).permutation(rated)[:MOST_CLIPS])


def predict_designs(
    material: Material, settings: TrainingSettings, n_folds: int
) -> tuple[list[dict[str, Any]], pd.DataFrame]:
    """Predictions of the same clips by fits on folds of every design.

    Where the corpus does not name every speaker, clusters of clips by voice take the place of speakers.

    Args:
        settings: of a model that is fitted in one step.
        n_folds: of each design.

    Returns:
        One mapping a design: design, why (why there are no such folds, else ""), trained (clips of a fit, mean over folds); and
        the predictions, with the columns design, id, speaker, truth and prediction.
    """
    from valence_lib.fitting import fitted, predict, with_chosen_layer

    rows = sampled(material.clips)
    table = material.clips.iloc[rows].reset_index(drop=True)
    if not names_speakers(table):
        from valence_lib.pseudo_speakers import pseudo_speakers

        pitches = material.store.of(["pitch"])
        table["speaker"] = pseudo_speakers(
            [material.store[int(row)] for row in rows], [pitches[int(row)] for row in rows]
        )
    folds: dict[str, list[np.ndarray]] = {}
    about = []
    for design in DESIGNS:
        why, folds[design] = "", []
        try:
            folds[design] = fold_parts(table, design, n_folds, _SEED)
        except CorpusError as error:
            why = str(error)
        trained = [int(np.isin(parts, ["train", "validation"]).sum()) for parts in folds[design]]
        about.append({"design": design, "why": why, "trained": float(np.mean(trained)) if trained else 0.0})
    columns = material.clips[["id", "speaker", "valence"]].rename(columns={"valence": "truth"})
    total, frames = sum(map(len, folds.values())), [columns.iloc[:0].assign(design="", prediction=0.0)]
    for design, of_design in folds.items():
        for parts in of_design:
            inside, out = rows[np.isin(parts, ["train", "validation"])], rows[parts == "test"]
            run = fitted(material, with_chosen_layer(material, settings, inside), inside, rows)
            print(f"fit {len(frames):2d}/{total}   {design}", flush=True)
            frames.append(columns.iloc[out].assign(design=design, prediction=predict(run, material, out)))
    return about, pd.concat(frames, ignore_index=True)


def names_speakers(clips: pd.DataFrame) -> bool:
    """Whether every rated clip names its speaker."""
    return bool((clips.loc[clips["valence"].notna(), "speaker"] != "").all())


def measure(folder: Path) -> dict[str, Any]:
    """What each design scored, and the difference from folds by speaker.

    Args:
        folder: leakage/ of the report, which holds leakage.json and predictions.csv.

    Returns:
        What leakage.json holds: model, preset, clips (how many), pseudo (whether clusters of voices took the place of speakers)
        and designs. Of those one row a design, the reference first: design, why (why there is none, else ""), trained (clips, mean
        over fits), n, mse, ccc, intervals, and against: by metric, the difference from the reference, as
        `evaluation.Comparison` (None for the reference itself). All designs are scored on the same clips, resampled by speaker.
    """
    content = load_json(folder / "leakage.json")
    predictions = load_frame(folder / "predictions.csv")
    found = {about["design"]: about for about in content["designs"]}
    frames = {str(design): frame.set_index("id") for design, frame in predictions.groupby("design")}
    rows = [dict(found[REFERENCE]), *(dict(row) for design, row in found.items() if design != REFERENCE)]
    if REFERENCE in frames:
        clips = frames[REFERENCE].reset_index()
        truth, resampling = clips["truth"].to_numpy(np.float64), Resampling(groups_of(clips)[0])
        values = {
            design: [frame["prediction"].loc[clips["id"]].to_numpy(np.float64)]
            for design, frame in frames.items()
        }
        for row in rows:
            if row["design"] in values:
                row |= _scored(truth, values[row["design"]], values[REFERENCE], resampling)
        rows[0]["against"] = None
    return content | {"designs": rows}


def _scored(
    truth: np.ndarray, own: Sequence[np.ndarray], reference: Sequence[np.ndarray], resampling: Resampling
) -> Mapping[str, Any]:
    scores = score(truth, own, resampling)
    against = {metric: vars(compare(metric, truth, own, reference, resampling)) for metric in ("mse", "ccc")}
    kept = {name: scores[name] for name in ("n", "mse", "ccc")}
    intervals = {name: scores["intervals"][name] for name in ("mse", "ccc")}
    return kept | {"intervals": intervals, "against": against}
