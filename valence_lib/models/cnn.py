"""The course report's CNN."""

import torch
from torch import Tensor, nn

from valence_lib.models.contract import ValenceModel, own_frames


class MaxPool2d(nn.MaxPool2d):
    """3 by 3 max pooling, stride 1, of padded clips whose maps are nowhere below 0; the padding becomes 0."""

    def __init__(self) -> None:
        super().__init__(kernel_size=3, stride=1, padding=1)

    def forward(self, maps: Tensor, lengths: Tensor) -> Tensor:  # type: ignore[override]
        """Pooled maps [shape=(batch, channels, frames, n_mels)], of the shape of `maps`."""
        if maps.device.type == "cpu" and maps.dtype == torch.float32:
            from valence_lib.models.pooling_kernel import MaxPool3x3  # imports numba

            pooled: Tensor = MaxPool3x3.apply(maps.permute(0, 2, 3, 1), lengths)
            return pooled.permute(0, 3, 1, 2)
        own = own_frames(maps.shape[2], lengths)[:, None, :, None]
        return torch.where(own, super().forward(torch.where(own, maps, 0.0)), 0.0)


class CNN(ValenceModel):
    """Two convolutional layers with ReLU and max pooling of stride 1, the mean over frames, one linear layer.

    The course report does not give channels and kernels: they are 8 and 16, and 3 by 3.
    """

    def __init__(self, n_mels: int):
        super().__init__()
        self.convolution_1 = nn.Conv2d(1, 8, kernel_size=3, padding=1)
        self.convolution_2 = nn.Conv2d(8, 16, kernel_size=3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.pooling = MaxPool2d()
        self.linear = nn.Linear(16 * n_mels, 1)

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """See `ValenceModel.forward`."""
        lengths = lengths.to(frames.device, non_blocking=True)
        own = own_frames(frames.shape[1], lengths)
        # Channels last in memory, which is the fastest for convolutions and pooling.
        maps = torch.where(own[:, :, None], frames, 0.0)[:, :, :, None].permute(0, 3, 1, 2)
        for convolution in (self.convolution_1, self.convolution_2):
            maps = self.pooling(self.relu(convolution(maps)), lengths)
        pooled = maps.sum(dim=2) / lengths[:, None, None]
        return self.linear(pooled.flatten(1))[:, 0]
