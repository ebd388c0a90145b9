"""The course report's LSTM2."""

from torch import Tensor, nn

from valence_lib.models.contract import ValenceModel
from valence_lib.models.padded_lstm import LSTM


class LSTM2(ValenceModel):
    """Two bidirectional LSTM layers, 128 units, dropout 0.2; linear 256 to 1."""

    def __init__(self, n_mels: int):
        super().__init__()
        self.lstm = LSTM(n_mels, 128, num_layers=2, bidirectional=True, dropout=0.2)
        self.linear = nn.Linear(256, 1)

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """See `ValenceModel.forward`."""
        _, final = self.lstm(frames, lengths)
        return self.linear(final)[:, 0]
