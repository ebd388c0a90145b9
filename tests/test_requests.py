"""What a report asks for: its rows, its folds, the leakage analysis, and the streams of its clips."""

import re

import pytest

from valence_lib import registry
from valence_lib.errors import SettingsError
from valence_lib.jobs import Request

TUNED = {"model": "CNN", "changes": {"learning_rate": 0.01}, "clips": "", "trials": 20}
NETWORKS = [f"{model}-{preset}" for preset in ("default", "seed") for model in ("LSTM1", "CNN", "LSTM2")]
DEFAULT = [
    *NETWORKS[:3],
    *("Ridge-default", "SVR-default"),
    *NETWORKS[3:],
    *("GaussianProcess-default", "GaussianProcess-speaker"),
]
ADDED_BY_BEST = [
    *("CNNLSTM-default", "EgemapsSVR-default", "EgemapsSVR-speaker"),
    *(f"GaussianProcess-{name}" for name in ("without-voice", "without-encoder", "with-log-mel")),
]


@pytest.fixture(autouse=True)
def absent(monkeypatch):
    """The packages that seem not to be installed: none, until a test names some."""
    names: set[str] = set()
    monkeypatch.setattr(registry, "find_spec", lambda name: None if name in names else object())
    return names


def rows(request):
    """Model and preset of every run, in their order."""
    return list(dict.fromkeys(name.rpartition("-")[0] for name in request.runs()))


@pytest.mark.parametrize("preset", ["default", "seed", "clip", "speaker"])
def test_every_report_has_rows_of_our_model_and_of_raw_decibels(preset):
    assert rows(Request()) == DEFAULT
    found = rows(Request(preset=preset))
    assert {"GaussianProcess-default", "GaussianProcess-speaker", *NETWORKS[3:]} <= set(found)
    assert {f"{model}-{preset}" for model in ("LSTM1", "CNN", "LSTM2")} <= set(found)
    # One row of numbers a clip is not standardised within the clip, nor are kernels fitted to raw decibels.
    assert (f"SVR-{preset}" in found) == (preset in ("default", "speaker"))


def test_best_adds_all_models_and_the_ablation_table_to_the_default_rows():
    request = Request(preset="best", seed=5, seeds=2)
    assert rows(request) == DEFAULT + ADDED_BY_BEST
    assert request.runs()["CNN-seed-6"] == {"model": "CNN", "preset": "seed", "seed": 6}
    # Only networks leave anything to chance.
    of_networks = [name for name in request.runs() if not name.endswith("-5")]
    assert of_networks == [f"{name}-6" for name in (*NETWORKS, "CNNLSTM-default")]
    streams = request.jobs("")[0].parameters["streams"]
    assert streams == ["egemaps", "log_mel_statistics", "speaker_encoder", "voice_statistics"]


@pytest.mark.parametrize("preset", ["default", "speaker", "best"])
def test_nothing_is_standardised_by_speaker_where_no_speaker_is_named(preset):
    found = rows(Request(preset=preset, names_speakers=False))
    assert not [name for name in found if name.endswith("speaker")]
    # Something fitted in one step is there for the leakage analysis also without the encoder.
    assert {"Ridge-default", "SVR-default", "GaussianProcess-default"} <= set(found)


def test_an_encoder_adds_two_rows():
    found = rows(Request(encoder="d1g3st", encoder_name="own"))
    assert found == [*DEFAULT, "GaussianProcess-encoder", "GaussianProcess-encoder-speaker"]
    unnamed = rows(Request(encoder="d1g3st", names_speakers=False))
    assert unnamed[-1] == "GaussianProcess-encoder"
    preprocess = Request(encoder="d1g3st", encoder_name="own", encoder_layer="3").jobs("")[0]
    given = {name: preprocess.parameters[name] for name in ("encoder", "encoder_name", "encoder_layer")}
    assert given == {"encoder": "d1g3st", "encoder_name": "own", "encoder_layer": "3"}
    assert "encoder" in preprocess.parameters["streams"]


def test_what_a_missing_package_is_needed_for_is_left_out_and_named(absent):
    assert Request(preset="best").missing() == []
    absent.add("resemblyzer")
    assert rows(Request()) == DEFAULT[:-2]
    assert Request().missing() == [
        {"model": "GaussianProcess", "preset": preset, "package": "resemblyzer", "command": "make encoder"}
        for preset in ("default", "speaker")
    ]
    absent.add("opensmile")
    request = Request(preset="best")
    assert rows(request) == [*DEFAULT[:-2], "CNNLSTM-default"]
    assert {row["package"]: row["command"] for row in request.missing()} == {
        "resemblyzer": "make encoder",
        "opensmile": 'pip install "valence-lib[opensmile]"',
    }
    jobs = {job.name: job for job in request.jobs("")}
    assert {"speaker_encoder", "egemaps"} & set(jobs["preprocess"].parameters["streams"]) == set()
    assert jobs["report"].parameters["missing"] == request.missing()


@pytest.mark.parametrize("preset", ["bset", "tuned", "without-voice", "encoder"])
def test_a_wrong_preset_or_one_of_some_rows_alone_cannot_be_asked_for(preset):
    nearest = {"bset": "Did you mean 'best'? "}.get(preset, "")
    known = "Known: best, clip, default, seed, speaker"
    with pytest.raises(SettingsError, match=re.escape(f"no preset '{preset}'. {nearest}{known}")):
        Request(preset=preset)


@pytest.mark.parametrize("names_speakers", [True, False])
def test_the_leakage_analysis_is_one_job_between_the_runs_and_their_comparison(names_speakers):
    request = Request(protocol="cv", folds=5, seed=3, names_speakers=names_speakers)
    jobs = {job.name: job for job in request.jobs("")}
    runs = list(request.runs())
    assert list(jobs) == ["preprocess", *runs, "leakage", "compare", "error_analysis", "report", "render"]
    asked = {name: jobs["preprocess"].parameters[name] for name in ("protocol", "folds", "seed")}
    assert asked == {"protocol": "cv", "folds": 5, "seed": 3}
    assert jobs["leakage"].parameters == {"report": "../reports/demo", "runs": runs, "folds": 5}
    assert jobs["leakage"].main == "leakage/leakage.ipynb"
    # It is done again where a model that it may choose changes, and not where a network does.
    models = {name.rpartition(".")[2] for name in jobs["leakage"].modules if ".models." in name}
    assert models == {"ridge", "svr", "gaussian_process"}


def test_voices_are_described_where_no_speakers_are_named():
    named, unnamed = (Request(names_speakers=names_speakers).jobs("")[0] for names_speakers in (True, False))
    assert "pitch" not in named.parameters["streams"]
    assert "valence_lib.pitch" not in named.modules
    assert "pitch" in unnamed.parameters["streams"]
    assert "valence_lib.pitch" in unnamed.modules


def test_a_training_is_made_of_the_same_whatever_the_protocol():
    by_holdout, by_cv = (
        {job.name: job.values for job in Request(protocol=protocol, seeds=1).jobs("")}
        for protocol in ("holdout", "cv")
    )
    for name in Request(seeds=1).runs():
        assert by_holdout[name] == by_cv[name]
