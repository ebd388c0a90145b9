"""What a request contains: the rows of its report, the leakage analysis, and the streams of its features."""

import re

import pytest

from valence_lib import registry
from valence_lib.errors import SettingsError
from valence_lib.workflow.request import Request

NETWORKS = [f"{model}-{preset}" for preset in ("default", "course") for model in ("LSTM1", "CNN", "LSTM2")]
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
    """The names of packages that are treated as not installed; empty at first."""
    names: set[str] = set()
    monkeypatch.setattr(registry, "find_spec", lambda name: None if name in names else object())
    return names


def rows(request):
    """The model and preset of every run, in order."""
    return list(dict.fromkeys(name.rpartition("-")[0] for name in request.runs()))


@pytest.mark.parametrize("preset", ["default", "course", "clip", "speaker"])
def test_every_report_has_rows_of_the_best_model_and_of_the_course(preset):
    assert rows(Request()) == DEFAULT
    found = rows(Request(preset=preset))
    assert {"GaussianProcess-default", "GaussianProcess-speaker", *NETWORKS[3:]} <= set(found)
    assert {f"{model}-{preset}" for model in ("LSTM1", "CNN", "LSTM2")} <= set(found)
    # Statistics of a clip are not standardised within the clip, and kernels are not fitted to raw decibels.
    assert (f"SVR-{preset}" in found) == (preset in ("default", "speaker"))


def test_best_adds_all_models_and_the_ablation_table_to_the_default_rows():
    request = Request(preset="best", seed=5, seeds=2)
    assert rows(request) == DEFAULT + ADDED_BY_BEST
    assert request.runs()["CNN-course-6"] == {"model": "CNN", "preset": "course", "seed": 6}
    # Only networks depend on the seed.
    of_networks = [name for name in request.runs() if not name.endswith("-5")]
    assert of_networks == [f"{name}-6" for name in (*NETWORKS, "CNNLSTM-default")]
    streams = request.jobs("")[0].parameters["streams"]
    assert streams == ["egemaps", "log_mel_statistics", "speaker_encoder", "voice_statistics"]


@pytest.mark.parametrize("preset", ["default", "speaker", "best"])
def test_without_speakers_nothing_is_standardised_by_speaker(preset):
    found = rows(Request(preset=preset, names_speakers=False))
    assert not [name for name in found if name.endswith("speaker")]
    # The leakage analysis needs models that are fitted in one step.
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


def test_rows_that_need_a_missing_package_are_left_out_and_named(absent):
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
def test_an_unknown_preset_is_refused(preset):
    nearest = {"bset": "Did you mean 'best'? "}.get(preset, "")
    known = "Known: best, clip, course, default, speaker"
    with pytest.raises(SettingsError, match=re.escape(f"no preset '{preset}'. {nearest}{known}")):
        Request(preset=preset)


@pytest.mark.parametrize("names_speakers", [True, False])
def test_the_leakage_analysis_is_a_job_between_the_runs_and_their_comparison(names_speakers):
    request = Request(protocol="cv", folds=5, seed=3, names_speakers=names_speakers)
    jobs = {job.name: job for job in request.jobs("")}
    runs = list(request.runs())
    assert list(jobs) == ["preprocess", *runs, "leakage", "compare", "error_analysis", "report", "render"]
    asked = {name: jobs["preprocess"].parameters[name] for name in ("protocol", "folds", "seed")}
    assert asked == {"protocol": "cv", "folds": 5, "seed": 3}
    assert jobs["leakage"].parameters == {"report": "../reports/demo", "runs": runs, "folds": 5}
    assert jobs["leakage"].outputs[0] == "leakage/leakage.ipynb"
    # It depends on the models that it may choose, and not on networks.
    models = {name.rpartition(".")[2] for name in jobs["leakage"].modules if ".models." in name}
    assert models == {"ridge", "svr", "gaussian_process"}


def test_without_speakers_preprocessing_extracts_pitch():
    named, unnamed = (Request(names_speakers=names_speakers).jobs("")[0] for names_speakers in (True, False))
    assert "pitch" not in named.parameters["streams"]
    assert "valence_lib.features.pitch" not in named.modules
    assert "pitch" in unnamed.parameters["streams"]
    assert "valence_lib.features.pitch" in unnamed.modules


def test_the_protocol_does_not_change_a_training():
    by_holdout, by_cv = (
        {job.name: job.values for job in Request(protocol=protocol, seeds=1).jobs("")}
        for protocol in ("holdout", "cv")
    )
    for name in Request(seeds=1).runs():
        assert by_holdout[name] == by_cv[name]
