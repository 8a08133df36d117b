"""Solvers: how far one step goes towards the guess at the clean end, from noise levels alone.

Everything is said of ``X = x / c(l) = (1 - l) x_0 + l noise`` (``noise_path``): there all paths are the straight one.
With D the guess at the clean end at level t, a step to level s < t is

    X_s = X_t + drift X_t + pull (D - X_t) + lean D' + jitter z ,     z standard normal,

D' the rate at which D changes with the level.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from nucleate.errors import ConfigError
from nucleate.shapes import Float

SolverName = Literal["ddim", "heun", "multistep", "ancestral", "sde"]


@dataclass(frozen=True)
class Solver:
    """One way to go from level to level.

    Attributes:
        name: what it is called in configurations.
        order: in the length of a step (of the distribution, where it draws noise).
        stochastic: whether it draws noise at every step.
        corrects: whether it looks a second time, at the end of the step.
    """

    name: SolverName
    order: int
    stochastic: bool
    corrects: bool


SOLVERS = {
    solver.name: solver
    for solver in (
        Solver("ddim", 1, stochastic=False, corrects=False),
        Solver("heun", 2, stochastic=False, corrects=True),
        Solver("multistep", 2, stochastic=False, corrects=False),
        Solver("ancestral", 1, stochastic=True, corrects=False),
        Solver("sde", 2, stochastic=True, corrects=False),
    )
}


def find_solver(name: str) -> Solver:
    """The solver of a name.

    Raises:
        ConfigError: there is none.
    """
    if name not in get_args(SolverName):
        raise ConfigError(f"There is no solver {name!r}; they are {', '.join(SOLVERS)}")
    return SOLVERS[name]  # type: ignore[index]


@dataclass(frozen=True, eq=False)
class Move:
    """Coefficients of one step for each crystal; see the module. ``drift`` is None where it is exactly 0."""

    drift: Float[Tensor, "n"] | None
    pull: Float[Tensor, "n"]
    lean: Float[Tensor, "n"]
    jitter: Float[Tensor, "n"]


def ode_move(now: Float[Tensor, "n"], then: Float[Tensor, "n"]) -> Move:
    """A step of the probability flow with D linear in the level: exact for such a D.

    ``dX / dl = (X - D) / l`` has the solution ``X_s = (s/t) X_t + s int_s^t D(l) / l^2 dl``; with
    ``D(l) = D + (l - t) D'``,

        pull = 1 - s / t ,   lean = s ln(t / s) + s - t .

    Without D' it is DDIM (Song et al. 2021, eq. 12 with sigma = 0), on the straight path the Euler step of flow
    matching. With D' from the step before, or from a look at the end of this one, it is an exponential integrator of
    second order like DPM-Solver++ 2M and 2S (Lu et al. 2022), which take D linear in the log signal-to-noise ratio;
    linear in the level it is finite at pure noise and at the data.
    """
    pull = (now - then) / now
    lean = torch.xlogy(then, now / then.clamp(min=1e-300)) + then - now
    return Move(None, pull, lean, torch.zeros_like(now))


def sde_move(now: Float[Tensor, "n"], then: Float[Tensor, "n"]) -> Move:
    """A step of the reverse diffusion with D linear in the level: the posterior q(x_s | x_t, x_0) where D' is 0.

    Ancestral sampling (Ho et al. 2020, eq. 7), written for any two levels:

        a = (1 - t) / (1 - s) ,   b^2 = t^2 - a^2 s^2 ,
        X_s = (a s^2 / t^2) X_t + ((1 - s) b^2 / t^2) D + lean D' + (s b / t) z ,

    and, from ``x = X / (1 - l)``, ``v = (l / (1 - l))^2``, ``dx = (x - D) / v dv + noise``,

        lean = (1 - s) v_s int_{v_s}^{v_t} (l - t) / v^2 dv
             = (2 s^2 / (1 - s)) [ -ln(t / s) - (1 + t)(1/t - 1/s) + (t / 2)(1/t^2 - 1/s^2) ] ,

    the stochastic counterpart of ``ode_move`` (SDE-DPM-Solver++ 2M, Lu et al. 2022, in another variable).
    """
    ratio = (1 - now) / (1 - then)
    fresh = (now**2 - (ratio * then) ** 2).clamp(min=0)
    keep = ratio * then**2 / now**2
    pull = (1 - then) * fresh / now**2
    # each term is multiplied by s^2 before it can become infinite at s = 0
    inside = (
        -then * torch.xlogy(then, now / then.clamp(min=1e-300))
        - (1 + now) * (then**2 / now - then)
        + 0.5 * now * (then**2 / now**2 - 1)
    )
    lean = 2 * inside / (1 - then)
    return Move(keep + pull - 1, pull, lean, then * fresh.sqrt() / now)
