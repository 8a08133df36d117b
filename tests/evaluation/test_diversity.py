"""Diversity against closed forms, enumeration and simulation."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from nucleate.errors import InvalidStructureError
from nucleate.evaluation.diversity import (
    diversity,
    entropy_deviation,
    gaussian_vendi_score,
    mean_pairwise_distance,
    rarefaction,
    vendi_score,
)


def test_effective_number_of_equally_frequent_kinds():
    found = diversity("abcd" * 500, reference="abcdefgh")
    assert found.distinct == 4
    assert found.effective == pytest.approx(4.0, rel=2e-3)
    assert found.coverage == 0.5
    assert found.unseen == 0
    assert diversity("a" * 50).effective == pytest.approx(1.0)
    assert diversity([]).distinct == 0


def test_correction_of_the_entropy_removes_most_of_its_bias(rng):
    p = np.arange(1, 41) / np.arange(1, 41).sum()
    true = np.exp(-(p @ np.log(p)))
    corrected, plain = [], []
    for _ in range(200):
        counts = np.unique(rng.choice(40, size=120, p=p), return_counts=True)[1] / 120
        plain.append(np.exp(-(counts @ np.log(counts))))
        corrected.append(diversity(rng.choice(40, size=120, p=p).tolist()).effective)
    assert abs(np.mean(corrected) - true) < 0.35 * abs(np.mean(plain) - true)


def test_unseen_kinds_are_bounded_from_below(rng):
    bounds = [diversity(rng.integers(0, 100, 100).tolist()) for _ in range(100)]
    assert np.mean([b.distinct + b.unseen for b in bounds]) == pytest.approx(100, rel=0.15)


@pytest.mark.parametrize(("groups", "size"), [(1, 12), (3, 4), (12, 1)])
def test_vendi_score_of_groups_is_their_number(groups, size):
    blocks = np.kron(np.eye(groups), np.ones((size, size)))
    assert vendi_score(blocks) == pytest.approx(groups)


def test_vendi_score_of_two_items_has_a_closed_form():
    s = 0.3
    half = np.array([(1 + s) / 2, (1 - s) / 2])
    assert vendi_score(np.array([[1, s], [s, 1.0]])) == pytest.approx(np.exp(-(half @ np.log(half))))
    distance = np.sqrt(-2 * np.log(s))
    assert gaussian_vendi_score(np.array([[0.0], [distance]]), width=1.0).value == pytest.approx(
        np.exp(-(half @ np.log(half)))
    )


def test_vendi_score_counts_copies_with_their_weight(rng):
    rows = rng.normal(size=(30, 4))
    copies = rows[rng.integers(0, 30, 90)]
    similarity = np.exp(-0.5 * ((copies[:, None] - copies) ** 2).sum(axis=2))
    assert gaussian_vendi_score(copies, width=1.0).value == pytest.approx(vendi_score(similarity), rel=1e-6)
    assert gaussian_vendi_score(rows * 1000, width=1.0).value == pytest.approx(30)
    with pytest.raises(InvalidStructureError, match="30"):
        gaussian_vendi_score(rows, width=1.0, largest=29)
    with pytest.raises(InvalidStructureError, match="ones on its diagonal"):
        vendi_score(np.zeros((3, 3)))


def test_mean_pairwise_distance():
    assert mean_pairwise_distance(np.array([[0.0], [3.0], [9.0]]))[0] == pytest.approx((3 + 9 + 6) / 3)
    assert np.isnan(mean_pairwise_distance(np.zeros((1, 2)))).all()
    assert np.isnan(mean_pairwise_distance(np.zeros((2, 2)))[1])


def _many(draw, measure, times=300):
    """(standard deviation of the values over many samples, mean of the deviation each sample states)."""
    values, stated = zip(*(measure(draw()) for _ in range(times)))
    return np.std(values), np.mean(stated)


def test_stated_deviations_are_those_of_many_samples(rng):
    p = np.arange(1, 16) / np.arange(1, 16).sum()

    def kinds():
        return rng.choice(15, size=200, p=p).tolist()

    true, stated = _many(kinds, lambda k: (np.log(diversity(k).effective), entropy_deviation(k)))
    assert stated == pytest.approx(true, rel=0.2)

    def features():
        return rng.normal(size=(80, 3)) * [1.0, 0.3, 2.0]

    true, stated = _many(features, mean_pairwise_distance)
    assert stated == pytest.approx(true, rel=0.2)

    def vendi(rows):
        score = gaussian_vendi_score(rows, width=1.0)
        return np.log(score.value), score.deviation

    true, stated = _many(features, vendi)
    assert stated == pytest.approx(true, rel=0.25)


def test_entries_of_one_crystal_are_not_draws_of_their_own(rng):
    p = np.arange(1, 16) ** 2 / (np.arange(1, 16) ** 2).sum()

    def crystals():
        return rng.choice(15, size=100, p=p)

    def thrice(found):
        entries, owners = np.repeat(found, 3).tolist(), np.repeat(np.arange(100), 3).tolist()
        return np.log(diversity(entries).effective), entropy_deviation(entries, owners=owners)

    true, stated = _many(crystals, thrice)
    assert stated == pytest.approx(true, rel=0.25)
    alone = entropy_deviation(np.repeat(crystals(), 3).tolist())
    assert alone < 0.75 * true  # counted as 300 crystals it would look surer than it is
    assert entropy_deviation([]) == entropy_deviation("aaaa") == 0.0


def test_rarefaction_is_the_mean_over_all_subsets():
    draws = "aaabbc"
    counts = [3, 2, 1]
    for k in range(1, 7):
        subsets = [len(set(s)) for s in combinations(draws, k)]
        assert rarefaction(counts, [k])[0] == pytest.approx(np.mean(subsets))
    with pytest.raises(InvalidStructureError, match="7"):
        rarefaction(counts, [7])
