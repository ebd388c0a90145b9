"""LSTM layers over padded clips, whose outputs for a clip's own frames do not depend on the padding.

Kept by hand: torch computes padded clips several times faster than packed ones on a CPU, but starts the
backward direction in the padding. Here each clip is reversed within its own length instead.
"""

import torch
from torch import Tensor, nn


class LSTM(nn.LSTM):
    """`torch.nn.LSTM` over padded clips: the same weights and names, and its outputs for packed clips."""

    def forward(self, frames: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Outputs of every frame, and of the last step of the last layer in each direction.

        Args:
            frames [shape=(batch, frames, input_size)]: padded on the right with any finite number.
            lengths [shape=(batch,)]: how many frames are the clip's own, at least 1.

        Returns:
            Outputs of the last layer [shape=(batch, frames, hidden_size * directions)], undefined beyond a
            clip's end, and its final states [shape=(batch, hidden_size * directions)].
        """
        last = lengths.to(frames.device)[:, None] - 1
        places = torch.arange(frames.shape[1], device=frames.device)
        backwards = torch.where(places <= last, last - places, places)
        zeros = frames.new_zeros(1, len(frames), self.hidden_size)
        suffixes = ("", "_reverse") if self.bidirectional else ("",)
        for layer in range(self.num_layers):
            if layer:
                frames = nn.functional.dropout(frames, self.dropout, self.training)
            outputs = []
            for suffix in suffixes:
                ordered = _reordered(frames, backwards) if suffix else frames
                kinds = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
                weights = [getattr(self, f"{kind}_l{layer}{suffix}") for kind in kinds]
                states = torch.lstm(ordered, (zeros, zeros), weights, True, 1, 0, self.training, False, True)
                outputs.append(states[0])
            final = torch.cat([_reordered(states, last)[:, 0] for states in outputs], dim=1)
            in_time = [outputs[0], *(_reordered(states, backwards) for states in outputs[1:])]
            frames = torch.cat(in_time, dim=2)
        return frames, final


def _reordered(frames: Tensor, places: Tensor) -> Tensor:
    """The frames at some places of each clip [shape=(batch, places, width)]."""
    return frames.gather(1, places[:, :, None].expand(-1, -1, frames.shape[2]))
