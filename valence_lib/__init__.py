"""Predict emotional valence, how positive or negative a speaker sounds, from short clips of speech.

>>> import valence_lib as vl
>>> clip = vl.open_corpus("demo")[7]
>>> vl.log_mel(clip.waveform).shape[1]
128

The names below are imported when they are first used, so that `import valence_lib` is fast. ARCHITECTURE.md
describes the sub-packages.
"""

from importlib import import_module
from typing import Any

__version__ = "0.2.0"

_MODULE_OF = {
    "open_corpus": "corpora.opening",
    "check_corpus": "preprocess.inspection",
    "read_audio": "corpora.waveforms",
    "log_mel": "features.log_mel",
    "build_model": "models.build",
    "train": "training.api",
    "load_run": "training.runs",
    "predict": "training.api",
    "mse": "evaluation.metrics",
    "ccc": "evaluation.metrics",
    "score": "evaluation.bootstrap",
    "compare": "evaluation.bootstrap",
    "plot_waveform": "report.figures.corpus",
    "plot_log_mel": "report.figures.corpus",
}
__all__ = ["__version__", *_MODULE_OF]


def __getattr__(name: str) -> Any:
    """A public name, imported from its module (PEP 562)."""
    if name not in _MODULE_OF:
        offered = ", ".join(_MODULE_OF)
        raise AttributeError(f"module 'valence_lib' has no attribute {name!r}; it offers {offered}")
    return getattr(import_module(f"valence_lib.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULE_OF])
