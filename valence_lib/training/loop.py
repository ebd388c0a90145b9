"""The training loop of all networks: Adam, mean squared error, resumable after a kill.

The randomness of an epoch (order of clips, dropout) depends on the seed and the epoch's number alone, so that
a resumed training ends with the weights of an undisturbed one.
"""

import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from io import BytesIO
from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm.auto import tqdm

from valence_lib.errors import RunError, SettingsError, TrainingError
from valence_lib.features.standardise import Standardiser
from valence_lib.features.streams import Rows
from valence_lib.files import atomic_write, write_json
from valence_lib.models.build import build_model
from valence_lib.preprocess.store import FeatureStore
from valence_lib.provenance import digest_of_content, environment, modules_reached
from valence_lib.registry import entries_of, modules_of
from valence_lib.settings import Target, TrainingSettings
from valence_lib.training.batches import Batch, in_order_of_length, load, shuffled
from valence_lib.training.runs import DAMAGES, Run, predict_batches, save_best, save_settings

UNFINISHED_FOLDER = ".training"  # in a run's folder, until a training is finished
_CHECKPOINT = "checkpoint.pt"
HISTORY = ["epoch", "learning_rate", "training_mse", "validation_mse"]
_CACHED_BYTES = 1 << 30  # of standardised clips: about 30,000 clips of 4 s


@dataclass(frozen=True)
class TrainingData:
    """The data of a training.

    Args:
        store: features by row.
        clips: one row per clip, with columns id, digest, rating, speaker and subset.
        target: what the ratings rate.
    """

    store: FeatureStore
    clips: pd.DataFrame
    target: Target = field(default_factory=Target)

    @property
    def truth(self) -> NDArray[np.float64]:
        """The ratings [shape=(clips,)]; NaN where there is none."""
        return self.clips["rating"].to_numpy(np.float64)

    @property
    def speakers(self) -> NDArray[np.str_]:
        """The speakers [shape=(clips,)]; "" where unknown."""
        return self.clips["speaker"].to_numpy(dtype=str)

    def rows(self, subset: str) -> NDArray[np.int64]:
        """The rows of one subset."""
        return np.flatnonzero(self.clips["subset"].to_numpy() == subset)

    def with_subsets(self, subsets: NDArray[np.str_]) -> "TrainingData":
        """The same clips in other subsets [shape=(clips,)]."""
        return replace(self, clips=self.clips.assign(subset=subsets))

    def source(self, rows: NDArray[np.int64]) -> "StoredClips":
        """The input features of some rows, for `Run.predict_features`."""
        return StoredClips(self.store, rows)

    def digest(self) -> str:
        """SHA-256 of all that a training depends on: audio, labels, subsets and feature settings."""
        columns = self.clips[["id", "digest", "subset", "speaker", "rating"]]
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
    """The folder of a run in training; its files are in `.training/` until it is finished.

    Args:
        imports: a statement that imports the module that trains; its code enters the digest.
    """

    def __init__(self, training_data: TrainingData, settings: TrainingSettings, folder: Path, imports: str):
        self.training_data, self.settings, self.folder = training_data, settings, folder
        self.unfinished = folder / UNFINISHED_FOLDER
        self._imports = imports

    @cached_property
    def digest(self) -> str:
        """Digest of all that this training depends on: settings, clips, code, libraries and processor."""
        code = modules_reached([self._imports], modules_of(self.settings))
        own = [self.settings.digest(), entries_of(self.settings), self.training_data.digest()]
        return digest_of_content([*own, code, environment()])

    def is_finished(self) -> bool:
        """Whether exactly this training was finished here, and its weights are still there."""
        path = self.folder / "finished.json"
        if not path.is_file() or not (self.folder / "best.safetensors").is_file():
            return False
        return bool(json.loads(path.read_text(encoding="utf-8"))["digest"] == self.digest)

    def begin(self, run: Run) -> None:
        """Remove an unfinished training and write the settings of a new one."""
        shutil.rmtree(self.unfinished, ignore_errors=True)
        save_settings(self.unfinished, run, self.training_data.store.of(run.streams).widths)

    def finish(self, history: Sequence[Mapping[str, float]], seconds: float, device: str) -> None:
        """Write history.csv and seconds.json, and move all files into place; a kill does no harm."""
        table = pd.DataFrame(history, columns=HISTORY)
        with atomic_write(self.unfinished / "history.csv") as path:
            table.to_csv(path, index=False, na_rep="nan", lineterminator="\n")
        write_json(self.unfinished / "seconds.json", {"seconds": seconds, "device": device})
        (self.folder / "finished.json").unlink(missing_ok=True)
        for path in sorted(self.unfinished.iterdir()):
            # Files that a kill left half written begin with a full stop.
            if path.name != _CHECKPOINT and not path.name.startswith("."):
                with atomic_write(self.folder / path.name) as destination:
                    shutil.copyfile(path, destination)
        write_json(self.folder / "finished.json", {"digest": self.digest})
        shutil.rmtree(self.unfinished)


def validation_mse(
    training_data: TrainingData, rows: NDArray[np.int64], predictions: NDArray[np.float64], when: str = ""
) -> float:
    """The MSE of predictions of the validation clips.

    Args:
        rows, predictions [shape=(clips,)]: of these clips.
        when: for the error message, such as " in epoch 3".

    Raises:
        TrainingError: a prediction is not finite.
    """
    if not np.isfinite(predictions).all():
        clips = training_data.clips["id"].iloc[rows[~np.isfinite(predictions)]]
        raise TrainingError(
            f"the predictions of the validation clips {', '.join(clips)} are not finite{when}. "
            "Expected finite numbers: check those clips."
        )
    return float(np.mean((predictions - training_data.truth[rows]) ** 2))


def has_bfloat16() -> bool:
    """Whether PyTorch's layers can use bfloat16 on this processor."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def train(
    training_data: TrainingData,
    settings: TrainingSettings,
    folder: Path,
    device: torch.device,
    progress: bool = True,
    after_epoch: Callable[[Mapping[str, float]], object] | None = None,
) -> pd.DataFrame:
    """Train one network and write a run to `folder`.

    An interrupted training resumes, a finished one is not repeated. One thread, deterministic: the same
    clips, settings and processor give the same bytes.

    Args:
        progress: show a bar on a terminal, or else print a line per epoch.
        after_epoch: called with each new row of the history; what it raises ends the training.

    Returns:
        The history, one row per epoch: epoch (from 1), learning_rate, training_mse (mean over the epoch's
            clips, each before its own update, with dropout), validation_mse.

    Raises:
        SettingsError: the processor has no instructions for the precision.
        TrainingError: a loss or a prediction of a validation clip is not finite.
        RunError: the checkpoint in the folder is damaged.
    """
    if settings.precision == "bfloat16" and device.type == "cpu" and not has_bfloat16():
        raise SettingsError(
            "PRECISION=bfloat16 was given, for which this processor lacks the instructions (AVX-512); "
            "expected PRECISION=float32, or a machine with them."
        )
    torch.set_num_threads(1)
    # Without it, products on CUDA may differ from run to run.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    # Filling new memory with NaN only serves to find operations that read it first, and slows every step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.set_flush_denormal(True)  # saturated gates have denormal gradients, at a tenth of the speed
    torch.manual_seed(settings.seed)
    loop = _Loop(training_data, settings, folder, device)
    if loop.place.is_finished():
        shutil.rmtree(loop.place.unfinished, ignore_errors=True)
        loop.history = pd.read_csv(folder / "history.csv").to_dict("records")
    elif not loop.resume():
        loop.place.begin(loop.run)
    finished, on_terminal = len(loop.history), sys.stderr.isatty()
    label = f"{settings.model} {settings.preset} {settings.seed}"
    epochs = range(1, settings.epochs + 1)
    for epoch in tqdm(epochs, label, unit="epoch", disable=not (progress and on_terminal)):
        # Epochs from before a kill are printed too, so that the output is that of an undisturbed training.
        row = loop.run_epoch(epoch) if epoch > finished else loop.history[epoch - 1]
        if progress and not on_terminal:
            print(
                f"epoch {row['epoch']:3.0f}/{settings.epochs}   training MSE {row['training_mse']:.3f}   "
                f"validation MSE {row['validation_mse']:.3f}",
                flush=True,
            )
        if after_epoch is not None and epoch > finished:
            after_epoch(row)
    if loop.place.unfinished.is_dir():
        loop.place.finish(loop.history, loop.seconds, str(device))
    return pd.DataFrame(loop.history, columns=HISTORY)


class _Loop:
    def __init__(
        self, training_data: TrainingData, settings: TrainingSettings, folder: Path, device: torch.device
    ):
        self.training_data, self.settings, self.device = training_data, settings, device
        self.place = TrainingFolder(training_data, settings, folder, "import valence_lib.training.loop")
        self.features = training_data.store.of(settings.streams)
        self.train_rows, self.validation_rows = training_data.rows("train"), training_data.rows("validation")
        self.truth = torch.tensor(training_data.truth, dtype=torch.float32)
        self.speakers = training_data.speakers
        in_training = training_data.clips["subset"].to_numpy() == "train"
        standardiser = Standardiser.fit(settings.standardise, self.features, list(self.speakers), in_training)
        self.model = build_model(settings.model, self.features.widths).to(device)
        self.run = Run(training_data.store.settings, settings, self.model, standardiser, training_data.target)
        self.optimiser = torch.optim.Adam(
            self.model.parameters(),
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            fused=device.type in ("cpu", "cuda"),
        )
        self.history: list[dict[str, float]] = []
        self.seconds = 0.0
        clip_bytes = 4 * sum(self.features.widths) * float(self.features.lengths.mean())
        self.read = lru_cache(maxsize=int(_CACHED_BYTES / clip_bytes))(self._read)

    def run_epoch(self, epoch: int) -> dict[str, float]:
        """Train one epoch, validate, and write a checkpoint."""
        started = time.perf_counter()
        settings, lengths = self.settings, self.features.lengths
        reductions = (epoch - 1) // settings.learning_rate_period if settings.learning_rate_period else 0
        learning_rate = settings.learning_rate * settings.learning_rate_factor**reductions
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate
        torch.manual_seed(int(np.random.SeedSequence([settings.seed, epoch]).generate_state(1)[0]))
        generator = np.random.default_rng([settings.seed, epoch])
        order = shuffled(self.train_rows, lengths, settings.batch_size, generator)
        self.model.train()
        losses = torch.stack([self._step(batch) for batch in load(order, self.read)]).double().cpu()
        if not losses.isfinite().all():
            number = int(losses.isfinite().logical_not().nonzero()[0])
            clips = ", ".join(self.training_data.clips["id"].iloc[order[number]])
            raise TrainingError(
                f"the loss is {losses[number]:g} in epoch {epoch}, batch {number + 1}, on the clips {clips}. "
                f"Expected a finite number: lower learning_rate={settings.learning_rate:g} or "
                f"max_gradient_norm={settings.max_gradient_norm:g}, or check those clips."
            )
        sizes = torch.tensor([len(rows) for rows in order]).double()
        row = {
            "epoch": epoch,
            "learning_rate": learning_rate,
            "training_mse": float(losses @ sizes / sizes.sum()),
            "validation_mse": self._validate(epoch),
        }
        best = min((past["validation_mse"] for past in self.history), default=float("inf"))
        if row["validation_mse"] < best or (epoch == settings.epochs and not len(self.validation_rows)):
            save_best(self.place.unfinished, self.run)
        self.history.append(row)
        self.seconds += time.perf_counter() - started
        content = {
            "digest": self.place.digest,
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "history": self.history,
            "seconds": self.seconds,
        }
        # Through memory: torch reports a full disk as an error of its own, also for an open file.
        checkpoint = BytesIO()
        torch.save(content, checkpoint)
        with atomic_write(self.place.unfinished / _CHECKPOINT) as path:
            path.write_bytes(checkpoint.getbuffer())
        return row

    def _read(self, row: int) -> Tensor:
        frames = self.run.standardiser.apply(self.features[row], self.speakers[row])
        return torch.from_numpy(frames).to(self.device, non_blocking=True)

    def _step(self, batch: Batch) -> Tensor:
        """One gradient step; the loss stays on the device, which need not wait for it."""
        self.optimiser.zero_grad()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.precision == "bfloat16"):
            predictions = self.model(batch.frames, batch.lengths).float()
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
        by_row = predict_batches(self.model, load(batches, self.read))
        predictions = np.array([by_row[row] for row in self.validation_rows.tolist()])
        return validation_mse(self.training_data, self.validation_rows, predictions, f" in epoch {epoch}")

    def resume(self) -> bool:
        """Return to the last finished epoch of this training; False where the folder holds none."""
        path = self.place.unfinished / _CHECKPOINT
        if not path.is_file():
            return False
        try:
            content = torch.load(path, map_location=self.device, weights_only=True)
            if content["digest"] != self.place.digest:
                return False
            self.model.load_state_dict(content["model"])
            self.optimiser.load_state_dict(content["optimiser"])
            self.history, self.seconds = content["history"], content["seconds"]
        except (*DAMAGES, EOFError, UnpicklingError) as error:
            raise RunError(
                f"the unfinished training in {self.place.unfinished} is damaged ({error}); delete it."
            ) from error
        return True
