"""LSTM layers over packed sequences, with a recurrence compiled for the CPU.

torch runs padded clips fast and packed ones slowly, yet only packed ones give the backward direction its right
start and waste nothing on padding. Here the input's share of the gates is one product for all frames; what is
left for each step is one small product (torch's) and the gates themselves (compiled below).

The formulas are those of `torch.nn.LSTM`: gates i, f, g, o = W_ih x + b_ih + W_hh h + b_hh, then
c' = sigmoid(f) c + sigmoid(i) tanh(g) and h' = sigmoid(o) tanh(c').
"""

from typing import Any, NamedTuple

import numba
import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence


def pack(log_mel: Tensor, lengths: Tensor) -> PackedSequence:
    """The clips' own frames alone, as torch's recurrent layers take them.

    Args:
        log_mel: [shape=(batch, frames, n_mels)], padded on the right.
        lengths: [shape=(batch,), on the CPU]: how many of the frames are the clip's own, at least 1.
    """
    # Sorting them would have to wait for the device that holds them.
    in_order = bool((lengths[:-1] >= lengths[1:]).all())
    return pack_padded_sequence(log_mel, lengths, batch_first=True, enforce_sorted=in_order)


class LSTM(nn.LSTM):
    """`torch.nn.LSTM` over packed sequences: the same weights, names and numbers, faster on a CPU.

    Other devices and precisions than the CPU's float32 take torch's own way.
    """

    def forward(self, packed: PackedSequence) -> tuple[PackedSequence, Tensor]:  # type: ignore[override]
        """Outputs of every frame, and of the last layer's last step in each direction.

        Args:
            packed: clips [shape=(frames, input_size)], as `pack_padded_sequence` packs them.

        Returns:
            Outputs of every frame of the last layer, packed [shape=(frames, hidden_size * directions)], and
            its final hidden states in the clips' order [shape=(batch, hidden_size * directions)].
        """
        if packed.data.device.type != "cpu" or packed.data.dtype != torch.float32:
            outputs, (hidden, _) = super().forward(packed)
            return outputs, torch.cat(hidden.split(1)[-self._directions :], dim=2)[0]
        both = (False, True)[: self._directions]
        orders = [_steps(packed.batch_sizes.tolist(), backwards) for backwards in both]
        frames, sides = packed.data, list[Tensor]()
        for layer in range(self.num_layers):
            if layer:
                frames = nn.functional.dropout(_joined(sides), self.dropout, self.training)
            sides = [
                self._direction(frames, f"l{layer}{suffix}", steps)
                for suffix, steps in zip(("", "_reverse")[: self._directions], orders, strict=False)
            ]
        ends = [_last_frames(packed.batch_sizes), torch.arange(int(packed.batch_sizes[0]))]
        final = _joined([side.index_select(0, end) for side, end in zip(sides, ends, strict=False)])
        if packed.unsorted_indices is not None:
            final = final[packed.unsorted_indices]
        return packed._replace(data=_joined(sides)), final

    @property
    def _directions(self) -> int:
        return 2 if self.bidirectional else 1

    def _direction(self, frames: Tensor, name: str, steps: "list[_Step]") -> Tensor:
        weight_ih, weight_hh, bias_ih, bias_hh = (
            getattr(self, f"{kind}_{name}") for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        # Under autocast this product is in bfloat16; the recurrence is in float32 all the same.
        gates = nn.functional.linear(frames, weight_ih, bias_ih + bias_hh).float()
        hidden: Tensor = _Recurrence.apply(gates, weight_hh, steps)
        return hidden


def _joined(sides: list[Tensor]) -> Tensor:
    """The directions' states side by side."""
    return torch.cat(sides, dim=1) if len(sides) > 1 else sides[0]


def _last_frames(batch_sizes: Tensor) -> Tensor:
    """Where each clip's last frame lies in packed data [shape=(batch,)]."""
    clip = torch.arange(int(batch_sizes[0]))
    lengths = (batch_sizes[:, None] > clip).sum(dim=0)
    return (batch_sizes.cumsum(0) - batch_sizes)[lengths - 1] + clip


class _Step(NamedTuple):
    """One step of the recurrence, over the clips that have a frame there: the first rows of the longest clips.

    Args:
        start, stop: the step's rows in packed data.
        before: where the rows of the step before begin.
        known: how many of this step's clips were in that step; the others begin here.
        after: where the rows of the step after begin.
        passed: how many of this step's clips go on there.
    """

    start: int
    stop: int
    before: int
    known: int
    after: int
    passed: int


def _rows(tensor: Tensor, steps: list[_Step]) -> list[Tensor]:
    """Each step's rows of packed data, as views in the order of the steps."""
    in_place = sorted(steps)
    views = tensor.split([step.stop - step.start for step in in_place])
    of_start = {step.start: view for step, view in zip(in_place, views, strict=True)}
    return [of_start[step.start] for step in steps]


def _steps(batch_sizes: list[int], backwards: bool) -> list[_Step]:
    starts = np.cumsum([0, *batch_sizes]).tolist()
    order = range(len(batch_sizes))[:: -1 if backwards else 1]
    steps = []
    for place, number in enumerate(order):
        count = batch_sizes[number]
        before, after = (order[at] if 0 <= at < len(order) else None for at in (place - 1, place + 1))
        known = 0 if before is None else min(count, batch_sizes[before])
        passed = 0 if after is None else min(count, batch_sizes[after])
        rows = (starts[number], starts[number] + count)
        steps.append(_Step(*rows, starts[before or 0], known, starts[after or 0], passed))
    return steps


class _Recurrence(torch.autograd.Function):
    """The steps of one direction of one layer.

    Args:
        gates [shape=(frames, 4 * hidden)]: the input's share, biases included; overwritten.
        weight_hh [shape=(4 * hidden, hidden)]
        steps: in the order in which they are taken.

    Returns:
        Hidden states of all frames [shape=(frames, hidden)].
    """

    @staticmethod
    def forward(ctx: Any, gates: Tensor, weight_hh: Tensor, steps: list[_Step]) -> Tensor:
        """Take the steps; what the way back needs is kept."""
        # Nothing else holds the product that the gates come from, so that they can be activated where they lie.
        gates = gates.detach()
        cells, hidden = gates.new_empty((2, len(gates), weight_hh.shape[1]))
        previous = torch.zeros_like(hidden)  # each row's hidden state one step before
        arrays = [tensor.numpy() for tensor in (gates, cells, hidden, previous)]
        transposed = weight_hh.t().contiguous()  # the product is faster so
        for step, own, before in zip(steps, _rows(gates, steps), _rows(previous, steps), strict=True):
            if step.known:
                own.addmm_(before, transposed)
            _activate(*arrays, *step)  # type: ignore[call-arg]
        ctx.save_for_backward(gates, cells, previous, weight_hh)
        ctx.steps = steps
        return hidden

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        """Take the steps back."""
        gates, cells, previous, weight_hh = ctx.saved_tensors
        of_gates = torch.empty_like(gates)
        most = max(step.stop - step.start for step in ctx.steps)
        of_hidden, of_cells = gates.new_zeros((2, most, weight_hh.shape[1]))
        arrays = [
            tensor.numpy() for tensor in (gates, cells, gradient.contiguous(), of_hidden, of_cells, of_gates)
        ]
        for step, own in zip(ctx.steps[::-1], _rows(of_gates, ctx.steps[::-1]), strict=True):
            _pass_back(*arrays, *step)
            if step.known:
                torch.mm(own[: step.known], weight_hh, out=of_hidden[: step.known])
        return of_gates, of_gates.t() @ previous, None


# Written with selections in place of branches, so that the loops over units become vector code.


@numba.njit(inline="always")
def _tanh(x):  # type: ignore[no-untyped-def]
    """A quotient of polynomials, off by at most 3e-7.

    The minimax approximation of Eigen (`generic_fast_tanh_float`), which XLA and Tensorflow share; beyond
    +-7.9 it is 1 in single precision.
    """
    x = np.float32(-7.9053111) if x < np.float32(-7.9053111) else x  # NaN stays NaN
    x = np.float32(7.9053111) if x > np.float32(7.9053111) else x
    square = x * x
    over = np.float32(-2.76076847742355e-16)
    over = over * square + np.float32(2.00018790482477e-13)
    over = over * square + np.float32(-8.60467152213735e-11)
    over = over * square + np.float32(5.12229709037114e-08)
    over = over * square + np.float32(1.48572235717979e-05)
    over = over * square + np.float32(6.37261928875436e-04)
    over = over * square + np.float32(4.89352455891786e-03)
    under = np.float32(1.19825839466702e-06)
    under = under * square + np.float32(1.18534705686654e-04)
    under = under * square + np.float32(2.26843463243900e-03)
    under = under * square + np.float32(4.89352518554385e-03)
    return x * over / under


@numba.njit(inline="always")
def _sigmoid(x):  # type: ignore[no-untyped-def]
    return np.float32(0.5) + np.float32(0.5) * _tanh(np.float32(0.5) * x)


_MATRIX = "float32[:,::1]"
_STEP = ", ".join(["int64"] * 6)


@numba.njit(
    f"void({_MATRIX}, {_MATRIX}, {_MATRIX}, {_MATRIX}, {_STEP})",
    fastmath={"contract"},
    error_model="numpy",
    nogil=True,
    cache=True,
)
def _activate(gates, cells, hidden, previous, start, stop, before, known, after, passed):  # type: ignore[no-untyped-def]
    """From the sums of a step's gates to its cells and hidden states, which are handed on as `previous`."""
    size = hidden.shape[1]
    for row in range(stop - start):
        gate, cell, state = gates[start + row], cells[start + row], hidden[start + row]
        entry, kept, candidate, shown = (
            gate[:size],
            gate[size : 2 * size],
            gate[2 * size : 3 * size],
            gate[3 * size :],
        )
        for unit in range(size):
            entry[unit] = _sigmoid(entry[unit])
        for unit in range(size):
            candidate[unit] = _tanh(candidate[unit])
        for unit in range(size):
            shown[unit] = _sigmoid(shown[unit])
        for unit in range(size):
            kept[unit] = _sigmoid(kept[unit])
        for unit in range(size):
            cell[unit] = entry[unit] * candidate[unit]
        if row < known:
            cell_before = cells[before + row]
            for unit in range(size):
                cell[unit] += kept[unit] * cell_before[unit]
        for unit in range(size):
            state[unit] = shown[unit] * _tanh(cell[unit])
        if row < passed:
            handed_on = previous[after + row]
            for unit in range(size):
                handed_on[unit] = state[unit]


@numba.njit(
    f"void({', '.join([_MATRIX] * 6)}, {_STEP})",
    fastmath={"contract"},
    error_model="numpy",
    nogil=True,
    cache=True,
)
def _pass_back(  # type: ignore[no-untyped-def]
    gates, cells, gradient, of_hidden, of_cells, of_gates, start, stop, before, known, after, passed
):
    """From the gradients of a step's hidden states and cells to those of its gates' sums.

    `of_hidden` and `of_cells` come from the step after, by row; `of_cells` is left for the step before.
    """
    size, one = cells.shape[1], np.float32(1)
    for row in range(stop - start):
        gate, cell, of_gate = gates[start + row], cells[start + row], of_gates[start + row]
        entry, kept, candidate, shown = (
            gate[:size],
            gate[size : 2 * size],
            gate[2 * size : 3 * size],
            gate[3 * size :],
        )
        of_entry, of_kept = of_gate[:size], of_gate[size : 2 * size]
        of_candidate, of_shown = of_gate[2 * size : 3 * size], of_gate[3 * size :]
        of_output, of_state, of_cell = gradient[start + row], of_hidden[row], of_cells[row]
        if row >= passed:
            for unit in range(size):
                of_state[unit] = np.float32(0)
                of_cell[unit] = np.float32(0)
        for unit in range(size):
            bent = _tanh(cell[unit])
            of_both = of_output[unit] + of_state[unit]
            of_shown[unit] = of_both * bent * shown[unit] * (one - shown[unit])
            of_cell[unit] += of_both * shown[unit] * (one - bent * bent)
        for unit in range(size):
            of_entry[unit] = of_cell[unit] * candidate[unit] * entry[unit] * (one - entry[unit])
            of_candidate[unit] = of_cell[unit] * entry[unit] * (one - candidate[unit] * candidate[unit])
        if row < known:
            cell_before = cells[before + row]
            for unit in range(size):
                of_kept[unit] = of_cell[unit] * cell_before[unit] * kept[unit] * (one - kept[unit])
                of_cell[unit] *= kept[unit]
        else:
            for unit in range(size):
                of_kept[unit] = np.float32(0)
