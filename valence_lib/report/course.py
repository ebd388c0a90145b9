"""predictions.csv in the course format."""

from pathlib import Path

import pandas as pd

from valence_lib.report.corpus_text import spreadsheet_cell
from valence_lib.report.folder import load_clips, load_frame


def course_predictions(folder: Path, run: str) -> pd.DataFrame | None:
    """The predictions for an unlabelled test subset, one row a clip in the corpus's order.

    A quarantined clip has the prediction of its duplicate, else the mean of the training ratings. A name that
    a spreadsheet would take for a formula begins with an apostrophe.

    Args:
        folder: of the report.
        run: the name of the run that predicts.

    Returns:
        Columns ID and Label; None where all test clips are labelled.
    """
    clips = load_clips(folder)
    unlabelled = clips[clips["subset"] == "unlabelled"]
    if unlabelled.empty:
        return None
    predictions = load_frame(folder / "runs" / run / "predictions.csv").set_index("id")["prediction"]
    labels = {row.index: (row.id, float(predictions[row.id])) for row in unlabelled.itertuples(index=False)}
    training_mean = float(clips.loc[clips["subset"] == "train", "rating"].mean())
    quarantine = load_frame(folder / "preprocess" / "quarantine.csv")
    for row in quarantine[quarantine["subset"] == "test"].itertuples(index=False):
        labels[row.index] = row.id, float(predictions.get(row.twin, training_mean))
    rows = [
        (spreadsheet_cell(clip_id.removeprefix("test/")), f"{value:.4f}")
        for _, (clip_id, value) in sorted(labels.items())
    ]
    return pd.DataFrame(rows, columns=["ID", "Label"])
