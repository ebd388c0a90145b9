"""Experiments: folds, members and refits are the trainings that they say they are, and no test label reaches a weight."""

import numpy as np
import pytest
import torch
from toy import FEATURES, Tones, make_clips, make_material

from valence_lib.errors import SettingsError
from valence_lib.experiments import predict_held_out, run_experiment
from valence_lib.protocols import OUT_OF_FOLD, VALIDATED, divide
from valence_lib.registry import training_settings
from valence_lib.runs import Blend, Run, load_run
from valence_lib.store import store_streams
from valence_lib.training import train

CPU = torch.device("cpu")
N_FOLDS = 3
BLEND = {"members": "SVR+LSTM2", "epochs": 2}
NETWORK = {"epochs": 3, "averaged_epochs": 2, "side_weight": 0.5, "refit": True, "streams": "voice+fine_mel"}


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    """The toy corpus, with labels for side tasks and some clips without a rating."""
    folder = tmp_path_factory.mktemp("features")
    clips = make_clips(folder)
    store_streams(folder, Tones(), clips, ["voice", "fine_mel"], FEATURES, progress=False)
    generator = np.random.default_rng(0)
    labels = {
        "arousal": generator.uniform(1, 5, len(clips)).round(1).astype(str),
        "emotion": generator.choice(["joy", "anger", "fear"], len(clips)),
    }
    clips = clips.assign(**labels)
    clips.loc[[5, 41], "valence"] = np.nan
    return make_material(folder, clips)


@pytest.fixture(scope="module")
def folds(material):
    return divide(material.clips, "cv", N_FOLDS, 0).divisions


@pytest.fixture(scope="module")
def holdout(material):
    return divide(material.clips, "holdout", N_FOLDS, 0).divisions


def _run(material, divisions, folder, model, **changes):
    preset = changes.pop("preset", "default")
    return run_experiment(material, divisions, folder, CPU, model, preset, 0, progress=False, **changes)


@pytest.fixture(scope="module")
def blended(material, folds, tmp_path_factory):
    """A cross-validation of a blend of two: its folder and its history."""
    folder = tmp_path_factory.mktemp("blend")
    return folder, _run(material, folds, folder, "Blend", **BLEND)


def _weights(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("best.safetensors")
    }


def _hear(material, run, rows):
    """What a run predicts for some rows, read from the store."""

    class Some:
        def of(self, names):
            return [material.store.of(names)[int(row)] for row in rows]

    return run.hear(Some(), material.clips["speaker"].iloc[rows].tolist())


# Where the trainings are


def test_a_blend_in_a_cross_validation_is_one_training_a_fold_and_member(blended, folds):
    folder, history = blended
    places = {f"{fold}/{member}" for fold in folds for member in ("SVR", "LSTM2")}
    validated = {f"{fold}/SVR/{VALIDATED}" for fold in folds}  # whose recipe refits
    assert {path.rsplit("/", 1)[0] for path in _weights(folder)} == places | validated
    found = history.groupby(["fold", "member"]).size().to_dict()
    assert found == {(fold, member): n for fold in folds for member, n in (("SVR", 1), ("LSTM2", 2))}
    run = load_run(folder)
    assert isinstance(run, Blend)
    assert len(run.members) == N_FOLDS
    assert all(isinstance(fold, Blend) and len(fold.members) == 2 for fold in run.members)


def test_what_is_finished_is_not_done_again(material, folds, blended, fingerprint):
    folder, history = blended
    before = {name: entry for name, entry in fingerprint(folder).items() if "safetensors" in name}
    again = _run(material, folds, folder, "Blend", **BLEND)
    after = fingerprint(folder)
    assert {name: after[name] for name in before} == before
    assert again.drop(columns="validation_mse").equals(history.drop(columns="validation_mse"))


def test_a_model_alone_is_trained_in_the_runs_own_folder(material, holdout, tmp_path):
    _run(material, holdout, tmp_path, "SVR")
    assert set(_weights(tmp_path)) == {"best.safetensors", f"{VALIDATED}/best.safetensors"}
    assert isinstance(load_run(tmp_path), Run)


# Predictions


def test_each_rated_clip_is_predicted_once_by_what_did_not_hear_it(material, folds, blended):
    held_out = predict_held_out(material, folds, blended[0])
    columns = ["id", "part", "fold", "speaker", "duration_seconds", "truth", "prediction"]
    assert list(held_out) == columns
    assert held_out["prediction"].notna().all()
    rated = material.clips[material.clips["valence"].notna()].set_index("id")
    for part in (OUT_OF_FOLD, "validation"):
        found = held_out[held_out["part"] == part].set_index("id")
        assert sorted(found.index) == sorted(rated.index)
        assert found["truth"].equals(rated["valence"].loc[found.index].rename("truth"))
    tested = held_out[held_out["part"] == OUT_OF_FOLD]
    for fold, parts in folds.items():
        of_fold = tested[tested["fold"] == fold.removeprefix("fold-")]
        rows = np.flatnonzero(parts == "test")
        assert of_fold["id"].tolist() == material.clips["id"].iloc[rows].tolist()
        expected = _hear(material, load_run(blended[0] / fold), rows)
        np.testing.assert_allclose(of_fold["prediction"], expected, atol=1e-5)


def test_validation_clips_are_predicted_by_the_training_without_them(material, folds, blended):
    held_out = predict_held_out(material, folds, blended[0])
    validated = held_out[held_out["part"] == "validation"]
    for fold, parts in folds.items():
        rows = np.flatnonzero(parts == "validation")
        members = [Run.load(blended[0] / fold / name) for name in (f"SVR/{VALIDATED}", "LSTM2")]
        expected = np.mean([_hear(material, run, rows) for run in members], axis=0)
        of_fold = validated[validated["fold"] == fold.removeprefix("fold-")]
        np.testing.assert_allclose(of_fold["prediction"], expected, atol=1e-5)
    only_tested = predict_held_out(material, folds, blended[0], validated=False)
    assert set(only_tested["part"]) == {OUT_OF_FOLD, "unlabelled"}


def test_an_unlabelled_clip_has_the_mean_of_all_folds(material, folds, blended):
    held_out = predict_held_out(material, folds, blended[0])
    found = held_out[held_out["part"] == "unlabelled"]
    assert found["id"].tolist() == material.clips["id"].iloc[[5, 41]].tolist()
    assert (found["fold"] == "").all()
    assert found["truth"].isna().all()
    expected = _hear(material, load_run(blended[0]), np.array([5, 41]))
    np.testing.assert_allclose(found["prediction"], expected, atol=1e-5)


def test_a_holdout_keeps_the_names_of_its_parts(material, holdout, tmp_path):
    _run(material, holdout, tmp_path, "SVR")
    held_out = predict_held_out(material, holdout, tmp_path)
    sizes = {part: int((holdout[""] == part).sum()) for part in ("test", "validation", "unlabelled")}
    assert held_out["part"].value_counts().to_dict() == sizes
    assert (held_out["fold"] == "").all()
    rows = np.flatnonzero(np.isin(holdout[""], ["test", "unlabelled"]))
    expected = dict(
        zip(material.clips["id"].iloc[rows], _hear(material, load_run(tmp_path), rows), strict=True)
    )
    tested = held_out[held_out["part"] != "validation"].set_index("id")["prediction"]
    np.testing.assert_allclose(tested, [expected[name] for name in tested.index], atol=1e-5)


# Refitting


@pytest.mark.parametrize(("model", "changes"), [("SVR", {}), ("AttentionLSTM", NETWORK)])
def test_a_refit_is_the_training_on_both_parts(material, holdout, tmp_path, model, changes):
    _run(material, holdout, tmp_path / "run", model, **changes)
    settings = training_settings(model, "default", 0, **changes)
    parts = holdout[""]
    both = material.divided(np.where(parts == "validation", "train", parts))
    train(both, settings, tmp_path / "both", CPU, progress=False)
    train(material.divided(parts), settings, tmp_path / "without", CPU, progress=False)
    weights = {
        name: (tmp_path / name / "best.safetensors").read_bytes() for name in ("run", "both", "without")
    }
    assert weights["run"] == weights["both"] != weights["without"]
    assert (tmp_path / "run" / VALIDATED / "best.safetensors").read_bytes() == weights["without"]

    # Its standardiser is that of all clips of both parts.
    heard = material.store.of(settings.streams)
    rows = np.flatnonzero(np.isin(parts, ["train", "validation"]))
    frames = np.concatenate([heard[int(row)] for row in rows]).astype(np.float64)
    run = Run.load(tmp_path / "run")
    np.testing.assert_allclose(run.standardiser.mean[0], frames.mean(0), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(run.standardiser.deviation[0], frames.std(0), rtol=1e-3, atol=1e-2)


def test_without_validated_only_the_refit_is_trained(material, holdout, tmp_path):
    _run(material, holdout, tmp_path, "SVR", validated=False)
    assert set(_weights(tmp_path)) == {"best.safetensors"}
    assert set(predict_held_out(material, holdout, tmp_path, validated=False)["part"]) == {
        "test",
        "unlabelled",
    }


# Labels that must not matter


EXPERIMENTS = [
    ("AttentionLSTM", NETWORK),
    ("AttentionLSTM", NETWORK | {"refit": False, "averaged_epochs": 0, "preset": "speaker"}),
    ("SVR", {}),
    (
        "Blend",
        {"members": "SVR+AttentionLSTM", "epochs": 2},
    ),  # with side tasks, averages and refits, by their recipes,
]


def _poisoned(material, rows):
    """The same clips, of which some have nonsense for labels."""
    clips = material.clips.copy()
    generator = np.random.default_rng(1)
    clips.loc[rows, "valence"] = generator.uniform(-1000, 1000, len(rows))
    clips.loc[rows, "arousal"] = generator.uniform(-1000, 1000, len(rows)).astype(str)
    clips.loc[rows, "emotion"] = [f"nonsense {number}" for number in range(len(rows))]
    return type(material)(material.store, clips)


@pytest.mark.parametrize(("model", "changes"), EXPERIMENTS, ids=["averaged", "best epoch", "SVR", "blend"])
def test_poisoned_test_labels_change_no_byte_of_any_fold(material, folds, tmp_path, model, changes):
    _run(material, folds, tmp_path / "clean", model, **changes)
    clean = _weights(tmp_path / "clean")
    n_members = len(changes.get("members", model).split("+"))
    assert len(clean) == N_FOLDS * n_members * (2 if changes.get("refit", True) else 1)
    for fold, parts in folds.items():
        poisoned = _poisoned(material, np.flatnonzero(parts == "test"))
        assert poisoned.digest() != material.digest()
        _run(poisoned, {fold: parts}, tmp_path / "poisoned", model, **changes)
    assert _weights(tmp_path / "poisoned") == clean


def test_poisoned_training_labels_do_change_them(material, holdout, tmp_path):
    poisoned = _poisoned(material, np.flatnonzero(holdout[""] == "train")[:3])
    for name, given in (("clean", material), ("poisoned", poisoned)):
        _run(given, holdout, tmp_path / name, "SVR")
    clean, other = _weights(tmp_path / "clean"), _weights(tmp_path / "poisoned")
    assert all(clean[name] != other[name] for name in clean)


@pytest.mark.parametrize(("model", "changes"), [EXPERIMENTS[0], EXPERIMENTS[2]], ids=["averaged", "SVR"])
def test_poisoned_validation_labels_reach_the_refit_alone(material, holdout, tmp_path, model, changes):
    poisoned = _poisoned(material, np.flatnonzero(holdout[""] == "validation"))
    for name, given in (("clean", material), ("poisoned", poisoned)):
        _run(given, holdout, tmp_path / name, model, **changes)
    clean, other = _weights(tmp_path / "clean"), _weights(tmp_path / "poisoned")
    judged = f"{VALIDATED}/best.safetensors"
    assert clean[judged] == other[judged]
    assert clean["best.safetensors"] != other["best.safetensors"]


# Names


def test_an_unknown_member_is_told_the_nearest(material, holdout, tmp_path):
    with pytest.raises(SettingsError, match=r"There is no model 'LSTM3'\. Did you mean 'LSTM"):
        _run(material, holdout, tmp_path, "Blend", members="SVR+LSTM3")
    assert not list(tmp_path.iterdir())


def test_side_tasks_need_a_model_that_reads(material, holdout, tmp_path):
    with pytest.raises(SettingsError, match=r"side_weight=0\.5 was given, but CNN has no method 'read'"):
        _run(material, holdout, tmp_path, "CNN", side_weight=0.5, epochs=1)
