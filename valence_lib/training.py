"""The one training loop: any network of the registry, Adam, mean squared error, resumable after a kill.

An epoch's randomness (order of clips, dropout) comes from the seed and the epoch's number alone, so
a training that goes on after a kill ends in the weights of one that was never disturbed.
"""

import csv
import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor, nn
from tqdm.auto import tqdm

from valence_lib.batches import Batch, KeptClips, in_order_of_length, shuffled
from valence_lib.errors import RunError, TrainingError
from valence_lib.features import LogMel, Standardiser
from valence_lib.files import write_json, written_whole
from valence_lib.models import build_model
from valence_lib.provenance import digest_of_content, environment, modules_reached
from valence_lib.registry import modules_of
from valence_lib.runs import (
    named,
    part_of,
    predict_batches,
    read_tensors,
    save_best,
    save_settings,
    save_tensors,
)
from valence_lib.settings import TrainingSettings
from valence_lib.store import FeatureStore
from valence_lib.streams import Rows

UNDER_WAY_FOLDER = ".training"  # in a run's folder, as long as a training is not finished
_CHECKPOINT = "last.safetensors"
HISTORY = ["epoch", "learning_rate", "training_mse", "validation_mse"]
_KEPT_BYTES = 1 << 30  # of standardised clips in memory: about 30,000 clips of 4 s


@dataclass(frozen=True)
class Material:
    """The data of a training.

    Args:
        store: features by row.
        clips: one row a clip, with columns id, digest, valence, speaker and part.
    """

    store: FeatureStore
    clips: pd.DataFrame

    def rows(self, part: str) -> NDArray[np.int64]:
        """The rows of one part."""
        return np.flatnonzero(self.clips["part"].to_numpy() == part)

    def divided(self, parts: NDArray[np.str_]) -> "Material":
        """The same clips, each in the part that is given for it [shape=(clips,)]."""
        return Material(self.store, self.clips.assign(part=parts))

    def source(self, rows: NDArray[np.int64]) -> "StoredClips":
        """The input features of some rows, as `runs.Run.predict` takes them."""
        return StoredClips(self.store, rows)

    def digest(self) -> str:
        """SHA-256 of all that decides over a training: which audio, which labels, which parts, which features."""
        columns = self.clips[["id", "digest", "part", "speaker", "valence"]]
        text = self.store.settings.digest() + columns.to_csv(index=False, lineterminator="\n")
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class StoredClips:
    """The input features of some rows of a store: a `runs.FeatureSource`."""

    store: FeatureStore
    rows: NDArray[np.int64]

    def of(self, streams: Sequence[str]) -> list[Rows]:
        """See `runs.FeatureSource`."""
        stored = self.store.of(streams)
        return [stored[int(row)] for row in self.rows]


class TrainingFolder:
    """Where a training leaves its run: under `.training/` until it is finished, so that what was there before stays whole.

    Args:
        made_by: a statement that imports the module that trains, whose code enters the digest.
    """

    def __init__(self, material: Material, settings: TrainingSettings, folder: Path, made_by: str):
        self.material, self.settings, self.folder, self.made_by = material, settings, folder, made_by
        self.making = folder / UNDER_WAY_FOLDER

    @cached_property
    def digest(self) -> str:
        """Of all that decides over this training: settings, clips, code, libraries and processor."""
        code = modules_reached([self.made_by], modules_of(self.settings))
        return digest_of_content([self.settings.digest(), self.material.digest(), code, environment()])

    def is_finished(self) -> bool:
        """Whether just this training was finished here."""
        path = self.folder / "finished.json"
        if not path.is_file() or not (self.folder / "best.safetensors").is_file():
            return False
        return json.loads(path.read_text(encoding="utf-8"))["digest"] == self.digest

    def begin(
        self,
        settings: TrainingSettings,
        standardiser: Standardiser,
        model: nn.Module,
        widths: Sequence[int],
    ) -> None:
        """Make room for a new training, and write its settings."""
        shutil.rmtree(self.making, ignore_errors=True)
        save_settings(self.making, self.material.store.settings, settings, standardiser, model, widths)

    def note_progress(self, history: Sequence[Mapping[str, float]], seconds: float, device: str) -> None:
        """Write history.csv and seconds.json."""
        with written_whole(self.making / "history.csv") as path, path.open("w", newline="") as file:
            writer = csv.DictWriter(file, HISTORY, lineterminator="\n")
            writer.writeheader()
            writer.writerows(history)
        write_json(self.making / "seconds.json", {"seconds": seconds, "device": device})

    def finish(self) -> None:
        """Put the finished training in the place of what was there; killed on the way, it is done once more."""
        (self.folder / "finished.json").unlink(missing_ok=True)
        for path in sorted(self.making.iterdir()):
            # What a kill left half written begins with a full stop.
            if path.name != _CHECKPOINT and not path.name.startswith("."):
                with written_whole(self.folder / path.name) as destination:
                    shutil.copyfile(path, destination)
        write_json(self.folder / "finished.json", {"digest": self.digest})
        shutil.rmtree(self.making)


def read_history(folder: Path) -> list[dict[str, float]]:
    """The rows of a training's history.csv."""
    rows = pd.read_csv(folder / "history.csv").to_dict("records")
    return [{str(name): value for name, value in row.items()} for row in rows]


def validation_mse(
    material: Material, rows: NDArray[np.int64], predictions: NDArray[np.float64], when: str = ""
) -> float:
    """The MSE of predictions of the validation clips.

    Args:
        rows, predictions [shape=(clips,)]: of these clips.
        when: of the training, for the error.

    Raises:
        TrainingError: a prediction is not finite.
    """
    if not np.isfinite(predictions).all():
        clips = material.clips["id"].iloc[rows[~np.isfinite(predictions)]]
        raise TrainingError(
            f"the predictions of the validation clips {', '.join(clips)} are not finite{when}. "
            "Expected numbers: look at those clips."
        )
    return float(np.mean((predictions - material.clips["valence"].to_numpy(np.float64)[rows]) ** 2))


def train(
    material: Material,
    settings: TrainingSettings,
    folder: Path,
    device: torch.device,
    progress: bool = True,
    after_epoch: Callable[[Mapping[str, float]], object] | None = None,
) -> pd.DataFrame:
    """Train one network and leave a run in `folder`; where just this training was cut off there, go on with it.

    A training of the same material, settings and code that was finished there is not done again.

    One thread, deterministic: the same material, settings and processor give the same bytes. Beside
    the files that `valence_lib.runs` lists, seconds.json holds what was measured.

    Args:
        progress: show a bar on a terminal, or a line an epoch elsewhere.
        after_epoch: called with each new row of the history; what it raises ends the training.

    Returns:
        The history, one row an epoch: epoch (from 1), learning_rate, training_mse (mean over the
        epoch's clips, each before its own update, with dropout), validation_mse.

    Raises:
        TrainingError: a loss or a prediction of a validation clip that is not finite (naming epoch, batch and clips).
        RunError: the checkpoint in the folder is damaged.
    """
    torch.set_num_threads(1)
    os.environ.setdefault(
        "CUBLAS_WORKSPACE_CONFIG", ":4096:8"
    )  # without it CUDA's products may differ run by run
    torch.use_deterministic_algorithms(True)
    # Filling fresh memory with NaN finds operations that read it before they write; none here does, and it
    # costs several hundredths of every step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.set_flush_denormal(True)  # saturated gates have denormal gradients, at a tenth of the speed
    torch.manual_seed(settings.seed)
    loop = _Loop(material, settings, folder, device)
    n_epochs = settings.epochs
    first = loop.resume() + 1
    if first == 1:
        loop.place.begin(settings, loop.standardiser, loop.model, loop.features.widths)
    on_terminal = sys.stderr.isatty()
    in_lines = progress and not on_terminal
    label = f"{settings.model} {settings.preset} {settings.seed}"
    # Epochs that were done before a kill are shown too: what is printed is what an undisturbed training prints.
    for row in loop.history if in_lines else ():
        print(_line(row, n_epochs))
    epochs = range(first, n_epochs + 1)
    for epoch in tqdm(epochs, desc=label, unit="epoch", disable=not (progress and on_terminal)):
        row = loop.run_epoch(epoch)
        if in_lines:
            print(_line(row, n_epochs), flush=True)
        if after_epoch is not None:
            after_epoch(row)
    if loop.place.making.is_dir():
        loop.place.finish()
    return pd.DataFrame(loop.history, columns=HISTORY)


def _line(row: Mapping[str, float], epochs: int) -> str:
    return (
        f"epoch {row['epoch']:3.0f}/{epochs}   training MSE {row['training_mse']:.3f}   "
        f"validation MSE {row['validation_mse']:.3f}"
    )


class _Loop:
    def __init__(self, material: Material, settings: TrainingSettings, folder: Path, device: torch.device):
        self.material, self.settings, self.device = material, settings, device
        self.place = TrainingFolder(material, settings, folder, "import valence_lib.training")
        self.features = material.store.of(settings.streams)
        self.train_rows, self.validation_rows = material.rows("train"), material.rows("validation")
        self.truth = torch.tensor(material.clips["valence"].to_numpy(np.float32))
        self.speakers = material.clips["speaker"].to_numpy(dtype=str)
        in_training = material.clips["part"].to_numpy() == "train"
        self.standardiser = Standardiser.fit(
            settings.standardise, self.features, list(self.speakers), in_training
        )
        self.model = build_model(settings.model, self.features.widths).to(device)
        self.history: list[dict[str, float]] = []
        self.seconds = 0.0
        self.kept = KeptClips(self._read, device, _memory_for_clips(device))

    @cached_property
    def optimiser(self) -> torch.optim.Adam:
        """Adam over all weights."""
        return torch.optim.Adam(
            self.model.parameters(),
            lr=self.settings.learning_rate,
            weight_decay=self.settings.weight_decay,
            fused=self.device.type in ("cpu", "cuda"),
        )

    def run_epoch(self, epoch: int) -> dict[str, float]:
        """Train one epoch, validate, and write what a resumption needs."""
        started = time.perf_counter()
        settings, lengths = self.settings, self.features.lengths
        reductions = (epoch - 1) // settings.learning_rate_period if settings.learning_rate_period else 0
        learning_rate = settings.learning_rate * settings.learning_rate_factor**reductions
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate
        torch.manual_seed(_epoch_seed(settings.seed, epoch))
        order = shuffled(
            self.train_rows, lengths, settings.batch_size, np.random.default_rng([settings.seed, epoch])
        )
        self.model.train()
        losses = torch.stack([self._step(batch) for batch in self.kept.load(order)]).double().cpu()
        if not losses.isfinite().all():
            number = int(losses.isfinite().logical_not().nonzero()[0])
            clips = ", ".join(self.material.clips["id"].iloc[order[number]])
            raise TrainingError(
                f"the loss is {losses[number]:g} in epoch {epoch}, batch {number + 1}, on the clips {clips}. "
                f"Expected a number: lower learning_rate={settings.learning_rate:g} or "
                f"max_gradient_norm={settings.max_gradient_norm:g}, or look at those clips."
            )
        sizes = torch.tensor([len(rows) for rows in order])
        row = {
            "epoch": epoch,
            "learning_rate": learning_rate,
            "training_mse": float(losses @ sizes.double() / sizes.sum()),
        }
        row["validation_mse"] = self._validate(epoch)
        best = min((past["validation_mse"] for past in self.history), default=float("inf"))
        last_of_all = epoch == settings.epochs
        if row["validation_mse"] < best or (last_of_all and not len(self.validation_rows)):
            save_best(self.place.making, self.model, self.standardiser)
        self.history.append(row)
        self.seconds += time.perf_counter() - started
        self._checkpoint(epoch)
        return row

    def _read(self, row: int) -> LogMel:
        return self.standardiser.apply(self.features[row], self.speakers[row])

    def _step(self, batch: Batch) -> Tensor:
        """One step down the gradient; the squared error before it stays on the device, which is not waited for."""
        self.optimiser.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.precision == "bfloat16"):
            predictions = self.model(batch.log_mel, batch.lengths).float()
        truth = self.truth[batch.rows].to(self.device, non_blocking=True)
        loss = nn.functional.mse_loss(predictions, truth)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.max_gradient_norm)
        self.optimiser.step()
        return loss.detach()

    def _validate(self, epoch: int) -> float:
        """The MSE on the validation clips; NaN where there are none."""
        if not len(self.validation_rows):
            return float("nan")
        batches = in_order_of_length(self.validation_rows, self.features.lengths, self.settings.batch_size)
        by_row = predict_batches(self.model, self.kept.load(batches))
        predictions = np.array([by_row[row] for row in self.validation_rows.tolist()])
        return validation_mse(self.material, self.validation_rows, predictions, f" in epoch {epoch}")

    def _checkpoint(self, epoch: int) -> None:
        """history.csv first: should a kill come between, the epoch is done again and its row replaced."""
        self.place.note_progress(self.history, self.seconds, str(self.device))
        tensors = {
            **named("model", self.model.state_dict()),
            **named("optimiser", self._optimiser_tensors()),
        }
        # One string alone: safetensors writes several in random order, and the bytes would differ.
        metadata = {"digest": self.place.digest}
        save_tensors(self.place.making / _CHECKPOINT, {**tensors, "epoch": torch.tensor(epoch)}, metadata)

    def _optimiser_tensors(self) -> dict[str, Tensor]:
        states = self.optimiser.state_dict()["state"]
        return {
            f"{number}.{name}": tensor for number, state in states.items() for name, tensor in state.items()
        }

    def resume(self) -> int:
        """Go back to the last finished epoch in the folder, if there is one; return its number, else 0."""
        try:
            if self.place.is_finished():
                self.history = read_history(self.place.folder)
                shutil.rmtree(self.place.making, ignore_errors=True)
                return self.settings.epochs
            tensors, metadata = read_tensors(self.place.making / _CHECKPOINT)
            epoch, digest = int(tensors["epoch"]), metadata["digest"]
            history = [row for row in read_history(self.place.making) if row["epoch"] <= epoch]
        except FileNotFoundError:
            return 0
        except (SafetensorError, ValueError, KeyError) as error:
            raise RunError(
                f"what {self.place.making} holds of a training is damaged ({error}); delete that folder."
            ) from error
        if digest != self.place.digest:
            return 0  # another training's: this one starts anew
        self.model.load_state_dict(part_of(tensors, "model"))
        state = self.optimiser.state_dict()
        for name, tensor in part_of(tensors, "optimiser").items():
            number, key = name.split(".", 1)
            state["state"].setdefault(int(number), {})[key] = tensor
        self.optimiser.load_state_dict(state)
        self.seconds = json.loads((self.place.making / "seconds.json").read_text())["seconds"]
        self.history = history
        return epoch


def _memory_for_clips(device: torch.device) -> int:
    """Bytes of standardised clips that a training may keep on its device; of a graphics card's, half of what is free."""
    return torch.cuda.mem_get_info(device)[0] // 2 if device.type == "cuda" else _KEPT_BYTES


def _epoch_seed(seed: int, epoch: int) -> int:
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0])
