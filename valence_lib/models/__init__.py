"""The models: from log-mel frames of clips of unlike length to one valence a clip.

Every model is called as `model(log_mel, lengths)`:

    log_mel [shape=(batch, frames, n_mels), dtype=float32]: padded on the right, with anything finite.
    lengths [shape=(batch,), dtype=int64, on the CPU]: how many of the frames are the clip's own, at least 1.
    returns [shape=(batch,)]: valence, in rating points.

Padding never changes a prediction: a clip alone and the same clip beside a longer one give the same
number, because every layer either never looks to the right of a clip's end or finds zeros there, as
it would find them beyond the end of the clip alone.

Each model has a module of its own, so that a change of one leaves the trainings of the others as they are; a new
one is one class in such a module and one line in `valence_lib.registry.MODELS`.
"""

from importlib import import_module

from torch import nn

from valence_lib.registry import model_entry


def build_model(name: str, n_mels: int = 128) -> nn.Module:
    """A new model of the registry, with fresh weights from torch's global generator.

    Raises:
        SettingsError: unknown name; the message names the nearest.
    """
    return getattr(import_module(model_entry(name).module), name)(n_mels)


def count_parameters(model: nn.Module) -> int:
    """How many numbers training adjusts."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
