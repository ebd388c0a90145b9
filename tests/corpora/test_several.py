"""Several corpora as one: names within each corpus, a common scale, raters, and tested corpora."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from valence_lib.corpora.opening import open_corpus, parse_scales, split_names
from valence_lib.corpora.several import SeveralCorpora
from valence_lib.errors import CorpusError, SettingsError
from valence_lib.settings import Target


@pytest.fixture
def two(manifest_folder: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Two corpora with the same audio, speakers and sentences; the second has a scale of 1 to 7."""
    other = tmp_path / "other"
    other.mkdir()
    for folder, rows in (
        (manifest_folder, "audio/0.wav,2,4,A,s1,train\naudio/1.flac,3,3,B,s2,test\n"),
        (other, "audio/0.wav,7,5,A,s1,train\naudio/3.wav,2,,B,s2,test\naudio/5.wav,4,4,,,\n"),
    ):
        header = "file,valence_a1,valence_a2,speaker,sentence,subset\n"
        (folder / "labels.csv").write_text(header + rows)
    (other / "audio").symlink_to(manifest_folder / "audio")
    (other / "corpus.json").write_text('{"scale": [1, 7], "terms": "CC0"}')
    return manifest_folder, other


def test_names_are_those_within_each_corpus(two):
    corpus = open_corpus(f"{two[0]},{two[1]}")
    assert (corpus.name, len(corpus), len(corpus.parts)) == ("spoken + other", 5, 2)
    assert corpus.ids == (
        *("spoken/audio/0.wav", "spoken/audio/1.flac"),
        *("other/audio/0.wav", "other/audio/3.wav", "other/audio/5.wav"),
    )
    assert corpus.speakers() == ["spoken/A", "spoken/B", "other/A", "other/B", ""]
    assert [clip.speaker for clip in corpus] == corpus.speakers()
    assert [clip.labels["sentence"] for clip in corpus][:3] == ["spoken/s1", "spoken/s2", "other/s1"]
    assert [corpus.part_of(index) for index in range(5)] == ["spoken"] * 2 + ["other"] * 3
    assert [clip.subset for clip in corpus] == ["train", "test", "train", "test", ""]
    assert not corpus.names_speakers


def test_ratings_are_mapped_to_the_scale_of_the_first(two):
    corpus = open_corpus(f"{two[0]},{two[1]}")
    assert corpus.target == Target("valence", 1, 5)
    # 1 to 7 becomes 1 to 5: 6 is 1 + 5 / 6 * 4, and 4 is the middle of both.
    np.testing.assert_allclose(corpus.ratings(), [3, 3, 1 + 5 / 6 * 4, 1 + 1 / 6 * 4, 3])
    np.testing.assert_allclose([clip.rating for clip in corpus], corpus.ratings())
    lowest, highest = corpus.rating_bounds()
    np.testing.assert_allclose(lowest[[0, 2]], [2, 1 + 4 / 6 * 4])
    np.testing.assert_allclose(highest[[0, 2]], [4, 5])
    assert corpus.notes[1:] == ["The ratings of other, from 1 to 7, are mapped linearly to 1 to 5."]
    # In the other order, the first is the second.
    np.testing.assert_allclose(open_corpus(f"{two[1]},{two[0]}").ratings()[3:], [4, 4])


def test_raters_of_two_corpora_are_different_people(two):
    corpus = open_corpus(f"{two[0]},{two[1]}")
    assert corpus.rater_columns == ["rating_a1", "rating_a2", "rating_a3", "rating_a4"]
    assert corpus[0].by_rater == {"rating_a1": 2, "rating_a2": 4}
    assert corpus[2].by_rater == {"rating_a3": 5, "rating_a4": pytest.approx(1 + 4 / 6 * 4)}


def test_a_tested_corpus_is_tested_as_a_whole_and_the_others_are_not(two):
    corpus = open_corpus(two[0], test_corpus=str(two[1]))
    assert corpus.name == "spoken → other"
    assert [corpus.subset(index) for index in range(5)] == ["train", "", "test", "test", "test"]


def test_a_part_for_another_process_is_the_same_and_small(two):
    corpus = open_corpus(f"{two[0]},{two[1]}")
    for start, stop in ((0, 2), (1, 4), (3, 5)):
        part = pickle.loads(pickle.dumps(corpus.cut(start, stop)))
        expected = [corpus[index] for index in range(start, stop)]
        for clip, wanted in zip(part, expected, strict=True):
            np.testing.assert_array_equal(clip.waveform, wanted.waveform)
            np.testing.assert_equal(dict(clip.by_rater), dict(wanted.by_rater))
            found = (clip.id, clip.rating, clip.subset, clip.labels)
            assert found == (wanted.id, wanted.rating, wanted.subset, wanted.labels)


def test_corpora_of_one_name_are_numbered():
    corpus = SeveralCorpora([open_corpus("demo"), open_corpus("demo")], [])
    assert [part.name for part in corpus.parts] == ["demo", "demo-2"]
    assert corpus.about["synthetic"] and len(corpus) == 1080


def test_given_scales_go_before_those_that_a_corpus_states(two):
    assert open_corpus(two[1]).target == Target("valence", 1, 7)
    assert open_corpus(two[1], scale="0,10").target == Target("valence", 0, 10)
    assert open_corpus(two[1], scale="auto").target == Target("valence", 2, 7)
    parts = open_corpus(f"{two[0]},{two[1]}", scale="1,5/auto").parts
    assert [part.target.high for part in parts] == [5, 7]


def test_ranges_in_words():
    assert parse_scales("1,5", 2) == [(1, 5), (1, 5)]
    assert parse_scales(" -1 , 1.5 /auto", 2) == [(-1, 1.5), "auto"]
    assert parse_scales("", 1) == [""]
    with pytest.raises(SettingsError, match="was given for 3 corpora; expected one range, or 3"):
        parse_scales("1,5/1,7", 3)
    with pytest.raises(SettingsError, match="was given for 1 corpus; expected one range"):
        parse_scales("1,5/1,7", 1)
    for text in ("1", "1,2,3", "low,high", "1-5", "5,1", "3,3", "1,inf", "nan,5"):
        with pytest.raises(SettingsError, match="was given; expected two numbers as in 1,5"):
            parse_scales(text, 1)


def test_a_path_may_hold_a_comma(tmp_path: Path):
    (tmp_path / "a,b").mkdir()
    assert split_names("a,b", tmp_path) == ["a,b"]
    assert split_names("a,c", tmp_path) == ["a", "c"]


NO_SCALES = ("[1]", '"1,7"', "7", "[5, 1]", "[1, Infinity]", "[1, null]")


@pytest.mark.parametrize("content", [f'{{"scale": {scale}}}' for scale in NO_SCALES])
def test_a_scale_that_is_none(manifest_folder: Path, content: str):
    (manifest_folder / "corpus.json").write_text(content)
    with pytest.raises(CorpusError, match=r"has the scale .*; expected its two ends, as in \[1, 5\]"):
        open_corpus(manifest_folder)


def test_columns_may_be_stated_in_corpus_json(manifest_folder: Path):
    (manifest_folder / "labels.csv").write_text("file,EmoVal\naudio/0.wav,2\n")
    about = manifest_folder / "corpus.json"
    about.write_text('{"columns": "valence=EmoVal"}', encoding="utf-8-sig")  # as Windows programs write it
    assert open_corpus(manifest_folder)[0].rating == 2
    for columns in ('{"valence": "EmoVal"}', '"valenz=EmoVal"'):
        about.write_text(f'{{"columns": {columns}}}')
        with pytest.raises(CorpusError, match=r'corpus\.json has "columns" that cannot be used: .*valenc'):
            open_corpus(manifest_folder)


def test_course_pickles_have_no_other_target(course_folder: Path):
    with pytest.raises(CorpusError, match="rated for valence alone; TARGET=arousal was given"):
        open_corpus(course_folder, target="arousal")


def test_numbered_names_do_not_meet_other_names(manifest_folder: Path, tmp_path: Path):
    places = [tmp_path / "1" / "a", tmp_path / "2" / "a", tmp_path / "3" / "a-2"]
    for place in places:
        place.mkdir(parents=True)
        (place / "labels.csv").write_text("file,valence\naudio/0.wav,2\n")
        (place / "audio").symlink_to(manifest_folder / "audio")
    corpus = open_corpus(",".join(map(str, places)))
    assert [part.name for part in corpus.parts] == ["a", "a-3", "a-2"]
    assert len(set(corpus.ids)) == 3


def test_a_range_in_place_of_a_stated_scale_is_noted(two):
    note = "RANGE gives the scale 1 to 5, in place of 1 to 7, which the corpus states itself."
    corpus = open_corpus(f"{two[0]},{two[1]}", scale="1,7")
    assert not any("RANGE" in text for text in corpus.notes)
    assert (
        f"other: {note.replace('1 to 5', '0 to 9')}" in open_corpus(f"{two[0]},{two[1]}", scale="0,9").notes
    )
    assert open_corpus(two[1], scale="1,5").notes[-1] == note


def test_a_corpus_that_is_given_twice(two):
    table = two[0] / "labels.csv"
    for other in (two[0], two[1].parent / "other" / ".." / two[0].name, table):
        with pytest.raises(CorpusError, match=r"the same corpus was given twice \("):
            open_corpus(two[0], test_corpus=str(other))


def test_a_fault_of_one_of_several_names_it(two):
    (two[1] / "labels.csv").write_text("file,mood\naudio/0.wav,2\n")
    with pytest.raises(CorpusError, match=r"^corpus '.*other': the table 'labels\.csv' has the columns"):
        open_corpus(f"{two[0]},{two[1]}")


@pytest.mark.parametrize("text", ["demo,", ",demo", "demo,,demo", " "])
def test_a_comma_without_a_name(text: str):
    with pytest.raises(CorpusError, match="of which one has no name; expected paths, and a comma between"):
        split_names(text)


def test_paths_that_cannot_be_followed(tmp_path: Path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for where in ("~nobody-of-this-name/x", str(tmp_path / "loop"), "x" * 300, "demo," + "x" * 300):
        with pytest.raises(CorpusError, match="there is no corpus at"):
            open_corpus(where)
    with pytest.raises(CorpusError, match="no corpus was given; expected 'demo'"):
        open_corpus("")


def test_names_of_columns_without_a_table_to_use_them(two, course_folder: Path):
    with pytest.raises(CorpusError, match=r"COLUMNS=valence=x was given for .*, read as a folder of pickles"):
        open_corpus(course_folder, columns="valence=x")
    assert open_corpus(f"{two[0]},{course_folder}", columns="sentence=")


def test_sexes_of_several_corpora_have_one_spelling(two):
    for folder, sex in zip(two, ("female", "F"), strict=True):
        (folder / "labels.csv").write_text(f"file,valence,sex\naudio/0.wav,2,{sex}\n")
    assert [clip.labels["sex"] for clip in open_corpus(f"{two[0]},{two[1]}")] == ["F", "F"]
