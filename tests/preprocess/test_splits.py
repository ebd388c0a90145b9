"""Whatever the corpus and the seed: subsets share no group, hold each clip once, are alike in valence."""

import warnings
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest

from valence_lib.errors import CorpusError, SettingsError
from valence_lib.preprocess.splits import (
    FOLD,
    GROUPINGS,
    OUT_OF_FOLD,
    SUBSETS,
    UNUSED,
    SplitResult,
    fold_splits,
    make_splits,
)

SPLIT = {"train", "validation", "test"}
UNITS = {"random": (), "speaker": ("speaker",), "sentence": ("sentence",), "both": ("speaker", "sentence")}
SEEDS = range(12)


def table(
    rating: Sequence[float] | np.ndarray,
    speakers: Sequence[str] | None = None,
    subsets: Sequence[str] | None = None,
    corpora: Sequence[str] | None = None,
) -> pd.DataFrame:
    n = len(rating)
    return pd.DataFrame(
        {
            "id": [f"{number:05}" for number in range(n)],
            "subset": subsets if subsets is not None else [""] * n,
            "rating": np.asarray(rating, dtype=float),
            "speaker": speakers if speakers is not None else [""] * n,
            "corpus": corpora if corpora is not None else ["one"] * n,
        }
    )


def random_table(seed: int) -> pd.DataFrame:
    """3 to 40 speakers of 10 to 20 clips each, whose valence depends on the speaker a little."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(10, 21, size=rng.integers(3, 41))
    speakers = np.repeat([f"S{number}" for number in range(len(sizes))], sizes)
    valence = np.repeat(rng.normal(3, 0.3, len(sizes)), sizes) + rng.normal(0, 0.7, sizes.sum())
    order = rng.permutation(len(speakers))
    return table(np.clip(valence, 1, 5).round(2)[order], speakers[order].tolist())


def corpus(seed: int, unlabelled: float = 0.0, speakers: bool = True) -> pd.DataFrame:
    """Clips of some speakers, each of whom says some of the sentences, in any order, in two languages."""
    generator = np.random.default_rng([11, seed])
    n_speakers, n_sentences = int(generator.integers(6, 15)), int(generator.integers(6, 12))
    pairs = [(s, t) for s in range(n_speakers) for t in range(n_sentences)]
    chosen = generator.permutation(len(pairs))[: int(len(pairs) * generator.uniform(0.7, 1))]
    rows = [pairs[place] for place in chosen for _ in range(int(generator.integers(1, 3)))]
    clips = table(
        generator.uniform(1, 5, len(rows)).round(1),
        [f"S{s}" if speakers else "" for s, _ in rows],
        generator.choice(["train", "validation", "test", ""], len(rows)),
    )
    clips["sentence"] = [f"T{t}" for _, t in rows]
    clips["language"] = ["de" if t % 2 else "en" for _, t in rows]
    clips.loc[generator.random(len(rows)) < unlabelled, "rating"] = np.nan
    return clips


def holdout(clips: pd.DataFrame, seed: int = 0) -> SplitResult:
    return make_splits(clips, "holdout", 3, seed)


def shares(subsets: np.ndarray) -> dict[str, float]:
    return {subset: float((subsets == subset).mean()) for subset in set(subsets)}


FIFTHS = {"train": 0.6, "validation": 0.2, "test": 0.2}

# Holdout


def test_a_holdout_by_speaker_has_about_a_fifth_for_test_and_for_validation():
    for corpus_seed in range(30):
        clips = random_table(corpus_seed)
        largest = clips["speaker"].value_counts(normalize=True).max()
        for seed in range(3):
            split = holdout(clips, seed)
            assert (split.protocol, split.by, split.shared_speakers) == ("holdout", "speaker", [])
            assert list(split.splits) == [""]
            np.testing.assert_array_equal(split.splits[""], split.subset)
            assert (split.fold == "").all()
            assert (pd.Series(split.subset).groupby(clips["speaker"]).nunique() == 1).all()
            found = shares(split.subset)
            assert set(found) == SPLIT
            assert all(abs(found[subset] - 0.2) < 1.5 * largest for subset in ("test", "validation"))


@pytest.mark.parametrize("sizes", [[20] * 3, [15] * 4, [12] * 5, [80, 5, 9, 7], [80, 8, 6, 5, 9, 7]], ids=str)
def test_few_speakers_are_enough_however_many_clips_one_of_them_has(sizes: list[int]):
    speakers = np.repeat([f"S{number}" for number in range(len(sizes))], sizes).tolist()
    for seed in range(10):
        clips = table(np.random.default_rng(seed).uniform(1, 5, len(speakers)), speakers)
        split = holdout(clips, seed)
        assert (split.by, set(split.subset), split.shared_speakers) == ("speaker", SPLIT, [])


def test_subsets_are_alike_in_valence():
    rng = np.random.default_rng(5)
    # Thirty speakers, ten each of a low, a middle and a high valence: one random draw is often unbalanced.
    speakers = np.repeat([f"S{number}" for number in range(30)], 10).tolist()
    valence = np.repeat(np.repeat([1.8, 3.0, 4.2], 10), 10) + rng.normal(0, 0.2, 300)
    for seed in range(5):
        subsets = holdout(table(valence, speakers), seed).subset
        for subset in SPLIT:
            assert abs(valence[subsets == subset].mean() - valence.mean()) < 0.25
            assert abs(valence[subsets == subset].std() / valence.std() - 1) < 0.2


def test_without_speakers_clips_are_split_at_random():
    valence = np.random.default_rng(1).beta(2, 5, 500) * 4 + 1
    split = holdout(table(valence))
    assert split.by == "random"
    assert shares(split.subset) == pytest.approx(FIFTHS, abs=0.01)
    quantiles = [0.1, 0.5, 0.9]
    for subset in SPLIT:
        found = np.quantile(valence[split.subset == subset], quantiles)
        np.testing.assert_allclose(found, np.quantile(valence, quantiles), atol=0.2)


@pytest.mark.parametrize(
    "speakers",
    [["A", "B"] * 30, ["A"] * 60, [*["A", "B", "C"] * 19, "A", "B", ""]],
    ids=["two", "one", "one unnamed"],
)
def test_fewer_than_three_speakers_or_an_unnamed_one_make_a_holdout_random(speakers: list[str]):
    split = holdout(table(np.random.default_rng(2).uniform(1, 5, 60), speakers))
    assert (split.by, set(split.subset)) == ("random", SPLIT)
    assert split.shared_speakers == sorted({*speakers} - {""})


def test_clips_that_are_all_rated_alike():
    assert shares(holdout(table(np.full(50, 3.0))).subset) == pytest.approx(FIFTHS)


@pytest.mark.parametrize("n_clips", [10, 11, 13, 17, 20, 26])
@pytest.mark.parametrize("n_speakers", [0, 3, 5])
def test_ten_clips_are_enough_and_nothing_warns(n_clips: int, n_speakers: int):
    valence = np.random.default_rng(n_clips).uniform(1, 5, n_clips)
    speakers = [f"S{number % n_speakers}" for number in range(n_clips)] if n_speakers else None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert set(holdout(table(valence, speakers)).subset) == SPLIT


@pytest.mark.parametrize("training", ["train", ""])
def test_subsets_that_the_corpus_defines_stay(training: str):
    others = ["validation"] * 10 + ["test"] * 10
    split = holdout(table(np.linspace(1, 5, 50), ["A", "B"] * 25, [training] * 30 + others))
    assert (split.by, split.shared_speakers) == ("corpus", ["A", "B"])
    assert split.subset.tolist() == ["train"] * 30 + others


@pytest.mark.parametrize("given", ["test", "validation"])
@pytest.mark.parametrize("named", [True, False])
def test_one_subset_that_the_corpus_defines_stays_and_the_other_is_drawn(given: str, named: bool):
    speakers = [f"S{number // 10}" for number in range(120)]
    valence = np.random.default_rng(4).uniform(1, 5, 120)
    split = holdout(table(valence, speakers if named else None, ["train"] * 100 + [given] * 20))
    assert (split.by, split.shared_speakers) == ("speaker" if named else "random", [])
    (wanted,) = SPLIT - {"train", given}
    assert (split.subset[100:] == given).all()
    assert set(split.subset[:100]) == {"train", wanted}
    assert (split.subset[:100] == wanted).sum() == 20


def test_a_test_subset_without_ratings_is_unlabelled_and_another_is_drawn():
    # As in the course folder: test/*.pkl holds the audio alone.
    valence = np.random.default_rng(5).uniform(1, 5, 130)
    valence[100:] = np.nan
    speakers = [f"S{number // 10}" for number in range(100)] + [""] * 30
    split = holdout(table(valence, speakers, ["train"] * 100 + ["test"] * 30))
    assert (split.by, split.shared_speakers) == ("speaker", [])
    assert (split.subset[100:] == "unlabelled").all()
    assert shares(split.subset[:100]) == pytest.approx(FIFTHS)
    assert set(split.subset) == set(SUBSETS)


def test_a_test_subset_with_some_ratings_is_tested_on_those():
    valence = np.random.default_rng(6).uniform(1, 5, 120)
    valence[110:] = np.nan
    subsets = holdout(table(valence, subsets=["train"] * 100 + ["test"] * 20)).subset
    assert (subsets[100:110] == "test").all()
    assert (subsets[110:] == "unlabelled").all()
    assert set(subsets[:100]) == {"train", "validation"}


def test_too_few_clips_are_refused_and_as_many_as_the_message_says_are_enough():
    for n_clips in (0, 1, 9):
        noun = "clip of 'one' is" if n_clips == 1 else "clips of 'one' are"
        message = f"{n_clips} rated {noun} too few to split .* expected at least 10"
        with pytest.raises(CorpusError, match=message):
            holdout(
                table(
                    [*np.linspace(1, 5, n_clips), *[np.nan] * 50], subsets=["train"] * n_clips + ["test"] * 50
                )
            )
    for seed in range(5):
        assert set(holdout(table(np.linspace(1, 5, 10)), seed).subset) == SPLIT


@pytest.mark.parametrize("given", [["test"] * 40, ["validation"] * 20 + ["test"] * 20], ids=["test", "both"])
def test_a_corpus_without_a_clip_to_train_on(given: list[str]):
    with pytest.raises(CorpusError, match="0 rated clips of 'one' are too few"):
        holdout(table(np.linspace(1, 5, 40), subsets=given))


# Groupings of folds


@pytest.mark.parametrize("grouping", GROUPINGS)
@pytest.mark.parametrize("n_folds", [3, 5])
def test_each_clip_is_tested_once_by_models_that_share_no_group_with_it(grouping: str, n_folds: int):
    for seed in SEEDS:
        clips = corpus(seed)
        splits = fold_splits(clips, grouping, n_folds, seed)
        assert len(splits) == n_folds * (2 if grouping == "both" else 1)
        assert (np.sum([subsets == "test" for subsets in splits], axis=0) == 1).all()
        for subsets in splits:
            assert set(subsets) == SPLIT | ({UNUSED} if grouping == "both" else set())
            groups = {
                subset: [set(clips[unit][subsets == subset]) for unit in UNITS[grouping]] for subset in SPLIT
            }
            for known in ("train", "validation"):
                assert all(map(set.isdisjoint, groups[known], groups["test"]))
            if grouping != "both":
                assert all(map(set.isdisjoint, groups["train"], groups["validation"]))


def test_unused_clips_share_a_speaker_or_a_sentence_with_the_test_clips_but_not_both():
    for seed in SEEDS:
        clips = corpus(seed)
        for subsets in fold_splits(clips, "both", 3, seed):
            tested, unused = clips[subsets == "test"], clips[subsets == UNUSED]
            same_speaker = unused["speaker"].isin(tested["speaker"])
            assert 0 < same_speaker.sum() < len(unused)
            assert not set(unused["sentence"][same_speaker]) & set(tested["sentence"])


def test_folds_are_alike_in_size_and_ratings():
    for seed in SEEDS:
        clips = corpus(seed)
        tested = [clips["rating"][subsets == "test"] for subsets in fold_splits(clips, "random", 5, seed)]
        assert np.ptp([len(ratings) for ratings in tested]) <= 1
        assert np.ptp([ratings.mean() for ratings in tested]) < 0.5


def test_sentences_of_two_languages_differ_though_their_names_are_equal():
    clips = corpus(0)
    clips["sentence"] = clips["sentence"].str[1:].astype(int).floordiv(2).astype(str)
    names = clips["language"] + clips["sentence"]
    splits = fold_splits(clips, "sentence", names.nunique(), 0)
    assert [names[subsets == "test"].nunique() for subsets in splits] == [1] * names.nunique()


@pytest.mark.parametrize("n_sentences", [1, 2, 3, 4, 9])
def test_a_corpus_of_few_sentences_has_as_many_folds_but_three_at_least(n_sentences: int):
    clips = corpus(1).drop(columns="language")
    clips["sentence"] = [f"T{number % n_sentences}" for number in range(len(clips))]
    if n_sentences < 3:
        message = f"{n_sentences} sentences? cannot be dealt to 3 folds; expected at least 3. Add more"
        with pytest.raises(CorpusError, match=message):
            fold_splits(clips, "sentence", 6, 0)
    else:
        assert len(fold_splits(clips, "sentence", 6, 0)) == min(6, n_sentences)


@pytest.mark.parametrize("n_folds", [-1, 2])
def test_fewer_than_three_folds_are_refused(n_folds: int):
    with pytest.raises(SettingsError, match=f"{n_folds} folds were asked for; expected 3 or more"):
        fold_splits(corpus(0), "random", n_folds, 0)


def test_too_few_speakers_are_refused_and_as_many_as_the_message_says_are_enough():
    clips = corpus(0)
    clips["speaker"] = [f"S{number % 4}" for number in range(len(clips))]
    message = r"4 speakers cannot be dealt to 5 folds; expected at least 5\. Give fewer FOLDS\."
    with pytest.raises(CorpusError, match=message):
        fold_splits(clips, "speaker", 5, 0)
    assert len(fold_splits(clips, "speaker", 4, 0)) == 4


def test_unknown_names_are_refused_with_the_nearest():
    with pytest.raises(SettingsError, match=r"no grouping 'speakers'\. Did you mean 'speaker'\?"):
        fold_splits(corpus(0), "speakers", 3, 0)
    with pytest.raises(SettingsError, match=r"no protocol 'holdouts'\. Did you mean 'holdout'\?"):
        make_splits(corpus(0), "holdouts", 3, 0)


@pytest.mark.parametrize("label", ["sentence", "speaker"])
@pytest.mark.parametrize("grouping", GROUPINGS)
def test_a_grouping_needs_its_labels_without_gaps(label: str, grouping: str):
    clips = corpus(0)
    for without in (
        clips.assign(**{label: clips[label].mask(clips.index == 7, "")}),
        clips.drop(columns=label),
    ):
        if label not in UNITS[grouping]:
            assert len(fold_splits(without, grouping, 5, 0)) == 5
            continue
        message = f"not every clip names its {label}; expected a column '{label}' without gaps"
        with pytest.raises(CorpusError, match=message):
            fold_splits(without, grouping, 5, 0)


# Cross-validation


@pytest.mark.parametrize("speakers", [True, False])
@pytest.mark.parametrize("n_folds", [3, 6])
def test_a_cross_validation_tests_each_rated_clip_once(speakers: bool, n_folds: int):
    for seed in SEEDS:
        clips = corpus(seed, unlabelled=0.2, speakers=speakers)
        rated = clips["rating"].notna().to_numpy()
        split = make_splits(clips, "cv", n_folds, seed)
        assert (split.protocol, split.by) == ("cv", "speaker" if speakers else "random")
        assert (split.shared_speakers, list(split.splits)) == ([], [f"{FOLD}{n}" for n in range(n_folds)])
        assert split.subset.tolist() == np.where(rated, OUT_OF_FOLD, "unlabelled").tolist()
        of_rated = fold_splits(clips[rated], split.by, n_folds, seed)
        for (name, subsets), expected in zip(split.splits.items(), of_rated, strict=True):
            assert (subsets[~rated] == "unlabelled").all()
            np.testing.assert_array_equal(subsets[rated], expected)
            assert (split.fold[subsets == "test"] == name.removeprefix(FOLD)).all()
        assert (split.fold[~rated] == "").all()


def test_a_cross_validation_ignores_the_corpuss_subsets_and_the_speakers_of_unlabelled_clips():
    clips = corpus(2, unlabelled=0.2)
    rated = clips["rating"].notna().to_numpy()
    expected = make_splits(clips, "cv", 4, 0)
    for changed in (clips.assign(subset="test"), clips.assign(speaker=clips["speaker"].where(rated, ""))):
        split = make_splits(changed, "cv", 4, 0)
        assert split.by == "speaker"
        for name, subsets in expected.splits.items():
            np.testing.assert_array_equal(split.splits[name], subsets)


@pytest.mark.parametrize("protocol", ["holdout", "cv"])
@pytest.mark.parametrize("named", [True, False])
def test_splits_depend_on_the_seed_alone_and_leave_the_table_as_it_was(protocol: str, named: bool):
    clips = corpus(4, unlabelled=0.1, speakers=named).assign(subset="")
    before = clips.copy(deep=True)
    first, again, other = (make_splits(clips, protocol, 3, seed) for seed in (0, 0, 1))
    pd.testing.assert_frame_equal(clips, before)
    for name, subsets in first.splits.items():
        np.testing.assert_array_equal(subsets, again.splits[name])
    assert any((subsets != other.splits[name]).any() for name, subsets in first.splits.items())


# Shared speakers and pairs


def test_shared_speakers_are_named_in_order_and_those_of_unlabelled_clips_do_not_count():
    speakers = ["C", "C", "A", "A", "B", "", "", "D", "D"]
    given = ["train", "test", "validation", "train", "test", "train", "test", "train", "test"]
    valence = [3.0] * 8 + [np.nan]
    split = holdout(table(valence * 2, speakers * 2, given * 2))
    assert (split.by, split.shared_speakers) == ("corpus", ["A", "C"])


def test_pairs_across_subsets_are_counted():
    ids = pd.Series(["a", "b", "c", "d"])
    splits = {"fold-0": np.array(["train", "train", "test", "test"]), "fold-1": np.array([*"xxyz"])}
    split = SplitResult("cv", "speaker", splits, np.full(4, OUT_OF_FOLD), [])
    pairs = pd.DataFrame([("a", "b"), ("b", "c"), ("d", "c"), ("a", "d")], columns=["first", "second"])
    assert split.pairs_across_subsets(ids, pairs) == 3
    assert split.pairs_across_subsets(ids, pairs.iloc[:0]) == 0


# Several corpora


def two_corpora(n_speakers: int = 12) -> pd.DataFrame:
    """Two corpora of the same number of speakers, with 10 clips each, the second with subsets of its own."""
    rng = np.random.default_rng(0)
    speakers = [f"{corpus}/{n}" for corpus in "ab" for n in range(n_speakers) for _ in range(10)]
    subsets = [""] * (10 * n_speakers) + [
        "test" if n < 3 else "validation" if n < 6 else "train" for n in range(n_speakers) for _ in range(10)
    ]
    corpora = [name.split("/")[0] for name in speakers]
    return table(rng.uniform(1, 5, len(speakers)), speakers, subsets, corpora)


def test_each_corpus_keeps_its_own_subsets_or_gets_some():
    clips = two_corpora()
    split = holdout(clips)
    first = (clips["corpus"] == "a").to_numpy()
    assert list(split.subset[~first]) == list(clips["subset"][~first])
    # As if it were alone.
    np.testing.assert_array_equal(split.subset[first], holdout(clips[first]).subset)
    assert split.by == "speaker" and not split.shared_speakers


def test_where_a_corpus_is_tested_alone_the_other_has_no_test_clips():
    clips = two_corpora()
    clips.loc[clips["corpus"] == "b", "subset"] = "test"
    subsets = holdout(clips).subset
    first = (clips["corpus"] == "a").to_numpy()
    assert set(subsets[~first]) == {"test"}
    assert set(subsets[first]) == {"train", "validation"}
    assert abs((subsets[first] == "validation").mean() - 0.2) < 0.1


def test_every_fold_has_clips_of_each_corpus():
    clips = two_corpora()
    split = make_splits(clips, "cv", 6, 0)
    assert len(split.splits) == 6
    for subsets in split.splits.values():
        sizes = clips["corpus"][subsets == "test"].value_counts()
        assert sizes.to_dict() == {"a": 20, "b": 20}


def test_each_corpus_is_tested_by_models_of_the_others():
    clips = two_corpora()
    split = make_splits(clips, "corpora", 6, 0)
    assert (split.protocol, split.by, list(split.splits)) == ("corpora", "corpora", ["fold-0", "fold-1"])
    corpora = clips["corpus"].to_numpy()
    for name, subsets in zip("ab", split.splits.values(), strict=True):
        np.testing.assert_array_equal(subsets == "test", corpora == name)
        others = pd.Series(subsets[corpora != name]).groupby(clips["speaker"][corpora != name].to_numpy())
        assert (others.nunique() == 1).all()
        assert abs((subsets[corpora != name] == "validation").mean() - 0.2) < 0.1
    assert set(split.subset) == {"out_of_fold"} and not split.shared_speakers


def test_protocol_corpora_needs_two():
    with pytest.raises(CorpusError, match="PROTOCOL=corpora was given for one corpus; expected two or more"):
        make_splits(two_corpora().iloc[:100], "corpora", 6, 0)


def test_one_of_several_corpora_without_ratings_is_named():
    clips = table([*np.linspace(1, 5, 20), *[np.nan] * 20], corpora=["one"] * 20 + ["two"] * 20)
    with pytest.raises(CorpusError, match="no clip of the corpus 'two' has a rating to learn from"):
        holdout(clips)


def test_a_corpus_of_one_speaker_is_named_as_it_is_written():
    clips = table(
        np.linspace(1, 5, 40), ["S1"] * 20 + ["S2"] * 10 + ["S3"] * 10, None, ["a"] * 20 + ["b"] * 20
    )
    with pytest.raises(CorpusError, match=r"^the corpus 'a' has one speaker"):
        make_splits(clips, "corpora", 0, 0)
