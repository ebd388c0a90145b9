"""Changed clips are predicted from features of their changed waveforms, and scored by condition."""

import numpy as np
import pytest
import torch
from toy import FEATURES, Tones, make_training_data

from valence_lib.evaluation import metrics
from valence_lib.evaluation.robustness import CONDITIONS, RobustnessCheck, sample, scores_by_condition
from valence_lib.features.streams import ClipFeatures
from valence_lib.preprocess.splits import make_splits
from valence_lib.training.experiments import run_experiment
from valence_lib.training.one_step import predict as predict_by
from valence_lib.training.runs import load_run

RUNS = [("CNN", "default"), ("CNN", "speaker"), ("SVR", "speaker")]


@pytest.fixture(scope="module", params=RUNS, ids=["network", "network by speaker", "fitted by speaker"])
def tested(request, tmp_path_factory):
    """Training data, splits, folder and robustness check of a cross-validation of the toy corpus."""
    folder = tmp_path_factory.mktemp("run")
    training_data = make_training_data(tmp_path_factory.mktemp("features"))
    folds = make_splits(training_data.clips, "cv", 3, 0).splits
    model, preset = request.param
    run_experiment(
        training_data, folds, folder, torch.device("cpu"), model, preset, 0, progress=False, epochs=1
    )
    return training_data, folds, folder, RobustnessCheck(training_data, folds, folder, Tones())


def test_unchanged_clips_are_predicted_as_in_the_report(tested):
    training_data, folds, folder, check = tested
    found = check.predict(np.arange(80), CONDITIONS["as recorded"])
    for fold, subsets in folds.items():
        rows = np.flatnonzero(subsets == "test")
        expected = predict_by(load_run(folder / fold), training_data, rows)
        np.testing.assert_allclose(found[rows], expected, atol=1e-5)
    assert found.std() > 1e-3


def test_changed_clips_are_predicted_from_their_changed_waveforms(tested):
    _, folds, folder, check = tested
    rows = np.flatnonzero(folds["fold-1"] == "test")[[3, 0, 7]]

    def change(waveform, sample_rate, row):
        assert sample_rate == 8000
        return 0.1 * (row % 3 + 1) * waveform[::-1]

    run = load_run(folder / "fold-1")
    changed = [change(Tones().read(int(row)).waveform, 8000, row) for row in rows]
    source, speakers = ClipFeatures(changed, FEATURES), [f"S{row % 8}" for row in rows]
    expected = run.adapt(source, speakers).predict_features(source, speakers)
    np.testing.assert_allclose(check.predict(rows, change), expected, atol=1e-5)


def test_each_condition_has_a_prediction_per_clip(tested):
    *_, check = tested
    rows = np.arange(0, 80, 10)
    found = check.under_conditions(rows)
    assert list(found) == list(CONDITIONS) and len(found) == 9
    np.testing.assert_array_equal(found["as recorded"], check.predict(rows, CONDITIONS["as recorded"]))
    assert all(np.isfinite(values).all() and values.shape == (8,) for values in found.values())


def test_a_speakers_statistics_stay_those_of_whole_clips_under_occlusion(tested):
    _, folds, folder, check = tested
    row = int(np.flatnonzero(folds["fold-0"] == "test")[0])
    found = check.occlusion(row)
    whole = ClipFeatures([Tones().read(row).waveform], FEATURES)
    expected = load_run(folder / "fold-0").predict_features(whole, [f"S{row % 8}"])[0]
    assert found.prediction == pytest.approx(expected, abs=1e-5)
    assert found.change.shape == (12, 8)
    assert np.isfinite(found.change).all()


def test_of_many_clips_a_sample_is_perturbed():
    few = np.array([4, 2, 9])
    assert sample(few) is few
    many = sample(np.arange(2000))
    assert len(set(many)) == 500 and list(many) == sorted(many)


def test_conditions_are_compared_with_the_first():
    generator = np.random.default_rng(0)
    truth, speaker = generator.normal(3, 0.8, 360), np.repeat(np.arange(12), 30)
    own = 3 + 0.6 * (truth - 3) + generator.normal(0, 0.4, 360)
    noisy = own + generator.normal(0, 0.5, 360)
    found = scores_by_condition(truth, {"as recorded": own, "noise": noisy, "same": own.copy()}, speaker)
    assert list(found["condition"]) == ["as recorded"] * 2 + ["noise"] * 2 + ["same"] * 2
    first, _, noise, noise_ccc, same, _ = found.to_dict("records")
    assert first["score"] == pytest.approx(metrics.mse(truth, own))
    assert first["low"] < first["score"] < first["high"]
    assert first["verdict"] == "" and np.isnan(first["difference"])
    assert noise["difference"] == pytest.approx(metrics.mse(truth, noisy) - metrics.mse(truth, own))
    assert noise["difference_low"] < noise["difference"] < noise["difference_high"]
    assert (noise["verdict"], noise_ccc["verdict"], same["verdict"]) == ("worse", "worse", "tie")
    assert noise_ccc["difference"] < 0
    assert same["difference"] == same["difference_low"] == same["difference_high"] == 0
