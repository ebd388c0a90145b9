"""Training on a corpus and predictions of files, each by one call of the functions that the notebooks use."""

from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd

from valence_lib.corpora.opening import open_corpus
from valence_lib.corpora.sources import Corpus
from valence_lib.errors import SettingsError
from valence_lib.preprocess.inspection import inspect_corpus
from valence_lib.preprocess.splits import make_splits
from valence_lib.preprocess.store import FeatureStore, store_streams
from valence_lib.registry import missing_packages, training_settings
from valence_lib.settings import FEATURES_FOLDER, CorpusSettings, FeatureSettings
from valence_lib.training.experiments import run_experiment
from valence_lib.training.loop import TrainingData
from valence_lib.training.predicting import list_files, predict_files
from valence_lib.training.runs import Ensemble, Run, load_run, pick_device


def train(
    corpus: str | Path | Corpus,
    model: str = "GaussianProcess",
    preset: str = "default",
    seed: int = 0,
    folder: str | Path | None = None,
    target: str = "valence",
    scale: str = "",
    **changes: Any,
) -> Run | Ensemble:
    """Train a model on a corpus, of which a fifth of the clips is left out for testing.

    Args:
        corpus: as `open_corpus` takes or returns it.
        model, preset: names of the registry.
        seed: of the split and of the training.
        folder: of the run, for `load_run`; a second call resumes. None keeps nothing on disk.
        target, scale: as `open_corpus` takes them.
        changes: of `TrainingSettings`, such as epochs=5.

    Returns:
        The trained run.

    Raises:
        CorpusError: the corpus is absent or has too few clips that can be used.
        SettingsError: an unknown model or preset, an impossible setting, or a package is missing.
    """
    settings = training_settings(model, preset, seed, **changes)
    for package, command in missing_packages(settings.streams).items():
        raise SettingsError(
            f"model={model!r} needs the package {package}, which is not installed; run: {command}"
        )
    features, admitted = FeatureSettings(), CorpusSettings(seed=seed)
    if isinstance(corpus, Corpus):
        clips_of = corpus
    else:
        clips_of = open_corpus(corpus, features.sample_rate, target=target, scale=scale)
    with TemporaryDirectory() as temporary:
        place = Path(folder or temporary)
        store = place / FEATURES_FOLDER
        clips = inspect_corpus(clips_of, admitted, features, store).clips
        split = make_splits(clips, "holdout", 0, seed)
        store_streams(store, clips_of, clips, settings.streams, features)
        training_data = TrainingData(FeatureStore(store, clips, features), clips, clips_of.target)
        run_experiment(training_data, split.splits, place, pick_device(), model, preset, seed, **changes)
        return load_run(place)


def predict(run: str | Path | Run | Ensemble, files: str | Path | Iterable[str | Path]) -> pd.DataFrame:
    """The predicted ratings of many files; see `predict_files`.

    Args:
        run: a run or its folder.
        files: audio files, course pickles, and folders of them.

    Returns:
        One row per clip: file, the prediction under the name of the run's target, such as valence (rating
        points; NaN where the clip cannot be used), and error (why, else "").
    """
    loaded = load_run(run) if isinstance(run, str | Path) else run
    given = [files] if isinstance(files, str | Path) else files
    predictions = predict_files(list_files([Path(path) for path in given]), loaded)
    rows = [(found.file, found.rating, str(found.error or "")) for found in predictions]
    name = loaded.target.name
    return pd.DataFrame(rows, columns=["file", name, "error"]).astype({name: float})
