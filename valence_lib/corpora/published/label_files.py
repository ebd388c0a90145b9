"""What several published corpora need: their recordings, tables by column, ratings, and notes that count."""

import codecs
import math
import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from valence_lib.corpora.columns import RATED, is_header
from valence_lib.corpora.file_kinds import AUDIO_SUFFIXES, is_clutter, name_text, printable
from valence_lib.corpora.labels import MISSING, SEXES
from valence_lib.corpora.tables import read_table
from valence_lib.errors import ClipError, CorpusError

OUTSIDE = "label outside its scale"  # why a clip cannot be used
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")


@dataclass(frozen=True, slots=True)
class Record:
    """One row of a table.

    Args:
        place: of the row, such as "line 7 of 'annotations.csv'".
        cells: its texts by column.
    """

    place: str
    cells: Mapping[str, str]


# Recordings


def recordings(folder: Path) -> list[str]:
    """The audio files below a folder, but for hidden files and what an operating system leaves there.

    Links to other folders are followed; a folder that several of them lead to is searched once.

    Returns:
        Their paths within the folder, "/" separated and sorted.
    """
    found: list[str] = []
    top = os.path.realpath(folder)
    seen: set[str] = set()
    for root, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [
            name for name in sorted(folders) if _is_visible(name) and _is_new(Path(root, name), top, seen)
        ]
        place = Path(root).relative_to(folder)
        found += [
            (place / name).as_posix()
            for name in files
            if _is_visible(name) and PurePath(name).suffix.lower() in AUDIO_SUFFIXES
        ]
    return sorted(found)


def _is_visible(name: str) -> bool:
    return not (name.startswith(".") or is_clutter(name))


def _is_new(folder: Path, top: str, seen: set[str]) -> bool:
    """Whether a folder is no link to what is searched anyway, or back to a folder that holds the whole."""
    at = os.path.realpath(folder)
    if folder.is_symlink() and os.path.commonpath([at, top]) in (at, top):
        return False
    is_new = at not in seen
    seen.add(at)
    return is_new


def clip_name(file: str) -> str:
    """The name of a clip by that of its file: without folders, suffix, and case.

    >>> clip_name("Audios/MSP-PODCAST_0001_0139.WAV") == clip_name("MSP-PODCAST_0001_0139")
    True
    """
    name = file.replace("\\", "/").rpartition("/")[2]
    stem, dot, suffix = name.rpartition(".")
    is_audio = stem and dot + suffix.lower() in AUDIO_SUFFIXES
    return unicodedata.normalize("NFC", stem if is_audio else name).casefold()


def by_clip(files: Iterable[str], is_published: Callable[[str], object], notes: list[str]) -> dict[str, str]:
    """The recording of each clip, by `clip_name`.

    Of several, such as processed copies, the one at its published place is taken, else the one in the fewest
    folders. Notes are added about the others, and about recordings at other places.

    Args:
        files: paths within the corpus, "/" separated.
        is_published: whether the corpus has such a path in its published form.
        notes: to which sentences are added.

    Raises:
        CorpusError: two recordings of one clip are equally near to the published place.
    """
    places: dict[str, list[tuple[bool, bool, int, str]]] = defaultdict(list)
    for file in files:
        is_wav = file.lower().endswith(".wav")
        places[clip_name(file)].append((not is_published(file), not is_wav, file.count("/"), file))
    found, others, astray = {}, [], []
    for clip, ranked in places.items():
        best, *rest = sorted(ranked)
        if rest and rest[0][:-1] == best[:-1]:
            raise CorpusError(
                f"the recordings {name_text(best[-1])!r} and {name_text(rest[0][-1])!r} are of one clip; "
                "expected one recording of each clip. Move the others, such as processed copies, out of the "
                "folder of the corpus."
            )
        found[clip] = best[-1]
        others += [place[-1] for place in rest]
        astray += [best[-1]] * best[0]
    notes += counted(
        sorted(others),
        "recording is left out, because another one has its name",
        "recordings are left out, because others have their names",
    )
    notes += counted(
        sorted(astray),
        "recording is in another folder than in the published corpus",
        "recordings are in other folders than in the published corpus",
    )
    return found


def without_labels(files: Iterable[str], labelled: Collection[str]) -> list[str]:
    """A note about the recordings whose names, as of `clip_name`, are not among those of labelled clips."""
    unlabelled = sorted(file for file in files if clip_name(file) not in labelled)
    return counted(unlabelled, "recording has no labels", "recordings have no labels")


# Label files


def nearest(
    paths: Iterable[Path], rank: Callable[[Path], object], folder: Path, notes: list[str]
) -> Path | None:
    """Of several files that may be one label file, such as backups, the one with the lowest rank.

    Args:
        paths: of the files.
        rank: something that can be compared, lowest for the published place.
        folder: of the corpus, for messages.
        notes: to which a sentence about the others is added.

    Returns:
        Its path; None where there are none.

    Raises:
        CorpusError: several have the lowest rank, and their contents differ.
    """
    ranked = sorted(paths, key=lambda path: (rank(path), str(path)))
    if not ranked:
        return None
    best, *others = ranked
    for path in others:
        one, other = (name_text(file.relative_to(folder).as_posix()) for file in (best, path))
        if rank(path) == rank(best) and path.read_bytes() != best.read_bytes():
            raise CorpusError(
                f"the label files {one!r} and {other!r} differ; expected one of them. Move the other out of "
                "the folder of the corpus."
            )
    if others:
        notes.append(
            f"The labels are those in {name_text(best.relative_to(folder).as_posix())!r}; "
            f"{name_text(others[0].relative_to(folder).as_posix())!r} is not read."
        )
    return best


def encoding_of(path: Path) -> str:
    """The encoding of a text file by its first bytes: UTF-16 where it has its mark, else UTF-8.

    Raises:
        CorpusError: it is UTF-16 without its mark, or no text.
    """
    with path.open("rb") as file:
        begin = file.read(4096)
    if begin.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if b"\0" in begin:
        raise CorpusError(
            f"the label file {path.name!r} has zero bytes, as UTF-16 without its mark has; expected UTF-8. "
            "Save it as UTF-8, or fetch it again."
        )
    return "utf-8-sig"


def read_text(path: Path) -> str:
    """The text of a label file in UTF-8 or UTF-16; bytes of another encoding are replaced.

    Raises:
        CorpusError: as `encoding_of`.
    """
    return path.read_text(encoding=encoding_of(path), errors="replace")


def read_records(path: Path, required: Sequence[str]) -> list[Record]:
    """Read a table by its columns, in any format of `tables.read_table`.

    Args:
        path: of the table.
        required: columns that it must have, in any case; the records name them as they are given here.

    Raises:
        CorpusError: the table cannot be read, lacks a column, or has one twice.
    """
    named = {name.lower(): name for name in required}
    table = read_table(path, lambda columns: set(named) <= {name.lower() for name in columns})
    columns = [named.get(name.lower(), name) for name in table.columns]
    if absent := [name for name in required if name not in columns]:
        raise CorpusError(
            f"the table {path.name!r} has the columns {', '.join(filter(None, table.columns))}; expected "
            f"{', '.join(required)}, of which {', '.join(absent)} {'is' if len(absent) == 1 else 'are'} "
            "absent. Restore the table as it is published, or write the names into its first line."
        )
    check_columns(table.columns, path)
    return [
        Record(f"{place} of {path.name!r}", dict(zip(columns, row, strict=True)))
        for place, row in zip(table.places, table.rows, strict=True)
    ]


def check_columns(columns: Sequence[str], path: Path) -> None:
    """Refuse a column that a table has twice, in any case: which of them counts is not known.

    Raises:
        CorpusError: there is one.
    """
    counts = Counter(name.casefold() for name in columns if name)
    if doubled := next((name for name in columns if counts[name.casefold()] > 1), ""):
        raise CorpusError(
            f"the table {path.name!r} has the column {doubled!r} twice; expected each column once. Remove "
            "one of them, or rename it."
        )


def first_of_each(
    records: Sequence[Record],
    column: str,
    columns: Iterable[str],
    notes: list[str],
    name_of: Callable[[str], str] = clip_name,
) -> dict[str, Record]:
    """The records by what a column names; a note is added where a row repeats another.

    Args:
        records: the rows of a table.
        column: that names what a row describes, such as a clip.
        columns: those that are used, in which all rows about one thing have to agree.
        notes: to which a sentence is added.
        name_of: from a text of `column` to the name by which it is known.

    Raises:
        CorpusError: two rows contradict each other.
    """
    found: dict[str, Record] = {}
    repeated = []
    compared = [name for name in columns if name != column]
    for record in records:
        name = record.cells[column]
        first = found.setdefault(name_of(name), record)
        if first is record:
            continue
        repeated.append(name)
        for other in compared:
            texts = first.cells[other], record.cells[other]
            if _value(texts[0]) != _value(texts[1]):
                raise CorpusError(
                    f"{first.place} and {record.place} contradict each other about {printable(name)!r}: "
                    f"{other} is {texts[0]!r} and {texts[1]!r}. Remove the wrong row."
                )
    notes += counted(
        repeated, "row repeats an earlier one and is left out", "rows repeat earlier ones and are left out"
    )
    return found


def _value(text: str) -> float | str:
    """What a text states: 3 and 3.0 are one number."""
    if text.lower() in MISSING:
        return ""
    try:
        return float(text)
    except ValueError:
        return text.casefold()


def unread_ratings(folder: Path, read: Collection[Path]) -> list[str]:
    """A note for each table in the folder of a corpus that has ratings of clips and is not read.

    Args:
        folder: of the corpus.
        read: tables that are read.
    """
    notes = []
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in (".csv", ".tsv") or path in read or is_clutter(path.name):
            continue
        with path.open("rb") as file:
            begin = file.readline(4096).replace(b"\0", b"").decode("utf-8-sig", "replace")
        columns = [name.strip().strip('"') for name in re.split("[,;\t|]", begin)]
        if is_header(columns) and {*RATED} & {name.lower() for name in columns}:
            shown = name_text(path.name)
            notes.append(
                f"The table {shown!r} has ratings and is not read; CORPUS={name_text(folder.name)}/{shown} "
                "reads it in place of the published labels, and so does the name labels.csv."
            )
    return notes


# Cells


def parse_rating(text: str, scale: tuple[float, float], where: str) -> float | None:
    """A rating as a number; None where it is missing.

    Args:
        text: of the cell.
        scale: the lowest and the highest rating that can be given.
        where: the cell, as a message names it.

    Raises:
        ClipError: it is no number, or lies outside the scale.
    """
    if text.lower() in MISSING:
        return None
    message = f"{where} is {text!r}; expected a number from {scale[0]:g} to {scale[1]:g}."
    if _DECIMAL_COMMA.fullmatch(text):
        message += " Its decimal mark is a comma; write a point."
    try:
        value = float(text)
    except ValueError as error:
        raise ClipError("label not a number", message) from error
    if not scale[0] <= value <= scale[1]:
        raise ClipError(OUTSIDE, message)
    return value


def parse_ratings(
    record: Record, columns: Mapping[str, str], scale: tuple[float, float]
) -> tuple[dict[str, float], list[ClipError]]:
    """Several ratings of one clip.

    Args:
        record: with the ratings.
        columns: of each rating, by its name.
        scale: the lowest and the highest rating that can be given.

    Returns:
        The ratings by name, NaN where one is missing or cannot be used, and why it cannot.
    """
    found, problems = dict.fromkeys(columns, math.nan), []
    for name, column in columns.items():
        try:
            rating = parse_rating(record.cells[column], scale, f"{column} in {record.place}")
        except ClipError as error:
            problems.append(error)
        else:
            found[name] = math.nan if rating is None else rating
    return found, problems


def mean_rating(ratings: Iterable[float]) -> float | None:
    """The mean of the ratings that are given; None where all are NaN."""
    given = [rating for rating in ratings if not math.isnan(rating)]
    return sum(given) / len(given) if given else None


def parse_sex(text: str) -> str:
    """A sex as "F" or "M"; "" where it is neither."""
    return SEXES.get(text.strip().lower(), "")


def counted(names: Sequence[str], one: str, many: str) -> list[str]:
    """A note that counts clips and names the first, or none where there are none.

    >>> counted(["b.wav", "c.wav"], "recording has no labels", "recordings have no labels")
    ["2 recordings have no labels, such as 'b.wav'."]
    """
    if not names:
        return []
    shown = name_text(names[0])
    return [f"1 {one}: {shown!r}." if len(names) == 1 else f"{len(names):,} {many}, such as {shown!r}."]
