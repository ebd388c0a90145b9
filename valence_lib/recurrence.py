"""LSTM layers over padded clips, in which padding changes no output of a clip's own frames.

torch runs padded clips many times as fast as packed ones on a CPU, but starts the backward direction in the padding. Here each
clip is reversed within its own length instead, and the backward direction runs forwards over it.
"""

import torch
from torch import Tensor, nn


class LSTM(nn.LSTM):
    """`torch.nn.LSTM` over padded clips: the same weights and names, and the outputs that it gives for packed clips."""

    def forward(self, frames: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Outputs of every frame, and of the last layer's last step in each direction.

        Args:
            frames [shape=(batch, frames, input_size)]: padded on the right, with anything finite.
            lengths [shape=(batch,)]: how many of the frames are the clip's own, at least 1.

        Returns:
            Outputs of the last layer [shape=(batch, frames, hidden_size * directions)], of which those beyond a clip's end are
            of no use, and its final states [shape=(batch, hidden_size * directions)].
        """
        last = lengths.to(frames.device)[:, None] - 1
        places = torch.arange(frames.shape[1], device=frames.device)
        order = torch.where(places <= last, last - places, places)  # of each clip's own frames, backwards
        zeros = frames.new_zeros(1, len(frames), self.hidden_size)
        suffixes = ("", "_reverse") if self.bidirectional else ("",)
        for layer in range(self.num_layers):
            if layer:
                frames = nn.functional.dropout(frames, self.dropout, self.training)
            outputs = []
            for suffix in suffixes:
                given = _reordered(frames, order) if suffix else frames
                names = [
                    f"{kind}_l{layer}{suffix}" for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
                ]
                weights = [getattr(self, name) for name in names]
                states, _, _ = torch.lstm(
                    given, (zeros, zeros), weights, True, 1, 0.0, self.training, False, True
                )
                outputs.append(states)
            final = torch.cat([_reordered(states, last)[:, 0] for states in outputs], dim=1)
            frames = torch.cat([outputs[0], *(_reordered(states, order) for states in outputs[1:])], dim=2)
        return frames, final


def _reordered(frames: Tensor, places: Tensor) -> Tensor:
    """The frames at some places of each clip [shape=(batch, places, width)]."""
    return frames.gather(1, places[:, :, None].expand(-1, -1, frames.shape[2]))
