"""What the columns of a table of labels mean: by the usual names, or as the user gives them.

A column with nearly a usual name is never ignored without a note. Two columns of one meaning are refused.
"""

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from valence_lib.errors import CorpusError, SettingsError, unknown_name

# Rated dimensions that have usual names. Any other numeric column can be the target too.
RATED: dict[str, tuple[str, ...]] = {
    "valence": ("valence",),
    "arousal": ("arousal", "activation"),
    "dominance": ("dominance",),
}
# Meanings, each with its usual names in lower case without spaces, underscores and hyphens; first its own.
USUAL_NAMES: dict[str, tuple[str, ...]] = {
    "file": ("file", "filename", "filepath", "path", "audio", "audiofile", "audiopath", "wav", "wavfile"),
    "speaker": ("speaker", "speakerid", "spkrid", "spkid", "spk"),
    "subset": ("subset", "part", "split", "partition"),
    "start": ("start", "starttime", "startseconds", "begin", "begintime", "onset", "tmin", "xmin"),
    "end": ("end", "endtime", "endseconds", "stop", "stoptime", "tmax", "xmax"),
    "rater": ("rater", "raterid", "annotator", "annotatorid", "worker", "workerid"),
    "sex": ("sex", "gender"),
    "language": ("language", "lang"),
    "emotion": ("emotion",),
    "sentence": ("sentence", "sentenceid"),
}
RATER_COLUMN = re.compile(r"rating_a\d+")  # one rater's ratings of the target, in every data frame
_NEAR_WORDS = {
    "valence": ("val", "emoval", "pleasantness"),
    "arousal": ("act", "aro", "emoact", "excitement"),
    "dominance": ("dom", "emodom", "control"),
    "speaker": ("spkr", "talker", "actor", "subject", "participant", "client", "voice"),
    "start": ("offset",),
    "end": ("duration",),
}
_NOT_SECONDS = {"ms", "msec", "millis", "milliseconds", "frames", "samples"}
_CLOSE = 0.8  # similarity of names from which one is taken for a misspelling of the other


@dataclass(frozen=True)
class Columns:
    """Where a table has what.

    Args:
        of: the position of each meaning that the table has; that of the target's ratings is "rating".
        raters: the positions of the raters' columns, such as valence_a1, by "rating_a1", ...
        labels: the positions of all other columns that have a name, by name.
        notes: sentences about columns that are not used, or could be meant otherwise.
    """

    of: dict[str, int]
    raters: dict[str, int]
    labels: dict[str, int]
    notes: list[str]


def parse_columns(text: str, target: str = "valence") -> dict[str, str]:
    """Names of columns by meaning, from `COLUMNS=`, as in "valence=EmoVal,speaker=who".

    An empty name, as in "subset=", ignores a meaning. A pair whose name holds a comma is enclosed in
    quotation marks, as in CSV. Rated dimensions other than the target may be given, and are ignored.

    Raises:
        SettingsError: it is no such mapping, or holds an unknown meaning.

    >>> parse_columns("valence=EmoVal,speaker=who")
    {'valence': 'EmoVal', 'speaker': 'who'}
    """
    found: dict[str, str] = {}
    for pair in next(csv.reader([text]), []):
        meaning, equals, name = (part.strip() for part in pair.partition("="))
        if not equals or meaning in found:
            raise SettingsError(
                f"COLUMNS={text!r} was given; expected pairs as in COLUMNS=valence=EmoVal,speaker=who, each "
                "meaning once."
            )
        meanings = [*USUAL_NAMES, *RATED, *([] if target in RATED else [target])]
        if meaning not in meanings:
            raise SettingsError(unknown_name("meaning of a column", meaning, meanings))
        found[meaning] = name
    return {meaning: name for meaning, name in found.items() if meaning == target or meaning not in RATED}


def is_header(columns: Sequence[str]) -> bool:
    """Whether some columns are those of a table of labels: they name files."""
    return any(_plain(name) in USUAL_NAMES["file"] for name in columns)


def assign_columns(
    columns: Sequence[str],
    given: Mapping[str, str],
    table: str,
    target: str = "valence",
    nested: Sequence[str] = (),
) -> Columns:
    """Find what each column means.

    Args:
        columns: the header.
        given: names of columns by meaning, as `parse_columns` returns them; they go before usual names.
        table: name of the table, for messages.
        target: the dimension whose ratings are wanted.
        nested: columns of lists or structs, which are not among the others.

    Raises:
        CorpusError: a column occurs twice, a given one is absent, two have one meaning, or there is none for
            the files or for the target.
    """
    meanings = USUAL_NAMES | {target: RATED.get(target, (_plain(target),))}
    positions = _positions(columns, table)
    of = {meaning: _given(name, meaning, positions, table) for meaning, name in given.items() if name}
    if len(set(of.values())) < len(of):
        raise CorpusError("COLUMNS gives one column two meanings; give each column one.")
    free = [n for n, name in enumerate(columns) if name and n not in of.values()]
    of_rater = re.compile(re.escape(target) + r"_(a\d+)", re.IGNORECASE)
    matched = {n: of_rater.fullmatch(columns[n]) for n in free}
    raters = {f"rating_{match[1].lower()}": n for n, match in matched.items() if match}
    notes = []
    for meaning, usual in meanings.items():
        found = [n for n in free if _plain(columns[n]) in usual]
        if meaning in given or not found:
            continue
        own = [n for n in found if columns[n].casefold() == meaning.casefold()]
        if len(found) > 1 and not own:
            names = " and ".join(repr(columns[n]) for n in found)
            raise CorpusError(
                f"the table {table!r} has the columns {names}, each of which may be the {meaning}; give the "
                f"right one, as in COLUMNS={meaning}={columns[found[0]]}."
            )
        of[meaning] = (own or found)[0]
        if others := ", ".join(repr(columns[n]) for n in found if n != of[meaning]):
            notes.append(f"The column {columns[of[meaning]]!r} is used as {meaning}, and not {others}.")
    used = {*of.values(), *raters.values()}
    labels = {columns[n]: n for n in free if n not in used}
    near = {name: meant for name in labels if (meant := _near(name, meanings)) not in {"", *of, *given}}
    if "file" not in of or not (target in of or raters):
        raise _lacking(columns, near, table, target, nested)
    near = {name: meaning for name, meaning in near.items() if meaning != target}
    notes += [
        f"The column {name!r} is not used: did you mean {meaning}? {_remedy(name, meaning)} uses it."
        for name, meaning in near.items()
    ]
    of = {"rating" if meaning == target else meaning: position for meaning, position in of.items()}
    return Columns(of, raters, labels, notes)


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.casefold())


def _positions(columns: Sequence[str], table: str) -> dict[str, int]:
    """The position of each column by its name in lower case."""
    positions: dict[str, int] = {}
    for position, name in enumerate(columns):
        if name and name.casefold() in positions:
            raise CorpusError(
                f"the table {table!r} has the column {name!r} twice; remove one of them, or rename it."
            )
        positions[name.casefold()] = position
    return positions


def _given(name: str, meaning: str, positions: Mapping[str, int], table: str) -> int:
    if name.casefold() not in positions:
        known = unknown_name(f"column in the table {table!r} named", name, filter(None, positions))
        raise CorpusError(f"COLUMNS={meaning}={name} was given. {known}")
    return positions[name.casefold()]


def _near(name: str, meanings: Mapping[str, Sequence[str]]) -> str:
    """The meaning that a column's name nearly has, or ""."""
    if any(_plain(name) in usual for usual in RATED.values()):  # another dimension is no misspelling
        return ""
    words = set(re.findall(r"[^\W\d_]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).casefold()))
    for meaning, usual in meanings.items():
        if words & {*usual, *_NEAR_WORDS.get(meaning, ())}:
            return meaning
        if get_close_matches(_plain(name), usual, 1, _CLOSE):
            return meaning
    return ""


def _remedy(name: str, meaning: str) -> str:
    """How to use a column for a meaning."""
    if meaning == "end" and "duration" in name.casefold():
        return "A column end, in seconds from the beginning of the recording,"
    if meaning in ("start", "end") and set(re.findall("[a-z]+", name.casefold())) & _NOT_SECONDS:
        return f"A column {meaning} in seconds"
    pair = _pair(name, meaning)
    return f"COLUMNS='{pair}'" if "," in name else f"COLUMNS={pair}"


def _pair(name: str, meaning: str) -> str:
    """A column and its meaning as `parse_columns` reads them."""
    return f'"{meaning}={name}"' if "," in name else f"{meaning}={name}"


def _lacking(
    columns: Sequence[str], near: Mapping[str, str], table: str, target: str, nested: Sequence[str]
) -> CorpusError:
    plain = {_plain(column) for column in columns}
    is_rated = plain & {*RATED.get(target, (_plain(target),))}
    absent = "file=clip_name" if is_rated else f"file=clip_name,{target}=NAME"
    advice = f"Name the columns so, or give them as in COLUMNS={absent}."
    others = [name for name, usual in RATED.items() if plain & {*usual} and not is_rated]
    if found := [name for name in nested if _plain(name) in (_plain(target), *USUAL_NAMES["file"])]:
        advice = f"The column {found[0]!r} holds lists or records; write one value into each cell."
    elif others and target not in near.values():
        advice = f"It has ratings of {' and '.join(others)}: TARGET={others[0]} predicts them. {advice}"
    elif near:
        first = {meaning: name for name, meaning in reversed(list(near.items()))}
        pairs = ",".join(_pair(name, meaning) for meaning, name in first.items())
        advice = f"Did you mean COLUMNS={pairs}?"
        if list(near.values()).count(target) > 1:
            advice = f"Rename the columns of several raters as {target}_a1, {target}_a2, ..."
    return CorpusError(
        f"the table {table!r} has the columns {', '.join(filter(None, columns)) or '(none)'}; expected file "
        f"and {target} (or raters as {target}_a1, {target}_a2, ...). {advice}"
    )
