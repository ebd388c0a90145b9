"""The names that `import valence_lib as vl` offers, used as a notebook of a user does."""

import numpy as np
import pytest
import soundfile
from toy import tone

import valence_lib as vl
from valence_lib.errors import ValenceError

OFFERED = [name for name in vl.__all__ if name != "__version__"]


@pytest.mark.parametrize("name", OFFERED)
def test_every_name_is_there_and_documented(name):
    assert getattr(vl, name).__doc__
    assert name in dir(vl)


def test_an_unknown_name_is_refused_with_all_that_there_are():
    with pytest.raises(AttributeError, match="has no attribute 'logmel'; it offers open_corpus, "):
        _ = vl.logmel


def test_the_first_lines_of_a_notebook():
    clip = vl.open_corpus("demo")[7]
    frames = vl.log_mel(clip.waveform)
    assert frames.shape == (1 + len(clip.waveform) // 512, 128)
    for figure in (vl.plot_waveform(clip.waveform, 8000), vl.plot_log_mel(frames)):
        assert figure.axes


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    path = tmp_path_factory.mktemp("recording") / "x.wav"
    soundfile.write(path, tone(3.0, 1.0, 0), 16000)
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run that is trained on the demo corpus and loaded from its folder, which is given as a string."""
    folder = str(tmp_path_factory.mktemp("runs"))
    vl.train("demo", "Ridge", folder=folder)
    return vl.load_run(folder)


def test_a_run_predicts_a_file_and_a_waveform(run, recording):
    waveform = vl.read_audio(str(recording), 8000)
    from_file = run.predict(str(recording))
    assert isinstance(from_file, float)
    assert from_file == run.predict(recording) == run.predict(waveform)


@pytest.mark.parametrize(
    ("waveform", "message"),
    [
        (np.zeros(8000, np.int16), "int16"),
        (np.zeros((1, 8000), np.float32), r"\(1, 8000\)"),
        ("absent.wav", "there is no file 'absent.wav'"),
    ],
    ids=["int16", "two dimensions", "no file"],
)
def test_what_cannot_be_predicted_is_refused_in_words(run, waveform, message):
    with pytest.raises(ValenceError, match=message):
        run.predict(waveform)


def test_scores_of_plain_arrays():
    truth, prediction = [1.0, 2.0, 3.0, 4.0], [1.5, 2.0, 3.0, 3.5]
    assert vl.mse(truth, prediction) == pytest.approx(0.125)
    # Lin's coefficient by hand: 2 * covariance / (variances + squared difference of means).
    assert vl.ccc(truth, prediction) == pytest.approx(2 * 0.875 / (1.25 + 0.625))
