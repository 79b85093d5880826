"""What the methods for layers share: labels beside the last layer, and the posterior of where trainings ended.

With labels Y (D, c) of X's columns the loss is

.. math:: \\|X - A_0 A_1 \\cdots S\\|^2 / \\|X\\|^2 + \\lambda \\|Y^T - B S\\|^2 / \\|Y\\|^2,

both sums over what is observed, so that a λ means the same whatever the sizes of X and Y.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ppnmf.checks import real_number, whole_numbers
from ppnmf.data.labelled import names_of
from ppnmf.data.labels import Labels, as_labels
from ppnmf.data.matrix import Dense
from ppnmf.gaussian import layers
from ppnmf.inference.chain import log_joint
from ppnmf.inference.climbs import dead_components
from ppnmf.posterior import Kind, Posterior
from ppnmf.progress import bar
from ppnmf.protocols import Layered, Params
from ppnmf.rng import Stream
from ppnmf.threads import single_threaded

__all__ = ["LABEL_WEIGHT", "Layering", "Problem", "fitted", "problem_of", "relative_loss", "scored"]

LABEL_WEIGHT = (
    0.001  # λ: enough for labels to order components that X leaves open, too little to bend those that it knows
)


class Problem(NamedTuple):
    """What there is to fit.

    Args:
        X: (N, D), zero where `seen` is False; seen: None where everything is.
        ranks: K_0, K_1 ... K.
        scores: (D, c), one-hot or scores, zero where they are not `known` (D,); without columns where there are no labels.
        weight: λ.
    """

    X: Tensor
    seen: Tensor | None
    ranks: tuple[int, ...]
    scores: Tensor
    known: Tensor
    weight: float

    @property
    def size(self) -> Tensor:
        """‖X‖², not zero."""
        return self.X.square().sum().clamp(min=torch.finfo(self.X.dtype).tiny)

    @property
    def label_weight(self) -> Tensor:
        """What an entry of Y counts beside one of X: λ ‖X‖² / ‖Y‖²."""
        return self.weight * self.size / self.scores.square().sum().clamp(min=1e-12)

    @property
    def has_labels(self) -> bool:
        """Whether labels have a say."""
        return self.weight > 0 and self.scores.shape[1] > 0


class Layering(NamedTuple):
    """Where a training ended.

    Args:
        factors: A_0 (N, K_0), A_1 (K_0, K_1) ..., S (K, D). B: (c, K), of the labels.
        curve: the loss by step. converged: whether the last steps gained nothing more.
    """

    factors: list[Tensor]
    B: Tensor
    curve: list[float]
    converged: bool


def problem_of(model: Layered, X: Dense, labels: Any, weight: float) -> tuple[Problem, Labels | None]:
    """What there is to fit, and what is known of the columns' classes."""
    D = X.shape[1]
    found = (
        None
        if labels is None
        else as_labels(
            labels,
            D,
            "columns of X: give the transpose of X where labels are of its rows",
            names=names_of(X).columns,
        )
    )
    scores = torch.zeros(D, 0, dtype=torch.float64) if found is None else found.scores
    known = torch.zeros(D, dtype=torch.bool) if found is None else found.known
    weight = real_number("label_weight", weight, 0)
    return Problem(X.values, X.mask, tuple(model.ranks), scores.to(X.values), known.to(X.device), weight), found


def scored(S: Tensor, problem: Problem) -> Tensor:
    """B (c, K), the least squares of the known labels on S (K, D), which weighs as nothing where S is singular."""
    own = S.detach() * problem.known
    gram = own @ own.mT
    lifted = gram + 1e-9 * gram.diagonal().sum().clamp(min=1e-30) * torch.eye(
        len(gram), dtype=gram.dtype, device=gram.device
    )
    return torch.linalg.solve(lifted, own @ problem.scores).mT


def relative_loss(problem: Problem, W: Tensor, S: Tensor, B: Tensor) -> Tensor:
    """The loss of this module's first lines."""
    left = problem.X - W @ S
    if problem.seen is not None:
        left = left * problem.seen
    loss = left.square().sum() / problem.size
    if not problem.has_labels:
        return loss
    off = (problem.scores.mT - B @ S) * problem.known
    return loss + problem.weight * off.square().sum() / problem.scores.square().sum().clamp(min=1e-12)


def _variance(problem: Problem, end: Layering) -> float:
    """The mean square of what B S leaves of the known labels."""
    off = (problem.scores.mT - end.B @ end.factors[-1])[:, problem.known]
    return float(off.square().mean())


def fitted(
    method: str,
    train: Callable[[Problem, Stream, Callable[[], object]], Layering],
    model: Layered,
    X: Dense,
    labels: Any,
    weight: float,
    restarts: int,
    steps: int,
    seed: int,
    progress: bool,
) -> Posterior:
    """The posterior of trainings from several starts, each a chain of one draw; after Ctrl-C, of those that have ended.

    Args:
        train: a problem, a stream, and what is called after each of at most `steps` steps -> where it ended.

    Raises:
        ValueError: a count below one, labels that do not fit.
        KeyboardInterrupt: Ctrl-C before the first training has ended.
    """
    whole_numbers(restarts=(restarts, 1), steps=(steps, 1))
    began = time.perf_counter()
    problem, found = problem_of(model, X, labels, weight)
    ends: list[Layering] = []
    interrupted = False
    with bar(restarts * steps, f"{method}, {restarts} start(s)", progress) as ticker, single_threaded():
        try:
            for key in Stream.of(seed, restarts).keys:
                ends.append(train(problem, Stream((key,)), ticker.update))
        except KeyboardInterrupt:
            if not ends:
                raise
            interrupted = True
    return _posterior(method, model, X, ends, problem, found, seed, began, interrupted)


def _posterior(
    method: str,
    model: Layered,
    X: Dense,
    ends: list[Layering],
    problem: Problem,
    found: Labels | None,
    seed: int,
    began: float,
    interrupted: bool,
) -> Posterior:
    """The ends as a posterior; σ² is at its mode given them."""
    factors = [torch.stack(own).to(X.dtype) for own in zip(*(end.factors for end in ends), strict=True)]
    params: Params = model.begin(X, Stream.of(seed, len(ends)), layers.named(factors))
    loss = torch.stack(
        [relative_loss(problem, layers.product(end.factors[:-1]), end.factors[-1], end.B) for end in ends]
    )
    facts: dict[str, Any] = {}
    if found is not None:
        facts["labels"] = {
            "of": "columns",
            "classes": list(found.classes),
            "codes": found.codes.tolist(),
            "are_names": found.are_names,
            "weight": problem.weight,
            "coefficients": [end.B.tolist() for end in ends],
            "variance": [_variance(problem, end) for end in ends],
        }
    converged = [end.converged for end in ends]
    if not all(converged) and not interrupted:
        warnings.warn(f"{method}: {converged.count(False)} of {len(ends)} restart(s) had not converged", stacklevel=4)
    return Posterior(
        draws={site: params[site][:, None] for site in model.sites(*X.shape)},
        stats={"lp": log_joint(model, X, params)[:, None], "loss": loss.double()[:, None]},
        model=model,
        X=X,
        method=method,
        kind=Kind.MODES,
        seed=seed,
        timings={"total": time.perf_counter() - began},
        attrs={
            "converged": converged,
            "sweeps": [len(end.curve) for end in ends],
            "dead_components": dead_components(params["W"], params["H"], X),
            "loss_curve": [end.curve for end in ends],
            "interrupted": interrupted,
            **facts,
        },
    )
