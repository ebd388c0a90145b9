"""EmoDB, the Berlin Database of Emotional Speech, in its first form.

    wav/03a01Fa.wav   speaker, text, emotion, version

Version 2 is an audformat database, which has the same names and a db.yaml.
"""

import re
from pathlib import Path, PurePosixPath

from valence_lib.corpora.labels import LabelRow, Labels
from valence_lib.corpora.published.entry import PublishedCorpus
from valence_lib.corpora.published.label_files import counted, recordings, unread_ratings

_EMOTIONS = {  # by the German words
    **{"W": "anger", "L": "boredom", "E": "disgust", "A": "fear"},
    **{"F": "happiness", "T": "sadness", "N": "neutral"},
}
_NAME = re.compile(rf"(\d\d)([a-z]\d\d)([{''.join(_EMOTIONS)}])([a-z]?)")
_PLACE = re.compile(r"wav/[^/]+", re.IGNORECASE)
_SPEAKERS = {  # sex and age, as the corpus's web page states them
    **{"03": ("M", "31"), "08": ("F", "34"), "09": ("F", "21"), "10": ("M", "32"), "11": ("M", "26")},
    **{"12": ("M", "30"), "13": ("F", "32"), "14": ("F", "35"), "15": ("M", "25"), "16": ("F", "31")},
}


def read(folder: Path, target: str) -> Labels:
    """Read EmoDB from the names of its files.

    Args:
        folder: with wav/.
        target: "", as EmoDB has no ratings.
    """
    rows, strange = [], []
    for file in recordings(folder):
        name = _NAME.fullmatch(PurePosixPath(file).stem)
        if name and _PLACE.fullmatch(file):
            rows.append(_row(file, name))
        else:
            strange.append(file)
    notes = counted(
        strange,
        "recording is left out: it is not in wav/ itself, or its name is not of the published form",
        "recordings are left out: they are not in wav/ itself, or their names are not of the published form",
    )
    notes += unread_ratings(folder, [])
    return Labels(rows, "EmoDB, with the labels in the names of its files", notes)


def _row(file: str, name: re.Match[str]) -> LabelRow:
    speaker, text, emotion, version = name.groups()
    sex, age = _SPEAKERS.get(speaker, ("", ""))
    return LabelRow(
        place="the name of the file",
        file=file,
        labels={
            "speaker": speaker,
            "sex": sex,
            "age": age,
            "language": "de",
            "sentence": text,
            "emotion": _EMOTIONS[emotion],
            "version": version,
        },
    )


CORPUS = PublishedCorpus(
    name="EmoDB",
    marks=("[wW][aA][vV]/[0-9][0-9][a-z][0-9][0-9][AEFLNTW]*.[wW][aA][vV]",),
    read=read,
    content="535 recordings of 10 sentences in German, 10 actors, 7 acted emotions",
    source="http://emodb.bilderbar.info; version 2: https://zenodo.org/records/17651657",
    terms="version 2: CC BY 4.0, free to download",
    citation=(
        "Burkhardt, F., Paeschke, A., Rolfes, M., Sendlmeier, W. F., and Weiss, B. (2005). A Database of "
        "German Emotional Speech. Proceedings of Interspeech 2005, 1517-1520."
    ),
)
