"""EmoDB in its first form, in miniature: the labels are in the names of the files."""

import pytest

from valence_lib.corpora.published.emodb import CORPUS

NAMES = ["03a01Fa", "03a01Wa", "08b09Lb", "16a05Tb"]


def build(folder, make_wav):
    """Four clips of three speakers."""
    for name in NAMES:
        make_wav(folder / "wav" / f"{name}.wav")
    return folder


@pytest.fixture
def folder(tmp_path, make_wav):
    return build(tmp_path / "EmoDB", make_wav)


def test_labels_from_the_names(folder):
    labels = CORPUS.read(folder, "")

    assert [row.file for row in labels.rows] == [f"wav/{name}.wav" for name in NAMES]
    assert labels.rows[0].labels == {
        **{"speaker": "03", "sex": "M", "age": "31", "language": "de", "sentence": "a01"},
        **{"emotion": "happiness", "version": "a"},
    }
    assert [row.labels["emotion"] for row in labels.rows] == ["happiness", "anger", "boredom", "sadness"]
    assert [row.labels["sex"] for row in labels.rows] == ["M", "M", "F", "F"]
    assert {row.rating for row in labels.rows} == {None}
    assert labels.notes == []


def test_other_recordings_are_left_out(folder, make_wav):
    make_wav(folder / "wav" / "03a01Xa.wav")
    make_wav(folder / "copy" / "03a01Fa.wav")
    make_wav(folder / "wav" / "noisy" / "03a01Fa.wav")
    make_wav(folder / "wav" / "._03a01Fa.wav")

    labels = CORPUS.read(folder, "")

    assert len(labels.rows) == 4
    assert labels.notes == [
        "3 recordings are left out: they are not in wav/ itself, or their names are not of the published "
        "form, such as 'copy/03a01Fa.wav'."
    ]


def test_suffixes_and_a_folder_in_capitals(tmp_path, make_wav):
    for name in NAMES:
        make_wav(tmp_path / "Wav" / f"{name}.WAV")

    assert CORPUS.is_in(tmp_path)
    assert [row.labels["speaker"] for row in CORPUS.read(tmp_path, "").rows] == ["03", "03", "08", "16"]
