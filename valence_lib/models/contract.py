"""What every model does: from the padded input features of a batch of clips to one valence per clip.

Padding never changes a prediction: every layer either stops at a clip's end or finds zeros beyond it.

A new model is one class in a module of its own and one line in `valence_lib.registry.MODELS`.
"""

from abc import ABC, abstractmethod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Array = NDArray[np.float64]


class ValenceModel(nn.Module, ABC):
    """A model that predicts. A network is made with the width of its input and trained in epochs."""

    @abstractmethod
    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """Valence of each clip.

        Args:
            frames [shape=(batch, frames, width), dtype=float32]: padded on the right with any finite
                number. A stream with one row per clip has one frame.
            lengths [shape=(batch,), dtype=int64, on the CPU]: how many frames are the clip's own, at least 1.

        Returns:
            Rating points [shape=(batch,)].
        """


class OneStepModel(ValenceModel):
    """A model that is fitted in one step to one row per clip.

    `fit` sets its buffers, whose sizes vary.

    Args:
        widths: columns of each group of its input.
    """

    @abstractmethod
    def fit(self, vectors: Array, truth: Array, speakers: NDArray[np.str_]) -> None:
        """Fit the model.

        Args:
            vectors [shape=(clips, sum(widths))]: standardised.
            truth [shape=(clips,)]: ratings.
            speakers [shape=(clips,)]: "" where unknown.
        """

    def _set(self, **values: Array | float) -> None:
        """Set buffers, in single precision."""
        for name, value in values.items():
            setattr(self, name, torch.as_tensor(np.asarray(value, np.float32)))

    def _load_from_state_dict(self, state, prefix, *rest):  # type: ignore[no-untyped-def]
        for name, _ in list(self.named_buffers(recurse=False)):
            if prefix + name in state:
                setattr(self, name, torch.empty_like(state[prefix + name]))
        super()._load_from_state_dict(state, prefix, *rest)


def own_frames(frames: int, lengths: Tensor) -> Tensor:
    """Which frames of padded clips are a clip's own [shape=(batch, frames)]; on the device of `lengths`."""
    return torch.arange(frames, device=lengths.device) < lengths[:, None]
