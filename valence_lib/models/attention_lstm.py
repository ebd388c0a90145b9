"""A recurrent layer read by attention; see `valence_lib.models` for how a model is called."""

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_packed_sequence

from valence_lib.batches import own_frames
from valence_lib.recurrence import LSTM, pack


class AttentionReader(nn.Module):
    """One bidirectional LSTM layer of 64 units, whose outputs are averaged with weights that it gives them itself, then linear.

    A frame's weight is the softmax, over the clip's own frames, of a linear score of its output: Mirsamadi, Barsoum and Zhang
    (2017), "Automatic speech emotion recognition using recurrent neural networks with local attention", ICASSP, 2227-2231.
    """

    def __init__(self, width: int):
        super().__init__()
        self.lstm = LSTM(width, 64, bidirectional=True)
        self.score = nn.Linear(128, 1)
        self.dropout = nn.Dropout(0.2)
        self.linear = nn.Linear(128, 1)

    def begin_at(self, valence: float) -> None:
        """Let an untrained model predict about this much."""
        nn.init.constant_(self.linear.bias, valence)

    def read(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """What `linear` tells valence from [shape=(batch, 128)]."""
        packed, _ = self.lstm(pack(frames, lengths))
        outputs, _ = pad_packed_sequence(packed, batch_first=True)
        own = own_frames(outputs.shape[1], lengths.to(outputs.device))
        weights = self.score(outputs)[:, :, 0].masked_fill(~own, -torch.inf).softmax(dim=1)
        return self.dropout((outputs * weights[:, :, None]).sum(dim=1))

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """Valence of each clip, as `valence_lib.models` says."""
        return self.linear(self.read(frames, lengths))[:, 0]


class AttentionLSTM(AttentionReader):
    """`AttentionReader` over each frame as it is and, beside it, without the clip's mean.

    The first tells how the whole clip sounds, the second what moves in it, whoever speaks.
    """

    def __init__(self, width: int = 128):
        super().__init__(2 * width)

    def read(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """What `linear` tells valence from [shape=(batch, 128)]."""
        counts = lengths.to(frames.device)
        own = own_frames(frames.shape[1], counts)[:, :, None]
        mean = torch.where(own, frames, 0.0).sum(dim=1) / counts[:, None]
        return super().read(torch.cat([frames, frames - mean[:, None]], dim=2), lengths)
