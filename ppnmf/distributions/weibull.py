"""Kullback-Leibler divergences from a Weibull to a Weibull, an Exponential and a Gamma; importing registers them with torch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Exponential, Gamma, Weibull
from torch.distributions.kl import register_kl

__all__ = ["EULER"]

EULER = 0.5772156649015329


@register_kl(Weibull, Weibull)
def _kl_weibull_weibull(p: Weibull, q: Weibull) -> Tensor:
    """Bauckhage (2014), arXiv:1310.3713, with the terms that cancel at p = q brought together."""
    ratio = q.concentration / p.concentration
    log_power = q.concentration * (p.scale.log() - q.scale.log())
    return torch.expm1(log_power + torch.lgamma(1 + ratio)) - log_power - ratio.log() - EULER * (1 - ratio)


def _kl_weibull_gamma_shape(p: Weibull, shape: Tensor | float, log_gamma_shape: Tensor | float, rate: Tensor) -> Tensor:
    """KL(Weibull(k, λ) ‖ Gamma(α, β)) = log k - γ - 1 + β E[w] - α (log λβ - γ / k) + log Γ(α), γ Euler's constant."""
    k = p.concentration
    log_scale = p.scale.log()
    mean = torch.exp(log_scale + torch.lgamma(1 + 1 / k))
    cross = rate * mean - shape * (log_scale + rate.log() - EULER / k) + log_gamma_shape
    return cross + k.log() - EULER - 1


@register_kl(Weibull, Exponential)
def _kl_weibull_exponential(p: Weibull, q: Exponential) -> Tensor:
    return _kl_weibull_gamma_shape(p, 1.0, 0.0, q.rate)


@register_kl(Weibull, Gamma)
def _kl_weibull_gamma(p: Weibull, q: Gamma) -> Tensor:
    return _kl_weibull_gamma_shape(p, q.concentration, torch.lgamma(q.concentration), q.rate)
