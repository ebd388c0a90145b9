"""results.json as tables and text for both READMEs, and as a figure."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from benchmarks.work import SETTINGS
from valence_lib.files import atomic_write
from valence_lib.registry import COURSE_MODELS

_BEGIN, _END = "<!-- {}: begin -->\n", "<!-- {}: end -->"
_NAMES = {
    "course": "course notebooks",
    "packed": "packed sequences",
    "batch's longest": "padding to the longest of the batch",
}


def section(text: str, name: str) -> str:
    """The text between the two marks of that name on a page."""
    return text.split(_BEGIN.format(name))[1].split(_END.format(name))[0]


def write_into(page: Path, sections: dict[str, str]) -> None:
    """Replace the texts between the marks of a page, by name."""
    text = page.read_text(encoding="utf-8")
    for name, content in sections.items():
        begin = _BEGIN.format(name)
        text = text.replace(begin + section(text, name), begin + content)
    with atomic_write(page) as path:
        path.write_text(text, encoding="utf-8")


def table(results: dict[str, Any]) -> str:
    """The table of the project's README, and a line with date, machine and versions."""
    front, training, passes = results["front_end"], results["training"], results["preprocessing"]
    predicted, recording = results["prediction"], results["prediction"]["recording"]
    files_per_s = [f"{model} {_rate(predicted['files_per_s'][model])}/s" for model in COURSE_MODELS]
    shares = [_percent(share["median"]) for share in predicted["share_of_slower_stage"].values()]
    rows = [
        [
            "log-mel, one thread",
            f"{_rate(front['clips_per_s']['ours'])} clips/s",
            _speed_ups(front["ratios"], ("librosa", "torch.stft", "kaldi-native-fbank")),
            f"{_percent(front['share_of_fourier_transform']['median'])} is the Fourier transform",
        ],
        *(
            [
                f"training {model}, one thread",
                f"{_rate(training[model]['clips_per_s']['ours'])} clips/s",
                _speed_ups(training[model]["ratios"], tuple(_NAMES)),
                f"{_percent(training[model]['share_of_matrix_product'])} of the matrix product",
            ]
            for model in COURSE_MODELS
        ),
        [
            f"preprocessing, {passes['processes']} processes",
            f"{passes['clips_per_s']:,} clips/s",
            f"one process {passes['speed_up_of_processes']:.1f}",
            f"{_percent(passes['share_of_front_end_on_all_cores'])} of the front end on all cores; "
            f"at most {max(passes['peak_mb_10k'], passes['peak_mb_40k'])} MB per process",
        ],
        [
            f"prediction of {predicted['files']:,} files",
            "; ".join(files_per_s),
            "",
            f"{', '.join(shares)} of the slower stage ({predicted['slower_stage']})",
        ],
        [
            f"valence curve along {recording['minutes']} minutes",
            "; ".join(f"{model} {recording[model]['seconds']:g} s" for model in COURSE_MODELS),
            "",
            f"at most {max(recording[model]['peak_mb'] for model in COURSE_MODELS)} MB",
        ],
    ]
    versions = ", ".join(f"{name} {number}" for name, number in results["versions"].items())
    return (
        f"Measured on {results['date']} on {results['cores']} cores of {results['cpu']} ({versions}); "
        f"{results['work']}. Matrix product on one thread: "
        f"{results['limits']['matrix_product_gflops']['median']:.0f} GFLOP/s.\n\n"
        + _markdown(["stage", "speed", "speed-up over", "share of the limit"], rows)
    )


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _rate(rate: dict[str, float]) -> str:
    return f"{rate['median']:,.0f}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _speed_ups(ratios: dict[str, dict[str, float]], names: Sequence[str]) -> str:
    found = [name for name in names if name in ratios]
    return ", ".join(f"{_NAMES.get(name, name)} {ratios[name]['median']:.1f}" for name in found)


def arithmetic(results: dict[str, Any]) -> str:
    """The work of each stage, its time at the limits of the machine, and the share that is reached."""
    limits, front, training = results["limits"], results["front_end"], results["training"]
    passes, predicted = results["preprocessing"], results["prediction"]
    limit, n_frames = limits["matrix_product_gflops"]["median"], training["frames_per_clip"]
    n_fft, bins = SETTINGS.n_fft, 1 + SETTINGS.n_fft // 2
    n_read, n_written = passes["bytes_read_per_clip"], passes["bytes_written_per_clip"]
    frame_us = front["microseconds_per_frame"]["median"]
    transform_share = front["share_of_fourier_transform"]["median"]
    transform = f"2.5 · {n_fft:,} · log2 {n_fft:,} = {2.5 * n_fft * math.log2(n_fft):,.0f}"
    rows = [
        [
            "front end, a frame",
            f"window {n_fft:,}; real Fourier transform {transform}; power 3 · {bins:,}; "
            f"mel bands {2 * bins * SETTINGS.n_mels:,}",
            f"Fourier transform {frame_us * transform_share:.1f} µs",
            f"{frame_us:.1f} µs",
            _percent(transform_share),
        ],
        [
            "preprocessing, a clip",
            f"read {n_read:,} bytes, write {n_written:,}; front end",
            f"read {n_read / limits['file_read_gb_per_s']['median'] / 1e3:,.0f} µs, "
            f"copy {n_written / limits['memory_copy_gb_per_s']['median'] / 1e3:,.0f} µs, "
            f"front end {1e6 / passes['clips_per_s_front_end_one_thread']:,.0f} µs per core",
            f"{1e6 / passes['clips_per_s']:,.0f} µs on {passes['processes']} cores",
            _percent(passes["share_of_front_end_on_all_cores"]),
        ],
    ]
    slower_us = 1e6 / predicted["files_per_s"][predicted["slower_stage"]]["median"]
    for model in COURSE_MODELS:
        one = training[model]
        millions = one["flops_per_frame"] * n_frames / 1e6
        forward = one["forward_flops_per_frame"] * n_frames / 1e6
        rows += [
            [
                f"training {model}, a clip of {n_frames:g} frames",
                f"{one['flops_per_frame']:,} operations a frame, {millions:,.0f} million a clip",
                f"{millions * 1e3 / limit:,.0f} µs at {limit:.0f} GFLOP/s",
                f"{1e6 / one['clips_per_s']['ours']['median']:,.0f} µs",
                _percent(one["share_of_matrix_product"]),
            ],
            [
                f"prediction by {model}, a file",
                f"decoding, front end, {forward:,.0f} million operations of the model",
                f"{predicted['slower_stage']} {slower_us:,.0f} µs; "
                f"model {forward * 1e3 / limit:,.0f} µs per core",
                f"{1e6 / predicted['files_per_s'][model]['median']:,.0f} µs on {predicted['cores']} cores",
                _percent(predicted["share_of_slower_stage"][model]["median"]),
            ],
        ]
    return _markdown(["stage", "work", "time at the limit", "measured", "share"], rows)


def growth(results: dict[str, Any]) -> str:
    """Exponents of time, and the time for ten million clips at the rates of the largest size."""
    scaling, training = results["scaling"], results["training"]
    smallest, largest = scaling["clips"][0], scaling["clips"][-1]
    many, machines = 10_000_000, 100
    hours = scaling["seconds"]["preprocessing"][-1] / largest * many / 3600
    epoch = {model: many / training[model]["clips_per_s"]["ours"]["median"] / 3600 for model in COURSE_MODELS}
    terabytes = many * results["preprocessing"]["bytes_written_per_clip"] / 1e12
    exponents = ", ".join(f"{name} {value:.2f}" for name, value in scaling["exponents"].items())
    return (
        f"Exponents of time from {smallest:,} to {largest:,} clips: {exponents}. At these rates, ten million "
        f"clips take {hours:.1f} hours of preprocessing on {results['cores']} cores "
        f"({hours * 60 / machines:.1f} minutes on {machines} machines) and {terabytes:.2f} TB of features; "
        f"an epoch takes {epoch['LSTM1']:.1f} hours (LSTM1) or {epoch['LSTM2']:.0f} hours (LSTM2) on one "
        "thread. One training runs on one machine; a cluster trains models, seeds and folds in parallel. A "
        "corpus of that size needs a graphics card or fewer epochs.\n"
    )


def write_figure(results: dict[str, Any], destination: Path) -> None:
    """Speed of each library and way to train, and growth of time and memory with the corpus."""
    with plt.style.context("seaborn-v0_8-whitegrid"):
        figure, axes = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained", width_ratios=(1.25, 1, 1))
    _draw_speeds(axes[0], results)
    scaling = results["scaling"]
    _draw_growth(axes[1], results, "seconds", "time (s)")
    _draw_growth(axes[2], results, "peak_mb", "peak memory of the largest process (MB)")
    labels = [f"{name}, exponent {exponent:.2f}" for name, exponent in scaling["exponents"].items()]
    axes[1].legend(labels, fontsize=8, loc="center right", bbox_to_anchor=(1, 0.4))
    axes[2].legend(list(scaling["peak_mb"]), fontsize=8)
    with atomic_write(destination) as path:
        figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)


def _draw_growth(ax: Axes, results: dict[str, Any], quantity: str, label: str) -> None:
    for marker, values in zip("osD^", results["scaling"][quantity].values(), strict=True):
        ax.plot(results["scaling"]["clips"], values, marker=marker)
    ax.set(xscale="log", yscale="log", xlabel="number of clips", ylabel=label)


def _draw_speeds(ax: Axes, results: dict[str, Any]) -> None:
    ratios = {"log-mel": results["front_end"]["ratios"]}
    ratios |= {model: results["training"][model]["ratios"] for model in COURSE_MODELS}
    labels, speeds = [], []
    for stage, by_name in ratios.items():
        others = {name: 1 / one["median"] for name, one in by_name.items() if "alone" not in name}
        for name, speed in {"valence_lib": 1.0, **others}.items():
            labels.append(f"{stage}: {_NAMES.get(name, name)}")
            speeds.append(speed)
    ax.barh(labels, speeds, color=["#0072B2" if "valence_lib" in label else "#B0B0B0" for label in labels])
    ax.invert_yaxis()
    ax.tick_params(axis="y", labelsize=7.5)
    ax.set(xlabel="clips per second on one thread, valence_lib = 1")
    ax.grid(visible=False, axis="y")
