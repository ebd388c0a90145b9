"""Side tasks: losses by scikit-learn and by hand, unknown labels, and that only training labels are looked at."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import log_loss

from valence_lib.side_tasks import SideTasks

CLIPS = pd.DataFrame(
    {
        "arousal": ["1.0", "2.5", "4.0", "", "5.0", "3.0"],
        "emotion": ["sadness", "anger", "", "joy", "anger", "fear"],
        "dominance": ["3.0"] * 6,
    }
)
TRAINING = np.arange(5)


def _tasks(clips=CLIPS):
    torch.manual_seed(0)
    return SideTasks(clips, TRAINING, 4)


def _read(count):
    return torch.randn(count, 4, generator=torch.Generator().manual_seed(1))


def test_the_tasks_are_those_in_which_training_clips_differ():
    # Dominance is constant; the last clip, not one of training, is the only one in fear.
    assert {name: reader.out_features for name, reader in _tasks().readers.items()} == {
        "arousal": 1,
        "emotion": 3,
    }
    assert not _tasks(CLIPS[[]]).readers


def test_the_loss_is_the_squared_error_in_deviations_and_the_cross_entropy():
    tasks, read, rows = _tasks(), _read(4), np.array([0, 1, 4, 3])
    arousal = np.array([1.0, 2.5, 4.0, 5.0])
    truth = (np.array([1.0, 2.5, 5.0]) - arousal.mean()) / arousal.std()
    told = tasks.readers["arousal"](read[:3])[:, 0].detach().numpy()
    shares = tasks.readers["emotion"](read).softmax(1).detach().numpy()
    expected = np.mean((told - truth) ** 2) + log_loss([2, 0, 0, 1], shares, labels=[0, 1, 2])
    assert tasks.loss(read, rows).item() == pytest.approx(expected, rel=1e-5)


def test_a_clip_without_a_label_counts_for_nothing():
    tasks = _tasks()
    read = _read(2).requires_grad_()
    loss = tasks.loss(read, np.array([5, 5]))  # not of training: nothing is known of it
    assert loss.item() == 0
    assert not loss.requires_grad
    tasks.loss(read, np.array([2, 3])).backward()  # one has no emotion, the other no arousal
    assert read.grad.isfinite().all()
    assert (read.grad != 0).all()


def test_labels_of_other_parts_change_nothing():
    poisoned = CLIPS.copy()
    poisoned.loc[5] = ["5.0", "disgust", "1.0"]
    rows = np.arange(6)
    assert torch.equal(_tasks().loss(_read(6), rows), _tasks(poisoned).loss(_read(6), rows))
