"""Curves of quality against the number of samples, against enumeration of all subsets."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from nucleate.errors import ConfigError
from nucleate.evaluation.sample_efficiency import best_of, distinct_hits, hits_per_cost, success_within


def test_success_within_k_is_the_mean_over_subsets():
    tries = [True, False, False, True, False, False]
    for k in range(1, 7):
        chance = np.mean([any(s) for s in combinations(tries, k)])
        assert success_within([2], [6], k)[0] == pytest.approx(chance)
    assert success_within([0, 6], [6, 6], 3).tolist() == pytest.approx([0.0, 1.0])
    with pytest.raises(ConfigError, match="got 6"):
        success_within([2], [6], 7)


def test_best_of_k_is_the_mean_over_subsets(rng):
    values = rng.normal(size=7)
    for k in range(1, 8):
        assert best_of(values, k) == pytest.approx(np.mean([min(s) for s in combinations(values, k)]))


def test_distinct_hits_are_the_mean_over_subsets():
    keys, hits = list("aabbcde"), np.array([1, 1, 1, 0, 0, 1, 1], dtype=bool)
    for k in range(8):
        subsets = combinations(zip(keys, hits), k)
        assert distinct_hits(keys, hits, [k])[0] == pytest.approx(
            np.mean([len({key for key, hit in s if hit}) for s in subsets])
        )
    assert distinct_hits(keys, np.zeros(7, dtype=bool), [3]).tolist() == [0.0]


def test_copies_cost_and_find_nothing_new():
    spent, found = hits_per_cost(list("aab"), np.array([True, True, True]), np.array([1.0, 2.0, 3.0]))
    assert spent.tolist() == [1, 3, 6]
    assert found.tolist() == [1, 1, 2]
    with pytest.raises(ConfigError, match="at least 0"):
        hits_per_cost(["a"], np.array([True]), np.array([-1.0]))
