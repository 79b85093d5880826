"""A component's density with its scale integrated out: against quadrature, itself in torch, and draws."""

import math

import pytest
import torch
from scipy.integrate import quad
from scipy.special import erfcx
from scipy.stats import gamma

from ppnmf.kernels.scaled import Component, _reference, log_density
from ppnmf.rng import Site, Stream


def known(B, L, R, n, strength, half_normal=0.0):
    """A component that the data tell about as strongly as asked, and points near where they put it."""
    u = Stream.of(5, B).uniforms(0, Site.DATA, range(L + 1), 2 * R + 3)  # (B, L + 1, ...)
    at = -u[:, 0, :R].log()
    told = strength * n * (0.5 + u[:, 1:, :1]).expand(B, L, R)
    noise = torch.special.ndtri(u[:, 1:, R : 2 * R])
    slope = told * at[:, None] * (1 + 0.2 / math.sqrt(n) * torch.special.ndtri(u[:, 1:, -1:])) + told.sqrt() * noise
    linear = -(0.5 + torch.arange(L * R, dtype=torch.float64).reshape(L, R) / (L * R))
    other = -n * (0.5 + u[:, 1:, 2 * R + 1])
    return at, Component(0 * linear + half_normal, linear, told, slope, half_normal * other.abs(), other, n)


def mass(a, b):
    return math.sqrt(math.pi / (2 * a)) * erfcx(-b / math.sqrt(2 * a)) if a > 0 else -1 / b


@pytest.mark.parametrize("half_normal", [0.0, 0.7])
@pytest.mark.parametrize("strength", [0.0, 1e-3, 1.0])
def test_the_density_is_the_ratio_of_two_integrals(strength, half_normal):
    at, component = known(3, 2, 3, 4, strength, half_normal)
    got = log_density(at, component)
    precision, linear, told_precision, told_linear, a, b, n = component
    for d in range(3):
        for m in range(2):
            own = list(
                zip(
                    *(v.tolist() for v in (precision[m], linear[m], told_precision[d, m], told_linear[d, m])),
                    strict=True,
                )
            )

            def other(c, d=d, m=m):
                if half_normal == 0.0:  # a sum of n exponentials is independent of their proportions
                    return gamma.pdf(-float(b[d, m]) * c, n)
                return c ** (n - 1) * math.exp(-0.5 * float(a[d, m]) * c * c + float(b[d, m]) * c)

            def joint(c, own=own, d=d, other=other):
                natural = [(A + c * c * s, B + c * t) for A, B, s, t in own]
                return other(c) * math.exp(
                    sum(-0.5 * A * h * h + B * h for (A, B), h in zip(natural, at[d].tolist(), strict=True))
                )

            def marginal(c, own=own, other=other):
                return other(c) * math.prod(mass(A + c * c * s, B + c * t) for A, B, s, t in own)

            above, below = (quad(f, 0, 60, epsabs=0, epsrel=1e-10, limit=400)[0] for f in (joint, marginal))
            assert abs(float(got[d, m]) - math.log(above / below)) < 1e-6


def test_the_density_integrates_to_one():
    _, component = known(1, 1, 1, 6, 2.0)
    total, _ = quad(
        lambda h: float(log_density(torch.tensor([[h]], dtype=torch.float64), component).exp()), 0, 40, limit=200
    )
    assert abs(total - 1) < 1e-6


@pytest.mark.parametrize(
    "shape", [(40, 3, 80, 100, 50.0), (40, 2, 3, 4, 1.0), (40, 2, 40, 50, 1e-6), (40, 2, 5, 50, 1e4)]
)
def test_the_compiled_density_is_the_plain_one(shape):
    at, component = known(*shape)
    got, plain = log_density(at, component), _reference(at, component)
    best = plain.amax(1, keepdim=True)
    counted = plain > best - 20  # what is far less likely than another component is not worked out as closely
    torch.testing.assert_close(got[counted], plain[counted], rtol=1e-8, atol=1e-6)
    torch.testing.assert_close(got, plain, rtol=1e-3, atol=1e-6)


def test_a_component_that_nothing_is_told_about_has_its_priors_density():
    at, component = known(5, 2, 4, 7, 0.0)
    expected = (component.linear.neg().log() + component.linear * at[:, None]).sum(-1)
    torch.testing.assert_close(log_density(at, component), expected)
