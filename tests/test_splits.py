"""Parts that share no speaker, hold every clip once, and are alike in valence."""

import re
import warnings
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest

from valence_lib.errors import CorpusError
from valence_lib.splits import PARTS, assign_parts, shared_speakers

DIVIDED = {"train", "validation", "test"}


def table(
    valence: Sequence[float] | np.ndarray,
    speakers: Sequence[str] | None = None,
    parts: Sequence[str] | None = None,
) -> pd.DataFrame:
    n = len(valence)
    return pd.DataFrame(
        {
            "id": [f"{number:05}" for number in range(n)],
            "part": parts if parts is not None else [""] * n,
            "valence": np.asarray(valence, dtype=float),
            "speaker": speakers if speakers is not None else [""] * n,
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


def shares(parts: np.ndarray) -> dict[str, float]:
    return {part: float((parts == part).mean()) for part in set(parts)}


# By speaker


def test_no_speaker_is_in_two_parts_and_every_clip_is_in_one():
    for corpus_seed in range(40):
        clips = random_table(corpus_seed)
        for seed in range(3):
            parts, by = assign_parts(clips, seed)
            assert by == "speaker"
            assert len(parts) == len(clips)
            assert set(parts) == DIVIDED
            heard_in = pd.Series(parts).groupby(clips["speaker"]).nunique()
            assert (heard_in == 1).all(), (corpus_seed, seed)
            assert shared_speakers(clips, parts) == []


def test_a_fifth_is_for_test_and_a_fifth_for_validation_as_far_as_speakers_allow():
    for corpus_seed in range(20):
        clips = random_table(corpus_seed)
        parts, _ = assign_parts(clips, 0)
        largest = clips["speaker"].value_counts(normalize=True).max()
        found = shares(parts)
        for part in ("test", "validation"):
            assert abs(found[part] - 0.2) < 1.5 * largest
        assert found["train"] > max(found["test"], found["validation"]) - largest


@pytest.mark.parametrize("n_speakers", [3, 4, 5])
def test_few_speakers_are_still_enough(n_speakers: int):
    rng = np.random.default_rng(n_speakers)
    speakers = [f"S{number % n_speakers}" for number in range(60)]
    for seed in range(10):
        clips = table(rng.uniform(1, 5, 60), speakers)
        parts, by = assign_parts(clips, seed)
        assert (by, set(parts), shared_speakers(clips, parts)) == ("speaker", DIVIDED, [])


def test_one_speaker_with_nearly_all_clips_does_not_empty_a_part():
    rng = np.random.default_rng(0)
    for seed in range(20):
        sizes = [80, *rng.integers(5, 10, size=3 + seed % 4)]
        speakers = np.repeat([f"S{number}" for number in range(len(sizes))], sizes).tolist()
        clips = table(rng.uniform(1, 5, len(speakers)), speakers)
        parts, _ = assign_parts(clips, seed)
        assert set(parts) == DIVIDED
        assert shared_speakers(clips, parts) == []


def test_parts_are_alike_in_valence():
    rng = np.random.default_rng(5)
    # Thirty speakers, ten each of a low, a middle and a high valence: chance alone often divides them badly.
    means = np.repeat([1.8, 3.0, 4.2], 10)
    speakers = np.repeat([f"S{number}" for number in range(30)], 10).tolist()
    valence = np.repeat(means, 10) + rng.normal(0, 0.2, 300)
    for seed in range(5):
        parts, _ = assign_parts(table(valence, speakers), seed)
        for part in DIVIDED:
            assert abs(valence[parts == part].mean() - valence.mean()) < 0.25
            assert abs(valence[parts == part].std() / valence.std() - 1) < 0.2


# Without speakers


def test_without_speakers_clips_are_divided_at_random():
    valence = np.random.default_rng(1).beta(2, 5, 500) * 4 + 1
    parts, by = assign_parts(table(valence), 0)
    assert by == "random"
    assert shares(parts) == pytest.approx({"train": 0.6, "validation": 0.2, "test": 0.2}, abs=0.01)
    quantiles = [0.1, 0.5, 0.9]
    for part in DIVIDED:
        found = np.quantile(valence[parts == part], quantiles)
        np.testing.assert_allclose(found, np.quantile(valence, quantiles), atol=0.2)


@pytest.mark.parametrize("speakers", [["A", "B"] * 30, ["A"] * 60, [*["A", "B", "C"] * 19, "A", "B", ""]])
def test_fewer_than_three_speakers_or_an_unnamed_one_cannot_be_divided_by_speaker(speakers: list[str]):
    clips = table(np.random.default_rng(2).uniform(1, 5, 60), speakers)
    parts, by = assign_parts(clips, 0)
    assert (by, set(parts)) == ("random", DIVIDED)
    assert shared_speakers(clips, parts) == sorted({*speakers} - {""})


def test_clips_that_are_all_rated_alike():
    parts, _ = assign_parts(table(np.full(50, 3.0)), 0)
    assert shares(parts) == pytest.approx({"train": 0.6, "validation": 0.2, "test": 0.2})


@pytest.mark.parametrize("n_clips", [10, 11, 13, 17, 20, 24, 26, 31])
@pytest.mark.parametrize("n_speakers", [0, 3, 5])
def test_ten_clips_are_enough_and_nothing_warns(n_clips: int, n_speakers: int):
    valence = np.random.default_rng(n_clips).uniform(1, 5, n_clips)
    speakers = [f"S{number % n_speakers}" for number in range(n_clips)] if n_speakers else None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parts, _ = assign_parts(table(valence, speakers), 0)
    assert set(parts) == DIVIDED


# Seeds


@pytest.mark.parametrize("named", [True, False])
def test_the_seed_matters_and_nothing_else_does(named: bool):
    clips = random_table(7) if named else random_table(7).assign(speaker="")
    first, _ = assign_parts(clips, 0)
    again, _ = assign_parts(clips.copy(), 0)
    np.testing.assert_array_equal(again, first)
    others = [assign_parts(clips, seed)[0] for seed in range(1, 6)]
    assert any((other != first).any() for other in others)
    assert len({other.tobytes() for other in others}) > 1


def test_the_table_stays_as_it_was():
    clips = random_table(8)
    before = clips.copy(deep=True)
    assign_parts(clips, 0)
    pd.testing.assert_frame_equal(clips, before)


# Parts that the corpus names


def test_all_parts_given_are_kept():
    given = ["train"] * 30 + ["validation"] * 10 + ["test"] * 10
    valence = np.random.default_rng(3).uniform(1, 5, 50)
    parts, by = assign_parts(table(valence, ["A", "B"] * 25, given), 0)
    assert by == "corpus"
    assert parts.tolist() == given


def test_clips_without_a_part_beside_given_parts_are_for_training():
    given = [""] * 30 + ["validation"] * 10 + ["test"] * 10
    parts, by = assign_parts(table(np.linspace(1, 5, 50), parts=given), 0)
    assert by == "corpus"
    assert parts.tolist() == ["train"] * 30 + given[30:]


@pytest.mark.parametrize("kept", ["test", "validation"])
@pytest.mark.parametrize("named", [True, False])
def test_one_part_given_is_kept_and_the_other_divided_off(kept: str, named: bool):
    rng = np.random.default_rng(4)
    speakers = [f"S{number // 10}" for number in range(120)]
    given = np.array(["train"] * 100 + [kept] * 20)
    clips = table(rng.uniform(1, 5, 120), speakers if named else None, given.tolist())
    parts, by = assign_parts(clips, 0)
    assert by == ("speaker" if named else "random")
    assert (parts[100:] == kept).all()
    (wanted,) = DIVIDED - {"train", kept}
    assert set(parts[:100]) == {"train", wanted}
    assert (parts[:100] == wanted).sum() == 20
    if named:
        assert shared_speakers(clips, parts) == []


def test_a_test_part_without_ratings_is_unlabelled_and_another_is_divided_off():
    # As in the course folder: test/*.pkl holds the audio alone.
    valence = np.random.default_rng(5).uniform(1, 5, 130)
    valence[100:] = np.nan
    parts, by = assign_parts(table(valence, parts=["train"] * 100 + ["test"] * 30), 0)
    assert by == "random"
    assert (parts[100:] == "unlabelled").all()
    assert shares(parts[:100]) == pytest.approx({"train": 0.6, "validation": 0.2, "test": 0.2})
    assert set(parts) == set(PARTS)


def test_a_test_part_with_some_ratings_is_tested_on_those():
    valence = np.random.default_rng(6).uniform(1, 5, 120)
    valence[110:] = np.nan
    parts, _ = assign_parts(table(valence, parts=["train"] * 100 + ["test"] * 20), 0)
    assert (parts[100:110] == "test").all()
    assert (parts[110:] == "unlabelled").all()
    assert set(parts[:100]) == {"train", "validation"}


def test_speakers_of_unlabelled_clips_do_not_matter():
    speakers = [f"S{number // 10}" for number in range(100)] + [""] * 10
    valence = np.append(np.random.default_rng(7).uniform(1, 5, 100), [np.nan] * 10)
    clips = table(valence, speakers, ["train"] * 100 + ["test"] * 10)
    parts, by = assign_parts(clips, 0)
    assert by == "speaker"
    assert shared_speakers(clips, parts) == []


# Too few


def few(n_clips: int, n_unlabelled: int = 0) -> pd.DataFrame:
    valence = [*np.linspace(1, 5, n_clips), *[np.nan] * n_unlabelled]
    return table(valence, parts=["train"] * n_clips + ["test"] * n_unlabelled)


def test_too_few_clips_are_refused_and_as_many_as_the_message_says_are_enough():
    with pytest.raises(CorpusError, match="0 rated clips are too few to divide") as caught:
        assign_parts(few(0), 0)
    found = re.search(r"expected at least (\d+)", str(caught.value))
    assert found
    fewest = int(found[1])
    for n_clips in range(1, fewest):
        with pytest.raises(CorpusError, match=f"{n_clips} rated clips are too few to divide"):
            assign_parts(few(n_clips), 0)
    for seed in range(5):
        assert set(assign_parts(few(fewest), seed)[0]) == DIVIDED


def test_unlabelled_clips_do_not_make_a_corpus_larger():
    with pytest.raises(CorpusError, match="3 rated clips are too few to divide"):
        assign_parts(few(3, n_unlabelled=50), 0)


@pytest.mark.parametrize("given", [["test"] * 40, ["validation"] * 20 + ["test"] * 20])
def test_a_corpus_without_a_clip_to_train_on(given: list[str]):
    with pytest.raises(CorpusError, match="too few"):
        assign_parts(table(np.linspace(1, 5, 40), parts=given), 0)


# Shared speakers


def test_shared_speakers_are_named_in_order():
    clips = table([3] * 8, ["C", "C", "A", "A", "B", "", "", "D"])
    parts = np.array(["train", "test", "validation", "train", "test", "train", "test", "train"])
    assert shared_speakers(clips, parts) == ["A", "C"]


def test_unlabelled_clips_share_no_speaker():
    clips = table([3, np.nan, 2], ["A", "A", "B"])
    assert shared_speakers(clips, np.array(["train", "unlabelled", "test"])) == []


def test_nobody_is_named():
    assert shared_speakers(table([3, 3]), np.array(["train", "test"])) == []
