"""Schedules: the noise level at each time, t = 0 data and t = 1 noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from nucleate.processes.level_table import LevelTable
from nucleate.shapes import Float

ScheduleName = Literal["linear", "cosine", "learned"]

EVENLY_SPREAD = 0.2
"""Share of the times that a learned schedule spreads evenly over all levels, whatever it has learned."""


@runtime_checkable
class Schedule(Protocol):
    """A monotone map of [0, 1] onto itself. Networks are told levels, so any schedule goes with any weights."""

    def level(self, time: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
        """Noise level (share of noise) at each time."""

    def slope(self, time: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
        """d level / d time: what a loss drawn at uniform times is weighed by to be the mean over all levels."""


@dataclass(frozen=True)
class LinearSchedule:
    """``l = t``."""

    def level(self, time: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
        """The time itself."""
        return time

    def slope(self, time: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
        """One."""
        return torch.ones_like(time)


@dataclass(frozen=True)
class CosineSchedule:
    """``alpha = cos(pi t / 2), sigma = sin(pi t / 2)`` of a variance-preserving path.

    As a level, ``l = sin / (sin + cos)``. Source: Nichol & Dhariwal, Improved denoising diffusion probabilistic models
    (2021), eq. 17, without the offset.
    """

    def level(self, time: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
        """The share of the sine."""
        angle = time * (torch.pi / 2)
        # cos(pi / 2) is 6e-17 in float64: the ends are set exactly
        level = angle.sin() / (angle.sin() + angle.cos())
        return torch.where(time >= 1, torch.ones_like(level), level)

    def slope(self, time: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
        """``(pi / 2) / (sin + cos)^2``."""
        angle = time * (torch.pi / 2)
        return (torch.pi / 2) / (angle.sin() + angle.cos()) ** 2


@dataclass(frozen=True, eq=False)
class LearnedSchedule:
    """Times spread over the levels in proportion to the loss there, so that each moment costs the same.

    With the mean loss L(l) of every level bin, learned while the network trains, and ``epsilon`` = ``EVENLY_SPREAD``,

        dt / dl = (1 - epsilon) L(l) / int L + epsilon ,

    a piecewise linear monotone map. Drawn at uniform times and weighed by ``slope``, the loss keeps its mean over all
    levels and loses the variance that comes from the levels, which is what a learned schedule is for in Kingma et al.,
    Variational diffusion models (2021), section 5.1. Dieleman et al., Continuous diffusion for categorical data (2022),
    section 4.2, fit theirs in the same way. Before anything is learned it is the linear schedule.

    Attributes:
        table: mean loss by level.
    """

    table: LevelTable

    def _knots(self) -> tuple[Tensor, Tensor]:
        """(times, levels) of the corners."""
        loss = self.table.means()[:, 0].double()
        even = torch.full_like(loss, 1 / len(loss))
        share = loss / loss.sum() if float(loss.sum()) > 0 else even
        density = (1 - EVENLY_SPREAD) * share + EVENLY_SPREAD * even
        times = torch.cat([density.new_zeros(1), density.cumsum(0)])
        levels = torch.linspace(0, 1, len(times), dtype=times.dtype, device=times.device)
        return times / times[-1], levels

    def _piece(self, time: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        times, levels = (x.to(time.device) for x in self._knots())
        at = (torch.searchsorted(times, time.double(), right=True) - 1).clamp(0, len(times) - 2)
        return times[at], times[at + 1], levels[at], levels[at + 1]

    def level(self, time: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
        """Piecewise linear between the corners."""
        begin, end, low, high = self._piece(time)
        return (low + (high - low) * (time.double() - begin) / (end - begin)).to(time.dtype)

    def slope(self, time: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
        """Width of the level bin over the time spent in it."""
        begin, end, low, high = self._piece(time)
        return ((high - low) / (end - begin)).to(time.dtype)


def make_schedule(name: ScheduleName, table: LevelTable | None = None) -> Schedule:
    """The schedule of a name; the learned one reads its table."""
    if name == "linear":
        return LinearSchedule()
    if name == "cosine":
        return CosineSchedule()
    return LearnedSchedule(table if table is not None else LevelTable(1))
