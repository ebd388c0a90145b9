"""Agreement of raters: against hand computation, published figures and simulation."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from valence_lib.evaluation.raters import as_raters, cronbach_alpha, icc_2k, rater_disagreement, raters

EMOTALE = Path(__file__).parents[3] / "shared" / "data" / "emotale" / "labels.csv"

# Six clips by four raters: Shrout and Fleiss (1979), table 2.
PUBLISHED = np.array(
    [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]], float
)
RATED = pd.DataFrame(
    {
        "id": list("abcde"),
        "speaker": ["A", "A", "B", "C", "C"],
        "rating_a1": [1.0, 2.0, 3.0, 5.0, 4.0],
        "rating_a2": [2.0, 2.0, 5.0, np.nan, np.nan],
        "rating_a3": [3.0, 2.0, 4.0, 1.0, np.nan],
    }
)


def test_the_intraclass_correlation_is_the_published_one():
    assert icc_2k(PUBLISHED) == pytest.approx(0.62, abs=0.005)


def test_alpha_by_hand():
    ratings = np.array([[1.0, 2.0], [2.0, 2.0], [3.0, 5.0]])
    # Variances 1 and 3, of the sums 3, 4 and 8 it is 7.
    assert cronbach_alpha(ratings) == pytest.approx(2 / 1 * (1 - 4 / 7))


def test_constant_ratings_have_no_reliability():
    assert cronbach_alpha(np.ones((4, 3))) == icc_2k(np.ones((4, 3))) == 0


def test_emotale_has_its_published_alpha():
    if not EMOTALE.is_file():
        pytest.skip("../shared/data/emotale is missing")
    columns = {f"valence_a{number}": f"rating_a{number}" for number in (1, 2, 3)}
    found = raters(pd.read_csv(EMOTALE).rename(columns=columns))
    assert found["alpha"] == pytest.approx(0.887, abs=0.0005)
    assert found["noise_variance"] == pytest.approx(0.080, abs=0.0005)


def test_raters_by_hand():
    found = raters(RATED.assign(rating=3.0, rating_average=9.0))
    assert (found["raters"], found["clips"]) == (3, 4)
    # a1 (1, 2, 3, 5) against (2.5, 2, 4.5, 1); a2 (2, 2, 5) against (2, 2, 3.5), as d has no second rating;
    # a3 (3, 2, 4, 1) against (1.5, 2, 4, 5).
    by_rater = {name: scores["mse"] for name, scores in found["by_rater"].items()}
    assert by_rater == pytest.approx({"rating_a1": 20.5 / 4, "rating_a2": 2.25 / 3, "rating_a3": 18.25 / 4})
    assert found["mse"] == pytest.approx((20.5 / 4 + 2.25 / 3 + 18.25 / 4) / 3)
    # Lin's for a2: covariance 1, variances 2 and 1/2, means 3 and 2.5.
    assert found["by_rater"]["rating_a2"]["ccc"] == pytest.approx(2 / (2 + 1 / 2 + 1 / 4))
    values = [scores["ccc"] for scores in found["by_rater"].values()]
    assert found["ccc"] == pytest.approx(np.mean(values))
    # Sample variances within the clips: 1, 0 and 1 of three ratings, 8 of two.
    assert found["noise_variance"] == pytest.approx((1 / 3 + 0 + 1 / 3 + 8 / 2) / 4)


@pytest.mark.parametrize(
    "clips",
    [
        pd.DataFrame({"rating": [1.0, 2.0]}),
        pd.DataFrame({"rating_a1": [1.0, 2.0]}),
        pd.DataFrame({"rating_a1": [1.0, np.nan], "rating_a2": [np.nan, 2.0]}),
    ],
)
def test_no_ceiling_without_two_raters_of_one_clip(clips):
    assert raters(clips) is None


def test_raters_disagree_by_their_standard_deviation():
    table = pd.DataFrame({"rating_a1": [1, 2, 3], "rating_a2": [3, 2, np.nan], "rating_a3": [2, 2, np.nan]})
    np.testing.assert_allclose(rater_disagreement(table), [1, 0, np.nan])
    assert np.isnan(rater_disagreement(pd.DataFrame({"rating": [1.0]}))).all()


def test_a_model_is_judged_as_a_rater_by_hand():
    found = as_raters(RATED, {"model": [np.array([2.0, 2.0, 4.0, 3.0, 9.0])]})["model"]
    # Against the means of the other two: of a1 (2.5, 2, 4.5, 1), of a2 (2, 2, 3.5), of a3 (1.5, 2, 4, 5).
    by_rater = [(0.25 + 0 + 0.25 + 4) / 4, (0 + 0 + 0.25) / 3, (0.25 + 0 + 0 + 4) / 4]
    assert found["mse"] == pytest.approx(np.mean(by_rater))
    assert found["rater"] == {name: raters(RATED)[name] for name in ("mse", "ccc")}
    # In pairs over all eleven ratings, less the raters' own errors.
    own = (2.25 + 0 + 2.25 + 16) + (0 + 0 + 2.25) + (2.25 + 0 + 0 + 16)
    assert found["against"]["difference"] == pytest.approx((4.5 + 0.25 + 4.25 - own) / 11)
    assert found["against"]["low"] < found["against"]["difference"] < found["against"]["high"]


def test_scores_are_averaged_over_seeds_and_need_two_raters():
    near, far = np.array([2.0, 2.0, 4.0, 3.0, 3.0]), np.array([5.0, 5.0, 1.0, 1.0, 1.0])
    found = as_raters(RATED, {"both": [near, far], "one": [near], "other": [far]})
    both, one, other = (found[name]["mse"] for name in ("both", "one", "other"))
    assert both == pytest.approx((one + other) / 2)
    assert as_raters(RATED.drop(columns=["rating_a2", "rating_a3"]), {"one": [near]}) == {}
