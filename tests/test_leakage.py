"""The leakage analysis: its scores, in pairs and with the right sign, and the clips that each fit takes."""

import numpy as np
import pandas as pd
import pytest
from toy import FEATURES, Tones, make_material

from valence_lib import fitting, leakage, pseudo_speakers, report
from valence_lib.divisions import DESIGNS
from valence_lib.errors import RunError
from valence_lib.evaluation import Resampling, compare
from valence_lib.files import write_json
from valence_lib.leakage import MOST_CLIPS, measure, names_speakers, predict_designs, sampled
from valence_lib.metrics import ccc, mse
from valence_lib.registry import training_settings
from valence_lib.store import store_streams
from valence_lib.training import Material

SPEAKERS, SENTENCES, TAKES = 8, 6, 2
WHY = "not every clip names its sentence"
RIDGE = training_settings("Ridge", "default", 0)


@pytest.fixture
def clips():
    """96 rated clips: every speaker says every sentence twice."""
    rng = np.random.default_rng(0)
    who, what, _ = (grid.ravel() for grid in np.indices((SPEAKERS, SENTENCES, TAKES)))
    return pd.DataFrame(
        {
            "index": np.arange(len(who)),
            "id": [f"clip {number:03}" for number in range(len(who))],
            "speaker": [f"S{number}" for number in who],
            "sentence": [f"T{number}" for number in what],
            "valence": rng.uniform(1, 5, len(who)).round(2),
        }
    )


# Scores


def predicted(clips, deviation, seed):
    """Predictions that are off by a deviation."""
    error = np.random.default_rng(seed).normal(0, deviation, len(clips))
    frame = clips[["id", "speaker"]]
    return frame.assign(truth=clips["valence"], prediction=clips["valence"] + error)


def write_leakage(folder, designs, **about):
    """What the job leaves, from the predictions of each design, or from why there are none."""
    frames = {design: made for design, made in designs.items() if not isinstance(made, str)}
    listed = [
        {"design": design, "why": "" if design in frames else made, "trained": 60.0 * (design in frames)}
        for design, made in designs.items()
    ]
    content = {"model": "Ridge", "preset": "default", "rated": 96, "clips": 96, "pseudo": False}
    write_json(folder / "leakage.json", content | about | {"designs": listed})
    nothing = pd.DataFrame(columns=["design", "id", "speaker", "truth", "prediction"])
    table = pd.concat([nothing, *(frame.assign(design=design) for design, frame in frames.items())])
    report.save_frame(folder / "predictions.csv", table)


@pytest.fixture
def measured(tmp_path, clips):
    """The folder for a corpus with speakers whose clips name no sentence, and the predictions in it."""
    frames = {"random": predicted(clips, 0.3, 1), "speaker": predicted(clips, 0.9, 2)}
    write_leakage(tmp_path, {**frames, "sentence": WHY, "both": WHY})
    return tmp_path, frames


def test_the_reference_comes_first_and_differences_from_it_are_paired_and_resampled_by_speaker(measured):
    folder, frames = measured
    found = measure(folder)
    about = {"model": "Ridge", "preset": "default", "clips": 96, "pseudo": False}
    assert {name: found[name] for name in about} == about
    assert [row["design"] for row in found["designs"]] == ["speaker", "random", "sentence", "both"]
    reference, random, *_ = found["designs"]
    assert reference["against"] is None
    assert (reference["n"], reference["trained"]) == (96, 60)
    assert found["designs"][2] == {"design": "sentence", "why": WHY, "trained": 0.0}
    for name, metric in (("mse", mse), ("ccc", ccc)):
        expected = metric(frames["speaker"]["truth"], frames["speaker"]["prediction"])
        assert reference[name] == pytest.approx(expected)
        low, high = reference["intervals"][name]
        assert low < reference[name] < high
    truth, own, other = (frames[d][c] for d, c in (("random", "truth"), *((d, "prediction") for d in frames)))
    for metric in ("mse", "ccc"):
        against = random["against"][metric]
        assert against["difference"] == pytest.approx(random[metric] - reference[metric])
        expected = compare(metric, truth, [own], [other], Resampling(frames["random"]["speaker"]))
        assert against == pytest.approx(vars(expected))
        assert against["verdict"] == "better"
    assert random["against"]["mse"]["difference"] < 0 < random["against"]["ccc"]["difference"]


def test_clips_are_paired_by_name_in_whatever_order_they_stand(measured):
    folder, frames = measured
    expected = measure(folder)
    frames["random"] = frames["random"].sample(frac=1, random_state=3)
    write_leakage(folder, {**frames, "sentence": WHY, "both": WHY})
    assert measure(folder) == expected


@pytest.mark.parametrize("others", [True, False])
def test_without_the_reference_nothing_is_scored(tmp_path, clips, others):
    random = predicted(clips, 0.3, 1) if others else "too few clips"
    write_leakage(tmp_path, {"random": random, "speaker": "too few"})
    rows = measure(tmp_path)["designs"]
    assert [(row["design"], "mse" in row) for row in rows] == [("speaker", False), ("random", False)]
    assert rows[0]["why"] == "too few"


def test_results_that_are_not_there_are_named(tmp_path):
    with pytest.raises(RunError, match=r"leakage\.json"):
        measure(tmp_path)


# Fits


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """80 toy clips of eight speakers, each of five sentences said twice by each of them."""
    material = make_material(tmp_path_factory.mktemp("features"))
    n = len(material.clips)
    sentence = [f"T{row // 8 % 5}" for row in range(n)]
    return Material(material.store, material.clips.assign(sentence=sentence))


@pytest.fixture
def fits(monkeypatch):
    """The rows of every fit and prediction. Predicted is the mean rating of the clips that were fitted to."""
    made = []

    def fitted(material, settings, rows, seen):
        assert set(rows) <= set(seen)
        return rows, seen

    def predict(run, material, rows):
        made.append((*run, rows))
        return np.full(len(rows), material.clips["valence"].to_numpy()[run[0]].mean())

    monkeypatch.setattr(fitting, "fitted", fitted)
    monkeypatch.setattr(fitting, "predict", predict)
    return made


def shares(clips, first, second, column):
    """Whether some rows of the table have a value of a column that others have too."""
    values = clips[column].to_numpy(dtype=str)
    return bool(set(values[first]) & set(values[second]))


def test_every_clip_is_predicted_once_by_fits_that_share_what_the_design_says(toy, fits, capsys):
    clips = toy.clips.copy()
    clips.loc[::9, "valence"] = np.nan
    about, predictions = predict_designs(Material(toy.store, clips), RIDGE, 3)
    rated = np.flatnonzero(clips["valence"].notna())
    assert [row["design"] for row in about] == list(DESIGNS)
    assert {row["why"] for row in about} == {""}
    designs = [design for design in DESIGNS for _ in range(6 if design == "both" else 3)]
    assert len(fits) == len(designs)
    said = capsys.readouterr().out.splitlines()
    assert (said[0], said[-1]) == ("fit  1/15   random", "fit 15/15   both")
    for design, (inside, seen, out) in zip(designs, fits, strict=True):
        np.testing.assert_array_equal(seen, rated)
        assert not set(inside) & set(out)
        assert shares(clips, inside, out, "speaker") == (design in ("random", "sentence"))
        assert shares(clips, inside, out, "sentence") == (design in ("random", "speaker"))
    valence = clips["valence"].to_numpy()
    for number, design in enumerate(DESIGNS):
        own = [fit for fit, of_fit in zip(fits, designs, strict=True) if of_fit == design]
        assert about[number]["trained"] == pytest.approx(np.mean([len(inside) for inside, _, _ in own]))
        frame = predictions[predictions["design"] == design].set_index("id")
        assert sorted(frame.index) == sorted(clips["id"].iloc[rated])
        for inside, _, out in own:
            of_fit = frame.loc[clips["id"].iloc[out]]
            assert of_fit["prediction"].to_numpy() == pytest.approx(valence[inside].mean())
            np.testing.assert_array_equal(of_fit["truth"], valence[out])
            assert of_fit["speaker"].tolist() == clips["speaker"].iloc[out].tolist()


def test_of_a_large_corpus_all_designs_take_the_same_drawn_clips(toy, fits, monkeypatch):
    monkeypatch.setattr(leakage, "MOST_CLIPS", 60)
    rows = sampled(toy.clips)
    _, predictions = predict_designs(toy, RIDGE, 3)
    ids = sorted(toy.clips["id"].iloc[rows])
    assert len(ids) == 60
    assert [sorted(frame["id"]) for _, frame in predictions.groupby("design")] == [ids] * len(DESIGNS)
    assert all(set(inside) <= set(rows) and set(seen) == set(rows) for inside, seen, _ in fits)


@pytest.mark.parametrize(("n", "taken"), [(5, 4), (2000, 1999), (3000, MOST_CLIPS)])
def test_the_number_of_clips_has_a_limit(n, taken):
    clips = pd.DataFrame({"valence": [np.nan, *[3.0] * (n - 1)]})
    rows = sampled(clips)
    assert MOST_CLIPS == 2000
    assert len(rows) == len(set(rows)) == taken
    assert rows.min() > 0  # the clip without a rating is not among them
    assert list(rows) == sorted(rows)
    np.testing.assert_array_equal(rows, sampled(clips))


def test_voices_take_the_place_of_speakers_that_are_not_named(toy, fits, monkeypatch):
    store_streams(toy.store.folder, Tones(), toy.clips, ["pitch"], FEATURES, progress=False)
    given = []

    def four_voices(log_mels, voices):
        given.append([len(rows) for rows in (log_mels, voices)])
        return np.array([f"V{row % 4}" for row in range(len(log_mels))])

    monkeypatch.setattr(pseudo_speakers, "pseudo_speakers", four_voices)
    clips = toy.clips.assign(speaker="")
    _, predictions = predict_designs(Material(toy.store, clips), RIDGE, 3)
    assert given == [[80, 80]]
    voices = clips.assign(voice=[f"V{row % 4}" for row in range(len(clips))])
    by_voice = [shares(voices, inside, out, "voice") for inside, _, out in fits]
    assert by_voice == [True] * 3 + [False] * 3 + [True] * 3 + [False] * 6
    assert set(predictions["speaker"]) == {""}  # so that clips are resampled, and not clusters


def test_a_design_that_a_corpus_does_not_allow_says_why_and_takes_no_fit(toy, fits):
    unsaid = Material(toy.store, toy.clips.drop(columns="sentence"))
    about, predictions = predict_designs(unsaid, RIDGE, 9)
    why = {row["design"]: row["why"] for row in about}
    assert why["random"] == ""
    assert "8 speakers cannot be dealt to 9 folds" in why["speaker"]
    assert WHY in why["sentence"]
    assert [row["trained"] > 0 for row in about] == [not row["why"] for row in about]
    assert set(predictions["design"]) == {"random"}
    assert len(fits) == 9
    about, none = predict_designs(unsaid, RIDGE, 81)  # more folds than clips
    assert all("cannot be dealt" in row["why"] or WHY in row["why"] for row in about)
    assert (len(none), list(none)) == (0, list(predictions))
    assert set(none) == {"design", "id", "speaker", "truth", "prediction"}


def test_speakers_are_named_where_every_rated_clip_names_one(clips):
    assert names_speakers(clips)
    clips.loc[3, "speaker"] = ""
    assert not names_speakers(clips)
    clips.loc[3, "valence"] = np.nan
    assert names_speakers(clips)
