"""Folds by design: what test clips may share with the clips that a model is trained on.

    random     anything: clips are dealt one by one
    speaker    no speaker
    sentence   no sentence
    both       neither

What a model scores with the first beyond the others is what it owes to having met the speaker, or the sentence, before.
"""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from valence_lib.errors import CorpusError, SettingsError, unknown_name

DESIGNS = ("random", "speaker", "sentence", "both")
UNUSED = "unused"  # the part of clips that share something on one side only
_FEWEST_FOLDS = 3
_DRAWS = 200
_SENTENCE_GROUPS = 2  # of design "both": more would leave fewer clips to train on


def fold_parts(clips: pd.DataFrame, design: str, n_folds: int, seed: int) -> list[NDArray[np.str_]]:
    """Deal clips to folds and give the parts of each fold's training; every clip is tested in exactly one of them.

    Of the clips that a fold may train on, those of the next fold validate. Folds are alike in size and ratings: of some
    random deals the one is taken in which they differ least. Design "both" has a division for each fold of speakers and
    each half of the sentences: what shares with the test clips a speaker or a sentence, but not both, stays unused.

    Args:
        clips: with valence, and with speaker and sentence where the design asks for them; sentences are told apart
            within a language where there is such a column.

    Returns:
        One array [shape=(len(clips),)] a training, of "train", "validation", "test" and, in design "both", "unused".

    Raises:
        SettingsError: there is no such design, or fewer than three folds.
        CorpusError: a clip names no speaker or sentence, or there are too few of them.
    """
    if design not in DESIGNS:
        raise SettingsError(unknown_name("design", design, DESIGNS))
    if n_folds < _FEWEST_FOLDS:
        raise SettingsError(
            f"{n_folds} folds were asked for; expected 3 or more: one to test, one to validate, and others to train on."
        )
    valence = clips["valence"].to_numpy(np.float64)
    if design != "both":
        group = _groups(clips, design)
        if design == "sentence":
            n_folds = max(_FEWEST_FOLDS, min(n_folds, len(set(group))))
        fold = _deal(valence, group, n_folds, design, seed)
        return [_parts(fold, number, n_folds) for number in range(n_folds)]
    speaker = _deal(valence, _groups(clips, "speaker"), n_folds, "speaker", seed)
    half = _deal(valence, _groups(clips, "sentence"), _SENTENCE_GROUPS, "sentence", seed)
    divisions = []
    for number in range(n_folds):
        for side in range(_SENTENCE_GROUPS):
            parts = _parts(speaker, number, n_folds)
            parts[(parts == "test") != (half == side)] = UNUSED
            divisions.append(parts)
    return divisions


def _groups(clips: pd.DataFrame, design: str) -> NDArray[np.str_]:
    """What may not be torn apart: each clip's speaker, its sentence, or for design "random" a name of its own."""
    if design == "random":
        return np.arange(len(clips)).astype(str)
    if design not in clips or (clips[design].astype(str) == "").any():
        raise CorpusError(
            f"not every clip names its {design}; expected a column {design!r} without gaps. Add it, or take another design."
        )
    names = clips[design].astype(str)
    if design == "sentence" and "language" in clips:
        names = clips["language"].astype(str) + " " + names
    return names.to_numpy(dtype=str)


def _parts(fold: NDArray[np.int64], number: int, n_folds: int) -> NDArray[np.str_]:
    parts = np.full(len(fold), "train", dtype="<U10")
    parts[fold == number] = "test"
    parts[fold == (number + 1) % n_folds] = "validation"
    return parts


def _deal(
    valence: NDArray[np.float64], groups: NDArray[np.str_], n_folds: int, what: str, seed: int
) -> NDArray[np.int64]:
    """The fold of each clip: whole groups are dealt in random order, each to the fold that has fewest clips."""
    names, group = np.unique(groups, return_inverse=True)
    if len(names) < n_folds:
        what = "clips" if what == "random" else f"{what}s"
        advice = "Give fewer FOLDS" if n_folds > _FEWEST_FOLDS else "Add more, or divide by something else"
        raise CorpusError(
            f"{len(names)} {what} cannot be dealt to {n_folds} folds; expected at least {n_folds}. {advice}."
        )
    sizes = np.bincount(group)
    generator = np.random.default_rng(seed)
    best, least = np.zeros(len(group), np.int64), np.inf
    for _ in range(_DRAWS if len(names) < len(valence) else _DRAWS // 10):
        fold_of_group, held = np.empty(len(names), np.int64), np.zeros(n_folds, np.int64)
        for number in generator.permutation(len(names)):
            fold_of_group[number] = held.argmin()
            held[fold_of_group[number]] += sizes[number]
        fold = fold_of_group[group]
        mean = np.bincount(fold, valence) / held
        deviation = np.sqrt(np.maximum(np.bincount(fold, valence**2) / held - mean**2, 0))
        off = held.std() / held.mean() + (mean.std() + deviation.std()) / max(valence.std(), 1e-9)
        if off < least:
            best, least = fold, off
    return best
