"""Training: it learns, repeats itself byte for byte, goes on after a kill as if there had been none, and stops at NaN."""

import dataclasses
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from toy import FEATURES, make_clips, make_material

from valence_lib import runs, training
from valence_lib.batches import pad
from valence_lib.errors import RunError, SettingsError, TrainingError
from valence_lib.models import build_model
from valence_lib.registry import NETWORKS, SEED_MODELS, training_settings
from valence_lib.runs import Run
from valence_lib.settings import (
    TrainingSettings,
)
from valence_lib.training import Material, train

CPU = torch.device("cpu")
EPOCHS = 5
KEPT = ("best.safetensors", "finished.json", "settings.json", "history.csv")


@pytest.fixture(scope="module")
def store_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("features")


@pytest.fixture(scope="module")
def material(store_folder):
    return make_material(store_folder)


def _settings(model="LSTM2", **changes):
    return training_settings(model, "default", 0, **{"epochs": EPOCHS, "batch_size": 16, **changes})


def _train(material, folder, settings=None):
    return train(material, settings or _settings(), folder, CPU, progress=False)


def _bytes(folder):
    return {name: (folder / name).read_bytes() for name in KEPT}


@pytest.fixture(scope="module")
def undisturbed(material, tmp_path_factory):
    """One training that nothing interrupted: its folder and its history."""
    folder = tmp_path_factory.mktemp("undisturbed")
    return folder, _train(material, folder)


@pytest.mark.parametrize("model", SEED_MODELS)
def test_a_separable_problem_is_learned(material, tmp_path, model):
    history = _train(material, tmp_path, _settings(model, epochs=12, learning_rate=1e-2))
    variance = material.clips["valence"][material.rows("validation")].var(ddof=0)
    assert history["validation_mse"].min() < 0.25 * variance
    assert history["training_mse"].iloc[-1] < 0.25 * variance


def test_history_is_one_row_an_epoch_and_is_written_too(undisturbed):
    folder, history = undisturbed
    assert list(history) == ["epoch", "learning_rate", "training_mse", "validation_mse"]
    assert history["epoch"].tolist() == list(range(1, EPOCHS + 1))
    written = pd.read_csv(folder / "history.csv")
    pd.testing.assert_frame_equal(written, history)
    assert json.loads((folder / "seconds.json").read_text()).keys() == {"seconds", "device"}


def test_two_trainings_give_the_same_bytes(material, tmp_path, undisturbed):
    torch.rand(7)  # whatever the global generators were used for before
    np.random.rand(7)
    _train(material, tmp_path)
    assert _bytes(tmp_path) == _bytes(undisturbed[0])


def test_another_seed_gives_other_weights(material, tmp_path, undisturbed):
    _train(material, tmp_path, _settings(epochs=1))
    one = (tmp_path / "best.safetensors").read_bytes()
    train(material, training_settings("LSTM2", "default", 1, epochs=1, batch_size=16), tmp_path, CPU, False)
    assert (tmp_path / "best.safetensors").read_bytes() != one


def test_the_kept_weights_are_those_of_the_best_epoch(material, tmp_path):
    # Steps too long, so that the best epoch is not the last.
    history = _train(material, tmp_path, _settings("CNN", epochs=7, learning_rate=0.1))
    best = history["validation_mse"].idxmin()
    assert 0 < best < 6
    rows = material.rows("validation")
    predictions = Run.load(tmp_path).predict([material.store[row] for row in rows], [""] * len(rows))
    mse = np.mean((predictions - material.clips["valence"].to_numpy()[rows]) ** 2)
    assert mse == pytest.approx(history["validation_mse"][best], rel=1e-5)


def test_the_learning_rate_is_reduced_every_period(material, tmp_path):
    settings = _settings("CNN", learning_rate=1e-3, learning_rate_period=2, learning_rate_factor=0.5)
    history = _train(material, tmp_path, settings)
    assert history["learning_rate"].tolist() == [1e-3, 1e-3, 5e-4, 5e-4, 2.5e-4]


@pytest.mark.parametrize("max_gradient_norm", [1.0, 1e9])
def test_the_loop_is_adam_on_the_mse_with_clipped_gradients(material, tmp_path, max_gradient_norm):
    # All clips in one batch and no dropout leave nothing to chance but the first weights.
    settings = TrainingSettings(
        model="CNN", seed=4, epochs=3, batch_size=48, weight_decay=1e-2, max_gradient_norm=max_gradient_norm
    )
    copied = tmp_path / "copied.safetensors"
    history = train(
        material,
        settings,
        tmp_path,
        CPU,
        False,
        lambda _: shutil.copyfile(tmp_path / ".training" / "last.safetensors", copied),
    )
    rows = material.rows("train")
    frames = np.concatenate([material.store[row] for row in rows]).astype(np.float64)
    clips = [(material.store[row] - frames.mean(0)) / frames.std(0) for row in rows]
    batch, lengths = pad([clip.astype(np.float32) for clip in clips])
    truth = torch.tensor(material.clips["valence"].to_numpy()[rows], dtype=torch.float32)
    torch.manual_seed(4)
    model = build_model("CNN", FEATURES.n_mels)
    adam = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=1e-2)
    losses = []
    for _ in range(3):
        adam.zero_grad()
        loss = ((model(batch, lengths) - truth) ** 2).mean()
        losses.append(loss.item())
        loss.backward()
        norm = torch.sqrt(sum((p.grad**2).sum() for p in model.parameters()))
        for parameter in model.parameters():
            parameter.grad *= min(1.0, max_gradient_norm / norm.item())
        adam.step()
    assert history["training_mse"].tolist() == pytest.approx(losses, rel=1e-4)
    assert norm > 1  # so that the smaller limit did clip
    for name, tensor in load_file(copied).items():
        if name.startswith("model."):
            expected = model.state_dict()[name.removeprefix("model.")]
            torch.testing.assert_close(tensor, expected, atol=2e-5, rtol=1e-3)


@pytest.mark.parametrize("hook", ["predict_batches", "save_best", "write_json", "save_tensors"])
def test_an_interrupted_training_goes_on_as_if_undisturbed(
    material, tmp_path, undisturbed, monkeypatch, hook
):
    # Wherever in the third epoch: before validation, before and after its best weights, its history.
    calls, original = [], getattr(training, hook)

    def interrupt(*arguments):
        calls.append(hook)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(training, hook, interrupt)
        with pytest.raises(KeyboardInterrupt):
            _train(material, tmp_path)
    epochs = []
    run_epoch = training._Loop.run_epoch
    monkeypatch.setattr(
        training._Loop, "run_epoch", lambda loop, epoch: (epochs.append(epoch), run_epoch(loop, epoch))[1]
    )
    history = _train(material, tmp_path)
    assert epochs[0] == 3  # the first two epochs were not done again
    pd.testing.assert_frame_equal(history, undisturbed[1])
    assert _bytes(tmp_path) == _bytes(undisturbed[0])


KILLED_WHILE_WRITING = """
import os, signal, sys
from pathlib import Path
import torch
from toy import make_material
from valence_lib.registry import training_settings
from valence_lib.training import train

write_bytes, checkpoints = Path.write_bytes, []

def write_half(path, content):
    if path.name.startswith(".last."):
        checkpoints.append(path)
    if len(checkpoints) < 3:
        return write_bytes(path, content)
    write_bytes(path, content[: len(content) // 2])
    os.kill(os.getpid(), signal.SIGKILL)

Path.write_bytes = write_half
store, folder = map(Path, sys.argv[1:])
settings = training_settings("LSTM2", "default", 0, epochs=5, batch_size=16)
train(make_material(store), settings, folder, torch.device("cpu"), progress=False)
"""


def test_a_killed_training_goes_on_as_if_undisturbed(material, store_folder, tmp_path, undisturbed):
    command = [sys.executable, "-c", KILLED_WHILE_WRITING, str(store_folder), str(tmp_path)]
    killed = subprocess.run(command, cwd=Path(__file__).parent, check=False, timeout=120)
    assert killed.returncode == -signal.SIGKILL
    assert (
        len(pd.read_csv(tmp_path / ".training" / "history.csv")) == 3
    )  # though the third epoch's weights are lost
    assert _train(material, tmp_path).equals(undisturbed[1])
    assert _bytes(tmp_path) == _bytes(undisturbed[0])


def test_a_finished_training_is_not_done_again(material, tmp_path, undisturbed, monkeypatch):
    for name, content in _bytes(undisturbed[0]).items():
        (tmp_path / name).write_bytes(content)
    monkeypatch.setattr(training._Loop, "run_epoch", lambda *_: pytest.fail("an epoch was run"))
    pd.testing.assert_frame_equal(_train(material, tmp_path), undisturbed[1])


def test_a_checkpoint_of_other_settings_is_not_gone_on_with(material, tmp_path, undisturbed):
    _train(material, tmp_path, _settings(epochs=2, learning_rate=3e-3))
    _train(material, tmp_path)
    assert _bytes(tmp_path) == _bytes(undisturbed[0])


def test_a_checkpoint_of_other_clips_is_not_gone_on_with(material, store_folder, tmp_path, undisturbed):
    clips = make_clips(store_folder)
    clips.loc[3, "valence"] = 6 - clips.loc[3, "valence"]
    _train(make_material(store_folder, clips), tmp_path)
    assert _bytes(tmp_path) != _bytes(undisturbed[0])
    _train(material, tmp_path)
    assert _bytes(tmp_path) == _bytes(undisturbed[0])


@pytest.fixture
def cut_off(material, tmp_path):
    """What a training leaves that is stopped after its first epoch: the path of its checkpoint."""
    with pytest.raises(KeyboardInterrupt):
        train(material, _settings("CNN"), tmp_path, CPU, False, _interrupt)
    return tmp_path / ".training" / "last.safetensors"


def test_a_damaged_checkpoint_is_said_to_be_damaged(material, tmp_path, cut_off):
    cut_off.write_bytes(cut_off.read_bytes()[:100])
    with pytest.raises(RunError, match="holds of a training is damaged"):
        _train(material, tmp_path, _settings("CNN"))


def test_a_checkpoint_without_its_digest_is_said_to_be_damaged(material, tmp_path, cut_off):
    runs.save_tensors(cut_off, load_file(cut_off), {})
    with pytest.raises(RunError, match="holds of a training is damaged"):
        _train(material, tmp_path, _settings("CNN"))


def test_what_a_training_prints_does_not_tell_that_it_was_cut_off(material, tmp_path, capsys):
    train(material, _settings("CNN"), tmp_path / "undisturbed", CPU)
    printed = capsys.readouterr().out
    assert printed.count("epoch") == EPOCHS
    with pytest.raises(KeyboardInterrupt):
        train(material, _settings("CNN"), tmp_path, CPU, after_epoch=_interrupt)
    capsys.readouterr()
    for _ in range(2):  # going on, and finding it finished
        train(material, _settings("CNN"), tmp_path, CPU)
        assert capsys.readouterr().out == printed


def test_what_is_fitted_at_once_prints_the_same_line_when_it_is_found_finished(material, tmp_path, capsys):
    printed = []
    for _ in range(2):
        train(material, _settings("SVR"), tmp_path, CPU)
        printed.append(capsys.readouterr().out)
    assert printed[0].startswith("epoch   1/1 ")
    assert printed[1] == printed[0]


def test_a_training_that_is_cut_off_leaves_the_one_before_whole(material, tmp_path, monkeypatch):
    # A training of other settings in the same folder, cut off before its first epoch has ended.
    _train(material, tmp_path, _settings("CNN", epochs=1))
    before = _bytes(tmp_path)
    monkeypatch.setattr(training, "predict_batches", _interrupt)
    with pytest.raises(KeyboardInterrupt):
        _train(material, tmp_path, _settings("CNN", epochs=1, standardise="clip"))
    assert _bytes(tmp_path) == before
    assert Run.load(tmp_path).training == _settings("CNN", epochs=1)


def test_a_training_that_is_killed_while_it_takes_its_place_does_so_once_more(
    material, tmp_path, undisturbed, monkeypatch
):
    calls, original = [], shutil.copyfile
    monkeypatch.setattr(
        training.shutil,
        "copyfile",
        lambda *a: _interrupt() if len(calls) == 2 else (calls.append(a), original(*a)),
    )
    with pytest.raises(KeyboardInterrupt):
        _train(material, tmp_path)
    monkeypatch.undo()
    monkeypatch.setattr(training._Loop, "run_epoch", lambda *_: pytest.fail("an epoch was run"))
    pd.testing.assert_frame_equal(_train(material, tmp_path), undisturbed[1])
    assert _bytes(tmp_path) == _bytes(undisturbed[0])
    assert not (tmp_path / ".training").exists()


def _interrupt(*_):
    raise KeyboardInterrupt


def test_test_labels_change_no_weight(store_folder, tmp_path, undisturbed):
    clips = make_clips(store_folder)
    clips.loc[clips["part"] == "test", "valence"] = 1.0
    history = _train(make_material(store_folder, clips), tmp_path)
    assert (tmp_path / "best.safetensors").read_bytes() == (undisturbed[0] / "best.safetensors").read_bytes()
    pd.testing.assert_frame_equal(history, undisturbed[1])


class _Poisoned:
    """A store one of whose clips is not a number."""

    def __init__(self, store, row):
        self.store, self.row = store, row
        self.settings, self.lengths, self.width = store.settings, store.lengths, store.width

    def of(self, names):
        return self

    def __len__(self):
        return len(self.store)

    def __getitem__(self, row):
        return self.store[row] * np.float32(np.nan if row == self.row else 1)

    def __iter__(self):
        return (self[row] for row in range(len(self)))


@pytest.mark.parametrize("model", SEED_MODELS)
def test_a_loss_that_is_not_a_number_stops_the_training(material, tmp_path, model):
    poisoned = Material(_Poisoned(material.store, 17), material.clips)
    with pytest.raises(TrainingError, match=r"loss is nan in epoch 1, batch [1-6],") as raised:
        _train(poisoned, tmp_path, _settings(model, standardise="none", batch_size=8))
    named = str(raised.value).split("on the clips ")[1].split(".")[0].split(", ")
    assert material.clips["id"][17] in named
    assert len(named) == 8
    assert "learning_rate=0.001" in str(raised.value)
    assert not (tmp_path / "last.safetensors").exists()


def test_a_validation_error_that_is_not_a_number_stops_the_training(material, tmp_path):
    row = material.rows("validation")[2]
    poisoned = Material(_Poisoned(material.store, row), material.clips)
    with pytest.raises(TrainingError, match=r"epoch 1") as raised:
        _train(poisoned, tmp_path, _settings("CNN"))
    assert material.clips["id"][row] in str(raised.value)


def test_the_standardiser_sees_the_training_part_alone(material, tmp_path):
    row = material.rows("test")[0]
    _train(Material(_Poisoned(material.store, row), material.clips), tmp_path, _settings("CNN", epochs=1))
    kept = load_file(tmp_path / "best.safetensors")
    frames = np.concatenate([material.store[row] for row in material.rows("train")]).astype(np.float64)
    assert kept["standardiser.mean"].numpy() == pytest.approx(frames.mean(0)[None], abs=1e-3)
    assert kept["standardiser.deviation"].numpy() == pytest.approx(frames.std(0)[None], rel=1e-4)


@pytest.mark.parametrize("standardise", ["speaker", "clip", "none"])
def test_every_way_to_standardise_trains_and_loads(material, tmp_path, standardise):
    history = _train(material, tmp_path, _settings("CNN", epochs=1, standardise=standardise))
    assert history["validation_mse"].notna().all()
    run = Run.load(tmp_path)
    assert run.standardiser.kind == standardise
    assert run.standardiser.groups == (tuple(f"S{n}" for n in range(8)) if standardise == "speaker" else ())


def test_progress_is_a_line_an_epoch_where_there_is_no_terminal(material, tmp_path, capsys):
    train(material, _settings("CNN", epochs=2), tmp_path, CPU)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("training MSE")[0].strip() for line in lines] == ["epoch   1/2", "epoch   2/2"]


def test_material_digest_sees_all_that_training_can_see(material, store_folder):
    digests = {material.digest()}
    for column, value in (
        ("valence", 1.25),
        ("part", "test"),
        ("speaker", "S9"),
        ("id", "renamed"),
        ("digest", "0" * 64),
        ("arousal", "2.5"),
        ("emotion", "joy"),
    ):
        clips = material.clips.copy()
        clips.loc[0, column] = value
        digests.add(Material(material.store, clips).digest())
    assert len(digests) == 8
    assert make_material(store_folder).digest() == material.digest()
    assert material.rows("validation").tolist() == list(range(48, 64))


def test_training_leaves_one_thread_and_deterministic_algorithms(undisturbed):
    assert torch.get_num_threads() == 1
    assert torch.are_deterministic_algorithms_enabled()


def test_standardising_by_unnamed_speakers_is_refused(store_folder, tmp_path):
    clips = make_clips(store_folder).assign(speaker="")
    with pytest.raises(SettingsError, match="does not name the speaker of every clip"):
        _train(make_material(store_folder, clips), tmp_path, _settings("CNN", standardise="speaker"))


@pytest.mark.parametrize("model", NETWORKS)
def test_products_in_half_precision_learn_nearly_the_same(material, tmp_path, model):
    exact = _train(material, tmp_path / "float32", _settings(model, epochs=3))
    half = _train(material, tmp_path / "bfloat16", _settings(model, epochs=3, precision="bfloat16"))
    np.testing.assert_allclose(half["validation_mse"], exact["validation_mse"], rtol=0.1)
    assert (half["validation_mse"] != exact["validation_mse"]).all()
    weights = load_file(tmp_path / "bfloat16" / "best.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}


# What our own networks are trained with


OURS = {"loss": "mse+ccc", "mask_frames": 4, "mask_columns": 2, "averaged_epochs": 3, "side_weight": 0.3}


@pytest.fixture(scope="module")
def labelled(material):
    """The toy corpus with an arousal, which falls as valence rises, and two emotions."""
    valence = material.clips["valence"]
    emotion = np.where(valence > 3, "joy", "anger")
    return Material(material.store, material.clips.assign(arousal=(6 - valence).astype(str), emotion=emotion))


@pytest.mark.parametrize("model", ["AttentionLSTM", "CNNLSTM"])
def test_with_all_that_ours_are_trained_with_an_interrupted_training_goes_on_undisturbed(
    labelled, tmp_path, model
):
    settings = _settings(model, **OURS)
    history = _train(labelled, tmp_path / "undisturbed", settings)
    epochs = []

    def interrupt(row):
        epochs.append(row["epoch"])
        if row["epoch"] == 4:  # one epoch after the weights began to be averaged
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(labelled, settings, tmp_path / "cut off", CPU, False, interrupt)
    again = train(labelled, settings, tmp_path / "cut off", CPU, False, interrupt)
    assert epochs == [1, 2, 3, 4, 5]
    pd.testing.assert_frame_equal(again, history)
    assert _bytes(tmp_path / "cut off") == _bytes(tmp_path / "undisturbed")


def test_side_tasks_teach_the_model_and_are_left_out_of_the_run(labelled, tmp_path):
    settings = _settings("AttentionLSTM", epochs=2)
    alone = _train(labelled, tmp_path / "alone", settings)
    beside = _train(labelled, tmp_path / "beside", dataclasses.replace(settings, side_weight=1.0))
    assert (alone["training_mse"] != beside["training_mse"]).all()
    tensors = [load_file(tmp_path / name / "best.safetensors") for name in ("alone", "beside")]
    assert tensors[0].keys() == tensors[1].keys()


def test_test_labels_of_side_tasks_change_no_weight(labelled, tmp_path):
    settings, weights = _settings("AttentionLSTM", epochs=2, **{**OURS, "averaged_epochs": 0}), []
    clips = labelled.clips.copy()
    clips.loc[clips["part"] != "train", ["arousal", "emotion"]] = ["1.0", "disgust"]
    for name, material in (("true", labelled), ("poisoned", Material(labelled.store, clips))):
        _train(material, tmp_path / name, settings)
        weights.append((tmp_path / name / "best.safetensors").read_bytes())
    assert weights[0] == weights[1]


def test_side_tasks_need_a_model_that_can_learn_them(labelled, tmp_path):
    with pytest.raises(SettingsError, match=r"side_weight=0.5 was given, but CNN has no method 'read'"):
        _train(labelled, tmp_path, _settings("CNN", side_weight=0.5))


def test_the_kept_weights_are_the_mean_of_the_last_epochs(material, tmp_path):
    copies = []

    def copy(_):
        path = tmp_path / f"{len(copies)}.safetensors"
        shutil.copyfile(tmp_path / "run" / ".training" / "last.safetensors", path)
        copies.append(load_file(path))

    settings = _settings("AttentionLSTM", averaged_epochs=3)
    train(material, settings, tmp_path / "run", CPU, False, copy)
    kept = load_file(tmp_path / "run" / "best.safetensors")
    for name in (name for name in kept if name.startswith("model.")):
        expected = torch.stack([tensors[name] for tensors in copies[-3:]]).mean(0)
        torch.testing.assert_close(kept[name], expected, atol=1e-6, rtol=1e-6)


def test_nothing_is_hidden_in_validation(material, tmp_path):
    # Masks as wide as the clip: training sees little, and what it is validated on is whole.
    history = _train(material, tmp_path, _settings("AttentionLSTM", mask_frames=50, mask_columns=8))
    rows = material.rows("validation")
    predictions = Run.load(tmp_path).predict(
        [material.store.of("log_mel")[row] for row in rows], [""] * len(rows)
    )
    mse = np.mean((predictions - material.clips["valence"].to_numpy()[rows]) ** 2)
    assert mse == pytest.approx(history["validation_mse"].min(), rel=1e-5)
