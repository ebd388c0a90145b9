"""Losses against the metrics; what masks hide, and what they never do."""

import numpy as np
import pytest
import torch

from valence_lib import metrics
from valence_lib.losses import LOSSES, mask
from valence_lib.settings import LOSSES as NAMES


def _batch(count=16):
    generator = torch.Generator().manual_seed(0)
    truth = 1 + 4 * torch.rand(count, generator=generator)
    return truth + torch.randn(count, generator=generator) - 0.5, truth


def test_losses_are_those_of_the_metrics():
    predictions, truth = _batch()
    mse, ccc = metrics.mse(truth, predictions), metrics.ccc(truth, predictions)
    expected = {"mse": mse, "ccc": 1 - ccc, "mse+ccc": mse + 1 - ccc}
    assert {name: loss(predictions, truth).item() for name, loss in LOSSES.items()} == pytest.approx(
        expected, abs=1e-5
    )
    assert set(LOSSES) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_perfect_batch_costs_nothing(name):
    _, truth = _batch()
    assert LOSSES[name](truth, truth).item() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("count", [1, 4])
def test_gradients_of_constant_batches_are_finite(name, count):
    predictions = torch.full((count,), 3.0, requires_grad=True)
    LOSSES[name](predictions, torch.full((count,), 2.0)).backward()
    assert predictions.grad.isfinite().all()


def test_masks_hide_stretches_of_time_and_of_columns_alone():
    frames, lengths = torch.ones(64, 40, 24), torch.tensor([40, 20, 8, 1] * 16)
    torch.manual_seed(0)
    hidden = mask(frames, lengths, 8, 6) == 0
    for clip, length in zip(hidden, lengths.tolist(), strict=True):
        # Each place is hidden because all its frame is, or all its column.
        times, columns = clip.all(dim=1), clip.all(dim=0)
        assert torch.equal(clip, times[:, None] | columns[None, :])
        assert times[:length].sum() <= 2 * min(8, length // 4)
        assert columns.sum() <= 2 * 6
        assert (
            np.diff(torch.cat([torch.zeros(1), columns.float(), torch.zeros(1)]).numpy()).clip(0).sum() <= 2
        )
    shares = hidden.float().mean(dim=(1, 2))
    assert shares.unique().numel() > 8  # clips differ in what is hidden
    assert bool((frames == 1).all())  # what was given is left as it was


def test_masks_of_no_width_hide_nothing():
    frames = torch.randn(4, 9, 5)
    assert torch.equal(mask(frames, torch.tensor([9, 9, 3, 1]), 0, 0), frames)
