"""The numbers of a datasheet, compared with values by hand; text of a corpus is escaped."""

import json

import numpy as np
import pytest
import soundfile
from hostile import NAMES

from valence_lib.corpora.opening import open_corpus
from valence_lib.corpora.published.known import PUBLISHED
from valence_lib.preprocess.inspection import inspect_corpus
from valence_lib.report.corpus_text import literal
from valence_lib.report.datasheet import TO_BE_WRITTEN, datasheet
from valence_lib.settings import CorpusSettings, FeatureSettings

HEADER = "file,valence_a1,valence_a2,speaker,sex,language,sentence,emotion,subset"
# Ann speaks two languages and is in two subsets. Of e.wav the speaker is unknown, f.wav repeats the audio of
# a.wav, and g.wav does not exist.
ROWS = [
    "a.wav,1,2,Ann,F,da,s1,anger,train",
    "b.wav,2,2,Ann,F,en,s2,anger,test",
    "c.wav,3,4,Bo,M,da,s1,happiness,train",
    "d.wav,5,5,Bo,M,da,s2,happiness,train",
    "e.wav,4,,,,da,s3,,",
    "f.wav,1,2,Ann,F,da,s1,anger,train",
    "g.wav,3,3,Bo,M,da,s1,anger,train",
]
SECONDS = {"a": 0.5, "b": 0.5, "c": 1.0, "d": 1.0, "e": 1.5, "f": 0.5}


def sheet_of(where, **options):
    corpus = open_corpus(where, **options)
    inspection = inspect_corpus(
        corpus, CorpusSettings(), FeatureSettings(), progress=False, needs_ratings=not corpus.unrated
    )
    return datasheet(inspection, corpus)


def answers(sheet):
    """The answer to each question."""
    found = {}
    for block in sheet.split("\n### ")[1:]:
        question, _, answer = block.partition("\n\n")
        found[question] = answer.split("\n\n## ")[0].strip()
    return found


def answer(sheet, beginning):
    (found,) = [text for question, text in answers(sheet).items() if question.startswith(beginning)]
    return found.split("\n\n")


@pytest.fixture
def folder(tmp_path):
    """Sines at -20 dB re full scale, so that their power is 0.01."""
    (tmp_path / "spoken").mkdir()
    for name, seconds in SECONDS.items():
        rate = 16000 if name == "b" else 8000
        time = np.arange(round(seconds * rate)) / rate
        frequency = 200 + 50 * "abcdea".index(name) if name != "f" else 200
        samples = np.sqrt(0.02) * np.sin(2 * np.pi * frequency * time)
        if name == "c":
            samples = np.stack([samples, samples], axis=1)
        soundfile.write(tmp_path / "spoken" / f"{name}.wav", samples, rate)
    (tmp_path / "spoken" / "labels.csv").write_text("\n".join([HEADER, *ROWS]) + "\n")
    about = {"description": "Made-up tones.", "terms": "CC BY 4.0", "scale": [1, 5]}
    (tmp_path / "spoken" / "corpus.json").write_text(json.dumps(about))
    return tmp_path / "spoken"


def test_what_is_stated_and_the_sections(folder):
    sheet = sheet_of(folder)
    assert sheet.startswith("# Datasheet of spoken\n")
    assert "- Corpus: spoken\n- Description: Made-up tones.\n- Terms: CC BY 4.0\n" in sheet
    headings = [line for line in sheet.splitlines() if line.startswith("## ")]
    assert headings == ["## Motivation", "## Composition", "## Collection process"]
    assert answers(sheet)["For what purpose was the dataset created?"] == TO_BE_WRITTEN


def test_counts_hours_and_refused_clips(folder):
    # 0.5 + 0.5 + 1 + 1 + 1.5 s = 4.5 s = 0.00125 h
    assert answer(sheet_of(folder), "How many instances") == [
        "The corpus has 7 clips. Of these, 5 can be used (0.001 hours) and 2 are refused.",
        "| Refused clips | Number |\n| --- | --- |\n| duplicate | 1 |\n| unreadable | 1 |",
    ]


def test_durations_and_levels(folder):
    table = answer(sheet_of(folder), "What data does each instance consist of?")[1].splitlines()
    assert table[2] == "| Duration (s) | 0.50 | 1.00 | 1.50 |"
    assert table[3] == "| Level of active speech (dB re full scale) | −20.0 | −20.0 | −20.0 |"


def test_ratings_and_emotions(folder):
    stated, histogram, emotions = answer(sheet_of(folder), "Is there a label")
    # The ratings 1.5, 2, 3.5, 5 and 4: deviations of -1.7, -1.2, 0.3, 1.8 and 0.8 from their mean.
    assert stated == (
        "Clips with a rating of valence: 5, on a scale from 1 to 5, with mean 3.200 and standard deviation "
        "1.440. 0.0% of these ratings are 1, the lowest, and 20.0% are 5, the highest."
    )
    counts = [line.split(" | ")[1] for line in histogram.splitlines()[2:]]
    assert counts == ["0", "1", "1", "0", "0", "1", "1", "1"]
    assert emotions.splitlines()[2:] == ["| unknown | 1 |", "| anger | 2 |", "| happiness | 2 |"]


def test_what_is_missing(folder):
    (table,) = answer(sheet_of(folder), "Is any information missing")
    rows = {line.split(" | ")[0]: line for line in table.splitlines()}
    assert rows["| valence"] == "| valence | 5 | 0 | 5 |"
    assert rows["| speaker"] == "| speaker | 4 | 1 | 2 |"
    assert rows["| sentence"] == "| sentence | 5 | 0 | 3 |"


def test_speakers_and_the_sentences_that_they_share(folder):
    assert answer(sheet_of(folder), "Are relationships") == [
        "Named speakers: 2. Clips of a speaker: 2 to 2, median 2. Clips of unknown speakers: 1.",
        "Named sentences: 3. Sentences of several speakers: 2, in 4 clips.",
    ]


def test_subsets_and_what_they_share(folder):
    table, speakers, sentences = answer(sheet_of(folder), "Are there recommended data splits")
    assert table.splitlines()[2:] == [
        "| train | 3 | 0.001 | 2 |",
        "| test | 1 | 0.000 | 1 |",
        "| none | 1 | 0.000 | 0 |",
    ]
    assert speakers == "Speakers in several subsets: 1 of 2 (Ann)."
    assert sentences == "Sentences in several subsets: 1 of 2 (s2)."


def test_duplicates(folder):
    found = answer(sheet_of(folder), "Are there any errors")
    assert found[-1] == (
        "Clips with the same audio as another one: 1 (`f.wav` and `a.wav`). `make report` lists those with "
        "nearly the same audio."
    )


def test_speakers_by_sex_and_language(folder):
    table, remark = answer(sheet_of(folder), "Does the dataset identify any subpopulations")
    assert table.splitlines() == [
        "| Language | Sex | Speakers | Clips | Hours |",
        "| --- | --- | --- | --- | --- |",
        "| da | unknown | 0 | 1 | 0.000 |",
        "| da | F | 1 | 1 | 0.000 |",
        "| da | M | 1 | 2 | 0.001 |",
        "| en | F | 1 | 1 | 0.000 |",
    ]
    assert remark == "Speakers with clips in several lines are counted in each."


def test_formats_of_the_files(folder):
    table, rest = answer(sheet_of(folder), "What mechanisms")
    assert table.splitlines()[2:] == [
        "| WAV (PCM_16) | 8,000 | 1 | 4 |",
        "| WAV (PCM_16) | 16,000 | 1 | 1 |",
        "| WAV (PCM_16) | 8,000 | 2 | 1 |",
    ]
    assert rest == TO_BE_WRITTEN


def test_a_file_that_cannot_be_decoded_is_counted(folder):
    (folder / "d.wav").write_bytes(b"no sound")
    table, _ = answer(sheet_of(folder), "What mechanisms")
    assert "| `.wav` | unknown | unknown | 1 |" in table.splitlines()


def test_raters_and_their_agreement(folder):
    stated, table, reliability, rest = answer(sheet_of(folder), "Who was involved in the data collection")
    assert stated.startswith(
        "Columns with ratings of valence by single raters: 2. Ratings of a clip: 1 to 2, median 2."
    )
    # Both rated four clips: 1, 2, 3, 5 and 2, 2, 4, 5. MSE (1 + 0 + 1 + 0) / 4. CCC: means 2.75 and 3.25,
    # variances 2.1875 and 1.6875, covariance 43 / 4 - 2.75 * 3.25 = 1.8125; 2 * 1.8125 / (3.875 + 0.25).
    assert table.splitlines()[2:] == [
        "| a1 | 5 | 0.500 | 0.879 |",
        "| a2 | 4 | 0.500 | 0.879 |",
        "| mean |  | 0.500 | 0.879 |",
    ]
    # alpha: 2 * (1 - (2.1875 + 1.6875) / (2.1875 + 1.6875 + 2 * 1.8125)) = 0.9667
    assert "Cronbach's alpha 0.967" in reliability
    assert rest == TO_BE_WRITTEN


def test_a_corpus_without_further_labels(folder):
    lines = (folder / "labels.csv").read_text().splitlines()
    rows = [(line.split(",")[0], line.split(",")[1]) for line in lines[1:]]
    (folder / "labels.csv").write_text("file,valence\n" + "".join(f"{file},{one}\n" for file, one in rows))
    sheet = sheet_of(folder)
    assert answer(sheet, "Are relationships") == ["Speakers are not named."]
    assert answer(sheet, "Are there recommended data splits") == ["The corpus names no subsets."]
    assert answer(sheet, "Does the dataset identify any subpopulations") == [
        "The corpus states neither the sex nor the language of its speakers.",
        TO_BE_WRITTEN,
    ]
    assert answer(sheet, "Who was involved in the data collection") == [
        "The ratings of single raters are not given.",
        TO_BE_WRITTEN,
    ]


def test_a_course_folder_has_no_audio_files(course_folder):
    assert answer(sheet_of(course_folder), "What mechanisms")[0] == (
        "The audio is not in files of its own. Its original format is not stated."
    )


def test_a_corpus_without_ratings(tmp_path, voice):
    for actor in ("01", "02"):
        folder = tmp_path / f"Actor_{actor}"
        folder.mkdir()
        soundfile.write(folder / f"03-01-05-01-02-01-{actor}.wav", voice(int(actor), 16000), 16000)
    sheet = sheet_of(tmp_path)
    (entry,) = [entry for entry in PUBLISHED if entry.name == "RAVDESS"]
    assert f"- Terms: {literal(entry.terms)}\n- Citation: {literal(entry.citation)}" in sheet
    stated, emotions = answer(sheet, "Is there a label")
    assert stated.startswith("RAVDESS has no ratings of valence, which a report needs")
    assert emotions.splitlines()[2:] == ["| anger | 2 |"]


def test_several_corpora(folder, course_folder):
    sheet = sheet_of(f"{folder},demo", scale="1,7/1,5")
    assert "- Corpus: spoken\n" in sheet and "- Corpus: demo\n" in sheet
    rows = answer(sheet, "How many instances")[1].splitlines()
    assert rows[0] == "| Corpus | Clips | Hours |"
    assert [row.split(" | ")[0] for row in rows[2:]] == ["| demo", "| spoken"]
    table = answer(sheet, "Does the dataset identify any subpopulations")[0]
    assert table.startswith("| Corpus | Language | Sex | Speakers | Clips | Hours |")


def test_it_is_the_same_in_any_folder(folder, tmp_path):
    first = sheet_of(folder)
    (tmp_path / "elsewhere").mkdir()
    folder.rename(tmp_path / "elsewhere" / "spoken")
    assert sheet_of(tmp_path / "elsewhere" / "spoken") == first
    assert str(tmp_path) not in first


@pytest.mark.parametrize("name", ["html", "emphasis", "list", "math", "code", "link"])
def test_text_of_the_corpus_is_escaped(folder, name):
    text = " ".join(NAMES[name].split())
    quoted = '"' + text.replace('"', '""') + '"'
    table = folder / "labels.csv"
    table.write_text(table.read_text().replace(",anger,", f",{quoted},").replace("Ann", quoted))
    (folder / "corpus.json").write_text(json.dumps({"description": text, "citation": text}))
    sheet = sheet_of(folder)
    assert text not in sheet
    assert f"- Description: {literal(text)}\n- Citation: {literal(text)}" in sheet
    assert f"| {literal(text)} | 2 |" in answer(sheet, "Is there a label")[2]
    assert f"Speakers in several subsets: 1 of 2 ({literal(text)})" in sheet


def test_one_refused_clip_is_not_several(folder):
    (folder / "f.wav").unlink()
    table = (folder / "labels.csv").read_text().splitlines()
    (folder / "labels.csv").write_text("\n".join(line for line in table if "f.wav" not in line) + "\n")
    assert "and 1 is refused." in answer(sheet_of(folder), "How many instances")[0]
