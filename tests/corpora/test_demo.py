"""The embedded demo corpus is as described: counts, format, ratings, noise floor, and how it was made."""

import csv
import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import soundfile

import valence_lib.corpora.demo
from valence_lib.errors import CorpusError
from workflow.make_demo import make_demo, plan_clips, synthesise

FOLDER = Path(valence_lib.corpora.demo.__file__).parent
RATERS = ["valence_a1", "valence_a2", "valence_a3"]


@pytest.fixture(scope="module")
def labels() -> list[dict[str, str]]:
    with (FOLDER / "labels.csv").open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def corpus() -> dict:
    return json.loads((FOLDER / "corpus.json").read_text(encoding="utf-8"))


def column(labels: list[dict[str, str]], name: str) -> np.ndarray:
    return np.array([float(row[name]) for row in labels])


def test_columns_counts_and_order(labels, corpus):
    about = ["file", "speaker", "sex", "language", "sentence"]
    assert list(labels[0]) == [*about, *RATERS, "valence", "hidden_valence", "hidden_arousal"]
    speakers, sentences = ({row[name] for row in labels} for name in ("speaker", "sentence"))
    assert len(labels) == corpus["clips"] >= 320
    assert len(speakers) == corpus["speakers"] >= 8
    assert {row["sex"] for row in labels} == {"male", "female"}
    assert len({(row["speaker"], row["sentence"]) for row in labels}) == len(speakers) * len(sentences)
    files = [row["file"] for row in labels]
    assert files == sorted(path.relative_to(FOLDER).as_posix() for path in (FOLDER / "audio").iterdir())


def test_audio_is_short_mono_8000_hz_small_and_has_twelve_bits(labels, corpus):
    for row in labels:
        info = soundfile.info(FOLDER / row["file"])
        assert (info.format, info.subtype, info.channels) == ("FLAC", "PCM_16", 1)
        assert info.samplerate == corpus["sample_rate"] == 8000
        assert 1 <= info.frames / info.samplerate <= 4
    assert sum((FOLDER / row["file"]).stat().st_size for row in labels) < 8e6
    for row in labels[::20]:
        samples, _ = soundfile.read(FOLDER / row["file"], dtype="int16")
        assert not np.any(samples % 16)
        assert 1000 < np.abs(samples.astype(int)).max() < 32752


def test_valence_is_spread_and_unrelated_to_arousal_voice_and_text(labels):
    hidden, arousal = column(labels, "hidden_valence"), column(labels, "hidden_arousal")
    assert 0.8 < column(labels, "valence").var() < 1.2
    assert abs(np.corrcoef(hidden, arousal)[0, 1]) < 0.1
    # The share of variance between groups (eta squared) is about 0.02 by chance: (groups - 1) / (clips - 1).
    for name in ("speaker", "sentence"):
        groups = np.array([row[name] for row in labels])
        between = sum(
            np.sum(groups == group) * (hidden[groups == group].mean() - hidden.mean()) ** 2
            for group in set(groups)
        )
        assert between / np.sum((hidden - hidden.mean()) ** 2) < 0.06


def simulated_labels(hidden: np.ndarray, corpus: dict, draws: int) -> np.ndarray:
    """Labels of `draws` fresh panels of raters [shape=(draws, clips)]."""
    rng = np.random.default_rng(1)
    bias, noise_sd = np.array(corpus["rater_bias"]), np.array(corpus["rater_noise_sd"])
    rated = hidden[:, None] + bias + noise_sd * rng.standard_normal((draws, len(hidden), 3))
    return np.clip(np.round(2 * rated) / 2, 1, 5).mean(axis=2)


def test_lowest_mse_is_the_noise_of_the_rater_model_and_of_this_draw(labels, corpus):
    hidden, label = column(labels, "hidden_valence"), column(labels, "valence")
    simulated = simulated_labels(hidden, corpus, draws=1000)
    # 540,000 squared errors: the standard error of their mean is below 0.0003.
    assert corpus["lowest_mse"] == pytest.approx(simulated.var(axis=0, ddof=1).mean(), abs=0.001)
    squared = (label - simulated.mean(axis=0)) ** 2
    # Four standard errors of the mean over this corpus's clips.
    tolerance = 4 * squared.std(ddof=1) / np.sqrt(len(squared))
    assert tolerance < 0.025
    assert corpus["lowest_mse"] == pytest.approx(squared.mean(), abs=tolerance)


def test_labels_are_those_that_the_script_plans(labels):
    planned = plan_clips()
    assert [clip.file for clip in planned] == [row["file"] for row in labels]
    assert [clip.sentence for clip in planned] == [row["sentence"] for row in labels]
    assert [clip.valence for clip in planned] == column(labels, "valence").tolist()
    assert [clip.hidden_arousal for clip in planned] == column(labels, "hidden_arousal").tolist()


def test_old_clips_never_mix_with_new(tmp_path):
    (tmp_path / "audio").mkdir()
    with pytest.raises(CorpusError, match=r"exists already.*remove it or name another folder"):
        make_demo(tmp_path)


@pytest.mark.skipif(
    find_spec("espeakng_loader") is None, reason="needs eSpeak NG: pip install espeakng-loader"
)
def test_three_clips_come_out_again_as_committed():
    planned = plan_clips()
    # The middle one has breath noise, which eSpeak NG seeds from the clock by default.
    chosen = [planned[0], next(clip for clip in planned if clip.voice.variant == "f3"), planned[-1]]
    for clip, samples in zip(chosen, synthesise(chosen), strict=True):
        committed, _ = soundfile.read(FOLDER / clip.file, dtype="int16")
        np.testing.assert_array_equal(samples, committed)
