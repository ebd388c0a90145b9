"""Protocols and designs: whatever the corpus and the seed, each rated clip is tested once, by models that met none of it."""

import numpy as np
import pandas as pd
import pytest

from valence_lib.divisions import DESIGNS, UNUSED, fold_parts
from valence_lib.errors import CorpusError, SettingsError
from valence_lib.protocols import FOLD, OUT_OF_FOLD, divide
from valence_lib.splits import assign_parts

UNITS = {"random": (), "speaker": ("speaker",), "sentence": ("sentence",), "both": ("speaker", "sentence")}
SEEDS = range(12)


def corpus(seed: int, unlabelled: float = 0.0, speakers: bool = True) -> pd.DataFrame:
    """Clips of some speakers, of whom each says some of the sentences, in any order, in two languages."""
    generator = np.random.default_rng([11, seed])
    n_speakers, n_sentences = int(generator.integers(6, 15)), int(generator.integers(6, 12))
    pairs = [(s, t) for s in range(n_speakers) for t in range(n_sentences)]
    kept = generator.permutation(len(pairs))[: int(len(pairs) * generator.uniform(0.7, 1))]
    rows = [pairs[place] for place in kept for _ in range(int(generator.integers(1, 3)))]
    clips = pd.DataFrame(
        {
            "id": [f"clip {number}" for number in range(len(rows))],
            "speaker": [f"S{s}" if speakers else "" for s, _ in rows],
            "sentence": [f"T{t}" for _, t in rows],
            "language": ["de" if t % 2 else "en" for _, t in rows],
            "part": generator.choice(["train", "validation", "test", ""], len(rows)),
            "valence": generator.uniform(1, 5, len(rows)).round(1),
        }
    )
    clips.loc[generator.random(len(rows)) < unlabelled, "valence"] = np.nan
    return clips


# Designs


@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("n_folds", [3, 5])
def test_each_clip_is_tested_once_by_models_that_share_nothing_with_it(design: str, n_folds: int):
    for seed in SEEDS:
        clips = corpus(seed)
        divisions = fold_parts(clips, design, n_folds, seed)
        assert len(divisions) == n_folds * (2 if design == "both" else 1)
        assert (np.sum([parts == "test" for parts in divisions], axis=0) == 1).all()
        for parts in divisions:
            found = {"train", "validation", "test"} | ({UNUSED} if design == "both" else set())
            assert set(parts) == found
            trained = clips[np.isin(parts, ["train", "validation"])]
            tested = clips[parts == "test"]
            for unit in UNITS[design]:
                assert not set(trained[unit]) & set(tested[unit])


@pytest.mark.parametrize("design", ["speaker", "sentence"])
def test_validation_clips_share_nothing_with_training_clips_either(design: str):
    for seed in SEEDS:
        clips = corpus(seed)
        for parts in fold_parts(clips, design, 4, seed):
            assert not set(clips[design][parts == "train"]) & set(clips[design][parts == "validation"])


def test_what_design_both_leaves_out_shares_one_of_the_two():
    for seed in SEEDS:
        clips = corpus(seed)
        for parts in fold_parts(clips, "both", 3, seed):
            tested, unused = clips[parts == "test"], clips[parts == UNUSED]
            same_speaker = unused["speaker"].isin(tested["speaker"])
            assert len(unused)
            # Halves are of sentences, folds of speakers: a clip is left out for one of them, never for both.
            of_test_speakers = set(clips["speaker"][parts == "test"])
            assert (same_speaker == unused["speaker"].isin(of_test_speakers)).all()
            assert not set(unused["sentence"][same_speaker]) & set(tested["sentence"])


@pytest.mark.parametrize("design", DESIGNS)
def test_the_same_seed_gives_the_same_folds_and_another_gives_others(design: str):
    clips = corpus(3)
    first, again, other = (fold_parts(clips, design, 3, seed) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert (np.array(first) != np.array(other)).any()


def test_folds_are_alike_in_size_and_ratings():
    for seed in SEEDS:
        clips = corpus(seed)
        tested = [clips["valence"][parts == "test"] for parts in fold_parts(clips, "random", 5, seed)]
        sizes = [len(ratings) for ratings in tested]
        assert max(sizes) - min(sizes) <= 1
        assert max(ratings.mean() for ratings in tested) - min(ratings.mean() for ratings in tested) < 0.5


def test_sentences_of_two_languages_are_not_the_same_for_their_name():
    clips = corpus(0).assign(
        sentence=lambda table: table["sentence"].str[1:].astype(int).floordiv(2).astype(str)
    )
    names = clips["language"] + clips["sentence"]
    divisions = fold_parts(clips, "sentence", names.nunique(), 0)
    assert len(divisions) == names.nunique()
    for parts in divisions:
        assert names[parts == "test"].nunique() == 1


@pytest.mark.parametrize("n_sentences", [3, 4, 9])
def test_a_corpus_of_few_sentences_has_as_many_folds(n_sentences: int):
    clips = corpus(1).drop(columns="language")
    clips["sentence"] = [f"T{number % n_sentences}" for number in range(len(clips))]
    divisions = fold_parts(clips, "sentence", 6, 0)
    assert len(divisions) == min(6, n_sentences)
    assert all((parts == "train").any() for parts in divisions)


@pytest.mark.parametrize("n_sentences", [1, 2])
def test_too_few_sentences_leave_none_to_train_on(n_sentences: int):
    clips = corpus(1).drop(columns="language")
    clips["sentence"] = [f"T{number % n_sentences}" for number in range(len(clips))]
    with pytest.raises(
        CorpusError, match=f"{n_sentences} sentences? cannot be dealt to 3 folds; expected at least 3"
    ):
        fold_parts(clips, "sentence", 6, 0)


@pytest.mark.parametrize("n_folds", [-1, 0, 1, 2])
def test_fewer_than_three_folds_leave_none_to_train_on(n_folds: int):
    for design in DESIGNS:
        with pytest.raises(SettingsError, match=f"{n_folds} folds were asked for; expected 3 or more"):
            fold_parts(corpus(0), design, n_folds, 0)


def test_too_few_speakers_are_refused_and_as_many_as_the_message_says_are_enough():
    clips = corpus(0)
    clips["speaker"] = [f"S{number % 4}" for number in range(len(clips))]
    message = r"4 speakers cannot be dealt to 5 folds; expected at least 5\. Give fewer FOLDS\."
    with pytest.raises(CorpusError, match=message):
        fold_parts(clips, "speaker", 5, 0)
    assert len(fold_parts(clips, "speaker", 4, 0)) == 4


def test_an_unknown_design_is_told_the_nearest():
    with pytest.raises(SettingsError, match=r"There is no design 'speakers'\. Did you mean 'speaker'\?"):
        fold_parts(corpus(0), "speakers", 3, 0)


@pytest.mark.parametrize(
    ("what", "refused"), [("sentence", ("sentence", "both")), ("speaker", ("speaker", "both"))]
)
def test_designs_are_refused_where_a_label_that_they_need_has_a_gap_or_is_missing(
    what: str, refused: tuple[str, str]
):
    clips = corpus(0)
    for without in (clips.assign(**{what: clips[what].mask(clips.index == 7, "")}), clips.drop(columns=what)):
        for design in DESIGNS:
            if design not in refused:
                assert len(fold_parts(without, design, 5, 0)) == 5
                continue
            with pytest.raises(
                CorpusError, match=f"not every clip names its {what}; expected a column '{what}' without gaps"
            ):
                fold_parts(without, design, 5, 0)


# Protocols


@pytest.mark.parametrize("speakers", [True, False])
@pytest.mark.parametrize("n_folds", [3, 6])
def test_a_cross_validation_tests_each_rated_clip_once(speakers: bool, n_folds: int):
    for seed in SEEDS:
        clips = corpus(seed, unlabelled=0.2, speakers=speakers)
        rated = clips["valence"].notna().to_numpy()
        split = divide(clips, "cv", n_folds, seed)
        assert split.protocol == "cv"
        assert split.by == ("speaker" if speakers else "random")
        assert list(split.divisions) == [f"{FOLD}{number}" for number in range(n_folds)]
        assert split.part.tolist() == np.where(rated, OUT_OF_FOLD, "unlabelled").tolist()
        for part in ("test", "validation"):
            times = np.sum([parts == part for parts in split.divisions.values()], axis=0)
            np.testing.assert_array_equal(times, rated.astype(int))
        for name, parts in split.divisions.items():
            assert ((parts == "unlabelled") == ~rated).all()
            assert set(parts[rated]) == {"train", "validation", "test"}
            assert (split.fold[parts == "test"] == name.removeprefix(FOLD)).all()
        assert (split.fold[~rated] == "").all()
        if speakers:
            assert split.shared_speakers == []
            for parts in split.divisions.values():
                heard = [set(clips["speaker"][parts == part]) for part in ("train", "validation", "test")]
                assert sum(map(len, heard)) == len(set().union(*heard))


def test_a_cross_validation_ignores_the_corpuss_own_parts():
    clips = corpus(2, unlabelled=0.1)
    first = divide(clips, "cv", 4, 0)
    second = divide(clips.assign(part="test"), "cv", 4, 0)
    for name, parts in first.divisions.items():
        np.testing.assert_array_equal(second.divisions[name], parts)


def test_what_unlabelled_clips_say_moves_no_rated_clip():
    clips = corpus(2, unlabelled=0.2)
    rated = clips["valence"].notna().to_numpy()
    alone = divide(clips[rated].reset_index(drop=True), "cv", 4, 0)
    beside = divide(clips.assign(speaker=clips["speaker"].where(rated, "")), "cv", 4, 0)
    assert alone.by == beside.by == "speaker"
    for name, parts in alone.divisions.items():
        np.testing.assert_array_equal(beside.divisions[name][rated], parts)


@pytest.mark.parametrize("protocol", ["holdout", "cv"])
def test_a_division_is_the_seeds_alone(protocol: str):
    clips = corpus(4, unlabelled=0.1).assign(part="")
    before = clips.copy()
    first, again, other = (divide(clips, protocol, 3, seed) for seed in (0, 0, 1))
    pd.testing.assert_frame_equal(clips, before)
    for name, parts in first.divisions.items():
        np.testing.assert_array_equal(parts, again.divisions[name])
    assert any((parts != other.divisions[name]).any() for name, parts in first.divisions.items())


def test_a_holdout_is_that_of_assign_parts():
    for seed in SEEDS:
        clips = corpus(seed, unlabelled=0.1)
        split = divide(clips, "holdout", 6, seed)
        parts, by = assign_parts(clips, seed)
        assert split.by == by == "corpus"
        assert list(split.divisions) == [""]
        np.testing.assert_array_equal(split.part, parts)
        np.testing.assert_array_equal(split.divisions[""], parts)
        assert (split.fold == "").all()
        assert split.shared_speakers  # since these parts were given without a look at speakers


def test_one_unnamed_speaker_makes_a_cross_validation_random():
    clips = corpus(5)
    clips.loc[3, "speaker"] = ""
    split = divide(clips, "cv", 3, 0)
    assert split.by == "random"
    assert "" not in split.shared_speakers
    assert split.shared_speakers == sorted(split.shared_speakers) != []


def test_an_unknown_protocol_is_told_the_nearest():
    with pytest.raises(SettingsError, match=r"There is no protocol 'holdouts'\. Did you mean 'holdout'\?"):
        divide(corpus(0), "holdouts", 3, 0)


def test_too_few_clips_for_a_cross_validation():
    clips = corpus(0, speakers=False).iloc[:4]
    with pytest.raises(
        CorpusError, match=r"4 clips cannot be dealt to 6 folds; expected at least 6\. Give fewer FOLDS"
    ):
        divide(clips, "cv", 6, 0)
