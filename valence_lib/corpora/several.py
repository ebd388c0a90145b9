"""Several corpora as one, with the names of clips, speakers and sentences within each, and a common scale."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from valence_lib.corpora.labels import SEXES
from valence_lib.corpora.rescaling import Rating, rescaled
from valence_lib.corpora.sources import Clip, Corpus
from valence_lib.errors import CorpusError
from valence_lib.settings import Target

_NAMED_WITHIN = ("speaker", "sentence")  # labels of which equal ones of two corpora mean different things


class SeveralCorpora(Corpus):
    """The clips of several corpora, one after the other.

    The ratings of all are mapped linearly from their own scale to that of the first. Where some corpora are
    tested, all their clips are test clips, and those of the others are training or validation clips.

    Args:
        trained: the corpora to train on; without `tested`, also to validate and test on.
        tested: the corpora to test on alone.

    Raises:
        CorpusError: one of them has no ratings.
    """

    def __init__(self, trained: Sequence[Corpus], tested: Sequence[Corpus] = ()):
        parts = [*trained, *tested]
        if unrated := next((part.unrated for part in parts if part.unrated), ""):
            raise CorpusError(unrated)
        names = _distinct([part.name for part in parts])
        self._parts = [_renamed(part, name) for part, name in zip(parts, names, strict=True)]
        n_raters = [len(part.rater_columns) for part in parts]
        self._first_rater = np.cumsum([0, *n_raters[:-1]]).tolist()
        ids = [f"{part.name}/{clip}" for part in self._parts for clip in part.ids]
        entries = []
        for number, part in enumerate(self._parts):
            for index in range(len(part)):
                subset = part.subset(index)
                if tested:
                    subset = "test" if number >= len(trained) else subset.replace("test", "")
                entries.append(((number, index), subset))
        name = " + ".join(names[: len(trained)]) + " → " * bool(tested) + " + ".join(names[len(trained) :])
        described = [f"{part.name}: {part.about['description']}" for part in self._parts if _synthetic(part)]
        about = {"synthetic": bool(described), "description": " ".join(described)}
        super().__init__(name, ids, parts[0].sample_rate, parts[0].target, about, entries)
        self.form = "; ".join(f"{part.name}: {part.form}" for part in self._parts)
        self.notes = [f"{part.name}: {note}" for part in self._parts for note in part.notes]
        self.notes += [
            f"The ratings of {part.name}, from {part.target.low:g} to {part.target.high:g}, are mapped "
            f"linearly to {self.target.low:g} to {self.target.high:g}."
            for part in self._parts
            if part.target != self.target
        ]

    def _mapped(self, rating: Rating, scale: Target) -> Rating:
        """A rating of a corpus on the common scale."""
        return rescaled(rating, (scale.low, scale.high), (self.target.low, self.target.high))

    def read(self, index: int) -> Clip:
        """See `Corpus.read`."""
        (number, place), subset = self._entries[index]
        part, first = self._parts[number], self._first_rater[number]
        clip = part.read(place)
        within = {name: f"{part.name}/{clip.labels[name]}" for name in _NAMED_WITHIN if clip.labels.get(name)}
        if sex := clip.labels.get("sex", ""):  # which corpora spell in several ways
            within["sex"] = SEXES.get(sex.lower(), sex)
        # Raters of two corpora are different people, though both are called a1.
        by_rater = {
            f"rating_a{int(column.removeprefix('rating_a')) + first}": self._mapped(rating, part.target)
            for column, rating in clip.by_rater.items()
        }
        return replace(
            clip,
            id=self.ids[index],
            rating=None if clip.rating is None else self._mapped(clip.rating, part.target),
            subset=subset,
            labels={**clip.labels, **within},
            by_rater=by_rater,
        )

    def ratings(self) -> NDArray[np.float64]:
        """See `Corpus.ratings`."""
        return self._by_clip([self._mapped(part.ratings(), part.target) for part in self._parts])

    def rating_bounds(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """See `Corpus.rating_bounds`."""
        bounds = [part.rating_bounds() for part in self._parts]
        lowest, highest = (
            self._by_clip(
                [self._mapped(of[n], part.target) for of, part in zip(bounds, self._parts, strict=True)]
            )
            for n in (0, 1)
        )
        return lowest, highest

    def _by_clip(self, of_parts: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
        return np.array([of_parts[number][place] for (number, place), _ in self._entries], np.float64)

    def speakers(self) -> list[str]:
        """See `Corpus.speakers`."""
        names = [part.speakers() for part in self._parts]
        return [
            f"{self._parts[number].name}/{name}" if (name := names[number][place]) else ""
            for (number, place), _ in self._entries
        ]

    @property
    def rater_columns(self) -> Sequence[str]:
        """See `Corpus.rater_columns`."""
        n_raters = sum(len(part.rater_columns) for part in self._parts)
        return [f"rating_a{number}" for number in range(1, n_raters + 1)]

    @property
    def parts(self) -> Sequence[Corpus]:
        """See `Corpus.parts`."""
        return self._parts

    def part_of(self, index: int) -> str:
        """See `Corpus.part_of`."""
        return self._parts[self._entries[index][0][0]].name

    def files(self) -> list[Path]:
        """See `Corpus.files`."""
        return [path for part in self._parts for path in part.files()]

    def cut(self, start: int, stop: int) -> Self:
        """See `Corpus.cut`."""
        chosen = super().cut(start, stop)
        places: dict[int, list[int]] = {}
        for (number, place), _ in chosen._entries:
            places.setdefault(number, []).append(place)
        chosen._parts = [
            part.cut(min(places[number]), max(places[number]) + 1) if number in places else part.cut(0, 0)
            for number, part in enumerate(self._parts)
        ]
        chosen._entries = [
            ((number, place - min(places[number])), subset) for (number, place), subset in chosen._entries
        ]
        return chosen


def _synthetic(part: Corpus) -> bool:
    return bool(part.about.get("synthetic"))


def _renamed(part: Corpus, name: str) -> Corpus:
    renamed = part.cut(0, len(part))
    renamed.name = name
    return renamed


def _distinct(names: Sequence[str]) -> list[str]:
    """The names, with a number behind those that occur again; no number makes the name of another one.

    >>> _distinct(["a", "b", "a", "a-2"])
    ['a', 'b', 'a-3', 'a-2']
    """
    found: list[str] = []
    for name in names:
        numbered = (f"{name}-{number}" for number in count(2))
        free = (other for other in numbered if other not in names and other not in found)
        found.append(next(free) if name in found else name)
    return found
