"""What PAE-NMF's encoder reads, how a guide is made of what it gives, and where it starts: ours, and the paper's."""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from ppnmf.models.elbo import Guide
from ppnmf.nndsvd import leading_singular
from ppnmf.rng import Site, Stream

__all__ = ["LEAST", "MOST", "Encoding", "Floored", "Smooth", "Start"]

LEAST = 0.1  # bound of the guide's k: below it its gradients overflow
MOST = 100.0  # and above it its draws coarsen
SHARPNESS = 0.1  # λ is linear in the encoder's output above this, exponential below: loadings are near zero or one
LEAST_SCALE = 1e-8
MOST_COORDINATES = 500  # principal coordinates that the encoder reads
DAMPING = 1e-3  # directions with less than this of the greatest variance are not brought to unit variance
RIDGE = 1e-4
FLOOR = 1e-3  # the authors' of k and of λ
NOISE = 0.1  # greatest noise on the H that the published setting starts from, relative to H's mean
WEIGHTS = (0.3, 0.7)  # times 1 / (D mean of X): between these the authors draw the encoder's first weights


class Start(NamedTuple):
    """What is known when the layers start: an ordinary NMF, X ≈ W @ H, with W's columns of mean one."""

    W: Tensor  # (N, K)
    H: Tensor  # (K, D)
    noise: Tensor  # the noise variance, () or (D,)
    features: Tensor  # (N, C), what the two last layers read


class Encoding(Protocol):
    """How an encoder reads X and gives a guide, and where it starts."""

    bias: bool  # of its layers

    def unit(self, root_mean_square: float) -> float:
        """The unit of X in which H is kept."""
        ...

    def basis(self, deviations: Tensor, stream: Stream) -> Tensor | None:
        """From X - centre to what the encoder reads, (D, C), or None: it reads X."""
        ...

    def guide(self, scale: Tensor, concentration: Tensor) -> Guide:
        """The guide of what the two last layers give, each (N, K): λ from the first and k from the second."""
        ...

    def start(self, to_scale: nn.Linear, to_concentration: nn.Linear, begun: Start, stream: Stream) -> Tensor:
        """Set the two last layers, in place, from what is known at the start; the H (K, D) to begin with."""
        ...


class Smooth:
    """Ours: principal coordinates with about unit variance, smooth bounds, layers started by regression."""

    bias = True

    def unit(self, root_mean_square: float) -> float:
        return root_mean_square

    def basis(self, deviations: Tensor, stream: Stream) -> Tensor:
        """(D, C): coordinates on the principal directions, brought to about unit variance.

        On them Adam soon reaches what it creeps to on raw columns (share prices at rank 5: 1044 nats after 400 steps,
        against 1087 after 2000).
        """
        _, s, V = leading_singular(deviations, MOST_COORDINATES, stream)
        deviation = (s.square() + DAMPING * s[0].square()).sqrt() / math.sqrt(len(deviations))
        return torch.where(s > 0, V.mT / deviation.clamp(min=torch.finfo(s.dtype).tiny), 0.0)

    def guide(self, scale: Tensor, concentration: Tensor) -> Guide:
        """λ by a softplus, k by a logistic between its bounds on the logarithmic scale."""
        scale = LEAST_SCALE + SHARPNESS * nn.functional.softplus(scale / SHARPNESS)
        log_concentration = math.log(LEAST) + math.log(MOST / LEAST) * torch.sigmoid(concentration)
        return Guide(scale, log_concentration.exp().clamp(LEAST, MOST))

    def start(self, to_scale: nn.Linear, to_concentration: nn.Linear, begun: Start, stream: Stream) -> Tensor:
        """By ridge regression of λ = W, and of the k whose Weibull is about as wide as W's conditional; H as it was."""
        precision = (begun.H.square() / begun.noise).sum(1)
        concentration = (1.2 * begun.W * precision.sqrt()).clamp(1, MOST / 2)  # about mean over deviation
        _regress(to_scale, begun.features, _inverse_softplus(begun.W.clamp(min=SHARPNESS / 3)))
        part = (concentration / LEAST).log() / math.log(MOST / LEAST)
        _regress(to_concentration, begun.features, torch.logit(part))
        return begun.H


class Floored:
    """The paper's k = g(W_k v), λ = f(W_λ v): g, f cut off at a floor, no bias; H from ordinary NMF with noise.

    Floor, missing bias and first weights are those of the authors' code; the noise is uniform.
    """

    bias = False

    def unit(self, root_mean_square: float) -> float:
        return 1.0

    def basis(self, deviations: Tensor, stream: Stream) -> None:
        return None

    def guide(self, scale: Tensor, concentration: Tensor) -> Guide:
        """Both cut off at the floor."""
        return Guide(scale.clamp(min=FLOOR), concentration.clamp(min=FLOOR))

    def start(self, to_scale: nn.Linear, to_concentration: nn.Linear, begun: Start, stream: Stream) -> Tensor:
        """Weights drawn as the authors draw them; H with noise added."""
        K, D = begun.H.shape
        of_mean = (D * begun.features.mean()).clamp(min=torch.finfo(begun.H.dtype).tiny).reciprocal()
        u = stream.uniforms(0, Site.START, range(3 * K), D, begun.H.device)[0].to(begun.H.dtype)
        weights = of_mean * (WEIGHTS[0] + (WEIGHTS[1] - WEIGHTS[0]) * u[: 2 * K])
        to_scale.weight.copy_(weights[:K]), to_concentration.weight.copy_(weights[K:])
        return begun.H + NOISE * begun.H.mean() * u[2 * K :]


def _regress(layer: nn.Linear, features: Tensor, target: Tensor) -> None:
    """Set the layer to the ridge regression of target (N, K) on features (N, C), by the smaller Gram matrix."""
    A = features - features.mean(0)
    T = target - target.mean(0)
    penalty = RIDGE * A.square().sum() / min(A.shape) + torch.finfo(A.dtype).tiny ** 0.5
    if A.shape[0] >= A.shape[1]:
        weight = torch.linalg.solve(A.mT @ A + penalty * torch.eye(A.shape[1]).to(A), A.mT @ T)
    else:
        weight = A.mT @ torch.linalg.solve(A @ A.mT + penalty * torch.eye(A.shape[0]).to(A), T)
    layer.weight.copy_(weight.mT), layer.bias.copy_(target.mean(0) - features.mean(0) @ weight)


def _inverse_softplus(y: Tensor) -> Tensor:
    return y + SHARPNESS * torch.log(-torch.expm1(-y / SHARPNESS))
