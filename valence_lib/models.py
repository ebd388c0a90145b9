"""The models: from log-mel frames of clips of unlike length to one valence a clip.

Every model is called as `model(log_mel, lengths)`:

    log_mel [shape=(batch, frames, n_mels), dtype=float32]: padded on the right, with anything finite.
    lengths [shape=(batch,), dtype=int64, on the CPU]: how many of the frames are the clip's own, at least 1.
    returns [shape=(batch,)]: valence, in rating points.

Padding never changes a prediction: a clip alone and the same clip beside a longer one give the same
number, because every layer either never looks to the right of a clip's end or finds zeros there, as
it would find them beyond the end of the clip alone.

A new model is one class and one line in `MODELS`.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from valence_lib.errors import SettingsError, unknown_name
from valence_lib.recurrence import LSTM


def _own_frames(frames: int, lengths: Tensor) -> Tensor:
    """Which frames are a clip's own, not padding [shape=(batch, frames)]."""
    return torch.arange(frames, device=lengths.device) < lengths[:, None]


def _pack(log_mel: Tensor, lengths: Tensor) -> PackedSequence:
    """The clips' own frames alone, as torch's recurrent layers take them."""
    # Sorting them would have to wait for the device that holds them.
    in_order = bool((lengths[:-1] >= lengths[1:]).all())
    return pack_padded_sequence(log_mel, lengths, batch_first=True, enforce_sorted=in_order)


class LSTM1(nn.Module):
    """The course report's LSTM1: one layer, one direction, 128 hidden units, linear 128 to 1."""

    def __init__(self, n_mels: int = 128):
        super().__init__()
        self.lstm = LSTM(n_mels, 128)
        self.linear = nn.Linear(128, 1)

    def forward(self, log_mel: Tensor, lengths: Tensor) -> Tensor:
        """See the module."""
        _, final = self.lstm(_pack(log_mel, lengths))
        return self.linear(final)[:, 0]


class LSTM2(nn.Module):
    """The course report's LSTM2: two layers, bidirectional, 128 hidden units, dropout 0.2, linear 256 to 1."""

    def __init__(self, n_mels: int = 128):
        super().__init__()
        self.lstm = LSTM(n_mels, 128, num_layers=2, bidirectional=True, dropout=0.2)
        self.linear = nn.Linear(256, 1)

    def forward(self, log_mel: Tensor, lengths: Tensor) -> Tensor:
        """See the module."""
        _, final = self.lstm(_pack(log_mel, lengths))
        return self.linear(final)[:, 0]


class MaxPool2d(nn.MaxPool2d):
    """Max pooling of padded clips: 3 by 3, stride 1, of maps that are nowhere below 0; padding comes out as zeros."""

    def __init__(self) -> None:
        super().__init__(kernel_size=3, stride=1, padding=1)

    def forward(self, maps: Tensor, lengths: Tensor) -> Tensor:  # type: ignore[override]
        """Pooled maps [shape=(batch, channels, frames, n_mels)], as the ones given."""
        if maps.device.type == "cpu" and maps.dtype == torch.float32:
            from valence_lib.pooling import MaxPool3x3  # brings numba, which the other models do without

            pooled: Tensor = MaxPool3x3.apply(maps.permute(0, 2, 3, 1), lengths)
            return pooled.permute(0, 3, 1, 2)
        own = _own_frames(maps.shape[2], lengths)[:, None, :, None]
        # To the maximum, zeros to the right of a clip are what the edge of the clip alone is.
        return torch.where(own, super().forward(torch.where(own, maps, 0.0)), 0.0)


class CNN(nn.Module):
    """The course report's CNN: two convolutional layers, each with ReLU and max pooling of stride 1.

    The maps are then averaged over the clip's own frames, band by band, and read out by one linear
    layer. The report leaves the numbers of channels and the kernels open: 8 and 16 channels, 3 by 3.
    """

    def __init__(self, n_mels: int = 128):
        super().__init__()
        self.convolution_1 = nn.Conv2d(1, 8, kernel_size=3, padding=1)
        self.convolution_2 = nn.Conv2d(8, 16, kernel_size=3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.pooling = MaxPool2d()
        self.linear = nn.Linear(16 * n_mels, 1)

    def forward(self, log_mel: Tensor, lengths: Tensor) -> Tensor:
        """See the module."""
        lengths = lengths.to(log_mel.device, non_blocking=True)
        own = _own_frames(log_mel.shape[1], lengths)
        # Channels last in memory: convolutions and pooling are fastest so.
        maps = torch.where(own[:, :, None], log_mel, 0.0)[:, :, :, None].permute(0, 3, 1, 2)
        for convolution in (self.convolution_1, self.convolution_2):
            maps = self.pooling(self.relu(convolution(maps)), lengths)
        pooled = maps.sum(dim=2) / lengths[:, None, None]
        return self.linear(pooled.flatten(1))[:, 0]


MODELS: dict[str, Callable[[int], nn.Module]] = {
    "LSTM1": LSTM1,
    "CNN": CNN,
    "LSTM2": LSTM2,
}


def build_model(name: str, n_mels: int = 128) -> nn.Module:
    """A new model of the registry, with fresh weights from torch's global generator.

    Raises:
        SettingsError: unknown name; the message names the nearest.
    """
    if name not in MODELS:
        raise SettingsError(unknown_name("model", name, MODELS))
    return MODELS[name](n_mels)


def count_parameters(model: nn.Module) -> int:
    """How many numbers training adjusts."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
