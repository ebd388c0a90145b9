"""Every parameter of a run, as frozen dataclasses with units.

Settings are made from names and values (`from_mapping`), which refuses an unknown name and a
value of the wrong type, and are identified by `digest`, which artefacts carry.
"""

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from valence_lib.errors import SettingsError, unknown_name

STANDARDISE = ("train", "clip", "speaker", "none")
PRECISIONS = ("float32", "bfloat16")
PROTOCOLS = ("holdout", "cv", "corpora")
# Columns of the tables of clips and of predictions.
RESERVED: tuple[str, ...] = (
    "index",
    "id",
    "file",
    "subset",
    "speaker",
    "corpus",
    "n_samples",
    "duration_seconds",
    "digest",
)
RESERVED += ("shard", "first_frame", "fold", "start", "end", "low", "high", "truth", "prediction", "error")
FEATURES_FOLDER = ".features"  # beside the reports; shared by all reports on the same clips


class _Settings:
    """What all settings share: strict construction, a plain mapping, and a digest."""

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Self:
        """Settings from names and values.

        Raises:
            SettingsError: a name is unknown (the message names the nearest), a value has the wrong
                type, or it is outside its range.
        """
        fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
        converted: dict[str, Any] = {}
        for name, value in values.items():
            if name not in fields:
                raise SettingsError(unknown_name("parameter", name, fields))
            default = fields[name].default
            # JSON has no tuples, and a notebook may give 1 for 1.0.
            if isinstance(default, tuple) and isinstance(value, list | tuple):
                value = tuple(value)
            elif isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
                value = float(value)
            is_kind = isinstance(value, bool) == isinstance(default, bool) and isinstance(
                value, type(default)
            )
            if isinstance(value, tuple) and not all(isinstance(part, str) for part in value):
                raise SettingsError(
                    f"{name}={value!r} holds values that are not strings; expected strings, as in "
                    f"{name}={default!r}."
                )
            if not is_kind:
                raise SettingsError(
                    f"{name}={value!r} is of type {type(value).__name__}, but {name} is of type "
                    f"{type(default).__name__}; give it as in {name}={default!r}."
                )
            if isinstance(value, float) and not math.isfinite(value):
                raise SettingsError(f"{name}={value!r} cannot be used: expected a finite number.")
            converted[name] = value
        return cls(**converted)

    def to_mapping(self) -> dict[str, Any]:
        """Names and values in the order of definition, ready for JSON."""
        values = dataclasses.asdict(self)  # type: ignore[call-overload]
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    def digest(self) -> str:
        """SHA-256 of the settings' canonical JSON, as 64 hexadecimal digits."""
        text = json.dumps(self.to_mapping(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(f"{type(self).__name__}{text}".encode()).hexdigest()


def _require(condition: bool, name: str, value: object, expected: str) -> None:
    if not condition:
        raise SettingsError(f"{name}={value!r} cannot be used: expected {expected}.")


@dataclass(frozen=True)
class FeatureSettings(_Settings):
    """The log-mel spectrogram. The defaults are the course report's, with librosa's `top_db`."""

    sample_rate: int = 8000  # Hz; every waveform is brought to it
    n_fft: int = 2048  # samples in a frame
    hop_length: int = 512  # samples between successive frames
    n_mels: int = 128  # mel bands between 0 Hz and half the sample rate
    top_db: float = 80.0  # decibels below the clip's loudest band at which quieter ones are cut off
    encoder: str = (
        ""  # digest of the folder of a pretrained encoder, as `encoders.use_encoder` gives it; "" for none
    )
    encoder_layer: str = "auto"  # the number of one of its layers; "auto" keeps all, and the training chooses

    def __post_init__(self) -> None:
        for name in ("sample_rate", "n_fft", "hop_length", "n_mels"):
            _require(getattr(self, name) > 0, name, getattr(self, name), "a number above 0")
        _require(self.n_fft % 2 == 0, "n_fft", self.n_fft, "an even number of samples")
        _require(self.top_db > 0, "top_db", self.top_db, "decibels above 0")
        is_layer = self.encoder_layer == "auto" or self.encoder_layer.isdecimal()
        _require(is_layer, "encoder_layer", self.encoder_layer, "the number of a layer, or 'auto'")

    def frames(self, n_samples: int) -> int:
        """How many centred frames a waveform of `n_samples` samples has."""
        return 1 + n_samples // self.hop_length

    @property
    def short_hop_length(self) -> int:
        """Samples between the short frames that go beside these: eight to a hop."""
        return max(1, self.hop_length // 8)

    @property
    def short_n_fft(self) -> int:
        """Samples in a short frame, an even number: 32 ms, which follow the vocal tract."""
        return max(2, round(0.032 * self.sample_rate / 2) * 2)


@dataclass(frozen=True)
class Target(_Settings):
    """What is rated and predicted, with the scale of its ratings."""

    name: str = "valence"  # also that of the column with the ratings
    low: float = 1.0  # the lowest and
    high: float = 5.0  # the highest rating that is possible on the scale

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[^\W\d][\w .-]*", self.name) or self.name in RESERVED:
            raise SettingsError(
                f"TARGET={self.name} cannot name what is predicted; expected the name of a column of "
                f"ratings, of letters, digits, spaces, '.', '_' and '-', and none of {', '.join(RESERVED)}."
            )
        _require(self.high > self.low, "high", self.high, f"a number above low={self.low!r}")


@dataclass(frozen=True)
class CorpusSettings(_Settings):
    """Which clips of a corpus are admitted, and how they are split."""

    clips_per_speaker: int = 0  # the first clips of each speaker that are taken; 0 takes all
    seed: int = 0  # of the split

    def __post_init__(self) -> None:
        _require(self.clips_per_speaker >= 0, "clips_per_speaker", self.clips_per_speaker, "0 or more")
        _require(self.seed >= 0, "seed", self.seed, "0 or more")


@dataclass(frozen=True)
class TrainingSettings(_Settings):
    """One training. `registry.training_settings` fills it from a model's and a preset's names."""

    model: str = "LSTM2"
    preset: str = "default"
    seed: int = 0
    epochs: int = 20
    batch_size: int = 16  # clips; the course report does not say. Small corpora need the many steps
    learning_rate: float = 1e-3  # Adam's, in the first epoch
    learning_rate_period: int = 0  # epochs between two reductions of the learning rate; 0 never reduces
    learning_rate_factor: float = 1.0  # what each reduction multiplies the learning rate by
    weight_decay: float = 0.0  # L2 regularisation, as Adam adds it to the gradient
    max_gradient_norm: float = 1.0  # longer gradients of a batch are scaled down to this Euclidean norm
    streams: tuple[str, ...] = ("log_mel",)  # the input features, side by side; see `registry.STREAMS`
    standardise: str = "train"  # where each column's mean and deviation come from; see STANDARDISE
    precision: str = "float32"  # of a training's large products; predictions are in float32. See PRECISIONS

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "learning_rate", "learning_rate_factor", "max_gradient_norm"):
            _require(getattr(self, name) > 0, name, getattr(self, name), "a number above 0")
        for name in ("seed", "learning_rate_period", "weight_decay"):
            _require(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")
        if self.standardise not in STANDARDISE:
            raise SettingsError(unknown_name("way to standardise", self.standardise, STANDARDISE))
        if self.precision not in PRECISIONS:
            raise SettingsError(unknown_name("precision", self.precision, PRECISIONS))
