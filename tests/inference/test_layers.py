"""The methods for layers: one by one, refined together, and trained through their least squares."""

import numpy as np
import pytest
import torch
from scipy.optimize import nnls

import ppnmf
from ppnmf.models import Hierarchical
from tests.scenarios import drawn

METHODS = ["layerwise", "deep", "neural"]
MODEL = Hierarchical((5, 2))
X = drawn(20, 15, 3, rate=0.5, noise=0.01)[0].clamp(min=0)
MASK = (torch.arange(300) % 7 != 3).reshape(20, 15)
LABELS = ["a", "b", "a", None, "b"] * 3


def fit(method, X=X, model=MODEL, **options):
    if method != "neural":
        options = {"tol": 1e-3, **options}
    elif model is MODEL:
        options = {"steps": 100, **options}
    return ppnmf.fit(model, X, method=method, progress=False, **options)


def relative_error(post, X):
    return float((torch.as_tensor(X) - post.reconstruction()).norm() / torch.as_tensor(X).norm())


PUBLISHED = {(9,): 0.0236, (9, 4): 0.2816, (9, 4, 2): 0.4676}  # of Neural NMF without labels; four decimals


@pytest.mark.parametrize("ranks", PUBLISHED, ids=str)
def test_neural_nmf_leaves_no_more_than_is_published(real_data, ranks):
    """Without labels, with those of two columns of five, and with all, whose published errors are no smaller."""
    held = real_data("hierarchy/neural_nmf_synthetic.npz")
    truth, known = held[f"labels{ranks[-1]}"][0], held["L40"][0] > 0
    for labels in (None, np.where(known, truth, np.nan), truth):
        post = fit("neural", held["X"], Hierarchical(ranks), labels=labels)
        assert round(relative_error(post, held["X"]), 4) <= PUBLISHED[ranks]
        if labels is not None:
            assert ppnmf.predicted_labels(post).labels == [str(code) for code in truth]


def test_layers_that_are_fitted_together_leave_less():
    layerwise, deep, neural = (relative_error(fit(method, restarts=2).best(), X) for method in METHODS)
    assert deep < layerwise and neural < layerwise


@pytest.mark.parametrize("method", METHODS)
def test_the_loss_falls_and_is_the_relative_squared_error(method):
    post = fit(method, restarts=2, seed=3)
    for c, curve in enumerate(post.attrs["loss_curve"]):
        assert post.attrs["sweeps"][c] == len(curve) and (method == "layerwise" or curve[-1] <= curve[0])
        W, H = post.draws["W"][c, 0], post.draws["H"][c, 0]
        assert float(post.stats["loss"][c]) == pytest.approx(float((X - W @ H).norm() / X.norm()) ** 2, rel=1e-6)
    layers = post.draws["A0"] @ post.draws["A1"]
    torch.testing.assert_close(layers, post.draws["W"])
    assert not torch.equal(post.draws["A0"][0], post.draws["A0"][1]), "each restart has a start of its own"
    again = fit(method, restarts=2, seed=3)
    assert all(torch.equal(post.draws[site], again.draws[site]) for site in post.draws)


def test_the_last_layer_of_neural_nmf_is_a_function_of_x_and_the_layers():
    post = fit("neural", steps=60)
    A0, A1 = (post.draws[site][0, 0] for site in ("A0", "A1"))
    q = ppnmf.nn.non_negative_least_squares
    torch.testing.assert_close(q(A1, q(A0, X)), post.draws["H"][0, 0], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(A0.norm(dim=0), torch.ones(5, dtype=A0.dtype))


@pytest.mark.parametrize("method", METHODS)
def test_what_is_hidden_does_not_leak(method):
    options = {"steps": 30} if method == "neural" else {}
    spoilt = torch.where(MASK, X, 1e6)
    one, other = (fit(method, own, mask=MASK, **options) for own in (X, spoilt))
    assert all(torch.equal(one.draws[site], other.draws[site]) for site in one.draws)


@pytest.mark.parametrize("method", METHODS)
def test_labels_pull_the_last_layer(method):
    """Classes that X does not show are not learned; a heavy weight brings their scores nearer all the same."""
    hard = np.array([0, 1, 1, 0, 1, 0, 0, 1, 0, 1, 1, 0, 0, 1, 0])
    off = []
    for weight in (1e-6, 10.0):
        post = fit(method, labels=hard, label_weight=weight)
        B = torch.tensor(post.attrs["labels"]["coefficients"][0], dtype=torch.float64)
        off.append(float((torch.nn.functional.one_hot(torch.from_numpy(hard)).T - B @ post.draws["H"][0, 0]).norm()))
    assert off[1] < 0.95 * off[0]


@pytest.mark.parametrize("method", METHODS)
def test_labels_of_no_weight_change_nothing(method):
    one, other = fit(method), fit(method, labels=LABELS, label_weight=0.0)
    with pytest.raises(ValueError, match="labels had no say in the fit"):
        ppnmf.predicted_labels(other)
    assert all(torch.equal(one.draws[site], other.draws[site]) for site in one.draws)


def test_labels_that_are_not_known_have_no_say():
    hidden = [None if place in (0, 6) else label for place, label in enumerate(LABELS)]
    post = fit("neural", labels=hidden, steps=30)
    found = ppnmf.predicted_labels(post)
    assert found.classes == ("a", "b") and found.known.tolist() == [label is not None for label in hidden]
    assert torch.allclose(found.probabilities.sum(-1), torch.ones(15, dtype=torch.float64))
    assert str(found).startswith("5 of 15 labels predicted, of a, b")


def semi_nmf(X, S, sweeps=30):
    """X ≈ F S with F free, S >= 0 (K, D), by least squares and SciPy's, in turn: the relative squared error after each."""
    errors = []
    for _ in range(sweeps):
        F = np.linalg.lstsq(S.T, X.T, rcond=None)[0].T
        S = np.stack([nnls(F, column)[0] for column in X.T], 1)
        errors.append(float(np.square(X - F @ S).sum() / np.square(X).sum()))
    return errors


@pytest.mark.parametrize("ranks", [(2,), (6, 4, 2)], ids=str)
@pytest.mark.parametrize("masked", [False, True], ids=["all", "masked"])
@pytest.mark.filterwarnings("ignore:deep.*had not converged:UserWarning")
def test_deep_semi_nmf_never_rises_and_leaves_less(ranks, masked):
    own = X - 0.3 * X.mean() * torch.linspace(0, 2, 15, dtype=X.dtype)  # some entries are negative
    options = {"mask": MASK} if masked else {}
    with pytest.warns(UserWarning, match="negative entries"):
        bounded = fit("deep", own, Hierarchical(ranks), **options)
        free = fit("deep", own, Hierarchical(ranks), signs="free", tol=1e-7, max_sweeps=200, **options)
    curve = np.array(free.attrs["loss_curve"][0])
    assert np.all(np.diff(curve) <= 1e-12 * curve[:-1]) and curve[-1] < float(bounded.stats["loss"])
    assert float(free.draws["A0"].min()) < 0 <= float(free.draws["H"].min())
    left = (own - free.reconstruction()) if not masked else (own - free.reconstruction()) * MASK
    seen = own if not masked else own * MASK
    assert float(free.stats["loss"]) == pytest.approx(float(left.square().sum() / seen.square().sum()), rel=1e-9)
    sigma2 = float(free.draws["sigma2"])
    n = left.numel() if not masked else int(MASK.sum())
    expected = -0.5 * (n * np.log(2 * np.pi * sigma2) + float(left.square().sum()) / sigma2)
    assert float(free.stats["lp"]) == pytest.approx(expected, rel=1e-9) and free.attrs["signs"] == "free"
    if not masked:  # layers of any sign make up one, so semi-NMF of the last rank leaves as much
        errors = semi_nmf(own.numpy(), free.draws["H"][0, 0].numpy())
        assert errors[0] <= curve[-1] * (1 + 1e-9) and errors[-1] > curve[-1] * (1 - 1e-3)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"labels": ["a"] * 20}, "there are 15 columns of X: give the transpose of X"),
        ({"labels": ["a"] * 15}, "2 classes are the least"),
        ({"labels": LABELS, "label_weight": -1}, "label_weight is -1"),
        ({"steps": 0}, "steps"),
        ({"learning_rate": 0}, "learning_rate is 0"),
        ({"restarts": 0}, "restarts"),
    ],
)
def test_what_cannot_be_trained_is_refused(options, match):
    with pytest.raises(ValueError, match=match):
        fit("neural", **options)


def test_the_caller_s_generators_and_gradients_stay():
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    with torch.no_grad():
        fit("neural", steps=5)
        assert not torch.is_grad_enabled()
    assert torch.equal(state, torch.random.get_rng_state())
