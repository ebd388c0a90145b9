"""The compiled LSTM against torch's packed one: outputs, loss and gradients."""

import numba
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from valence_lib.recurrence import LSTM, _sigmoid, _tanh

LENGTHS = {
    "like lengths": [30, 31, 30, 29, 30],
    "unlike lengths": [1, 50, 2, 17, 17, 33, 1],
    "one clip": [12],
    "one frame": [1, 1, 1],
}


def _packed(lengths: list[int], channels: int) -> PackedSequence:
    generator = torch.Generator().manual_seed(len(lengths))
    padded = torch.randn(len(lengths), max(lengths), channels, generator=generator)
    return pack_padded_sequence(padded, torch.tensor(lengths), batch_first=True, enforce_sorted=False)


def _lstm(channels: int = 16, hidden: int = 24, **options) -> LSTM:
    torch.manual_seed(0)
    return LSTM(channels, hidden, **options)


def _torchs(lstm: LSTM, packed: PackedSequence) -> tuple[Tensor, Tensor]:
    outputs, (hidden, _) = nn.LSTM.forward(lstm, packed)
    return outputs.data, torch.cat(list(hidden[-2:] if lstm.bidirectional else hidden[-1:]), dim=1)


def _gradients(lstm: LSTM, frames: Tensor, outputs: Tensor, final: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The loss, a mean square error of all outputs, and its gradients."""
    target = torch.linspace(-1, 1, outputs.numel()).view_as(outputs)
    loss = (outputs - target).square().mean() + (final - 0.3).square().mean()
    return loss.detach(), list(torch.autograd.grad(loss, [frames, *lstm.parameters()]))


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
@pytest.mark.parametrize(
    "options",
    [{}, {"bidirectional": True}, {"num_layers": 2}, {"num_layers": 3, "bidirectional": True}],
    ids=str,
)
def test_outputs_loss_and_gradients_are_torchs(lengths: list[int], options: dict):
    lstm, packed = _lstm(**options), _packed(lengths, 16)
    packed = packed._replace(data=packed.data.requires_grad_())
    outputs, final = lstm(packed)
    expected_outputs, expected_final = _torchs(lstm, packed)
    torch.testing.assert_close(outputs.data, expected_outputs, atol=1e-6, rtol=0)
    torch.testing.assert_close(final, expected_final, atol=1e-6, rtol=0)
    assert outputs.batch_sizes.equal(packed.batch_sizes)
    loss, gradients = _gradients(lstm, packed.data, outputs.data, final)
    expected_loss, expected_gradients = _gradients(lstm, packed.data, expected_outputs, expected_final)
    torch.testing.assert_close(loss, expected_loss, atol=1e-6, rtol=0)
    for found, expected in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    assert max(float(gradient.abs().max()) for gradient in gradients) > 1e-3


def test_the_reports_size_is_torchs_too():
    lstm, packed = _lstm(128, 128, num_layers=2, bidirectional=True), _packed([40, 44, 41, 38] * 8, 128)
    packed = packed._replace(data=packed.data.requires_grad_())
    outputs, final = lstm(packed)
    expected = _torchs(lstm, packed)
    torch.testing.assert_close(final, expected[1], atol=1e-6, rtol=0)
    found = _gradients(lstm, packed.data, outputs.data, final)
    for ours, theirs in zip(found[1], _gradients(lstm, packed.data, *expected)[1], strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)


def test_finals_stand_in_the_order_in_which_the_clips_were_given():
    lstm = _lstm(bidirectional=True)
    together = lstm(_packed([3, 9, 5], 16))[1]
    clips = torch.nn.utils.rnn.unpack_sequence(_packed([3, 9, 5], 16))
    for clip, final in zip(clips, together, strict=True):
        alone = lstm(pack_padded_sequence(clip[None], torch.tensor([len(clip)]), batch_first=True))[1]
        torch.testing.assert_close(alone[0], final, atol=1e-6, rtol=0)


def test_sorted_clips_need_no_order():
    lstm = _lstm()
    packed = pack_padded_sequence(torch.randn(2, 5, 16), torch.tensor([5, 3]), batch_first=True)
    assert packed.unsorted_indices is None
    torch.testing.assert_close(lstm(packed)[1], _torchs(lstm, packed)[1], atol=1e-6, rtol=0)


def test_other_precisions_take_torchs_way():
    lstm = _lstm(bidirectional=True, num_layers=2).double()
    packed = _packed(LENGTHS["unlike lengths"], 16)
    packed = packed._replace(data=packed.data.double())
    outputs, final = lstm(packed)
    expected = _torchs(lstm, packed)
    assert outputs.data.equal(expected[0])
    assert final.equal(expected[1])


def test_a_second_pass_does_not_disturb_the_gradients_of_the_first():
    lstm, packed = _lstm(), _packed([4, 6], 16)
    (first,) = torch.autograd.grad(lstm(packed)[1].sum(), [lstm.weight_hh_l0])
    final = lstm(packed)[1]
    lstm(_packed([9, 9], 16))
    (again,) = torch.autograd.grad(final.sum(), [lstm.weight_hh_l0])
    assert first.equal(again)


def test_saturated_gates_and_not_a_number():
    lstm, packed = _lstm(), _packed([4, 6], 16)
    loud = packed._replace(data=1e4 * packed.data)
    torch.testing.assert_close(lstm(loud)[1], _torchs(lstm, loud)[1], atol=1e-6, rtol=0)
    broken = packed.data.clone()
    broken[-1] = torch.nan  # the last frame of the longer clip
    assert lstm(packed._replace(data=broken))[1].isnan().all(dim=1).tolist() == [False, True]


def test_tanh_and_sigmoid_are_right_to_single_precision():
    @numba.njit
    def both(x, tanh, sigmoid):  # type: ignore[no-untyped-def]
        for place in range(len(x)):
            tanh[place], sigmoid[place] = _tanh(x[place]), _sigmoid(x[place])

    x = np.concatenate([np.linspace(-30, 30, 200_001), [-np.inf, 0.0, np.inf, 1e-30]]).astype(np.float32)
    tanh, sigmoid = np.empty_like(x), np.empty_like(x)
    both(x, tanh, sigmoid)
    exact = np.tanh(x.astype(np.float64)), 0.5 + 0.5 * np.tanh(0.5 * x.astype(np.float64))
    np.testing.assert_allclose(tanh, exact[0], rtol=0, atol=3e-7)
    np.testing.assert_allclose(sigmoid, exact[1], rtol=0, atol=3e-7)
    assert np.abs(tanh).max() <= 1
    assert tanh[np.flatnonzero(x == 0)[0]] == 0
