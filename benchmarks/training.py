"""Training against the ways people use now; several trainings side by side; what length buckets do to the error."""

import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats

from benchmarks.peers import Way
from benchmarks.timing import rates, ratio, side_by_side, spread
from benchmarks.work import SETTINGS, SHARED, Repeated
from valence_lib import batches
from valence_lib.batches import shuffled
from valence_lib.corpora import open_corpus
from valence_lib.features import Standardiser
from valence_lib.inspection import inspect_corpus
from valence_lib.registry import training_settings
from valence_lib.settings import (
    CorpusSettings,
)
from valence_lib.splits import assign_parts
from valence_lib.store import FeatureStore
from valence_lib.training import Material, _Loop, train

CPU = torch.device("cpu")
BATCH_SIZE = 32
_HIDDEN = 128


def flops_per_frame(model: str) -> int:
    """Floating-point operations of forward and backward passes for one frame of one clip.

    A product of an (m, k) with a (k, n) matrix takes 2 m k n. The way back takes two such products for each on
    the way forth, one for the weights and one for the input; the first layer's input needs none.
    """
    input_of_first = {"LSTM1": 1, "LSTM2": 2}.get(model, 0) * 2 * 4 * _HIDDEN * SETTINGS.n_mels
    if model == "CNN":
        input_of_first = _convolution(1, 8)
    return 3 * flops_forth(model) - input_of_first


def flops_forth(model: str) -> int:
    """Floating-point operations of the forward pass for one frame of one clip."""
    if model == "CNN":
        return _convolution(1, 8) + _convolution(8, 16)
    layers = [(SETTINGS.n_mels, 1)] if model == "LSTM1" else [(SETTINGS.n_mels, 2), (2 * _HIDDEN, 2)]
    return sum(directions * 2 * 4 * _HIDDEN * (size + _HIDDEN) for size, directions in layers)


def _convolution(taken: int, given: int) -> int:
    return 2 * 9 * taken * given * SETTINGS.n_mels


def prepare(pickles: Path, folder: Path, count: int) -> Material:
    """Clips of a course folder, drawn the same every time, with their features, all for training."""
    corpus = Repeated(pickles, len(open_corpus(pickles)))
    chosen = np.sort(np.random.default_rng(0).permutation(len(corpus))[:count])
    corpus._files, corpus.ids = ([given[i] for i in chosen] for given in (corpus._files, corpus.ids))
    clips = inspect_corpus(corpus, CorpusSettings(), SETTINGS, folder, workers=1, progress=False).clips
    clips = clips.assign(part="train", speaker="", valence=clips["valence"].fillna(3.0))
    return Material(FeatureStore(folder, clips, SETTINGS), clips)


def measure(
    material: Material, longest: int, limit_gflops: float, counts: dict[str, int], rounds: int
) -> dict[str, Any]:
    """Clips a second of every model and way, one thread, batch 32, and the share of the matrix product's limit.

    Args:
        longest: frames of the longest clip of the whole corpus, to which the course's way pads.
        counts: how many clips, by model.
    """
    truth = torch.tensor(material.clips["valence"].to_numpy(np.float32))
    lengths = material.store.lengths
    raw = list(material.store)
    in_training = [True] * len(raw)
    standardiser = Standardiser.fit("train", raw, [""] * len(raw), in_training)
    standardised = [standardiser.apply(frames) for frames in raw]
    found: dict[str, Any] = {"batch_size": BATCH_SIZE, "longest_frames": longest}
    found["frames_per_clip"] = round(float(lengths.mean()), 1)
    for model, count in counts.items():
        rows = np.random.default_rng(1).permutation(len(lengths))[:count]
        loop = _new_loop(material, model)
        course = Way(raw, longest, packed=False, flush=False)
        ways: dict[str, Callable[[], object]] = {
            "ours": our_epoch(loop, rows),
            "course": course.epoch(model, rows, truth, BATCH_SIZE),
            "batch's longest": Way(standardised, 0, False, True).epoch(model, rows, truth, BATCH_SIZE),
        }
        if model != "CNN":
            ways["packed"] = Way(standardised, 0, True, True).epoch(model, rows, truth, BATCH_SIZE)
        seconds = side_by_side(ways, rounds)
        flops = int(lengths[rows].sum()) * flops_per_frame(model)
        gflops = spread([flops / one / 1e9 for one in seconds["ours"]])
        found[model] = {
            "clips": count,
            "clips_per_s": rates(seconds, count),
            "ratio_vs_course": ratio(seconds, "ours", "course")["median"],
            "ratios": {name: ratio(seconds, "ours", name) for name in ways if name != "ours"},
            "flops_per_frame": flops_per_frame(model),
            "flops_forth_per_frame": flops_forth(model),
            "gflops": gflops,
            "share_of_matrix_product": round(gflops["median"] / limit_gflops, 3),
        }
        if "packed" in ways:
            found[model]["ratio_vs_packed"] = found[model]["ratios"]["packed"]["median"]
            # What the limit allows: the other ways' time, had ours run at the rate of the matrix product.
            for name in ("course", "packed"):
                fastest = flops / limit_gflops / 1e9
                found[model][f"largest_possible_ratio_vs_{name}"] = round(
                    statistics.median(seconds[name]) / fastest, 2
                )
    return found


def _new_loop(material: Material, model: str, device: torch.device = CPU, **changes: Any) -> _Loop:
    torch.manual_seed(0)
    settings = training_settings(model, "default", 0, **{"batch_size": BATCH_SIZE, **changes})
    # What an epoch leaves lies beside the features, which go when the benchmark ends.
    return _Loop(material, settings, material.store.folder, device)


def our_epoch(loop: _Loop, rows: np.ndarray) -> Callable[[], None]:
    """What trains for one pass over some clips as `train` does, without validation."""
    generator = np.random.default_rng(0)

    def run() -> None:
        torch.set_flush_denormal(True)
        loop.model.train()
        order = shuffled(rows, loop.material.store.lengths, loop.settings.batch_size, generator)
        torch.stack([loop._step(batch) for batch in loop.kept.load(order)]).cpu()

    return run


def measure_half_precision(material: Material, count: int, rounds: int) -> dict[str, Any]:
    """LSTM2 with its large products in bfloat16 against float32, on the CPU."""
    rows = np.random.default_rng(1).permutation(len(material.store.lengths))[:count]
    ways = {
        name: our_epoch(_new_loop(material, "LSTM2", precision=name), rows)
        for name in ("float32", "bfloat16")
    }
    return {"ratio_vs_float32": ratio(side_by_side(ways, rounds), "bfloat16", "float32")}


def measure_on_gpu(material: Material, rounds: int) -> dict[str, Any] | str:
    """Clips a second on a CUDA device, with batches of 32 and 256 clips, in both precisions."""
    if not torch.cuda.is_available():
        return "skipped: no CUDA device was found"
    rows = np.arange(len(material.store.lengths))
    ways = {}
    for model in ("LSTM1", "CNN", "LSTM2"):
        for size in (32, 256):
            for precision in ("float32", "bfloat16"):
                loop = _new_loop(material, model, torch.device("cuda"), batch_size=size, precision=precision)
                ways[f"{model}, batch {size}, {precision}"] = our_epoch(loop, rows)
    return {
        "device": torch.cuda.get_device_name(),
        "clips_per_s": rates(side_by_side(ways, rounds), len(rows)),
    }


def measure_stacking(rounds: int) -> dict[str, Any]:
    """Whether the products of five seeds are cheaper as one batched product each than one by one.

    Products of one step's size (32 clips, 128 units, 512 gates) and of a layer's input (1,400 frames).
    """
    found = {}
    for name, rows in (("step", BATCH_SIZE), ("layer", 1400)):
        a, b = torch.randn(5, rows, _HIDDEN), torch.randn(5, _HIDDEN, 4 * _HIDDEN)
        out, outs = torch.empty(rows, 4 * _HIDDEN), torch.empty(5, rows, 4 * _HIDDEN)
        repeats = 20_000 // rows
        ways = {
            "one": lambda a=a, b=b, out=out, n=repeats: [torch.mm(a[0], b[0], out=out) for _ in range(n)],
            "five stacked": lambda a=a, b=b, out=outs, n=repeats: [
                torch.bmm(a, b, out=out) for _ in range(n)
            ],
        }
        found[f"five_stacked_over_one_{name}"] = ratio(side_by_side(ways, rounds), "one", "five stacked")
    return found


# Whole trainings, in processes of their own


def prepare_ratings(folder: Path, clips_per_speaker: int) -> Material:
    """EmoTale, or the demo where it is not there, with features and parts: for the error, not the time."""
    where = SHARED / "emotale"
    corpus = open_corpus(where if where.is_dir() else "demo")
    settings = CorpusSettings(clips_per_speaker=clips_per_speaker)
    clips = inspect_corpus(corpus, settings, SETTINGS, folder, workers=1, progress=False).clips
    parts, _ = assign_parts(clips, settings.seed)
    clips = clips.assign(part=parts)
    return Material(FeatureStore(folder, clips, SETTINGS), clips)


def train_once(
    material: Material, model: str, seed: int, epochs: int, batches_per_pool: int, precision: str
) -> dict[str, float]:
    """Seconds and the last epoch's validation MSE of one training."""
    torch.set_num_threads(1)
    batches._BATCHES_PER_POOL = batches_per_pool
    settings = training_settings(
        model, "default", seed, epochs=epochs, batch_size=BATCH_SIZE, precision=precision
    )
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        history = train(material, settings, Path(folder), CPU, progress=False)
        seconds = time.perf_counter() - started
    return {"seconds": seconds, "validation_mse": float(history["validation_mse"].iloc[-1])}


def _trainings(jobs: list[tuple[Any, ...]], workers: int) -> list[dict[str, float]]:
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        # One short training each first: imports and compiled code are then there.
        list(pool.map(train_once, *zip(*[(*job[:3], 1, *job[4:]) for job in jobs[:workers]], strict=True)))
        return list(pool.map(train_once, *zip(*jobs, strict=True)))


def measure_side_by_side(material: Material, workers: int, epochs: int) -> dict[str, Any]:
    """How many trainings' worth of work so many cores do in the time of one."""
    pool = batches._BATCHES_PER_POOL
    jobs = [(material, "LSTM2", seed, epochs, pool, "float32") for seed in range(workers)]
    alone = statistics.median(one["seconds"] for one in _trainings(jobs[:1] * 2, 1))
    together = statistics.median(one["seconds"] for one in _trainings(jobs, workers))
    return {"cores": workers, "cores_worth": round(workers * alone / together, 2)}


def measure_buckets(material: Material, workers: int, seeds: int, epochs: int) -> dict[str, Any]:
    """Validation MSE of LSTM2 after training with length buckets and with random batches, paired by seed."""
    pool = batches._BATCHES_PER_POOL
    jobs = [(material, "LSTM2", s, epochs, size, "float32") for s in range(seeds) for size in (pool, 1)]
    found = _trainings(jobs, workers)
    return {"epochs": epochs, **_paired("bucketed", found[::2], "random", found[1::2])}


def measure_precision_of_scores(material: Material, workers: int, seeds: int, epochs: int) -> dict[str, Any]:
    """Validation MSE of LSTM1 after training in bfloat16 and in float32, paired by seed."""
    pool = batches._BATCHES_PER_POOL
    jobs = [
        (material, "LSTM1", s, epochs, pool, kind) for s in range(seeds) for kind in ("bfloat16", "float32")
    ]
    found = _trainings(jobs, workers)
    return {"epochs": epochs, **_paired("bfloat16", found[::2], "float32", found[1::2])}


def _paired(name: str, ours: list[dict[str, float]], other_name: str, theirs: list[dict[str, float]]) -> dict:
    """Mean errors, and the 95 % interval of their difference by Student's t over the pairs."""
    first, second = ([one["validation_mse"] for one in runs] for runs in (ours, theirs))
    differences = np.array(first) - np.array(second)
    margin = stats.t.ppf(0.975, len(differences) - 1) * differences.std(ddof=1) / np.sqrt(len(differences))
    mean = differences.mean()
    return {
        "seeds": len(differences),
        f"mse_{name}": round(float(np.mean(first)), 4),
        f"mse_{other_name}": round(float(np.mean(second)), 4),
        "difference": round(float(mean), 4),
        "interval": [round(float(mean - margin), 4), round(float(mean + margin), 4)],
    }
