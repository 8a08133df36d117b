"""Intervals and tests against scipy, and their coverage where the truth is known."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from nucleate.errors import NucleateError
from nucleate.evaluation.statistics import (
    bootstrap_ci,
    bootstrap_indices,
    difference,
    mean_metric,
    paired_difference,
    proportion,
    wilson_interval,
)


@pytest.mark.parametrize(("successes", "n"), [(0, 7), (1, 7), (37, 100), (9_685, 10_000), (12, 12)])
def test_wilson_interval_is_scipys(successes: int, n: int) -> None:
    expected = scipy.stats.binomtest(successes, n).proportion_ci(method="wilson")
    found = wilson_interval(successes, n)
    assert found == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_interval_covers_where_the_normal_one_does_not() -> None:
    # Exact coverage by summing the binomial over all outcomes.
    n, p = 20, 0.96
    weights = scipy.stats.binom.pmf(np.arange(n + 1), n, p)
    ends = [wilson_interval(k, n) or (0, 0) for k in range(n + 1)]
    coverage = sum(w for w, (low, high) in zip(weights, ends) if low <= p <= high)
    shares = np.arange(n + 1) / n
    half = 1.96 * np.sqrt(shares * (1 - shares) / n)
    naive = sum(w for w, s, h in zip(weights, shares, half) if s - h <= p <= s + h)
    assert coverage > 0.93
    assert naive < 0.6


@pytest.mark.parametrize("statistic", [np.mean, np.median, np.std])
def test_bootstrap_interval_is_scipys(statistic: object, rng: np.random.Generator) -> None:
    sample = rng.lognormal(size=200)
    expected = scipy.stats.bootstrap(
        (sample,), statistic, n_resamples=8000, method="percentile", rng=np.random.default_rng(5)
    )
    found = bootstrap_ci(sample, statistic, resamples=8000)  # type: ignore[arg-type]
    assert found is not None
    width = expected.confidence_interval.high - expected.confidence_interval.low
    assert found[0] == pytest.approx(expected.confidence_interval.low, abs=0.04 * width)
    assert found[1] == pytest.approx(expected.confidence_interval.high, abs=0.04 * width)


def test_bootstrap_in_blocks_is_the_bootstrap(
    monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    sample = rng.normal(size=50)
    whole = bootstrap_ci(sample, seed=3)
    monkeypatch.setattr("nucleate.evaluation.statistics._BLOCK", 500)
    assert bootstrap_ci(sample, seed=3) == pytest.approx(whole, abs=1e-12)
    assert bootstrap_ci(sample, seed=4) != whole
    assert bootstrap_ci([1.0]) is None


def test_bootstrap_of_a_ratio_leaves_out_empty_classes() -> None:
    flags = np.array([1.0] + [0.0] * 9)
    values = np.arange(10.0)

    def ratio(indices: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            return (flags[indices] * values[indices]).sum(-1) / flags[indices].sum(-1)

    assert bootstrap_indices(ratio, 10) == (0.0, 0.0)


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


def test_metrics_leave_out_what_was_not_measured_and_warn_of_few() -> None:
    share = proportion("validity", [True, False, None, True], protocol="p")
    assert (share.value, share.n) == (pytest.approx(2 / 3), 3)
    assert "only 3 crystals" in share.note
    mean = mean_metric("energy", [1.0, None, float("nan"), 3.0], protocol="p", unit="eV")
    assert (mean.value, mean.n) == (2.0, 2)
    empty = mean_metric("energy", [None], protocol="p")
    assert (empty.value, empty.ci95, empty.note) == (None, None, "no crystals")
    assert proportion("validity", [True, False] * 100, protocol="p").note == ""


def test_a_difference_of_shares_has_newcombes_interval() -> None:
    # Newcombe, Stat. Med. 17 (1998) 873, table II, contrast (a), method 10: 56/70 against 48/80
    found = difference(np.arange(70) < 56, np.arange(80) < 48)
    assert found.ci95 == pytest.approx((0.0524, 0.3339), abs=1e-4)
    # Where all are valid in both sets the bootstrap would have no width.
    whole = difference(np.ones(40), np.ones(40))
    assert whole.value == 0
    assert whole.ci95 is not None
    assert whole.ci95[0] < -0.05 < 0.05 < whole.ci95[1]


def test_a_mean_share_that_all_crystals_have_is_not_certain() -> None:
    found = mean_metric("rare", np.zeros(6), protocol="p", unit="share")
    assert found.ci95 == wilson_interval(0, 6)
    assert mean_metric("x", np.zeros(6), protocol="p", unit="Å").ci95 == (0.0, 0.0)
