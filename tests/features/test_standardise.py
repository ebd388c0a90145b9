"""Standardisers against plain numpy."""

import numpy as np
import pytest

from valence_lib.errors import SettingsError
from valence_lib.features.standardise import Standardiser


@pytest.fixture
def spectrograms() -> list[np.ndarray]:
    """Six clips of 4 to 9 frames and 5 bands, around -40 dB."""
    rng = np.random.default_rng(1)
    scale = np.array([1, 5, 10, 20, 15])
    return [(rng.standard_normal((n, 5)) * scale - 40 + n).astype(np.float32) for n in range(4, 10)]


SPEAKERS = ["B", "A", "B", "A", "C", "C"]
TRAINING = [True, True, False, True, False, False]


def fit(kind: str, clips, speakers=SPEAKERS, training=TRAINING) -> Standardiser:
    return Standardiser.fit(kind, iter(clips), speakers, training)


@pytest.mark.parametrize(
    ("kind", "groups"),
    [("train", {"train": (0, 1, 3)}), ("speaker", {"A": (1, 3), "B": (0, 2), "C": (4, 5)})],
)
def test_mean_and_deviation_are_those_of_each_groups_frames(spectrograms, kind: str, groups: dict):
    standardiser = fit(kind, spectrograms)
    assert standardiser.groups == tuple(groups)
    for row, (name, clips) in enumerate(groups.items()):
        frames = np.concatenate([spectrograms[clip] for clip in clips]).astype(np.float64)
        mean, deviation = frames.mean(axis=0), frames.std(axis=0)
        np.testing.assert_allclose(standardiser.mean[row], mean, rtol=1e-6)
        np.testing.assert_allclose(standardiser.deviation[row], deviation, rtol=1e-6)
        for clip in clips:
            applied = standardiser.apply(spectrograms[clip], name)
            assert applied.dtype == np.float32
            np.testing.assert_allclose(applied, (spectrograms[clip] - mean) / deviation, atol=1e-5)


@pytest.mark.parametrize("poison", [np.nan, np.inf, 1e30])
def test_train_depends_on_the_training_subset_alone(spectrograms, poison: float):
    clean = fit("train", spectrograms)
    clips = [clip if used else clip * poison for clip, used in zip(spectrograms, TRAINING, strict=True)]
    poisoned = fit("train", clips)
    assert poisoned.mean.tobytes() == clean.mean.tobytes()
    assert poisoned.deviation.tobytes() == clean.deviation.tobytes()


def test_clip_brings_each_clip_to_mean_0_and_deviation_1(spectrograms):
    standardiser = fit("clip", spectrograms)
    for clip in spectrograms:
        applied = standardiser.apply(clip, "whoever")
        assert applied.dtype == np.float32
        np.testing.assert_allclose(applied.mean(axis=0), 0, atol=1e-5)
        np.testing.assert_allclose(applied.std(axis=0), 1, atol=1e-5)


def test_speaker_does_not_depend_on_other_speakers(spectrograms):
    others = [
        clip * (1 if name == "C" else np.nan) for clip, name in zip(spectrograms, SPEAKERS, strict=True)
    ]
    alone = fit("speaker", others).apply(spectrograms[4], "C")
    np.testing.assert_array_equal(alone, fit("speaker", spectrograms).apply(spectrograms[4], "C"))


def test_none_does_not_change_features(spectrograms):
    np.testing.assert_array_equal(fit("none", spectrograms).apply(spectrograms[2]), spectrograms[2])


@pytest.mark.parametrize("kind", ["clip", "none"])
def test_clip_and_none_are_fitted_without_clips(kind: str):
    assert Standardiser.fit(kind, (1 / 0 for _ in range(6)), SPEAKERS, TRAINING).groups == ()


@pytest.mark.parametrize("kind", ["train", "clip", "speaker"])
def test_a_band_of_digital_silence_stays_near_0(spectrograms, kind: str):
    silent = [clip.copy() for clip in spectrograms]
    for clip in silent:
        clip[:, 2] = -100
    standardiser = fit(kind, silent)
    for clip, name in zip(silent, SPEAKERS, strict=True):
        applied = standardiser.apply(clip, name)
        assert np.isfinite(applied).all()
        np.testing.assert_allclose(applied[:, 2], 0, atol=1e-3)


@pytest.mark.parametrize("kind", ["train", "clip", "speaker", "none"])
def test_inputs_are_unchanged(spectrograms, kind: str):
    for clip in spectrograms:
        clip.flags.writeable = False
    applied = fit(kind, spectrograms).apply(spectrograms[0], "B")
    assert not np.shares_memory(applied, spectrograms[0])


def test_a_speaker_without_statistics_is_refused(spectrograms):
    with pytest.raises(SettingsError, match="speaker 'D' has no statistics; known: A, B, C"):
        fit("speaker", spectrograms).apply(spectrograms[0], "D")


def test_speaker_needs_every_speaker(spectrograms):
    with pytest.raises(SettingsError, match=r"not name the speaker of every clip.*Use standardise='clip'"):
        fit("speaker", spectrograms, speakers=["A", "B", "", "A", "C", "C"])


def test_train_needs_a_training_clip(spectrograms):
    with pytest.raises(SettingsError, match="standardise='train' was given without clips"):
        fit("train", spectrograms, training=[False] * 6)
