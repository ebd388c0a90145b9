"""How a report divides its clips: one holdout, or the folds of a cross-validation."""

from __future__ import annotations  # who only needs the names of divisions does without pandas

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from valence_lib.errors import SettingsError, unknown_name

if TYPE_CHECKING:
    import pandas as pd

PROTOCOLS = ("holdout", "cv")
FOLD = "fold-"  # begins the name of a fold's division
OUT_OF_FOLD = (
    "out_of_fold"  # the part of every rated clip in a cross-validation, which tests each of them once
)

# Of each training, the part of every clip [shape=(clips,)] by the division's name: "" for the one of a holdout, or fold-0, ...
Divisions = Mapping[str, NDArray[np.str_]]


@dataclass(frozen=True)
class Split:
    """How clips are divided.

    Args:
        protocol: one of PROTOCOLS.
        by: what no two parts share: "speaker", nothing where they were drawn at "random", or what the "corpus" itself says.
        divisions: of "train", "validation", "test" and "unlabelled".
        part [shape=(clips,)]: of the clips as a whole; in a cross-validation "out_of_fold" or "unlabelled".
        shared_speakers: who is heard in more than one part of a division.
    """

    protocol: str
    by: str
    divisions: Divisions
    part: NDArray[np.str_]
    shared_speakers: list[str]

    @property
    def fold(self) -> NDArray[np.str_]:
        """The fold in which each clip is tested [shape=(clips,)]; "" in a holdout, and for clips without a rating."""
        fold = np.full(len(self.part), "", dtype="<U8")
        for name, parts in self.divisions.items():
            fold[(parts == "test") & (name != "")] = name.removeprefix(FOLD)
        return fold

    def torn(self, ids: pd.Series, pairs: pd.DataFrame) -> int:
        """How many pairs of clips (columns first and second) lie on two sides of a division."""
        place = {name: number for number, name in enumerate(ids)}
        rows = [
            (place[first], place[second])
            for first, second in zip(pairs["first"], pairs["second"], strict=True)
        ]
        return sum(any(parts[a] != parts[b] for parts in self.divisions.values()) for a, b in rows)


def divide(clips: pd.DataFrame, protocol: str, n_folds: int, seed: int) -> Split:
    """Divide clips by a protocol.

    "holdout" is `assign_parts`. "cv" deals all rated clips to folds, by speaker where every clip names one, whatever
    parts the corpus itself names; each fold is tested by models that saw nothing of it, and of the other folds the next
    one validates.

    Args:
        clips: with id, part, valence and speaker, as `inspect_corpus` makes them.

    Raises:
        SettingsError: there is no such protocol.
        CorpusError: too few clips or speakers.
    """
    from valence_lib.divisions import fold_parts
    from valence_lib.splits import assign_parts, shared_speakers

    if protocol not in PROTOCOLS:
        raise SettingsError(unknown_name("protocol", protocol, PROTOCOLS))
    if protocol == "holdout":
        parts, by = assign_parts(clips, seed)
        return Split(protocol, by, {"": parts}, parts, shared_speakers(clips, parts))
    labelled = clips["valence"].notna().to_numpy()
    rated = clips[labelled]
    by = "speaker" if (rated["speaker"] != "").all() else "random"
    divisions, shared = {}, set()
    for number, of_rated in enumerate(fold_parts(rated, by, n_folds, seed)):
        parts = np.full(len(clips), "unlabelled", dtype="<U10")
        parts[labelled] = of_rated
        divisions[f"{FOLD}{number}"] = parts
        shared |= set(shared_speakers(clips, parts))
    return Split(protocol, by, divisions, np.where(labelled, OUT_OF_FOLD, "unlabelled"), sorted(shared))
