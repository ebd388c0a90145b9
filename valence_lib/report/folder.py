"""A report's folder: the files that the notebooks exchange.

reports/<name>/
  preprocess/       clips.csv, quarantine.csv, near_duplicates.csv, corpus.json, splits.csv (if cv)
  runs/<run>/       one training; <run> is model-preset-seed
  leakage/          predictions on folds that share speakers or sentences with the training clips
  cross_corpus/     predictions within each of several corpora, and from one to another
  errors/           errors.json of the error analysis, and worst.npz with the worst clips
  results.json      every score; the contract for other programs
  seconds.json      measured times, which no two runs share
  predictions.csv   for an unlabelled test subset, in the course format
  notebooks/        the executed notebooks
  tables/, figures/, report.html, report.pdf
"""

from __future__ import annotations  # types of signatures are not imported

import csv
import json
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from valence_lib.corpora.columns import RATER_COLUMN
from valence_lib.errors import RunError
from valence_lib.evaluation.raters import raters
from valence_lib.files import atomic_write, write_json
from valence_lib.report.wording import title_of
from valence_lib.settings import FEATURES_FOLDER, FeatureSettings, Target

if TYPE_CHECKING:
    from valence_lib.corpora.sources import Corpus
    from valence_lib.corpora.waveforms import Waveform
    from valence_lib.evaluation.occlusion import Occlusion
    from valence_lib.preprocess.splits import SplitResult
    from valence_lib.training.loop import TrainingData

GROUPINGS = ("corpus", "speaker", "sex", "language", "emotion", "sentence")
NUMBER_COLUMNS = {"index", "n_samples", "first_frame", "duration_seconds", "rating", "truth", "prediction"}
NUMBER_COLUMNS |= {"seed", "epoch", "learning_rate", "training_mse", "validation_mse", "similarity"}
MOST_GROUPS = 40
MOST_PAIRS = 20  # near-duplicates in corpus.json; near_duplicates.csv has all
CLIPS = "clips.csv"
SPLITS = "splits.csv"  # of a cross-validation: the subset of every clip, one column a fold


def run_name(model: str, preset: str, seed: int) -> str:
    """The name of a training's folder in runs/."""
    return f"{model}-{preset}-{seed}"


def save_frame(destination: Path, frame: pd.DataFrame) -> None:
    """Write a table as CSV, with all digits of its numbers."""
    text = frame.to_csv(index=False, lineterminator="\n")
    if "\r" in text:  # before Python 3.13, it is not quoted, and read as the end of a row
        text = frame.to_csv(index=False, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    with atomic_write(destination) as path:
        path.write_text(text, encoding="utf-8", newline="")


def load_frame(path: Path) -> pd.DataFrame:
    """Read a table that `save_frame` wrote. Only known columns become numbers: "NA" and "001" stay text.

    Raises:
        RunError: the file does not exist.
    """
    return _read_frame(_existing(path), NUMBER_COLUMNS)


def _read_frame(path: Path, number_columns: Collection[str]) -> pd.DataFrame:
    columns = pd.read_csv(path, nrows=0).columns
    numbers = [name for name in columns if name in number_columns]
    texts = {name: str for name in columns if name not in numbers}
    return pd.read_csv(path, dtype=texts, keep_default_na=False, na_values={name: [""] for name in numbers})


def load_json(path: Path) -> dict[str, Any]:
    """Read a JSON file of an earlier notebook.

    Raises:
        RunError: the file does not exist.
    """
    return json.loads(_existing(path).read_text(encoding="utf-8"))


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise RunError(f"there is no {str(path)!r}; first run the notebook that writes it.")
    return path


def save_preprocessed(
    folder: Path,
    corpus: Corpus,
    clips: pd.DataFrame,
    quarantine: pd.DataFrame,
    near: pd.DataFrame,
    given: Sequence[str],
    split: SplitResult,
    features: FeatureSettings,
    encoder_name: str = "",
) -> None:
    """Write preprocess/: the usable clips with their subsets, the quarantine, and a summary of the corpus.

    Args:
        folder: of the report.
        corpus: for its name and description.
        clips, quarantine: as `inspect_corpus` makes them, the clips with the subset and fold of `split`.
        near: pairs of near-duplicates, as `near_duplicates` finds them.
        given: the subset that the corpus itself defines for each clip, else "".
        split: the assignment of clips to subsets.
        features: the settings of the feature store.
        encoder_name: the user's name for the pretrained encoder of `features`; "" without one.
    """
    destination, target = folder / "preprocess", corpus.target
    names = {name: target.name + name.removeprefix("rating") for name in clips if _is_rating(name)}
    save_frame(destination / CLIPS, clips.rename(columns=names))
    save_frame(destination / "near_duplicates.csv", near)
    save_frame(destination / "quarantine.csv", quarantine)
    (destination / SPLITS).unlink(missing_ok=True)
    if split.protocol != "holdout":
        save_frame(destination / SPLITS, pd.DataFrame({"id": clips["id"].to_numpy(), **split.splits}))
    rated, named = clips[clips["rating"].notna()], clips.replace({"speaker": {"": None}})
    encoder = {"name": encoder_name, "digest": features.encoder, "layer": features.encoder_layer}
    content = {
        "corpus": corpus.name,
        "description": corpus.about.get("description", ""),
        "notes": list(corpus.notes),
        "synthetic": bool(corpus.about.get("synthetic", False)),
        "lowest_mse": corpus.about.get("lowest_mse"),
        "clips": len(clips),
        "speakers": named["speaker"].nunique(),
        "hours": float(clips["duration_seconds"].sum() / 3600),
        "quarantined": len(quarantine),
        "target": target.name,
        "scale": [target.low, target.high],
        "corpora": [
            {
                "name": part.name,
                "clips": int((clips["corpus"] == part.name).sum()),
                "scale": [part.target.low, part.target.high],
                **{key: part.about.get(key, "") for key in ("terms", "citation", "source")},
            }
            for part in corpus.parts
        ],
        "label_variance": float(rated["rating"].var(ddof=0)),
        "raters": raters(rated),
        "near_duplicates": {
            "pairs": len(near),
            "across_subsets": split.pairs_across_subsets(clips["id"], near),
            "listed": json_rows(near.head(MOST_PAIRS)),
        },
        "split": {
            "protocol": split.protocol,
            "folds": len(split.splits) if split.protocol != "holdout" else None,
            "by": split.by,
            "given": sorted(set(given) - {"", "train"}),
            "tested_alone": _tested_alone(clips["corpus"], given),
            "unnamed": int((rated["speaker"] == "").sum()),
            "shared_speakers": split.shared_speakers,
            "subsets": {
                str(subset): {"clips": len(rows), "speakers": rows["speaker"].nunique()}
                for subset, rows in named.groupby("subset")
            },
        },
        "features": features.to_mapping(),
        "encoder": encoder if features.encoder else None,
    }
    write_json(destination / "corpus.json", content)


def _tested_alone(corpora: pd.Series, given: Sequence[str]) -> list[str]:
    """The corpora of which all clips are test clips, where there are others."""
    is_tested = pd.Series([subset == "test" for subset in given], index=corpora.index)
    tested = is_tested.groupby(corpora, sort=False).all()
    return list(tested.index[tested]) if not tested.all() else []


def _is_rating(column: str) -> bool:
    return column == "rating" or bool(RATER_COLUMN.fullmatch(column))


def load_clips(folder: Path) -> pd.DataFrame:
    """The usable clips of a report, as `save_preprocessed` takes them.

    In the file, the ratings have the name of the target; in the table, they are rating, rating_a1, ...

    Raises:
        RunError: the corpus is not preprocessed.
    """
    target = load_json(folder / "preprocess" / "corpus.json")["target"]
    path = _existing(folder / "preprocess" / CLIPS)
    of_target = re.compile(re.escape(target) + r"(_a\d+)?")
    columns = pd.read_csv(path, nrows=0).columns
    names = {
        name: re.sub("^" + re.escape(target), "rating", name) for name in columns if of_target.fullmatch(name)
    }
    numbers = [*names, *(NUMBER_COLUMNS - {"rating"})]
    return _read_frame(path, numbers).rename(columns=names)


def load_splits(folder: Path) -> dict[str, NDArray[np.str_]]:
    """The subset of every clip, by fold ("" of a holdout), as in `splits.SplitResult`.

    Raises:
        RunError: the corpus is not preprocessed.
    """
    if load_json(folder / "preprocess" / "corpus.json")["split"]["protocol"] == "holdout":
        return {"": load_clips(folder)["subset"].to_numpy(dtype=str)}
    frame = load_frame(folder / "preprocess" / SPLITS).drop(columns="id")
    return {str(name): subsets.to_numpy(dtype=str) for name, subsets in frame.items()}


def load_training_data(folder: Path) -> TrainingData:
    """The clips and features of a report.

    Raises:
        RunError: the corpus is not preprocessed.
    """
    from valence_lib.preprocess.store import FeatureStore
    from valence_lib.training.loop import TrainingData  # imports torch

    clips, about = load_clips(folder), load_json(folder / "preprocess" / "corpus.json")
    features = FeatureSettings.from_mapping(about["features"])
    store = FeatureStore(folder.parent / FEATURES_FOLDER, clips, features)
    return TrainingData(store, clips, Target(about["target"], *about["scale"]))


def held_out_predictions(folder: Path, run: str) -> pd.DataFrame:
    """A run's predictions of its test clips, with the labels of these clips.

    Returns:
        Columns id, truth, prediction, fold, speaker, duration_seconds, and the corpus's other labels.
    """
    predictions = load_frame(folder / "runs" / run / "predictions.csv")
    tested = predictions[predictions["subset"].isin(["test", "out_of_fold"])]
    clips = load_clips(folder)
    clips = clips.drop(columns=[name for name in predictions if name in clips and name != "id"])
    return tested.merge(clips, on="id", validate="one_to_one")


def json_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table for JSON, with None for NaN."""
    return table.astype(object).where(table.notna(), None).to_dict("records")


def save_worst(folder: Path, waveforms: Sequence[Waveform], occlusions: Sequence[Occlusion]) -> None:
    """Write worst.npz: the waveforms and occlusion maps of some clips."""
    arrays: dict[str, Any] = {f"waveform {number}": waveform for number, waveform in enumerate(waveforms)}
    for number, occlusion in enumerate(occlusions):
        arrays |= {f"{name} {number}": values for name, values in occlusion._asdict().items()}
    with atomic_write(folder / "worst.npz") as path:
        np.savez(path, allow_pickle=False, **arrays)


def load_worst(folder: Path) -> list[tuple[Waveform, Occlusion]]:
    """Read what `save_worst` wrote."""
    from valence_lib.evaluation.occlusion import Occlusion

    with np.load(folder / "worst.npz", allow_pickle=False) as file:
        count = sum(name.startswith("waveform") for name in file.files)
        return [
            (file[f"waveform {n}"], Occlusion(*(file[f"{name} {n}"][()] for name in Occlusion._fields)))
            for n in range(count)
        ]


def groupings(predictions: pd.DataFrame) -> list[str]:
    """The labels of GROUPINGS that have 2 to MOST_GROUPS values."""
    labels = predictions.reindex(columns=GROUPINGS).replace("", np.nan)
    return [name for name, count in labels.nunique().items() if 1 < count <= MOST_GROUPS]


def row_of(results: Mapping[str, Any], model: str, preset: str | None, subset: str) -> dict[str, Any]:
    """The row of results.json for one model, preset and subset.

    Raises:
        RunError: there is no such row.
    """
    for row in results["rows"]:
        if (row["model"], row["preset"], row["subset"]) == (model, preset, subset):
            return row
    known = "; ".join(dict.fromkeys(title_of(row) for row in results["rows"]))
    raise RunError(f"results.json has no row for {model}, {preset}, {subset}; its rows are {known}.")
