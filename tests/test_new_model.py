"""A new model is one class and one line of the registry, as in ARCHITECTURE.md; its name does the rest."""

import numpy as np
import pandas as pd
import pytest
import torch
from test_leakage import write_leakage
from torch import nn
from toy import FEATURES, Tones, make_clips, make_material

from valence_lib import registry, report, tables
from valence_lib.experiments import predict_held_out, run_experiment
from valence_lib.jobs import Request
from valence_lib.models import lstm1
from valence_lib.protocols import divide
from valence_lib.registry import Model
from valence_lib.results import collect_results
from valence_lib.runs import load_run
from valence_lib.settings import CorpusSettings
from valence_lib.streams import ClipFeatures


class MeanPool(nn.Module):
    """Average the frames, then one linear layer."""

    def __init__(self, n_mels: int = 128):
        super().__init__()
        self.linear = nn.Linear(n_mels, 1)

    def forward(self, log_mel, lengths):
        """As `valence_lib.models` says."""
        own = torch.arange(log_mel.shape[1]) < lengths[:, None]
        return self.linear((log_mel * own[:, :, None]).sum(1) / lengths[:, None])[:, 0]


class Mean(nn.Module):
    """A model that is fitted: a clip's valence is the mean of those that it is fitted to."""

    def __init__(self, widths=(128,)):
        super().__init__()
        assert list(widths) == [5 * FEATURES.n_mels]
        self.register_buffer("mean", torch.zeros(()))

    def fit(self, vectors, truth, speakers):
        """As `valence_lib.models` says."""
        assert len(vectors) == len(truth) == len(speakers)
        self.mean = torch.tensor(truth.mean(), dtype=torch.float32)

    def forward(self, rows, lengths):
        """As `valence_lib.models` says."""
        return self.mean.expand(len(rows))


@pytest.fixture
def new_models(monkeypatch):
    """One class and one line each."""
    monkeypatch.setattr(lstm1, "MeanPool", MeanPool, raising=False)
    monkeypatch.setattr(lstm1, "Mean", Mean, raising=False)
    monkeypatch.setitem(
        registry.MODELS, "MeanPool", Model("valence_lib.models.lstm1:MeanPool", {"learning_rate": 0.03})
    )
    monkeypatch.setitem(
        registry.MODELS,
        "Mean",
        Model("valence_lib.models.lstm1:Mean", {"streams": ("log_mel_statistics",)}, fitted=True),
    )


@pytest.mark.usefixtures("new_models")
@pytest.mark.parametrize("preset", ["default", "best"])
def test_every_report_trains_it(preset):
    runs = Request(preset=preset, seeds=2, seed=4).runs()
    own = {name: run for name, run in runs.items() if run["model"] in ("MeanPool", "Mean")}
    assert own == {
        "MeanPool-default-4": {"model": "MeanPool", "preset": "default", "seed": 4},
        "MeanPool-default-5": {"model": "MeanPool", "preset": "default", "seed": 5},
        "Mean-default-4": {"model": "Mean", "preset": "default", "seed": 4},
    }
    without = dict.fromkeys(name for name in runs if name not in own)
    assert list(without) == [name for name in runs if name not in own]


@pytest.mark.usefixtures("new_models")
@pytest.mark.parametrize("protocol", ["holdout", "cv"])
def test_it_is_trained_and_has_its_row(tmp_path, protocol):
    folder = tmp_path / "reports" / "tones"
    clips = make_clips(tmp_path / "features")
    split = divide(clips, protocol, 3, 0)
    clips = clips.assign(part=split.part)
    quarantine = clips.iloc[:0][["index", "id", "part"]].assign(reason="", message="", twin="")
    given = [""] * len(clips)
    near = pd.DataFrame(columns=["first", "second", "similarity"])
    report.save_preprocessed(
        folder, Tones(), clips, quarantine, near, given, split, CorpusSettings(), FEATURES
    )
    material = make_material(tmp_path / "features", clips)
    runs = ["MeanPool-default-0", "Mean-default-0"]
    for run in runs:
        model, preset, seed = run.split("-")
        place = folder / "runs" / run
        run_experiment(
            material,
            split.divisions,
            place,
            torch.device("cpu"),
            model,
            preset,
            int(seed),
            progress=False,
            epochs=40,
        )
        report.save_frame(place / "predictions.csv", predict_held_out(material, split.divisions, place))
    write_leakage(folder / "leakage", {"speaker": "too few speakers"})
    results, seconds = collect_results(folder, runs)
    rows = {(row["model"], row["part"]): row for row in results["rows"]}
    tested = "test" if protocol == "holdout" else "out_of_fold"
    # The run is fitted to training and validation clips, its predictions of these to the training clips alone.
    assert rows["Mean", "validation"]["mse"] == pytest.approx(rows["mean", "validation"]["mse"], abs=1e-5)
    parts = split.divisions.values()
    known = [clips["valence"][np.isin(part, ["train", "validation"])] for part in parts]
    found = report.load_frame(folder / "runs" / "Mean-default-0" / "predictions.csv")
    own = found[found["part"] == tested]["prediction"].unique()
    np.testing.assert_allclose(sorted(own), sorted(ratings.mean() for ratings in known), rtol=1e-6)
    for part in ("validation", tested):
        assert rows["MeanPool", part]["mse"] < rows["mean", part]["mse"]
        assert rows["MeanPool", part]["parameters"] == FEATURES.n_mels + 1
    assert results["chosen"]["model"] == "MeanPool"
    assert {title.partition(",")[0] for title in seconds} == {"MeanPool", "Mean"}
    for table in (tables.table_2(results), tables.tested_table(results)):
        assert "MeanPool" in table.to_string()
    waveforms = [clip.waveform for clip in Tones()][:5]
    predicted = load_run(folder / "runs" / runs[0]).predict(ClipFeatures(waveforms, FEATURES), [""] * 5)
    assert np.isfinite(predicted).all()
