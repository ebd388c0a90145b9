"""Models by name, and their size."""

from collections.abc import Sequence
from importlib import import_module

from torch import nn

from valence_lib.models.contract import ValenceModel
from valence_lib.registry import model_entry


def build_model(name: str, widths: Sequence[int] = (128,)) -> ValenceModel:
    """A new model of the registry, with weights from torch's global generator.

    Args:
        widths: columns of each group of its input.

    Raises:
        SettingsError: unknown name; the message names the nearest.
    """
    entry = model_entry(name)
    model = getattr(import_module(entry.module), entry.name)
    return model(widths) if entry.fitted else model(sum(widths))


def count_parameters(model: nn.Module) -> int:
    """Numbers that training adjusts, or that a fit sets."""
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    return trained or sum(buffer.numel() for buffer in model.buffers())
