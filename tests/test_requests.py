"""What a report by cross-validation asks for: its folds, the designs of the leakage meter, and the streams of its clips."""

import re

import pytest

from valence_lib.divisions import DESIGNS
from valence_lib.errors import SettingsError
from valence_lib.jobs import Request

TUNED = {"model": "CNN", "changes": {"learning_rate": 0.01}, "clips": "", "trials": 20}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"protocol": "cvs"}, "no protocol 'cvs'. Did you mean 'cv'"),
        ({"protocol": ""}, "Known: cv, holdout"),
        (
            {"protocol": "cv", "folds": 2},
            "FOLDS=2 was given; expected 3 or more: one to test, one to validate",
        ),
        ({"folds": 0}, "FOLDS=0"),
        ({"protocol": "cv", "best": TUNED}, "TUNED=yes was given with PROTOCOL=cv"),
        ({"protocol": "cv", "best": TUNED}, "expected PROTOCOL=holdout"),
    ],
)
def test_a_protocol_that_cannot_be_met_is_refused(changes, message):
    with pytest.raises(SettingsError, match=re.escape(message)):
        Request(**changes)


def test_what_a_sweep_found_best_goes_with_a_holdout():
    assert "CNN-tuned-0" in Request(best=TUNED).runs()


def test_the_reports_own_folds_are_one_design_of_the_meter_where_they_are_by_speaker():
    assert Request(protocol="cv").designs() == ["random", "sentence", "both"]
    assert Request(protocol="cv", names_speakers=False).designs() == list(DESIGNS)
    assert Request().designs() == Request(names_speakers=False).designs() == list(DESIGNS)


@pytest.mark.parametrize("names_speakers", [True, False])
def test_each_design_is_a_job_and_what_is_compared(names_speakers):
    request = Request(protocol="cv", folds=5, names_speakers=names_speakers)
    jobs = {job.name: job for job in request.jobs("")}
    meters = [job for name, job in jobs.items() if name.startswith("leakage-")]
    assert [job.parameters["design"] for job in meters] == request.designs()
    assert {job.parameters["folds"] for job in meters} == {5}
    assert {tuple(job.parameters["runs"]) for job in meters} == {tuple(request.runs())}
    assert len({job.main for job in meters}) == len(meters)
    assert jobs["compare"].parameters["designs"] == request.designs()
    # Each comes after the runs among which it chooses, and before what compares them.
    names = list(jobs)
    for job in meters:
        assert max(map(names.index, request.runs())) < names.index(job.name) < names.index("compare")


def test_preprocessing_is_told_how_to_divide():
    preprocess = Request(protocol="cv", folds=5, seed=3).jobs("")[0]
    asked = {name: preprocess.parameters[name] for name in ("protocol", "folds", "seed")}
    assert asked == {"protocol": "cv", "folds": 5, "seed": 3}


@pytest.mark.parametrize("protocol", ["holdout", "cv"])
def test_voices_are_heard_where_no_speakers_are_named(protocol):
    named, unnamed = (
        Request(protocol=protocol, names_speakers=names_speakers).jobs("")[0]
        for names_speakers in (True, False)
    )
    assert "voice" not in named.parameters["streams"]
    assert "valence_lib.voice" not in named.modules
    assert "voice" in unnamed.parameters["streams"]
    assert "valence_lib.voice" in unnamed.modules


def test_what_the_best_models_hear_is_stored_once():
    streams = Request(protocol="cv", preset="best").jobs("")[0].parameters["streams"]
    assert {"voice", "fine_mel", "voice_statistics"} <= set(streams)
    assert streams == sorted(set(streams))
    assert "log_mel" not in streams  # which is always there


def test_a_training_is_made_of_the_same_whatever_the_protocol():
    by_holdout, by_cv = (
        {job.name: job.values for job in Request(protocol=protocol, seeds=1).jobs("")}
        for protocol in ("holdout", "cv")
    )
    for name in Request(seeds=1).runs():
        assert by_holdout[name] == by_cv[name]
