"""What is stated of a published corpus: how its folder is recognised, read, rated, licensed and cited."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from valence_lib.corpora.labels import Labels


@dataclass(frozen=True)
class PublishedCorpus:
    """A corpus in the form in which it is published.

    Args:
        name: as its authors write it.
        marks: patterns of paths within its folder, as `Path.glob` takes them. A folder in which each of them
            matches something is this corpus.
        read: from the folder and a rated dimension, such as "valence", to one row a clip, with the ratings of
            single raters by their names. The dimension is one of `scales`, or "" for the clips alone.
        content: what it is, in a few words.
        source: where it can be obtained.
        terms: its licence, and how access is granted.
        citation: authors, year, title and place of the publication that its users cite.
        scales: the lowest and the highest rating that the scale of each dimension allows; empty where the
            corpus has no ratings.
        further_marks: other `marks`, for other forms in which it is stored.
        remains: patterns that mark a folder in which a part of the corpus is missing, and what that part is.
    """

    name: str
    marks: tuple[str, ...]
    read: Callable[[Path, str], Labels]
    content: str
    source: str
    terms: str
    citation: str
    scales: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    further_marks: tuple[tuple[str, ...], ...] = ()
    remains: tuple[tuple[str, ...], str] = ((), "")

    def is_in(self, folder: Path) -> bool:
        """Whether a folder holds this corpus."""
        return any(_match(folder, marks) for marks in (self.marks, *self.further_marks))

    def is_partly_in(self, folder: Path) -> bool:
        """Whether a folder that does not hold this corpus holds some of it."""
        patterns, _ = self.remains
        return bool(patterns) and _match(folder, patterns)


def _match(folder: Path, patterns: Sequence[str]) -> bool:
    """Whether each pattern matches something, also in linked folders, into which ** does not go."""
    return all(
        any(
            next(folder.glob(pattern.replace("**", folders)), None) is not None
            for folders in (("**", "*", "*/*", "*/*/*") if "**" in pattern else ("**",))
        )
        for pattern in patterns
    )
