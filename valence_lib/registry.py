"""What can be asked for by name: the models and the presets, one line each, and the settings that they stand for.

A training is stale when its own model's module or its own resolved settings change, not when a line is added
here (`provenance` sees to that), so that a new model or preset leaves all finished trainings as they are.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from valence_lib.errors import SettingsError, unknown_name
from valence_lib.settings import TrainingSettings


class Model(NamedTuple):
    """A model of the registry: the module that holds its class, which has its name, and how it is trained."""

    module: str
    recipe: Mapping[str, Any] = {}  # what differs from `TrainingSettings`


# What the course report says of each; the slowest to train last.
MODELS = {
    "LSTM1": Model("valence_lib.models.lstm1"),
    "CNN": Model("valence_lib.models.cnn"),
    "LSTM2": Model(
        "valence_lib.models.lstm2",
        {"learning_rate_period": 5, "learning_rate_factor": 0.5, "weight_decay": 1e-4},
    ),
}

PRESETS: dict[str, dict[str, Any]] = {
    "default": {"standardise": "train"},
    "seed": {"standardise": "none"},  # raw decibels, as in the course report
    "clip": {"standardise": "clip"},
    "speaker": {"standardise": "speaker"},
    "tuned": {},  # what a sweep found best, which comes as changes: see `sweeping`
}


def model_entry(name: str) -> Model:
    """The registry's line of a model.

    Raises:
        SettingsError: unknown name; the message names the nearest.
    """
    if name not in MODELS:
        raise SettingsError(unknown_name("model", name, MODELS))
    return MODELS[name]


def training_settings(model: str, preset: str, seed: int, **changes: Any) -> TrainingSettings:
    """The settings of one training: the model's recipe, then the preset, then `changes`.

    Raises:
        SettingsError: unknown model, preset or parameter (the message names the nearest).
    """
    recipe = model_entry(model).recipe
    if preset not in PRESETS:
        raise SettingsError(unknown_name("preset", preset, PRESETS))
    named = {"model": model, "preset": preset, "seed": seed}
    return TrainingSettings.from_mapping({**recipe, **PRESETS[preset], **named, **changes})
