"""The published corpora that are recognised by their files. A new one is a module and a line here."""

from collections.abc import Sequence
from pathlib import Path

from valence_lib.corpora.file_kinds import is_clutter, name_text
from valence_lib.corpora.published import (
    crema_d,
    emodb,
    emotale,
    escorpus_pe,
    iemocap,
    msp_improv,
    msp_podcast,
    nemo,
    quechua_collao,
    ravdess,
)
from valence_lib.corpora.published.entry import PublishedCorpus

_ARCHIVES = {".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar"}

# First those with ratings.
PUBLISHED: Sequence[PublishedCorpus] = (
    msp_podcast.CORPUS,
    iemocap.CORPUS,
    msp_improv.CORPUS,
    emotale.CORPUS,
    quechua_collao.CORPUS,
    escorpus_pe.CORPUS,
    crema_d.CORPUS,
    ravdess.CORPUS,
    nemo.CORPUS,
    emodb.CORPUS,
)


def recognise(folder: Path) -> tuple[PublishedCorpus, Path] | None:
    """The published corpus that a folder holds, and where: there, or in its only folder.

    None where the folder holds none that is known.
    """
    for place in _places(folder):
        for corpus in PUBLISHED:
            if corpus.is_in(place):
                return corpus, place
    return None


def incomplete(folder: Path) -> str:
    """What a folder lacks that looks like a part of a published corpus; "" for other folders."""
    for place in _places(folder):
        for corpus in PUBLISHED:
            if corpus.is_partly_in(place):
                return (
                    f"'{name_text(place.name)}' looks like a part of {corpus.name}; expected "
                    f"{corpus.remains[1]}. Copy them from the archive of the corpus."
                )
    return ""


def _places(folder: Path) -> list[Path]:
    """A folder, and its only folder where there is nothing beside it but archives, as after unpacking."""
    entries = [entry for entry in folder.iterdir() if not is_clutter(entry.name)]
    others = [entry for entry in entries if entry.is_dir() or entry.suffix.lower() not in _ARCHIVES]
    return [folder, *(entry for entry in others if entry.is_dir() and len(others) == 1)]
