"""Criteria that need no evidence, each against a second route to its number."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.sparse
import torch
from scipy.special import logsumexp
from scipy.stats import gamma, norm

import ppnmf
from ppnmf.data.matrix import as_matrix
from ppnmf.evidence import bound, consensus, description, information, loo, modes
from ppnmf.evidence.rank import CRITERIA, _run_of
from ppnmf.evidence.score import Measure
from ppnmf.models import PAENMF, ExponentialGaussian
from ppnmf.rng import Site, Stream
from tests.scenarios import drawn
from tests.toy_model import RandomRates

pytestmark = pytest.mark.filterwarnings("ignore:X has .* negative entries")
LEAST_SQUARES = ExponentialGaussian(1, rate_W=0.0, rate_H=0.0)
QUICK = {
    "aic": {"restarts": 2},
    "bic": {"restarts": 2},
    "mdl": {"restarts": 2},
    "elbo": {"steps": 30, "restarts": 2},
    "loo": {"draws": 30, "warmup": 30, "chains": 2},
    "consensus": {"restarts": 4},
}


def measure(value, error=0.0, **rest):
    rest = {"label": "x", "sign": 1, "method": "m", "rank": 1, "priors": {}, "seconds": 0.0} | rest
    return Measure(value=value, error=error, **rest)


def rank_one_error(X: np.ndarray, seen: np.ndarray) -> float:
    """Least Σ (x - w h)² over the seen entries, by alternating regressions."""
    h = np.ones(X.shape[1])
    for _ in range(2000):
        w = (seen * X) @ h / (seen @ h**2)
        h = w @ (seen * X) / (w**2 @ seen)
    return float((seen * (X - np.outer(w, h)) ** 2).sum())


# Measure


def test_a_lead_counts_beyond_the_threshold_and_two_errors():
    best = measure(10.0, 1.0, clear=3.0)
    assert best.lead_over(measure(4.0, 0.0)) == (6.0, 1.0)
    assert best.is_clearly_better_than(measure(4.9)) and not best.is_clearly_better_than(measure(5.1))
    assert measure(1.0, sign=-1).is_clearly_better_than(measure(2.0, sign=-1))
    assert not best.is_clearly_better_than(measure(-1e9, math.nan))
    assert not measure(1.0).is_clearly_better_than(measure(1.0))  # two ranks with a consensus of 1 and no error


def test_parts_are_compared_pair_by_pair():
    first, second = np.arange(100.0), np.arange(100.0) - 0.1
    pair = [measure(float(x.sum()), 1e3, parts=tuple(x)) for x in (first, second)]
    lead, error = pair[0].lead_over(pair[1])
    assert lead == pytest.approx(10.0) and error < 1e-6


# AIC and BIC


@pytest.mark.parametrize("hidden", [False, True])
def test_aic_and_bic_are_those_of_the_least_squares_fit_at_rank_one(hidden):
    X = drawn(9, 6, 1, noise=0.1)[0].clamp(min=0.01)
    mask = torch.ones(9, 6, dtype=torch.bool)
    if hidden:
        mask[2, 3] = mask[5, 1] = mask[8, 5] = False
    seen = mask.double().numpy()
    n, p = int(seen.sum()), (9 + 6) * 1 + 1
    squared_error = rank_one_error(X.numpy(), seen)
    if not hidden:
        assert squared_error == pytest.approx(float(torch.linalg.svdvals(X)[1:].square().sum()), rel=1e-10)
    fit = -2 * norm.logpdf(0, scale=math.sqrt(squared_error / n)) * n + n  # Σ e² / s² is n
    data = as_matrix(X, mask)
    options = {"restarts": 3, "progress": False}
    values = {
        "plain": information.aic(LEAST_SQUARES, data, corrected=False, **options),
        "corrected": information.aic(LEAST_SQUARES, data, **options),
        "fewer": information.bic(LEAST_SQUARES, data, invariance=True, **options),
        "bic": information.bic(LEAST_SQUARES, data, **options),
    }
    assert values["plain"].value == pytest.approx(fit + 2 * p, rel=1e-6)
    assert values["corrected"].value == pytest.approx(fit + 2 * p + 2 * p * (p + 1) / (n - p - 1), rel=1e-6)
    assert values["bic"].value == pytest.approx(fit + p * math.log(n), rel=1e-6)
    assert values["fewer"].value == pytest.approx(fit + (p - 1) * math.log(n), rel=1e-6)
    assert all(0 <= value.error < 1e-3 for value in values.values())  # all restarts find it


def test_the_deviance_is_minus_twice_the_best_log_likelihood_with_known_noise():
    X, W, H = drawn(7, 5, 2)
    v = torch.linspace(0.5, 2.0, 35, dtype=torch.float64).reshape(7, 5)
    data = as_matrix(X, noise=v)
    squared_error = float(((X - W @ H).square() / v).sum())
    scale = (squared_error / 35 * v).sqrt().numpy()
    known = -2 * norm.logpdf(X.numpy(), (W @ H).numpy(), scale).sum()
    assert modes.deviance(np.array([squared_error]), data)[0] == pytest.approx(known)


def test_columns_with_a_variance_each_have_the_likelihood_of_it_and_as_many_parameters():
    noise = torch.tensor([0.01, 1.0] * 6, dtype=torch.float64).sqrt()
    X = (
        drawn(60, 12, 2, noise=1e-6)[0]
        + noise * torch.randn(60, 12, generator=torch.Generator().manual_seed(1)).double()
    )
    mask = torch.ones(60, 12, dtype=torch.bool)
    mask[:7, 3] = mask[5, 1] = False
    data, model = as_matrix(X, mask), ppnmf.models.ColumnNoiseGaussian(2)
    mode = ppnmf.fit(model, data, method="icm", restarts=1, seed=0, progress=False)
    left = np.where(mask, (X - mode.draws["W"][0, 0] @ mode.draws["H"][0, 0]).numpy(), np.nan)
    each = [column[~np.isnan(column)] for column in left.T]
    wanted = sum(-2 * norm.logpdf(e, scale=math.sqrt((e**2).mean())).sum() for e in each)
    score = information.bic(model, data, restarts=1, progress=False)
    assert score.attrs["parameters"] == (60 + 12) * 2 + 12
    assert score.value == pytest.approx(wanted + score.attrs["parameters"] * math.log(data.n_observed), rel=1e-9)
    pooled = information.bic(ExponentialGaussian(2), data, restarts=1, progress=False)
    assert score.value < pooled.value - 500


@pytest.mark.parametrize(
    ("model", "wanted", "free"),
    [
        (ExponentialGaussian(4), 50 * 4 + 1, 16),
        (ExponentialGaussian(4, sigma2=1.0), 50 * 4, 16),
        (ppnmf.models.ARDGaussian(4), 50 * 4 + 1, 16),
        (ppnmf.models.NegativeBinomialGamma(4), 50 * 4 + 1, 16),
        (ppnmf.models.TriFactor(4, 2), 30 * 4 + 4 * 2 + 2 * 20 + 1, 16 + 4),
        (ppnmf.models.Hierarchical((5, 3)), 30 * 5 + 5 * 3 + 3 * 20 + 1, 25 + 9),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_parameters_are_the_entries_of_the_factors_and_of_the_noise(model, wanted, free):
    data = as_matrix(torch.ones(30, 20))
    assert information.parameters(model, data, False) == wanted
    assert information.parameters(model, data, True) == wanted - free


@pytest.mark.parametrize("flag", ["invariance", "corrected"])
def test_flags_are_true_or_false(flag):
    with pytest.raises(ValueError, match=f"{flag} is 'no'; it must be True or False"):
        information.aic(ExponentialGaussian(1), as_matrix(torch.ones(5, 4)), **{flag: "no"})


def test_aic_refuses_more_parameters_than_its_correction_can_take():
    data = as_matrix(torch.ones(5, 4))
    with pytest.raises(ValueError, match=r"rank 2 has 19 for 20: try smaller ranks, or corrected=False"):
        information.aic(ExponentialGaussian(2), data)


def test_entries_that_are_held_are_no_parameters():
    data = as_matrix(torch.ones(9, 8))
    rows = torch.ones(1, 8)
    rows[0, :3] = torch.nan
    assert information.parameters(ExponentialGaussian(2), data, False) == 35
    assert information.parameters(ExponentialGaussian(2, fixed_H=rows), data, False) == 30


@pytest.mark.parametrize("method", [information.aic, information.bic])
def test_criteria_of_a_mode_refuse_as_many_parameters_as_entries(method):
    options = {"corrected": False} if method is information.aic else {}
    with pytest.raises(ValueError, match="needs more observed entries than parameters, and rank 2 has 17 for 16"):
        method(ExponentialGaussian(2), as_matrix(torch.ones(4, 4)), progress=False, **options)


@pytest.mark.slow
def test_aic_bic_mdl_and_elbo_choose_the_true_rank_of_the_published_toy(real_data):
    X = real_data("toy/bnmtf_toy.npz")["R"]
    model = ExponentialGaussian(1)
    for mask in (None, real_data("toy/bnmtf_toy.npz")["M"].astype(bool)):
        table = ppnmf.select_rank(model, X, range(1, 15), method=["aic", "bic", "mdl"], mask=mask, progress=False)
        assert [table.best_by(method) for method in table.methods] == [10, 10, 10]
        assert not any(table.rivals(method) for method in table.methods)
    above = X.clip(min=0)  # one entry is negative
    assert ppnmf.select_rank(PAENMF, above, range(8, 13), method="elbo", progress=False).best == 10


# Description length


def test_the_description_is_the_code_length_made_by_hand():
    X, W, H = drawn(6, 5, 2, noise=0.1)
    data, of_X, of_F = as_matrix(X), 0.01, 0.25
    told = description.description(data, W, H, of_X, of_F)
    steps = [np.round(F.numpy() / of_F) for F in (W, H)]
    error = X.numpy() - (steps[0] * of_F) @ (steps[1] * of_F)
    scale = math.sqrt((error**2).mean())
    residual = -np.log2(norm.pdf(error, scale=scale) * of_X).sum()
    assert told.residual == pytest.approx(residual)
    for bits, multiples in zip((told.W, told.H), steps, strict=True):
        values = multiples.ravel() * of_F
        lengths = [
            -np.log2(gamma.cdf(values + of_F / 2, a, scale=s) - gamma.cdf(values - of_F / 2, a, scale=s)).sum()
            for a in np.linspace(0.3, 4, 75)
            for s in np.linspace(0.2, 3, 57)
        ]
        assert min(lengths) - 0.05 < bits <= min(lengths) + 1e-6
    assert told.total == told.W + told.H + told.residual


def test_the_gamma_code_takes_the_entropy_of_what_it_is_for():
    values = np.random.default_rng(0).gamma(2.0, 30.0, 20_000)
    bits = gamma(2.0, scale=30.0).entropy() / math.log(2)
    spread = np.log2(gamma(2.0, scale=30.0).pdf(values)).std() / math.sqrt(len(values))
    assert description.gamma_bits(np.round(values)) / len(values) == pytest.approx(bits, abs=4 * spread)


def test_zeros_take_some_bits_and_never_less_than_none():
    sparse = np.r_[np.zeros(900), np.random.default_rng(0).gamma(1.0, 20.0, 100).round() + 1]
    share = 0.1
    least = -1000 * (share * math.log2(share) + (1 - share) * math.log2(1 - share))  # to tell which are zero
    assert least * 0.5 < description.gamma_bits(sparse) < 3 * least + 100 * 8
    assert description.gamma_bits(np.zeros(7)) == 0.0


def test_the_chosen_precision_beats_coarser_and_finer_ones():
    X, W, H = drawn(40, 30, 3)
    data = as_matrix(X)
    best = description.description(data, W, H, 0.01)
    for times in (0.2, 0.5, 2.0, 5.0):
        assert best.total < description.description(data, W, H, 0.01, times * best.precision_W).total


def test_description_length_knows_no_units_and_its_precision_adds_bits_alone():
    X = drawn(12, 9, 2, noise=0.01)[0].clamp(min=0)
    one, thousand = (
        description.run(
            ExponentialGaussian(2, 1 / c, 1 / c, noise_scale=c**4), as_matrix(X * c**2), restarts=2, progress=False
        )
        for c in (1.0, 2.0**5)
    )
    assert one.value == pytest.approx(thousand.value, abs=0.5)  # the climbs stop a little apart
    finer = description.run(
        ExponentialGaussian(2), as_matrix(X), restarts=2, precision=one.attrs["precision"] / 2, progress=False
    )
    assert finer.value - one.value == pytest.approx(108)
    with pytest.raises(ValueError, match="precision is -1"):
        description.run(LEAST_SQUARES, as_matrix(X), precision=-1)


# ELBO


def test_elbo_is_the_fit_s_bound_less_the_price_of_its_parameters():
    X = drawn(20, 8, 2, noise=0.1)[0].clamp(min=0)
    fit = ppnmf.fit(PAENMF(2), X, method="svi", steps=60, draws=1, progress=False)
    ours = bound.run(PAENMF(2), as_matrix(X), restarts=1, steps=60, progress=False)
    assert ours.attrs["elbo"] == fit.attrs["elbo"]
    assert ours.value == pytest.approx((0.5 * (8 * 2 + 1) * math.log(20) - fit.attrs["elbo"]) / math.log(2))
    assert ours.sign == -1 and "(bits)" in ours.label
    assert math.isnan(ours.error) and "not converged" in ours.warnings[0]
    plain = bound.run(PAENMF(2), as_matrix(X), restarts=2, steps=60, price=False, progress=False)
    assert plain.attrs["restarts"][0] == fit.attrs["elbo"] and plain.attrs["restarts"][1] != fit.attrs["elbo"]
    assert plain.error == pytest.approx(abs(np.subtract(*plain.attrs["restarts"])) / math.log(2))


def test_elbo_refuses_negative_entries():
    with pytest.raises(ValueError, match="pae_nmf needs data >= 0"):
        bound.run(PAENMF(1), as_matrix(torch.tensor([[1.0, -1.0], [2.0, 1.0]])))


def test_elbo_refuses_a_model_that_has_none():
    with pytest.raises(TypeError, match="elbo needs a guide with an encoder; random_rates offers full conditionals"):
        ppnmf.select_rank(RandomRates, drawn(6, 5, 1)[0].abs(), [1, 2], method="elbo", progress=False)


# Leave one out


@pytest.fixture(scope="module")
def small():
    return ExponentialGaussian(1, 4.0, 4.0, noise_shape=40.0, noise_scale=40.0), drawn(4, 3, 1)[0].abs()


def refitted(model, X, i, j, draws=50, chains=240):
    """log p(x_ij | the others) and its standard error, by Gibbs without the entry."""
    mask = torch.ones(X.shape, dtype=torch.bool)
    mask[i, j] = False
    post = ppnmf.fit(model, X, mask=mask, draws=draws, warmup=25, chains=chains, seed=5, progress=False)
    mean = (post.draws["W"][:, :, i] * post.draws["H"][..., j]).sum(-1)
    logs = norm.logpdf(float(X[i, j]), mean.numpy(), post.draws["sigma2"].sqrt().numpy())
    by_chain = np.exp(logsumexp(logs, 1) - math.log(draws))
    return math.log(by_chain.mean()), by_chain.std(ddof=1) / by_chain.mean() / math.sqrt(chains)


def test_loo_agrees_with_refitting_without_each_entry(small):
    model, X = small
    settings = {"draws": 400, "warmup": 50, "thin": 1, "chains": 8, "progress": False}
    scores = [loo.run(model, as_matrix(X), seed=seed, **settings) for seed in range(6)]
    ours = np.array([score.parts for score in scores])  # (seed, entry)
    known = np.array([[refitted(model, X, i, j) for j in range(3)] for i in range(4)]).reshape(12, 2)
    assert all(score.attrs["share_bad"] <= 1 / 12 for score in scores)
    error = np.hypot(ours.std(0, ddof=1) / math.sqrt(6), known[:, 1])
    assert (np.abs(ours.mean(0) - known[:, 0]) < 6 * error).all()  # a t of 5 degrees of freedom, 12 of them
    total = ours.sum(1)
    apart = total.mean() - known[:, 0].sum()
    assert abs(apart) < 5 * math.hypot(total.std(ddof=1) / math.sqrt(6), math.sqrt((known[:, 1] ** 2).sum()))
    assert scores[0].value == pytest.approx(total[0])
    assert scores[0].error == pytest.approx(math.sqrt(12) * ours[0].std(ddof=1))


def test_a_bad_k_hat_is_a_warning_with_the_share_of_entries():
    X = drawn(6, 5, 2)[0].abs()
    X[0, 0] = 60.0
    score = loo.run(ExponentialGaussian(2), as_matrix(X), draws=100, warmup=100, progress=False)
    assert score.attrs["share_bad"] >= 1 / 30 and score.attrs["worst"] > 0.7
    assert score.attrs["limit"] == pytest.approx(1 - 1 / math.log10(400))
    assert f"{score.attrs['share_bad']:.2%} of the entries have k-hat above 0.62" in score.warnings[0]


def test_loo_of_a_sample_of_entries_stands_for_all_of_them_the_same_at_each_rank():
    X, mask = drawn(12, 10, 2)[0], torch.ones(12, 10, dtype=torch.bool)
    mask[0, :5] = False
    data = as_matrix(X, mask)
    rows, columns = loo.sampled(data, 40, seed=1)
    assert len(rows) == 40 and bool(mask[rows, columns].all()) and len(set((rows * 10 + columns).tolist())) == 40
    settings = {"draws": 40, "warmup": 40, "chains": 2, "seed": 1, "progress": False}
    places = {at: n for n, at in enumerate(mask.flatten().nonzero()[:, 0].tolist())}
    for rank in (1, 2):
        every, some = (loo.run(ExponentialGaussian(rank), data, cells=cells, **settings) for cells in (10_000, 40))
        assert len(every.parts) == 115 == every.attrs["cells"]
        picked = np.array([every.parts[places[int(r * 10 + c)]] for r, c in zip(rows, columns, strict=True)])
        assert np.array(some.parts) * 40 / 115 == pytest.approx(
            picked, abs=0.02
        )  # the draws' efficiency is judged on others
        assert some.value == pytest.approx(sum(some.parts)) and len(some.parts) == 40


def test_log_densities_are_the_posterior_s_own():
    X = drawn(5, 4, 2)[0]
    noise = torch.linspace(0.5, 2, 20, dtype=torch.float64).reshape(5, 4)
    post = ppnmf.fit(ExponentialGaussian(2), X, noise=noise, draws=3, warmup=2, chains=2, progress=False)
    rows, columns = torch.tensor([0, 3, 4]), torch.tensor([1, 1, 2])
    assert np.allclose(loo._log_densities(post, post.X, rows, columns), post.log_likelihood()[:, :, rows, columns])


def test_loo_refuses_too_few_draws_for_a_tail():
    with pytest.raises(ValueError, match="loo has 20 draws in all"):
        loo.run(ExponentialGaussian(1), as_matrix(torch.ones(4, 4)), draws=10, chains=2)


# Consensus


def blocks(clusters=3, size=8, columns=15):
    u = Stream.of(0).uniforms(0, Site.DATA, range(clusters * size), columns)[0]
    X = 0.05 * u
    for c in range(clusters):
        width = columns // clusters
        X[c * size : (c + 1) * size, c * width : (c + 1) * width] += 1 + u[c * size : (c + 1) * size, :width]
    return X


@pytest.mark.parametrize("axis", ["rows", "columns"])
def test_consensus_is_one_at_the_rank_of_clear_clusters(axis):
    X = blocks()
    data = as_matrix(X if axis == "rows" else X.mT.contiguous())
    scores = {
        rank: consensus.run(ExponentialGaussian(rank, 5.0, 5.0), data, restarts=12, axis=axis, progress=False)
        for rank in (2, 3)
    }
    assert scores[3].value == 1.0 and scores[3].error == 0.0
    assert scores[3].attrs["dispersion"] == 1.0 and scores[3].attrs["clusters"] == 3 and not scores[3].warnings
    assert scores[2].attrs["dispersion"] <= 1.0


def test_rows_go_to_the_component_that_adds_most_to_them():
    W = torch.tensor([[[1.0, 0.2], [1.0, 0.05]]])
    H = torch.tensor([[[1.0, 1.0, 0.0], [10.0, 0.0, 2.0]]])  # sums 2 and 12
    assert consensus.assignments(W, H).tolist() == [[1, 0]]
    assert consensus.assignments(W, H, "columns").tolist() == [[1, 0, 1]]  # H_kj times 2 and 0.25


def test_cophenetic_correlation_and_dispersion_of_a_small_matrix_made_by_hand():
    C = np.array([[1, 1, 0, 0], [1, 1, 0, 0.2], [0, 0, 1, 0.8], [0, 0.2, 0.8, 1]])
    original = [0, 1, 1, 1, 0.8, 0.2]  # pairs 12 13 14 23 24 34
    joined = [0, 0.95, 0.95, 0.95, 0.95, 0.2]
    assert consensus.cophenetic_correlation(C) == pytest.approx(np.corrcoef(original, joined)[0, 1])
    assert consensus.dispersion(C) == pytest.approx((12 + 2 * 0.36 + 2 * 0.36) / 16)
    assert consensus.cophenetic_correlation(np.ones((4, 4))) == 1.0


def test_clusters_are_those_of_the_consensus_matrix():
    labels = np.array([[0, 0, 1, 1, 2], [1, 1, 0, 0, 2], [2, 2, 2, 0, 1]])  # the same two pairs, but for one row of one
    shares = consensus.consensus_matrix(labels)
    assert shares[0].tolist() == pytest.approx([1, 1, 1 / 3, 0, 0]) and shares[2, 3] == pytest.approx(2 / 3)
    found = consensus.clusters(shares, 3)
    assert (found[:, None] == found).astype(int).tolist() == [
        [1, 1, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [0, 0, 1, 1, 0],
        [0, 0, 1, 1, 0],
        [0, 0, 0, 0, 1],
    ]
    chain = np.array([[1, 0.8, 0.1, 0.05], [0.8, 1, 0.7, 0.05], [0.1, 0.7, 1, 0.65], [0.05, 0.05, 0.65, 1]])
    assert consensus.clusters(chain, 2).tolist() == [0, 0, 1, 1]  # single linkage would take the first three together


def test_consensus_disagreement_shows_and_has_an_error():
    X = drawn(15, 10, 2, noise=4.0)[0].clamp(min=0)
    score = consensus.run(ExponentialGaussian(5), as_matrix(X), restarts=6, progress=False)
    assert score.value < 1 and score.error > 0 and score.attrs["dispersion"] < 1


@pytest.mark.parametrize(
    ("rank", "options", "sentence"),
    [
        (1, {}, "says nothing at rank 1"),
        (2, {"restarts": 2}, "restarts is 2"),
        (2, {"axis": "genes"}, "axis is 'genes'"),
    ],
)
def test_consensus_refuses(rank, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        consensus.run(ExponentialGaussian(rank), as_matrix(torch.ones(4, 4)), **options)


# All of them


@pytest.mark.parametrize("method", QUICK)
def test_every_criterion_takes_a_mask_and_never_sees_what_lies_under_it(method):
    X = drawn(14, 9, 2, noise=0.1)[0].clamp(min=0)
    mask = torch.ones(14, 9, dtype=torch.bool)
    mask[::3, 2] = mask[1, 5] = False
    other = torch.where(mask, X, 100.0)
    model = PAENMF(2) if method == "elbo" else ExponentialGaussian(2)
    first, second = (
        _run_of(method)(model, as_matrix(values, mask), progress=False, **QUICK[method]) for values in (X, other)
    )
    assert math.isfinite(first.value) and first.value == second.value and first.seconds > 0
    assert str(first).startswith(first.label) and first.method == method and CRITERIA[method]


@pytest.mark.parametrize("method", ["aic", "bic", "mdl", "consensus"])
def test_criteria_at_a_mode_take_a_sparse_matrix(method):
    X = drawn(14, 9, 2, noise=0.1)[0].clamp(min=0)
    X[X < 0.7] = 0
    dense, sparse = (
        _run_of(method)(ExponentialGaussian(2), as_matrix(values), progress=False, **QUICK[method])
        for values in (X, scipy.sparse.csr_array(X.numpy()))
    )
    assert dense.value == pytest.approx(sparse.value, rel=1e-3)


@pytest.mark.parametrize("method", ["aic", "bic", "mdl", "consensus"])
def test_criteria_at_a_mode_need_conditionals(method):
    with pytest.raises(TypeError, match=f"{method} needs full conditionals"):
        _run_of(method)(PAENMF(2), as_matrix(torch.ones(5, 6)))


def test_a_single_restart_has_no_error():
    assert math.isnan(modes.shortfall(np.array([1.0])))
