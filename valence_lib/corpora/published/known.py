"""The published corpora that are recognised by their files. A new one is a module and a line here."""

from collections.abc import Sequence
from pathlib import Path

from valence_lib.corpora.file_kinds import is_clutter
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
    entries = [entry for entry in folder.iterdir() if not is_clutter(entry.name)]
    places = [folder, *(entry for entry in entries if entry.is_dir() and len(entries) == 1)]
    for place in places:
        for corpus in PUBLISHED:
            if all(next(place.glob(mark), None) is not None for mark in corpus.marks):
                return corpus, place
    return None
