import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import ppnmf
from ppnmf.data.matrix import as_matrix
from ppnmf.diagnostics import convergence
from ppnmf.diagnostics.convergence import chosen_cells, diagnose, entries, identified, strengths
from ppnmf.models import PAENMF, ExponentialGaussian
from ppnmf.posterior import Kind, Posterior
from tests.scenarios import drawn

N, D, K = 12, 9, 3


def posterior(chains=4, length=500, seed=0, **changes):
    """Independent draws of everything: chains that agree by construction."""
    generator = torch.Generator().manual_seed(seed)
    random = lambda *size: torch.rand(chains, length, *size, generator=generator, dtype=torch.float64)
    found = {"W": 1 + random(N, K), "H": 1 + random(K, D), "sigma2": 1 + random()}
    found["W"] *= torch.tensor([1.0, 2.0, 4.0])
    parts = {"draws": found, "stats": {"lp": -100 + random()}, "attrs": {"warmup": 10, "interrupted": False}}
    X = as_matrix(found["W"][0, 0] @ found["H"][0, 0])
    return Posterior(**{**parts, "model": ExponentialGaussian(K), "X": X, "method": "gibbs", "seed": 0, **changes})


def test_strengths_are_sorted_norms_of_the_components():
    post = posterior(2, 5)
    W, H = post.draws["W"], post.draws["H"]
    terms = torch.einsum("csnk,cskd->csknd", W, H)
    expected = torch.linalg.matrix_norm(terms).sort(descending=True).values
    torch.testing.assert_close(strengths(post), expected)


def test_strengths_do_not_see_order_or_scale():
    post = posterior(2, 5)
    turned = {"W": post.draws["W"][..., [2, 0, 1]] * 10, "H": post.draws["H"][..., [2, 0, 1], :] / 10}
    other = posterior(2, 5, draws={**post.draws, **turned}, stats=post.stats)
    torch.testing.assert_close(strengths(other), strengths(post))


def test_entries_are_those_of_the_product_at_the_chosen_cells():
    post = posterior(2, 5)
    cells = chosen_cells((N, D), 20, seed=3)
    assert cells.shape == (20, 2) and len({tuple(cell) for cell in cells.tolist()}) == 20
    product = (post.draws["W"] @ post.draws["H"])[:, :, cells[:, 0], cells[:, 1]]
    torch.testing.assert_close(entries(post, 20, seed=3), product)


def test_cells_depend_on_the_seed_alone_and_more_of_them_keep_the_first():
    assert torch.equal(chosen_cells((N, D), 30, 1)[:10], chosen_cells((N, D), 10, 1))
    assert not torch.equal(chosen_cells((N, D), 10, 1), chosen_cells((N, D), 10, 2))
    assert len(chosen_cells((3, 2), 50)) == 6


def test_the_identified_quantities_are_labelled():
    data = identified(posterior(2, 5), n=4)
    assert dict(data.sizes) == {"chain": 2, "draw": 5, "place": K, "entry": 4}
    assert set(data.data_vars) == {"lp", "sigma2", "strength", "WH"} and {"row", "column"} <= set(data.coords)


def test_figures_are_those_of_arviz():
    from arviz_stats import ess, mcse, rhat

    post = posterior()
    found = {q.name: q for q in diagnose(post).quantities}
    lp = post.stats["lp"].numpy()
    assert found["lp"].rhat == pytest.approx(float(rhat(lp)))
    assert found["lp"].ess_bulk == pytest.approx(float(ess(lp)))
    assert found["lp"].mcse == pytest.approx(float(mcse(lp)))
    top = strengths(post)[..., 0].numpy()
    assert found["strength[0]"].rhat == pytest.approx(float(rhat(top)))
    assert len(found) == 2 + K + 100


def test_r_hat_is_that_of_stan_on_normal_draws():
    """Split R-hat by its definition; for draws that are normal the rank normalisation changes little."""
    draws = np.random.default_rng(0).standard_normal((4, 1000)) + np.array([[0], [0], [0], [1.0]])
    halves = draws.reshape(8, 500)
    between, within = 500 * halves.mean(1).var(ddof=1), halves.var(1, ddof=1).mean()
    by_hand = math.sqrt((499 / 500 * within + between / 500) / within)
    post = posterior(4, 1000, stats={"lp": torch.from_numpy(draws)})
    assert {q.name: q for q in diagnose(post).quantities}["lp"].rhat == pytest.approx(by_hand, rel=0.02)


def test_chains_that_agree_are_said_to_agree():
    found = ppnmf.summary(posterior())
    assert found.agree is True and found.worst_rhat < 1.05 and found.least_ess > 400
    assert found.sentence.startswith("The 4 chains agree") and "worst R-hat" in found.sentence


def test_a_chain_that_went_elsewhere_is_called_bad():
    post = posterior()
    post.draws["W"][3, ..., 0] *= 3
    found = ppnmf.summary(post)
    assert found.agree is False and found.worst_rhat > 1.5
    assert "do not agree" in found.sentence and "run longer" in found.sentence


def test_chains_with_equal_products_and_different_components_are_called_bad():
    """W @ H agrees to the last digit, and so does lp; only the strengths tell."""
    post = posterior()
    mix = torch.eye(K, dtype=torch.float64)
    mix[0, 1] = 0.4
    post.draws["W"][3] @= mix
    post.draws["H"][3] = torch.linalg.inv(mix) @ post.draws["H"][3]
    found = ppnmf.summary(post)
    assert found.agree is False and "strength" in found.sentence


def test_chains_that_never_move_and_differ_are_called_bad():
    post = posterior(stats={"lp": torch.arange(4.0, dtype=torch.float64)[:, None].expand(4, 500)})
    found = ppnmf.summary(post)
    assert found.agree is False and found.worst_rhat == math.inf and "lp is infinite" in found.sentence


def test_values_that_are_not_finite_are_called_bad():
    post = posterior()
    post.stats["lp"][2, 7] = torch.nan
    found = ppnmf.summary(post)
    assert found.agree is False and found.worst_rhat == math.inf


def test_few_effective_draws_are_mentioned():
    found = ppnmf.summary(posterior(4, 90))
    assert found.agree is not False and "400 are wanted" in found.sentence


def test_one_chain_cannot_agree():
    found = ppnmf.summary(posterior(chains=1))
    assert found.agree is None and "One chain cannot show" in found.sentence
    assert found.worst_rhat < 1.05


def test_one_chain_that_drifts_is_called_bad():
    post = posterior(chains=1)
    post.stats["lp"] += torch.linspace(0, 5, 500, dtype=torch.float64)
    found = ppnmf.summary(post)
    assert found.agree is False and "does not even agree with itself" in found.sentence


@pytest.mark.parametrize("draws", [1, 2, 3])
def test_too_few_draws_are_not_judged(draws):
    found = ppnmf.summary(posterior(length=draws))
    assert found.agree is None and found.worst_rhat is None and "too few" in found.sentence


def test_constant_quantities_are_left_out_of_the_judgement():
    post = posterior()
    post.draws["sigma2"] = torch.ones(()).expand(4, 500)
    found = ppnmf.summary(post)
    assert found.agree is True
    assert next(row for row in found.table if row["name"] == "sigma2")["rhat"] is None


def test_factors_that_were_not_kept_are_mentioned():
    post = posterior()
    del post.draws["W"]
    found = ppnmf.summary(post)
    assert [row["name"] for row in found.table] == ["lp", "sigma2"] and "not kept" in found.sentence


def test_an_interrupted_run_is_named():
    assert "interrupted" in ppnmf.summary(posterior(attrs={"warmup": 10, "interrupted": True})).sentence


def test_restarts_that_reach_one_mode_are_said_to():
    X, *_ = drawn(20, 15, 1, noise=0.01)
    mode = ppnmf.fit(ExponentialGaussian(1), X.abs(), method="icm", restarts=3)
    found = ppnmf.summary(mode)
    assert found.agree is True and "All 3 restarts reached the same W @ H" in found.sentence
    assert found.worst_rhat is None and "no spread" in found.sentence and len(found.table) == 3


def test_restarts_in_different_modes_are_called_so():
    post = posterior(
        chains=3, length=1, kind=Kind.MODES, attrs={"converged": [True, False, True], "dead_components": [0, 1, 0]}
    )
    post.stats["lp"][:] = torch.tensor([[-5.0], [-2.0], [-9.5]])
    post.draws["W"][2] *= 2
    found = ppnmf.summary(post)
    assert found.agree is False and "restart 1 is best" in found.sentence and "7.50 nats short" in found.sentence
    assert "1 of 3 restart(s) had not converged" in found.sentence and "1 component(s) died" in found.sentence
    assert [row["below_best"] for row in found.table] == [3.0, 0.0, 7.5]
    W, H = post.draws["W"][:, 0], post.draws["H"][:, 0]
    apart = torch.linalg.matrix_norm(W @ H - W[1] @ H[1]) / torch.linalg.matrix_norm(W[1] @ H[1])
    assert [row["distance"] for row in found.table] == pytest.approx(apart.tolist())


def test_one_restart_is_not_judged():
    X, *_ = drawn(10, 8, 2)
    found = ppnmf.summary(ppnmf.fit(ExponentialGaussian(2), X.abs(), method="icm"))
    assert found.agree is None and "more restarts" in found.sentence


def test_draws_of_a_guide_are_said_to_be_independent():
    X, *_ = drawn(20, 10, 2)
    found = ppnmf.summary(ppnmf.fit(PAENMF(2), X.clamp(min=0), method="svi", steps=100, draws=50))
    assert found.agree is None and found.worst_rhat is None and "independent" in found.sentence


def test_one_draw_of_one_chain_is_not_taken_for_a_mode():
    X, *_ = drawn(10, 8, 2)
    post = ppnmf.fit(ExponentialGaussian(2), X.abs(), draws=1, chains=1, warmup=0)
    assert "too few" in ppnmf.summary(post).sentence


def test_a_summary_prints_its_table_and_its_sentence():
    found = ppnmf.summary(posterior())
    lines = str(found).splitlines()
    assert lines[0] == "exponential_gaussian by gibbs: X 12 × 9, rank 3; 4 chains × 500 draws"
    assert "R-hat" in lines[1] and lines[2].startswith("lp") and lines[-1] == found.sentence
    assert any(line.startswith("strength[2]") for line in lines) and len({len(line) for line in lines[1:-2]}) == 1
    assert "more that fare better" in lines[-2]


def test_a_summary_becomes_json():
    post = posterior()
    post.stats["lp"][2, 7] = torch.inf
    told = json.loads(json.dumps(ppnmf.summary(post).to_dict(), allow_nan=False))
    assert told["agree"] is False and told["worst_rhat"] == "inf" and len(told["table"]) == 2 + K + 100


def test_half_precision_of_draws_changes_no_judgement():
    post = posterior()
    single = {site: values.float() for site, values in post.draws.items()}
    found = ppnmf.summary(posterior(draws=single))
    assert found.agree is True


def test_chains_that_agree_well_agree():
    assert convergence.AGREE > convergence.MIXED


def test_entries_bear_the_names_of_their_row_and_column():
    names = {"rows": [f"gene {i}" for i in range(N)], "columns": [f"sample {j}, left [a]" for j in range(D)]}
    cells = chosen_cells((N, D), 3).tolist()
    found = ppnmf.summary(posterior(names=names), n=3)
    expected = [f"WH[gene {i}, sample {j}, left [a]]" for i, j in cells]
    assert [row["name"] for row in found.table[-3:]] == expected
    assert all(name in str(found) for name in expected)


def test_an_axis_without_names_is_numbered():
    (i, j), *_ = chosen_cells((N, D), 1).tolist()
    only_rows = posterior(names={"rows": [f"gene {i}" for i in range(N)]})
    assert ppnmf.summary(only_rows, n=1).table[-1]["name"] == f"WH[gene {i}, {j}]"
    assert ppnmf.summary(posterior(), n=1).table[-1]["name"] == f"WH[{i}, {j}]"


def test_the_sentence_names_the_worst_entry():
    post = posterior(names={"rows": [f"gene {i}" for i in range(N)], "columns": [f"sample {j}" for j in range(D)]})
    H = post.draws["H"].clone()
    H[0, :, :, 0] += 2  # one chain differs in the first column alone
    sentence = ppnmf.summary(replace(post, draws={**post.draws, "H": H}), n=N * D).sentence
    assert "do not agree" in sentence and ", sample 0] is" in sentence


def test_a_long_name_leaves_the_printed_table_readable():
    found = ppnmf.summary(posterior(names={"rows": [f"{'a gene ' * 20}{i}" for i in range(N)]}), n=2)
    assert max(map(len, str(found).splitlines()[:-1])) < 120
    assert all(name.startswith("WH[" + "a gene " * 20) for name in (row["name"] for row in found.table[-2:]))
