"""Splits: assignments of clips to training, validation and test subsets.

The protocol "holdout" has one split, "cv" one for each fold, "corpora" one for each corpus. Clips of one
group (a speaker, a sentence) stay together. Of some random draws, the one in which the subsets differ least
in size and rating is taken.
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
        by: what no two subsets share: "speaker", nothing for "random", or what the "corpus" itself defines;
            "corpora" where each corpus is tested by a model that is trained on the others.
        splits: of "train", "validation", "test" and "unlabelled".
        subset [shape=(clips,)]: that of the holdout; otherwise "out_of_fold" or "unlabelled".
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

    "corpora" tests each corpus by a model that is trained on the others, of which a fifth validates.

    Several corpora are split one by one, and each fold has clips of all. Where all clips of one corpus are
    test clips, the others have none.

    Args:
        clips: with id, subset, rating, speaker and corpus, as `inspect_corpus` makes them.
        protocol: one of PROTOCOLS.
        n_folds: of a cross-validation.

    Raises:
        SettingsError: there is no such protocol, or fewer than three folds.
        CorpusError: too few clips or speakers.
    """
    if protocol not in PROTOCOLS:
        raise SettingsError(unknown_name("protocol", protocol, PROTOCOLS))
    rated = clips["rating"].notna().to_numpy()
    if protocol == "holdout":
        subset, by = _holdouts(clips, rated, seed)
        splits = {"": subset}
    else:
        by = "speaker" if (clips["speaker"][rated] != "").all() else "random"
        if protocol == "cv":
            folds = fold_splits(clips[rated], by, n_folds, seed)
        else:
            folds, by = _corpus_splits(clips[rated], by, seed), "corpora"
        splits = {}
        for number, of_rated in enumerate(folds):
            splits[f"{FOLD}{number}"] = np.full(len(clips), "unlabelled", dtype="<U10")
            splits[f"{FOLD}{number}"][rated] = of_rated
        subset = np.where(rated, OUT_OF_FOLD, "unlabelled")
    named = rated & (clips["speaker"] != "").to_numpy()
    shared: set[str] = set()
    for subsets in splits.values():
        n_subsets = pd.Series(subsets[named]).groupby(clips["speaker"][named].to_numpy()).nunique()
        shared |= set(n_subsets.index[n_subsets > 1])
    return SplitResult(protocol, by, splits, subset, sorted(shared))


def _holdouts(clips: pd.DataFrame, rated: NDArray[np.bool_], seed: int) -> tuple[NDArray[np.str_], str]:
    """The subset of each clip, split corpus by corpus, and what no two subsets share."""
    corpora = clips["corpus"].to_numpy(dtype=str)
    given = clips["subset"].to_numpy(dtype=str)
    names = list(dict.fromkeys(corpora.tolist()))
    unrated = [name for name in names if not rated[corpora == name].any()]
    if unrated and len(names) > 1:
        raise CorpusError(
            f"no clip of the corpus {unrated[0]!r} has a rating to learn from or to compare with; expected "
            "rated clips of each corpus. Rate them, or leave the corpus out."
        )
    tested = [name for name in names if (given[rated & (corpora == name)] == "test").all()]
    if len(tested) == len(names):  # a corpus of test clips alone is refused below
        tested = []
    subsets, ways = np.where(rated, "test", "unlabelled").astype("<U10"), []
    for name in names:
        rows = corpora == name
        if name not in tested:
            subsets[rows], way = _holdout(clips[rows], rated[rows], seed, draw_test=not tested)
            ways.append(way)
    return subsets, next((way for way in ("random", "speaker") if way in ways), "corpus")


def _corpus_splits(clips: pd.DataFrame, by: str, seed: int) -> list[NDArray[np.str_]]:
    """For each corpus, the split that tests it; the others are training and validation clips."""
    corpora = clips["corpus"].to_numpy(dtype=str)
    names = list(dict.fromkeys(corpora.tolist()))
    if len(names) < 2:
        raise CorpusError(
            "PROTOCOL=corpora was given for one corpus; expected two or more, as in CORPUS=first,second."
        )
    rating = clips["rating"].to_numpy(np.float64)
    groups = _groups(clips, by)
    held = np.zeros(len(clips), bool)
    for name in names:
        rows = np.flatnonzero(corpora == name)
        if len(set(groups[rows])) < 2:
            raise CorpusError(
                f"the corpus {name!r} has one speaker; expected two or more, to validate on one."
            )
        held[rows[_draw_off(rating[rows], groups[rows], _SHARE, 1, np.random.default_rng(seed))]] = True
    rest = np.where(held, "validation", "train")
    return [np.where(corpora == name, "test", rest).astype("<U10") for name in names]


def _holdout(
    clips: pd.DataFrame, rated: NDArray[np.bool_], seed: int, draw_test: bool
) -> tuple[NDArray[np.str_], str]:
    """The subset of each clip of one corpus, and what no two subsets share."""
    given = clips["subset"].to_numpy(dtype=str)
    rating = clips["rating"].to_numpy(np.float64)
    subsets = np.where(rated, given, "unlabelled").astype("<U10")
    free = rated & ((given == "") | (given == "train"))
    subsets[free] = "train"
    drawn = ("test", "validation") if draw_test else ("validation",)
    wanted = [subset for subset in drawn if not (subsets == subset).any()]
    if not wanted and free.any():
        return subsets, "corpus"
    speakers = clips["speaker"].to_numpy(dtype=str)
    by_speaker = bool((speakers[rated] != "").all()) and len(set(speakers[free])) > len(wanted)
    n_free, generator = int(free.sum()), np.random.default_rng(seed)
    if n_free < _FEWEST_CLIPS:
        name = str(clips["corpus"].iloc[0])
        clip_of, are = ("clip of", "is") if n_free == 1 else ("clips of", "are")
        raise CorpusError(
            f"{n_free} rated {clip_of} {name!r} {are} too few to split into training, validation and test; "
            f"expected at least {_FEWEST_CLIPS}. Add more, or name fewer as test or validation."
        )
    for number, subset in enumerate(wanted):
        rest = np.flatnonzero(subsets == "train")
        groups = speakers[rest] if by_speaker else np.arange(len(rest)).astype(str)
        share = _SHARE * n_free / len(rest)
        subsets[rest[_draw_off(rating[rest], groups, share, len(wanted) - number, generator)]] = subset
    return subsets, "speaker" if by_speaker else "random"


def _draw_off(
    rating: NDArray, groups: NDArray, share: float, n_stay: int, generator: np.random.Generator
) -> NDArray[np.bool_]:
    """Which clips to take for a subset: about that share of them, in whole groups, of which `n_stay` stay."""
    _, group = np.unique(groups, return_inverse=True)
    sizes = np.bincount(group)

    def draw() -> tuple[float, NDArray[np.bool_]]:
        order = generator.permutation(len(sizes))
        reached = sizes[order].cumsum()[:-n_stay]
        drawn = np.isin(group, order[: 1 + np.abs(reached - share * len(group)).argmin()])
        inside, outside = rating[drawn], rating[~drawn]
        difference = abs(inside.mean() - outside.mean()) + abs(inside.std() - outside.std())
        return abs(drawn.mean() - share) / share + difference / max(rating.std(), 1e-9), drawn

    return _most_balanced(draw, _HOLDOUT_DRAWS)


def fold_splits(clips: pd.DataFrame, grouping: str, n_folds: int, seed: int) -> list[NDArray[np.str_]]:
    """Assign clips to folds, and give the split of each fold; every clip is tested in exactly one of them.

    The next fold validates. Grouping "both" has a split for each fold of speakers and each half of the
    sentences; clips that share a speaker or a sentence with the test clips, but not both, are unused.

    Args:
        clips: with rating and corpus, and with speaker and sentence where the grouping needs them; sentences
            of two languages differ where there is a column language. Every fold has clips of each corpus.
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
    rating = clips["rating"].to_numpy(np.float64)
    by = "speaker" if grouping == "both" else grouping
    groups, corpora = _groups(clips, by), clips["corpus"].to_numpy(dtype=str)
    if grouping == "sentence":
        fewest = min(len(set(groups[corpora == name])) for name in set(corpora))
        n_folds = max(_FEWEST_FOLDS, min(n_folds, fewest))
    fold = _deal_each(rating, groups, corpora, n_folds, by, seed)
    splits = [_split(fold, number, n_folds) for number in range(n_folds)]
    if grouping != "both":
        return splits
    half = _deal_each(rating, _groups(clips, "sentence"), corpora, _SENTENCE_GROUPS, "sentence", seed)
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


def _deal_each(
    rating: NDArray[np.float64],
    groups: NDArray[np.str_],
    corpora: NDArray[np.str_],
    n_folds: int,
    what: str,
    seed: int,
) -> NDArray[np.int64]:
    """The fold of each clip, dealt corpus by corpus."""
    fold = np.empty(len(rating), np.int64)
    for name in dict.fromkeys(corpora):
        rows = corpora == name
        fold[rows] = _deal(rating[rows], groups[rows], n_folds, what, seed)
    return fold


def _deal(
    rating: NDArray[np.float64], groups: NDArray[np.str_], n_folds: int, what: str, seed: int
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
        mean = np.bincount(fold, rating) / n_clips
        deviation = np.sqrt(np.maximum(np.bincount(fold, rating**2) / n_clips - mean**2, 0))
        difference = (mean.std() + deviation.std()) / max(rating.std(), 1e-9)
        return n_clips.std() / n_clips.mean() + difference, fold

    return _most_balanced(draw, _FOLD_DRAWS if len(names) < len(rating) else _FOLD_DRAWS // 10)


def _most_balanced(draw: Callable[[], tuple[float, NDArray]], n_draws: int) -> NDArray:
    """The assignment with the least imbalance among some draws, each an imbalance and an assignment."""
    return min((draw() for _ in range(n_draws)), key=lambda drawn: drawn[0])[1]
