"""Quasi-Newton minimisation that is asked for points and told values, so that many of them share one model call."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from nucleate.shapes import Float

Metric = Callable[[Float[np.ndarray, "x"], Float[np.ndarray, "x"]], float]

_DAMPING = 0.2  # Powell's: least share of the old curvature along a step that the new one may have
_SHRINK = 0.35
_GROW = 2.0
_LARGEST_REGION = 1.5
_SMALLEST_REGION = 1e-4


class QuasiNewton:
    """BFGS in a trust region, from a given guess of the second derivatives.

    At the best point x with gradient g the next point is ``x - (B + m M)^-1 g``, M a metric of steps and m the
    smallest number that keeps the step in the trust region. B is updated by BFGS with Powell's damping (Nocedal and
    Wright, Numerical Optimization, procedure 18.2), also after a step that is taken back, so that no evaluation
    is lost. A step is taken back if the energy rose by more than the noise while the gradient did not fall in the norm
    ``g B^-1 g``.

    Args:
        point: where to start.
        hessian: B to start from, positive definite.
        metric: M, positive definite.
        size: size of a step at a point in units of the largest a fresh model is trusted with.
        noise: energy differences below this mean nothing, eV.
    """

    def __init__(
        self,
        point: Float[np.ndarray, "x"],
        *,
        hessian: Float[np.ndarray, "x x"],
        metric: Float[np.ndarray, "x x"],
        size: Metric,
        noise: float,
    ) -> None:
        self.point = point
        self.accepted_steps = 0
        self._guess = hessian
        self._hessian = hessian.copy()
        self._metric = metric
        self._size = size
        self._noise = noise
        self._region = 1.0
        self._restarted = False
        self._energy = np.nan
        self._gradient = np.zeros_like(point)
        self._trial = point

    @property
    def stalled(self) -> bool:
        """Whether no step, however short, lowers the energy: what is left is the noise of the potential."""
        return self._region < _SMALLEST_REGION and self._restarted

    def start(self, energy: float, gradient: Float[np.ndarray, "x"]) -> None:
        """Take the values at the first point."""
        self._energy, self._gradient = energy, gradient

    def propose(self) -> Float[np.ndarray, "x"]:
        """The next point to evaluate."""
        if self._region < _SMALLEST_REGION and not self._restarted:
            self._hessian, self._region, self._restarted = self._guess.copy(), 0.1, True
        self._trial = self.point + self._step()
        return self._trial

    def shorten(self, factor: float = 0.5) -> Float[np.ndarray, "x"]:
        """A point nearer to the best one along the step proposed last, because the other could not be evaluated."""
        step = factor * (self._trial - self.point)
        self._region = self._size(self.point, step)
        self._trial = self.point + step
        return self._trial

    def observe(self, energy: float, gradient: Float[np.ndarray, "x"]) -> bool:
        """Take the values at the point proposed last; whether the step there is kept."""
        step, change = self._trial - self.point, gradient - self._gradient
        length = self._size(self.point, step)
        expected = float(self._gradient @ step + 0.5 * step @ self._hessian @ step)
        gained = energy - self._energy
        self._update(step, change)
        rose = gained > self._noise and not self._gradient_fell(gradient)
        if rose:
            self._region = _SHRINK * length
            return False
        if abs(gained - expected) < max(0.3 * abs(expected), self._noise):
            self._region = min(max(self._region, _GROW * length), _LARGEST_REGION)
        elif gained > 0.1 * expected and gained > self._noise:
            self._region = max(0.5 * length, _SMALLEST_REGION)
        self.point, self._energy, self._gradient = self._trial, energy, gradient
        self.accepted_steps += 1
        return True

    def _gradient_fell(self, gradient: Float[np.ndarray, "x"]) -> bool:
        factor = cho_factor(self._hessian)
        new, old = (float(g @ cho_solve(factor, g)) for g in (gradient, self._gradient))
        return new < old

    def _update(self, step: Float[np.ndarray, "x"], change: Float[np.ndarray, "x"]) -> None:
        image = self._hessian @ step
        curvature = float(step @ image)
        if curvature <= 0:
            return
        along = float(step @ change)
        if along < _DAMPING * curvature:
            share = (1 - _DAMPING) * curvature / (curvature - along)
            change = share * change + (1 - share) * image
            along = float(step @ change)
        updated = self._hessian - np.outer(image, image) / curvature + np.outer(change, change) / along
        try:
            cho_factor(updated)
        except LinAlgError:  # rounding; the old model stays
            return
        self._hessian = updated

    def _step(self) -> Float[np.ndarray, "x"]:
        step = -cho_solve(cho_factor(self._hessian), self._gradient)
        if self._size(self.point, step) <= self._region:
            return step
        low, high = 0.0, float(np.trace(self._hessian) / np.trace(self._metric))
        while self._size(self.point, self._shifted(high)) > self._region:
            low, high = high, 4.0 * high
        for _ in range(8):
            middle = 0.5 * high if low == 0 else float(np.sqrt(low * high))
            if self._size(self.point, self._shifted(middle)) > self._region:
                low = middle
            else:
                high = middle
        return self._shifted(high)

    def _shifted(self, shift: float) -> Float[np.ndarray, "x"]:
        return -cho_solve(cho_factor(self._hessian + shift * self._metric), self._gradient)
