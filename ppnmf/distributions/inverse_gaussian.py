"""The generalized inverse Gaussian distribution, drawn by Devroye's (2014) rejection from uniforms."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.distributions.utils import broadcast_all
from torch.types import _size

from ppnmf.distributions.rectified_normal import ONE_DRAW, SMALLEST_UNIFORM

__all__ = ["GeneralizedInverseGaussian", "gig_from_proposals", "gig_from_uniforms"]

MAX_ROUNDS = 1000  # reached by invalid parameters only
NODES = 512


class _Shape(NamedTuple):
    r"""The density of y = log(x / scale), exp(ψ(y)) up to a constant, and the pieces of Devroye's hat over it.

    ψ(y) = -alpha (cosh y - 1) - order (eʸ - y - 1), with its peak, 0, at 0; order >= 0.
    """

    order: Tensor
    alpha: Tensor
    log_scale: Tensor
    right: Tensor  # the paper's t
    left: Tensor  # the paper's s
    right_drop: Tensor  # η = -ψ(t)
    right_slope: Tensor  # ζ = -ψ'(t)
    left_drop: Tensor  # θ = -ψ(-s)
    left_slope: Tensor  # ξ = ψ'(-s)


def _exponential_beyond_line(y: Tensor) -> Tensor:
    """eʸ - 1 - y, keeping its relative accuracy near zero."""
    one = series = torch.ones_like(y)
    for n in range(11, 2, -1):
        series = torch.addcmul(one, y, series, value=1 / n)  # 1 + y/n (1 + y/(n+1) (...))
    return torch.where(y.abs() < 0.0625, 0.5 * y.square() * series, torch.expm1(y) - y)


def _psi(order: Tensor, alpha: Tensor, y: Tensor) -> Tensor:
    """ψ(y), the log density of log X past its mode."""
    return -2 * alpha * torch.sinh(0.5 * y).square() - order * _exponential_beyond_line(y)


def _psi_slope(order: Tensor, alpha: Tensor, y: Tensor) -> Tensor:
    """The derivative of `_psi` by y."""
    return -alpha * torch.sinh(y) - order * torch.expm1(y)


def _shape(p: Tensor, a: Tensor, b: Tensor) -> _Shape:
    """Of X, or for p < 0 of 1 / X, a generalised inverse Gaussian with -p, b, a."""
    order = p.abs()
    rate = torch.where(p < 0, b, a)
    omega = a.sqrt() * b.sqrt()
    radius = torch.hypot(omega, order)
    alpha = omega * (omega / (radius + order))  # radius - order without its cancellation

    drop = alpha * (math.cosh(1) - 1) + order * (math.e - 2)  # -ψ(1)
    right = torch.where(drop < 0.5, (4 / (alpha + 2 * order)).log(), 1.0)
    right = torch.where(drop > 2, (2 / (alpha + order)).sqrt(), right)
    drop = alpha * (math.cosh(1) - 1) + order / math.e  # -ψ(-1)
    far = torch.log1p(1 / alpha + (1 / alpha) * (1 + 2 * alpha).sqrt())
    left = torch.where(drop < 0.5, torch.minimum(1 / order, far), 1.0)
    left = torch.where(drop > 2, (4 / (alpha * math.cosh(1) + order)).sqrt(), left)
    return _Shape(
        order=order,
        alpha=alpha,
        log_scale=(order + radius).log() - rate.log(),
        right=right,
        left=left,
        right_drop=-_psi(order, alpha, right),
        right_slope=-_psi_slope(order, alpha, right),
        left_drop=-_psi(order, alpha, -left),
        left_slope=_psi_slope(order, alpha, -left),
    )


def _propose(shape: _Shape, u: Tensor, v: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    """A draw from the hat (flat in the middle, exponential on both sides), and whether it is accepted."""
    width_left = 1 / shape.left_slope
    width_right = 1 / shape.right_slope  # the paper's p, r
    start = shape.left - width_left * shape.left_drop  # the paper's s': the flat piece is [-s', t']
    end = shape.right - width_right * shape.right_drop  # the paper's t'
    flat = start + end  # the paper's q
    place = u * (width_left + flat + width_right)
    in_flat = place < flat
    in_right = place < flat + width_right
    tail = v.log()
    y = torch.where(
        in_flat, flat * v - start, torch.where(in_right, end - width_right * tail, width_left * tail - start)
    )
    log_hat = torch.where(in_flat, 0.0, tail)
    return y, w.log() + log_hat <= _psi(shape.order, shape.alpha, y)


def gig_from_uniforms(p: Tensor, a: Tensor, b: Tensor, uniforms: Callable[[int], Sequence[Tensor] | Tensor]) -> Tensor:
    r"""Draws from the density ∝ x^(p - 1) exp(-(a x + b / x) / 2), a deterministic function of the uniforms.

    Rejection from a three-piece hat over the log-concave density of y = log(x / scale) (Devroye 2014). Every round
    proposes for every entry, and an entry keeps its first accepted proposal; a round accepts with probability above
    0.7 whatever p, a and b (measured), and ends with one look from the host at whether all are done. The arithmetic is
    float64 and stays on the log scale till the end, so that p may lie between -1e9 and 1e9 and √(ab) be anything from
    1e-6 up, and 0 where the density is a gamma (b = 0 with p > 0) or an inverse gamma (a = 0 with p < 0).

    Args:
        p, a, b: real, positive and positive; shapes that broadcast to the batch shape.
        uniforms: maps the round's index, 0, 1, ..., to three tensors of the batch shape, uniform in (0, 1).

    Returns:
        The draws, of the batch shape and p's dtype.

    References: Devroye (2014), doi:10.1007/s11222-012-9367-z; its λ and ω are our |p| and √(ab).
    """
    p, a, b = torch.broadcast_tensors(p, a, b)
    shape = _shape(p.double(), a.double(), b.double())
    draw = torch.zeros_like(shape.order)
    is_done = torch.zeros_like(draw, dtype=torch.bool)
    for index in range(MAX_ROUNDS):
        u, v, w = (uniform.double() for uniform in uniforms(index))
        y, is_accepted = _propose(shape, u, v, w)
        draw = torch.where(is_accepted & ~is_done, y, draw)
        is_done = is_done | is_accepted
        if bool(is_done.all()):
            break
    assert bool(is_done.all()), f"no generalised inverse Gaussian draw in {MAX_ROUNDS} rounds: a parameter is invalid"
    return _unscaled(p, shape, draw)


def gig_from_proposals(p: Tensor, a: Tensor, b: Tensor, uniforms: Tensor) -> Tensor:
    """The draws of `gig_from_uniforms`, from a fixed number of rounds at once: the host never waits for the device.

    Args:
        p, a, b: as there.
        uniforms: (rounds, *batch shape, 3). All rounds reject with probability below 0.3^rounds; then the first stands.
    """
    p, a, b = torch.broadcast_tensors(p, a, b)
    shape = _shape(p.double(), a.double(), b.double())
    y, is_accepted = _propose(shape, *uniforms.double().unbind(-1))
    first = is_accepted.to(torch.int8).argmax(0, keepdim=True)
    return _unscaled(p, shape, y.gather(0, first).squeeze(0))


def _unscaled(p: Tensor, shape: _Shape, y: Tensor) -> Tensor:
    """X, from y = log(X / scale), or from that of 1 / X where p < 0."""
    log_x = y + shape.log_scale
    return torch.where(p < 0, -log_x, log_x).exp().to(p.dtype)


def _log_integral(shape: _Shape) -> Tensor:
    """log ∫ exp(ψ(y)) dy by the trapezoidal rule, which converges geometrically for such integrands."""
    with torch.no_grad():  # out to where ψ < -40; there the limits do not matter
        far = torch.acosh(1 + 40 / shape.alpha)
        start = -torch.minimum(shape.left + 40 / shape.left_slope, far)
        end = torch.minimum(shape.right + 40 / shape.right_slope, far)
        steps = torch.linspace(0, 1, NODES, dtype=start.dtype, device=start.device)
        y = start[..., None] + (end - start)[..., None] * steps
    total = _psi(shape.order[..., None], shape.alpha[..., None], y).exp().sum(-1)
    return total.log() + ((end - start) / (NODES - 1)).log()


class GeneralizedInverseGaussian(Distribution):
    r"""The density proportional to x^(p - 1) exp(-(a x + b / x) / 2) on x > 0.

    Draws come from `gig_from_uniforms`. The normaliser of `log_prob` is a quadrature on the scale of the log density,
    not a Bessel function, so it neither overflows nor underflows for p between -1e9 and 1e9 and √(ab) from 1e-6 up.

    Args:
        p: real, any shape.
        a, b: positive, shapes that broadcast with `p`.
        validate_args: as in `torch.distributions.Distribution`; checking waits for the device.

    Raises:
        ValueError: (when validating) an a or a b that is not positive.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {
        "p": constraints.real,
        "a": constraints.positive,
        "b": constraints.positive,
    }
    support = constraints.positive

    def __init__(
        self, p: Tensor | float, a: Tensor | float, b: Tensor | float, validate_args: bool | None = None
    ) -> None:
        self.p, self.a, self.b = broadcast_all(p, a, b)
        super().__init__(self.p.shape, validate_args=validate_args)

    def expand(
        self, batch_shape: _size, _instance: GeneralizedInverseGaussian | None = None
    ) -> GeneralizedInverseGaussian:
        """The same, its parameters expanded to a batch shape: views, no copies."""
        new = self._get_checked_instance(GeneralizedInverseGaussian, _instance)
        new.p, new.a, new.b = (parameter.expand(batch_shape) for parameter in (self.p, self.a, self.b))
        super(GeneralizedInverseGaussian, new).__init__(torch.Size(batch_shape), validate_args=False)
        new._validate_args = self._validate_args
        return new

    def sample(self, sample_shape: _size = ONE_DRAW) -> Tensor:
        """Draws (*sample_shape, *batch_shape) from torch's global generator, without gradients."""
        shape = self._extended_shape(sample_shape)

        def uniforms(_: int) -> Tensor:
            u = torch.rand((3, *shape), dtype=torch.float64, device=self.p.device)
            return u.clamp(min=SMALLEST_UNIFORM)

        with torch.no_grad():
            return gig_from_uniforms(self.p.expand(shape), self.a, self.b, uniforms)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        p = self.p.double()
        log_x = value.double().log()
        shape = _shape(p, self.a.double(), self.b.double())
        y = torch.where(p < 0, -log_x, log_x) - shape.log_scale
        return (_psi(shape.order, shape.alpha, y) - _log_integral(shape) - log_x).to(self.p.dtype)
