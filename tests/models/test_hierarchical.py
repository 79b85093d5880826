"""Layers: the sweep of every factor, its starts, and what a posterior of them can be asked."""

import math

import pytest
import torch

import ppnmf
from ppnmf.data.matrix import as_matrix
from ppnmf.diagnostics.calibration import geweke
from ppnmf.distributions.rectified_normal import RectifiedNormal
from ppnmf.gaussian import layers
from ppnmf.inference import methods_of
from ppnmf.models import ExponentialGaussian, Hierarchical
from ppnmf.protocols import Address, Layered, LeastSquares, Statistics, Sweeping, Sweeps
from ppnmf.rng import Stream
from tests import scenarios
from tests.scenarios import drawn

X = drawn(12, 8, 2, rate=0.3)[0].abs()
MASK = (torch.arange(96) % 7 != 3).reshape(12, 8)
QUICK = {"draws": 8, "warmup": 4, "chains": 2, "progress": False}
THREE = Hierarchical((4, 3, 2), rates=(0.8, 1.2, 1.5, 0.7), noise_shape=5.0, noise_scale=20.0)


@pytest.fixture(scope="module")
def post():
    return ppnmf.fit(THREE, X, seed=1, **QUICK)


def test_it_has_the_abilities_that_it_offers():
    assert isinstance(THREE, Layered) and isinstance(THREE, Sweeping) and not isinstance(THREE, LeastSquares)
    assert methods_of(THREE) == ["gibbs", "icm", "nuts", "smc", "layerwise", "deep", "neural"]


@pytest.mark.parametrize("hidden", [False, True], ids=["full", "masked"])
def test_three_layers_leave_the_joint_invariant(hidden):
    scenarios.judge_draws(THREE, (4, 3), hidden)


@pytest.mark.parametrize("mask", [None, MASK], ids=["full", "masked"])
def test_the_program_has_the_log_joint_of_three_layers(mask):
    scenarios.judge_program(THREE, X, mask)


def wrong_precision(B, about):
    right = layers_shared(B, about)
    return lambda A, k: right(A, k)._replace(Q=B[..., k].sum(-1)[:, None, None] * about.Q)


def other_rows_left_out(B, about):
    gram, P = B.mT @ B, B.mT @ about.P
    return lambda A, k: Statistics(P[:, k : k + 1], gram[:, k, k, None, None] * about.Q)


layers_shared = layers._shared


@pytest.mark.parametrize("wrong", [wrong_precision, other_rows_left_out])
def test_a_mistake_in_a_middle_factor_shows(wrong, monkeypatch):
    monkeypatch.setattr(layers, "_shared", wrong)
    assert geweke(THREE, (4, 3), sweeps=60, chains=200, seed=1).p_value < scenarios.LUCK


def test_moves_between_layers_leave_the_product_as_it_is():
    data = as_matrix(X)
    params = THREE.prior_draws((12, 8), 3, Stream.of(1))
    factors = [params[site] for site in layers.sites_of(3)]
    moved = layers._moved(THREE.story, data, factors, Address(Stream.of(2, 3), 5))
    assert all(not torch.allclose(one, other) for one, other in zip(factors, moved, strict=True))
    torch.testing.assert_close(layers.product(moved), layers.product(factors), rtol=1e-9, atol=1e-9)


def test_a_gram_matrix_a_row_is_the_shared_one_where_all_are_alike():
    params = THREE.prior_draws((12, 8), 2, Stream.of(1))
    B, A = params["A0"], params["A1"]
    R = params["A2"] @ params["H"]
    P, Q = X @ R.mT, R @ R.mT
    shared = layers._shared(B, Statistics(P, Q))
    each = layers._of_each_row(B, Statistics(P, Q[:, None].expand(-1, 12, -1, -1)))
    for k in range(4):
        for one, other in zip(shared(A, k), each(A, k), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_one_layer_has_the_density_of_the_exponential_model():
    model, plain = Hierarchical(2, (0.5, 2.0), 3.0, 4.0), ExponentialGaussian(2, 0.5, 2.0, 3.0, 4.0)
    params = model.prior_draws((12, 8), 4, Stream.of(1))
    torch.testing.assert_close(params["A0"], params["W"])
    for own in ("log_prior", "likelihood"):
        one, other = (getattr(each, own)(params) for each in (model, plain))
        torch.testing.assert_close(*((d if own == "log_prior" else d.log_prob(X)) for d in (one, other)))


def test_sites_are_named_by_layers(post):
    assert {site: tuple(v.shape[2:]) for site, v in post.draws.items()} == {
        "W": (12, 2),
        "H": (2, 8),
        "sigma2": (),
        "A0": (12, 4),
        "A1": (4, 3),
        "A2": (3, 2),
    }
    torch.testing.assert_close(post.draws["A0"] @ post.draws["A1"] @ post.draws["A2"], post.draws["W"])
    tree = post.to_datatree()
    assert tree["posterior"]["A1"].dims == ("chain", "draw", "layer 0", "layer 1")


def test_components_that_are_aligned_take_their_layer_along(post):
    aligned = ppnmf.align(post)
    made = aligned.draws["A0"] @ aligned.draws["A1"] @ aligned.draws["A2"]
    torch.testing.assert_close(made, aligned.draws["W"])


def test_it_saves_loads_goes_on_and_is_summed_up(post, tmp_path):
    back = ppnmf.Posterior.load(post.save(tmp_path / "fit.nc"))
    assert back.model == THREE and all(torch.equal(back.draws[s], post.draws[s]) for s in post.draws)
    short = {**QUICK, "draws": 3}
    ppnmf.fit(THREE, X, seed=1, checkpoint=tmp_path / "run", every=2, **short)
    resumed = ppnmf.fit(THREE, X, seed=1, resume=tmp_path / "run", **QUICK)
    assert all(torch.equal(resumed.draws[s], post.draws[s]) for s in post.draws)
    assert ppnmf.summary(post).sentence


def test_new_rows_have_layers_at_their_modes_or_drawn_from_there(post):
    """Given the factors behind it a row of A0 is a rectified normal: its mode by the slopes, its draws by numerical moments."""
    rows = X[:3] + 0.5
    modes = ppnmf.fit(Hierarchical((2, 2), 0.8), X, method="icm", restarts=2, tol=1e-3, progress=False)
    new = modes.transform(rows)
    A0, A1, H, s = (new.draws[site][1, 0] for site in ("A0", "A1", "H", "sigma2"))
    R = A1 @ H
    torch.testing.assert_close(new.draws["W"][1, 0], A0 @ A1)
    slope = (rows - A0 @ R) @ R.mT / s - 0.8
    assert float(slope.max()) < 1e-5 and float((slope * A0).abs().max()) < 1e-4

    one = ppnmf.fit(Hierarchical((1, 1)), X, draws=1, warmup=20, chains=1, seed=2, progress=False)
    drawn = one.transform(rows[:1].expand(4000, -1), sweeps=2, seed=3)
    r = (one.draws["A1"] @ one.draws["H"])[0, 0, 0]
    s = one.draws["sigma2"][0, 0]
    prior = RectifiedNormal(r.square().sum() / s, rows[0] @ r / s - 1)
    off = drawn.draws["A0"][0, 0, :, 0].mean() - prior.mean
    assert abs(float(off)) < 4 * float(prior.variance.sqrt()) / 4000**0.5
    assert set(post.transform(rows, draws=4, sweeps=2).draws) == set(post.draws)


@pytest.mark.filterwarnings("ignore:deep.*had not converged:UserWarning")
def test_new_rows_are_not_made_where_signs_are_free():
    free = ppnmf.fit(THREE, X, method="deep", signs="free", max_sweeps=20, progress=False)
    with pytest.raises(TypeError, match="layers are of any sign"):
        free.transform(X)


def test_starts_are_of_all_layers_or_of_w_and_h_alone(post):
    data = as_matrix(X)
    W, H = drawn(12, 8, 2)[1:]
    begun = THREE.begin(data, Stream.of(1), {"W": W[None], "H": H[None]})
    assert begun["A0"].shape == (1, 12, 4) and float((begun["W"] - W).abs().max()) < 0.5 * float(W.max())
    again = ppnmf.fit(THREE, X, init=post, method="icm", restarts=2, max_sweeps=2, tol=1e3, progress=False)
    assert again.draws["A2"].shape == (2, 1, 3, 2)
    assert ppnmf.fit(THREE, X, init="nndsvd", seed=1, **QUICK).n_draws == 8
    with pytest.raises(ValueError, match="init lacks A1, A2; give all layers"):
        THREE.begin(data, Stream.of(1), {"W": W[None], "H": H[None], "A0": begun["A0"]})
    with pytest.raises(ValueError, match="did you mean 'scaled'"):
        THREE.begin(data, Stream.of(1), "scald")


def test_priors_have_the_scale_of_the_data():
    model = Hierarchical.for_data(X, (4, 3, 2))
    assert model.ranks == (4, 3, 2) and len(model.rates) == 4
    mean = math.prod(model.ranks) / model.rates[0] ** 4
    assert mean == pytest.approx(float(X.mean()))
    assert Hierarchical.for_data(X, 2).ranks == (4, 2) and ppnmf.fit("hierarchical", X, rank=2, **QUICK).model.rank == 2
    larger = model.rescaled(3.0)
    assert larger.rates[0] == model.rates[0] / 3 and larger.rates[1:3] == model.rates[1:3]


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({}, "ranks is empty"),
        ({"ranks": ()}, "ranks is empty"),
        ({"ranks": (4, 0)}, "each of ranks is 0"),
        ({"ranks": (4, 2), "rank": 3}, "rank is 3 beside ranks"),
        ({"ranks": (4, 2), "rates": (1.0, 2.0)}, "rates has 2 numbers and there are 3 factors"),
        ({"ranks": (4, 2), "rates": 0.0}, "rates is 0.0"),
    ],
)
def test_what_is_no_hierarchy_is_refused(arguments, match):
    with pytest.raises(ValueError, match=match):
        Hierarchical(**arguments)


def test_a_sweep_leaves_what_it_is_given_alone():
    params = THREE.prior_draws((12, 8), 2, Stream.of(1))
    before = {site: values.clone() for site, values in params.items()}
    THREE.sweep(params, as_matrix(X), Sweeps(), Address(Stream.of(1, 2), 1))
    assert all(torch.equal(before[site], params[site]) for site in params)
