"""Read course pickles without running anything that is in them.

A pickle is a program: `pickle.load` imports and calls whatever its writer wished. Here `pickletools.genops`
lists the instructions, and `_Pickle.load` follows them with plain numbers, strings, lists, tuples and dicts.
The names that numpy arrays need (`_KNOWN`) become stand-ins whose arguments are checked. All else is refused.

Memory and time stay in proportion to the file: every declared length is checked against the bytes that are
there, all arrays together take at most twice the bytes of the file, and the number of objects is limited.

Source: the instructions are those of the standard library's `pickletools`, the arrays' states those of
`numpy.ndarray.__reduce_ex__` under numpy 1 and 2.
"""

import io
import math
import pickle
import pickletools
import re
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
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

# All that a file may ask for by name, and the case of `_Pickle.call` for it.
_KNOWN = {
    f"{core}.{module}": module.split(".")[1]
    for core in ("numpy.core", "numpy._core")
    for module in ("multiarray._reconstruct", "multiarray.scalar", "numeric._frombuffer")
}
_KNOWN |= {"numpy.ndarray": "ndarray", "numpy.dtype": "dtype", "_codecs.encode": "encode"}
_KNOWN |= {"builtins.bytes": "bytes", "__builtin__.bytes": "bytes"}

# Instructions whose argument is a number, a text or bytes.
_LITERALS = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
    *("SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_CHANGERS = ("APPEND", "APPENDS", "SETITEM", "SETITEMS", "BUILD")
# Fixed-size kinds that are plain bytes; text and complex numbers only to be reported as a wrong type.
_DTYPE = re.compile(r"f[248]|[iu][1248]|b1|c8|c16|[SU][1-9]\d{0,4}|O[48]")

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

    Accepted, in any pickle protocol from 0 to 5 and written under numpy 1 or 2: one dict
    {'audio_data': numbers, 'valence': number}, where 'valence' may be absent; a list or tuple of such dicts;
    a dict of columns, {'audio_data': sequence of 1-D audio, or 2-D array with one row a clip, 'valence':
    numbers}. Other keys are ignored. In a list or in columns, a clip that cannot be used has its own
    `audio_problem` or `valence_problem` and does not affect the others.

    Returns:
        The clips; one that the file refers to in several places is the same object in all of them.

    Raises:
        PickleRefused: The file asks for anything else than data, or is no complete pickle.
        ClipError: The file cannot be opened ("unreadable") or holds something else ("wrong type").
    """
    try:
        file = _Pickle(path.name, path.read_bytes())
    except OSError as error:
        raise ClipError("unreadable", f"{path.name} cannot be read: {error.strerror}.") from error
    return _clips(_opened(file.load()), file)


@dataclass(frozen=True, eq=False, slots=True)
class _Name:
    """One of the names of `_KNOWN`."""

    name: str


@dataclass(eq=False, slots=True)
class _Made:
    """What a call makes: a dtype, or an array: None until its state comes, a list where it holds objects."""

    value: np.dtype | np.ndarray | list[Any] | None


class _Pickle:
    """The bytes of one pickle, how far they have been followed, and how many bytes were made of them."""

    def __init__(self, name: str, content: bytes):
        self.name, self.content = name, content
        self.position = self.n_bytes_made = 0

    def load(self) -> Any:
        """Follow the instructions and return what the pickle holds."""
        stack: list[Any] = []
        below_marks: list[list[Any]] = []
        memo: list[Any] = []
        argument: Any
        size, stream = len(self.content), io.BytesIO(self.content)
        frame_end = 0  # outside of a frame
        n_objects_left = _FREE_OBJECTS + size // _BYTES_PER_OBJECT
        try:
            for opcode, argument, position in pickletools.genops(stream):
                name, self.position = opcode.name, position or 0
                if frame_end and self.position > frame_end:
                    raise self.unreadable("an instruction goes beyond its frame")
                if self.position == frame_end:
                    frame_end = 0
                if name in _LITERALS:
                    stack.append(argument)
                elif name in _CONSTANTS:
                    stack.append(_CONSTANTS[name])
                elif name == "MEMOIZE":
                    memo.append(stack[-1])
                elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
                    if not 0 <= argument <= len(memo):  # Python numbers its memo without gaps
                        raise self.refusal("memo index", f"numbers object {len(memo)} as {_short(argument)}")
                    memo[argument : argument + 1] = [stack[-1]]
                elif name in ("BINGET", "LONG_BINGET", "GET"):
                    if not 0 <= argument < len(memo):
                        raise self.unreadable(f"object {_short(argument)} does not exist")
                    stack.append(memo[argument])
                    inside = stack[-1] if isinstance(stack[-1], tuple) else ()
                    if isinstance(stack[-1], list) or any(isinstance(i, list | tuple | dict) for i in inside):
                        raise self.refusal("shared container", f"refers twice to {_text(stack[-1])}")
                elif name == "FRAME":
                    if frame_end:
                        raise self.unreadable("a frame within a frame")
                    frame_end = stream.tell() + argument
                    if frame_end > size:
                        raise self.refusal("truncated", f"breaks off at its byte {size}")
                elif name == "PROTO":
                    if argument > pickle.HIGHEST_PROTOCOL:
                        raise self.unreadable(f"protocol {argument}")
                elif name != "STOP":
                    n_objects_left -= name not in _CHANGERS
                    if n_objects_left < 0:
                        raise self.refusal("too many objects", f"makes too many objects of its {size} bytes")
                    if name == "MARK":
                        below_marks.append(stack)
                        stack = []
                        continue
                    n_before, items = len(opcode.stack_before), []
                    if pickletools.markobject in opcode.stack_before:
                        n_before = opcode.stack_before.index(pickletools.markobject)
                        items, stack = stack, below_marks.pop()
                    items = [stack.pop() for _ in range(n_before)][::-1] + items
                    stack.append(self.follow(name, argument, items))
        except IndexError as error:
            raise self.unreadable("too few objects") from error
        except ValueError as error:
            # Where an instruction, or its declared length, goes beyond the file, the parser has read it all.
            if stream.tell() == size and (self.position or self.content[:1] == b"\x80"):
                raise self.refusal("truncated", f"breaks off at its byte {size}") from error
            raise self.unreadable(error) from error
        if len(stack) != 1 or below_marks:
            raise self.unreadable("marks or objects are left over")
        if n_left := size - stream.tell():
            raise self.refusal("trailing bytes", f"goes on for {n_left} bytes after its end")
        return stack[0]

    def follow(self, name: str, argument: Any, items: list[Any]) -> Any:
        """What one instruction makes or changes of the items that it takes from the stack."""
        match name, items:
            case "EMPTY_LIST" | "LIST", _:
                return items
            case "EMPTY_TUPLE" | "TUPLE" | "TUPLE1" | "TUPLE2" | "TUPLE3", _:
                return tuple(items)
            case "EMPTY_DICT" | "DICT", _:
                return self.with_items({}, items)
            case "APPEND" | "APPENDS", [list(found), *new]:
                found += new
                return found
            case "SETITEM" | "SETITEMS", [dict(found), *new]:
                return self.with_items(found, new)
            case "GLOBAL" | "STACK_GLOBAL", _ if all(isinstance(item, str) for item in items):
                asked = ".".join(items) or argument.replace(" ", ".", 1)
                if asked not in _KNOWN:
                    raise self.refusal("forbidden global", f"asks for {_short(asked)}; nothing was run")
                return _Name(_KNOWN[asked])
            case "REDUCE", [_Name(name=called), tuple(arguments)]:
                return self.call(called, arguments)
            case "BUILD", [_Made() as made, state]:
                made.value = self.with_state(made.value, state)
                return made
            case "REDUCE" | "BUILD", [target, given]:
                does = "calls" if name == "REDUCE" else "gives a state to"
                raise self.refusal("forbidden call", f"{does} {_text(target)} with {_text(given)}")
        asked = name if argument is None else f"{name} {_short(argument)}"
        raise self.refusal("forbidden instruction", f"asks for {asked}, which is not data")

    def with_items(self, found: dict[str, Any], items: list[Any]) -> dict[str, Any]:
        # Text alone: hashes of forged numbers could collide, those of deep tuples recurse.
        for key in items[::2]:
            if not isinstance(key, str):
                raise self.wrong(f"has a dict whose key is {_text(key)}")
        found.update(zip(items[::2], items[1::2], strict=True))
        return found

    def call(self, name: str, arguments: tuple) -> Any:
        match name, arguments:
            case "_reconstruct", (_Name(name="ndarray"), (0,), b"b"):
                return _Made(None)
            case "dtype", (str(code), _, _) if _DTYPE.fullmatch(code):
                return _Made(np.dtype(object if code[0] == "O" else code))
            case "dtype", (code, *_):
                raise self.refusal("forbidden dtype", f"has an array of dtype {_text(code)}")
            case "scalar", (_Made(value=np.dtype() as dtype), bytes(raw)):
                scalar = self.array(raw, (), dtype, "C")
                # numpy does not check text, and Python fails on forged characters: leave text as it is.
                return scalar.item() if scalar.dtype.kind in "fiub" else _Made(scalar)
            case "_frombuffer", (bytes() | bytearray() as raw, _Made(value=np.dtype() as dtype), shape, o):
                return _Made(self.array(raw, shape, dtype, order=o))
            case "encode", (str(text), "latin1"):
                self.count_bytes(len(text))
                return text.encode("latin1")
            case "bytes", ():
                return b""
        raise self.refusal("forbidden call", f"calls the name {name} with {_text(arguments)}")

    def with_state(self, value: Any, state: Any) -> np.dtype | np.ndarray | list[Any]:
        match value, state:
            case np.dtype() as dtype, (3, "<" | ">" | "|" | "=" as byte_order, None, None, None, _, _, _):
                return dtype.newbyteorder(byte_order)
            case np.dtype(), _:
                raise self.refusal("forbidden dtype", "has a dtype with fields or with metadata")
            case None, (1, (n,), _Made(value=np.dtype(kind="O")), _, list(items)) if n == len(items):
                if any(isinstance(item, _Made) and item.value is None for item in items):
                    raise self.refusal("shared container", "has an array that holds itself")
                return items
            case None, (1, shape, _Made(value=np.dtype() as dtype), is_fortran, bytes(raw)):
                return self.array(raw, shape, dtype, "F" if is_fortran else "C")
        raise self.refusal("false header", "has an array whose state is no numeric array's")

    def array(self, raw: bytes | bytearray, shape: Any, dtype: np.dtype, order: Any) -> np.ndarray:
        # First the sizes, in exact integers: numpy is called only with what the file really holds.
        fits = type(shape) is tuple and len(shape) <= 32 and dtype.kind != "O" and order in ("C", "F")
        fits = fits and all(type(n) is int and 0 <= n <= len(self.content) for n in shape)
        if not fits or math.prod(shape) * dtype.itemsize != len(raw):
            what = f"declares an array of dtype {dtype} whose shape does not fit its {len(raw)} bytes"
            raise self.refusal("false header", what)
        self.count_bytes(len(raw))
        array: np.ndarray = np.ndarray(shape, dtype, buffer=raw, order=order)
        array = array.astype(dtype.newbyteorder("="), copy=False)
        array.flags.writeable = False
        return array

    def count_bytes(self, n: int) -> None:
        # Twice, since protocols 0 to 2 carry bytes as text that is encoded first and made an array then.
        self.n_bytes_made += n
        if self.n_bytes_made > 2 * len(self.content):
            raise self.refusal("too many objects", f"unpacks its {len(self.content)} bytes more than twice")

    def refusal(self, reason: str, what: str) -> PickleRefused:
        return PickleRefused(reason, f"{self.name} {what}. {_MEND}")

    def unreadable(self, problem: object) -> PickleRefused:
        begin = f"it begins with {self.content[:12]!r} and makes no sense after byte {self.position}"
        return self.refusal("not a readable pickle", f"is not a readable pickle: {begin} ({_short(problem)})")

    def wrong(self, what: str) -> ClipError:
        return ClipError("wrong type", f"{self.name} {what}; {_EXPECTED}.")


def _clips(content: Any, file: _Pickle) -> list[PickledClip]:
    match content:
        case {"audio_data": audio}:
            pairs = _columns(_opened(audio), _opened(content.get("valence", _NO_VALENCE)), file)
        case list() | tuple() if any(isinstance(entry, dict) for entry in content):
            pairs = [
                (entry["audio_data"], entry.get("valence", _NO_VALENCE))
                if isinstance(entry, dict) and "audio_data" in entry
                else (entry, _NO_ENTRY)
                for entry in content
            ]
        case _:
            raise file.wrong(f"holds {_text(content)}")
    # An audio and valence in many places (oversampling) are one clip: a million references cost no more.
    clips: dict[tuple[int, int], PickledClip] = {}
    n_unusable = 0
    for audio, valence in pairs:
        key = id(audio), id(valence)
        if key not in clips:
            clips[key] = _clip(audio, valence, file)
            problem = clips[key].audio_problem
            n_unusable += problem is not None
            if problem and (len(pairs) == 1 or n_unusable > _MAX_UNUSABLE):
                raise file.wrong(f"holds {n_unusable} of {len(pairs)} clips without audio: {problem}")
    return [clips[id(audio), id(valence)] for audio, valence in pairs]


def _columns(audio: Any, valence: Any, file: _Pickle) -> list[tuple[Any, Any]]:
    """Audio and valence of each clip: the rows of the two columns, or the two values of one clip."""
    if isinstance(audio, np.ndarray) and audio.ndim == 2:
        if audio.shape[1] < 3:
            what = "clips of fewer than three samples, or one clip as samples by channels"
            raise file.wrong(f"holds as 'audio_data' {_text(audio)}: {what}")
        audio = list(audio)
    elif not (isinstance(audio, list | tuple) and any(isinstance(i, list | tuple | _Made) for i in audio)):
        return [(audio, valence)]
    if valence is _NO_VALENCE:
        return [(row, valence) for row in audio]
    if isinstance(valence, np.ndarray) and valence.ndim and valence.dtype.kind in "fiub":
        valence = valence.reshape(-1).tolist()
    if not isinstance(valence, list | tuple) or len(valence) != len(audio):
        raise file.wrong(f"holds {len(audio)} clips as 'audio_data' and {_text(valence)} as 'valence'")
    return list(zip(audio, valence, strict=True))


def _clip(audio: Any, valence: Any, file: _Pickle) -> PickledClip:
    audio, valence = _opened(audio), _opened(valence)
    number = problem = valence_problem = None
    if valence is _NO_ENTRY:
        problem = f"expected a dict with 'audio_data', not {_text(audio)}"
    elif isinstance(audio, list | tuple):
        audio, problem = _from_list(audio, file)
    elif not (isinstance(audio, np.ndarray) and audio.ndim == 1 and audio.dtype.kind in "fiu"):
        problem = f"'audio_data' is {_text(audio)}, not 1-D real numbers"
    if isinstance(valence, np.ndarray) and valence.size == 1 and valence.dtype.kind in "fiu":
        valence = valence.item()
    if type(valence) is float or (type(valence) is int and valence.bit_length() < 1024):
        number = float(valence)
    elif valence is not _NO_VALENCE and valence is not _NO_ENTRY:
        valence_problem = f"not a number: {_text(valence)}"
    return PickledClip(audio if problem is None else _NO_AUDIO, number, problem, valence_problem)


def _from_list(values: list | tuple, file: _Pickle) -> tuple[np.ndarray, str | None]:
    file.count_bytes(len(values))  # the same array of objects, or tuple, may be in many clips
    kinds = set(map(type, values))
    if kinds <= {int, float}:
        try:
            audio = np.array(values, dtype=np.int64 if kinds == {int} else np.float64)
        except OverflowError:
            return _NO_AUDIO, f"'audio_data' is {_text(values)}, one of them too large for 64 bits"
        audio.flags.writeable = False
        return audio, None
    stranger = next(item for item in values if type(item) not in (int, float))
    return _NO_AUDIO, f"'audio_data' is {_text(values)}, among them {_text(stranger)}"


def _opened(value: Any) -> Any:
    return value.value if isinstance(value, _Made) else value


def _short(value: object) -> str:
    """At most 80 characters, all of them printable: a message may end in a report."""
    return str(value)[:80].encode("unicode_escape").decode("ascii")


def _text(value: Any) -> str:
    """What a value is, in a few words whose length no file can drive up."""
    match _opened(value):
        case np.ndarray() as array:
            return f"an array of dtype {array.dtype} and shape {array.shape}"
        case str(text):
            return f"str '{_short(text)}'"
        case int(number) if number.bit_length() > 64:
            return f"an int of {number.bit_length()} bits"
        case None | int() | float() as constant:
            return str(constant)
        case dict() as found:
            return f"a dict with the keys {', '.join(map(_short, islice(found, 8))) or '(none)'}"
        case list() | tuple() | bytes() | bytearray() as sequence:
            return f"a {type(sequence).__name__} of {len(sequence)} items"
        case _Name(name=name):
            return f"the name {name}"
    return "a dtype"
