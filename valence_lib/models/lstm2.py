"""The course report's LSTM2; see `valence_lib.models` for how a model is called."""

from torch import Tensor, nn

from valence_lib.recurrence import LSTM


class LSTM2(nn.Module):
    """The course report's LSTM2: two layers, bidirectional, 128 hidden units, dropout 0.2, linear 256 to 1."""

    def __init__(self, n_mels: int = 128):
        super().__init__()
        self.lstm = LSTM(n_mels, 128, num_layers=2, bidirectional=True, dropout=0.2)
        self.linear = nn.Linear(256, 1)

    def forward(self, log_mel: Tensor, lengths: Tensor) -> Tensor:
        """Valence of each clip, as `valence_lib.models` says."""
        _, final = self.lstm(log_mel, lengths)
        return self.linear(final)[:, 0]
