"""Every published corpus is recognised in its own form, and stated by check and by the README."""

import builtins
import importlib
import io
from pathlib import Path

import numpy as np
import pytest

from valence_lib.__main__ import main
from valence_lib.corpora.opening import open_corpus
from valence_lib.corpora.published.known import PUBLISHED, incomplete
from valence_lib.errors import CorpusError
from valence_lib.preprocess.inspection import check_corpus
from valence_lib.settings import Target
from valence_lib.workflow import build
from valence_lib.workflow import request as request_module

ROOT = Path(__file__).parents[3]
# Of each miniature: the named speakers, the clips of unknown ones, the ends of the scale, the raters, and the
# clips of each official subset.
EXPECTED = {
    "MSP-Podcast": (7, 1, (1, 7), 4, {"train": 5, "validation": 2, "test": 2}),
    "IEMOCAP": (8, 0, (1, 5), 3, {}),
    "MSP-IMPROV": (4, 0, (1, 5), 3, {}),
    "EmoTale": (2, 0, (1, 5), 3, {}),
    "Quechua Collao": (6, 1, (1, 5), 4, {}),
    "ESCorpus-PE": (0, 5, (1, 5), 0, {}),
    "CREMA-D": (3, 0, None, 0, {}),
    "RAVDESS": (2, 0, None, 0, {}),
    "nEMO": (2, 0, None, 0, {}),
    "EmoDB": (3, 0, None, 0, {}),
}
LABELS_IN_NAMES = {"ESCorpus-PE", "RAVDESS", "EmoDB"}
RATED = [entry for entry in PUBLISHED if entry.scales]
UNRATED = [entry for entry in PUBLISHED if not entry.scales]


def named(entries):
    return pytest.mark.parametrize("entry", entries, ids=[entry.name for entry in entries])


@pytest.fixture
def miniature(entry, tmp_path, make_wav):
    """The folder that the test of the corpus's module builds, under a name that states nothing."""
    module = importlib.import_module(f"test_{entry.read.__module__.rpartition('.')[2]}")
    module.build(tmp_path / "folder", make_wav)
    return tmp_path / "folder"


def test_each_has_an_expectation():
    assert [entry.name for entry in PUBLISHED] == list(EXPECTED)


@named(PUBLISHED)
def test_an_entry_states_what_users_have_to_know(entry):
    assert entry.content and entry.terms and entry.citation and entry.marks
    assert entry.source.startswith("http")
    assert all(low < high for low, high in entry.scales.values())
    assert not {"activation", "pleasure"} & set(entry.scales)  # one name a dimension


@named(PUBLISHED)
def test_a_folder_is_recognised_and_read(entry, miniature):
    corpus = open_corpus(miniature)
    speakers, unknown, scale, raters, subsets = EXPECTED[entry.name]

    assert corpus.name == entry.name
    named_speakers = [name for name in corpus.speakers() if name]
    assert (len(set(named_speakers)), len(corpus) - len(named_speakers)) == (speakers, unknown)
    assert corpus.rater_columns == [f"rating_a{number}" for number in range(1, raters + 1)]
    found = [corpus.subset(index) for index in range(len(corpus))]
    assert {name: found.count(name) for name in set(found) - {""}} == subsets
    if scale:
        assert corpus.target == Target("valence", *scale)
        assert not corpus.unrated
        assert np.isfinite(corpus.ratings()).any()
    else:
        assert np.isnan(corpus.ratings()).all()
    assert {key: corpus.about[key] for key in ("terms", "citation", "source", "description")} == {
        **{"terms": entry.terms, "citation": entry.citation},
        **{"source": entry.source, "description": entry.content},
    }


@named(PUBLISHED)
def test_check_names_it(entry, miniature):
    lines = check_corpus(miniature).splitlines()

    assert lines[0].startswith(f"corpus     {entry.name}: ")
    assert {f"terms      {entry.terms}", f"citation   {entry.citation}", f"source     {entry.source}"} <= set(
        lines
    )
    speakers, _, scale, raters, _ = EXPECTED[entry.name]
    stated = f"on a scale of {scale[0]} to {scale[1]}" if scale else "no ratings"
    assert any(line.startswith("valence    ") and stated in line for line in lines)
    assert any(line.startswith("speakers   ") for line in lines)
    assert speakers or "speakers   not named: training and test may share voices" in lines
    assert any(line.startswith(f"raters     {raters}, ") for line in lines) == bool(raters)


@named(RATED)
def test_each_of_its_dimensions_is_a_target(entry, miniature):
    assert {"valence", "arousal", "dominance"} == set(entry.scales)
    for dimension, scale in entry.scales.items():
        corpus = open_corpus(miniature, target=dimension)
        assert corpus.target == Target(dimension, *scale)
        assert np.isfinite(corpus.ratings()).any()
    with pytest.raises(
        CorpusError, match=f"{entry.name} has no ratings of interest; expected TARGET=valence"
    ):
        open_corpus(miniature, target="interest")


@named(PUBLISHED)
def test_changed_labels_make_a_report_stale(entry, miniature, monkeypatch):
    # Of all files of a corpus, `Corpus.files` decides which of them a report depends on.
    opened = set()

    def noting(file, *arguments, _open=io.open, **options):
        if isinstance(file, str | Path):
            opened.add(Path(file))
        return _open(file, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(io, "open", noting)
        patch.setattr(builtins, "open", noting)
        corpus = open_corpus(miniature)
    read = {path for path in opened if path.is_relative_to(miniature) and path.is_file()}
    assert bool(read) == (entry.name not in LABELS_IN_NAMES)
    assert read <= set(corpus.files())


@named(UNRATED)
def test_a_corpus_without_ratings_states_what_it_can_be_used_for(entry, miniature):
    expected = (
        f"{entry.name} has no ratings of valence, which a report needs. `valence check` describes its clips, "
        "and `valence predict` predicts them with a run that was trained on another corpus."
    )
    assert open_corpus(miniature).unrated == expected
    assert f"note       {expected}" in check_corpus(miniature).splitlines()
    with pytest.raises(CorpusError, match="has no ratings of valence, which a report needs"):
        open_corpus(miniature, test_corpus="demo")


@named(UNRATED[:1])
def test_a_report_refuses_a_corpus_without_ratings_before_any_job(
    entry, miniature, tmp_path, monkeypatch, capsys
):
    root = tmp_path / "project"
    root.mkdir()
    for name in ("notebooks", "valence_lib", "workflow", "requirements.lock"):
        (root / name).symlink_to(ROOT / name)
    for module in (build, request_module):
        monkeypatch.setattr(module, "project_root", lambda: root)
    monkeypatch.setattr(build, "_run", lambda *_: pytest.fail("a job was started"))

    assert main(["report", "--corpus", str(miniature), "--name", "refused"]) == 1
    assert (
        f"valence: {entry.name} has no ratings of valence, which a report needs." in capsys.readouterr().err
    )
    assert not (root / "reports" / "refused" / "provenance").exists()


@named(PUBLISHED)
def test_the_only_folder_in_a_folder_is_found(entry, miniature):
    download = miniature.parent / "download"
    download.mkdir()
    miniature.rename(download / "release-1.0")
    (download / ".DS_Store").touch()
    (download / "release-1.0.zip").touch()
    assert open_corpus(download).name == entry.name

    (download / "another").mkdir()
    with pytest.raises(CorpusError, match=r"'.*download' holds another, release-1\.0, .*; expected 'demo'"):
        open_corpus(download)


@named(PUBLISHED)
def test_labels_csv_beside_it_is_read_instead(entry, miniature):
    recording = sorted(path for path in miniature.rglob("*.wav") if not path.name.startswith("."))[0]
    (miniature / "labels.csv").write_text(
        f"file,valence,speaker\n{recording.relative_to(miniature).as_posix()},3.5,Ann\n"
    )
    corpus = open_corpus(miniature)
    assert (corpus.name, len(corpus), corpus.speakers(), list(corpus.ratings())) == (
        *("folder", 1),
        *(["Ann"], [3.5]),
    )


@named([entry for entry in PUBLISHED if entry.remains[0]])
def test_a_corpus_without_its_recordings_is_named(entry, miniature):
    for path in miniature.rglob("*.wav"):
        path.unlink()
    expected = f"'folder' looks like a part of {entry.name}; expected {entry.remains[1]}. Copy them from the"
    assert incomplete(miniature).startswith(expected)


def test_other_folders_are_no_part_of_a_corpus(tmp_path):
    (tmp_path / "annotations.csv").write_text("file,valence\na.wav,3\n")
    assert incomplete(tmp_path) == ""


def readme_row(entry):
    """The line of an entry in the README's table."""
    by_scale = {}
    for dimension, (low, high) in entry.scales.items():
        by_scale.setdefault(f"{low:g} to {high:g}", []).append(dimension)
    ratings = "; ".join(f"{', '.join(names)}: {ends}" for ends, names in by_scale.items()) or "none"
    return f"| {entry.name} | {entry.content} | {ratings} | {entry.source} | {entry.terms} |"


def test_the_readme_has_a_table_of_all():
    section = (ROOT / "README.md").read_text(encoding="utf-8").split("\n### Corpora that are recognised\n")[1]
    table = [line for line in section.split("\n#")[0].splitlines() if line.startswith("|")]
    rows = [readme_row(entry) for entry in PUBLISHED]
    assert table[2 : 2 + len(rows)] == rows, "write these lines into README.md:\n" + "\n".join(rows)
    assert [line.split(" | ")[0] for line in table[2 + len(rows) :]] == [
        "| any audformat database",
        "| any data set of Hugging Face",
    ]
