"""Streams: stored ones are equal to computed ones; the registry names their functions."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from toy import FEATURES, Tones, layers, make_clips, make_training_data

from valence_lib import registry
from valence_lib.corpora.opening import open_corpus
from valence_lib.corpora.sources import Corpus
from valence_lib.errors import RunError, SettingsError
from valence_lib.evaluation import signal
from valence_lib.features.log_mel import log_mel
from valence_lib.features.log_mel_statistics import log_mel_statistics
from valence_lib.features.pitch import pitch
from valence_lib.features.streams import ClipFeatures, stream_function
from valence_lib.features.voice_statistics import statistic_names, voice_statistics
from valence_lib.preprocess import parallel as chunks_module
from valence_lib.preprocess import store as store_module
from valence_lib.preprocess.inspection import inspect_corpus
from valence_lib.preprocess.store import FeatureStore, store_streams
from valence_lib.registry import STREAMS, Stream, training_settings
from valence_lib.settings import CorpusSettings
from valence_lib.training.loop import train
from valence_lib.training.runs import load_run

STORED = ("pitch", "voice_statistics", "log_mel_statistics")


@pytest.fixture
def corpus(manifest_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Corpus:
    """Six clips, two in each shard."""
    monkeypatch.setattr(chunks_module, "CLIPS_PER_CHUNK", 2)
    monkeypatch.setattr(store_module, "CLIPS_PER_CHUNK", 2)
    return open_corpus(manifest_folder)


@pytest.fixture
def encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """A function with one row a layer instead of the encoder."""
    monkeypatch.setattr(signal, "encoder", layers, raising=False)
    stream = Stream("valence_lib.evaluation.signal", per="clip", groups=2)
    monkeypatch.setitem(registry.STREAMS, "encoder", stream)


def preprocess(folder: Path, corpus: Corpus) -> pd.DataFrame:
    return inspect_corpus(corpus, CorpusSettings(), FEATURES, folder, progress=False).clips


def store_of(folder: Path, corpus: Corpus, workers: int = 1) -> FeatureStore:
    clips = preprocess(folder, corpus)
    store_streams(folder, corpus, clips, STORED, FEATURES, workers, progress=False)
    return FeatureStore(folder, clips, FEATURES)


def test_stored_streams_are_concatenated_in_order(tmp_path: Path, corpus: Corpus):
    store = store_of(tmp_path, corpus)
    frames, rows = store.of(["pitch", "log_mel"]), store.of(["log_mel_statistics", "voice_statistics"])
    assert frames.widths == (2, FEATURES.n_mels)
    assert rows.widths == (5 * FEATURES.n_mels, len(statistic_names()))
    assert rows.lengths.tolist() == [1] * 6
    for row, clip in enumerate(corpus):
        spectrogram = log_mel(clip.waveform, FEATURES)
        expected = np.concatenate([pitch(clip.waveform, FEATURES), spectrogram], axis=1)
        np.testing.assert_array_equal(frames[row], expected)
        statistics = log_mel_statistics(spectrogram, FEATURES), voice_statistics(clip.waveform, FEATURES)
        np.testing.assert_array_equal(rows[row], np.concatenate(statistics, axis=1))


@pytest.mark.parametrize("names", [["pitch"], ["log_mel", "pitch"], list(STORED[1:])], ids=str)
def test_computed_streams_are_equal_to_stored_ones(tmp_path: Path, corpus: Corpus, names: list[str]):
    stored = store_of(tmp_path, corpus).of(names)
    source = ClipFeatures([clip.waveform for clip in corpus], FEATURES)
    computed = source.of(names)
    assert len(source) == len(stored) == len(computed) == 6
    for row, rows in enumerate(computed):
        assert rows.dtype == stored[row].dtype == np.float32
        np.testing.assert_array_equal(stored[row], rows)


def test_a_stream_is_computed_once(corpus: Corpus):
    source = ClipFeatures([corpus[0].waveform], FEATURES)
    assert source.of(["pitch"])[0] is source.of(["pitch"])[0]


@pytest.mark.parametrize("names", [["pitch", "log_mel"], ["log_mel_statistics"]], ids=str)
def test_no_clips_have_no_features(names: list[str]):
    assert ClipFeatures([], FEATURES).of(names) == []


@pytest.mark.parametrize("name", [name for name in STREAMS if STREAMS[name].needs != "opensmile"])
def test_every_stream_is_a_function_of_its_own_name(name: str):
    assert stream_function(name).__name__ == name


def test_several_processes_write_the_same_bytes(tmp_path: Path, corpus: Corpus):
    contents = []
    for workers in (1, 2):
        folder = tmp_path / str(workers)
        store_of(folder, corpus, workers)
        contents.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert len(contents[0]) == 3 * 3  # statistics of the log-mel are not stored
    assert contents[0] == contents[1]


def test_only_the_missing_shard_is_computed_again(tmp_path: Path, corpus: Corpus, fingerprint):
    clips = preprocess(tmp_path, corpus)
    others = set(tmp_path.iterdir())
    store_streams(tmp_path, corpus, clips, ["pitch"], FEATURES, workers=1, progress=False)
    before = fingerprint(tmp_path)
    missing = min(set(tmp_path.iterdir()) - others)
    missing.unlink()
    store_streams(tmp_path, corpus, clips, ["pitch"], FEATURES, workers=1, progress=False)
    after = fingerprint(tmp_path)
    assert {name for name in before if before[name] != after[name]} == {".", missing.name}
    assert before[missing.name][1] == after[missing.name][1]


@pytest.mark.usefixtures("encoder")
def test_shards_of_other_streams_do_not_depend_on_the_encoder(tmp_path: Path, corpus: Corpus):
    clips = preprocess(tmp_path, corpus)
    counts = []
    for changes in ({}, {"encoder": "0" * 64}, {"encoder": "0" * 64, "encoder_layer": "1"}, {"top_db": 60.0}):
        settings = dataclasses.replace(FEATURES, **changes)
        names = ["voice_statistics", "encoder"]
        store_streams(tmp_path, corpus, clips, names, settings, workers=1, progress=False)
        counts.append(len(list(tmp_path.glob("*.npy"))))
    assert counts == [9, 12, 15, 21]  # three shards a stream, and three of the log-mel


def test_a_stream_that_was_not_stored(tmp_path: Path, corpus: Corpus):
    store = FeatureStore(tmp_path, preprocess(tmp_path, corpus), FEATURES)
    message = r"lacks the shard [0-9a-f]{64}\.npy.*run 1_preprocess\.ipynb again"
    for names in (["log_mel", "pitch"], ["voice_statistics"]):
        with pytest.raises(RunError, match=message):
            store.of(names)
    assert sum(store.of(["log_mel_statistics"]).widths) == 5 * FEATURES.n_mels  # from stored frames


@pytest.mark.usefixtures("encoder")
def test_a_layer_is_one_row_of_its_stream(tmp_path: Path, corpus: Corpus):
    order = [4, 5, 1, 0]  # rows are in the table's order, not the corpus's
    clips = preprocess(tmp_path, corpus).iloc[order].reset_index(drop=True)
    store_streams(tmp_path, corpus, clips, ["encoder", "voice_statistics"], FEATURES, 1, progress=False)
    waveforms = [corpus[index].waveform for index in order]
    expected = [layers(waveform, FEATURES) for waveform in waveforms]
    n_statistics = len(statistic_names())
    for source in (FeatureStore(tmp_path, clips, FEATURES), ClipFeatures(waveforms, FEATURES)):
        every, last, both = (
            source.of(names) for names in (["encoder"], ["encoder:2"], ["voice_statistics", "encoder:1"])
        )
        for row, rows in enumerate(expected):
            np.testing.assert_array_equal(every[row], rows)
            np.testing.assert_array_equal(last[row], rows[2:3])
            np.testing.assert_array_equal(both[row][:, n_statistics:], rows[1:2])
    stored = FeatureStore(tmp_path, clips, FEATURES).of(["voice_statistics", "encoder:1"])
    assert (stored.lengths.tolist(), stored.widths) == ([1] * len(order), (n_statistics, 2, 2))


@pytest.mark.usefixtures("encoder")
def test_a_layer_out_of_range_is_refused(tmp_path: Path, corpus: Corpus):
    clips = preprocess(tmp_path, corpus)
    store_streams(tmp_path, corpus, clips, ["encoder"], FEATURES, workers=1, progress=False)
    sources = FeatureStore(tmp_path, clips, FEATURES), ClipFeatures([corpus[0].waveform], FEATURES)
    for source in sources:
        with pytest.raises(SettingsError, match="no stream 'encoder:3': the last layer of its clips is 2"):
            source.of(["encoder:3"])[0]


def test_streams_that_cannot_be_concatenated_are_refused(tmp_path: Path):
    message = "cannot be concatenated: pitch has one row a frame, voice_statistics"
    for source in (ClipFeatures([], FEATURES), make_training_data(tmp_path).store):
        with pytest.raises(SettingsError, match=message):
            source.of(["pitch", "voice_statistics"])


def loudness(waveform: np.ndarray, settings: object) -> np.ndarray:
    """The clip's level in dB, in each frame [shape=(frames, 1)]."""
    level = 10 * np.log10(np.mean(np.square(waveform)))
    return np.full((FEATURES.frames(len(waveform)), 1), level, np.float32)


def test_a_new_stream_is_stored_trained_on_and_predicted_from(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(signal, "loudness", loudness, raising=False)
    monkeypatch.setitem(registry.STREAMS, "loudness", Stream("valence_lib.evaluation.signal"))
    clips = make_clips(tmp_path)
    store_streams(tmp_path, Tones(), clips, ["loudness"], FEATURES, workers=1, progress=False)
    training_data = make_training_data(tmp_path, clips)
    settings = training_settings("LSTM2", "default", 0, streams=["log_mel", "loudness"], epochs=2)
    train(training_data, settings, tmp_path / "run", torch.device("cpu"), progress=False)
    run, speakers = load_run(tmp_path / "run"), clips["speaker"].tolist()
    computed = ClipFeatures([clip.waveform for clip in Tones()], FEATURES)
    predicted = run.predict_features(computed, speakers)
    stored = run.predict_features(training_data.source(np.arange(len(clips))), speakers)
    np.testing.assert_allclose(predicted, stored, atol=1e-6)
    assert predicted.std() > 1e-3
