"""Databases that audformat writes: which table is taken, and what is read of speakers, raters and splits."""

import math
import pickle
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from valence_lib.corpora.audformat_database import HEADER, describe_database, read
from valence_lib.errors import CorpusError

audformat = pytest.importorskip("audformat")

GENDERS = ["male", "female", "female", "male", "male", "male", "female", "female", "male", "female"]
EMODB_SPEAKERS = dict(zip([3, 8, 9, 10, 11, 12, 13, 14, 15, 16], GENDERS, strict=True))
CONSENSUS = {"wav/a.wav": 0.25, "wav/b.wav": 0.5, "wav/c.wav": 1.0, "wav/d.wav": math.nan}


def make_sound(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.1 * np.sin(np.arange(8000) / 20), 16000)


def add(database, table: str, index, split_id: str | None = None, **columns) -> None:
    """Add a table; each column is (values, scheme, rater)."""
    database[table] = audformat.Table(index, split_id=split_id)
    for name, (values, scheme, rater) in columns.items():
        database[table][name] = audformat.Column(scheme_id=scheme, rater_id=rater)
        database[table][name].set(values)


def files(names) -> pd.Index:
    return audformat.filewise_index(list(names))


def build(folder: Path, make_wav: Callable[[Path], object]) -> Path:
    """EmoDB 2: emotions alone, splits in the names of tables, speakers in a table of their own."""
    database = audformat.Database(
        "emodb",
        source="https://zenodo.org/records/17651657",
        usage="commercial",
        languages=["deu"],
        description="Berlin Database of Emotional Speech. German utterances.",
        author="Felix Burkhardt",
        license=audformat.define.License.CC_BY_4_0,
    )
    database.schemes["emotion"] = audformat.Scheme(labels=["anger", "happiness", "neutral"])
    database.schemes["confidence"] = audformat.Scheme("float", minimum=0, maximum=1)
    database.schemes["gender"] = audformat.Scheme(labels=["female", "male"])
    database.schemes["age"] = audformat.Scheme("int")
    texts = {"a01": "Der Lappen liegt auf dem Eisschrank.", "a02": "Das will sie am Mittwoch abgeben."}
    database.schemes["transcription"] = audformat.Scheme(labels=texts)
    database.raters["gold"] = audformat.Rater()
    speakers = pd.Index(EMODB_SPEAKERS, dtype="Int64", name="speaker")
    database["speaker"] = audformat.MiscTable(speakers)
    database["speaker"]["gender"] = audformat.Column(scheme_id="gender")
    database["speaker"]["gender"].set(GENDERS)
    database["speaker"]["age"] = audformat.Column(scheme_id="age")
    database["speaker"]["age"].set(range(20, 30))
    database.schemes["speaker"] = audformat.Scheme("int", labels="speaker")
    names = [
        f"wav/{speaker:02}a0{text}{letter}a.wav"
        for speaker in EMODB_SPEAKERS
        for text, letter in ((1, "W"), (1, "F"), (2, "N"))
    ]
    emotion = {"W": "anger", "F": "happiness", "N": "neutral"}
    emotions = [emotion[name[-6]] for name in names]
    add(
        database,
        "files",
        files(names),
        speaker=([int(name[4:6]) for name in names], "speaker", None),
        transcription=([name[6:9] for name in names], "transcription", None),
    )
    add(database, "emotion", files(names), emotion=(emotions, "emotion", None))
    for split, part in (("train", slice(0, 20)), ("test", slice(20, 29))):  # the last clip is in neither
        table = f"emotion.categories.{split}.gold_standard"
        confidence = {"emotion.confidence": ([0.9] * len(names[part]), "confidence", "gold")}
        add(
            database,
            table,
            files(names[part]),
            emotion=(emotions[part], "emotion", "gold"),
            **confidence,
        )
    laryngo = [name.replace("wav/", "laryngo/") for name in names]
    add(database, "laryngo.emotion", files(laryngo), emotion=(emotions, "emotion", None))
    for name in (*names, *laryngo, "wav/more.wav"):
        make_wav(folder / name)
    database.save(str(folder), storage_format="csv")
    return folder


def ratings_database(**header) -> "audformat.Database":
    """Valence on 0..1 by the gold standard, on 1..5 by two raters, the speaker and a program."""
    database = audformat.Database("toy", languages=["en", "de"], **header)
    for name, low, high in (("valence", 0, 1), ("valence.original", 1, 5), ("valence.agreement", 0, 1)):
        database.schemes[name] = audformat.Scheme("float", minimum=low, maximum=high)
    speaker = {"s1": {"gender": "female", "age": 31}, "s2": {"gender": "male", "age": 85}, "Unknown": {}}
    database.schemes["speaker"] = audformat.Scheme(labels=speaker)
    database.schemes["language"] = audformat.Scheme(labels=["eng", "de", "Quechua", "no language"])
    database.schemes["emotion"] = audformat.Scheme(labels=["happy", "no_agreement", "excited"])
    for rater, kind in (("Ann", "human"), ("Bo", "human"), ("self", "human"), ("net", "machine")):
        database.raters[rater] = audformat.Rater(kind)
    for split, kind in (("train", "train"), ("devel", "dev"), ("held-out", "test")):
        database.splits[split] = audformat.Split(kind)
    add(
        database,
        "files",
        files(CONSENSUS),
        speaker=(["s1", "s2", "Unknown", None], "speaker", None),
        language=(["eng", "de", "Quechua", "no language"], "language", None),
        mood=(["happy", "no_agreement", "excited", None], "emotion", None),
    )
    return database


def add_raters(database, names=tuple(CONSENSUS)) -> None:
    given = {
        "Ann": [1, 3, 5, math.nan],
        "Bo": [3, 3, math.nan, math.nan],
        "self": [5, 5, 5, 5],
        "net": [4, 4, 4, 4],
    }
    add(
        database,
        "valence",
        files(names),
        **{name: (values[: len(names)], "valence.original", name) for name, values in given.items()},
    )


def add_gold(database) -> None:
    for split, part in (("train", slice(0, 2)), ("devel", slice(2, 3)), ("held-out", slice(3, 4))):
        names = list(CONSENSUS)[part]
        add(
            database,
            f"valence.{split}.gold_standard",
            files(names),
            split,
            valence=([CONSENSUS[name] for name in names], "valence", None),
            **{"valence.agreement": ([1.0] * len(names), "valence.agreement", None)},
        )


def saved(database, folder: Path, form: str = "parquet") -> Path:
    for file in database.files:
        make_sound(folder / file)
    database.save(str(folder), storage_format=form)
    return folder


def test_emodb_2_has_ten_speakers_and_no_ratings(tmp_path):
    entry = describe_database(build(tmp_path, make_sound))
    assert (entry.name, entry.scales, entry.marks) == ("emodb", {}, (HEADER,))
    assert entry.content == "Berlin Database of Emotional Speech."
    assert entry.source == "https://zenodo.org/records/17651657"
    assert entry.terms == "CC-BY-4.0 (https://creativecommons.org/licenses/by/4.0/); usage: commercial"
    assert entry.citation == "Felix Burkhardt"
    labels = entry.read(tmp_path, "")
    rows = {row.file: row for row in labels.rows}
    assert list(rows) == sorted(rows)
    assert len(rows) == 30
    by_speaker = {row.labels["speaker"]: row.labels["sex"] for row in labels.rows}
    assert by_speaker == {
        str(speaker): {"male": "M", "female": "F"}[sex] for speaker, sex in EMODB_SPEAKERS.items()
    }
    first = rows["wav/03a01Wa.wav"]
    assert (first.rating, first.by_rater, first.start, first.end) == (None, {}, None, None)
    assert first.labels == {
        **{"speaker": "3", "sex": "M", "language": "de", "sentence": "a01", "emotion": "anger", "age": "20"}
    }
    assert [row.subset for row in labels.rows].count("train") == 20
    assert [row.subset for row in labels.rows].count("test") == 9
    assert "1 recording has no labels: 'wav/more.wav'." in labels.notes
    assert "1 table holds no speech: 'laryngo.emotion'." in labels.notes
    assert labels.form == "audformat database 'emodb'"
    assert {path.name for path in labels.tables} >= {HEADER, "db.files.csv", "db.emotion.csv"}


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_the_gold_standard_is_the_rating_and_raters_are_brought_to_its_scale(tmp_path, form):
    database = ratings_database()
    add_raters(database)
    add_gold(database)
    entry = describe_database(saved(database, tmp_path, form))
    assert entry.scales == {"valence": (0, 1)}
    labels = entry.read(tmp_path, "valence")
    assert [row.rating for row in labels.rows] == [0.25, 0.5, 1.0, None]
    # (1 - 1) / 4, (3 - 1) / 4, ...; neither the speaker nor the program is a rater.
    assert [dict(row.by_rater) for row in labels.rows] == [
        *({"Ann": 0.0, "Bo": 0.5}, {"Ann": 0.5, "Bo": 0.5}, {"Ann": 1.0}, {})
    ]
    assert [row.subset for row in labels.rows] == ["train", "train", "validation", "test"]
    assert [row.labels["speaker"] for row in labels.rows] == ["s1", "s2", "", ""]
    assert [row.labels["sex"] for row in labels.rows] == ["F", "M", "", ""]
    assert [row.labels["age"] for row in labels.rows] == ["31", "85", "", ""]
    assert [row.labels["language"] for row in labels.rows] == ["en", "de", "qu", ""]
    assert [row.labels["emotion"] for row in labels.rows] == ["happiness", "no agreement", "excitement", ""]
    assert labels.notes == [
        "Ratings of single raters, from 1 to 5, are mapped linearly to the scale from 0 to 1."
    ]


def test_without_a_consensus_the_rating_is_the_mean_of_the_raters(tmp_path):
    database = ratings_database()
    add_raters(database)
    entry = describe_database(saved(database, tmp_path))
    assert entry.scales == {"valence": (1, 5)}
    labels = entry.read(tmp_path, "valence")
    assert [row.rating for row in labels.rows] == [2, 3, 5, None]
    assert dict(labels.rows[0].by_rater) == {"Ann": 1, "Bo": 3}
    assert labels.notes == []


def test_raters_that_are_named_by_their_columns(tmp_path):
    # As in audb's "quechua": no raters, no splits, and tables of train and test.
    database = ratings_database()
    for split, names in (("train", ["wav/a.wav", "wav/b.wav"]), ("test", ["wav/c.wav"])):
        n = len(names)
        columns = {f"Rater0{rater}": ([rater] * n, "valence.original", None) for rater in (1, 4)}
        add(database, f"valence.{split}", files(names), **columns)
        gold = {"valence": ([0.5] * n, "valence", None)}
        add(database, f"emotion.dimensions.{split}.gold_standard", files(names), **gold)
    labels = read(saved(database, tmp_path), "valence")
    assert [(row.rating, row.subset) for row in labels.rows] == [
        *((0.5, "train"), (0.5, "train"), (0.5, "test"))
    ]
    assert all(row.by_rater == {"Rater01": 0, "Rater04": 0.75} for row in labels.rows)
    # The fourth file is in none of these tables.
    assert "1 recording has no labels: 'wav/d.wav'." in labels.notes


def test_columns_that_number_the_raters_and_a_consensus_beside_them(tmp_path):
    database = audformat.Database("toy")
    database.schemes["activation"] = audformat.Scheme("int", labels=[1, 2, 3, 4, 5])
    columns = {"activation.1": [1, 2], "activation.2": [3, 2], "activation": [2, 2]}
    add(
        database,
        "labels",
        files(["a.wav", "b.wav"]),
        **{name: (values, "activation", None) for name, values in columns.items()},
    )
    entry = describe_database(saved(database, tmp_path))
    assert entry.scales == {"arousal": (1, 5)}
    labels = entry.read(tmp_path, "arousal")
    assert [(row.rating, dict(row.by_rater)) for row in labels.rows] == [
        *((2, {"1": 1, "2": 3}), (2, {"1": 2, "2": 2}))
    ]


def test_of_two_consensus_tables_the_gold_standard_is_used_and_named(tmp_path):
    database = ratings_database()
    add(database, "valence", files(CONSENSUS), valence=([0.9] * 4, "valence", None))
    add_gold(database)
    labels = read(saved(database, tmp_path), "valence")
    assert [row.rating for row in labels.rows] == [0.25, 0.5, 1.0, None]
    gold = [f"'valence.{split}.gold_standard'" for split in ("devel", "held-out", "train")]
    (note,) = labels.notes
    assert all(name in note.partition(";")[0] for name in gold)
    assert note.endswith("; those in the table 'valence' are not used.")


def test_segments_have_times_and_the_labels_of_their_file(tmp_path):
    database = audformat.Database("toy")
    database.schemes["valence"] = audformat.Scheme("float")
    database.schemes["speaker"] = audformat.Scheme()
    index = audformat.segmented_index(
        ["b.wav", "a.wav", "a.wav"], ["0s", "0.25s", "0s"], [pd.NaT, "0.5s", "0.25s"]
    )
    add(database, "segments", index, valence=([-1.5, 2.0, 0.5], "valence", None))
    add(database, "files", files(["a.wav", "b.wav"]), speaker=(["x", "y"], "speaker", None))
    entry = describe_database(saved(database, tmp_path))
    assert entry.scales == {"valence": (-2, 2)}
    labels = entry.read(tmp_path, "valence")
    found = [(row.file, row.start, row.end, row.rating, row.labels["speaker"]) for row in labels.rows]
    assert found == [
        *(("a.wav", 0.0, 0.25, 0.5, "x"), ("a.wav", 0.25, 0.5, 2.0, "x"), ("b.wav", None, None, -1.5, "y"))
    ]
    assert labels.notes == ["db.yaml states no scale of the ratings; it is taken to be -2 to 2."]


def test_a_rating_outside_its_scale_makes_its_own_clip_unusable(tmp_path):
    database = ratings_database()
    add_gold(database)
    saved(database, tmp_path, "csv")
    table = tmp_path / "db.valence.train.gold_standard.csv"
    table.write_text(table.read_text().replace("0.25", "7"))
    (bad,) = [row for row in read(tmp_path, "valence").rows if row.problem]
    assert (bad.file, bad.problem.reason) == ("wav/a.wav", "label outside its scale")
    assert str(bad.problem) == (
        "the valence in the table 'valence.train.gold_standard' is 7; expected 0 to 1."
    )


def test_one_split_alone_is_no_division(tmp_path):
    database = audformat.Database("toy")
    database.schemes["valence"] = audformat.Scheme("float", minimum=1, maximum=7)
    add(database, "valence.train", files(["a.wav", "b.wav"]), valence=([1, 7], "valence", None))
    labels = read(saved(database, tmp_path), "valence")
    assert [row.subset for row in labels.rows] == ["", ""]
    assert labels.notes == ["The database has the split train alone, so that its clips count as not split."]


def test_many_rows_are_read_in_seconds(tmp_path):
    database = audformat.Database("toy")
    database.schemes["valence"] = audformat.Scheme("float", minimum=0, maximum=4)
    names = [f"{number:06}.wav" for number in range(20_000)]
    add(database, "valence", files(names), valence=(np.arange(20_000) % 5, "valence", None))
    database.save(str(tmp_path))
    rows = read(tmp_path, "valence").rows
    assert [row.rating for row in rows[:6]] == [0, 1, 2, 3, 4, 0]
    assert len(rows) == 20_000


# What cannot be read


def test_without_the_package_the_message_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "audformat", None)
    with pytest.raises(CorpusError, match=r'audformat, which is not installed.*"valence-lib\[audformat\]"'):
        describe_database(tmp_path)


@pytest.mark.parametrize(
    "header",
    ["name: [", "name: toy", "- 1\n- 2", "", "name: toy\nsource: ''\nusage: unrestricted\ntables: 3"],
)
def test_what_is_no_header_is_refused(tmp_path, header):
    (tmp_path / HEADER).write_text(header)
    with pytest.raises(CorpusError, match=r"db\.yaml of .* cannot be read as the header"):
        describe_database(tmp_path)


def test_a_header_executes_nothing(tmp_path):
    (tmp_path / HEADER).write_text(f"name: !!python/object/apply:os.mkdir [{str(tmp_path / 'made')!r}]\n")
    with pytest.raises(CorpusError, match="cannot be read as the header"):
        describe_database(tmp_path)
    assert not (tmp_path / "made").exists()


class Trap:
    """Makes a folder where it is unpickled."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __reduce__(self):
        return Path.mkdir, (self.folder,)


def test_pickles_of_tables_are_not_read(tmp_path):
    database = ratings_database()
    add_gold(database)
    saved(database, tmp_path, "csv")
    for table in tmp_path.glob("db.*.csv"):
        table.with_suffix(".pkl").write_bytes(pickle.dumps(Trap(tmp_path / "made")))
    assert len(read(tmp_path, "valence").rows) == 4
    (tmp_path / "db.files.csv").unlink()
    with pytest.raises(CorpusError, match=r"lacks the table 'files'.*has a pickle, which is not read"):
        read(tmp_path, "valence")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("content", ["", "file,speaker\na.wav\n", "file\nwav/a.wav\n", "\x00\x01"])
def test_a_damaged_table_is_named(tmp_path, content):
    saved(ratings_database(), tmp_path, "csv")
    (tmp_path / "db.files.csv").write_text(content)
    with pytest.raises(CorpusError, match=r"the table 'db\.files\.csv' cannot be read"):
        describe_database(tmp_path)


# Ratings in several tables


def several_tables(**schemes: tuple[float, float] | None) -> "audformat.Database":
    database = audformat.Database("toy")
    for name, ends in schemes.items():
        low, high = ends or (None, None)
        database.schemes[name] = audformat.Scheme("float", minimum=low, maximum=high)
    for rater in ("Ann", "Max"):
        database.raters[rater] = audformat.Rater("human")
    return database


def rating_of(labels) -> dict[str, float | None]:
    return {row.file: row.rating for row in labels.rows}


@pytest.mark.parametrize("rater", [None, "Ann"])
def test_tables_on_two_scales_are_brought_to_one(tmp_path, rater):
    database = several_tables(valence5=(1, 5), valence7=(1, 7))
    add(database, "emotion.train", files(["a.wav", "b.wav"]), valence=([1, 3], "valence5", rater))
    add(database, "emotion.test", files(["c.wav", "d.wav"]), valence=([4, 7], "valence7", rater))
    labels = read(saved(database, tmp_path), "valence")
    assert rating_of(labels) == {"a.wav": 1, "b.wav": 4, "c.wav": 4, "d.wav": 7}
    assert [row.subset for row in labels.rows] == ["train", "train", "test", "test"]
    (note,) = labels.notes
    assert note.endswith("from 1 to 5, are mapped linearly to the scale from 1 to 7.")


def test_clips_without_a_consensus_have_the_mean_of_their_raters(tmp_path):
    database = several_tables(valence=(1, 5))
    ratings = {name: (values, "valence", name) for name, values in {"Ann": [1, 2], "Max": [2, 4]}.items()}
    add(database, "x.train", files(["a.wav", "b.wav"]), **ratings)
    add(database, "x.test", files(["c.wav"]), valence=([5], "valence", None))
    labels = read(saved(database, tmp_path), "valence")
    assert rating_of(labels) == {"a.wav": 1.5, "b.wav": 3, "c.wav": 5}  # Max is a rater, and no maximum
    assert labels.notes == [
        "Ratings in the table 'x.train' are means of single raters, those in other tables are not."
    ]


def test_clips_beside_a_gold_standard_are_counted(tmp_path):
    database = several_tables(valence=(1, 5))
    add(database, "x", files(["a.wav", "b.wav"]), valence=([1, 2], "valence", None))
    add(database, "x.gold_standard", files(["a.wav"]), valence=([4], "valence", None))
    labels = read(saved(database, tmp_path), "valence")
    assert rating_of(labels) == {"a.wav": 4}
    assert labels.notes[1:] == ["1 clip is rated in other tables alone, and left out: 'b.wav'."]


def test_tables_that_contradict_each_other_are_noted(tmp_path):
    database = several_tables(valence=(1, 5))
    for table, values in (("x", [1, 2]), ("y", [1, 5])):
        add(database, table, files(["a.wav", "b.wav"]), valence=(values, "valence", None))
    labels = read(saved(database, tmp_path), "valence")
    assert rating_of(labels) == {"a.wav": 1, "b.wav": 2}
    assert labels.notes == [
        "1 clip has different ratings in two tables, of which the first is used: 'b.wav'."
    ]


def test_statistics_of_ratings_are_no_raters(tmp_path):
    database = several_tables(valence=(1, 5))
    columns = {"valence.median": [3], "valence.min": [1], "valence.max": [5], "valence.z": [2]}
    columns = {name: (values, "valence", None) for name, values in columns.items()}
    add(database, "x", files(["a.wav"]), **columns)
    (row,) = read(saved(database, tmp_path), "valence").rows
    assert (row.rating, row.by_rater) == (3, {})
    add(database, "y", files(["a.wav"]), valence=([2], "valence", None))
    assert read(saved(database, tmp_path), "valence").rows[0].rating == 2


def test_a_mark_for_missing_ratings_is_no_end_of_a_scale(tmp_path):
    database = several_tables(valence=None)
    names = ["a.wav", "b.wav", "c.wav", "d.wav"]
    add(database, "x", files(names), valence=([1, 2, 5, -99], "valence", None))
    with pytest.raises(CorpusError, match=r"of valence in 'toy' lie between 1 and 5, but for -99; db\.yaml"):
        read(saved(database, tmp_path), "valence")


def test_any_other_column_of_numbers_can_be_the_target(tmp_path):
    database = several_tables(liking=(1, 9), valence=(1, 5))
    database.schemes["words"] = audformat.Scheme("str")
    columns = {"valence": ([2], "valence", None), "liking": ([7], "liking", None)}
    add(database, "x", files(["a.wav"]), **columns, arousal=(["high"], "words", None))
    saved(database, tmp_path)
    entry = describe_database(tmp_path, "liking")
    assert entry.scales == {"valence": (1, 5), "liking": (1, 9)}
    assert entry.read(tmp_path, "liking").rows[0].rating == 7
    message = r"'toy': db\.yaml states texts for the column 'arousal' of the table 'x'.* dtype float or int"
    with pytest.raises(CorpusError, match=message):
        describe_database(tmp_path, "arousal")


def test_texts_in_place_of_all_ratings_are_noted(tmp_path):
    database = several_tables()
    database.schemes["words"] = audformat.Scheme("str")
    add(database, "x", files(["a.wav"]), valence=(["3"], "words", None))
    entry = describe_database(saved(database, tmp_path))
    (note,) = entry.read(tmp_path, "").notes
    assert note.startswith("db.yaml states texts for the column 'valence' of the table 'x', so that")


def test_an_entry_that_the_header_lacks_is_named(tmp_path):
    for header, problem in (
        ("name: toy\nusage: research\ntables: {}", "lacks the entry 'source'"),
        ("- 1", "it holds no entries"),
    ):
        (tmp_path / HEADER).write_text(header)
        with pytest.raises(CorpusError, match=problem):
            describe_database(tmp_path)
