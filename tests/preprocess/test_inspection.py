"""Every kind of bad clip is quarantined with its reason, and the others are kept."""

import hashlib
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
from toy import Voice

from valence_lib.corpora.course import CourseFolder
from valence_lib.corpora.opening import open_corpus
from valence_lib.corpora.sources import Clip, Corpus
from valence_lib.errors import CorpusError, WorkerError
from valence_lib.files import remove_orphans
from valence_lib.preprocess import parallel as chunks_module
from valence_lib.preprocess.inspection import (
    Inspection,
    check_labels,
    inspect_corpus,
    summarise,
)
from valence_lib.settings import CorpusSettings, FeatureSettings, Target

QUARANTINE_COLUMNS = ["index", "id", "subset", "reason", "message", "twin"]


def inspect(where: Path | Corpus, scale: str = "", **settings: Any) -> Inspection:
    corpus = where if isinstance(where, Corpus) else open_corpus(where, scale=scale)
    return inspect_corpus(corpus, CorpusSettings.from_mapping(settings), FeatureSettings(), progress=False)


def reasons(inspection: Inspection) -> dict[str, str]:
    return dict(zip(inspection.quarantine["id"], inspection.quarantine["reason"], strict=True))


# Bad clips


@pytest.fixture
def bad_course(course_folder: Path, voice: Voice, write_pickle: Callable) -> tuple[Path, dict[str, str]]:
    """The course folder with one clip of every kind that is bad, and each one's reason."""
    voiced = voice(20)
    square = np.sign(np.sin(np.arange(4000) / 20)).astype(np.float32)
    contents: list[tuple[str, Any]] = [
        ("empty", {"audio_data": np.zeros(0, np.float32), "valence": 3}),
        ("too short", {"audio_data": voiced[:2047], "valence": 3}),
        ("not finite", {"audio_data": np.where(np.arange(4000) == 7, np.nan, voiced), "valence": 3}),
        ("not finite", {"audio_data": np.where(np.arange(4000) == 7, np.inf, voiced), "valence": 3}),
        ("silent", {"audio_data": np.zeros(4000, np.float32), "valence": 3}),
        ("clipped", {"audio_data": square, "valence": 3}),
        ("wrong scale", {"audio_data": voiced * 32768, "valence": 3}),
        ("wrong type", {"audio_data": "text", "valence": 3}),
        ("wrong type", {"audio_data": voiced.astype(complex), "valence": 3}),
        ("wrong type", {"audio_data": np.zeros((2, 3, 4)), "valence": 3}),
        ("wrong type", {"valence": 3}),
        ("wrong type", "text alone"),
        ("label missing", {"audio_data": voiced}),
        ("label not a number", {"audio_data": voiced, "valence": "high"}),
        ("label not a number", {"audio_data": voiced, "valence": {"a": 3}}),
        ("label missing", {"audio_data": voiced, "valence": None}),
        ("label missing", {"audio_data": voiced, "valence": math.nan}),
        ("wrong type", {"audio_data": ["text"], "valence": 3}),
        ("label not a number", {"audio_data": voiced, "valence": math.inf}),
        ("duplicate", {"audio_data": voice(3), "valence": 3}),
    ]
    expected = {}
    for number, (reason, content) in enumerate(contents, start=100):
        write_pickle(course_folder / "train" / f"{number:05}.pkl", content)
        expected[f"train/{number:05}.pkl"] = reason
    (course_folder / "train" / "00200.pkl").write_bytes(b"")
    (course_folder / "train" / "00201.pkl").write_bytes(b"this is no pickle")
    (course_folder / "train" / "00202.pkl").mkdir()
    return course_folder, expected


def test_every_bad_clip_is_quarantined_with_its_reason_and_the_others_are_kept(bad_course):
    folder, expected = bad_course
    inspection = inspect(folder)
    quarantine, found = inspection.quarantine, reasons(inspection)
    assert {clip: reason for clip, reason in found.items() if clip < "train/00200.pkl"} == expected
    assert found.keys() - expected.keys() == {f"train/00{number}.pkl" for number in (200, 201, 202)}
    good = [f"train/{n:05}.pkl" for n in range(1, 7)] + ["test/00007.pkl", "test/00008.pkl"]
    assert list(inspection.clips["id"]) == good
    assert list(inspection.clips["subset"]) == ["train"] * 6 + ["test"] * 2
    assert list(inspection.clips["rating"].isna()) == [False] * 6 + [True] * 2  # test clips may lack it
    assert list(quarantine.columns) == QUARANTINE_COLUMNS
    ids = open_corpus(folder).ids
    assert [ids[index] for index in quarantine["index"]] == list(quarantine["id"])
    assert quarantine["index"].is_monotonic_increasing
    assert set(quarantine["subset"]) == {"train"}
    assert (quarantine["message"].str.len() > 10).all()
    assert quarantine.loc[quarantine["reason"] != "duplicate", "twin"].eq("").all()


def test_labels_at_the_ends_of_the_scale_are_in_range(manifest_folder: Path, write_table: Callable):
    values = {"0.wav": -3, "1.flac": 3, "3.wav": 3.001, "5.wav": -3.001}
    rows = [{"file": f"audio/{name}", "valence": valence} for name, valence in values.items()]
    write_table(manifest_folder / "labels.csv", rows)
    with pytest.raises(
        CorpusError, match=r"2 of 4 ratings .* -3 and 3 \('audio/3\.wav' 3\.001, .*RANGE=-4,4"
    ):
        inspect(manifest_folder, scale="-3,3")
    write_table(manifest_folder / "labels.csv", rows[:2])
    assert list(inspect(manifest_folder, scale="-3,3").clips["rating"]) == [-3, 3]
    assert open_corpus(manifest_folder, scale="auto").target == Target("valence", -3, 3)


# Duplicates


def test_the_same_audio_under_another_name_is_kept_once(
    course_folder: Path, voice: Voice, write_pickle: Callable
):
    # Stored otherwise, as float64, it is still the same waveform.
    for number in (50, 60):
        content = {"audio_data": voice(0).astype(np.float64), "valence": 4}
        write_pickle(course_folder / "train" / f"{number:05}.pkl", content)
    inspection = inspect(course_folder)
    assert reasons(inspection) == {"train/00050.pkl": "duplicate", "train/00060.pkl": "duplicate"}
    assert set(inspection.quarantine["twin"]) == {"train/00001.pkl"}
    assert "train/00001.pkl" in inspection.quarantine["message"].iloc[0]
    assert "train/00001.pkl" in set(inspection.clips["id"])
    assert inspection.clips["digest"].is_unique


@pytest.mark.parametrize(
    ("name", "content", "refused"),
    [
        ("test/00099.pkl", {}, {"train/00001.pkl": "duplicate"}),
        ("train/00000.pkl", {"valence": "high"}, {"train/00000.pkl": "label not a number"}),
    ],
    ids=["of training and test, the test clip is kept", "a bad clip does not displace a good one"],
)
def test_which_clip_of_the_same_audio_is_kept(
    course_folder: Path, voice: Voice, write_pickle: Callable, name: str, content: dict, refused: dict
):
    write_pickle(course_folder / name, {"audio_data": voice(0), **content})
    inspection = inspect(course_folder)
    assert reasons(inspection) == refused
    assert {name, "train/00001.pkl"} - refused.keys() <= set(inspection.clips["id"])


# The table of clips


def test_the_columns_of_the_table(manifest_folder: Path, voice: Voice):
    (manifest_folder / "labels.csv").write_text(
        "file,speaker,valence_a1,valence_a2,mood\naudio/9.wav,S9,1,2,x\naudio/5.wav,S1,2,,calm\naudio/3.wav,S2,3,4,glad\n"
    )
    inspection = inspect(manifest_folder)
    clips = inspection.clips
    first = open_corpus(manifest_folder)[1]
    described = [
        "index",
        "id",
        "subset",
        "rating",
        "speaker",
        "corpus",
        "n_samples",
        "duration_seconds",
        "digest",
    ]
    assert list(clips.columns) == [*described, "mood", "rating_a1", "rating_a2"]
    assert list(clips["index"]) == [1, 2]
    assert list(clips["id"]) == ["audio/5.wav", "audio/3.wav"]
    assert list(clips["speaker"]) == ["S1", "S2"]
    assert list(clips["rating"]) == [2, 3.5]
    assert list(clips["n_samples"]) == [4000, 4000]
    assert list(clips["duration_seconds"]) == [0.5, 0.5]
    assert clips["digest"].iloc[0] == hashlib.sha256(first.waveform.tobytes()).hexdigest()
    assert list(clips["mood"]) == ["calm", "glad"]
    np.testing.assert_array_equal(clips[["rating_a1", "rating_a2"]], [[2, np.nan], [3, 4]])


@pytest.mark.parametrize("column", ["index", "id", "n_samples", "duration_seconds", "digest"])
def test_a_column_of_the_manifest_does_not_overwrite_what_was_measured(
    manifest_folder: Path, column: str, write_table: Callable
):
    measured = inspect(manifest_folder).clips[column].tolist()
    names = ("0.wav", "1.flac", "2.ogg")
    rows = [{"file": f"audio/{name}", "valence": n, column: "7"} for n, name in enumerate(names, 1)]
    write_table(manifest_folder / "labels.csv", rows)
    assert inspect(manifest_folder).clips[column].tolist() == measured[:3]


def test_the_first_clips_of_each_speaker_can_be_taken_alone(
    manifest_folder: Path, voice: Voice, write_table: Callable
):
    for name, seed in (("short.wav", 30), ("good.wav", 31)):
        audio = voice(seed)[: 100 if name == "short.wav" else None]
        soundfile.write(manifest_folder / "audio" / name, audio, 8000)
    order = zip(["short.wav", "0.wav", "1.flac", "3.wav", "5.wav", "good.wav"], "AABABC", strict=True)
    rows = [{"file": f"audio/{n}", "valence": 2 + (n == "0.wav"), "speaker": speaker} for n, speaker in order]
    write_table(manifest_folder / "labels.csv", rows)
    inspection = inspect(manifest_folder, clips_per_speaker=1)
    # What cannot be used does not count as a speaker's first clip, and what is left over is not bad.
    assert list(inspection.clips["id"]) == ["audio/0.wav", "audio/1.flac", "audio/good.wav"]
    assert reasons(inspection) == {"audio/short.wav": "too short"}


# Labels that cannot be used, found before any audio is decoded


def labelled(folder: Path, rows: list[str]) -> Corpus:
    """A table of clips whose files are empty."""
    for row in rows:
        (folder / row.partition(",")[0]).touch()
    (folder / "labels.csv").write_text("\n".join(["file,valence,speaker", *rows]) + "\n")
    return open_corpus(folder)


@pytest.mark.parametrize(
    ("ratings", "message"),
    [
        ([2.0] * 24, "all 24 ratings of '.*' are 2; expected ratings that differ"),
        ([1.0, 6.5, *[3.0] * 22], r"1 of 24 ratings .* are not between 1 and 5 \('1\.wav' 6\.5\).*RANGE=1,7"),
        (
            [1.0, 0.2, *[3.0] * 22],
            r"The lowest is 0\.2 and the highest 3: .* such as RANGE=0,3, or RANGE=auto",
        ),
        ([math.nan] * 24, "none of the 24 clips of '.*' has a rating"),
        ([1.0, 2.0, *[math.nan] * 22], "2 rated clips of '.*' are too few to split"),
    ],
)
def test_ratings_that_cannot_be_used(tmp_path: Path, ratings: list[float], message: str):
    corpus = labelled(tmp_path, [f"{n}.wav,{rating},s{n % 6}" for n, rating in enumerate(ratings)])
    with pytest.raises(CorpusError, match=message):
        check_labels(corpus, CorpusSettings(), "holdout", 6)


def test_single_raters_are_checked_and_codes_for_missing_ratings_are_named(tmp_path: Path):
    (tmp_path / "a.wav").touch()
    (tmp_path / "labels.csv").write_text("file,valence,valence_a1,valence_a2\na.wav,3,3,9\n")
    with pytest.raises(CorpusError, match=r"\('a\.wav' 9\).* If 9 marks a missing rating, leave the cell"):
        check_labels(open_corpus(tmp_path), CorpusSettings())
    for code in (-99, 99, -9):
        labelled(tmp_path, [f"{n}.wav,{code if n == 3 else 1 + n % 5},s" for n in range(20)])
        with pytest.raises(
            CorpusError, match=f"lie between 1 and 5, but for {code}. Where it marks a missing"
        ):
            open_corpus(tmp_path, scale="auto")


def test_why_no_clip_has_a_rating(tmp_path: Path, voice: Voice, write_pickle: Callable):
    write_pickle(tmp_path / "train" / "1.pkl", {"audio_data": voice(0), "valence": "high"})
    message = r"has a rating of valence to learn from.\n  train/1.pkl: the valence is not a number"
    with pytest.raises(CorpusError, match=message):
        check_labels(open_corpus(tmp_path), CorpusSettings())


def test_too_few_speakers_for_the_folds(tmp_path: Path):
    corpus = labelled(tmp_path, [f"{n}.wav,{1 + n % 4},s{n % 4}" for n in range(24)])
    check_labels(corpus, CorpusSettings(), "cv", 4)
    with pytest.raises(CorpusError, match=r"4 speakers cannot be dealt to 6 folds.* Give fewer FOLDS"):
        check_labels(corpus, CorpusSettings(), "cv", 6)


# No clip at all


def test_a_corpus_without_usable_clips_or_ratings(course_folder: Path, write_pickle: Callable):
    shutil.rmtree(course_folder / "train")
    with pytest.raises(
        CorpusError, match="none of the 2 clips of 'course' has a rating of valence to learn from"
    ):
        inspect(course_folder)
    for number, path in enumerate(course_folder.rglob("*.pkl")):
        write_pickle(path, {"audio_data": np.zeros(9), "valence": 1 + number})
    message = r"2 clips, of which none can be used \(too short: 2\); .*\n  test/00007.pkl: the clip has 9 sam"
    with pytest.raises(CorpusError, match=message):
        inspect(course_folder)


def test_the_corpus_is_not_written_to(bad_course, fingerprint: Callable):
    folder, _ = bad_course
    before = fingerprint(folder)
    inspect(folder)
    assert fingerprint(folder) == before


# The summary


def test_the_summary_counts_clips_labels_speakers_and_reasons(bad_course):
    folder, _ = bad_course
    corpus = open_corpus(folder)
    inspection = inspect(corpus)
    lines = summarise(inspection, corpus).splitlines()
    assert lines[:5] == [
        "corpus     course: 31 clips, 8 taken, 23 in quarantine",
        "read as    a folder of pickles",
        "duration   0.50 to 0.50 s, mean 0.50 s, 0.001 h in all",
        # 1.5, 2, ... 4
        "valence    1.5 to 4 on a scale of 1 to 5, mean 2.750, variance 0.7292, 2 clips without",
        "speakers   not named: training and test may share voices",
    ]
    assert "subsets    train 6, test 2" in lines
    histogram = [line for line in lines if re.match(r" +\d\.\d\d to ", line)]
    assert len(histogram) == 8
    assert sum(int(line.split()[-1]) for line in histogram) == 6
    assert "quarantine wrong type: 6" in lines
    assert any(line.startswith("  train/00101.pkl: too short: the clip has 2047 samples") for line in lines)
    assert sum(line.startswith("  train/") for line in lines) == 23


def test_the_summary_of_a_good_corpus_with_speakers(manifest_folder: Path, write_table: Callable):
    rows = [
        {"file": f"audio/{name}", "valence": valence, "speaker": speaker}
        for name, speaker, valence in (("0.wav", "A", 2), ("1.flac", "B", 4), ("3.wav", "A", 3))
    ]
    write_table(manifest_folder / "labels.csv", rows)
    corpus = open_corpus(manifest_folder)
    summary = summarise(inspect(corpus), corpus)
    assert "3 clips, 3 taken, 0 in quarantine" in summary
    assert "read as    CSV in UTF-8, separated by commas" in summary
    assert "valence    2 to 4 on a scale of 1 to 5, mean 3.000, variance 0.6667, 0 clips without" in summary
    assert "speakers   2" in summary
    assert "\nquarantine" not in summary
    assert "\nsubsets" not in summary


# Several processes


class Uneven(CourseFolder):
    """Its first clip takes longest to read, so that later chunks are finished before the first."""

    def read(self, index: int) -> Clip:
        if self.ids[index] == "train/00001.pkl":
            time.sleep(0.5)
        return super().read(index)


class Deadly(CourseFolder):
    """Reading one of its clips kills the process, as the system does where memory runs out."""

    def read(self, index: int) -> Clip:
        if self.ids[index] == "train/00003.pkl":
            os.kill(os.getpid(), signal.SIGKILL)
        return super().read(index)


def course_of(kind: type[CourseFolder], folder: Path) -> CourseFolder:
    paths = [*sorted(folder.glob("train/*")), *sorted(folder.glob("test/*"))]
    files = [(path, path.parent.name) for path in paths]
    return kind(folder.name, files, 8000, Target())


def preprocess(corpus: Corpus, folder: Path, workers: int) -> Inspection:
    return inspect_corpus(corpus, CorpusSettings(), FeatureSettings(), folder, workers, progress=False)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.exists() else {}


def test_two_processes_find_and_store_what_one_does(
    bad_course, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(chunks_module, "CLIPS_PER_CHUNK", 3)
    corpus = course_of(Uneven, bad_course[0])
    alone, together = (preprocess(corpus, tmp_path / str(workers), workers) for workers in (1, 2))
    pd.testing.assert_frame_equal(together.clips, alone.clips)
    pd.testing.assert_frame_equal(together.quarantine, alone.quarantine)
    assert together.clips.to_csv() == alone.clips.to_csv()
    assert contents(tmp_path / "2") == contents(tmp_path / "1")
    assert len(contents(tmp_path / "1")) > 2


def test_the_features_are_stored_without_changing_what_is_found(bad_course, tmp_path: Path):
    corpus = open_corpus(bad_course[0])
    checked, stored = inspect(corpus), preprocess(corpus, tmp_path / "features", 1)
    pd.testing.assert_frame_equal(stored.clips.drop(columns=["shard", "first_frame"]), checked.clips)
    pd.testing.assert_frame_equal(stored.quarantine, checked.quarantine)
    # 4000 samples a clip are 8 frames. The duplicate is stored too, and the sound of clips without a rating.
    assert stored.clips["shard"].nunique() == 1
    unrated = checked.quarantine["reason"].isin(["label missing", "label not a number"])
    decoded = checked.quarantine[unrated & ~checked.quarantine["message"].str.contains("valence is not a")]
    n_before = 1 + len(decoded)
    assert list(stored.clips["first_frame"]) == [*range(0, 48, 8), 48 + 8 * n_before, 56 + 8 * n_before]


def test_the_end_of_another_process_is_reported(
    course_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(chunks_module, "CLIPS_PER_CHUNK", 2)
    message = "2 processes that read the corpus 'course' was killed, .* memory ran out"
    with pytest.raises(WorkerError, match=message):
        preprocess(course_of(Deadly, course_folder), tmp_path / "features", 2)
    assert all(name.endswith(".npy") and not name.startswith(".") for name in contents(tmp_path / "features"))


PROGRAM = """
import sys, time
from pathlib import Path
from valence_lib.preprocess import parallel, inspection
from valence_lib.corpora.opening import open_corpus
from valence_lib.settings import CorpusSettings, FeatureSettings, Target
if __name__ == "__main__":
    parallel.CLIPS_PER_CHUNK = 1
    corpus, store = open_corpus(sys.argv[1]), Path(sys.argv[2])
    read = type(corpus).read
    # This process begins while the others start: slow it down.
    type(corpus).read = lambda corpus, index: (time.sleep(0.02), read(corpus, index))[1]
    inspection.inspect_corpus(corpus, CorpusSettings(), FeatureSettings(), store, workers=2)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=["kill", "Ctrl-C"])
def test_what_was_finished_is_kept_and_nothing_half_written_is_left(
    tmp_path: Path, voice: Voice, write_pickle: Callable, how: signal.Signals, monkeypatch
):
    for number in range(400):
        content = {"audio_data": voice(number, seconds=2), "valence": 1 + number % 5}
        write_pickle(tmp_path / "clips" / "train" / f"{number:05}.pkl", content)
    (tmp_path / "program.py").write_text(PROGRAM)
    folder = tmp_path / "features"
    process = subprocess.Popen(
        [sys.executable, tmp_path / "program.py", tmp_path / "clips", folder],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        # As in a terminal, also where these tests run in the background, with interrupts ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    while not (folder.exists() and list(folder.glob("[!.]*.npy"))):
        assert process.poll() is None
        time.sleep(0.005)
    if how == signal.SIGINT:
        os.killpg(process.pid, how)  # as the terminal does
    else:
        process.kill()
    # The pipes close when the last process has ended, the workers among them.
    _, messages = process.communicate(timeout=60)
    assert b"SpawnProcess" not in messages
    if how == signal.SIGKILL:
        remove_orphans(folder)  # as every build does: the killed process may have been writing
    finished = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert 1 <= len(finished) < 400
    assert not [path for path in finished if path.name.startswith(".")]
    corpus = open_corpus(tmp_path / "clips")
    monkeypatch.setattr(chunks_module, "CLIPS_PER_CHUNK", 1)
    clips = preprocess(corpus, folder, 1).clips
    assert clips["shard"].nunique() == len(list(folder.iterdir())) == 400
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    for path in finished:
        assert np.load(path).shape == (32, 128)  # 1 + 16000 // 512 frames


def test_a_process_that_reads_clips_carries_nothing_heavy():
    heavy = {"torch", "pandas", "matplotlib", "sklearn"}
    program = f"import sys, valence_lib.preprocess.inspection; print(*sorted(set(sys.modules) & {heavy}))"
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert finished.stdout.split() == []


# Several corpora


def corpora_of(folder: Path, voice: Voice, **ratings: list[float | str]) -> dict[str, Path]:
    """Corpora of clips with the ratings that are given; all clips differ."""
    folders = {}
    for first, (name, given) in enumerate(ratings.items()):
        folders[name] = folder / name
        folders[name].mkdir()
        for number in range(len(given)):
            soundfile.write(folders[name] / f"{number}.wav", voice(100 * first + number), 8000)
        rows = [f"{number}.wav,{rating}" for number, rating in enumerate(given)]
        (folders[name] / "labels.csv").write_text("\n".join(["file,valence", *rows]) + "\n")
    return folders


def test_each_corpus_is_checked_on_its_own_scale(tmp_path: Path, voice: Voice):
    found = corpora_of(tmp_path, voice, first=[1, 5.8, 7], second=[1, 3, 5])
    (found["second"] / "corpus.json").write_text('{"scale": [1, 5]}')
    both = f"{found['first']},{found['second']}"
    message = (
        r"2 of 3 ratings of 'first' are not between 1 and 5 \('1\.wav' 5\.8, '2\.wav' 7\)\. The lowest is 1 "
        r"and the highest 7: .* RANGE=1,7/1,5, or auto in place of one of these"
    )
    with pytest.raises(CorpusError, match=message):
        check_labels(open_corpus(both), CorpusSettings())
    # The second has values of its own scale in the message, too.
    with pytest.raises(CorpusError, match=r"1 of 3 ratings of 'second' .* \('2\.wav' 5\).*RANGE=1,7/1,5"):
        check_labels(open_corpus(both, scale="1,7/1,4"), CorpusSettings())
    check_labels(open_corpus(both, scale="1,7/1,5"), CorpusSettings())


def test_a_corpus_without_ratings_is_named(tmp_path: Path, voice: Voice):
    found = corpora_of(tmp_path, voice, first=[1, 3, 5], second=["", "", ""])
    for corpus in (
        open_corpus(f"{found['first']},{found['second']}"),
        open_corpus(found["first"], test_corpus=str(found["second"])),
    ):
        with pytest.raises(CorpusError, match="none of the 3 clips of 'second' has a rating of valence"):
            check_labels(corpus, CorpusSettings())


def test_a_copy_of_a_corpus_is_refused(tmp_path: Path, voice: Voice):
    found = corpora_of(tmp_path, voice, first=[1, 3, 5])
    shutil.copytree(found["first"], tmp_path / "copy")
    corpus = open_corpus(found["first"], test_corpus=str(tmp_path / "copy"))
    message = r"every usable clip of 'first' has the same audio .* first/0\.wav and copy/0\.wav"
    with pytest.raises(CorpusError, match=message):
        inspect(corpus)


def test_unknown_speakers_are_not_one_person(tmp_path: Path, voice: Voice):
    found = corpora_of(tmp_path, voice, first=[1, 3, 5], second=[1, 2, 3])
    corpus = open_corpus(f"{found['first']},{found['second']}")
    assert len(inspect(corpus, clips_per_speaker=1).clips) == 6


def test_terms_are_those_of_a_named_corpus(tmp_path: Path, voice: Voice):
    found = corpora_of(tmp_path, voice, first=[1, 3, 5], second=[1, 2, 3])
    (found["second"] / "corpus.json").write_text('{"terms": "CC0"}')
    corpus = open_corpus(f"{found['first']},{found['second']}")
    assert "\nterms      second: CC0\n" in summarise(inspect(corpus), corpus)


def test_one_clip_is_not_clips(tmp_path: Path, voice: Voice):
    folder = corpora_of(tmp_path, voice, first=[1, 3, 5])["first"]
    rows = "0.wav,1,A\n1.wav,3,\n2.wav,5,B\n"
    (folder / "labels.csv").write_text(f"file,valence,speaker\n{rows}")
    corpus = open_corpus(folder)
    assert "2, unknown for 1 clip\n" in summarise(inspect(corpus), corpus)
