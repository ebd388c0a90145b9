"""nEMO: ninety sentences in Polish, spoken by nine actors in six emotions.

samples/WR0_surprised_64.wav   speaker, emotion, sentence
data.tsv                       file_id, emotion, raw_text, normalized_text, speaker_id, gender, age
"""

import re
from pathlib import Path, PurePosixPath

from valence_lib.corpora.labels import LabelRow, Labels, speaker_name
from valence_lib.corpora.published.entry import PublishedCorpus
from valence_lib.corpora.published.label_files import (
    Record,
    clip_name,
    first_of_each,
    parse_sex,
    read_records,
    recordings,
    unread_ratings,
    without_labels,
)

_EMOTIONS = {
    **{"anger": "anger", "fear": "fear", "happiness": "happiness"},
    **{"neutral": "neutral", "sadness": "sadness", "surprised": "surprise"},
}
_COLUMNS = ("file_id", "emotion", "speaker_id", "gender", "age")


def read(folder: Path, target: str) -> Labels:
    """Read nEMO.

    Args:
        folder: with data.tsv and samples/.
        target: "", as nEMO has no ratings.

    Raises:
        CorpusError: data.tsv cannot be read, lacks a column, or contradicts itself.
    """
    notes: list[str] = []
    table = folder / "data.tsv"
    clips = first_of_each(read_records(table, _COLUMNS), "file_id", _COLUMNS, notes)
    rows = sorted(map(_row, clips.values()), key=lambda row: row.file)
    notes += without_labels(recordings(folder), {clip_name(row.file) for row in rows})
    notes += unread_ratings(folder, [table])
    return Labels(rows, "nEMO, with data.tsv", notes, [table])


def _row(record: Record) -> LabelRow:
    name = record.cells["file_id"]
    sentence = re.search(r"_(\d+)$", PurePosixPath(name).stem)
    return LabelRow(
        place=record.place,
        file=f"samples/{name}",
        labels={
            "speaker": speaker_name(record.cells["speaker_id"]),
            "sex": parse_sex(record.cells["gender"]),
            "age": record.cells["age"],
            "language": "pl",
            "sentence": sentence[1] if sentence else "",
            "emotion": _EMOTIONS.get(record.cells["emotion"], ""),
        },
    )


CORPUS = PublishedCorpus(
    name="nEMO",
    marks=("data.tsv", "samples/*_*_[0-9]*.wav"),
    read=read,
    content="4,481 recordings of 90 sentences in Polish, 9 actors, 6 acted emotions",
    source="https://github.com/amu-cai/nEMO",
    terms="CC BY-NC-SA 4.0, free to download",
    citation="Christop, I. (2024). nEMO: Dataset of Emotional Speech in Polish. arXiv:2404.06292.",
)
