"""results.json as the README's table and as a figure."""

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

from valence_lib.files import written_whole

BEGIN, END = "<!-- benchmark: begin -->", "<!-- benchmark: end -->"


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
            f"{_percent(front['share_of_fourier_transform']['median'])} is the Fourier transform",
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


def write_into(readme: Path, results: dict[str, Any]) -> None:
    """Put the table between the README's two marks."""
    text = readme.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    with written_whole(readme) as path:
        path.write_text(f"{before}{BEGIN}\n{table(results)}{END}{after}", encoding="utf-8")


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
