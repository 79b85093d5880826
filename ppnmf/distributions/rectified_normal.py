"""The normal distribution cut off below zero, in natural parameters, right far into the tail."""

from __future__ import annotations

import math
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.distributions import Distribution, constraints
from torch.distributions.utils import broadcast_all
from torch.types import _size

__all__ = ["RectifiedNormal", "survival_beyond"]

LOG_2PI = math.log(2 * math.pi)
ONE_DRAW = torch.Size()
SMALLEST_UNIFORM = 2.0**-54  # half the step of torch.rand in float64: stands for its zero


# RectifiedNormal: everything is a function of alpha = -b / sqrt(a), the bound on the standard normal's scale:
# w = (z - alpha) / sqrt(a) with z ~ Normal(0, 1) given z > alpha. Where alpha is large ("the tail") z - alpha would
# cancel, and sqrt(a) may be zero; there t = -b w has the density ∝ exp(-t - ratio t² / 2), ratio = a / b² =
# 1 / alpha², and nothing cancels or divides by zero.

TAIL = 2.5  # moments: alpha above it uses the continued fraction, below it the hazard rate; both are exact near it
TERMS = 48  # of the continued fraction: exact to rounding for alpha >= TAIL
QUANTILE_TAIL = 5.0  # quantile: alpha above it solves for the excess, below it inverts the normal distribution function
TAYLOR = 1e-3  # quantile: below this size of -log u the excess comes from its Taylor series
HALLEY_STEPS = 2  # the start is within 1 %, the first step within 2e-8, the second at rounding


class _Split(NamedTuple):
    """The parameters of the two regimes; each is a harmless constant where the other regime rules."""

    is_tail: Tensor
    tail_rate: Tensor  # -b
    tail_ratio: Tensor  # a / b²
    body_root: Tensor  # sqrt(a)
    body_bound: Tensor  # alpha


def _split(precision: Tensor, linear: Tensor) -> _Split:
    is_tail = -linear > TAIL * precision.sqrt()
    tail_rate = torch.where(is_tail, -linear, 1.0)
    tail_precision = torch.where(is_tail, precision, 0.0)
    body_root = torch.where(is_tail, 1.0, precision).sqrt()
    body_bound = -torch.where(is_tail, 0.0, linear) / body_root
    return _Split(is_tail, tail_rate, tail_precision / tail_rate / tail_rate, body_root, body_bound)


def _tail_moments(ratio: Tensor) -> tuple[Tensor, Tensor]:
    r"""E[t] and E[t²] / E[t] under the density ∝ exp(-t - ratio t²/2), by the backward recurrence of Mills' ratio.

    With M_n = ∫ tⁿ exp(-t - ratio t²/2) dt, integration by parts gives s_n = M_n / M_{n-1} = n / (1 + ratio s_{n+1}).
    """
    n = TERMS + 1
    s = 2 * n / (1 + (1 + 4 * n * ratio).sqrt())  # the recurrence's fixed point
    above = s
    for n in range(TERMS, 0, -1):
        above = s
        s = n / (1 + ratio * s)
    return s, above


def _hazard(bound: Tensor) -> Tensor:
    """Density over survival of the standard normal, for bound <= TAIL."""
    z = bound.clamp(min=-40.0)  # the density is zero there, and its gradient must not be 0 * inf
    return torch.exp(-0.5 * (z * z + LOG_2PI)) / (0.5 * torch.erfc(z * math.sqrt(0.5)))


def _log_mass(split: _Split) -> Tensor:
    """Log of ∫ exp(-(a w²/2 - b w) + (its greatest value)) dw: the log normaliser with its peak taken off."""
    tail = -split.tail_rate.log() - torch.log1p(split.tail_ratio * _tail_moments(split.tail_ratio)[0])
    above_zero = split.body_bound.clamp(min=0.0)
    log_survival = torch.special.log_ndtr(-split.body_bound)
    body = 0.5 * LOG_2PI - split.body_root.log() + 0.5 * above_zero.square() + log_survival
    return torch.where(split.is_tail, tail, body)


def _mean(split: _Split) -> Tensor:
    tail = _tail_moments(split.tail_ratio)[0] / split.tail_rate
    body = (_hazard(split.body_bound) - split.body_bound) / split.body_root
    return torch.where(split.is_tail, tail, body)


def _product_error(x: Tensor, y: Tensor) -> Tensor:
    """x * y - round(x * y), exactly (Dekker 1971), zero where the splitting overflows."""
    with torch.no_grad():
        halves = []
        for factor in (x, y):
            scaled = 134217729.0 * factor  # 2²⁷ + 1
            high = scaled - (scaled - factor)
            halves.append((high, factor - high))
        (x_high, x_low), (y_high, y_low) = halves
        error = ((x_high * y_high - x * y) + x_high * y_low + x_low * y_high) + x_low * y_low
        return torch.where(error.isfinite(), error, 0.0)


def _drop(precision: Tensor, linear: Tensor, w: Tensor) -> Tensor:
    """How far the log density at w lies below its greatest value on w >= 0."""
    is_inside = linear > 0
    from_bound = w * (0.5 * precision * w - torch.where(is_inside, 0.0, linear))
    # Near a far mode a w and b agree in nearly all digits: keep the product's rounding error.
    slope = (precision * w - linear) + _product_error(precision, w)
    from_mode = 0.5 * slope.square() / torch.where(is_inside, precision, 1.0)
    return torch.where(is_inside, from_mode, from_bound)


def _log_density(precision: Tensor, linear: Tensor, w: Tensor) -> Tensor:
    return -_drop(precision, linear, w) - _log_mass(_split(precision, linear))


def _mills(x: Tensor) -> Tensor:
    """Survival over density of the standard normal."""
    return math.sqrt(math.pi / 2) * torch.special.erfcx(x * math.sqrt(0.5))


def survival_beyond(bound: Tensor, width: Tensor) -> Tensor:
    """P(Z > bound + width) / P(Z > bound) of a standard normal Z."""
    root_half = math.sqrt(0.5)
    end = torch.where(width.isfinite(), width, 0.0)
    tail = bound.clamp(min=0.0)
    ratio = torch.special.erfcx((tail + end) * root_half) / torch.special.erfcx(tail * root_half)
    far = torch.exp(-end * (tail + 0.5 * end)) * ratio
    near = torch.erfc((bound + end) * root_half) / torch.erfc(bound.clamp(max=0.0) * root_half)
    return torch.where(width.isfinite(), torch.where(bound > 0, far, near), 0.0)


def _survival_inverse(precision: Tensor, linear: Tensor, u: Tensor) -> Tensor:
    """The w with P(X > w) = u; float64 in and out. `RectifiedNormal.survival_inverse` states the algorithm."""
    root = torch.maximum(precision.sqrt(), -1e-10 * linear)
    bound = -linear / root
    y = -u.log()
    near, is_near = _excess_near(bound, y)
    tail = _excess_in_the_tail(bound.clamp(min=QUANTILE_TAIL), y)
    excess = torch.where(is_near, near, torch.where(bound > QUANTILE_TAIL, tail, _excess_in_the_body(bound, u)))
    return excess.clamp(min=0.0) / root


def _excess_in_the_body(bound: Tensor, u: Tensor) -> Tensor:
    """By the normal distribution function, inverted on the side of the smaller probability."""
    survival = torch.erfc(bound * math.sqrt(0.5))
    upper = u * 0.5 * survival
    lower = 0.5 * torch.erfc(-bound * math.sqrt(0.5)) + (1 - u) * 0.5 * survival
    z = torch.where(lower < 0.5, torch.special.ndtri(lower), -torch.special.ndtri(upper))
    return z - bound


def _excess_in_the_tail(alpha: Tensor, y: Tensor) -> Tensor:
    """The e with e (alpha + e/2) + log(mills(alpha) / mills(alpha + e)) = y, by Halley's steps."""
    mills = _mills(alpha)
    e = 2 * y / (1 / mills + (mills**-2 + 2 * y).sqrt())
    for _ in range(HALLEY_STEPS):
        x = alpha + e
        mills_x = _mills(x)
        newton = (e * (alpha + 0.5 * e) + (mills / mills_x).log() - y) * mills_x
        e = e - newton / (1 - 0.5 * newton * (1 / mills_x - x))
    return e


def _excess_near(bound: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Near the bound, by the Taylor series in y of the solution of de/dy = mills(alpha + e); and where that is good."""
    mills = _mills(bound)
    m = 1 - bound * mills
    third = mills.square() - m + 2 * m.square()
    fourth = (4 * m - 1) * (m - m.square() - mills.square()) - m * (third + 2 * mills.square())
    near = mills * y * (1 + y * (-m / 2 + y * (third / 6 + y * fourth / 24)))
    return near, y * (1 + mills + m.abs()) < TAYLOR


def _quantile_gradients(precision: Tensor, linear: Tensor, u: Tensor, w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    r"""∂w/∂a, ∂w/∂b and ∂w/∂u of w = survival_inverse(u).

    With S the survival function and f the density, ∂w/∂θ = (∂S/∂θ) / f(w) at fixed w, ∂S/∂b = S (E[X | X > w] - E[X])
    and ∂S/∂a = -S (E[X² | X > w] - E[X²]) / 2; given X > w, X - w is RectifiedNormal(a, b - a w). Below the tail, where
    b - a w cancels, the same in terms of ratio = ∂z/∂alpha = u φ(alpha) / φ(z).
    """
    split = _split(precision, linear)
    tail_a, tail_b = _tail_gradients(split, precision, linear, w)
    body_a, body_b = _body_gradients(split, u, torch.where(split.is_tail, 0.0, w))
    by_u = -torch.exp(-_log_density(precision, linear, w))
    return torch.where(split.is_tail, tail_a, body_a), torch.where(split.is_tail, tail_b, body_b), by_u


def _tail_gradients(split: _Split, precision: Tensor, linear: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    """∂w/∂a and ∂w/∂b where the bound lies in the tail."""
    linear_beyond = torch.where(split.is_tail, linear - precision * w, -1.0)
    beyond = _split(torch.where(split.is_tail, precision, 0.0), linear_beyond)
    first, second = _tail_moments(split.tail_ratio)
    first_beyond, second_beyond = _tail_moments(beyond.tail_ratio)
    mean = first / split.tail_rate
    mean_beyond = first_beyond / beyond.tail_rate
    square = mean * second / split.tail_rate
    square_beyond = mean_beyond * second_beyond / beyond.tail_rate
    inverse_hazard = _log_mass(beyond).exp()
    by_a = -0.5 * (w * (w + 2 * mean_beyond) + (square_beyond - square)) * inverse_hazard
    return by_a, (w + (mean_beyond - mean)) * inverse_hazard


def _body_gradients(split: _Split, u: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    """∂w/∂a and ∂w/∂b where it does not; w is zero elsewhere."""
    alpha = split.body_bound
    root = split.body_root
    excess = w * root
    ratio = u * torch.exp(excess * (alpha + 0.5 * excess))
    by_a = -0.5 * (w - (1 - ratio) * alpha / root) / root.square()
    return by_a, (1 - ratio) / root.square()


class _SurvivalInverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, precision: Tensor, linear: Tensor, u: Tensor) -> Tensor:
        w = _survival_inverse(precision, linear, u)
        ctx.save_for_backward(precision, linear, u, w)
        return w

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        by_a, by_b, by_u = _quantile_gradients(*ctx.saved_tensors)
        return gradient * by_a, gradient * by_b, gradient * by_u


class RectifiedNormal(Distribution):
    r"""The density proportional to exp(-a w² / 2 + b w) on w >= 0, in its natural parameters.

    It is the exponential distribution of rate -b where a = 0, the half-normal where b = 0, and otherwise the
    normal(b / a, 1 / a) truncated to w >= 0; a product of such densities adds their parameters. Everything keeps its
    relative accuracy for b / √a from -∞ to 1e8; the arithmetic is float64, results have the parameters' dtype.

    Args:
        precision: a >= 0, any shape.
        linear: b, of a shape that broadcasts with `precision`; negative where a = 0.
        validate_args: as in `torch.distributions.Distribution`; checking waits for the device.

    Raises:
        ValueError: (when validating) a < 0, or a = 0 with b >= 0, where no such density exists.

    >>> RectifiedNormal(torch.tensor([0.0, 1.0]), torch.tensor([-2.0, 3.0])).mode
    tensor([0., 3.])
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {
        "precision": constraints.nonnegative,
        "linear": constraints.real,
    }
    support = constraints.nonnegative
    has_rsample = True

    def __init__(self, precision: Tensor | float, linear: Tensor | float, validate_args: bool | None = None) -> None:
        precision, linear = broadcast_all(precision, linear)
        dtype = torch.promote_types(precision.dtype, linear.dtype)
        self.precision = precision.to(dtype)
        self.linear = linear.to(dtype)
        super().__init__(self.precision.shape, validate_args=validate_args)
        if self._validate_args:
            n_improper = int(((self.precision == 0) & (self.linear >= 0)).sum())
            if n_improper:
                raise ValueError(
                    f"RectifiedNormal has {n_improper} entries with precision 0 and linear >= 0, where the density "
                    "has no finite integral: give them a positive precision or a negative linear term"
                )

    def expand(self, batch_shape: _size, _instance: RectifiedNormal | None = None) -> RectifiedNormal:
        """The same, its parameters expanded to a batch shape: views, no copies."""
        new = self._get_checked_instance(RectifiedNormal, _instance)
        new.precision = self.precision.expand(batch_shape)
        new.linear = self.linear.expand(batch_shape)
        super(RectifiedNormal, new).__init__(torch.Size(batch_shape), validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def _natural(self) -> tuple[Tensor, Tensor]:
        return self.precision.double(), self.linear.double()

    @property
    def mode(self) -> Tensor:
        """max(b / a, 0), and 0 where a = b = 0."""
        is_zero = self.linear <= 0
        safe = torch.where(is_zero, 1.0, self.precision)
        return torch.where(is_zero, 0.0, self.linear / safe)

    @property
    def mean(self) -> Tensor:
        """E[w], of the batch shape."""
        return _mean(_split(*self._natural)).to(self.linear.dtype)

    @property
    def variance(self) -> Tensor:
        """Of the batch shape; keeps its relative accuracy where it is far smaller than the squared mean."""
        split = _split(*self._natural)
        first, second = _tail_moments(split.tail_ratio)
        tail = first * (second - first) / split.tail_rate / split.tail_rate
        hazard = _hazard(split.body_bound)
        body = (1 - hazard * (hazard - split.body_bound)) / split.body_root / split.body_root
        return torch.where(split.is_tail, tail, body).to(self.linear.dtype)

    @property
    def log_normalizer(self) -> Tensor:
        r"""log ∫ exp(-a w²/2 + b w) dw = ½ log(π / 2a) + log erfcx(-b / √(2a)), which tends to -log(-b) as a → 0."""
        precision, linear = self._natural
        is_inside = linear > 0
        peak = 0.5 * torch.where(is_inside, linear, 0.0) * (linear / torch.where(is_inside, precision, 1.0))
        return (_log_mass(_split(precision, linear)) + peak).to(self.linear.dtype)

    def entropy(self) -> Tensor:
        """In nats, of the batch shape."""
        split = _split(*self._natural)
        # The mean drop below the peak, by parts: (1 + b E[w]) / 2 - b E[w], and with the mode inside (1 + alpha h) / 2.
        tail_drop = 0.5 + 0.5 * _tail_moments(split.tail_ratio)[0]
        hazard = _hazard(split.body_bound)
        above_zero = split.body_bound.clamp(min=0.0)
        body_drop = 0.5 * (1 + split.body_bound * hazard - above_zero.square())
        return (_log_mass(split) + torch.where(split.is_tail, tail_drop, body_drop)).to(self.linear.dtype)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density, normalised; -inf where the value is negative and values are not validated.

        Args:
            value: w, a shape that broadcasts with the batch shape.

        Raises:
            ValueError: (when validating) a value outside the support.
        """
        if self._validate_args:
            self._validate_sample(value)
        precision, linear, w = torch.broadcast_tensors(*self._natural, value.double())
        is_outside = w < 0
        log_density = _log_density(precision, linear, torch.where(is_outside, 0.0, w))
        return torch.where(is_outside, -math.inf, log_density).to(self.linear.dtype)

    def survival_inverse(self, u: Tensor) -> Tensor:
        r"""The w with P(X > w) = u, a decreasing function of u; differentiable (once) in a, b and u.

        The algorithm, in float64, branch-free, the same for every entry. Let s = max(√a, -1e-10 b) (a smaller √a
        changes no digit), alpha = -b / s, y = -log u, Q the normal survival function, K(x) = √(π/2) erfcx(x/√2) Mills'
        ratio; find the excess e = s w > 0, with Q(alpha + e) = u Q(alpha).

        1. *Near*, where y (1 + K + |m|) < 1e-3 with K = K(alpha), m = 1 - alpha K: the Taylor series in y of
           de/dy = K(alpha + e), e = K y (1 - m y/2 + c₃ y²/6 + c₄ y³/24) with c₃ = K² - m + 2m² and
           c₄ = (4m - 1)(m - m² - K²) - m (c₃ + 2K²).
        2. *Tail*, where alpha > 5: with y = e (alpha + e/2) + log(K(alpha) / K(alpha + e)), start from
           e = 2y / (1/K(alpha) + √(1/K(alpha)² + 2y)) and take two of Halley's steps: with x = alpha + e and
           n = (right-hand side - y) K(x), e ← e - n / (1 - n (1/K(x) - x) / 2).
        3. *Body*, elsewhere: e = z - alpha, z = -Φ⁻¹(u Q(alpha)), or Φ⁻¹(p) if p = Φ(alpha) + (1 - u) Q(alpha) < ½.

        Args:
            u: in (0, 1), a shape that broadcasts with the batch shape.
        """
        precision, linear, u = torch.broadcast_tensors(*self._natural, u.double())
        return _SurvivalInverse.apply(precision, linear, u).to(self.linear.dtype)

    def survival(self, w: Tensor) -> Tensor:
        """P(X > w) for w >= 0, of a shape that broadcasts with the batch shape."""
        precision, linear, w = torch.broadcast_tensors(*self._natural, w.double())
        root = torch.maximum(precision.sqrt(), -1e-10 * linear)
        return survival_beyond(-linear / root, w * root).to(self.linear.dtype)

    def rsample(self, sample_shape: _size = ONE_DRAW) -> Tensor:
        """Draws (*sample_shape, *batch_shape) from torch's global generator, differentiable in both parameters."""
        shape = self._extended_shape(sample_shape)
        u = torch.rand(shape, dtype=torch.float64, device=self.linear.device)
        return self.survival_inverse(u.clamp(min=SMALLEST_UNIFORM))
