"""The short way through pickles of a known form says what the long way says, and takes no other file."""

import pickle
import struct

import numpy as np
import pytest

from valence_lib import pickles
from valence_lib.errors import PickleRefused
from valence_lib.pickle_forms import form_of
from valence_lib.pickles import read_course_pickle


@pytest.fixture(autouse=True)
def no_forms(monkeypatch):
    """Each test begins with no pickle read."""
    monkeypatch.setattr(pickles, "_FORMS", [])


def _clip(n_samples: int, valence: object = None, dtype: str = "f4", first: str = "audio_data") -> dict:
    audio = np.random.default_rng(n_samples).uniform(-1, 1, n_samples) * (1 if dtype[0] == "f" else 30_000)
    clip = {"audio_data": audio.astype(dtype)} | ({} if valence is None else {"valence": valence})
    return clip if first == "audio_data" else dict(reversed(clip.items()))


def _form(clip: dict, protocol: int = 4):
    return form_of(pickle.dumps(clip, protocol), clip["audio_data"], clip.get("valence"))


@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.parametrize("dtype", ["f4", "f8", "i2"])
@pytest.mark.parametrize("first", ["audio_data", "valence"])
@pytest.mark.parametrize("valence", [3.25, None])
def test_other_clips_of_a_form_are_read_as_the_long_way_reads_them(tmp_path, protocol, dtype, first, valence):
    path = tmp_path / "0.pkl"
    form = _form(_clip(5000, valence, dtype, first), protocol)
    assert form is not None
    for n_samples in (4999, 6000, 21_000):
        clip = _clip(n_samples, None if valence is None else n_samples / 1000, dtype, first)
        content = pickle.dumps(clip, protocol)
        path.write_bytes(content)
        (long_way,) = read_course_pickle(path)
        found = form.read(content) or _form(clip, protocol).read(content)  # large arrays lie outside frames
        audio, rating = found
        assert audio.dtype == long_way.audio.dtype
        assert audio.tobytes() == long_way.audio.tobytes()
        assert rating == long_way.valence
        assert not audio.flags.writeable


def test_a_folder_of_one_programs_pickles_is_read_step_by_step_but_once_a_form(tmp_path, monkeypatch):
    steps, machine = [], pickles._Machine
    monkeypatch.setattr(pickles, "_Machine", lambda *given: steps.append(given) or machine(*given))
    for number in range(40):
        clip = _clip(5000 + number, float(number))
        (tmp_path / f"{number}.pkl").write_bytes(pickle.dumps(clip))
        (read,) = read_course_pickle(tmp_path / f"{number}.pkl")
        assert read.audio.tobytes() == clip["audio_data"].tobytes()
        assert read.valence == number
    assert len(steps) == 1


@pytest.mark.parametrize("valence", [np.float64(2.5), 3, True, "2.5", [2.5]], ids=repr)
def test_ratings_that_are_no_plain_float_go_the_long_way(tmp_path, valence):
    for number in range(2):
        (tmp_path / f"{number}.pkl").write_bytes(pickle.dumps(_clip(5000 + number, valence)))
    first, second = (read_course_pickle(tmp_path / f"{number}.pkl")[0] for number in range(2))
    assert (first.valence, first.valence_problem) == (second.valence, second.valence_problem)
    assert len(second.audio) == 5001


def test_audio_stored_in_the_other_byte_order_has_no_form():
    clip = _clip(5000, 2.5)
    content = pickle.dumps({**clip, "audio_data": clip["audio_data"].astype(">f4")}, 4)
    assert form_of(content, clip["audio_data"], 2.5) is None


def _spoilt(content: bytes) -> dict[str, bytes]:
    count = content.index(b"K\x01M") + 3  # version 1, then the number of samples in two bytes
    return {
        "another name in place of numpy's": content.replace(
            b"\x0cnumpy._core", b"\x0cnumpy_core_", 1
        ).replace(b"_reconstruct", b"_reconstrucT", 1),
        "more samples than there are": content[:count] + struct.pack("<H", 6000) + content[count + 2 :],
        "cut off in the samples": content[:-3000],
        "cut off at the end": content[:-1],
        "something after the end": content + b"N.",
        "another key": content.replace(b"valence", b"valencE"),
    }


@pytest.mark.parametrize("how", _spoilt(pickle.dumps(_clip(5000, 2.5), 4)))
def test_a_spoilt_file_of_a_known_form_fares_as_it_does_without_one(tmp_path, monkeypatch, how):
    good, bad = tmp_path / "good.pkl", tmp_path / "bad.pkl"
    content = pickle.dumps(_clip(5000, 2.5), 4)
    good.write_bytes(content)
    bad.write_bytes(_spoilt(content)[how])
    assert bad.read_bytes() != content

    def outcome():
        try:
            (clip,) = read_course_pickle(bad)
            return clip.audio.tobytes(), clip.valence
        except PickleRefused as refused:
            return refused.reason, str(refused)

    without = outcome()
    pickles._FORMS.clear()
    read_course_pickle(good)
    assert len(pickles._FORMS) == 1
    assert pickles._FORMS[0].read(bad.read_bytes()) is None
    assert outcome() == without


def test_a_corpus_of_unlike_pickles_does_not_gather_forms(tmp_path):
    for number in range(30):
        clip = {**_clip(5000, 2.5), "name": "x" * number}
        (tmp_path / f"{number}.pkl").write_bytes(pickle.dumps(clip))
        assert len(read_course_pickle(tmp_path / f"{number}.pkl")[0].audio) == 5000
    assert len(pickles._FORMS) <= 8
