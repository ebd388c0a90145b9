"""The LSTM over padded clips against torch's own over packed ones: outputs, final states and gradients."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from valence_lib.models.padded_lstm import LSTM

LENGTHS = {
    "like lengths": [30, 31, 30, 29, 30],
    "unlike lengths": [1, 50, 2, 17, 17, 33, 1],
    "one clip": [12],
    "one frame": [1, 1, 1],
}
OPTIONS = [{}, {"bidirectional": True}, {"num_layers": 2}, {"num_layers": 3, "bidirectional": True}]


def _clips(lengths: list[int], width: int = 16) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(len(lengths))
    return torch.randn(len(lengths), max(lengths), width, generator=generator), torch.tensor(lengths)


def _lstm(width: int = 16, hidden: int = 24, **options) -> LSTM:
    torch.manual_seed(0)
    return LSTM(width, hidden, **options)


def _torchs(lstm: LSTM, frames: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    packed = pack_padded_sequence(frames, lengths, batch_first=True, enforce_sorted=False)
    own = nn.LSTM(lstm.input_size, lstm.hidden_size, lstm.num_layers, bidirectional=lstm.bidirectional)
    own = own.to(frames.dtype)
    own.load_state_dict(lstm.state_dict())
    outputs, (hidden, _) = torch.func.functional_call(own, dict(lstm.named_parameters()), (packed,))
    padded, _ = pad_packed_sequence(outputs, batch_first=True)
    return padded, torch.cat(list(hidden[-2:] if lstm.bidirectional else hidden[-1:]), dim=1)


def _own(outputs: Tensor, lengths: Tensor) -> Tensor:
    """The outputs of the clips' own frames."""
    return outputs[torch.arange(outputs.shape[1]) < lengths[:, None]]


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_outputs_and_gradients_are_torchs(lengths: list[int], options: dict):
    lstm, (frames, counts) = _lstm(**options), _clips(lengths)
    frames.requires_grad_()
    found, expected = lstm(frames, counts), _torchs(lstm, frames, counts)
    torch.testing.assert_close(_own(found[0], counts), _own(expected[0], counts), atol=1e-6, rtol=0)
    torch.testing.assert_close(found[1], expected[1], atol=1e-6, rtol=0)
    gradients = []
    for outputs, final in (found, expected):
        loss = (_own(outputs, counts) - 0.1).square().mean() + (final - 0.3).square().mean()
        gradients.append(torch.autograd.grad(loss, [frames, *lstm.parameters()]))
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)
    assert max(float(gradient.abs().max()) for gradient in gradients[0]) > 1e-3


def test_saturated_gates_and_not_a_number():
    lstm, (frames, lengths) = _lstm(bidirectional=True), _clips([4, 6])
    loud = 1e4 * frames
    torch.testing.assert_close(lstm(loud, lengths)[1], _torchs(lstm, loud, lengths)[1], atol=1e-6, rtol=0)
    frames[1, -1] = torch.nan  # the last frame of the longer clip
    assert lstm(frames, lengths)[1].isnan().all(dim=1).tolist() == [False, True]
