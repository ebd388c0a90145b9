"""Changed clips are predicted by the training that tests them, from features of the changed waveforms."""

import numpy as np
import pytest
import torch
from toy import FEATURES, Tones, make_material

from valence_lib.experiments import run_experiment
from valence_lib.fitting import predict as predict_by
from valence_lib.listening import AS_RECORDED, Listener
from valence_lib.perturbing import PERTURBATIONS
from valence_lib.protocols import divide
from valence_lib.runs import Run, load_run
from valence_lib.streams import ClipFeatures

RUNS = [("CNN", "default"), ("CNN", "speaker"), ("SVR", "speaker")]


@pytest.fixture(scope="module", params=RUNS, ids=["network", "network by speaker", "fitted by speaker"])
def listener(request, tmp_path_factory):
    """A cross-validation of the toy corpus: its material, its divisions, its folder and its listener."""
    folder = tmp_path_factory.mktemp("run")
    material = make_material(tmp_path_factory.mktemp("features"))
    folds = divide(material.clips, "cv", 3, 0).divisions
    model, preset = request.param
    run_experiment(material, folds, folder, torch.device("cpu"), model, preset, 0, progress=False, epochs=1)
    return material, folds, folder, Listener(material, folds, folder, Tones())


def _unchanged(row, waveform):
    return waveform


def test_unchanged_clips_are_predicted_as_in_the_report(listener):
    material, folds, folder, of_run = listener
    found = of_run.predict(np.arange(80), _unchanged)
    for fold, parts in folds.items():
        rows = np.flatnonzero(parts == "test")
        assert of_run.run_of(rows[0]).training == Run.load(folder / fold).training
        np.testing.assert_allclose(
            found[rows], predict_by(load_run(folder / fold), material, rows), atol=1e-5
        )
    assert found.std() > 1e-3


def test_changed_clips_are_predicted_from_their_changed_waveforms(listener):
    _, folds, folder, of_run = listener
    rows = np.flatnonzero(folds["fold-1"] == "test")[[3, 0, 7]]
    found = of_run.predict(rows, lambda row, waveform: 0.1 * (row % 3 + 1) * waveform[::-1])
    run, corpus = Run.load(folder / "fold-1"), Tones()
    changed = [0.1 * (row % 3 + 1) * corpus.read(int(row)).waveform[::-1] for row in rows]
    source, speakers = ClipFeatures(changed, FEATURES), [f"S{row % 8}" for row in rows]
    expected = run.adapt(source, speakers).predict(source, speakers)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_each_condition_has_a_prediction_a_clip(listener):
    *_, of_run = listener
    rows = np.arange(0, 80, 10)
    found = of_run.under_conditions(rows)
    assert list(found) == [AS_RECORDED, *PERTURBATIONS]
    np.testing.assert_array_equal(found[AS_RECORDED], of_run.predict(rows, _unchanged))
    assert all(np.isfinite(values).all() and values.shape == (8,) for values in found.values())


def test_a_speakers_statistics_stay_those_of_whole_clips_under_occlusion(listener):
    _, folds, folder, of_run = listener
    row = int(np.flatnonzero(folds["fold-0"] == "test")[0])
    run = Run.load(folder / "fold-0")
    found = of_run.occlusion(row)
    whole = ClipFeatures([Tones().read(row).waveform], FEATURES)
    assert found.prediction == pytest.approx(run.predict(whole, [f"S{row % 8}"])[0], abs=1e-5)
    assert found.change.shape == (12, 8)
    assert np.isfinite(found.change).all()
