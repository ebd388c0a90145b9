"""Splits: assignments of clips to training, validation and test subsets.

The protocol "holdout" has one split, "cv" one for each fold. Clips of one group (a speaker, a sentence) stay
together. Of some random draws, the one in which the subsets differ least in size and valence is taken.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from valence_lib.errors import CorpusError, SettingsError, unknown_name
from valence_lib.settings import PROTOCOLS

SUBSETS = ("train", "validation", "test", "unlabelled")
OUT_OF_FOLD = "out_of_fold"  # the subset of every rated clip in a cross-validation, which tests each once
UNUSED = "unused"  # shares a speaker or a sentence with the test clips, but not both
FOLD = "fold-"  # begins the name of a fold's split
GROUPINGS = ("random", "speaker", "sentence", "both")  # what test clips share with no other clip

# The subset of each clip [shape=(clips,)] by the split's name: "" in a holdout, else fold-0, fold-1, ...
Splits = Mapping[str, NDArray[np.str_]]

_SHARE = 0.2  # of the clips, for test and for validation
_FEWEST_CLIPS = 10  # for a holdout
_HOLDOUT_DRAWS = 50
_FEWEST_FOLDS = 3
_FOLD_DRAWS = 200
_SENTENCE_GROUPS = 2  # of grouping "both": more would leave fewer clips to train on


@dataclass(frozen=True)
class SplitResult:
    """The splits of a corpus.

    Args:
        protocol: one of PROTOCOLS.
        by: what no two subsets share: "speaker", nothing for "random", or what the "corpus" itself defines.
        splits: of "train", "validation", "test" and "unlabelled".
        subset [shape=(clips,)]: that of the holdout; in a cross-validation "out_of_fold" or "unlabelled".
        shared_speakers: the speakers with clips in more than one subset of a split.
    """

    protocol: str
    by: str
    splits: Splits
    subset: NDArray[np.str_]
    shared_speakers: list[str]

    @property
    def fold(self) -> NDArray[np.str_]:
        """The fold in which each clip is tested [shape=(clips,)]; "" in a holdout and without a rating."""
        fold = np.full(len(self.subset), "", dtype="<U8")
        for name, subsets in self.splits.items():
            fold[(subsets == "test") & (name != "")] = name.removeprefix(FOLD)
        return fold

    def pairs_across_subsets(self, ids: pd.Series, pairs: pd.DataFrame) -> int:
        """The number of pairs of clips (columns first and second) that some split separates."""
        first, second = (pd.Index(ids).get_indexer(pairs[column]) for column in ("first", "second"))
        apart = [subsets[first] != subsets[second] for subsets in self.splits.values()]
        return int(np.any(apart, axis=0).sum())


def make_splits(clips: pd.DataFrame, protocol: str, n_folds: int, seed: int) -> SplitResult:
    """Split clips by a protocol.

    "holdout" keeps the subsets that the corpus itself defines; clips without a rating become "unlabelled".
    A missing subset is drawn from the rest: a fifth of the clips for test, a fifth for validation, by whole
    speakers where every clip names one and there are enough.

    "cv" assigns all rated clips to folds, by speaker where every clip names one, whatever subsets the corpus
    defines. Each fold is tested by a model that is trained on the others; one of these validates.

    Args:
        clips: with id, subset, valence and speaker, as `inspect_corpus` makes them.
        protocol: one of PROTOCOLS.
        n_folds: of a cross-validation.

    Raises:
        SettingsError: there is no such protocol, or fewer than three folds.
        CorpusError: too few clips or speakers.
    """
    if protocol not in PROTOCOLS:
        raise SettingsError(unknown_name("protocol", protocol, PROTOCOLS))
    rated = clips["valence"].notna().to_numpy()
    if protocol == "holdout":
        subset, by = _holdout(clips, rated, seed)
        splits = {"": subset}
    else:
        by = "speaker" if (clips["speaker"][rated] != "").all() else "random"
        splits = {}
        for number, of_rated in enumerate(fold_splits(clips[rated], by, n_folds, seed)):
            splits[f"{FOLD}{number}"] = np.full(len(clips), "unlabelled", dtype="<U10")
            splits[f"{FOLD}{number}"][rated] = of_rated
        subset = np.where(rated, OUT_OF_FOLD, "unlabelled")
    named = rated & (clips["speaker"] != "").to_numpy()
    shared: set[str] = set()
    for subsets in splits.values():
        n_subsets = pd.Series(subsets[named]).groupby(clips["speaker"][named].to_numpy()).nunique()
        shared |= set(n_subsets.index[n_subsets > 1])
    return SplitResult(protocol, by, splits, subset, sorted(shared))


def _holdout(clips: pd.DataFrame, rated: NDArray[np.bool_], seed: int) -> tuple[NDArray[np.str_], str]:
    """The subset of each clip, and what no two subsets share."""
    given = clips["subset"].to_numpy(dtype=str)
    valence = clips["valence"].to_numpy(np.float64)
    subsets = np.where(rated, given, "unlabelled").astype("<U10")
    free = rated & ((given == "") | (given == "train"))
    subsets[free] = "train"
    wanted = [subset for subset in ("test", "validation") if not (subsets == subset).any()]
    if not wanted and free.any():
        return subsets, "corpus"
    speakers = clips["speaker"].to_numpy(dtype=str)
    by_speaker = bool((speakers[rated] != "").all()) and len(set(speakers[free])) > len(wanted)
    n_free, generator = int(free.sum()), np.random.default_rng(seed)
    if n_free < _FEWEST_CLIPS:
        raise CorpusError(
            f"{n_free} rated clips are too few to split into training, validation and test; "
            f"expected at least {_FEWEST_CLIPS}. Add more, or name fewer as test or validation."
        )
    for number, subset in enumerate(wanted):
        rest = np.flatnonzero(subsets == "train")
        groups = speakers[rest] if by_speaker else np.arange(len(rest)).astype(str)
        share = _SHARE * n_free / len(rest)
        subsets[rest[_draw_off(valence[rest], groups, share, len(wanted) - number, generator)]] = subset
    return subsets, "speaker" if by_speaker else "random"


def _draw_off(
    valence: NDArray, groups: NDArray, share: float, n_stay: int, generator: np.random.Generator
) -> NDArray[np.bool_]:
    """Which clips to take for a subset: about that share of them, in whole groups, of which `n_stay` stay."""
    _, group = np.unique(groups, return_inverse=True)
    sizes = np.bincount(group)

    def draw() -> tuple[float, NDArray[np.bool_]]:
        order = generator.permutation(len(sizes))
        reached = sizes[order].cumsum()[:-n_stay]
        drawn = np.isin(group, order[: 1 + np.abs(reached - share * len(group)).argmin()])
        inside, outside = valence[drawn], valence[~drawn]
        difference = abs(inside.mean() - outside.mean()) + abs(inside.std() - outside.std())
        return abs(drawn.mean() - share) / share + difference / max(valence.std(), 1e-9), drawn

    return _most_balanced(draw, _HOLDOUT_DRAWS)


def fold_splits(clips: pd.DataFrame, grouping: str, n_folds: int, seed: int) -> list[NDArray[np.str_]]:
    """Assign clips to folds, and give the split of each fold; every clip is tested in exactly one of them.

    The next fold validates. Grouping "both" has a split for each fold of speakers and each half of the
    sentences; clips that share a speaker or a sentence with the test clips, but not both, are unused.

    Args:
        clips: with valence, and with speaker and sentence where the grouping needs them; sentences of two
            languages differ where there is a column language.
        grouping: one of GROUPINGS: what test clips share with no training clip.
        n_folds: three or more; of few sentences there are as many folds as sentences.

    Returns:
        The splits, each [shape=(len(clips),)] of "train", "validation", "test" and, for "both", "unused".

    Raises:
        SettingsError: there is no such grouping, or fewer than three folds.
        CorpusError: a clip names no speaker or sentence, or there are too few of them.
    """
    if grouping not in GROUPINGS:
        raise SettingsError(unknown_name("grouping", grouping, GROUPINGS))
    if n_folds < _FEWEST_FOLDS:
        raise SettingsError(
            f"{n_folds} folds were asked for; expected 3 or more: to test, to validate and to train on."
        )
    valence = clips["valence"].to_numpy(np.float64)
    by = "speaker" if grouping == "both" else grouping
    groups = _groups(clips, by)
    if grouping == "sentence":
        n_folds = max(_FEWEST_FOLDS, min(n_folds, len(set(groups))))
    fold = _deal(valence, groups, n_folds, by, seed)
    splits = [_split(fold, number, n_folds) for number in range(n_folds)]
    if grouping != "both":
        return splits
    half = _deal(valence, _groups(clips, "sentence"), _SENTENCE_GROUPS, "sentence", seed)
    return [
        np.where((subsets == "test") == (half == number), subsets, UNUSED)
        for subsets in splits
        for number in range(_SENTENCE_GROUPS)
    ]


def _groups(clips: pd.DataFrame, grouping: str) -> NDArray[np.str_]:
    """The group of each clip: its speaker, its sentence, or for "random" the clip itself."""
    if grouping == "random":
        return np.arange(len(clips)).astype(str)
    if grouping not in clips or (clips[grouping].astype(str) == "").any():
        raise CorpusError(
            f"not every clip names its {grouping}; expected a column {grouping!r} without gaps. Add it, or "
            "take another grouping."
        )
    names = clips[grouping].astype(str)
    if grouping == "sentence" and "language" in clips:
        names = clips["language"].astype(str) + " " + names
    return names.to_numpy(dtype=str)


def _split(fold: NDArray[np.int64], number: int, n_folds: int) -> NDArray[np.str_]:
    subsets = np.full(len(fold), "train", dtype="<U10")
    subsets[fold == number] = "test"
    subsets[fold == (number + 1) % n_folds] = "validation"
    return subsets


def _deal(
    valence: NDArray[np.float64], groups: NDArray[np.str_], n_folds: int, what: str, seed: int
) -> NDArray[np.int64]:
    """The fold of each clip: whole groups in random order, each to the fold that has fewest clips."""
    names, group = np.unique(groups, return_inverse=True)
    if len(names) < n_folds:
        what = "clips" if what == "random" else f"{what}s"
        advice = "Give fewer FOLDS" if n_folds > _FEWEST_FOLDS else "Add more, or split by something else"
        raise CorpusError(
            f"{len(names)} {what} cannot be dealt to {n_folds} folds; expected at least {n_folds}. {advice}."
        )
    sizes, generator = np.bincount(group), np.random.default_rng(seed)

    def draw() -> tuple[float, NDArray[np.int64]]:
        fold_of_group, n_clips = np.empty(len(names), np.int64), np.zeros(n_folds, np.int64)
        for number in generator.permutation(len(names)):
            fold_of_group[number] = n_clips.argmin()
            n_clips[fold_of_group[number]] += sizes[number]
        fold = fold_of_group[group]
        mean = np.bincount(fold, valence) / n_clips
        deviation = np.sqrt(np.maximum(np.bincount(fold, valence**2) / n_clips - mean**2, 0))
        difference = (mean.std() + deviation.std()) / max(valence.std(), 1e-9)
        return n_clips.std() / n_clips.mean() + difference, fold

    return _most_balanced(draw, _FOLD_DRAWS if len(names) < len(valence) else _FOLD_DRAWS // 10)


def _most_balanced(draw: Callable[[], tuple[float, NDArray]], n_draws: int) -> NDArray:
    """The assignment with the least imbalance among some draws, each an imbalance and an assignment."""
    return min((draw() for _ in range(n_draws)), key=lambda drawn: drawn[0])[1]
