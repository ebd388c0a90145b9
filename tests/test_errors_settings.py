"""What every error carries, and settings that refuse what they do not know."""

import dataclasses
import hashlib
import json
import math
import os
import pickle
import subprocess
import sys
from typing import Any

import pytest

from valence_lib import errors
from valence_lib.errors import ClipError, PickleRefused, SettingsError, ValenceError, unknown_name
from valence_lib.registry import LEDGER, NETWORKS, PRESETS, training_settings, trainings
from valence_lib.settings import (
    PRECISIONS,
    STANDARDISE,
    CorpusSettings,
    FeatureSettings,
    TrainingSettings,
)

ALL_SETTINGS = [FeatureSettings, CorpusSettings, TrainingSettings]
OTHER_VALUES: dict[type, dict[str, Any]] = {
    FeatureSettings: {
        "sample_rate": 16000,
        "n_fft": 1024,
        "hop_length": 256,
        "n_mels": 64,
        "top_db": 60.0,
    },
    CorpusSettings: {"valence_low": 0.0, "valence_high": 7.0, "clips_per_speaker": 3, "seed": 1},
    TrainingSettings: {
        "model": "CNN",
        "preset": "seed",
        "seed": 1,
        "epochs": 17,
        "batch_size": 7,
        "learning_rate": 1e-4,
        "learning_rate_period": 5,
        "learning_rate_factor": 0.5,
        "weight_decay": 1e-4,
        "max_gradient_norm": 2.0,
        "loss": "ccc",
        "side_weight": 0.3,
        "mask_frames": 5,
        "mask_columns": 6,
        "averaged_epochs": 3,
        "refit": True,
        "members": "CNN+LSTM2",
        "streams": "log_mel+voice",
        "standardise": "clip",
        "precision": "bfloat16",
    },
}
EACH_VALUE = [(kind, name) for kind in ALL_SETTINGS for name in OTHER_VALUES[kind]]


# Errors


def test_whoever_catches_the_base_catches_them_all():
    own = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and kind.__module__ == errors.__name__
    ]
    assert len(own) >= 8
    assert all(issubclass(kind, ValenceError) for kind in own)


@pytest.mark.parametrize("kind", [ClipError, PickleRefused])
def test_a_clip_error_keeps_its_reason_on_its_way_between_processes(kind: type[ClipError]):
    error = pickle.loads(pickle.dumps(kind("silent", "nothing is heard.")))
    assert type(error) is kind
    assert (error.reason, str(error)) == ("silent", "nothing is heard.")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("LSTM", "There is no model 'LSTM'. Did you mean 'LSTM2'? Known: CNN, LSTM1, LSTM2."),
        ("cnn", "There is no model 'cnn'. Did you mean 'CNN'? Known: CNN, LSTM1, LSTM2."),
        ("transformer", "There is no model 'transformer'. Known: CNN, LSTM1, LSTM2."),
        ("", "There is no model ''. Known: CNN, LSTM1, LSTM2."),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(given: str, message: str):
    assert unknown_name("model", given, ["LSTM2", "LSTM1", "CNN"]) == message


# Names, types and ranges


@pytest.mark.parametrize(
    ("kind", "given", "meant"),
    [
        (TrainingSettings, "epoch", "epochs"),
        (TrainingSettings, "lerning_rate", "learning_rate"),
        (TrainingSettings, "standardize", "standardise"),
        (FeatureSettings, "hop_lenght", "hop_length"),
        (FeatureSettings, "N_MELS", "n_mels"),
        (CorpusSettings, "valence_hihg", "valence_high"),
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
        (TrainingSettings, "learning_rate", False, "bool"),
        (TrainingSettings, "model", 2, "int"),
        (TrainingSettings, "standardise", b"train", "bytes"),
        (TrainingSettings, "standardise", ["train"], "list"),
        (FeatureSettings, "n_fft", "2048", "str"),
        (CorpusSettings, "valence_low", "1", "str"),
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
        (FeatureSettings, "n_fft", -2),
        (FeatureSettings, "n_fft", 2047),
        (FeatureSettings, "hop_length", 0),
        (FeatureSettings, "n_mels", 0),
        (FeatureSettings, "top_db", 0.0),
        (FeatureSettings, "top_db", math.nan),
        (CorpusSettings, "valence_high", 1.0),
        (CorpusSettings, "valence_high", math.nan),
        (CorpusSettings, "clips_per_speaker", -1),
        (CorpusSettings, "seed", -1),
        (TrainingSettings, "epochs", 0),
        (TrainingSettings, "batch_size", -32),
        (TrainingSettings, "learning_rate", 0.0),
        (TrainingSettings, "learning_rate", math.nan),
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


def test_the_scale_of_valence_may_not_be_upside_down():
    with pytest.raises(
        SettingsError, match=r"valence_high=-1\.0 cannot be used: expected a number above valence_low=1.0"
    ):
        CorpusSettings.from_mapping({"valence_low": 1.0, "valence_high": -1.0})


def test_an_unknown_way_to_standardise_is_refused_and_the_nearest_named():
    with pytest.raises(SettingsError, match=r"no way to standardise 'speakers'\. Did you mean 'speaker'"):
        TrainingSettings.from_mapping({"standardise": "speakers"})
    assert [TrainingSettings(standardise=kind).standardise for kind in STANDARDISE] == [*STANDARDISE]


def test_an_unknown_precision_is_refused_and_the_nearest_named():
    with pytest.raises(SettingsError, match=r"no precision 'float16'\. Did you mean 'bfloat16'"):
        TrainingSettings.from_mapping({"precision": "float16"})
    assert [TrainingSettings(precision=kind).precision for kind in PRECISIONS] == [*PRECISIONS]


@pytest.mark.parametrize("kind", ALL_SETTINGS)
def test_settings_are_frozen(kind: Any):
    with pytest.raises(dataclasses.FrozenInstanceError):
        kind().seed = 3


def test_an_int_is_taken_where_a_float_is_expected_and_is_the_same_setting():
    with_int = CorpusSettings.from_mapping({"valence_low": 1, "valence_high": 5})
    assert type(with_int.valence_low) is float
    assert with_int.digest() == CorpusSettings().digest()


@pytest.mark.parametrize("n_samples", [0, 1, 511, 512, 513, 2048, 8000, 12345])
@pytest.mark.parametrize("hop_length", [1, 160, 512])
def test_frames_are_centred_on_every_hop_within_the_waveform(n_samples: int, hop_length: int):
    frames = FeatureSettings(hop_length=hop_length).frames(n_samples)
    assert frames == len(range(0, n_samples + 1, hop_length))


# Digests


def test_every_parameter_is_named_above():
    for kind in ALL_SETTINGS:
        assert [field.name for field in dataclasses.fields(kind)] == list(OTHER_VALUES[kind])


@pytest.mark.parametrize(("kind", "name"), EACH_VALUE)
def test_each_value_changes_the_digest(kind: Any, name: str):
    assert kind.from_mapping({name: OTHER_VALUES[kind][name]}).digest() != kind().digest()


def test_kinds_of_settings_have_unlike_digests():
    assert len({kind().digest() for kind in ALL_SETTINGS}) == len(ALL_SETTINGS)


def test_the_digest_is_the_sha256_of_canonical_json():
    text = 'FeatureSettings{"hop_length":512,"n_fft":2048,"n_mels":128,"sample_rate":8000,"top_db":80.0}'
    assert FeatureSettings().digest() == hashlib.sha256(text.encode()).hexdigest()


def test_the_order_of_names_does_not_matter():
    forth = TrainingSettings.from_mapping({"epochs": 3, "seed": 2})
    back = TrainingSettings.from_mapping({"seed": 2, "epochs": 3})
    assert forth == back
    assert forth.digest() == back.digest()


def test_digests_are_the_same_in_every_process():
    source = (
        "from valence_lib.registry import training_settings\nfrom valence_lib.settings import *\n"
        "print(FeatureSettings().digest(), CorpusSettings().digest(), training_settings('LSTM2', 'seed', 3).digest())"
    )
    here = [
        FeatureSettings().digest(),
        CorpusSettings().digest(),
        training_settings("LSTM2", "seed", 3).digest(),
    ]
    for hash_seed in ("0", "12345"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        done = subprocess.run(
            [sys.executable, "-c", source], env=environment, capture_output=True, text=True, check=True
        )
        assert done.stdout.split() == here


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


@pytest.mark.parametrize("model", ["LSTM1", "CNN"])
def test_the_other_models_train_at_one_rate(model: str):
    settings = training_settings(model, "seed", 0)
    assert (settings.model, settings.learning_rate_period, settings.weight_decay) == (model, 0, 0.0)
    assert settings.standardise == "none"


@pytest.mark.parametrize(
    ("preset", "standardise"),
    [
        *(("default", "train"), ("seed", "none"), ("clip", "clip"), ("speaker", "speaker")),
        *(("best", "train"), ("best-speaker", "speaker")),
    ],
)
def test_a_preset_says_by_what_is_standardised(preset: str, standardise: str):
    named = {"default", "seed", "clip", "speaker", "best", "best-speaker", "tuned"}
    assert set(PRESETS) == named | {f"best-{name}" for name in LEDGER}
    assert training_settings("CNN", preset, 0).standardise == standardise


def test_every_model_and_preset_go_together():
    made = {training_settings(model, preset, 0).digest() for model in NETWORKS for preset in PRESETS}
    assert len(made) == len(NETWORKS) * len(PRESETS)


def test_one_row_a_clip_cannot_be_standardised_within_the_clip():
    with pytest.raises(SettingsError, match="standardise='clip' was given for log_mel_statistics"):
        training_settings("SVR", "clip", 0)


def test_a_preset_s_streams_are_for_networks():
    members = trainings("Blend", "best", 0)
    assert {name: settings.streams for name, settings in members.items()} == {
        "VoiceSVR": "voice_statistics",
        "AttentionLSTM": "voice+fine_timbre",
    }
    assert members["VoiceSVR"] == training_settings("VoiceSVR", "best", 0)


def test_a_preset_s_members_are_for_blends():
    members = trainings("Blend", "best-speaker", 0)
    assert {name: settings.streams for name, settings in members.items()} == {
        "VoiceRegression": "voice_statistics+frame_statistics",
        "AttentionLSTM": "voice+fine_mel",
    }
    for name, settings in members.items():
        assert trainings(name, "best-speaker", 0) == {"": settings}
    changed = trainings("Blend", "best-speaker", 0, members="SVR+CNNLSTM")
    assert list(changed) == ["SVR", "CNNLSTM"]


@pytest.mark.parametrize("name", LEDGER)
def test_every_line_of_the_ledger_changes_what_is_trained(name: str):
    assert trainings("Blend", f"best-{name}", 0) != trainings("Blend", "best", 0)


def test_changes_come_last():
    settings = training_settings("LSTM2", "seed", 0, standardise="speaker", weight_decay=0, epochs=2)
    assert (settings.standardise, settings.weight_decay, settings.epochs) == ("speaker", 0.0, 2)


@pytest.mark.parametrize(
    ("model", "preset", "changes", "message"),
    [
        ("LSTM3", "default", {}, "no model 'LSTM3'. Did you mean 'LSTM"),
        ("CNN", "defaults", {}, "no preset 'defaults'. Did you mean 'default'"),
        ("CNN", "default", {"batchsize": 8}, "no parameter 'batchsize'. Did you mean 'batch_size'"),
        ("CNN", "default", {"epochs": 2.5}, "epochs=2.5 is of type float"),
    ],
)
def test_an_unknown_model_preset_or_parameter_is_refused(
    model: str, preset: str, changes: dict[str, Any], message: str
):
    with pytest.raises(SettingsError, match=message):
        training_settings(model, preset, 0, **changes)
