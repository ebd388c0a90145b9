"""One-step fits: the clips that they use, the files that they write, and the layer that is chosen."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from toy import FEATURES, Tones, layers, make_clips, make_training_data

from valence_lib import registry
from valence_lib.errors import SettingsError
from valence_lib.evaluation import signal
from valence_lib.models.build import build_model, count_parameters
from valence_lib.preprocess.store import store_streams
from valence_lib.registry import Stream, training_settings
from valence_lib.training import one_step
from valence_lib.training.loop import HISTORY, TrainingData
from valence_lib.training.one_step import fit, fitted, with_chosen_layer
from valence_lib.training.runs import load_run

STREAMS = ("voice_statistics", "log_mel_statistics")
KEPT = ["best.safetensors", "finished.json", "history.csv", "settings.json", "validation.csv"]
FILES = {*KEPT, "seconds.json"}
every_model = pytest.mark.parametrize("model", ["Ridge", "SVR", "GaussianProcess"])


@pytest.fixture(scope="module")
def encoder():
    """A made-up encoder with one row per layer; layer 1 is informative."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(signal, "encoder", layers, raising=False)
        patch.setitem(
            registry.STREAMS, "encoder", Stream("valence_lib.evaluation.signal", per="clip", groups=2)
        )
        yield


@pytest.fixture(scope="module")
def training_data(tmp_path_factory, encoder):
    folder = tmp_path_factory.mktemp("features")
    clips = make_clips(folder)
    store_streams(folder, Tones(), clips, ["voice_statistics", "encoder"], FEATURES, 1, progress=False)
    return make_training_data(folder, clips)


def _settings(model="GaussianProcess", **changes):
    return training_settings(model, "default", 0, **{"streams": STREAMS, **changes})


def _fit(training_data, folder, settings=None):
    return fit(training_data, settings or _settings(), folder, progress=False)


def _bytes(folder):
    return {name: (folder / name).read_bytes() for name in KEPT}


@pytest.fixture(scope="module")
def finished(training_data, tmp_path_factory):
    """A fit of the Gaussian process: its folder and its history."""
    folder = tmp_path_factory.mktemp("finished")
    return folder, _fit(training_data, folder)


def _vectors(training_data, streams, fitted_to, of):
    """Rows of some clips, standardised by the means and deviations of others."""
    stored = training_data.store.of(streams)
    rows = np.concatenate([stored[int(row)] for row in range(len(stored))]).astype(np.float64)
    mean, deviation = rows[fitted_to].mean(0), rows[fitted_to].std(0)
    constant = np.maximum(1e-4 * np.abs(mean), 1e-6)  # smaller deviations count as constant
    return ((rows[of] - mean) / np.maximum(deviation, constant)).astype(np.float32)


def _by_hand(training_data, settings, rows):
    """A model fitted to some rows, and its predictions of all clips."""
    widths = training_data.store.of(settings.streams).widths
    model = build_model(settings.model, widths).eval()
    truth, speakers = training_data.clips["rating"].to_numpy(), training_data.clips["speaker"].to_numpy(str)
    model.fit(_vectors(training_data, settings.streams, rows, rows), truth[rows], speakers[rows])
    every = _vectors(training_data, settings.streams, rows, np.arange(len(truth)))
    with torch.no_grad():
        return model, model(
            torch.from_numpy(every)[:, None], torch.ones(len(every), dtype=torch.int64)
        ).numpy()


@every_model
def test_it_is_fitted_to_training_clips_and_then_to_validation_clips_too(training_data, tmp_path, model):
    settings = _settings(model)
    history = _fit(training_data, tmp_path, settings)
    train, validation, test = (training_data.rows(subset) for subset in ("train", "validation", "test"))
    truth = training_data.clips["rating"].to_numpy()

    _, alone = _by_hand(training_data, settings, train)
    saved = pd.read_csv(tmp_path / "validation.csv")
    assert saved["id"].tolist() == training_data.clips["id"].iloc[validation].tolist()
    np.testing.assert_allclose(saved["prediction"], alone[validation], atol=1e-4)
    ((epoch, rate, training_mse, validation_mse),) = history[HISTORY].to_numpy()
    assert (epoch, rate) == (1, 0)
    assert training_mse == pytest.approx(np.mean((alone - truth)[train] ** 2), rel=1e-3)
    assert validation_mse == pytest.approx(np.mean((alone - truth)[validation] ** 2), rel=1e-3)
    assert validation_mse < 0.7 * truth[validation].var()

    both, together = _by_hand(training_data, settings, np.concatenate([train, validation]))
    run = load_run(tmp_path)
    np.testing.assert_allclose(
        run.predict_features(training_data.source(test), [""] * 16), together[test], atol=1e-4
    )
    assert np.abs(together - alone)[test].max() > 1e-3  # the two fits do differ
    assert run.model.state_dict().keys() == both.state_dict().keys()
    assert run.training == settings


def test_without_validation_clips_the_run_is_the_fit_to_the_training_clips(training_data, tmp_path):
    subsets = training_data.clips["subset"].to_numpy(str)
    history = _fit(training_data.with_subsets(np.where(subsets == "validation", "test", subsets)), tmp_path)
    assert history["validation_mse"].isna().all()
    assert history["training_mse"].notna().all()
    assert pd.read_csv(tmp_path / "validation.csv").empty
    _, expected = _by_hand(training_data, _settings(), training_data.rows("train"))
    found = load_run(tmp_path).predict_features(training_data.source(np.arange(80)), [""] * 80)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_statistics_of_speakers_are_those_of_their_predicted_clips(training_data, tmp_path):
    settings = _settings(standardise="speaker")
    _fit(training_data, tmp_path, settings)
    validation, speakers = training_data.rows("validation"), training_data.clips["speaker"].to_numpy(str)
    run = fitted(training_data, settings, training_data.rows("train"), np.arange(80))
    assert run.standardiser.groups == tuple(f"S{n}" for n in range(8))
    source = training_data.source(validation)
    expected = run.adapt(source, speakers[validation]).predict_features(source, speakers[validation])
    np.testing.assert_array_equal(pd.read_csv(tmp_path / "validation.csv")["prediction"], expected)
    with pytest.raises(SettingsError, match="does not name the speaker of every clip"):
        _fit(
            TrainingData(training_data.store, training_data.clips.assign(speaker="")),
            tmp_path / "unnamed",
            settings,
        )


def test_the_files_of_a_fit(training_data, finished):
    folder, history = finished
    assert {path.name for path in folder.iterdir()} == FILES
    pd.testing.assert_frame_equal(pd.read_csv(folder / "history.csv"), history, check_dtype=False)
    settings = json.loads((folder / "settings.json").read_text())
    assert settings["widths"] == list(training_data.store.of(STREAMS).widths)
    run = load_run(folder)
    assert settings["parameters"] == count_parameters(run.model)
    assert run.model.support.shape == (64, sum(settings["widths"]))
    assert json.loads((folder / "seconds.json").read_text())["device"] == "cpu"


def _interrupt(*_):
    raise KeyboardInterrupt


@pytest.mark.parametrize("place", ["fitted", "predict", "save_best"])
def test_an_interrupted_fit_keeps_the_earlier_run_and_is_repeated(
    training_data, tmp_path, finished, monkeypatch, place
):
    folder = tmp_path / "run"
    _fit(training_data, folder, _settings("Ridge"))
    before = _bytes(folder)
    with monkeypatch.context() as patched:
        patched.setattr(one_step, place, _interrupt)
        with pytest.raises(KeyboardInterrupt):
            _fit(training_data, folder)
    assert _bytes(folder) == before
    assert load_run(folder).training.model == "Ridge"
    pd.testing.assert_frame_equal(_fit(training_data, folder), finished[1])
    assert _bytes(folder) == _bytes(finished[0])
    assert {path.name for path in folder.iterdir()} == FILES


@every_model
@pytest.mark.parametrize("streams", [("encoder",), ("voice_statistics", "encoder")])
def test_the_informative_layer_is_chosen_and_is_in_the_runs_settings(training_data, tmp_path, model, streams):
    settings = _settings(model, streams=streams)
    expected = tuple("encoder:1" if name == "encoder" else name for name in streams)
    assert with_chosen_layer(training_data, settings, training_data.rows("train")).streams == expected
    _fit(training_data, tmp_path, settings)
    run = load_run(tmp_path)
    assert run.streams == expected
    _fit(training_data, tmp_path / "by name", _settings(model, streams=expected))
    for name in ("best.safetensors", "validation.csv"):
        assert (tmp_path / name).read_bytes() == (tmp_path / "by name" / name).read_bytes()


@pytest.mark.parametrize("subset", ["validation", "test"])
def test_no_other_labels_matter_to_the_layer(training_data, tmp_path, subset):
    # With these labels, another layer would be chosen.
    rows = training_data.rows(subset)
    noise = np.array([training_data.store.of(["encoder:0"])[int(row)][0, 0] for row in rows])
    clips = training_data.clips.copy()
    clips.loc[rows, "rating"] = 100 * noise
    _fit(TrainingData(training_data.store, clips), tmp_path, _settings("Ridge", streams=["encoder"]))
    assert load_run(tmp_path).streams == ("encoder:1",)
