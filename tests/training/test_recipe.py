"""Scores of the best model on EmoTale in six folds by speaker, also with shuffled encoder weights."""

from pathlib import Path

import numpy as np
import pytest
import torch

from valence_lib.corpora.opening import open_corpus
from valence_lib.evaluation.metrics import METRICS
from valence_lib.features import speaker_encoder
from valence_lib.preprocess.inspection import inspect_corpus
from valence_lib.preprocess.splits import OUT_OF_FOLD, make_splits
from valence_lib.preprocess.store import FeatureStore, store_streams
from valence_lib.registry import missing_packages
from valence_lib.settings import CorpusSettings, FeatureSettings
from valence_lib.training.experiments import predict_held_out, run_experiment
from valence_lib.training.loop import TrainingData

EMOTALE = Path(__file__).parents[3] / "shared" / "data" / "emotale"
STREAMS = ["voice_statistics", "speaker_encoder"]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not EMOTALE.is_dir(), reason="the EmoTale corpus (../shared/data) is not here"),
    pytest.mark.skipif(
        bool(missing_packages(STREAMS)), reason="the weights are not installed (make encoder)"
    ),
]


def _scores(
    folder: Path, preset: str, stored: list[str], workers: int, **changes: object
) -> dict[str, float]:
    """MSE and CCC of all clips of EmoTale, each predicted by the fold that tests it."""
    corpus, features = open_corpus(EMOTALE), FeatureSettings()
    clips = inspect_corpus(corpus, CorpusSettings(), features, folder, progress=False).clips
    store_streams(folder, corpus, clips, stored, features, workers=workers, progress=False)
    split = make_splits(clips, "cv", 6, 0)
    training_data = TrainingData(FeatureStore(folder, clips, features), clips.assign(subset=split.subset))
    run, device = folder / preset, torch.device("cpu")
    run_experiment(
        training_data, split.splits, run, device, "GaussianProcess", preset, 0, progress=False, **changes
    )
    held_out = predict_held_out(training_data, split.splits, run)
    tested = held_out[held_out["subset"] == OUT_OF_FOLD]
    assert len(tested) == 800
    return {name: METRICS[name](tested["truth"], tested["prediction"]) for name in ("mse", "ccc")}


def test_the_recipe_reaches_its_floors(tmp_path: Path):
    as_is, by_speaker = (_scores(tmp_path, preset, STREAMS, 2) for preset in ("default", "speaker"))
    print(f"\nas is {as_is}, by speaker {by_speaker}")
    assert as_is["mse"] <= 0.43 and as_is["ccc"] >= 0.62
    assert by_speaker["mse"] <= 0.35 and by_speaker["ccc"] >= 0.675


def test_shuffled_encoder_weights_predict_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    network, generator = speaker_encoder._network(), np.random.default_rng(0)
    shuffled = torch.nn.LSTM(network.input_size, network.hidden_size, network.num_layers, batch_first=True)
    shuffled.load_state_dict(
        {
            name: torch.from_numpy(generator.permutation(weights.numpy().ravel()).reshape(weights.shape))
            for name, weights in network.state_dict().items()
        }
    )
    monkeypatch.setattr(speaker_encoder, "_network", lambda: shuffled.eval())
    # One worker is this process, which has the shuffled weights.
    control = _scores(tmp_path, "default", ["speaker_encoder"], 1, streams=("speaker_encoder",))
    print(f"\nshuffled weights {control}")
    assert control["ccc"] < 0.25
