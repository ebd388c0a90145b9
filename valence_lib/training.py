"""The one training loop: any model of the registry, Adam, mean squared error, resumable after a kill.

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
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
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
from valence_lib.errors import RunError, SettingsError, TrainingError
from valence_lib.features import LogMel, Standardiser
from valence_lib.files import write_json, written_whole
from valence_lib.losses import LOSSES, mask
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
from valence_lib.side_tasks import CATEGORIES, RATINGS, SideTasks
from valence_lib.store import FeatureStore

UNDER_WAY_FOLDER = ".training"  # in a run's folder, as long as a training is not finished
HISTORY = ["epoch", "learning_rate", "training_mse", "validation_mse"]
_KEPT_BYTES = 1 << 30  # of standardised clips in memory: about 30,000 clips of 4 s


@dataclass(frozen=True)
class Material:
    """What a training sees.

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

    def digest(self) -> str:
        """SHA-256 of all that a training can see: which audio, which labels, which parts, which features."""
        seen = ["id", "digest", "part", "speaker", "valence", *RATINGS, *CATEGORIES]
        columns = self.clips[[name for name in seen if name in self.clips]]
        text = self.store.settings.digest() + columns.to_csv(index=False, lineterminator="\n")
        return hashlib.sha256(text.encode()).hexdigest()


def train(
    material: Material,
    settings: TrainingSettings,
    folder: Path,
    device: torch.device,
    progress: bool = True,
    after_epoch: Callable[[Mapping[str, float]], object] | None = None,
) -> pd.DataFrame:
    """Train one model and leave a run in `folder`; where just this training was cut off there, go on with it.

    A model with a method `fit(vectors, truth, speakers)` of its own is fitted by it in one step, in place of epochs.

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
    at_once = hasattr(loop.model, "fit")
    n_epochs = 1 if at_once else settings.epochs
    first = loop.resume() + 1
    if first == 1:
        loop.begin()
        if at_once:
            row = loop.fit_at_once()
            if progress:
                print(_line(row, n_epochs))
            loop.finish()
            return pd.DataFrame(loop.history, columns=HISTORY)
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
    if loop.making.is_dir():
        loop.finish()
    return pd.DataFrame(loop.history, columns=HISTORY)


def _line(row: Mapping[str, float], epochs: int) -> str:
    return (
        f"epoch {row['epoch']:3.0f}/{epochs}   training MSE {row['training_mse']:.3f}   "
        f"validation MSE {row['validation_mse']:.3f}"
    )


class _Loop:
    def __init__(self, material: Material, settings: TrainingSettings, folder: Path, device: torch.device):
        self.material, self.settings, self.folder, self.device = material, settings, folder, device
        self.making = folder / UNDER_WAY_FOLDER  # what was there before stays whole until this training is
        self.heard = material.store.of(settings.streams)
        self.train_rows, self.validation_rows = material.rows("train"), material.rows("validation")
        self.truth = torch.tensor(material.clips["valence"].to_numpy(np.float32))
        self.speakers = material.clips["speaker"].to_numpy(dtype=str)
        in_training = material.clips["part"].to_numpy() == "train"
        self.standardiser = Standardiser.fit(
            settings.standardise, self.heard, list(self.speakers), in_training
        )
        self.model = build_model(settings.model, self.heard.width).to(device)
        if hasattr(self.model, "begin_at"):
            mean = float(self.truth[self.train_rows].mean())
            begin_at: Callable[[float], None] = self.model.begin_at  # type: ignore[assignment]
            begin_at(mean)
        self.side_tasks = self._side_tasks()
        self.averaged: dict[str, Tensor] = {}  # the mean of the last epochs' weights so far
        self.history: list[dict[str, float]] = []
        self.seconds = 0.0
        self.kept = KeptClips(self._read, device, _memory_for_clips(device))

    def _side_tasks(self) -> SideTasks | None:
        if not self.settings.side_weight:
            return None
        if not hasattr(self.model, "read"):
            raise SettingsError(
                f"side_weight={self.settings.side_weight:g} was given, but {self.settings.model} has no method 'read' "
                "that side tasks could learn from; use side_weight=0, or a model that has one, such as AttentionLSTM."
            )
        size = self.model.linear.in_features  # type: ignore[union-attr]
        return SideTasks(self.material.clips, self.train_rows, size).to(self.device)  # type: ignore[arg-type]

    @property
    def learned(self) -> list[nn.Parameter]:
        """All that the training adjusts."""
        of_tasks = [] if self.side_tasks is None else list(self.side_tasks.parameters())
        return [*self.model.parameters(), *of_tasks]

    @cached_property
    def optimiser(self) -> torch.optim.Adam:
        """Adam over all weights."""
        return torch.optim.Adam(
            self.learned,
            lr=self.settings.learning_rate,
            weight_decay=self.settings.weight_decay,
            fused=self.device.type in ("cpu", "cuda"),
        )

    def run_epoch(self, epoch: int) -> dict[str, float]:
        """Train one epoch, validate, and write what a resumption needs."""
        started = time.perf_counter()
        settings, lengths = self.settings, self.heard.lengths
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
        begins = max(0, settings.epochs - settings.averaged_epochs) if settings.averaged_epochs else epoch
        if epoch > begins:
            self._average(epoch - begins)
        with self._averaged_weights():
            row["validation_mse"] = self._validate(epoch)
            best = min((past["validation_mse"] for past in self.history), default=float("inf"))
            only_last = bool(settings.averaged_epochs) or not len(self.validation_rows)
            if epoch == settings.epochs if only_last else row["validation_mse"] < best:
                save_best(self.making, self.model, self.standardiser)
        self.history.append(row)
        self.seconds += time.perf_counter() - started
        self._checkpoint(epoch)
        return row

    def _average(self, count: int) -> None:
        """Take the weights of this epoch into the mean, of which it is number `count`."""
        for name, weights in self.model.state_dict().items():
            before = self.averaged.get(name, torch.zeros_like(weights))
            self.averaged[name] = before + (weights - before) / count

    @contextmanager
    def _averaged_weights(self) -> Iterator[None]:
        """Within this block, the model has the mean of the last epochs' weights, where they are averaged."""
        if not self.averaged:
            yield
            return
        own = {name: weights.clone() for name, weights in self.model.state_dict().items()}
        self.model.load_state_dict(self.averaged)
        yield
        self.model.load_state_dict(own)

    def fit_at_once(self) -> dict[str, float]:
        """Fit a model that has a solution of its own, in place of epochs; one row of history."""
        started = time.perf_counter()
        rows = self.train_rows
        heard = np.concatenate([self._read(int(row)) for row in rows])
        truth = self.truth.numpy()[rows].astype(np.float64)
        fit: Callable[..., object] = self.model.fit  # type: ignore[assignment]
        fit(heard, truth, self.speakers[rows])
        fitted = predict_batches(self.model, self.kept.load([rows]))
        errors = np.array([fitted[row] for row in rows.tolist()]) - truth
        row = {
            "epoch": 1,
            "learning_rate": 0.0,
            "training_mse": float(np.mean(errors**2)),
            "validation_mse": self._validate(1),
        }
        self.history.append(row)
        self._save_settings()  # once more: only now is the model's size known
        save_best(self.making, self.model, self.standardiser)
        self.seconds += time.perf_counter() - started
        self._note_progress()
        return row

    def _read(self, row: int) -> LogMel:
        return self.standardiser.apply(self.heard[row], self.speakers[row])

    def _step(self, batch: Batch) -> Tensor:
        """One step down the gradient; the squared error before it stays on the device, which is not waited for."""
        self.optimiser.zero_grad(set_to_none=True)
        in_half = self.settings.precision == "bfloat16"
        heard = batch.log_mel
        if self.settings.mask_frames or self.settings.mask_columns:
            heard = mask(heard, batch.lengths, self.settings.mask_frames, self.settings.mask_columns)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=in_half):
            if self.side_tasks is None:
                predictions = self.model(heard, batch.lengths).float()
            else:
                read = self.model.read(heard, batch.lengths)  # type: ignore[operator]
                predictions = self.model.linear(read)[:, 0].float()  # type: ignore[operator]
        truth = self.truth[batch.rows].to(self.device, non_blocking=True)
        loss: Tensor = LOSSES[self.settings.loss](predictions, truth)
        if self.side_tasks is not None:
            loss = loss + self.settings.side_weight * self.side_tasks.loss(read.float(), batch.rows)
        loss.backward()
        nn.utils.clip_grad_norm_(self.learned, self.settings.max_gradient_norm)
        self.optimiser.step()
        # What is told of a training is its squared error, whatever it brings down.
        return nn.functional.mse_loss(predictions.detach(), truth)

    def _validate(self, epoch: int) -> float:
        """The MSE on the validation clips; NaN where there are none."""
        if not len(self.validation_rows):
            return float("nan")
        batches = in_order_of_length(self.validation_rows, self.heard.lengths, self.settings.batch_size)
        by_row = predict_batches(self.model, self.kept.load(batches))
        predictions = np.array([by_row[row] for row in self.validation_rows.tolist()])
        if not np.isfinite(predictions).all():
            clips = self.material.clips["id"].iloc[self.validation_rows[~np.isfinite(predictions)]]
            raise TrainingError(
                f"the predictions of the validation clips {', '.join(clips)} are not finite in epoch {epoch}. "
                "Expected numbers: look at those clips."
            )
        truth = self.material.clips["valence"].to_numpy(np.float64)[self.validation_rows]
        return float(np.mean((predictions - truth) ** 2))

    def _checkpoint(self, epoch: int) -> None:
        """history.csv first: should a kill come between, the epoch is done again and its row replaced."""
        self._note_progress()
        tensors = {
            **named("model", self.model.state_dict()),
            **named("optimiser", self._optimiser_tensors()),
            **named("averaged", self.averaged),
            **named("side_tasks", {} if self.side_tasks is None else self.side_tasks.state_dict()),
        }
        # One string alone: safetensors writes several in random order, and the bytes would differ.
        metadata = {"digest": self.digest}
        save_tensors(self.making / "last.safetensors", {**tensors, "epoch": torch.tensor(epoch)}, metadata)

    def _note_progress(self) -> None:
        with written_whole(self.making / "history.csv") as path, path.open("w", newline="") as file:
            writer = csv.DictWriter(file, HISTORY, lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.history)
        write_json(self.making / "seconds.json", {"seconds": self.seconds, "device": str(self.device)})

    def begin(self) -> None:
        """Make room for a new training."""
        shutil.rmtree(self.making, ignore_errors=True)
        self._save_settings()

    def _save_settings(self) -> None:
        save_settings(
            self.making,
            self.material.store.settings,
            self.settings,
            self.standardiser,
            self.model,
            self.heard.width,
        )

    def finish(self) -> None:
        """Put the finished training in the place of what was there; killed on the way, it is done once more."""
        (self.folder / "finished.json").unlink(missing_ok=True)
        for name in ("settings.json", "history.csv", "seconds.json", "best.safetensors"):
            with written_whole(self.folder / name) as path:
                shutil.copyfile(self.making / name, path)
        write_json(self.folder / "finished.json", {"digest": self.digest})
        shutil.rmtree(self.making)

    def _optimiser_tensors(self) -> dict[str, Tensor]:
        states = self.optimiser.state_dict()["state"]
        return {
            f"{number}.{name}": tensor for number, state in states.items() for name, tensor in state.items()
        }

    @cached_property
    def digest(self) -> str:
        """Of all that decides over this training: settings, clips, code, libraries and processor."""
        code = modules_reached(["import valence_lib.training"], modules_of(self.settings))
        return digest_of_content([self.settings.digest(), self.material.digest(), code, environment()])

    def resume(self) -> int:
        """Go back to the last finished epoch in the folder, if there is one; return its number, else 0."""
        try:
            if self._is_finished():
                self.history = self._read_history(self.folder, self.settings.epochs)
                shutil.rmtree(self.making, ignore_errors=True)
                return self.settings.epochs
            tensors, metadata = read_tensors(self.making / "last.safetensors")
            epoch, digest = int(tensors["epoch"]), metadata["digest"]
            history = self._read_history(self.making, epoch)
        except FileNotFoundError:
            return 0
        except (SafetensorError, ValueError, KeyError) as error:
            raise RunError(
                f"what {self.making} holds of a training is damaged ({error}); delete that folder."
            ) from error
        if digest != self.digest:
            return 0  # another training's: this one starts anew
        self.model.load_state_dict(part_of(tensors, "model"))
        self.averaged = part_of(tensors, "averaged")
        if self.side_tasks is not None:
            self.side_tasks.load_state_dict(part_of(tensors, "side_tasks"))
        state = self.optimiser.state_dict()
        for name, tensor in part_of(tensors, "optimiser").items():
            number, key = name.split(".", 1)
            state["state"].setdefault(int(number), {})[key] = tensor
        self.optimiser.load_state_dict(state)
        self.seconds = json.loads((self.making / "seconds.json").read_text())["seconds"]
        self.history = history
        return epoch

    def _is_finished(self) -> bool:
        path = self.folder / "finished.json"
        if not path.is_file() or not (self.folder / "best.safetensors").is_file():
            return False
        return json.loads(path.read_text(encoding="utf-8"))["digest"] == self.digest

    def _read_history(self, folder: Path, epochs: int) -> list[dict[str, float]]:
        rows = pd.read_csv(folder / "history.csv").to_dict("records")
        return [{str(k): v for k, v in row.items()} for row in rows if row["epoch"] <= epochs]


def _memory_for_clips(device: torch.device) -> int:
    """Bytes of standardised clips that a training may keep on its device; of a graphics card's, half of what is free."""
    return torch.cuda.mem_get_info(device)[0] // 2 if device.type == "cuda" else _KEPT_BYTES


def _epoch_seed(seed: int, epoch: int) -> int:
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0])
