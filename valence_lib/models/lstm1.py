"""The course report's LSTM1; see `valence_lib.models` for how a model is called."""

from torch import Tensor, nn

from valence_lib.recurrence import LSTM


class LSTM1(nn.Module):
    """The course report's LSTM1: one layer, one direction, 128 hidden units, linear 128 to 1."""

    def __init__(self, n_mels: int = 128):
        super().__init__()
        self.lstm = LSTM(n_mels, 128)
        self.linear = nn.Linear(128, 1)

    def forward(self, log_mel: Tensor, lengths: Tensor) -> Tensor:
        """Valence of each clip, as `valence_lib.models` says."""
        _, final = self.lstm(log_mel, lengths)
        return self.linear(final)[:, 0]
