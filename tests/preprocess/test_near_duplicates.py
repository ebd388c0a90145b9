"""Copies of a recording are found however they were coded, levelled or cut; similar recordings are not."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from valence_lib.corpora.opening import open_corpus
from valence_lib.corpora.waveforms import read_audio
from valence_lib.evaluation.perturbations import add_noise, change_level, code
from valence_lib.features.log_mel import log_mel
from valence_lib.preprocess.near_duplicates import SIMILAR, near_duplicates, waveform_similarity
from valence_lib.settings import FeatureSettings

RAVDESS = Path(__file__).parents[3] / "shared" / "data" / "ravdess"
SETTINGS = FeatureSettings()
RATE = SETTINGS.sample_rate
RNG = np.random.default_rng(0)


def pairs(waveforms, ids=None):
    """The pairs among some waveforms, and the clips that were read."""
    was_read = []

    def read(position):
        was_read.append(position)
        return waveforms[position]

    names = ids or [str(number) for number in range(len(waveforms))]
    return near_duplicates([log_mel(waveform, SETTINGS) for waveform in waveforms], names, read), was_read


@pytest.fixture(scope="module")
def renditions():
    """The first 45 clips of the demo corpus: three renditions by one voice of each of its sentences."""
    demo = open_corpus("demo")
    clips = [demo.read(number) for number in range(45)]
    return [clip.id for clip in clips], [clip.waveform for clip in clips]


COPIES = {
    "softer": lambda clip: change_level(clip, RATE, 0, -12),
    "its sign turned": lambda clip: -clip,
    "MP3 of 16 kbit/s": lambda clip: code(clip, RATE, 0, "MP3", 16000),
    "noise at 30 dB": lambda clip: add_noise(clip, RATE, 0, 30),
    "cut 0.1 s later": lambda clip: clip[RATE // 10 :],
    "0.2 s of silence before": lambda clip: np.concatenate([np.zeros(RATE // 5, np.float32), clip]),
}


@pytest.mark.parametrize("kind", COPIES)
def test_a_copy_is_found_and_nothing_else(kind, renditions):
    ids, waveforms = renditions
    copied = [3, 20, 41]
    copies = [COPIES[kind](waveforms[number]) for number in copied]
    found, _ = pairs([*waveforms, *copies], [*ids, *(f"copy of {ids[number]}" for number in copied)])
    assert set(zip(found["first"], found["second"], strict=True)) == {
        (ids[number], f"copy of {ids[number]}") for number in copied
    }
    assert found["similarity"].between(0.85, 1).all()


def test_the_most_alike_come_first_and_each_pair_once(renditions):
    ids, waveforms = renditions
    copies = [COPIES["noise at 30 dB"](waveforms[1]), waveforms[2], COPIES["cut 0.1 s later"](waveforms[0])]
    found, was_read = pairs([*waveforms[:9], *copies], [*ids[:9], "noisy", "same", "cut"])
    assert found["similarity"].is_monotonic_decreasing
    assert found.loc[0, ["first", "second"]].tolist() == [ids[2], "same"]
    assert found.loc[0, "similarity"] == pytest.approx(1, abs=1e-6)
    assert not found[["first", "second"]].duplicated().any()
    assert list(found.index) == [0, 1, 2]
    assert len(was_read) < 12 * 11  # only candidates are read


@pytest.mark.parametrize("count", [1, 2])
def test_a_corpus_of_a_clip_or_two(count, renditions):
    found, _ = pairs(renditions[1][:1] * count)
    assert found[["first", "second"]].to_numpy().tolist() == [["0", "1"]] * (count - 1)


def test_similarity_is_the_normalised_cross_correlation():
    first, second = RNG.normal(size=(2, 200)).astype(np.float32)
    mixed = np.concatenate([np.zeros(30, np.float32), 0.6 * first + 0.8 * second])
    shifts = np.correlate(mixed.astype(np.float64), first, mode="full")
    expected = np.abs(shifts).max() / (np.linalg.norm(first) * np.linalg.norm(mixed))
    assert waveform_similarity(first, mixed) == pytest.approx(expected, rel=1e-5)
    assert waveform_similarity(mixed, first) == pytest.approx(expected, rel=1e-5)
    assert waveform_similarity(first, -3 * first) == pytest.approx(1, rel=1e-5)
    assert waveform_similarity(first, second) < SIMILAR
    assert waveform_similarity(first, np.zeros(50, np.float32)) == 0


@pytest.mark.skipif(not RAVDESS.is_dir(), reason="the RAVDESS corpus (../shared/data) is not here")
def test_the_recording_that_ravdess_holds_twice_is_the_only_one_of_its_actor():
    labels = pd.read_csv(RAVDESS / "labels.csv", dtype=str)
    files = labels.loc[labels["speaker"] == "07", "file"].tolist()
    assert len(files) == 60
    waveforms = [read_audio(RAVDESS / name, RATE) for name in files]
    found, _ = pairs(waveforms, [Path(name).stem for name in files])
    assert found[["first", "second"]].to_numpy().tolist() == [
        ["03-01-03-01-02-01-07", "03-01-03-01-02-02-07"]
    ]
    assert found.loc[0, "similarity"] == pytest.approx(1, abs=1e-3)
