"""Steps up the objective: batches of rows, the learning rate's schedule, Adam or the authors' normalised steps."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ppnmf.data.matrix import Dense
from ppnmf.data.sharded import Sharded
from ppnmf.inference.svi.gradient import Problem, gradient, summed
from ppnmf.progress import bar
from ppnmf.protocols import Amortised, Recipe
from ppnmf.rng import Site, Stream, generator

__all__ = ["Course", "Normalised", "Training", "batches", "train"]

WINDOW = 50  # steps, at least and in whole epochs, whose mean ELBO is compared with the best before
DECAY = 0.3  # of the learning rate, when a window brings nothing
LEAST_RATE = 0.01  # of the first learning rate: when a window brings nothing there, the training has converged


class Course(NamedTuple):
    """How long a training goes on, and on how many rows at a time; `svi.run` says what each is."""

    steps: int
    batch_size: int | None
    tol: float
    seed: int
    progress: bool


class Training(NamedTuple):
    """What the training did."""

    curve: Tensor  # ELBO of each step, float64; of a mini-batch, an unbiased estimate
    converged: bool
    interrupted: bool


@dataclass
class Schedule:
    """The learning rate: a cosine to zero, multiplied by `DECAY` whenever a window of steps brings nothing."""

    first: float
    steps: int
    least_gain: float  # of the ELBO, in nats, that a window must bring
    decay: float = 1.0
    best: float = -math.inf
    converged: bool = False

    def rate(self, step: int) -> float:
        """The rate of this step."""
        return self.first * self.decay * 0.5 * (1 + math.cos(math.pi * step / self.steps))

    def judge(self, reached: float) -> None:
        """Take note of a window's mean ELBO."""
        gained = reached - self.best > self.least_gain
        self.best = max(self.best, reached)
        self.converged = not gained and self.decay <= LEAST_RATE
        if not gained:
            self.decay *= DECAY


def train(model: Amortised, X: Dense | Sharded, recipe: Recipe, course: Course) -> Training:
    """Steps with the schedule that `svi.run` describes; the model is changed in place. Ctrl-C ends them.

    Args:
        model: has weights.
        X: data, (N, D); over processes, all take the same steps.
        recipe: the objective, the rate and the kind of step.
    """
    steps, batch_size, tol, seed, progress = course
    N = X.shape[0]
    epoch = -(-N // min(N, batch_size or N))  # mini-batches
    window = epoch * -(-WINDOW // epoch)  # whole epochs: what one batch differs from another must not look like a gain
    rows_of_steps = batches(X.rows, epoch, Stream.of(seed, replicates=(1,)), X.device)
    optimiser = _optimiser(model, recipe)
    schedule = Schedule(recipe.learning_rate, steps, tol * X.n_observed)
    curve = torch.zeros(steps, dtype=torch.float64, device=X.device)
    step = 0
    interrupted = False
    try:
        own_draws = X.rank if isinstance(X, Sharded) else 0  # a sampled objective draws for its own rows
        problem = Problem.of(model, X.here, recipe, generator(seed, X.device, own_draws))
        with bar(steps, "svi", progress) as shown:
            while step < steps and not schedule.converged:
                optimiser.param_groups[0]["lr"] = schedule.rate(step)
                value, *slopes = gradient(problem, next(rows_of_steps), -1 / X.n_observed)
                curve[step] = summed(X, problem.parameters, value, slopes)
                optimiser.step()
                model.project()
                step += 1
                if step % window == 0:
                    reached = float(curve[step - window : step].mean())
                    schedule.judge(reached)
                    shown.update(window)
                    shown.set_postfix_str(f"ELBO {reached:.6g}")
    except KeyboardInterrupt:
        interrupted = True
    model.project()
    return Training(curve[:step].cpu(), schedule.converged, interrupted)


def batches(rows: range, number: int, stream: Stream, device: torch.device) -> Iterator[Tensor | None]:
    """Rows of each step, counted from the first of `rows`, which are at least one; None stands for all.

    Every row comes once an epoch, in a new order; the sizes of batches differ by one row at most.
    """
    number = min(number, len(rows))
    while number == 1:
        yield None
    epoch = 0
    while True:
        order = stream.uniforms(epoch, Site.GUIDE, rows, 1, device)[0, :, 0].argsort()
        yield from order.tensor_split(number)
        epoch += 1


def _optimiser(model: Amortised, recipe: Recipe) -> torch.optim.Optimizer:
    if recipe.normalised:
        return Normalised(model.parameters(), recipe.learning_rate)
    return torch.optim.Adam(model.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.99), fused=True)


class Normalised(torch.optim.Optimizer):
    """Steps along each parameter's gradient divided by its norm; one that is not finite is left out."""

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float) -> None:
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """A step of every parameter that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    direction = parameter.grad / parameter.grad.norm().clamp(min=torch.finfo(parameter.dtype).tiny)
                    finite = direction.isfinite().all()
                    parameter.sub_(torch.where(finite, direction, 0.0) * group["lr"])
