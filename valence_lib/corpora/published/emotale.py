"""EmoTale: Danish and English sentences, acted in five emotions, each rated by three annotators.

wav/DK_001_A_1.wav   language, speaker, emotion, sentence
annotations.csv      file,a1_A,a1_V,a1_D,a1_cat,...,gt_emotion
speaker_info.csv     sex and age

a1_V is the valence that annotator a1 gives, A the arousal, D the dominance, and cat the perceived emotion.
"""

import re
from pathlib import Path, PurePosixPath

from valence_lib.corpora.labels import LabelRow, Labels, speaker_name
from valence_lib.corpora.published.entry import PublishedCorpus
from valence_lib.corpora.published.label_files import (
    Record,
    clip_name,
    counted,
    first_of_each,
    mean_rating,
    parse_ratings,
    parse_sex,
    read_records,
    recordings,
    unread_ratings,
    without_labels,
)
from valence_lib.errors import CorpusError

_SCALE = (1.0, 5.0)
_LETTERS = {"valence": "V", "arousal": "A", "dominance": "D"}
_RATERS = ("a1", "a2", "a3")
_LANGUAGES = {"DK": "da", "EN": "en"}
_EMOTIONS = {"A": "anger", "B": "boredom", "H": "happiness", "N": "neutral", "S": "sadness"}
_NAME = re.compile(rf"({'|'.join(_LANGUAGES)})_(\d+)_([{''.join(_EMOTIONS)}])_(\d+)")
_UNNAMED = ("", "", "", "")
_SPEAKER_COLUMNS = ("speaker", "speaker_id", "speakerid", "speaker id", "id")
_SEX_COLUMNS = ("sex", "gender")


def read(folder: Path, target: str) -> Labels:
    """Read EmoTale; the rating of a clip is the mean of its annotators' ratings.

    Args:
        folder: with annotations.csv.
        target: "valence", "arousal", "dominance", or "" for the clips alone.

    Raises:
        CorpusError: annotations.csv cannot be read, lacks a column, or contradicts itself.
    """
    notes: list[str] = []
    columns = {rater: f"{rater}_{_LETTERS[target]}" for rater in _RATERS} if target else {}
    perceived = [f"{rater}_cat" for rater in _RATERS]
    annotations, speaker_info = folder / "annotations.csv", folder / "speaker_info.csv"
    used = ["file", *columns.values(), *perceived]
    clips = first_of_each(read_records(annotations, used), "file", used, notes)
    speakers = _speakers(speaker_info, notes)
    rows = [_row(record, f"wav/{record.cells['file']}", columns, speakers) for record in clips.values()]
    unknown = {row.labels["speaker"] for row in rows} - {"", *speakers} if speakers else set()
    notes += counted(
        sorted(unknown),
        f"speaker is not in {speaker_info.name}; the sex and the age are unknown",
        f"speakers are not in {speaker_info.name}; their sexes and ages are unknown",
    )
    notes += without_labels(recordings(folder), {clip_name(row.file) for row in rows})
    rows.sort(key=lambda row: row.file)
    tables = [path for path in (annotations, speaker_info) if path.is_file()]
    notes += unread_ratings(folder, tables)
    return Labels(rows, "EmoTale, with annotations.csv", notes, tables)


def _row(
    record: Record, file: str, columns: dict[str, str], speakers: dict[str, tuple[str, str]]
) -> LabelRow:
    name = _NAME.fullmatch(PurePosixPath(file).stem.upper())
    language, speaker, emotion, sentence = name.groups() if name else _UNNAMED
    sex, age = speakers.get(speaker, ("", ""))
    by_rater, problems = parse_ratings(record, columns, _SCALE)
    perceived = {
        f"emotion_{rater}": _EMOTIONS.get(record.cells[f"{rater}_cat"].upper(), "") for rater in _RATERS
    }
    return LabelRow(
        place=record.place,
        file=file,
        rating=mean_rating(by_rater.values()),
        by_rater=by_rater,
        labels={
            "speaker": speaker,
            "sex": sex,
            "age": age,
            "language": _LANGUAGES.get(language, ""),
            "sentence": sentence,
            "emotion": _EMOTIONS.get(emotion, ""),
            **perceived,
        },
        problem=problems[0] if problems else None,
    )


def _speakers(path: Path, notes: list[str]) -> dict[str, tuple[str, str]]:
    """Sex and age of each speaker; a table that is absent or not understood leaves them unknown."""
    unknown = "The sexes and ages of the speakers are unknown: "
    if not path.is_file():
        notes.append(f"{unknown}there is no {path.name}.")
        return {}
    try:
        records = read_records(path, ())
    except CorpusError as error:
        notes.append(f"{unknown}{error}")
        return {}
    columns = {column.lower(): column for column in records[0].cells}
    speaker = next((columns[name] for name in _SPEAKER_COLUMNS if name in columns), None)
    if speaker is None:
        listed = ", ".join(columns.values())
        notes.append(f"{unknown}{path.name} has the columns {listed}, none of which names them.")
        return {}
    sex = next((columns[name] for name in _SEX_COLUMNS if name in columns), "")
    age = columns.get("age", "")
    described = [column for column in (sex, age) if column]
    try:
        by_number = first_of_each(records, speaker, described, notes, _speaker_number)
    except CorpusError as error:
        notes.append(f"{unknown}{error}")
        return {}
    return {
        number: (parse_sex(record.cells.get(sex, "")), record.cells.get(age, ""))
        for number, record in by_number.items()
    }


def _speaker_number(text: str) -> str:
    """The number of a speaker as names of files have it, such as 001 for "1.0"; "" where there is none."""
    found = re.fullmatch(r"\D*(\d+)\D*", speaker_name(text))
    return found[1].zfill(3) if found else ""


CORPUS = PublishedCorpus(
    name="EmoTale",
    marks=("annotations.csv", "wav/[DE][KN]_[0-9]*_[ABHNS]_[0-9].wav"),
    remains=(("annotations.csv", "speaker_info.csv"), "the recordings in wav/, such as wav/DK_001_A_1.wav"),
    read=read,
    scales=dict.fromkeys(_LETTERS, _SCALE),
    content="800 acted sentences in Danish and English, 18 speakers, 5 emotions, rated by 3 annotators",
    source="https://github.com/snehadas/EmoTale",
    terms="under copyright, without a licence; a citation is asked for",
    citation=(
        "Hjuler, M. J., Skat-Rørdam, H. V., Clemmensen, L. H., and Das, S. (2025). EmoTale: An Enacted "
        "Speech-emotion Dataset in Danish. ASRU 2025; arXiv:2508.14548."
    ),
)
