"""The architecture figure and the list of layers, both drawn from live modules."""

import pytest
import torch
from torch import nn

from valence_lib.models.build import build_model
from valence_lib.registry import NETWORKS
from valence_lib.report import architecture


def texts(ax):
    return [text.get_text() for text in ax.texts]


class Stub(nn.Module):
    """A packed LSTM, a dropout that is called twice, pooling over time, and a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 4, (3, 5), padding=(0, 2)), nn.ReLU(), nn.MaxPool2d(2))
        self.dropout = nn.Dropout(0.25)
        self.lstm = nn.LSTM(4 * 8, 100, num_layers=2, bidirectional=True, batch_first=True)
        self.linear = nn.Linear(200, 1)
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, log_mel: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        maps = self.dropout(self.body(log_mel[:, None]))
        frames = maps.transpose(1, 2).flatten(2)
        packed = nn.utils.rnn.pack_padded_sequence(frames, (lengths - 2) // 2, batch_first=True)
        outputs, _ = nn.utils.rnn.pad_packed_sequence(self.lstm(packed)[0], batch_first=True)
        return self.linear(self.dropout(outputs.mean(1)))[:, 0] * self.scale.sum()


def test_layers_are_those_of_the_live_module_with_symbolic_frames():
    rows = architecture.describe_layers(Stub(), 16)
    assert [(row.name, row.kind, row.detail, row.output_shape) for row in rows] == [
        ("body.0", "Conv2d", "1 → 4 channels, kernel 3 × 5", "4 × T − 2 × 16"),
        ("body.1", "ReLU", "", "4 × T − 2 × 16"),
        ("body.2", "MaxPool2d", "window 2, stride 2", "4 × T/2 − 1 × 8"),
        ("dropout", "Dropout", "p = 0.25", "4 × T/2 − 1 × 8"),
        # 100 is here the number of units, not of frames; packed data lie clip after clip.
        ("lstm", "LSTM", "32 → 100 units, both directions, 2 layers", "T/2 − 1 × 200"),
        ("dropout", "Dropout", "p = 0.25", "200"),
        ("linear", "Linear", "200 → 1", "1"),
        ("", "Stub", "parameters of its own", ""),
    ]
    assert [row.parameters for row in rows][-2:] == [201, 3]
    assert sum(row.parameters for row in rows) == sum(p.numel() for p in Stub().parameters())


@pytest.mark.parametrize("name", NETWORKS)
def test_parameters_of_the_layers_add_up_to_the_models(name):
    model = build_model(name, [16])
    total = sum(parameter.numel() for parameter in model.parameters())
    assert sum(row.parameters for row in architecture.describe_layers(model, 16)) == total
    assert f"{name}: {total:,} parameters in all" in texts(architecture.plot_architecture(model, 16).axes[0])


def test_architecture_runs_from_the_spectrogram_to_one_number_with_a_shape_at_each_arrow():
    drawn = texts(architecture.plot_architecture(build_model("LSTM2", [16]), 16).axes[0])
    assert {"log-mel spectrogram (T × 16)", "prediction (1)", "T × 16", "256", "LSTM"} <= set(drawn)
    assert {"16 → 128 units, both directions, 2 layers", "dropout 0.2 between layers"} <= set(drawn)
    # The CNN flattens its maps, which no layer does, between the last pooling and the linear layer.
    assert "16 × T × 16 → 256" in texts(architecture.plot_architecture(build_model("CNN", [16]), 16).axes[0])


def test_alt_text_is_one_sentence_on_the_live_module():
    text = architecture.architecture_alt_text(build_model("CNN", [16]), 16)
    assert text.startswith("CNN as a chain of layers, from the log-mel spectrogram (T frames by 16 columns)")
    assert "Conv2d (1 → 8 channels, kernel 3 × 3), ReLU, MaxPool2d (window 3, stride 1)" in text
    assert text.endswith("to one number, 1,505 parameters.")
