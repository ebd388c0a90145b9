"""A new published corpus is one module and one line, as ARCHITECTURE.md shows; the test runs its code."""

import re
from pathlib import Path

import numpy as np
import pytest
import soundfile

from valence_lib.corpora.labels import LabelRow, Labels
from valence_lib.corpora.opening import open_corpus
from valence_lib.corpora.published import known
from valence_lib.corpora.published.entry import PublishedCorpus
from valence_lib.corpora.published.label_files import mean_rating, parse_ratings, read_records
from valence_lib.errors import CorpusError
from valence_lib.preprocess.inspection import check_corpus, check_labels, inspect_corpus
from valence_lib.settings import CorpusSettings, FeatureSettings, Target

PAGE = Path(__file__).parents[2] / "ARCHITECTURE.md"
IMPORTED = (Path, LabelRow, Labels, PublishedCorpus, mean_rating, parse_ratings, read_records)
N_CLIPS, N_SPEAKERS = 24, 6


@pytest.fixture(scope="module")
def code():
    section = PAGE.read_text(encoding="utf-8").split("\n## Add a corpus\n")[1].split("\n## ")[0]
    (block,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    return block


@pytest.fixture(autouse=True)
def new_corpus(code, monkeypatch):
    """The module, and its line."""
    module = {found.__name__: found for found in IMPORTED}
    exec(compile(code, PAGE.name, "exec"), module)
    monkeypatch.setattr(known, "PUBLISHED", (*known.PUBLISHED, module["CORPUS"]))


@pytest.fixture
def folder(tmp_path, voice):
    """The corpus as its authors would publish it: Ann rates 0, 1, ..., 9, 0, ..., and Bo one point more."""
    lines = ["clip,speaker,ann,bo"]
    (tmp_path / "toy-1.0" / "wav").mkdir(parents=True)
    for number in range(N_CLIPS):
        name = f"{number:03d}"
        soundfile.write(tmp_path / "toy-1.0" / "wav" / f"{name}.wav", voice(number, 16000), 16000)
        lines.append(f"{name},S{number % N_SPEAKERS},{number % 10},{number % 10 + 1}")
    (tmp_path / "toy-1.0" / "ratings.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "toy-1.0"


def test_a_folder_is_recognised_and_read(folder):
    corpus = open_corpus(folder)

    assert (corpus.name, corpus.target, len(corpus)) == ("Toy", Target("valence", 0, 10), N_CLIPS)
    assert set(corpus.speakers()) == {f"S{number}" for number in range(N_SPEAKERS)}
    np.testing.assert_array_equal(corpus.ratings(), [number % 10 + 0.5 for number in range(N_CLIPS)])
    clip = corpus[13]
    assert (clip.id, clip.rating, clip.labels) == ("wav/013.wav", 3.5, {"speaker": "S1"})
    assert clip.by_rater == {"rating_a1": 3.0, "rating_a2": 4.0}
    assert corpus.notes == ["The raters are a1 ann, a2 bo."]
    assert corpus.files()[0] == folder / "ratings.csv"


def test_check_describes_it(folder):
    text = check_corpus(folder)
    for line in (
        "corpus     Toy: 24 clips, 24 taken, 0 in quarantine",
        "speakers   6",
        "raters     2, 2.0 ratings a clip",
        "terms      CC0 1.0",
        "citation   Toy (2026).",
        "source     https://example.org/toy",
    ):
        assert line in text.splitlines()
    assert "0.5 to 9.5 on a scale of 0 to 10" in text


def test_it_can_be_split_by_speaker_and_joined_with_another_corpus(folder):
    check_labels(open_corpus(folder), CorpusSettings(), protocol="cv", n_folds=3)
    joined = open_corpus(f"{folder},demo")
    check_labels(joined, CorpusSettings(), protocol="corpora")
    assert ([part.name for part in joined.parts], joined.target.high) == (["Toy", "demo"], 10)


def test_a_bad_rating_makes_its_own_clip_unusable(folder):
    table = folder / "ratings.csv"
    text = table.read_text().replace("004,S4,4,5", "004,S4,4,50").replace("007,S1,7,8", "007,S1,,8")
    table.write_text(text)
    inspection = inspect_corpus(open_corpus(folder), CorpusSettings(), FeatureSettings(), progress=False)

    assert list(inspection.quarantine["id"]) == ["wav/004.wav"]
    assert list(inspection.quarantine["reason"]) == ["label outside its scale"]
    assert "bo in line 6 of 'ratings.csv' is '50'" in inspection.quarantine["message"][0]
    missing = inspection.clips.set_index("id").loc["wav/007.wav"]
    assert missing["rating"] == missing["rating_a2"] == 8
    assert np.isnan(missing["rating_a1"])


def test_what_it_lacks_is_refused(folder):
    with pytest.raises(CorpusError, match=r"Toy has no ratings of arousal; expected TARGET=valence\."):
        open_corpus(folder, target="arousal")
    table = folder / "ratings.csv"
    table.write_text(table.read_text().replace("speaker", "voice"))
    with pytest.raises(CorpusError, match="speaker is absent"):
        open_corpus(folder)
