"""What can be asked for by name: the models and the presets, one line each, and the settings that they stand for.

A training is stale when its own model's module or its own resolved settings change, not when a line is added
here (`provenance` sees to that), so that a new model or preset leaves all finished trainings as they are.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from valence_lib.errors import SettingsError, unknown_name
from valence_lib.settings import TrainingSettings


class Model(NamedTuple):
    """A model of the registry: where its class is, and how it is trained.

    Args:
        source: module:class; "" for a blend, whose recipe names its members.
        recipe: what differs from `TrainingSettings`.
        presets: where some are named, reports with PRESET=best show it, with these presets; else every report does.
        one_seed: whether chance plays no part in its training.
        needs: a package without which it is left out.
        alone: whether it has runs of its own; else it is trained as a member of blends, which give it its rows.
    """

    source: str
    recipe: Mapping[str, Any] = {}
    presets: tuple[str, ...] = ()
    one_seed: bool = False
    needs: str = ""
    alone: bool = True

    @property
    def module(self) -> str:
        """The module that holds its class."""
        return self.source.partition(":")[0]

    @property
    def name(self) -> str:
        """The name of its class."""
        return self.source.partition(":")[2]


class Stream(NamedTuple):
    """What models can hear of a clip, as rows of numbers: a function of the stream's name, in a module.

    Args:
        module: that holds the function, which is called with `of` and `FeatureSettings` and returns
            [shape=(rows, width), dtype=float32].
        of: "waveform" [shape=(n_samples,)], or "log_mel" [shape=(frames, n_mels)], which is at hand without reading
            the corpus again.
        per: "frame" for as many rows as the log-mel spectrogram has frames, aligned with them; "clip" for one row.
    """

    module: str
    of: str = "waveform"
    per: str = "frame"


STREAMS = {
    "log_mel": Stream("valence_lib.features"),
    "voice": Stream("valence_lib.voice"),
    "fine_mel": Stream("valence_lib.fine_mel"),
    "fine_timbre": Stream("valence_lib.fine_mel"),
    "voice_statistics": Stream("valence_lib.voice_statistics", per="clip"),
    "frame_statistics": Stream("valence_lib.frame_statistics", per="clip"),
    "log_mel_statistics": Stream("valence_lib.log_mel_statistics", of="log_mel", per="clip"),
    "egemaps": Stream("valence_lib.opensmile_features", per="clip"),
    "compare_2016": Stream("valence_lib.opensmile_features", per="clip"),
}

_ON_STATISTICS: dict[str, Any] = {"streams": "log_mel_statistics", "refit": True}
_NEURAL: dict[str, Any] = {
    "loss": "mse+ccc",
    "side_weight": 0.3,
    "mask_frames": 8,
    "mask_columns": 6,
    "averaged_epochs": 5,
    "refit": True,
}

MODELS = {
    # What the course report says of each; the slowest to train last.
    "LSTM1": Model("valence_lib.models.lstm1:LSTM1"),
    "CNN": Model("valence_lib.models.cnn:CNN"),
    "LSTM2": Model(
        "valence_lib.models.lstm2:LSTM2",
        {"learning_rate_period": 5, "learning_rate_factor": 0.5, "weight_decay": 1e-4},
    ),
    # Baselines.
    "Ridge": Model("valence_lib.models.ridge:Ridge", _ON_STATISTICS, one_seed=True),
    "SVR": Model("valence_lib.models.svr:SVR", _ON_STATISTICS, one_seed=True),
    "EgemapsSVR": Model(
        "valence_lib.models.svr:SVR",
        {"streams": "egemaps", "refit": True},
        presets=("default", "speaker"),
        one_seed=True,
        needs="opensmile",
    ),
    # Ours, alone and together; the presets give the networks their streams.
    "VoiceSVR": Model(
        "valence_lib.models.svr:SVR", {"streams": "voice_statistics", "refit": True}, alone=False
    ),
    "VoiceRegression": Model(
        "valence_lib.models.lasso_or_svr:LassoOrSVR",
        {"streams": "voice_statistics+frame_statistics", "refit": True},
        alone=False,
    ),
    "AttentionLSTM": Model("valence_lib.models.attention_lstm:AttentionLSTM", _NEURAL, alone=False),
    "CNNLSTM": Model("valence_lib.models.cnn_lstm:CNNLSTM", _NEURAL, presets=("best",)),
    "Blend": Model("", {"members": "VoiceSVR+AttentionLSTM"}, presets=("best", "best-speaker")),
}
SEED_MODELS = ("LSTM1", "CNN", "LSTM2")  # the course report's
# Those that read frames, and are trained in epochs; the others are fitted to one row of numbers a clip, or blended.
NETWORKS = tuple(
    name
    for name, entry in MODELS.items()
    if entry.source and STREAMS[entry.recipe.get("streams", "log_mel").split("+")[0]].per == "frame"
)

PRESETS: dict[str, dict[str, Any]] = {
    "default": {"standardise": "train"},
    "seed": {"standardise": "none"},  # raw decibels, as in the course report
    "clip": {"standardise": "clip"},
    "speaker": {"standardise": "speaker"},
    "best": {"standardise": "train", "streams": "voice+fine_timbre"},
    # Beside the same speaker's other clips, a clip's level and mean spectrum say how the voice is used; beside other
    # recordings, they say whose it is, and mislead.
    "best-speaker": {
        "standardise": "speaker",
        "streams": "voice+fine_mel",
        "members": "VoiceRegression+AttentionLSTM",
    },
    "tuned": {},  # what a sweep found best, which comes as changes: see `sweeping`
}


class Ingredient(NamedTuple):
    """One line of the ablation ledger: what is taken away from the best model, or added to it.

    Args:
        words: what it is, in the report.
        added: whether it is added; else it is taken away.
        changes: of the settings of the model.
    """

    words: str
    added: bool
    changes: Mapping[str, Any]


LEDGER = {
    "no-ccc": Ingredient("CCC in the loss", False, {"loss": "mse"}),
    "no-side-tasks": Ingredient("side tasks (arousal, dominance, emotion)", False, {"side_weight": 0.0}),
    "no-masks": Ingredient("masks over time and frequency", False, {"mask_frames": 0, "mask_columns": 0}),
    "no-average": Ingredient("the mean of the last epochs' weights", False, {"averaged_epochs": 1}),
    "no-refit": Ingredient("training on validation clips too", False, {"refit": False}),
    "no-voice": Ingredient("pitch, voicing and intensity for the network", False, {"streams": "fine_timbre"}),
    "no-fine": Ingredient(
        "short frames (the course's log-mel in their place)", False, {"streams": "voice+log_mel"}
    ),
    "by-speaker": Ingredient("standardising by speaker", True, {"standardise": "speaker"}),
    "convolutions": Ingredient(
        "the hybrid of convolutions and LSTM as a third member",
        True,
        {"members": "VoiceSVR+AttentionLSTM+CNNLSTM"},
    ),
    "long-frames": Ingredient(
        "the course's log-mel for the network", True, {"streams": "voice+fine_timbre+log_mel"}
    ),
}
LEDGER_MODEL = "Blend"
PRESETS |= {f"best-{name}": {**PRESETS["best"], **line.changes} for name, line in LEDGER.items()}


def model_entry(name: str) -> Model:
    """The registry's line of a model.

    Raises:
        SettingsError: unknown name; the message names the nearest.
    """
    if name not in MODELS:
        raise SettingsError(unknown_name("model", name, MODELS))
    return MODELS[name]


def streams_named(names: str) -> tuple[str, ...]:
    """The streams that a setting such as "log_mel+voice" names, side by side in this order.

    Raises:
        SettingsError: one of them is unknown (the message names the nearest), or some have a row a frame and some
            one a clip.
    """
    streams = tuple(names.split("+"))
    for name in streams:
        if name not in STREAMS:
            raise SettingsError(unknown_name("stream", name, STREAMS))
    if len({STREAMS[name].per for name in streams}) > 1:
        said = ", ".join(f"{name} has one row a {STREAMS[name].per}" for name in streams)
        raise SettingsError(
            f"streams={names!r} cannot stand side by side: {said}. Name streams of one kind, or blend two models."
        )
    return streams


def training_settings(model: str, preset: str, seed: int, **changes: Any) -> TrainingSettings:
    """The settings of one training, or of a blend: the model's recipe, then the preset, then `changes`.

    A preset's streams are frames, for networks; models that are fitted to one row a clip keep their own. Its members are
    for blends.

    Raises:
        SettingsError: unknown model, preset, stream or parameter (the message names the nearest).
    """
    recipe = model_entry(model).recipe
    if preset not in PRESETS:
        raise SettingsError(unknown_name("preset", preset, PRESETS))
    of_preset = dict(PRESETS[preset])
    if "members" not in recipe:
        of_preset.pop("members", None)
        if model not in NETWORKS:
            of_preset.pop("streams", None)
    named = {"model": model, "preset": preset, "seed": seed}
    settings = TrainingSettings.from_mapping({**recipe, **of_preset, **named, **changes})
    per = STREAMS[streams_named(settings.streams)[0]].per
    if per == "clip" and settings.standardise == "clip":
        raise SettingsError(
            f"standardise='clip' was given for {settings.streams}, of which a clip has one row, which would become 0; "
            "expected 'train', 'speaker' or 'none'."
        )
    return settings


def trainings(model: str, preset: str, seed: int, **changes: Any) -> dict[str, TrainingSettings]:
    """The settings of every training that a run consists of, by the member's name; "" where it is the run itself.

    Raises:
        SettingsError: as for `training_settings`, also for a member of a blend.
    """
    settings = training_settings(model, preset, seed, **changes)
    if not settings.members:
        return {"": settings}
    found = {}
    for member in settings.members.split("+"):
        left_out = {"members"} if member in NETWORKS else {"members", "streams", "side_weight"}
        own = {name: value for name, value in changes.items() if name not in left_out}
        found[member] = replace(training_settings(member, preset, seed, **own), members="")
    return found


def modules_of(settings: TrainingSettings) -> list[str]:
    """The modules that a training reaches by the registry's names: its model's, and those of what it hears."""
    return [
        MODELS[settings.model].module,
        *(STREAMS[name].module for name in streams_named(settings.streams)),
    ]
