"""Widgets of explore.ipynb: choose a clip or upload a recording, play it, and show its prediction."""

from pathlib import Path

import ipywidgets
import pandas as pd
from IPython.display import Audio, display

from valence_lib.corpora.sources import Corpus
from valence_lib.corpora.waveforms import Waveform, check_waveform, read_audio
from valence_lib.errors import ClipError
from valence_lib.features.log_mel import log_mel
from valence_lib.report import rendering
from valence_lib.report.corpus_text import code, literal, plain
from valence_lib.report.figures.corpus import plot_log_mel, plot_waveform
from valence_lib.report.wording import capitalised, rounded
from valence_lib.training.runs import Ensemble, Run


def show_waveform(waveform: Waveform, sample_rate: int, run: Run | Ensemble, name: str) -> float:
    """Play one waveform, show it with its log-mel spectrogram, and return its prediction.

    Raises:
        ClipError: the waveform cannot carry a rating (see `check_waveform`).
    """
    check_waveform(waveform, run.features.n_fft)
    spectrogram = log_mel(waveform, run.features)
    prediction = run.predict(waveform)
    display(Audio(waveform, rate=sample_rate))
    drawn = plot_waveform(waveform, sample_rate)
    rendering.figure(drawn, "Waveform", code(name), f"The waveform of {plain(name)}.")
    drawn = plot_log_mel(spectrogram, sample_rate, run.features.hop_length)
    size = f"{spectrogram.shape[0]} frames of {spectrogram.shape[1]} bands"
    rendering.figure(drawn, "Log-mel spectrogram", size, f"The log-mel spectrogram of {plain(name)}.")
    return prediction


def show_clip(corpus: Corpus, clip_id: str, run: Run | Ensemble) -> None:
    """Show one clip of a corpus: sound, figures, prediction and ratings."""
    clip = corpus.read(corpus.ids.index(clip_id))
    prediction = show_waveform(clip.waveform, clip.sample_rate, run, clip_id)
    by_rater = {f"rater {column.removeprefix('rating_')}": value for column, value in clip.by_rater.items()}
    opinions = {"the run": prediction, **by_rater}
    if clip.rating is not None:
        opinions["all raters"] = clip.rating
    title = capitalised(run.target.name)
    rows = [{"Who": who, title: rounded(value, 2)} for who, value in opinions.items()]
    rendering.table(pd.DataFrame(rows), title, f"of {code(clip_id)}")


def clip_browser(corpus: Corpus, run: Run | Ensemble) -> ipywidgets.Widget:
    """A menu of the corpus's clips; choosing one shows it."""
    menu = ipywidgets.Dropdown(options=list(corpus.ids), value=None, description="clip")
    shown = ipywidgets.Output()

    def show(change: dict) -> None:
        shown.clear_output()
        with shown:
            show_clip(corpus, change["new"], run)

    menu.observe(show, names="value")
    return ipywidgets.VBox([menu, shown])


def recording_dropper(run: Run | Ensemble, folder: Path) -> ipywidgets.Widget:
    """A button that takes a recording in any format that soundfile reads, and shows its prediction.

    Args:
        folder: an empty folder, where the recording is written for decoding.
    """
    button = ipywidgets.FileUpload(accept="audio/*", multiple=False, description="a recording")
    shown = ipywidgets.Output()

    def show(change: dict) -> None:
        shown.clear_output()
        with shown:
            for recording in change["new"]:
                path = folder / Path(recording["name"]).name
                path.write_bytes(bytes(recording["content"]))
                show_recording(path, run)

    button.observe(show, names="value")
    return ipywidgets.VBox([button, shown])


def show_recording(path: Path, run: Run | Ensemble) -> None:
    """Show one recording: sound, figures and prediction, or why it cannot be used."""
    name = code(path.name)
    try:
        waveform = read_audio(path, run.features.sample_rate)
        prediction = show_waveform(waveform, run.features.sample_rate, run, path.name)
        rendering.prose(f"Predicted {literal(run.target.name)} of {name}: **{rounded(prediction, 2)}**")
    except ClipError as error:
        rendering.prose(f"{name} cannot be used: {error.reason}: {literal(str(error))}")
