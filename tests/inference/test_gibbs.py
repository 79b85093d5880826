import random

import numpy as np
import pytest
import torch

import ppnmf
from ppnmf.gaussian.noise import log_likelihood
from ppnmf.inference import gibbs, length
from ppnmf.models import ExponentialGaussian
from ppnmf.rng import Stream
from tests.scenarios import drawn

X, W, H = drawn(30, 20, 3, rate=0.3, noise=0.5)
X = X.abs()  # changes a few entries by less than the noise
MODEL = ExponentialGaussian(3, 0.3, 0.3)
QUICK = {"draws": 20, "warmup": 10, "chains": 2, "seed": 4}


def same(a, b):
    return all(torch.equal(a.draws[site], b.draws[site]) for site in a.draws) and torch.equal(
        a.stats["lp"], b.stats["lp"]
    )


def test_draws_have_their_shapes_and_the_log_joint_is_that_of_the_draw():
    post = ppnmf.fit(MODEL, X, **QUICK)
    assert post.draws["W"].shape == (2, 20, 30, 3) and post.draws["H"].shape == (2, 20, 3, 20)
    assert post.draws["sigma2"].shape == post.stats["lp"].shape == (2, 20)
    misfit = (X - post.draws["W"] @ post.draws["H"]).square().sum((-2, -1))
    flat = {site: values.flatten(0, 1) for site, values in post.draws.items()}
    lp = log_likelihood(misfit.flatten(), flat["sigma2"], X.numel()) + MODEL.log_prior(flat)
    torch.testing.assert_close(post.stats["lp"].flatten(), lp, rtol=1e-9, atol=0)


def test_one_draw_of_one_chain_without_warm_up_is_legal():
    post = ppnmf.fit(MODEL, X, draws=1, chains=1, warmup=0)
    assert post.draws["W"].shape == (1, 1, 30, 3)


def test_the_same_seed_gives_the_same_draws_and_another_seed_others():
    first = ppnmf.fit(MODEL, X, **QUICK)
    assert same(first, ppnmf.fit(MODEL, X, **QUICK))
    assert not same(first, ppnmf.fit(MODEL, X, **{**QUICK, "seed": 5}))


@pytest.mark.parametrize("mask", [None, True], ids=["full", "masked"])
def test_draws_do_not_depend_on_the_number_of_threads(mask, monkeypatch):
    """With blocks small enough that threads share the work."""
    monkeypatch.setattr("ppnmf.data.dense.BLOCK_ENTRIES", 20 * 7)
    monkeypatch.setattr("ppnmf.threads.WORTH_A_THREAD", 0)
    hidden = None if mask is None else (torch.arange(600) % 7 != 3).reshape(30, 20)
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(ppnmf.fit(MODEL, X, mask=hidden, **QUICK))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert same(found[0], found[1]) and same(found[0], found[2])


def test_a_chain_does_not_depend_on_how_many_others_run():
    one, two = (ppnmf.fit(MODEL, X, **{**QUICK, "chains": chains}) for chains in (1, 2))
    assert torch.equal(one.draws["W"][0], two.draws["W"][0])


def test_global_generators_are_left_as_found():
    states = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    ppnmf.fit(MODEL, X, **QUICK)
    assert random.getstate() == states[0] and (np.random.get_state()[1] == states[1]).all()
    assert torch.equal(torch.get_rng_state(), states[2])


def test_thinning_keeps_every_thin_th_sweep():
    whole = ppnmf.fit(MODEL, X, draws=12, warmup=5, chains=1)
    thinned = ppnmf.fit(MODEL, X, draws=4, warmup=5, thin=3, chains=1)
    assert torch.equal(thinned.draws["W"], whole.draws["W"][:, 2::3])
    assert torch.equal(thinned.stats["lp"], whole.stats["lp"][:, 2::3])


def test_only_kept_sites_are_stored():
    post = ppnmf.fit(MODEL, X, keep=["H"], **QUICK)
    assert set(post.draws) == {"H", "sigma2"}
    with pytest.raises(KeyError, match="W was not kept"):
        post.reconstruction()
    with pytest.raises(ValueError, match="keep is"):
        ppnmf.fit(MODEL, X, keep=["Z"], **QUICK)


def test_the_reference_kernels_give_the_same_chain_to_rounding(monkeypatch):
    compiled = ppnmf.fit(MODEL, X, draws=3, warmup=0, chains=2)
    monkeypatch.setenv("PPNMF_KERNEL", "reference")
    reference = ppnmf.fit(MODEL, X, draws=3, warmup=0, chains=2)
    for site in compiled.draws:
        torch.testing.assert_close(compiled.draws[site], reference.draws[site], rtol=1e-6, atol=1e-8)


def test_a_mask_hides_values_from_every_draw():
    mask = (torch.arange(600) % 7 != 0).reshape(30, 20)
    clean = ppnmf.fit(MODEL, X, mask=mask, **QUICK)
    dirty = ppnmf.fit(MODEL, torch.where(mask, X, torch.nan), mask=mask, **QUICK)
    assert same(clean, dirty)
    by_nan = ppnmf.fit(MODEL, torch.where(mask, X, torch.nan), missing="nan", **QUICK)
    assert same(clean, by_nan)


def test_hidden_cells_are_predicted():
    mask = (torch.arange(600) % 7 != 0).reshape(30, 20)
    post = ppnmf.fit(MODEL, X, mask=mask, draws=200, warmup=300, chains=2)
    error = (post.reconstruction() - W @ H)[~mask].square().mean()
    assert float(error) < 0.5  # below the noise's variance; the cells' own variance is about 5
    assert float((W @ H)[~mask].var()) > 2


@pytest.mark.parametrize(
    "shape", [(12, 1, 1), (12, 1, 2), (1, 9, 2), (12, 7, 9), (7, 12, 9), (20, 1500, 3), (1500, 20, 3)]
)
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.filterwarnings("ignore:rank .* is above", "ignore:.* have nothing observed", "ignore:icm:UserWarning")
def test_every_shape_gives_the_reference_s_chain(shape, masked, monkeypatch):
    """Fewer columns than components, more than go through a kernel at once, a single row or column."""
    N, D, K = shape
    wide = drawn(N, D, K, rate=0.3, noise=0.5)[0].abs()
    mask = (torch.arange(N * D) % 7 != 3).reshape(N, D) if masked else None
    options = {"mask": mask, "draws": 2, "warmup": 0, "chains": 2}
    compiled = ppnmf.fit(ExponentialGaussian(K), wide, **options)
    modes = ppnmf.fit(ExponentialGaussian(K), wide, method="icm", mask=mask, restarts=1, tol=1e-3)
    assert all(bool(values.isfinite().all()) for values in (*compiled.draws.values(), *modes.draws.values()))
    monkeypatch.setenv("PPNMF_KERNEL", "reference")
    reference = ppnmf.fit(ExponentialGaussian(K), wide, **options)
    for site in compiled.draws:
        torch.testing.assert_close(compiled.draws[site], reference.draws[site], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("init", ["scaled", "prior", "nndsvd"])
def test_starts_do_not_depend_on_the_number_of_threads(init):
    large = drawn(900, 700, 4, rate=0.3, noise=0.5)[0].abs()
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            model = ExponentialGaussian.scaled_to(large, 4)
            found.append((model.noise_scale, ppnmf.fit(model, large, init=init, draws=1, warmup=0, chains=1)))
    finally:
        torch.set_num_threads(before)
    assert found[0][0] == found[1][0] and same(found[0][1], found[1][1])


def test_rates_per_entry_must_fit_the_data():
    with pytest.raises(ValueError, match="rate_W is for 4 rows and X has 30"):
        ppnmf.fit(ExponentialGaussian(3, rate_W=torch.ones(4, 3)), X)
    with pytest.raises(ValueError, match="rate_H is for 7 columns and X has 20"):
        ppnmf.fit(ExponentialGaussian(3, rate_H=torch.ones(3, 7)), X, method="icm")


def test_numpy_s_whole_numbers_are_whole_numbers(tmp_path):
    post = ppnmf.fit(
        ExponentialGaussian(np.int64(2)), X, draws=np.int64(3), warmup=np.int32(0), chains=1, seed=np.int64(4)
    )
    assert post.n_draws == 3 and ppnmf.Posterior.load(post.save(tmp_path / "fit.nc")).seed == 4


def test_a_model_s_rates_are_its_own():
    rate = torch.ones(3, dtype=torch.float64)
    model = ExponentialGaussian(3, rate)
    rate[0] = 7.0
    assert float(model.rate_W[0]) == 1.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_type_of_x_is_the_type_of_the_draws(dtype):
    post = ppnmf.fit(MODEL, X.to(dtype), draws=200, warmup=200, chains=2)
    assert all(values.dtype == dtype for values in post.draws.values())
    assert 0.3 < float(post.mean("sigma2")) < 0.8


@pytest.mark.parametrize("init", ["scaled", "prior", "nndsvd", {"W": W, "H": H}, {"W": W, "H": H, "sigma2": 0.5}])
def test_every_start_is_taken(init):
    post = ppnmf.fit(MODEL, X, init=init, draws=100, warmup=300, chains=2)
    assert 0.35 < float(post.mean("sigma2")) < 0.7


def test_a_posterior_is_a_start_and_goes_on_where_it_was():
    first = ppnmf.fit(MODEL, X, **QUICK)
    state = gibbs.init(MODEL, first.X, Stream.of(0, 3), first)
    assert torch.equal(state.params["W"], first.draws["W"][[0, 1, 0], -1])


def test_chains_start_apart():
    for init in ("scaled", "prior", "nndsvd"):
        state = gibbs.init(MODEL, ppnmf.data.matrix.as_matrix(X), Stream.of(0, 2), init)
        assert not torch.allclose(state.params["W"][0], state.params["W"][1], rtol=0.1)


@pytest.mark.parametrize(
    "options,sentence",
    [
        ({"draws": 0}, "draws is 0"),
        ({"chains": 0}, "chains is 0"),
        ({"warmup": -1}, "warmup is -1"),
        ({"thin": 0}, "thin is 0"),
        ({"draws": 1.5}, "draws is 1.5"),
        ({"seed": -3}, "seed is -3"),
        ({"init": "best"}, "init is 'best'; give 'scaled'"),
        ({"init": {"W": W}}, "it needs W and H"),
        ({"init": {"W": W, "H": H.T}}, r"init's H has shape \((1, )?20, 3\)"),
        ({"init": {"W": -W, "H": H}}, "init's W has entries that are negative"),
        ({"method": "magic"}, "method is 'magic'; it must be one of 'gibbs'"),
    ],
)
def test_bad_options_get_their_sentence(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        ppnmf.fit(MODEL, X, **options)


def test_an_unknown_option_is_named_with_those_there_are():
    with pytest.raises(TypeError, match="gibbs has no option restarts; it has draws, warmup"):
        ppnmf.fit(MODEL, X, restarts=3)


def test_a_zero_rate_is_an_error_for_the_sampler():
    with pytest.raises(ValueError, match="only icm can use it"):
        ppnmf.fit(ExponentialGaussian(2, rate_H=0.0), X)


def test_negative_entries_are_a_warning_that_counts_them():
    dirty = X.clone()
    dirty[0, 0], dirty[3, 2] = -0.25, -0.5
    with pytest.warns(UserWarning, match=r"X has 2 negative entries \(least -0.5\)"):
        ppnmf.fit(MODEL, dirty, draws=1, warmup=0, chains=1)


def test_a_rank_above_the_matrix_is_a_warning():
    with pytest.warns(UserWarning, match=r"rank 21 is above min\(N, D\) = 20"):
        ppnmf.fit(ExponentialGaussian(21), X, draws=1, warmup=0, chains=1)


def test_rows_and_columns_of_zeros_are_ordinary():
    holes = X.clone()
    holes[3], holes[:, 5] = 0, 0
    post = ppnmf.fit(MODEL, holes, draws=50, warmup=50, chains=1)
    assert all(bool(values.isfinite().all()) for values in post.draws.values())


def test_x_all_zero_is_sampled():
    post = ppnmf.fit(MODEL, torch.zeros(6, 4), draws=50, warmup=50, chains=1)
    assert all(bool(values.isfinite().all()) for values in post.draws.values())


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_data_of_any_scale_is_sampled_alike(scale):
    scaled = ppnmf.fit(ExponentialGaussian.scaled_to(X * scale, 3), X * scale, draws=100, warmup=200, chains=2)
    plain = ppnmf.fit(ExponentialGaussian.scaled_to(X, 3), X, draws=100, warmup=200, chains=2)
    assert float(scaled.mean("sigma2")) / scale**2 == pytest.approx(float(plain.mean("sigma2")), rel=0.1)


class Interrupt:
    """Raises KeyboardInterrupt at a given sweep, each of them a lot of its own."""

    def __init__(self, at, monkeypatch):
        self.at, self.calls, self.several = at, 0, length.several
        monkeypatch.setattr(length, "sweeps_at_once", lambda *shape: 1)
        monkeypatch.setattr(length, "several", self)

    def __call__(self, *arguments, **options):
        self.calls += 1
        if self.calls == self.at:
            raise KeyboardInterrupt
        return self.several(*arguments, **options)


def test_ctrl_c_returns_what_was_drawn_and_says_so(monkeypatch):
    whole = ppnmf.fit(MODEL, X, **QUICK)
    Interrupt(18, monkeypatch)
    post = ppnmf.fit(MODEL, X, **QUICK)
    assert post.attrs["interrupted"] and post.n_draws == 7 and not whole.attrs["interrupted"]
    assert torch.equal(post.draws["W"], whole.draws["W"][:, :7])


def test_ctrl_c_before_the_first_draw_is_raised(monkeypatch):
    Interrupt(5, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        ppnmf.fit(MODEL, X, **QUICK)


def test_the_fitted_model_is_not_changed_and_torch_validation_is_as_found():
    validation = torch.distributions.Distribution._validate_args
    post = ppnmf.fit(MODEL, X, **QUICK)
    assert post.model is MODEL and torch.distributions.Distribution._validate_args == validation
