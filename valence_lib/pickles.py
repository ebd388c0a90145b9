"""Read course pickles without running anything that is in them.

A pickle is a program: whoever loads one with `pickle.load` runs what its writer wished. Here a small
machine of our own reads the instructions instead. It knows those that numbers, strings, lists, dicts
and numpy arrays are made of, and no other; a file can ask for no more than the seven names of `_Known`,
each a case written out below whose arguments are checked. Nothing is ever imported, looked up by name or
called because a file says so, and no switch changes that.

Memory stays in proportion to the file: lengths are believed only as far as there are bytes, all arrays
together may not be larger than the file, and containers cannot multiply by reference.

Reasons of `PickleRefused`, as counted in the quarantine table: "not a readable pickle", "truncated",
"trailing bytes", "forbidden global", "forbidden call", "forbidden dtype", "false header", "memo index",
"shared container", "too many objects", "nested too deeply", "stray instruction", and those of
`_REFUSED_OPCODES`. What is harmless but no clip raises `ClipError` with "wrong type".

Source: the instructions are those of the standard library's `pickletools`, the arrays' states those of
`numpy.ndarray.__reduce_ex__` under numpy 1 and 2.
"""

import io
import math
import pickletools
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Literal

import numpy as np

from valence_lib.errors import ClipError, PickleRefused
from valence_lib.pickle_forms import Form, form_of

_EXPECTED = (
    "expected a dict with 'audio_data' (1-D numbers) and perhaps 'valence' (a number), a list of such "
    "dicts, or a dict of columns 'audio_data' and 'valence' of equal length"
)
# Of the pickles read so far. A program writes two or three: short and long clips, with and without a rating.
_FORMS: list[Form] = []
_MOST_FORMS = 8
_ABSENT = object()
_NO_AUDIO = np.empty(0)
_NO_AUDIO.flags.writeable = False
_MEND = "Only numbers, strings, lists, dicts and numeric numpy arrays are read; save the clip as these alone."


@dataclass(frozen=True, eq=False, slots=True)
class PickledClip:
    """One clip as it stands in its pickle.

    `audio` [shape=(n_samples,)] keeps its stored dtype, in native byte order, and is read-only; a Python
    list becomes float64, or int64 where all of it are ints. It is empty where `audio_problem` says why
    there is none. `valence` is None where there is none, or where `valence_problem` says what stood there.
    """

    audio: np.ndarray
    valence: float | None
    audio_problem: str | None = None
    valence_problem: str | None = None


def read_course_pickle(path: Path) -> list[PickledClip]:
    """Read all clips of one course pickle, in their order; nothing in the file is run.

    Admitted, in any pickle protocol from 0 to 5 and written under numpy 1 or 2: one dict
    {'audio_data': numbers, 'valence': number}, where 'valence' may be absent; a list or tuple of such dicts;
    a dict of columns, {'audio_data': sequence of 1-D audio, or 2-D array with one row a clip, 'valence':
    numbers}. Other keys are passed over. In a list or in columns, a clip that cannot be used leaves the
    others as they are and says so in its own `audio_problem` or `valence_problem`.

    Raises:
        PickleRefused: The file asks for anything else than data, or is no complete pickle.
        ClipError: The file cannot be opened ("unreadable") or holds something else ("wrong type").
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ClipError("unreadable", f"{path.name} cannot be read: {error.strerror}.") from error
    for form in _FORMS:
        if (found := form.read(content)) is not None:
            return [PickledClip(*found)]
    clips = _clips(_Machine(path.name, content).run(), path.name)
    if (
        len(_FORMS) < _MOST_FORMS
        and len(clips) == 1
        and clips[0].audio_problem is clips[0].valence_problem is None
    ):
        (clip,) = clips
        if new := form_of(content, clip.audio, clip.valence):
            _FORMS.append(new)
    return clips


# The machine


class _Known(Enum):
    """All that a file may ask for by name: no function, only a case of `_Machine._reduce`."""

    NDARRAY = "ndarray"
    DTYPE = "dtype"
    RECONSTRUCT = "_reconstruct"
    SCALAR = "scalar"
    FROMBUFFER = "_frombuffer"
    ENCODE = "encode"
    BYTES = "bytes"


_GLOBALS = {
    "numpy.ndarray": _Known.NDARRAY,
    "numpy.dtype": _Known.DTYPE,
    "_codecs.encode": _Known.ENCODE,
    "builtins.bytes": _Known.BYTES,
    "__builtin__.bytes": _Known.BYTES,
} | {
    f"numpy.{core}.{name}": known
    for core in ("core", "_core")
    for name, known in (
        ("multiarray._reconstruct", _Known.RECONSTRUCT),
        ("multiarray.scalar", _Known.SCALAR),
        ("numeric._frombuffer", _Known.FROMBUFFER),
    )
}

# Instructions that `_Machine` does not know; any other is a "stray instruction".
_REFUSED_OPCODES = {
    "persistent id": ("PERSID", "BINPERSID"),
    "extension code": ("EXT1", "EXT2", "EXT4"),
    "class instance": ("INST", "OBJ", "NEWOBJ", "NEWOBJ_EX"),
    "out-of-band buffer": ("NEXT_BUFFER", "READONLY_BUFFER"),
    "Python 2 string": ("STRING", "BINSTRING", "SHORT_BINSTRING"),
    "set": ("EMPTY_SET", "ADDITEMS", "FROZENSET"),
}
# Fixed-size kinds that are plain bytes; text and complex numbers only to be reported as a wrong type.
_DTYPE = re.compile(r"f[248]|[iu][1248]|b1|c8|c16|[SU][1-9]\d{0,4}|O[48]")

# A course pickle opens at most some eight marks at a time, and hardly shares a tuple longer than a shape.
_MAX_OPEN_MARKS = 32
_MAX_SHARED_TUPLE = 32
# An empty list takes one byte in the file and 80 in memory; a real one comes with its content.
_FREE_CONTAINERS = 10_000
_BYTES_PER_CONTAINER = 8
# A few bytes of nonsense, reported as a clip with its problem, take some 400 bytes of memory.
_MAX_UNUSABLE = 10_000


@dataclass(slots=True, eq=False)
class _DType:
    code: str
    byte_order: Literal["<", ">", "|", "="] = "="
    is_built: bool = False


@dataclass(slots=True, eq=False)
class _Array:
    """An array, empty-handed until its state comes; an array of objects is kept as the list of these."""

    value: np.ndarray | list | None = None


class _Machine:
    """Follows the instructions of one pickle, and refuses all that no course pickle needs."""

    def __init__(self, name: str, content: bytes):
        self.name = name
        self.content = content
        self.stream = io.BytesIO(content)
        self.position = 0
        self.stack: list[Any] = []
        self.below_marks: list[list[Any]] = []
        self.memo: list[Any] = []
        self.n_containers = 0
        self.n_bytes_made = 0

    def refusal(self, reason: str, what: str) -> PickleRefused:
        return PickleRefused(reason, f"{self.name} {what}. {_MEND}")

    def run(self) -> Any:
        try:
            for opcode, argument in self._instructions():
                self._step(opcode, argument)
            (result,) = self.stack
            if self.below_marks:
                raise ValueError("a mark is left over")
        except (ValueError, IndexError) as error:
            raise self._unreadable(error) from error
        if n_left := len(self.content) - self.stream.tell():
            raise self.refusal(
                "trailing bytes", f"goes on for {n_left} bytes after the end of its first pickle"
            )
        return result

    def _instructions(self) -> Iterator[tuple[str, Any]]:
        try:
            for opcode, argument, position in pickletools.genops(self.stream):
                self.position = position or 0
                yield opcode.name, argument
        except ValueError as error:
            # Where an instruction, or its declared length, goes beyond the file, the parser has read it all.
            if self.stream.tell() == len(self.content) and (self.position or self.content[:1] == b"\x80"):
                raise self.refusal("truncated", f"breaks off at its byte {len(self.content)}") from error
            raise self._unreadable(error) from error

    def _unreadable(self, error: Exception) -> PickleRefused:
        return self.refusal(
            "not a readable pickle",
            f"is not a readable pickle: it begins with {self.content[:12]!r} and makes no sense after "
            f"byte {self.position} ({_short(error)})",
        )

    def _step(self, opcode: str, argument: Any) -> None:
        match opcode:
            case "BINFLOAT" | "BININT" | "BININT1" | "BININT2" | "LONG1" | "LONG4" | "FLOAT" | "INT" | "LONG":
                self.stack.append(argument)
            case "SHORT_BINUNICODE" | "BINUNICODE" | "BINUNICODE8" | "UNICODE":
                self.stack.append(argument)
            case "SHORT_BINBYTES" | "BINBYTES" | "BINBYTES8" | "BYTEARRAY8":
                self.stack.append(argument)
            case "MEMOIZE":
                self.memo.append(self.stack[-1])
            case "BINPUT" | "LONG_BINPUT" | "PUT":
                self._put(argument)
            case "BINGET" | "LONG_BINGET" | "GET":
                self._get(argument)
            case "MARK":
                if len(self.below_marks) == _MAX_OPEN_MARKS:
                    raise self.refusal("nested too deeply", f"nests content more than {_MAX_OPEN_MARKS} deep")
                self.below_marks.append(self.stack)
                self.stack = []
            case "NONE":
                self.stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                self.stack.append(opcode == "NEWTRUE")
            case "EMPTY_TUPLE" | "EMPTY_LIST" | "EMPTY_DICT":
                self._push_container({"EMPTY_TUPLE": tuple, "EMPTY_LIST": list, "EMPTY_DICT": dict}[opcode]())
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                n = int(opcode[-1])
                self._push_container(tuple(self.stack.pop() for _ in range(n))[::-1])
            case "TUPLE":
                self._push_container(tuple(self._pop_to_mark()))
            case "LIST":
                self._push_container(self._pop_to_mark())
            case "DICT":
                items = self._pop_to_mark()
                self._push_container({})
                self._set_items(items)
            case "APPEND":
                self._extend([self.stack.pop()])
            case "APPENDS":
                self._extend(self._pop_to_mark())
            case "SETITEM":
                value, key = self.stack.pop(), self.stack.pop()
                self._set_items([key, value])
            case "SETITEMS":
                self._set_items(self._pop_to_mark())
            case "GLOBAL":
                self._global(argument.replace(" ", ".", 1))
            case "STACK_GLOBAL":
                name, module = self.stack.pop(), self.stack.pop()
                if not type(module) is type(name) is str:
                    raise ValueError("a name that is no text")
                self._global(f"{module}.{name}")
            case "REDUCE":
                arguments, function = self.stack.pop(), self.stack.pop()
                self._push_container(self._reduce(function, arguments))
            case "BUILD":
                state = self.stack.pop()
                self._build(self.stack[-1], state)
            case "PROTO" if argument > 5:
                raise ValueError(f"protocol {argument}; known are 0 to 5")
            case "PROTO" | "FRAME" | "STOP":
                pass
            case _:
                reasons = (reason for reason, opcodes in _REFUSED_OPCODES.items() if opcode in opcodes)
                asked = opcode if argument is None else f"{opcode} {_short(argument)}"
                raise self.refusal(next(reasons, "stray instruction"), f"asks for {asked}, which is not data")

    def _put(self, index: int) -> None:
        # Python numbers its memo without gaps; a table grown to a forged index would take memory for nothing.
        if not 0 <= index <= len(self.memo):
            raise self.refusal("memo index", f"numbers its object {len(self.memo)} as {_short(index)}")
        self.memo[index : index + 1] = [self.stack[-1]]

    def _get(self, index: int) -> None:
        if not 0 <= index < len(self.memo):
            raise ValueError(f"object {_short(index)} does not exist")
        value = self.memo[index]
        if isinstance(value, tuple):
            shareable = len(value) <= _MAX_SHARED_TUPLE and not any(
                isinstance(item, list | dict | tuple | _Array) for item in value
            )
        elif isinstance(value, _Array):
            shareable = isinstance(value.value, np.ndarray)
        else:
            shareable = not isinstance(value, list)
        if not shareable:
            raise self.refusal("shared container", f"refers twice to {_described(value)}, which is no array")
        self.stack.append(value)

    def _pop_to_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.below_marks.pop()
        return items

    def _push_container(self, value: Any) -> None:
        self.n_containers += 1
        if self.n_containers > _FREE_CONTAINERS + len(self.content) / _BYTES_PER_CONTAINER:
            raise self.refusal("too many objects", f"makes too many objects of its {len(self.content)} bytes")
        self.stack.append(value)

    def _extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not list:
            raise ValueError(f"items for {_described(target)}, not for a list")
        target.extend(items)

    def _set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not dict or len(items) % 2:
            raise ValueError(f"keys and values for {_described(target)}, not for a dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Text alone: the hashes of forged numbers could all be alike, and the dict would slow to a halt.
            if type(key) is not str:
                raise ClipError(
                    "wrong type", f"{self.name} has a dict with the key {_described(key)}; {_EXPECTED}."
                )
            target[key] = value

    def _global(self, name: str) -> None:
        if name not in _GLOBALS:
            raise self.refusal("forbidden global", f"asks for {_short(name)}; nothing was run")
        self.stack.append(_GLOBALS[name])

    def _reduce(self, function: Any, arguments: Any) -> Any:
        match function, arguments:
            case _Known.RECONSTRUCT, (_Known.NDARRAY, (0,), b"b"):
                return _Array()
            case _Known.DTYPE, (str(code), _, _) if _DTYPE.fullmatch(code):
                return _DType(code)
            case _Known.DTYPE, (code, *_):
                raise self.refusal("forbidden dtype", f"has an array of dtype {_described(code)}")
            case _Known.SCALAR, (_DType() as dtype, bytes(raw)):
                scalar = self._array(raw, (), dtype, "C")
                # numpy does not check text, and Python fails on forged characters: leave text as it is.
                return scalar.item() if scalar.dtype.kind in "fiub" else _Array(scalar)
            case _Known.FROMBUFFER, (
                bytes() | bytearray() as raw,
                _DType() as dtype,
                tuple(shape),
                "C" | "F" as order,
            ):
                return _Array(self._array(raw, shape, dtype, order))
            case _Known.ENCODE, (str(text), "latin1"):
                self._count_bytes(len(text))
                return text.encode("latin1")
            case _Known.BYTES, ():
                return b""
        raise self.refusal("forbidden call", f"calls {_described(function)} with {_described(arguments)}")

    def _build(self, target: Any, state: Any) -> None:
        match target, state:
            case _DType(is_built=False), (3, "<" | ">" | "|" | "=" as byte_order, None, None, None, _, _, _):
                target.byte_order, target.is_built = byte_order, True
            case _DType(), _:
                raise self.refusal("forbidden dtype", "has a dtype with fields, with metadata or set twice")
            case _Array(value=None), (1, (n,), _DType(code="O4" | "O8"), _, list(items)) if n == len(items):
                target.value = items
            case _Array(value=None), (1, tuple(shape), _DType() as dtype, int(is_fortran), bytes(raw)):
                target.value = self._array(raw, shape, dtype, "F" if is_fortran else "C")
            case _Array(), _:
                raise self.refusal("false header", "has an array whose state is not that of a numeric array")
            case _:
                raise self.refusal("forbidden call", f"gives a state to {_described(target)}")

    def _array(self, raw: bytes | bytearray, shape: tuple[Any, ...], dtype: _DType, order: Any) -> np.ndarray:
        # First the sizes, in exact integers: numpy gets to see only what the file really holds.
        if dtype.code[0] == "O":
            raise self.refusal("false header", "has an array of objects made of bytes")
        numpy_dtype = np.dtype(dtype.code).newbyteorder(dtype.byte_order)
        if len(shape) > 32 or not all(type(n) is int and 0 <= n <= len(self.content) for n in shape):
            raise self.refusal("false header", f"declares an array larger than its {len(self.content)} bytes")
        if math.prod(shape) * numpy_dtype.itemsize != len(raw):
            what = f"declares an array of shape {shape} and dtype {dtype.code} over {len(raw)} bytes"
            raise self.refusal("false header", what)
        self._count_bytes(len(raw))
        array: np.ndarray = np.ndarray(shape, numpy_dtype, buffer=raw, order=order)
        array = array.astype(numpy_dtype.newbyteorder("="), copy=False)
        array.flags.writeable = False
        return array

    def _count_bytes(self, n: int) -> None:
        # Twice, since protocols 0 to 2 carry bytes as text that is encoded first and made an array then.
        self.n_bytes_made += n
        if self.n_bytes_made > 2 * len(self.content):
            raise self.refusal("too many objects", f"unpacks its {len(self.content)} bytes more than twice")


# From plain content to clips


def _clips(content: Any, name: str) -> list[PickledClip]:
    content = _opened(content)
    if isinstance(content, dict) and "audio_data" in content:
        rows = _rows(_opened(content["audio_data"]), name)
        if rows is not None:
            return _clips_of_columns(rows, content, name)
        clip = _clip_of_entry(content)
        if clip.audio_problem is not None:
            raise ClipError("wrong type", f"{name}: {clip.audio_problem}; {_EXPECTED}.")
        return [clip]
    if isinstance(content, list | tuple) and any(isinstance(entry, dict) for entry in content):
        return _made_once(_clip_of_entry, ((entry,) for entry in content), name)
    raise ClipError("wrong type", f"{name} holds {_described(content)}; {_EXPECTED}.")


def _rows(audio: Any, name: str) -> list[Any] | None:
    """The audio of many clips, one an item; None where it is the audio of one clip."""
    if isinstance(audio, np.ndarray) and audio.ndim == 2:
        if audio.shape[1] < 3:
            raise ClipError(
                "wrong type",
                f"{name} holds as 'audio_data' {_described(audio)}: clips of fewer than three samples, "
                f"or one clip as samples by channels. Save one clip as 1-D, many with one row a clip.",
            )
        return list(audio)
    if isinstance(audio, list | tuple) and any(isinstance(item, list | tuple | _Array) for item in audio):
        return list(audio)
    return None


def _clips_of_columns(rows: list[Any], columns: dict[str, Any], name: str) -> list[PickledClip]:
    valences: Any = [_ABSENT] * len(rows)
    if "valence" in columns:
        valences = _opened(columns["valence"])
        if isinstance(valences, np.ndarray) and valences.ndim and valences.dtype.kind in "fiub":
            valences = valences.reshape(-1).tolist()
    if not isinstance(valences, list | tuple) or len(valences) != len(rows):
        raise ClipError(
            "wrong type",
            f"{name} holds {len(rows)} clips as 'audio_data' and {_described(valences)} as 'valence'; "
            f"{_EXPECTED}.",
        )
    return _made_once(_clip, zip(rows, valences, strict=True), name)


def _made_once(
    make: Callable[..., PickledClip], sources: Iterable[tuple[Any, ...]], name: str
) -> list[PickledClip]:
    # The same dict, or the same pair of audio and valence, may stand at many places (oversampling): it is one
    # clip for all of them, so that a million references cost no more than that.
    clips: dict[tuple[int, ...], PickledClip] = {}
    made: list[PickledClip] = []
    n_unusable = 0
    for source in sources:
        key = tuple(map(id, source))
        if key not in clips:
            clips[key] = make(*source)
            n_unusable += clips[key].audio_problem is not None
            if n_unusable > _MAX_UNUSABLE:
                problem = clips[key].audio_problem
                raise ClipError(
                    "wrong type", f"{name} has over {_MAX_UNUSABLE} unlike entries without audio ({problem})."
                )
        made.append(clips[key])
    return made


def _clip_of_entry(entry: Any) -> PickledClip:
    if not isinstance(entry, dict) or "audio_data" not in entry:
        return PickledClip(_NO_AUDIO, None, f"expected a dict with 'audio_data', not {_described(entry)}")
    return _clip(entry["audio_data"], entry.get("valence", _ABSENT))


def _clip(audio_data: Any, valence: Any) -> PickledClip:
    audio, audio_problem = _audio(_opened(audio_data))
    number, valence_problem = (None, None) if valence is _ABSENT else _valence(_opened(valence))
    return PickledClip(audio, number, audio_problem, valence_problem)


def _audio(value: Any) -> tuple[np.ndarray, str | None]:
    if isinstance(value, np.ndarray) and value.ndim == 1 and value.dtype.kind in "fiu":
        return value, None
    if isinstance(value, list | tuple):
        kinds = set(map(type, value))
        if kinds <= {int, float}:
            try:
                audio = np.array(value, dtype=np.int64 if kinds == {int} else np.float64)
            except OverflowError:
                return _NO_AUDIO, f"'audio_data' is {_described(value)}, one of them too large for 64 bits"
            audio.flags.writeable = False
            return audio, None
        stranger = next(item for item in value if type(item) not in (int, float))
        return _NO_AUDIO, f"'audio_data' is {_described(value)}, among them {_described(stranger)}"
    return _NO_AUDIO, f"'audio_data' is {_described(value)}, not 1-D real numbers"


def _valence(value: Any) -> tuple[float | None, str | None]:
    if isinstance(value, np.ndarray) and value.size == 1 and value.dtype.kind in "fiu":
        value = value.reshape(-1)[0].item()
    if type(value) in (int, float):
        try:
            return float(value), None
        except OverflowError:
            pass
    return None, f"not a number: {_described(value)}"


def _opened(value: Any) -> Any:
    return value.value if isinstance(value, _Array) else value


def _short(value: object) -> str:
    """At most 80 characters, all of them printable: a message may end in a report."""
    return str(value)[:80].encode("unicode_escape").decode("ascii")


def _described(value: Any) -> str:
    """What stands there, in a few words whose length no file can drive up."""
    match value:
        case None:
            return "None"
        case _Array():
            return "an unfinished array" if value.value is None else _described(value.value)
        case np.ndarray():
            return f"an array of dtype {value.dtype} and shape {value.shape}"
        case str():
            return f"str '{_short(value)}'"
        case int() if value.bit_length() > 64:
            return f"an int of {value.bit_length()} bits"
        case bool() | int() | float() | complex():
            return f"{type(value).__name__} {value}"
        case dict():
            return f"a dict with the keys {', '.join(map(_short, list(value)[:8])) or '(none)'}"
        case list() | tuple() | bytes() | bytearray():
            return f"a {type(value).__name__} of {len(value)} items"
        case _Known():
            return f"the name {value.value}"
    return "a dtype"
