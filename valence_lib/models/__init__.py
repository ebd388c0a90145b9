"""The models: from the input features of clips of unlike length, such as log-mel frames, to one valence a clip.

A network is made with the number of columns of its input, a model that is fitted in one step with the number of columns of
each group (see `registry.Stream`). Both are called as `model(frames, lengths)`:

    frames [shape=(batch, frames, width), dtype=float32]: padded on the right, with anything finite. Where a stream has one
        row a clip, that is one frame.
    lengths [shape=(batch,), dtype=int64, on the CPU]: how many of the frames are the clip's own, at least 1.
    returns [shape=(batch,)]: valence, in rating points.

Padding never changes a prediction: a clip alone and the same clip beside a longer one give the same
number, because every layer either never looks to the right of a clip's end or finds zeros there, as
it would find them beyond the end of the clip alone.

A model that the registry calls `fitted` has a method `fit(vectors, truth, speakers)`.

Each model has a module of its own, so that a change of one leaves the trainings of the others as they are; a new
one is one class in such a module and one line in `valence_lib.registry.MODELS`.
"""

from collections.abc import Sequence
from importlib import import_module

from torch import nn

from valence_lib.registry import model_entry


def build_model(name: str, widths: Sequence[int] = (128,)) -> nn.Module:
    """A new model of the registry, with fresh weights from torch's global generator.

    Args:
        widths: columns of each group of its input.

    Raises:
        SettingsError: unknown name; the message names the nearest.
    """
    entry = model_entry(name)
    model = getattr(import_module(entry.module), entry.name)
    return model(widths) if entry.fitted else model(sum(widths))


def count_parameters(model: nn.Module) -> int:
    """How many numbers training adjusts, or a fit leaves."""
    adjusted = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    return adjusted or sum(buffer.numel() for buffer in model.buffers())
