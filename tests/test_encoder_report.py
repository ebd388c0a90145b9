"""A whole report with a pretrained encoder in the Hugging Face format, here tiny and with random weights."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from project_copy import Project, make_corpus

pytestmark = pytest.mark.slow


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


def test_a_report_with_an_encoder(tmp_path: Path, encoder: Path):
    project = Project(tmp_path / "project", make_corpus(tmp_path / "clips"))
    rows = {f"GaussianProcess-{preset}-0" for preset in ("encoder", "encoder-speaker")}
    assert rows <= project.build("--encoder", str(encoder))["executed"]
    for run in rows:
        folder = project.report / "runs" / run
        settings = json.loads((folder / "settings.json").read_text())
        chosen = settings["training"]["streams"][-1]
        assert chosen in ("encoder:0", "encoder:1", "encoder:2")
        assert str(encoder) not in (folder / "settings.json").read_text()
    results = json.loads((project.report / "results.json").read_text())
    assert {row["preset"] for row in results["rows"]} >= {"encoder", "encoder-speaker"}
    assert results["encoder"]["name"] == encoder.name
    assert encoder.name in (project.report / "report.html").read_text()
    assert project.build("--encoder", str(encoder)) == {}  # nothing is stale

    # A new file is predicted by the run alone: the encoder is found by its digest.
    run = project.report / "runs" / "GaussianProcess-encoder-0"
    predict = [
        sys.executable,
        "-m",
        "valence_lib",
        "predict",
        str(project.corpus / "00.wav"),
        "--run",
        str(run),
    ]
    found = subprocess.run(predict, env=project.environment, capture_output=True, text=True, cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    assert 0 < float(found.stdout.splitlines()[1].split(",")[1]) < 6

    # One layer, which is another parameter of the same report.
    assert rows <= project.build("--encoder", str(encoder), "--layer", "1")["executed"]
    streams = json.loads((run / "settings.json").read_text())["training"]["streams"]
    assert streams[-1] == "encoder"
    assert pd.read_csv(run / "predictions.csv")["prediction"].notna().all()
    refused = project.valence("report", "--encoder", str(encoder), "--layer", "3")
    assert refused.returncode == 2
    assert "expected one of these, or 'auto'" in refused.stderr
