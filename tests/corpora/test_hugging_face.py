"""Data sets of the Hugging Face hub: AudioFolder, and Parquet files that hold the audio."""

import csv
import io
import json
import pickle
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import soundfile
from pyarrow import parquet

from valence_lib.corpora import hugging_face
from valence_lib.corpora.columns import is_header
from valence_lib.corpora.tables import read_table
from valence_lib.corpora.waveforms import read_audio
from valence_lib.errors import ClipError, CorpusError

RATE = 16000
AUDIO = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
CLASSES = ["anger", "neutral"]
FEATURES = {"audio": {"_type": "Audio"}, "emotion": {"_type": "ClassLabel", "names": CLASSES}}
README = """---
license: cc-by-4.0
language:
- en
- qu
pretty_name: Made-up speech
---
# Speech
"""


def sound(name: str, seconds: float = 0.5) -> np.ndarray:
    """A sine wave with a frequency of its own for each name."""
    time = np.arange(round(seconds * RATE)) / RATE
    return (0.1 * np.sin(2 * np.pi * (100 + zlib.crc32(name.encode()) % 1000) * time)).astype(np.float32)


def encoded(name: str, form: str = "WAV") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, sound(name), RATE, format=form)
    return file.getvalue()


def make_wav(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, sound(path.name), RATE)
    return path


def write_shard(
    path: Path,
    names: Sequence[str],
    column: str = "audio",
    features: Mapping[str, Any] = FEATURES,
    group: int = 3,
    **columns: Sequence[Any],
) -> Path:
    """A Parquet file as `datasets` writes it: a struct of bytes and name, and classes as numbers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    audio = [{"bytes": encoded(name), "path": name} for name in names]
    table = pa.table({column: pa.array(audio, AUDIO), **columns})
    described = json.dumps({"info": {"features": features}}) if features else ""
    table = table.replace_schema_metadata({"huggingface": described} if described else None)
    parquet.write_table(table, path, row_group_size=group)
    return path


def write_csv(path: Path, rows: Sequence[Sequence[object]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def build(folder: Path, make_wav: Callable[[Path], object]) -> Path:
    """A data set of two splits, the training one in two files."""
    for number, (split, rows) in enumerate((("train", 7), ("train", 5), ("test", 4))):
        name = f"{split}-{number % 2:05}-of-{2 if split == 'train' else 1:05}.parquet"
        values = {
            "valence": pa.array([1 + (n % 5) * 0.7 for n in range(rows)], pa.float32()),
            "emotion": pa.array([(0, 1, -1)[n % 3] for n in range(rows)], pa.int64()),
            "speaker_id": [f"S{number}{n % 2}" for n in range(rows)],
        }
        write_shard(folder / "data" / name, [f"clip_{number}_{n}.wav" for n in range(rows)], **values)
    (folder / "README.md").write_text(README, encoding="utf-8")
    return folder


def column(data_set: hugging_face.DataSet, name: str) -> list[str]:
    position = data_set.table.columns.index(name)
    return [row[position] for row in data_set.table.rows]


def waveform_of(data_set: hugging_face.DataSet, file: str, *segment: float) -> np.ndarray:
    start, end = segment or (None, None)
    return data_set.recordings.read(file, RATE, start, end)


# Audio in Parquet


def test_shards_become_one_table_with_subsets_and_names_of_classes(tmp_path):
    data_set = hugging_face.find(build(tmp_path, make_wav))
    assert data_set.table.columns == ["file", "subset", "valence", "emotion", "speaker_id"]
    assert column(data_set, "subset") == ["test"] * 4 + ["train"] * 12
    assert data_set.table.rows[:3] == [
        ["clip_2_0.wav", "test", "1", "anger", "S20"],
        ["clip_2_1.wav", "test", "1.7", "neutral", "S21"],  # 1.7 in single precision
        ["clip_2_2.wav", "test", "2.4", "", "S20"],  # -1 is a missing class
    ]
    assert data_set.table.places[4] == "row 1 of train-00000-of-00002.parquet"
    assert data_set.about == {
        "terms": "cc-by-4.0",
        "description": "Made-up speech",
    }
    assert data_set.table.nested == []
    assert data_set.table.form == (
        "a Hugging Face data set, with audio held by the column audio of test-00000-of-00001.parquet and "
        "2 others"
    )
    assert data_set.notes == []
    assert data_set.paths == [tmp_path / "README.md"]
    assert sorted(data_set.recordings.paths) == sorted((tmp_path / "data").iterdir())


def test_every_recording_is_its_own_in_any_order(tmp_path):
    data_set = hugging_face.find(build(tmp_path, make_wav))
    files = column(data_set, "file")
    for order in (files, files[::-1], files[::5] + files[1::5], [files[3]] * 2):
        for file in order:
            np.testing.assert_allclose(waveform_of(data_set, file), sound(file), atol=1e-4)
    np.testing.assert_allclose(
        waveform_of(data_set, files[0], 0.1, 0.25), sound(files[0])[1600:4000], atol=1e-4
    )
    with pytest.raises(ClipError, match=r"segment from 0\.4 s to 0\.9 s lies outside"):
        waveform_of(data_set, files[0], 0.4, 0.9)


def test_a_part_of_the_recordings_is_small_and_reads_the_same(tmp_path):
    names = [f"{n:04}.wav" for n in range(200)]
    write_shard(tmp_path / "train.parquet", names, group=200)
    recordings = hugging_face.find(tmp_path).recordings
    recordings.read(names[0], RATE)  # opens the file
    content = pickle.dumps(recordings.only(set(names[64:128])))
    assert len(content) < 5000
    part = pickle.loads(content)
    np.testing.assert_allclose(part.read(names[100], RATE), sound(names[100]), atol=1e-4)
    assert part.paths == [tmp_path / "train.parquet"]


@pytest.mark.parametrize("group", [50, 400])
def test_memory_does_not_grow_with_the_number_of_clips(tmp_path, group):
    names = [f"{n:04}.wav" for n in range(400)]  # of 16 kB each
    audio = pa.array([{"bytes": encoded(name), "path": name} for name in names], AUDIO)
    table, path = pa.table({"audio": audio}), tmp_path / "train.parquet"
    parquet.write_table(table, path, group, use_dictionary=False, write_batch_size=8, data_page_size=1)
    del audio, table
    data_set = hugging_face.find(tmp_path)
    before = pa.total_allocated_bytes()
    allocated = []
    for file in column(data_set, "file"):
        waveform_of(data_set, file)
        allocated.append(pa.total_allocated_bytes() - before)
    assert len(allocated) == 400
    assert max(allocated) < 1e6


def test_names_that_repeat_give_way_to_places(tmp_path):
    for split in ("train", "validation"):
        write_shard(tmp_path / f"{split}-00000-of-00001.parquet", ["a.wav", "b.wav"], valence=[1, 2])
    data_set = hugging_face.find(tmp_path)
    files = column(data_set, "file")
    assert files == [
        f"{split}-00000-of-00001.parquet#{n}" for split in ("train", "validation") for n in (0, 1)
    ]
    np.testing.assert_allclose(waveform_of(data_set, files[3]), sound("b.wav"), atol=1e-4)


def test_one_file_and_a_column_of_another_name(tmp_path):
    path = write_shard(tmp_path / "speech.parquet", ["a.wav", "b.wav"], "recording", {}, valence=[1.5, 2])
    data_set = hugging_face.find(path)
    assert data_set.table.rows == [["a.wav", "1.5"], ["b.wav", "2"]]
    np.testing.assert_allclose(waveform_of(data_set, "b.wav"), sound("b.wav"), atol=1e-4)
    assert data_set.about == {}


def test_a_single_split_is_no_division(tmp_path):
    write_shard(tmp_path / "data" / "train-00000-of-00001.parquet", ["a.wav", "b.wav"], valence=[1, 2])
    data_set = hugging_face.find(tmp_path)
    assert data_set.table.columns == ["file", "valence"]
    assert data_set.notes == ["The data set has the split train alone, so that its clips count as not split."]


def test_columns_may_differ_in_order_and_a_column_file_gives_way(tmp_path):
    write_shard(tmp_path / "train.parquet", ["a.wav"], valence=[1], file=["old"], speaker=["x"])
    write_shard(tmp_path / "test.parquet", ["b.wav"], speaker=["y"], valence=[2], text=["words"])
    data_set = hugging_face.find(tmp_path)
    assert data_set.table.columns == ["file", "subset", "speaker", "valence", "text"]
    assert data_set.table.rows == [["b.wav", "test", "y", "2", "words"], ["a.wav", "train", "x", "1", ""]]
    assert data_set.notes == ["The names of recordings and splits of the data set replace the column 'file'."]


def test_pictures_are_no_audio(tmp_path):
    pictures = {"image": {"_type": "Image"}}
    path = write_shard(tmp_path / "train.parquet", ["a.wav"], "image", pictures, file=["a.wav"], valence=[1])
    assert hugging_face.find(path) is None
    assert read_table(path, is_header).nested == ["image"]


def test_audio_beside_the_table(tmp_path):
    make_wav(tmp_path / "data" / "clips" / "b.wav")
    rows = [
        {"bytes": encoded("a.wav"), "path": "a.wav"},
        {"bytes": None, "path": "clips/b.wav"},
        {"bytes": None, "path": "clips/c.wav"},
        {"bytes": b"", "path": "d.wav"},
    ]
    path = tmp_path / "data" / "train.parquet"
    parquet.write_table(pa.table({"audio": pa.array(rows, AUDIO), "valence": [1, 2, 3, 4]}), path)
    data_set = hugging_face.find(tmp_path)
    for file in ("a.wav", "clips/b.wav"):
        np.testing.assert_allclose(waveform_of(data_set, file), sound(Path(file).name), atol=1e-4)
    assert data_set.recordings.paths == [path, tmp_path / "data" / "clips" / "b.wav"]
    with pytest.raises(ClipError, match=r"row 3 of 'train\.parquet' holds no bytes and names no file"):
        waveform_of(data_set, "clips/c.wav")
    with pytest.raises(ClipError, match=r"'d\.wav' cannot be decoded: it is empty \(0 bytes\)"):
        waveform_of(data_set, "d.wav")
    # Where no row holds audio, the column names files.
    parquet.write_table(pa.table({"audio": pa.array(rows[1:3], AUDIO), "valence": [2, 3]}), path)
    data_set = hugging_face.find(tmp_path)
    assert data_set.recordings is None
    assert data_set.table.rows == [["clips/b.wav", "2"], ["clips/c.wav", "3"]]
    assert data_set.paths[0] == path


@pytest.mark.parametrize("form", ["FLAC", "OGG", "MP3"])
def test_any_format_of_audio_is_read_from_bytes(tmp_path, form):
    name = f"a.{form.lower()}"
    rows = [{"bytes": encoded(name, form), "path": name}]
    parquet.write_table(pa.table({"audio": pa.array(rows, AUDIO)}), tmp_path / "train.parquet")
    (tmp_path / name).write_bytes(rows[0]["bytes"])
    found = waveform_of(hugging_face.find(tmp_path), name)
    np.testing.assert_array_equal(found, read_audio(tmp_path / name, RATE))


def test_several_configurations_are_refused(tmp_path):
    for language in ("de", "en"):
        write_shard(tmp_path / language / "train" / "0000.parquet", ["a.wav"], valence=[1])
        write_shard(tmp_path / language / "test" / "0000.parquet", ["b.wav"], valence=[1])
    with pytest.raises(CorpusError, match=r"several configurations, in the folders de, en\..*CORPUS=.*/en\."):
        hugging_face.find(tmp_path)
    assert column(hugging_face.find(tmp_path / "en"), "file") == ["b.wav", "a.wav"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "is a Git LFS pointer"),
        (b"PAR1 and no end", r"cannot be read as Parquet \(.*if it is truncated, fetch it again"),
    ],
)
def test_a_damaged_shard_is_named(tmp_path, content, message):
    damaged = tmp_path / "data" / "train-00000-of-00001.parquet"
    damaged.parent.mkdir()
    damaged.write_bytes(content)
    with pytest.raises(CorpusError, match=rf"'train-00000-of-00001\.parquet' {message}"):
        hugging_face.find(tmp_path)
    write_shard(tmp_path / "data" / "test.parquet", ["a.wav"], valence=[1])
    with pytest.raises(CorpusError, match=message):
        hugging_face.find(tmp_path)


def test_a_data_set_without_rows_is_refused(tmp_path):
    write_shard(tmp_path / "train.parquet", [], valence=pa.array([], pa.int64()))
    with pytest.raises(CorpusError, match="has no rows; expected one for each clip"):
        hugging_face.find(tmp_path)


def test_a_file_that_vanishes_or_is_damaged_makes_its_clips_unreadable(tmp_path):
    path = write_shard(tmp_path / "train.parquet", [f"{n}.wav" for n in range(9)])
    data_set = hugging_face.find(tmp_path)
    waveform_of(data_set, "0.wav")
    content = path.read_bytes()
    path.write_bytes(content[:4] + bytes(len(content) // 4) + content[4 + len(content) // 4 :])
    with pytest.raises(ClipError, match=r"row 2 of 'train\.parquet' cannot be read") as caught:
        waveform_of(data_set, "1.wav")
    assert caught.value.reason == "unreadable"
    np.testing.assert_allclose(waveform_of(data_set, "8.wav"), sound("8.wav"), atol=1e-4)
    write_shard(path, ["0.wav"])
    with pytest.raises(ClipError, match=r"row 9 of 'train\.parquet' cannot be read: the file has 1 rows"):
        waveform_of(data_set, "8.wav")
    path.unlink()
    with pytest.raises(ClipError, match=r"row 9 of 'train\.parquet' cannot be read"):
        waveform_of(data_set, "8.wav")


# Audio in files


@pytest.mark.parametrize("place", ["", "data/"])
@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_folders_of_subsets_have_a_table_each(tmp_path, form, place):
    names = {"train": ["a.wav", "clips/b.wav"], "dev": ["c.wav"], "test": ["a.wav"]}
    for folder, files in names.items():
        target = tmp_path / place / folder
        rows = [{"valence": 1.5 + n, "file_name": name} for n, name in enumerate(files)]
        for name in files:
            make_wav(target / name)
        if form == "csv":
            write_csv(target / "metadata.csv", [["valence", "file_name"], *(row.values() for row in rows)])
        elif form == "jsonl":
            text = "\n".join(map(json.dumps, rows))
            (target / "metadata.jsonl").write_text(text, encoding="utf-8")
        else:
            parquet.write_table(pa.Table.from_pylist(rows), target / "metadata.parquet")
    data_set = hugging_face.find(tmp_path)
    assert data_set.recordings is None
    assert data_set.table.columns == ["file", "subset", "valence"]
    assert sorted(data_set.table.rows) == [
        [f"{place}dev/c.wav", "validation", "1.5"],
        [f"{place}test/a.wav", "test", "1.5"],
        [f"{place}train/a.wav", "train", "1.5"],
        [f"{place}train/clips/b.wav", "train", "2.5"],
    ]
    assert data_set.paths[:3] == [
        tmp_path / place / folder / f"metadata.{form}" for folder in ("dev", "test", "train")
    ]
    assert data_set.table.places[0].endswith(f" of {place}dev/metadata.{form}")


def test_one_table_at_the_top_names_files_in_the_folders_of_subsets(tmp_path):
    rows = [["", "file_name", "valence"], [0, "train/a.wav", 1], [1, "test/b.wav", 2], [2, "c.wav", 3]]
    write_csv(tmp_path / "metadata.csv", rows)
    data_set = hugging_face.find(tmp_path)
    assert data_set.table.columns == ["file", "subset", "valence"]
    assert data_set.table.rows == [
        *(["train/a.wav", "train", "1"], ["test/b.wav", "test", "2"], ["c.wav", "", "3"])
    ]
    assert data_set.table.places == ["line 2", "line 3", "line 4"]
    assert data_set.table.form == "a Hugging Face AudioFolder, with metadata.csv"


# What is no data set


def test_ordinary_folders_and_tables_are_not_claimed(tmp_path):
    rows = [["file", "valence"], ["a.wav", 1]]
    table = write_csv(tmp_path / "plain" / "labels.csv", rows)
    assert hugging_face.find(tmp_path / "plain") is None
    assert hugging_face.find(table) is None
    # As LJSpeech has it: no header.
    metadata = tmp_path / "pipes" / "metadata.csv"
    metadata.parent.mkdir()
    metadata.write_text("LJ001-0001|Printing, in the only sense\n", encoding="utf-8")
    assert hugging_face.find(metadata.parent) is None
    write_csv(tmp_path / "other" / "metadata.csv", [["my_file_name", "valence"], ["a.wav", 1]])
    assert hugging_face.find(tmp_path / "other") is None
    labels = tmp_path / "typed" / "labels.parquet"
    labels.parent.mkdir()
    parquet.write_table(pa.table({"file": ["a.wav"], "valence": [1.5]}), labels)
    assert hugging_face.find(labels.parent) is None
    assert hugging_face.find(labels) is None
    # Something that is not of a data set may be damaged.
    (labels.parent / "old.parquet").write_bytes(b"PAR1")
    assert hugging_face.find(labels.parent) is None


def test_a_class_that_has_no_name_stays_a_number(tmp_path):
    features = {"emotion": {"_type": "ClassLabel", "names": CLASSES}}
    path = write_shard(tmp_path / "a.parquet", ["a.wav"] * 4, features=features, emotion=[0, 1, 2, None])
    assert [row[0] for row in read_table(path, is_header).rows] == ["anger", "neutral", "2"]


# What is incomplete, or written otherwise


@pytest.mark.parametrize("ending", ["", "-0123456789abcdef"])
def test_files_that_are_missing_by_the_names_of_the_others(tmp_path, ending):
    write_shard(tmp_path / f"train-00000-of-00003{ending}.parquet", ["a.wav"], valence=[1.0])
    (note,) = hugging_face.find(tmp_path).notes[-1:]
    assert note.startswith(
        "Files missing of the 3 of 'train', with their clips: 2, such as train-00001-of-00003"
    )
    for number in (1, 2):
        name = f"train-{number:05}-of-00003{ending}.parquet"
        write_shard(tmp_path / name, [f"{number}.wav"], valence=[1.0])
    assert not any("missing" in note for note in hugging_face.find(tmp_path).notes)


@pytest.mark.parametrize(("header", "encoding"), [("file_name", "utf-16"), ("File_Name", "utf-8")])
def test_splits_of_metadata_in_another_encoding_or_case(tmp_path, header, encoding):
    for split in ("train", "test"):
        make_wav(tmp_path / split / f"{split}.wav")
    rows = f"{header},valence\ntrain/train.wav,1\ntest/test.wav,2\n"
    (tmp_path / "metadata.csv").write_text(rows, encoding=encoding)
    data_set = hugging_face.find(tmp_path)
    assert column(data_set, "subset") == ["train", "test"]


def test_a_path_that_is_too_long_for_a_file(tmp_path):
    audio = [{"bytes": None, "path": "x" * 300}, {"bytes": encoded("a.wav"), "path": "a.wav"}]
    parquet.write_table(pa.table({"audio": pa.array(audio, AUDIO)}), tmp_path / "a.parquet")
    data_set = hugging_face.find(tmp_path)
    with pytest.raises(ClipError, match=r"row 1 of 'a\.parquet' holds no bytes and names no file"):
        waveform_of(data_set, "x" * 300)
