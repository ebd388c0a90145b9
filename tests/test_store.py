"""The feature store gives what `log_mel` gives, computes nothing twice, and never serves half a file."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest

from valence_lib import chunks as chunks_module
from valence_lib import inspection as inspection_module
from valence_lib import store as store_module
from valence_lib.corpora import Corpus, open_corpus
from valence_lib.errors import RunError
from valence_lib.features import log_mel
from valence_lib.inspection import inspect_corpus
from valence_lib.settings import (
    CorpusSettings,
    FeatureSettings,
)
from valence_lib.store import FeatureStore

SETTINGS = FeatureSettings()


@pytest.fixture
def corpus(manifest_folder: Path) -> Corpus:
    return open_corpus(manifest_folder)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "features"


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two clips a shard, so that six clips take three."""
    monkeypatch.setattr(chunks_module, "CLIPS_PER_CHUNK", 2)


def preprocess(folder: Path, corpus: Corpus, settings: FeatureSettings = SETTINGS) -> pd.DataFrame:
    return inspect_corpus(corpus, CorpusSettings(), settings, folder, progress=False).clips


def build(folder: Path, corpus: Corpus, settings: FeatureSettings = SETTINGS) -> FeatureStore:
    return FeatureStore(folder, preprocess(folder, corpus, settings), settings)


def shards(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def refuse_to_compute(monkeypatch: pytest.MonkeyPatch, after: int = 0) -> None:
    """From now on `log_mel` fails, once it has computed `after` clips."""
    n_computed = 0

    def failing(waveform: np.ndarray, settings: FeatureSettings) -> np.ndarray:
        nonlocal n_computed
        n_computed += 1
        if n_computed > after:
            raise RuntimeError("log_mel was called")
        return log_mel(waveform, settings)

    monkeypatch.setattr(store_module, "log_mel", failing)


# Content


@pytest.mark.parametrize("clips_per_shard", [1, 2, 4, 5, 6, 256])
def test_each_row_is_the_clips_log_mel(
    folder: Path, corpus: Corpus, clips_per_shard: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(chunks_module, "CLIPS_PER_CHUNK", clips_per_shard)
    store = build(folder, corpus)
    assert len(shards(folder)) == -(-6 // clips_per_shard)
    assert len(store) == 6
    for row, clip in enumerate(corpus):
        frames = store[row]
        np.testing.assert_array_equal(frames, log_mel(clip.waveform, SETTINGS))
        assert frames.dtype == np.float32
        assert store.lengths[row] == len(frames)
    assert [len(frames) for frames in store] == list(store.lengths)


def test_clips_of_unlike_lengths(folder: Path, tmp_path: Path, voice: Callable, write_pickle: Callable):
    entries = [{"audio_data": voice(n, 8000, 0.3 + 0.17 * n), "valence": 1 + n / 4} for n in (3, 0, 5, 1, 9)]
    corpus = open_corpus(write_pickle(tmp_path / "clips.pkl", entries))
    store = build(folder, corpus)
    assert len(set(store.lengths)) == 5
    for frames, clip in zip(store, corpus, strict=True):
        np.testing.assert_array_equal(frames, log_mel(clip.waveform, SETTINGS))


@pytest.mark.usefixtures("small_shards")
def test_rows_follow_the_table_and_not_the_corpus(folder: Path, corpus: Corpus):
    chosen = preprocess(folder, corpus).iloc[[4, 1, 0]].reset_index(drop=True)
    store = FeatureStore(folder, chosen, SETTINGS)
    assert len(store) == 3
    for row, index in enumerate((4, 1, 0)):
        np.testing.assert_array_equal(store[row], log_mel(corpus[index].waveform, SETTINGS))


@pytest.mark.usefixtures("small_shards")
def test_bad_clips_are_not_stored_and_duplicates_do_no_harm(
    folder: Path, corpus: Corpus, manifest_folder: Path
):
    (manifest_folder / "audio" / "1.flac").write_bytes(b"this is no audio")
    (manifest_folder / "audio" / "3.wav").write_bytes((manifest_folder / "audio" / "0.wav").read_bytes())
    clips = preprocess(folder, corpus)
    assert list(clips["index"]) == [0, 2, 4, 5]
    store = FeatureStore(folder, clips, SETTINGS)
    for row, index in enumerate(clips["index"]):
        np.testing.assert_array_equal(store[row], log_mel(corpus[index].waveform, SETTINGS))


def test_no_shard_takes_more_audio_than_fits_in_memory(
    folder: Path, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
):
    # Every clip has 4000 samples: the third one fills a shard.
    monkeypatch.setattr(inspection_module, "_MOST_SAMPLES", 10_000)
    store = build(folder, corpus)
    assert len(shards(folder)) == 2
    for row, clip in enumerate(corpus):
        np.testing.assert_array_equal(store[row], log_mel(clip.waveform, SETTINGS))


@pytest.mark.usefixtures("small_shards")
def test_rows_are_read_in_any_order_and_no_file_stays_open(folder: Path, corpus: Corpus):
    store = build(folder, corpus)
    expected = [log_mel(clip.waveform, SETTINGS) for clip in corpus]
    before = open_files()
    for row in (0, 5, 2, 1, 4, 3, 0):
        np.testing.assert_array_equal(store[row], expected[row])
    assert open_files() == before


def open_files() -> list[str]:
    return sorted(psutil.Process().open_files())


def test_a_row_is_in_memory_of_its_own(folder: Path, corpus: Corpus):
    store = build(folder, corpus)
    frames = store[3]
    expected = frames.copy()
    frames[:] = 0
    np.testing.assert_array_equal(store[3], expected)
    assert frames.nbytes == store.lengths[3] * SETTINGS.n_mels * 4


def test_a_shard_that_is_cut_off_while_it_is_used_is_damaged(folder: Path, corpus: Corpus):
    store = build(folder, corpus)
    assert len(store[0])
    (shard,) = shards(folder)
    shard.write_bytes(shard.read_bytes()[:-4])
    with pytest.raises(RunError, match="damaged"):
        store[len(store) - 1]


@pytest.mark.parametrize("row", [6, -1])
def test_a_row_that_is_not_there(folder: Path, corpus: Corpus, row: int):
    with pytest.raises(IndexError, match=f"row {row} of a feature store of 6 clips"):
        build(folder, corpus)[row]


# Keys


@pytest.mark.usefixtures("small_shards")
def test_a_second_build_computes_nothing(
    folder: Path, corpus: Corpus, monkeypatch: pytest.MonkeyPatch, fingerprint: Callable
):
    first = build(folder, corpus)
    before = fingerprint(folder)
    refuse_to_compute(monkeypatch)
    second = build(folder, corpus)
    assert fingerprint(folder) == before
    for row in range(6):
        np.testing.assert_array_equal(second[row], first[row])


@pytest.mark.usefixtures("small_shards")
def test_only_what_is_missing_is_computed(folder: Path, corpus: Corpus, monkeypatch: pytest.MonkeyPatch):
    build(folder, corpus)
    content = {path.name: path.read_bytes() for path in shards(folder)}
    shards(folder)[1].unlink()
    refuse_to_compute(monkeypatch, after=2)
    build(folder, corpus)
    assert {path.name: path.read_bytes() for path in shards(folder)} == content


@pytest.mark.parametrize(
    "changes", [{"n_mels": 64}, {"hop_length": 256}, {"n_fft": 1024}, {"top_db": 60.0}], ids=str
)
def test_other_settings_are_other_files(folder: Path, corpus: Corpus, changes: dict):
    first = build(folder, corpus)
    other = FeatureSettings(**changes)
    second = build(folder, corpus, other)
    assert len(shards(folder)) == 2
    np.testing.assert_array_equal(first[2], log_mel(corpus[2].waveform, SETTINGS))
    np.testing.assert_array_equal(second[2], log_mel(corpus[2].waveform, other))


@pytest.mark.usefixtures("small_shards")
def test_another_recording_is_another_file_and_the_rest_stays(
    folder: Path, corpus: Corpus, manifest_folder: Path
):
    build(folder, corpus)
    before = set(shards(folder))
    (manifest_folder / "audio" / "3.wav").write_bytes((manifest_folder / "audio" / "0.wav").read_bytes())
    (manifest_folder / "audio" / "0.wav").unlink()
    changed = preprocess(folder, corpus)
    assert list(changed["index"]) == [1, 2, 3, 4, 5]
    store = FeatureStore(folder, changed, SETTINGS)
    for row, index in enumerate(changed["index"]):
        np.testing.assert_array_equal(store[row], log_mel(corpus[index].waveform, SETTINGS))
    assert before < set(shards(folder))


def test_labels_and_names_do_not_matter_to_the_key(
    folder: Path,
    corpus: Corpus,
    monkeypatch: pytest.MonkeyPatch,
    manifest_folder: Path,
    write_table: Callable,
):
    build(folder, corpus)
    refuse_to_compute(monkeypatch)
    for file in (manifest_folder / "audio").iterdir():
        file.rename(file.with_stem(f"renamed {file.stem}"))
    rows = [
        {"file": id.replace("audio/", "audio/renamed "), "valence": 2, "speaker": "A"} for id in corpus.ids
    ]
    write_table(manifest_folder / "labels.csv", rows)
    build(folder, open_corpus(manifest_folder))
    assert len(shards(folder)) == 1


def test_two_corpora_share_their_shards(
    folder: Path, corpus: Corpus, manifest_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    build(folder, corpus)
    copy = manifest_folder.rename(manifest_folder.with_name("moved"))
    refuse_to_compute(monkeypatch)
    build(folder, open_corpus(copy))


# Damage


@pytest.mark.usefixtures("small_shards")
def test_a_missing_shard(folder: Path, corpus: Corpus):
    store = build(folder, corpus)
    for path in shards(folder):
        path.unlink()
    with pytest.raises(RunError, match=r"lacks the shard [0-9a-f]{64}\.npy.*run 1_preprocess\.ipynb again"):
        store[0]


def damaged_from(content: bytes, damage: str, tmp_path: Path) -> bytes:
    """What is left of a shard."""
    match damage:
        case "emptied":
            return b""
        case "cut in its header":
            return content[:40]
        case "cut in its frames":
            return content[:-1]
        case "other bytes":
            return b"x" * len(content)
        case _:
            assert damage == "a pickle"
            path = tmp_path / "objects.npy"
            np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
            return path.read_bytes()


@pytest.mark.parametrize(
    "damage", ["emptied", "cut in its header", "cut in its frames", "other bytes", "a pickle"]
)
@pytest.mark.usefixtures("small_shards")
def test_a_damaged_shard(folder: Path, corpus: Corpus, damage: str, tmp_path: Path):
    clips = preprocess(folder, corpus)
    frames = [np.array(frames) for frames in FeatureStore(folder, clips, SETTINGS)]
    damaged = shards(folder)[0]
    damaged.write_bytes(damaged_from(damaged.read_bytes(), damage, tmp_path))
    store = FeatureStore(folder, clips, SETTINGS)
    n_read = 0
    for row in range(6):
        try:
            np.testing.assert_array_equal(store[row], frames[row])
            n_read += 1
        except RunError as error:
            assert damaged.name in str(error)
            assert "Delete that file if it is there, and run 1_preprocess.ipynb again" in str(error)
    assert n_read == 4  # the two other shards can still be read


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((47, 128), np.float32),
        np.zeros((48, 128)),
        np.zeros((48, 64), np.float32),
        np.zeros(48, np.float32),
    ],
    ids=["frames", "type", "bands", "dimensions"],
)
def test_a_shard_of_another_shape_or_type(folder: Path, corpus: Corpus, wrong: np.ndarray):
    store = build(folder, corpus)
    np.save(shards(folder)[0], wrong)
    found = re.escape(f"holds {wrong.dtype} {wrong.shape}")
    with pytest.raises(
        RunError, match=f"{found}; expected float32 with 48 rows or more of 128 columns. Delete it"
    ):
        store[5]


@pytest.mark.usefixtures("small_shards")
def test_a_build_that_fails_half_way_leaves_whole_shards_alone(
    folder: Path, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
):
    with monkeypatch.context() as patch:
        refuse_to_compute(patch, after=3)
        with pytest.raises(RuntimeError, match="log_mel was called"):
            build(folder, corpus)
    assert len(shards(folder)) == 1  # the first shard's two clips; the second broke off at its second
    store = build(folder, corpus)
    for row, clip in enumerate(corpus):
        np.testing.assert_array_equal(store[row], log_mel(clip.waveform, SETTINGS))


def test_a_build_that_fails_while_it_writes_leaves_no_file(
    folder: Path, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
):
    def save(path: Path, array: np.ndarray, **options: bool) -> None:
        Path(path).write_bytes(b"\x93NUMPY half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", save)
    with pytest.raises(OSError, match="No space left"):
        build(folder, corpus)
    assert shards(folder) == []
