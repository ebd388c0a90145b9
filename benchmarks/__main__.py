"""`python -m benchmarks`: measure every stage, write results.json, the README's table and the figure.

With --quick, small sizes and few rounds, written elsewhere: it shows that all of it still runs.
"""

import argparse
import json
import os
import platform
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

import torch
from threadpoolctl import threadpool_limits

from benchmarks import front_end, limits, predicting, preprocessing, scaling, summary, training, work
from valence_lib.provenance import version_of

HERE = Path(__file__).parent
PACKAGES = (
    *("torch", "numpy", "scipy", "numba", "librosa", "kaldi-native-fbank", "soundfile", "safetensors"),
)
FULL: dict[str, Any] = {
    "copies": 12,
    "rounds": 5,
    "waveforms": 400,
    "training_clips": {"LSTM1": 768, "CNN": 96, "LSTM2": 512},
    "preprocessed": (10_000, 40_000),
    "ratings_per_speaker": 0,
    "seeds": 5,
    "epochs": 20,
    "files": 1000,
    "minutes": 60,
    "scaling": [1000, 4000, 16_000, 64_000],
}
QUICK: dict[str, Any] = {
    "copies": 1,
    "rounds": 2,
    "waveforms": 60,
    "training_clips": {"LSTM1": 64, "CNN": 32, "LSTM2": 64},
    "preprocessed": (300, 600),
    "ratings_per_speaker": 6,
    "seeds": 2,
    "epochs": 2,
    "files": 60,
    "minutes": 2,
    "scaling": [100, 400],
}


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that all of it runs")
    quick = parser.parse_args().quick
    size = QUICK if quick else FULL
    torch.set_num_threads(1)
    with threadpool_limits(1), tempfile.TemporaryDirectory(prefix="valence-bench-") as scratch:
        results = measure(size, Path(scratch))
        target = Path(scratch) / "summary" if quick else HERE
        target.mkdir(exist_ok=True)
        (target / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        summary.write_figure(results, target / "results.png")
        print(summary.table(results), summary.arithmetic(results), summary.growth(results), sep="\n")
        if not quick:
            summary.write_into(HERE.parent / "README.md", {"benchmark": summary.table(results)})
            parts = {"arithmetic": summary.arithmetic(results), "growth": summary.growth(results)}
            summary.write_into(HERE / "README.md", parts)


def measure(size: dict[str, Any], scratch: Path) -> dict[str, Any]:
    """All results, stage by stage; each says on standard output how long it took."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    clock = _Clock()
    pickles = scratch / "pickles"
    what = work.make_pickles(pickles, size["copies"])
    waveforms = work.some_waveforms(pickles, size["waveforms"])
    clock.say(f"work: {what}")
    rounds = size["rounds"]
    results: dict[str, Any] = {
        "date": date.today().isoformat(),
        "cpu": _cpu(),
        "cores": cores,
        "versions": {name: found for name in PACKAGES if (found := version_of(name))},
        "work": what,
    }
    results["limits"] = limits.measure(scratch, rounds)
    clock.say("limits")
    results["front_end"] = front_end.measure(waveforms, rounds)
    clock.say("front end")

    material = training.prepare(pickles, scratch / "training", max(size["training_clips"].values()))
    limit = results["limits"]["matrix_product_gflops"]["median"]
    results["training"] = training.measure(
        material, work.longest_clip(pickles), limit, size["training_clips"], rounds
    )
    clock.say("training")
    results["training"]["bfloat16"] = training.measure_half_precision(material, 96, rounds)
    results["training"]["seeds_stacked"] = training.measure_stacking(rounds)
    results["training"]["gpu"] = training.measure_on_gpu(material, rounds)
    clock.say("half precision, stacked seeds, graphics card")
    rated = training.prepare_ratings(scratch / "ratings", size["ratings_per_speaker"])
    epochs, seeds = size["epochs"], size["seeds"]
    results["training"]["side_by_side"] = training.measure_side_by_side(rated, cores, max(1, epochs // 5))
    results["training"]["buckets"] = training.measure_buckets(rated, cores, seeds, epochs)
    clock.say("side by side, length buckets")
    results["training"]["bfloat16"]["scores"] = training.measure_precision_of_scores(
        rated, cores, seeds, max(1, epochs // 4)
    )
    clock.say("scores in half precision")

    results["preprocessing"] = preprocessing.measure(pickles, scratch, size["preprocessed"], cores, waveforms)
    clock.say("preprocessing")
    files = [waveforms[number % len(waveforms)] for number in range(size["files"])]
    results["prediction"] = predicting.measure(files, scratch, cores, max(2, rounds - 2))
    results["prediction"]["recording"] = predicting.measure_recording(waveforms, scratch, size["minutes"])
    results["prediction"]["start_seconds"] = predicting.measure_start(rounds)
    clock.say("prediction")
    results["scaling"] = scaling.measure(pickles, scratch, size["scaling"], cores)
    clock.say("scaling")
    results["shares"] = {
        "front_end_of_fourier_transform": results["front_end"]["share_of_fourier_transform"]["median"],
        "preprocessing_of_front_end": results["preprocessing"]["share_of_front_end_on_all_cores"],
        **{
            f"{model}_of_matrix_product": results["training"][model]["share_of_matrix_product"]
            for model in size["training_clips"]
        },
        **{
            f"prediction_{model}_of_slower_stage": share["median"]
            for model, share in results["prediction"]["share_of_slower_stage"].items()
        },
    }
    results["seconds_in_all"] = round(clock.total())
    return results


class _Clock:
    """Says how long each stage took."""

    def __init__(self) -> None:
        self._started = self._before = time.perf_counter()

    def total(self) -> float:
        """Seconds since the beginning."""
        return time.perf_counter() - self._started

    def say(self, stage: str) -> None:
        """Name the stage that has ended."""
        now = time.perf_counter()
        print(f"{now - self._before:7.1f} s  {stage}", flush=True)
        self._before = now


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
