"""results.json as the README's table and as a figure."""

import math
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

from benchmarks.work import SETTINGS
from valence_lib.files import written_whole

_BEGIN, _END = "<!-- {}: begin -->\n", "<!-- {}: end -->"


def table(results: dict[str, Any]) -> str:
    """The README's table, and the line above it that says when and on what it was measured."""
    front, training, passes = results["front_end"], results["training"], results["preprocessing"]
    predicted, limits = results["prediction"], results["limits"]
    versions = ", ".join(f"{name} {number}" for name, number in results["versions"].items())
    rows = [
        (
            "log-mel, one thread",
            f"{_whole(front['clips_per_s']['ours'])} clips/s",
            _peers(front["ratios"], ("librosa", "torch.stft", "kaldi-native-fbank")),
            f"{_percent(front['share_of_fourier_transform']['median'])} is the Fourier transform alone",
        )
    ]
    for model in ("LSTM1", "CNN", "LSTM2"):
        one = training[model]
        rows.append(
            (
                f"training {model}, one thread",
                f"{_whole(one['clips_per_s']['ours'])} clips/s",
                _peers(one["ratios"], ("course", "packed", "batch's longest")),
                f"{_percent(one['share_of_matrix_product'])} of the matrix product",
            )
        )
    rows += [
        (
            f"preprocessing, {passes['processes']} processes",
            f"{passes['clips_per_s']:,} clips/s",
            f"{passes['speed_up_of_processes']:.1f} × one process",
            f"{_percent(passes['share_of_front_end_on_all_cores'])} of the front end on all cores; "
            f"at most {max(passes['peak_mb_10k'], passes['peak_mb_40k'])} MB a process",
        ),
        (
            f"predicting {predicted['files']:,} files",
            "; ".join(
                f"{model} {_whole(predicted['files_per_s'][model])}/s" for model in ("LSTM1", "CNN", "LSTM2")
            ),
            "",
            ", ".join(f"{_percent(share['median'])}" for share in predicted["share_of_slower_stage"].values())
            + f" of {predicted['slower_stage']}",
        ),
        (
            f"a curve along {predicted['recording']['minutes']} minutes",
            "; ".join(
                f"{model} {predicted['recording'][model]['seconds']:g} s"
                for model in ("LSTM1", "CNN", "LSTM2")
            ),
            "",
            f"at most {max(predicted['recording'][model]['peak_mb'] for model in ('LSTM1', 'CNN', 'LSTM2'))} MB",
        ),
    ]
    head = (
        f"Measured on {results['date']} with {results['cores']} cores of {results['cpu']} ({versions}); "
        f"{results['work']}. One thread multiplies matrices at {limits['matrix_product_gflops']['median']:.0f} GFLOP/s.\n"
    )
    lines = ["| stage | speed | times as fast as | share of what is possible |", "| --- | --- | --- | --- |"]
    return head + "\n" + "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)]) + "\n"


def _whole(rate: dict[str, float]) -> str:
    return f"{rate['median']:,.0f}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


_NAMES = {
    "course": "the course's way",
    "packed": "packed",
    "batch's longest": "padded to the batch's longest",
}


def _peers(ratios: dict[str, dict[str, float]], names: tuple[str, ...]) -> str:
    return ", ".join(
        f"{_NAMES.get(name, name)} {ratios[name]['median']:.1f}" for name in names if name in ratios
    )


def between_marks(text: str, name: str) -> tuple[str, str, str]:
    """What stands before, between and after the two marks of that name in a Markdown text."""
    before, rest = text.split(_BEGIN.format(name))
    between, after = rest.split(_END.format(name))
    return before, between, after


def write_into(page: Path, parts: dict[str, str]) -> None:
    """Put texts between a page's marks, by name."""
    text = page.read_text(encoding="utf-8")
    for name, part in parts.items():
        before, _, after = between_marks(text, name)
        text = f"{before}{_BEGIN.format(name)}{part}{_END.format(name)}{after}"
    with written_whole(page) as path:
        path.write_text(text, encoding="utf-8")


def write_figure(results: dict[str, Any], destination: Path) -> None:
    """Rates beside those of other ways, and growth of time and memory with the corpus."""
    with plt.style.context("seaborn-v0_8-whitegrid"):
        figure, axes = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained", width_ratios=(1.25, 1, 1))
    _draw_rates(axes[0], results)
    scaling = results["scaling"]
    for ax, values, label in (
        (axes[1], scaling["seconds"], "seconds"),
        (axes[2], scaling["peak_mb"], "peak memory, MB"),
    ):
        for marker, (name, sizes) in zip("osD^", values.items(), strict=True):
            power = f", exponent {scaling['exponents'][name]:.2f}" if label == "seconds" else ""
            ax.plot(scaling["clips"], sizes, marker=marker, label=name + power)
        ax.set(xscale="log", yscale="log", xlabel="clips", ylabel=label)
        ax.legend(fontsize=8, frameon=True)
    axes[1].set_title("Time grows with the corpus", fontsize=10)
    axes[2].set_title("Memory of the largest process", fontsize=10)
    with written_whole(destination) as path:
        figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)


def _draw_rates(ax: Any, results: dict[str, Any]) -> None:
    bars = [("log-mel", "ours", 1.0)]
    bars += [
        ("log-mel", name, 1 / one["median"])
        for name, one in results["front_end"]["ratios"].items()
        if "alone" not in name
    ]
    for model in ("LSTM1", "CNN", "LSTM2"):
        bars.append((model, "ours", 1.0))
        bars += [
            (model, _NAMES[name], 1 / one["median"])
            for name, one in results["training"][model]["ratios"].items()
        ]
    labels = [f"{stage}: {name}" for stage, name, _ in bars]
    colours = ["#0072B2" if name == "ours" else "#B0B0B0" for _, name, _ in bars]
    ax.barh(labels, [value for *_, value in bars], color=colours)
    ax.invert_yaxis()
    ax.tick_params(axis="y", labelsize=7.5)
    ax.set(xlabel="speed, ours = 1", xlim=(0, 1.05))
    ax.grid(visible=False, axis="y")
    ax.set_title("Clips a second, one thread", fontsize=10)


def arithmetic(results: dict[str, Any]) -> str:
    """What each stage has to do, what that takes at the machine's limits, and the share that is reached."""
    limits, front, training = results["limits"], results["front_end"], results["training"]
    passes, predicted = results["preprocessing"], results["prediction"]
    limit = limits["matrix_product_gflops"]["median"]
    frames = training["frames_per_clip"]
    n_fft, bins = SETTINGS.n_fft, 1 + SETTINGS.n_fft // 2
    per_clip = 1e6 / passes["clips_per_s_front_end_one_thread"]
    rows = [
        (
            "front end, a frame",
            f"window {n_fft:,} products; real Fourier transform 2.5 · {n_fft:,} · log2 {n_fft:,} = "
            f"{2.5 * n_fft * math.log2(n_fft):,.0f}; power 3 · {bins:,}; bands {2 * bins * SETTINGS.n_mels:,}",
            f"transform alone {front['microseconds_per_frame']['median'] * front['share_of_fourier_transform']['median']:.1f} µs",
            f"{front['microseconds_per_frame']['median']:.1f} µs",
            front["share_of_fourier_transform"]["median"],
        )
    ]
    for model in ("LSTM1", "CNN", "LSTM2"):
        one = training[model]
        operations = one["flops_per_frame"] * frames / 1e6
        rows.append(
            (
                f"training {model}, a clip of {frames:g} frames",
                f"{one['flops_per_frame']:,} operations a frame, {operations:,.0f} million a clip",
                f"{operations * 1e3 / limit:,.0f} µs at {limit:.0f} GFLOP/s",
                f"{1e6 / one['clips_per_s']['ours']['median']:,.0f} µs",
                one["share_of_matrix_product"],
            )
        )
    rows.append(
        (
            "preprocessing, a clip",
            f"read {passes['bytes_read_per_clip']:,} bytes, write {passes['bytes_written_per_clip']:,}; front end",
            f"read {passes['bytes_read_per_clip'] / limits['file_read_gb_per_s']['median'] / 1e3:,.0f} µs, "
            f"copy {passes['bytes_written_per_clip'] / limits['memory_copy_gb_per_s']['median'] / 1e3:,.0f} µs, "
            f"front end {per_clip:,.0f} µs a core",
            f"{1e6 / passes['clips_per_s']:,.0f} µs on {passes['processes']} cores",
            passes["share_of_front_end_on_all_cores"],
        )
    )
    stage = predicted["slower_stage"]
    for model, share in predicted["share_of_slower_stage"].items():
        forth = training[model]["flops_forth_per_frame"] * frames / 1e6
        rows.append(
            (
                f"prediction by {model}, a file",
                f"decoding, front end, {forth:,.0f} million operations of the model",
                f"{stage} {1e6 / predicted['files_per_s'][stage]['median']:,.0f} µs; "
                f"the model {forth * 1e3 / limit:,.0f} µs a core",
                f"{1e6 / predicted['files_per_s'][model]['median']:,.0f} µs on {predicted['cores']} cores",
                share["median"],
            )
        )
    lines = ["| stage | work | at the limit | measured | share |", "| --- | --- | --- | --- | --- |"]
    lines += [f"| {' | '.join(row[:4])} | {_percent(row[4])} |" for row in rows]
    possible = [
        f"{model}: {training[model]['largest_possible_ratio_vs_course']:.1f} times the course's way and "
        f"{training[model]['largest_possible_ratio_vs_packed']:.1f} times packed sequences"
        for model in ("LSTM1", "LSTM2")
    ]
    return (
        "\n".join(lines)
        + "\n\nWere every operation done at the rate of the matrix product, training would be, as many times as fast: "
        + "; ".join(possible)
        + ".\n"
    )


def growth(results: dict[str, Any]) -> str:
    """What ten million clips would take, from the rates at the largest size."""
    scaling, training = results["scaling"], results["training"]
    count = scaling["clips"][-1]
    many, nodes = 10_000_000, 100
    preprocessing = scaling["seconds"]["preprocessing"][-1] / count * many / 3600
    epochs = {
        model: many / training[model]["clips_per_s"]["ours"]["median"] / 3600 for model in ("LSTM1", "LSTM2")
    }
    terabytes = many * results["preprocessing"]["bytes_written_per_clip"] / 1e12
    exponents = ", ".join(f"{name} {value:.2f}" for name, value in scaling["exponents"].items())
    return (
        f"Exponents of time over {scaling['clips'][0]:,} to {count:,} clips: {exponents}. At the rates of {count:,} clips, "
        f"ten million would take {preprocessing:.1f} hours to preprocess on these {results['cores']} cores "
        f"({preprocessing * 60 / nodes:.1f} minutes on {nodes} such machines, each with a part of the corpus) and "
        f"{terabytes:.2f} TB of features; an epoch of LSTM1 {epochs['LSTM1']:.1f} hours and of LSTM2 "
        f"{epochs['LSTM2']:.0f} hours on one thread. One training does not spread over machines here: a cluster trains its "
        "models, seeds and folds side by side, so that all of a report's trainings take as long as the longest of "
        "them. A corpus of that size wants a graphics card, or fewer epochs.\n"
    )
