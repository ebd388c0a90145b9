"""The leakage meter: what the chosen model scores where it has met the speakers, or the sentences, before."""

from __future__ import annotations  # who only reads what was measured does without the feature store

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from valence_lib.divisions import fold_parts
from valence_lib.errors import CorpusError
from valence_lib.evaluation import Resampling, compare, groups_of, score
from valence_lib.protocols import FOLD, Divisions
from valence_lib.report import load_frame, load_json

if TYPE_CHECKING:
    from valence_lib.store import FeatureStore

REFERENCE = "speaker"  # the design that a model for new speakers is to be judged by
_SEED = 0  # of the folds


def designed_divisions(clips: pd.DataFrame, store: FeatureStore, design: str, n_folds: int) -> Divisions:
    """The folds of one design, as divisions of all clips; unlabelled clips stay out of all of them.

    Where the corpus does not name every speaker, clusters of clips by voice stand in for speakers.

    Args:
        design: of `divisions.DESIGNS`.

    Raises:
        CorpusError: the corpus has too few speakers or sentences for it, or does not name its sentences.
    """
    rated = np.flatnonzero(clips["valence"].notna())
    table = clips.iloc[rated].reset_index(drop=True)
    if design in ("speaker", "both") and not names_speakers(clips):
        from valence_lib.pseudo_speakers import pseudo_speakers

        voices = store.of("voice")
        table["speaker"] = pseudo_speakers(
            [store[int(row)] for row in rated], [voices[int(row)] for row in rated]
        )
    divisions = {}
    for number, of_rated in enumerate(fold_parts(table, design, n_folds, _SEED)):
        parts = np.full(len(clips), "unused", dtype="<U10")
        parts[rated] = of_rated
        divisions[f"{FOLD}{number}"] = parts
    return divisions


def names_speakers(clips: pd.DataFrame) -> bool:
    """Whether every rated clip names its speaker."""
    return bool((clips.loc[clips["valence"].notna(), "speaker"] != "").all())


def try_designed_divisions(
    clips: pd.DataFrame, store: FeatureStore, design: str, n_folds: int
) -> tuple[Divisions, str]:
    """As `designed_divisions`; where there are none, an empty mapping, and why."""
    try:
        return designed_divisions(clips, store, design, n_folds), ""
    except CorpusError as error:
        return {}, str(error)


def measure(folder: Path, designs: Sequence[str], reference: pd.DataFrame | None) -> list[dict[str, Any]]:
    """What each design scored, and by how much that is better or worse than with speakers that were never heard.

    Args:
        folder: leakage/ of the report, which holds a folder a design, with design.json and predictions.csv.
        designs: that were tried.
        reference: predictions of the same clips by design "speaker", where the report's own protocol is that; else None.

    Returns:
        One row a design, the reference first: design, why (why there is none, else ""), pseudo (whether clusters stood in for
        speakers), trained (clips, mean over trainings), n, mse, ccc, intervals, and against: by metric, what it has
        beyond the reference, as `evaluation.Comparison` (None for the reference itself). All designs are held against
        the same clips, resampled by speaker.
    """
    found = {design: load_json(folder / design / "design.json") for design in designs}
    frames = {
        design: load_frame(folder / design / "predictions.csv")
        for design in designs
        if not found[design]["why"]
    }
    if reference is not None:
        frames = {REFERENCE: reference, **frames}
        trained = int(reference.attrs["trained"])
        found = {REFERENCE: {"why": "", "pseudo": False, "trained": trained}, **found}
    if REFERENCE not in frames:
        return [{"design": design, **about} for design, about in found.items()]
    clips = frames[REFERENCE]
    truth, resampling = clips["truth"].to_numpy(np.float64), Resampling(groups_of(clips)[0])
    values = {
        design: [frame.set_index("id")["prediction"].loc[clips["id"]].to_numpy(np.float64)]
        for design, frame in frames.items()
    }
    rows = []
    for design in [REFERENCE, *(design for design in found if design != REFERENCE)]:
        row: dict[str, Any] = {"design": design, **found[design]}
        if design in values:
            row |= _scored(truth, values[design], values[REFERENCE], resampling, design == REFERENCE)
        rows.append(row)
    return rows


def _scored(
    truth: np.ndarray,
    own: Sequence[np.ndarray],
    reference: Sequence[np.ndarray],
    resampling: Resampling,
    is_reference: bool,
) -> Mapping[str, Any]:
    scores = score(truth, own, resampling)
    against = {metric: vars(compare(metric, truth, own, reference, resampling)) for metric in ("mse", "ccc")}
    kept = {name: scores[name] for name in ("n", "mse", "ccc")}
    intervals = {name: scores["intervals"][name] for name in ("mse", "ccc")}
    return kept | {"intervals": intervals, "against": None if is_reference else against}
