"""What the sweeps of a chain say of the log mass of its mode."""

import math

import pytest
import torch

from ppnmf.data.matrix import as_matrix
from ppnmf.inference import gibbs
from ppnmf.inference.mass import Seen, split
from ppnmf.models import ExponentialGaussian, TriFactor
from tests.evidence.exact import rank_one
from tests.scenarios import drawn

X = as_matrix(drawn(10, 3, 1, seed=13)[0])
MODEL = ExponentialGaussian(1, noise_shape=3.0, noise_scale=3.0)


def of_two(x, lp=None):
    """Two chains whose one site has the draws (n, entries)."""
    draws = {"W": x.expand(2, *x.shape)[..., None], "H": torch.ones(2, len(x), 1, 1, dtype=torch.float64)}
    draws["sigma2"] = torch.ones(2, len(x), dtype=torch.float64)
    lp = torch.zeros(2, len(x), dtype=torch.float64) if lp is None else lp
    return Seen.of(draws, lp).log_mass(MODEL, X)


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.9])
def test_the_entropy_of_two_normals_drawn_in_turn_is_exact(correlation):
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(100_000, 2, generator=generator, dtype=torch.float64) * math.sqrt(1 - correlation**2)
    x = torch.zeros(len(noise), 2, dtype=torch.float64)
    for n in range(1, len(x)):
        x[n, 0] = correlation * x[n - 1, 1] + noise[n, 0]
        x[n, 1] = correlation * x[n, 0] + noise[n, 1]
    exact = math.log(2 * math.pi * math.e) + 0.5 * math.log(1 - correlation**2) + 2 * math.log(3)
    torch.testing.assert_close(of_two(900 + 3 * x), torch.full((2,), exact, dtype=torch.float64), atol=0.03, rtol=0)


def test_that_of_exponential_draws_is_exact():
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(100_000, 1, generator=generator, dtype=torch.float64).log().neg() / 4
    torch.testing.assert_close(of_two(x)[0], torch.tensor(1 - math.log(4), dtype=torch.float64), atol=0.03, rtol=0)


def test_what_does_not_vary_and_what_follows_from_other_sites_counts_for_nothing():
    assert of_two(torch.full((9, 4), 2.0, dtype=torch.float64)).tolist() == [0.0, 0.0]
    model = TriFactor(2)
    post = gibbs.run(model, as_matrix(drawn(8, 6, 2)[0]), draws=9, warmup=5, chains=2, progress=False)
    draws = {site: values if site == "S" else values[:, :1].expand_as(values) for site, values in post.draws.items()}
    moving_H = {**draws, "H": post.draws["H"]}
    seen = [Seen.of(own, post.stats["lp"]).log_mass(model, post.X) for own in (draws, moving_H)]
    assert torch.equal(*seen) and bool((seen[0] != post.stats["lp"].mean(1)).all())


def test_a_chain_without_a_log_joint_has_no_mass():
    lp = torch.tensor([[1.0, 2.0, 3.0, 4.0], [1.0, math.nan, 1.0, 1.0]], dtype=torch.float64)
    masses = of_two(torch.ones(4, 2, dtype=torch.float64), lp)
    assert masses.tolist() == [2.5, -math.inf]


def test_of_few_sweeps_the_log_joint_alone_counts():
    x = torch.tensor([[1.0], [2.0], [4.0]], dtype=torch.float64)
    lp = torch.tensor([[1.0, 2.0, 6.0]] * 2, dtype=torch.float64)
    assert of_two(x, lp).tolist() == [3.0, 3.0]


def test_it_is_the_evidence_where_there_is_one_mode():
    """By quadrature; fourteen parameters, whose ridge is one direction."""
    post = gibbs.run(MODEL, X, draws=4000, warmup=200, chains=2, moves=False, progress=False)
    exact = rank_one(MODEL, X.values)
    for log_mass in Seen.of(post.draws, post.stats["lp"]).log_mass(MODEL, X).tolist():
        assert log_mass == pytest.approx(exact, abs=2.0)


def test_sweeps_can_come_in_parts_and_sums_be_kept_beside_a_state():
    post = gibbs.run(MODEL, X, draws=12, warmup=5, chains=2, progress=False)
    lp = post.stats["lp"]
    part = lambda at: ({site: values[:, at] for site, values in post.draws.items()}, lp[:, at])
    whole = Seen.of(post.draws, lp)
    begun = Seen.of(*part(slice(0, 5)))
    state = {site: values[:, 4] for site, values in post.draws.items()}
    assert split(state) == (state, None)
    back, seen = split({**state, **begun.named()})
    assert list(back) == list(state)
    apart = seen.after(*part(slice(5, 12)))
    assert apart.number == whole.number == 12
    torch.testing.assert_close(apart.log_mass(MODEL, X), whole.log_mass(MODEL, X), rtol=1e-12, atol=1e-9)
    torch.testing.assert_close(whole.lp_deviation, lp.std(1, correction=0))
