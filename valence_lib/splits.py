"""Training, validation and test parts, with no speaker on two sides where speakers are known."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from valence_lib.errors import CorpusError

PARTS = ("train", "validation", "test", "unlabelled")
_SHARE = 0.2  # of the clips, for test and for validation
_DRAWS = 50
_FEWEST_CLIPS = 10  # before anything is divided off


def assign_parts(clips: pd.DataFrame, seed: int) -> tuple[NDArray[np.str_], str]:
    """The part of each clip, and by what the clips were divided.

    A part that the corpus itself names stays what it is; its test clips without a rating become
    "unlabelled". What is missing is divided off the rest: a fifth for test, then a fifth of all for
    validation, by whole speakers where every clip names one (and there are enough). Of some
    random draws the one is taken whose parts are most alike in valence.

    Args:
        clips: with columns id, part, valence and speaker, as `inspect_corpus` makes it.
        seed: of the shuffling.

    Returns:
        Parts [shape=(len(clips),)], of PARTS, and one of "speaker", "random", or "corpus" (all parts given).

    Raises:
        CorpusError: too few rated clips for three parts.
    """
    given = clips["part"].to_numpy(dtype=str)
    valence = clips["valence"].to_numpy(np.float64)
    labelled = ~np.isnan(valence)
    parts = np.where(labelled, given, "unlabelled").astype("<U10")
    free = labelled & ((given == "") | (given == "train"))
    wanted = [part for part in ("test", "validation") if not (labelled & (given == part)).any()]
    parts[free] = "train"
    if not wanted and free.any():
        return parts, "corpus"
    speakers = clips["speaker"].to_numpy(dtype=str)
    by_speaker = bool((speakers[labelled] != "").all()) and len(set(speakers[free])) > len(wanted)
    generator = np.random.default_rng(seed)
    n_groups = len(set(speakers[free])) if by_speaker else int(free.sum())
    if free.sum() < _FEWEST_CLIPS or n_groups <= len(wanted):
        raise CorpusError(
            f"{int(free.sum())} rated clips are too few to divide into training, validation and test; "
            f"expected at least {_FEWEST_CLIPS}, by at least {len(wanted) + 1} speakers where they are named."
        )
    for n_divided, part in enumerate(wanted):
        rest = np.flatnonzero(free & (parts == "train"))
        groups = speakers[rest] if by_speaker else np.arange(len(rest)).astype(str)
        share = _SHARE * free.sum() / len(rest)
        parts[rest[_divide_off(valence[rest], groups, share, len(wanted) - n_divided, generator)]] = part
    return parts, "speaker" if by_speaker else "random"


def _divide_off(
    valence: NDArray[np.float64],
    groups: NDArray[np.str_],
    share: float,
    n_stay: int,
    generator: np.random.Generator,
) -> NDArray[np.bool_]:
    """Which clips to divide off: whole groups, about that share of the clips, like the others in valence.

    At least `n_stay` groups stay behind, one for each part that is still to come.

    Of some random draws it is the one whose size, mean and deviation of valence are nearest to what is wanted.
    """
    names, group = np.unique(groups, return_inverse=True)
    sizes = np.bincount(group)
    best, least = np.zeros(len(group), bool), np.inf
    for _ in range(_DRAWS):
        order = generator.permutation(len(names))
        reached = sizes[order].cumsum()[:-n_stay]
        drawn = np.isin(group, order[: 1 + np.abs(reached - share * len(group)).argmin()])
        inside, outside = valence[drawn], valence[~drawn]
        off = abs(drawn.mean() - share) / share
        off += (abs(inside.mean() - outside.mean()) + abs(inside.std() - outside.std())) / max(
            valence.std(), 1e-9
        )
        if off < least:
            best, least = drawn, off
    return best


def shared_speakers(clips: pd.DataFrame, parts: NDArray[np.str_]) -> list[str]:
    """Speakers heard in more than one of training, validation and test; empty where none is named."""
    named = pd.DataFrame({"speaker": clips["speaker"], "part": parts})
    named = named[(named["speaker"] != "") & (named["part"] != "unlabelled")]
    heard_in = named.groupby("speaker")["part"].nunique()
    return sorted(heard_in.index[heard_in > 1])
