"""Training: it learns, repeats itself byte for byte, goes on after a kill as if undisturbed, stops at NaN."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from toy import FEATURES, make_clips, make_material

from valence_lib import runs, training
from valence_lib.batches import pad
from valence_lib.errors import RunError, TrainingError
from valence_lib.models import build_model
from valence_lib.registry import COURSE_MODELS, NETWORKS, training_settings
from valence_lib.runs import Run
from valence_lib.settings import TrainingSettings
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


@pytest.mark.parametrize("model", COURSE_MODELS)
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


def test_the_kept_weights_are_those_of_the_best_epoch(material, tmp_path):
    # Steps too long, so that the best epoch is not the last.
    history = _train(material, tmp_path, _settings("CNN", epochs=7, learning_rate=0.1))
    best = history["validation_mse"].idxmin()
    assert 0 < best < 6
    rows = material.rows("validation")
    predictions = Run.load(tmp_path).predict(material.source(rows), [""] * len(rows))
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
    model = build_model("CNN", [FEATURES.n_mels])
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
    (tmp_path / ".training" / ".last.half").touch()  # as a kill leaves it
    epochs = []
    run_epoch = training._Loop.run_epoch
    monkeypatch.setattr(
        training._Loop, "run_epoch", lambda loop, epoch: (epochs.append(epoch), run_epoch(loop, epoch))[1]
    )
    history = _train(material, tmp_path)
    assert epochs[0] == 3  # the first two epochs were not done again
    pd.testing.assert_frame_equal(history, undisturbed[1])
    assert _bytes(tmp_path) == _bytes(undisturbed[0])
    assert {path.name for path in tmp_path.iterdir()} == {*KEPT, "seconds.json"}


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


def test_a_damaged_checkpoint_is_refused(material, tmp_path, cut_off):
    cut_off.write_bytes(cut_off.read_bytes()[:100])
    with pytest.raises(RunError, match="holds of a training is damaged"):
        _train(material, tmp_path, _settings("CNN"))


def test_a_checkpoint_without_its_digest_is_refused(material, tmp_path, cut_off):
    runs.save_tensors(cut_off, load_file(cut_off), {})
    with pytest.raises(RunError, match="holds of a training is damaged"):
        _train(material, tmp_path, _settings("CNN"))


def test_what_a_training_prints_is_the_same_after_a_cut(material, tmp_path, capsys):
    train(material, _settings("CNN"), tmp_path / "undisturbed", CPU)
    printed = capsys.readouterr().out
    lines = [line.split("training MSE")[0].strip() for line in printed.splitlines()]
    assert lines == [f"epoch   {epoch}/{EPOCHS}" for epoch in range(1, EPOCHS + 1)]
    with pytest.raises(KeyboardInterrupt):
        train(material, _settings("CNN"), tmp_path, CPU, after_epoch=_interrupt)
    capsys.readouterr()
    for _ in range(2):  # going on, and finding it finished
        train(material, _settings("CNN"), tmp_path, CPU)
        assert capsys.readouterr().out == printed


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


class _Poisoned:
    """A store one of whose clips is not a number."""

    def __init__(self, store, row):
        self.store, self.row = store, row
        self.settings, self.lengths, self.widths = store.settings, store.lengths, store.widths

    def of(self, streams):
        assert streams == ("log_mel",)
        return self

    def __len__(self):
        return len(self.store)

    def __getitem__(self, row):
        return self.store[row] * np.float32(np.nan if row == self.row else 1)

    def __iter__(self):
        return (self[row] for row in range(len(self)))


@pytest.mark.parametrize("model", COURSE_MODELS)
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


def test_the_standardiser_is_fitted_to_the_training_part_alone(material, tmp_path):
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


def test_the_digest_of_the_material_covers_all_that_a_training_uses(material, store_folder):
    digests = {material.digest()}
    for column, value in (
        ("valence", 1.25),
        ("part", "test"),
        ("speaker", "S9"),
        ("id", "renamed"),
        ("digest", "0" * 64),
    ):
        clips = material.clips.copy()
        clips.loc[0, column] = value
        digests.add(Material(material.store, clips).digest())
    assert len(digests) == 6
    assert make_material(store_folder).digest() == material.digest()
    assert material.rows("validation").tolist() == list(range(48, 64))


def test_training_leaves_one_thread_and_deterministic_algorithms(undisturbed):
    assert torch.get_num_threads() == 1
    assert torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize("model", NETWORKS)
def test_products_in_half_precision_learn_nearly_the_same(material, tmp_path, model):
    exact = _train(material, tmp_path / "float32", _settings(model, epochs=3))
    half = _train(material, tmp_path / "bfloat16", _settings(model, epochs=3, precision="bfloat16"))
    np.testing.assert_allclose(half["validation_mse"], exact["validation_mse"], rtol=0.1)
    assert (half["validation_mse"] != exact["validation_mse"]).all()
    weights = load_file(tmp_path / "bfloat16" / "best.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
