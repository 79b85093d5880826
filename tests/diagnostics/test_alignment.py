import json
import time
from itertools import permutations

import pytest
import torch

import ppnmf
from ppnmf.data.matrix import as_matrix
from ppnmf.matching import best_orders
from ppnmf.models import ExponentialGaussian
from ppnmf.posterior import Posterior
from tests.scenarios import drawn


def posterior(W, H, lp=None):
    """Draws W (chain, draw, N, K), H (chain, draw, K, D)."""
    stat = torch.zeros(W.shape[:2], dtype=torch.float64) if lp is None else lp
    model = ExponentialGaussian(W.shape[-1])
    X = as_matrix((W @ H)[0, 0])
    draws = {"W": W, "H": H, "sigma2": torch.ones_like(stat)}
    return Posterior(draws=draws, stats={"lp": stat}, model=model, X=X, method="gibbs", seed=0, attrs={"warmup": 0})


def shuffled(chains=2, draws=6, N=7, D=5, K=4, noise=0.05):
    """Draws near one (W, H), each with its components in another order, the first in their own."""
    generator = torch.Generator().manual_seed(0)
    random = lambda *size: torch.rand(*size, generator=generator, dtype=torch.float64)
    W, H = random(N, K) + random(N, K), random(K, D) + random(K, D)
    orders = torch.stack([torch.randperm(K, generator=generator) for _ in range(chains * draws)]).view(chains, draws, K)
    orders[0, 0] = torch.arange(K)
    many_W, many_H = W[:, orders].permute(1, 2, 0, 3), H[orders]
    near = lambda F: F * (1 + noise * random(*F.shape))
    lp = torch.zeros(chains, draws, dtype=torch.float64)
    lp[0, 0] = 1.0
    return posterior(near(many_W), near(many_H), lp), W, H, orders


def test_align_undoes_a_shuffle_and_leaves_the_product_alone():
    post, W, H, orders = shuffled()
    aligned = ppnmf.align(post)
    torch.testing.assert_close(aligned.draws["W"], W.expand(2, 6, -1, -1), rtol=0.06, atol=0)
    torch.testing.assert_close(aligned.draws["H"], H.expand(2, 6, -1, -1), rtol=0.06, atol=0)
    torch.testing.assert_close(aligned.draws["W"] @ aligned.draws["H"], post.draws["W"] @ post.draws["H"])
    found = torch.tensor(aligned.attrs["alignment"]["order"])
    assert torch.equal(orders.gather(-1, found), torch.arange(4).expand(2, 6, 4))


def test_align_takes_the_draw_with_the_greatest_log_joint_and_leaves_it_as_it_is():
    post, *_ = shuffled()
    post.stats["lp"][1, 3] = 5.0
    aligned = ppnmf.align(post)
    assert torch.equal(aligned.draws["W"][1, 3], post.draws["W"][1, 3])
    assert aligned.attrs["alignment"]["reference"] == {"chain": 1, "draw": 3}


def test_align_returns_a_new_posterior_and_notes_that_json_can_hold():
    post, *_ = shuffled()
    before = post.draws["W"].clone()
    aligned = ppnmf.align(post)
    assert torch.equal(post.draws["W"], before) and "alignment" not in post.attrs
    assert json.loads(json.dumps(aligned.attrs))["alignment"]["scaled"] is False
    assert aligned.attrs["warmup"] == 0


def test_the_order_found_is_the_best_of_all_orders():
    generator = torch.Generator().manual_seed(1)
    W, V = torch.rand(20, 6, 4, generator=generator), torch.rand(6, 4, generator=generator)
    H, G = torch.rand(20, 4, 3, generator=generator), torch.rand(4, 3, generator=generator)
    terms = lambda A, B: torch.einsum("...nk,...kd->...knd", A.double(), B.double())  # rank-one terms
    found = best_orders(W, H, V, G)
    for s in range(20):
        cost = {o: float((terms(W[s], H[s])[list(o)] - terms(V, G)).square().sum()) for o in permutations(range(4))}
        assert cost[tuple(found[s].tolist())] == pytest.approx(min(cost.values()))


def test_the_scale_of_a_component_plays_no_part():
    post, *_ = shuffled()
    c = torch.tensor([1e-6, 1.0, 1e3, 1e6], dtype=torch.float64)
    scaled = posterior(post.draws["W"] * c, post.draws["H"] / c[:, None], post.stats["lp"])
    assert ppnmf.align(scaled).attrs == ppnmf.align(post).attrs


def test_a_reference_may_be_a_posterior_or_a_dict_of_arrays():
    post, W, H, _ = shuffled()
    turned = [2, 0, 3, 1]
    by_dict = ppnmf.align(post, {"W": W[:, turned].numpy(), "H": H[turned].numpy()})
    torch.testing.assert_close(by_dict.draws["W"], W[:, turned].expand(2, 6, -1, -1), rtol=0.06, atol=0)
    by_posterior = ppnmf.align(post, by_dict)
    assert torch.equal(by_posterior.draws["W"], by_dict.draws["W"])
    assert by_dict.attrs["alignment"]["reference"] == "given"


def test_a_reference_of_another_rank_is_refused():
    post, W, H, _ = shuffled()
    with pytest.raises(ValueError, match="same data and rank"):
        ppnmf.align(post, {"W": W[:, :3], "H": H[:3]})


def test_scale_makes_rows_of_h_sum_to_one_and_keeps_the_product():
    post, *_ = shuffled()
    aligned = ppnmf.align(post, scale=True)
    torch.testing.assert_close(aligned.draws["H"].sum(-1), torch.ones(2, 6, 4, dtype=torch.float64))
    torch.testing.assert_close(aligned.draws["W"] @ aligned.draws["H"], post.draws["W"] @ post.draws["H"])
    assert aligned.attrs["alignment"]["scaled"] is True


def test_dead_components_take_the_places_that_are_left():
    post, W, H, orders = shuffled()
    dead = orders == 1  # component 1 has died everywhere but in the reference
    dead[0, 0] = False
    post.draws["W"][dead[..., None, :].expand_as(post.draws["W"])] = 0.0
    post.draws["H"][dead[..., None].expand_as(post.draws["H"])] = 0.0
    aligned = ppnmf.align(post, scale=True)
    assert bool((aligned.draws["H"][..., 1, :].reshape(12, -1)[1:] == 0).all())
    assert bool(aligned.draws["W"].isfinite().all() and aligned.draws["H"].isfinite().all())
    live = [0, 2, 3]
    torch.testing.assert_close(
        (aligned.draws["H"] * aligned.draws["W"].sum(-2)[..., None])[..., live, :],
        (H * W.sum(0)[:, None])[live].expand(2, 6, 3, -1),
        rtol=0.12,
        atol=0,
    )


def test_a_single_component_and_modes_are_aligned_too():
    X, *_ = drawn(8, 6, 1)
    mode = ppnmf.fit(ExponentialGaussian(1), X.abs(), method="icm", restarts=3)
    assert ppnmf.align(mode).attrs["alignment"]["order"] == [[[0]]] * 3


def test_a_factor_that_was_not_kept_is_named():
    X, *_ = drawn(8, 6, 2)
    post = ppnmf.fit(ExponentialGaussian(2), X.abs(), draws=3, warmup=0, keep=["W"])
    with pytest.raises(KeyError, match="H was not kept"):
        ppnmf.align(post)


def test_four_thousand_draws_of_ten_components_take_about_a_second():
    generator = torch.Generator().manual_seed(2)
    W, H = torch.rand(4, 1000, 100, 10, generator=generator), torch.rand(4, 1000, 10, 80, generator=generator)
    post = posterior(W, H)
    began = time.perf_counter()
    ppnmf.align(post)
    assert time.perf_counter() - began < 5.0
