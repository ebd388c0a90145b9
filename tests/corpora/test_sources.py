"""Every format of a corpus, read one clip at a time and never written to."""

import json
import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import soxr
from toy import Voice

from valence_lib.corpora import course
from valence_lib.corpora.course import CourseFolder, PickledCorpus
from valence_lib.corpora.opening import folder_of, open_corpus
from valence_lib.corpora.sources import LabelledClips
from valence_lib.errors import ClipError, CorpusError


@contextmanager
def refused(reason: str, message: str | None = None) -> Iterator[None]:
    with pytest.raises(ClipError, match=message) as caught:
        yield
    assert caught.value.reason == reason


def manifest(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "labels.csv").write_text(text, encoding=encoding)
    return folder


def test_a_cut_corpus_holds_some_of_the_clips_and_can_be_sent_to_another_process(
    course_folder: Path, manifest_folder: Path, tmp_path: Path, voice: Voice, write_pickle: Callable
):
    entries = [{"audio_data": voice(number), "valence": 1 + number / 2} for number in range(6)]
    for where in (course_folder, manifest_folder, write_pickle(tmp_path / "many.pkl", entries)):
        whole = open_corpus(where)
        cut = pickle.loads(pickle.dumps(whole.cut(2, 5)))
        assert type(cut) is type(whole)
        assert (cut.name, len(cut), cut.ids) == (whole.name, 3, whole.ids[2:5])
        for position in range(3):
            clip, expected = cut[position], whole[2 + position]
            np.testing.assert_array_equal(clip.waveform, expected.waveform)
            assert (clip.id, clip.rating, clip.labels) == (expected.id, expected.rating, expected.labels)
            assert cut.subset(position) == whole.subset(2 + position)
        assert len(pickle.dumps(whole.cut(2, 3))) < len(pickle.dumps(whole.cut(2, 5)))
        assert len(whole.cut(4, 100)) == len(whole) - 4


# Course folders and course pickles


def test_a_course_folder_holds_its_subsets_in_order(course_folder: Path):
    corpus = open_corpus(course_folder)
    assert isinstance(corpus, CourseFolder)
    assert (corpus.name, corpus.sample_rate, len(corpus)) == ("course", 8000, 8)
    train = [f"train/{number:05}.pkl" for number in range(1, 7)]
    assert corpus.ids == (*train, "test/00007.pkl", "test/00008.pkl")
    assert [corpus.subset(index) for index in range(8)] == ["train"] * 6 + ["test"] * 2
    assert [clip.subset for clip in corpus] == ["train"] * 6 + ["test"] * 2
    assert [clip.rating for clip in corpus] == [1.5, 2, 2.5, 3, 3.5, 4, None, None]
    assert {(clip.speaker, len(clip.labels), len(clip.by_rater)) for clip in corpus} == {("", 0, 0)}


def test_course_audio_comes_at_the_rate_that_is_asked_for(course_folder: Path, voice: Voice):
    clip = open_corpus(course_folder, sample_rate=16000)[0]
    assert clip.sample_rate == 16000
    np.testing.assert_allclose(clip.waveform, voice(0, 16000), atol=1e-3)


def test_one_pickle_of_many_clips(tmp_path: Path, voice: Voice, write_pickle: Callable):
    content = {"audio_data": [voice(1), voice(2).tolist(), voice(3)], "valence": np.arange(1.0, 4)}
    corpus = open_corpus(write_pickle(tmp_path / "voices.pkl", content))
    assert isinstance(corpus, PickledCorpus)
    assert (corpus.name, corpus.ids) == ("voices", ("voices.pkl#0", "voices.pkl#1", "voices.pkl#2"))
    for seed, clip in enumerate(corpus, start=1):
        assert (clip.rating, clip.subset, corpus.subset(seed - 1)) == (seed, "", "")
        np.testing.assert_allclose(clip.waveform, voice(seed), atol=1e-7)


@pytest.mark.parametrize("name", ["val", "dev", "Validation"])
def test_one_pickle_a_subset_under_any_usual_name(
    tmp_path: Path, voice: Voice, write_pickle: Callable, name: str
):
    for stem in ("train", name, "more"):
        write_pickle(tmp_path / f"{stem}.pkl", [{"audio_data": voice(1), "valence": 3}])
    corpus = open_corpus(tmp_path)
    assert [corpus.subset(index) for index in range(len(corpus))] == ["train", "validation"]
    assert corpus.notes == ["The pickle 'more.pkl' is not read."]


def test_one_pickle_a_subset(tmp_path: Path, voice: Voice, write_pickle: Callable):
    write_pickle(tmp_path / "both" / "test.pkl", [{"audio_data": voice(9)}])
    write_pickle(
        tmp_path / "both" / "train.pkl", [{"audio_data": voice(seed), "valence": 3} for seed in (1, 2)]
    )
    corpus = open_corpus(tmp_path / "both")
    assert corpus.name == "both"
    assert [(corpus.ids[index], corpus.subset(index)) for index in range(3)] == [
        ("train.pkl#0", "train"),
        ("train.pkl#1", "train"),
        ("test.pkl#0", "test"),
    ]
    assert [(clip.subset, clip.rating) for clip in corpus] == [("train", 3), ("train", 3), ("test", None)]


def test_a_folder_of_pickles_without_subsets(tmp_path: Path, voice: Voice, write_pickle: Callable):
    for number in (2, 1):
        write_pickle(tmp_path / "flat" / f"{number:05}.pkl", {"audio_data": voice(number), "valence": number})
    corpus = open_corpus(tmp_path / "flat")
    assert corpus.ids == ("00001.pkl", "00002.pkl")
    assert [(clip.rating, clip.subset) for clip in corpus] == [(1, ""), (2, "")]


def test_a_course_file_holds_one_clip(course_folder: Path, voice: Voice, write_pickle: Callable):
    write_pickle(course_folder / "train" / "00002.pkl", [{"audio_data": voice(1)}, {"audio_data": voice(2)}])
    corpus = open_corpus(course_folder)
    with refused("wrong type", "'00002.pkl' holds 2 clips; expected one"):
        corpus[1]
    assert corpus[2].rating == 2.5


def test_one_pickle_that_cannot_be_read_is_no_corpus(tmp_path: Path):
    (tmp_path / "voices.pkl").write_bytes(b"\x80\x04broken")
    with pytest.raises(CorpusError, match=r"'voices\.pkl' cannot be read"):
        open_corpus(tmp_path / "voices.pkl")


# LabelledClipss


def test_a_manifest_of_any_format_rate_and_number_of_channels(manifest_folder: Path, voice: Voice):
    corpus = open_corpus(manifest_folder)
    assert isinstance(corpus, LabelledClips)
    assert (corpus.name, len(corpus)) == ("spoken", 6)
    for seed, clip in enumerate(corpus):
        assert clip.id == corpus.ids[seed]
        assert (clip.sample_rate, clip.waveform.dtype) == (8000, np.float32)
        np.testing.assert_allclose(clip.waveform, voice(seed), atol=0.02 if clip.id.endswith("ogg") else 1e-3)
        assert clip.rating == 1 + 0.5 * seed
        assert clip.labels == {"speaker": f"S{seed // 2}", "language": "sines"}
        assert (clip.speaker, clip.subset, clip.by_rater) == (f"S{seed // 2}", "", {})


def test_labels_csv_goes_before_other_tables(manifest_folder: Path):
    (manifest_folder / "actors.csv").write_text("name,age\nA,30\n")
    assert len(open_corpus(manifest_folder)) == 6
    shutil.move(manifest_folder / "labels.csv", manifest_folder / "ratings.csv")
    with pytest.raises(CorpusError, match=r"holds actors.csv, audio, ratings.csv; expected"):
        open_corpus(manifest_folder)


def test_valence_is_the_mean_of_the_raters_where_no_column_gives_it(manifest_folder: Path):
    manifest(
        manifest_folder,
        "file,valence_a1,valence_a2,valence_a10,valence_mood\n"
        "audio/0.wav,1,2.5,4,x\naudio/3.wav,2,,3,y\naudio/5.wav,,,,z\n",
    )
    all_rated, one_left_out, unrated = open_corpus(manifest_folder)
    assert (all_rated.rating, one_left_out.rating, unrated.rating) == (2.5, 2.5, None)
    assert all_rated.by_rater == {"rating_a1": 1, "rating_a2": 2.5, "rating_a10": 4}
    assert list(one_left_out.by_rater) == ["rating_a1", "rating_a2", "rating_a10"]
    np.testing.assert_array_equal(list(one_left_out.by_rater.values()), [2, np.nan, 3])
    assert np.isnan(list(unrated.by_rater.values())).all()
    assert all_rated.labels == {"valence_mood": "x"}


@pytest.mark.parametrize("missing", ["", "nan", "NaN", "NA", "na", "null", "None", " NA "])
def test_a_rater_who_left_a_clip_out_in_the_words_of_any_program(manifest_folder: Path, missing: str):
    manifest(manifest_folder, f"file,valence_a1,valence_a2,valence_a3\naudio/0.wav,2,{missing},5\n")
    (clip,) = open_corpus(manifest_folder)
    assert clip.rating == 3.5
    np.testing.assert_array_equal(list(clip.by_rater.values()), [2, np.nan, 5])


def test_a_valence_column_goes_before_the_raters(manifest_folder: Path):
    manifest(manifest_folder, "file,valence,valence_a1\naudio/0.wav,3.75,1\naudio/3.wav,,2\n")
    assert [clip.rating for clip in open_corpus(manifest_folder)] == [3.75, 2]


def test_subsets_of_a_manifest(manifest_folder: Path):
    manifest(
        manifest_folder,
        "file,valence,part\naudio/0.wav,3,train\naudio/1.flac,3,validation\naudio/3.wav,,test\naudio/5.wav,2,\n",
    )
    corpus = open_corpus(manifest_folder)
    assert [corpus.subset(index) for index in range(4)] == ["train", "validation", "test", ""]
    assert [clip.subset for clip in corpus] == ["train", "validation", "test", ""]
    assert corpus[2].rating is None
    assert corpus[0].labels == {}


@pytest.mark.parametrize(
    "text",
    [
        "\ufefffile,valence\naudio/0.wav,3\n",
        'file,valence\n"audio/0.wav","3"\n',
        "file,valence\r\naudio/0.wav, 3 \r\n",
        "file,valence\n\naudio/0.wav,3\n\n",
    ],
    ids=["byte order mark", "quotes", "spaces and CRLF", "blank lines"],
)
def test_tables_as_programs_write_them(manifest_folder: Path, text: str):
    (clip,) = open_corpus(manifest(manifest_folder, text))
    assert (clip.id, clip.rating, clip.labels) == ("audio/0.wav", 3, {})


@pytest.mark.parametrize(
    ("header", "row", "message"),
    [
        ("file,valence", "audio/0.wav,high", "the column valence holds 'high'"),
        ("file,valence_a1", "audio/0.wav,3;5", "the column valence_a1 holds '3;5'"),
        ("file,valence_a1,valence_a2", "audio/0.wav,2,nay", "the column valence_a2 holds 'nay'"),
    ],
)
def test_a_label_that_is_no_number(manifest_folder: Path, header: str, row: str, message: str):
    other = "audio/3.wav,2,3" if "a2" in header else "audio/3.wav,2"
    corpus = open_corpus(manifest(manifest_folder, f"{header}\n{row}\n{other}\n"))
    with refused("label not a number", message):
        corpus[0]
    assert corpus[1].rating is not None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty; expected a header and a row for each clip"),
        (b"file,mood\na.wav,3\n", "has the columns file, mood; expected file and valence"),
        (b"name,valence\na.wav,3\n", "has the columns name, valence; expected file and valence"),
        (
            b"file,valence\na.wav,3\nb.wav,2\n",
            r"none of the 2 rows of 'labels.csv' can be used:\n  a.wav: there",
        ),
        (b"file,valence\na.wav," + b"3" * 200_000, "cannot be read from line 2 on"),
    ],
    ids=["empty", "no valence", "no file", "no clip is there", "field too large"],
)
def test_a_table_that_is_no_manifest(tmp_path: Path, content: bytes, message: str):
    (tmp_path / "labels.csv").write_bytes(content)
    for where in (tmp_path, tmp_path / "labels.csv"):
        with pytest.raises(CorpusError, match=message):
            open_corpus(where)


def test_the_description_of_a_corpus(manifest_folder: Path):
    assert open_corpus(manifest_folder).about == {}
    about = {"description": "sums of sines", "synthetic": True}
    (manifest_folder / "corpus.json").write_text(json.dumps(about))
    assert open_corpus(manifest_folder).about == about
    for broken in ('{"synthetic": tru', "[1, 2]"):
        (manifest_folder / "corpus.json").write_text(broken)
        with pytest.raises(CorpusError, match=r"corpus\.json cannot be read.*expected a JSON object"):
            open_corpus(manifest_folder)


# Tables of labels and their files


def test_segments_are_cut_from_their_recording(tmp_path: Path, voice: Voice):
    recording = voice(1, 16000, seconds=3)
    soundfile.write(tmp_path / "a.wav", recording, 16000, subtype="FLOAT")
    corpus = open_corpus(
        manifest(tmp_path, "file,start,end,valence\na.wav,0,1,2\na.wav,1,2.5,3\na.wav,2.5,,4\n")
    )
    assert corpus.ids == ("a.wav#t=0,1", "a.wav#t=1,2.5", "a.wav#t=2.5")
    assert [clip.rating for clip in corpus] == [2, 3, 4]
    for clip, (start, stop) in zip(corpus, [(0, 16000), (16000, 40000), (40000, 48000)], strict=True):
        expected = soxr.resample(recording[start:stop], 16000, 8000, quality="HQ")
        np.testing.assert_allclose(clip.waveform, expected, atol=1e-6)


def test_what_is_known_without_decoding_audio(manifest_folder: Path):
    corpus = open_corpus(
        manifest(manifest_folder, "file,valence,speaker\naudio/0.wav,3,A\naudio/9.wav,2,B\n")
    )
    np.testing.assert_array_equal(corpus.ratings(), [3, np.nan])
    assert (corpus.speakers(), corpus.names_speakers) == (["A", "B"], True)
    assert (
        open_corpus(manifest(manifest_folder, "file,valence,speaker\naudio/0.wav,3,nan\n")).names_speakers
        is False
    )


def test_files_with_other_names_are_noted_once(manifest_folder: Path):
    rows = "".join(f"D:\\clips\\{name},{n}\n" for n, name in enumerate(("0.wav", "1.flac"), 1))
    corpus = open_corpus(manifest(manifest_folder, f"file,valence\n{rows}"))
    assert [clip.rating for clip in corpus] == [1, 2]
    (note,) = corpus.notes
    assert note.startswith("2 files have other names in the table, such as 'audio/0.wav' the name 'D:")


def test_one_missing_file_does_not_cost_the_others(manifest_folder: Path):
    corpus = open_corpus(manifest(manifest_folder, "file,valence\naudio/0.wav,3\naudio/77.wav,2\n"))
    assert corpus[0].rating == 3
    with refused("unreadable", r"there is no file 'audio/77\.wav'; tried 'audio/77\.wav' and '77\.wav'"):
        corpus[1]


def test_given_columns(manifest_folder: Path):
    manifest(manifest_folder, "clip,EmoVal,who\naudio/0.wav,3,A\n")
    corpus = open_corpus(manifest_folder, columns="file=clip,valence=EmoVal,speaker=who")
    assert (corpus[0].rating, corpus[0].labels) == (3, {"speaker": "A"})
    assert (
        corpus.form
        == "CSV in UTF-8, separated by commas, with the columns file=clip, valence=EmoVal, speaker=who"
    )


@pytest.mark.parametrize("suffix", ["xlsx", "parquet", "jsonl", "tsv"])
def test_the_only_table_of_a_folder_is_read_whatever_its_format(manifest_folder: Path, suffix: str):
    frame = pd.read_csv(manifest_folder / "labels.csv")
    (manifest_folder / "labels.csv").unlink()
    path = manifest_folder / f"ratings.{suffix}"
    if suffix == "xlsx":
        frame.to_excel(path, index=False)
    elif suffix == "parquet":
        frame.to_parquet(path)
    elif suffix == "jsonl":
        frame.to_json(path, orient="records", lines=True)
    else:
        frame.to_csv(path, sep="\t", index=False)
    (manifest_folder / "._ratings.csv").write_bytes(b"\0\5\x16\7")
    (manifest_folder / "~$ratings.xlsx").touch()
    assert [clip.rating for clip in open_corpus(manifest_folder)] == [1, 1.5, 2, 2.5, 3, 3.5]
    assert folder_of(path) == manifest_folder


# Clutter, and other names of subsets


@pytest.mark.parametrize("name", ["val", "valid", "dev", "Validation"])
def test_the_validation_folder_under_any_usual_name(
    course_folder: Path, voice: Voice, write_pickle: Callable, name
):
    write_pickle(course_folder / name / "00009.pkl", {"audio_data": voice(30), "valence": 2})
    (course_folder / name / "._00009.pkl").write_bytes(b"\0\5\x16\7")
    (course_folder / "__MACOSX").mkdir()
    (course_folder / "__MACOSX" / "00001.pkl").touch()
    corpus = open_corpus(course_folder)
    assert [corpus.subset(index) for index in range(9)] == ["train"] * 6 + ["validation"] + ["test"] * 2
    assert (corpus.ids[6], corpus[6].subset, corpus.notes) == (f"{name}/00009.pkl", "validation", [])


def test_a_folder_that_is_not_read_is_noted(course_folder: Path, voice: Voice, write_pickle: Callable):
    write_pickle(course_folder / "extra" / "00009.pkl", {"audio_data": voice(30), "valence": 2})
    assert open_corpus(course_folder).notes == ["The folder 'extra' with 1 pickles is not read."]


def test_names_that_are_not_utf_8(course_folder: Path, voice: Voice, write_pickle: Callable):
    name = os.fsdecode(b"kl\xe4nge.pkl")
    write_pickle(course_folder / "train" / name, {"audio_data": voice(30), "valence": 2})
    corpus = open_corpus(course_folder)
    assert corpus[6].id == "train/kl\\xe4nge.pkl"
    assert corpus[6].id.encode("utf-8")
    assert corpus[6].rating == 2


# What is no corpus


def test_a_folder_that_is_absent_or_no_corpus(tmp_path: Path):
    folder = tmp_path / "nothing"
    with pytest.raises(CorpusError, match=r"no corpus at '.*nothing'; expected 'demo'; a course folder"):
        open_corpus(folder)
    folder.mkdir()
    with pytest.raises(CorpusError, match="holds nothing; expected"):
        open_corpus(folder)
    for name in ("b.wav", "a.txt"):
        (folder / name).touch()
    with pytest.raises(CorpusError, match=r"holds a\.txt, b\.wav; expected"):
        open_corpus(folder)


def test_a_tilde_is_the_home_folder(course_folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(course_folder.parent))
    assert open_corpus("~/course").ids == open_corpus(course_folder).ids
    assert open_corpus("~/course").name == "course"
    assert folder_of("~/course") == course_folder
    with pytest.raises(CorpusError, match="there is no corpus at '~/nothing'"):
        open_corpus("~/nothing")


@pytest.mark.parametrize(
    ("given", "expected"),
    [("course", "course"), ("spoken/labels.csv", "spoken"), ("all.pkl", "all.pkl"), ("a.pickle", "a.pickle")],
)
def test_the_folder_of_a_corpus_is_where_its_files_lie(tmp_path: Path, given: str, expected: str):
    assert (folder_of("demo") / "labels.csv").is_file()
    assert folder_of(tmp_path / given) == folder_of(str(tmp_path / given)) == tmp_path / expected


def test_demo_is_always_the_embedded_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "demo").mkdir()
    monkeypatch.chdir(tmp_path)
    corpus = open_corpus("demo")
    assert corpus.name == "demo"
    assert corpus.about["synthetic"] is True
    assert corpus[0].speaker


# A lazy sequence


def test_opening_a_corpus_reads_no_clip(course_folder: Path, monkeypatch: pytest.MonkeyPatch):
    read: list[str] = []
    original = course.read_course_pickle
    monkeypatch.setattr(course, "read_course_pickle", lambda path: read.append(path.name) or original(path))
    corpus = open_corpus(course_folder)
    _ = len(corpus), corpus.ids, corpus.subset(3), iter(corpus)
    assert read == []
    _ = corpus[3]
    assert read == ["00004.pkl"]


def test_a_corpus_is_a_sequence(course_folder: Path):
    corpus = open_corpus(course_folder)
    assert corpus[-1].id == corpus[7].id == "test/00008.pkl"
    assert [clip.id for clip in corpus] == list(corpus.ids)
    for index in (8, -9):
        with pytest.raises(IndexError):
            corpus[index]


# Nothing is written
