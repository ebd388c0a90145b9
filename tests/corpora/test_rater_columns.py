"""Ratings of named raters as columns, also of a crowd."""

import math

import numpy as np

from valence_lib.corpora.rater_columns import rater_columns


def test_each_rater_has_a_column_in_the_order_of_the_names():
    found, note = rater_columns([{"r10": 1.0, "r2": 3.0}, {"r2": 2.0}], ["x", "y"], {"r2", "r10"})
    assert found[0] == {"rating_a1": 3, "rating_a2": 1}
    assert found[1]["rating_a1"] == 2 and math.isnan(found[1]["rating_a2"])
    assert note == "The raters are a1 r2, a2 r10."
    assert rater_columns([{"a1": 1.0, "a2": 3.0}], ["x"], {"a2", "a1"})[1] == ""
    assert rater_columns([{}], ["x"], set()) == ([{}], "")


def test_ratings_of_a_crowd_keep_their_clip_and_their_values():
    ratings = [{f"w{(3 * clip + n) % 200}": float(n + 1) for n in range(5)} for clip in range(300)]
    ratings[7]["w999"] = math.nan
    ids = [f"clip {number}" for number in range(300)]
    found, note = rater_columns(ratings, ids, {name for clip in ratings for name in clip})
    assert "There are 201 raters, who are not distinguished" in note
    table = np.array([list(clip.values()) for clip in found])
    assert table.shape == (300, 5) and list(found[0]) == [f"rating_a{n}" for n in range(1, 6)]
    np.testing.assert_array_equal(np.sort(table, axis=1), np.tile(np.arange(1.0, 6), (300, 1)))
    # Each column is a random draw: the mean of 300 draws of 1 to 5 has a standard error of 0.08.
    assert np.all(np.abs(table.mean(axis=0) - 3) < 0.4)
    assert rater_columns(ratings, ids, {name for clip in ratings for name in clip})[0] == found
