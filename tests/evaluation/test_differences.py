"""Differences of two sets against scipy, published intervals, and where nothing varies."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.optimize
import scipy.stats

from nucleate.errors import NucleateError
from nucleate.evaluation.differences import difference, paired_difference, tango_interval
from nucleate.evaluation.statistics import Z95


def test_independent_permutation_is_scipys(rng: np.random.Generator) -> None:
    a, b = rng.normal(0.0, 1.0, 60), rng.normal(0.45, 1.0, 45)
    expected = scipy.stats.permutation_test(
        (a, b),
        lambda x, y, axis: x.mean(axis=axis) - y.mean(axis=axis),
        vectorized=True,
        n_resamples=5000,
        rng=np.random.default_rng(2),
    )
    found = difference(a, b, resamples=5000)
    assert found.p_value == pytest.approx(expected.pvalue, abs=0.015)
    assert found.value == pytest.approx(a.mean() - b.mean())
    assert found.ci95 is not None
    welch = scipy.stats.ttest_ind(a, b, equal_var=False).confidence_interval()
    assert found.ci95 == pytest.approx((welch.low, welch.high), abs=0.05)


def test_flags_are_relabelled_exactly() -> None:
    a, b = np.arange(23) < 15, np.arange(31) < 11
    expected = scipy.stats.permutation_test(
        (a.astype(float), b.astype(float)),
        lambda x, y, axis: np.abs(x.mean(axis=axis) - y.mean(axis=axis)),
        vectorized=True,
        alternative="greater",  # of the absolute difference: scipy's two-sided value doubles the smaller tail
        n_resamples=40000,
        rng=np.random.default_rng(2),
    )
    assert difference(a, b).p_value == pytest.approx(expected.pvalue, abs=0.004)
    assert difference(a, a).p_value == pytest.approx(1)


def test_paired_permutation_is_scipys_and_sees_what_the_unpaired_one_misses(rng: np.random.Generator) -> None:
    common = rng.normal(0, 5, 40)
    a, b = common + rng.normal(0.3, 0.3, 40), common + rng.normal(0, 0.3, 40)
    expected = scipy.stats.permutation_test(
        (a, b),
        lambda x, y, axis: (x - y).mean(axis=axis),
        vectorized=True,
        permutation_type="samples",
        n_resamples=5000,
        rng=np.random.default_rng(2),
    )
    paired = paired_difference(a, b, resamples=5000)
    assert paired.p_value == pytest.approx(expected.pvalue, abs=0.005)
    unpaired = difference(a, b)
    assert paired.p_value is not None
    assert unpaired.p_value is not None
    assert paired.p_value < 0.01 < 0.3 < unpaired.p_value
    with pytest.raises(NucleateError, match="equal length, got 40 and 39"):
        paired_difference(a, b[1:])


def test_equal_sets_do_not_differ(rng: np.random.Generator) -> None:
    a = rng.random(200) < 0.5
    same = difference(a, a)
    assert same.value == 0
    assert same.p_value == pytest.approx(1)
    assert same.ci95 is not None
    assert same.ci95[0] < 0 < same.ci95[1]


def test_a_statistic_other_than_the_mean_is_compared(rng: np.random.Generator) -> None:
    narrow, wide = rng.normal(0, 1, 300), rng.normal(0, 2, 300)
    spread = difference(wide, narrow, statistic=lambda v: float(v.std()))
    means = difference(wide, narrow)
    assert spread.p_value is not None
    assert means.p_value is not None
    assert spread.p_value < 0.01 < means.p_value


def test_a_difference_of_shares_has_newcombes_interval() -> None:
    # Newcombe, Stat. Med. 17 (1998) 873, table II, contrast (a), method 10: 56/70 against 48/80
    found = difference(np.arange(70) < 56, np.arange(80) < 48)
    assert found.ci95 == pytest.approx((0.0524, 0.3339), abs=1e-4)
    # Where all are valid in both sets the bootstrap would have no width.
    whole = difference(np.ones(40), np.ones(40))
    assert whole.value == 0
    assert whole.ci95 is not None
    assert whole.ci95[0] < -0.05 < 0.05 < whole.ci95[1]


def pairs(both: int, only_a: int, only_b: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    """Flags of two sets on the same questions."""
    a = [1] * both + [1] * only_a + [0] * only_b + [0] * neither
    b = [1] * both + [0] * only_a + [1] * only_b + [0] * neither
    return np.array(a, float), np.array(b, float)


def test_paired_shares_have_tangos_interval() -> None:
    # Fagerland, Lydersen and Laake, Stat. Med. 33 (2014) 2850, table of Bentur et al. (2009): 1, 1 | 7, 12.
    found = paired_difference(*pairs(1, 1, 7, 12))
    assert found.ci95 == pytest.approx((-0.517, -0.026), abs=5e-4)
    assert found.value == pytest.approx(-6 / 21)
    assert found.paired


@pytest.mark.parametrize(("b", "c", "n"), [(1, 7, 21), (40, 20, 160), (0, 3, 30), (5, 0, 5), (0, 0, 12)])
def test_the_ends_are_where_the_score_test_refuses(b: int, c: int, n: int) -> None:
    """The most likely shares under a difference are searched for numerically, not by the closed form."""

    def score(delta: float) -> float:
        def unlikely(q: float) -> float:
            shares = np.array([q + delta, q, 1 - 2 * q - delta])
            counts = np.array([b, c, n - b - c])
            return -float((counts[counts > 0] * np.log(np.maximum(shares[counts > 0], 1e-300))).sum())

        least, most = max(0.0, -delta), (1 - delta) / 2
        q = scipy.optimize.minimize_scalar(
            unlikely, bounds=(least, most), method="bounded", options={"xatol": 1e-12}
        ).x
        return (b - c - n * delta) / np.sqrt(n * (2 * q + delta - delta**2))

    low, high = tango_interval(b, c, n)
    if b < n:
        assert score(high) == pytest.approx(-Z95, abs=1e-3)
    if c < n:
        assert score(low) == pytest.approx(Z95, abs=1e-3)
    assert tango_interval(c, b, n) == pytest.approx((-high, -low), abs=1e-9)


def test_pairs_that_all_agree_are_not_certain() -> None:
    """Found in a comparison of two sets that matched the same test structures: the interval had no width."""
    n = 30
    same = paired_difference(*pairs(20, 0, 0, 10))
    half = Z95**2 / (n + Z95**2)
    assert same.value == 0
    assert same.ci95 == pytest.approx((-half, half), abs=1e-9)
    assert same.p_value == 1
    opposite = paired_difference(*pairs(0, n, 0, 0))
    assert opposite.ci95 is not None
    assert opposite.ci95[0] < 0.9
    assert opposite.ci95[1] == 1
    assert opposite.p_value == pytest.approx(scipy.stats.binomtest(n, n).pvalue)


def test_tangos_interval_covers_where_the_bootstrap_does_not() -> None:
    """Exact coverage over all outcomes of 15 pairs, where few pairs differ."""
    n, p_a, p_b = 15, 0.06, 0.02
    tango = bootstrap = 0.0
    for b in range(n + 1):
        for c in range(n + 1 - b):
            weight = scipy.stats.multinomial.pmf([b, c, n - b - c], n, [p_a, p_b, 1 - p_a - p_b])
            if weight < 1e-4:
                continue
            low, high = tango_interval(b, c, n)
            tango += weight * (low <= p_a - p_b <= high)
            d = np.repeat([1.0, -1.0, 0.0], [b, c, n - b - c])
            drawn = np.random.default_rng(0).choice(d, size=(400, n)).mean(axis=1)
            ends = np.quantile(drawn, [0.025, 0.975])
            bootstrap += weight * (ends[0] <= p_a - p_b <= ends[1])
    assert tango > 0.93
    assert bootstrap < 0.75


def test_mcnemars_p_value_is_exact_and_has_no_floor() -> None:
    found = paired_difference(*pairs(3, 25, 9, 40))
    assert found.p_value == pytest.approx(scipy.stats.binomtest(9, 34).pvalue, rel=1e-9)
    clear = paired_difference(*pairs(100, 60, 2, 100))
    assert clear.p_value is not None
    assert clear.p_value < 1e-10


def test_pairs_that_differ_by_one_amount_have_no_interval(rng: np.random.Generator) -> None:
    a = rng.normal(size=40)
    for shift in (0.0, 0.7):
        found = paired_difference(a + shift, a)
        assert found.value == pytest.approx(shift)
        assert found.ci95 is None
        assert "no interval: all pairs differ by the same amount" in found.method
    assert paired_difference(a, a).p_value == 1
    some = paired_difference(a + 0.7 + 0.01 * rng.normal(size=40), a)  # a control
    assert some.ci95 is not None


def test_samples_in_which_nothing_varies_have_no_interval() -> None:
    found = difference(np.full(20, 0.3), np.full(30, 0.2))
    assert found.ci95 is None
    assert "nothing varies" in found.method
    assert found.p_value is not None
    assert found.p_value < 0.01


def test_a_clear_difference_survives_the_adjustment_for_many_metrics(rng: np.random.Generator) -> None:
    """A thousand relabellings end at p = 0.001, and sixty metrics would make 0.06 of it."""
    a, b = rng.normal(0, 1, 200), rng.normal(2, 1, 200)
    for found in (difference(a, b), paired_difference(a, b)):
        assert found.p_value is not None
        assert 100 * found.p_value < 0.05
    unclear = difference(a, a + 0.01)
    assert "1,000 relabellings" in unclear.method
