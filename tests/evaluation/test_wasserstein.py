"""The Wasserstein distance against SciPy's, its noise against simulation, its interval against coverage."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import wasserstein_distance as scipy_distance

from nucleate.errors import InvalidStructureError
from nucleate.evaluation.wasserstein import expected_noise, wasserstein_distance, wasserstein_interval


@pytest.mark.parametrize(("n", "m"), [(1, 1), (5, 300), (300, 7), (250, 250)])
def test_distance_is_that_of_scipy(rng, n, m):
    for a, b in [
        (rng.normal(size=n), rng.gamma(2.0, size=m)),
        (rng.integers(1, 6, n).astype(float), rng.integers(2, 8, m).astype(float)),  # ties
    ]:
        assert wasserstein_distance(a, b) == pytest.approx(scipy_distance(a, b), abs=1e-12)


def test_distance_of_a_shift_is_the_shift(rng):
    a = rng.normal(size=400)
    assert wasserstein_distance(a + 3.25, a) == pytest.approx(3.25)
    assert wasserstein_distance(a, a[::-1].copy()) == 0


def test_noise_is_that_of_simulated_perfect_draws(rng):
    reference = rng.gamma(2.0, 2.0, size=800)
    found = [
        wasserstein_distance(rng.gamma(2.0, 2.0, size=200), rng.gamma(2.0, 2.0, size=800)) for _ in range(200)
    ]
    assert expected_noise(reference, 200) == pytest.approx(np.mean(found), rel=0.1)


def test_interval_holds_the_true_distance(rng):
    # A normal shifted by 1: the true distance is 1. The reference is long, so only the set has noise.
    reference = np.quantile(rng.normal(size=200_000), np.linspace(0.0005, 0.9995, 1000))
    held = 0
    for _ in range(100):
        ends = wasserstein_interval(rng.normal(1.0, size=80), reference, rng=rng, resamples=200)
        held += ends[0] <= 1.0 <= ends[1]
    assert held >= 88


def test_interval_of_equal_samples_reaches_zero_only_at_the_low_end(rng):
    a = rng.normal(size=300)
    low, high = wasserstein_interval(a, a, rng=rng, resamples=200)
    assert low == 0
    assert 0 < high < 0.15
    assert wasserstein_interval(a[:1], a, rng=rng) is None


def test_values_that_are_no_numbers_are_refused():
    with pytest.raises(InvalidStructureError, match="1 of them"):
        wasserstein_distance(np.array([1.0, np.nan]), np.array([1.0]))
    with pytest.raises(InvalidStructureError, match="has 0 values"):
        wasserstein_distance(np.array([1.0]), np.array([]))
