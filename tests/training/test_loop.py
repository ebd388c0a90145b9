"""Training: it learns, gives the same bytes again, resumes after a kill as if undisturbed, stops at NaN."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from toy import FEATURES, make_clips, make_training_data

from valence_lib.errors import RunError, SettingsError, TrainingError
from valence_lib.models.build import build_model
from valence_lib.registry import COURSE_MODELS, NETWORKS, training_settings
from valence_lib.settings import TrainingSettings
from valence_lib.training import loop
from valence_lib.training.batches import load
from valence_lib.training.loop import TrainingData, train
from valence_lib.training.runs import load_run

CPU = torch.device("cpu")
EPOCHS = 5
KEPT = ("best.safetensors", "finished.json", "settings.json", "history.csv")


@pytest.fixture(scope="module")
def store_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("features")


@pytest.fixture(scope="module")
def training_data(store_folder):
    return make_training_data(store_folder)


def _settings(model="LSTM2", **changes):
    return training_settings(model, "default", 0, **{"epochs": EPOCHS, "batch_size": 16, **changes})


def _train(training_data, folder, settings=None):
    return train(training_data, settings or _settings(), folder, CPU, progress=False)


def _bytes(folder):
    return {name: (folder / name).read_bytes() for name in KEPT}


@pytest.fixture(scope="module")
def undisturbed(training_data, tmp_path_factory):
    """One training that nothing interrupted: its folder and its history."""
    folder = tmp_path_factory.mktemp("undisturbed")
    return folder, _train(training_data, folder)


@pytest.mark.parametrize("model", COURSE_MODELS)
def test_a_separable_problem_is_learned(training_data, tmp_path, model):
    history = _train(training_data, tmp_path, _settings(model, epochs=12, learning_rate=1e-2))
    variance = training_data.clips["rating"][training_data.rows("validation")].var(ddof=0)
    assert history["validation_mse"].min() < 0.25 * variance
    assert history["training_mse"].iloc[-1] < 0.25 * variance


def test_history_is_one_row_an_epoch_and_is_written_too(undisturbed):
    folder, history = undisturbed
    assert list(history) == ["epoch", "learning_rate", "training_mse", "validation_mse"]
    assert history["epoch"].tolist() == list(range(1, EPOCHS + 1))
    written = pd.read_csv(folder / "history.csv")
    pd.testing.assert_frame_equal(written, history)
    assert json.loads((folder / "seconds.json").read_text()).keys() == {"seconds", "device"}


def test_two_trainings_give_the_same_bytes(training_data, tmp_path, undisturbed):
    torch.rand(7)  # whatever the global generators were used for before
    np.random.rand(7)
    _train(training_data, tmp_path)
    assert _bytes(tmp_path) == _bytes(undisturbed[0])


def test_the_weights_are_those_of_the_best_epoch(training_data, tmp_path):
    # Steps too long, so that the best epoch is not the last.
    history = _train(training_data, tmp_path, _settings("CNN", epochs=7, learning_rate=0.1))
    best = history["validation_mse"].idxmin()
    assert 0 < best < 6
    rows = training_data.rows("validation")
    predictions = load_run(tmp_path).predict_features(training_data.source(rows), [""] * len(rows))
    mse = np.mean((predictions - training_data.clips["rating"].to_numpy()[rows]) ** 2)
    assert mse == pytest.approx(history["validation_mse"][best], rel=1e-5)


def test_the_learning_rate_is_reduced_every_period(training_data, tmp_path):
    settings = _settings("CNN", learning_rate=1e-3, learning_rate_period=2, learning_rate_factor=0.5)
    history = _train(training_data, tmp_path, settings)
    assert history["learning_rate"].tolist() == [1e-3, 1e-3, 5e-4, 5e-4, 2.5e-4]


@pytest.mark.parametrize("max_gradient_norm", [1.0, 1e9])
def test_the_loop_is_adam_on_the_mse_with_clipped_gradients(training_data, tmp_path, max_gradient_norm):
    # With all clips in one batch and no dropout, only the first weights are random.
    settings = TrainingSettings(
        model="CNN", seed=4, epochs=3, batch_size=48, weight_decay=1e-2, max_gradient_norm=max_gradient_norm
    )
    checkpoint, copied = tmp_path / ".training" / "checkpoint.pt", tmp_path / "copied.pt"
    history = train(
        training_data, settings, tmp_path, CPU, False, lambda _: shutil.copyfile(checkpoint, copied)
    )
    rows = training_data.rows("train")
    frames = np.concatenate([training_data.store[row] for row in rows]).astype(np.float64)
    mean, deviation = torch.tensor(frames.mean(0)), torch.tensor(frames.std(0))
    (batch,) = load([rows], lambda row: ((torch.tensor(training_data.store[row]) - mean) / deviation).float())
    truth = torch.tensor(training_data.clips["rating"].to_numpy()[rows], dtype=torch.float32)
    torch.manual_seed(4)
    model = build_model("CNN", [FEATURES.n_mels])
    adam = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=1e-2)
    losses = []
    for _ in range(3):
        adam.zero_grad()
        loss = ((model(batch.frames, batch.lengths) - truth) ** 2).mean()
        losses.append(loss.item())
        loss.backward()
        norm = torch.sqrt(sum((p.grad**2).sum() for p in model.parameters()))
        for parameter in model.parameters():
            parameter.grad *= min(1.0, max_gradient_norm / norm.item())
        adam.step()
    assert history["training_mse"].tolist() == pytest.approx(losses, rel=1e-4)
    assert norm > 1  # so that the smaller limit did clip
    found = torch.load(copied, weights_only=True)["model"]
    torch.testing.assert_close(found, model.state_dict(), atol=2e-5, rtol=1e-3)


@pytest.mark.parametrize("hook", ["loop.predict_batches", "loop.save_best", "torch.save"])
def test_an_interrupted_training_resumes_as_if_undisturbed(
    training_data, tmp_path, undisturbed, monkeypatch, hook
):
    # Anywhere in the third epoch: before validation, before and after its best weights.
    module, name = (torch, "save") if hook == "torch.save" else (loop, hook.removeprefix("loop."))
    calls, original = [], getattr(module, name)

    def interrupt(*arguments):
        calls.append(hook)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(module, name, interrupt)
        with pytest.raises(KeyboardInterrupt):
            _train(training_data, tmp_path)
    (tmp_path / ".training" / ".checkpoint.half").touch()  # as after a kill
    epochs = []
    run_epoch = loop._Loop.run_epoch
    monkeypatch.setattr(
        loop._Loop, "run_epoch", lambda loop, epoch: (epochs.append(epoch), run_epoch(loop, epoch))[1]
    )
    history = _train(training_data, tmp_path)
    assert epochs[0] == 3  # the first two epochs were not done again
    pd.testing.assert_frame_equal(history, undisturbed[1])
    assert _bytes(tmp_path) == _bytes(undisturbed[0])
    assert {path.name for path in tmp_path.iterdir()} == {*KEPT, "seconds.json"}


def test_a_checkpoint_of_other_clips_is_not_resumed(training_data, store_folder, tmp_path, undisturbed):
    clips = make_clips(store_folder)
    clips.loc[3, "rating"] = 6 - clips.loc[3, "rating"]
    _train(make_training_data(store_folder, clips), tmp_path)
    assert _bytes(tmp_path) != _bytes(undisturbed[0])
    _train(training_data, tmp_path)
    assert _bytes(tmp_path) == _bytes(undisturbed[0])


@pytest.fixture
def cut_off(training_data, tmp_path):
    """The checkpoint of a training that was stopped after its first epoch."""
    with pytest.raises(KeyboardInterrupt):
        train(training_data, _settings("CNN"), tmp_path, CPU, False, _interrupt)
    return tmp_path / ".training" / "checkpoint.pt"


@pytest.mark.parametrize("damage", ["empty", "truncated", "another model"])
def test_a_damaged_checkpoint_is_refused(training_data, tmp_path, cut_off, damage):
    content = torch.load(cut_off, weights_only=True)
    match damage:
        case "empty":
            cut_off.write_bytes(b"")
        case "truncated":
            cut_off.write_bytes(cut_off.read_bytes()[:1000])
        case "another model":
            torch.save(content | {"model": {}}, cut_off)
    with pytest.raises(RunError, match=r"the unfinished training in .* is damaged"):
        _train(training_data, tmp_path, _settings("CNN"))


def test_the_printed_lines_are_the_same_after_an_interruption(training_data, tmp_path, capsys):
    train(training_data, _settings("CNN"), tmp_path / "undisturbed", CPU)
    printed = capsys.readouterr().out
    lines = [line.split("training MSE")[0].strip() for line in printed.splitlines()]
    assert lines == [f"epoch   {epoch}/{EPOCHS}" for epoch in range(1, EPOCHS + 1)]
    with pytest.raises(KeyboardInterrupt):
        train(training_data, _settings("CNN"), tmp_path, CPU, after_epoch=_interrupt)
    capsys.readouterr()
    for _ in range(2):  # resumed, and finished
        train(training_data, _settings("CNN"), tmp_path, CPU)
        assert capsys.readouterr().out == printed


def test_a_training_that_is_killed_while_it_finishes_finishes_again(
    training_data, tmp_path, undisturbed, monkeypatch
):
    calls, original = [], shutil.copyfile
    monkeypatch.setattr(
        loop.shutil,
        "copyfile",
        lambda *a: _interrupt() if len(calls) == 2 else (calls.append(a), original(*a)),
    )
    with pytest.raises(KeyboardInterrupt):
        _train(training_data, tmp_path)
    monkeypatch.undo()
    monkeypatch.setattr(loop._Loop, "run_epoch", lambda *_: pytest.fail("an epoch was run"))
    pd.testing.assert_frame_equal(_train(training_data, tmp_path), undisturbed[1])
    assert _bytes(tmp_path) == _bytes(undisturbed[0])
    assert not (tmp_path / ".training").exists()


def _interrupt(*_):
    raise KeyboardInterrupt


class _Poisoned:
    """A store with one clip of NaN."""

    def __init__(self, store, row):
        self.store, self.row = store, row
        self.settings, self.lengths, self.widths = store.settings, store.lengths, store.widths

    def of(self, streams):
        return self

    def __getitem__(self, row):
        return self.store[row] * np.float32(np.nan if row == self.row else 1)


def test_a_loss_that_is_not_a_number_stops_the_training(training_data, tmp_path):
    poisoned = TrainingData(_Poisoned(training_data.store, 17), training_data.clips)
    with pytest.raises(TrainingError, match=r"loss is nan in epoch 1, batch [1-6],") as raised:
        _train(poisoned, tmp_path, _settings("LSTM1", standardise="none", batch_size=8))
    named = str(raised.value).split("on the clips ")[1].split(".")[0].split(", ")
    assert training_data.clips["id"][17] in named
    assert len(named) == 8
    assert "learning_rate=0.001" in str(raised.value)
    assert not (tmp_path / "best.safetensors").exists()


def test_a_validation_error_that_is_not_a_number_stops_the_training(training_data, tmp_path):
    row = training_data.rows("validation")[2]
    poisoned = TrainingData(_Poisoned(training_data.store, row), training_data.clips)
    with pytest.raises(TrainingError, match=r"epoch 1") as raised:
        _train(poisoned, tmp_path, _settings("CNN"))
    assert training_data.clips["id"][row] in str(raised.value)


def test_the_digest_of_the_data_covers_all_that_a_training_uses(training_data, store_folder):
    digests = {training_data.digest()}
    values = {"rating": 1.25, "subset": "test", "speaker": "S9", "id": "renamed", "digest": "0" * 64}
    for column, value in values.items():
        clips = training_data.clips.copy()
        clips.loc[0, column] = value
        digests.add(TrainingData(training_data.store, clips).digest())
    assert len(digests) == 6
    assert make_training_data(store_folder).digest() == training_data.digest()
    assert training_data.rows("validation").tolist() == list(range(48, 64))


def test_a_processor_without_bfloat16_is_refused_before_anything_is_written(
    training_data, tmp_path, monkeypatch
):
    monkeypatch.setattr(loop, "has_bfloat16", lambda: False)
    message = r"PRECISION=bfloat16 was given, .* this processor lacks .*; expected PRECISION=float32"
    with pytest.raises(SettingsError, match=message):
        _train(training_data, tmp_path / "run", _settings("CNN", precision="bfloat16"))
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(not loop.has_bfloat16(), reason="the processor has no AVX-512")
@pytest.mark.parametrize("model", NETWORKS)
def test_products_in_half_precision_learn_nearly_the_same(training_data, tmp_path, model):
    exact = _train(training_data, tmp_path / "float32", _settings(model, epochs=3))
    half = _train(training_data, tmp_path / "bfloat16", _settings(model, epochs=3, precision="bfloat16"))
    np.testing.assert_allclose(half["validation_mse"], exact["validation_mse"], rtol=0.1)
    assert (half["validation_mse"] != exact["validation_mse"]).all()
    weights = load_file(tmp_path / "bfloat16" / "best.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
