"""What a training brings down, and what it hides from a model meanwhile."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

_MASKS = 2  # of each kind in a clip
_LARGEST_SHARE = 0.25  # of a clip's frames, or of the columns, that one mask may hide


def one_minus_ccc(predictions: Tensor, truth: Tensor) -> Tensor:
    """1 - Lin's concordance correlation coefficient of a batch (Lin 1989), with population variances.

    Weninger et al. (2016), "Discriminatively trained recurrent neural networks for continuous dimensional emotion recognition from
    audio", IJCAI, 2196-2202. Unlike the squared error, it is not lowered by predicting close to the mean.
    """
    covariance = ((predictions - predictions.mean()) * (truth - truth.mean())).mean()
    spread = predictions.var(unbiased=False) + truth.var(unbiased=False)
    return 1 - 2 * covariance / (spread + (predictions.mean() - truth.mean()) ** 2 + 1e-6)


def mse_and_ccc(predictions: Tensor, truth: Tensor) -> Tensor:
    """The mean squared error plus `one_minus_ccc`."""
    return nn.functional.mse_loss(predictions, truth) + one_minus_ccc(predictions, truth)


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mse": nn.functional.mse_loss,
    "ccc": one_minus_ccc,
    "mse+ccc": mse_and_ccc,
}


def mask(frames: Tensor, lengths: Tensor, most_frames: int, most_columns: int) -> Tensor:
    """Hide two random stretches of time and two random bands of columns of each clip, by 0, the mean of what is standardised.

    Park et al. (2019), "SpecAugment: a simple data augmentation method for automatic speech recognition", Interspeech,
    2613-2617; without its warping of time.

    Args:
        frames [shape=(batch, frames, width)]
        lengths [shape=(batch,)]: each clip's own frames.
        most_frames: the longest stretch; never more than a quarter of the clip.
        most_columns: the widest band; never more than a quarter of the columns.
    """
    own = lengths.to(frames.device)
    longest = torch.minimum(torch.full_like(own, most_frames), (own * _LARGEST_SHARE).long())
    time = _hidden(frames.shape[1], own, longest)
    width = torch.full_like(own, frames.shape[2])
    widest = torch.minimum(torch.full_like(own, most_columns), (width * _LARGEST_SHARE).long())
    columns = _hidden(frames.shape[2], width, widest)
    return frames.masked_fill(time[:, :, None] | columns[:, None, :], 0.0)


def _hidden(size: int, within: Tensor, longest: Tensor) -> Tensor:
    """Which of `size` places are hidden in each clip [shape=(batch, size)]: stretches of random length at random places."""
    places = torch.arange(size, device=within.device)
    hidden = torch.zeros(len(within), size, dtype=torch.bool, device=within.device)
    for _ in range(_MASKS):
        length = (torch.rand(len(within), device=within.device) * (longest + 1)).long()
        start = (torch.rand(len(within), device=within.device) * (within - length + 1)).long()
        hidden |= (places >= start[:, None]) & (places < (start + length)[:, None])
    return hidden
