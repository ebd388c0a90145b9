"""The models: from what is heard of clips of unlike length, such as log-mel frames, to one valence a clip.

Every model is made with the number of columns that it is to hear, and called as `model(frames, lengths)`:

    frames [shape=(batch, frames, width), dtype=float32]: padded on the right, with anything finite. Where a stream has one
        row a clip, that is one frame.
    lengths [shape=(batch,), dtype=int64, on the CPU]: how many of the frames are the clip's own, at least 1.
    returns [shape=(batch,)]: valence, in rating points.

Padding never changes a prediction: a clip alone and the same clip beside a longer one give the same
number, because every layer either never looks to the right of a clip's end or finds zeros there, as
it would find them beyond the end of the clip alone.

A model with a method `fit(vectors, truth, speakers)` is fitted by it in one step instead of epochs; one with `begin_at(valence)`
is told the mean rating of its training clips before the first. One with a method `read(frames, lengths)`, whose result a
layer `linear` tells valence from, can learn side tasks.

Each model has a module of its own, so that a change of one leaves the trainings of the others as they are; a new
one is one class in such a module and one line in `valence_lib.registry.MODELS`.
"""

from importlib import import_module

from torch import nn

from valence_lib.registry import model_entry


def build_model(name: str, width: int = 128) -> nn.Module:
    """A new model of the registry, with fresh weights from torch's global generator.

    Raises:
        SettingsError: unknown name; the message names the nearest.
    """
    entry = model_entry(name)
    return getattr(import_module(entry.module), entry.name)(width)


def count_parameters(model: nn.Module) -> int:
    """How many numbers training adjusts, or a fit leaves."""
    adjusted = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    return adjusted or sum(buffer.numel() for buffer in model.buffers())
