"""Errors, settings and the registry."""

import dataclasses
import hashlib
import json
import math
import pickle
from typing import Any

import pytest

from valence_lib import errors
from valence_lib.errors import ClipError, PickleRefused, SettingsError, ValenceError, unknown_name
from valence_lib.registry import (
    ABLATIONS,
    BEST_MODEL,
    ENCODER_PRESETS,
    MODELS,
    NETWORKS,
    PRESETS,
    STREAMS,
    Stream,
    check_streams,
    missing_packages,
    modules_of,
    training_settings,
)
from valence_lib.settings import (
    PRECISIONS,
    STANDARDISE,
    CorpusSettings,
    FeatureSettings,
    Target,
    TrainingSettings,
)

ALL_SETTINGS = [FeatureSettings, Target, CorpusSettings, TrainingSettings]
OTHER_VALUES: dict[type, dict[str, Any]] = {
    FeatureSettings: {
        "sample_rate": 16000,
        "n_fft": 1024,
        "hop_length": 256,
        "n_mels": 64,
        "top_db": 60.0,
        "encoder": "0" * 64,
        "encoder_layer": "3",
    },
    Target: {"name": "arousal", "low": 0.0, "high": 7.0},
    CorpusSettings: {"clips_per_speaker": 3, "seed": 1},
    TrainingSettings: {
        "model": "CNN",
        "preset": "course",
        "seed": 1,
        "epochs": 17,
        "batch_size": 7,
        "learning_rate": 1e-4,
        "learning_rate_period": 5,
        "learning_rate_factor": 0.5,
        "weight_decay": 1e-4,
        "max_gradient_norm": 2.0,
        "streams": ["log_mel", "pitch"],
        "standardise": "clip",
        "precision": "bfloat16",
    },
}
EACH_VALUE = [(kind, name) for kind in ALL_SETTINGS for name in OTHER_VALUES[kind]]


# Errors


def test_all_errors_share_one_base():
    own = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and kind.__module__ == errors.__name__
    ]
    assert len(own) >= 8
    assert all(issubclass(kind, ValenceError) for kind in own)


@pytest.mark.parametrize("kind", [ClipError, PickleRefused])
def test_a_clip_error_keeps_its_reason_when_pickled(kind: type[ClipError]):
    error = pickle.loads(pickle.dumps(kind("silent", "no sound.")))
    assert type(error) is kind
    assert (error.reason, str(error)) == ("silent", "no sound.")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("LSTM", "There is no model 'LSTM'. Did you mean 'LSTM2'? Known: CNN, LSTM1, LSTM2."),
        ("cnn", "There is no model 'cnn'. Did you mean 'CNN'? Known: CNN, LSTM1, LSTM2."),
        ("transformer", "There is no model 'transformer'. Known: CNN, LSTM1, LSTM2."),
    ],
)
def test_the_message_for_an_unknown_name_names_the_nearest(given: str, message: str):
    assert unknown_name("model", given, ["LSTM2", "LSTM1", "CNN"]) == message


# Names, types and ranges


@pytest.mark.parametrize(
    ("kind", "given", "meant"),
    [
        (TrainingSettings, "lerning_rate", "learning_rate"),
        (FeatureSettings, "hop_lenght", "hop_length"),
        (Target, "hihg", "high"),
    ],
)
def test_an_unknown_parameter_is_refused_and_the_nearest_named(kind: Any, given: str, meant: str):
    with pytest.raises(SettingsError, match=f"no parameter '{given}'. Did you mean '{meant}'"):
        kind.from_mapping({given: 1})


@pytest.mark.parametrize(
    ("kind", "name", "value", "given_type"),
    [
        (TrainingSettings, "epochs", "20", "str"),
        (TrainingSettings, "epochs", 20.0, "float"),
        (TrainingSettings, "epochs", True, "bool"),
        (TrainingSettings, "learning_rate", "1e-3", "str"),
        (TrainingSettings, "learning_rate", None, "NoneType"),
        (TrainingSettings, "model", 2, "int"),
        (TrainingSettings, "standardise", ["train"], "list"),
        (TrainingSettings, "streams", "log_mel", "str"),
        (CorpusSettings, "seed", 0.5, "float"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused(kind: Any, name: str, value: Any, given_type: str):
    with pytest.raises(SettingsError) as caught:
        kind.from_mapping({name: value})
    default = getattr(kind(), name)
    for piece in (f"{name}={value!r}", given_type, type(default).__name__, f"{name}={default!r}"):
        assert piece in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        (FeatureSettings, "sample_rate", 0),
        (FeatureSettings, "n_fft", 2047),
        (FeatureSettings, "hop_length", 0),
        (FeatureSettings, "n_mels", 0),
        (FeatureSettings, "top_db", 0.0),
        (FeatureSettings, "encoder_layer", "-1"),
        (Target, "high", 1.0),
        (CorpusSettings, "clips_per_speaker", -1),
        (CorpusSettings, "seed", -1),
        (TrainingSettings, "epochs", 0),
        (TrainingSettings, "batch_size", -32),
        (TrainingSettings, "learning_rate", 0.0),
        (TrainingSettings, "learning_rate_period", -1),
        (TrainingSettings, "learning_rate_factor", 0.0),
        (TrainingSettings, "weight_decay", -1e-4),
        (TrainingSettings, "weight_decay", math.nan),
        (TrainingSettings, "max_gradient_norm", 0.0),
        (TrainingSettings, "seed", -1),
    ],
)
def test_an_impossible_value_is_refused(kind: Any, name: str, value: Any):
    with pytest.raises(SettingsError, match=rf"{name}={value!r} cannot be used: expected "):
        kind.from_mapping({name: value})


def test_a_rating_scale_may_not_be_upside_down():
    message = r"high=-1\.0 cannot be used: expected a number above low=1.0"
    with pytest.raises(SettingsError, match=message):
        Target.from_mapping({"low": 1.0, "high": -1.0})


@pytest.mark.parametrize("name", ["", "speaker", "a/b", "7", "mood\n"])
def test_a_target_is_named_as_a_column_of_ratings_can_be(name: str):
    with pytest.raises(SettingsError, match="cannot name what is predicted; expected the name of a column"):
        Target(name)


@pytest.mark.parametrize(
    ("name", "given", "message", "known"),
    [
        (
            "standardise",
            "speakers",
            r"no way to standardise 'speakers'\. Did you mean 'speaker'",
            STANDARDISE,
        ),
        ("precision", "float16", r"no precision 'float16'\. Did you mean 'bfloat16'", PRECISIONS),
    ],
)
def test_an_unknown_choice_is_refused_and_the_nearest_named(
    name: str, given: str, message: str, known: tuple
):
    with pytest.raises(SettingsError, match=message):
        TrainingSettings.from_mapping({name: given})
    assert [getattr(TrainingSettings(**{name: value}), name) for value in known] == [*known]


def test_an_int_is_taken_where_a_float_is_expected_and_is_the_same_setting():
    with_int = Target.from_mapping({"low": 1, "high": 5})
    assert type(with_int.low) is float
    assert with_int.digest() == Target().digest()


# Digests


def test_every_parameter_is_named_above():
    for kind in ALL_SETTINGS:
        assert [field.name for field in dataclasses.fields(kind)] == list(OTHER_VALUES[kind])


@pytest.mark.parametrize(("kind", "name"), EACH_VALUE)
def test_each_value_changes_the_digest(kind: Any, name: str):
    assert kind.from_mapping({name: OTHER_VALUES[kind][name]}).digest() != kind().digest()


def test_the_digest_is_the_sha256_of_canonical_json():
    text = (
        'FeatureSettings{"encoder":"","encoder_layer":"auto","hop_length":512,"n_fft":2048,"n_mels":128,'
        '"sample_rate":8000,"top_db":80.0}'
    )
    assert FeatureSettings().digest() == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize("kind", ALL_SETTINGS)
def test_settings_come_back_from_json(kind: Any):
    settings = kind.from_mapping(OTHER_VALUES[kind])
    again = kind.from_mapping(json.loads(json.dumps(settings.to_mapping())))
    assert again == settings
    assert again.digest() == settings.digest()
    assert settings.to_mapping() == OTHER_VALUES[kind]


# Models and presets


def test_the_course_report_gives_lstm2_its_own_recipe():
    settings = training_settings("LSTM2", "default", 7)
    assert (settings.model, settings.preset, settings.seed) == ("LSTM2", "default", 7)
    assert (settings.learning_rate_period, settings.learning_rate_factor) == (5, 0.5)
    assert (settings.weight_decay, settings.standardise) == (1e-4, "train")


@pytest.mark.parametrize(
    ("preset", "standardise"),
    [("default", "train"), ("course", "none"), ("clip", "clip"), ("speaker", "speaker"), ("tuned", "train")],
)
def test_presets_and_how_they_standardise(preset: str, standardise: str):
    named = {"default", "course", "clip", "speaker", "tuned"}
    assert set(PRESETS) == named | set(ABLATIONS) | set(ENCODER_PRESETS)
    made = [training_settings(model, preset, 0) for model in NETWORKS]
    assert [settings.standardise for settings in made] == [standardise] * len(NETWORKS)
    assert len({settings.digest() for settings in made}) == len(NETWORKS)


@pytest.mark.parametrize("model", MODELS)
def test_every_model_takes_the_streams_of_its_recipe(model: str):
    settings = training_settings(model, "speaker", 0)
    per = "clip" if MODELS[model].fitted else "frame"
    assert {STREAMS[name].per for name in settings.streams} == {per}
    streams = [STREAMS[name].module for name in settings.streams]
    assert modules_of(settings) == [MODELS[model].module, *streams]


def test_one_row_a_clip_cannot_be_standardised_within_the_clip():
    with pytest.raises(
        SettingsError, match=r"standardise='clip' was given for \['log_mel_statistics'\], of which a clip"
    ):
        training_settings("SVR", "clip", 0)


@pytest.mark.parametrize(
    ("preset", "streams"),
    [
        ("default", ["voice_statistics", "speaker_encoder"]),
        ("without-encoder", ["voice_statistics"]),
        ("with-log-mel", ["voice_statistics", "speaker_encoder", "log_mel_statistics"]),
        ("encoder", ["voice_statistics", "speaker_encoder", "encoder"]),
        ("encoder-speaker", ["voice_statistics", "speaker_encoder", "encoder"]),
    ],
)
def test_an_ablation_takes_streams_from_the_best_model_or_adds_some(preset: str, streams: list[str]):
    settings = training_settings(BEST_MODEL, preset, 0)
    assert list(settings.streams) == streams
    assert settings.standardise == ("speaker" if preset == "encoder-speaker" else "train")
    if preset in ABLATIONS:
        assert ABLATIONS[preset].added == (len(streams) > 2)


# Streams


@pytest.mark.parametrize("given", [[1], ["pitch", None], (("pitch",),)])
def test_streams_that_are_not_strings_are_refused(given: Any):
    with pytest.raises(
        SettingsError, match=r"streams=.* holds .*; expected strings, as in streams=\('log_mel'"
    ):
        TrainingSettings.from_mapping({"streams": given})


@pytest.mark.parametrize(
    ("streams", "message"),
    [
        (["pitches"], "There is no stream 'pitches'. Did you mean 'pitch'"),
        (["encoders:3"], "There is no stream 'encoders'. Did you mean 'encoder'"),
        (
            ["pitch", "egemaps"],
            "cannot be concatenated: pitch has one row a frame, egemaps has one row a clip",
        ),
        ([], r"streams=\[\] cannot be concatenated: there is none. Name one or more"),
        (["encoder:x"], "stream 'encoder:x' names no layer; expected a number, as in 'encoder:3'"),
        (["encoder:-1"], "stream 'encoder:-1' names no layer"),
        (["encoder:"], "stream 'encoder:' names no layer"),
        (["pitch:3"], "stream 'pitch:3' names a layer, but pitch has one row a frame"),
    ],
)
def test_streams_that_cannot_be_used_are_refused(streams: list[str], message: str):
    with pytest.raises(SettingsError, match=message):
        check_streams(streams)
    with pytest.raises(SettingsError, match=message):
        training_settings("LSTM2", "default", 0, streams=streams)


@pytest.mark.parametrize(
    ("model", "streams", "message"),
    [
        (
            "CNN",
            ["egemaps"],
            r"\['egemaps'\] have one row a clip, but CNN takes one row a frame.*log_mel, pitch\.$",
        ),
        ("CNN", ["encoder:3"], "have one row a clip, but CNN"),
        ("SVR", ["pitch"], "have one row a frame, but SVR takes one row a clip.*some of voice_statistics, "),
    ],
)
def test_streams_of_the_wrong_kind_for_the_model_are_refused(model: str, streams: list[str], message: str):
    with pytest.raises(SettingsError, match=message):
        training_settings(model, "default", 0, streams=streams)


def test_missing_packages_come_with_the_command_that_installs_them(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(STREAMS, "absent", Stream("valence_lib.voice", needs="absent_one", command="make it"))
    monkeypatch.setitem(STREAMS, "present", Stream("valence_lib.voice", needs="numpy", command="make numpy"))
    assert missing_packages(["pitch", "present", "absent:3", "absent"]) == {"absent_one": "make it"}
    assert missing_packages(["pitch", "present"]) == {}


@pytest.mark.parametrize(
    ("model", "preset", "changes", "message"),
    [
        ("LSTM3", "default", {}, "no model 'LSTM3'. Did you mean 'LSTM"),
        ("CNN", "defaults", {}, "no preset 'defaults'. Did you mean 'default'"),
        ("CNN", "default", {"batchsize": 8}, "no parameter 'batchsize'. Did you mean 'batch_size'"),
    ],
)
def test_an_unknown_model_preset_or_parameter_is_refused(
    model: str, preset: str, changes: dict[str, Any], message: str
):
    with pytest.raises(SettingsError, match=message):
        training_settings(model, preset, 0, **changes)
