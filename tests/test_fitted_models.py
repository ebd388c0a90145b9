"""Models that are fitted in one step: predictions of scikit-learn's, weights of any size, kernels by hand."""

from typing import ClassVar

import numpy as np
import pytest
import torch
from sklearn import linear_model, svm
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.kernel_ridge import KernelRidge
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold, LeaveOneOut

from valence_lib.models import build_model, count_parameters, fitted, gaussian_process
from valence_lib.models.fitted import search

WIDTHS = (4, 1, 7)  # of three groups of columns
WIDTH = sum(WIDTHS)
MODELS = ("Ridge", "SVR", "GaussianProcess")
GAMMAS = (0.05, 0.1, 0.2, 0.3, 0.4)
NOISES = (0.03, 0.05, 0.08, 0.12, 0.2)
every_model = pytest.mark.parametrize("name", MODELS)


def _clips(seed=0, count=90, n_speakers=9, noise=0.1):
    generator = np.random.default_rng(seed)
    vectors = generator.normal(size=(count, WIDTH)).astype(np.float32)
    truth = 3 + 0.8 * np.tanh(vectors[:, 0]) + 0.3 * vectors[:, 1] + generator.normal(0, noise, count)
    speakers = np.array([f"S{number % n_speakers}" if n_speakers else "" for number in range(count)])
    return vectors, truth, speakers


def _fitted(name, seed=0, count=90, n_speakers=9):
    model = build_model(name, WIDTHS).eval()
    model.fit(*_clips(seed, count, n_speakers))
    return model


def _predict(model, vectors):
    rows = torch.from_numpy(vectors)[:, None]
    with torch.no_grad():
        return model(rows, torch.ones(len(vectors), dtype=torch.int64)).numpy()


def _kernel(first, second, gamma, widths=WIDTHS):
    """The mean over groups of scikit-learn's kernels of their columns."""
    ends = np.cumsum(widths)
    groups = [slice(end - width, end) for end, width in zip(ends, widths, strict=True)]
    first, second = first.astype(np.float64), second.astype(np.float64)
    return np.mean(
        [
            rbf_kernel(first[:, own], second[:, own], gamma / width)
            for own, width in zip(groups, widths, strict=True)
        ],
        axis=0,
    )


def _noise(model, vectors, truth):
    """The noise with which the model's weights solve its equations: (K + noise I) weight = truth - mean."""
    rest = (
        truth - truth.mean() - _kernel(vectors, vectors, float(model.gamma)) @ model.weight.double().numpy()
    )
    weight = model.weight.double().numpy()
    return float(rest @ weight / (weight @ weight))


# All models


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
    for model in (build_model(name, WIDTHS), other):  # a new one, and one that was fitted to other clips
        model.load_state_dict(trained.state_dict())
        np.testing.assert_array_equal(_predict(model, vectors), _predict(trained, vectors))
    assert count_parameters(trained) == sum(tensor.numel() for tensor in trained.state_dict().values())


@every_model
def test_a_state_that_lacks_a_buffer_is_refused(name):
    state = _fitted(name).state_dict()
    del state["bias"]
    with pytest.raises(RuntimeError, match="bias"):
        build_model(name, WIDTHS).load_state_dict(state)


@every_model
def test_fitting_is_deterministic(name):
    first = _fitted(name).state_dict()
    torch.rand(3)
    np.random.rand(3)
    for key, values in _fitted(name).state_dict().items():
        assert values.dtype == torch.float32
        assert torch.equal(values, first[key])


@every_model
def test_ratings_that_are_all_alike_are_predicted(name):
    vectors, truth, speakers = _clips()
    model = build_model(name, WIDTHS).eval()
    model.fit(vectors, np.full_like(truth, 2.5), speakers)
    np.testing.assert_allclose(_predict(model, vectors), 2.5, atol=1e-5)


@every_model
@pytest.mark.parametrize("count", [2, 4])
def test_fewer_clips_than_folds_are_enough(name, count):
    vectors = _clips(seed=1)[0]
    assert np.isfinite(_predict(_fitted(name, count=count), vectors)).all()


# Ridge regression and support vector regression


@pytest.mark.parametrize("n_speakers", [9, 5, 4, 0])
def test_ridge_regression_is_that_of_scikit_learn(n_speakers):
    vectors, truth, speakers = _clips(n_speakers=n_speakers)
    # Where there are fewer speakers than folds, speakers do not matter.
    folds = GroupKFold(5) if n_speakers >= 5 else KFold(5, shuffle=True, random_state=0)
    penalties = {"alpha": [1, 10, 100, 1000, 10_000, 100_000]}
    found = GridSearchCV(linear_model.Ridge(), penalties, scoring="neg_mean_squared_error", cv=folds)
    found.fit(vectors, truth, groups=speakers if n_speakers >= 5 else None)
    new = _clips(seed=1)[0]
    predicted = _predict(_fitted("Ridge", n_speakers=n_speakers), new)
    np.testing.assert_allclose(predicted, found.predict(new), atol=1e-4, rtol=0)
    assert predicted.std() > 0.3


def test_support_vector_regression_is_that_of_scikit_learn():
    vectors, truth, _ = _clips()
    machine = svm.SVR(kernel="rbf", C=3, gamma=0.35 / WIDTH, epsilon=0.1).fit(vectors, truth)
    new = _clips(seed=1)[0]
    model = _fitted("SVR")
    np.testing.assert_allclose(_predict(model, new), machine.predict(new), atol=1e-4, rtol=0)
    assert len(model.support) == len(machine.support_) < len(vectors)


# Kernels


@pytest.mark.parametrize("widths", [(WIDTH,), WIDTHS, (1,) * WIDTH])
def test_kernels_are_the_mean_of_scikit_learns(widths):
    first, second = _clips(count=30)[0] * 3, _clips(seed=1, count=20)[0] + 5
    found = build_model("GaussianProcess", widths).kernel(torch.tensor(first), torch.tensor(second), 0.3)
    np.testing.assert_allclose(found, _kernel(first, second, 0.3, widths), atol=1e-12)


# Gaussian processes


@pytest.mark.parametrize(("seed", "noise"), [(0, 0.1), (1, 0.5), (2, 3.0)])
def test_predictions_are_those_of_a_gaussian_process(seed, noise):
    vectors, truth, speakers = _clips(seed, noise=noise)
    new = _clips(seed=9)[0]
    model = build_model("GaussianProcess", WIDTHS).eval()
    model.fit(vectors, truth, speakers)
    gamma, of_noise = float(model.gamma), _noise(model, vectors, truth)
    ridge = KernelRidge(alpha=of_noise, kernel="precomputed")
    ridge.fit(_kernel(vectors, vectors, gamma), truth - truth.mean())
    expected = truth.mean() + ridge.predict(_kernel(new, vectors, gamma))
    np.testing.assert_allclose(_predict(model, new), expected, atol=1e-4, rtol=0)
    assert expected.std() > 0.05


def _left_out(kernel, truth, noise):
    """The mean squared error of each clip's prediction from all others, one fit a clip."""
    errors = []
    for others, row in LeaveOneOut().split(truth):
        ridge = KernelRidge(alpha=noise, kernel="precomputed")
        ridge.fit(kernel[np.ix_(others, others)], truth[others])
        errors.append(ridge.predict(kernel[np.ix_(row, others)])[0] - truth[row[0]])
    return np.mean(np.square(errors))


@pytest.mark.parametrize(("seed", "noise"), [(0, 0.02), (1, 0.5), (4, 0.3), (2, 3.0)])
def test_the_kernel_and_the_noise_are_those_of_the_lowest_error_of_leaving_one_out(seed, noise):
    vectors, truth, speakers = _clips(seed, count=40, noise=noise)
    model = build_model("GaussianProcess", WIDTHS).eval()
    model.fit(vectors, truth, speakers)
    found = {}
    for gamma in GAMMAS:
        kernel = _kernel(vectors, vectors, gamma)
        found |= {(gamma, of_noise): _left_out(kernel, truth - truth.mean(), of_noise) for of_noise in NOISES}
    gamma, of_noise = min(found, key=found.__getitem__)
    assert float(model.gamma) == pytest.approx(gamma)
    assert _noise(model, vectors, truth) == pytest.approx(of_noise, rel=1e-3)


# Landmarks


@pytest.fixture
def landmarks(monkeypatch):
    """`landmarks(count)`: corpora of more than 100 clips have so many, and 64 rows are taken at once."""

    def limit(count):
        monkeypatch.setattr(gaussian_process, "_EXACT_CLIPS", 100)
        monkeypatch.setattr(gaussian_process, "_LANDMARKS", count)
        monkeypatch.setattr(gaussian_process, "_ROWS_AT_ONCE", 64)

    return limit


def _large(widths=WIDTHS):
    model = build_model("GaussianProcess", widths).eval()
    model.fit(*_clips(count=500))
    return model


def test_weights_of_landmarks_are_the_least_squares_of_all_clips(landmarks):
    landmarks(40)
    vectors, truth, _ = _clips(count=500)
    model = _large()
    support, gamma = model.support.numpy(), float(model.gamma)
    assert {row.tobytes() for row in support} <= {row.tobytes() for row in vectors}
    cross, own = _kernel(vectors, support, gamma), _kernel(support, support, gamma)
    found = []
    for noise in NOISES:
        weight = np.linalg.solve(noise * own + cross.T @ cross, cross.T @ (truth - truth.mean()))
        new = _clips(seed=1)[0]
        expected = truth.mean() + _kernel(new, support, gamma) @ weight
        found.append(np.abs(_predict(model, new) - expected).max())
    assert min(found) < 1e-3


def test_kernels_of_a_large_corpus_are_computed_in_small_parts(landmarks, monkeypatch):
    landmarks(40)
    monkeypatch.setattr(gaussian_process, "_CHOOSE_CLIPS", 50)
    shapes = []
    kernel = fitted.KernelExpansion.kernel

    def noted(self, first, second, gamma):
        shapes.append((len(first), len(second)))
        return kernel(self, first, second, gamma)

    monkeypatch.setattr(fitted.KernelExpansion, "kernel", noted)
    _large()
    assert set(shapes) == {(50, 50), (40, 40), (64, 40), (500 % 64, 40)}


# Cross-validation among training clips


class _Memory(RegressorMixin, BaseEstimator):
    """Predicts a constant; it notes to which clips it was fitted and which it predicted."""

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
def test_hyperparameters_are_chosen_on_speakers_that_were_left_out(named):
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
