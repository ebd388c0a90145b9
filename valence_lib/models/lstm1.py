"""The course report's LSTM1."""

from torch import Tensor, nn

from valence_lib.models.contract import ValenceModel
from valence_lib.models.padded_lstm import LSTM


class LSTM1(ValenceModel):
    """One LSTM layer, one direction, 128 units; linear 128 to 1."""

    def __init__(self, n_mels: int):
        super().__init__()
        self.lstm = LSTM(n_mels, 128)
        self.linear = nn.Linear(128, 1)

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """See `ValenceModel.forward`."""
        _, final = self.lstm(frames, lengths)
        return self.linear(final)[:, 0]
