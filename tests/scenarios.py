"""Problems with known answers, and the judges: one for each ability of a model."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pyro
import pytest
import torch
from pyro import poutine
from torch import Tensor

import ppnmf
from ppnmf.data.matrix import as_matrix
from ppnmf.diagnostics.calibration import geweke, moments
from ppnmf.inference import gibbs, icm, record, svi, vb
from ppnmf.models import REGISTRY, ExponentialGaussian
from ppnmf.protocols import Asked, Entries
from ppnmf.rng import Site, Stream

LUCK = 1e-4  # how often a right build may fail a judge


def drawn(
    N: int, D: int, rank: int, rate: float = 1.0, noise: float = 1.0, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """X (N, D) with its true W (N, K) and H (K, D), float64; `noise` is the variance."""
    u = Stream.of(seed).uniforms(0, Site.DATA, range(2 * N + D), max(rank, D))[0]
    W, H = -u[:N, :rank].log() / rate, -u[N : N + D, :rank].mT.log() / rate
    X = W @ H + noise**0.5 * torch.special.ndtri(u[N + D :, :D])
    return X, W, H


def per_entry_model(N: int, D: int, rank: int) -> ExponentialGaussian:
    """Rates that differ from entry to entry, and noise whose place in a formula shows."""
    rate_W = 0.5 + torch.arange(N * rank, dtype=torch.float64).reshape(N, rank) / (N * rank)
    rate_H = 1.5 - torch.arange(rank * D, dtype=torch.float64).reshape(rank, D) / (rank * D)
    return ExponentialGaussian(rank, rate_W, rate_H, noise_shape=5.0, noise_scale=20.0)


def uneven(kind: Any, N: int, D: int, rank: int, noise_shape: float = 5.0, noise_scale: float = 20.0) -> Any:
    """A model of the Gaussian family whose hyperparameters differ from entry to entry and much between components.

    The noise is far from one, so that its place in a formula shows; truncated normals' means are negative and positive.
    """
    options = {}
    for place, name in enumerate(kind.hyper):
        for site, size in (("W", (N, rank)), ("H", (rank, D))):
            steps = torch.arange(size[0] * size[1], dtype=torch.float64).reshape(size) / (size[0] * size[1])
            spread = 0.7 + 0.6 * (steps if (site == "W") == (place == 0) else 1 - steps)
            component = torch.arange(rank, dtype=torch.float64) % 2
            apart = (1.5**component if site == "W" else (0.5**component)[:, None]).expand(size)
            options[f"{name}_{site}"] = spread - 1.0 if name == "mean" else spread * apart
    return kind(rank, **options, noise_shape=noise_shape, noise_scale=noise_scale)


# Hyperparameters under which a mistake shows, of other models; their moments up to the fourth are finite
TELLING: dict[str, dict[str, Any]] = {
    "ard_gaussian": {
        "rate_shape": 6.0,
        "rate_scale": 5.0,
        "compression": 0.5,
        "empty": 1.3,
        "noise_shape": 5.0,
        "noise_scale": 20.0,
    },
    "tri_factor": {
        "column_rank": 3,
        "rate_W": 0.8,
        "rate_S": 1.7,
        "rate_G": 1.2,
        "noise_shape": 5.0,
        "noise_scale": 20.0,
    },
    "hierarchical": {"rates": (0.8, 1.3, 0.6), "noise_shape": 5.0, "noise_scale": 20.0},
}


def uneven_counts(kind: Any, N: int, D: int, rank: int, least: float = 0.6, **others: Any) -> Any:
    """A model of the Poisson family with other shapes, rates and exposures for each entry, and shapes from `least` up."""
    steps = lambda *size: torch.arange(math.prod(size), dtype=torch.float64).reshape(size) / math.prod(size)
    apart = 1 + torch.arange(rank, dtype=torch.float64) % 2
    options = {
        "shape_W": least + 0.8 * steps(N, rank) * apart,
        "shape_H": least + 1.0 - steps(rank, D),
        "rate_W": (0.5 + 0.5 * steps(N, rank)) * apart,
        "rate_H": 1.2 - 0.5 * steps(rank, D),
        "exposures": 0.4 + 1.5 * steps(N, D).flip(0),
    }
    return kind(rank, **{**options, **others})


def example(name: str, N: int, D: int, rank: int, modes: bool = False) -> Any:
    """A registered model for N × D: one whose mistakes show, where its hyperparameters may differ from entry to entry.

    Args:
        modes: it must have some.
    """
    kind: Any = REGISTRY[name]
    if kind.accepts is Entries.COUNTS:
        return uneven_counts(kind, N, D, rank, least=1.0 if modes else 0.6)
    if hasattr(kind, "hyper"):
        return uneven(kind, N, D, rank)
    return kind(rank=rank, **TELLING.get(name, {}))


def taken_by(model: Any, X: Tensor) -> Tensor:
    """X as data that the model takes."""
    return X.abs().round() if model.accepts is Entries.COUNTS else X


def mask_of(shape: tuple[int, int]) -> Tensor:
    """Two entries of three are observed, and at least one in each row and column."""
    return (torch.arange(shape[0])[:, None] + torch.arange(shape[1])) % 3 != 1


def logarithms(model: Any, params: Any, X: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
    """The `moments` in logarithms, for priors whose heavy tails ask for many chains otherwise."""
    tame = {name: value for name, value in moments(model, params, X, mask).items() if not name.endswith("²")}
    return {name: value.log() if name in ("W", "H", "WH") else value for name, value in tame.items()}


def judge_draws(model: Any, shape: tuple[int, int], hidden: bool, **options: Any) -> None:
    """Geweke's joint test, with the moves."""
    told = {"sweeps": 60, "chains": 200, "seed": 1, **options}
    found = geweke(model, shape, mask=mask_of(shape) if hidden else None, **told)
    assert found.p_value > LUCK, found.worst


def judge_modes(model: Any, X: Tensor, mask: Tensor | None, sweeps: int = 40) -> None:
    """The log joint never falls, by ordinary sweeps and by those begun ahead, and `fit` ends above them."""
    data = as_matrix(X, mask)
    begun = icm.begin(model, data, Stream.of(0, 2), "scaled", range(2))
    state, climb = begun, icm.Climb.at(begun)
    before = torch.full((2,), -math.inf, dtype=torch.float64)
    for _ in range(sweeps):
        state, info = icm.step(model, state, data)
        assert bool((info.lp >= before - 1e-10 * info.lp.abs()).all())
        stood, (climb, ahead) = climb.lp, icm.advance(model, climb, data)
        assert bool((ahead.lp >= stood - 1e-10 * ahead.lp.abs()).all())
        before = info.lp
    torch.testing.assert_close(before, gibbs.log_joint(model, data, state.params), rtol=1e-10, atol=0)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="icm: 1 component")  # one may die: that is a mode too
        mode = ppnmf.fit(model, X, mask=mask, method="icm", tol=1e-10, max_sweeps=20_000, progress=False)
    assert float(mode.stats["lp"].max()) >= float(before[0]) - 1e-6 * abs(float(before[0]))


def judge_loss(model: Any, sweep: Any, X: Tensor, mask: Tensor | None, sweeps: int = 60) -> None:
    """The loss never rises; it is the squared error, or for counts the Kullback-Leibler divergence, as a share of its unit."""
    data = as_matrix(X, mask)
    params = model.begin(data, Stream.of(0, 2), "scaled")
    before = torch.full((2,), math.inf, dtype=torch.float64)
    for _ in range(sweeps):
        params, loss = sweep(params, data)
        assert bool((loss <= before * (1 + 1e-10)).all())
        before = loss
    W, H = model.factors(params)
    if model.accepts is Entries.COUNTS:
        means = model.means(params)
        each = torch.xlogy(X, X) - torch.xlogy(X, means) - X + means
    else:
        each = (X - W @ H).square()
    seen = each if mask is None else each * mask
    torch.testing.assert_close(before * model.loss_unit(data), seen.sum((-2, -1)), rtol=1e-9, atol=0)
    assert set(params) == set(model.sites(*X.shape))


def judge_moments(model: Any, X: Tensor, mask: Tensor | None, sweeps: int = 60, draws: int = 1500) -> None:
    """The ELBO never falls, and is the mean of log p - log q over draws, far from its top as near it."""
    data = as_matrix(X, mask)
    begun = icm.begin(model, data, Stream.of(0), "scaled", [0])
    state, before = gibbs.State(model.approximated(begun.params, data), 1), -math.inf
    for sweep in range(sweeps):
        state, bound = vb.step(model, state, data)
        elbo = float(bound.elbo)
        assert elbo >= before - 1e-10 * abs(elbo)
        before = elbo
        if sweep in (1, sweeps - 1):
            drawn = model.approximate_draws(state.params, data, draws, Stream.of(5))
            logs = _log_joint_of(model, data, state.params, drawn.params) - drawn.log_density
            assert abs(float(logs.mean()) - elbo) < 4 * float(logs.std()) / draws**0.5


def _log_joint_of(model: Any, data: Any, q: Any, params: Any) -> Tensor:
    """The log joint at draws; where q holds the counts' components too, E_q[log p(X, Z, draw) - log q(Z)] over them."""
    if model.accepts is not Entries.COUNTS:
        return gibbs.log_joint(model, data, params)
    typical, X = q["W.log"][0, :, :, None] + q["H.log"][0, None], data.values  # (N, K, D)
    logs = [params[site].clamp(min=1e-150).log() for site in ("W", "H")]  # known zeros have next to no share
    own = logs[0][..., None] + logs[1][:, None]
    shares = torch.softmax(typical, 1)
    log_means = (shares * (own - torch.log_softmax(typical, 1))).sum(2) + model.exposure(X).log()
    each = X * log_means - torch.lgamma(X + 1) + _of_exposures(model, q, params, X)
    seen = each if data.mask is None else torch.where(data.mask, each, 0.0)
    return model.log_prior(params) + seen.sum((-2, -1))


def _of_exposures(model: Any, q: Any, params: Any, X: Tensor) -> Tensor:
    """Minus the means; where there are latent exposures, E_q[g^x e^(-g mean) p(g) / q(g)] over them given the drawn φ, in logs."""
    means = model.means(params)
    if "dispersion" not in params:
        return -means
    phi, about = params["dispersion"][:, None, None], model.means({site: q[site] for site in ("W", "H")})
    integral = torch.lgamma(phi + X) - torch.lgamma(phi) + phi * phi.log() - (phi + X) * (phi + about).log()
    return integral - (phi + X) / (phi + about) * (means - about)


def judge_program(model: Any, X: Tensor, mask: Tensor | None) -> None:
    """The traced Pyro program and the sweeps have one log joint, and the likelihood is that of the data."""
    data, N, D = as_matrix(X, mask), *X.shape
    params = model.prior_draws((N, D), 3, Stream.of(3))
    found = gibbs.log_joint(model, data, params)
    for n in range(3):
        values = {site: draws[n] for site, draws in params.items()}
        trace = poutine.trace(pyro.condition(model, data=values)).get_trace(X, mask)
        torch.testing.assert_close(found[n], trace.log_prob_sum().double(), rtol=1e-9, atol=1e-9)
    each = model.likelihood(params).log_prob(X)
    seen = each if mask is None else each * mask
    torch.testing.assert_close(model.log_likelihood_at(params, data), seen.sum((-2, -1)), rtol=1e-9, atol=1e-9)


def judge_blocks(model: Any, X: Tensor) -> None:
    """The density of the sites that are no factors, and of the rows of the longer factor, as differences of log joints."""
    data, (N, D) = as_matrix(X), X.shape
    params = model.prior_draws((N, D), 2, Stream.of(4))
    factors = ("W", "H")
    log_density = model.log_density_of_others({site: values[:1, None] for site, values in params.items()}, data)
    points = [
        {site: values[n : n + 1] if site not in factors else values[:1] for site, values in params.items()}
        for n in (0, 1)
    ]
    joints = [float(gibbs.log_joint(model, data, point)) for point in points]
    by_density = [float(log_density(point)) for point in points]
    assert by_density[1] - by_density[0] == _near(joints[1] - joints[0])


def judge_bound(model: Any, X: Tensor) -> None:
    """Training raises the ELBO; its exact value is the mean of those at draws of the guide, and lies below log p(X)."""
    post = ppnmf.fit(model, X, method="svi", steps=300, draws=400, seed=1, progress=False)
    curve = torch.tensor(post.attrs["elbo_curve"])
    assert float(curve[-20:].mean()) > float(curve[:20].mean())
    fitted, data = post.model, as_matrix(X)
    exact = svi.elbo(fitted, data)
    outputs = fitted.outputs(fitted.coordinates(data.values))
    u = Stream.of(9).uniforms(0, Site.GUIDE, range(400 * X.shape[0]), fitted.rank)[0].reshape(400, *X.shape[:1], -1)
    with torch.no_grad():
        at = torch.stack([fitted.bound(data.values, None, outputs, Asked(uniforms=own)) for own in u])
    assert abs(float(at.mean()) - exact) < 5 * float(at.std()) / 20


def held_out_errors(made: Callable[[Any, Any], Any], R: np.ndarray, **told: Any) -> list[float]:
    """Mean squared errors of ten folds of a table's cells, NaN where there are none, of rows that have three or more.

    Args:
        made: the model from X and the mask of the cells that are seen.
        told: options of the fit of each fold, whose seed is the fold's number.
    """
    R = R[(~np.isnan(R)).sum(1) >= 3]
    X, cells = np.nan_to_num(R), np.argwhere(~np.isnan(R))
    fold = np.random.default_rng(0).permutation(len(cells)) % 10
    errors = []
    for f in range(10):
        mask = ~np.isnan(R)
        hidden = tuple(cells[fold == f].T)
        mask[hidden] = False
        post = ppnmf.fit(made(X, mask), X, mask=mask, seed=f, **told)
        errors.append(float(np.square((R - post.reconstruction().numpy())[hidden]).mean()))
    return errors


def stopped(monkeypatch: pytest.MonkeyPatch, at: int, run: Callable[[], Any]) -> None:
    """A run that is interrupted once its record has been told of `at` states and one more."""
    save, calls = record.Recorder.save, iter(range(10_000))

    def stopping(self: Any, state: Any) -> None:
        save(self, state)
        if next(calls) == at:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(record.Recorder, "save", stopping)
        with pytest.raises(KeyboardInterrupt):
            run()


def _near(value: float) -> Any:
    return pytest.approx(value, rel=1e-9, abs=1e-9)
