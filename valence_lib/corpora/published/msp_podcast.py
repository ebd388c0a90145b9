"""MSP-Podcast: turns of podcasts, each with its speaker where known, rated by at least five workers.

    Audios/MSP-PODCAST_0001_0139.wav          or Audio/
    Labels/labels_consensus.csv, .json        labels_concensus up to release 1.9; the folder may be label/
    Labels/labels_detailed.csv, .json         the ratings of single workers
    Labels/labels.txt                         both, see `msp_lines`; enough with the two files below
    Speaker_ids.txt, Partition.txt            speakers and subsets; Partitions.txt in some copies

Speakers of Test1 may also be in Test2 and Test3, so that these must not be trained on.
"""

import csv
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from valence_lib.corpora.labels import SUBSET_OF, LabelRow, Labels, speaker_name
from valence_lib.corpora.published.entry import PublishedCorpus
from valence_lib.corpora.published.label_files import (
    Record,
    by_clip,
    check_columns,
    clip_name,
    counted,
    encoding_of,
    first_of_each,
    nearest,
    parse_rating,
    parse_sex,
    read_records,
    read_text,
    recordings,
    without_labels,
)
from valence_lib.corpora.published.msp_lines import EMOTIONS, LETTERS, parse_evaluation, read_evaluations
from valence_lib.corpora.published.single_ratings import SingleRatings
from valence_lib.errors import ClipError, CorpusError

_SCALE = (1.0, 7.0)
_COLUMNS = {"valence": "EmoVal", "arousal": "EmoAct", "dominance": "EmoDom"}
_REQUIRED = ("filename", "emoclass", "emoact", "emoval", "emodom", "spkrid", "gender", "split_set")
_CONSENSUS = (
    *("labels_consensus.csv", "labels_concensus.csv", "labels_consensus.json", "labels_concensus.json"),
    "labels.txt",
)
_DETAILED = ("labels_detailed.csv", "labels_detailed.json", "labels.txt")
_WORKERS = ("workerid", "workers", "worker")  # the column of the rater's name differs between releases
_SUBSETS = {**SUBSET_OF, "test1": "test"}
_LEFT_OUT = {"test2", "test3"}
_PLACE = re.compile(r"Audios?/.*\.wav", re.IGNORECASE)
_LABEL_FOLDERS = {"label", "labels"}
_PARTITIONS = ("Partition.txt", "Partitions.txt")
_PARTITION = re.compile(r"\s*(?P<value>\w+)\s*;\s*(?P<name>\S+\.wav)\W*", re.IGNORECASE)
_SEX_OF = re.compile(r"\s*Speaker_\s*(?P<name>\w+)\s*;\s*(?P<value>\w+)\W*")
_SPEAKER_OF = re.compile(r"\s*(?P<name>\S+\.wav)\s*;\s*(?:Speaker_)?\s*(?P<value>\w+)\W*", re.IGNORECASE)
_HEADER = re.compile(r"\s*\"?filename\"?\s*([,;\t|])", re.IGNORECASE)


def read(folder: Path, target: str) -> Labels:
    """Read MSP-Podcast; the rating of a clip is the mean that the corpus states.

    Args:
        folder: with the folders of audio and of labels.
        target: "valence", "arousal", "dominance", or "" for the clips alone.

    Raises:
        CorpusError: there are no labels, they cannot be read, or they contradict each other.
    """
    notes: list[str] = []
    consensus = _consensus_file(folder, notes)
    if consensus is None:
        raise CorpusError(
            f"MSP-Podcast at '{folder.name}' has no labels; expected Labels/labels_consensus.csv, the same "
            "as .json, or Labels/labels.txt. Copy them from the archive of the corpus."
        )
    beside = (consensus.with_name(name) for name in _DETAILED)
    detailed = next((path for path in beside if path.is_file()), None)
    records, further = _records(consensus, folder, notes)
    clips = first_of_each(records, "filename", _REQUIRED, notes)
    left_out = {
        name: record.cells["filename"]
        for name, record in clips.items()
        if record.cells["split_set"].lower() in _LEFT_OUT
    }
    singles = SingleRatings(_SCALE)
    for clip, *rating in _single_ratings(detailed, target) if target and detailed else ():
        if clip_name(clip) not in left_out:
            singles.add(clip, *rating)
    audio = sorted(path for path in folder.glob("Audio*") if path.is_dir())
    files = [f"{place.name}/{file}" for place in audio for file in recordings(place)]
    on_disk = by_clip(files, _PLACE.fullmatch, notes)
    absent = audio[0].name if audio else "Audios"  # where a recording is expected that is absent
    rows = [
        _row(record, on_disk.get(name, f"{absent}/{record.cells['filename']}"), target, singles)
        for name, record in clips.items()
        if name not in left_out
    ]
    rows.sort(key=lambda row: row.file)
    notes += counted(
        list(left_out.values()),
        "clip of Test2 or Test3 is left out, because speakers of Test1 may be in them",
        "clips of Test2 and Test3 are left out, because speakers of Test1 may be in them",
    )
    notes += counted(
        [row.file for row in rows if not row.labels["speaker"]],
        "clip is of an unknown speaker, who may also be in another subset",
        "clips are of unknown speakers, who may also be in another subset",
    )
    if target and not detailed:
        notes.append("There are no ratings of single raters: Labels/labels_detailed.csv is absent.")
    notes += singles.notes()
    notes += without_labels(on_disk.values(), clips.keys())
    tables = dict.fromkeys(path for path in (consensus, detailed, *further) if path)
    form = f"MSP-Podcast, with {consensus.relative_to(folder).as_posix()}"
    return Labels(rows, form, notes, list(tables))


def _consensus_file(folder: Path, notes: list[str]) -> Path | None:
    """The file of the labels, rather in Labels/ itself than in a folder of backups."""
    found = [path for path in folder.glob("[Ll]abel*/**/*") if path.name in _CONSENSUS]

    def rank(path: Path) -> tuple[bool, int, int]:
        parts = path.relative_to(folder).parts
        return parts[0].lower() not in _LABEL_FOLDERS, len(parts), _CONSENSUS.index(path.name)

    name = min(found, key=rank).name if found else ""
    return nearest([path for path in found if path.name == name], rank, folder, notes)


def _row(record: Record, file: str, target: str, singles: SingleRatings) -> LabelRow:
    cells, rating, problem = record.cells, None, None
    subset = _SUBSETS.get(cells["split_set"].lower(), "")
    try:
        if not subset:
            where = cells.get("split_place", f"Split_Set in {record.place}")
            raise ClipError(
                "subset unknown",
                f"{where} is {cells['split_set']!r}; expected Train, Validation, Development, Test1, "
                "Test2 or Test3.",
            )
        if target:
            column = _COLUMNS[target]
            rating = parse_rating(cells[column.lower()], _SCALE, f"{column} in {record.place}")
    except ClipError as error:
        problem = error
    return LabelRow(
        place=record.place,
        file=file,
        rating=rating,
        by_rater=singles.of(cells["filename"]),
        subset=subset,
        labels={
            "speaker": speaker_name(cells["spkrid"]),
            "sex": parse_sex(cells["gender"]),
            "language": "en",
            "sentence": "",
            "emotion": EMOTIONS.get(cells["emoclass"], ""),
        },
        problem=problem,
    )


# The labels of the clips


def _records(path: Path, folder: Path, notes: list[str]) -> tuple[list[Record], list[Path]]:
    """One record a clip with the columns _REQUIRED, and further files that were read."""
    if path.suffix == ".csv":
        return read_records(path, _REQUIRED), []
    if path.suffix == ".json":
        return _records_from_json(path), []
    return _records_from_text(path, folder, notes)


def _load_json(path: Path, content: str) -> Mapping[str, Mapping[str, Any]]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            counts = Counter(key for key, _ in pairs)
            raise CorpusError(
                f"{path.name!r} has the key {counts.most_common(1)[0][0]!r} twice in one object; expected "
                "each key once. Remove the wrong one, or restore the file as it is published."
            )
        return found

    try:
        loaded = json.loads(read_text(path), object_pairs_hook=unique)
    except ValueError as error:
        raise CorpusError(
            f"{path.name!r} cannot be read as JSON: {error}. Restore it as it is published."
        ) from error
    if not isinstance(loaded, dict) or not all(isinstance(entry, dict) for entry in loaded.values()):
        raise CorpusError(
            f"{path.name!r} is JSON of another form; expected an object that maps each file to {content}. "
            "Restore it as it is published."
        )
    return loaded


def _records_from_json(path: Path) -> list[Record]:
    records = []
    for name, entry in _load_json(path, "its labels, such as EmoVal").items():
        cells = {key.lower(): "" if value is None else str(value).strip() for key, value in entry.items()}
        cells["filename"] = name
        if absent := [column for column in _REQUIRED if column not in cells]:
            raise CorpusError(
                f"{path.name!r} lacks {', '.join(absent)} for {name!r}; expected {', '.join(_REQUIRED[1:])}. "
                "Restore it as it is published."
            )
        records.append(Record(f"{name!r} of {path.name!r}", cells))
    return records


def _records_from_text(path: Path, folder: Path, notes: list[str]) -> tuple[list[Record], list[Path]]:
    """The labels of labels.txt, with speakers and subsets from their own files; and these files."""
    speakers_file, partition_file = (
        nearest(filter(Path.is_file, map(folder.joinpath, names)), lambda _: 0, folder, notes)
        for names in (("Speaker_ids.txt",), _PARTITIONS)
    )
    sexes, speakers = _stated(speakers_file, _SEX_OF), _stated(speakers_file, _SPEAKER_OF)
    subsets = _stated(partition_file, _PARTITION)
    if not speakers:
        notes.append("The speakers are unknown: Speaker_ids.txt is absent or does not name them.")
    if not subsets:
        raise CorpusError(
            f"MSP-Podcast at '{folder.name}' has no subsets: Partition.txt is absent or does not name them "
            "as in 'Train; MSP-PODCAST_0001_0139.wav'. Copy it from the archive of the corpus."
        )
    records = []
    for clip in read_evaluations(path):
        if clip.rater:
            continue
        name = clip_name(clip.clip)
        speaker, _ = speakers.get(name, ("", ""))
        sex, _ = sexes.get(clip_name(speaker), ("", ""))
        subset, place = subsets.get(name, ("", ""))
        cells = {column.lower(): clip.ratings[LETTERS[target]] for target, column in _COLUMNS.items()}
        cells |= {"filename": clip.clip, "emoclass": clip.emotion, "spkrid": speaker}
        cells |= {"gender": sex, "split_set": subset}
        cells["split_place"] = f"the subset in {place or f'{_PARTITIONS[0]!r}, which lacks the clip,'}"
        records.append(Record(clip.place, cells))
    return records, [file for file in (speakers_file, partition_file) if file]


def _stated(path: Path | None, form: re.Pattern[str]) -> dict[str, tuple[str, str]]:
    """What the lines of a form state about clips or speakers: by `clip_name`, the value and its place.

    Raises:
        CorpusError: two lines contradict each other.
    """
    found: dict[str, tuple[str, str]] = {}
    for number, line in enumerate(read_text(path).splitlines() if path else (), 1):
        if (match := form.fullmatch(line)) and path:
            stated = match["value"], f"line {number} of {path.name!r}"
            value, place = found.setdefault(clip_name(match["name"]), stated)
            if value.casefold() != stated[0].casefold():
                raise CorpusError(
                    f"{place} and {stated[1]} contradict each other about {match['name']!r}: {value!r} and "
                    f"{stated[0]!r}. Remove the wrong line."
                )
    return found


# The ratings of single workers


def _single_ratings(path: Path, target: str) -> Iterator[tuple[str, str, str, str]]:
    """Clip, worker, text of the rating and its place, as `SingleRatings.add` takes them."""
    if path.suffix == ".json":
        for clip, workers in _load_json(path, "the ratings of each worker").items():
            for worker, entry in workers.items():
                value = entry.get(_COLUMNS[target]) if isinstance(entry, dict) else entry
                yield (
                    clip,
                    worker,
                    "" if value is None else str(value),
                    f"{worker} of {clip!r} in {path.name!r}",
                )
    elif path.suffix == ".txt":
        for evaluation in read_evaluations(path):
            if evaluation.rater:
                yield evaluation.clip, evaluation.rater, *evaluation.rating(target)
    else:
        yield from _single_ratings_from_csv(path, target)


def _single_ratings_from_csv(path: Path, target: str) -> Iterator[tuple[str, str, str, str]]:
    """From a column for each value, or from one column of texts as in labels.txt."""
    with path.open(encoding=encoding_of(path), errors="replace", newline="") as file:
        separator = _HEADER.match(file.readline())
        file.seek(0)
        reader = csv.reader(file, delimiter=separator[1] if separator else ",")
        header = [name.strip().lower() for name in next(reader, [])]
        check_columns(header, path)
        worker = next((header.index(name) for name in _WORKERS if name in header), None)
        if (
            not header
            or header[0] != "filename"
            or (len(header) != 2 if worker is None else _COLUMNS[target].lower() not in header)
        ):
            raise CorpusError(
                f"the table {path.name!r} has the columns {', '.join(header)}; expected FileName and "
                "EmoDetail, or FileName, WorkerID, EmoVal, EmoAct and EmoDom. Restore it as it is published."
            )
        column = None if worker is None else header.index(_COLUMNS[target].lower())
        for cells in filter(None, reader):
            place = f"line {reader.line_num} of {path.name!r}"
            cells += [""] * (len(header) - len(cells))
            if worker is None or column is None:
                evaluation = parse_evaluation(cells[1], place, cells[0])
                yield evaluation.clip, evaluation.rater, *evaluation.rating(target)
            else:
                yield cells[0], cells[worker], cells[column], f"{_COLUMNS[target]} in {place}"


CORPUS = PublishedCorpus(
    name="MSP-Podcast",
    marks=("Audio*/**/MSP-PODCAST_*.wav",),
    remains=(("[Ll]abel*/**/labels_con[sc]ensus.*",), "the recordings in Audios/"),
    read=read,
    scales=dict.fromkeys(LETTERS, _SCALE),
    content="turns of English podcasts (release 1.12: 207,136 turns, 324 hours), each with 5 ratings or more",
    source="https://lab-msp.com/MSP/MSP-Podcast.html",
    terms=(
        "academic licence of the University of Texas at Dallas, free of charge, signed by the institution; "
        "commercial licences are sold"
    ),
    citation=(
        "Lotfian, R., and Busso, C. (2019). Building Naturalistic Emotionally Balanced Speech Corpus by "
        "Retrieving Emotional Speech from Existing Podcast Recordings. IEEE Transactions on Affective "
        "Computing, 10(4), 471-483."
    ),
)
