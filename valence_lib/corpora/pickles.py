"""Clips from course pickles, which are read without running anything that is in them (`unpickling`)."""

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from valence_lib.corpora.file_kinds import describe, name_text
from valence_lib.corpora.labels import MISSING
from valence_lib.corpora.unpickling import Built, Unpickler, opened, text_of
from valence_lib.errors import ClipError, PickleRefused

_NO_VALENCE, _NO_ENTRY = object(), object()
_NUMBER = re.compile(r"[+-]?(\d{1,99}(\.\d{0,99})?|\.\d{1,99})([eE][+-]?\d{1,3})?", re.ASCII)
_RATE_KEYS = ("sampling_rate", "sample_rate", "samplerate", "sr", "fs")
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


def read_course_pickle(path: Path) -> list[PickledClip]:
    """Read all clips of one course pickle, in their order; nothing in the file is run.

    Accepted, in any pickle protocol from 0 to 5 and written under numpy 1 or 2: one dict
    {'audio_data': numbers, 'valence': number}; a list or tuple of such dicts; a dict of columns,
    {'audio_data': sequence of audio, or 2-D array with one row a clip, 'valence': numbers}. Other keys are
    ignored. In a list or in columns, a clip that cannot be used has its own `audio_problem` or
    `valence_problem` and does not affect the others.

    - 'valence' may be absent; None, NaN and texts such as "" and "NA" mean unrated, too. A number may be
      given as text.
    - 'sampling_rate', 'sample_rate', 'samplerate', 'sr' or 'fs' is the sample rate in Hz, of all clips or of
      each in a column. A rate that is None or NaN is absent.
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
    match content:
        case {"audio_data": _}:
            triples = _columns(content, file)
        case list() | tuple() if any(isinstance(entry, dict) for entry in content):
            triples = [
                (entry["audio_data"], entry.get("valence", _NO_VALENCE), _rates(entry))
                if isinstance(entry, dict) and "audio_data" in entry
                else (entry, _NO_ENTRY, ())
                for entry in content
            ]
        case _:
            raise file.wrong(f"holds {text_of(content)}")
    # An audio and valence in many places (oversampling) are one clip: a million references cost no more.
    clips: dict[tuple[int, ...], PickledClip] = {}
    keys = [(id(audio), id(valence), *map(id, rates)) for audio, valence, rates in triples]
    n_unusable = 0
    for key, (audio, valence, rates) in zip(keys, triples, strict=True):
        if key not in clips:
            clips[key] = _clip(audio, valence, rates, file)
            problem = clips[key].audio_problem
            n_unusable += problem is not None
            if problem and (len(triples) == 1 or n_unusable > _MAX_UNUSABLE):
                raise file.wrong(f"holds {n_unusable} of {len(triples)} clips without audio: {problem}")
    return [clips[key] for key in keys]


def _rates(entry: dict[str, Any]) -> tuple[Any, ...]:
    """All sample rates that one dict names; more than one must be equal."""
    return tuple(entry[key] for key in _RATE_KEYS if key in entry)


def _columns(content: dict[str, Any], file: Unpickler) -> list[tuple[Any, Any, tuple[Any, ...]]]:
    """Audio, valence and sample rates of each clip in a dict of columns, or of the one clip that it holds."""
    audio, valence = opened(content["audio_data"]), opened(content.get("valence", _NO_VALENCE))
    if not _has_a_clip_per_row(audio, valence):
        return [(audio, valence, _rates(content))]
    columns = {"valence": valence} | {key: opened(content[key]) for key in _RATE_KEYS if key in content}
    for key, column in columns.items():
        if isinstance(column, np.ndarray) and column.ndim and column.dtype.kind in "fiub":
            column = column.reshape(-1).tolist()
        if column is _NO_VALENCE or (key != "valence" and not isinstance(column, list | tuple)):
            column = [column] * len(audio)
        if not isinstance(column, list | tuple) or len(column) != len(audio):
            raise file.wrong(f"holds {len(audio)} clips as 'audio_data' and {text_of(column)} as '{key}'")
        columns[key] = column
    return [(row, rating, tuple(own)) for row, rating, *own in zip(audio, *columns.values(), strict=True)]


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


def _clip(audio: Any, valence: Any, rates: tuple[Any, ...], file: Unpickler) -> PickledClip:
    audio = opened(audio)
    number = rate = problem = valence_problem = None
    if valence is _NO_ENTRY:
        problem = f"expected a dict with 'audio_data', not {text_of(audio)}"
    elif isinstance(audio, list | tuple):
        audio, problem = _from_list(audio, file)
    is_array = isinstance(audio, np.ndarray) and audio.dtype.kind in "fiu" and audio.ndim > 0
    if problem is None and not (is_array and _is_one_clip(audio.shape)):
        problem = f"'audio_data' is {text_of(audio)}, not 1-D real numbers, or 2-D with up to 8 channels"
    try:
        rate = _sample_rate(rates)
    except ValueError as error:
        problem = problem or str(error)
    try:
        number = None if valence is _NO_VALENCE or valence is _NO_ENTRY else _number(valence)
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


def _sample_rate(rates: tuple[Any, ...]) -> int | None:
    """The one sample rate in Hz, None where there is none; raises ValueError, which says what is wrong."""
    found = sorted({rate for rate in map(_number, rates) if rate is not None})
    if len(found) > 1 or any(rate % 1 or not _LOWEST_RATE <= rate <= _HIGHEST_RATE for rate in found):
        given = " and ".join(f"{rate:g}" for rate in found)
        raise ValueError(
            f"stored with the sample rate {given} Hz; expected one whole number from {_LOWEST_RATE} to "
            f"{_HIGHEST_RATE} Hz"
        )
    return int(found[0]) if found else None


def _number(stored: Any) -> float | None:
    """A number, which may be text or in a list of one; None for what marks a missing one; else ValueError."""
    value = opened(stored)
    if isinstance(value, list | tuple) and len(value) == 1:
        value = opened(value[0])
    if isinstance(value, np.ndarray) and value.size == 1 and value.dtype.kind in "fiu":
        value = value.item()
    if isinstance(value, str):
        if _NUMBER.fullmatch(value.strip()):
            value = float(value)
        elif value.strip().lower() in MISSING:
            value = None
    if value is None or (type(value) is float and math.isnan(value)):
        return None
    if type(value) is float or (type(value) is int and value.bit_length() < 1024):
        return float(value)
    raise ValueError(f"not a number: {text_of(stored)}")
