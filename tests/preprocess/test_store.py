"""The feature store returns what `log_mel` returns, computes nothing twice, and never returns half a file."""

import pickle
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest

from valence_lib.corpora.opening import open_corpus
from valence_lib.corpora.sources import Corpus
from valence_lib.errors import RunError
from valence_lib.features.log_mel import log_mel
from valence_lib.preprocess import inspection as inspection_module
from valence_lib.preprocess import parallel as chunks_module
from valence_lib.preprocess import store as store_module
from valence_lib.preprocess.inspection import inspect_corpus
from valence_lib.preprocess.store import FeatureStore
from valence_lib.settings import CorpusSettings, FeatureSettings

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


@pytest.mark.parametrize("clips_per_shard", [1, 4, 6, 256])
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


@pytest.mark.usefixtures("small_shards")
def test_rows_follow_the_table_and_not_the_corpus(folder: Path, corpus: Corpus):
    chosen = preprocess(folder, corpus).iloc[[4, 1, 0]].reset_index(drop=True)
    store = FeatureStore(folder, chosen, SETTINGS)
    assert len(store) == 3
    for row, index in enumerate((4, 1, 0)):
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
    for row in (0, 5, 2, 1, 4, 3, 0):
        np.testing.assert_array_equal(store[row], expected[row])
    opened = [Path(file.path) for file in psutil.Process().open_files()]
    assert not [path for path in opened if path.is_relative_to(folder)]


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


def test_labels_and_names_do_not_matter_to_the_key(
    folder: Path, corpus: Corpus, monkeypatch, manifest_folder: Path, write_table: Callable
):
    build(folder, corpus)
    refuse_to_compute(monkeypatch)
    moved = manifest_folder.rename(manifest_folder.with_name("moved"))
    for file in (moved / "audio").iterdir():
        file.rename(file.with_stem(f"renamed {file.stem}"))
    names = [name.replace("audio/", "audio/renamed ") for name in corpus.ids]
    rows = [{"file": name, "valence": 5 - 0.5 * number} for number, name in enumerate(names)]
    write_table(moved / "labels.csv", rows)
    build(folder, open_corpus(moved))
    assert len(shards(folder)) == 1


# Damage


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "emptied": lambda content: b"",
    "cut in its header": lambda content: content[:40],
    "cut in its frames": lambda content: content[:-1],
    "other bytes": lambda content: b"x" * len(content),
    "a pickle": lambda content: pickle.dumps([{"a": 1}]),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.usefixtures("small_shards")
def test_a_damaged_shard(folder: Path, corpus: Corpus, damage: str):
    clips = preprocess(folder, corpus)
    frames = list(FeatureStore(folder, clips, SETTINGS))
    damaged = shards(folder)[0]
    damaged.write_bytes(DAMAGE[damage](damaged.read_bytes()))
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
    ("shape", "dtype"),
    [((47, 128), np.float32), ((48, 128), float), ((48, 64), np.float32), ((48,), np.float32)],
    ids=["frames", "type", "bands", "dimensions"],
)
def test_a_shard_of_another_shape_or_type(folder: Path, corpus: Corpus, shape: tuple, dtype: type):
    store, wrong = build(folder, corpus), np.zeros(shape, dtype)
    np.save(shards(folder)[0], wrong)
    found = re.escape(f"holds {wrong.dtype} {wrong.shape}")
    with pytest.raises(
        RunError, match=f"{found}; expected float32 with 48 rows or more of 128 columns. Delete it"
    ):
        store[5]


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
