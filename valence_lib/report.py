"""A report's folder: what the notebooks hand each other through files.

reports/<name>/
  preprocess/       clips.csv, quarantine.csv, near_duplicates.csv, corpus.json, and divisions.csv of a cross-validation
  runs/<run>/       one training each; <run> is model-preset-seed
  leakage/          predictions on folds that share speakers or sentences with training clips, or neither
  errors/           results of the error analysis: errors.json, and worst.npz, the worst clips and what matters in them
  results.json      the contract for other programs and the source of every number in the report
  seconds.json      what was measured with a clock, apart from what can be had again
  predictions.csv   for an unlabelled test part, in the course format
  notebooks/        the executed notebooks
  tables/, figures/, report.html, report.pdf
"""

from __future__ import annotations  # what is only named in signatures is not imported with this module

import csv
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from valence_lib.agreement import raters
from valence_lib.calibration import half_width
from valence_lib.corpora import RATER_COLUMN
from valence_lib.errors import RunError
from valence_lib.files import write_json, written_whole
from valence_lib.records import FEATURES_FOLDER
from valence_lib.settings import CorpusSettings, FeatureSettings
from valence_lib.tables import title_of

if TYPE_CHECKING:
    from valence_lib.corpora import Corpus
    from valence_lib.occlusion import Occlusion
    from valence_lib.protocols import Split
    from valence_lib.training import Material
    from valence_lib.waveforms import Waveform

GROUPINGS = ("speaker", "sex", "language", "emotion", "sentence")
NUMBER_COLUMNS = {
    "index",
    "n_samples",
    "first_frame",
    "duration_seconds",
    "valence",
    "truth",
    "prediction",
    "seed",
    "epoch",
    "learning_rate",
    "training_mse",
    "validation_mse",
    "similarity",
}
MOST_GROUPS = 40
MOST_PAIRS = 20  # of near-duplicates that a report lists; preprocess/near_duplicates.csv has all
DIVISIONS = "divisions.csv"  # in preprocess/, of a cross-validation: the part of every clip in each fold


def run_name(model: str, preset: str, seed: int) -> str:
    """The folder of a training within runs/."""
    return f"{model}-{preset}-{seed}"


def save_frame(destination: Path, frame: pd.DataFrame) -> None:
    """A table as CSV, written whole; numbers as Python prints them, so that reading gives the same back."""
    with written_whole(destination) as path:
        frame.to_csv(path, index=False, lineterminator="\n")


def load_frame(path: Path) -> pd.DataFrame:
    """What `save_frame` wrote: columns of numbers as numbers, all else as the text that it was, be it "NA" or "001"."""
    if not path.is_file():
        raise RunError(
            f"there is no {str(path)!r}; run the notebook that writes it first (their names are in order)."
        )
    columns = pd.read_csv(path, nrows=0).columns
    numbers = [name for name in columns if name in NUMBER_COLUMNS or RATER_COLUMN.fullmatch(name)]
    texts = {name: str for name in columns if name not in numbers}
    return pd.read_csv(path, dtype=texts, keep_default_na=False, na_values={name: [""] for name in numbers})


def load_json(path: Path) -> dict[str, Any]:
    """What a notebook before this one wrote.

    Raises:
        RunError: it is not there.
    """
    if not path.is_file():
        raise RunError(
            f"there is no {str(path)!r}; run the notebook that writes it first (their names are in order)."
        )
    return json.loads(path.read_text(encoding="utf-8"))


def save_preprocessed(
    folder: Path,
    corpus: Corpus,
    clips: pd.DataFrame,
    quarantine: pd.DataFrame,
    near: pd.DataFrame,
    given: Sequence[str],
    split: Split,
    admitted: CorpusSettings,
    features: FeatureSettings,
    encoder_name: str = "",
) -> None:
    """Write preprocess/: the usable clips with their parts, the quarantine, and what is known of the corpus.

    Args:
        clips: as `inspect_corpus` makes them, with the part (and fold) that `split` gives them.
        near: pairs of clips that are nearly the same, as `near_duplicates` finds them.
        given: the part that the corpus itself names for each clip, else "".
        encoder_name: what the user calls the pretrained encoder of `features`; "" where there is none.
    """
    save_frame(folder / "preprocess" / "clips.csv", clips)
    save_frame(folder / "preprocess" / "near_duplicates.csv", near)
    save_frame(folder / "preprocess" / "quarantine.csv", quarantine)
    if split.protocol == "cv":
        columns = {"id": clips["id"].to_numpy(), **split.divisions}
        save_frame(folder / "preprocess" / DIVISIONS, pd.DataFrame(columns))
    else:
        (folder / "preprocess" / DIVISIONS).unlink(missing_ok=True)
    rated = clips[clips["valence"].notna()]
    content = {
        "corpus": corpus.name,
        "description": corpus.about.get("description", ""),
        "synthetic": bool(corpus.about.get("synthetic", False)),
        "lowest_mse": corpus.about.get("lowest_mse"),
        "clips": len(clips),
        "speakers": int(clips.loc[clips["speaker"] != "", "speaker"].nunique()),
        "hours": float(clips["duration_seconds"].sum() / 3600),
        "quarantined": len(quarantine),
        "scale": [admitted.valence_low, admitted.valence_high],
        "label_variance": float(rated["valence"].var(ddof=0)),
        "raters": raters(rated),
        "near_duplicates": {
            "pairs": len(near),
            "on_two_sides": split.torn(clips["id"], near),
            "listed": json_rows(near.head(MOST_PAIRS)),
        },
        "split": {
            "protocol": split.protocol,
            "folds": len(split.divisions) if split.protocol == "cv" else None,
            "by": split.by,
            "given": sorted({part for part in given if part not in ("", "train")}),
            "unnamed": int((rated["speaker"] == "").sum()),
            "shared_speakers": split.shared_speakers,
            "parts": {
                str(part): {
                    "clips": len(rows),
                    "speakers": int(rows.loc[rows["speaker"] != "", "speaker"].nunique()),
                }
                for part, rows in clips.groupby("part")
            },
        },
        "features": features.to_mapping(),
        "encoder": {"name": encoder_name, "digest": features.encoder, "layer": features.encoder_layer}
        if features.encoder
        else None,
    }
    write_json(folder / "preprocess" / "corpus.json", content)


def load_divisions(folder: Path) -> dict[str, NDArray[np.str_]]:
    """The divisions of a report whose corpus is preprocessed, as `protocols.Split` has them.

    Raises:
        RunError: it is not.
    """
    if load_json(folder / "preprocess" / "corpus.json")["split"]["protocol"] == "holdout":
        return {"": load_frame(folder / "preprocess" / "clips.csv")["part"].to_numpy(dtype=str)}
    frame = load_frame(folder / "preprocess" / DIVISIONS).drop(columns="id")
    return {str(name): parts.to_numpy(dtype=str) for name, parts in frame.items()}


def load_material(folder: Path) -> Material:
    """Clips and features of a report whose corpus is preprocessed.

    Raises:
        RunError: it is not.
    """
    from valence_lib.store import FeatureStore
    from valence_lib.training import Material  # brings torch, which most notebooks do without

    clips = load_frame(folder / "preprocess" / "clips.csv")
    features = FeatureSettings.from_mapping(load_json(folder / "preprocess" / "corpus.json")["features"])
    return Material(FeatureStore(folder.parent / FEATURES_FOLDER, clips, features), clips)


def course_predictions(folder: Path, run: str) -> pd.DataFrame | None:
    """One row a clip of an unlabelled test part, in the course format: ID,Label, in the corpus's order.

    A quarantined clip gets its twin's prediction where it is a duplicate, else the training mean, so
    that no row is missing. None where all test clips are labelled.
    """
    clips = load_frame(folder / "preprocess" / "clips.csv")
    unlabelled = clips[clips["part"] == "unlabelled"]
    if unlabelled.empty:
        return None
    predictions = load_frame(folder / "runs" / run / "predictions.csv").set_index("id")["prediction"]
    labels = {row.index: (row.id, float(predictions[row.id])) for row in unlabelled.itertuples(index=False)}
    training_mean = float(clips.loc[clips["part"] == "train", "valence"].mean())
    quarantine = load_frame(folder / "preprocess" / "quarantine.csv")
    for row in quarantine[quarantine["part"] == "test"].itertuples(index=False):
        labels[row.index] = row.id, float(predictions.get(row.twin, training_mean))
    rows = [(clip_id.removeprefix("test/"), f"{value:.4f}") for _, (clip_id, value) in sorted(labels.items())]
    return pd.DataFrame(rows, columns=["ID", "Label"])


def tested_predictions(folder: Path, run: str) -> pd.DataFrame:
    """A run's predictions of the clips that it is tested on, beside all that the corpus says of those clips.

    Columns: id, truth, prediction, fold, speaker, duration_seconds, and the corpus's own labels.
    """
    predictions = load_frame(folder / "runs" / run / "predictions.csv")
    tested = predictions[predictions["part"].isin(["test", "out_of_fold"])]
    clips = load_frame(folder / "preprocess" / "clips.csv")
    clips = clips.drop(columns=[name for name in predictions if name in clips and name != "id"])
    return tested.merge(clips, on="id", validate="one_to_one")


def interval_half_width(folder: Path, confidence: float) -> float:
    """How far an interval reaches to either side of a prediction of a run, that is to hold this share of new clips.

    From the run's errors on the clips that it was tested on: see `calibration.half_width`.

    Raises:
        RunError: the run has no predictions of tested clips.
        SettingsError: no such share, or too few clips for it.
    """
    if not (folder / "predictions.csv").is_file():
        raise RunError(
            f"{str(folder)!r} holds no predictions.csv, from whose errors intervals are made; run 2_experiment.ipynb for it."
        )
    predictions = load_frame(folder / "predictions.csv")
    tested = predictions[predictions["part"].isin(["test", "out_of_fold"])]
    return half_width(tested["prediction"] - tested["truth"], confidence)


def json_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """A table's rows, ready for JSON, which has no NaN: None stands for it."""
    return [
        {
            str(key): None if isinstance(value, float) and math.isnan(value) else value
            for key, value in row.items()
        }
        for row in table.to_dict("records")
    ]


def save_worst(folder: Path, waveforms: Sequence[Waveform], occlusions: Sequence[Occlusion]) -> None:
    """Write worst.npz: some clips, and what in each matters to a model, for `load_worst`."""
    arrays: dict[str, Any] = {}
    for number, (waveform, occlusion) in enumerate(zip(waveforms, occlusions, strict=True)):
        arrays[f"waveform {number}"] = waveform
        arrays |= {f"{name} {number}": values for name, values in occlusion._asdict().items()}
    with written_whole(folder / "worst.npz") as path:
        np.savez(path, allow_pickle=False, **arrays)


def load_worst(folder: Path) -> list[tuple[Waveform, Occlusion]]:
    """What `save_worst` wrote."""
    from valence_lib.occlusion import Occlusion

    with np.load(folder / "worst.npz", allow_pickle=False) as file:
        count = sum(name.startswith("waveform") for name in file.files)
        return [
            (
                file[f"waveform {n}"],
                Occlusion(
                    file[f"change {n}"],
                    file[f"time_edges {n}"],
                    file[f"band_edges {n}"],
                    float(file[f"prediction {n}"]),
                ),
            )
            for n in range(count)
        ]


def groupings(predictions: pd.DataFrame) -> list[str]:
    """The labels by which errors can be grouped: those of GROUPINGS with two values or more, but not too many to show."""
    counts = {
        name: predictions.loc[predictions[name] != "", name].nunique()
        for name in GROUPINGS
        if name in predictions
    }
    return [name for name, count in counts.items() if 1 < count <= MOST_GROUPS]


def row_of(results: Mapping[str, Any], model: str, preset: str | None, part: str) -> dict[str, Any]:
    """The row of results.json for one model, preset and part.

    Raises:
        RunError: there is none.
    """
    for row in results["rows"]:
        if (row["model"], row["preset"], row["part"]) == (model, preset, part):
            return row
    known = ", ".join(sorted({title_of(row) for row in results["rows"]}))
    raise RunError(f"results.json has no row for {model}, {preset}, {part}; it has {known}.")


def load_published(path: Path) -> list[dict[str, str]]:
    """The course report's own figures."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def references(bibliography: Path) -> tuple[str, dict[str, str]]:
    """The list of references as Markdown, and what to write in the text for each key: a number that links there.

    Raises:
        RunError: the file is not BibTeX.
    """
    from pybtex.database import parse_file
    from pybtex.exceptions import PybtexError
    from pybtex.plugin import find_plugin

    try:
        entries = parse_file(str(bibliography), bib_format="bibtex")
        formatted = list(find_plugin("pybtex.style.formatting", "plain")().format_bibliography(entries))
    except (PybtexError, OSError) as error:
        raise RunError(f"{bibliography.name} cannot be read as BibTeX: {error}") from error
    markdown = find_plugin("pybtex.backends", "markdown")()
    lines = [f'{e.label}. {e.text.render(markdown)}<a id="ref-{e.key}"></a>' for e in formatted]
    return "\n".join(lines), {entry.key: f"[[{entry.label}](#ref-{entry.key})]" for entry in formatted}
