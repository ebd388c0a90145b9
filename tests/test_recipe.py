"""The recipe of the best model on EmoTale, in six folds by speaker; and what is left of it with shuffled weights."""

from pathlib import Path

import numpy as np
import pytest
import torch

from valence_lib import speaker_encoder as module
from valence_lib.corpora import open_corpus
from valence_lib.experiments import predict_held_out, run_experiment
from valence_lib.inspection import inspect_corpus
from valence_lib.metrics import METRICS
from valence_lib.protocols import OUT_OF_FOLD, divide
from valence_lib.registry import missing_packages
from valence_lib.settings import CorpusSettings, FeatureSettings
from valence_lib.store import FeatureStore, store_streams
from valence_lib.training import Material

EMOTALE = Path(__file__).parents[2] / "shared" / "data" / "emotale"
STREAMS = ["voice_statistics", "speaker_encoder"]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not EMOTALE.is_dir(), reason="the EmoTale corpus (../shared/data) is not here"),
    pytest.mark.skipif(
        bool(missing_packages(STREAMS)), reason="the weights are not installed (make encoder)"
    ),
]


def _scores(folder: Path, preset: str, stored: list[str], **changes: object) -> dict[str, float]:
    """MSE and CCC of all clips of EmoTale, each predicted by the fold that tests it."""
    corpus, features = open_corpus(EMOTALE), FeatureSettings()
    clips = inspect_corpus(corpus, CorpusSettings(), features, folder, progress=False).clips
    # In this process, where a test may have exchanged the encoder's weights.
    store_streams(folder, corpus, clips, stored, features, workers=1, progress=False)
    split = divide(clips, "cv", 6, 0)
    material = Material(FeatureStore(folder, clips, features), clips.assign(part=split.part))
    run, device = folder / "runs" / preset, torch.device("cpu")
    run_experiment(
        material, split.divisions, run, device, "GaussianProcess", preset, 0, progress=False, **changes
    )
    held_out = predict_held_out(material, split.divisions, run)
    tested = held_out[held_out["part"] == OUT_OF_FOLD]
    assert len(tested) == 800
    return {name: METRICS[name](tested["truth"], tested["prediction"]) for name in ("mse", "ccc")}


def test_the_recipe_reaches_its_floors(tmp_path: Path):
    as_is, by_speaker = (_scores(tmp_path, preset, STREAMS) for preset in ("default", "speaker"))
    print(f"\nas is {as_is}, by speaker {by_speaker}")
    assert as_is["mse"] <= 0.43 and as_is["ccc"] >= 0.62
    assert by_speaker["mse"] <= 0.35 and by_speaker["ccc"] >= 0.675


def test_the_same_network_with_shuffled_weights_predicts_little(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    network, generator = module._network(), np.random.default_rng(0)
    shuffled = torch.nn.LSTM(network.input_size, network.hidden_size, network.num_layers, batch_first=True)
    shuffled.load_state_dict(
        {
            name: torch.from_numpy(generator.permutation(weights.numpy().ravel()).reshape(weights.shape))
            for name, weights in network.state_dict().items()
        }
    )
    monkeypatch.setattr(module, "_network", lambda: shuffled.eval())
    control = _scores(tmp_path, "default", ["speaker_encoder"], streams=("speaker_encoder",))
    print(f"\nshuffled weights {control}")
    assert control["ccc"] < 0.25
