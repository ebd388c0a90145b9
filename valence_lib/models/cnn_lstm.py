"""The hybrid that the course report proposes: convolutions before a recurrent layer."""

import torch
from torch import Tensor, nn

from valence_lib.models.contract import ValenceModel, own_frames
from valence_lib.models.padded_lstm import LSTM


class CNNLSTM(ValenceModel):
    """Two convolutions along time (64 channels, ReLU), a bidirectional LSTM (64 units), a linear layer."""

    def __init__(self, width: int):
        super().__init__()
        self.convolution_1 = nn.Conv1d(width, 64, kernel_size=3, padding=1)
        self.convolution_2 = nn.Conv1d(64, 64, kernel_size=3, padding=1)
        self.lstm = LSTM(64, 64, bidirectional=True)
        self.linear = nn.Linear(128, 1)

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """See `ValenceModel.forward`."""
        own = own_frames(frames.shape[1], lengths.to(frames.device))[:, None]
        maps = torch.where(own, frames.transpose(1, 2), 0.0)
        for convolution in (self.convolution_1, self.convolution_2):
            maps = torch.where(own, torch.relu(convolution(maps)), 0.0)
        _, final = self.lstm(maps.transpose(1, 2), lengths)
        return self.linear(final)[:, 0]
