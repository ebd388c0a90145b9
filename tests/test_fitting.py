"""Fits in one step: what of the clips they use, what they leave, and which layer is chosen."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from toy import FEATURES, Tones, layers, make_clips, make_material

from valence_lib import fitting, registry, signal_measures
from valence_lib.errors import SettingsError, TrainingError
from valence_lib.fitting import fit, fitted, with_chosen_layer
from valence_lib.models import build_model, count_parameters
from valence_lib.registry import Stream, training_settings
from valence_lib.runs import Run
from valence_lib.store import store_streams
from valence_lib.training import HISTORY, Material

STREAMS = ("voice_statistics", "log_mel_statistics")
FILES = {
    "best.safetensors",
    "finished.json",
    "history.csv",
    "seconds.json",
    "settings.json",
    "validation.csv",
}
KEPT = sorted(FILES - {"seconds.json"})
every_model = pytest.mark.parametrize("model", ["Ridge", "SVR", "GaussianProcess"])


@pytest.fixture(scope="module")
def encoder():
    """In the place of the encoder, a function with one row a layer, of which layer 1 is informative."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(signal_measures, "encoder", layers, raising=False)
        patch.setitem(
            registry.STREAMS, "encoder", Stream("valence_lib.signal_measures", per="clip", groups=2)
        )
        yield


@pytest.fixture(scope="module")
def material(tmp_path_factory, encoder):
    folder = tmp_path_factory.mktemp("features")
    clips = make_clips(folder)
    store_streams(folder, Tones(), clips, ["voice_statistics", "encoder"], FEATURES, 1, progress=False)
    return make_material(folder, clips)


def _settings(model="GaussianProcess", **changes):
    return training_settings(model, "default", 0, **{"streams": STREAMS, **changes})


def _fit(material, folder, settings=None):
    return fit(material, settings or _settings(), folder, progress=False)


def _bytes(folder):
    return {name: (folder / name).read_bytes() for name in KEPT}


@pytest.fixture(scope="module")
def finished(material, tmp_path_factory):
    """A fit of the Gaussian process: its folder and its history."""
    folder = tmp_path_factory.mktemp("finished")
    return folder, _fit(material, folder)


def _vectors(material, streams, fitted_to, of):
    """Standardised rows of some clips, by the means and deviations of others."""
    stored = material.store.of(streams)
    rows = np.concatenate([stored[int(row)] for row in range(len(stored))]).astype(np.float64)
    mean, deviation = rows[fitted_to].mean(0), rows[fitted_to].std(0)
    constant = np.maximum(1e-4 * np.abs(mean), 1e-6)  # what varies less is taken for constant
    return ((rows[of] - mean) / np.maximum(deviation, constant)).astype(np.float32)


def _by_hand(material, settings, rows):
    """A model fitted to some rows, and what it predicts for all clips."""
    widths = material.store.of(settings.streams).widths
    model = build_model(settings.model, widths).eval()
    truth, speakers = material.clips["valence"].to_numpy(), material.clips["speaker"].to_numpy(str)
    model.fit(_vectors(material, settings.streams, rows, rows), truth[rows], speakers[rows])
    every = _vectors(material, settings.streams, rows, np.arange(len(truth)))
    with torch.no_grad():
        return model, model(
            torch.from_numpy(every)[:, None], torch.ones(len(every), dtype=torch.int64)
        ).numpy()


# What is fitted


@every_model
def test_it_is_fitted_to_training_clips_and_then_to_validation_clips_too(material, tmp_path, model):
    settings = _settings(model)
    history = _fit(material, tmp_path, settings)
    train, validation, test = (material.rows(part) for part in ("train", "validation", "test"))
    truth = material.clips["valence"].to_numpy()

    _, alone = _by_hand(material, settings, train)
    saved = pd.read_csv(tmp_path / "validation.csv")
    assert saved["id"].tolist() == material.clips["id"].iloc[validation].tolist()
    np.testing.assert_allclose(saved["prediction"], alone[validation], atol=1e-4)
    ((epoch, rate, training_mse, validation_mse),) = history[HISTORY].to_numpy()
    assert (epoch, rate) == (1, 0)
    assert training_mse == pytest.approx(np.mean((alone - truth)[train] ** 2), rel=1e-3)
    assert validation_mse == pytest.approx(np.mean((alone - truth)[validation] ** 2), rel=1e-3)
    assert validation_mse < 0.7 * truth[validation].var()

    both, together = _by_hand(material, settings, np.concatenate([train, validation]))
    run = Run.load(tmp_path)
    np.testing.assert_allclose(run.predict(material.source(test), [""] * 16), together[test], atol=1e-4)
    assert np.abs(together - alone)[test].max() > 1e-3  # the two fits do differ
    assert run.model.state_dict().keys() == both.state_dict().keys()
    assert run.training == settings


def test_without_validation_clips_the_run_is_the_fit_to_the_training_clips(material, tmp_path):
    parts = material.clips["part"].to_numpy(str)
    history = _fit(material.divided(np.where(parts == "validation", "test", parts)), tmp_path)
    assert history["validation_mse"].isna().all()
    assert history["training_mse"].notna().all()
    assert pd.read_csv(tmp_path / "validation.csv").empty
    _, expected = _by_hand(material, _settings(), material.rows("train"))
    found = Run.load(tmp_path).predict(material.source(np.arange(80)), [""] * 80)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_statistics_of_speakers_are_those_of_their_predicted_clips(material, tmp_path):
    settings = _settings(standardise="speaker")
    _fit(material, tmp_path, settings)
    validation, speakers = material.rows("validation"), material.clips["speaker"].to_numpy(str)
    run = fitted(material, settings, material.rows("train"), np.arange(80))
    assert run.standardiser.groups == tuple(f"S{n}" for n in range(8))
    source = material.source(validation)
    expected = run.adapt(source, speakers[validation]).predict(source, speakers[validation])
    np.testing.assert_array_equal(pd.read_csv(tmp_path / "validation.csv")["prediction"], expected)
    with pytest.raises(SettingsError, match="does not name the speaker of every clip"):
        _fit(Material(material.store, material.clips.assign(speaker="")), tmp_path / "unnamed", settings)


def test_predictions_that_are_no_numbers_are_refused(material, tmp_path, monkeypatch):
    row = material.rows("validation")[2]
    predict = fitting.predict

    def poisoned(run, material, rows):
        return np.where(rows == row, np.nan, predict(run, material, rows))

    monkeypatch.setattr(fitting, "predict", poisoned)
    message = f"the predictions of the validation clips {material.clips['id'][row]} are not finite"
    with pytest.raises(TrainingError, match=message):
        _fit(material, tmp_path)
    assert not (tmp_path / "finished.json").exists()


# What is left


def test_what_a_fit_leaves(material, finished):
    folder, history = finished
    assert {path.name for path in folder.iterdir()} == FILES
    pd.testing.assert_frame_equal(pd.read_csv(folder / "history.csv"), history, check_dtype=False)
    settings = json.loads((folder / "settings.json").read_text())
    assert settings["widths"] == list(material.store.of(STREAMS).widths)
    run = Run.load(folder)
    assert settings["parameters"] == count_parameters(run.model)
    assert run.model.support.shape == (64, sum(settings["widths"]))
    assert json.loads((folder / "seconds.json").read_text())["device"] == "cpu"


@pytest.mark.parametrize(
    "changes", [{"streams": ["voice_statistics"]}, {"seed": 1}, {"model": "Ridge"}], ids=str
)
def test_a_fit_of_other_settings_is_done_anew(material, tmp_path, finished, changes):
    folder = shutil.copytree(finished[0], tmp_path / "run")
    settings = training_settings(
        **{"model": "GaussianProcess", "preset": "default", "seed": 0, "streams": STREAMS, **changes}
    )
    _fit(material, folder, settings)
    assert Run.load(folder).training == settings
    assert _bytes(folder)["finished.json"] != _bytes(finished[0])["finished.json"]


def _interrupt(*_):
    raise KeyboardInterrupt


@pytest.mark.parametrize("place", ["fitted", "predict", "save_best"])
def test_a_fit_that_is_cut_off_leaves_the_one_before_whole_and_is_done_again(
    material, tmp_path, finished, monkeypatch, place
):
    folder = tmp_path / "run"
    _fit(material, folder, _settings("Ridge"))
    before = _bytes(folder)
    with monkeypatch.context() as patched:
        patched.setattr(fitting, place, _interrupt)
        with pytest.raises(KeyboardInterrupt):
            _fit(material, folder)
    assert _bytes(folder) == before
    assert Run.load(folder).training.model == "Ridge"
    pd.testing.assert_frame_equal(_fit(material, folder), finished[1])
    assert _bytes(folder) == _bytes(finished[0])
    assert {path.name for path in folder.iterdir()} == FILES


def test_one_line_is_printed_also_where_the_fit_is_found_finished(material, tmp_path, capsys):
    for _ in range(2):
        history = fit(material, _settings("Ridge"), tmp_path)
        training_mse, validation_mse = history[["training_mse", "validation_mse"]].iloc[0]
        expected = f"fitted   training MSE {training_mse:.3f}   validation MSE {validation_mse:.3f}\n"
        assert capsys.readouterr().out == expected
    _fit(material, tmp_path, _settings("Ridge"))
    assert capsys.readouterr().out == ""


# The layer of an encoder


@every_model
@pytest.mark.parametrize("streams", [("encoder",), ("voice_statistics", "encoder")])
def test_the_informative_layer_is_chosen_and_stands_in_the_runs_settings(material, tmp_path, model, streams):
    settings = _settings(model, streams=streams)
    expected = tuple("encoder:1" if name == "encoder" else name for name in streams)
    assert with_chosen_layer(material, settings, material.rows("train")).streams == expected
    _fit(material, tmp_path, settings)
    run = Run.load(tmp_path)
    assert run.streams == expected
    _fit(material, tmp_path / "by name", _settings(model, streams=expected))
    for name in ("best.safetensors", "validation.csv"):
        assert (tmp_path / name).read_bytes() == (tmp_path / "by name" / name).read_bytes()


def _noted(monkeypatch):
    """The rows of each fit, and of each prediction, in order."""
    fits, predictions = [], []
    fit_one, predict = fitting.fitted, fitting.predict

    def noted(material, settings, rows, seen):
        fits.append((settings.streams, rows, seen))
        return fit_one(material, settings, rows, seen)

    def predicted(run, material, rows):
        predictions.append(rows)
        return predict(run, material, rows)

    monkeypatch.setattr(fitting, "fitted", noted)
    monkeypatch.setattr(fitting, "predict", predicted)
    return fits, predictions


@pytest.mark.parametrize("named", [True, False])
def test_a_layer_is_chosen_among_training_clips_by_speaker(material, monkeypatch, named):
    if not named:
        material = Material(material.store, material.clips.assign(speaker=""))
    fits, predictions = _noted(monkeypatch)
    train = material.rows("train")
    with_chosen_layer(material, _settings("Ridge", streams=["encoder"]), train)
    assert [streams for streams, _, _ in fits] == [(f"encoder:{n}",) for n in range(3) for _ in range(3)]
    speakers = np.array([f"S{row % 8}" for row in range(80)])
    shared = []
    for (_, inside, seen), out in zip(fits, predictions, strict=True):
        assert sorted([*inside, *out]) == sorted(seen) == train.tolist()
        shared.append(bool(set(speakers[inside]) & set(speakers[out])))
    assert any(shared) != named
    # Every layer is tried on the same folds.
    for of_layer in (predictions[3:6], predictions[6:]):
        assert all(np.array_equal(a, b) for a, b in zip(of_layer, predictions[:3], strict=True))


@pytest.mark.parametrize("part", ["validation", "test"])
def test_no_other_labels_matter_to_the_layer(material, tmp_path, part):
    # Labels by which another layer would be chosen.
    rows = material.rows(part)
    noise = np.array([material.store.of(["encoder:0"])[int(row)][0, 0] for row in rows])
    clips = material.clips.copy()
    clips.loc[rows, "valence"] = 100 * noise
    _fit(Material(material.store, clips), tmp_path, _settings("Ridge", streams=["encoder"]))
    assert Run.load(tmp_path).streams == ("encoder:1",)


def test_the_layer_follows_the_labels(material):
    # Guards the tests above.
    rows = np.arange(80)
    clips = material.clips.assign(
        valence=[3 + float(material.store.of(["encoder:2"])[int(row)][0, 1]) for row in rows]
    )
    chosen = with_chosen_layer(
        Material(material.store, clips), _settings(streams=["encoder"]), material.rows("train")
    )
    assert chosen.streams == ("encoder:2",)
