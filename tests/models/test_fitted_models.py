"""Models that are fitted in one step: predictions of scikit-learn's, weights of any size, kernels by hand."""

import numpy as np
import pytest
import torch
from sklearn import linear_model, svm
from sklearn.kernel_ridge import KernelRidge
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold, LeaveOneOut

from valence_lib.models import gaussian_process, ridge
from valence_lib.models.build import build_model, count_parameters

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


@pytest.mark.parametrize("n_speakers", [9, 5, 4, 0])
def test_ridge_regression_is_that_of_scikit_learn(n_speakers):
    vectors, truth, speakers = _clips(n_speakers=n_speakers)
    # With fewer speakers than folds, speakers do not matter.
    folds = GroupKFold(5) if n_speakers >= 5 else KFold(5, shuffle=True, random_state=0)
    penalties = {"alpha": [1, 10, 100, 1000, 10_000, 100_000]}
    found = GridSearchCV(linear_model.Ridge(), penalties, scoring="neg_mean_squared_error", cv=folds)
    found.fit(vectors, truth, groups=speakers if n_speakers >= 5 else None)
    new = _clips(seed=1)[0]
    predicted = _predict(_fitted("Ridge", n_speakers=n_speakers), new)
    np.testing.assert_allclose(predicted, found.predict(new), atol=1e-4, rtol=0)
    assert predicted.std() > 0.3


def test_a_large_corpus_is_searched_on_some_of_its_clips(monkeypatch):
    sizes = []
    fit = linear_model.RidgeCV.fit
    noted = lambda self, rows, truth: (sizes.append(len(rows)), fit(self, rows, truth))[1]  # noqa: E731
    monkeypatch.setattr(linear_model.RidgeCV, "fit", noted)
    monkeypatch.setattr(ridge, "_MOST_CLIPS", 40)
    _fitted("Ridge")
    assert sizes == [40]


def test_support_vector_regression_is_that_of_scikit_learn():
    vectors, truth, _ = _clips()
    machine = svm.SVR(kernel="rbf", C=3, gamma=0.35 / WIDTH, epsilon=0.1).fit(vectors, truth)
    new = _clips(seed=1)[0]
    model = _fitted("SVR")
    np.testing.assert_allclose(_predict(model, new), machine.predict(new), atol=1e-4, rtol=0)
    assert len(model.support) == len(machine.support_) < len(vectors)


@pytest.mark.parametrize("widths", [(WIDTH,), WIDTHS, (1,) * WIDTH])
def test_kernels_are_the_mean_of_scikit_learns(widths):
    first, second = _clips(count=30)[0] * 3, _clips(seed=1, count=20)[0] + 5
    found = build_model("GaussianProcess", widths).kernel(torch.tensor(first), torch.tensor(second), 0.3)
    np.testing.assert_allclose(found, _kernel(first, second, 0.3, widths), atol=1e-12)


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


def test_a_large_corpus_is_expanded_in_landmarks_by_least_squares_of_all_clips(monkeypatch):
    for name, value in {
        "_EXACT_CLIPS": 100,
        "_LANDMARKS": 40,
        "_ROWS_PER_BLOCK": 64,
        "_CHOOSE_CLIPS": 50,
    }.items():
        monkeypatch.setattr(gaussian_process, name, value)
    shapes, kernel = set(), gaussian_process.GaussianProcess.kernel

    def noted(self, first, second, gamma):
        shapes.add((len(first), len(second)))
        return kernel(self, first, second, gamma)

    with monkeypatch.context() as patched:
        patched.setattr(gaussian_process.GaussianProcess, "kernel", noted)
        model = _fitted("GaussianProcess", count=500)
    assert shapes == {(50, 50), (40, 40), (64, 40), (500 % 64, 40)}  # never all rows at once
    vectors, truth, _ = _clips(count=500)
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
