"""Quechua Collao: words and sentences that six actors speak in nine emotions, rated by four annotators.

Audios/10006.wav
Data/Data/Data.xlsx             Audio (its number), Emotion, Actor, File (a1_H001.wav: actor, script item)
Labels/Labels/Labels.csv        Audio, Valence, Arousal, Dominance: the consensus
Labels/Labels/Valence.csv, ...  Audio, N1, N2, N3, N4: the annotators
"""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from valence_lib.corpora.file_kinds import is_clutter
from valence_lib.corpora.labels import LabelRow, Labels
from valence_lib.corpora.published.entry import PublishedCorpus
from valence_lib.corpora.published.label_files import (
    OUTSIDE,
    Record,
    clip_name,
    counted,
    first_of_each,
    mean_rating,
    nearest,
    parse_ratings,
    read_records,
    recordings,
    unread_ratings,
    without_labels,
)
from valence_lib.errors import ClipError, CorpusError

_SCALE = (1.0, 5.0)
_DIMENSIONS = ("valence", "arousal", "dominance")
_EMOTIONS = {
    **{"angry": "anger", "anger": "anger", "bored": "boredom", "boredom": "boredom", "calm": "calm"},
    **{"excited": "excitement", "fear": "fear", "happy": "happiness", "neutral": "neutral"},
    **{"sad": "sadness", "sadness": "sadness", "sleepy": "sleepiness"},
}
_CLIP_COLUMNS = ("Emotion", "Actor", "File")
_RATER = re.compile(r"(N|rater|annotator)[ _]?\d+", re.IGNORECASE)
_ACTOR = re.compile(r"(a?)\s*([1-6])[\W_]*", re.IGNORECASE)
_ITEM = re.compile(r"([A-Z])\s*(\d{3}|[oO]\d\d)(?!\d)")  # one file name has the letter o for a zero


def read(folder: Path, target: str) -> Labels:
    """Read Quechua Collao; the rating of a clip is the published consensus, else its annotators' mean.

    A rating outside the scale is left out, and the consensus of its clip replaced by the mean of the others.

    Args:
        folder: with Audios/, Data/ and Labels/.
        target: "valence", "arousal", "dominance", or "" for the clips alone.

    Raises:
        CorpusError: a table is absent, cannot be read, lacks a column, or contradicts itself.
    """
    notes: list[str] = []
    names = ("data.xlsx", *(("labels.csv", f"{target}.csv") if target else ()))
    tables = _tables(folder, names, notes)
    clips = first_of_each(_numbered(_workbook(tables), _CLIP_COLUMNS), "Audio", _CLIP_COLUMNS, notes)
    consensus = _consensus(tables, target, notes) if target else {}
    annotators = _annotators(tables, target, notes) if target else {}
    if target:
        notes += _unmatched_notes(clips, consensus, annotators, target)
    rows: list[LabelRow] = []
    outside: list[str] = []
    unrated: list[str] = []
    for number, record in clips.items():
        row, is_outside = _row(number, record, target, consensus.get(number), annotators.get(number))
        rows.append(row)
        if is_outside:
            (unrated if row.rating is None else outside).append(row.file)
    rows.sort(key=lambda row: row.file)
    notes += counted(
        sorted(outside),
        f"clip has a {target} outside the scale of 1 to 5; its rating is the mean of those within",
        f"clips have a {target} outside the scale of 1 to 5; their ratings are the means of those within",
    )
    notes += counted(
        sorted(unrated),
        f"clip has a {target} outside the scale of 1 to 5 and none within; it is not rated",
        f"clips have a {target} outside the scale of 1 to 5 and none within; they are not rated",
    )
    notes += _actor_notes(clips, rows)
    notes += without_labels(recordings(folder), {clip_name(row.file) for row in rows})
    notes += unread_ratings(folder, [])
    used = [tables[name] for name in names if name in tables]
    return Labels(rows, "Quechua Collao, with Data.xlsx and the tables of Labels/", notes, used)


def _tables(folder: Path, used: Sequence[str], notes: list[str]) -> dict[str, Path]:
    """The tables of the folders Data and Labels by their file's name in lower case.

    Of several with one name, such as backups, that in the published folder is taken, else that in the fewest.
    """

    def rank(path: Path) -> tuple[bool, int]:
        place, kind = path.parent.relative_to(folder), "Data" if path.suffix.lower() == ".xlsx" else "Labels"
        return place.as_posix() not in (kind, f"{kind}/{kind}"), len(place.parts)

    by_name: dict[str, list[Path]] = defaultdict(list)
    for path in (path for parent in ("Data", "Labels") for path in (folder / parent).rglob("*.*")):
        if path.suffix.lower() in (".csv", ".xlsx") and not is_clutter(path.name):
            by_name[path.name.lower()].append(path)
    tables = {name: min(paths, key=rank) for name, paths in by_name.items()}
    chosen = {name: nearest(by_name[name], rank, folder, notes) for name in used if name in by_name}
    return tables | {name: path for name, path in chosen.items() if path}


def _workbook(tables: Mapping[str, Path]) -> Path:
    if path := tables.get("data.xlsx"):
        return path
    others = ", ".join(sorted(tables)) or "no tables"
    raise CorpusError(
        f"Quechua Collao has {others} in Data/ and Labels/; expected Data.xlsx, with the columns Audio, "
        "Emotion, Actor and File. Unpack the whole archive."
    )


def _numbered(path: Path, required: Sequence[str]) -> list[Record]:
    """The rows of a table whose column Audio is the number of the recording, without a suffix or decimals."""
    records = read_records(path, ("Audio", *required))
    numbers = (re.sub(r"(\.wav|\.0+)$", "", record.cells["Audio"].lower()) for record in records)
    return [
        Record(record.place, {**record.cells, "Audio": number})
        for record, number in zip(records, numbers, strict=True)
    ]


def _consensus(tables: Mapping[str, Path], target: str, notes: list[str]) -> dict[str, Record]:
    """The rows of the consensus by the number of the recording."""
    if path := tables.get("labels.csv"):
        return first_of_each(_numbered(path, (target.title(),)), "Audio", (target.title(),), notes)
    if f"{target}.csv" in tables:
        notes.append("There is no Labels.csv: the ratings are the means of the annotators.")
        return {}
    name = target.title()
    raise CorpusError(
        f"Quechua Collao has {', '.join(sorted(tables))} in Data/ and Labels/; expected Labels.csv, with the "
        f"columns Audio and {name}, or {name}.csv, with the columns Audio, N1, N2, N3 and N4. Unpack the "
        "whole archive."
    )


def _annotators(tables: Mapping[str, Path], target: str, notes: list[str]) -> dict[str, Record]:
    """The rows of the annotators by the number of the recording."""
    path = tables.get(f"{target}.csv")
    if not path:
        notes.append(f"There is no {target.title()}.csv: the single annotators' ratings are unknown.")
        return {}
    records = _numbered(path, ())
    if not _raters(records[0]):
        raise CorpusError(
            f"the table {path.name!r} has the columns {', '.join(records[0].cells)}; expected Audio, and a "
            "column for each annotator: N1, N2, N3, N4."
        )
    return first_of_each(records, "Audio", _raters(records[0]).values(), notes)


def _unmatched_notes(
    clips: Mapping[str, Record],
    consensus: Mapping[str, Record],
    annotators: Mapping[str, Record],
    target: str,
) -> list[str]:
    """Notes about rows of ratings that name no clip, and about clips without a row."""
    notes = []
    for name, records in (("Labels.csv", consensus), (f"{target.title()}.csv", annotators)):
        notes += counted(
            sorted(records.keys() - clips.keys()),
            f"row of {name} is left out, because Data.xlsx does not have its recording",
            f"rows of {name} are left out, because Data.xlsx does not have their recordings",
        )
        notes += counted(
            sorted(clips.keys() - records.keys()) if records else [],
            f"recording has no row in {name}",
            f"recordings have no row in {name}",
        )
    return notes


def _raters(record: Record) -> dict[str, str]:
    """The columns of the annotators by name."""
    return {column.upper(): column for column in record.cells if _RATER.fullmatch(column)}


def _row(
    number: str, record: Record, target: str, consensus: Record | None, annotators: Record | None
) -> tuple[LabelRow, bool]:
    """The row of a clip, and whether a rating of it lies outside the scale."""
    by_rater: dict[str, float] = {}
    rating: float | None = None
    problems: list[ClipError] = []
    if annotators:
        by_rater, problems = parse_ratings(annotators, _raters(annotators), _SCALE)
    if consensus:
        stored, faults = parse_ratings(consensus, {"consensus": target.title()}, _SCALE)
        rating, problems = mean_rating(stored.values()), problems + faults
    if rating is None or problems:
        rating = mean_rating(by_rater.values())
    unreadable = [problem for problem in problems if problem.reason != OUTSIDE]
    actor = _ACTOR.fullmatch(record.cells["Actor"])
    item = _ITEM.search(record.cells["File"])
    row = LabelRow(
        place=record.place,
        file=f"Audios/{number}.wav",
        rating=rating,
        by_rater=by_rater,
        labels={
            "speaker": f"a{actor[2]}" if actor else "",
            "sex": "",
            "language": "qu",
            "sentence": f"{item[1]}{item[2].lower().replace('o', '0')}" if item else "",
            "emotion": _EMOTIONS.get(record.cells["Emotion"].lower(), ""),
        },
        problem=unreadable[0] if unreadable else None,
    )
    return row, any(problem.reason == OUTSIDE for problem in problems)


def _actor_notes(clips: Mapping[str, Record], rows: Sequence[LabelRow]) -> list[str]:
    """Notes about actors without their letter, unknown ones, and items that an actor has twice."""
    actors = {number: _ACTOR.fullmatch(record.cells["Actor"]) for number, record in clips.items()}
    notes = counted(
        [number for number, actor in actors.items() if actor and not actor[1]],
        "recording has an actor without the letter a; it is added",
        "recordings have an actor without the letter a; it is added",
    )
    notes += counted(
        [number for number, actor in actors.items() if not actor],
        "recording has an actor other than a1 to a6; its speaker counts as unknown",
        "recordings have an actor other than a1 to a6; their speakers count as unknown",
    )
    counts = Counter(
        (row.labels["speaker"], row.labels["sentence"])
        for row in rows
        if row.labels["speaker"] and row.labels["sentence"]
    )
    doubled: dict[str, list[str]] = defaultdict(list)
    for (actor, item), count in sorted(counts.items()):
        if count > 1:
            doubled[actor].append(item)
    speakers = sorted({actor for actor, _ in counts})
    for actor, items in doubled.items():
        lacking = [name for name in speakers if not any((name, item) in counts for item in items)]
        occur = "item occurs" if len(items) == 1 else "items occur"
        some = f"{len(items)} {occur} twice under the actor {actor}, such as {items[0]!r}"
        never = f", and never under {' or '.join(lacking)}" if lacking else ""
        notes.append(
            f"{some}{never}. One recording of each pair may be another actor's; which one is not stated, so "
            f"they stay with {actor}, and a split by speaker may not keep these actors apart."
        )
    return notes


CORPUS = PublishedCorpus(
    name="Quechua Collao",
    marks=("Audios/[0-9]*.wav", "Data/**/*.xlsx"),
    remains=(("Data/**/Data.xlsx",), "the recordings in Audios/"),
    read=read,
    scales=dict.fromkeys(_DIMENSIONS, _SCALE),
    content="12,420 acted words and sentences in Quechua Collao, 6 actors, 9 emotions, rated by 4 annotators",
    source="https://doi.org/10.6084/m9.figshare.20292516",
    terms="CC BY 4.0, free to download",
    citation=(
        "Paccotacya-Yanque, R. Y. G., Huanca-Anquise, C. A., Escalante-Calcina, J., Ramos-Lovón, W. R., and "
        "Cuno-Parari, Á. E. (2022). A speech corpus of Quechua Collao for automatic dimensional emotion "
        "recognition. Scientific Data, 9, 778."
    ),
)
