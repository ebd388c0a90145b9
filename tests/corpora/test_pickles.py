"""`read_course_pickle` against what Python and numpy write themselves, and against files made to do harm."""

import math
import os
import pickle
import pickletools
import random
import re
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from valence_lib.corpora.pickles import PickledClip, read_course_pickle
from valence_lib.errors import ClipError, PickleRefused

PROTOCOLS = range(6)
RAMP = np.arange(60) % 120
ARRAYS = {
    dtype: RAMP.astype(dtype)
    for dtype in ("<f4", ">f4", "<f8", "<f2", "i1", ">i2", "<i4", ">i8", "u1", "<u2", "u4", "u8")
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
    (clip,) = read(tmp_path, pickle.dumps({"audio_data": written, "valence": 3.5, "sex": "F"}, protocol))
    np.testing.assert_array_equal(clip.audio, written)
    assert clip.audio.dtype == written.dtype.newbyteorder("=")
    assert not clip.audio.flags.writeable
    assert (clip.valence, clip.audio_problem, clip.valence_problem) == (3.5, None, None)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_names_of_numpy_1(tmp_path: Path, protocol: int):
    written = ARRAYS["every third"]
    content = pickle.dumps({"audio_data": written, "valence": np.float32(2.5)}, protocol)
    if protocol >= 4:  # the frame's length would no longer hold, and frames are optional
        content = content[:2] + content[11:]
    # There, a name begins with its length.
    content = re.sub(rb"(?s)\x8c(.)numpy\._core", lambda m: b"\x8c%cnumpy.core" % (m[1][0] - 1), content)
    content = content.replace(b"cnumpy._core", b"cnumpy.core")
    named = {argument for _, argument, _ in pickletools.genops(content) if "multiarray" in str(argument)}
    assert named and all(str(argument).startswith("numpy.core.") for argument in named)
    (clip,) = read(tmp_path, content)
    np.testing.assert_array_equal(clip.audio, written)
    assert clip.valence == 2.5


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_kind_of_number_is_a_valence(tmp_path: Path, protocol: int):
    scalars = [np.float64(3), np.float16(3), np.array(3, dtype=">i4")[()], np.uint8(3)]
    for number in (3, 3.0, *scalars, np.array(3.0), np.array([3], dtype="i2")):
        (clip,) = read(tmp_path, pickle.dumps({"audio_data": [0.5, 1], "valence": number}, protocol))
        assert type(clip.valence) is float
        assert clip.valence == 3.0


@pytest.mark.parametrize(
    ("valence", "problem"),
    [
        ("x", "not a number: str 'x'"),
        (True, "not a number: True"),
        (np.True_, "not a number: True"),
        (10**400, "not a number: an int of 1329 bits"),
        ([3.0, 4.0], "not a number: a list of 2 items"),
        ("1,234.5", "not a number: str '1,234.5'"),
        ("3,5,0", "not a number: str '3,5,0'"),
        ("1_0", "not a number: str '1_0'"),
        ("inf", "not a number: str 'inf'"),
        (np.ones(2), "not a number: an array of dtype float64 and shape (2,)"),
        (np.str_("3"), "not a number: an array of dtype <U1 and shape ()"),
        (np.complex64(3), "not a number: an array of dtype complex64 and shape ()"),
    ],
)
def test_what_is_no_number_is_named(tmp_path: Path, valence: object, problem: str):
    content = pickle.dumps({"audio_data": [0.5, 1], "valence": valence})
    (clip,) = read(tmp_path, content)
    assert (clip.valence, clip.valence_problem) == (None, problem)


@pytest.mark.parametrize("text", ["3.5", " 3.5\n", "+3.5", "35e-1", "3.50", "3,5", " +3,50"])
def test_a_number_as_text_or_in_a_list_is_a_valence(tmp_path: Path, text: str):
    for valence in (text, [text], [3.5]):
        (clip,) = read(tmp_path, pickle.dumps({"audio_data": [0.5, 1], "valence": valence}))
        assert (clip.valence, clip.valence_problem) == (3.5, None)


@pytest.mark.parametrize(
    "missing",
    [None, math.nan, np.float32("nan"), np.array(np.nan), "", " ", "NA", "n/a", "nan", "None", "null"],
)
def test_what_marks_a_missing_valence_is_no_problem(tmp_path: Path, missing: object):
    column = {"audio_data": ROWS, "valence": [1, missing, 3]}
    for content in (
        column,
        [{"audio_data": row, "valence": v} for row, v in zip(*column.values(), strict=True)],
    ):
        clips = read(tmp_path, pickle.dumps(content))
        assert [clip.valence for clip in clips] == [1, None, 3]
        assert {clip.valence_problem for clip in clips} == {None}


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
    assert (clip.valence, clip.valence_problem) == (None, None)


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


NO_AUDIO = "not 1-D real numbers, or 2-D with up to 8 channels"


def test_one_bad_entry_does_not_lose_the_others(tmp_path: Path):
    entries = [
        {"audio_data": np.ones(3), "valence": 1},
        {"valence": 2},
        "nonsense",
        {"audio_data": "x", "valence": 2},
        {"audio_data": np.array([True, False])},
        {"audio_data": np.array(["a"])},
        {"audio_data": np.ones((9, 10))},
        {"audio_data": [1.0, None]},
        {"audio_data": [2**70]},
        {"audio_data": [0.5], "valence": 5},
    ]
    clips = read(tmp_path, pickle.dumps(entries))
    assert [clip.audio_problem for clip in clips] == [
        None,
        "expected a dict with 'audio_data', not a dict with the keys valence",
        "expected a dict with 'audio_data', not str 'nonsense'",
        f"'audio_data' is str 'x', {NO_AUDIO}",
        f"'audio_data' is an array of dtype bool and shape (2,), {NO_AUDIO}",
        f"'audio_data' is an array of dtype <U1 and shape (1,), {NO_AUDIO}",
        f"'audio_data' is an array of dtype float64 and shape (9, 10), {NO_AUDIO}",
        "'audio_data' is a list of 2 items, among them None",
        "'audio_data' is a list of 1 items, one of them too large for 64 bits",
        None,
    ]
    assert all(clip.audio.size == 0 for clip in clips if clip.audio_problem)
    assert (clips[0].valence, clips[-1].valence) == (1.0, 5.0)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (7, "holds 7"),
        ([], "a list of 0 items"),
        ([1, 2], "a list of 2 items"),
        (np.ones(3), r"an array of dtype float64 and shape \(3,\)"),
        ({"audio": [1]}, "a dict with the keys audio"),
        ({0: {"audio_data": [1]}}, "key is 0"),
        ({"audio_data": None}, "'audio_data' is None"),
        ({"audio_data": np.ones((9, 10)), "valence": 3}, "9 clips as 'audio_data' and 3 as 'valence'"),
        ({"audio_data": [objects([0.5], [0.5, 1.0])], "valence": 3}, "a list of 1 items, among them a list"),
        ({"audio_data": [[1, 2], [3]], "valence": 3}, "2 clips as 'audio_data' and 3 as 'valence'"),
        (
            {"audio_data": ROWS, "valence": [1, 2, 3], "sr": [8000, 8000]},
            "3 clips as 'audio_data' and a list of 2 items as 'sr'",
        ),
        ([{}, *range(10_001)], "10001 of 10002 clips without audio: .*not 9999"),
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


# Channels and sample rates

LEFT, RIGHT = np.arange(20, dtype="f4"), np.arange(20, dtype="f4") + 100
STEREO = np.stack([LEFT, RIGHT], axis=1)


@pytest.mark.parametrize(
    ("audio", "expected"),
    [
        (LEFT[None], LEFT),
        (LEFT[:, None], LEFT),
        (LEFT[None, None], LEFT),
        ([LEFT], LEFT),
        ([LEFT.tolist()], LEFT),
        (STEREO, STEREO),
        (STEREO.T, STEREO),
        (STEREO.T[None], STEREO),
        (STEREO.tolist(), STEREO),
        (STEREO.T.tolist(), STEREO),
        ([LEFT, RIGHT], STEREO),
        (np.stack([LEFT] * 6), np.stack([LEFT] * 6, axis=1)),
        (np.empty((2, 0), "f4"), LEFT[:0]),
    ],
    ids=lambda value: f"{type(value).__name__} {np.shape(value)}",
)
@pytest.mark.parametrize("valence", [3, [3.0], np.array([3]), "3", None])
def test_audio_with_one_valence_is_one_clip(
    tmp_path: Path, audio: object, expected: np.ndarray, valence: object
):
    for content in ({"audio_data": audio, "valence": valence}, [{"audio_data": audio, "valence": valence}]):
        (clip,) = read(tmp_path, pickle.dumps(content))
        np.testing.assert_array_equal(clip.audio, expected)
        assert (clip.valence, clip.audio_problem, clip.valence_problem) == (valence and 3.0, None, None)
        assert not clip.audio.flags.writeable


@pytest.mark.parametrize(
    ("audio", "shapes"),
    [
        (STEREO.T, [(20, 2)]),
        (STEREO, [(20, 2)]),
        (LEFT[None], [(20,)]),
        (np.stack([LEFT] * 3), [(20,)] * 3),
        ([LEFT, RIGHT], [(20,)] * 2),
        (np.stack([STEREO] * 3), [(20, 2)] * 3),
        (np.stack([STEREO.T] * 3), [(20, 2)] * 3),
    ],
    ids=lambda value: f"{type(value).__name__} {np.shape(value)}",
)
def test_audio_without_a_valence_is_split_by_its_shape(tmp_path: Path, audio: object, shapes: list):
    clips = read(tmp_path, pickle.dumps({"audio_data": audio}))
    assert [clip.audio.shape for clip in clips] == shapes


def test_as_many_valences_as_rows_are_as_many_clips(tmp_path: Path):
    for audio in (STEREO.T, STEREO.T.tolist(), STEREO.T[:, None], [LEFT, RIGHT]):
        clips = read(tmp_path, pickle.dumps({"audio_data": audio, "valence": [1, 2]}))
        assert [clip.valence for clip in clips] == [1, 2]
        for clip, row in zip(clips, (LEFT, RIGHT), strict=True):
            np.testing.assert_array_equal(clip.audio, row)


@pytest.mark.parametrize("rate", [16000, 16000.0, np.int64(16000), np.float32(16000), "16000", [16000]])
@pytest.mark.parametrize("key", ["sampling_rate", "sample_rate", "samplerate", "sr", "fs"])
def test_a_sample_rate_is_read(tmp_path: Path, key: str, rate: object):
    (clip,) = read(tmp_path, pickle.dumps({"audio_data": LEFT, "valence": 1, key: rate, "sr": 16000}))
    assert clip.sample_rate == 16000
    assert type(clip.sample_rate) is int


def test_a_column_of_sample_rates_or_one_for_all(tmp_path: Path):
    column = {"audio_data": ROWS, "valence": [1, 2, 3], "sr": [8000, None, 44100]}
    clips = read(tmp_path, pickle.dumps(column))
    assert [clip.sample_rate for clip in clips] == [8000, None, 44100]
    clips = read(tmp_path, pickle.dumps(column | {"sr": np.array([8000, 16000, 44100])}))
    assert [clip.sample_rate for clip in clips] == [8000, 16000, 44100]
    clips = read(tmp_path, pickle.dumps(column | {"sr": 22050}))
    assert [clip.sample_rate for clip in clips] == [22050] * 3
    # The same audio at two rates is two clips.
    clips = read(tmp_path, pickle.dumps([{"audio_data": LEFT, "sr": rate} for rate in (8000, 16000)]))
    assert [clip.sample_rate for clip in clips] == [8000, 16000]


@pytest.mark.parametrize(
    ("rates", "given"),
    [
        ({"sr": 16}, "16 Hz"),
        ({"sr": 0}, "0 Hz"),
        ({"sr": -8000}, "-8000 Hz"),
        ({"sr": 8000.5}, "8000.5 Hz"),
        ({"sr": math.inf}, "inf Hz"),
        ({"sr": 10**12}, "1e+12 Hz"),
        ({"sr": 8000, "sample_rate": 16000}, "8000 and 16000 Hz"),
    ],
    ids=str,
)
def test_an_impossible_sample_rate_or_two_are_refused(tmp_path: Path, rates: dict, given: str):
    keys = " and ".join(f"'{key}'" for key in rates)
    expected = "expected one whole number from 1000 to 1000000 Hz"
    message = f"stored with the sample rate {given} as {keys}; {expected}"
    good, bad = {"audio_data": LEFT, "valence": 1}, {"audio_data": LEFT, "valence": 1} | rates
    with pytest.raises(ClipError, match=re.escape(message)):
        read(tmp_path, pickle.dumps(bad))
    clips = read(tmp_path, pickle.dumps([good, bad]))
    assert [clip.audio_problem for clip in clips] == [None, message]


@pytest.mark.parametrize("rate", ["fast", "16k", "16,000", [8000, 8000]], ids=str)
def test_a_sample_rate_that_is_no_number_is_named(tmp_path: Path, rate: object):
    message = "stored with a sample rate, 'sr', that is not a number: .*; expected one whole number from 1000"
    with pytest.raises(ClipError, match=message):
        read(tmp_path, pickle.dumps({"audio_data": LEFT, "sr": rate}))


@pytest.mark.parametrize(
    "key",
    [
        *("Fs", "SR", "sampleRate", "Sampling_Rate", "sampling-rate", "samplingrate", "Sample Rate", "rate"),
        *("framerate", "frame_rate", "samplingFrequency", "sample_freq", "orig_sr", "original_sample_rate"),
    ],
)
def test_a_sample_rate_is_read_under_each_of_its_names(tmp_path: Path, key: str):
    clip, column = {"audio_data": LEFT, "valence": 1, key: 16000}, {"audio_data": ROWS, "valence": [1, 2, 3]}
    for content in (clip, [clip], column | {key: 16000}, column | {key: [16000] * 3}):
        assert {clip.sample_rate for clip in read(tmp_path, pickle.dumps(content))} == {16000}
    (clip,) = read(tmp_path, pickle.dumps({"audio_data": LEFT, "x" + key: 16000, 100 * "_" + key: 16000}))
    assert clip.sample_rate is None


def test_the_rate_of_the_original_counts_where_there_is_no_other(tmp_path: Path):
    rates = [{"sr": 8000, "orig_sr": 44100}, {"sr": None, "orig_sr": 44100}, {"sr": 8000, "orig_sr": "?"}]
    clips = read(tmp_path, pickle.dumps([{"audio_data": LEFT} | given for given in rates]))
    assert [clip.sample_rate for clip in clips] == [8000, 44100, 8000]
    # The same objects under other names are another clip.
    swapped = [{"audio_data": LEFT, a: 8000, b: 44100} for a, b in (("sr", "orig_sr"), ("orig_sr", "sr"))]
    assert [clip.sample_rate for clip in read(tmp_path, pickle.dumps(swapped))] == [8000, 44100]


@pytest.mark.parametrize("audio_key", ["audio_data", "Audio_Data", "AUDIO_DATA", "audioData"])
@pytest.mark.parametrize("valence_key", ["valence", "Valence", "VALENCE"])
def test_keys_are_compared_without_case(tmp_path: Path, audio_key: str, valence_key: str):
    rows = [{audio_key: row, valence_key: i} for i, row in enumerate(ROWS)]
    for content in (rows, {audio_key: ROWS, valence_key: [0, 1, 2]}):
        clips = read(tmp_path, pickle.dumps(content))
        assert [clip.valence for clip in clips] == [0, 1, 2]
        for clip, row in zip(clips, ROWS, strict=True):
            np.testing.assert_array_equal(clip.audio, row)


def test_two_keys_of_one_meaning_must_not_differ(tmp_path: Path):
    column = {"audio_data": ROWS, "valence": [1, 2.5, 3]}
    for same in ([1, 2.5, 3], (1, 2.5, 3)):
        clips = read(tmp_path, pickle.dumps(column | {"Valence": same}))
        assert [clip.valence for clip in clips] == [1, 2.5, 3]
    for other in ({"Valence": [1, 2, 3]}, {"Valence": [1, [2.5], 3]}, {"Valence": 3}, {"Audio_Data": LEFT}):
        with pytest.raises(ClipError, match=r"the keys '\w+' and '\w+' differ; expected one of them"):
            read(tmp_path, pickle.dumps(column | other))
    clip = {"audio_data": LEFT, "valence": 1}
    entries = [{"Valence": 1.0}, {"Valence": 2}, {"Audio_Data": LEFT.copy()}, {"Audio_Data": LEFT[1:]}]
    clips = read(tmp_path, pickle.dumps([clip | more for more in entries]))
    valence_differs = "the keys 'valence' and 'Valence' differ; expected one of them"
    assert [clip.valence_problem for clip in clips] == [None, valence_differs, None, None]
    audio_differs = "the keys 'audio_data' and 'Audio_Data' differ; expected one of them"
    assert [clip.audio_problem for clip in clips] == [None, None, None, audio_differs]


def test_two_arrays_are_not_compared_over_and_over(tmp_path: Path):
    first, second = np.zeros(250_000, "f4"), np.zeros(250_000, "f4")
    entries = [{"audio_data": first, "Audio_Data": second} for _ in range(1000)]
    assert len(read(tmp_path, pickle.dumps(entries[:1]))) == 1
    with pytest.raises(PickleRefused, match="more than twice"):
        read(tmp_path, pickle.dumps(entries))


@pytest.mark.parametrize("protocol", [2, 5])
@pytest.mark.parametrize("dtype", ["i1", "i2", "f4"])
def test_a_long_list_of_numpy_scalars_is_read(tmp_path: Path, dtype: str, protocol: int):
    written = (np.arange(40_000) % 100).astype(dtype)
    (clip,) = read(tmp_path, pickle.dumps({"audio_data": list(written), "valence": 1}, protocol))
    np.testing.assert_array_equal(clip.audio, written)


def test_many_keys_of_one_dict_in_many_places_are_visited_once(tmp_path: Path):
    # The keys of all places together would take hours.
    clip = {"audio_data": LEFT} | {f"key {i}": 0 for i in range(10_000)} | {"x" * 1_000_000: 0}
    assert len(read(tmp_path, pickle.dumps([clip] * 100_000))) == 100_000


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


def test_deeply_nested_audio_is_no_audio(tmp_path: Path):
    for depth in (3, 9000):
        content = (
            b"\x80\x04}("
            + text("audio_data")
            + b"]" * depth
            + b"a" * (depth - 1)
            + text("valence")
            + b"K\3u."
        )
        with pytest.raises(ClipError, match="'audio_data' is a list of 1 items, among them a list"):
            read(tmp_path, content)


def test_a_name_that_is_not_utf_8_is_read_and_named(tmp_path: Path):
    name = os.fsdecode(b"kl\xe4nge.pkl")
    assert len(read(tmp_path, pickle.dumps({"audio_data": [0.5]}), name)) == 1
    with pytest.raises(ClipError, match=r"^kl\\xe4nge\.pkl is empty"):
        read(tmp_path, b"", name)


def test_absent_file_is_a_clip_error(tmp_path: Path):
    with pytest.raises(ClipError, match=r"none\.pkl cannot be read: No such file") as caught:
        read_course_pickle(tmp_path / "none.pkl")
    assert caught.value.reason == "unreadable"


# Files made to do harm, put together instruction by instruction

COMMAND = "echo > marker"
TEN_GB = 10_000_000_000
OF_TEN_GB = struct.pack("<Q", TEN_GB)
BYTES_8 = b"C\x0812345678"


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


def dtype(code: bytes) -> bytes:
    return call("numpy", "dtype", code, b"\x89", b"\x88")


RUNS, LONGEST = text(COMMAND), number(TEN_GB) + b"\x85"
SETS_NAME = text("name") + text("encode") + b"s"
DTYPE, NDARRAY = glob("numpy", "dtype"), glob("numpy", "ndarray")
DTYPE_F8 = dtype(text("f8")) + b"(K\x03" + text("<") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
DTYPE_O8 = dtype(text("O8"))


def reconstruct(type_: bytes, shape: bytes) -> bytes:
    return call("numpy._core.multiarray", "_reconstruct", type_, shape, b"C\x01b")


EMPTY_ARRAY = reconstruct(NDARRAY, b"K\x00\x85")


def clip_of(shape: bytes, type_: bytes = DTYPE_F8, raw: bytes = BYTES_8) -> bytes:
    return clip_with(EMPTY_ARRAY + b"(K\x01" + shape + type_ + b"\x89" + raw + b"tb")


def laughing(depth: int) -> bytes:
    """Each list holds the one before it twice: 2**depth items to whoever counts them out."""
    content = b"]q\x00K\x01a"
    for i in range(depth):
        content += b"]q" + bytes([i + 1]) + b"(h" + bytes([i]) + b"h" + bytes([i]) + b"e"
    return b"(" + content + b"l"


class Payload:
    def __reduce__(self):
        return os.system, (COMMAND,)


ENCODED_OVER_AND_OVER = [
    b"(" + glob("_codecs", "encode") + b"q\x00" + text("x" * 50_000) + text("latin1") + b"\x86q\x01R",
    b"h\x00h\x01R" * 9_000 + b"t.",
]
SWAPPED_OVER_AND_OVER = [
    b"\x80\x04(" + DTYPE_F8.replace(text("<"), text(">")) + b"\x94",
    b"B" + struct.pack("<I", 8000) + bytes(8000) + b"\x94" + number(1000) + b"\x85\x94",
    glob("numpy.core.numeric", "_frombuffer") + b"\x94" + text("C") + b"\x94",
    b"h\x03(h\x01h\x00h\x02h\x04tR" * 1000 + b"t.",
]
CONVERTED_OVER_AND_OVER = [
    b"\x80\x04(}" + text("audio_data") + b"\x94" + EMPTY_ARRAY + b"\x94",
    b"(K\x01M\xe8\x03\x85" + DTYPE_O8 + b"\x89](" + b"K\x01" * 1000 + b"etbs",
    *(b"}(h\x00h\x01" + text("valence") + number(300 + i) + b"u" for i in range(99)),
    b"l.",
]
# For the parser these are bytes and no more. `pickle.Unpickler` drops the half of their length that is in the
# frame, takes the first two of them instead, and runs the others.
HIDDEN = b"\0\0cos\nsystem\n" + RUNS + b"\x85R."
F = b"\x95"
BEYOND_ITS_FRAME = b"\x80\x04" + struct.pack("<cQcI", F, 3, b"B", len(HIDDEN)) + HIDDEN + b"."
NAMES = {
    "os": ["system", "popen"],
    "subprocess": ["Popen"],
    "builtins": ["eval", "exec", "getattr", "__import__"],
    "__builtin__": ["apply"],
    "importlib": ["import_module"],
    "runpy": ["run_path"],
    "operator": ["attrgetter"],
    "copyreg": ["_reconstructor"],
    "pickle": ["loads"],
    "numpy": ["load", "fromfile", "memmap", "f2py.os.system"],
    "numpy.f2py.diagnose": ["run_command"],
    "numpy.core": ["multiarray._reconstruct.__globals__"],
    "numpy.core.multiarray": ["fromfile"],
    "numpy.testing._private.utils": ["runstring"],
    "torch.storage": ["_load_from_bytes"],
    "_codecs": ["decode"],
}
SYSTEM = f"asks for {os.system.__module__}.system"
CLIP = pickle.dumps({"audio_data": np.ones(99)})
# By the reason each is refused for: its bytes, and what the message names.
BY_REASON: dict[str, dict[str, tuple[bytes, str]]] = {
    "forbidden global": {
        f"{module}.{name}": (clip_with(call(module, name, RUNS)), f"asks for {module}.{name}")
        for module, names in NAMES.items()
        for name in names
    }
    | {f"os.system, protocol {n}": (pickle.dumps(Payload(), n), SYSTEM) for n in PROTOCOLS}
    | {
        "nested reduce": (clip_with(dtype(call("os", "system", RUNS))), "asks for os.system"),
        "reduce in an object array": (pickle.dumps({"audio_data": objects(Payload(), 1)}), SYSTEM),
        "reduce in a key nobody reads": (pickle.dumps({"audio_data": [1.0], "note": Payload()}), SYSTEM),
        "the name itself as clip": (b"cos\nsystem\n.", "asks for os.system"),
    },
    "forbidden instruction": {
        "names that are no text": (b"\x80\x04K\x01K\x02\x93.", "STACK_GLOBAL"),
        "INST": (b"(ios\nabort\n.", "INST os abort"),
        "OBJ": (b"(" + DTYPE + RUNS + b"o.", "OBJ"),
        "NEWOBJ": (DTYPE + RUNS + b"\x85\x81.", "NEWOBJ"),
        "NEWOBJ_EX": (b"\x80\x04" + NDARRAY + b")}\x92.", "NEWOBJ_EX"),
        "a Python 2 string": (b"(S'" + COMMAND.encode() + b"'\nios\nsystem\n.", "STRING"),
        "PERSID": (b"P" + COMMAND.encode() + b"\n.", "PERSID"),
        "BINPERSID": (RUNS + b"Q.", "BINPERSID"),
        "EXT1": (b"\x80\x02\x82\x01.", "EXT1 1"),
        "EXT2": (b"\x80\x02\x83\x01\x00.", "EXT2 1"),
        "EXT4": (b"\x80\x02\x84\x01\x00\x00\x00.", "EXT4 1"),
        "out-of-band buffer": (pickle.dumps(np.ones(9), 5, buffer_callback=lambda _: None), "NEXT_BUFFER"),
        "read-only buffer": (b"\x80\x05\x97\x98.", "NEXT_BUFFER"),
        "a set": (pickle.dumps({1, 2}), "EMPTY_SET"),
        "DUP": (b"]2.", "DUP"),
        "items for bytes": (b"\x80\x05\x96\x01" + bytes(7) + b"x(K\x01e.", "APPENDS"),
    },
    "forbidden call": {
        "text as function": (text("os.system") + RUNS + b"\x85R.", "calls str 'os.system'"),
        "ndarray called": (clip_with(call("numpy", "ndarray", LONGEST)), "the name ndarray"),
        "_reconstruct of a 10 GB shape": (clip_with(reconstruct(NDARRAY, LONGEST)), "_reconstruct"),
        "_reconstruct of another type": (clip_with(reconstruct(DTYPE, b"K\x00\x85")), "_reconstruct"),
        "bytes of 10 GB": (clip_with(call("builtins", "bytes", number(TEN_GB))), "bytes"),
        "state for a list": (b"]}b.", "gives a state to a list of 0 items"),
        "state for a dict": (
            b"}}" + text("__class__") + b"Nsb.",
            "gives a state to a dict with the keys (none)",
        ),
        "a state for a name": (DTYPE + b"}" + SETS_NAME + b"b.", "gives a state to the name dtype"),
        "a state for a number": (
            call("numpy.core.multiarray", "scalar", DTYPE_F8, BYTES_8) + b"}" + text("x") + b"Nsb.",
            "gives a state to 6.8",
        ),
        "arguments that are no tuple": (DTYPE + b"]R.", "calls the name dtype with a list"),
        "an array called": (EMPTY_ARRAY + b")R.", "calls None"),
    },
    "false header": {
        "a 10 GB shape": (clip_of(LONGEST), "declares an array"),
        "overflowing shape": (clip_of(number(2**32) * 2 + b"\x86", raw=b"C\x00"), "declares an array"),
        "shape beyond its bytes": (
            clip_of(b"K\x09\x85"),
            "dtype float64 whose shape does not fit its 8 bytes",
        ),
        "negative shape": (clip_of(number(-1) + b"\x85"), "declares an array"),
        "negative shapes whose product fits": (clip_of(number(-1) * 2 + b"\x86"), "declares an array"),
        "object array made of bytes": (clip_of(b"K\x01\x85", DTYPE_O8), "dtype object"),
        "_frombuffer of a 10 GB shape": (
            clip_with(
                glob("numpy.core.numeric", "_frombuffer")
                + (b"(" + BYTES_8 + DTYPE_F8 + LONGEST + text("C") + b"tR")
            ),
            "declares an array",
        ),
    },
    "forbidden dtype": {
        "dtype V10000000000": (clip_with(dtype(text(f"V{TEN_GB}"))), "V10000000000"),
        "dtype by expression": (clip_with(dtype(text("f8,(10000000000,)f8"))), "f8,(10000000000,)f8"),
        "dtype with metadata": (pickle.dumps(np.zeros(2, np.dtype("f8", metadata={"a": 1}))), "metadata"),
        "dtype with fields": (pickle.dumps(np.zeros(2, dtype="f4,i2")), "V6"),
    },
    "truncated": {
        "BINBYTES8 of 10 GB": (clip_with(b"\x8e" + OF_TEN_GB + b"12"), "breaks off"),
        "BYTEARRAY8 of 10 GB": (b"\x80\x05\x96" + OF_TEN_GB + b"12.", "breaks off"),
        "LONG4 of 2 GB": (b"\x80\x02\x8b\xff\xff\xff\x7f1.", "breaks off"),
        "a frame of 10 GB": (b"\x80\x04\x95" + OF_TEN_GB + b"]", "breaks off"),
        "truncated": (CLIP[:-1], "breaks off"),
        "truncated in an array": (CLIP[:300], "breaks off"),
    },
    "memo index": {
        "huge memo index": (b"\x80\x02]r\xff\xff\xff\x7f.", "2147483647"),
        "huge memo index in text": (b"]p99999999999999999999\n.", "99999999999999999999"),
        "negative memo index": (b"]p-1\n.", "-1"),
    },
    "too many objects": {
        "one text encoded over and over": (b"".join(ENCODED_OVER_AND_OVER), "more than twice"),
        "one buffer swapped over and over": (b"".join(SWAPPED_OVER_AND_OVER), "more than twice"),
        "one array converted over and over": (b"".join(CONVERTED_OVER_AND_OVER), "more than twice"),
        "a million empty lists": (b"(" + b"]" * 10**6 + b"l.", "too many objects"),
        "a million empty dicts": (b"(" + b"}" * 10**6 + b"t.", "too many objects"),
        "lists nested a million deep": (b"]" * 10**6 + b"a" * (10**6 - 1) + b".", "objects"),
        "tuples nested a million deep": (b")" + b"\x85" * 10**6 + b".", "objects"),
        "marks nested a million deep": (b"(" * 10**6 + b"t" * 10**6 + b".", "objects"),
    },
    "shared container": {
        "billion laughs of lists": (b"\x80\x02" + laughing(30) + b".", "refers twice to a list of 1 items"),
        "billion laughs of tuples": (
            b"\x80\x04(K\x01\x85\x94" + b"".join(b"h%ch%c\x86\x94" % (i, i) for i in range(40)) + b"t.",
            "refers twice to a tuple of 2 items",
        ),
        "a list in itself": (b"\x80\x02]q\x00h\x00a.", "refers twice to a list of 0 items"),
        "an object array in itself": (
            clip_with(EMPTY_ARRAY + b"\x94(K\x01K\x01\x85" + DTYPE_O8 + b"\x89]h\x00atb"),
            "holds itself",
        ),
    },
    "trailing bytes": {
        "a second pickle behind the first": (
            pickle.dumps({"audio_data": [1.0]}) + pickle.dumps(Payload()),
            "after its end",
        )
    },
    "not a readable pickle": {
        "BINUNICODE8 beyond 64 bits": (b"\x80\x04\x8d" + b"\xff" * 8 + b"12.", "after byte 0"),
        "LONG4 of negative length": (b"\x80\x02\x8b\xff\xff\xff\xff1.", "after byte 0"),
        "a decimal of a million digits": (b"I" + b"9" * 10**6 + b"\n.", "byte 0"),
        "an instruction across the end of its frame": (BEYOND_ITS_FRAME, "beyond its frame"),
        "two frames": (b"\x80\x04" + struct.pack("<cQcQ", F, 11, F, 1) + b"N.", "a frame within a frame"),
        "protocol 6": (b"\x80\x06].", "protocol 6"),
        "absent memo index": (b"\x80\x02h\x07.", "object 7"),
        "a mark left over": (b"(].", "mark"),
        "two results": (b"]].", "not a readable pickle"),
        "empty file": (b"", "evil.pkl is empty (0 bytes); expected a pickle"),
        "a Git LFS pointer": (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        "an HTML page": (b"<!DOCTYPE html><html>", "is an HTML page"),
        "what macOS leaves": (b"\0\5\x16\7\0\2\0\0Mac OS X", "an AppleDouble file"),
        "a gzip archive": (b"\x1f\x8b\x08", "a gzip archive (unpack it first)"),
        "a WAV file": (b"RIFF\x24\x08\x00\x00WAVEfmt ", "begins with b'RIFF"),
        "a text file": (b"version https://git-lfs", "begins with b'version"),
    },
}
HOSTILE = {
    kind: (content, reason, named)
    for reason, files in BY_REASON.items()
    for kind, (content, named) in files.items()
}


def test_the_payload_is_live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    pickle.loads(HOSTILE["os.system, protocol 2"][0])
    assert Path("marker").exists()


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_file_is_refused_and_not_run(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    content, reason, named = HOSTILE[kind]
    with pytest.raises(ClipError) as caught:
        read(tmp_path, content, "evil.pkl")
    assert caught.value.reason == reason
    assert isinstance(caught.value, PickleRefused) == (reason != "wrong type")
    assert str(caught.value).startswith("evil.pkl ")
    assert named in str(caught.value)
    assert len(str(caught.value)) < 500
    assert not Path("marker").exists()


@pytest.mark.parametrize(
    ("key", "named"),
    [
        (b")" + b"\x85" * 9_000, "a tuple of 1 items"),
        (number(2**61 - 1), "2305843009213693951"),
        (b"h\x00", "a dtype"),
        (b"N", "None"),
    ],
    ids=["a deep tuple, hashed by recursion", "an int whose hash is 0", "a dtype", "None"],
)
def test_keys_are_text(tmp_path: Path, key: bytes, named: str):
    for put in (b"%bNs.", b"(%bNu."):  # one item, many items
        with pytest.raises(ClipError, match=f"key is {named}") as caught:
            read(tmp_path, b"\x80\x04" + DTYPE_F8 + b"\x94}" + put.replace(b"%b", key))
        assert caught.value.reason == "wrong type"


READ_ALL = """
import codecs, resource, sys
from pathlib import Path
from valence_lib.errors import ClipError
from valence_lib.corpora.pickles import read_course_pickle

for codec in ("unicode_escape", "raw_unicode_escape", "latin1"):
    codecs.lookup(codec)  # which Python imports when it is first used
events, watching = set(), False
sys.addaudithook(lambda event, _: events.add(event) if watching else None)
for path in sorted(Path(sys.argv[1]).glob("*.pkl")):
    watching = True
    try:
        read_course_pickle(path)
        reason = "read"
    except ClipError as error:
        reason = error.reason
    watching = False
    print(reason)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10))
print(*sorted(events), sep=",")
"""


def test_all_hostile_files_in_one_process_take_little_memory_and_touch_nothing(tmp_path: Path):
    for i, (content, _, _) in enumerate(HOSTILE.values()):
        (tmp_path / f"{i:03}.pkl").write_bytes(content)
    done = subprocess.run(
        # Under Linux, a process that another starts inherits its peak of memory: a small one is in between.
        ["/bin/sh", "-c", '"$@"; exit $?', "sh", sys.executable, "-c", READ_ALL, str(tmp_path)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    *reasons, peak_mb, events = done.stdout.splitlines()
    assert reasons == [reason for _, reason, _ in HOSTILE.values()]
    assert float(peak_mb) < 300
    # No import, no compile, no exec, no process, no find_class: the files are opened, and that is all.
    assert set(events.split(",")) <= {"open", "builtins.id"}
    assert not (tmp_path / "marker").exists()


@pytest.mark.filterwarnings("ignore:.*escape:DeprecationWarning", "ignore:.*escape:SyntaxWarning")
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
    instructions = b"()]}.0abcdehilopqrstuGIJKMNRX\x81\x85\x86\x87\x93\x94\x95\x96"
    n_read = 0
    for _ in range(400):
        content = bytearray(rng.choice(goods))
        for _ in range(rng.choice((1, 1, 2, 8))):
            at = rng.randrange(len(content))
            length, new = rng.choice(
                [
                    (1, bytes([rng.randrange(256)])),
                    (rng.choice((1, 4)), b""),
                    (0, bytes([rng.choice(instructions)])),
                    (0, content[at // 2 : at // 2 + rng.randrange(20)]),
                ]
            )
            content[at : at + length] = new
        try:
            clips = read(tmp_path, bytes(content))
        except ClipError:
            continue
        n_read += 1
        assert all(clip.audio.ndim == 1 and clip.audio.dtype.kind in "fiu" for clip in clips)
        assert all(clip.valence is None or type(clip.valence) is float for clip in clips)
    assert 0 < n_read < 400
