"""Predictions of many files and along recordings equal those of single clips, in order, in bounded memory."""

import dataclasses
import os
import pickle
from collections import Counter

import numpy as np
import pytest
import soundfile
import torch
from toy import FEATURES, Given, tone

from valence_lib.errors import ClipError, RunError, SettingsError
from valence_lib.features.log_mel import log_mel
from valence_lib.features.standardise import Standardiser
from valence_lib.features.streams import ClipFeatures
from valence_lib.features.voice_statistics import statistic_names
from valence_lib.models.build import build_model
from valence_lib.settings import TrainingSettings
from valence_lib.training import predicting
from valence_lib.training.predicting import list_counts, list_files, predict_files, predict_windows
from valence_lib.training.runs import Run

RATE = 8000


@pytest.fixture(scope="module", params=["CNN", "LSTM2"])
def run(request):
    """An untrained model, standardised by two tones."""
    torch.manual_seed(0)
    log_mels = [log_mel(tone(valence, 0.4, 1), FEATURES) for valence in (2, 4)]
    standardiser = Standardiser.fit("train", log_mels, ["", ""], [True, True])
    return Run(
        FEATURES, TrainingSettings(), build_model(request.param, [FEATURES.n_mels]).eval(), standardiser
    )


def by_speaker(run):
    nothing = np.zeros((0, FEATURES.n_mels), np.float32)
    return dataclasses.replace(run, standardiser=Standardiser("speaker", (), nothing, nothing))


def by_hand(run, clips, speakers):
    """Predictions of some waveforms, with the speakers' statistics of these."""
    source = Given([log_mel(clip, FEATURES) for clip in clips])
    return run.adapt(source, speakers).predict_features(source, speakers)


def recording(seconds, seed=0):
    """Tones of changing pitch and loudness, the same for the same seed."""
    generator = np.random.default_rng(seed)
    pieces = [
        generator.uniform(0.1, 1) * tone(generator.uniform(1, 5), 0.25, number)
        for number in range(round(seconds / 0.25) + 1)
    ]
    return np.concatenate(pieces)[: round(seconds * RATE)].astype(np.float32)


def write(path, samples, rate=RATE):
    soundfile.write(path, samples, rate, subtype="FLOAT")
    return path


def one(path, run):
    (prediction,) = predict_files([path], run)
    return prediction.rating


def test_a_folder_lists_audio_and_pickles_and_counts_the_rest(tmp_path):
    listed = ["a.wav", "b.CAF", "c/d.m4a", "c/e.w64", "f.aifc", "g.snd", "h.sph", "i.pkl", "j.pickle"]
    hidden = ["._a.wav", ".k.wav", "__MACOSX/._a.wav", ".git/x.wav", "c/.DS_Store", "Thumbs.db", "~$a.wav"]
    others = ["labels.csv", "c/notes.TXT", "c/notes2.txt", "README", ".txt.wav.part"]
    for name in (*listed, *hidden, *others):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "dead.wav").symlink_to("nowhere.wav")
    (tmp_path / "again").symlink_to("c")
    (tmp_path / "alias.wav").symlink_to("a.wav")
    passed_over = Counter()
    found = list_files([tmp_path], passed_over)
    assert found == sorted(tmp_path / name for name in (*listed, "alias.wav"))
    assert passed_over == {
        "hidden": len(hidden) + 1,
        ".txt": 2,
        ".csv": 1,
        "without a suffix": 1,
        "broken link": 1,
        "linked folder": 1,
    }
    assert list_counts(passed_over).startswith("8 hidden, 2 .txt, 1 ")


def test_what_is_named_is_taken_whatever_its_name(tmp_path):
    named = [tmp_path / "._a.wav", tmp_path / "notes.txt"]
    passed_over = Counter()
    assert list_files(named, passed_over) == named
    assert not passed_over
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "a.wav").touch()
    assert list_files([tmp_path / ".hidden"]) == [tmp_path / ".hidden" / "a.wav"]


def test_a_folder_without_clips_is_refused_with_what_it_holds(tmp_path):
    with pytest.raises(RunError, match=r"holds no audio file and no pickle; expected files such as \.wav"):
        list_files([tmp_path])
    for name in ("a.txt", "b.txt", "._c.wav"):
        (tmp_path / name).touch()
    with pytest.raises(RunError, match=r"no pickle \(but 2 \.txt, 1 hidden\); expected"):
        list_files([tmp_path])


def test_many_suffixes_are_listed_in_short():
    assert list_counts(Counter({f".{n}": 100 - n for n in range(12)})) == (
        "100 .0, 99 .1, 98 .2, 97 .3, 96 .4, 95 .5, 94 .6, 93 .7, 362 more"
    )
    assert list_counts(Counter({os.fsdecode(b".\xff"): 1200})) == r"1,200 .\xff"


def test_names_that_are_not_utf_8_are_predicted_and_written_as_text(run, tmp_path):
    strange = os.fsdecode(b"gl\xfcck")
    clip = tone(3, 0.3, 0)
    good, bad = tmp_path / f"{strange}.wav", tmp_path / f"{strange} 2.wav"
    with good.open("wb") as file:
        soundfile.write(file, clip, RATE, format="WAV", subtype="FLOAT")
    bad.write_bytes(b"")
    (tmp_path / f"{strange}.pkl").write_bytes(pickle.dumps([{"audio_data": clip}] * 2))
    files = [good, bad, tmp_path / f"{strange}.pkl"]
    found = list(predict_files(files, run))
    names = [r"gl\xfcck.wav", r"gl\xfcck 2.wav", r"gl\xfcck.pkl#0", r"gl\xfcck.pkl#1"]
    assert [row.file for row in found] == [f"{tmp_path}/{name}" for name in names]
    assert [row.error is None for row in found] == [True, False, True, True]
    assert found[0].rating == pytest.approx(found[2].rating, abs=1e-5)
    assert [row.file for row in predict_windows([good], run, 0.2, 0.1)] == [found[0].file] * 2


def test_a_pickle_is_predicted_at_its_own_rate_and_with_its_channels(run, tmp_path):
    rate = 16000
    samples = np.sin(2 * np.pi * 900 * np.arange(rate) / rate).astype(np.float32) / 2
    path = write(tmp_path / "a.wav", samples, rate)
    for audio in (samples, samples[None], np.stack([samples, samples])):
        (tmp_path / "a.pkl").write_bytes(pickle.dumps({"audio_data": audio, "sr": rate}))
        assert one(tmp_path / "a.pkl", run) == pytest.approx(one(path, run), abs=1e-5)


def test_files_come_in_order_over_many_shares_and_as_if_alone(run, tmp_path, monkeypatch):
    monkeypatch.setattr(predicting, "_FILES_PER_SHARE", 3)
    monkeypatch.setattr(predicting, "_FRAMES_AT_ONCE", 40)
    generator = np.random.default_rng(3)
    clips = [tone(generator.uniform(1, 5), generator.uniform(0.1, 0.5), n) for n in range(20)]
    files = [write(tmp_path / f"{n}.wav", clip) for n, clip in enumerate(clips)]
    files.insert(7, tmp_path / "absent.wav")
    found = list(predict_files(files, run))
    assert [row.file for row in found] == [str(path) for path in files]
    assert found[7].rating is None
    assert found[7].error.reason == "unreadable"
    expected = [by_hand(run, [clip], [""])[0] for clip in clips]
    assert [row.rating for row in found if row.error is None] == pytest.approx(expected, abs=1e-5)


def test_a_folder_is_one_speaker_where_the_run_standardises_by_speaker(run, tmp_path):
    clips = {"x": [recording(0.3, n) for n in range(3)], "y": [recording(0.4, n) for n in range(3, 6)]}
    for name in clips:
        (tmp_path / name).mkdir()
    # The folders' files alternate.
    places = [(name, n) for n in range(3) for name in clips]
    files = [write(tmp_path / name / f"{n}.wav", clips[name][n]) for name, n in places]
    found = list(predict_files(files, by_speaker(run)))
    assert [row.file for row in found] == [str(path) for path in files]
    for name in clips:
        expected = by_hand(by_speaker(run), clips[name], [name] * 3)
        values = [row.rating for row, place in zip(found, places, strict=True) if place[0] == name]
        assert values == pytest.approx(expected, abs=1e-5)


def test_each_window_is_its_excerpt_as_a_file_of_its_own(run, tmp_path):
    samples = recording(45.3)
    path = write(tmp_path / "long.wav", samples)
    found = list(predict_windows([path], run, 4, 1))
    assert [row.start_seconds for row in found] == list(range(43))
    assert [row.end_seconds for row in found] == pytest.approx([*range(4, 46), 45.3])
    for number in (0, 1, 30, 31, 32, 41, 42):  # from 32 on in another share
        excerpt = write(tmp_path / "excerpt.wav", samples[number * RATE : (number + 4) * RATE])
        assert found[number].rating == pytest.approx(one(excerpt, run), abs=1e-5)
    assert len({round(row.rating, 6) for row in found}) > 30


@pytest.mark.parametrize(
    ("n_samples", "window", "hop", "expected"),
    [
        (1001, 400, 200, [(0, 400), (200, 600), (400, 800), (600, 1000), (800, 1001)]),
        (899, 400, 400, [(0, 400), (400, 800)]),  # the rest holds less than 100
        (900, 400, 400, [(0, 400), (400, 800), (800, 900)]),
        (1500, 400, 700, [(0, 400), (700, 1100), (1400, 1500)]),
        (400, 400, 1, [(0, 400)]),
        (400, 399, 1, [(0, 399), (1, 400)]),
    ],
)
@pytest.mark.parametrize("block", [1, 37, 100, 5000])
def test_windows_follow_at_the_hop_whatever_the_blocks(n_samples, window, hop, expected, block):
    samples = np.arange(n_samples, dtype=np.float32)
    blocks = (samples[at : at + block] for at in range(0, n_samples, block))
    found = list(predicting._windows(blocks, window, hop, 100))
    assert [(start, start + len(cut)) for start, cut in found] == expected
    for start, cut in found:
        np.testing.assert_array_equal(cut, samples[start : start + len(cut)])


def test_silence_has_no_valence_and_a_recording_too_short_one_row(run, tmp_path):
    samples = np.concatenate([recording(2), np.zeros(2 * RATE, np.float32), recording(2, 1)])
    silent, short = write(tmp_path / "pause.wav", samples), write(tmp_path / "short.wav", samples[:100])
    found = list(predict_windows([silent, short], run, 2, 2))
    assert [row.rating is None for row in found] == [False, True, False, True]
    assert [row.error and row.error.reason for row in found] == [None, None, None, "too short"]


def test_a_recording_without_any_valence_has_a_last_row_that_says_why(run, tmp_path):
    silent = write(tmp_path / "silent.wav", np.zeros(5 * RATE, np.float32))
    constant = write(tmp_path / "constant.wav", np.full(5 * RATE, 0.5, np.float32))
    for path, reason in ((silent, "silent"), (constant, "constant")):
        for model in (run, by_speaker(run)):
            *windows, last = predict_windows([path], model, 2, 1)
            assert [row.rating for row in windows] == [None] * 4
            assert {row.error for row in windows} == {None}
            assert (last.rating, last.start_seconds, last.error.reason) == (None, None, reason)
            assert str(last.error) == f"none of the 4 windows has a valence ({reason}: 4)."


def test_samples_held_at_once_do_not_grow_with_the_recording(run, tmp_path, monkeypatch):
    """Counts the samples that were read and are not yet predicted."""
    path = tmp_path / "long.wav"
    samples = recording(10)
    with soundfile.SoundFile(path, "w", RATE, 1) as file:
        for _ in range(36):
            file.write(samples)
    read, done, ahead = 0, 0.0, []
    read_audio_blocks = predicting.read_audio_blocks

    def counted(path, sample_rate):
        nonlocal read
        for block in read_audio_blocks(path, sample_rate):
            assert len(block) <= RATE
            read += len(block)
            ahead.append(read - done)
            yield block

    monkeypatch.setattr(predicting, "read_audio_blocks", counted)
    for row in predict_windows([path], run, 4, 1):
        done = row.end_seconds * RATE
    assert done == read == 360 * RATE
    # A share of 35 s that is being predicted, one that is being read, and a block.
    assert max(ahead) <= (2 * 35 + 1) * RATE


@pytest.mark.parametrize("kind", ["train", "speaker"])
def test_the_number_of_cores_changes_nothing(run, kind, tmp_path, monkeypatch):
    run = run if kind == "train" else by_speaker(run)
    path = write(tmp_path / "a.wav", recording(40))
    files = [write(tmp_path / f"{n}.wav", recording(0.5, n)) for n in range(7)]
    files[2:2] = [tmp_path / "absent.wav", write(tmp_path / "silent.wav", np.zeros(RATE))]
    monkeypatch.setattr(predicting, "_FILES_PER_SHARE", 2)
    monkeypatch.setattr(predicting, "_WINDOWS_PER_SHARE", 8)
    found = []
    for cores in (1, 2, 4):
        monkeypatch.setattr(predicting.os, "cpu_count", lambda cores=cores: cores)
        rows = [*predict_windows([path], run, 4, 1), *predict_files(files, run)]
        found.append([(row.file, row.rating, row.error and row.error.reason) for row in rows])
    assert found[0] == found[1] == found[2]
    assert [reason for _, _, reason in found[0] if reason] == ["unreadable", "silent"]


@pytest.mark.parametrize("kind", ["train", "speaker"])
@pytest.mark.parametrize("seconds", [30, 3])
def test_the_windows_before_a_damage_still_count(run, kind, seconds, tmp_path, monkeypatch):
    monkeypatch.setattr(predicting, "_WINDOWS_PER_SHARE", 8)
    run = run if kind == "train" else by_speaker(run)
    samples = recording(40)
    whole = write(tmp_path / "whole.wav", samples[: seconds * RATE])
    expected = list(predict_windows([whole], run, 4, 1)) if seconds > 4 else []
    read_audio_blocks = predicting.read_audio_blocks

    def damaged(path, sample_rate):
        for number, block in enumerate(read_audio_blocks(path, sample_rate)):
            if number == seconds:
                raise ClipError("unreadable", "truncated.")
            yield block

    monkeypatch.setattr(predicting, "read_audio_blocks", damaged)
    *found, last = predict_windows([write(tmp_path / "damaged.wav", samples)], run, 4, 1)
    assert len(found) == max(0, seconds - 3)
    times = [(row.start_seconds, row.end_seconds) for row in found]
    assert times == [(row.start_seconds, row.end_seconds) for row in expected]
    assert [row.rating for row in found] == pytest.approx([row.rating for row in expected], abs=1e-5)
    assert (last.file, last.rating, last.error.reason) == (str(tmp_path / "damaged.wav"), None, "unreadable")


def test_threads_of_torch_are_as_before_also_where_the_caller_stops_early(run, tmp_path):
    before = torch.get_num_threads()
    rows = predict_windows([write(tmp_path / "a.wav", recording(40))], run, 1, 0.1)
    next(rows)
    rows.close()
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("window", "hop"), [(0.0319, 1), (-4, 1), (float("inf"), 1), (4, 0), (4, 1e-5), (4, float("nan"))]
)
def test_windows_without_a_frame_and_hops_without_a_sample_are_refused(run, window, hop):
    with pytest.raises(
        SettingsError, match=r"cannot be used: expected at least a (frame|sample), which lasts"
    ):
        predict_windows([], run, window, hop)


def test_features_of_a_window_are_those_of_its_excerpt(tmp_path):
    settings = TrainingSettings(model="Ridge", streams=("voice_statistics", "log_mel_statistics"))
    model = build_model("Ridge", [len(statistic_names()), 5 * FEATURES.n_mels])
    model.weight = torch.linspace(-0.01, 0.01, len(model.weight))
    nothing = np.zeros((0, len(model.weight)), np.float32)
    samples = recording(4)
    windows = [samples[n * RATE : (n + 2) * RATE] for n in range(3)]
    vectors = np.concatenate(ClipFeatures(windows, FEATURES).of(settings.streams)).astype(np.float64)
    constant = np.maximum(1e-4 * np.abs(vectors.mean(0)), 1e-6)  # smaller deviations count as constant
    scaled = (vectors - vectors.mean(0)) / np.maximum(vectors.std(0), constant)
    for kind, expected in (("none", vectors), ("speaker", scaled)):
        run = Run(FEATURES, settings, model, Standardiser(kind, (), nothing, nothing))
        found = [row.rating for row in predict_windows([write(tmp_path / "a.wav", samples)], run, 2, 1)]
        np.testing.assert_allclose(found, expected @ model.weight.double().numpy(), atol=1e-3)
        assert np.std(found) > 1e-3
