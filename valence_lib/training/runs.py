"""A trained model on disk: weights, standardiser and resolved settings, and predictions by it.

runs/<run>/
  settings.json       the resolved settings of features and training, and the model's size
  best.safetensors    weights of the epoch with the lowest validation MSE, and the standardiser
  history.csv         one row per epoch
  validation.csv      one-step models: predictions of the validation clips by a fit without them
  finished.json       digest of the training
  .training/          an unfinished training, with the checkpoint from which it resumes

The run of a cross-validation has such a folder for each fold, named as "members" in its settings.json; it
predicts the mean of the folds' predictions.
"""

import dataclasses
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from valence_lib.corpora.waveforms import Waveform, check_waveform, read_audio, to_waveform
from valence_lib.errors import RunError, SettingsError
from valence_lib.features.log_mel import check_samples
from valence_lib.features.standardise import Standardiser
from valence_lib.features.streams import ClipFeatures, Rows
from valence_lib.files import atomic_write, write_json
from valence_lib.models.build import build_model, count_parameters
from valence_lib.settings import FeatureSettings, Target, TrainingSettings
from valence_lib.training.batches import Batch, load, within_frames

# Frames per predicted batch, padding included.
_FRAMES_PER_BATCH = 512  # 40 MB of the CNN's maps
_FRAMES_PER_RECURRENT_BATCH = 8192  # a recurrent layer needs many clips at each step: 10 kB per frame

# Raised where a file is missing, truncated, of another program or of another model.
DAMAGES = (OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError, SafetensorError)


def pick_device(wanted: str = "auto") -> torch.device:
    """The device to compute on: "cpu", "cuda", "mps", or "auto" for cuda where available, else cpu.

    Raises:
        RunError: this machine has no such device.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted == "auto":
        return torch.device("cuda" if available["cuda"] else "cpu")
    if not available.get(wanted, False):
        found = ", ".join(name for name, found in available.items() if found)
        raise RunError(
            f"device={wanted!r} was given, but this machine has: {found}. Use 'auto' or one of those."
        )
    return torch.device(wanted)


@torch.inference_mode()
def predict_batches(model: nn.Module, batches: Iterable[Batch]) -> dict[int, float]:
    """The predicted rating by row of the store; the model stays in evaluation mode."""
    model.eval()
    rows: list[int] = []
    predictions: list[Tensor] = []
    for batch in batches:
        rows += batch.rows.tolist()
        predictions.append(model(batch.frames, batch.lengths))
    # Fetched once, at the end, so that the device does not wait for each batch.
    return dict(zip(rows, torch.cat(predictions).double().tolist(), strict=True)) if rows else {}


class FeatureSource(Protocol):
    """Input features of some clips, such as `streams.ClipFeatures`."""

    def of(self, streams: Sequence[str]) -> Iterable[Rows]:
        """The rows of each clip, the streams side by side."""
        ...


@dataclass(frozen=True)
class Run:
    """A trained model that predicts.

    Args:
        features: the settings of its input features.
        training: the settings of its training.
        model: with the weights of its best epoch.
        standardiser: fitted to its training clips.
        target: what it predicts.
    """

    features: FeatureSettings
    training: TrainingSettings
    model: nn.Module
    standardiser: Standardiser
    target: Target = field(default_factory=Target)

    @property
    def streams(self) -> tuple[str, ...]:
        """The streams of its input."""
        return self.training.streams

    @property
    def by_speaker(self) -> bool:
        """Whether it needs the statistics of each speaker's clips."""
        return self.standardiser.kind == "speaker"

    def predict(self, audio: str | Path | Waveform) -> float:
        """The predicted rating of one clip, in rating points.

        A run that standardises by speaker uses the statistics of this clip alone.

        Args:
            audio: an audio file, or a waveform [shape=(n_samples,)] of floats in [-1, 1] at
                `features.sample_rate` Hz.

        Raises:
            ClipError: the file cannot be read, or the clip is too short, silent or clipped.
            SettingsError: the waveform is not a one-dimensional array of finite floats.
        """
        return _predict_clip(self, audio)

    def predict_features(self, source: FeatureSource, speakers: Sequence[str]) -> NDArray[np.float64]:
        """The predicted rating of each clip [shape=(clips,)], in rating points.

        Args:
            source: the input features.
            speakers: of each clip; used by a run that standardises by speaker.

        Raises:
            SettingsError: the run standardises by speaker, and was not adapted to one of these.
        """
        clips = list(source.of(self.streams))
        lengths = np.array([len(rows) for rows in clips], dtype=np.int64)
        recurrent = any(isinstance(module, nn.RNNBase) for module in self.model.modules())
        batches = within_frames(lengths, _FRAMES_PER_RECURRENT_BATCH if recurrent else _FRAMES_PER_BATCH)

        def read(row: int) -> Tensor:
            return torch.from_numpy(self.standardiser.apply(clips[row], speakers[row]))

        predictions = predict_batches(self.model, load(batches, read))
        return np.array([predictions[row] for row in range(len(clips))])

    def adapt(self, source: FeatureSource, speakers: Sequence[str]) -> "Run":
        """This run, with the statistics of these clips' speakers where it standardises by speaker.

        Args:
            source: the input features, requested only where they are needed.
            speakers: of each clip.

        Raises:
            SettingsError: a speaker has no name, or there is no clip.
        """
        if not self.by_speaker:
            return self
        clips = source.of(self.streams)
        standardiser = Standardiser.fit("speaker", clips, speakers, [False] * len(speakers))
        return dataclasses.replace(self, standardiser=standardiser)


@dataclass(frozen=True)
class Ensemble:
    """Trained models that predict the mean of their predictions; has the interface of `Run`."""

    members: "tuple[Run | Ensemble, ...]"

    @property
    def features(self) -> FeatureSettings:
        """The settings of its members' input features."""
        return self.members[0].features

    @property
    def target(self) -> Target:
        """What its members predict."""
        return self.members[0].target

    @property
    def streams(self) -> tuple[str, ...]:
        """The streams of all members' input."""
        return tuple(dict.fromkeys(name for member in self.members for name in member.streams))

    @property
    def by_speaker(self) -> bool:
        """See `Run.by_speaker`."""
        return self.members[0].by_speaker

    def predict(self, audio: str | Path | Waveform) -> float:
        """See `Run.predict`."""
        return _predict_clip(self, audio)

    def predict_features(self, source: FeatureSource, speakers: Sequence[str]) -> NDArray[np.float64]:
        """See `Run.predict_features`."""
        return np.mean([member.predict_features(source, speakers) for member in self.members], axis=0)

    def adapt(self, source: FeatureSource, speakers: Sequence[str]) -> "Ensemble":
        """See `Run.adapt`."""
        return Ensemble(tuple(member.adapt(source, speakers) for member in self.members))


def _predict_clip(run: Run | Ensemble, audio: str | Path | Waveform) -> float:
    if isinstance(audio, str | Path):
        waveform = read_audio(Path(audio), run.features.sample_rate)
    else:
        check_samples(audio)
        waveform = to_waveform(audio)
    check_waveform(waveform, run.features.n_fft)
    source, speakers = ClipFeatures([waveform], run.features), ["this clip's"]
    return float(run.adapt(source, speakers).predict_features(source, speakers)[0])


def load_run(folder: str | Path) -> Run | Ensemble:
    """Load a run from its folder: one training, or the folds of a cross-validation.

    Raises:
        RunError: it is not a finished run, or it is damaged.
    """
    folder = Path(folder)
    try:
        settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
        if members := settings.get("members"):
            return Ensemble(tuple(load_run(folder / member) for member in members))
        tensors = load_file(folder / "best.safetensors")
        training = TrainingSettings.from_mapping(settings["training"])
        model = build_model(training.model, settings["widths"])
        mean, deviation = (tensors.pop(f"standardiser.{name}").numpy() for name in ("mean", "deviation"))
        model.load_state_dict({name.removeprefix("model."): tensor for name, tensor in tensors.items()})
        groups = tuple(settings["standardiser_groups"])
        standardiser = Standardiser(training.standardise, groups, mean, deviation)
        features = FeatureSettings.from_mapping(settings["features"])
        return Run(features, training, model.eval(), standardiser, Target.from_mapping(settings["target"]))
    except (*DAMAGES, SettingsError) as error:
        raise RunError(
            f"{str(folder)!r} is not a run that can be used ({error}); expected a folder such as "
            "reports/demo/runs/LSTM2-default-0 with settings.json and best.safetensors."
        ) from error


def save_members(folder: Path, training: TrainingSettings, members: Sequence[str]) -> None:
    """Write the settings.json of a cross-validation; its number of parameters is that of one fold."""
    paths = [folder / member / "settings.json" for member in members]
    sizes = [json.loads(path.read_text(encoding="utf-8"))["parameters"] for path in paths]
    content = {"training": training.to_mapping(), "members": list(members), "parameters": max(sizes)}
    write_json(folder / "settings.json", content)


def save_settings(folder: Path, run: Run, widths: Sequence[int]) -> None:
    """Write a run's resolved settings; `widths`: columns of each group of the input."""
    content = {
        "features": run.features.to_mapping(),
        "training": run.training.to_mapping(),
        "target": run.target.to_mapping(),
        "widths": list(widths),
        "standardiser_groups": list(run.standardiser.groups),
        "parameters": count_parameters(run.model),
    }
    write_json(folder / "settings.json", content)


def save_best(folder: Path, run: Run) -> None:
    """Write the weights and the standardiser's statistics."""
    tensors = {f"model.{name}": tensor.detach().cpu() for name, tensor in run.model.state_dict().items()}
    tensors["standardiser.mean"] = torch.from_numpy(run.standardiser.mean)
    tensors["standardiser.deviation"] = torch.from_numpy(run.standardiser.deviation)
    with atomic_write(folder / "best.safetensors") as path:
        # Not by `save_file`, whose files only their owner can read.
        path.write_bytes(save({name: tensor.contiguous() for name, tensor in tensors.items()}, {}))
