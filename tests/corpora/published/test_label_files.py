"""What the readers of published corpora share: linked folders, names of clips and of speakers."""

import pytest

from valence_lib.corpora.labels import speaker_name
from valence_lib.corpora.published.known import recognise
from valence_lib.corpora.published.label_files import clip_name, recordings


def test_linked_folders_are_searched_once(tmp_path, make_wav):
    corpus, disk = tmp_path / "corpus", tmp_path / "disk"
    make_wav(corpus / "session1" / "a.wav")
    make_wav(disk / "b.wav")
    (disk / "back").symlink_to(corpus)
    for name, target in [
        ("session2", disk),
        ("session3", disk),
        ("copy", corpus / "session1"),
        ("up", tmp_path),
    ]:
        (corpus / name).symlink_to(target)
    (corpus / "loop").symlink_to("loop")

    assert recordings(corpus) == ["session1/a.wav", "session2/b.wav"]


@pytest.mark.parametrize("linked", ["part1", "session1/S01A"])
def test_a_corpus_whose_recordings_are_all_in_linked_folders(tmp_path, make_wav, linked):
    make_wav(tmp_path / "disk" / "a" / "MSP-PODCAST_0001_0001.wav")
    (tmp_path / "corpus" / "Audios" / linked).parent.mkdir(parents=True)
    (tmp_path / "corpus" / "Audios" / linked).symlink_to(tmp_path / "disk" / "a")

    found = recognise(tmp_path / "corpus")

    assert found is not None and found[0].name == "MSP-Podcast"


@pytest.mark.parametrize("file", ["A/b/Clip.1.wav", "clip.1.WAV", "clip.1", "A\\\\Clip.1.flac"])
def test_the_name_of_a_clip(file):
    assert clip_name(file) == "clip.1"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("41", "41"),
        ("41.0", "41"),
        ("1.5", "1.5"),
        (" Ann  B ", "Ann B"),
        ("Unknown", ""),
        ("N/A", ""),
        ("", ""),
    ],
)
def test_the_name_of_a_speaker(text, name):
    assert speaker_name(text) == name
