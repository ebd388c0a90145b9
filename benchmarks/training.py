"""Training against other ways to train, in parallel processes, and with other batches and precision."""

import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats

from benchmarks.peers import Peer
from benchmarks.timing import rates, speed_up, spread, take_turns
from benchmarks.work import SETTINGS, SHARED, Repeated
from valence_lib.corpora.opening import open_corpus
from valence_lib.corpora.sources import Corpus
from valence_lib.features.standardise import Standardiser
from valence_lib.preprocess.inspection import inspect_corpus
from valence_lib.preprocess.splits import make_splits
from valence_lib.preprocess.store import FeatureStore
from valence_lib.registry import COURSE_MODELS, training_settings
from valence_lib.settings import CorpusSettings
from valence_lib.training import batches
from valence_lib.training.batches import load, shuffled
from valence_lib.training.loop import TrainingData, _Loop, has_bfloat16, train

CPU = torch.device("cpu")
BATCH_SIZE = 32
_HIDDEN = 128


def forward_flops(model: str) -> int:
    """Floating-point operations of the forward pass for one frame of a clip.

    A product of an (m, k) with a (k, n) matrix takes 2 m k n.
    """
    if model == "CNN":
        return _convolution_flops(1, 8) + _convolution_flops(8, 16)
    layers = [(SETTINGS.n_mels, 1)] if model == "LSTM1" else [(SETTINGS.n_mels, 2), (2 * _HIDDEN, 2)]
    return sum(directions * 2 * 4 * _HIDDEN * (size + _HIDDEN) for size, directions in layers)


def training_flops(model: str) -> int:
    """Floating-point operations of the forward and backward passes for one frame of a clip.

    The backward pass takes two products for each of the forward pass, one for the gradient of the weights and
    one for that of the input; the input of the first layer needs none.
    """
    directions = 1 if model == "LSTM1" else 2
    of_lstm = directions * 2 * 4 * _HIDDEN * SETTINGS.n_mels
    return 3 * forward_flops(model) - (_convolution_flops(1, 8) if model == "CNN" else of_lstm)


def _convolution_flops(channels_in: int, channels_out: int) -> int:
    return 2 * 9 * channels_in * channels_out * SETTINGS.n_mels


def prepare(pickles: Path, folder: Path, count: int) -> TrainingData:
    """Random clips of a course folder, with features, all in the training subset."""
    drawn = np.random.default_rng(0).permutation(len(open_corpus(pickles)))[:count]
    data = _preprocessed(Repeated(pickles, sorted(drawn.tolist())), CorpusSettings(), folder)
    clips = data.clips.assign(subset="train", speaker="", rating=data.clips["rating"].fillna(3.0))
    return TrainingData(FeatureStore(folder, clips, SETTINGS), clips)


def prepare_ratings(folder: Path, clips_per_speaker: int) -> TrainingData:
    """EmoTale, or else the demo, with features and subsets: for validation errors."""
    where = SHARED / "emotale"
    settings = CorpusSettings(clips_per_speaker=clips_per_speaker)
    data = _preprocessed(open_corpus(where if where.is_dir() else "demo"), settings, folder)
    return data.with_subsets(make_splits(data.clips, "holdout", 3, settings.seed).subset)


def _preprocessed(corpus: Corpus, settings: CorpusSettings, folder: Path) -> TrainingData:
    clips = inspect_corpus(corpus, settings, SETTINGS, folder, workers=1, progress=False).clips
    return TrainingData(FeatureStore(folder, clips, SETTINGS), clips)


def measure(
    data: TrainingData, longest: int, limit_gflops: float, counts: dict[str, int], rounds: int
) -> dict[str, Any]:
    """Clips per second of every model and way to train, on one thread, with batches of 32.

    Args:
        longest: frames of the longest clip of the corpus, to which the course notebooks pad.
        limit_gflops: rate of the matrix product.
        counts: number of clips by model.
    """
    truth = torch.tensor(data.clips["rating"].to_numpy(np.float32))
    lengths = data.store.lengths
    raw = list(data.store)
    standardiser = Standardiser.fit("train", raw, [""] * len(raw), [True] * len(raw))
    standardised = [standardiser.apply(frames) for frames in raw]
    peers = {
        "course": Peer(raw, longest, flush=False),
        "batch's longest": Peer(standardised),
        "packed": Peer(standardised, packed=True),
    }
    frames_per_clip = round(float(lengths.mean()), 1)
    found: dict[str, Any] = {"longest_frames": longest, "frames_per_clip": frames_per_clip}
    for model, count in counts.items():
        rows = np.random.default_rng(1).permutation(len(lengths))[:count]
        functions: dict[str, Callable[[], object]] = {"ours": our_epoch(new_loop(data, model), rows)}
        for name, peer in peers.items():
            if not (peer.packed and model == "CNN"):
                functions[name] = peer.epoch(model, rows, truth, BATCH_SIZE)
        seconds = take_turns(functions, rounds)
        ratios = {name: speed_up(seconds, "ours", name) for name in functions if name != "ours"}
        flops = int(lengths[rows].sum()) * training_flops(model)
        gflops = spread([flops / one / 1e9 for one in seconds["ours"]])
        found[model] = {
            "clips": count,
            "clips_per_s": rates(seconds, count),
            "ratios": ratios,
            **{f"ratio_vs_{name}": ratios[name]["median"] for name in ratios if name in ("course", "packed")},
            "flops_per_frame": training_flops(model),
            "forward_flops_per_frame": forward_flops(model),
            "gflops": gflops,
            "share_of_matrix_product": round(gflops["median"] / limit_gflops, 3),
        }
    return found


def new_loop(data: TrainingData, model: str, device: torch.device = CPU, **changes: Any) -> _Loop:
    """The training loop of a new model; what it writes goes into the feature store's folder."""
    torch.manual_seed(0)
    settings = training_settings(model, "default", 0, **{"batch_size": BATCH_SIZE, **changes})
    return _Loop(data, settings, data.store.folder, device)


def our_epoch(loop: _Loop, rows: np.ndarray) -> Callable[[], None]:
    """A function that trains for one epoch on some clips as `train` does, without validation."""
    generator = np.random.default_rng(0)

    def run() -> None:
        torch.set_flush_denormal(True)
        loop.model.train()
        order = shuffled(rows, loop.training_data.store.lengths, loop.settings.batch_size, generator)
        torch.stack([loop._step(batch) for batch in load(order, loop.read)]).cpu()

    return run


def measure_bfloat16(data: TrainingData, count: int, rounds: int) -> dict[str, Any] | str:
    """LSTM2 in bfloat16 against float32, on the CPU."""
    if not has_bfloat16():
        return "skipped: the processor has no AVX-512"
    rows = np.random.default_rng(1).permutation(len(data.store.lengths))[:count]
    functions = {
        name: our_epoch(new_loop(data, "LSTM2", precision=name), rows) for name in ("float32", "bfloat16")
    }
    return {"ratio_vs_float32": speed_up(take_turns(functions, rounds), "bfloat16", "float32")}


def measure_on_gpu(data: TrainingData, rounds: int) -> dict[str, Any] | str:
    """Clips per second on a CUDA device, with batches of 32 and 256 clips, in both precisions."""
    if not torch.cuda.is_available():
        return "skipped: no CUDA device was found"
    rows = np.arange(len(data.store.lengths))
    functions = {}
    for model, size, precision in product(COURSE_MODELS, (32, 256), ("float32", "bfloat16")):
        loop = new_loop(data, model, torch.device("cuda"), batch_size=size, precision=precision)
        functions[f"{model}, batch {size}, {precision}"] = our_epoch(loop, rows)
    seconds = take_turns(functions, rounds)
    return {"device": torch.cuda.get_device_name(), "clips_per_s": rates(seconds, len(rows))}


def train_once(
    data: TrainingData,
    model: str,
    seed: int,
    epochs: int,
    batches_per_pool: int = batches._BATCHES_PER_POOL,
    precision: str = "float32",
) -> dict[str, float]:
    """Seconds of one training, and the validation MSE of its last epoch."""
    torch.set_num_threads(1)
    batches._BATCHES_PER_POOL = batches_per_pool
    changes = {"epochs": epochs, "batch_size": BATCH_SIZE, "precision": precision}
    settings = training_settings(model, "default", seed, **changes)
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        history = train(data, settings, Path(folder), CPU, progress=False)
        seconds = time.perf_counter() - started
    return {"seconds": seconds, "validation_mse": float(history["validation_mse"].iloc[-1])}


def _train_all(data: TrainingData, jobs: list[dict[str, Any]], processes: int) -> list[dict[str, float]]:
    warm_up = [job | {"epochs": 1} for job in jobs[:processes]]  # imports and compiles
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        for some in (warm_up, jobs):
            results = [pool.submit(train_once, data, **job) for job in some]
            found = [result.result() for result in results]
    return found


def measure_parallel(data: TrainingData, cores: int, epochs: int) -> dict[str, Any]:
    """Speed-up of one training per core over one training after the other."""
    jobs = [{"model": "LSTM2", "seed": seed, "epochs": epochs} for seed in range(cores)]
    alone = statistics.median(one["seconds"] for one in _train_all(data, jobs[:1] * 2, 1))
    together = statistics.median(one["seconds"] for one in _train_all(data, jobs, cores))
    return {"cores": cores, "speed_up": round(cores * alone / together, 2)}


def compare_errors(
    data: TrainingData, model: str, variants: dict[str, dict[str, Any]], cores: int, seeds: int, epochs: int
) -> dict[str, Any]:
    """Validation MSE of a model in two variants, and the 95 % interval of the difference, paired by seed.

    Args:
        variants: name and further arguments of `train_once` of either variant.
    """
    jobs = [
        {"model": model, "seed": seed, "epochs": epochs, **changes}
        for seed in range(seeds)
        for changes in variants.values()
    ]
    errors = np.array([one["validation_mse"] for one in _train_all(data, jobs, cores)]).reshape(seeds, 2)
    interval = stats.ttest_rel(*errors.T).confidence_interval(0.95)
    means = {
        f"mse_{name}": round(float(mean), 4) for name, mean in zip(variants, errors.mean(0), strict=True)
    }
    return {
        "epochs": epochs,
        "seeds": seeds,
        **means,
        "difference": round(float(np.subtract(*errors.T).mean()), 4),
        "interval": [round(float(interval.low), 4), round(float(interval.high), 4)],
    }
