"""Several corpora in results.json, and their tables, sentences and figure."""

import json

import numpy as np
import pandas as pd
import pytest

from valence_lib.corpora.opening import open_corpus
from valence_lib.corpora.several import SeveralCorpora
from valence_lib.errors import RunError
from valence_lib.evaluation.cross_corpus import measure_pairs
from valence_lib.evaluation.metrics import METRICS, mse
from valence_lib.files import write_json
from valence_lib.preprocess.inspection import QUARANTINE_COLUMNS
from valence_lib.preprocess.splits import make_splits
from valence_lib.report import tables
from valence_lib.report.figures.cross_corpus import plot_across
from valence_lib.report.folder import load_clips, row_of, save_frame, save_preprocessed
from valence_lib.report.results import collect_results
from valence_lib.report.sentences import cross_corpus, data
from valence_lib.settings import FeatureSettings

NAMES = ["demo", "demo-2"]

# results.json


def write_report(folder, protocol="corpora"):
    """A report's folder before 3_compare: two corpora of 40 clips by eight speakers."""
    generator = np.random.default_rng(0)
    corpus = np.repeat(NAMES, 40)
    clips = pd.DataFrame(
        {
            "index": range(80),
            "id": [f"{name}/{number:02}" for number, name in enumerate(corpus)],
            "speaker": [f"{name}/S{number % 8}" for number, name in enumerate(corpus)],
            "subset": "",
            "corpus": corpus,
            "duration_seconds": 2.0,
            "rating": generator.uniform(1, 4, 80) + (corpus == "demo-2"),
        }
    )
    split = make_splits(clips, protocol, 4, seed=0)
    save_preprocessed(
        folder,
        SeveralCorpora([open_corpus("demo"), open_corpus("demo")], []),
        clips.assign(subset=split.subset, fold=split.fold),
        pd.DataFrame(columns=QUARANTINE_COLUMNS),
        pd.DataFrame(columns=["first", "second", "similarity"]),
        [""] * 80,
        split,
        FeatureSettings(),
    )
    leakage = {"groupings": [{"grouping": "speaker", "why": "too few speakers"}]}
    write_json(folder / "leakage" / "leakage.json", leakage)
    save_frame(folder / "leakage" / "predictions.csv", pd.DataFrame(columns=["grouping", "id"]))
    truth = clips[["id", "speaker"]].assign(truth=clips["rating"])
    frames = [
        truth[corpus == tested].assign(pair=number, mean=2.5, prediction=truth["truth"] + 0.5 * number)
        for number, tested in enumerate(np.repeat(NAMES, 2))
    ]
    save_frame(folder / "cross_corpus" / "predictions.csv", pd.concat(frames))
    pairs = [
        {"trained_on": [trained], "tested_on": tested, "why": "", "trained": 40.0}
        for tested in NAMES
        for trained in (tested, *(name for name in NAMES if name != tested))
    ]
    write_json(folder / "cross_corpus" / "cross_corpus.json", {"corpora": [], "pairs": pairs})
    for seed in (0, 1):
        run, subsets = folder / "runs" / f"CNN-default-{seed}", ("validation", "out_of_fold")
        predicted = [
            truth.assign(
                subset=subset,
                duration_seconds=2.0,
                prediction=truth["truth"] + (seed + 1) * (corpus == "demo-2"),
            )
            for subset in subsets
        ]
        save_frame(run / "predictions.csv", pd.concat(predicted))
        training = {"model": "CNN", "preset": "default", "seed": seed, "standardise": "train"}
        write_json(run / "settings.json", {"training": training, "parameters": 10})
        write_json(run / "seconds.json", {"seconds": 1.0})
    return folder


RUNS = ["CNN-default-0", "CNN-default-1"]


def test_several_corpora_have_scores_across_them_and_by_corpus(tmp_path):
    folder = write_report(tmp_path)
    results, _ = collect_results(folder, RUNS)
    json.dumps(results, allow_nan=False)
    assert [row["mse"] for row in results["cross_corpus"]["pairs"]] == pytest.approx([0, 0.25, 1, 2.25])
    assert [of["corpus"] for of in results["by_corpus"]] == NAMES
    clips = load_clips(folder)
    for of, error in zip(results["by_corpus"], (0, (1 + 4) / 2), strict=True):
        mean, model = of["rows"]
        assert (mean["model"], model["model"], model["n"], model["seeds"]) == ("mean", "CNN", 40, [0, 1])
        assert model["mse"] == pytest.approx(error)
        assert model["pearson_r"] == pytest.approx(1)
        assert set(model["intervals"]) == set(METRICS)
        # The clips of a corpus are predicted by the mean of the training clips of the other.
        own, other = (clips[(clips["corpus"] == of["corpus"]) == side] for side in (True, False))
        assert abs(mean["mse"] - mse(own["rating"], np.full(40, other["rating"].mean()))) < 0.3
    pooled = row_of(results, "CNN", "default", "out_of_fold")
    assert pooled["mse"] == pytest.approx(1.25)
    (folder / "cross_corpus" / "cross_corpus.json").unlink()
    with pytest.raises(RunError, match=r"cross_corpus\.json"):
        collect_results(folder, RUNS)


def test_one_corpus_has_neither(tmp_path):
    folder = write_report(tmp_path, "cv")
    about = json.loads((folder / "preprocess" / "corpus.json").read_text())
    write_json(folder / "preprocess" / "corpus.json", about | {"corpora": about["corpora"][:1]})
    path = folder / "preprocess" / "clips.csv"
    save_frame(path, pd.read_csv(path).assign(corpus="demo"))
    results, _ = collect_results(folder, RUNS)
    assert (results["cross_corpus"], results["by_corpus"]) == (None, [])


# Tables


def scores_of(corpus, ccc, clips):
    row = {"model": "CNN", "preset": "default", "standardise": "speaker", "n": clips, "ccc": ccc}
    return {"corpus": corpus, "rows": [row | {"intervals": {"ccc": [ccc - 0.1, ccc + 0.1]}}]}


def test_a_table_has_one_metric_by_corpus_and_pooled():
    results = {"tested": "test", "by_corpus": [scores_of("a", 0.5, 1200), scores_of("b", 0.25, 40)]}
    pooled = scores_of("", 0.4, 1240)["rows"][0]
    results["rows"] = [pooled | {"subset": "validation"}, pooled | {"subset": "test"}]
    assert tables.by_corpus_table(results, "ccc").to_dict("records") == [
        {
            "Model, preset": "CNN, default †",
            "a (1,200 clips)": "0.500 [0.400, 0.600]",
            "b (40 clips)": "0.250 [0.150, 0.350]",
            "Pooled (1,240 clips)": "0.400 [0.300, 0.500]",
        }
    ]


def across(*, n_corpora=2, why="", named=True):
    """A measured analysis. Across corpora, predictions are shifted by 1; the last pair may have no model."""
    generator = np.random.default_rng(4)
    names = ["a*", "b", "c"][:n_corpora]
    pairs, frames = [], []
    for tested in names:
        truth = generator.uniform(1, 5, 80)
        others = [name for name in names if name != tested]
        for trained in [[tested], *([name] for name in others), *([others] if len(others) > 1 else [])]:
            off = generator.normal(0, 0.5, 80) + (trained != [tested])
            frame = pd.DataFrame({"id": [f"{tested}/{n:02}" for n in range(80)], "truth": truth})
            frame["speaker"] = [f"S{n % 8}" if named else "" for n in range(80)]
            frames.append(frame.assign(pair=len(pairs), mean=2.0, prediction=truth + off))
            pairs.append({"trained_on": trained, "tested_on": tested, "why": "", "trained": 1080.4})
    if why:
        pairs[-1]["why"] = why
        frames.pop()
    about = {"rated": 80, "clips": 80, "speakers": 8, "unnamed": 0, "by": "speaker", "folds": 6}
    corpora = [about | {"name": name} for name in names]
    content = {"model": "SVR", "preset": "default", "corpora": corpora, "pairs": pairs}
    return measure_pairs(content, pd.concat(frames))


def test_tables_have_one_line_for_each_pair_with_scores():
    found = across(n_corpora=3, why="too few clips")
    names = [("a* (within)", "a*"), ("b", "a*"), ("c", "a*"), ("all others", "a*")]
    names += [("b (within)", "b"), ("a*", "b"), ("c", "b"), ("all others", "b")]
    names += [("c (within)", "c"), ("a*", "c"), ("b", "c")]
    for make in (tables.across_table, tables.across_differences_table, tables.across_parts_table):
        table = make(found)
        assert list(zip(table["Trained on"], table["Tested on"], strict=True)) == names
        assert table.map(lambda cell: isinstance(cell, str)).all(axis=None)
    scores = tables.across_table(found)
    assert list(scores) == [
        *("Trained on", "Tested on", "Training clips", "Clips", "Speakers", "CCC", "Pearson r", "MSE")
    ]
    assert scores.iloc[0, 2:5].tolist() == ["1,080", "80", "8"]
    assert set(tables.across_table(across(named=False))["Speakers"]) == {"–"}


def test_differences_from_within_are_across_corpora_alone():
    table = tables.across_differences_table(across())
    assert table["CCC difference from within"].iloc[0] == "–"
    assert table["CCC difference from within"].iloc[1].endswith(" worse")
    assert table["MSE difference from the training mean"].iloc[0].endswith(" better")


def test_the_parts_of_the_error_are_percentages_of_it():
    found = across()
    row = found["pairs"][1]
    row |= {"mse": 2.0, "parts": {"bias": 1.0, "scale": 0.4, "rest": 0.6}}
    found["pairs"][0] |= {"mse": 0.0, "parts": {"bias": 0.0, "scale": 0.0, "rest": 0.0}}
    first, second, *_ = tables.across_parts_table(found).to_dict("records")
    assert list(second.values()) == ["b", "a*", "2.000", "50%", "20%", "30%", "0.600"]
    assert list(first.values()) == ["a* (within)", "a*", "0.000", "–", "–", "–", "0.000"]


# Sentences


def results_of(found, **changes):
    corpora = [{"name": of["name"], "scale": [1.0, 5.0]} for of in found["corpora"]]
    return {"cross_corpus": found, "scale": [1.0, 5.0], "corpora": corpora} | changes


def test_the_protocol_has_the_model_the_folds_and_what_is_missing():
    assert cross_corpus.protocol(results_of(across())) == (
        "SVR (default preset) is trained on each corpus and tested on each. Of the models that are fitted in "
        "one step, it has the lowest validation MSE of this report. Within a corpus, the scores are those of "
        "a cross-validation by speaker in 6 folds (a\\* and b). Across corpora, the model is fitted to all "
        "rated clips of one corpus and tested on all rated clips of another."
    )
    found = across(n_corpora=3, why="2 rated clips are too few")
    found["corpora"][0] |= {"by": "random", "unnamed": 1200, "rated": 5000, "clips": 2000}
    found["corpora"][1] |= {"by": "random", "speakers": 2}
    text = cross_corpus.protocol(results_of(found))
    assert "at random in 6 folds (a\\* and b); by speaker in 6 folds (c)." in text
    assert "of one corpus or of all others together and tested" in text
    assert "a\\* does not name the speaker of 1,200 clips, so its folds are random, and" in text
    assert "Of a\\*, 2,000 of 5,000 rated clips are drawn at random." in text
    assert "b has 2 speakers, so its folds are random" in text
    assert text.endswith("Without scores: all others → c (2 rated clips are too few).")


def test_the_mapping_of_the_scales_is_stated():
    results = results_of(across())
    assert cross_corpus.scales(results) == "All corpora are rated on a scale from 1 to 5."
    results["corpora"][1]["scale"] = [1.0, 7.0]
    assert cross_corpus.scales(results) == (
        "All ratings are on the scale from 1 to 5. Those of b (from 1–7) are mapped to it linearly, which "
        "does not make the scales equivalent."
    )


def test_the_drop_from_within_to_across_is_stated_for_each_tested_corpus():
    found = across()
    for number, row in enumerate(found["pairs"]):
        row |= {"pearson_r": 0.75 - 0.5 * (number % 2), "ccc": 0.5 - 0.25 * (number % 2)}
        row["intervals"] = {name: [row[name] - 0.1, row[name] + 0.1] for name in ("pearson_r", "ccc")}
    difference = {"difference": -0.5, "low": -0.6, "high": -0.4, "verdict": "worse"}
    for row in found["pairs"][1::2]:
        row["against"]["within"] = {"pearson_r": difference, "ccc": difference | {"verdict": "tie"}}
    first, second = cross_corpus.drops(results_of(found))
    assert first == (
        "**Tested on a\\*.** Trained on the same corpus, the model has a Pearson r of 0.750 [0.650, 0.850] "
        "and a CCC of 0.500 [0.400, 0.600]. Trained on b, Pearson r is 0.250 [0.150, 0.350] (**worse**, "
        "difference −0.500 [−0.600, −0.400]) and CCC is 0.250 [0.150, 0.350] (**no significant "
        "difference**, difference −0.500 [−0.600, −0.400])."
    )
    assert second.startswith("**Tested on b.**") and "Trained on a\\*, Pearson" in second
    three = cross_corpus.drops(results_of(across(n_corpora=3)))
    assert len(three) == 3 and "Trained on b and c, Pearson r" in three[0]


def test_both_means_have_their_verdicts():
    text = cross_corpus.against_means(results_of(across()))
    assert "of the training corpus: **better**: b → a\\* and a\\* → b." in text
    assert text.endswith("it is the constant with the lowest MSE.")


def test_the_share_of_bias_and_scale_has_its_range():
    found = across()
    found["pairs"][1] |= {"mse": 2.0, "parts": {"bias": 1.0, "scale": 0.4, "rest": 0.6}}
    found["pairs"][3] |= {"mse": 2.0, "parts": {"bias": 0.2, "scale": 0.0, "rest": 1.8}}
    text = cross_corpus.calibrated(results_of(found))
    assert text.startswith("Across corpora, bias and scale are 10% (a\\* → b) to 70% (b → a\\*) of the MSE.")
    alone = across(why="too few clips")
    alone["pairs"][1] |= {"mse": 2.0, "parts": {"bias": 1.0, "scale": 0.4, "rest": 0.6}}
    assert "bias and scale are 70% (b → a\\*) of the MSE." in cross_corpus.calibrated(results_of(alone))


def test_without_a_pair_across_corpora_nothing_is_concluded():
    found = across()
    found["pairs"] = [row for row in found["pairs"] if row["trained_on"] == [row["tested_on"]]]
    results = results_of(found)
    assert cross_corpus.drops(results) == []
    assert cross_corpus.against_means(results) == cross_corpus.calibrated(results) == ""


@pytest.mark.parametrize(
    ("split", "corpora", "text"),
    [
        (
            {"protocol": "corpora", "by": "corpora", "folds": 2},
            2,
            "The 1,200 rated clips of 12 speakers are of 2 corpora. Each corpus is the test subset once. The "
            "models are then trained on the others, of which a fifth of the clips, drawn by speaker "
            "from each corpus, is the validation subset.",
        ),
        ({"protocol": "corpora", "by": "corpora", "folds": 2, "unnamed": 9}, 2, "drawn at random from each"),
        (
            {"protocol": "cv", "by": "speaker", "folds": 6},
            2,
            "are split into 6 folds by speaker, so that each fold has clips of every corpus. Each fold",
        ),
        ({"protocol": "cv", "by": "speaker", "folds": 6}, 1, "are split into 6 folds by speaker. Each fold"),
        (
            {"protocol": "holdout", "by": "speaker", "given": ["test"]},
            2,
            "by speaker, corpus by corpus, except for test, which the corpora define; no speaker",
        ),
        (
            {"protocol": "holdout", "by": "speaker", "given": ["test"], "tested_alone": ["b"]},
            2,
            "The clips are split by corpus: all clips of b are test clips. The others are split by speaker;",
        ),
        ({"protocol": "holdout", "by": "corpus"}, 1, "The clips are split as the corpus defines; no speaker"),
    ],
)
def test_the_split_of_several_corpora_is_described(split, corpora, text):
    subset = "test" if split["protocol"] == "holdout" else "out_of_fold"
    about = {"unnamed": 0, "shared_speakers": [], "given": [], "tested_alone": []}
    about["subsets"] = {subset: {"clips": 1200, "speakers": 12}}
    assert text in data.split({"split": about | split, "corpora": [{}] * corpora})


# The figure


def test_the_figure_has_a_mark_for_each_pair_and_metric():
    points = tables.across_points(across(n_corpora=3))
    figure = plot_across(points)
    first, second = figure.axes
    assert [first.get_xlabel(), second.get_xlabel()] == ["Pearson r", "CCC"]
    labels = [tick.get_text() for tick in first.get_yticklabels()]
    assert labels[:6] == ["Tested on a*", "a*", "b", "c", "all others", "Tested on b"]
    drawn = {
        (line.get_ydata()[0], round(line.get_xdata()[0], 9))
        for line in first.lines
        if line.get_marker() in ("o", "D")
    }
    places = [1, 2, 3, 4, 6, 7, 8, 9, 11, 12, 13, 14]
    values = points.loc[points["metric"] == "pearson_r", "score"]
    assert drawn == {(place, round(value, 9)) for place, value in zip(places, values, strict=True)}
    assert len(figure.legends[0].get_texts()) == 2
