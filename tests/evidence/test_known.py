"""Log evidence of Gaussian models with known entries by stepping stones, against exact evidence and long tempered SMC."""

from __future__ import annotations

import pytest
import torch

import ppnmf
from ppnmf.data.matrix import as_matrix
from ppnmf.evidence import places, rank, stepping_stone, usual
from ppnmf.evidence.settled import settled
from ppnmf.gaussian.pinned import Pinned
from ppnmf.known import learned
from ppnmf.models import REGISTRY, ExponentialGaussian, HalfNormalGaussian, TruncatedNormalGaussian
from ppnmf.priors import NaturalPrior, below_peak
from ppnmf.protocols import Address, Sweeps
from ppnmf.rng import Stream
from tests.evidence.exact import rank_one_given_H
from tests.evidence.test_stepping_stone import assert_near, estimate
from tests.scenarios import drawn, mask_of, per_entry_model, uneven

BASE = ExponentialGaussian(2, noise_shape=3.0, noise_scale=0.6)
nan = torch.nan
pytestmark = [
    pytest.mark.filterwarnings("ignore:X has .* negative entries"),
    pytest.mark.filterwarnings("ignore:log_evidence by stepping_stone"),  # few particles
]
FEW = {"particles": 12, "draws": 20, "warmup": 20, "replicates": 3}
# by SMC, particles=3000, replicates=8: ± 0.03, a minute each
LOG_EVIDENCE = {"a row": -105.661, "alike": -121.488, "a zero": -110.045}


def data():
    """A matrix of two components, of which the first row has neither; and its H."""
    _, W, H = drawn(12, 6, 2, seed=1)
    W[0] = 0
    generator = torch.Generator().manual_seed(4)
    return W @ H + 0.3**0.5 * torch.randn(12, 6, dtype=torch.float64, generator=generator), H


def holding(known):
    """The model that knows a component, or the same of both, or of one what might be so of the other."""
    zero, alike = torch.full((12, 2), nan), torch.full((2, 6), nan)
    zero[0, 0], alike[:, 1] = 0.0, 0.7
    return BASE.holding({"a row": {"H": data()[1][:1]}, "alike": {"H": alike}, "a zero": {"W": zero}}[known])


@pytest.mark.parametrize(
    ("kind", "hidden"), [(ExponentialGaussian, True), (HalfNormalGaussian, False), (TruncatedNormalGaussian, True)]
)
def test_a_known_component_matches_quadrature(kind, hidden):
    X, _, H = drawn(10, 3, 1, seed=3)
    model, mask = uneven(kind, 10, 3, 1), mask_of((10, 3)) if hidden else None
    given = X if mask is None else torch.where(mask, X, nan)
    assert_near(estimate(model.holding({"H": H}), given, mask=mask), rank_one_given_H(model, X, H[0], mask))


@pytest.mark.parametrize("known", LOG_EVIDENCE)
def test_two_components_match_tempered_smc(known):
    assert_near(estimate(holding(known), data()[0]), LOG_EVIDENCE[known], 0.03)


def counted(self, F):
    """The energy of the prior's entries with those that are known; that of a reference as it is."""
    each = below_peak(F.double(), *self.prior.natural(F.device))
    return (learned(self, each) if isinstance(self.prior, NaturalPrior) else each).sum((-2, -1))


MISTAKES = {
    "known entries counted": ("a row", lambda patch: patch.setattr(Pinned, "energy", counted)),
    "a class of all": ("a row", lambda patch: patch.setattr(ExponentialGaussian, "classes", lambda self: [0, 0])),
    "one order alone": (
        "alike",
        lambda patch: patch.setattr(
            places.Places, "of", lambda classes, axes: places.Places([], [], len(classes), axes)
        ),
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_found(mistake, monkeypatch):
    known, plant = MISTAKES[mistake]
    plant(monkeypatch)
    found = estimate(holding(known), data()[0], particles=50, replicates=4, draws=200)
    assert abs(found.log_evidence - LOG_EVIDENCE[known]) > 0.5


def test_the_order_that_no_chain_is_in_is_found(monkeypatch):
    """The zero may as well be one of the other component, and one chain does not go there."""
    monkeypatch.setattr(stepping_stone, "weighed", lambda *args: settled(*args).select(chains=[0]))
    both = estimate(holding("a zero"), data()[0], replicates=4)
    monkeypatch.setattr(stepping_stone, "with_exchanged", lambda post, *rest: post)
    one = estimate(holding("a zero"), data()[0], replicates=4)
    assert len(both.modes) == 2 and len(one.modes) == 1
    assert one.log_evidence == pytest.approx(both.modes[0].log_evidence, abs=0.25)


def test_nothing_known_is_no_known_entries():
    X, _ = data()
    free = BASE.holding({"W": torch.full((12, 1), nan), "H": torch.full((2, 6), nan)})
    assert not free.holds and free.classes() == [0, 0]
    assert estimate(free, X, **FEW).replicates == estimate(BASE, X, **FEW).replicates


def test_components_are_of_a_class_where_the_same_is_known_of_them():
    H = torch.tensor([[0.5, nan], [0.5, nan], [0.4, nan], [nan, nan], [0.5, 0.0]], dtype=torch.float64)
    model = ExponentialGaussian(7, fixed_H=H)
    assert model.classes() == [0, 0, 2, 3, 4, 3, 3]
    assert model.holding({"H": H, "W": torch.tensor([[nan, 1.0]]).expand(3, 2)}).classes() == [0, 1, 2, 3, 4, 3, 3]


def path_of(power, chains=2000):
    """A model with a pattern of known entries, a reference, particles drawn from it, and the same after sweeps at β."""
    W, H = torch.full((5, 2), nan), torch.full((2, 4), nan)
    W[0, 1], W[1, 0], H[0, 2] = 0.0, 0.0, 0.8
    model = uneven(TruncatedNormalGaussian, 5, 4, 2).holding({"W": W, "H": H})
    draws = model.prior_draws((5, 4), 40, Stream.of(7))
    reference = model.reference({**draws, "sigma2": draws["sigma2"] / 3}, 1.5)
    X, stream = as_matrix(drawn(5, 4, 2, seed=5)[0]), Stream.of(1, chains)
    params = reference.draws(X, stream)
    asked = Sweeps(number=5, kept=range(4, 5), power=power)
    after = model.sweep_between(reference, params, X, asked, Address(Stream.of(2, chains), 1)).params
    return model, reference, X, params, asked, after


def test_sweeps_draw_the_reference_at_the_foot_and_the_posterior_at_the_top():
    model, _, _, params, _, after = path_of(0.0)
    for site in ("W", "H"):
        before, then = params[site].reshape(2000, -1), after[site].reshape(2000, -1)
        known = model.known(site)
        assert torch.equal(before, known.put_into(params[site]).reshape(2000, -1))
        assert torch.equal(then[:, known.at.flatten()], before[:, known.at.flatten()])
        error = ((before.var(0) + then.var(0)) / 2000).sqrt()
        assert bool(((before.mean(0) - then.mean(0)).abs() <= 5 * error).all())
    model, _, X, params, asked, after = path_of(1.0, 30)
    plain = model.sweep(params, X, asked, Address(Stream.of(2, 30), 1))
    torch.testing.assert_close(plain.params["W"], after["W"], rtol=1e-9, atol=1e-300)


def test_the_reference_is_a_density_over_the_learned_entries():
    model, reference, _, params, _, _ = path_of(0.5, 3)
    each = [(reference.W, params["W"], model.known("W")), (reference.H, params["H"], model.known("H"))]
    exact = sum(own.prior.rectified.log_prob(F)[:, ~known.at].sum(-1) for own, F, known in each)
    exact += reference.noise.log_prob(params["sigma2"])
    torch.testing.assert_close(reference.log_prob(params), exact)
    places = reference.log_places(params).diagonal(dim1=1, dim2=2).sum(-1)
    torch.testing.assert_close(places + reference.noise.log_prob(params["sigma2"]), exact)


def test_all_known_leaves_the_noise_alone():
    X, W, H = drawn(6, 5, 2, rate=0.1, seed=3)
    model = ExponentialGaussian(2, noise_shape=3.0, noise_scale=2.0).holding({"W": W, "H": H})
    shape, scale = torch.tensor(18.0, dtype=torch.float64), 2 + (X - W @ H).square().sum() / 2
    gamma = torch.lgamma(shape) - torch.lgamma(torch.tensor(3.0)) + 3 * torch.log(torch.tensor(2.0))
    exact = gamma - shape * scale.log() - 15 * torch.log(torch.tensor(2 * torch.pi))
    assert_near(estimate(model, X), float(exact))
    known = ExponentialGaussian(2, sigma2=1.5).holding({"W": W, "H": H})
    everything = float(
        known.log_likelihood_at({"W": W[None], "H": H[None], "sigma2": torch.tensor([1.5])}, as_matrix(X))
    )
    assert estimate(known, X, **FEW).log_evidence == pytest.approx(everything, abs=1e-6)


def test_what_each_entry_has_of_its_own_stays_with_it():
    """Rates of each entry, and known ones, in a sparse matrix as in one in memory."""
    import scipy.sparse

    X = drawn(8, 5, 3, seed=2)[0].clamp(min=0)
    model = per_entry_model(8, 5, 3).holding({"H": torch.tensor([[nan, 0.0, 1.0, nan, nan]])})
    dense, sparse = estimate(model, X, **FEW), estimate(model, scipy.sparse.csr_array(X.numpy()), **FEW)
    assert sparse.log_evidence == pytest.approx(dense.log_evidence, rel=1e-6)
    assert "fixed_H = 0 to 1" in str(dense)


@pytest.mark.parametrize(
    ("name", "method"),
    [("exponential_gaussian", "stepping_stone"), ("half_normal_gaussian", "stepping_stone"), ("gamma_poisson", "smc")],
)
def test_by_default_the_method_is_one_that_takes_known_entries(name, method):
    model = REGISTRY[name](rank=2).holding({"H": torch.ones(1, 6)})
    assert usual([model]) == method == rank.usual_criterion([REGISTRY[name](rank=2), model])


def test_chib_names_what_takes_them():
    with pytest.raises(TypeError, match="give method='stepping_stone' or 'smc', or held-out cells"):
        ppnmf.log_evidence(holding("a row"), data()[0], method="chib")
    counts = REGISTRY["gamma_poisson"](rank=2).holding({"H": torch.ones(1, 6)})
    with pytest.raises(TypeError, match="give method='smc', or held-out cells"):
        ppnmf.log_evidence(counts, torch.ones(4, 6), method="stepping_stone")
