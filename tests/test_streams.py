"""Streams: stored, read and computed directly they are the same numbers, and a new one goes the whole road by its name."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.preprocessing import StandardScaler
from toy import FEATURES, Tones, make_clips, make_material

from valence_lib import chunks as chunks_module
from valence_lib import registry, signal_measures
from valence_lib import store as store_module
from valence_lib import streams as streams_module
from valence_lib.corpora import Corpus, open_corpus
from valence_lib.errors import RunError, SettingsError
from valence_lib.features import log_mel
from valence_lib.fine_mel import fine_mel
from valence_lib.frame_statistics import frame_statistics
from valence_lib.inspection import inspect_corpus
from valence_lib.log_mel_statistics import log_mel_statistics
from valence_lib.registry import STREAMS, Stream, streams_named, training_settings
from valence_lib.runs import load_run
from valence_lib.settings import CorpusSettings
from valence_lib.store import FeatureStore, store_streams
from valence_lib.streams import Heard, compute, stream_function
from valence_lib.training import train
from valence_lib.voice import COLUMNS, voice
from valence_lib.voice_statistics import STATISTICS, voice_statistics

OURS = ("voice", "fine_mel", "voice_statistics", "frame_statistics", "log_mel_statistics")
MIXTURES = (
    "log_mel",
    "voice",
    "voice+fine_mel",
    "fine_mel+log_mel+voice",
    "voice_statistics",
    "voice_statistics+frame_statistics",
    "log_mel_statistics+voice_statistics",
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


# What is computed


@pytest.mark.usefixtures("small_chunks")
def test_what_is_stored_is_what_is_heard(tmp_path: Path, corpus: Corpus):
    store = store_of(tmp_path / "features", corpus)
    waveforms = [clip.waveform for clip in corpus]
    heard = Heard(waveforms, FEATURES)
    for names in MIXTURES:
        stored, one_by_one = store.of(names), list(compute(waveforms, names, FEATURES))
        assert len(stored) == len(heard.of(names)) == len(one_by_one) == 6
        for row, rows in enumerate(heard.of(names)):
            assert rows.dtype == stored[row].dtype == np.float32
            np.testing.assert_array_equal(stored[row], rows)
            np.testing.assert_array_equal(one_by_one[row], rows)
            assert rows.shape == (stored.lengths[row], stored.width)


def test_streams_stand_side_by_side_in_the_order_of_their_names(corpus: Corpus):
    waveforms = [clip.waveform for clip in corpus]
    heard = Heard(waveforms, FEATURES)
    assert len(heard) == 6
    for waveform, rows in zip(waveforms, heard.of("voice+log_mel+fine_mel"), strict=True):
        parts = [function(waveform, FEATURES) for function in (voice, log_mel, fine_mel)]
        np.testing.assert_array_equal(rows, np.concatenate(parts, axis=1))
    assert heard.of("voice")[0].shape[1] == len(COLUMNS)


def test_streams_of_a_clip_have_one_row(tmp_path: Path, corpus: Corpus):
    store = store_of(tmp_path / "features", corpus)
    names = "voice_statistics+log_mel_statistics"
    both = store.of(names)
    assert both.lengths.tolist() == [1] * 6
    assert both.width == len(STATISTICS) + 5 * FEATURES.n_mels
    for row, clip in enumerate(corpus):
        of_voice = voice_statistics(clip.waveform, FEATURES)
        of_frames = log_mel_statistics(log_mel(clip.waveform, FEATURES), FEATURES)
        np.testing.assert_array_equal(both[row], np.concatenate([of_voice, of_frames], axis=1))


def test_statistics_of_frames_are_means_and_deviations_of_what_networks_hear(corpus: Corpus):
    for clip in corpus:
        (row,) = frame_statistics(clip.waveform, FEATURES)
        frames = np.concatenate([voice(clip.waveform, FEATURES), fine_mel(clip.waveform, FEATURES)], axis=1)
        scaler = StandardScaler().fit(frames.astype(np.float64))
        expected = np.concatenate([scaler.mean_, np.sqrt(scaler.var_)])
        np.testing.assert_allclose(row, expected, rtol=1e-5, atol=1e-5)


def test_each_stream_is_computed_once(corpus: Corpus, monkeypatch: pytest.MonkeyPatch):
    taken = []

    def function_of(name: str) -> Callable[..., np.ndarray]:
        taken.append(name)
        return stream_function(name)

    monkeypatch.setattr(streams_module, "stream_function", function_of)
    heard = Heard([corpus[0].waveform], FEATURES)
    for names in ("voice+fine_mel", "voice", "fine_mel+voice", "log_mel_statistics", "log_mel"):
        heard.of(names)
    assert sorted(taken) == ["fine_mel", "log_mel_statistics", "voice"]


def test_nothing_is_heard_of_no_clip():
    assert Heard([], FEATURES).of("voice+fine_mel") == []
    assert list(compute([], "log_mel_statistics", FEATURES)) == []


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
    assert len(files) == 3 * 5  # the log-mel and four streams; that of the log-mel is not stored
    assert files == sorted(path.name for path in together.iterdir())
    for name in files:
        assert (alone / name).read_bytes() == (together / name).read_bytes()


@pytest.mark.usefixtures("small_chunks")
def test_finished_shards_are_not_computed_again(
    tmp_path: Path, corpus: Corpus, monkeypatch: pytest.MonkeyPatch, fingerprint: Callable
):
    folder = tmp_path / "features"
    store_of(folder, corpus)
    before = fingerprint(folder)

    def refuse(*given: object) -> None:
        raise AssertionError("a stream was computed again")

    monkeypatch.setattr(store_module, "Heard", refuse)
    store_streams(folder, corpus, preprocess(folder, corpus), OURS, FEATURES, workers=1, progress=False)
    assert fingerprint(folder) == before


@pytest.mark.usefixtures("small_chunks")
def test_only_the_missing_shard_is_computed_again(tmp_path: Path, corpus: Corpus):
    folder = tmp_path / "features"
    clips = preprocess(folder, corpus)
    others = set(folder.iterdir())
    store_streams(folder, corpus, clips, ["voice"], FEATURES, workers=1, progress=False)
    shards = sorted(set(folder.iterdir()) - others)
    assert len(shards) == 3
    content = {shard: (shard.read_bytes(), shard.stat().st_mtime_ns) for shard in shards}
    shards[1].unlink()
    store_streams(folder, corpus, clips, ["voice"], FEATURES, workers=1, progress=False)
    for shard in shards:
        assert shard.read_bytes() == content[shard][0]
        assert (shard.stat().st_mtime_ns == content[shard][1]) == (shard != shards[1])


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("order", [[0, 2, 5], [4, 5, 1, 0]], ids=str)
def test_streams_follow_the_table_and_not_the_corpus(tmp_path: Path, corpus: Corpus, order: list[int]):
    folder = tmp_path / "features"
    clips = preprocess(folder, corpus).iloc[order].reset_index(drop=True)
    store_streams(folder, corpus, clips, OURS, FEATURES, workers=1, progress=False)
    store = FeatureStore(folder, clips, FEATURES)
    for names in ("voice+fine_mel", "voice_statistics"):
        found = store.of(names)
        for row, index in enumerate(order):
            np.testing.assert_array_equal(found[row], Heard([corpus[index].waveform], FEATURES).of(names)[0])


@pytest.mark.usefixtures("small_chunks")
def test_clips_that_cannot_be_used_leave_no_gap(tmp_path: Path, manifest_folder: Path):
    (manifest_folder / "audio" / "1.flac").write_bytes(b"this is no audio")
    corpus = open_corpus(manifest_folder)
    folder = tmp_path / "features"
    clips = preprocess(folder, corpus)
    assert clips["index"].tolist() == [0, 2, 3, 4, 5]
    store_streams(folder, corpus, clips, ["voice"], FEATURES, workers=1, progress=False)
    found = FeatureStore(folder, clips, FEATURES).of("voice")
    for row, index in enumerate(clips["index"]):
        np.testing.assert_array_equal(found[row], voice(corpus[index].waveform, FEATURES))


# Names


def test_unlike_kinds_do_not_stand_side_by_side(tmp_path: Path):
    message = (
        r"streams='voice\+voice_statistics' cannot stand side by side: voice has one row a frame, voice_statistics has "
        "one row a clip. Name streams of one kind, or blend two models"
    )
    for ask in (
        streams_named,
        Heard([], FEATURES).of,
        make_material(tmp_path).store.of,
        lambda names: training_settings("LSTM2", "default", 0, streams=names),
    ):
        with pytest.raises(SettingsError, match=message):
            ask("voice+voice_statistics")


@pytest.mark.parametrize(
    ("given", "nearest"), [("voices", "voice"), ("log_mel+fine-mel", "fine_mel"), ("logmel", "log_mel")]
)
def test_an_unknown_stream_is_told_the_nearest(tmp_path: Path, given: str, nearest: str):
    with pytest.raises(SettingsError, match=f"There is no stream .*Did you mean '{nearest}'?"):
        make_material(tmp_path).store.of(given)


def test_one_row_a_clip_is_not_standardised_within_the_clip():
    with pytest.raises(
        SettingsError, match="standardise='clip' was given for voice_statistics, of which a clip has one"
    ):
        training_settings("VoiceSVR", "clip", 0)


def test_a_stream_that_was_not_stored(tmp_path: Path, corpus: Corpus):
    store = FeatureStore(tmp_path, preprocess(tmp_path, corpus), FEATURES)
    for names in ("voice", "log_mel+fine_mel"):
        with pytest.raises(
            RunError, match=r"lacks the shard [0-9a-f]{64}\.npy.*run 1_preprocess\.ipynb again"
        ):
            store.of(names)
    assert store.of("log_mel_statistics").width == 5 * FEATURES.n_mels  # comes from the frames that are there


# A new stream


@pytest.mark.usefixtures("new_stream")
def test_a_new_stream_goes_the_whole_road(tmp_path: Path):
    clips = make_clips(tmp_path)
    store_streams(tmp_path, Tones(), clips, ["loudness"], FEATURES, workers=1, progress=False)
    material = make_material(tmp_path, clips)
    waveforms = [clip.waveform for clip in Tones()]
    stored = material.store.of("loudness")
    for row, waveform in enumerate(waveforms):
        np.testing.assert_array_equal(stored[row], loudness(waveform, FEATURES))

    settings = training_settings("LSTM2", "default", 0, streams="log_mel+loudness", epochs=2)
    train(material, settings, tmp_path / "run", torch.device("cpu"), progress=False)
    run = load_run(tmp_path / "run")
    speakers = clips["speaker"].tolist()
    predicted = run.hear(Heard(waveforms, FEATURES), speakers)
    heard = material.store.of("log_mel+loudness")
    assert heard.width == FEATURES.n_mels + 1
    np.testing.assert_allclose(predicted, run.predict(list(heard), speakers), atol=1e-6)
    assert predicted.std() > 1e-3
