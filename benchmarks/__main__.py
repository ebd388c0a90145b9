"""`python -m benchmarks`: measure every stage; write results.json, the figure and the tables of both READMEs.

With --quick, small sizes and few rounds, and no files are changed: a test that everything runs.
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
from valence_lib.registry import COURSE_MODELS

HERE = Path(__file__).parent
PACKAGES = ["torch", "numpy", "scipy", "numba", "librosa", "kaldi-native-fbank", "soundfile", "safetensors"]
SIZES: dict[str, tuple[Any, Any]] = {  # full, quick
    "copies": (12, 1),
    "rounds": (5, 2),
    "waveforms": (400, 60),
    "training_clips": ({"LSTM1": 768, "CNN": 96, "LSTM2": 512}, {"LSTM1": 64, "CNN": 32, "LSTM2": 64}),
    "preprocessed": ((10_000, 40_000), (300, 600)),
    "ratings_per_speaker": (0, 6),
    "seeds": (5, 2),
    "epochs": (20, 2),
    "files": (1000, 60),
    "minutes": (60, 2),
    "scaling": ([1000, 4000, 16_000, 64_000], [100, 400]),
}


def main() -> None:
    """Measure, print the tables and, without --quick, write the files."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes: a test that everything runs")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    with threadpool_limits(1), tempfile.TemporaryDirectory(prefix="valence-bench-") as scratch:
        results = measure({name: sizes[quick] for name, sizes in SIZES.items()}, Path(scratch))
        target = Path(scratch) if quick else HERE
        (target / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        summary.write_figure(results, target / "results.png")
    print(summary.table(results), summary.arithmetic(results), summary.growth(results), sep="\n")
    if not quick:
        summary.write_into(HERE.parent / "README.md", {"benchmark": summary.table(results)})
        sections = {"arithmetic": summary.arithmetic(results), "growth": summary.growth(results)}
        summary.write_into(HERE / "README.md", sections)


def measure(size: dict[str, Any], scratch: Path) -> dict[str, Any]:
    """All results, stage by stage; the time of each is printed."""
    started = time.perf_counter()

    def done(stage: str) -> None:
        print(f"{time.perf_counter() - started:7.1f} s  {stage}", flush=True)

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    pickles = scratch / "pickles"
    rounds, epochs, seeds = size["rounds"], size["epochs"], size["seeds"]
    results: dict[str, Any] = {
        "date": date.today().isoformat(),
        "cpu": _cpu(),
        "cores": cores,
        "versions": {name: version_of(name) for name in PACKAGES},
        "work": work.make_pickles(pickles, size["copies"]),
    }
    waveforms = work.some_waveforms(pickles, size["waveforms"])
    done("clips")
    results["limits"] = limits.measure(scratch, rounds)
    done("limits")
    results["front_end"] = front_end.measure(waveforms, rounds)
    done("front end")

    counts = size["training_clips"]
    data = training.prepare(pickles, scratch / "training", max(counts.values()))
    limit = results["limits"]["matrix_product_gflops"]["median"]
    trained = training.measure(data, work.longest_clip(pickles), limit, counts, rounds)
    results["training"] = trained
    done("training")
    trained["gpu"] = training.measure_on_gpu(data, rounds)
    done("graphics card")
    rated = training.prepare_ratings(scratch / "ratings", size["ratings_per_speaker"])
    trained["parallel"] = training.measure_parallel(rated, cores, max(1, epochs // 5))
    order = {"bucketed": {}, "random": {"batches_per_pool": 1}}
    trained["buckets"] = training.compare_errors(rated, "LSTM2", order, cores, seeds, epochs)
    done("parallel trainings, validation errors with length buckets")
    trained["bfloat16"] = training.measure_bfloat16(data, 96, rounds)
    if isinstance(trained["bfloat16"], dict):
        precision = {name: {"precision": name} for name in ("bfloat16", "float32")}
        trained["bfloat16"]["scores"] = training.compare_errors(
            rated, "LSTM1", precision, cores, seeds, max(1, epochs // 4)
        )
    done("bfloat16")

    passes = preprocessing.measure(pickles, scratch, size["preprocessed"], cores, waveforms)
    results["preprocessing"] = passes
    done("preprocessing")
    files = [waveforms[number % len(waveforms)] for number in range(size["files"])]
    predicted = predicting.measure(files, scratch, cores, max(2, rounds - 2))
    predicted["recording"] = predicting.measure_recording(waveforms, scratch, size["minutes"])
    predicted["start_seconds"] = predicting.measure_start(rounds)
    results["prediction"] = predicted
    done("prediction")
    results["scaling"] = scaling.measure(pickles, scratch, size["scaling"], cores)
    done("scaling")
    results["shares"] = {
        "front_end_of_fourier_transform": results["front_end"]["share_of_fourier_transform"]["median"],
        "preprocessing_of_front_end": passes["share_of_front_end_on_all_cores"],
    }
    for model in COURSE_MODELS:
        share = predicted["share_of_slower_stage"][model]["median"]
        results["shares"][f"{model}_of_matrix_product"] = trained[model]["share_of_matrix_product"]
        results["shares"][f"prediction_{model}_of_slower_stage"] = share
    results["total_seconds"] = round(time.perf_counter() - started)
    return results


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
