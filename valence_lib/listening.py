"""Predictions of changed clips, each by the training that tests it: how robust a run is, and what in a clip matters to it."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from valence_lib.corpora import Corpus
from valence_lib.occlusion import Occlusion, occlude
from valence_lib.perturbing import PERTURBATIONS
from valence_lib.protocols import Divisions
from valence_lib.runs import Ensemble, Run, load_run
from valence_lib.streams import ClipFeatures
from valence_lib.training import Material
from valence_lib.waveforms import Waveform

AS_RECORDED = "as recorded"
MOST_CLIPS = 500  # that are perturbed; of more, a random sample
WORST = 10  # clips that are shown


class Listener:
    """A run of a report, and the clips that it is tested on.

    Args:
        divisions: of the report.
        folder: of the run.
        corpus: that the clips are read from.
    """

    def __init__(self, material: Material, divisions: Divisions, folder: Path, corpus: Corpus):
        self._clips, self._settings, self._corpus = material.clips, material.store.settings, corpus
        self._runs = {name: load_run(folder / name) for name in divisions}
        self._division = np.full(len(self._clips), "", dtype="<U16")
        for name, parts in divisions.items():
            self._division[parts == "test"] = name

    def waveform(self, row: int) -> Waveform:
        """A clip as it is in the corpus [shape=(n_samples,)]."""
        return self._corpus.read(int(self._clips["index"].iloc[row])).waveform

    def run_of(self, row: int) -> Run | Ensemble:
        """The training that is tested on a clip."""
        return self._runs[str(self._division[row])]

    def predict(
        self, rows: NDArray[np.int64], change: Callable[[int, Waveform], Waveform]
    ) -> NDArray[np.float64]:
        """Valence of some clips [shape=(rows,)], each changed and then predicted by the training that is tested on it.

        Args:
            change: gives a clip's waveform anew, by its row and what it was.
        """
        found = np.empty(len(rows))
        for name, run in self._runs.items():
            own = np.flatnonzero(self._division[rows] == name)
            if len(own):
                waveforms = [change(int(row), self.waveform(int(row))) for row in rows[own]]
                speakers = self._clips["speaker"].iloc[rows[own]].tolist()
                source = ClipFeatures(waveforms, run.features)
                found[own] = run.adapt(source, speakers).predict(source, speakers)
        return found

    def under_conditions(self, rows: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
        """What is predicted for some clips as they were recorded, then under each of `perturbing.PERTURBATIONS`."""
        found = {AS_RECORDED: self.predict(rows, lambda row, waveform: waveform)}
        for name, perturb in PERTURBATIONS.items():
            found[name] = self.predict(rows, partial(_perturbed, perturb, self._settings.sample_rate))
        return found

    def occlusion(self, row: int) -> Occlusion:
        """What in a clip a prediction depends on; a speaker's statistics stay those of whole clips."""
        run, speaker = self.run_of(row), str(self._clips["speaker"].iloc[row])

        def predict(waveforms: Sequence[Waveform]) -> NDArray[np.float64]:
            source = ClipFeatures(list(waveforms), run.features)
            return run.predict(source, [speaker] * len(waveforms))

        return occlude(predict, self.waveform(row), self._settings.sample_rate)


def _perturbed(
    perturb: Callable[[Waveform, int, int], Waveform], sample_rate: int, row: int, waveform: Waveform
) -> Waveform:
    return perturb(waveform, sample_rate, row)


def sample(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """The rows, or where there are more than MOST_CLIPS so many of them at random, in order."""
    if len(rows) <= MOST_CLIPS:
        return rows
    return np.sort(np.random.default_rng(0).permutation(rows)[:MOST_CLIPS])
