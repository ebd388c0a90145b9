"""Experiments: each split is one training, which predicts its clips; no test label reaches a weight."""

import numpy as np
import pandas as pd
import pytest
import torch
from toy import FEATURES, Tones, make_clips, make_training_data

from valence_lib.preprocess.splits import OUT_OF_FOLD, make_splits
from valence_lib.preprocess.store import store_streams
from valence_lib.registry import training_settings
from valence_lib.training import loop, one_step
from valence_lib.training.experiments import predict_held_out, run_experiment
from valence_lib.training.loop import TrainingData
from valence_lib.training.one_step import fitted
from valence_lib.training.one_step import predict as predict_by
from valence_lib.training.runs import Ensemble, load_run

CPU = torch.device("cpu")
N_FOLDS = 3
NETWORK = ("LSTM2", {"epochs": 2, "streams": ["pitch", "log_mel"]})
PROCESS = ("GaussianProcess", {"streams": ["voice_statistics", "log_mel_statistics"]})
EXPERIMENTS = [
    NETWORK,
    ("CNN", {"epochs": 2, "preset": "speaker"}),
    PROCESS,
    ("Ridge", {"preset": "speaker"}),
]
every_experiment = pytest.mark.parametrize(
    ("model", "changes"), EXPERIMENTS, ids=["network", "network by speaker", "fitted", "fitted by speaker"]
)


@pytest.fixture(scope="module")
def training_data(tmp_path_factory):
    """The toy corpus, with two clips that have no rating."""
    folder = tmp_path_factory.mktemp("features")
    clips = make_clips(folder)
    store_streams(folder, Tones(), clips, ["pitch", "voice_statistics"], FEATURES, 1, progress=False)
    clips.loc[[5, 41], "rating"] = np.nan
    return make_training_data(folder, clips)


@pytest.fixture(scope="module")
def folds(training_data):
    return make_splits(training_data.clips, "cv", N_FOLDS, 0).splits


@pytest.fixture(scope="module")
def holdout(training_data):
    return make_splits(training_data.clips, "holdout", N_FOLDS, 0).splits


def _run(training_data, splits, folder, model, **changes):
    preset = changes.pop("preset", "default")
    return run_experiment(training_data, splits, folder, CPU, model, preset, 0, progress=False, **changes)


@pytest.fixture(scope="module", params=[NETWORK, PROCESS], ids=["network", "fitted"])
def validated(request, training_data, folds, tmp_path_factory):
    """A cross-validation: its model, changes of its settings, its folder and its history."""
    model, changes = request.param
    folder = tmp_path_factory.mktemp(model)
    return model, changes, folder, _run(training_data, folds, folder, model, **changes)


def _weights(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("best.safetensors")
    }


def _predict(training_data, run, rows):
    """Predictions of some rows, read from the store."""
    return predict_by(run, training_data, np.asarray(rows))


def test_a_cross_validation_is_one_training_a_fold(validated, folds, training_data):
    model, changes, folder, history = validated
    assert set(_weights(folder)) == {f"{fold}/best.safetensors" for fold in folds}
    epochs = changes.get("epochs", 1)
    assert history["fold"].tolist() == [fold for fold in folds for _ in range(epochs)]
    assert list(history)[:4] == ["epoch", "learning_rate", "training_mse", "validation_mse"]
    run = load_run(folder)
    assert isinstance(run, Ensemble)
    assert len(run.members) == N_FOLDS
    for fold, member in zip(folds, run.members, strict=True):
        own = load_run(folder / fold)
        assert own.training == member.training == training_settings(model, "default", 0, **changes)


def test_what_is_finished_is_not_trained_again(training_data, folds, validated, monkeypatch):
    model, changes, folder, history = validated
    monkeypatch.setattr(loop._Loop, "run_epoch", None)
    monkeypatch.setattr(one_step, "fitted", None)
    pd.testing.assert_frame_equal(_run(training_data, folds, folder, model, **changes), history)


def test_the_names_of_folds_are_printed(training_data, folds, tmp_path, capsys):
    run_experiment(training_data, folds, tmp_path, CPU, "Ridge", "default", 0)
    lines = capsys.readouterr().out.splitlines()
    assert lines[::2] == list(folds)
    assert all(line.startswith("fitted   training MSE ") for line in lines[1::2])
    assert len(lines) == 2 * N_FOLDS


def test_each_rated_clip_is_predicted_once_by_the_fold_that_tests_it(training_data, folds, validated):
    folder = validated[2]
    held_out = predict_held_out(training_data, folds, folder)
    columns = ["id", "subset", "fold", "speaker", "duration_seconds", "truth", "prediction"]
    assert list(held_out) == columns
    assert held_out["prediction"].notna().all()
    rated = training_data.clips[training_data.clips["rating"].notna()].set_index("id")
    for subset in (OUT_OF_FOLD, "validation"):
        found = held_out[held_out["subset"] == subset].set_index("id")
        assert sorted(found.index) == sorted(rated.index)
        assert found["truth"].equals(rated["rating"].loc[found.index].rename("truth"))
    tested = held_out[held_out["subset"] == OUT_OF_FOLD]
    for fold, subsets in folds.items():
        of_fold = tested[tested["fold"] == fold.removeprefix("fold-")]
        rows = np.flatnonzero(subsets == "test")
        assert of_fold["id"].tolist() == training_data.clips["id"].iloc[rows].tolist()
        expected = _predict(training_data, load_run(folder / fold), rows)
        np.testing.assert_allclose(of_fold["prediction"], expected, atol=1e-5)


def test_validation_clips_are_predicted_by_a_training_without_them(training_data, folds, validated):
    model, changes, folder, _ = validated
    held_out = predict_held_out(training_data, folds, folder)
    of_validation = held_out[held_out["subset"] == "validation"]
    settings = training_settings(model, "default", 0, **changes)
    for fold, subsets in folds.items():
        rows = np.flatnonzero(subsets == "validation")
        run = load_run(folder / fold)
        if model == "GaussianProcess":
            run = fitted(training_data, settings, np.flatnonzero(subsets == "train"), np.arange(80))
        of_fold = of_validation[of_validation["fold"] == fold.removeprefix("fold-")]
        assert of_fold["id"].tolist() == training_data.clips["id"].iloc[rows].tolist()
        np.testing.assert_allclose(of_fold["prediction"], _predict(training_data, run, rows), atol=1e-5)


def test_an_unlabelled_clip_has_the_mean_of_all_folds(training_data, folds, validated):
    held_out = predict_held_out(training_data, folds, validated[2])
    found = held_out[held_out["subset"] == "unlabelled"]
    assert found["id"].tolist() == training_data.clips["id"].iloc[[5, 41]].tolist()
    assert (found["fold"] == "").all()
    assert found["truth"].isna().all()
    folds_alone = [_predict(training_data, load_run(validated[2] / fold), [5, 41]) for fold in folds]
    expected = _predict(training_data, load_run(validated[2]), [5, 41])
    np.testing.assert_allclose(expected, np.mean(folds_alone, axis=0), atol=1e-6)
    # The last digits of a network depend on the other clips of a batch.
    np.testing.assert_allclose(found["prediction"], expected, atol=1e-5)


@every_experiment
def test_a_holdout_is_one_training_and_keeps_the_names_of_its_subsets(
    training_data, holdout, tmp_path, model, changes
):
    history = _run(training_data, holdout, tmp_path, model, **changes)
    assert set(_weights(tmp_path)) == {"best.safetensors"}
    assert set(history["fold"]) == {""}
    assert (tmp_path / "validation.csv").is_file() == ("epochs" not in changes)
    held_out = predict_held_out(training_data, holdout, tmp_path)
    subsets = holdout[""]
    sizes = {subset: int((subsets == subset).sum()) for subset in ("test", "validation", "unlabelled")}
    assert held_out["subset"].value_counts().to_dict() == sizes
    assert (held_out["fold"] == "").all()
    rows = np.flatnonzero(np.isin(subsets, ["test", "unlabelled"]))
    predicted = _predict(training_data, load_run(tmp_path), rows)
    expected = dict(zip(training_data.clips["id"].iloc[rows], predicted, strict=True))
    tested = held_out[held_out["subset"] != "validation"].set_index("id")["prediction"]
    np.testing.assert_allclose(tested, [expected[name] for name in tested.index], atol=1e-5)


def _poisoned(training_data, rows):
    """The same clips with random labels for some."""
    clips = training_data.clips.copy()
    clips.loc[rows, "rating"] = np.random.default_rng(1).uniform(-1000, 1000, len(rows))
    return TrainingData(training_data.store, clips)


@every_experiment
def test_poisoned_test_labels_change_no_byte_of_any_fold(training_data, folds, tmp_path, model, changes):
    _run(training_data, folds, tmp_path / "clean", model, **changes)
    clean = _weights(tmp_path / "clean")
    assert len(clean) == N_FOLDS
    for fold, subsets in folds.items():
        poisoned = _poisoned(training_data, np.flatnonzero(subsets == "test"))
        assert poisoned.digest() != training_data.digest()
        _run(poisoned, {fold: subsets}, tmp_path / "poisoned", model, **changes)
        for name in ("history.csv", "validation.csv") if "epochs" not in changes else ("history.csv",):
            found, expected = (tmp_path / kind / fold / name for kind in ("poisoned", "clean"))
            assert found.read_bytes() == expected.read_bytes()
    assert _weights(tmp_path / "poisoned") == clean
