"""Clips from course pickles, which are read without running anything that is in them (`unpickling`)."""

import math
import re
from dataclasses import dataclass
from itertools import chain
from operator import eq
from pathlib import Path
from typing import Any

import numpy as np

from valence_lib.corpora.file_kinds import describe, name_text
from valence_lib.corpora.labels import MISSING
from valence_lib.corpora.unpickling import Built, Unpickler, opened, text_of
from valence_lib.errors import ClipError, PickleRefused

_NO_VALENCE, _NO_ENTRY, _NO_KEY = object(), object(), object()
_NUMBER = re.compile(r"[+-]?(\d{1,99}(\.\d{0,99})?|\.\d{1,99})([eE][+-]?\d{1,3})?", re.ASCII)

# Keys as `_plain` writes them. The rate of the original counts where there is no other rate: audio that was
# resampled may have both.
_ORIGINAL_RATE_KEYS = {"origsr", "originalsamplerate"}
_RATE_KEYS = _ORIGINAL_RATE_KEYS | {
    *("samplingrate", "samplerate", "framerate", "rate", "sr", "fs"),
    *("samplingfrequency", "samplefreq"),
}
_CONSTANT = int | float | str | None
_LONGEST_KEY = 40  # a text of a million characters may be the key of many dicts
_LOWEST_RATE, _HIGHEST_RATE = 1000, 1_000_000  # Hz; 16 may be meant as kHz
_MOST_CHANNELS = 8
_NO_AUDIO = np.empty(0)
_NO_AUDIO.flags.writeable = False

# A few bytes of nonsense, reported as a clip with its problem, take some 400 bytes of memory.
_MAX_UNUSABLE = 10_000


@dataclass(frozen=True, eq=False, slots=True)
class PickledClip:
    """One clip as it is stored in its pickle.

    Args:
        audio: [shape=(n_samples,) or (n_samples, channels)] of the stored dtype, in native byte order, and
            read-only; a Python list becomes float64, or int64 where all of it are ints. Empty where there is
            an `audio_problem`.
        valence: None where the clip is unrated, or where there is a `valence_problem`.
        audio_problem: why there is no audio.
        valence_problem: what is stored instead of a number.
        sample_rate: Hz; None where the pickle has none.
    """

    audio: np.ndarray
    valence: float | None
    audio_problem: str | None = None
    valence_problem: str | None = None
    sample_rate: int | None = None


@dataclass(frozen=True, eq=False, slots=True)
class _Conflict:
    """What several keys of one meaning hold where they differ."""

    keys: tuple[str, ...]

    def __str__(self) -> str:
        given = " and ".join(f"'{key}'" for key in self.keys[:8])
        return f"the keys {given} differ; expected one of them"


# Audio, valence, and the keys and values of all sample rates.
_Fields = tuple[Any, Any, tuple[str, ...], tuple[Any, ...]]


def read_course_pickle(path: Path) -> list[PickledClip]:
    """Read all clips of one course pickle, in their order; nothing in the file is run.

    Accepted, in any pickle protocol from 0 to 5 and written under numpy 1 or 2: one dict
    {'audio_data': numbers, 'valence': number}; a list or tuple of such dicts; a dict of columns,
    {'audio_data': sequence of audio, or 2-D array with one row a clip, 'valence': numbers}. Keys are compared
    without case, spaces, underscores and hyphens; other keys are ignored, and two of one meaning must not
    differ. In a list or in columns, a clip that cannot be used has its own `audio_problem` or
    `valence_problem` and does not affect the others.

    - 'valence' may be absent; None, NaN and texts such as "" and "NA" mean unrated, too. A number may be
      given as text, with a decimal point or a decimal comma.
    - 'sampling_rate', 'sample_rate', 'sr', 'fs', 'rate', 'frame_rate', 'sampling_frequency' or 'sample_freq'
      is the sample rate in Hz, of all clips or of each in a column. A rate that is None or NaN is absent.
      'orig_sr' or 'original_sample_rate' counts where no other rate is given.
    - The audio of one clip may have up to 8 channels, as (n_samples, channels) or (channels, n_samples). A
      2-D array with one valence is one clip. Without any valence it is so, too, where it has one or two rows,
      or up to 8 columns; otherwise each row is a clip.

    Returns:
        The clips; one that the file refers to in several places is the same object in all of them.

    Raises:
        PickleRefused: The file asks for anything else than data, or is no complete pickle.
        ClipError: The file cannot be opened ("unreadable") or holds something else ("wrong type").
    """
    name = name_text(path.name)
    try:
        file = Unpickler(name, path.read_bytes())
    except OSError as error:
        raise ClipError("unreadable", f"{name} cannot be read: {error.strerror}.") from error
    try:
        return _clips(opened(file.load()), file)
    except PickleRefused as error:
        if kind := describe(path):
            message = f"{name} is {kind}; expected a pickle."
            raise PickleRefused("not a readable pickle", message) from error
        raise


def _clips(content: Any, file: Unpickler) -> list[PickledClip]:
    entries = content if isinstance(content, list | tuple) else [content]
    # One dict may be in many places, and have many keys.
    fields = {id(entry): _fields(entry, file) for entry in _distinct_dicts(entries)}
    match content:
        case dict() if fields[id(content)][0] is not _NO_KEY:
            rows = _columns(*fields[id(content)], file)
        case list() | tuple() if fields:
            rows = []
            for entry in content:
                found = fields.get(id(entry))
                has_audio = found is not None and found[0] is not _NO_KEY
                rows.append(found if found and has_audio else (entry, _NO_ENTRY, (), ()))
        case _:
            raise file.wrong(f"holds {text_of(content)}")
    # An audio and valence in many places (oversampling) are one clip: a million references cost no more.
    clips: dict[tuple[Any, ...], PickledClip] = {}
    keys = [(id(audio), id(valence), names, *map(id, rates)) for audio, valence, names, rates in rows]
    n_unusable = 0
    for key, row in zip(keys, rows, strict=True):
        if key not in clips:
            clips[key] = _clip(*row, file)
            problem = clips[key].audio_problem
            n_unusable += problem is not None
            if problem and (len(rows) == 1 or n_unusable > _MAX_UNUSABLE):
                raise file.wrong(f"holds {n_unusable} of {len(rows)} clips without audio: {problem}")
    return [clips[key] for key in keys]


def _distinct_dicts(entries: list | tuple) -> list[dict[str, Any]]:
    return list({id(entry): entry for entry in entries if isinstance(entry, dict)}.values())


def _plain(key: str) -> str:
    """A key as it is compared: 'samplingRate' and 'Sampling_Rate' are one. "" for what is too long."""
    return re.sub("[-_ ]", "", key).lower() if len(key) <= _LONGEST_KEY else ""


def _fields(entry: dict[str, Any], file: Unpickler) -> _Fields:
    """What one dict names; `_NO_KEY` and `_NO_VALENCE` where it does not, a `_Conflict` where keys differ."""
    found: dict[str, dict[str, Any]] = {"audiodata": {}, "valence": {}, "rate": {}}
    for key, value in entry.items():
        plain = _plain(key)
        meaning = "rate" if plain in _RATE_KEYS else plain
        if meaning in found:
            found[meaning][key] = value
    audio = _agreed(found["audiodata"], _NO_KEY, file)
    valence = _agreed(found["valence"], _NO_VALENCE, file)
    return audio, valence, tuple(found["rate"]), tuple(found["rate"].values())


def _agreed(found: dict[str, Any], default: Any, file: Unpickler) -> Any:
    """The one value that all keys of one meaning hold."""
    first, *others = found.values() or [default]
    return first if all(_is_same(first, other, file) for other in others) else _Conflict(tuple(found))


def _is_same(first: Any, second: Any, file: Unpickler) -> bool:
    """Whether two values are one, or are equal numbers, texts, arrays, or flat lists of numbers and texts."""
    first, second = opened(first), opened(second)
    if first is second:
        return True
    # The same two arrays, tuples or texts may be compared in many dicts.
    if isinstance(first, np.ndarray | list | tuple | str):
        file.count_bytes(first.nbytes if isinstance(first, np.ndarray) else len(first))
    if isinstance(first, np.ndarray) and isinstance(second, np.ndarray):
        return bool(first.dtype == second.dtype and np.array_equal(first, second))
    if isinstance(first, list | tuple) and isinstance(second, list | tuple):
        # Nested ones would take recursion.
        is_flat = all(isinstance(item, _CONSTANT) for item in chain(first, second))
        return is_flat and len(first) == len(second) and all(map(eq, first, second))
    return isinstance(first, _CONSTANT) and isinstance(second, _CONSTANT) and first == second


def _columns(
    audio: Any, valence: Any, names: tuple[str, ...], rates: tuple[Any, ...], file: Unpickler
) -> list[_Fields]:
    """The fields of each clip in a dict of columns, or of the one clip that it holds."""
    audio, valence = opened(audio), opened(valence)
    for given in (audio, valence):
        if isinstance(given, _Conflict):
            raise file.wrong(f"holds several columns of one meaning: {given}")
    if not _has_a_clip_per_row(audio, valence):
        return [(audio, valence, names, rates)]
    columns = {"valence": valence} | dict(zip(names, map(opened, rates), strict=True))
    for key, column in columns.items():
        if isinstance(column, np.ndarray) and column.ndim and column.dtype.kind in "fiub":
            column = column.reshape(-1).tolist()
        if column is _NO_VALENCE or (key != "valence" and not isinstance(column, list | tuple)):
            column = [column] * len(audio)
        if not isinstance(column, list | tuple) or len(column) != len(audio):
            raise file.wrong(f"holds {len(audio)} clips as 'audio_data' and {text_of(column)} as '{key}'")
        columns[key] = column
    return [
        (row, rating, names, tuple(own)) for row, rating, *own in zip(audio, *columns.values(), strict=True)
    ]


def _has_a_clip_per_row(audio: Any, valence: Any) -> bool:
    """Whether audio is a column of clips; otherwise it is one clip, whose channels may be its rows."""
    is_list = isinstance(audio, list | tuple)
    if is_list and any(isinstance(row, list | tuple | Built) for row in audio):
        shapes = {_shape(opened(row)) for row in audio}
        if len(shapes) > 1:
            return True
        shape = (len(audio), *shapes.pop())
    elif isinstance(audio, np.ndarray) and audio.ndim > 1 and len(audio):
        shape = audio.shape
    else:
        return isinstance(audio, np.ndarray) and audio.ndim > 1
    if valence is _NO_VALENCE:
        is_column = is_list and isinstance(audio[0], Built)
        return is_column or len(shape) > 2 or not (shape[0] <= 2 or shape[1] <= _MOST_CHANNELS)
    n_valences = 1
    if isinstance(valence, list | tuple | np.ndarray):
        n_valences = valence.size if isinstance(valence, np.ndarray) else len(valence)
    # Where neither fits, the message for columns names both numbers.
    return n_valences > 1 or not _is_one_clip(shape)


def _shape(row: Any) -> tuple[int, ...]:
    """Of an array or a flat list; -1 for something else."""
    if isinstance(row, np.ndarray):
        return row.shape
    return (len(row) if isinstance(row, list | tuple) else -1,)


def _is_one_clip(shape: tuple[int, ...]) -> bool:
    axes = [n for n in shape if n != 1]
    return len(axes) <= 1 or (len(axes) == 2 and min(axes) <= _MOST_CHANNELS)


def _clip(
    audio: Any, valence: Any, names: tuple[str, ...], rates: tuple[Any, ...], file: Unpickler
) -> PickledClip:
    audio = opened(audio)
    number = rate = problem = valence_problem = None
    if valence is _NO_ENTRY:
        problem = f"expected a dict with 'audio_data', not {text_of(audio)}"
    elif isinstance(audio, _Conflict):
        problem = str(audio)
    elif isinstance(audio, list | tuple):
        audio, problem = _from_list(audio, file)
    is_array = isinstance(audio, np.ndarray) and audio.dtype.kind in "fiu" and audio.ndim > 0
    if problem is None and not (is_array and _is_one_clip(audio.shape)):
        problem = f"'audio_data' is {text_of(audio)}, not 1-D real numbers, or 2-D with up to 8 channels"
    try:
        rate = _sample_rate(names, rates)
    except ValueError as error:
        problem = problem or str(error)
    try:
        number = (
            None if valence is _NO_VALENCE or valence is _NO_ENTRY else _number(valence, may_have_comma=True)
        )
    except ValueError as error:
        valence_problem = str(error)
    audio = _NO_AUDIO if problem else _with_channels_last(audio)
    return PickledClip(audio, number, problem, valence_problem, rate)


def _with_channels_last(audio: np.ndarray) -> np.ndarray:
    axes = [n for n in audio.shape if n != 1]
    if len(axes) < 2 or 0 in axes:
        return audio.reshape(-1)
    audio = audio.reshape(axes)
    return audio.T if axes[0] < axes[1] else audio


def _from_list(values: list | tuple, file: Unpickler) -> tuple[np.ndarray, str | None]:
    """The array of a list of numbers, or of a list of rows of equal length; or why there is none."""
    rows = [opened(row) for row in values]
    if values and all(isinstance(row, list | tuple | np.ndarray) for row in rows):
        made = [(row, None) if isinstance(row, np.ndarray) else _from_numbers(row, file) for row in rows]
        first = made[0][0]
        if all(not wrong and row.shape == first.shape and row.dtype.kind in "fiu" for row, wrong in made):
            file.count_bytes(sum(row.nbytes for row in rows if isinstance(row, np.ndarray)))
            audio = np.stack([row for row, _ in made])
            audio.flags.writeable = False
            return audio, None
    return _from_numbers(values, file)


def _from_numbers(values: list | tuple, file: Unpickler) -> tuple[np.ndarray, str | None]:
    file.count_bytes(len(values))  # the same array of objects, or tuple, may be in many clips
    kinds = set(map(type, values))
    if kinds <= {int, float}:
        try:
            audio = np.array(values, dtype=np.int64 if kinds == {int} else np.float64)
        except OverflowError:
            return _NO_AUDIO, f"'audio_data' is {text_of(values)}, one of them too large for 64 bits"
        audio.flags.writeable = False
        return audio, None
    stranger = next(item for item in values if type(item) not in (int, float))
    return _NO_AUDIO, f"'audio_data' is {text_of(values)}, among them {text_of(stranger)}"


def _sample_rate(names: tuple[str, ...], rates: tuple[Any, ...]) -> int | None:
    """The one sample rate in Hz, None where there is none; raises ValueError, which says what is wrong."""
    expected = f"expected one whole number from {_LOWEST_RATE} to {_HIGHEST_RATE} Hz"
    found: dict[str, float] = {}
    for of_original in (False, True):
        for name, stored in zip(names, rates, strict=True):
            if (_plain(name) in _ORIGINAL_RATE_KEYS) is not of_original:
                continue
            try:
                rate = _number(stored)
            except ValueError as error:
                raise ValueError(
                    f"stored with a sample rate, '{name}', that is {error}; {expected}"
                ) from error
            if rate is not None:
                found[name] = rate
        if found:
            break
    distinct = sorted(set(found.values()))
    if len(distinct) > 1 or any(rate % 1 or not _LOWEST_RATE <= rate <= _HIGHEST_RATE for rate in distinct):
        given = " and ".join(f"{rate:g}" for rate in distinct[:8])
        keys = " and ".join(f"'{name}'" for name in list(found)[:8])
        raise ValueError(f"stored with the sample rate {given} Hz as {keys}; {expected}")
    return int(distinct[0]) if distinct else None


def _number(stored: Any, may_have_comma: bool = False) -> float | None:
    """A number, which may be text or in a list of one; None for what marks a missing one; else ValueError."""
    if isinstance(stored, _Conflict):
        raise ValueError(str(stored))
    value = opened(stored)
    if isinstance(value, list | tuple) and len(value) == 1:
        value = opened(value[0])
    if isinstance(value, np.ndarray) and value.size == 1 and value.dtype.kind in "fiu":
        value = value.item()
    if isinstance(value, str):
        text = value.strip().replace(",", ".") if may_have_comma else value.strip()
        if _NUMBER.fullmatch(text):
            value = float(text)
        elif value.strip().lower() in MISSING:
            value = None
    if value is None or (type(value) is float and math.isnan(value)):
        return None
    if type(value) is float or (type(value) is int and value.bit_length() < 1024):
        return float(value)
    raise ValueError(f"not a number: {text_of(stored)}")
