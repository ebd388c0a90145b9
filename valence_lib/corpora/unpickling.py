"""Follow the instructions of a pickle without running anything that is in it.

A pickle is a program: `pickle.load` imports and calls whatever its writer wished. Here `pickletools.genops`
lists the instructions, and `Unpickler.load` follows them with plain numbers, strings, lists and dicts.
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
from typing import Any

import numpy as np

from valence_lib.errors import ClipError, PickleRefused

_EXPECTED = (
    "expected a dict with 'audio_data' (1-D numbers) and perhaps 'valence' (a number), a list of such "
    "dicts, or a dict of columns 'audio_data' and 'valence' of equal length"
)
_MEND = "Only numbers, strings, lists, dicts and numeric numpy arrays are read; save the clip as these alone."

# All that a file may ask for by name, and the case of `Unpickler.call` for it.
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


@dataclass(frozen=True, eq=False, slots=True)
class _Name:
    """One of the names of `_KNOWN`."""

    name: str


@dataclass(eq=False, slots=True)
class Built:
    """What a call makes: a dtype, or an array: None until its state comes, a list where it holds objects."""

    value: np.dtype | np.ndarray | list[Any] | None


class Unpickler:
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
                    raise self._unreadable("an instruction goes beyond its frame")
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
                        raise self._refusal("memo index", f"numbers object {len(memo)} as {_short(argument)}")
                    memo[argument : argument + 1] = [stack[-1]]
                elif name in ("BINGET", "LONG_BINGET", "GET"):
                    if not 0 <= argument < len(memo):
                        raise self._unreadable(f"object {_short(argument)} does not exist")
                    stack.append(memo[argument])
                    inside = stack[-1] if isinstance(stack[-1], tuple) else ()
                    if isinstance(stack[-1], list) or any(isinstance(i, list | tuple | dict) for i in inside):
                        raise self._refusal("shared container", f"refers twice to {text_of(stack[-1])}")
                elif name == "FRAME":
                    if frame_end:
                        raise self._unreadable("a frame within a frame")
                    frame_end = stream.tell() + argument
                    if frame_end > size:
                        raise self._refusal("truncated", f"breaks off at its byte {size}")
                elif name == "PROTO":
                    if argument > pickle.HIGHEST_PROTOCOL:
                        raise self._unreadable(f"protocol {argument}")
                elif name != "STOP":
                    n_objects_left -= name not in _CHANGERS
                    if n_objects_left < 0:
                        raise self._refusal("too many objects", f"makes too many objects of its {size} bytes")
                    if name == "MARK":
                        below_marks.append(stack)
                        stack = []
                        continue
                    n_before, items = len(opcode.stack_before), []
                    if pickletools.markobject in opcode.stack_before:
                        n_before = opcode.stack_before.index(pickletools.markobject)
                        items, stack = stack, below_marks.pop()
                    items = [stack.pop() for _ in range(n_before)][::-1] + items
                    stack.append(self._follow(name, argument, items))
                    # A number's scalar, which takes no more memory than a literal, is none of these objects.
                    n_objects_left += name == "REDUCE" and isinstance(stack[-1], int | float)
        except IndexError as error:
            raise self._unreadable("too few objects") from error
        except ValueError as error:
            # Where an instruction, or its declared length, goes beyond the file, the parser has read it all.
            if stream.tell() == size and (self.position or self.content[:1] == b"\x80"):
                raise self._refusal("truncated", f"breaks off at its byte {size}") from error
            raise self._unreadable(error) from error
        if len(stack) != 1 or below_marks:
            raise self._unreadable("marks or objects are left over")
        if n_left := size - stream.tell():
            raise self._refusal("trailing bytes", f"goes on for {n_left} bytes after its end")
        return stack[0]

    def _follow(self, name: str, argument: Any, items: list[Any]) -> Any:
        """What one instruction makes or changes of the items that it takes from the stack."""
        match name, items:
            case "EMPTY_LIST" | "LIST", _:
                return items
            case "EMPTY_TUPLE" | "TUPLE" | "TUPLE1" | "TUPLE2" | "TUPLE3", _:
                return tuple(items)
            case "EMPTY_DICT" | "DICT", _:
                return self._with_items({}, items)
            case "APPEND" | "APPENDS", [list(found), *new]:
                found += new
                return found
            case "SETITEM" | "SETITEMS", [dict(found), *new]:
                return self._with_items(found, new)
            case "GLOBAL" | "STACK_GLOBAL", _ if all(isinstance(item, str) for item in items):
                asked = ".".join(items) or argument.replace(" ", ".", 1)
                if asked not in _KNOWN:
                    raise self._refusal("forbidden global", f"asks for {_short(asked)}; nothing was run")
                return _Name(_KNOWN[asked])
            case "REDUCE", [_Name(name=called), tuple(arguments)]:
                return self._call(called, arguments)
            case "BUILD", [Built() as made, state]:
                made.value = self._with_state(made.value, state)
                return made
            case "REDUCE" | "BUILD", [target, given]:
                does = "calls" if name == "REDUCE" else "gives a state to"
                raise self._refusal("forbidden call", f"{does} {text_of(target)} with {text_of(given)}")
        asked = name if argument is None else f"{name} {_short(argument)}"
        raise self._refusal("forbidden instruction", f"asks for {asked}, which is not data")

    def _with_items(self, found: dict[str, Any], items: list[Any]) -> dict[str, Any]:
        # Text alone: hashes of forged numbers could collide, those of deep tuples recurse.
        for key in items[::2]:
            if not isinstance(key, str):
                raise self.wrong(f"has a dict whose key is {text_of(key)}")
        found.update(zip(items[::2], items[1::2], strict=True))
        return found

    def _call(self, name: str, arguments: tuple) -> Any:
        match name, arguments:
            case "_reconstruct", (_Name(name="ndarray"), (0,), b"b"):
                return Built(None)
            case "dtype", (str(code), _, _) if _DTYPE.fullmatch(code):
                return Built(np.dtype(object if code[0] == "O" else code))
            case "dtype", (code, *_):
                raise self._refusal("forbidden dtype", f"has an array of dtype {text_of(code)}")
            case "scalar", (Built(value=np.dtype() as dtype), bytes(raw)):
                scalar = self._array(raw, (), dtype, "C")
                # numpy does not check text, and Python fails on forged characters: leave text as it is.
                return scalar.item() if scalar.dtype.kind in "fiub" else Built(scalar)
            case "_frombuffer", (bytes() | bytearray() as raw, Built(value=np.dtype() as dtype), shape, o):
                return Built(self._array(raw, shape, dtype, order=o))
            case "encode", (str(text), "latin1"):
                self.count_bytes(len(text))
                return text.encode("latin1")
            case "bytes", ():
                return b""
        raise self._refusal("forbidden call", f"calls the name {name} with {text_of(arguments)}")

    def _with_state(self, value: Any, state: Any) -> np.dtype | np.ndarray | list[Any]:
        match value, state:
            case np.dtype() as dtype, (3, "<" | ">" | "|" | "=" as byte_order, None, None, None, _, _, _):
                return dtype.newbyteorder(byte_order)
            case np.dtype(), _:
                raise self._refusal("forbidden dtype", "has a dtype with fields or with metadata")
            case None, (1, (n,), Built(value=np.dtype(kind="O")), _, list(items)) if n == len(items):
                if any(isinstance(item, Built) and item.value is None for item in items):
                    raise self._refusal("shared container", "has an array that holds itself")
                return items
            case None, (1, shape, Built(value=np.dtype() as dtype), is_fortran, bytes(raw)):
                return self._array(raw, shape, dtype, "F" if is_fortran else "C")
        raise self._refusal("false header", "has an array whose state is no numeric array's")

    def _array(self, raw: bytes | bytearray, shape: Any, dtype: np.dtype, order: Any) -> np.ndarray:
        # First the sizes, in exact integers: numpy is called only with what the file really holds.
        fits = type(shape) is tuple and len(shape) <= 32 and dtype.kind != "O" and order in ("C", "F")
        fits = fits and all(type(n) is int and 0 <= n <= len(self.content) for n in shape)
        if not fits or math.prod(shape) * dtype.itemsize != len(raw):
            what = f"declares an array of dtype {dtype} whose shape does not fit its {len(raw)} bytes"
            raise self._refusal("false header", what)
        self.count_bytes(len(raw))
        array: np.ndarray = np.ndarray(shape, dtype, buffer=raw, order=order)
        array = array.astype(dtype.newbyteorder("="), copy=False)
        array.flags.writeable = False
        return array

    def count_bytes(self, n: int) -> None:
        """Count bytes that are made of the file; refuse a file of which more than twice its own are made."""
        # Twice, since protocols 0 to 2 carry bytes as text that is encoded first and made an array then.
        self.n_bytes_made += n
        if self.n_bytes_made > 2 * len(self.content):
            raise self._refusal("too many objects", f"unpacks its {len(self.content)} bytes more than twice")

    def _refusal(self, reason: str, what: str) -> PickleRefused:
        return PickleRefused(reason, f"{self.name} {what}. {_MEND}")

    def _unreadable(self, problem: object) -> PickleRefused:
        begin = f"it begins with {self.content[:12]!r} and makes no sense after byte {self.position}"
        return self._refusal(
            "not a readable pickle", f"is not a readable pickle: {begin} ({_short(problem)})"
        )

    def wrong(self, what: str) -> ClipError:
        """The error for data that are no clips: the file's name, what it does, and what is expected."""
        return ClipError("wrong type", f"{self.name} {what}; {_EXPECTED}.")


def opened(value: Any) -> Any:
    """The value of a `Built`, or a value that needed no call as it is."""
    return value.value if isinstance(value, Built) else value


def _short(value: object) -> str:
    """At most 80 characters, all of them printable: a message may end in a report."""
    return str(value)[:80].encode("unicode_escape").decode("ascii")


def text_of(value: Any) -> str:
    """What a value is, in a few words whose length no file can drive up."""
    match opened(value):
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
