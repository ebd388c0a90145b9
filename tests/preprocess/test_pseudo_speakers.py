"""Clusters of voices: the same each time, and nearer to the speakers than chance where these are known."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import adjusted_rand_score

from valence_lib.corpora.opening import open_corpus
from valence_lib.features.log_mel import log_mel
from valence_lib.features.pitch import pitch
from valence_lib.preprocess.pseudo_speakers import pseudo_speakers
from valence_lib.settings import FeatureSettings

EMOTALE = Path(__file__).parents[3] / "shared" / "data" / "emotale"
SETTINGS = FeatureSettings()
RATE = SETTINGS.sample_rate


def spoken(pitch, slope, seed, seconds=1.0):
    """A harmonic tone near a pitch in Hz, `slope` dB an octave, at a random level, with a little noise."""
    rng = np.random.default_rng(seed)
    glide = pitch * 2 ** (rng.uniform(-0.1, 0.1) * np.linspace(-1, 1, round(seconds * RATE)))
    phase = 2 * np.pi * np.cumsum(glide) / RATE
    partials = [
        10 ** (-slope * np.log2(k) / 20) * np.sin(k * phase + rng.uniform(0, 6))
        for k in range(1, int(RATE / 2.2 / pitch))
    ]
    tone = np.sum(partials, axis=0) + rng.normal(0, 1e-3, len(phase))
    return (rng.uniform(0.02, 0.2) * tone / np.abs(tone).max()).astype(np.float32)


def streams_of(waveforms):
    """The arguments of `pseudo_speakers`."""
    return [log_mel(clip, SETTINGS) for clip in waveforms], [pitch(clip, SETTINGS) for clip in waveforms]


@pytest.fixture(scope="module")
def two_voices():
    """The speaker of each of 40 clips, and their streams: a deep and a high voice, in turn."""
    kinds = [(110, 12), (230, 4)] * 20
    return np.arange(40) % 2, streams_of([spoken(*kind, seed) for seed, kind in enumerate(kinds)])


def test_no_cluster_holds_two_unlike_voices(two_voices):
    who, streams = two_voices
    clusters = pseudo_speakers(*streams)
    assert clusters.shape == (40,)
    assert set(clusters) == {"voice 00", "voice 01", "voice 02", "voice 03"}  # the fewest
    assert set(clusters[who == 0]).isdisjoint(clusters[who == 1])
    np.testing.assert_array_equal(pseudo_speakers(*streams), clusters)


def test_of_more_clips_than_are_compared_the_others_join_the_nearest(two_voices, monkeypatch):
    who, streams = two_voices
    monkeypatch.setattr("valence_lib.preprocess.pseudo_speakers._MOST_COMPARED", 20)
    clusters = pseudo_speakers(*streams)
    assert len(set(clusters)) == 4
    assert set(clusters[who == 0]).isdisjoint(clusters[who == 1])


def test_a_clip_of_one_frame_has_no_halves_and_a_cluster_all_the_same(two_voices):
    _, (spectra, voices) = two_voices
    clusters = pseudo_speakers([*spectra, spectra[0][:1]], [*voices, voices[0][:1]])
    assert len(clusters) == 41


def test_a_clips_level_does_not_matter(two_voices):
    _, (spectra, voices) = two_voices
    louder = [
        clip + level for clip, level in zip(spectra, np.random.default_rng(1).uniform(-9, 9, 40), strict=True)
    ]
    assert adjusted_rand_score(pseudo_speakers(spectra, voices), pseudo_speakers(louder, voices)) > 0.99


@pytest.mark.parametrize(("count", "expected"), [(1, 1), (2, 2), (3, 3), (4, 4), (5, 4)])
def test_of_few_clips_each_is_a_voice_of_its_own(count, expected, two_voices):
    _, (spectra, voices) = two_voices
    assert len(set(pseudo_speakers(spectra[:count], voices[:count]))) == expected


def test_voiceless_clips_have_a_cluster_too(two_voices):
    _, (spectra, voices) = two_voices
    noises = [np.random.default_rng(seed).normal(0, 0.05, RATE).astype(np.float32) for seed in range(6)]
    added_spectra, added_voices = streams_of(noises)
    clusters = pseudo_speakers([*spectra, *added_spectra], [*voices, *added_voices])
    assert set(clusters[:40]).isdisjoint(clusters[40:])


@pytest.mark.skipif(not EMOTALE.is_dir(), reason="the EmoTale corpus (../shared/data) is not here")
def test_clusters_are_nearer_to_emotales_speakers_than_chance():
    labels = pd.read_csv(EMOTALE / "labels.csv", dtype=str)
    chosen = np.arange(0, len(labels), 3)
    corpus = open_corpus(EMOTALE)
    clusters = pseudo_speakers(*streams_of([corpus.read(int(row)).waveform for row in chosen]))
    speakers, sex = (labels[name].to_numpy()[chosen] for name in ("speaker", "sex"))
    rng = np.random.default_rng(0)
    by_chance = [adjusted_rand_score(speakers, rng.permutation(clusters)) for _ in range(200)]
    assert adjusted_rand_score(speakers, clusters) > max(by_chance) + 0.1
    of_own_sex = pd.crosstab(clusters, sex).max(axis=1).sum() / len(chosen)
    assert of_own_sex > 0.85
