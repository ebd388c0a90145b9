"""Convolutions that feed a recurrent layer; see `valence_lib.models` for how a model is called."""

import torch
from torch import Tensor, nn

from valence_lib.batches import own_frames
from valence_lib.models.attention_lstm import AttentionReader


class CNNLSTM(AttentionReader):
    """The hybrid that the course report proposes: two convolutional layers along time, then `AttentionReader`.

    Each convolution looks at three frames and all columns at once, 64 channels with ReLU.
    """

    def __init__(self, width: int = 128):
        super().__init__(64)
        self.convolution_1 = nn.Conv1d(width, 64, kernel_size=3, padding=1)
        self.convolution_2 = nn.Conv1d(64, 64, kernel_size=3, padding=1)

    def read(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """What `linear` tells valence from [shape=(batch, 128)]."""
        own = own_frames(frames.shape[1], lengths.to(frames.device))
        # Zeros beyond a clip's end, as a convolution finds them beyond the end of the clip alone.
        maps = torch.where(own[:, :, None], frames, 0.0).transpose(1, 2)
        for convolution in (self.convolution_1, self.convolution_2):
            maps = torch.where(own[:, None], torch.relu(convolution(maps)), 0.0)
        return super().read(self.dropout(maps.transpose(1, 2)), lengths)
