"""Streams: stored, read and computed directly they are the same numbers; a new one is found by its name."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from toy import FEATURES, Tones, layers, make_clips, make_material

from valence_lib import chunks as chunks_module
from valence_lib import registry, signal_measures
from valence_lib import store as store_module
from valence_lib.corpora import Corpus, open_corpus
from valence_lib.errors import RunError, SettingsError
from valence_lib.features import log_mel
from valence_lib.inspection import inspect_corpus
from valence_lib.log_mel_statistics import log_mel_statistics
from valence_lib.pitch import pitch
from valence_lib.registry import STREAMS, Stream, training_settings
from valence_lib.runs import load_run
from valence_lib.settings import CorpusSettings
from valence_lib.store import FeatureStore, store_streams
from valence_lib.streams import ClipFeatures, stream_function
from valence_lib.training import train
from valence_lib.voice_statistics import STATISTICS, voice_statistics

OURS = ("pitch", "voice_statistics", "log_mel_statistics")
MIXTURES = (
    ("pitch",),
    ("log_mel", "pitch"),
    ("voice_statistics",),
    ("log_mel_statistics", "voice_statistics"),
)


@pytest.fixture
def corpus(manifest_folder: Path) -> Corpus:
    return open_corpus(manifest_folder)


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two clips a chunk, so that six clips take three."""
    monkeypatch.setattr(chunks_module, "CLIPS_PER_CHUNK", 2)
    monkeypatch.setattr(store_module, "CLIPS_PER_CHUNK", 2)


def preprocess(folder: Path, corpus: Corpus) -> pd.DataFrame:
    return inspect_corpus(corpus, CorpusSettings(), FEATURES, folder, progress=False).clips


def store_of(folder: Path, corpus: Corpus, workers: int = 1) -> FeatureStore:
    clips = preprocess(folder, corpus)
    store_streams(folder, corpus, clips, OURS, FEATURES, workers, progress=False)
    return FeatureStore(folder, clips, FEATURES)


def loudness(waveform: np.ndarray, settings: object) -> np.ndarray:
    """A new stream: the level around each frame of the log-mel, in dB [shape=(frames, 1)]."""
    padded = np.pad(np.asarray(waveform, np.float64), (64, 192))
    frames = np.lib.stride_tricks.sliding_window_view(padded, 128)[:: FEATURES.hop_length]
    power = (frames[: FEATURES.frames(len(waveform))] ** 2).mean(axis=1)
    return 10 * np.log10(np.maximum(power, 1e-10))[:, None].astype(np.float32)


@pytest.fixture
def new_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """One function in a module of the library, and one line in the registry."""
    monkeypatch.setattr(signal_measures, "loudness", loudness, raising=False)
    monkeypatch.setitem(registry.STREAMS, "loudness", Stream("valence_lib.signal_measures"))


@pytest.fixture
def encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the place of the encoder, a function with one row a layer."""
    monkeypatch.setattr(signal_measures, "encoder", layers, raising=False)
    monkeypatch.setitem(
        registry.STREAMS, "encoder", Stream("valence_lib.signal_measures", per="clip", groups=2)
    )


# What is computed


@pytest.mark.usefixtures("small_chunks")
def test_what_is_stored_is_what_is_computed(tmp_path: Path, corpus: Corpus):
    store = store_of(tmp_path / "features", corpus)
    waveforms = [clip.waveform for clip in corpus]
    source = ClipFeatures(waveforms, FEATURES)
    assert len(source) == 6
    for names in MIXTURES:
        stored = store.of(names)
        assert len(stored) == len(source.of(names)) == 6
        assert len(names) > 1 or source.of(names)[0] is source.of(names)[0]  # computed once
        for row, rows in enumerate(source.of(names)):
            assert rows.dtype == stored[row].dtype == np.float32
            np.testing.assert_array_equal(stored[row], rows)
            assert rows.shape == (stored.lengths[row], stored.width)


def test_streams_stand_side_by_side_in_the_order_of_their_names(tmp_path: Path, corpus: Corpus):
    store = store_of(tmp_path / "features", corpus)
    frames, clips = store.of(["pitch", "log_mel"]), store.of(["log_mel_statistics", "voice_statistics"])
    assert frames.widths == (2, FEATURES.n_mels)
    assert clips.widths == (5 * FEATURES.n_mels, len(STATISTICS))
    assert clips.lengths.tolist() == [1] * 6
    for row, clip in enumerate(corpus):
        spectrogram = log_mel(clip.waveform, FEATURES)
        expected = np.concatenate([pitch(clip.waveform, FEATURES), spectrogram], axis=1)
        np.testing.assert_array_equal(frames[row], expected)
        statistics = log_mel_statistics(spectrogram, FEATURES), voice_statistics(clip.waveform, FEATURES)
        np.testing.assert_array_equal(clips[row], np.concatenate(statistics, axis=1))


def test_no_clip_has_no_features():
    assert ClipFeatures([], FEATURES).of(["pitch", "log_mel"]) == []
    assert ClipFeatures([], FEATURES).of(["log_mel_statistics"]) == []


@pytest.mark.parametrize(
    "name", [name for name in STREAMS if STREAMS[name].module != "valence_lib.opensmile_features"]
)
def test_every_stream_is_a_function_of_its_own_name(name: str):
    assert stream_function(name).__name__ == name


# What is on disk


@pytest.mark.usefixtures("small_chunks")
def test_other_processes_write_the_same_bytes(tmp_path: Path, corpus: Corpus):
    alone, together = tmp_path / "alone", tmp_path / "together"
    store_of(alone, corpus, workers=1)
    store_of(together, corpus, workers=2)
    files = sorted(path.name for path in alone.iterdir())
    assert len(files) == 3 * 3  # the log-mel and two streams; what comes from the log-mel is not stored
    assert files == sorted(path.name for path in together.iterdir())
    for name in files:
        assert (alone / name).read_bytes() == (together / name).read_bytes()


@pytest.mark.usefixtures("small_chunks")
def test_only_the_missing_shard_is_computed_again(tmp_path: Path, corpus: Corpus):
    folder = tmp_path / "features"
    clips = preprocess(folder, corpus)
    others = set(folder.iterdir())
    store_streams(folder, corpus, clips, ["pitch"], FEATURES, workers=1, progress=False)
    shards = sorted(set(folder.iterdir()) - others)
    assert len(shards) == 3
    content = {shard: (shard.read_bytes(), shard.stat().st_mtime_ns) for shard in shards}
    shards[1].unlink()
    store_streams(folder, corpus, clips, ["pitch"], FEATURES, workers=1, progress=False)
    for shard in shards:
        assert shard.read_bytes() == content[shard][0]
        assert (shard.stat().st_mtime_ns == content[shard][1]) == (shard != shards[1])


@pytest.mark.usefixtures("small_chunks", "encoder")
def test_another_encoder_leaves_the_shards_of_other_streams(tmp_path: Path, corpus: Corpus):
    folder = tmp_path / "features"
    clips = preprocess(folder, corpus)
    names = ["voice_statistics", "encoder"]
    counts = []
    for changes in ({}, {"encoder": "0" * 64}, {"encoder": "0" * 64, "encoder_layer": "1"}, {"top_db": 60.0}):
        settings = dataclasses.replace(FEATURES, **changes)
        store_streams(folder, corpus, clips, names, settings, workers=1, progress=False)
        counts.append(len(list(folder.iterdir())))
    assert counts == [9, 12, 15, 21]  # three shards of a stream; first with those of the log-mel


# Layers


@pytest.mark.usefixtures("small_chunks", "encoder")
def test_a_layer_is_one_row_of_its_stream(tmp_path: Path, corpus: Corpus):
    order = [4, 5, 1, 0]  # clips follow the table, and not the corpus
    clips = preprocess(tmp_path, corpus).iloc[order].reset_index(drop=True)
    store_streams(tmp_path, corpus, clips, ["encoder", "voice_statistics"], FEATURES, 1, progress=False)
    store = FeatureStore(tmp_path, clips, FEATURES)
    waveforms = [corpus[index].waveform for index in order]
    source = ClipFeatures(waveforms, FEATURES)
    every = store.of(["encoder"])
    assert (every.lengths.tolist(), every.widths) == ([3] * len(order), (2, 2))
    for row, waveform in enumerate(waveforms):
        np.testing.assert_array_equal(every[row], layers(waveform, FEATURES))
        np.testing.assert_array_equal(source.of(["encoder"])[row], layers(waveform, FEATURES))
    for number in range(3):
        one = store.of([f"encoder:{number}"])
        beside = store.of(["voice_statistics", f"encoder:{number}"])
        assert one.lengths.tolist() == beside.lengths.tolist() == [1] * len(order)
        assert (one.widths, beside.widths) == ((2, 2), (len(STATISTICS), 2, 2))
        for row, waveform in enumerate(waveforms):
            expected = layers(waveform, FEATURES)[number : number + 1]
            np.testing.assert_array_equal(one[row], expected)
            np.testing.assert_array_equal(source.of([f"encoder:{number}"])[row], expected)
            np.testing.assert_array_equal(beside[row][:, -4:], expected)
            computed = source.of(["voice_statistics", f"encoder:{number}"])[row]
            np.testing.assert_array_equal(computed, beside[row])


@pytest.mark.usefixtures("encoder")
def test_a_layer_that_is_not_there(tmp_path: Path, corpus: Corpus):
    clips = preprocess(tmp_path, corpus)
    store_streams(tmp_path, corpus, clips, ["encoder"], FEATURES, workers=1, progress=False)
    message = "there is no stream 'encoder:3': the last layer of its clips is 2"
    with pytest.raises(SettingsError, match=message):
        FeatureStore(tmp_path, clips, FEATURES).of(["encoder:3"])[0]
    with pytest.raises(SettingsError, match=message):
        ClipFeatures([corpus[0].waveform], FEATURES).of(["encoder:3"])


# Names


def test_streams_that_cannot_be_used_are_refused(tmp_path: Path):
    message = "cannot stand side by side: pitch has one row a frame, voice_statistics"
    for ask in (ClipFeatures([], FEATURES).of, make_material(tmp_path).store.of):
        with pytest.raises(SettingsError, match=message):
            ask(["pitch", "voice_statistics"])


def test_a_stream_that_was_not_stored(tmp_path: Path, corpus: Corpus):
    store = FeatureStore(tmp_path, preprocess(tmp_path, corpus), FEATURES)
    for names in (["pitch"], ["log_mel", "pitch"], ["voice_statistics"]):
        with pytest.raises(
            RunError, match=r"lacks the shard [0-9a-f]{64}\.npy.*run 1_preprocess\.ipynb again"
        ):
            store.of(names)
    assert (
        store.of(["log_mel_statistics"]).width == 5 * FEATURES.n_mels
    )  # comes from the frames that are there


# A new stream


@pytest.mark.usefixtures("new_stream")
def test_a_new_stream_goes_the_whole_road(tmp_path: Path):
    clips = make_clips(tmp_path)
    store_streams(tmp_path, Tones(), clips, ["loudness"], FEATURES, workers=1, progress=False)
    material = make_material(tmp_path, clips)
    waveforms = [clip.waveform for clip in Tones()]
    stored = material.store.of(["loudness"])
    for row, waveform in enumerate(waveforms):
        np.testing.assert_array_equal(stored[row], loudness(waveform, FEATURES))

    settings = training_settings("LSTM2", "default", 0, streams=["log_mel", "loudness"], epochs=2)
    train(material, settings, tmp_path / "run", torch.device("cpu"), progress=False)
    run = load_run(tmp_path / "run")
    speakers = clips["speaker"].tolist()
    predicted = run.predict(ClipFeatures(waveforms, FEATURES), speakers)
    assert material.store.of(run.streams).widths == (FEATURES.n_mels, 1)
    stored = run.predict(material.source(np.arange(len(clips))), speakers)
    np.testing.assert_allclose(predicted, stored, atol=1e-6)
    assert predicted.std() > 1e-3
