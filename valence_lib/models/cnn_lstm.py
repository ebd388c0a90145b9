"""Convolutions before a recurrent layer; see `valence_lib.models` for how a model is called."""

import torch
from torch import Tensor, nn

from valence_lib.batches import own_frames
from valence_lib.recurrence import LSTM


class CNNLSTM(nn.Module):
    """The hybrid that the course report proposes: two convolutions along time, one bidirectional LSTM layer, one linear layer.

    Each convolution spans three frames and all columns, with 64 channels and ReLU; the LSTM has 64 units in each direction,
    whose last states enter the linear layer.
    """

    def __init__(self, width: int = 128):
        super().__init__()
        self.convolution_1 = nn.Conv1d(width, 64, kernel_size=3, padding=1)
        self.convolution_2 = nn.Conv1d(64, 64, kernel_size=3, padding=1)
        self.lstm = LSTM(64, 64, bidirectional=True)
        self.linear = nn.Linear(128, 1)

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """Valence of each clip, as `valence_lib.models` says."""
        own = own_frames(frames.shape[1], lengths.to(frames.device))[:, None]
        # Zeros beyond a clip's end, as a convolution finds them beyond the end of the clip alone.
        maps = torch.where(own, frames.transpose(1, 2), 0.0)
        for convolution in (self.convolution_1, self.convolution_2):
            maps = torch.where(own, torch.relu(convolution(maps)), 0.0)
        _, final = self.lstm(maps.transpose(1, 2), lengths)
        return self.linear(final)[:, 0]
