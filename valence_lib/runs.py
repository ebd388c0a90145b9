"""A trained model on disk: weights, standardiser and resolved settings, and what they predict.

runs/<run>/
  settings.json       the resolved settings of features and training, and the model's size
  best.safetensors    weights of the epoch with the lowest validation MSE, and the standardiser
  history.csv         one row an epoch
  validation.csv      of a model that is fitted in one step: predictions of the validation clips by a fit without them
  finished.json       which training this was
  .training/          the same of a training that is not finished, and last.safetensors: weights and optimiser to go on from

A run of a cross-validation has such a folder for each fold within its own, whose settings.json names them as "members";
together they predict their mean.
"""

import dataclasses
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from valence_lib.batches import Batch, load, within_frames
from valence_lib.errors import RunError, SettingsError
from valence_lib.features import Standardiser
from valence_lib.files import write_json, written_whole
from valence_lib.models import build_model, count_parameters
from valence_lib.settings import FeatureSettings, TrainingSettings
from valence_lib.streams import Rows

# Frames of a batch that is predicted, with padding. The CNN's maps of so many take some 40 MB, and it is no
# faster with more. A recurrent layer takes a step with as many rows as there are clips: few rows, and what is
# fixed in a step outweighs its product; it holds some 10 kB a frame.
_FRAMES_PER_BATCH = 512
_FRAMES_PER_RECURRENT_BATCH = 8192

# What reading a folder raises where a file is not there, cut off, of another program, or of another model.
_DAMAGES = (OSError, ValueError, KeyError, TypeError, RuntimeError, SettingsError, SafetensorError)


def pick_device(wanted: str = "auto") -> torch.device:
    """The device to compute on: "cpu", "cuda", "mps", or "auto" for cuda where it is there, else cpu.

    Apple's mps is taken only by name: it has no LSTM over packed clips of its own, and the CPU's is compiled.

    Raises:
        RunError: there is no such device here.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted == "auto":
        return torch.device("cuda" if there["cuda"] else "cpu")
    if not there.get(wanted, False):
        found = ", ".join(name for name, found in there.items() if found)
        raise RunError(
            f"device={wanted!r} was given, but this machine has: {found}. Use 'auto' or one of those."
        )
    return torch.device(wanted)


@torch.inference_mode()
def predict_batches(model: nn.Module, batches: Iterable[Batch]) -> dict[int, float]:
    """Valence by row of the store; the model is left in evaluation mode."""
    model.eval()
    rows: list[int] = []
    predictions: list[Tensor] = []
    for batch in batches:
        rows += batch.rows.tolist()
        predictions.append(model(batch.log_mel, batch.lengths))
    # Fetched once, at the end: a device that computes is not made to wait for each batch.
    return dict(zip(rows, torch.cat(predictions).double().tolist(), strict=True)) if rows else {}


class FeatureSource(Protocol):
    """Clips whose input features can be computed or read, such as `streams.ClipFeatures`."""

    def of(self, streams: Sequence[str]) -> Iterable[Rows]:
        """Each clip's rows of the streams, side by side."""
        ...


@dataclass(frozen=True)
class Run:
    """A trained model that predicts.

    Args:
        features: the settings of the features that it takes.
        training: the settings that it was trained with.
        model: with the weights of its best epoch.
        standardiser: fitted on its training clips.
    """

    features: FeatureSettings
    training: TrainingSettings
    model: nn.Module
    standardiser: Standardiser

    @classmethod
    def load(cls, folder: Path) -> "Run":
        """Read a run's folder.

        Raises:
            RunError: it is not a finished run, or it is damaged.
        """
        try:
            settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
            tensors, _ = read_tensors(folder / "best.safetensors")
            features = FeatureSettings.from_mapping(settings["features"])
            training = TrainingSettings.from_mapping(settings["training"])
            model = build_model(training.model, settings["widths"])
            model.load_state_dict(part_of(tensors, "model"))
            standardiser = _standardiser(training.standardise, settings, tensors)
        except _DAMAGES as error:
            raise RunError(
                f"{str(folder)!r} is not a run that can be used ({error}); expected a folder such as "
                "reports/demo/runs/LSTM2-default-0 with settings.json and best.safetensors."
            ) from error
        return cls(features, training, model.eval(), standardiser)

    @property
    def streams(self) -> tuple[str, ...]:
        """The streams of its input."""
        return self.training.streams

    @property
    def by_speaker(self) -> bool:
        """Whether it needs the statistics of each speaker's clips."""
        return self.standardiser.kind == "speaker"

    def adapt(self, source: FeatureSource, speakers: Sequence[str]) -> "Run":
        """This run with the statistics of the speakers of these clips, where it standardises by speaker; else itself.

        Args:
            source: gives the input features; asked only where they are needed.
            speakers: the speaker of each clip.

        Raises:
            SettingsError: a speaker has no name, or there is no clip.
        """
        if not self.by_speaker:
            return self
        clips = source.of(self.streams)
        standardiser = Standardiser.fit("speaker", clips, speakers, [False] * len(speakers))
        return dataclasses.replace(self, standardiser=standardiser)

    def predict(self, source: FeatureSource, speakers: Sequence[str]) -> NDArray[np.float64]:
        """Valence of each clip [shape=(clips,)], in rating points.

        Args:
            source: gives the input features that this run was trained with.
            speakers: the speaker of each clip; used only by a run that standardises by speaker, which has the
                statistics of the speakers that it was adapted to.

        Raises:
            SettingsError: the run standardises by speaker, and has no statistics of one of these.
        """
        clips = list(source.of(self.streams))
        lengths = np.array([len(rows) for rows in clips], dtype=np.int64)
        recurrent = any(isinstance(part, nn.RNNBase) for part in self.model.modules())
        most_frames = _FRAMES_PER_RECURRENT_BATCH if recurrent else _FRAMES_PER_BATCH
        batches = within_frames(lengths, most_frames)
        read = load(batches, lambda row: self.standardiser.apply(clips[row], speakers[row]))
        predictions = predict_batches(self.model, read)
        return np.array([predictions[row] for row in range(len(clips))])


@dataclass(frozen=True)
class Ensemble:
    """Trained models that predict together, by the mean of what each predicts; used as a `Run` is."""

    members: tuple[Run, ...]

    @property
    def features(self) -> FeatureSettings:
        """The settings of the features that its members take."""
        return self.members[0].features

    @property
    def streams(self) -> tuple[str, ...]:
        """The streams of its members' input, those of all members."""
        return tuple(dict.fromkeys(name for member in self.members for name in member.streams))

    @property
    def by_speaker(self) -> bool:
        """Whether its members need the statistics of each speaker's clips."""
        return self.members[0].by_speaker

    def adapt(self, source: FeatureSource, speakers: Sequence[str]) -> "Ensemble":
        """See `Run.adapt`."""
        return Ensemble(tuple(member.adapt(source, speakers) for member in self.members))

    def predict(self, source: FeatureSource, speakers: Sequence[str]) -> NDArray[np.float64]:
        """See `Run.predict`."""
        return np.mean([member.predict(source, speakers) for member in self.members], axis=0)


def load_run(folder: Path) -> Run | Ensemble:
    """Read a run's folder, be it one training or the folds of a cross-validation.

    Raises:
        RunError: it is not a finished run, or it is damaged.
    """
    path = folder / "settings.json"
    try:
        members = json.loads(path.read_text(encoding="utf-8")).get("members", [])
    except (OSError, ValueError, AttributeError) as error:
        raise RunError(
            f"{str(folder)!r} is not a run that can be used ({error}); expected a folder such as "
            "reports/demo/runs/LSTM2-default-0 with settings.json."
        ) from error
    if members:
        return Ensemble(tuple(Run.load(folder / member) for member in members))
    return Run.load(folder)


def save_members(folder: Path, training: TrainingSettings, members: Sequence[str]) -> None:
    """Write the settings.json of a cross-validation, whose folds lie below it already.

    Its parameters are those of one fold: all that adjusts a prediction of a held-out clip.
    """
    sizes = [
        json.loads((folder / member / "settings.json").read_text(encoding="utf-8"))["parameters"]
        for member in members
    ]
    content = {"training": training.to_mapping(), "members": list(members), "parameters": max(sizes)}
    write_json(folder / "settings.json", content)


def save_settings(
    folder: Path,
    features: FeatureSettings,
    training: TrainingSettings,
    standardiser: Standardiser,
    model: nn.Module,
    widths: Sequence[int],
) -> None:
    """Write a run's resolved settings, which `Run.load` reads; `widths`: columns of each stream of the input."""
    content = {
        "features": features.to_mapping(),
        "training": training.to_mapping(),
        "widths": list(widths),
        "standardiser_groups": list(standardiser.groups),
        "parameters": count_parameters(model),
    }
    write_json(folder / "settings.json", content)


def save_best(folder: Path, model: nn.Module, standardiser: Standardiser) -> None:
    """Write the weights that `Run.load` reads."""
    save_tensors(
        folder / "best.safetensors", {**named("model", model.state_dict()), **_as_tensors(standardiser)}, {}
    )


def _as_tensors(standardiser: Standardiser) -> dict[str, Tensor]:
    return {
        "standardiser.mean": torch.from_numpy(standardiser.mean),
        "standardiser.deviation": torch.from_numpy(standardiser.deviation),
    }


def _standardiser(kind: str, settings: dict, tensors: dict[str, Tensor]) -> Standardiser:
    mean, deviation = tensors["standardiser.mean"].numpy(), tensors["standardiser.deviation"].numpy()
    return Standardiser(kind, tuple(settings["standardiser_groups"]), mean, deviation)


def named(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under names that begin with the prefix and a full stop."""
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def part_of(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors under a prefix, without it: the inverse of `named`."""
    start = f"{prefix}."
    return {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}


def save_tensors(destination: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write tensors and a few strings as one safetensors file, whole or not at all."""
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with written_whole(destination) as path:
        # Not safetensors' own file, which only its owner could read, and whose errors are not the system's.
        path.write_bytes(save(contiguous, metadata))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """What `save_tensors` wrote: tensors on the CPU, and the strings."""
    with safe_open(path, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
