"""Factors and cells as tables."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

import ppnmf
from ppnmf import plots
from ppnmf.models import ExponentialGaussian
from ppnmf.posterior import Posterior

N, D, K, S = 6, 5, 2, 400


def made(noise=None, names=None, kind="chains", sd=0.05):
    """Draws around known factors, each in an order and a scale of its own."""
    generator = np.random.default_rng(0)
    W, H = generator.exponential(1, (N, K)), generator.dirichlet(np.ones(D), K)
    Ws = W * np.exp(sd * generator.normal(size=(S, N, K)))
    Hs = H * np.exp(sd * generator.normal(size=(S, K, D)))
    scale = generator.exponential(1, (S, K)) + 0.1
    orders = np.array([generator.permutation(K) for _ in range(S)])
    Ws = np.take_along_axis(Ws * scale[:, None], orders[:, None], 2)
    Hs = np.take_along_axis(Hs / scale[:, :, None], orders[:, :, None], 1)
    draws = {"W": Ws, "H": Hs, "sigma2": np.full(S, 0.01)}
    X = ppnmf.as_matrix(W @ H, noise=noise)
    post = Posterior(
        draws={site: torch.from_numpy(values).unflatten(0, (2, S // 2)) for site, values in draws.items()},
        stats={"lp": torch.zeros(2, S // 2)},
        model=ExponentialGaussian(K),
        X=X,
        method="gibbs",
        seed=0,
        names=names or {},
        kind=ppnmf.posterior.Kind(kind),
    )
    return post, W, H


def in_order_of(H, found):
    return sorted(range(K), key=lambda k: int(np.argmin(((H - found[k]) ** 2).sum(1))))


def test_components_are_brought_to_one_order_and_scale():
    post, _, H = made()
    table = post.components()
    order = in_order_of(H, table.mean)
    assert np.allclose(table.mean.sum(1), 1)
    assert (np.abs(table.mean[order] - H) < 5 * table.sd[order] / np.sqrt(S) + 0.01 * H + 1e-3).all()
    assert (table.sd < 0.07 * table.mean + 1e-3).all() and (table.congruence > 0.99).all()
    inside = (H >= table.lower[order]) & (H <= table.upper[order])
    assert inside.mean() > 0.9
    loadings = post.loadings()
    scaled = post.reconstruction().numpy()
    assert np.abs(loadings.mean @ table.mean - scaled).max() < 0.02 * scaled.max()
    raw = post.components(scale=False)
    assert (raw.sd.mean(1) > 5 * table.sd.mean(1) * raw.mean.mean(1)).all()


def test_the_strongest_component_is_the_first_in_tables_and_pictures():
    post, _, _ = made()
    strength = post["W"].sum(2) * post["H"].sum(3)
    weaker = strength == strength.amin(-1, keepdim=True)
    raised = replace(post, draws={**post.draws, "W": post["W"] * torch.where(weaker, 100.0, 1.0)[:, :, None]})
    before, after = post.components(), raised.components()
    np.testing.assert_allclose(after.mean, before.mean[::-1])
    assert after.rows == ["component 1", "component 2"]
    for each in (post, raised):
        first, second = each.loadings().mean.sum(0)
        assert first > second
        stems = plots.components(each)[0].collections[0].get_segments()
        np.testing.assert_allclose([stem[1, 1] for stem in stems], each.components().mean[0])


def test_tables_of_new_rows_keep_the_order_of_the_fit():
    post, W, H = made()
    weak = np.argmin(W.sum(0) * H.sum(1))
    rows = np.outer([5.0, 7.0, 9.0], H[weak])  # in these the weaker one is the stronger
    new = post.transform(rows, sweeps=20)
    for found in (new, new.select(draws=slice(3, None, 2)), new.weighted([1, 3])):
        loadings = found.loadings().mean
        assert (loadings[:, 1] > 5 * loadings[:, 0]).all()
        np.testing.assert_allclose(found.components().mean, post.components().mean, atol=0.02)
        assert plots.components(found)[1].get_title("left").startswith("2: 9")


def test_a_component_that_is_two_things_has_a_low_congruence():
    post, _, _ = made(sd=0.02)
    draws = dict(post.draws)
    other = draws["H"].clone()
    table = post.components()
    weak = int(np.argmin(table.mean.sum(1)))
    first = post.best().draws["H"][0, 0, weak]
    at = torch.nn.functional.cosine_similarity(other, first, dim=-1).argmax(-1)
    flipped = torch.arange(S).unflatten(0, (2, S // 2)) % 2 == 0
    for c, s in flipped.nonzero().tolist():
        other[c, s, at[c, s]] = other[c, s, at[c, s]].roll(2)
    mixed = replace(post, draws={**draws, "H": other}).components()
    assert mixed.congruence.min() < 0.95 < table.congruence.min()


def test_a_component_that_is_zero_in_all_draws_is_one_thing():
    post, _, _ = made()
    draws = {**post.draws, "W": torch.zeros_like(post.draws["W"]), "H": torch.zeros_like(post.draws["H"])}
    assert (replace(post, draws=draws).components().congruence == 1).all()


def test_tables_carry_names_and_are_written(tmp_path):
    names = {"rows": [f"cell {i}" for i in range(N)], "columns": [f"gene, {j}" for j in range(D)]}
    post, _, _ = made(names=names)
    table = post.components(level=0.5)
    frame = table.to_pandas()
    assert list(frame.columns) == ["component", "column", "mean", "sd", "lower", "upper", "congruence"]
    assert set(frame["column"]) == set(names["columns"]) and len(frame) == K * D
    one = frame[(frame["component"] == "component 2") & (frame["column"] == "gene, 3")].iloc[0]
    assert (one["mean"], one["upper"], one["congruence"]) == (table.mean[1, 3], table.upper[1, 3], table.congruence[1])
    pd.testing.assert_frame_equal(pd.read_csv(table.to_csv(tmp_path / "H.csv")), frame)
    loadings = post.loadings()
    read = pd.read_csv(loadings.to_csv(tmp_path / "W.csv"))
    pd.testing.assert_frame_equal(read, loadings.to_pandas())
    assert list(read.columns[:2]) == ["row", "component"] and read["row"][2] == "cell 1"
    assert "component 1 (congruence 1.00): gene, " in str(table) and "cell " in str(loadings)


def test_of_modes_the_best_is_shown():
    post, _, _ = made(kind="modes")
    stats = {"lp": post.stats["lp"].clone()}
    stats["lp"][1, 7] = 1.0
    best = replace(post, stats=stats)
    W, H = best.draws["W"][1, 7], best.draws["H"][1, 7]
    H = H[(W.sum(0) * H.sum(1)).argsort(descending=True)]
    assert np.allclose(best.components().mean, (H / H.sum(-1, keepdim=True)).numpy())
    assert np.isnan(best.components().sd).all() and np.isnan(best.loadings().upper).all()
    assert "±" not in str(best.components()) and "nan" not in str(best.components())


def test_an_interval_of_cells_holds_the_noise_too():
    names = {"rows": [f"cell {i}" for i in range(N)], "columns": [f"gene {j}" for j in range(D)]}
    variances = np.linspace(1, 4, D)
    post, W, H = made(noise=variances, names=names)
    found = post.interval(rows=["cell 2", 4], columns=["gene 4", 0, 1], level=0.8)
    assert found.mean.shape == found.lower.shape == (2, 3)
    spread = found.upper - found.lower
    wanted = (
        2 * 1.2816 * np.sqrt(0.01 * variances[[4, 0, 1]] + (0.05 * np.sqrt(2) * (W @ H)[[2, 4]][:, [4, 0, 1]]) ** 2 / 2)
    )
    assert np.allclose(spread, wanted, rtol=0.25)
    assert np.allclose(found.mean, (W @ H)[[2, 4]][:, [4, 0, 1]], atol=0.05)
    part = post.predictive(seed=1, rows=[1], columns=range(3))
    assert part.shape == (2, S // 2, 1, 3) and torch.equal(
        part, post.predictive(seed=1, rows=["cell 1"], columns=[0, 1, 2])
    )
    assert post.interval("sigma2").mean == pytest.approx(0.01)


def test_bounds_of_a_mode_are_those_of_the_noise_about_it():
    X = torch.from_numpy(made()[1] @ made()[2])
    mask = torch.ones(N, D, dtype=torch.bool)
    mask[1, 2] = mask[4, 0] = False
    variances = np.linspace(1, 4, D)
    fit = ppnmf.fit(
        ExponentialGaussian(K, sigma2=0.04), X, mask=mask, noise=variances, method="icm", restarts=3, progress=False
    )
    best = fit.best()
    product = (best.draws["W"] @ best.draws["H"])[0, 0].numpy()
    found, cells = fit.imputed(level=0.8), ((1, 4), (2, 0))
    assert np.allclose(found.mean, product[cells]) and np.array_equal(found.mean, fit.imputed(seed=9).mean)
    width = 2 * 1.2816 * 0.2 * np.sqrt(variances)
    assert np.allclose(found.upper - found.lower, width[[2, 0]], rtol=0.1)  # of 2000 replicates
    own = fit.interval(rows=[1, 4], columns=[0, 3], level=0.8)
    assert np.allclose(own.mean, product[np.ix_([1, 4], [0, 3])])
    assert np.allclose(own.upper - own.lower, np.broadcast_to(width[[0, 3]], (2, 2)), rtol=0.1)
    assert fit.interval().mean.shape == (N, D)


@pytest.mark.parametrize(
    "call,sentence",
    [
        (lambda post: post.interval(rows=["nobody"]), "rows 'nobody': the fit has no such names"),
        (lambda post: post.interval(columns=[0, 9]), "columns has 9; X has 5, numbered from 0"),
        (lambda post: post.interval(rows=3), "rows is 3; give a list"),
        (
            lambda post: post.interval(columns=np.arange(5) > 2),
            "columns has False; give names or whole numbers, such as",
        ),
        (lambda post: post.interval(columns=torch.arange(5) > 2), "give names or whole numbers"),
        (lambda post: post.interval(rows=[1.7]), "rows has 1.7; give names or whole numbers"),
        (lambda post: post.components(level=1.5), "level is 1.5; it must lie between 0 and 1"),
    ],
)
def test_what_there_is_not_gets_a_sentence(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call(made()[0])


def test_a_fit_of_named_data_gives_named_tables():
    frame = pd.DataFrame(np.random.default_rng(0).exponential(1, (8, 4)), columns=list("abcd"), index=list("stuvwxyz"))
    post = ppnmf.fit("exponential_gaussian", frame, rank=2, draws=20, warmup=20, chains=2, seed=0, progress=False)
    assert post.components().columns == list("abcd") and post.loadings().rows == list("stuvwxyz")
