"""Blends: the mean of what their members predict, from stored streams, from waveforms and from files."""

import numpy as np
import pytest
import soundfile
import torch
from toy import FEATURES, Tones, make_clips, make_material, tone

from valence_lib.errors import RunError
from valence_lib.experiments import run_experiment
from valence_lib.predicting import predict_files, predict_windows
from valence_lib.runs import Blend, Run, load_run, read_members
from valence_lib.store import store_streams
from valence_lib.streams import Heard

CPU = torch.device("cpu")
MEMBERS = ("VoiceSVR", "LSTM2", "AttentionLSTM")
STREAMS = "voice+fine_mel"  # of the networks; the SVR hears one row a clip


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    folder = tmp_path_factory.mktemp("features")
    clips = make_clips(folder)
    store_streams(folder, Tones(), clips, ["voice", "fine_mel", "voice_statistics"], FEATURES, progress=False)
    return make_material(folder, clips)


@pytest.fixture(scope="module", params=["default", "speaker"])
def folder(request, material, tmp_path_factory):
    """A finished blend, standardised by the training part or by speaker."""
    folder = tmp_path_factory.mktemp("blend")
    parts = {"": material.clips["part"].to_numpy(dtype=str)}
    changes = {"members": "+".join(MEMBERS), "streams": STREAMS, "epochs": 2}
    run_experiment(material, parts, folder, CPU, "Blend", request.param, 0, progress=False, **changes)
    return folder


@pytest.fixture
def run(folder):
    return load_run(folder)


def _mean_of_members(folder, heard, speakers):
    """Each member by itself, on its own streams."""
    members = [Run.load(folder / name) for name in MEMBERS]
    return np.mean([run.predict(heard.of(run.training.streams), speakers) for run in members], axis=0)


def _waveforms():
    return [tone(1 + number / 3, 0.3 + number / 50, number) for number in range(12)]


def test_it_is_loaded_with_its_members_in_order(folder, run):
    assert isinstance(run, Blend)
    assert read_members(folder) == list(MEMBERS)
    assert [member.training.model for member in run.members] == list(MEMBERS)
    assert [member.training.streams for member in run.members] == ["voice_statistics", STREAMS, STREAMS]
    assert run.features == FEATURES
    assert run.by_speaker == (run.members[0].training.preset == "speaker")


def test_it_predicts_the_mean_of_its_members(folder, run):
    heard = Heard(_waveforms(), FEATURES)
    speakers = ["A", "B", "C"] * 4
    found = run.hear(heard, speakers)
    np.testing.assert_allclose(found, _mean_of_members(folder, heard, speakers), atol=1e-6)
    assert found.std() > 0.05
    each = [member.hear(heard, speakers) for member in run.members]
    assert min(np.abs(one - found).max() for one in each) > 1e-3


def test_it_predicts_the_same_from_what_is_stored(material, run):
    rows = material.rows("test")

    class Stored:
        def of(self, names):
            return [material.store.of(names)[int(row)] for row in rows]

    speakers = material.clips["speaker"].iloc[rows].tolist()
    waveforms = [Tones().read(int(row)).waveform for row in rows]
    np.testing.assert_allclose(
        run.hear(Stored(), speakers), run.hear(Heard(waveforms, FEATURES), speakers), atol=1e-6
    )


def test_who_speaks_matters_only_where_it_standardises_by_speaker(run):
    heard = Heard(_waveforms(), FEATURES)
    one, three = run.hear(heard, ["A"] * 12), run.hear(heard, ["A", "B", "C"] * 4)
    assert (np.abs(one - three).max() > 1e-3) == run.by_speaker


def test_what_is_fitted_to_speakers_predicts_as_if_they_were_given_together(run):
    waveforms = _waveforms()
    heard, speakers = Heard(waveforms, FEATURES), ["A", "B"] * 6
    fitted = run.fitted_to_speakers(heard.of, speakers)
    expected = run.hear(heard, speakers)
    np.testing.assert_allclose(fitted.hear_fitted(heard, speakers), expected, atol=1e-6)
    first = Heard(waveforms[:1], FEATURES)
    np.testing.assert_allclose(fitted.hear_fitted(first, ["A"]), expected[:1], atol=1e-5)


def test_files_are_predicted_by_the_mean(folder, run, tmp_path):
    files, speakers = [], []
    for number, waveform in enumerate(_waveforms()):
        path = tmp_path / f"speaker {number % 2}" / f"{number}.wav"
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, waveform, 8000, subtype="FLOAT")
        files.append(path)
        speakers.append(path.parent.name)
    (tmp_path / "broken.wav").write_bytes(b"no audio")
    *found, broken = predict_files([*files, tmp_path / "broken.wav"], run)
    expected = _mean_of_members(folder, Heard(_waveforms(), FEATURES), speakers)
    assert [row.valence for row in found] == pytest.approx(expected, abs=1e-5)
    assert broken.valence is None
    assert broken.error is not None


def test_windows_are_predicted_by_the_mean(folder, run, tmp_path):
    recording = np.concatenate(_waveforms())[:16_000]
    soundfile.write(tmp_path / "long.wav", recording, 8000, subtype="FLOAT")
    found = list(predict_windows([tmp_path / "long.wav"], run, window_seconds=0.5, hop_seconds=0.25))
    assert len(found) == 7
    windows = [recording[start : start + 4000] for start in range(0, 12_001, 2000)]
    # A recording is one speaker, whose statistics are those of all its windows.
    expected = _mean_of_members(folder, Heard(windows, FEATURES), ["one"] * 7)
    assert [row.valence for row in found] == pytest.approx(expected, abs=1e-5)


def test_a_blend_of_blends_weighs_each_alike(run):
    heard, speakers = Heard(_waveforms(), FEATURES), ["A"] * 12
    first, *rest = run.members
    nested = Blend((first, Blend(tuple(rest))))
    one, two, three = (member.hear(heard, speakers) for member in run.members)
    np.testing.assert_allclose(nested.hear(heard, speakers), (one + (two + three) / 2) / 2, atol=1e-6)


def test_a_blend_that_lacks_a_member_is_refused_by_its_name(folder, tmp_path):
    (tmp_path / "settings.json").write_text((folder / "settings.json").read_text())
    with pytest.raises(RunError, match=r"VoiceSVR.* is not a run that can be used"):
        load_run(tmp_path)
    with pytest.raises(RunError, match="is not a run that can be used"):
        load_run(tmp_path / "absent")
