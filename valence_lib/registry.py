"""Models, input features and presets by name, and the settings of a training.

A training is stale when its model's module, its resolved settings or its `entries_of` change, not when a line
is added here.
"""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any, NamedTuple

from valence_lib.errors import SettingsError, unknown_name
from valence_lib.settings import TrainingSettings


class Model(NamedTuple):
    """A model of the registry: where its class is, and how it is trained.

    Args:
        source: module:class.
        recipe: what differs from `TrainingSettings`.
        presets: where some are named, only reports with PRESET=best show the model, with these presets.
        fitted: whether it is fitted in one step, without epochs and without randomness.
    """

    source: str
    recipe: Mapping[str, Any] = {}
    presets: tuple[str, ...] = ()
    fitted: bool = False

    @property
    def module(self) -> str:
        """The module that holds its class."""
        return self.source.partition(":")[0]

    @property
    def name(self) -> str:
        """The name of its class."""
        return self.source.partition(":")[2]


class Stream(NamedTuple):
    """Input features of a clip: a function of the stream's name, in a module.

    Args:
        module: that holds the function, which is called with `of` and `FeatureSettings` and returns
            [shape=(rows, width), dtype=float32].
        of: "waveform" [shape=(n_samples,)], or "log_mel" [shape=(frames, n_mels)].
        per: "frame" for as many rows as the log-mel spectrogram has frames, aligned with them; "clip" for one
            row, or for one row a layer of an encoder.
        groups: number of equal groups of columns, such as means and deviations.
        needs: a package without which it cannot be computed.
        command: that installs it.
    """

    module: str
    of: str = "waveform"
    per: str = "frame"
    groups: int = 1
    needs: str = ""
    command: str = ""


STREAMS = {
    "log_mel": Stream("valence_lib.features.log_mel"),
    "pitch": Stream("valence_lib.features.pitch"),
    "voice_statistics": Stream("valence_lib.features.voice_statistics", per="clip"),
    "log_mel_statistics": Stream("valence_lib.features.log_mel_statistics", of="log_mel", per="clip"),
    "speaker_encoder": Stream(
        "valence_lib.features.speaker_encoder",
        per="clip",
        groups=2,
        needs="resemblyzer",
        command="make encoder",
    ),
    "encoder": Stream(
        "valence_lib.features.encoders",
        per="clip",
        groups=2,
        needs="transformers",
        command='pip install "valence-lib[encoders]"',
    ),
    "egemaps": Stream(
        "valence_lib.features.opensmile",
        per="clip",
        needs="opensmile",
        command='pip install "valence-lib[opensmile]"',
    ),
}

MODELS = {
    # The course report's; the slowest to train last.
    "LSTM1": Model("valence_lib.models.lstm1:LSTM1"),
    "CNN": Model("valence_lib.models.cnn:CNN"),
    "LSTM2": Model(
        "valence_lib.models.lstm2:LSTM2",
        {"learning_rate_period": 5, "learning_rate_factor": 0.5, "weight_decay": 1e-4},
    ),
    # The hybrid that the course report proposes.
    "CNNLSTM": Model("valence_lib.models.cnn_lstm:CNNLSTM", presets=("default",)),
    # Baselines.
    "Ridge": Model("valence_lib.models.ridge:Ridge", {"streams": ("log_mel_statistics",)}, fitted=True),
    "SVR": Model("valence_lib.models.svr:SVR", {"streams": ("log_mel_statistics",)}, fitted=True),
    "EgemapsSVR": Model(
        "valence_lib.models.svr:SVR", {"streams": ("egemaps",)}, presets=("default", "speaker"), fitted=True
    ),
    # The best model.
    "GaussianProcess": Model(
        "valence_lib.models.gaussian_process:GaussianProcess",
        {"streams": ("voice_statistics", "speaker_encoder")},
        fitted=True,
    ),
}
COURSE_MODELS = ("LSTM1", "CNN", "LSTM2")  # the course report's
BEST_MODEL = "GaussianProcess"
# Those that read frames, and are trained in epochs; the others are fitted to one row of numbers a clip.
NETWORKS = tuple(name for name, entry in MODELS.items() if not entry.fitted)

PRESETS: dict[str, dict[str, Any]] = {
    "default": {"standardise": "train"},
    "course": {"standardise": "none"},  # raw decibels, as in the course report
    "clip": {"standardise": "clip"},
    "speaker": {"standardise": "speaker"},
    "tuned": {},  # the best trial of a sweep, given as changes
}


class Ablation(NamedTuple):
    """One line of the ablation table: input features taken away from the best model, or added to it.

    Args:
        words: which, in the report.
        added: whether they are added; else they are taken away.
        streams: what the model then takes.
    """

    words: str
    added: bool
    streams: tuple[str, ...]


_BEST_STREAMS = MODELS[BEST_MODEL].recipe["streams"]
ABLATIONS = {
    "without-voice": Ablation("the voice statistics", False, ("speaker_encoder",)),
    "without-encoder": Ablation("the speaker encoder", False, ("voice_statistics",)),
    "with-log-mel": Ablation("statistics of the log-mel bands", True, (*_BEST_STREAMS, "log_mel_statistics")),
}
PRESETS |= {name: {**PRESETS["default"], "streams": line.streams} for name, line in ABLATIONS.items()}
# With an encoder that the user names.
ENCODER_PRESETS = ("encoder", "encoder-speaker")
PRESETS |= {
    name: {"standardise": standardise, "streams": (*_BEST_STREAMS, "encoder")}
    for name, standardise in zip(ENCODER_PRESETS, ("train", "speaker"), strict=True)
}


def model_entry(name: str) -> Model:
    """The entry of a model.

    Raises:
        SettingsError: unknown name; the message names the nearest.
    """
    if name not in MODELS:
        raise SettingsError(unknown_name("model", name, MODELS))
    return MODELS[name]


def check_streams(streams: Sequence[str]) -> None:
    """Refuse input features that cannot be concatenated.

    Args:
        streams: names, of which "encoder:3" is layer 3 of those of "encoder".

    Raises:
        SettingsError: one of them is unknown (the message names the nearest), the part after the colon is no
            number of a layer, or some have a row a frame and some one a clip.
    """
    names = [name.partition(":")[0] for name in streams]
    for name, given in zip(names, streams, strict=True):
        if name not in STREAMS:
            raise SettingsError(unknown_name("stream", name, STREAMS))
        if given == name:
            continue
        if STREAMS[name].per == "frame":
            raise SettingsError(f"the stream {given!r} names a layer, but {name} has one row a frame.")
        if not given.partition(":")[2].isdecimal():
            raise SettingsError(f"the stream {given!r} names no layer; expected a number, as in 'encoder:3'.")
    if len({STREAMS[name].per for name in names}) != 1:
        found = ", ".join(f"{name} has one row a {STREAMS[name].per}" for name in names) or "there is none"
        raise SettingsError(
            f"streams={list(streams)} cannot be concatenated: {found}. Name one or more streams of one kind."
        )


def training_settings(model: str, preset: str, seed: int, **changes: Any) -> TrainingSettings:
    """The settings of one training: the model's recipe, then the preset, then `changes`.

    Raises:
        SettingsError: unknown model, preset, stream or parameter (the message names the nearest).
    """
    recipe = model_entry(model).recipe
    if preset not in PRESETS:
        raise SettingsError(unknown_name("preset", preset, PRESETS))
    named = {"model": model, "preset": preset, "seed": seed}
    settings = TrainingSettings.from_mapping({**recipe, **PRESETS[preset], **named, **changes})
    check_streams(settings.streams)
    per = _stream_of(settings.streams[0]).per
    expected = "clip" if model_entry(model).fitted else "frame"
    if per != expected:
        known = [name for name, stream in STREAMS.items() if stream.per == expected]
        raise SettingsError(
            f"streams={list(settings.streams)} have one row a {per}, but {model} takes one row a {expected}; "
            f"expected some of {', '.join(known)}."
        )
    if per == "clip" and settings.standardise == "clip":
        raise SettingsError(
            f"standardise='clip' was given for {list(settings.streams)}, of which a clip has one row, which "
            "would become 0; expected 'train', 'speaker' or 'none'."
        )
    return settings


def missing_packages(streams: Sequence[str]) -> dict[str, str]:
    """Packages that these input features need and lack, with the commands that install them."""
    entries = [_stream_of(name) for name in streams]
    return {entry.needs: entry.command for entry in entries if entry.needs and find_spec(entry.needs) is None}


def entries_of(settings: TrainingSettings) -> dict[str, Any]:
    """What a training takes from the registry beyond its settings, for digests: its class and its streams."""
    streams = {name: _stream_of(name)._asdict() for name in settings.streams}
    return {"model": MODELS[settings.model].source, "streams": streams}


def modules_of(settings: TrainingSettings) -> list[str]:
    """The modules of a training's model and input features."""
    return [MODELS[settings.model].module, *(_stream_of(name).module for name in settings.streams)]


def _stream_of(name: str) -> Stream:
    """The entry of a stream by its name in a setting, which may name a layer, as in "encoder:3"."""
    return STREAMS[name.partition(":")[0]]
