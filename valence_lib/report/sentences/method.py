"""Sentences about models and presets."""

from collections.abc import Mapping, Sequence
from typing import Any

from valence_lib.registry import NETWORKS
from valence_lib.report.wording import listed, rounded
from valence_lib.settings import Target

_PRESETS = {
    "course": "**course** uses raw decibels, as the course report does",
    "default": "**default** standardises each input column by its mean and deviation in the training subset",
    "clip": "**clip** standardises each mel band within each clip",
    "speaker": "**speaker** standardises each input column over all clips of the speaker, held-out clips "
    "included (audio only, no ratings)",
    "encoder": "**encoder** adds the features of the given encoder to the default preset",
    "encoder-speaker": "**encoder-speaker** adds them to the speaker preset",
}


def gaussian_process(target: Target) -> str:
    """What the model GaussianProcess is, and on which ratings its features were selected."""
    of_valence = "of valence " * (target.name != "valence")
    return (
        "**GaussianProcess** is our own model, a Gaussian process regression [@rasmussen2006]. Its kernel is "
        "the mean of several Gaussian kernels, one for each group of input features [@gonen2011]. The "
        "kernel's width and the noise minimise the leave-one-out error on the training clips. The first "
        "group is statistics of the voice: pitch by autocorrelation [@boersma1993], intensity, rhythm, voice "
        "quality, timbre and resonances, after @eyben2016. The others are the mean and standard deviation, "
        "over the frames with speech, of the second layer of a pretrained speaker verification network "
        "[@wan2018], with the weights of Resemblyzer (Resemble AI, Apache License 2.0). The features, the "
        f"layer and the grid of the kernel were selected by cross-validation {of_valence}on EmoTale, acted "
        "speech in Danish and English. Scores on that corpus are therefore optimistic."
    )


def presets(results: Mapping[str, Any]) -> str:
    """What the presets of this report do."""
    used = list(dict.fromkeys(row["preset"] for row in results["rows"] if row["preset"]))
    ways = [_PRESETS[preset] for preset in used if preset != "tuned"]
    sentences = [f"The presets are: {'; '.join(ways)}."] if ways else []
    if "tuned" in used:
        sentences.append(tuned(results["tuning"]))
    return " ".join(sentences)


def tuned(best: Mapping[str, Any]) -> str:
    """Where the tuned preset comes from; takes the content of sweep/best.json."""
    changes = [
        f"{name.replace('_', ' ')} {f'{value:g}' if isinstance(value, float) else value}"
        for name, value in best["changes"].items()
    ]
    return (
        f"The **tuned** preset is the best of {best['trials']:,} trials of a hyperparameter search "
        f"({best['pruned']:,} pruned). Trial {best['trial']} has the lowest validation MSE, "
        f"{rounded(best['validation_mse'])}: {best['model']} with {', '.join(changes) or 'no changes'}."
    )


def left_out(missing: Sequence[Mapping[str, str]]) -> str:
    """Which models have no row because a package is not installed; "" where there is none.

    Args:
        missing: as `jobs.Request.missing` gives it.
    """
    found = []
    for package, command in {row["package"]: row["command"] for row in missing}.items():
        models = list(dict.fromkeys(row["model"] for row in missing if row["package"] == package))
        found.append(f"{listed(models)} (needs {package}: `{command}`)")
    return f"Not trained, because a package is not installed: {'; '.join(found)}." if found else ""


def network_of(results: Mapping[str, Any]) -> tuple[str, str]:
    """The network to draw, and why: the chosen model, or else the network with the lowest validation MSE."""
    chosen = results["chosen"]["model"]
    if chosen in NETWORKS:
        return chosen, "the chosen model"
    networks = [row for row in results["rows"] if row["subset"] == "validation" and row["model"] in NETWORKS]
    best = min(networks, key=lambda row: row["mse"])
    why = f"the neural network with the lowest validation MSE ({chosen} is not a neural network)"
    return best["model"], why
