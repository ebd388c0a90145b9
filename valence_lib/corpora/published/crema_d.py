"""CREMA-D: twelve sentences, spoken by 91 actors in six emotions.

AudioWAV/1001_IEO_HAP_LO.wav          actor, sentence, emotion, level
VideoDemographics.csv                 ActorID, Age, Sex, ...
processedResults/tabulatedVotes.csv   the emotions that listeners perceive (optional)
"""

import re
from pathlib import Path, PurePosixPath

from valence_lib.corpora.labels import LabelRow, Labels, speaker_name
from valence_lib.corpora.published.entry import PublishedCorpus
from valence_lib.corpora.published.label_files import (
    Record,
    counted,
    first_of_each,
    parse_sex,
    read_records,
    recordings,
    unread_ratings,
)

_EMOTIONS = {
    **{"ANG": "anger", "DIS": "disgust", "FEA": "fear"},
    **{"HAP": "happiness", "NEU": "neutral", "SAD": "sadness"},
}
_BY_LETTER = {code[0]: emotion for code, emotion in _EMOTIONS.items()}
_LEVELS = {"LO": "low", "MD": "medium", "HI": "high", "XX": ""}
_NAME = re.compile(rf"(\d{{4}})_([A-Z]{{3}})_({'|'.join(_EMOTIONS)})_({'|'.join(_LEVELS)})")
_VOICE_ONLY = re.compile(r"1\d{5}")  # rows of faces begin with 2, those of both with 3
_SEVERAL_TAKES = "1064_IEO_DIS_MD"


def read(folder: Path, target: str) -> Labels:
    """Read CREMA-D: the acted emotion from the names of its files, the actors' sex and age from a table.

    Args:
        folder: with AudioWAV/.
        target: "", as CREMA-D has no ratings of valence.

    Raises:
        CorpusError: a table cannot be read, lacks a column, or contradicts itself.
    """
    notes: list[str] = []
    demographics = folder / "VideoDemographics.csv"
    votes = folder / "processedResults" / "tabulatedVotes.csv"
    actors = _actors(demographics, notes)
    perceived = _perceived(votes)
    rows, strange = [], []
    for file in recordings(folder / "AudioWAV"):
        name = _NAME.fullmatch(PurePosixPath(file).stem)
        if name and "/" not in file:
            rows.append(_row(f"AudioWAV/{file}", name, actors, perceived))
        else:
            strange.append(f"AudioWAV/{file}")
    notes += counted(
        strange,
        "recording is left out: it is in a folder below AudioWAV/, or its name is not of the published form",
        "recordings are left out: they are in folders below AudioWAV/, or their names are not of the "
        "published form",
    )
    unknown = {row.labels["speaker"] for row in rows} - actors.keys() if actors else set()
    notes += counted(
        sorted(unknown),
        f"actor is not in {demographics.name}; the sex and the age are unknown",
        f"actors are not in {demographics.name}; their sexes and ages are unknown",
    )
    notes += [
        f"{row.file} is reported to hold takes of all emotions."
        for row in rows
        if PurePosixPath(row.file).stem == _SEVERAL_TAKES
    ]
    tables = [path for path in (demographics, votes) if path.is_file()]
    notes += unread_ratings(folder, tables)
    return Labels(rows, "CREMA-D, with the labels in the names of its files", notes, tables)


def _row(
    file: str, name: re.Match[str], actors: dict[str, Record], perceived: dict[str, str] | None
) -> LabelRow:
    actor, sentence, emotion, level = name.groups()
    stated = actors[actor].cells if actor in actors else {}
    labels = {
        "speaker": actor,
        "sex": parse_sex(stated.get("Sex", "")),
        "age": stated.get("Age", ""),
        "language": "en",
        "sentence": sentence,
        "emotion": _EMOTIONS[emotion],
        "intensity": _LEVELS[level],
    }
    if perceived is not None:
        labels["perceived_emotion"] = perceived.get(name[0], "")
    return LabelRow(place="the name of the file", file=file, labels=labels)


def _actors(path: Path, notes: list[str]) -> dict[str, Record]:
    """The row of each actor, by the actor's number."""
    columns = ("ActorID", "Age", "Sex")
    if not path.is_file():
        notes.append(f"There is no {path.name}: the actors' sexes and ages are unknown.")
        return {}
    return first_of_each(read_records(path, columns), "ActorID", columns, notes, speaker_name)


def _perceived(path: Path) -> dict[str, str] | None:
    """The emotion that most listeners perceive in the voice alone, by the name of the clip."""
    if not path.is_file():
        return None
    return {
        record.cells["fileName"]: _BY_LETTER.get(record.cells["emoVote"], "no agreement")
        for record in read_records(path, ("", "fileName", "emoVote"))
        if _VOICE_ONLY.fullmatch(record.cells[""])
    }


CORPUS = PublishedCorpus(
    name="CREMA-D",
    marks=("AudioWAV/[0-9][0-9][0-9][0-9]_[A-Z][A-Z][A-Z]_[A-Z][A-Z][A-Z]_[A-Z][A-Z].wav",),
    read=read,
    content="7,442 recordings of 12 sentences in English, 91 actors, 6 acted emotions",
    source="https://github.com/CheyneyComputerScience/CREMA-D",
    terms="ODbL 1.0 (database) and DbCL 1.0 (contents), free to download",
    citation=(
        "Cao, H., Cooper, D. G., Keutmann, M. K., Gur, R. C., Nenkova, A., and Verma, R. (2014). CREMA-D: "
        "Crowd-sourced Emotional Multimodal Actors Dataset. IEEE Transactions on Affective Computing, 5(4), "
        "377-390."
    ),
)
