"""What replicates of Chib's estimate find, each with its bracket; those of one mode, and of several runs together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Self

import torch
from arviz_stats.base import array_stats
from torch import Tensor

from ppnmf.evidence.chib.bridge import Stage
from ppnmf.evidence.chib.runs import Explored
from ppnmf.evidence.estimate import Mode

__all__ = ["Found"]

WIDE, WIDE_SUM = 3.0, 10.0  # nats between the ends of the bracket, of a stage and in all, that are a warning
FEW = 50  # draws that an average must at least be worth
AGREE = 1.01  # R-hat of the log joint over the replicates above which they do not agree


class Found(NamedTuple):
    """Of C replicates.

    Args:
        estimates: of log p(X), (C,). forward, reverse: by either end of the bracket, (C,).
        gaps: between the ends at each stage, (stages, C).
        effective: draws that each stage's means are worth, (stages, C).
        lp: of the draws of the posterior, (C, draws).
        greatest: log likelihood of a draw, of each replicate, (C,).
    """

    estimates: Tensor
    forward: Tensor
    reverse: Tensor
    gaps: Tensor
    effective: Tensor
    lp: Tensor
    greatest: Tensor

    @classmethod
    def of(cls, rest: Tensor, stages: list[Stage], explored: Explored, bridge: bool) -> Self:
        """From the log joint at θ* less the long factor's ordinate, (C,), and the stages.

        Args:
            bridge: estimate by it, else by the forward end.
        """
        forward = rest - sum(stage.forward for stage in stages)
        return cls(
            estimates=rest - sum(stage.bridge for stage in stages) if bridge else forward,
            forward=forward,
            reverse=rest - sum(stage.reverse for stage in stages),
            gaps=torch.stack([stage.gap for stage in stages]),
            effective=torch.stack([stage.effective for stage in stages]),
            lp=explored.lp,
            greatest=explored.greatest,
        )

    def some(self, replicates: Sequence[int]) -> Found:
        """Some of the replicates."""
        at = list(replicates)
        parts = {name: v[:, at] if name in ACROSS else v[at] for name, v in self._asdict().items()}
        return Found(**parts)

    def beside(self, other: Found) -> Found:
        """These and others."""
        own = zip(self._fields, self, other, strict=True)
        return Found(*(torch.cat([a, b], 1 if name in ACROSS else 0) for name, a, b in own))

    @property
    def stage_gaps(self) -> list[float]:
        """Mean over the replicates of each stage's gap."""
        return [float(gap.mean()) for gap in self.gaps]

    def mode(self, spread: float) -> Mode:
        """All of them as of one mode.

        Args:
            spread: standard deviation of a replicate's estimate, for one that is alone.
        """
        n = len(self.estimates)
        deviation = spread if n == 1 else float(self.estimates.numpy(force=True).std(ddof=1))
        values = self.estimates.tolist()
        return Mode(
            float(self.estimates.numpy(force=True).mean()), deviation / n**0.5, tuple(values), float(self.lp.mean())
        )

    @property
    def rhat(self) -> float | None:
        """R-hat of the log joint; None where there are too few draws, or chains, to tell."""
        if self.lp.shape[1] < 4 or len(self.lp) < 2:
            return None
        return float(array_stats.rhat(self.lp.cpu().numpy(), chain_axis=0, draw_axis=1))

    def doubts(self) -> tuple[str, ...]:
        """Sentences about replicates that do not agree, stages whose bracket is wide, and means that hang on few draws."""
        return (*self._of_chains(), *self._of_bracket())

    def _of_chains(self) -> tuple[str, ...]:
        if self.lp.shape[1] < 4:
            return ("too few draws to tell whether the chains agree",)
        if len(self.lp) < 2:
            return ("one replicate is alone in a mode that counts, so that its chain has none to agree with",)
        rhat = self.rhat
        if rhat is not None and rhat <= AGREE:
            return ()
        return (
            f"the chains do not agree (R-hat of the log joint is {rhat:.3f}, above {AGREE}): take more warmup and draws",
        )

    def _of_bracket(self) -> tuple[str, ...]:
        doubts, gaps = [], self.stage_gaps
        widest = max(gaps)
        if widest > WIDE or sum(gaps) > WIDE_SUM:
            stage = gaps.index(widest)
            what = "of the noise" if stage == 0 else f"of component {stage} of {len(gaps) - 1}"
            doubts.append(
                f"forward and reverse ordinates lie {sum(gaps):.1f} nats apart in all, {widest:.1f} at the stage {what} "
                f"(limits {WIDE_SUM:g} and {WIDE:g}): take more draws"
            )
        least = float(self.effective.min())
        if least < FEW:
            doubts.append(f"an ordinate hangs on {least:.0f} draws (limit {FEW}): take more draws")
        return tuple(doubts)


ACROSS = ("gaps", "effective")  # whose replicates are the second axis
