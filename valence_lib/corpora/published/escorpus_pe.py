"""ESCorpus-PE: Peruvian Spanish speech, rated in the names of its files.

Audio7/Audio7_36-05-05-04.wav   recording 7, clip 36, valence 5, arousal 5, dominance 4
"""

import re
from pathlib import Path, PurePosixPath

from valence_lib.corpora.labels import LabelRow, Labels
from valence_lib.corpora.published.entry import PublishedCorpus
from valence_lib.corpora.published.label_files import by_clip, parse_rating, recordings, unread_ratings
from valence_lib.errors import ClipError

_SCALE = (1.0, 5.0)
_DIMENSIONS = ("valence", "arousal", "dominance")  # in the order of the names
_PLACE = re.compile(r"Audio\d+/[^/]+\.wav", re.IGNORECASE)
_RATINGS = re.compile(r"-(\d+)-(\d+)-(\d+)")


def read(folder: Path, target: str) -> Labels:
    """Read ESCorpus-PE from the names of its files.

    Args:
        folder: with the folders Audio1, Audio2, ...
        target: "valence", "arousal", "dominance", or "" for the clips alone.

    Raises:
        CorpusError: two recordings have one name.
    """
    notes: list[str] = []
    chosen = by_clip(recordings(folder), _PLACE.fullmatch, notes)
    rows = [_row(file, target) for file in sorted(chosen.values())]
    notes.insert(
        0,
        "The names of the speakers are not published. Clips of one recording (the label recording) may have "
        "the same speaker.",
    )
    notes += unread_ratings(folder, [])
    return Labels(rows, "ESCorpus-PE, with the ratings in the names of its files", notes)


def _row(file: str, target: str) -> LabelRow:
    path = PurePosixPath(file)
    rating, problem = None, None
    if target:
        try:
            rating = _rating(path.stem, target)
        except ClipError as error:
            problem = error
    recording = re.fullmatch(r"Audio(\d+)", path.parent.name)
    return LabelRow(
        place="the name of the file",
        file=file,
        rating=rating,
        labels={
            "speaker": "",
            "sex": "",
            "language": "es",
            "sentence": "",
            "emotion": "",
            "recording": recording[1] if recording else "",
        },
        problem=problem,
    )


def _rating(stem: str, target: str) -> float | None:
    ratings = re.search(f"{_RATINGS.pattern}$", stem)
    if not ratings:
        raise ClipError(
            "label not a number",
            f"{stem!r} does not end in three ratings; expected valence, arousal and dominance, as in "
            "'Audio7_36-05-05-04'.",
        )
    return parse_rating(ratings[1 + _DIMENSIONS.index(target)], _SCALE, f"the {target} in the name {stem!r}")


CORPUS = PublishedCorpus(
    name="ESCorpus-PE",
    marks=("Audio[0-9]*/*-[0-9][0-9]-[0-9][0-9]-[0-9][0-9].wav",),
    read=read,
    scales=dict.fromkeys(_DIMENSIONS, _SCALE),
    content="some 3,750 clips of Peruvian Spanish with ratings of valence, arousal and dominance",
    source="https://zenodo.org/records/5793223",
    terms="open; catalogues state CC BY 4.0 or CC BY-SA 4.0: see the record",
    citation="ESCorpus-PE, Zenodo record 5793223; the record names its authors.",
)
