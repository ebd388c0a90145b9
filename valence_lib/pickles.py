"""Read course pickles without running anything that is in them.

A pickle is a program: whoever loads one with `pickle.load` runs what its writer wished. Here a file is first
checked: `pickletools.genops` lists its instructions, and `_check` follows them with texts and types instead
of objects. Only then does `pickle.Unpickler` read it. For the names that numpy arrays need (`_KNOWN`) it gets
stand-ins, which check their arguments; other names are refused. Nothing is imported or called because a file
says so. Even a file that misled the check could call the stand-ins alone.

Memory and time stay in proportion to the file: lengths are believed only as far as there are bytes, all
arrays together may not be larger than the file, and containers cannot multiply by reference.

Reasons of `PickleRefused`, as counted in the quarantine table: "not a readable pickle", "truncated",
"trailing bytes", "forbidden global", "forbidden call", "forbidden dtype", "false header", "memo index",
"shared container", "too many objects", "nested too deeply", "stray instruction", and those of `_REFUSED`.
What is harmless but no clip raises `ClipError` with "wrong type".

Source: the instructions are those of the standard library's `pickletools`, the arrays' states those of
`numpy.ndarray.__reduce_ex__` under numpy 1 and 2.
"""

import io
import math
import pickle
import pickletools
import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from pickletools import StackObject, anyobject, markobject, pydict, pylist, pytuple, pyunicode
from typing import Any

import numpy as np

from valence_lib.errors import ClipError, PickleRefused

_EXPECTED = (
    "expected a dict with 'audio_data' (1-D numbers) and perhaps 'valence' (a number), a list of such "
    "dicts, or a dict of columns 'audio_data' and 'valence' of equal length"
)
_MEND = "Only numbers, strings, lists, dicts and numeric numpy arrays are read; save the clip as these alone."
_NO_VALENCE, _NO_ENTRY = object(), object()
_NO_AUDIO = np.empty(0)
_NO_AUDIO.flags.writeable = False

# All that a file may ask for by name, and the case of `_Name.__call__` for it.
_KNOWN = {
    f"{core}.multiarray.{n}": n for core in ("numpy.core", "numpy._core") for n in ("_reconstruct", "scalar")
}
_KNOWN |= {f"{core}.numeric._frombuffer": "_frombuffer" for core in ("numpy.core", "numpy._core")}
_KNOWN |= {"numpy.ndarray": "ndarray", "numpy.dtype": "dtype", "_codecs.encode": "encode"}
_KNOWN |= {"builtins.bytes": "bytes", "__builtin__.bytes": "bytes"}

# Instructions that put an object of their own on the stack, those that make one of others or call something,
# and those that change one.
_LITERALS = {
    *("NONE", "NEWTRUE", "NEWFALSE", "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4"),
    *("FLOAT", "BINFLOAT", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "SHORT_BINBYTES"),
    *("BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
_MAKERS = {
    *("EMPTY_TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "TUPLE", "EMPTY_LIST", "LIST", "EMPTY_DICT", "DICT"),
    *("GLOBAL", "STACK_GLOBAL", "REDUCE"),
}
_CHANGERS = {"APPEND", "APPENDS", "SETITEM", "SETITEMS", "BUILD"}
# Instructions that are refused for a reason of their own; any other is a "stray instruction".
_REFUSED = {
    "persistent id": ("PERSID", "BINPERSID"),
    "extension code": ("EXT1", "EXT2", "EXT4"),
    "class instance": ("INST", "OBJ", "NEWOBJ", "NEWOBJ_EX"),
    "out-of-band buffer": ("NEXT_BUFFER", "READONLY_BUFFER"),
    "Python 2 string": ("STRING", "BINSTRING", "SHORT_BINSTRING"),
    "set": ("EMPTY_SET", "ADDITEMS", "FROZENSET"),
}
_NESTED_TUPLE = StackObject(name="tuple of containers", obtype=tuple, doc="Holds lists, tuples or dicts.")
_CONTAINERS = frozenset((pylist, pydict, pytuple, _NESTED_TUPLE))
# Fixed-size kinds that are plain bytes; text and complex numbers only to be reported as a wrong type.
_DTYPE = re.compile(r"f[248]|[iu][1248]|b1|c8|c16|[SU][1-9]\d{0,4}|O[48]")

_MAX_OPEN_MARKS = 32  # a course pickle opens at most some eight at a time
# An empty list takes one byte in the file and 80 in memory; a real one comes with its content.
_FREE_OBJECTS = 10_000
_BYTES_PER_OBJECT = 8
# A few bytes of nonsense, reported as a clip with its problem, take some 400 bytes of memory.
_MAX_UNUSABLE = 10_000


@dataclass(frozen=True, eq=False, slots=True)
class PickledClip:
    """One clip as it is stored in its pickle.

    Args:
        audio: [shape=(n_samples,)] of the stored dtype, in native byte order, and read-only; a Python list
            becomes float64, or int64 where all of it are ints. Empty where there is an `audio_problem`.
        valence: None where there is none, or where there is a `valence_problem`.
        audio_problem: why there is no audio.
        valence_problem: what is stored instead of a number.
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
    others as they are and has its own `audio_problem` or `valence_problem`.

    Args:
        path: of the file.

    Returns:
        The clips; one that the file refers to in several places is the same object in all of them.

    Raises:
        PickleRefused: The file asks for anything else than data, or is no complete pickle.
        ClipError: The file cannot be opened ("unreadable") or holds something else ("wrong type").
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ClipError("unreadable", f"{path.name} cannot be read: {error.strerror}.") from error
    file = _File(path.name, content)
    _check(file)
    try:
        loaded = _Unpickler(file).load()
    except (AttributeError, TypeError) as error:
        raise file.refusal("forbidden call", f"calls or changes what it cannot ({_short(error)})") from error
    except (ArithmeticError, EOFError, LookupError, ValueError, pickle.UnpicklingError) as error:
        raise file.unreadable(error) from error
    return _clips(_opened(loaded), file)


# From bytes to plain content


class _File:
    """The bytes of one pickle, how far they have been checked, and how many bytes were made of them."""

    def __init__(self, name: str, content: bytes):
        self.name, self.content = name, content
        self.position = self.n_bytes_made = 0

    def refusal(self, reason: str, what: str) -> PickleRefused:
        return PickleRefused(reason, f"{self.name} {what}. {_MEND}")

    def unreadable(self, problem: object) -> PickleRefused:
        what = f"begins with {self.content[:12]!r} and makes no sense after byte {self.position}"
        return self.refusal(
            "not a readable pickle", f"is not a readable pickle: it {what} ({_short(problem)})"
        )

    def wrong(self, what: str) -> ClipError:
        return ClipError("wrong type", f"{self.name} {what}; {_EXPECTED}.")

    def known(self, asked: str) -> str:
        if asked not in _KNOWN:
            raise self.refusal("forbidden global", f"asks for {_short(asked)}; nothing was run")
        return _KNOWN[asked]

    def count_bytes(self, n: int) -> None:
        # Twice, since protocols 0 to 2 carry bytes as text that is encoded first and made an array then.
        self.n_bytes_made += n
        if self.n_bytes_made > 2 * len(self.content):
            raise self.refusal("too many objects", f"unpacks its {len(self.content)} bytes more than twice")

    def array(self, raw: bytes | bytearray, shape: tuple, dtype: np.dtype, order: Any) -> np.ndarray:
        # First the sizes, in exact integers: numpy is called only with what the file really holds.
        if dtype.kind == "O":
            raise self.refusal("false header", "has an array of objects made of bytes")
        if len(shape) > 32 or not all(type(n) is int and 0 <= n <= len(self.content) for n in shape):
            raise self.refusal("false header", f"declares an array larger than its {len(self.content)} bytes")
        if math.prod(shape) * dtype.itemsize != len(raw):
            what = f"declares an array of shape {shape} and dtype {dtype} over {len(raw)} bytes"
            raise self.refusal("false header", what)
        self.count_bytes(len(raw))
        array: np.ndarray = np.ndarray(shape, dtype, buffer=raw, order=order)
        array = array.astype(dtype.newbyteorder("="), copy=False)
        array.flags.writeable = False
        return array


def _check(file: _File) -> None:
    """Refuse all that no course pickle needs, and all that could cost `pickle.Unpickler` much time or memory.

    Texts and the types of all else are followed with the same effect on stack, marks and memo as the objects
    have in the unpickler.
    """
    stack: list[StackObject | str] = []
    below_marks: list[list[StackObject | str]] = []
    memo: list[StackObject | str] = []
    size = len(file.content)
    n_made, most_made, frame_end = 0, _FREE_OBJECTS + size // _BYTES_PER_OBJECT, 0
    argument: Any
    items: list[StackObject | str]
    stream = io.BytesIO(file.content)
    try:
        for opcode, argument, position in pickletools.genops(stream):
            name, file.position = opcode.name, position or 0
            if frame_end and file.position >= frame_end:
                # The unpickler loses the rest of a frame where an instruction goes beyond its end.
                if file.position > frame_end:
                    raise file.unreadable("an instruction goes beyond its frame")
                frame_end = 0
            if name in _LITERALS:
                stack.append(argument if opcode.stack_after[0] is pyunicode else opcode.stack_after[0])
            elif name == "MEMOIZE":
                memo.append(stack[-1])
            elif name in _MAKERS or name in _CHANGERS:
                taken, result = opcode.stack_before, opcode.stack_after[0]
                n, items = len(taken), []
                if markobject in taken:
                    n, items, stack = taken.index(markobject), stack, below_marks.pop()
                if n:
                    items = stack[-n:] + items
                    if len(stack) < n or (taken[0] in (pylist, pydict) and items[0] is not taken[0]):
                        raise file.unreadable(f"{name} without {' and '.join(type_.name for type_ in taken)}")
                    del stack[-n:]
                stack.append(result)
                n_made += name in _MAKERS
                if n_made > most_made:
                    raise file.refusal("too many objects", f"makes too many objects of its {size} bytes")
                if result is pydict:
                    # Text alone: hashes of forged numbers could collide, those of deep tuples recurse.
                    for key in items[n > 0 :: 2]:
                        if not isinstance(key, str):
                            raise file.wrong(f"has a dict whose key is {_described(key)}")
                elif result is pytuple:
                    if not _CONTAINERS.isdisjoint(items):
                        stack[-1] = _NESTED_TUPLE
                elif name == "STACK_GLOBAL" or name == "GLOBAL":
                    file.known(".".join(map(str, items)) if items else argument.replace(" ", ".", 1))
                elif result is anyobject and items[0] is not anyobject:
                    does = "calls" if name == "REDUCE" else "gives a state to"
                    raise file.refusal("forbidden call", f"{does} {_described(items[0])}")
            elif name in ("BINGET", "LONG_BINGET", "GET"):
                if not 0 <= argument < len(memo):
                    raise file.unreadable(f"object {_short(argument)} does not exist")
                stack.append(memo[argument])
                if stack[-1] in (pylist, _NESTED_TUPLE):
                    raise file.refusal("shared container", f"refers twice to {_described(stack[-1])}")
            elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
                # Python numbers its memo without gaps; the unpickler makes room up to any forged index.
                if not 0 <= argument <= len(memo):
                    raise file.refusal("memo index", f"numbers its object {len(memo)} as {_short(argument)}")
                memo[argument : argument + 1] = [stack[-1]]
            elif name == "MARK":
                if len(below_marks) == _MAX_OPEN_MARKS:
                    raise file.refusal("nested too deeply", f"nests content more than {_MAX_OPEN_MARKS} deep")
                below_marks.append(stack)
                stack = []
            elif name == "FRAME":
                if frame_end:
                    raise file.unreadable("a frame within a frame")
                frame_end = stream.tell() + argument
                if frame_end > size:
                    raise file.refusal("truncated", f"breaks off at its byte {size}")
            elif name == "PROTO":
                if argument > 5:
                    raise file.unreadable(f"protocol {argument}; known are 0 to 5")
            elif name == "STOP":
                if len(stack) != 1 or below_marks:
                    raise file.unreadable("marks or objects are left over")
            else:
                reasons = (reason for reason, names in _REFUSED.items() if name in names)
                asked = name if argument is None else f"{name} {_short(argument)}"
                raise file.refusal(next(reasons, "stray instruction"), f"asks for {asked}, which is not data")
    except IndexError as error:
        raise file.unreadable("too few objects") from error
    except ValueError as error:
        # Where an instruction, or its declared length, goes beyond the file, the parser has read it all.
        if stream.tell() == size and (file.position or file.content[:1] == b"\x80"):
            raise file.refusal("truncated", f"breaks off at its byte {size}") from error
        raise file.unreadable(error) from error
    if n_left := size - stream.tell():
        raise file.refusal("trailing bytes", f"goes on for {n_left} bytes after the end of its first pickle")


class _Unpickler(pickle.Unpickler):
    """Python's own reader, of a file that has been checked."""

    def __init__(self, file: _File):
        super().__init__(io.BytesIO(file.content))
        self.file = file

    def find_class(self, module: str, name: str) -> Any:
        return _Name(self.file, self.file.known(f"{module}.{name}"))


class _Name:
    """Stands in for a name. It has no attributes that a file could set, and takes no state."""

    __slots__ = ("file", "name")

    def __init__(self, file: _File, name: str):
        self.file, self.name = file, name

    def __call__(self, *arguments: Any) -> Any:
        match self.name, arguments:
            case "_reconstruct", (_Name(name="ndarray"), (0,), b"b"):
                return _Made(self.file, None)
            case "dtype", (str(code), _, _) if _DTYPE.fullmatch(code):
                return _Made(self.file, np.dtype(object if code[0] == "O" else code))
            case "dtype", (code, *_):
                raise self.file.refusal("forbidden dtype", f"has an array of dtype {_described(code)}")
            case "scalar", (_Made(value=np.dtype() as dtype), bytes(raw)):
                scalar = self.file.array(raw, (), dtype, "C")
                # numpy does not check text, and Python fails on forged characters: leave text as it is.
                return scalar.item() if scalar.dtype.kind in "fiub" else _Made(self.file, scalar)
            case "_frombuffer", (
                bytes() | bytearray() as raw,
                _Made(value=np.dtype() as dtype),
                tuple(shape),
                "C" | "F" as order,
            ):
                return _Made(self.file, self.file.array(raw, shape, dtype, order))
            case "encode", (str(text), "latin1"):
                self.file.count_bytes(len(text))
                return text.encode("latin1")
            case "bytes", ():
                return b""
        raise self.file.refusal("forbidden call", f"calls the name {self.name} with {_described(arguments)}")

    def __setstate__(self, state: object) -> None:
        raise self.file.refusal("forbidden call", f"gives a state to the name {self.name}")


class _Made:
    """What a call makes: a dtype, or an array: None until its state comes, a list where it holds objects."""

    __slots__ = ("file", "value")

    def __init__(self, file: _File, value: np.dtype | np.ndarray | None):
        self.file = file
        self.value: np.dtype | np.ndarray | list[Any] | None = value

    def __setstate__(self, state: object) -> None:
        match self.value, state:
            case np.dtype() as dtype, (3, "<" | ">" | "|" | "=" as byte_order, None, None, None, _, _, _):
                self.value = dtype.newbyteorder(byte_order)
            case np.dtype(), _:
                raise self.file.refusal("forbidden dtype", "has a dtype with fields or with metadata")
            case None, (1, (n,), _Made(value=np.dtype(kind="O")), _, list(items)) if n == len(items):
                if self in items:
                    raise self.file.refusal("shared container", "has an array that holds itself")
                self.value = items
            case None, (1, tuple(shape), _Made(value=np.dtype() as dtype), int(is_fortran), bytes(raw)):
                self.value = self.file.array(raw, shape, dtype, "F" if is_fortran else "C")
            case _:
                raise self.file.refusal("false header", "has an array whose state is no numeric array's")


# From plain content to clips


def _clips(content: Any, file: _File) -> list[PickledClip]:
    pairs: Iterable[tuple[Any, Any]]
    if isinstance(content, dict) and "audio_data" in content:
        audio, valences = _opened(content["audio_data"]), content.get("valence", _NO_VALENCE)
        if isinstance(audio, np.ndarray) and audio.ndim == 2:
            if audio.shape[1] < 3:
                what = "clips of fewer than three samples, or one clip as samples by channels"
                raise file.wrong(f"holds as 'audio_data' {_described(audio)}: {what}")
            audio = list(audio)
        elif not (
            isinstance(audio, list | tuple) and any(isinstance(i, list | tuple | _Made) for i in audio)
        ):
            clip = _clip(audio, valences, file)
            if clip.audio_problem is not None:
                raise file.wrong(f"holds no clip: {clip.audio_problem}")
            return [clip]
        valences = [_NO_VALENCE] * len(audio) if valences is _NO_VALENCE else _opened(valences)
        if isinstance(valences, np.ndarray) and valences.ndim and valences.dtype.kind in "fiub":
            valences = valences.reshape(-1).tolist()
        if not isinstance(valences, list | tuple) or len(valences) != len(audio):
            raise file.wrong(
                f"holds {len(audio)} clips as 'audio_data' and {_described(valences)} as 'valence'"
            )
        pairs = zip(audio, valences, strict=True)
    elif isinstance(content, list | tuple) and any(isinstance(entry, dict) for entry in content):
        pairs = (
            (entry["audio_data"], entry.get("valence", _NO_VALENCE))
            if isinstance(entry, dict) and "audio_data" in entry
            else (entry, _NO_ENTRY)
            for entry in content
        )
    else:
        raise file.wrong(f"holds {_described(content)}")
    # The same audio and valence may be in many places (oversampling): this is one clip for all of them, so
    # that a million references cost no more.
    clips: dict[tuple[int, int], PickledClip] = {}
    made: list[PickledClip] = []
    n_unusable = 0
    for samples, valence in pairs:
        key = id(samples), id(valence)
        if key not in clips:
            clips[key] = clip = _clip(samples, valence, file)
            n_unusable += clip.audio_problem is not None
            if n_unusable > _MAX_UNUSABLE:
                what = f"has over {_MAX_UNUSABLE} unlike entries without audio"
                raise file.wrong(f"{what} ({clip.audio_problem})")
        made.append(clips[key])
    return made


def _clip(audio_data: Any, valence: Any, file: _File) -> PickledClip:
    if valence is _NO_ENTRY:
        problem = f"expected a dict with 'audio_data', not {_described(audio_data)}"
        return PickledClip(_NO_AUDIO, None, problem)
    audio, audio_problem = _audio(_opened(audio_data), file)
    number, valence_problem = (None, None) if valence is _NO_VALENCE else _valence(_opened(valence))
    return PickledClip(audio, number, audio_problem, valence_problem)


def _audio(value: Any, file: _File) -> tuple[np.ndarray, str | None]:
    if isinstance(value, np.ndarray) and value.ndim == 1 and value.dtype.kind in "fiu":
        return value, None
    if isinstance(value, list | tuple):
        file.count_bytes(len(value))  # the same array of objects, or tuple, may be in many clips
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
    return value.value if isinstance(value, _Made) else value


def _short(value: object) -> str:
    """At most 80 characters, all of them printable: a message may end in a report."""
    return str(value)[:80].encode("unicode_escape").decode("ascii")


def _described(value: Any) -> str:
    """What stands there, in a few words whose length no file can drive up."""
    match _opened(value):
        case None:
            return "None"
        case np.ndarray() as array:
            return f"an array of dtype {array.dtype} and shape {array.shape}"
        case str(text):
            return f"str '{_short(text)}'"
        case int(number) if number.bit_length() > 64:
            return f"an int of {number.bit_length()} bits"
        case bool() | int() | float() as number:
            return f"{type(number).__name__} {number}"
        case dict() as found:
            return f"a dict with the keys {', '.join(map(_short, islice(found, 8))) or '(none)'}"
        case list() | tuple() | bytes() | bytearray() as sequence:
            return f"a {type(sequence).__name__} of {len(sequence)} items"
        case _Name(name=name):
            return f"the name {name}"
        case StackObject(name=name):
            return f"an object of type {name}"
    return "a dtype"
