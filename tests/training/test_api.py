"""Training and predictions by one call: the same as by the pipeline's functions."""

import numpy as np
import pytest
import soundfile
from toy import Tones

from valence_lib.errors import SettingsError
from valence_lib.registry import training_settings
from valence_lib.training import api
from valence_lib.training.api import predict, train
from valence_lib.training.runs import load_run


class Clips(Tones):
    """Tones long enough for a frame of the default features."""

    def read(self, index):
        """Each tone four times."""
        clip = super().read(index)
        return type(clip)(clip.id, np.tile(clip.waveform, 4), 8000, clip.rating, clip.subset, clip.labels)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    train(Clips(), "Ridge", folder=folder)
    return folder


def test_a_trained_run_is_in_its_folder_and_predicts(run_folder):
    run = load_run(str(run_folder))
    assert run.training == training_settings("Ridge", "default", 0)
    clips = Clips()
    tested = [clips[place] for place in range(64, 80)]
    errors = [run.predict(clip.waveform) - clip.rating for clip in tested]
    assert np.mean(np.square(errors)) < 0.5 * np.var([clip.rating for clip in tested])


def test_a_run_without_a_folder_is_the_same_run(run_folder):
    clip = Clips()[70].waveform
    assert train(Clips(), "Ridge").predict(clip) == load_run(run_folder).predict(clip)


def test_changes_of_settings_are_trained():
    assert train(Clips(), "CNN", epochs=1).training.epochs == 1
    with pytest.raises(SettingsError, match=r"no parameter 'epoch'\. Did you mean 'epochs'"):
        train(Clips(), "CNN", epoch=1)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(api, "missing_packages", lambda streams: {"resemblyzer": "make encoder"})
    with pytest.raises(SettingsError, match=r"needs the package resemblyzer.*make encoder"):
        train(Clips(), "GaussianProcess")


@pytest.mark.parametrize("as_list", [True, False])
def test_files_are_predicted_as_one_by_one(run_folder, tmp_path, as_list):
    for number in (1, 2):
        soundfile.write(tmp_path / f"{number}.wav", Clips()[number].waveform, 8000, subtype="FLOAT")
    (tmp_path / "3.wav").write_text("no audio")
    files = sorted(tmp_path.glob("*.wav"))
    found = predict(str(run_folder), files if as_list else str(tmp_path))
    assert found["file"].tolist() == [str(path) for path in files]
    run = load_run(run_folder)
    assert found["valence"].tolist()[:2] == pytest.approx([run.predict(path) for path in files[:2]], abs=1e-5)
    assert np.isnan(found["valence"][2]) and "cannot be decoded" in found["error"][2]
