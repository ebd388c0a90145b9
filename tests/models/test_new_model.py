"""A new model is one class and one line of the registry; reports then train it, and it predicts."""

import numpy as np
import pytest
import torch
from torch import nn
from toy import FEATURES, Tones, make_clips, make_training_data

from valence_lib import registry
from valence_lib.models import lstm1
from valence_lib.models.contract import OneStepModel, ValenceModel, own_frames
from valence_lib.preprocess.splits import OUT_OF_FOLD, make_splits
from valence_lib.registry import Model
from valence_lib.training.experiments import predict_held_out, run_experiment
from valence_lib.training.runs import load_run
from valence_lib.workflow.request import Request


class MeanPool(ValenceModel):
    """The mean over frames, then one linear layer."""

    def __init__(self, n_mels):
        super().__init__()
        self.linear = nn.Linear(n_mels, 1)

    def forward(self, frames, lengths):
        """See `ValenceModel.forward`."""
        lengths = lengths.to(frames.device)
        own = own_frames(frames.shape[1], lengths)
        return self.linear((frames * own[:, :, None]).sum(1) / lengths[:, None])[:, 0]


class Mean(OneStepModel):
    """The mean of the ratings to which it is fitted."""

    def __init__(self, widths):
        super().__init__()
        assert list(widths) == [5 * FEATURES.n_mels]
        self.register_buffer("mean", torch.zeros(()))

    def fit(self, vectors, truth, speakers):
        """See `OneStepModel.fit`."""
        assert len(vectors) == len(truth) == len(speakers)
        self._set(mean=truth.mean())

    def forward(self, frames, lengths):
        """See `ValenceModel.forward`."""
        return self.mean.expand(len(frames))


@pytest.fixture(autouse=True)
def new_models(monkeypatch):
    """One class and one line each."""
    recipes = {"MeanPool": {"learning_rate": 0.03}, "Mean": {"streams": ("log_mel_statistics",)}}
    for model in (MeanPool, Mean):
        name = model.__name__
        monkeypatch.setattr(lstm1, name, model, raising=False)
        line = Model(f"valence_lib.models.lstm1:{name}", recipes[name], fitted=model is Mean)
        monkeypatch.setitem(registry.MODELS, name, line)


@pytest.mark.parametrize("preset", ["default", "best"])
def test_every_report_trains_it(preset):
    runs = Request(preset=preset, seeds=2, seed=4).runs()
    assert {name: run for name, run in runs.items() if run["model"] in ("MeanPool", "Mean")} == {
        "MeanPool-default-4": {"model": "MeanPool", "preset": "default", "seed": 4},
        "MeanPool-default-5": {"model": "MeanPool", "preset": "default", "seed": 5},
        "Mean-default-4": {"model": "Mean", "preset": "default", "seed": 4},
    }


@pytest.mark.parametrize("protocol", ["holdout", "cv"])
def test_it_is_trained_and_predicts(tmp_path, protocol):
    clips = make_clips(tmp_path / "features")
    training_data = make_training_data(tmp_path / "features", clips)
    splits = make_splits(clips, protocol, 3, 0).splits
    tested = "test" if protocol == "holdout" else OUT_OF_FOLD
    mse = {}
    for model in ("MeanPool", "Mean"):
        folder = tmp_path / model
        changes = {"epochs": 40} if model == "MeanPool" else {}
        run_experiment(
            training_data, splits, folder, torch.device("cpu"), model, "default", 0, progress=False, **changes
        )
        held_out = predict_held_out(training_data, splits, folder)
        found = held_out[held_out["subset"] == tested]
        mse[model] = ((found["prediction"] - found["truth"]) ** 2).mean()
    known = [clips["rating"][np.isin(subsets, ["train", "validation"])] for subsets in splits.values()]
    means = sorted(ratings.mean() for ratings in known)
    np.testing.assert_allclose(sorted(found["prediction"].unique()), means, rtol=1e-6)
    assert mse["MeanPool"] < mse["Mean"]
    assert np.isfinite(load_run(tmp_path / "MeanPool").predict(Tones()[0].waveform))
