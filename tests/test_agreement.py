"""Agreement of raters: against hand computation, published figures and simulation."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from valence_lib.agreement import as_raters, cronbach_alpha, icc_2k, raters

EMOTALE = Path(__file__).parents[2] / "shared" / "data" / "emotale" / "labels.csv"

# Six clips by four raters: Shrout and Fleiss (1979), table 2.
PUBLISHED = np.array(
    [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]], float
)


def test_the_intraclass_correlation_is_the_published_one():
    assert icc_2k(PUBLISHED) == pytest.approx(0.62, abs=0.005)
    # Of single raters the same table has 0.29, from which Spearman and Brown's formula leads to that of four.
    assert pytest.approx(icc_2k(PUBLISHED), abs=0.005) == 4 * 0.29 / (1 + 3 * 0.29)


def test_alpha_by_hand():
    ratings = np.array([[1.0, 2.0], [2.0, 2.0], [3.0, 5.0]])
    # Variances 1 and 3, of the sums 3, 4 and 8 it is 7.
    assert cronbach_alpha(ratings) == pytest.approx(2 / 1 * (1 - 4 / 7))


def test_raters_who_agree_are_wholly_reliable_and_a_constant_bias_counts_for_icc_alone():
    ratings = np.arange(10.0)[:, None] + np.array([0.0, 0.0, 0.0])
    assert cronbach_alpha(ratings) == pytest.approx(1)
    assert icc_2k(ratings) == pytest.approx(1)
    biased = ratings + np.array([0.0, 2.0, 4.0])
    assert cronbach_alpha(biased) == pytest.approx(1)
    assert icc_2k(biased) < 0.95


def test_nothing_that_varies_is_not_reliable():
    assert cronbach_alpha(np.ones((4, 3))) == icc_2k(np.ones((4, 3))) == 0


def test_emotale_has_its_published_alpha():
    if not EMOTALE.is_file():
        pytest.skip("../shared/data/emotale is not there")
    found = raters(pd.read_csv(EMOTALE))
    assert found["alpha"] == pytest.approx(0.887, abs=0.0005)
    assert found["noise_variance"] == pytest.approx(0.080, abs=0.0005)


def test_raters_by_hand():
    clips = pd.DataFrame(
        {
            "id": list("abcd"),
            "valence_a1": [1.0, 2.0, 3.0, 5.0],
            "valence_a2": [2.0, 2.0, 5.0, np.nan],
            "valence_a3": [3.0, 2.0, 4.0, 1.0],
            "valence": [2.0, 2.0, 4.0, 3.0],
            "valence_average": [9.0] * 4,
        }
    )
    found = raters(clips)
    assert (found["raters"], found["clips"]) == (3, 4)
    # a1 (1, 2, 3, 5) against (2.5, 2, 4.5, 1); a2 (2, 2, 5) against (2, 2, 3.5), as d has no second rating;
    # a3 (3, 2, 4, 1) against (1.5, 2, 4, 5).
    by_rater = {name: scores["mse"] for name, scores in found["by_rater"].items()}
    assert by_rater == pytest.approx(
        {"valence_a1": 20.5 / 4, "valence_a2": 2.25 / 3, "valence_a3": 18.25 / 4}
    )
    assert found["mse"] == pytest.approx((20.5 / 4 + 2.25 / 3 + 18.25 / 4) / 3)
    # Lin's for a2: covariance 1, variances 2 and 1/2, means 3 and 2.5.
    assert found["by_rater"]["valence_a2"]["ccc"] == pytest.approx(2 / (2 + 1 / 2 + 1 / 4))
    values = [scores["ccc"] for scores in found["by_rater"].values()]
    assert found["ccc"] == pytest.approx(np.mean(values))
    # Sample variances within the clips: 1, 0 and 1 of three ratings, 8 of two.
    assert found["noise_variance"] == pytest.approx((1 / 3 + 0 + 1 / 3 + 8 / 2) / 4)


def test_sparse_raters_by_hand():
    clips = pd.DataFrame(
        {
            "id": list("abcdefg"),
            "valence_a1": [1.0, 3.0, np.nan, 4.0, 2.0, np.nan, 5.0],
            "valence_a2": [2.0, np.nan, 3.0, 4.0, np.nan, 1.0, np.nan],
            "valence_a3": [np.nan, 5.0, 2.0, np.nan, 4.0, 2.0, np.nan],
        }
    )
    found = raters(clips)
    # Each clip by two of three, and g by one alone, who agrees with nobody.
    assert (found["raters"], found["clips"]) == (3, 6)
    # a1 (1, 3, 4, 2) against (2, 5, 4, 4); a2 (2, 3, 4, 1) against (1, 2, 4, 2); a3 (5, 2, 4, 2) against (3, 3, 2, 1).
    by_rater = {name: scores["mse"] for name, scores in found["by_rater"].items()}
    assert by_rater == pytest.approx({"valence_a1": 9 / 4, "valence_a2": 3 / 4, "valence_a3": 10 / 4})
    assert found["mse"] == pytest.approx(22 / 12)
    # Lin's for a1: covariance 3.5/4, variances 5/4 and 4.75/4, means 2.5 and 3.75.
    assert found["by_rater"]["valence_a1"]["ccc"] == pytest.approx(1.75 / (5 / 4 + 4.75 / 4 + 1.25**2))
    # Half the squared difference within each clip (1, 4, 1, 0, 4, 1), halved again for the mean of two.
    assert found["noise_variance"] == pytest.approx(11 / 2 / 6 / 2)


def test_a_rater_who_is_always_alone_counts_for_nothing():
    clips = pd.DataFrame(
        {
            "valence_a1": [1.0, 3.0, np.nan],
            "valence_a2": [2.0, 4.0, np.nan],
            "valence_a3": [np.nan, np.nan, 5.0],
        }
    )
    found = raters(clips)
    assert (found["raters"], found["clips"], list(found["by_rater"])) == (2, 2, ["valence_a1", "valence_a2"])
    assert found["mse"] == 1.0


@pytest.mark.parametrize("given", [2, 3, 4])
def test_the_noise_variance_holds_also_where_raters_left_clips_out(given):
    generator = np.random.default_rng(1)
    true = generator.uniform(1, 5, 20000)
    ratings = true[:, None] + generator.normal(0, 0.6, (20000, 4))
    left_out = generator.permuted(np.tile(np.arange(4) >= given, (20000, 1)), axis=1)
    ratings[left_out] = np.nan
    clips = pd.DataFrame(ratings, columns=[f"valence_a{rater}" for rater in range(1, 5)])
    assert raters(clips)["noise_variance"] == pytest.approx(0.36 / given, rel=0.03)


def test_the_noise_variance_estimates_the_error_of_the_mean_rating():
    generator = np.random.default_rng(0)
    true = generator.uniform(1, 5, 20000)
    ratings = true[:, None] + generator.normal(0, 0.6, (20000, 3))
    clips = pd.DataFrame(ratings, columns=["valence_a1", "valence_a2", "valence_a3"])
    error = np.mean((ratings.mean(axis=1) - true) ** 2)
    assert raters(clips)["noise_variance"] == pytest.approx(error, rel=0.03)


@pytest.mark.parametrize(
    "clips",
    [
        pd.DataFrame({"valence": [1.0, 2.0]}),
        pd.DataFrame({"valence_a1": [1.0, 2.0]}),
        pd.DataFrame({"valence_a1": [1.0, np.nan], "valence_a2": [np.nan, 2.0]}),
    ],
)
def test_no_ceiling_without_two_raters_of_one_clip(clips):
    assert raters(clips) is None


RATED = pd.DataFrame(
    {
        "id": list("abcd"),
        "speaker": ["A", "A", "B", "C"],
        "valence_a1": [1.0, 2.0, 3.0, 5.0],
        "valence_a2": [2.0, 2.0, 5.0, np.nan],
        "valence_a3": [3.0, 2.0, 4.0, 1.0],
    }
)


def test_a_model_is_judged_as_a_rater_by_hand():
    found = as_raters(RATED, {"model": [np.array([2.0, 2.0, 4.0, 3.0])]})["model"]
    # Against the means of the other two: of a1 (2.5, 2, 4.5, 1), of a2 (2, 2, 3.5), of a3 (1.5, 2, 4, 5).
    by_rater = [(0.25 + 0 + 0.25 + 4) / 4, (0 + 0 + 0.25) / 3, (0.25 + 0 + 0 + 4) / 4]
    assert found["mse"] == pytest.approx(np.mean(by_rater))
    assert found["rater"] == {name: raters(RATED)[name] for name in ("mse", "ccc")}
    # In pairs over all eleven ratings, less the raters' own errors.
    own = (2.25 + 0 + 2.25 + 16) + (0 + 0 + 2.25) + (2.25 + 0 + 0 + 16)
    assert found["against"]["difference"] == pytest.approx((4.5 + 0.25 + 4.25 - own) / 11)
    assert found["against"]["low"] < found["against"]["difference"] < found["against"]["high"]


def test_the_mean_of_the_others_itself_beats_every_rater_and_seeds_are_averaged():
    near, far = np.array([2.0, 2.0, 4.0, 3.0]), np.array([5.0, 5.0, 1.0, 1.0])
    found = as_raters(RATED, {"both": [near, far], "one": [near], "other": [far]})
    both, one, other = (found[name]["mse"] for name in ("both", "one", "other"))
    assert both == pytest.approx((one + other) / 2)
    assert as_raters(RATED.drop(columns=["valence_a2", "valence_a3"]), {"one": [near]}) == {}
