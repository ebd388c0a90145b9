"""A report with a pretrained encoder in the Hugging Face format, here tiny and with random weights."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("builds")]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A WavLM of two blocks with random weights, as transformers saves it."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    config = transformers.WavLMConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        conv_dim=(8,) * 7,
        num_conv_pos_embeddings=16,
    )
    folder = tmp_path_factory.mktemp("tiny-wavlm")
    transformers.WavLMModel(config).save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor().save_pretrained(folder)
    return folder


def test_a_report_with_an_encoder(project, encoder):
    rows = {f"GaussianProcess-{preset}-0" for preset in ("encoder", "encoder-speaker")}
    assert project.build("--encoder", str(encoder))["executed"] >= {"preprocess", *rows}
    for name in rows:
        settings = (project.report / "runs" / name / "settings.json").read_text()
        assert json.loads(settings)["training"]["streams"][-1] in ("encoder:0", "encoder:1", "encoder:2")
        assert str(encoder) not in settings
    results = json.loads((project.report / "results.json").read_text())
    assert {row["preset"] for row in results["rows"]} >= {"encoder", "encoder-speaker"}
    assert results["encoder"]["name"] == encoder.name
    assert encoder.name in (project.report / "report.html").read_text()
    assert project.plan("--encoder", str(encoder)) == {}

    # A run finds its encoder by the digest of the weights.
    run = project.report / "runs" / "GaussianProcess-encoder-0"
    predict = [sys.executable, "-m", "valence_lib", "predict", "clips/00.wav", "--run", run]
    found = subprocess.run(
        predict, cwd=project.folder, env=project.environment, capture_output=True, text=True, check=True
    )
    assert 0 < float(found.stdout.splitlines()[1].split(",")[1]) < 6

    # One layer is another parameter of the same report.
    assert project.build("--encoder", str(encoder), "--layer", "1")["executed"] >= rows
    assert json.loads((run / "settings.json").read_text())["training"]["streams"][-1] == "encoder"
    assert pd.read_csv(run / "predictions.csv")["prediction"].notna().all()
    refused = project.run("report", "--encoder", str(encoder), "--layer", "3")
    assert refused.returncode == 2
    assert "expected one of these, or 'auto'" in refused.stdout
