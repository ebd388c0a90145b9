"""Experiments: folds are the trainings that they say they are, and no test label reaches a weight."""

import numpy as np
import pandas as pd
import pytest
import torch
from toy import FEATURES, Tones, make_clips, make_material

from valence_lib.errors import SettingsError
from valence_lib.experiments import predict_held_out, run_experiment
from valence_lib.fitting import fit, fitted
from valence_lib.fitting import predict as predict_by
from valence_lib.protocols import OUT_OF_FOLD, divide
from valence_lib.registry import training_settings
from valence_lib.runs import Ensemble, Run, load_run
from valence_lib.store import store_streams
from valence_lib.training import Material, train

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
def material(tmp_path_factory):
    """The toy corpus, of which some clips have no rating."""
    folder = tmp_path_factory.mktemp("features")
    clips = make_clips(folder)
    store_streams(folder, Tones(), clips, ["pitch", "voice_statistics"], FEATURES, 1, progress=False)
    clips.loc[[5, 41], "valence"] = np.nan
    return make_material(folder, clips)


@pytest.fixture(scope="module")
def folds(material):
    return divide(material.clips, "cv", N_FOLDS, 0).divisions


@pytest.fixture(scope="module")
def holdout(material):
    return divide(material.clips, "holdout", N_FOLDS, 0).divisions


def _run(material, divisions, folder, model, **changes):
    preset = changes.pop("preset", "default")
    return run_experiment(material, divisions, folder, CPU, model, preset, 0, progress=False, **changes)


@pytest.fixture(scope="module", params=[NETWORK, PROCESS], ids=["network", "fitted"])
def validated(request, material, folds, tmp_path_factory):
    """A cross-validation: its model, changes of its settings, its folder and its history."""
    model, changes = request.param
    folder = tmp_path_factory.mktemp(model)
    return model, changes, folder, _run(material, folds, folder, model, **changes)


def _weights(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("best.safetensors")
    }


def _predict(material, run, rows):
    """What a run predicts for some rows, read from the store."""
    return predict_by(run, material, np.asarray(rows))


# Where the trainings are


def test_a_cross_validation_is_one_training_a_fold(validated, folds, material):
    model, changes, folder, history = validated
    assert set(_weights(folder)) == {f"{fold}/best.safetensors" for fold in folds}
    epochs = changes.get("epochs", 1)
    assert history["fold"].tolist() == [fold for fold in folds for _ in range(epochs)]
    assert list(history)[:4] == ["epoch", "learning_rate", "training_mse", "validation_mse"]
    run = load_run(folder)
    assert isinstance(run, Ensemble)
    assert len(run.members) == N_FOLDS
    for fold, member in zip(folds, run.members, strict=True):
        own = Run.load(folder / fold)
        assert own.training == member.training == training_settings(model, "default", 0, **changes)


def test_what_is_finished_is_not_done_again(material, folds, validated, fingerprint):
    model, changes, folder, history = validated
    before = {name: entry for name, entry in fingerprint(folder).items() if "safetensors" in name}
    again = _run(material, folds, folder, model, **changes)
    after = fingerprint(folder)
    assert {name: after[name] for name in before} == before
    pd.testing.assert_frame_equal(again, history)


def test_each_fold_is_the_training_on_its_parts(material, folds, validated, tmp_path):
    model, changes, folder, _ = validated
    settings = training_settings(model, "default", 0, **changes)
    for fold, parts in folds.items():
        divided = material.divided(parts)
        if model == "GaussianProcess":
            fit(divided, settings, tmp_path / fold, progress=False)
        else:
            train(divided, settings, tmp_path / fold, CPU, progress=False)
    assert _weights(tmp_path) == _weights(folder)


def test_the_names_of_folds_are_printed(material, folds, holdout, tmp_path, capsys):
    given = (material, folds, tmp_path / "cv", CPU, "Ridge", "default", 0)
    run_experiment(*given)
    lines = capsys.readouterr().out.splitlines()
    assert lines[::2] == list(folds)
    assert all(line.startswith("fitted   training MSE ") for line in lines[1::2])
    assert len(lines) == 2 * N_FOLDS


# Predictions


def test_each_rated_clip_is_predicted_once_by_the_fold_that_tests_it(material, folds, validated):
    folder = validated[2]
    held_out = predict_held_out(material, folds, folder)
    columns = ["id", "part", "fold", "speaker", "duration_seconds", "truth", "prediction"]
    assert list(held_out) == columns
    assert held_out["prediction"].notna().all()
    rated = material.clips[material.clips["valence"].notna()].set_index("id")
    for part in (OUT_OF_FOLD, "validation"):
        found = held_out[held_out["part"] == part].set_index("id")
        assert sorted(found.index) == sorted(rated.index)
        assert found["truth"].equals(rated["valence"].loc[found.index].rename("truth"))
    tested = held_out[held_out["part"] == OUT_OF_FOLD]
    for fold, parts in folds.items():
        of_fold = tested[tested["fold"] == fold.removeprefix("fold-")]
        rows = np.flatnonzero(parts == "test")
        assert of_fold["id"].tolist() == material.clips["id"].iloc[rows].tolist()
        expected = _predict(material, load_run(folder / fold), rows)
        np.testing.assert_allclose(of_fold["prediction"], expected, atol=1e-5)


def test_validation_clips_are_predicted_by_a_training_without_them(material, folds, validated):
    model, changes, folder, _ = validated
    held_out = predict_held_out(material, folds, folder)
    of_validation = held_out[held_out["part"] == "validation"]
    settings = training_settings(model, "default", 0, **changes)
    for fold, parts in folds.items():
        rows = np.flatnonzero(parts == "validation")
        run = Run.load(folder / fold)
        if model == "GaussianProcess":
            run = fitted(material, settings, np.flatnonzero(parts == "train"), np.arange(80))
        of_fold = of_validation[of_validation["fold"] == fold.removeprefix("fold-")]
        assert of_fold["id"].tolist() == material.clips["id"].iloc[rows].tolist()
        np.testing.assert_allclose(of_fold["prediction"], _predict(material, run, rows), atol=1e-5)


def test_an_unlabelled_clip_has_the_mean_of_all_folds(material, folds, validated):
    held_out = predict_held_out(material, folds, validated[2])
    found = held_out[held_out["part"] == "unlabelled"]
    assert found["id"].tolist() == material.clips["id"].iloc[[5, 41]].tolist()
    assert (found["fold"] == "").all()
    assert found["truth"].isna().all()
    folds_alone = [_predict(material, Run.load(validated[2] / fold), [5, 41]) for fold in folds]
    expected = _predict(material, load_run(validated[2]), [5, 41])
    np.testing.assert_allclose(expected, np.mean(folds_alone, axis=0), atol=1e-6)
    # Beside the clips that each fold tests, by whose batches the last digits of a network depend.
    np.testing.assert_allclose(found["prediction"], expected, atol=1e-5)


@every_experiment
def test_a_holdout_is_one_training_and_keeps_the_names_of_its_parts(
    material, holdout, tmp_path, model, changes
):
    history = _run(material, holdout, tmp_path, model, **changes)
    assert set(_weights(tmp_path)) == {"best.safetensors"}
    assert set(history["fold"]) == {""}
    assert (tmp_path / "validation.csv").is_file() == ("epochs" not in changes)
    held_out = predict_held_out(material, holdout, tmp_path)
    parts = holdout[""]
    sizes = {part: int((parts == part).sum()) for part in ("test", "validation", "unlabelled")}
    assert held_out["part"].value_counts().to_dict() == sizes
    assert (held_out["fold"] == "").all()
    rows = np.flatnonzero(np.isin(parts, ["test", "unlabelled"]))
    predicted = _predict(material, load_run(tmp_path), rows)
    expected = dict(zip(material.clips["id"].iloc[rows], predicted, strict=True))
    tested = held_out[held_out["part"] != "validation"].set_index("id")["prediction"]
    np.testing.assert_allclose(tested, [expected[name] for name in tested.index], atol=1e-5)


# Labels that must not matter


def _poisoned(material, rows):
    """The same clips, of which some have nonsense for labels."""
    clips = material.clips.copy()
    clips.loc[rows, "valence"] = np.random.default_rng(1).uniform(-1000, 1000, len(rows))
    return Material(material.store, clips)


@every_experiment
def test_poisoned_test_labels_change_no_byte_of_any_fold(material, folds, tmp_path, model, changes):
    _run(material, folds, tmp_path / "clean", model, **changes)
    clean = _weights(tmp_path / "clean")
    assert len(clean) == N_FOLDS
    for fold, parts in folds.items():
        poisoned = _poisoned(material, np.flatnonzero(parts == "test"))
        assert poisoned.digest() != material.digest()
        _run(poisoned, {fold: parts}, tmp_path / "poisoned", model, **changes)
        for name in ("history.csv", "validation.csv") if "epochs" not in changes else ("history.csv",):
            found, expected = (tmp_path / kind / fold / name for kind in ("poisoned", "clean"))
            assert found.read_bytes() == expected.read_bytes()
    assert _weights(tmp_path / "poisoned") == clean


# Names


def test_what_cannot_be_trained_is_refused_before_anything_is_written(material, holdout, tmp_path):
    with pytest.raises(SettingsError, match="but SVR takes one row a clip"):
        _run(material, holdout, tmp_path, "SVR", streams=["pitch"])
    assert not list(tmp_path.iterdir())
