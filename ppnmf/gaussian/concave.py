"""Draws of t from a log-concave density by rejection: `kernels.cpu.concave` in torch, for many chains and any device.

References: Gilks and Wild (1992), doi:10.2307/2347565.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ppnmf.kernels.cpu.concave import ATTEMPTS, AWAY, CLOSE, FAR, FLAT, MOST_STEPS, NEAR, PATIENCE
from ppnmf.protocols import Address
from ppnmf.rng import Site

__all__ = ["Density"]


class Density(NamedTuple):
    """log density of t, Σ_j log Φ(z_j - t d_j) + slope t - square t² / 2 on [low, ∞): z, d (C, n), the others (C,)."""

    z: Tensor
    d: Tensor
    slope: Tensor
    square: Tensor
    low: Tensor

    def tangent(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Value, slope and curvature (of the opposite sign) at t (C,)."""
        x = self.z - t[:, None] * self.d
        value = torch.special.log_ndtr(x)
        hazard = self.d * torch.exp(-0.5 * x.square() - 0.5 * math.log(2 * math.pi) - value)
        bend = hazard * (self.d * x + hazard)
        at = value.sum(-1) + t * (self.slope - 0.5 * self.square * t)
        return at, self.slope - self.square * t - hazard.sum(-1), bend.sum(-1) + self.square

    def bound(self) -> Tensor:
        """Beyond which the mode cannot lie."""
        steepest = (self.slope - self.square * self.low)[:, None]
        falls = self.d > 0
        d = torch.where(falls, self.d, 1.0)
        each = torch.where(falls, (self.z + steepest / d) / d, torch.inf).amin(-1)
        curved = self.square > 0
        own = torch.where(curved, self.slope / torch.where(curved, self.square, 1.0), torch.inf)
        found = torch.maximum(torch.minimum(each, own), self.low)
        return torch.where(steepest[:, 0] > 0, found, self.low)

    def near_mode(self) -> Mode:
        """Each chain's own steps of Newton's method from 0, or from the wall where the density falls from there on."""
        falls = self.slope - self.square * self.low <= 0
        t = torch.where(falls, self.low, self.low.clamp(min=0))
        bound = self.bound()
        at, last = t, self.tangent(t)
        done = torch.zeros_like(falls)
        for _ in range(MOST_STEPS):
            _, slope, bend = last
            root = bend.clamp(min=0).sqrt()
            step = torch.where(bend > 0, slope / bend, torch.copysign(torch.full_like(slope, torch.inf), slope))
            limit = torch.where(step * root < FAR, torch.inf, bound)
            ahead = torch.maximum(torch.minimum(at + step, limit), self.low)
            cut = (ahead == limit) & (ahead < at + step)  # a step that was cut short has not arrived
            t = torch.where(done, t, ahead)
            done = done | (((t - at).abs() * root < CLOSE) & ~cut) | ~t.isfinite()
            if bool(done.all()):
                break
            at = torch.where(done, at, t)
            value, slope, bend = (torch.where(done, *pair) for pair in zip(last, self.tangent(at), strict=True))
            last = value, slope, bend
        rate = last[2].clamp(min=0) + torch.where(t == self.low, last[1], 0.0).square()
        usable = t.isfinite() & (rate > 0)
        return Mode(torch.where(usable, t, 0.0), torch.where(usable, rate.rsqrt(), 0.0), at, last)

    def sides(self) -> tuple[Tensor, Tensor, Tensor]:
        """Points about a width to the left of the mode, where the density rises or at its wall, and to the right, where it falls.

        Returns: both, and whether there is a density.
        """
        mode, width, at, last = self.near_mode()
        stride = torch.where(width > 0, width, 1.0)
        left = torch.where(
            self._serves(mode, width, at, -1) & (last[1] >= 0), at, torch.maximum(mode - width, self.low)
        )
        for _ in range(MOST_STEPS):
            rises = (self.tangent(left)[1] >= 0) | (left <= self.low)
            if bool(rises.all()):
                break
            stride = torch.where(rises, stride, 2 * stride)
            left = torch.where(rises, left, torch.maximum(mode - stride, self.low))
        stride = torch.where(width > 0, width, 1.0)
        right = torch.where(self._serves(mode, width, at, 1) & (last[1] < 0), at, mode + stride)
        for _ in range(MOST_STEPS):
            falls = self.tangent(right)[1] < 0
            if bool(falls.all()):
                break
            stride = torch.where(falls, stride, 2 * stride)
            right = torch.where(falls, right, mode + stride)
        return left, right, width > 0

    def tent(self, left: Tensor, right: Tensor, usable: Tensor) -> Tent:
        """What lies under the tangents at two points (C,)."""
        value_left, slope_left, _ = self.tangent(left)
        value_right, slope_right, _ = self.tangent(right)
        differ = slope_left > slope_right
        crossing = value_right - value_left + slope_left * left - slope_right * right
        cross = torch.where(differ, crossing / torch.where(differ, slope_left - slope_right, 1.0), right)
        cross = torch.minimum(torch.maximum(cross, left), right)
        top = value_left + slope_left * (cross - left)
        room = cross - self.low
        slope = torch.where(slope_left.abs() * room < FLAT, 0.0, slope_left)
        usable = usable & (slope_right < 0)
        return Tent(cross, top, slope, torch.where(usable, slope_right, -1.0), room, usable)

    @staticmethod
    def _serves(mode: Tensor, width: Tensor, at: Tensor, side: int) -> Tensor:
        """Whether a point lies about a width to this side of the mode, -1 or 1."""
        away = side * (at - mode)
        return (away > NEAR * width) & (away < AWAY * width)

    def drawn(self, at: Address, row: int) -> Tensor:
        """t (C,) by rejection, with closer tangents after `PATIENCE` points; 0 where there is no density."""
        left, right, usable = self.sides()
        tent = self.tent(left, right, usable)
        u = at.stream.uniforms(at.step, Site.COLLAPSED_SHEAR, range(row, row + 1), 2 * ATTEMPTS, tent.top.device)
        found = torch.zeros_like(tent.top)
        done = ~tent.usable
        for attempt in range(ATTEMPTS):
            away, height = tent.below(u[:, 0, 2 * attempt])
            t = tent.cross + away
            value, slope, _ = self.tangent(t)
            accepted = u[:, 0, 2 * attempt + 1].log() <= value - height
            found = torch.where(accepted & ~done, t, found)
            done = done | accepted
            if bool(done.all()):
                break
            if attempt >= PATIENCE:
                one = torch.where(slope >= 0, torch.maximum(left, t), left)
                other = torch.where(slope < 0, torch.minimum(right, t), right)
                closer = self.tent(one, other, usable)
                better = closer.log_mass() < tent.log_mass()
                left, right = torch.where(better, one, left), torch.where(better, other, right)
                tent = Tent(*(torch.where(better, new, old) for new, old in zip(closer, tent, strict=True)))
        return found


class Mode(NamedTuple):
    """A point near the mode, how wide the density is there, 0 where there is none, the last point on the way and its tangent."""

    t: Tensor
    width: Tensor
    at: Tensor
    last: tuple[Tensor, Tensor, Tensor]


class Tent(NamedTuple):
    """Two tangents that lie above a log density, which meet at `cross`, `top` high; all (C,).

    Args:
        left, right: their slopes. room: from low to `cross`. usable: whether there is a density.
    """

    cross: Tensor
    top: Tensor
    left: Tensor
    right: Tensor
    room: Tensor
    usable: Tensor

    @property
    def mass_left(self) -> Tensor:
        """Under the left one, over exp(top)."""
        flat = self.left == 0
        slope = torch.where(flat, 1.0, self.left)
        return torch.where(flat, self.room, -torch.expm1(-slope * self.room) / slope)

    def log_mass(self) -> Tensor:
        """Log of what lies under both."""
        return self.top + (self.mass_left - 1 / self.right).log()

    def below(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """A point drawn under the tent by a uniform, as its distance from `cross`, and the tent's height there."""
        flat = self.left == 0
        slope = torch.where(flat, 1.0, self.left)
        mass_left = self.mass_left
        mass_right = -1 / self.right
        place = u * (mass_left + mass_right)
        on_left = place < mass_left
        share = torch.where(on_left, place / mass_left, 0.5)
        back = torch.where(flat, -share * self.room, torch.log1p(share * torch.expm1(-slope * self.room)) / slope)
        beyond = torch.log1p(-torch.where(on_left, 0.0, place - mass_left) / mass_right) / self.right
        away = torch.where(on_left, torch.maximum(back, -self.room), beyond)
        return away, self.top + torch.where(on_left, self.left, self.right) * away
