"""The course report's CNN; see `valence_lib.models` for how a model is called."""

import torch
from torch import Tensor, nn

from valence_lib.batches import own_frames


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
        own = own_frames(maps.shape[2], lengths)[:, None, :, None]
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
        """Valence of each clip, as `valence_lib.models` says."""
        lengths = lengths.to(log_mel.device, non_blocking=True)
        own = own_frames(log_mel.shape[1], lengths)
        # Channels last in memory: convolutions and pooling are fastest so.
        maps = torch.where(own[:, :, None], log_mel, 0.0)[:, :, :, None].permute(0, 3, 1, 2)
        for convolution in (self.convolution_1, self.convolution_2):
            maps = self.pooling(self.relu(convolution(maps)), lengths)
        pooled = maps.sum(dim=2) / lengths[:, None, None]
        return self.linear(pooled.flatten(1))[:, 0]
