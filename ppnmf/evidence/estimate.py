"""`Evidence`: an estimate of the log marginal likelihood that carries its error."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Self

from scipy.special import logsumexp
from scipy.stats import t as student
from torch import Tensor

from ppnmf.protocols import Model

__all__ = ["Evidence", "Mode", "describe", "priors_of", "why_failed"]

CLEAR = math.log(20)  # of posterior odds, which a lead must exceed before it counts
MOST_APART = (
    50.0  # nats between the replicates, or between the ends of a stage's bracket, above which an estimate has failed
)
NEXT = {
    "chib": "method='stepping_stone'",
    "smc": "method='stepping_stone'",
    "stepping_stone": "more particles or sweeps",
}


HEAVY = 7.0  # nats below the heaviest mode, a thousandth of it, up to which one counts


class Mode(NamedTuple):
    """The part of p(X) that lies around a mode of the posterior.

    Args:
        log_evidence: the log of it.
        mcse: its standard error; infinite where there is one estimate alone, of a mode that weighs nothing.
        replicates: the independent estimates of it.
        lp: mean log joint of draws there.
    """

    log_evidence: float
    mcse: float
    replicates: tuple[float, ...]
    lp: float

    @classmethod
    def of(cls, mode: Sequence[Any]) -> Self:
        """A mode from what JSON holds of one."""
        log_evidence, mcse, replicates, lp = mode
        return cls(log_evidence, mcse, tuple(replicates), lp)


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """log p(X) of one model, with its Monte Carlo standard error.

    Args:
        log_evidence: the replicates' estimates combined; over several modes the log of the sum of what each holds.
        mcse: its standard error, from the spread of the replicates.
        method: the method's name.
        rank: the model's rank.
        replicates: the independent estimates, those of a mode together.
        priors: the model's hyperparameters, on which the evidence depends.
        seconds: the time it took.
        warnings: reasons to doubt it, in sentences.
        gap: nats between two estimates that err to either side; 0 where the method has no such pair.
        failed: why it is no estimate of anything, in a sentence that names what to try next; empty where it is one. A failed
            one is shown, and never chosen.
        modes: the distinct modes that were found, the heaviest first; empty for a method that does not tell them apart.
        attrs: facts about the run that JSON can hold: draws, warmup, seed, rhat ...
    """

    log_evidence: float
    mcse: float
    method: str
    rank: int
    replicates: tuple[float, ...]
    priors: Mapping[str, Any]
    seconds: float
    warnings: tuple[str, ...] = ()
    gap: float = 0.0
    failed: str = ""
    modes: tuple[Mode, ...] = ()
    attrs: Mapping[str, Any] = field(default_factory=dict)

    label: ClassVar[str] = "log evidence"
    sign: ClassVar[int] = 1  # more is better

    def __post_init__(self) -> None:
        object.__setattr__(self, "modes", tuple(Mode.of(mode) for mode in self.modes))

    @property
    def value(self) -> float:
        return self.log_evidence

    @property
    def error(self) -> float:
        return self.mcse

    @classmethod
    def over(cls, modes: Sequence[Mode], **rest: Any) -> Evidence:
        """The log of the sum of what distinct modes hold, and its standard error.

        >>> one, other = Mode(-10.0, 0.1, (-10.1, -9.9), -5.0), Mode(-10.0, 0.1, (-9.9, -10.1), -6.0)
        >>> round(Evidence.over([one, other], method="chib", rank=1, priors={}, seconds=0.0).log_evidence + 10, 3)
        0.693
        """
        ordered = sorted(modes, key=lambda mode: -mode.log_evidence)
        total = float(logsumexp([mode.log_evidence for mode in ordered]))
        errors = [math.exp(mode.log_evidence - total) * mode.mcse for mode in ordered if mode.mcse != math.inf]
        replicates = tuple(value for mode in ordered for value in mode.replicates)
        return cls(log_evidence=total, mcse=math.hypot(*errors), replicates=replicates, modes=tuple(ordered), **rest)

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """The interval that holds log p(X) at this level of confidence, by Student's quantile.

        It covers Monte Carlo error only, not what every replicate gets wrong in the same way.

        Raises:
            ValueError: the level is not between 0 and 1.
        """
        if not 0 < level < 1:
            raise ValueError(f"level is {level!r}; it must lie between 0 and 1")
        decide = self.modes[0].replicates if self.modes else self.replicates
        half = float(student.ppf(0.5 + level / 2, max(1, len(decide) - 1))) * self.mcse
        return self.log_evidence - half, self.log_evidence + half

    def lead_over(self, other: Evidence) -> tuple[float, float]:
        """log p(X) less another's, and the difference's standard error."""
        return self.log_evidence - other.log_evidence, math.hypot(self.mcse, other.mcse)

    def is_clearly_better_than(self, other: Evidence) -> bool:
        """Whether the lead is above twice its standard error and a tenth of the wider gap together, and above log 20.

        The last asks for posterior odds of twenty to one. Where one of both has failed there is no lead.
        """
        lead, error = self.lead_over(other)
        certain = not self.failed and not other.failed
        return certain and lead > CLEAR and lead > 2 * (error + max(self.gap, other.gap) / 10)

    def __str__(self) -> str:
        low, high = self.interval()
        sentence = (
            f"log p(X) = {self.log_evidence:.2f} ± {self.mcse:.2g} at rank {self.rank} (95 % interval {low:.2f} to "
            f"{high:.2f}; {self.method}, {len(self.replicates)} replicates, {self.seconds:.1f} s) under the priors "
            f"{describe(self.priors)}."
        )
        several = [_several(self.modes)] if len(self.modes) > 1 else []
        failure = [f"It has failed: {self.failed}."] if self.failed else []
        return " ".join([sentence, *several, *failure, *(f"Warning: {warning}." for warning in self.warnings)])


def _several(modes: Sequence[Mode]) -> str:
    """How many modes were found, and how much each holds."""
    below = ", ".join(f"{modes[0].log_evidence - mode.log_evidence:.4g}" for mode in modes[1:])
    return (
        f"It is the sum over {len(modes)} distinct modes; beside the heaviest, the others' logs lie {below} nats lower."
    )


def why_failed(method: str, replicates: Sequence[float], greatest: float, gap: float = 0.0) -> str:
    """Why an estimate cannot be one of log p(X), and what to try; empty where nothing speaks against it.

    log p(X) is the log of the mean of p(X | θ) over the prior, so it lies below the greatest log likelihood.

    Args:
        greatest: the greatest log likelihood met.
        gap: between the ends of the widest stage's bracket.
    """
    top, apart = max(replicates), max(replicates) - min(replicates)
    if not math.isfinite(sum(replicates)):
        why = "an estimate is not finite"
    elif top > greatest:
        why = f"an estimate of {top:.6g} lies above the greatest log likelihood met, {greatest:.6g}, which no evidence can"
    elif apart > MOST_APART:
        why = f"the replicates lie {apart:.4g} nats apart (limit {MOST_APART:g})"
    elif gap > MOST_APART:
        why = f"forward and reverse ordinates of one stage lie {gap:.4g} nats apart (limit {MOST_APART:g})"
    else:
        return ""
    return f"{why}; try {NEXT.get(method, 'another method')}"


def priors_of(model: Model) -> dict[str, Any]:
    """The model's hyperparameters but for its rank: numbers, and for tables their values as nested lists."""
    config = model.config()
    if config.get("sigma2") is not None:
        config = {name: value for name, value in config.items() if name not in ("noise_shape", "noise_scale")}
    return {k: v.tolist() if isinstance(v, Tensor) else v for k, v in config.items() if k != "rank"}


def describe(priors: Mapping[str, Any]) -> str:
    """The priors in a line; tables of rates by their range.

    >>> describe({"rate_W": 1.0, "rate_H": [0.5, 2.0]})
    'rate_W = 1, rate_H = 0.5 to 2 (one per component or entry)'
    """
    return ", ".join(f"{name} = {_value(value)}" for name, value in priors.items())


def _value(value: Any) -> str:
    if isinstance(value, list):
        flat = [leaf for leaf in _flat(value) if not math.isnan(leaf)]  # as entries are that are not known
        return f"{min(flat):.4g} to {max(flat):.4g} (one per component or entry)"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _flat(values: list[Any]) -> list[float]:
    return [leaf for value in values for leaf in (_flat(value) if isinstance(value, list) else [value])]
