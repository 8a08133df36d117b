from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from scipy.optimize import rosen, rosen_der

from nucleate.energetics.quasi_newton import QuasiNewton


def minimise(function, gradient, start, *, hessian=None, size=None, noise=1e-12, most=300):
    n = len(start)
    optimiser = QuasiNewton(
        start,
        hessian=np.eye(n) if hessian is None else hessian,
        metric=np.eye(n),
        size=size or (lambda point, step: float(np.linalg.norm(step)) / 0.5),
        noise=noise,
    )
    optimiser.start(function(start), gradient(start))
    evaluations = 0
    while evaluations < most:
        evaluations += 1
        x = optimiser.propose()
        optimiser.observe(function(x), gradient(x))
        if np.linalg.norm(gradient(optimiser.point)) < 1e-6 or optimiser.stalled:
            break
    return optimiser, evaluations


def test_a_quadratic_with_its_own_hessian_takes_one_step(rng: np.random.Generator) -> None:
    factor = rng.normal(size=(6, 6))
    hessian = factor @ factor.T + np.eye(6)
    minimum = 0.01 * rng.normal(size=6)
    optimiser, evaluations = minimise(
        lambda x: 0.5 * (x - minimum) @ hessian @ (x - minimum),
        lambda x: hessian @ (x - minimum),
        np.zeros(6),
        hessian=hessian,
    )
    assert evaluations == 1
    np.testing.assert_allclose(optimiser.point, minimum, atol=1e-12)


def test_a_quadratic_with_another_hessian_is_found_too(rng: np.random.Generator) -> None:
    factor = rng.normal(size=(6, 6))
    hessian = factor @ factor.T + np.eye(6)
    optimiser, evaluations = minimise(
        lambda x: 0.5 * x @ hessian @ x, lambda x: hessian @ x, 0.3 * rng.normal(size=6)
    )
    assert evaluations < 40
    np.testing.assert_allclose(optimiser.point, 0, atol=1e-5)


@pytest.mark.parametrize("n", [2, 6])
def test_rosenbrock(n: int) -> None:
    optimiser, _ = minimise(rosen, rosen_der, np.full(n, -0.7), hessian=100 * np.eye(n))
    np.testing.assert_allclose(optimiser.point, 1.0, atol=1e-4)


def test_no_step_leaves_the_trust_region(rng: np.random.Generator) -> None:
    sizes = []

    def size(point: np.ndarray, step: np.ndarray) -> float:
        return float(np.linalg.norm(step)) / 0.1

    optimiser = QuasiNewton(np.ones(4), hessian=np.eye(4), metric=np.eye(4), size=size, noise=0.0)
    slope = 50 * rng.normal(size=4)
    optimiser.start(10.0, slope)
    for _ in range(5):
        trial = optimiser.propose()
        sizes.append(size(optimiser.point, trial - optimiser.point))
        assert not optimiser.observe(11.0, 1e4 * slope)  # uphill and steeper: taken back
    assert sizes[0] == pytest.approx(1.0, rel=0.2)
    assert all(after < before for before, after in pairwise(sizes))
    assert max(sizes) <= 1.0 + 1e-9
    np.testing.assert_array_equal(optimiser.point, 1.0)


def test_a_slope_that_lies_stalls_and_ends() -> None:
    optimiser, evaluations = minimise(
        lambda x: float(np.abs(x).sum()), lambda x: -np.sign(x) - 1e-3 * x, np.ones(2), noise=0.0
    )
    assert optimiser.stalled
    assert evaluations < 60
    np.testing.assert_array_equal(optimiser.point, 1.0)


def test_shortened_steps_lie_on_the_way() -> None:
    optimiser = QuasiNewton(
        np.zeros(2),
        hessian=np.eye(2),
        metric=np.eye(2),
        size=lambda p, s: float(np.linalg.norm(s)),
        noise=0.0,
    )
    optimiser.start(0.0, np.array([0.3, -0.4]))
    first = optimiser.propose()
    np.testing.assert_allclose(optimiser.shorten(), first / 2)
    np.testing.assert_allclose(optimiser.shorten(), first / 4)
