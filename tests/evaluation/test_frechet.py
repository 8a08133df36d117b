"""The Fréchet distance against its closed form, and the estimate of its bias against what it must be."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import sqrtm

from nucleate.errors import InvalidStructureError
from nucleate.evaluation.frechet import frechet_distance, frechet_of, frechet_with_bias


def _published(x, y):
    """The formula as Heusel et al. wrote it, with a matrix square root."""
    cx, cy = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    mean = x.mean(axis=0) - y.mean(axis=0)
    return mean @ mean + np.trace(cx + cy - 2 * np.real(sqrtm(cx @ cy)))


def test_distance_is_that_of_the_published_formula(rng):
    x = rng.normal(size=(300, 6)) @ rng.normal(size=(6, 6))
    y = rng.normal(size=(200, 6)) @ rng.normal(size=(6, 6)) + 1.0
    assert frechet_distance(x, y) == pytest.approx(_published(x, y), rel=1e-8)


def test_distance_of_known_normals():
    # Samples with exactly these moments: the eigenvectors of a design, scaled.
    x = np.concatenate([np.eye(3), -np.eye(3)]) * np.sqrt(5 / 2)
    assert np.allclose(np.cov(x, rowvar=False), np.eye(3))
    scale = np.array([1.0, 2.0, 0.5])
    assert frechet_distance(x, x * scale + 2.0) == pytest.approx(12.0 + ((scale - 1) ** 2).sum())
    assert frechet_distance(x, x) == pytest.approx(0.0, abs=1e-12)


def test_fewer_rows_than_columns_is_no_special_case(rng):
    x, y = rng.normal(size=(10, 40)), rng.normal(size=(15, 40))
    assert frechet_distance(x, y) == pytest.approx(_published(x, y), rel=1e-3)


def test_bias_of_two_samples_of_one_distribution_is_found(rng):
    x, y = rng.normal(size=(400, 8)), rng.normal(size=(400, 8))
    found = frechet_with_bias(x, y, rng=rng)
    # The mean term alone has expectation 2 d / n; the whole is not 0 though the distributions are one.
    assert found.value > 2 * 8 / 400 / 2
    assert abs(found.unbiased) < 0.35 * found.value
    assert found.bias == pytest.approx(found.value, rel=0.35)
    assert found.split_half == pytest.approx(found.value, rel=0.35)


def test_bias_does_not_hide_a_true_distance(rng):
    x, y = rng.normal(size=(400, 8)) + 0.5, rng.normal(size=(400, 8))
    found = frechet_with_bias(x, y, rng=rng)
    assert found.unbiased == pytest.approx(8 * 0.25, abs=0.6)  # three deviations of the squared mean
    assert found.split_half < 0.2 * found.value


def test_stated_deviation_is_that_of_many_sets(rng):
    y = rng.normal(size=(300, 5))
    sets = [rng.normal(size=(150, 5)) + 0.4 for _ in range(60)]
    found = [frechet_with_bias(x, y, rng=rng, repeats=1) for x in sets[:12]]
    true = np.std([frechet_distance(x, y) for x in sets], ddof=1)
    assert np.mean([f.deviation for f in found]) == pytest.approx(true, rel=0.3)
    assert all(f.unbiased_deviation > f.deviation for f in found)


def test_any_callable_makes_features(rng):
    words = [list(rng.integers(0, 9, 5)) for _ in range(60)]
    found = frechet_of(lambda items: np.array(items, dtype=float), words[:30], words[30:], rng=rng)
    assert (found.n, found.m, found.num_features) == (30, 30, 5)

    def sometimes(items):
        return np.array([[np.nan] * 2 if i < 25 else [1.0, i] for i in range(len(items))])

    with pytest.raises(InvalidStructureError, match="at least eight rows"):
        frechet_of(sometimes, words[:30], words[30:], rng=rng)
