"""Stochastic variational inference of a model with an encoder: its parameters and the guide's raise the ELBO.

The ELBO is a sum over rows, and so is its gradient: blocks of rows, whose borders depend on X's shape alone, go to
threads, and what they tell is added in their order. Where rows are spread over processes (`ppnmf.data.sharded`), each
adds up its own, these sums are added up, and all take the same step.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, Self, TypeVar

import torch
from torch import Tensor, nn

from ppnmf.checks import one_of, real_number, whole_numbers, yes_or_no
from ppnmf.data.labelled import names_of
from ppnmf.data.matrix import Dense, in_memory, without_noise
from ppnmf.data.sharded import Sharded
from ppnmf.inference.room import require_room
from ppnmf.posterior import Kind, Posterior
from ppnmf.progress import bar
from ppnmf.protocols import Amortised, Asked, Matrix, Recipe, require_ability
from ppnmf.rng import Site, Stream, generator
from ppnmf.settings import own_settings
from ppnmf.threads import ordered_map, ordered_results, single_threaded

__all__ = ["OBJECTIVES", "elbo", "run"]

WINDOW = 50  # steps, at least and in whole epochs, whose mean ELBO is compared with the best before
DECAY = 0.3  # of the learning rate, when a window brings nothing
LEAST_RATE = 0.01  # of the first learning rate: when a window brings nothing there, the training has converged
MOST_POINTS = 1000  # of the ELBO curve that is kept
AT_ONCE = 2**22  # entries of the draws that are looked at together
BLOCK_ENTRIES = 2**18  # of X, in a block of rows: with what is made of it, it stays in a core's cache
MOST_BLOCKS = 64  # each tells a gradient as large as the parameters
POLISH_RATE = 0.02
NEGLIGIBLE = 1e-8  # slope, in nats: Adam's ε
POLISH_AT_ONCE = 10  # steps between which Ctrl-C is heard

# where the uniforms ε lie behind the one W = λ (-log ε)^(1/k) that stands for its distribution; None: nothing stands for it
OBJECTIVES: dict[str, tuple[float, float] | None] = {"analytic": None, "sampled": (0.0, 1.0), "median": (0.5, 0.5)}

Rows = slice | Tensor
Outputs = tuple[Tensor, ...]
Result = TypeVar("Result")


class Training(NamedTuple):
    """What the training did."""

    curve: Tensor  # ELBO of each step, float64; of a mini-batch, an unbiased estimate
    converged: bool
    interrupted: bool


@own_settings()
@torch.enable_grad()
def run(
    model: Amortised,
    X: Matrix,
    *,
    steps: int = 2000,
    batch_size: int | None = None,
    draws: int = 1000,
    learning_rate: float | None = None,
    objective: str | None = None,
    divergence: bool | None = None,
    polish: int = 0,
    tol: float = 1e-7,
    seed: int = 0,
    progress: bool = True,
) -> Posterior:
    """Train a copy of `model` on X by Adam, then draw from its guide.

    The learning rate follows a cosine to zero at `steps`, and is multiplied by 0.3 whenever 50 steps, or the next whole
    number of epochs, have not raised the ELBO by `tol`; when it has fallen to a hundredth and still nothing is gained,
    the training ends. H stays >= 0 by projection. A model that has weights already is trained on from where it is.
    Ctrl-C ends the training; the draws are then of what was reached, and `attrs["interrupted"]` is True.

    Args:
        model: offers `guide` (`protocols.Amortised`); it is not changed.
        X: data, shape (N, D).
        steps: at most so many steps of Adam.
        batch_size: rows in a mini-batch, over all processes, or None: all rows in every step.
        draws: independent draws of W from the guide; one chain. H and sigma2 are parameters, and are broadcast.
        learning_rate: of the steps, on parameters of order one. It, `objective` and `divergence` are the model's own
            (`Amortised.recipe`) where None is given.
        objective: what stands for the mean log likelihood: "analytic", the exact one; "sampled", that at one draw of W
            a step; or "median", that at the guide's median. With the last the bound is none.
        divergence: subtract the divergence of the guide to the prior; without it the guide shrinks to points.
        polish: steps, after the training, on a λ and a k of its own for every entry of W, H and σ² kept: what they gain is
            the encoder's amortisation gap (`attrs["amortisation_gap"]`, nats), and the draws, `lp` and `elbo` are those
            of this guide. `model.encode` is the encoder's as before.
        tol: least gain of the ELBO, in nats per observed entry, that such a window of steps must bring.

    Raises:
        TypeError: the model has no encoder.
        ValueError: an option that is out of its range; a polish after a training that is not of the ELBO.
    """
    _check(model, X, steps, batch_size, draws, polish, tol)
    recipe = _recipe(model.recipe, learning_rate=learning_rate, objective=objective, divergence=divergence)
    if polish and (recipe.objective == "median" or not recipe.divergence):
        raise ValueError(
            "polish raises the ELBO, and this training does not: train with objective='analytic' and divergence=True, or "
            "leave polish out"
        )
    start = time.perf_counter()
    model = copy.deepcopy(model).to(dtype=X.dtype, device=X.device)
    data = _in_memory(X)
    with single_threaded():
        if not model.is_initialised:
            model.initialise(data, seed)
        elif model.columns is None:
            model.columns = names_of(data).columns
        training = _train(model.train(), data, recipe, batch_size, steps, tol, seed, progress)
        trained = time.perf_counter()
        model.eval().zero_grad()
        final = _final(model, data, polish, progress)
        polished = time.perf_counter()
        W = _draw(model, final.outputs, data, draws, Stream.of(seed))
        lp = _log_joint(model, data, W)
    end = time.perf_counter()
    parameters = {site: values.expand(1, draws, *values.shape) for site, values in model.fitted().items()}
    return Posterior(
        draws={"W": W[None], **parameters},
        stats={"lp": lp[None]},
        model=model,
        X=X,
        method="svi",
        kind=Kind.APPROXIMATION,
        seed=seed,
        timings={"train": trained - start, "polish": polished - trained, "draw": end - polished, "total": end - start},
        attrs={
            "elbo": final.elbo,
            "elbo_curve": training.curve[:: -(-len(training.curve) // MOST_POINTS) or 1].tolist(),
            "steps": len(training.curve),
            "converged": training.converged,
            "interrupted": training.interrupted or final.interrupted,
            "objective": recipe.objective,
            "divergence": recipe.divergence,
            **({"polish": polish, "amortisation_gap": final.gap} if polish else {}),
        },
    )


@own_settings()
@torch.no_grad()
def elbo(model: Amortised, X: Dense | Sharded) -> float:
    """The analytic ELBO of all of X, in nats."""
    own = X.here
    return _added(X, _by_block(lambda rows: _bound(model, _batch(model, own, rows)), own, model.rank))


class Batch(NamedTuple):
    """What a step looks at."""

    values: Tensor  # (B, D)
    mask: Tensor | None
    coordinates: Tensor  # (B, C)
    uniforms: Tensor | None = None  # (B, K): W stands at these of the guide's upper quantiles; None: at its moments


def _batch(
    model: Amortised, X: Dense, rows: Rows, coordinates: Tensor | None = None, uniforms: Tensor | None = None
) -> Batch:
    """Some rows of X; `coordinates` (N, C) are all of X's, where they are known."""
    values, mask = X.values[rows], None if X.mask is None else X.mask[rows]
    return Batch(values, mask, model.coordinates(values, mask) if coordinates is None else coordinates[rows], uniforms)


def _bound(model: Amortised, batch: Batch, divergence: bool = True) -> Tensor:
    """The objective summed over a batch, of the encoder's guide: the ELBO, or what stands for it."""
    outputs = model.outputs(batch.coordinates)
    return model.bound(batch.values, batch.mask, outputs, Asked(batch.uniforms, divergence))


class Problem(NamedTuple):
    """What stays as it is from step to step."""

    model: Amortised
    parameters: tuple[nn.Parameter, ...]  # the model's
    X: Dense
    coordinates: Tensor  # (N, C), all of X's
    recipe: Recipe
    drawn_from: torch.Generator  # by an objective that is sampled

    @classmethod
    def of(cls, model: Amortised, X: Dense, recipe: Recipe, drawn_from: torch.Generator) -> Self:
        return cls(model, tuple(model.parameters()), X, model.coordinates(X.values, X.mask), recipe, drawn_from)


def _gradient(problem: Problem, batch: Tensor | None, scale: float) -> list[Tensor]:
    """The objective of a batch of rows (None: all) times N / their number, and `scale` times its gradient."""
    model, parameters, X, coordinates, recipe, drawn_from = problem
    n = len(X.values) if batch is None else len(batch)
    blocks, uniforms = _blocks(n, X), _uniforms(recipe, (n, model.rank), X, drawn_from)

    def of(block: slice) -> list[Tensor]:
        u = None if uniforms is None else uniforms[block]
        rows = block if batch is None else batch[block]
        found = _bound(model, _batch(model, X, rows, coordinates, u), recipe.divergence) * (len(X.values) / n)
        return [found.detach(), *torch.autograd.grad(scale * found, parameters)]

    first, *others = ordered_results(of, blocks, _operations(blocks, X, model.rank))
    for other in others:
        for total, part in zip(first, other, strict=True):
            total.add_(part)
    return first


def _uniforms(recipe: Recipe, shape: tuple[int, int], X: Dense, drawn_from: torch.Generator) -> Tensor | None:
    """Those (n, K) behind the one W of a step, never 0 or 1; None where the objective is exact."""
    between = OBJECTIVES[recipe.objective]
    if recipe.objective == "sampled" and recipe.uniforms is not None:
        between = recipe.uniforms
    if between is None:
        return None
    u = torch.rand(shape, generator=drawn_from, dtype=X.dtype, device=X.device)
    u = u.mul_(between[1] - between[0]).add_(between[0])
    kind = torch.finfo(X.dtype)
    return u.clamp_(kind.tiny, 1 - kind.eps)


def _train(
    model: Amortised,
    X: Dense | Sharded,
    recipe: Recipe,
    batch_size: int | None,
    steps: int,
    tol: float,
    seed: int,
    progress: bool,
) -> Training:
    """Steps with the schedule that `run` describes; the model is changed in place."""
    own, N = X.here, X.shape[0]
    epoch = -(-N // min(N, batch_size or N))  # mini-batches
    window = epoch * -(-WINDOW // epoch)  # whole epochs: what one batch differs from another must not look like a gain
    batches = _batches(X.rows, epoch, Stream.of(seed, replicates=(1,)), X.device)
    optimiser = _optimiser(model, recipe)
    curve, best, decay = torch.zeros(steps, dtype=torch.float64, device=X.device), -math.inf, 1.0
    step, converged, interrupted = 0, False, False
    try:
        rank = X.rank if isinstance(X, Sharded) else 0  # a sampled objective draws for its own rows
        problem = Problem.of(model, own, recipe, generator(seed, X.device, rank))
        with bar(steps, "svi", progress) as shown:
            while step < steps and not converged:
                rate = recipe.learning_rate * decay * 0.5 * (1 + math.cos(math.pi * step / steps))
                optimiser.param_groups[0]["lr"] = rate
                found, *slopes = _gradient(problem, next(batches), -1 / X.n_observed)
                curve[step] = _summed(X, problem.parameters, found, slopes)
                optimiser.step()
                model.project()
                step += 1
                if step % window == 0:
                    reached = float(curve[step - window : step].mean())
                    gained, best = reached - best > tol * X.n_observed, max(best, reached)
                    converged = not gained and decay <= LEAST_RATE
                    decay = decay if gained else decay * DECAY
                    shown.update(window)
                    shown.set_postfix_str(f"ELBO {reached:.6g}")
    except KeyboardInterrupt:
        interrupted = True
    model.project()
    return Training(curve[:step].cpu(), converged, interrupted)


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
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    direction = parameter.grad / parameter.grad.norm().clamp(min=torch.finfo(parameter.dtype).tiny)
                    finite = direction.isfinite().all()
                    parameter.sub_(torch.where(finite, direction, 0.0) * group["lr"])


def _summed(X: Dense | Sharded, parameters: Sequence[nn.Parameter], value: Tensor, slopes: Sequence[Tensor]) -> Tensor:
    """The objective over the rows of all processes; its gradient becomes the parameters'."""
    if isinstance(X, Sharded):
        total = X.add_up(torch.cat([value[None], *(slope.flatten() for slope in slopes)]))
        first, *parts = total.split([1, *(slope.numel() for slope in slopes)])
        value, slopes = first[0], [part.view_as(slope) for part, slope in zip(parts, slopes, strict=True)]
    for parameter, slope in zip(parameters, slopes, strict=True):
        parameter.grad = slope.contiguous()  # torch's fused Adam reads a gradient as if it lay as its parameter does
    return value


def _batches(rows: range, number: int, stream: Stream, device: torch.device) -> Iterator[Tensor | None]:
    """Rows of each step, counted from the first of `rows`, which are at least one.

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


class Free(NamedTuple):
    """Some rows whose guide has parameters of its own, on Adam's way up: a value, of which steps make another."""

    model: Amortised
    batch: Batch
    raw: Outputs  # what the guide is made of
    first: Outputs  # Adam's running mean of the gradient, and of its square
    second: Outputs
    kept: Outputs  # the raw ones with the best bound
    best: Tensor  # (), that bound

    @classmethod
    def of(cls, model: Amortised, batch: Batch) -> Self:
        """As the encoder has them."""
        raw = model.outputs(batch.coordinates)
        zeros = tuple(torch.zeros_like(part) for part in raw)
        return cls(model, batch, raw, zeros, zeros, raw, _bound(model, batch))

    def bound(self, raw: Outputs) -> Tensor:
        return self.model.bound(self.batch.values, self.batch.mask, raw, Asked(frozen=True))

    def after(self, steps: range, of: int) -> Self:
        """After these steps of Adam, whose rate follows a cosine to zero at step `of`."""
        raw, first, second = self.raw, self.first, self.second
        for step in steps:
            free = tuple(part.detach().requires_grad_() for part in raw)
            slopes = torch.autograd.grad(self.bound(free), free)
            first = tuple(0.9 * m + 0.1 * g for m, g in zip(first, slopes, strict=True))
            second = tuple(0.99 * v + 0.01 * g * g for v, g in zip(second, slopes, strict=True))
            rate = POLISH_RATE * 0.5 * (1 + math.cos(math.pi * step / of)) / (1 - 0.9 ** (step + 1))
            scaled = [((v / (1 - 0.99 ** (step + 1))).sqrt() + NEGLIGIBLE).reciprocal() for v in second]
            raw = tuple(r + rate * m * s for r, m, s in zip(raw, first, scaled, strict=True))
        with torch.no_grad():
            bound = self.bound(raw)
            better = bound > self.best
            kept = tuple(torch.where(better, new, old) for new, old in zip(raw, self.kept, strict=True))
            best = torch.where(better, bound, self.best)
        return self._replace(raw=raw, first=first, second=second, kept=kept, best=best)


class Final(NamedTuple):
    """The guide of the rows that the model was trained on."""

    outputs: Outputs  # what it is made of
    elbo: float
    gap: float  # what the polish has raised the ELBO by
    interrupted: bool


def _final(model: Amortised, X: Dense | Sharded, polish: int, progress: bool) -> Final:
    """The encoder's guide or, after that many steps on parameters of its own for every entry, the polished one."""
    own = X.here
    starts = _by_block(lambda rows: Free.of(model, _batch(model, own, rows)), own, model.rank)
    first = reached = _added(X, [free.best for free in starts])
    frees, interrupted = starts, False
    try:
        with bar(polish, "polish", progress) as shown:
            for done in range(0, polish, POLISH_AT_ONCE):
                steps = range(done, min(done + POLISH_AT_ONCE, polish))
                frees = ordered_map(
                    partial(Free.after, steps=steps, of=polish), frees, _operations(frees, own, model.rank)
                )
                reached = _added(X, [free.best for free in frees])
                shown.update(len(steps))
                shown.set_postfix_str(f"ELBO {reached:.6g}")
    except KeyboardInterrupt:
        interrupted = True
    outputs = tuple(torch.cat(parts) for parts in zip(*(free.kept for free in frees), strict=True))
    return Final(outputs, reached, reached - first, interrupted)


@torch.no_grad()
def _draw(model: Amortised, outputs: Outputs, X: Dense | Sharded, draws: int, stream: Stream) -> Tensor:
    """Independent draws of W from the guide (draws, N, K), by its inverse distribution function; never zero."""
    rows, quantile = X.rows, model.quantile(outputs)
    W = torch.empty(draws, len(rows), model.rank, dtype=X.dtype, device=X.device)
    for s in range(draws):
        W[s] = quantile(stream.uniforms(s, Site.GUIDE, rows, model.rank, X.device)[0])
    return W


def _log_joint(model: Amortised, X: Dense | Sharded, W: Tensor) -> Tensor:
    """log p(X, W | H, σ²) of each of the draws W (S, N, K), shape (S,), float64."""
    own = X.here

    def of(rows: slice) -> Tensor:
        values, mask, draws = own.values[rows], None if own.mask is None else own.mask[rows], W[:, rows]
        some = draws.split(max(1, AT_ONCE // draws[0].numel()))
        return torch.cat([model.log_joint(values, part, mask).sum(1) for part in some])

    return X.add_up(torch.stack(_by_block(of, own, model.rank)).sum(0))


def _by_block(function: Callable[[slice], Result], X: Dense, rank: int) -> list[Result]:
    """The function of each block of X's rows, without gradients."""
    blocks = _blocks(len(X.values), X)
    return ordered_map(torch.no_grad()(function), blocks, _operations(blocks, X, rank))


def _added(X: Dense | Sharded, parts: Sequence[Tensor]) -> float:
    """The sum of the blocks' numbers, over all processes."""
    return float(X.add_up(torch.stack([part.double() for part in parts]).sum()))


def _operations(blocks: Sequence[Any], X: Dense, rank: int) -> float:
    """Floating-point operations of a step on one of the blocks, about."""
    return 14.0 * X.values.numel() * rank / len(blocks)


def _blocks(n: int, X: Dense) -> list[slice]:
    """Blocks of n of X's rows; their borders do not depend on threads."""
    size = n if X.device.type == "cuda" else max(1, BLOCK_ENTRIES // X.shape[1], -(-n // MOST_BLOCKS))
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


def _in_memory(X: Matrix) -> Dense | Sharded:
    """X with this process's rows as a dense matrix."""
    own = in_memory(without_noise(X.here, "svi"), "svi")
    return replace(X, local=own) if isinstance(X, Sharded) else own


def _recipe(own: Recipe, **told: Any) -> Recipe:
    """The model's recipe with what the caller has said otherwise."""
    recipe = own._replace(**{name: choice for name, choice in told.items() if choice is not None})
    real_number("learning_rate", recipe.learning_rate)
    one_of("objective", recipe.objective, OBJECTIVES)
    yes_or_no(divergence=recipe.divergence)
    return recipe


def _check(
    model: Amortised, X: Matrix, steps: int, batch_size: int | None, draws: int, polish: int, tol: float
) -> None:
    require_ability("svi", model, Amortised)
    model.require_columns(X.shape[1], names_of(X).columns)
    whole_numbers(steps=(steps, 0), draws=(draws, 1), polish=(polish, 0))
    whole_numbers(batch_size=(1 if batch_size is None else batch_size, 1))
    real_number("tol", tol, 0)
    require_room(model, X, 1, draws, ["W"])
