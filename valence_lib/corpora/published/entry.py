"""What is stated of a published corpus: how its folder is recognised, read, rated, licensed and cited."""

from collections.abc import Callable, Mapping
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
        scales: the lowest and the highest rating that the scale of each dimension allows; empty where the
            corpus has no ratings.
        content: what it is, in a few words.
        source: where it can be obtained.
        terms: its licence, and how access is granted.
        citation: authors, year, title and place of the publication that its users cite.
    """

    name: str
    marks: tuple[str, ...]
    read: Callable[[Path, str], Labels]
    content: str
    source: str
    terms: str
    citation: str
    scales: Mapping[str, tuple[float, float]] = field(default_factory=dict)
