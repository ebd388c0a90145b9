"""Models that are fitted at once: scikit-learn's predictions, weights of any size, hyperparameters for new speakers."""

from typing import ClassVar

import numpy as np
import pytest
import torch
from sklearn import linear_model, svm
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold
from sklearn.pipeline import Pipeline

from valence_lib.models import build_model, fitted
from valence_lib.models.fitted import search
from valence_lib.models.lasso_or_svr import LassoOrSVR
from valence_lib.models.ridge import Ridge
from valence_lib.models.svr import SVR

WIDTH = 12
MODELS = {"Ridge": Ridge, "SVR": SVR, "VoiceRegression": LassoOrSVR}
every_model = pytest.mark.parametrize("name", MODELS)


def _estimator(name, truth):
    """What scikit-learn is asked for, and the hyperparameters among which it chooses."""
    if name == "Ridge":
        return linear_model.Ridge(), {"alpha": [1, 10, 100, 1000, 10_000, 100_000]}
    machine = svm.SVR(epsilon=0.1, C=3, gamma=0.35 / WIDTH)
    if name == "SVR":
        return machine, {"C": [3]}  # none: it keeps them
    penalties = np.geomspace(0.003, 0.1, 10) * truth.std()
    lasso = {"it": [linear_model.Lasso(max_iter=10_000)], "it__alpha": penalties}
    return Pipeline([("it", machine)]), [lasso, {"it": [machine]}]


def _clips(seed=0, count=90, n_speakers=9):
    generator = np.random.default_rng(seed)
    vectors = generator.normal(size=(count, WIDTH)).astype(np.float32)
    truth = 3 + 0.8 * np.tanh(vectors[:, 0]) + 0.3 * vectors[:, 1] + generator.normal(0, 0.1, count)
    speakers = np.array([f"S{number % n_speakers}" if n_speakers else "" for number in range(count)])
    return vectors, truth, speakers


def _fitted(name, seed=0, count=90, n_speakers=9):
    model = build_model(name, WIDTH).eval()
    model.fit(*_clips(seed, count, n_speakers))
    return model


def _predict(model, vectors):
    rows = torch.from_numpy(vectors)[:, None]
    with torch.no_grad():
        return model(rows, torch.ones(len(vectors), dtype=torch.int64)).numpy()


@every_model
@pytest.mark.parametrize("n_speakers", [9, 5, 4, 0])
def test_predictions_are_those_of_scikit_learn(name, n_speakers):
    vectors, truth, speakers = _clips(n_speakers=n_speakers)
    estimator, grid = _estimator(name, truth)
    # Fewer speakers than folds are not told apart.
    folds = GroupKFold(5) if n_speakers >= 5 else KFold(5, shuffle=True, random_state=0)
    found = GridSearchCV(estimator, grid, scoring="neg_mean_squared_error", cv=folds)
    found.fit(vectors, truth, groups=speakers if n_speakers >= 5 else None)
    new = _clips(seed=1)[0]
    predicted = _predict(_fitted(name, n_speakers=n_speakers), new)
    np.testing.assert_allclose(predicted, found.predict(new), atol=1e-4, rtol=0)
    assert predicted.std() > 0.3


@every_model
def test_what_follows_a_clips_one_row_is_padding(name):
    model = _fitted(name)
    vectors = _clips(seed=1)[0]
    padded = torch.from_numpy(np.stack([vectors, 99 + vectors], axis=1))
    with torch.no_grad():
        found = model(padded, torch.ones(len(vectors), dtype=torch.int64))
    np.testing.assert_array_equal(found.numpy(), _predict(model, vectors))


@every_model
@pytest.mark.parametrize("count", [20, 90])
def test_weights_of_any_size_are_loaded(name, count):
    trained, other = _fitted(name, count=count), _fitted(name, seed=3, count=50)
    vectors = _clips(seed=1)[0]
    for model in (
        build_model(name, WIDTH),
        other,
    ):  # a new one, and one that was fitted to fewer or more clips
        model.load_state_dict(trained.state_dict())
        np.testing.assert_array_equal(_predict(model, vectors), _predict(trained, vectors))


@every_model
def test_a_state_that_lacks_a_buffer_is_refused(name):
    state = _fitted(name).state_dict()
    del state[next(name for name in state if name.endswith("bias"))]
    with pytest.raises(RuntimeError, match="bias"):
        build_model(name, WIDTH).load_state_dict(state)


@every_model
def test_fitting_is_deterministic(name):
    first = _fitted(name).state_dict()
    torch.rand(3)
    np.random.rand(3)
    for key, values in _fitted(name).state_dict().items():
        assert values.dtype == torch.float32
        assert torch.equal(values, first[key])


def test_ratings_that_are_all_alike_are_predicted():
    vectors, truth, speakers = _clips()
    for name in MODELS:
        model = build_model(name, WIDTH).eval()
        model.fit(vectors, np.full_like(truth, 2.5), speakers)
        np.testing.assert_allclose(_predict(model, vectors), 2.5, atol=1e-5)


@pytest.mark.parametrize("linear", [True, False])
def test_the_lasso_is_taken_where_a_few_columns_add_up_and_the_machine_where_they_work_together(linear):
    vectors, _, speakers = _clips(count=200)
    first, second = vectors[:, 0], vectors[:, 1]
    truth = 3 + (0.5 * first + 0.3 * second if linear else first * np.sign(second))
    model = build_model("VoiceRegression", WIDTH).eval()
    model.fit(vectors, truth + np.random.default_rng(1).normal(0, 0.3, len(truth)), speakers)
    assert bool(model.lasso.weight.any()) == linear
    assert len(model.svr.support) == 0 if linear else len(model.svr.support) > 0
    if linear:
        np.testing.assert_allclose(model.lasso.weight[:2], [0.5, 0.3], atol=0.05)
        assert (model.lasso.weight[2:] == 0).sum() >= 4
    else:
        machine = svm.SVR(epsilon=0.1, C=3, gamma=0.35 / WIDTH)
        machine.fit(vectors, truth + np.random.default_rng(1).normal(0, 0.3, len(truth)))
        np.testing.assert_allclose(_predict(model, vectors), machine.predict(vectors), atol=1e-4)


class _Memory(RegressorMixin, BaseEstimator):
    """Predicts a clip's rating by its number; it notes which clips it was fitted to and asked about."""

    asked: ClassVar[list] = []

    def __init__(self, power=1):
        self.power = power

    def fit(self, vectors, truth):
        self.known_ = vectors[:, 0].astype(int)
        return self

    def predict(self, vectors):
        _Memory.asked.append((set(self.known_.tolist()), set(vectors[:, 0].astype(int).tolist())))
        return np.full(len(vectors), float(self.power))


@pytest.mark.parametrize("named", [True, False])
def test_hyperparameters_are_chosen_on_speakers_that_were_not_heard(named):
    vectors, truth, speakers = _clips(n_speakers=9)
    vectors[:, 0] = np.arange(len(vectors))
    given = speakers if named else np.where(np.arange(len(speakers)) == 3, "", speakers)
    _Memory.asked = []
    found = search(_Memory(), {"power": [1, 3]}, vectors, truth, given)
    assert found.power == 3  # nearer to the mean rating
    assert set(found.known_.tolist()) == set(range(90))  # fitted on all clips in the end
    assert len(_Memory.asked) == 10
    shared = [set(speakers[list(known)]) & set(speakers[list(asked)]) for known, asked in _Memory.asked]
    assert any(shared) != named
    for known, asked in _Memory.asked:
        assert not known & asked


def test_a_large_corpus_is_searched_on_some_of_its_clips(monkeypatch):
    monkeypatch.setattr(fitted, "_MOST_CLIPS", 40)
    vectors, truth, speakers = _clips()
    vectors[:, 0] = np.arange(len(vectors))
    _Memory.asked = []
    found = search(_Memory(), {"power": [3]}, vectors, truth, speakers)
    assert len(set().union(*(known | asked for known, asked in _Memory.asked))) == 40
    assert len(found.known_) == 90


@pytest.mark.parametrize("count", [2, 4])
@every_model
def test_fewer_clips_than_folds_are_enough(name, count):
    vectors = _clips(seed=1)[0]
    assert np.isfinite(_predict(_fitted(name, count=count), vectors)).all()
