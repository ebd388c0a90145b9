"""`read_course_pickle` against what Python and numpy write themselves, and against files made to do harm."""

import os
import pickle
import pickletools
import random
import struct
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from valence_lib.errors import ClipError, PickleRefused
from valence_lib.pickles import PickledClip, read_course_pickle

PROTOCOLS = range(6)
RAMP = np.arange(60) % 120
ARRAYS = {
    dtype: RAMP.astype(dtype)
    for dtype in (
        "<f4",
        ">f4",
        "<f8",
        ">f8",
        "<f2",
        "i1",
        "<i2",
        ">i2",
        "<i4",
        ">i8",
        "u1",
        "<u2",
        "u4",
        "u8",
    )
} | {
    "empty": np.empty(0, dtype="f4"),
    "every third": RAMP.astype("f4")[::3],
    "reversed": RAMP.astype("i2")[::-1],
    "a column": RAMP.astype("f4").reshape(20, 3)[:, 1],
    "read-only": np.frombuffer(RAMP.astype("f4").tobytes(), dtype="f4"),
}


def read(folder: Path, content: bytes, name: str = "00001.pkl") -> list[PickledClip]:
    (folder / name).write_bytes(content)
    return read_course_pickle(folder / name)


# What course pickles look like


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("kind", ARRAYS)
def test_one_clip_of_every_array_kind(tmp_path: Path, kind: str, protocol: int):
    written = ARRAYS[kind]
    (clip,) = read(tmp_path, pickle.dumps({"audio_data": written, "valence": 3.5}, protocol))
    np.testing.assert_array_equal(clip.audio, written)
    assert clip.audio.dtype == written.dtype.newbyteorder("=")
    assert not clip.audio.flags.writeable
    assert (clip.valence, clip.audio_problem, clip.valence_problem) == (3.5, None, None)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("core", ["core", "_core"])
def test_names_of_numpy_1_and_numpy_2(tmp_path: Path, core: str, protocol: int):
    written = ARRAYS["every third"]
    content = with_numpy_core(
        pickle.dumps({"audio_data": written, "valence": np.float32(2.5)}, protocol), core
    )
    named = {argument for _, argument, _ in pickletools.genops(content) if "multiarray" in str(argument)}
    assert named and all(str(argument).startswith(f"numpy.{core}.") for argument in named)
    (clip,) = read(tmp_path, content)
    np.testing.assert_array_equal(clip.audio, written)
    assert clip.valence == 2.5


def with_numpy_core(content: bytes, core: str) -> bytes:
    """The same pickle as another numpy would have written it: module names, and their lengths, replaced."""
    if content[2:3] == b"\x95":  # the frame's length would no longer hold, and frames are optional
        content = content[:2] + content[11:]
    for module in ("multiarray", "numeric"):
        target = f"numpy.{core}.{module}".encode()
        for source in (f"numpy._core.{module}".encode(), f"numpy.core.{module}".encode()):
            content = content.replace(
                b"\x8c" + bytes([len(source)]) + source, b"\x8c" + bytes([len(target)]) + target
            )
            content = content.replace(b"c" + source + b"\n", b"c" + target + b"\n")
    return content


VALENCES = {
    "int": 3,
    "float": 3.0,
    "float64 scalar": np.float64(3),
    "float16 scalar": np.float16(3),
    "big-endian scalar": np.array(3, dtype=">i4")[()],
    "uint8 scalar": np.uint8(3),
    "0-d array": np.array(3.0),
    "array of one": np.array([3], dtype="i2"),
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("kind", VALENCES)
def test_every_kind_of_number_is_a_valence(tmp_path: Path, kind: str, protocol: int):
    (clip,) = read(tmp_path, pickle.dumps({"audio_data": [0.5, 1], "valence": VALENCES[kind]}, protocol))
    assert type(clip.valence) is float
    assert clip.valence == 3.0


@pytest.mark.parametrize(
    ("valence", "problem"),
    [
        ("x", "not a number: str 'x'"),
        (None, "not a number: None"),
        (True, "not a number: bool True"),
        (np.True_, "not a number: bool True"),
        (10**400, "not a number: an int of 1329 bits"),
        ([3.0], "not a number: a list of 1 items"),
        (np.ones(2), "not a number: an array of dtype float64 and shape (2,)"),
        (np.str_("3"), "not a number: an array of dtype <U1 and shape ()"),
        (np.complex64(3), "not a number: an array of dtype complex64 and shape ()"),
    ],
)
def test_what_is_no_number_is_named(tmp_path: Path, valence: object, problem: str):
    content = pickle.dumps({"audio_data": [0.5, 1], "valence": valence})
    (clip,) = read(tmp_path, content)
    assert (clip.valence, clip.valence_problem) == (None, problem)
    assert clip.audio.tolist() == [0.5, 1.0]


def test_absent_valence_is_no_problem(tmp_path: Path):
    (clip,) = read(tmp_path, pickle.dumps({"audio_data": np.ones(3), "speaker": "s1"}))
    assert (clip.valence, clip.valence_problem) == (None, None)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    ("numbers", "dtype"),
    [
        ([1, 2, -3], "int64"),
        ([1, 2.5], "float64"),
        ((0.25, 0.5), "float64"),
        (list(np.float32([1, 2])), "float64"),
    ],
)
def test_python_lists(tmp_path: Path, numbers: list, dtype: str, protocol: int):
    (clip,) = read(tmp_path, pickle.dumps({"audio_data": numbers}, protocol))
    assert clip.audio.dtype == dtype
    assert clip.audio.tolist() == list(numbers)


def objects(*items: object) -> np.ndarray:
    array = np.empty(len(items), dtype=object)
    array[:] = items
    return array


ROWS = [np.arange(4.0), np.arange(4.0) + 10, np.arange(4.0) + 20]
MANY = {
    "list of dicts": [{"audio_data": row, "valence": i} for i, row in enumerate(ROWS)],
    "tuple of dicts": tuple({"audio_data": row, "valence": i} for i, row in enumerate(ROWS)),
    "columns": {"audio_data": ROWS, "valence": [0, 1.0, np.float32(2)]},
    "columns of lists": {"audio_data": [row.tolist() for row in ROWS], "valence": (0, 1, 2)},
    "object column": {"audio_data": objects(*ROWS), "valence": np.array([0, 1, 2], dtype=">i2")},
    "2-D": {"audio_data": np.stack(ROWS), "valence": np.array([[0], [1], [2]])},
    "2-D Fortran": {"audio_data": np.asfortranarray(np.stack(ROWS)), "valence": [0, 1, 2]},
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("kind", MANY)
def test_many_clips_in_one_pickle(tmp_path: Path, kind: str, protocol: int):
    clips = read(tmp_path, pickle.dumps(MANY[kind], protocol))
    assert [clip.valence for clip in clips] == [0.0, 1.0, 2.0]
    for clip, row in zip(clips, ROWS, strict=True):
        np.testing.assert_array_equal(clip.audio, row)


def test_columns_without_valence_and_of_unequal_length(tmp_path: Path):
    clips = read(tmp_path, pickle.dumps({"audio_data": [np.ones(2), np.ones(700)]}))
    assert [(len(clip.audio), clip.valence) for clip in clips] == [(2, None), (700, None)]


def test_one_bad_entry_does_not_lose_the_others(tmp_path: Path):
    entries = [
        {"audio_data": np.ones(3), "valence": 1},
        {"valence": 2},
        "nonsense",
        {"audio_data": "x", "valence": 2},
        {"audio_data": np.array([True, False])},
        {"audio_data": np.array(["a"])},
        {"audio_data": np.ones((2, 3))},
        {"audio_data": [1.0, None]},
        {"audio_data": [2**70]},
        {"audio_data": [0.5], "valence": 5},
    ]
    clips = read(tmp_path, pickle.dumps(entries))
    assert [clip.audio_problem for clip in clips] == [
        None,
        "expected a dict with 'audio_data', not a dict with the keys valence",
        "expected a dict with 'audio_data', not str 'nonsense'",
        "'audio_data' is str 'x', not 1-D real numbers",
        "'audio_data' is an array of dtype bool and shape (2,), not 1-D real numbers",
        "'audio_data' is an array of dtype <U1 and shape (1,), not 1-D real numbers",
        "'audio_data' is an array of dtype float64 and shape (2, 3), not 1-D real numbers",
        "'audio_data' is a list of 2 items, among them None",
        "'audio_data' is a list of 1 items, one of them too large for 64 bits",
        None,
    ]
    assert all(clip.audio.size == 0 for clip in clips if clip.audio_problem)
    assert (clips[0].valence, clips[-1].valence) == (1.0, 5.0)


def test_one_bad_row_does_not_lose_the_others(tmp_path: Path):
    clips = read(tmp_path, pickle.dumps({"audio_data": [None, np.ones(2)], "valence": [1, "x"]}))
    assert clips[0].audio_problem == "'audio_data' is None, not 1-D real numbers"
    assert (clips[1].audio.tolist(), clips[1].valence_problem) == ([1.0, 1.0], "not a number: str 'x'")


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (7, "int 7"),
        ([], "a list of 0 items"),
        ([1, 2], "a list of 2 items"),
        (np.ones(3), r"an array of dtype float64 and shape \(3,\)"),
        ({"audio": [1]}, "a dict with the keys audio"),
        ({0: {"audio_data": [1]}}, "key int 0"),
        ({"audio_data": None}, "'audio_data' is None"),
        ({"audio_data": np.ones((16, 1)), "valence": 3}, r"shape \(16, 1\).*samples by channels"),
        ({"audio_data": np.ones((2, 9)), "valence": 3}, "2 clips as 'audio_data' and int 3 as 'valence'"),
        ([{}, *range(10_001)], "over 10000 unlike entries without audio .*int 9999"),
        (
            {"audio_data": ROWS, "valence": [1, 2]},
            "3 clips as 'audio_data' and a list of 2 items as 'valence'",
        ),
    ],
)
def test_harmless_but_no_clips(tmp_path: Path, content: object, found: str):
    with pytest.raises(ClipError, match=found) as caught:
        read(tmp_path, pickle.dumps(content))
    assert caught.value.reason == "wrong type"
    assert not isinstance(caught.value, PickleRefused)
    assert "00001.pkl" in str(caught.value)


def test_references_are_shared_and_not_copied(tmp_path: Path):
    audio = np.zeros(250_000, dtype="f4")
    clip = {"audio_data": audio, "valence": 1.0}
    listed = {"audio_data": [0.5] * 1000, "valence": 1.0}
    for content in (
        [clip] * 100_000,
        [listed] * 100_000,
        {"audio_data": [audio] * 100_000, "valence": [1.0] * 100_000},
    ):
        clips = read(tmp_path, pickle.dumps(content))
        assert len(clips) == 100_000
        assert np.shares_memory(clips[0].audio, clips[-1].audio)


def test_absent_file_is_a_clip_error(tmp_path: Path):
    with pytest.raises(ClipError, match=r"none\.pkl cannot be read: No such file") as caught:
        read_course_pickle(tmp_path / "none.pkl")
    assert caught.value.reason == "unreadable"


# Files made to do harm, put together instruction by instruction


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def number(value: int) -> bytes:
    return pickle.dumps(value, 2)[2:-1]


def glob(module: str, name: str) -> bytes:
    return text(module) + text(name) + b"\x93"


def call(module: str, name: str, *arguments: bytes) -> bytes:
    return glob(module, name) + b"(" + b"".join(arguments) + b"tR"


def clip_with(audio: bytes) -> bytes:
    return b"\x80\x04}" + text("audio_data") + audio + b"s."


DTYPE_F8 = (
    call("numpy", "dtype", text("f8"), b"\x89", b"\x88")
    + b"(K\x03"
    + text("<")
    + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
)
EMPTY_ARRAY = call("numpy.core.multiarray", "_reconstruct", glob("numpy", "ndarray"), b"K\x00\x85", b"C\x01b")
TEN_GB = 10_000_000_000


def array(shape: bytes, dtype: bytes, raw: bytes) -> bytes:
    return EMPTY_ARRAY + b"(K\x01" + shape + dtype + b"\x89" + raw + b"tb"


def laughing(depth: int) -> bytes:
    """Each list holds the one before it twice: 2**depth items to whoever counts them out."""
    content = b"]q\x00K\x01a"
    for i in range(depth):
        content += b"]q" + bytes([i + 1]) + b"(h" + bytes([i]) + b"h" + bytes([i]) + b"e"
    return b"(" + content + b"l"


class Payload:
    def __init__(self, command: str):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


# What each does, from the shell command it would run; the reason it is refused for; what the message names.
Hostile = tuple[Callable[[str], bytes], str, str]
HOSTILE: dict[str, Hostile] = {
    f"os.system, protocol {protocol}": (
        lambda command, protocol=protocol: pickle.dumps(Payload(command), protocol),
        "forbidden global",
        f"asks for {os.system.__module__}.system",
    )
    for protocol in PROTOCOLS
}
HOSTILE |= {
    f"{module}.{name}": (
        lambda command, module=module, name=name: clip_with(call(module, name, text(command))),
        "forbidden global",
        f"asks for {module}.{name}",
    )
    for module, name in [
        ("os", "system"),
        ("os", "popen"),
        ("subprocess", "Popen"),
        ("builtins", "eval"),
        ("builtins", "exec"),
        ("builtins", "getattr"),
        ("builtins", "__import__"),
        ("__builtin__", "apply"),
        ("importlib", "import_module"),
        ("runpy", "run_path"),
        ("operator", "attrgetter"),
        ("copyreg", "_reconstructor"),
        ("pickle", "loads"),
        ("numpy", "load"),
        ("numpy", "fromfile"),
        ("numpy", "memmap"),
        ("numpy", "f2py.os.system"),
        ("numpy.f2py.diagnose", "run_command"),
        ("numpy.core", "multiarray._reconstruct.__globals__"),
        ("numpy.core.multiarray", "fromfile"),
        ("numpy.testing._private.utils", "runstring"),
        ("torch.storage", "_load_from_bytes"),
        ("_codecs", "decode"),
    ]
}
HOSTILE |= {
    "nested reduce": (
        lambda command: clip_with(
            call("numpy", "dtype", call("os", "system", text(command)), b"\x89", b"\x88")
        ),
        "forbidden global",
        "asks for os.system",
    ),
    "reduce in an object array": (
        lambda command: pickle.dumps({"audio_data": objects(Payload(command), 1)}),
        "forbidden global",
        f"asks for {os.system.__module__}.system",
    ),
    "reduce in a key nobody reads": (
        lambda command: pickle.dumps({"audio_data": [1.0], "note": Payload(command)}),
        "forbidden global",
        f"asks for {os.system.__module__}.system",
    ),
    "the name itself as clip": (lambda _: b"cos\nsystem\n.", "forbidden global", "asks for os.system"),
    "INST": (lambda command: b"(S'" + command.encode() + b"'\nios\nsystem\n.", "Python 2 string", "STRING"),
    "INST without arguments": (lambda _: b"(ios\nabort\n.", "class instance", "INST os abort"),
    "OBJ": (lambda command: b"(" + glob("numpy", "dtype") + text(command) + b"o.", "class instance", "OBJ"),
    "NEWOBJ": (
        lambda command: glob("numpy", "dtype") + text(command) + b"\x85\x81.",
        "class instance",
        "NEWOBJ",
    ),
    "NEWOBJ_EX": (
        lambda _: b"\x80\x04" + glob("numpy", "ndarray") + b")}\x92.",
        "class instance",
        "NEWOBJ_EX",
    ),
    "PERSID": (lambda command: b"P" + command.encode() + b"\n.", "persistent id", "PERSID"),
    "BINPERSID": (lambda command: text(command) + b"Q.", "persistent id", "BINPERSID"),
    "EXT1": (lambda _: b"\x80\x02\x82\x01.", "extension code", "EXT1 1"),
    "EXT2": (lambda _: b"\x80\x02\x83\x01\x00.", "extension code", "EXT2 1"),
    "EXT4": (lambda _: b"\x80\x02\x84\x01\x00\x00\x00.", "extension code", "EXT4 1"),
    "out-of-band buffer": (
        lambda _: pickle.dumps({"audio_data": np.ones(9)}, 5, buffer_callback=lambda _: None),
        "out-of-band buffer",
        "NEXT_BUFFER",
    ),
    "read-only buffer": (lambda _: b"\x80\x05\x97\x98.", "out-of-band buffer", "NEXT_BUFFER"),
    "text as function": (
        lambda command: text("os.system") + text(command) + b"\x85R.",
        "forbidden call",
        "os.system",
    ),
    "ndarray called": (
        lambda _: clip_with(call("numpy", "ndarray", number(TEN_GB) + b"\x85")),
        "forbidden call",
        "the name ndarray",
    ),
    "_reconstruct of a 10 GB shape": (
        lambda _: clip_with(
            call(
                "numpy._core.multiarray",
                "_reconstruct",
                glob("numpy", "ndarray"),
                number(TEN_GB) + b"\x85",
                b"C\x01b",
            )
        ),
        "forbidden call",
        "_reconstruct",
    ),
    "_reconstruct of another type": (
        lambda _: clip_with(
            call("numpy._core.multiarray", "_reconstruct", glob("numpy", "dtype"), b"K\x00\x85", b"C\x01b")
        ),
        "forbidden call",
        "_reconstruct",
    ),
    "bytes of 10 GB": (
        lambda _: clip_with(call("builtins", "bytes", number(TEN_GB))),
        "forbidden call",
        "bytes",
    ),
    "state of a 10 GB shape": (
        lambda _: clip_with(array(number(TEN_GB) + b"\x85", DTYPE_F8, b"C\x0812345678")),
        "false header",
        "declares an array",
    ),
    "state of a shape whose product overflows": (
        lambda _: clip_with(array(number(2**32) * 2 + b"\x86", DTYPE_F8, b"C\x00")),
        "false header",
        "declares an array",
    ),
    "state with a shape longer than its bytes": (
        lambda _: clip_with(array(b"K\x09\x85", DTYPE_F8, b"C\x0812345678")),
        "false header",
        "shape (9,) and dtype f8 over 8 bytes",
    ),
    "negative shape": (
        lambda _: clip_with(array(number(-1) + b"\x85", DTYPE_F8, b"C\x0812345678")),
        "false header",
        "declares an array",
    ),
    "negative shapes whose product fits": (
        lambda _: clip_with(array(number(-1) * 2 + b"\x86", DTYPE_F8, b"C\x0812345678")),
        "false header",
        "declares an array",
    ),
    "object array made of bytes": (
        lambda _: clip_with(
            array(b"K\x01\x85", call("numpy", "dtype", text("O8"), b"\x89", b"\x88"), b"C\x0812345678")
        ),
        "false header",
        "array of objects",
    ),
    "_frombuffer of a 10 GB shape": (
        lambda _: clip_with(
            call(
                "numpy.core.numeric",
                "_frombuffer",
                b"C\x0812345678",
                DTYPE_F8,
                number(TEN_GB) + b"\x85",
                text("C"),
            )
        ),
        "false header",
        "declares an array",
    ),
    "dtype V10000000000": (
        lambda _: clip_with(call("numpy", "dtype", text(f"V{TEN_GB}"), b"\x89", b"\x88")),
        "forbidden dtype",
        "V10000000000",
    ),
    "dtype by expression": (
        lambda _: clip_with(call("numpy", "dtype", text("f8,(10000000000,)f8"), b"\x89", b"\x88")),
        "forbidden dtype",
        "f8,(10000000000,)f8",
    ),
    "dtype with metadata": (
        lambda _: pickle.dumps(np.zeros(2, dtype=np.dtype("f8", metadata={"a": 1}))),
        "forbidden dtype",
        "metadata",
    ),
    "dtype with fields": (lambda _: pickle.dumps(np.zeros(2, dtype="f4,i2")), "forbidden dtype", "V6"),
    "state for a list": (lambda _: b"]}b.", "forbidden call", "gives a state to a list"),
    "state for a dict": (
        lambda _: b"}}" + text("__class__") + b"Nsb.",
        "forbidden call",
        "gives a state to a dict",
    ),
    "BINBYTES8 of 10 GB": (
        lambda _: clip_with(b"\x8e" + struct.pack("<Q", TEN_GB) + b"12"),
        "truncated",
        "breaks off",
    ),
    "BYTEARRAY8 of 10 GB": (
        lambda _: b"\x80\x05\x96" + struct.pack("<Q", TEN_GB) + b"12.",
        "truncated",
        "breaks off",
    ),
    "BINUNICODE8 beyond 64 bits": (
        lambda _: b"\x80\x04\x8d" + b"\xff" * 8 + b"12.",
        "not a readable pickle",
        "after byte 0",
    ),
    "LONG4 of 2 GB": (lambda _: b"\x80\x02\x8b\xff\xff\xff\x7f1.", "truncated", "breaks off"),
    "LONG4 of negative length": (
        lambda _: b"\x80\x02\x8b\xff\xff\xff\xff1.",
        "not a readable pickle",
        "after byte 0",
    ),
    "a decimal of a million digits": (
        lambda _: b"I" + b"9" * 10**6 + b"\n.",
        "not a readable pickle",
        "byte 0",
    ),
    "a frame of 10 GB": (
        lambda _: b"\x80\x04\x95" + struct.pack("<Q", TEN_GB) + b"]",
        "truncated",
        "breaks off",
    ),
    "huge memo index": (lambda _: b"\x80\x02]r\xff\xff\xff\x7f.", "memo index", "2147483647"),
    "huge memo index in text": (lambda _: b"]p99999999999999999999\n.", "memo index", "99999999999999999999"),
    "negative memo index": (lambda _: b"]p-1\n.", "memo index", "-1"),
    "absent memo index": (lambda _: b"\x80\x02h\x07.", "not a readable pickle", "object 7"),
    "billion laughs of lists": (lambda _: b"\x80\x02" + laughing(30) + b".", "shared container", "a list of"),
    "billion laughs of tuples": (
        lambda _: (
            b"\x80\x04K\x01\x85\x94"
            + b"".join(b"h" + bytes([i]) + b"h" + bytes([i]) + b"\x86\x94" for i in range(40))
            + b"."
        ),
        "shared container",
        "a tuple of",
    ),
    "a list in itself": (lambda _: b"\x80\x02]q\x00h\x00a.", "shared container", "a list of"),
    "an object array in itself": (
        lambda _: b"\x80\x04" + EMPTY_ARRAY + b"\x94h\x00.",
        "shared container",
        "an unfinished array",
    ),
    "one text encoded over and over": (
        lambda _: (
            glob("_codecs", "encode")
            + b"q\x00"
            + text("x" * 50_000)
            + text("latin1")
            + b"\x86q\x01R"
            + b"h\x00h\x01R" * 9_000
            + b"."
        ),
        "too many objects",
        "more than twice",
    ),
    "one buffer swapped over and over": (
        lambda _: b"".join(
            [
                b"\x80\x04",
                DTYPE_F8.replace(text("<"), text(">")),
                b"\x94B",
                struct.pack("<I", 8000),
                bytes(8000),
                b"\x94",
                number(1000),
                b"\x85\x94",
                glob("numpy.core.numeric", "_frombuffer"),
                b"\x94",
                text("C"),
                b"\x94",
                b"h\x03(h\x01h\x00h\x02h\x04tR" * 1000,
                b".",
            ]
        ),
        "too many objects",
        "more than twice",
    ),
    "a million empty lists": (lambda _: b"(" + b"]" * 10**6 + b"l.", "too many objects", "too many objects"),
    "a million empty dicts": (lambda _: b"(" + b"}" * 10**6 + b"t.", "too many objects", "too many objects"),
    "lists nested a million deep": (
        lambda _: b"]" * 10**6 + b"a" * (10**6 - 1) + b".",
        "too many objects",
        "objects",
    ),
    "tuples nested a million deep": (lambda _: b")" + b"\x85" * 10**6 + b".", "too many objects", "objects"),
    "marks nested a million deep": (
        lambda _: b"(" * 10**6 + b"t" * 10**6 + b".",
        "nested too deeply",
        "32 deep",
    ),
    "a set": (lambda _: pickle.dumps({1, 2}), "set", "EMPTY_SET"),
    "DUP": (lambda _: b"]2.", "stray instruction", "DUP"),
    "truncated": (lambda _: pickle.dumps({"audio_data": np.ones(99)})[:-1], "truncated", "breaks off"),
    "truncated in an array": (
        lambda _: pickle.dumps({"audio_data": np.ones(99)})[:300],
        "truncated",
        "breaks off",
    ),
    "a second pickle behind the first": (
        lambda command: pickle.dumps({"audio_data": [1.0]}) + pickle.dumps(Payload(command)),
        "trailing bytes",
        "after the end",
    ),
    "protocol 6": (lambda _: b"\x80\x06].", "not a readable pickle", "protocol 6"),
    "a mark left over": (lambda _: b"(].", "not a readable pickle", "mark"),
    "two results": (lambda _: b"]].", "not a readable pickle", "not a readable pickle"),
    "names that are no text": (lambda _: b"\x80\x04K\x01K\x02\x93.", "not a readable pickle", "no text"),
    "empty file": (lambda _: b"", "not a readable pickle", "begins with b''"),
    "a WAV file": (lambda _: b"RIFF\x24\x08\x00\x00WAVEfmt ", "not a readable pickle", "begins with b'RIFF"),
    "a text file": (lambda _: b"version https://git-lfs", "not a readable pickle", "begins with b'version"),
}


def test_the_payload_is_live(tmp_path: Path):
    marker = tmp_path / "marker"
    pickle.loads(HOSTILE["os.system, protocol 2"][0](f"echo > {marker}"))
    assert marker.exists()


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_file_is_refused_and_not_run(tmp_path: Path, kind: str):
    make, reason, named = HOSTILE[kind]
    marker = tmp_path / "marker"
    with pytest.raises(PickleRefused) as caught:
        read(tmp_path, make(f"echo > {marker}"), "evil.pkl")
    assert caught.value.reason == reason
    assert str(caught.value).startswith("evil.pkl ")
    assert named in str(caught.value)
    assert len(str(caught.value)) < 500
    assert not marker.exists()


# Linux hands a process the peak of the one that started it, so `ru_maxrss` alone could show pytest's.
READ_ALL = """
import codecs, resource, sys
from pathlib import Path
from valence_lib.errors import ClipError
from valence_lib.pickles import read_course_pickle

# Python imports its own codecs when first used; have that behind us before watching.
for codec in ("unicode_escape", "raw_unicode_escape", "latin1"):
    codecs.lookup(codec)
events = set()
watching = False
sys.addaudithook(lambda event, _: events.add(event) if watching else None)
reasons = []
for path in sorted(Path(sys.argv[1]).glob("*.pkl")):
    watching = True
    try:
        read_course_pickle(path)
        reason = "read"
    except ClipError as error:
        reason = error.reason
    watching = False
    reasons.append(reason)
try:
    status = Path("/proc/self/status").read_text()
    peak_mb = int(status.split("VmHWM:")[1].split()[0]) / 1024
except FileNotFoundError:
    unit = 2**20 if sys.platform == "darwin" else 2**10
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
print(round(peak_mb))
print(*sorted(events), sep=",")
print(*reasons, sep="\\n")
"""


def test_all_hostile_files_in_one_process_take_little_memory_and_touch_nothing(tmp_path: Path):
    marker = tmp_path / "marker"
    for i, (make, _, _) in enumerate(HOSTILE.values()):
        (tmp_path / f"{i:03}.pkl").write_bytes(make(f"echo > {marker}"))
    done = subprocess.run(
        [sys.executable, "-c", READ_ALL, str(tmp_path)],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    peak_mb, events, *reasons = done.stdout.splitlines()
    assert reasons == [reason for _, reason, _ in HOSTILE.values()]
    assert int(peak_mb) < 300
    # No import, no compile, no exec, no process, no find_class: the files are opened, and that is all.
    assert set(events.split(",")) <= {"open"}
    assert not marker.exists()


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_mutated_pickles_are_read_or_refused(tmp_path: Path, protocol: int):
    rng = random.Random(20 + protocol)
    goods = [
        pickle.dumps({"audio_data": np.arange(6, dtype=">i2"), "valence": np.float32(3)}, protocol),
        pickle.dumps({"audio_data": objects(np.ones(2), [1, 2.5]), "valence": [1, None]}, protocol),
        pickle.dumps(
            [{"audio_data": np.array(["a"]), "valence": np.str_("b")}, {"audio_data": (1, 2)}], protocol
        ),
    ]
    n_read = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # The standard library's parser warns so of Python 2 strings, which are refused right after.
        warnings.filterwarnings("ignore", message="invalid (octal )?escape|.* is an invalid (octal )?escape")
        for _ in range(800):
            content = bytearray(rng.choice(goods))
            for _ in range(rng.choice((1, 1, 2, 8))):
                at = rng.randrange(len(content))
                match rng.randrange(4):
                    case 0:
                        content[at] = rng.randrange(256)
                    case 1:
                        del content[at : at + rng.choice((1, 4))]
                    case 2:
                        content.insert(
                            at, rng.choice(b"()]}.0abcdehilopqrstuGIJKMNRX\x81\x85\x86\x87\x93\x94\x95\x96")
                        )
                    case 3:
                        content[at:at] = content[at // 2 : at // 2 + rng.randrange(20)]
            try:
                clips = read(tmp_path, bytes(content))
            except ClipError:
                continue
            n_read += 1
            assert all(clip.audio.ndim == 1 and clip.audio.dtype.kind in "fiu" for clip in clips)
            assert all(clip.valence is None or type(clip.valence) is float for clip in clips)
    assert 0 < n_read < 800
