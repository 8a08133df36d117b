"""Distances of space groups against scipy, and what each of them sees."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon
from scipy.stats import chisquare, wasserstein_distance

from nucleate.evaluation.space_group_distance import (
    MEASURES,
    chi_square,
    group_shares,
    jensen_shannon,
    number_wasserstein,
    resampled_spread,
    total_variation,
)


@pytest.fixture
def numbers() -> tuple[np.ndarray, np.ndarray]:
    """Groups of a set and of a reference; the set has two groups that the reference lacks."""
    rng = np.random.default_rng(0)
    reference = rng.choice([1, 2, 12, 14, 62, 139, 194, 221, 225], size=900)
    found = rng.choice([1, 1, 14, 62, 166, 225, 227], size=300)
    return found, reference


def test_chi_square_is_that_of_the_published_code(numbers: tuple[np.ndarray, np.ndarray]) -> None:
    found, reference = numbers
    groups = np.unique(reference)
    expected = np.array([(reference == g).mean() for g in groups])
    observed = np.array([(found == g).sum() for g in groups], dtype=float)
    statistic = chisquare(observed / observed.sum(), f_exp=expected).statistic
    assert chi_square(group_shares(found), group_shares(reference)) == pytest.approx(statistic)


def test_other_distances_are_scipys(numbers: tuple[np.ndarray, np.ndarray]) -> None:
    found, reference = numbers
    p, q = group_shares(found), group_shares(reference)
    assert jensen_shannon(p, q) == pytest.approx(jensenshannon(p, q, base=2))
    assert number_wasserstein(p, q) == pytest.approx(wasserstein_distance(found, reference))
    assert total_variation(p, q) == pytest.approx(np.abs(p - q).sum() / 2)


@pytest.mark.parametrize("measure", MEASURES, ids=lambda m: m.name)
def test_zero_for_the_same_and_more_for_less_symmetry(measure: object) -> None:
    rng = np.random.default_rng(1)
    reference = rng.choice([1, 12, 62, 194, 225], p=[0.02, 0.18, 0.3, 0.2, 0.3], size=4000)
    shares = group_shares(reference)
    assert measure.distance(shares, shares) == pytest.approx(0, abs=1e-7)
    sample = group_shares(rng.choice(reference, size=1000))
    broken = reference.copy()
    broken[:2000] = 1  # negative control: half of the crystals lose their symmetry
    assert measure.distance(group_shares(broken), shares) > 5 * measure.distance(sample, shares)


def test_disjoint_sets() -> None:
    p, q = group_shares(np.array([1, 1])), group_shares(np.array([225]))
    assert jensen_shannon(p, q) == pytest.approx(1)
    assert total_variation(p, q) == pytest.approx(1)
    assert np.isnan(chi_square(p, q))


def test_spread_shrinks_with_the_root_of_the_sample(numbers: tuple[np.ndarray, np.ndarray]) -> None:
    found, reference = numbers
    shares = group_shares(reference)

    def spread(values: np.ndarray) -> float:
        rng = np.random.default_rng(2)
        return resampled_spread(values, shares, number_wasserstein, rng=rng, resamples=400)

    # The distance of group numbers is smooth where the sets lie apart, so the square root law holds.
    assert spread(np.tile(found, 16)) == pytest.approx(spread(found) / 4, rel=0.25)
    assert np.isnan(spread(found[:1]))
