"""ESCorpus-PE as published, in miniature: the ratings are in the names of the files."""

import pytest

from valence_lib.corpora.published.escorpus_pe import CORPUS

NAMES = [
    "Audio7/Audio7_36-05-04-03.wav",
    "Audio7/Audio7_37-01-02-02.wav",
    "Audio12/Audio12_1-3-3-3.wav",
    "Audio12/Audio12_2-03-09-01.wav",
    "Audio12/Audio12_3-02-04-.wav",
]


def build(folder, make_wav):
    """Five clips of two recordings, of which one name is damaged and one rating lies outside the scale."""
    for name in NAMES:
        make_wav(folder / name)
    return folder


@pytest.fixture
def folder(tmp_path, make_wav):
    return build(tmp_path / "Corpus_Globalv1", make_wav)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("valence", [3.0, 3.0, None, 5.0, 1.0]),
        ("arousal", [3.0, None, None, 4.0, 2.0]),
        ("dominance", [3.0, 1.0, None, 3.0, 2.0]),
        ("", [None] * 5),
    ],
)
def test_ratings_from_the_names(folder, target, expected):
    rows = CORPUS.read(folder, target).rows

    assert [row.file for row in rows] == sorted(NAMES)
    assert [row.rating for row in rows] == expected
    assert all(row.by_rater == {} for row in rows)
    # A clip without a rating is unusable where ratings are wanted.
    assert [row.problem is None for row in rows] == [value is not None or not target for value in expected]


def test_what_is_wrong_with_a_name(folder):
    outside, damaged = (CORPUS.read(folder, "arousal").rows[n].problem for n in (1, 2))

    assert outside.reason == "label outside its scale"
    assert str(outside) == (
        "the arousal in the name 'Audio12_2-03-09-01' is '09'; expected a number from 1 to 5."
    )
    assert damaged.reason == "label not a number"
    assert "'Audio12_3-02-04-' does not end in three ratings" in str(damaged)


def test_speakers_are_unknown_and_recordings_are_labelled(folder, make_wav):
    make_wav(folder / "Audio7" / "._Audio7_36-05-04-03.wav")

    labels = CORPUS.read(folder, "valence")

    assert len(labels.rows) == 5
    assert {row.labels["speaker"] for row in labels.rows} == {""}
    assert [row.labels["recording"] for row in labels.rows] == ["12", "12", "12", "7", "7"]
    assert {row.labels["language"] for row in labels.rows} == {"es"}
    assert "names of the speakers are not published" in labels.notes[0]


def test_ravdess_is_not_taken_for_it(tmp_path, make_wav):
    make_wav(tmp_path / "Actor_01" / "03-01-06-01-02-01-01.wav")
    make_wav(tmp_path / "Audio" / "03-01-06-01-02-01-01.wav")

    assert not any(list(tmp_path.glob(mark)) for mark in CORPUS.marks)


def test_processed_copies_are_left_out(folder, make_wav):
    make_wav(folder / "Audio7" / "denoised" / "Audio7_36-05-04-03.wav")
    make_wav(folder / "Audio7_denoised" / "Audio7_37-01-02-02.wav")

    labels = CORPUS.read(folder, "valence")

    assert [row.file for row in labels.rows] == sorted(NAMES)
    assert labels.notes[1:] == [
        "2 recordings are left out, because others have their names, such as "
        "'Audio7/denoised/Audio7_36-05-04-03.wav'."
    ]
